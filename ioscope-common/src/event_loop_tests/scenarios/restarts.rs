//! Stories of signals, and of calls that the kernel goes on with.

use super::*;

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
