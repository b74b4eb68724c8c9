//! What passes between the two sides of a virtual machine: the job that the guest finds in its image, and the
//! lines that it writes between the output of the tests.

use std::{collections::BTreeMap, io::Write};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Where the guest finds its job.
pub(super) const JOB: &str = "/vm/job.json";
/// What a line begins with that is no test's.
const MARK: &str = "##vm ";

/// What the guest has to do: one step after the other.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Job {
    pub(super) environment: BTreeMap<String, String>,
    pub(super) steps: Vec<Step>,
    /// A step that takes longer is killed, and has failed.
    pub(super) seconds_per_step: u64,
}

/// A program to run to its end.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Step {
    pub(super) name: String,
    pub(super) command: Vec<String>,
    /// On top of the job's.
    pub(super) environment: BTreeMap<String, String>,
    /// It is left out if this step did not succeed.
    pub(super) only_after: Option<String>,
    /// Whether what it writes to stdout is one JSON document, for the host.
    pub(super) is_report: bool,
}

/// What the guest says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum Event {
    /// Everything is mounted; the first step follows.
    Booted {
        /// As `uname -r` has it.
        release: String,
        cpus: usize,
        /// From the kernel's start.
        seconds: f64,
        clock_source: String,
    },
    /// A step begins; its output follows.
    Begin { step: String },
    /// It has ended.
    End {
        step: String,
        /// None when a signal ended it.
        code: Option<i32>,
        seconds: f64,
        /// Whether it was killed for taking too long.
        too_long: bool,
    },
    /// A step is left out, since another one did not succeed.
    LeftOut { step: String },
    /// What a step had to report.
    Report { step: String, report: Value },
    /// All steps are done.
    Over,
}

impl Event {
    /// Writes it, on a line of its own whatever was written before.
    pub(super) fn write(&self, out: &mut impl Write) -> std::io::Result<()> {
        let text = serde_json::to_string(self)?;
        out.write_all(format!("\n{MARK}{text}\n").as_bytes())?;
        out.flush()
    }

    /// From a line, if it is one of the guest's.
    pub(super) fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line.strip_prefix(MARK)?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_read_back_from_its_line() {
        let event = Event::End { step: "a \"b\"".into(), code: Some(101), seconds: 1.5, too_long: false };
        let mut bytes = b"a line without an end".to_vec();
        event.write(&mut bytes).expect("memory takes it");
        let text = String::from_utf8(bytes).expect("text");
        let events: Vec<Event> = text.lines().filter_map(Event::parse).collect();
        let [Event::End { step, code, .. }] = events.as_slice() else { panic!("{events:?}") };
        assert_eq!((step.as_str(), *code), ("a \"b\"", Some(101)));
        assert!(Event::parse("test a ... ok").is_none());
    }
}
