//! Stories of sleeping and waking in a wait call, and of what became ready when.

use super::*;

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
fn a_thread_that_is_preempted_had_a_cpu_though_the_switch_was_not_seen() {
    let mut story = Outcome::new();
    story.enters(1_000, EPOLL);
    story.returns(1_100, 1);
    let out = |asleep, syscall| Transition::SwitchOut {
        asleep,
        syscall,
        futex: false,
        argument: 0,
        throttled: false,
    };
    story.step(out(true, FSYNC), 1_200);
    let wake = Wake { at: 1_500, waker: 42, context: 1 };
    assert!(story.machine.is_off_cpu());
    story.step(Transition::SwitchInUnseen { wake, shared: false }, 1_900);
    story.step(out(false, -1), 1_900);
    story.step(Transition::SwitchIn { wake, shared: false }, 2_000);
    story.enters(2_100, EPOLL);
    // BLOCKED until the wakeup, RUNNING until it was preempted, READY until it went on.
    assert_eq!(story.times(), [0, 100, 100, 600, 300, 0]);
    assert_eq!((story.last().blocked_ns, story.machine.counters.unseen), (300, 1));
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
