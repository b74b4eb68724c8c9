//! Where batches come from: a live session, or a recording. Whoever takes them does not know which.

mod arguments;
mod live;
mod naming;
pub mod selection;
mod throttling;
mod watch;

use std::time::Duration;

pub use live::LiveSource;
pub(crate) use live::printable;

use crate::{
    model::{Batch, LoopId},
    probe::{ProbeError, hooks::JobStatus},
};

/// A maker of batches.
pub trait Source {
    /// All that happened since the last batch; `None` when there will be no more.
    ///
    /// # Errors
    /// When the kernel or the file does not let it go on.
    fn next_batch(&mut self) -> Result<Option<Batch>, SourceError>;

    /// How long to wait between two batches.
    fn tick(&self) -> Duration;

    /// Which loops stream their iterations from now on.
    fn stream(&mut self, which: Streaming<'_>);

    /// Take batches at least so often, while nothing streams.
    fn set_pace(&mut self, pace: Duration);

    /// Lets the kernel measure the probes' own time from now on, or no longer. Returns whether it does: it
    /// takes `CAP_SYS_ADMIN` to turn it on.
    fn measure_run_time(&mut self, on: bool) -> bool;

    /// From which loop duration on a slice is a stall from now on.
    fn set_stall_threshold(&mut self, threshold: Duration);

    /// What the batches' facts come from, for people and JSON: `fentry` or `tracepoint`.
    fn attach(&self) -> &str;

    /// What the hooks are for, and what became of it; empty for a recording.
    fn jobs(&self) -> &[JobStatus];
}

/// Which loops stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streaming<'a> {
    /// None.
    Off,
    /// All.
    All,
    /// These.
    Only(&'a [LoopId]),
}

/// Why a source cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The kernel's side.
    #[error(transparent)]
    Probe(#[from] ProbeError),
}
