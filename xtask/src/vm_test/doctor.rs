//! Reads what `ioscope doctor --json` found in a guest, and holds it against what its own table says.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// As far as it matters here.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Doctor {
    pub(super) problem: Option<String>,
    /// How long it took to load and attach all probes, and to take them away again.
    pub(super) attached_in_ms: Option<u64>,
    /// Of that, to take them away.
    pub(super) detached_in_ms: Option<u64>,
    pub(super) features: Vec<Item>,
    pub(super) hooks: Vec<Item>,
}

/// A feature, or what hooks are for.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Item {
    pub(super) name: String,
    pub(super) essential: bool,
    /// None for what was not tried.
    pub(super) works: Option<bool>,
    pub(super) detail: String,
    /// The first version of Linux that has it, as the table says: `5.15`.
    pub(super) since: Option<String>,
    /// Of hooks: ways that were tried in vain.
    #[serde(default)]
    pub(super) refused: Vec<Refused>,
    /// Of hooks: the way that is gone.
    pub(super) way: Option<String>,
    /// Of hooks: how many instructions the verifier went through to accept each program; none where the
    /// kernel does not tell.
    #[serde(default)]
    pub(super) programs: BTreeMap<String, Option<u64>>,
}

/// A way to hook that did not work.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Refused {
    pub(super) way: String,
    pub(super) since: Option<String>,
    pub(super) why: String,
}

impl Doctor {
    pub(super) fn parse(report: &Value) -> Option<Self> {
        Self::deserialize(report).ok()
    }

    /// What the table says and this kernel contradicts.
    pub(super) fn contradictions(&self, release: &str) -> Vec<String> {
        let mut found = Vec::new();
        for item in self.features.iter().chain(&self.hooks) {
            let due = item.since.as_deref().map(|since| version(release) >= version(since));
            match (item.works, due) {
                (Some(false), Some(true)) => found.push(format!(
                    "{} is missing on {release}, and the table has it since {}: {}",
                    item.name,
                    item.since.as_deref().unwrap_or_default(),
                    shortened(&item.detail)
                )),
                (Some(true), Some(false)) => found.push(format!(
                    "{} works on {release}, and the table has it only since {}",
                    item.name,
                    item.since.as_deref().unwrap_or_default()
                )),
                (Some(false), None) if item.essential => {
                    found.push(format!("{} is missing on {release}: {}", item.name, shortened(&item.detail)));
                }
                _ => {}
            }
            for Refused { way, since, why } in &item.refused {
                if let Some(since) = since.as_deref().filter(|since| version(release) >= version(since)) {
                    found.push(format!(
                        "{way} for {} is refused on {release}, and the table has it since {since}: {}",
                        item.name,
                        shortened(why)
                    ));
                }
            }
        }
        found
    }

    /// Whether ioscope does not trace, and the table says that on this kernel it cannot by this way.
    pub(super) fn is_known_not_to_work(&self, release: &str) -> bool {
        let too_old = |since: &String| version(release) < version(since);
        self.hooks.iter().any(|hook| {
            hook.essential && hook.works == Some(false) && hook.since.as_ref().is_some_and(too_old)
        })
    }

    /// The programs that were loaded, and what they cost the verifier.
    pub(super) fn programs(&self) -> impl Iterator<Item = (&str, Option<u64>)> {
        self.hooks.iter().flat_map(|hook| &hook.programs).map(|(name, count)| (name.as_str(), *count))
    }
}

/// A reason without what a verifier has written between its first line and its last ones.
fn shortened(detail: &str) -> String {
    let lines: Vec<&str> = detail.trim().lines().collect();
    match lines.as_slice() {
        [first, .., before_last, last] if lines.len() > 4 => format!("{first} … {before_last}; {last}"),
        _ => lines.join("; "),
    }
}

/// The first two numbers of a version.
pub(super) fn version(text: &str) -> (u32, u32) {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn doctor() -> Doctor {
        let report = json!({
            "schema": 1, "works": true, "problem": null,
            "features": [
                {"name": "a", "essential": true, "works": true, "detail": "yes", "since": "5.8"},
                {"name": "b", "essential": false, "works": false, "detail": "no", "since": "5.15"},
                {"name": "c", "essential": true, "works": false, "detail": "gone"},
            ],
            "hooks": [
                {"name": "h", "essential": true, "works": true, "detail": "", "way": "tracepoint", "since": "4.9",
                 "programs": {"p": 1200, "q": null},
                 "refused": [{"way": "fentry", "since": "6.4", "why": "no such function"}]},
            ],
        });
        Doctor::parse(&report).expect("it is a report")
    }

    #[test]
    fn what_the_table_promises_has_to_be_there() {
        let found = doctor().contradictions("5.10.0-46-cloud-amd64");
        assert_eq!(found, ["c is missing on 5.10.0-46-cloud-amd64: gone"]);
        let found = doctor().contradictions("6.1.0-56-cloud-amd64");
        assert_eq!(found.len(), 2);
        assert!(found[0].starts_with("b is missing on 6.1.0-56"), "{found:?}");
    }

    #[test]
    fn a_verifiers_log_is_shortened() {
        assert_eq!(shortened("no\n"), "no");
        assert_eq!(
            shortened("refused: 0: r6 = r1\n1\n2\n3\ntoo large\nprocessed 4\n"),
            "refused: 0: r6 = r1 … too large; processed 4"
        );
    }

    #[test]
    fn a_way_that_the_table_promises_has_to_work() {
        let found = doctor().contradictions("6.12.1");
        let expected = "fentry for h is refused on 6.12.1, and the table has it since 6.4: no such function";
        assert_eq!(found.last().map(String::as_str), Some(expected), "{found:?}");
    }

    #[test]
    fn what_works_too_early_is_a_mistake_in_the_table() {
        let found = doctor().contradictions("5.4.1");
        assert!(found[0].starts_with("a works on 5.4.1"), "{found:?}");
    }

    #[test]
    fn programs_are_those_of_all_hooks() {
        let doctor = doctor();
        let programs: Vec<_> = doctor.programs().collect();
        assert_eq!(programs, [("p", Some(1200)), ("q", None)]);
    }
}
