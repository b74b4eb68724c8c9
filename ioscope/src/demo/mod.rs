//! Built-in loops: the programs that `ioscope demo` traces, and the truth that tests measure against.
//!
//! A loop is described by a [`Spec`], runs as a thread of a [`Fleet`], and counts by itself what it did:
//! how often each wait call returned and with what, how long it slept in it, how much CPU it burnt in
//! between. Its [`Report`] is what a tracer should have seen. Every wait call is a raw system call, and a
//! loop thread makes no other that waits for events, so the counts are exact.
//!
//! Knows nothing of probes: nothing here looks at the kernel's side, or depends on being traced.

mod aio;
mod driver;
mod fdset;
mod fleet;
mod looping;
mod poller;
mod report;
mod ring;
mod scenarios;
mod spec;
mod sys;
mod tally;
#[cfg(test)]
mod tests;
mod turns;
mod work;
mod worker;

pub use fleet::{Fleet, run};
pub use report::{PollerKind, PollerReport, Report, ThreadReport, Total};
pub use scenarios::{run_scenarios, scenarios};
pub use spec::{Pattern, RingMode, Slice, Spec, Start, Work, batch_size};
pub use work::{demo_parse_large_json, demo_sleep_in_handler};
pub use worker::worker_main;

use rustix::io::Errno;

/// Why a built-in loop could not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemoError {
    /// A system call of the loop's own making failed; wait calls that fail are counted instead.
    #[error("{call}: {errno}")]
    System {
        /// The call, or what it was for.
        call: &'static str,
        /// Why it failed.
        errno: Errno,
    },
    /// The ring could not be set up, or a thread not be started.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The description asks for something that no loop does.
    #[error("{0}")]
    Spec(String),
    /// The description is no JSON, or not of this shape; or a report could not be written as JSON.
    #[error("JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// A thread of the demo panicked.
    #[error("a thread of the demo panicked")]
    Panicked,
}

impl DemoError {
    /// For `map_err`: which call failed.
    fn system(call: &'static str) -> impl Fn(Errno) -> Self {
        move |errno| Self::System { call, errno }
    }

    /// For `map_err`: what was being done.
    fn io(what: &'static str) -> impl Fn(std::io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}
