//! Reads what a guest writes, line by line: the results of the tests, the reports, and whether it came to its end.

use std::collections::BTreeMap;

use serde_json::Value;

use super::protocol::Event;

/// What came of one step.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Outcome {
    pub(super) step: String,
    /// None while it runs, and when a signal ended it.
    pub(super) code: Option<i32>,
    pub(super) seconds: f64,
    pub(super) too_long: bool,
    /// Tests, as the test harness counts them.
    pub(super) passed: u32,
    pub(super) failed: u32,
    /// The tests that said that they were skipped: their own words.
    pub(super) skipped: Vec<String>,
    /// The names of those that failed.
    pub(super) failures: Vec<String>,
}

impl Outcome {
    /// Whether all went well.
    pub(super) fn is_good(&self) -> bool {
        self.code == Some(0) && !self.too_long
    }
}

/// All that a guest has said.
#[derive(Debug, Default)]
pub(super) struct Transcript {
    pub(super) release: Option<String>,
    pub(super) cpus: usize,
    pub(super) clock_source: String,
    /// From the kernel's start to the first step.
    pub(super) boot_seconds: f64,
    pub(super) outcomes: Vec<Outcome>,
    /// Steps that were not run, since what they need is not there.
    pub(super) left_out: Vec<String>,
    pub(super) reports: BTreeMap<String, Value>,
    /// Whether all steps were done.
    pub(super) is_over: bool,
    /// Whether the lines are between two steps.
    between: bool,
}

impl Transcript {
    /// Takes a line. Returns it if a person may want to see it.
    pub(super) fn take<'a>(&mut self, line: &'a str) -> Option<&'a str> {
        match Event::parse(line) {
            Some(event) => {
                self.take_event(event);
                None
            }
            None if self.between && line.is_empty() => None,
            None => {
                self.take_output(line);
                Some(line)
            }
        }
    }

    fn take_event(&mut self, event: Event) {
        match event {
            Event::Booted { release, cpus, seconds, clock_source } => {
                self.release = Some(release);
                self.cpus = cpus;
                self.boot_seconds = seconds;
                self.clock_source = clock_source;
                self.between = true;
            }
            Event::Begin { step } => {
                self.outcomes.push(Outcome { step, ..Outcome::default() });
                self.between = false;
            }
            Event::End { step, code, seconds, too_long } => {
                if let Some(outcome) = self.outcomes.iter_mut().rev().find(|outcome| outcome.step == step) {
                    outcome.code = code;
                    outcome.seconds = seconds;
                    outcome.too_long = too_long;
                }
                self.between = true;
            }
            Event::LeftOut { step } => self.left_out.push(step),
            Event::Report { step, report } => {
                self.reports.insert(step, report);
            }
            Event::Over => self.is_over = true,
        }
    }

    /// A line of the test harness, or of a test.
    fn take_output(&mut self, line: &str) {
        let Some(outcome) = self.outcomes.last_mut() else { return };
        if let Some((_, what)) = line.split_once("SKIPPED") {
            outcome.skipped.push(what.trim_start_matches(|c: char| !c.is_alphanumeric()).to_owned());
        }
        if let Some(counts) = line.strip_prefix("test result: ") {
            let count = |word: &str| {
                let counts = counts.split(['.', ';']);
                counts
                    .filter_map(|part| part.trim().strip_suffix(word)?.trim().parse::<u32>().ok())
                    .sum::<u32>()
            };
            outcome.passed += count("passed");
            outcome.failed += count("failed");
        }
        // Listed twice: with what they printed, then by name alone.
        if let Some(name) = line.strip_prefix("    ")
            && !name.contains([' ', '\t'])
            && !name.is_empty()
            && !outcome.failures.iter().any(|known| known == name)
        {
            outcome.failures.push(name.to_owned());
        }
    }

    /// The step that was at work when the guest fell silent.
    pub(super) fn last_step(&self) -> Option<&str> {
        (!self.between).then(|| self.outcomes.last()).flatten().map(|outcome| outcome.step.as_str())
    }
}

/// What a kernel's console shows of a machine's end: from the first line that tells of trouble, or the last lines.
pub(super) fn end_of_console(text: &str) -> String {
    const TROUBLE: [&str; 5] =
        ["Kernel panic", "BUG: ", "Oops", "general protection fault", "Unable to handle kernel"];
    const LINES: usize = 60;
    let lines: Vec<&str> = text.lines().map(|line| line.trim_end_matches('\r')).collect();
    let first = lines.iter().position(|line| TROUBLE.iter().any(|trouble| line.contains(trouble)));
    let start = first.unwrap_or(lines.len().saturating_sub(20));
    lines[start..].iter().take(LINES).copied().collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = r#"
##vm {"event":"booted","release":"6.12.1","cpus":2,"seconds":3.5,"clock_source":"tsc"}

##vm {"event":"begin","step":"kernel_counts"}

running 3 tests
test check_ins ... ok
test unshared ... SKIPPED: unshare is not here, or may not unshare
ok
test timeouts ... FAILED

failures:

---- timeouts stdout ----

thread 'timeouts' (77) panicked at tests/kernel_counts.rs:1:2:
assertion failed


failures:
    timeouts

test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 4 filtered out; finished in 1.10s


##vm {"event":"end","step":"kernel_counts","code":101,"seconds":1.25,"too_long":false}

##vm {"event":"begin","step":"doctor"}

##vm {"event":"report","step":"doctor","report":{"schema":1}}

##vm {"event":"end","step":"doctor","code":0,"seconds":0.5,"too_long":false}
"#;

    #[test]
    fn results_are_read_from_the_output() {
        let mut transcript = Transcript::default();
        let shown: Vec<&str> = OUTPUT.lines().filter_map(|line| transcript.take(line)).collect();
        assert!(shown.contains(&"test check_ins ... ok") && !shown.iter().any(|line| line.contains("##vm")));
        assert_eq!(transcript.release.as_deref(), Some("6.12.1"));
        let [counts, doctor] = transcript.outcomes.as_slice() else { panic!("{transcript:?}") };
        assert_eq!((counts.passed, counts.failed, counts.code), (2, 1, Some(101)));
        assert_eq!(counts.failures, ["timeouts"]);
        assert_eq!(counts.skipped, ["unshare is not here, or may not unshare"]);
        assert!(!counts.is_good() && doctor.is_good());
        assert_eq!(transcript.reports["doctor"]["schema"], 1);
        assert!(!transcript.is_over, "no word of its end");
        transcript.take(r#"##vm {"event":"over"}"#);
        assert!(transcript.is_over);
    }

    #[test]
    fn a_machine_that_falls_silent_names_its_step() {
        let mut transcript = Transcript::default();
        let lines = OUTPUT.lines().take_while(|line| !line.contains("FAILED"));
        lines.for_each(|line| {
            transcript.take(line);
        });
        assert_eq!(transcript.last_step(), Some("kernel_counts"));
        assert_eq!(transcript.outcomes[0].code, None);
    }

    #[test]
    fn a_panic_is_found_on_the_console() {
        let console = "starting\r\nfine\r\n[    2.1] Kernel panic - not syncing: Attempted to kill init!\r\n\
                       [    2.2] CPU: 0\r\n";
        let end = end_of_console(console);
        assert!(end.starts_with("[    2.1] Kernel panic") && end.ends_with("CPU: 0"), "{end}");
        assert_eq!(end_of_console("a\nb\n"), "a\nb");
    }
}
