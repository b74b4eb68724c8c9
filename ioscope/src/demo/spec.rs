//! What a loop is to do: plain data, readable from JSON, checked before it runs.

use ioscope_common::WaitCall;
use serde::{Deserialize, Serialize};

use super::{DemoError, sys};

/// How a loop's wait calls come to return.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pattern {
    /// One event is always ready: no wait call ever sleeps.
    AlwaysReady,
    /// As many events are ready as [`batch_size`] says, a different number each time.
    Batch,
    /// Nothing is ever ready, and the timeout ([`Spec::timeout_ns`], else 1 ms) expires.
    Expire,
    /// Nothing is ever ready, and the timeout is zero.
    CheckIn,
    /// Nothing is ever ready, the timeout is infinite, and the call asks for at least 0 events:
    /// `io_uring_enter`, `io_getevents` and `io_pgetevents` only.
    NoMinimum,
    /// Every wait call sleeps until a partner thread answers, [`Spec::period_ns`] later.
    PingPong,
    /// A thread makes every fd ready each [`Spec::period_ns`].
    Ticker,
    /// Nothing is ever ready, and a signal interrupts the call each [`Spec::period_ns`]: `EINTR`.
    Interrupted,
    /// The fd is not open: `EBADF`; for `io_getevents` and `io_pgetevents` the context is unknown: `EINVAL`.
    /// `poll` and `ppoll` report it as one ready event (`POLLNVAL`).
    BadFd,
    /// One event is ready and the call's buffer is not mapped: `EFAULT`.
    BadPointer,
    /// As [`Self::Ticker`], of an epoll instance that the threads share: one waits, the others park in
    /// futex until it hands over, as the workers of multi-thread tokio do.
    TakeTurns,
}

/// How the ring of an `io_uring` loop is set up and used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RingMode {
    /// Submits and waits in one call.
    #[default]
    Plain,
    /// Submits in one call (counted apart) and waits in the next.
    SubmitThenWait,
    /// A kernel thread takes the submissions (`IORING_SETUP_SQPOLL`).
    SqPoll,
    /// `IORING_SETUP_DEFER_TASKRUN` and `IORING_SETUP_SINGLE_ISSUER`.
    DeferTaskrun,
    /// The ring's fd is registered (`IORING_REGISTER_RING_FDS`), and entered by its index.
    Registered,
    /// Submits each operation in a call of its own, and waits in the next.
    SubmitEach,
    /// Takes completions out only after every 32nd wait: the queue overflows when more are made than it has room
    /// for.
    TakeLate,
    /// Has a worker thread of the kernel do each operation (`IOSQE_ASYNC`).
    Workers,
}

/// When the loop threads are started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Start {
    /// With "go".
    #[default]
    AfterGo,
    /// Earlier: at "go" each already sleeps in its wait call, which then returns with one event. That
    /// return is counted, and comes on top of [`Spec::iterations`]. (With [`Pattern::TakeTurns`] there is no
    /// such extra event: one thread sleeps in the wait call, the others in futex.)
    BeforeGo,
}

/// What a loop does between two wait calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// Spins until the thread has used so much CPU.
    Burn {
        /// CPU time in nanoseconds.
        ns: u64,
    },
    /// The same, in [`demo_parse_large_json`](super::demo_parse_large_json).
    ParseJson {
        /// CPU time in nanoseconds.
        ns: u64,
    },
    /// Sleeps in `nanosleep`.
    Nanosleep {
        /// For how long, in nanoseconds.
        ns: u64,
    },
    /// The same, in [`demo_sleep_in_handler`](super::demo_sleep_in_handler).
    SleepInHandler {
        /// For how long, in nanoseconds.
        ns: u64,
    },
    /// Writes so much to a temporary file and sleeps in `fsync`, as long as the disk takes.
    Fsync {
        /// How much to write, in bytes.
        bytes: u32,
    },
    /// Sleeps in `futex`, on a word that nobody wakes.
    Futex {
        /// For how long, in nanoseconds.
        ns: u64,
    },
    /// Waits for a mutex that another thread holds so long: `futex`, without a timeout.
    Mutex {
        /// For how long that thread holds it, in nanoseconds.
        ns: u64,
    },
    /// Touches memory whose page comes so much later: sleeps in a page fault, in no system call.
    PageFault {
        /// After how long it comes, in nanoseconds.
        ns: u64,
    },
    /// Touches so many pages of a file that are on the disk only, one after the other: sleeps in a page fault for
    /// each, as long as the disk takes.
    PageStorm {
        /// How many.
        pages: u32,
    },
    /// Sleeps in `read` on a pipe that another thread feeds.
    PipeRead {
        /// After how long that thread writes, in nanoseconds.
        ns: u64,
    },
}

impl Work {
    /// The system call that the work sleeps in; none for work that burns CPU.
    pub const fn syscall(self) -> Option<&'static str> {
        match self {
            Self::Burn { .. } | Self::ParseJson { .. } | Self::PageFault { .. } | Self::PageStorm { .. } => {
                None
            }
            Self::Nanosleep { .. } | Self::SleepInHandler { .. } => Some("nanosleep"),
            Self::Fsync { .. } => Some("fsync"),
            Self::Futex { .. } | Self::Mutex { .. } => Some("futex"),
            Self::PipeRead { .. } => Some("read"),
        }
    }
}

/// Some work, and how often it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slice {
    /// What to do.
    pub work: Work,
    /// After every so-manieth return of the wait call.
    #[serde(default = "one")]
    pub every: u64,
    /// If not 0: no more often than this, in nanoseconds.
    #[serde(default)]
    pub every_ns: u64,
}

const fn one() -> u64 {
    1
}

impl Slice {
    /// After every return of the wait call.
    pub const fn always(work: Work) -> Self {
        Self { work, every: 1, every_ns: 0 }
    }

    /// Not more often than each `every_ns` nanoseconds.
    pub const fn each(every_ns: u64, work: Work) -> Self {
        Self { work, every: 1, every_ns }
    }
}

/// A loop, or several alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Spec {
    /// The wait call, by name.
    #[serde(with = "call_name")]
    pub call: WaitCall,
    /// How it comes to return.
    pub pattern: Pattern,
    /// How many threads do the same, 1 to 256.
    pub threads: u32,
    /// Whether the threads share one poller: the epoll calls only, with `always_ready`, `expire`,
    /// `check_in`, `ticker` (each tick is one token, for whoever is first) and `take_turns` (which always does).
    pub shared: bool,
    /// Each thread ends after so many returns (for `take_turns`: of its own).
    pub iterations: Option<u64>,
    /// Each thread ends after so long, in nanoseconds.
    pub duration_ns: Option<u64>,
    /// How many fds are watched, 1 to 512.
    pub fds: u32,
    /// How many events a wait call takes at most, where it says so: 1 to 4096.
    pub max_events: u32,
    /// The wait call's timeout in nanoseconds, rounded up to the unit that it takes; none for an infinite one.
    pub timeout_ns: Option<u64>,
    /// How often the partner thread acts, in nanoseconds.
    pub period_ns: u64,
    /// What the loop does between two wait calls.
    pub work: Vec<Slice>,
    /// How the ring is used: `io_uring_enter` only.
    pub ring: RingMode,
    /// When the threads are started.
    pub start: Start,
    /// Whether to time each wait call. Off, the report holds counts only, and the loop is as fast as it can be.
    pub timing: bool,
    /// Whether to count the wait calls that slept, by a `getrusage` before and after each.
    pub count_sleeps: bool,
    /// What the threads are called, up to 15 bytes; made from the call's name if none.
    pub comm: Option<String>,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            call: WaitCall::EpollWait,
            pattern: Pattern::AlwaysReady,
            threads: 1,
            shared: false,
            iterations: None,
            duration_ns: None,
            fds: 1,
            max_events: 64,
            timeout_ns: None,
            period_ns: 1_000_000,
            work: Vec::new(),
            ring: RingMode::Plain,
            start: Start::AfterGo,
            timing: true,
            count_sleeps: false,
            comm: None,
        }
    }
}

impl Spec {
    /// A loop of one thread with everything else at its default.
    pub fn new(call: WaitCall, pattern: Pattern) -> Self {
        Self { call, pattern, ..Self::default() }
    }

    /// Whether it ends by itself.
    pub fn is_bounded(&self) -> bool {
        self.iterations.is_some() || self.duration_ns.is_some()
    }

    /// What the kernel will call the thread with this index, at most 15 bytes.
    pub fn comm(&self, index: u32) -> String {
        const MAX: usize = 15;
        let name = self.comm.as_deref().unwrap_or(self.call.name());
        let suffix = if self.threads > 1 { format!("-{index}") } else { String::new() };
        let room = MAX.saturating_sub(suffix.len());
        format!("{}{suffix}", &name[..name.floor_char_boundary(room)])
    }

    /// Whether the threads wait on one poller.
    pub(super) fn is_shared(&self) -> bool {
        self.shared || self.pattern == Pattern::TakeTurns
    }

    /// Refuses what no loop does.
    pub(super) fn check(&self) -> Result<(), DemoError> {
        let is_epoll =
            matches!(self.call, WaitCall::EpollWait | WaitCall::EpollPwait | WaitCall::EpollPwait2);
        let has_minimum =
            matches!(self.call, WaitCall::IoUringEnter | WaitCall::IoGetevents | WaitCall::IoPgetevents);
        let rules = [
            (sys::number(self.call).is_some(), "this architecture has no such call"),
            ((1..=256).contains(&self.threads), "threads: 1 to 256"),
            ((1..=512).contains(&self.fds), "fds: 1 to 512"),
            ((1..=4096).contains(&self.max_events), "max_events: 1 to 4096"),
            (self.pattern != Pattern::NoMinimum || has_minimum, "it has no least number of events"),
            (!self.is_shared() || is_epoll, "only an epoll instance can be shared"),
            (
                !self.is_shared()
                    || matches!(
                        self.pattern,
                        Pattern::AlwaysReady
                            | Pattern::Expire
                            | Pattern::CheckIn
                            | Pattern::Ticker
                            | Pattern::TakeTurns
                    ),
                "this pattern needs a poller of its own",
            ),
            (self.ring == RingMode::Plain || self.call == WaitCall::IoUringEnter, "it has no ring"),
            (self.work.iter().all(|slice| slice.every > 0), "every: 1 or more"),
        ];
        match rules.iter().find(|(kept, _)| !kept) {
            Some((_, rule)) => {
                Err(DemoError::Spec(format!("{} {:?}: {rule}", self.call.name(), self.pattern)))
            }
            None => Ok(()),
        }
    }
}

/// How many of `fds` fds [`Pattern::Batch`] makes ready before the wait call with this index: 1 to `fds`.
pub fn batch_size(index: u64, fds: u32) -> u32 {
    let size = (index % u64::from(fds)) * 7 % u64::from(fds) + 1;
    u32::try_from(size).unwrap_or(1)
}

/// A wait call as its name.
mod call_name {
    use ioscope_common::WaitCall;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
    pub(super) fn serialize<S: Serializer>(call: &WaitCall, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(call.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<WaitCall, D::Error> {
        let name = String::deserialize(deserializer)?;
        WaitCall::ALL
            .into_iter()
            .find(|call| call.name() == name)
            .ok_or_else(|| D::Error::custom(format!("no wait call is called {name:?}")))
    }
}
