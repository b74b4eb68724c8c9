//! The state machine of an event loop, with everything that is counted on the way.
//!
//! The probes run this code in the kernel, one call of [`Loop::step`] for every transition of a
//! thread; tests run the same code with made-up transitions. It knows no clock and no kernel: the
//! time and all arguments come from the caller, and only the thread's own transitions write here
//! (what a waker writes lies in [`Wake`], beside the machine, and is handed in).
//!
//! Fields are plain numbers, without padding and valid for every bit pattern, because they lie in a
//! BPF map that user space maps into its memory.

use crate::{Counts, Durations, PAST_STALLS, PastStall, Slice, WaitCall, record::Iteration};

/// The states of a loop. Every nanosecond of a loop's life is in exactly one of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(any(test, feature = "user"), derive(Debug))]
#[repr(u8)]
pub enum State {
    /// Asleep in a wait call.
    Waiting = 0,
    /// Inside a wait call and not asleep: a check-in, or the way in and out.
    Polling = 1,
    /// Runnable, not on a CPU.
    Ready = 2,
    /// Outside a wait call, on a CPU.
    Running = 3,
    /// Outside a wait call, asleep.
    Blocked = 4,
    /// Asleep in futex while another thread holds the shared poller.
    Parked = 5,
}

impl State {
    /// How many states there are.
    pub const COUNT: usize = 6;

    /// Every state, in the order of its number.
    pub const ALL: [Self; Self::COUNT] =
        [Self::Waiting, Self::Polling, Self::Ready, Self::Running, Self::Blocked, Self::Parked];

    /// How many ways there are from one state to another, itself included.
    pub const EDGES: usize = Self::COUNT * Self::COUNT;

    /// The index of a way from one state to another.
    #[must_use]
    pub const fn edge(from: Self, to: Self) -> usize {
        from as usize * Self::COUNT + to as usize
    }

    /// The state with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Waiting,
            1 => Self::Polling,
            2 => Self::Ready,
            3 => Self::Running,
            4 => Self::Blocked,
            5 => Self::Parked,
            _ => return None,
        })
    }

    /// The state's name, as on screens and in JSON (there in lower case).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Waiting => "WAITING",
            Self::Polling => "POLLING",
            Self::Ready => "READY",
            Self::Running => "RUNNING",
            Self::Blocked => "BLOCKED",
            Self::Parked => "PARKED",
        }
    }
}

/// A timeout that never expires.
pub const TIMEOUT_NEVER: i64 = -1;
/// A timeout that could not be read from the program's memory.
pub const TIMEOUT_UNKNOWN: i64 = -2;

/// What a wakeup's duration is when no wakeup was seen.
pub const NO_WAKEUP: u64 = u64::MAX;

/// In place of the time at which an event became ready: it was not seen to.
pub const READY_UNKNOWN: u64 = 0;
/// In place of the time at which an event became ready: nothing looks.
pub const READY_UNMEASURED: u64 = u64::MAX;

/// In place of a system call's number: the thread sleeps outside any (a page fault), or what it
/// sleeps in is not known.
pub const NO_SYSCALL: i32 = -1;
/// In place of a system call's number: the thread is stopped by a signal or a debugger.
pub const STOPPED: i32 = -2;

/// `EINTR`, the same number on every architecture of `asm-generic/errno-base.h`.
pub const EINTR: u32 = 4;
/// `ETIME`, from `asm-generic/errno.h`: how `io_uring_enter` says that its timeout expired.
pub const ETIME: u32 = 62;

/// The codes by which the kernel says, to itself, that a system call is to be restarted
/// (`include/linux/errno.h`): 512 `ERESTARTSYS`, 513 `ERESTARTNOINTR`, 514 `ERESTARTNOHAND`,
/// 516 `ERESTART_RESTARTBLOCK`. 515 is `ENOIOCTLCMD`.
const RESTART_CODES: [i64; 4] = [-512, -513, -514, -516];

/// What a wait call waits on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(any(test, feature = "user"), derive(Debug))]
#[repr(u8)]
pub enum PollerKind {
    /// An epoll instance, known by its file descriptor.
    Epoll = 1,
    /// An `io_uring` ring, known by its file descriptor.
    Ring = 2,
    /// An `io_uring` ring, known by its index among the thread's registered rings.
    RegisteredRing = 3,
    /// The set of file descriptors given to `poll` or `select`.
    Set = 4,
    /// A Linux AIO context.
    Aio = 5,
}

impl PollerKind {
    /// The kind with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::Epoll,
            2 => Self::Ring,
            3 => Self::RegisteredRing,
            4 => Self::Set,
            5 => Self::Aio,
            _ => return None,
        })
    }

    /// The kind's name in JSON and on screens.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Epoll => "epoll",
            Self::Ring | Self::RegisteredRing => "io_uring",
            Self::Set => "set",
            Self::Aio => "aio",
        }
    }
}

/// Who a wakeup came from.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "user"), derive(Debug))]
#[repr(u8)]
pub enum WakerContext {
    /// No wakeup was seen.
    None = 0,
    /// A thread, by its own doing.
    Thread = 1,
    /// A soft interrupt (received packets, timers of the old kind); the thread is the one whose CPU
    /// it ran on, which is often, not always, the one that caused it.
    SoftInterrupt = 2,
    /// A hardware interrupt: a timer that expired, or a device.
    Interrupt = 3,
}

impl WakerContext {
    /// The context with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Thread,
            2 => Self::SoftInterrupt,
            3 => Self::Interrupt,
            _ => Self::None,
        }
    }
}

/// The last wakeup of a thread, written by the waker's CPU and by nothing else.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(any(test, feature = "user"), derive(Debug))]
#[repr(C)]
pub struct Wake {
    /// When, in nanoseconds of `CLOCK_MONOTONIC`; 0 for never.
    pub at: u64,
    /// The thread on whose CPU it happened; 0 for the idle task.
    pub waker: u32,
    /// A [`WakerContext`].
    pub context: u32,
}

/// A wait call's arguments.
#[derive(Clone, Copy)]
#[cfg_attr(any(test, feature = "user"), derive(Debug, PartialEq, Eq))]
pub struct WaitArgs {
    /// Which wait call.
    pub call: WaitCall,
    /// What it waits on.
    pub poller: PollerKind,
    /// The poller's file descriptor (a registered ring's index), or −1.
    pub fd: i32,
    /// How many events it asks for at most (`poll`, `select`: how many descriptors); 0 for no limit.
    pub max_events: u32,
    /// Nanoseconds, [`TIMEOUT_NEVER`] or [`TIMEOUT_UNKNOWN`]. 0 makes the call a check-in.
    pub timeout: i64,
    /// Rings only: which ring, by its address in the kernel.
    pub ring: u64,
    /// Rings only: how many completions the program had taken out of it, ever, modulo 2^32. When the
    /// loop has not waited on the ring before, what was posted beyond that is what it will find.
    pub taken: u32,
}

/// A thing that happens to a thread.
#[derive(Clone, Copy)]
#[cfg_attr(any(test, feature = "user"), derive(Debug))]
pub enum Transition {
    /// It entered a wait call.
    Enter {
        /// With these arguments.
        args: WaitArgs,
        /// A loop duration from here on, in nanoseconds, is a stall.
        stall_threshold: u64,
    },
    /// A system call returned to it that may be a wait call or a restarted one.
    Return {
        /// The result: a count, or a negated errno or restart code.
        result: i64,
        /// Rings only: how many completions have been posted, ever, modulo 2^32.
        posted: u32,
        /// When the first event became ready that this call can have returned, in nanoseconds of
        /// `CLOCK_MONOTONIC`; [`READY_UNKNOWN`] or [`READY_UNMEASURED`].
        ready_at: u64,
    },
    /// It entered `restart_syscall`: the kernel goes on with an interrupted call.
    Resume,
    /// It entered `rt_sigreturn`: a signal handler has run.
    HandlerDone,
    /// It entered `io_uring_enter` to submit only.
    Submit,
    /// It left its CPU.
    SwitchOut {
        /// To sleep; otherwise it was preempted and stays runnable.
        asleep: bool,
        /// The system call that it sleeps in, [`NO_SYSCALL`] or [`STOPPED`].
        syscall: i32,
        /// Whether that system call is one of the futex waits.
        futex: bool,
        /// That system call's first argument.
        argument: u64,
        /// It is kept off its CPU by its cgroup's limit.
        throttled: bool,
    },
    /// It got a CPU.
    SwitchIn {
        /// The last wakeup that it was given.
        wake: Wake,
        /// Whether another thread of its process uses its poller too.
        shared: bool,
    },
    /// It is on a CPU, and was not seen to get it. Some kernels hide what happens while a process of
    /// theirs has the CPU, the switch away from it included (seen in a sandboxed virtual machine, for
    /// ftrace as for BPF: one switch in two thousand).
    SwitchInUnseen {
        /// The last wakeup that it was given.
        wake: Wake,
        /// Whether another thread of its process uses its poller too.
        shared: bool,
    },
    /// It ended, or its program was replaced by `execve`.
    End,
}

/// What the caller of [`Loop::step`] has to do.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "user"), derive(Debug))]
pub struct Step(u32);

impl Step {
    /// Nothing.
    pub const NOTHING: Self = Self(0);
    /// An iteration is complete: [`Loop::last`] may be streamed.
    pub const ITERATION: Self = Self(1);
    /// The loop waits on this poller for the first time: find out whether it is shared, and see to it that its
    /// readiness is noted.
    pub const NEW_POLLER: Self = Self(2);
    /// A sleep outside the wait call ended: [`Loop::last_block`] may be streamed.
    pub const BLOCK: Self = Self(4);
    /// A transition came that cannot follow the one before: an event was missed.
    pub const IMPOSSIBLE: Self = Self(8);
    /// The poller's descriptor stands for another ring than before: its readiness is noted elsewhere.
    pub const OTHER_RING: Self = Self(16);
    /// The wait call slept and returned events that nobody was seen to make ready: the poller's descriptor may
    /// stand for another one than before.
    pub const UNEXPLAINED: Self = Self(32);
    /// The note of when the poller became ready has served: what it told of was returned, or is gone.
    pub const READY_TAKEN: Self = Self(64);

    /// As a number. The probes put it into memory and take it out again: the verifier, which follows a number that it
    /// knows down every path, forgets it on the way.
    #[inline(always)]
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// From the number.
    #[inline(always)]
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Whether all of `other` is in `self`.
    #[inline(always)]
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    #[inline(always)]
    const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

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
    const FREE: Self = Self { kind: 0, fd: 0, iterations: 0, address: 0, posted: 0, note: 0 };
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
    const FREE: Self = Self { syscall: 0, reserved: 0, count: 0, total_ns: 0, max_ns: 0 };

    #[inline(always)]
    fn record(&mut self, ns: u64) {
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
    const FREE: Self = Self { errno: 0, reserved: 0, count: 0 };
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
    const ZERO: Self = Self {
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
    const fn count_requests(&mut self, requests: u32) {
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

/// The time since a thread's last transition.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "user"), derive(Debug))]
pub struct OpenInterval {
    /// The state that the thread went into.
    pub state: State,
    /// How long it was in it, in nanoseconds.
    pub ns: u64,
    /// How long, after that, it has been READY.
    pub ready_ns: u64,
}

impl OpenInterval {
    /// The state now.
    #[must_use]
    pub const fn now(&self) -> State {
        if self.ready_ns == 0 { self.state } else { State::Ready }
    }
}

/// A loop: where its thread is now, and all that was counted so far. Times are in nanoseconds of
/// `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "user"), derive(Debug))]
#[repr(C)]
pub struct Loop {
    /// The [`State`] that the thread has been in since `since`. See [`Loop::state_at`].
    pub state: u8,
    /// 1 inside a wait call.
    pub in_wait: u8,
    /// 1 when the present wait call has slept.
    pub slept: u8,
    /// Of a thread that was found asleep in a wait call, until its first return or entry: 1, and 2 from
    /// its first CPU on. Whether it slept in the call, or in the kernel on its way out of it (frozen, say),
    /// only shows then.
    pub found_asleep: u8,
    /// 1 after a wait call left with a restart code, until it is known what became of it.
    pub restarting: u8,
    /// The present or last wait call, a [`WaitCall`].
    pub call: u8,
    /// Its poller's index in `pollers`, or [`POLLERS`].
    pub poller: u8,
    /// 1 when the present BLOCKED is a futex wait.
    pub futex: u8,
    /// The system call that the thread sleeps in while BLOCKED.
    pub syscall: i32,
    /// The present or last wait call's descriptor.
    pub fd: i32,
    /// When `state` began.
    pub since: u64,
    /// When tracing of this loop began.
    pub born: u64,
    /// When the thread ended; 0 while it lives.
    pub ended: u64,
    /// When the thread last got its CPU or entered a wait call, whichever is later.
    pub on_cpu_since: u64,
    /// When it entered the present or last wait call.
    pub entered_at: u64,
    /// When a wait call last returned; 0 before the first return.
    pub returned_at: u64,
    /// Since when it serves: since a wait call last returned or, if that is later, since it was last PARKED;
    /// 0 before the first return. A stall is a stretch from here to the next wait call or PARKED.
    pub serving_since: u64,
    /// The stall threshold when it last entered a wait call, in nanoseconds.
    pub stall_threshold: u64,
    /// When the present wait call's last sleep was ended by a wakeup; 0 if none was seen.
    pub woken_at: u64,
    /// When the thread got a CPU after that.
    pub on_cpu_at: u64,
    /// When the wait call left with a restart code.
    pub restart_at: u64,
    /// The present or last wait call's timeout.
    pub timeout: i64,
    /// The present or last wait call's limit of events.
    pub max_events: u32,
    /// Who ended the last sleep in a wait call.
    pub waker: u32,
    /// In which context, a [`WakerContext`].
    pub waker_context: u32,
    /// Rings only: completions posted when the call with the restart code left.
    pub restart_posted: u32,
    /// The first argument of the system call that the thread sleeps in while BLOCKED.
    pub argument: u64,
    /// 1 when the present READY is the cgroup's doing.
    pub throttled: u32,
    /// Unused.
    pub reserved: u32,
    /// How long the first event had been ready when a wait call last returned one.
    pub ready_ns: u64,
    /// BLOCKED time since the last return.
    pub slice_blocked_ns: u64,
    /// PARKED time since the last return.
    pub slice_parked_ns: u64,
    /// What the time since `serving_since` went to.
    pub slice: Slice,
    /// Time per state, without the present one's since `since`.
    pub time_ns: [u64; State::COUNT],
    /// The last iteration: its wait, from its return on; its slice, from the next entry on.
    pub last: Iteration,
    /// The last sleep outside the wait call.
    pub last_block: Block,
    /// Counters.
    pub counters: Counters,
    /// How often it went from one state to another, by [`State::edge`]. A sleep outside the wait call counts
    /// when it ends: only then is it known whether it was BLOCKED or PARKED.
    pub edges: [u64; State::EDGES],
    /// What it waits on.
    pub pollers: [PollerUse; POLLERS],
    /// What it is BLOCKED in.
    pub blockers: [Blocker; BLOCKERS],
    /// What found no place among these.
    pub other_blockers: Blocker,
    /// The errnos that wait calls failed with, `EINTR` apart.
    pub errnos: [ErrnoCount; ERRNOS],
    /// The latest stalls that have ended: the n-th of all is at n modulo their number.
    pub past_stalls: [PastStall; PAST_STALLS],
    /// Loop durations, without PARKED time.
    pub loop_duration: Durations,
    /// First wakeup of the sleep to the return to user space.
    pub wakeup_latency: Durations,
    /// First wakeup of the sleep to being on a CPU.
    pub run_queue_delay: Durations,
    /// How late past their timeout wait calls returned.
    pub poll_delay: Durations,
    /// How long the event that became ready first had been so when a wait call returned it.
    pub ready_delay: Durations,
    /// Events per return, of returns that are neither errors nor empty check-ins.
    pub ready_per_wakeup: Counts,
}

impl Loop {
    /// A free entry: all zeroes, as the kernel hands out a map.
    pub const ZERO: Self = Self {
        state: 0,
        in_wait: 0,
        slept: 0,
        found_asleep: 0,
        restarting: 0,
        call: 0,
        poller: 0,
        futex: 0,
        syscall: 0,
        fd: 0,
        since: 0,
        born: 0,
        ended: 0,
        on_cpu_since: 0,
        entered_at: 0,
        returned_at: 0,
        serving_since: 0,
        stall_threshold: 0,
        woken_at: 0,
        on_cpu_at: 0,
        restart_at: 0,
        timeout: 0,
        max_events: 0,
        waker: 0,
        waker_context: 0,
        restart_posted: 0,
        argument: 0,
        throttled: 0,
        reserved: 0,
        ready_ns: 0,
        slice_blocked_ns: 0,
        slice_parked_ns: 0,
        slice: Slice::NEW,
        time_ns: [0; State::COUNT],
        last: Iteration::ZERO,
        last_block: Block { since: 0, ns: 0, syscall: 0, state: 0 },
        counters: Counters::ZERO,
        edges: [0; State::EDGES],
        pollers: [PollerUse::FREE; POLLERS],
        blockers: [Blocker::FREE; BLOCKERS],
        other_blockers: Blocker::FREE,
        errnos: [ErrnoCount::FREE; ERRNOS],
        past_stalls: [PastStall::FREE; PAST_STALLS],
        loop_duration: Durations::EMPTY,
        wakeup_latency: Durations::EMPTY,
        run_queue_delay: Durations::EMPTY,
        poll_delay: Durations::EMPTY,
        ready_delay: Durations::EMPTY,
        ready_per_wakeup: Counts::EMPTY,
    };

    /// Makes of a free entry a loop that is about to enter its first wait call at `now`.
    #[inline(always)]
    pub const fn begin(&mut self, slot: u32, now: u64) {
        self.state = State::Running as u8;
        self.since = now;
        self.born = now;
        self.entered_at = now;
        self.on_cpu_since = now;
        self.last.kind = crate::kind::ITERATION;
        self.last.slot = slot;
    }

    /// Makes of a new loop one whose thread was found asleep in a wait call, which began before
    /// tracing did.
    #[inline(always)]
    pub fn found_asleep(&mut self, args: &WaitArgs, stall_threshold: u64) -> Step {
        self.stall_threshold = stall_threshold;
        self.state = State::Waiting as u8;
        self.in_wait = 1;
        self.slept = 1;
        self.found_asleep = 1;
        self.on_cpu_since = 0;
        self.take_args(args)
    }

    /// Moves the thread on. `now` never goes back for one thread; should it all the same, no time
    /// passes.
    #[inline(always)]
    pub fn step(&mut self, transition: Transition, now: u64) -> Step {
        match transition {
            Transition::Enter { args, stall_threshold } => self.enter(&args, stall_threshold, now),
            Transition::Return { result, posted, ready_at } => self.returned(result, posted, ready_at, now),
            Transition::Resume => self.resume(now),
            Transition::HandlerDone => self.handler_done(),
            Transition::Submit => {
                self.counters.submissions += 1;
                Step::NOTHING
            }
            Transition::SwitchOut { asleep, syscall, futex, argument, throttled } => {
                self.argument = argument;
                self.throttled = u32::from(throttled);
                self.switch_out(asleep, syscall, futex, now)
            }
            Transition::SwitchIn { wake, shared } => self.switch_in(wake, shared, now),
            Transition::SwitchInUnseen { wake, shared } => self.switch_in_unseen(wake, shared, now),
            Transition::End => self.end(now),
        }
    }

    /// A call of `io_uring_enter` that submits only has returned. That moves the thread nowhere: it is not waiting
    /// before it, in it or after it.
    #[inline(always)]
    pub const fn submitted(&mut self, requests: u32) {
        self.counters.count_requests(requests);
    }

    /// Where the time from the last transition to `now` belongs, for a reader: what of it is past a
    /// wakeup (READY, or nothing), and what came before, in the state that it is in.
    pub fn open_interval(&self, wake: Wake, shared: bool, now: u64) -> OpenInterval {
        let whole = now.saturating_sub(self.since);
        let state = State::from_number(self.state).unwrap_or(State::Running);
        let asleep = matches!(state, State::Waiting | State::Blocked);
        let mut open = OpenInterval { state, ns: whole, ready_ns: 0 };
        if asleep && wake.at > self.on_cpu_since && wake.at < now {
            open.ready_ns = now.saturating_sub(if wake.at > self.since { wake.at } else { self.since });
            open.ns = whole - open.ready_ns;
        }
        if state == State::Blocked && self.futex != 0 && shared {
            open.state = State::Parked;
        }
        open
    }

    /// Closes the present state's interval.
    #[inline(always)]
    fn charge(&mut self, now: u64) {
        let passed = now.saturating_sub(self.since);
        // Its own look at the state, and its own bound: the compiler would make one of several bounds, and Linux 6.1's
        // verifier go down a way on which they contradict each other.
        let state = core::hint::black_box(self.state);
        if let Some(time) = self.time_ns.get_mut(usize::from(state)) {
            *time += passed;
        }
        self.since += passed;
    }

    /// Counts a change from one state to another.
    #[inline(always)]
    fn count_edge(&mut self, from: u8, to: u8) {
        let edge = usize::from(core::hint::black_box(from)) * State::COUNT + usize::from(to);
        if let Some(count) = self.edges.get_mut(edge) {
            *count += 1;
        }
    }

    /// Closes the present state's interval and goes into another state.
    #[inline(always)]
    fn change(&mut self, to: State, now: u64) {
        self.charge(now);
        if self.state != to as u8 {
            self.count_edge(self.state, to as u8);
            self.state = to as u8;
        }
    }

    #[inline(always)]
    fn enter(&mut self, args: &WaitArgs, stall_threshold: u64, now: u64) -> Step {
        if self.restarting != 0 {
            // The same call again with no handler in between is the kernel's restart of it.
            if self.call == args.call as u8 && self.fd == args.fd {
                return self.resume(now);
            }
            self.interrupted();
        }
        let mut step = Step::NOTHING;
        if self.in_wait != 0 {
            if self.found_asleep != 0 {
                // It had returned before it was found: its life begins here.
                self.time_ns = [0; State::COUNT];
                self.edges = [0; State::EDGES];
                self.since = now;
                self.born = now;
            } else {
                self.counters.impossible += 1;
                step = Step::IMPOSSIBLE;
            }
            self.found_asleep = 0;
            self.returned_at = 0;
            self.serving_since = 0;
        }
        self.change(State::Polling, now);
        if self.returned_at != 0 {
            let slice = now.saturating_sub(self.returned_at).saturating_sub(self.slice_parked_ns);
            self.loop_duration.record(slice);
            self.stop_serving(stall_threshold, now);
            self.last.loop_ns = slice;
            self.last.blocked_ns = self.slice_blocked_ns;
            self.last.parked_ns = self.slice_parked_ns;
            step = step.and(Step::ITERATION);
        }
        self.stall_threshold = stall_threshold;
        self.in_wait = 1;
        self.slept = 0;
        self.woken_at = 0;
        self.entered_at = now;
        self.on_cpu_since = now;
        step.and(self.take_args(args))
    }

    /// The thread waits or parks from now on. Was it a stall until then?
    #[inline(always)]
    fn stop_serving(&mut self, stall_threshold: u64, now: u64) {
        let ns = now.saturating_sub(self.serving_since);
        if ns < stall_threshold || self.serving_since == 0 {
            return;
        }
        let at = self.counters.stalls as usize % PAST_STALLS;
        if let Some(past) = self.past_stalls.get_mut(core::hint::black_box(at)) {
            past.began_at = self.serving_since;
            past.ended_at = now;
            past.slice = self.slice;
        }
        self.last.flags |= Iteration::STALLED;
        self.counters.stalls += 1;
        self.counters.stalled_ns += ns;
        if ns > self.counters.longest_stall_ns {
            self.counters.longest_stall_ns = ns;
        }
    }

    #[inline(always)]
    fn take_args(&mut self, args: &WaitArgs) -> Step {
        self.call = args.call as u8;
        self.fd = args.fd;
        self.timeout = args.timeout;
        self.max_events = args.max_events;
        let kind = args.poller as u32;
        let mut step = Step::NOTHING;
        let same =
            self.pollers.get(usize::from(self.poller)).is_some_and(|p| p.kind == kind && p.fd == args.fd);
        if !same {
            self.poller = 0;
            // Its place or the first free one: entries are never freed, so the free ones are last.
            for poller in &mut self.pollers {
                if poller.kind == 0 {
                    poller.kind = kind;
                    poller.fd = args.fd;
                    step = Step::NEW_POLLER;
                    break;
                }
                if poller.kind == kind && poller.fd == args.fd {
                    break;
                }
                self.poller += 1;
            }
        }
        if matches!(args.poller, PollerKind::Ring | PollerKind::RegisteredRing)
            // No ring at all, too: what the descriptor stood for before is gone, and not to be read.
            && let Some(poller) = self.pollers.get_mut(usize::from(self.poller))
            && poller.address != args.ring
        {
            poller.address = args.ring;
            poller.posted = args.taken;
            step = step.and(Step::OTHER_RING);
        }
        step
    }

    #[inline(always)]
    fn returned(&mut self, result: i64, posted: u32, ready_at: u64, now: u64) -> Step {
        if self.in_wait == 0 {
            return Step::NOTHING;
        }
        self.change(State::Running, now);
        self.in_wait = 0;
        self.found_asleep = 0;
        // Here begins its slice. Should the call have been interrupted, what it sleeps in its signal handler
        // belongs to that.
        self.slice_blocked_ns = 0;
        self.slice_parked_ns = 0;
        self.slice.begin();
        self.serving_since = now;
        if result <= -512 && RESTART_CODES.contains(&result) {
            self.restarting = 1;
            self.restart_at = now;
            self.restart_posted = posted;
            self.last.flags &= !Iteration::STALLED;
            return Step::NOTHING;
        }
        if result > 0 && self.call == WaitCall::IoUringEnter as u8 {
            self.counters.count_requests(result as u32);
        }
        self.account_return(result, posted, ready_at, now)
    }

    /// Counts a return that happened at `now`.
    #[inline(always)]
    fn account_return(&mut self, result: i64, posted: u32, ready_at: u64, now: u64) -> Step {
        let counters = &mut self.counters;
        if let Some(returns) = counters.returns.get_mut(usize::from(self.call).wrapping_sub(1)) {
            *returns += 1;
        }
        let ring = self.call == WaitCall::IoUringEnter as u8;
        let mut events = if result > 0 { result as u32 } else { 0 };
        if let Some(poller) = self.pollers.get_mut(usize::from(self.poller)) {
            poller.iterations += 1;
            if ring {
                events = posted.wrapping_sub(poller.posted);
                poller.posted = posted;
            }
        } else {
            counters.other_poller_returns += 1;
            if ring {
                events = 0;
            }
        }
        let errno = if result < 0 { (-result) as u32 } else { 0 };
        let failed = errno != 0 && !(ring && errno == ETIME);
        let wait_ns = now.saturating_sub(self.entered_at);
        let check_in = self.timeout == 0;
        let mut flags = 0;
        counters.ready_events += u64::from(events);
        if self.slept != 0 {
            flags |= Iteration::SLEPT;
        }
        if check_in {
            counters.check_ins += 1;
            flags |= Iteration::CHECK_IN;
        }
        if failed {
            if errno == EINTR {
                counters.interrupted += 1;
            } else {
                counters.errors += 1;
                count_errno(&mut self.errnos, errno);
            }
        } else {
            if events == 0 {
                if self.slept != 0 && !check_in {
                    counters.empty_wakeups += 1;
                }
                if self.timeout > 0 && wait_ns >= self.timeout as u64 {
                    counters.timeouts += 1;
                    flags |= Iteration::TIMED_OUT;
                    self.poll_delay.record(wait_ns - self.timeout as u64);
                }
            }
            if events != 0 || !check_in {
                self.ready_per_wakeup.record(u64::from(events));
            }
            if events != 0 && events == self.max_events && has_batch_limit(self.call) {
                counters.batch_full += 1;
                flags |= Iteration::BATCH_FULL;
            }
        }
        let mut wakeup_ns = NO_WAKEUP;
        let mut run_queue_ns = NO_WAKEUP;
        if self.slept != 0 && self.woken_at != 0 {
            wakeup_ns = now.saturating_sub(self.woken_at);
            self.wakeup_latency.record(wakeup_ns);
            if self.on_cpu_at != 0 {
                run_queue_ns = self.on_cpu_at.saturating_sub(self.woken_at);
                self.run_queue_delay.record(run_queue_ns);
            }
        } else {
            if self.slept != 0 {
                self.counters.unseen += 1;
            }
            self.waker = 0;
            self.waker_context = WakerContext::None as u32;
        }
        self.returned_at = now;
        let last = &mut self.last;
        last.call = self.call;
        last.flags = flags;
        last.waker_context = self.waker_context as u8;
        last.returned_at = now;
        last.wait_ns = wait_ns;
        last.loop_ns = Iteration::UNFINISHED;
        last.wakeup_ns = wakeup_ns;
        last.run_queue_ns = run_queue_ns;
        last.timeout = self.timeout;
        last.result = result as i32;
        last.events = events;
        last.fd = self.fd;
        last.max_events = self.max_events;
        last.waker = self.waker;
        last.ready_ns = Iteration::READY_UNSEEN;
        self.account_ready(ring, ready_at, now)
    }

    /// Records how long the first of the events had been ready.
    ///
    /// A thread that sleeps in a wait call is woken by its events becoming ready, and nothing is ready when it goes
    /// to sleep: so its wakeup is the moment, whichever kind of descriptor it was. But a ring's thread may wait
    /// for several completions, and is woken by the last.
    #[inline(always)]
    fn account_ready(&mut self, ring: bool, ready_at: u64, now: u64) -> Step {
        // Out of memory again: the verifier has followed both, range by range, into histograms, and would go on with
        // each of the ranges.
        let last = core::hint::black_box(&self.last);
        let (events, wakeup_ns) = (last.events, last.wakeup_ns);
        if ready_at == READY_UNMEASURED {
            return Step::NOTHING;
        }
        let seen = ready_at != READY_UNKNOWN && ready_at <= now;
        if events == 0 {
            // What became ready before the call began, and was not returned by it, the program has dealt with.
            return if seen && ready_at < self.entered_at { Step::READY_TAKEN } else { Step::NOTHING };
        }
        let woken = wakeup_ns != NO_WAKEUP && !(ring && seen);
        if !woken && !seen {
            self.counters.ready_unknown += 1;
            return Step::NOTHING;
        }
        self.ready_ns = if woken { wakeup_ns } else { now - ready_at };
        let delay = *core::hint::black_box(&self.ready_ns);
        self.ready_delay.record(delay);
        let most = Iteration::READY_AT_MOST;
        self.last.ready_ns = if delay < u64::from(most) { delay as u32 } else { most };
        if seen { Step::READY_TAKEN } else { Step::UNEXPLAINED }
    }

    /// The call that left with a restart code came back to the program as `EINTR`.
    #[inline(always)]
    fn interrupted(&mut self) {
        self.restarting = 0;
        let stalled = self.last.flags & Iteration::STALLED;
        self.account_return(-i64::from(EINTR), self.restart_posted, READY_UNMEASURED, self.restart_at);
        self.last.flags |= stalled;
    }

    #[inline(always)]
    fn handler_done(&mut self) -> Step {
        if self.restarting != 0 {
            self.interrupted();
        }
        Step::NOTHING
    }

    #[inline(always)]
    fn resume(&mut self, now: u64) -> Step {
        if self.restarting == 0 {
            return Step::NOTHING;
        }
        self.restarting = 0;
        self.counters.restarts += 1;
        // What woke it was the signal: no latency of the wait.
        self.woken_at = 0;
        self.change(State::Polling, now);
        self.in_wait = 1;
        self.on_cpu_since = now;
        Step::NOTHING
    }

    #[inline(always)]
    fn switch_out(&mut self, asleep: bool, syscall: i32, futex: bool, now: u64) -> Step {
        if !asleep {
            self.change(State::Ready, now);
        } else if self.in_wait != 0 {
            if self.slept != 0 && wakes_for_events_only(self.call) {
                self.counters.futile_wakeups += 1;
            }
            self.slept = 1;
            self.change(State::Waiting, now);
        } else {
            self.syscall = syscall;
            self.futex = u8::from(futex);
            self.charge(now);
            // Whether this is a way to BLOCKED or to PARKED, its end will tell.
            self.state = State::Blocked as u8;
        }
        Step::NOTHING
    }

    #[inline(always)]
    fn switch_in(&mut self, wake: Wake, shared: bool, now: u64) -> Step {
        let mut step = Step::NOTHING;
        let waiting = self.state == State::Waiting as u8;
        if waiting || self.state == State::Blocked as u8 {
            // A wakeup from before this stay on the CPU is an old one. One from before the sleep
            // itself is not: the waker may be quicker than the sleeper.
            let seen = wake.at > self.on_cpu_since;
            let mut until = now;
            if seen && wake.at < now {
                until = if wake.at > self.since { wake.at } else { self.since };
            }
            let since = self.since;
            let asleep_ns = until.saturating_sub(since);
            if waiting {
                self.woken_at = if seen { until } else { 0 };
                self.on_cpu_at = now;
                self.waker = wake.waker;
                self.waker_context = wake.context;
            } else {
                if self.futex != 0 && shared {
                    self.state = State::Parked as u8;
                    self.slice_parked_ns += asleep_ns;
                    self.stop_serving(self.stall_threshold, since);
                    // What it does next is another stretch: idle between them, it kept nobody waiting.
                    self.slice.begin();
                    if self.serving_since != 0 {
                        self.serving_since = until;
                    }
                } else {
                    self.slice_blocked_ns += asleep_ns;
                    self.count_blocker(asleep_ns);
                    self.slice.sleep(self.syscall, self.argument, asleep_ns);
                }
                self.count_edge(State::Running as u8, self.state);
                self.last_block =
                    Block { since, ns: asleep_ns, syscall: self.syscall, state: u32::from(self.state) };
                step = Step::BLOCK;
            }
            self.change(State::Ready, until);
            self.throttled = 0;
        }
        if self.state == State::Ready as u8 {
            let ready_ns = now.saturating_sub(self.since);
            if self.throttled != 0 {
                self.counters.throttled_ns += ready_ns;
                if self.in_wait == 0 {
                    self.slice.throttled_ns += ready_ns;
                }
            } else if self.in_wait == 0 {
                self.slice.ready_ns += ready_ns;
            }
        }
        self.change(if self.in_wait != 0 { State::Polling } else { State::Running }, now);
        if self.found_asleep != 0 {
            self.found_asleep = 2;
        }
        self.on_cpu_since = now;
        step
    }

    /// Whether the thread is off its CPU as far as was seen: before any transition of its own but
    /// [`Transition::SwitchIn`], that it got the CPU has been missed.
    #[inline(always)]
    pub const fn is_off_cpu(&self) -> bool {
        // A thread that was found asleep is dealt with where it enters or returns.
        self.state != State::Polling as u8 && self.state != State::Running as u8 && self.found_asleep != 1
    }

    /// The thread is taken to have had its CPU from its wakeup on. How long it waited for it is not known,
    /// and not recorded.
    #[inline(always)]
    fn switch_in_unseen(&mut self, wake: Wake, shared: bool, now: u64) -> Step {
        self.counters.unseen += 1;
        let mut at = now;
        if self.state != State::Ready as u8 && wake.at > self.on_cpu_since && wake.at < now {
            at = if wake.at > self.since { wake.at } else { self.since };
        }
        let step = self.switch_in(wake, shared, at);
        self.on_cpu_at = 0;
        step
    }

    #[inline(always)]
    fn count_blocker(&mut self, ns: u64) {
        for blocker in &mut self.blockers {
            if blocker.count == 0 || blocker.syscall == self.syscall {
                blocker.syscall = self.syscall;
                blocker.record(ns);
                return;
            }
        }
        self.other_blockers.record(ns);
    }

    #[inline(always)]
    fn end(&mut self, now: u64) -> Step {
        self.charge(now);
        self.ended = now;
        if self.in_wait == 0 && self.restarting == 0 && self.returned_at != 0 {
            self.last.loop_ns = now.saturating_sub(self.returned_at).saturating_sub(self.slice_parked_ns);
            self.last.blocked_ns = self.slice_blocked_ns;
            self.last.parked_ns = self.slice_parked_ns;
            self.last.flags |= Iteration::CUT;
            return Step::ITERATION;
        }
        Step::NOTHING
    }
}

/// `poll` and `select` cannot find more ready than they were given, and a ring has no such limit.
#[inline(always)]
const fn has_batch_limit(call: u8) -> bool {
    call == WaitCall::EpollWait as u8
        || call == WaitCall::EpollPwait as u8
        || call == WaitCall::EpollPwait2 as u8
        || call == WaitCall::IoGetevents as u8
        || call == WaitCall::IoPgetevents as u8
}

/// A ring's waiter is woken to do work for the ring, too, and one of Linux AIO for each completion up to the
/// number that it waits for.
#[inline(always)]
const fn wakes_for_events_only(call: u8) -> bool {
    call < WaitCall::IoUringEnter as u8
}

#[inline(always)]
fn count_errno(errnos: &mut [ErrnoCount; ERRNOS], errno: u32) {
    for entry in errnos {
        if entry.errno == 0 || entry.errno == errno {
            entry.errno = errno;
            entry.count += 1;
            return;
        }
    }
}
