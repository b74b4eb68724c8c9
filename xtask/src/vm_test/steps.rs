//! What is run in the machines of one kernel, and in which of two kinds of machine.

use std::{collections::BTreeMap, path::Path};

use super::programs::{Programs, part};
use super::protocol::{Job, Step};

/// A step that takes longer is killed. The longest takes a minute, and several where others have the CPUs, too.
const SECONDS_PER_STEP: u64 = 900;

/// The ways to hook the wait calls, as `--hooks` names them. The tests of the probes have to pass by each.
pub(super) const WAYS: [&str; 2] = ["fentry", "tracepoint"];

/// The step that measures what an untraced process pays.
pub(super) const UNTRACED: &str = "untraced";

/// Tests that compare times. On a machine whose clock counts instructions nothing steals time from them.
const TIMED: &str = "kernel_times";

/// Tests for which it matters by which way the wait calls are hooked.
const BOTH_WAYS: [&str; 4] = ["kernel_counts", "kernel_ready", "kernel_signals", TIMED];

/// A kind of machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Its CPUs run side by side, and its clock is the host's.
    Parallel,
    /// Its CPUs run in turn, and its clock counts instructions.
    Counted,
}

impl Kind {
    pub(super) const ALL: [Self; 2] = [Self::Parallel, Self::Counted];

    /// For file names and for a person.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Parallel => "parallel",
            Self::Counted => "counted",
        }
    }

    pub(super) fn cpus(self) -> u32 {
        match self {
            Self::Parallel => 2,
            Self::Counted => 1,
        }
    }
}

/// The name of `doctor`'s step by a way.
pub(super) fn doctor(way: &str) -> String {
    format!("doctor/{way}")
}

/// Where a test program lies in the guest.
pub(super) fn place(name: &str) -> String {
    format!("/vm/tests/{name}")
}

/// What a kind of machine has to do; none if there is nothing for it.
pub(super) fn job(kind: Kind, programs: &Programs, filter: &[String], measure: bool) -> Option<Job> {
    let ioscope = programs.ioscope.display().to_string();
    let mut work: Vec<Step> = Vec::new();
    for (name, _) in &programs.tests {
        if (name == TIMED) != (kind == Kind::Counted) {
            continue;
        }
        if BOTH_WAYS.contains(&name.as_str()) {
            work.extend(WAYS.map(|way| test(name, Some(way), filter)));
        } else {
            // Which way it is does not matter to them, and this one starts sooner.
            work.push(Step { environment: hooks(WAYS[1]), ..test(name, None, filter) });
        }
    }
    if kind == Kind::Counted && measure {
        let command = ["/vm/init", "vm-untraced", &ioscope].into_iter().chain(WAYS);
        work.insert(0, step(UNTRACED, command, true));
    }
    if work.is_empty() {
        return None;
    }
    let mut steps: Vec<Step> = WAYS
        .iter()
        .map(|way| Step {
            environment: hooks(way),
            ..step(&doctor(way), [ioscope.as_str(), "doctor", "--json"], true)
        })
        .collect();
    steps.append(&mut work);
    let environment = [
        ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", "/root"),
        ("LANG", "C.UTF-8"),
        // Long tests are shorter.
        ("IOSCOPE_TEST_EMULATED", "1"),
        // Tests that cannot trace are not skipped, but fail.
        ("CI", "true"),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    Some(Job { environment, steps, seconds_per_step: SECONDS_PER_STEP })
}

fn hooks(way: &str) -> BTreeMap<String, String> {
    BTreeMap::from([("IOSCOPE_HOOKS".to_owned(), way.to_owned())])
}

fn step<'a>(name: &str, command: impl IntoIterator<Item = &'a str>, is_report: bool) -> Step {
    Step {
        name: name.to_owned(),
        command: command.into_iter().map(str::to_owned).collect(),
        environment: BTreeMap::new(),
        only_after: None,
        is_report,
    }
}

fn test(name: &str, way: Option<&str>, filter: &[String]) -> Step {
    let program = place(name);
    let program = Path::new(&program).display().to_string();
    let mut step = step(name, [program.as_str(), "--test-threads=1", "--color=never"], false);
    if filter.is_empty() {
        step.command.extend(part(name).iter().map(|&part| part.to_owned()));
    }
    step.command.extend(filter.iter().cloned());
    if let Some(way) = way {
        step.name = format!("{name}/{way}");
        step.environment = hooks(way);
        step.only_after = Some(doctor(way));
    }
    step
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn programs(names: &[&str]) -> Programs {
        Programs {
            init: PathBuf::from("/t/xtask"),
            ioscope: PathBuf::from("/t/ioscope"),
            tests: names.iter().map(|name| ((*name).to_owned(), PathBuf::from("/t").join(name))).collect(),
        }
    }

    fn names(job: &Job) -> Vec<&str> {
        job.steps.iter().map(|step| step.name.as_str()).collect()
    }

    #[test]
    fn the_tests_of_the_probes_go_both_ways() {
        let programs = programs(&["cli", "kernel_counts", "kernel_times"]);
        let parallel = job(Kind::Parallel, &programs, &[], true).expect("there is something to do");
        assert_eq!(
            names(&parallel),
            ["doctor/fentry", "doctor/tracepoint", "cli", "kernel_counts/fentry", "kernel_counts/tracepoint"]
        );
        let last = &parallel.steps[4];
        assert_eq!(last.environment["IOSCOPE_HOOKS"], "tracepoint");
        assert_eq!(last.only_after.as_deref(), Some("doctor/tracepoint"));
        let counted = job(Kind::Counted, &programs, &[], true).expect("there is something to do");
        assert_eq!(
            names(&counted)[2..],
            ["untraced", "kernel_times/fentry", "kernel_times/tracepoint"],
            "what is timed is timed by a clock that counts"
        );
    }

    #[test]
    fn a_filter_is_handed_on_and_replaces_ours() {
        let filter = ["always_ready".to_owned()];
        let unit = |filter: &[String]| {
            let job =
                job(Kind::Parallel, &programs(&["unit"]), filter, false).expect("there is something to do");
            job.steps[2].command.last().cloned()
        };
        assert_eq!(unit(&filter).as_deref(), Some("always_ready"));
        assert_eq!(unit(&[]).as_deref(), Some("probe::"));
        assert!(job(Kind::Counted, &programs(&["unit"]), &filter, false).is_none());
    }
}
