//! Stories told by hand: the machine's specification, a rule a test. Each begins at 1,000 ns.

use super::Outcome;
use crate::{
    ETIME, Iteration, NO_SYSCALL, NO_WAKEUP, POLLERS, PollerKind, READY_UNKNOWN, READY_UNMEASURED, STOPPED,
    State, Step, TIMEOUT_NEVER, TIMEOUT_UNKNOWN, Transition, WaitArgs, WaitCall, Wake,
};

const STALL: u64 = 1_000;
const FUTEX: i32 = 202;
const FSYNC: i32 = 74;

/// An infinite `epoll_wait` for up to 8 events on descriptor 3.
const EPOLL: WaitArgs = WaitArgs {
    call: WaitCall::EpollWait,
    poller: PollerKind::Epoll,
    fd: 3,
    max_events: 8,
    timeout: TIMEOUT_NEVER,
    ring: 0,
    taken: 0,
};

const POLL: WaitArgs =
    WaitArgs { call: WaitCall::Poll, poller: PollerKind::Set, fd: -1, max_events: 2, ..EPOLL };

/// A wait for a completion on a ring that the program has taken 100 from.
const RING: WaitArgs = WaitArgs {
    call: WaitCall::IoUringEnter,
    poller: PollerKind::Ring,
    fd: 5,
    max_events: 0,
    ring: 0xffff_8880_0000_1000,
    taken: 100,
    ..EPOLL
};

/// A line of a story.
impl Outcome {
    fn new() -> Self {
        Self::born(1_000)
    }

    fn enters(&mut self, at: u64, args: WaitArgs) -> Step {
        self.step(Transition::Enter { args, stall_threshold: STALL }, at)
    }

    fn returns(&mut self, at: u64, result: i64) -> Step {
        self.step(Transition::Return { result, posted: 0, ready_at: READY_UNMEASURED }, at)
    }

    fn returns_from_ring(&mut self, at: u64, result: i64, posted: u32) -> Step {
        self.step(Transition::Return { result, posted, ready_at: READY_UNMEASURED }, at)
    }

    fn returns_ready(&mut self, at: u64, result: i64, ready_at: u64) -> Step {
        self.step(Transition::Return { result, posted: 0, ready_at }, at)
    }

    /// Number and sum of the ready delays.
    fn ready_delays(&self) -> (u64, u64) {
        let delays = &self.machine.ready_delay;
        (delays.buckets.iter().map(|&count| u64::from(count)).sum(), delays.sum)
    }

    /// Sleeps in a wait call, is woken and gets its CPU.
    fn sleeps_until(&mut self, from: u64, woken: u64, on_cpu: u64) {
        self.step(
            Transition::SwitchOut {
                asleep: true,
                syscall: NO_SYSCALL,
                futex: false,
                argument: 0,
                throttled: false,
            },
            from,
        );
        self.gets_cpu(on_cpu, woken, false);
    }

    /// Sleeps in a system call.
    fn blocks_in(&mut self, syscall: i32, from: u64, woken: u64, shared: bool) {
        self.step(
            Transition::SwitchOut {
                asleep: true,
                syscall,
                futex: syscall == FUTEX,
                argument: 0,
                throttled: false,
            },
            from,
        );
        self.gets_cpu(woken, woken, shared);
    }

    fn is_preempted(&mut self, from: u64, until: u64) {
        self.step(
            Transition::SwitchOut {
                asleep: false,
                syscall: NO_SYSCALL,
                futex: false,
                argument: 0,
                throttled: false,
            },
            from,
        );
        self.gets_cpu(until, 0, false);
    }

    fn gets_cpu(&mut self, at: u64, woken: u64, shared: bool) {
        let wake = Wake { at: woken, waker: 42, context: 1 };
        self.step(Transition::SwitchIn { wake, shared }, at);
    }

    /// Nanoseconds WAITING, POLLING, READY, RUNNING, BLOCKED, PARKED.
    fn times(&self) -> [u64; State::COUNT] {
        self.machine.time_ns
    }

    fn last(&self) -> &Iteration {
        self.iterations.last().expect("an iteration is complete")
    }
}

#[test]
fn an_iteration() {
    let mut story = Outcome::new();
    assert!(story.enters(1_100, EPOLL).has(Step::NEW_POLLER));
    story.sleeps_until(1_110, 1_500, 1_530);
    assert_eq!(story.returns(1_540, 3), Step::NOTHING);
    story.is_preempted(1_600, 1_650);
    assert_eq!(story.enters(1_700, EPOLL), Step::ITERATION);
    assert_eq!(story.times(), [390, 10 + 10, 30 + 50, 100 + 60 + 50, 0, 0]);
    let expected = Iteration {
        kind: crate::kind::ITERATION,
        call: WaitCall::EpollWait as u8,
        flags: Iteration::SLEPT,
        waker_context: 1,
        slot: 7,
        returned_at: 1_540,
        wait_ns: 440,
        loop_ns: 160,
        wakeup_ns: 40,
        run_queue_ns: 30,
        timeout: TIMEOUT_NEVER,
        result: 3,
        events: 3,
        fd: 3,
        max_events: 8,
        waker: 42,
        ready_ns: Iteration::READY_UNSEEN,
        ..Iteration::ZERO
    };
    assert_eq!(*story.last(), expected);
}

#[test]
fn the_first_slice_is_no_loop_duration() {
    let mut story = Outcome::new();
    assert!(!story.enters(9_000, EPOLL).has(Step::ITERATION));
    assert_eq!((story.machine.loop_duration.sum, story.machine.counters.stalls), (0, 0));
}

#[test]
fn the_last_slice_is_cut() {
    let mut story = Outcome::new();
    story.enters(1_000, EPOLL);
    story.returns(1_100, 1);
    assert_eq!(story.step(Transition::End, 1_400), Step::ITERATION);
    assert_eq!((story.last().loop_ns, story.last().flags & Iteration::CUT), (300, Iteration::CUT));
    assert_eq!(story.machine.loop_duration.sum, 0, "it is not known how long it would have been");
    assert_eq!(story.machine.ended, 1_400);
}

#[test]
fn a_thread_that_ends_in_its_wait_call_completes_nothing() {
    let mut story = Outcome::new();
    story.enters(1_000, EPOLL);
    assert_eq!(story.step(Transition::End, 1_400), Step::NOTHING);
    assert_eq!(story.machine.counters.returns, [0; WaitCall::COUNT]);
}

/// Timeout, whether it slept, result; then: check-ins, empty wakeups, timeouts, errors, `EINTR`, wakeups with a
/// number of events. The wait lasts 500 ns.
#[test]
fn what_a_return_counts_as() {
    let cases = [
        (TIMEOUT_NEVER, true, 3, [0, 0, 0, 0, 0, 1]),
        (TIMEOUT_NEVER, true, 0, [0, 1, 0, 0, 0, 1]),
        (TIMEOUT_NEVER, false, 0, [0, 0, 0, 0, 0, 1]),
        (TIMEOUT_NEVER, true, -4, [0, 0, 0, 0, 1, 0]),
        (TIMEOUT_NEVER, true, -9, [0, 0, 0, 1, 0, 0]),
        (TIMEOUT_UNKNOWN, true, 0, [0, 1, 0, 0, 0, 1]),
        (0, false, 0, [1, 0, 0, 0, 0, 0]),
        (0, false, 2, [1, 0, 0, 0, 0, 1]),
        (0, false, -9, [1, 0, 0, 1, 0, 0]),
        // A wait for a lock on the way makes no idle time of a check-in.
        (0, true, 0, [1, 0, 0, 0, 0, 0]),
        (400, true, 0, [0, 1, 1, 0, 0, 1]),
        (500, true, 0, [0, 1, 1, 0, 0, 1]),
        (501, true, 0, [0, 1, 0, 0, 0, 1]),
        (400, true, 1, [0, 0, 0, 0, 0, 1]),
        (400, true, -4, [0, 0, 0, 0, 1, 0]),
        // Too short to fall asleep.
        (1, false, 0, [0, 0, 1, 0, 0, 1]),
    ];
    for (timeout, sleeps, result, expected) in cases {
        let mut story = Outcome::new();
        story.enters(1_000, WaitArgs { timeout, ..EPOLL });
        if sleeps {
            story.sleeps_until(1_100, 1_400, 1_450);
        }
        story.returns(1_500, result);
        let counters = &story.machine.counters;
        let wakeups: u32 = story.machine.ready_per_wakeup.buckets.iter().sum();
        let counted = [
            counters.check_ins,
            counters.empty_wakeups,
            counters.timeouts,
            counters.errors,
            counters.interrupted,
            u64::from(wakeups),
        ];
        assert_eq!(counted, expected, "timeout {timeout}, sleeps {sleeps}, result {result}");
        assert_eq!(counters.returns[WaitCall::EpollWait.index()], 1);
        let late =
            u64::try_from(timeout).ok().filter(|_| expected[2] == 1).map_or(0, |timeout| 500 - timeout);
        assert_eq!(story.machine.poll_delay.sum, late, "timeout {timeout}");
    }
}

#[test]
fn a_full_batch_is_as_many_as_were_asked_for() {
    let returns = |args: WaitArgs, result: i64| {
        let mut story = Outcome::new();
        story.enters(1_000, args);
        story.returns_from_ring(1_010, result, args.taken + 2);
        story.machine.counters.batch_full
    };
    assert_eq!(returns(EPOLL, 8), 1);
    assert_eq!(returns(EPOLL, 7), 0);
    assert_eq!(returns(WaitArgs { max_events: 0, ..EPOLL }, 0), 0);
    // More is not ready than was given, and a ring has no limit.
    assert_eq!(returns(POLL, 2), 0);
    assert_eq!(returns(WaitArgs { max_events: 2, ..RING }, 0), 0);
}

#[test]
fn a_wakeup_has_two_parts() {
    let mut story = Outcome::new();
    story.enters(1_000, EPOLL);
    // Two sleeps: the first wakeup led to nothing.
    story.sleeps_until(1_010, 1_100, 1_120);
    story.sleeps_until(1_130, 1_200, 1_260);
    story.is_preempted(1_270, 1_300);
    story.returns(1_310, 1);
    story.enters(1_400, EPOLL);
    assert_eq!((story.last().wakeup_ns, story.last().run_queue_ns), (110, 60));
    assert_eq!(story.machine.run_queue_delay.sum, 60);
}

#[test]
fn a_waker_may_be_quicker_than_the_sleeper() {
    let mut story = Outcome::new();
    story.enters(1_000, EPOLL);
    story.sleeps_until(1_100, 1_050, 1_150);
    story.returns(1_160, 1);
    assert_eq!(story.times()[State::Waiting as usize], 0, "it was runnable all the time");
    assert_eq!(story.times()[State::Ready as usize], 50);
}

#[test]
fn a_wakeup_from_before_the_wait_is_none_of_it() {
    let mut story = Outcome::new();
    story.gets_cpu(1_000, 0, false);
    story.enters(1_100, EPOLL);
    story.sleeps_until(1_200, 1_050, 1_300);
    story.returns(1_310, 1);
    story.enters(1_400, EPOLL);
    assert_eq!((story.last().wakeup_ns, story.last().waker), (NO_WAKEUP, 0));
    assert_eq!(story.times()[State::Waiting as usize], 100);
}

#[test]
fn a_thread_whose_switch_was_not_seen_has_its_cpu_from_its_wakeup_on() {
    let mut story = Outcome::new();
    story.enters(1_000, EPOLL);
    story.step(
        Transition::SwitchOut {
            asleep: true,
            syscall: NO_SYSCALL,
            futex: false,
            argument: 0,
            throttled: false,
        },
        1_100,
    );
    assert!(story.machine.is_off_cpu());
    let wake = Wake { at: 1_500, waker: 42, context: 1 };
    story.step(Transition::SwitchInUnseen { wake, shared: false }, 1_600);
    assert!(!story.machine.is_off_cpu());
    story.returns(1_600, 1);
    story.enters(1_700, EPOLL);
    // WAITING until the wakeup, POLLING from then on, and nothing READY.
    assert_eq!(story.times(), [400, 200, 0, 100, 0, 0]);
    assert_eq!((story.last().wakeup_ns, story.last().run_queue_ns), (100, NO_WAKEUP));
    assert_eq!(story.machine.counters.unseen, 1);
    assert_eq!(story.machine.counters.impossible, 0);
}

#[test]
fn a_sleep_in_a_slice_ends_with_its_wakeup_though_the_switch_was_not_seen() {
    let mut story = Outcome::new();
    story.enters(1_000, EPOLL);
    story.returns(1_100, 1);
    story.step(
        Transition::SwitchOut { asleep: true, syscall: FSYNC, futex: false, argument: 0, throttled: false },
        1_200,
    );
    let wake = Wake { at: 1_500, waker: 42, context: 1 };
    story.step(Transition::SwitchInUnseen { wake, shared: false }, 1_900);
    story.enters(1_900, EPOLL);
    // BLOCKED until the wakeup, RUNNING from then on.
    assert_eq!(story.times(), [0, 100, 0, 500, 300, 0]);
    assert_eq!(story.last().blocked_ns, 300);
}

#[test]
fn a_sleep_in_a_slice_is_blocked_in_its_system_call() {
    let mut story = Outcome::new();
    story.enters(1_000, EPOLL);
    story.returns(1_010, 1);
    story.blocks_in(FSYNC, 1_100, 1_300, false);
    story.blocks_in(FSYNC, 1_400, 1_450, false);
    story.blocks_in(FUTEX, 1_500, 1_600, false);
    story.enters(1_700, EPOLL);
    assert_eq!(story.times()[State::Blocked as usize], 350);
    let blockers = &story.machine.blockers;
    assert_eq!((blockers[0].syscall, blockers[0].count, blockers[0].total_ns), (FSYNC, 2, 250));
    assert_eq!((blockers[0].max_ns, blockers[1].syscall, blockers[1].total_ns), (200, FUTEX, 100));
    assert_eq!((story.last().loop_ns, story.last().blocked_ns, story.last().parked_ns), (690, 350, 0));
    assert_eq!(story.blocks.len(), 3);
}

#[test]
fn a_futex_is_parked_if_the_poller_is_shared() {
    let mut story = Outcome::new();
    story.enters(1_000, EPOLL);
    story.returns(1_010, 1);
    story.blocks_in(FUTEX, 1_100, 3_000, true);
    // Another sleep is blocked, however many threads share the poller.
    story.blocks_in(FSYNC, 3_000, 3_100, true);
    story.enters(3_200, EPOLL);
    assert_eq!((story.times()[State::Parked as usize], story.times()[State::Blocked as usize]), (1_900, 100));
    assert_eq!((story.last().loop_ns, story.last().parked_ns), (290, 1_900), "parked is no work");
    assert_eq!(story.machine.counters.stalls, 0);
    assert_eq!(story.machine.blockers[0].syscall, FSYNC);
}

#[test]
fn a_stall_is_a_slice_at_or_over_the_threshold() {
    for (slice, stalls) in [(STALL - 1, 0), (STALL, 1), (STALL * 3, 1)] {
        let mut story = Outcome::new();
        story.enters(1_000, EPOLL);
        story.returns(1_000, 1);
        story.enters(1_000 + slice, EPOLL);
        let counters = &story.machine.counters;
        assert_eq!((counters.stalls, counters.stalled_ns), (stalls, slice * stalls));
        assert_eq!(counters.longest_stall_ns, slice * stalls);
    }
}

#[test]
fn a_restarted_call_returns_once() {
    // 514 is entered again, 516 is gone on with by restart_syscall; the others are like either.
    for code in [512, 513, 514, 516] {
        let mut story = Outcome::new();
        story.enters(1_000, POLL);
        story.sleeps_until(1_010, 1_100, 1_110);
        assert_eq!(story.returns(1_120, -code), Step::NOTHING);
        story.blocks_in(STOPPED, 1_130, 1_900, false);
        let step =
            if code == 516 { story.step(Transition::Resume, 1_950) } else { story.enters(1_950, POLL) };
        assert_eq!(step, Step::NOTHING);
        story.returns(2_000, 1);
        story.enters(2_100, POLL);
        let counters = &story.machine.counters;
        assert_eq!((counters.returns[WaitCall::Poll.index()], counters.restarts), (1, 1), "{code}");
        assert_eq!((counters.interrupted, counters.errors), (0, 0), "{code}");
        assert_eq!((story.last().wait_ns, story.last().loop_ns), (1_000, 100), "{code}");
        // The stop was no work of the slice, and the signal that it began with no wakeup of the wait.
        assert_eq!((story.last().blocked_ns, story.last().wakeup_ns), (0, NO_WAKEUP), "{code}");
        assert_eq!(story.machine.blockers[0].total_ns, 770, "{code}");
    }
}

#[test]
fn a_handler_turns_a_restart_into_eintr() {
    for code in [512, 513, 514, 516] {
        let mut story = Outcome::new();
        story.enters(1_000, POLL);
        story.returns(1_050, 1);
        story.blocks_in(FSYNC, 1_060, 1_090, false);
        story.enters(1_100, POLL);
        story.sleeps_until(1_110, 1_200, 1_210);
        story.returns(1_220, -code);
        // What the handler sleeps in belongs to the slice, and what the slice before slept in does not.
        story.blocks_in(FSYNC, 1_300, 1_400, false);
        story.step(Transition::HandlerDone, 1_450);
        story.enters(1_500, POLL);
        let counters = &story.machine.counters;
        assert_eq!((counters.interrupted, counters.restarts, counters.errors), (1, 0, 0), "{code}");
        assert_eq!(counters.returns[WaitCall::Poll.index()], 2, "{code}");
        let last = story.last();
        assert_eq!((last.result, last.returned_at, last.loop_ns), (-4, 1_220, 280), "{code}");
        assert_eq!((last.blocked_ns, last.wakeup_ns), (100, 20), "{code}");
    }
}

#[test]
fn another_call_after_a_restart_code_means_that_it_was_left() {
    let mut story = Outcome::new();
    story.enters(1_000, POLL);
    story.returns(1_100, -514);
    let step = story.enters(1_200, EPOLL);
    assert!(step.has(Step::ITERATION) && step.has(Step::NEW_POLLER));
    assert_eq!(story.machine.counters.interrupted, 1);
    assert_eq!((story.last().result, story.last().loop_ns), (-4, 100));
}

#[test]
fn no_code_but_four_restarts_a_call() {
    // 515 is ENOIOCTLCMD, which programs do see.
    for code in [511, 515, 517] {
        let mut story = Outcome::new();
        story.enters(1_000, POLL);
        story.returns(1_100, -code);
        assert_eq!((story.machine.restarting, story.machine.counters.errors), (0, 1), "{code}");
    }
}

#[test]
fn a_ring_finds_what_was_posted_since_it_last_returned() {
    let mut story = Outcome::new();
    // 3 of these were posted before, by a call that only submitted.
    story.enters(1_000, RING);
    story.returns_from_ring(1_010, 5, 104);
    assert_eq!(story.machine.counters.ready_events, 4, "the result is how many were submitted");
    // What is posted during the slice counts for the next return.
    story.enters(1_100, WaitArgs { taken: 102, ..RING });
    story.returns_from_ring(1_110, 0, 109);
    assert_eq!(story.machine.counters.ready_events, 9);
}

#[test]
fn a_ring_counts_past_2_to_the_32() {
    let mut story = Outcome::new();
    story.enters(1_000, WaitArgs { taken: u32::MAX - 1, ..RING });
    story.returns_from_ring(1_010, 0, 5);
    assert_eq!(story.machine.counters.ready_events, 7);
}

#[test]
fn a_timeout_of_a_ring_is_no_error() {
    let mut story = Outcome::new();
    story.enters(1_000, WaitArgs { timeout: 100, ..RING });
    story.sleeps_until(1_010, 1_100, 1_110);
    story.returns_from_ring(1_120, -i64::from(ETIME), 100);
    let counters = &story.machine.counters;
    assert_eq!((counters.errors, counters.timeouts, counters.empty_wakeups), (0, 1, 1));
    // Of any other call it is.
    story.enters(1_200, EPOLL);
    story.returns(1_210, -i64::from(ETIME));
    assert_eq!(story.machine.counters.errors, 1);
}

#[test]
fn a_descriptor_that_is_no_ring_any_more_finds_nothing() {
    let mut story = Outcome::new();
    story.enters(1_000, RING);
    story.returns_from_ring(1_010, 0, 150);
    story.enters(1_100, WaitArgs { ring: 0, taken: 0, ..RING });
    assert_eq!(story.machine.pollers[0].address, 0, "nobody reads what was a ring");
    story.returns_from_ring(1_110, -9, 0);
    assert_eq!((story.machine.counters.ready_events, story.machine.counters.errors), (50, 1));
    // And it may be another ring's.
    story.enters(1_200, WaitArgs { ring: 0xffff_8880_0000_2000, taken: 7, ..RING });
    story.returns_from_ring(1_210, 0, 9);
    assert_eq!(story.machine.counters.ready_events, 52);
}

#[test]
fn a_poller_beyond_the_last_place_is_counted_all_the_same() {
    let mut story = Outcome::new();
    let more = POLLERS + 2;
    for (fd, at) in (0..).zip((0..more as u64).map(|turn| 1_000 + turn * 100)) {
        let step = story.enters(at, WaitArgs { fd, ..EPOLL });
        assert_eq!(step.has(Step::NEW_POLLER), usize::try_from(fd).expect("small") < POLLERS);
        story.returns(at + 10, 1);
    }
    let counters = &story.machine.counters;
    assert_eq!((counters.returns[0], counters.ready_events), (more as u64, more as u64));
    assert_eq!(counters.other_poller_returns, 2);
    assert!(story.machine.pollers.iter().all(|poller| poller.iterations == 1));
}

#[test]
fn the_same_descriptor_of_another_kind_is_another_poller() {
    let mut story = Outcome::new();
    for (at, poller) in [(1_000, PollerKind::Ring), (1_100, PollerKind::RegisteredRing)] {
        assert!(story.enters(at, WaitArgs { poller, fd: 0, ..RING }).has(Step::NEW_POLLER));
        story.returns_from_ring(at + 10, 0, 100);
    }
    assert_eq!(story.machine.pollers.map(|poller| poller.kind)[..3], [2, 3, 0]);
}

#[test]
fn submitting_is_no_wait() {
    let mut story = Outcome::new();
    assert_eq!(story.step(Transition::Submit, 1_500), Step::NOTHING);
    story.returns(1_600, 3);
    story.machine.submitted(3);
    let counters = &story.machine.counters;
    assert_eq!((counters.submissions, counters.submitting_calls, counters.requests), (1, 1, 3));
    assert_eq!(counters.returns, [0; WaitCall::COUNT]);
}

#[test]
fn a_wait_that_submits_counts_its_requests() {
    let mut story = Outcome::new();
    for (at, result) in [(1_000, 5), (1_100, 0), (1_200, -62)] {
        story.enters(at, RING);
        story.returns_from_ring(at + 10, result, 0);
    }
    let counters = &story.machine.counters;
    assert_eq!((counters.submissions, counters.submitting_calls, counters.requests), (0, 1, 5));
}

#[test]
fn a_wakeup_that_finds_nothing_is_futile() {
    let mut story = Outcome::new();
    story.enters(1_000, EPOLL);
    for at in [1_100, 1_200, 1_300] {
        story.sleeps_until(at, at + 50, at + 60);
    }
    story.returns(1_400, 1);
    assert_eq!(story.machine.counters.futile_wakeups, 2);
    // A ring's waiter wakes to work for the ring.
    story.enters(1_500, RING);
    story.sleeps_until(1_510, 1_520, 1_530);
    story.sleeps_until(1_540, 1_550, 1_560);
    story.returns_from_ring(1_570, 0, 1);
    assert_eq!(story.machine.counters.futile_wakeups, 2);
}

#[test]
fn a_loop_that_is_found_asleep_is_waiting() {
    let mut story = Outcome::new();
    story.machine.found_asleep(&EPOLL, STALL);
    story.gets_cpu(1_600, 1_500, false);
    story.returns(1_610, 2);
    assert_eq!(story.times(), [500, 10, 100, 0, 0, 0]);
    assert_eq!((story.machine.counters.ready_events, story.machine.wakeup_latency.sum), (2, 110));
}

#[test]
fn a_loop_that_had_woken_before_it_was_found_begins_with_its_next_wait() {
    let mut story = Outcome::new();
    story.machine.found_asleep(&EPOLL, STALL);
    // Its return came before the machine was there.
    let step = story.enters(1_700, EPOLL);
    assert!(!step.has(Step::IMPOSSIBLE) && !step.has(Step::ITERATION));
    assert_eq!((story.machine.born, story.times()), (1_700, [0; State::COUNT]));
    story.returns(1_800, 1);
    assert_eq!(story.times(), [0, 100, 0, 0, 0, 0]);
}

#[test]
fn a_loop_that_was_frozen_on_its_way_out_begins_with_its_next_wait() {
    let mut story = Outcome::new();
    // Its return came before it was frozen, and it is asleep all the same.
    story.machine.found_asleep(&EPOLL, STALL);
    story.gets_cpu(1_600, 1_500, false);
    story.sleeps_until(1_620, 1_650, 1_660);
    let step = story.enters(1_700, EPOLL);
    assert!(!step.has(Step::IMPOSSIBLE) && !step.has(Step::ITERATION));
    assert_eq!((story.machine.born, story.times()), (1_700, [0; State::COUNT]));
    story.returns(1_800, 1);
    assert_eq!(story.machine.counters.returns[0], 1);
    // From here on a return that is missed is noticed.
    story.enters(1_900, EPOLL);
    assert!(story.enters(2_000, EPOLL).has(Step::IMPOSSIBLE));
}

#[test]
fn an_entry_without_a_return_is_noticed() {
    let mut story = Outcome::new();
    story.enters(1_000, EPOLL);
    story.returns(1_010, 1);
    story.enters(1_100, EPOLL);
    assert!(story.enters(1_300, EPOLL).has(Step::IMPOSSIBLE));
    story.returns(1_310, 1);
    assert_eq!(story.machine.counters.impossible, 1);
    // What was missed is not made up: neither a return nor a loop duration.
    assert_eq!(story.machine.counters.returns[0], 2);
    assert_eq!(story.machine.loop_duration.sum, 90);
}

/// What a stall's time went to, while it goes on and afterwards.
#[test]
fn a_stall_has_an_account() {
    let mut story = Outcome::new();
    story.enters(1_100, EPOLL);
    story.sleeps_until(1_110, 1_500, 1_530);
    story.returns(1_540, 3);
    story.is_preempted(1_600, 1_650);
    for (at, syscall) in [FSYNC, FSYNC, NO_SYSCALL, STOPPED, 0, 1, FSYNC, 2].into_iter().enumerate() {
        let from = 2_000 + 100 * at as u64;
        let argument = 40 + at as u64;
        story.step(
            Transition::SwitchOut { asleep: true, syscall, futex: false, argument, throttled: false },
            from,
        );
        // Woken, and not at once on a CPU.
        story.gets_cpu(from + 21 + at as u64, from + 20 + at as u64, false);
    }
    story.step(
        Transition::SwitchOut {
            asleep: false,
            syscall: NO_SYSCALL,
            futex: false,
            argument: 0,
            throttled: true,
        },
        3_000,
    );
    story.gets_cpu(3_400, 0, false);
    let expected = |slice: &crate::Slice| {
        let entries: Vec<_> = slice
            .slept_in
            .iter()
            .map(|entry| (entry.syscall, entry.count, entry.total_ns, entry.max_ns, entry.argument))
            .collect();
        assert_eq!(
            entries,
            [
                (FSYNC, 3, 20 + 21 + 26, 26, 46),
                (NO_SYSCALL, 1, 22, 22, 42),
                (STOPPED, 1, 23, 23, 43),
                (0, 1, 24, 24, 44)
            ]
        );
        let other = slice.slept_elsewhere;
        assert_eq!((other.count, other.total_ns, other.max_ns, other.argument), (2, 25 + 27, 27, 47));
        assert_eq!((slice.ready_ns, slice.throttled_ns), (50 + 8, 400));
    };
    expected(&story.machine.slice);
    // It ends when the thread parks.
    story.blocks_in(FUTEX, 3_500, 3_600, true);
    let past = &story.machine.past_stalls[0];
    assert_eq!((past.began_at, past.ended_at), (1_540, 3_500));
    expected(&past.slice);
    assert_eq!(story.machine.counters.throttled_ns, 400);

    // What it does next has nothing of it, and a short stretch is no stall.
    assert_eq!(story.machine.serving_since, 3_600);
    story.enters(4_000, EPOLL);
    assert_ne!(story.last().flags & Iteration::STALLED, 0);
    story.returns(4_100, 1);
    assert!(story.machine.slice.slept_in.iter().all(|entry| entry.count == 0));
    assert_eq!(story.machine.slice.slept_elsewhere.count, 0);
    assert_eq!((story.machine.slice.ready_ns, story.machine.slice.throttled_ns), (0, 0));
    story.enters(4_200, EPOLL);
    assert_eq!(story.machine.counters.stalls, 1);
}

/// What came before the slice, in the wait call, is none of it; what a signal handler slept in is.
#[test]
fn an_interrupted_call_is_followed_by_a_slice() {
    let mut story = Outcome::new();
    story.enters(1_100, EPOLL);
    story.sleeps_until(1_110, 1_500, 1_530);
    story.returns(1_540, -514);
    story.blocks_in(FSYNC, 1_600, 2_700, false);
    story.step(Transition::HandlerDone, 2_750);
    story.enters(2_800, EPOLL);
    let past = &story.machine.past_stalls[0];
    assert_eq!((past.began_at, past.ended_at, past.slice.ready_ns), (1_540, 2_800, 0));
    assert_eq!((past.slice.slept_in[0].syscall, past.slice.slept_in[0].total_ns), (FSYNC, 1_100));
}

#[test]
fn what_became_ready_in_the_slice_waited_for_the_next_return() {
    let mut story = Outcome::new();
    story.enters(1_000, EPOLL);
    story.returns_ready(1_010, 1, READY_UNKNOWN);
    assert_eq!((story.ready_delays(), story.machine.counters.ready_unknown), ((0, 0), 1));
    story.enters(1_800, EPOLL);
    assert_eq!(story.returns_ready(1_810, 2, 1_200), Step::READY_TAKEN);
    assert_eq!(story.ready_delays(), (1, 610));
}

#[test]
fn what_wakes_a_sleeper_became_ready_when_it_was_woken() {
    let mut story = Outcome::new();
    story.enters(1_000, EPOLL);
    story.sleeps_until(1_010, 1_500, 1_530);
    // Nobody was seen to make it ready; or it was, long ago, for another thread on the same poller.
    assert_eq!(story.returns_ready(1_540, 1, READY_UNKNOWN), Step::UNEXPLAINED);
    story.enters(1_600, EPOLL);
    story.sleeps_until(1_610, 1_700, 1_710);
    assert_eq!(story.returns_ready(1_720, 1, 1_605), Step::READY_TAKEN);
    assert_eq!(story.ready_delays(), (2, 40 + 20));
}

#[test]
fn a_ring_that_waits_for_several_completions_counts_from_the_first() {
    let mut story = Outcome::new();
    story.enters(1_000, RING);
    story.sleeps_until(1_010, 1_500, 1_530);
    let transition = Transition::Return { result: 0, posted: 104, ready_at: 1_100 };
    assert_eq!(story.step(transition, 1_540), Step::READY_TAKEN);
    assert_eq!(story.ready_delays(), (1, 440));
}

#[test]
fn what_was_ready_and_is_not_returned_is_forgotten() {
    let mut story = Outcome::new();
    story.enters(1_100, EPOLL);
    // The program has read it without asking.
    assert_eq!(story.returns_ready(1_200, 0, 1_050), Step::READY_TAKEN);
    story.enters(1_300, EPOLL);
    // It came while the call was on its way out.
    assert_eq!(story.returns_ready(1_400, 0, 1_399), Step::NOTHING);
    assert_eq!((story.ready_delays(), story.machine.counters.ready_unknown), ((0, 0), 0));
}

#[test]
fn another_ring_under_the_same_number_is_told_of() {
    let mut story = Outcome::new();
    assert!(story.enters(1_000, RING).has(Step::OTHER_RING));
    story.returns_from_ring(1_010, 0, 100);
    assert!(!story.enters(1_100, RING).has(Step::OTHER_RING));
    story.returns_from_ring(1_110, 0, 100);
    assert!(story.enters(1_200, WaitArgs { ring: 7, ..RING }).has(Step::OTHER_RING));
}

/// A worker that shares its poller may not wait on it itself for hours. What it did in all that time between one
/// park and the next kept nobody waiting.
#[test]
fn many_short_stretches_between_parks_are_no_stall() {
    let mut story = Outcome::new();
    story.enters(1_100, EPOLL);
    story.sleeps_until(1_110, 1_500, 1_530);
    story.returns(1_540, 3);
    for turn in 0..10 {
        let at = 2_000 + 1_000 * turn;
        story.blocks_in(FUTEX, at, at + 300, true);
    }
    story.enters(11_500, EPOLL);
    assert_eq!(story.last().loop_ns, 11_500 - 1_540 - 10 * 300);
    assert_eq!(story.machine.counters.stalls, 0);
    assert_eq!(story.last().flags & Iteration::STALLED, 0);
}
