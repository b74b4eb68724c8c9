//! What a source hands the model: the same from a live session and from a recording.

use std::{sync::Arc, time::Duration};

use super::{Syscalls, stalls::Capture};
use ioscope_common::{Block, Drops, Iteration, Loop, RingEvents, Wake};

/// A loop's name within one run. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LoopId(pub u64);

/// Who a loop is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The process, in ioscope's pid namespace (0: it is not visible there).
    pub pid: u32,
    /// The thread, in ioscope's pid namespace (0: it is not visible there).
    pub tid: u32,
    /// Process and thread in their own pid namespace, where that is another one.
    pub inner: Option<(u32, u32)>,
    /// The thread's name.
    pub comm: String,
    /// The process's name.
    pub process: String,
    /// The event-loop runtime, by its name in the table of runtimes.
    pub runtime: Option<&'static str>,
}

/// How often a process was held back by the CPU limit of its cgroup or of one above it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Throttling {
    /// Periods of the limit in which the cgroup had something to run.
    pub periods: u64,
    /// Those at whose end it had used up its share and was held back.
    pub throttled_periods: u64,
    /// For how long, in nanoseconds, added up over the CPUs.
    pub throttled_ns: u64,
}

/// A copy of a loop's state at one moment.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Which loop.
    pub id: LoopId,
    /// Who it is.
    pub identity: Arc<Identity>,
    /// The last wakeup that it was given.
    pub wake: Wake,
    /// Whether another thread of the process uses its poller too.
    pub shared: bool,
    /// What happened to the rings that it waits on.
    pub ring_events: RingEvents,
    /// How often its process was held back since it was first seen; `None` if nothing limits it, or it is not known.
    pub throttling: Option<Throttling>,
    /// Where it is, and all that was counted.
    pub machine: Box<Loop>,
}

/// What tracing costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Time spent in the probes, in nanoseconds; `None` unless the kernel measures it.
    pub bpf_ns: Option<u64>,
    /// CPU time of ioscope itself, in nanoseconds.
    pub collector_cpu_ns: u64,
}

/// A stall was found while it went on. Times are in nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundStall {
    /// Whose.
    pub id: LoopId,
    /// When its slice began.
    pub began_at: u64,
    /// When it was found.
    pub found_at: u64,
}

/// What a system call's argument stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedArgument {
    /// Whose.
    pub id: LoopId,
    /// The system call's number.
    pub syscall: i32,
    /// Its first argument.
    pub argument: u64,
    /// What that is: `fd 5, /var/lib/db`, `tcp 10.0.0.1:4711 to 10.0.0.2:5432`, `futex 0x7f…`.
    pub text: Arc<str>,
}

/// All that happened since the batch before.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// When it was taken, in nanoseconds of `CLOCK_MONOTONIC`.
    pub at: u64,
    /// The loops that could be read.
    pub samples: Vec<Sample>,
    /// The loops whose last sample this was.
    pub ended: Vec<LoopId>,
    /// Complete iterations, of the loops that stream; in order of time for each loop.
    pub iterations: Vec<(LoopId, Iteration)>,
    /// Sleeps outside wait calls, of the loops that stream.
    pub blocks: Vec<(LoopId, Block)>,
    /// Stalls that were found while they went on.
    pub found: Vec<FoundStall>,
    /// Where threads were in slices that are over the warning threshold.
    pub captures: Vec<(LoopId, Capture)>,
    /// What arguments stand for of system calls that stalled loops slept in.
    pub resolved: Vec<ResolvedArgument>,
    /// Loops whose stalls begin at another loop duration than those of the run, from this batch on.
    pub thresholds: Vec<(LoopId, Duration)>,
    /// The system calls of slices so far, if they were asked for, of the loops whose samples these are.
    pub syscalls: Vec<(LoopId, Syscalls)>,
    /// What was dropped so far.
    pub drops: Drops,
    /// What tracing has cost so far.
    pub cost: Cost,
}
