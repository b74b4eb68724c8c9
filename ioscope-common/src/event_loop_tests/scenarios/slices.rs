//! Stories of what happens between wait calls: sleeps, parking and stalls.

use super::*;

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
