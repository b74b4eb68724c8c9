//! What the loops did, by their own count: what a tracer should have seen.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Of a span of time that came up again and again: how often, how long altogether, and the longest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Total {
    /// How often.
    pub count: u64,
    /// How long altogether, in nanoseconds.
    pub sum_ns: u64,
    /// The longest, in nanoseconds.
    pub max_ns: u64,
}

impl Total {
    /// Counts one more.
    pub(super) fn add(&mut self, ns: u64) {
        self.count += 1;
        self.sum_ns += ns;
        self.max_ns = self.max_ns.max(ns);
    }
}

/// What kind of thing a loop waits on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PollerKind {
    /// An epoll instance.
    Epoll,
    /// The fds of `poll` and `ppoll`.
    Poll,
    /// The fds of `select` and `pselect6`.
    Select,
    /// An `io_uring` ring.
    IoUring,
    /// A context of the kernel's asynchronous I/O.
    Aio,
}

/// What a loop waited on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PollerReport {
    /// Its kind.
    pub kind: PollerKind,
    /// Its fd, if it has one.
    pub fd: Option<i32>,
}

/// One loop.
///
/// A return is one that the program sees. Stopped and continued in a wait call, a process sees one return where
/// the kernel leaves the call twice: `poll` goes on as `restart_syscall`, and `ppoll`, `select`, `pselect6`
/// and `io_pgetevents` are entered again; the others return `EINTR`.
///
/// The counts include the return at "go" of [`Start::BeforeGo`](super::Start::BeforeGo). The spans of time
/// are all zero without [`Spec::timing`](super::Spec::timing).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadReport {
    /// The thread.
    pub tid: i32,
    /// Its name.
    pub comm: String,
    /// What it waited on.
    pub poller: Option<PollerReport>,
    /// Returns of each wait call, whatever the result. `io_uring_enter` counts with `GETEVENTS` only.
    pub wait_calls: BTreeMap<String, u64>,
    /// Returns of all of them.
    pub iterations: u64,
    /// The results that were counts, added up; for `io_uring`, completions found after each return.
    pub ready_events: u64,
    /// Returns with no event from calls that could sleep: neither check-ins nor without a minimum. Timeouts
    /// that expired, that is.
    pub empty_wakeups: u64,
    /// Returns of calls with a zero timeout, whatever the result.
    pub check_ins: u64,
    /// Returns of calls that asked for at least 0 events, and so never slept; not among the check-ins.
    pub no_minimum: u64,
    /// Returns with as many events as asked for at most, where the call has such a maximum: epoll and aio.
    pub batch_full: Option<u64>,
    /// Returns with every watched fd ready: the poll and select calls.
    pub all_ready: Option<u64>,
    /// Returns with `EINTR`.
    pub interrupted: u64,
    /// Returns with `ETIME`, `io_uring`'s way to say that the timeout expired. No errors.
    pub etime: u64,
    /// Returns with any other errno, by errno.
    pub errors: BTreeMap<i32, u64>,
    /// Calls of `io_uring_enter` without `GETEVENTS`.
    pub submissions: u64,
    /// Wait calls in which the thread gave up its CPU, if they were counted.
    pub sleeps: Option<u64>,
    /// From the entry to the return of each wait call.
    pub wait: Total,
    /// From the return of each wait call to the entry of the next: one fewer than the calls.
    pub loop_duration: Total,
    /// How late past its timeout each wait call returned, of those whose timeout expired.
    pub poll_delay: Total,
    /// CPU time of the work between wait calls: the loop's share of it that burns CPU on purpose.
    pub work_cpu: Total,
    /// CPU time of the whole thread, in nanoseconds.
    pub thread_cpu_ns: u64,
    /// Wall time of the work between wait calls that sleeps, by the system call it sleeps in; parking
    /// between turns included (`futex`; one that found itself woken already takes no time).
    pub blocked: BTreeMap<String, Total>,
    /// From before the first wait call to after the last, in nanoseconds; always timed.
    pub wall_ns: u64,
}

/// A thread that serves the loops and makes no wait call: no loop.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverReport {
    /// The thread.
    pub tid: i32,
    /// Its name.
    pub comm: String,
}

/// All loops of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The process.
    pub pid: u32,
    /// From "go" to the end of the last loop, in nanoseconds.
    pub wall_ns: u64,
    /// The loops, in the order of their specs and of the threads of each.
    pub threads: Vec<ThreadReport>,
    /// The threads that are no loops, besides the main thread.
    pub drivers: Vec<DriverReport>,
}

impl Report {
    /// A count, added up over all loops.
    pub fn total(&self, count: impl Fn(&ThreadReport) -> u64) -> u64 {
        self.threads.iter().map(count).sum()
    }
}
