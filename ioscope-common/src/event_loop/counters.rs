//! What is counted of a loop beside its times: how its wait calls ended, its pollers, and what it slept in.

use crate::WaitCall;

/// How many pollers a loop keeps apart; a further one is counted without its descriptor.
pub const POLLERS: usize = 4;

/// A poller as one loop uses it.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "user"), derive(Debug))]
#[repr(C)]
pub struct PollerUse {
    /// A [`PollerKind`]; 0 when the entry is free.
    pub kind: u32,
    /// The file descriptor, or −1.
    pub fd: i32,
    /// How many wait calls on it have returned.
    pub iterations: u64,
    /// Where it lies in the kernel: a ring's `struct io_ring_ctx`, an epoll instance's `struct eventpoll`; 0 for
    /// others, and where it is not known.
    pub address: u64,
    /// Rings only: completions posted when a wait call last returned, modulo 2^32.
    pub posted: u32,
    /// Where its readiness is noted: a place in the map of that plus one; 0 for nowhere.
    pub note: u32,
}

impl PollerUse {
    pub(super) const FREE: Self = Self { kind: 0, fd: 0, iterations: 0, address: 0, posted: 0, note: 0 };
}

/// How many system calls a loop keeps apart as reasons for being BLOCKED.
pub const BLOCKERS: usize = 8;

/// How often and how long a loop slept in one system call, outside its wait call.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "user"), derive(Debug))]
#[repr(C)]
pub struct Blocker {
    /// Its number, [`NO_SYSCALL`] or [`STOPPED`]. Meaningless while `count` is 0.
    pub syscall: i32,
    /// Unused.
    pub reserved: u32,
    /// How many sleeps.
    pub count: u64,
    /// Their total, in nanoseconds.
    pub total_ns: u64,
    /// The longest, in nanoseconds.
    pub max_ns: u64,
}

impl Blocker {
    pub(super) const FREE: Self = Self { syscall: 0, reserved: 0, count: 0, total_ns: 0, max_ns: 0 };

    #[inline(always)]
    pub(super) fn record(&mut self, ns: u64) {
        self.count += 1;
        self.total_ns += ns;
        if ns > self.max_ns {
            self.max_ns = ns;
        }
    }
}

/// How many errnos a loop keeps apart.
pub const ERRNOS: usize = 4;

/// How often wait calls failed with one errno.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "user"), derive(Debug))]
#[repr(C)]
pub struct ErrnoCount {
    /// The errno, positive; 0 when the entry is free.
    pub errno: u32,
    /// Unused.
    pub reserved: u32,
    /// How many returns.
    pub count: u64,
}

impl ErrnoCount {
    pub(super) const FREE: Self = Self { errno: 0, reserved: 0, count: 0 };
}

/// A sleep outside the wait call that has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "user"), derive(Debug))]
#[repr(C)]
pub struct Block {
    /// When the sleep began.
    pub since: u64,
    /// How long it lasted, until the wakeup, in nanoseconds.
    pub ns: u64,
    /// The system call slept in, [`NO_SYSCALL`] or [`STOPPED`].
    pub syscall: i32,
    /// A [`State`]: BLOCKED or PARKED.
    pub state: u32,
}

/// A loop's counters. All of them only grow.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "user"), derive(Debug))]
#[repr(C)]
pub struct Counters {
    /// Returns of each wait call, by [`WaitCall::index`].
    pub returns: [u64; WaitCall::COUNT],
    /// Events found ready (`io_uring`: completions posted).
    pub ready_events: u64,
    /// Wait calls that slept and returned no event.
    pub empty_wakeups: u64,
    /// Wait calls that returned no event because their timeout expired.
    pub timeouts: u64,
    /// Wait calls with a zero timeout.
    pub check_ins: u64,
    /// Wait calls that returned as many events as they had asked for at most.
    pub batch_full: u64,
    /// Wait calls that failed with any other errno than `EINTR`.
    pub errors: u64,
    /// Wait calls that a signal interrupted (`EINTR`).
    pub interrupted: u64,
    /// Wait calls that the kernel restarted by itself after a signal or a stop.
    pub restarts: u64,
    /// `io_uring_enter` calls that submit only.
    pub submissions: u64,
    /// `io_uring_enter` calls, of either sort, that submitted a request at least.
    pub submitting_calls: u64,
    /// Requests that these submitted, as the kernel told the program: with a kernel thread that takes them
    /// (`IORING_SETUP_SQPOLL`), as many as the program said that there were.
    pub requests: u64,
    /// Wakeups in an epoll, poll or select call that found nothing, so that the thread slept again in the same
    /// call.
    pub futile_wakeups: u64,
    /// Stalls that have ended: stretches between wait calls, and PARKED, at or over the threshold.
    pub stalls: u64,
    /// The sum of these, in nanoseconds.
    pub stalled_ns: u64,
    /// The longest of these, in nanoseconds.
    pub longest_stall_ns: u64,
    /// Wait calls on a poller that found no place among [`POLLERS`].
    pub other_poller_returns: u64,
    /// Wait calls that returned events of which none was seen to become ready, where that is looked for: what
    /// was ready all along, and what no hook tells of.
    pub ready_unknown: u64,
    /// Transitions that could not follow the one before.
    pub impossible: u64,
    /// Times that the scheduler did something with the thread that was not seen: it got a CPU, or it
    /// was woken from a wait call.
    pub unseen: u64,
    /// READY time in which the thread was kept off its CPU by its cgroup's limit, in nanoseconds.
    pub throttled_ns: u64,
}

impl Counters {
    pub(super) const ZERO: Self = Self {
        returns: [0; WaitCall::COUNT],
        ready_events: 0,
        empty_wakeups: 0,
        timeouts: 0,
        check_ins: 0,
        batch_full: 0,
        errors: 0,
        interrupted: 0,
        restarts: 0,
        submissions: 0,
        submitting_calls: 0,
        requests: 0,
        futile_wakeups: 0,
        stalls: 0,
        stalled_ns: 0,
        longest_stall_ns: 0,
        other_poller_returns: 0,
        ready_unknown: 0,
        impossible: 0,
        unseen: 0,
        throttled_ns: 0,
    };

    /// Counts a call of `io_uring_enter` that submitted so many requests.
    #[inline(always)]
    pub(super) const fn count_requests(&mut self, requests: u32) {
        self.submitting_calls += 1;
        self.requests += requests as u64;
    }

    /// Adds another loop's. The longest stall is the longer one.
    pub fn add(&mut self, other: &Self) {
        for (returns, more) in self.returns.iter_mut().zip(&other.returns) {
            *returns += more;
        }
        self.ready_events += other.ready_events;
        self.empty_wakeups += other.empty_wakeups;
        self.timeouts += other.timeouts;
        self.check_ins += other.check_ins;
        self.batch_full += other.batch_full;
        self.errors += other.errors;
        self.interrupted += other.interrupted;
        self.restarts += other.restarts;
        self.submissions += other.submissions;
        self.submitting_calls += other.submitting_calls;
        self.requests += other.requests;
        self.futile_wakeups += other.futile_wakeups;
        self.stalls += other.stalls;
        self.stalled_ns += other.stalled_ns;
        self.longest_stall_ns = self.longest_stall_ns.max(other.longest_stall_ns);
        self.other_poller_returns += other.other_poller_returns;
        self.impossible += other.impossible;
        self.ready_unknown += other.ready_unknown;
        self.unseen += other.unseen;
        self.throttled_ns += other.throttled_ns;
    }

    /// Takes away what an earlier state of the same counters had. The longest stall stays.
    pub fn subtract(&mut self, earlier: &Self) {
        for (returns, before) in self.returns.iter_mut().zip(&earlier.returns) {
            *returns -= before;
        }
        self.ready_events -= earlier.ready_events;
        self.empty_wakeups -= earlier.empty_wakeups;
        self.timeouts -= earlier.timeouts;
        self.check_ins -= earlier.check_ins;
        self.batch_full -= earlier.batch_full;
        self.errors -= earlier.errors;
        self.interrupted -= earlier.interrupted;
        self.restarts -= earlier.restarts;
        self.submissions -= earlier.submissions;
        self.submitting_calls -= earlier.submitting_calls;
        self.requests -= earlier.requests;
        self.futile_wakeups -= earlier.futile_wakeups;
        self.stalls -= earlier.stalls;
        self.stalled_ns -= earlier.stalled_ns;
        self.other_poller_returns -= earlier.other_poller_returns;
        self.ready_unknown -= earlier.ready_unknown;
        self.impossible -= earlier.impossible;
        self.unseen -= earlier.unseen;
        self.throttled_ns -= earlier.throttled_ns;
    }
}
