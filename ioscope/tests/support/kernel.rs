//! What the running kernel's wait calls lack: what is not there is not tested, aloud. And how much of a long
//! test an emulated machine has time for.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};

use ioscope::demo::{Pattern, RingMode};
use ioscope_common::WaitCall;

/// Something that programs may use since a version of Linux.
struct Newer {
    what: &'static str,
    since: (u32, u32),
}

/// `fs/eventpoll.c`.
const EPOLL_PWAIT2: Newer = Newer { what: "epoll_pwait2", since: (5, 11) };
/// `IORING_ENTER_EXT_ARG`, `io_uring/io_uring.c`: without it `io_uring_enter` takes no timeout.
const RING_TIMEOUT: Newer = Newer { what: "a timeout of io_uring_enter", since: (5, 11) };
/// `IORING_REGISTER_RING_FDS`, `io_uring/tctx.c`.
const REGISTERED_RING: Newer = Newer { what: "a registered ring", since: (5, 18) };
/// `IORING_SETUP_DEFER_TASKRUN`, `io_uring/io_uring.c`.
const DEFER_TASKRUN: Newer = Newer { what: "a ring with deferred task work", since: (6, 1) };

impl Newer {
    /// Whether it is here; says so if not, once.
    fn is_here(&self) -> bool {
        static SAID: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());
        if version() >= self.since {
            return true;
        }
        if SAID.lock().unwrap_or_else(PoisonError::into_inner).insert(self.what) {
            let (major, minor) = self.since;
            // Past the test harness, which keeps to itself what a passing test prints.
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED {} in all tests: it takes Linux {major}.{minor}",
                self.what
            );
        }
        false
    }
}

/// The first two numbers of the running kernel's version.
pub(crate) fn version() -> (u32, u32) {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|number| number.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// Whether the machine is emulated: what its CPUs do is taken from others', and the kernel knows nothing of it.
pub(crate) fn is_emulated() -> bool {
    std::env::var_os("IOSCOPE_TEST_EMULATED").is_some()
}

/// So many iterations, for a test whose point is their number: a twentieth on an emulated machine, where each takes
/// twenty times as long. What is counted has to be exact either way.
pub(crate) fn many(iterations: u64) -> u64 {
    if is_emulated() { iterations / 20 } else { iterations }
}

/// Whether the kernel has this call.
pub(crate) fn has_call(call: WaitCall) -> bool {
    call != WaitCall::EpollPwait2 || EPOLL_PWAIT2.is_here()
}

/// Whether the kernel has rings of this mode.
pub(crate) fn has_ring(mode: RingMode) -> bool {
    match mode {
        RingMode::Registered => REGISTERED_RING.is_here(),
        RingMode::DeferTaskrun => DEFER_TASKRUN.is_here(),
        RingMode::Plain
        | RingMode::SubmitThenWait
        | RingMode::SubmitEach
        | RingMode::TakeLate
        | RingMode::Workers
        | RingMode::SqPoll => true,
    }
}

/// Whether the call can do what a pattern asks of it.
pub(crate) fn can(call: WaitCall, pattern: Pattern) -> bool {
    let asks_for_a_timeout = matches!(pattern, Pattern::Expire | Pattern::CheckIn | Pattern::BadPointer);
    !(call == WaitCall::IoUringEnter && asks_for_a_timeout) || RING_TIMEOUT.is_here()
}
