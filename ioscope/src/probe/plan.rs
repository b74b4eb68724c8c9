//! What to trace, and how.

use std::time::Duration;

use super::hooks::HookChoice;

/// What to trace.
#[derive(Clone, Debug, Default)]
pub struct Targets {
    /// Processes, by their number in ioscope's pid namespace.
    pub processes: Vec<u32>,
    /// Globs over process names, for processes that start later.
    pub comm: Vec<String>,
    /// Ids of cgroups (version 2), with their descendants. At most [`MAX_CGROUPS`](super::MAX_CGROUPS).
    pub cgroups: Vec<u64>,
    /// Every process.
    pub all: bool,
    /// Children of targets too.
    pub follow: bool,
}

/// How to trace.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What.
    pub targets: Targets,
    /// How many loops at most; a loop more is counted as dropped.
    pub capacity: u32,
    /// The size of the stream's buffer in bytes, a power of two and a multiple of the page size; it
    /// exists even while nothing streams.
    pub stream_bytes: u32,
    /// Which loops stream: [`Control::STREAM_OFF`](ioscope_common::Control::STREAM_OFF) and its siblings.
    pub stream: u32,
    /// A loop duration from here on is a stall.
    pub stall_threshold: Duration,
    /// The loops of some runtimes have a threshold of their own: [`StallPreset`](crate::runtime::StallPreset).
    pub presets: bool,
    /// From this loop duration on it is looked at where the thread is.
    pub warn_threshold: Duration,
    /// The system calls of slices are counted, too: every system call of the machine pays for that.
    pub syscalls: bool,
    /// Jobs that are left out, by name; one without which there is no tracing is done all the same.
    pub without: Vec<String>,
    /// Which ways to hook may be gone.
    pub hooks: HookChoice,
    /// The probes write diagnostics to the log.
    pub diagnostics: bool,
}
