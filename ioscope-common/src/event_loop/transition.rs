//! Where a loop can be, what can happen to its thread, and what a step asks for.

use crate::WaitCall;

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
pub(super) const RESTART_CODES: [i64; 4] = [-512, -513, -514, -516];

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
    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}
