//! Stories of io_uring.

use super::*;

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
fn a_ring_that_waits_for_several_completions_counts_from_the_first() {
    let mut story = Outcome::new();
    story.enters(1_000, RING);
    story.sleeps_until(1_010, 1_500, 1_530);
    let transition = Transition::Return { result: 0, posted: 104, ready_at: 1_100 };
    assert_eq!(story.step(transition, 1_540), Step::READY_TAKEN);
    assert_eq!(story.ready_delays(), (1, 440));
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
