//! Stories told by hand: the machine's specification, a rule a test. Each begins at 1,000 ns.

mod restarts;
mod rings;
mod slices;
mod wakeups;

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
