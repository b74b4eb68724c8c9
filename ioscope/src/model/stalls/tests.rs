//! Accounts, stacks and the log, on made-up loops.

use std::{sync::Arc, time::Duration};

use ioscope_common::{Loop, NO_SYSCALL, OpenInterval, STOPPED, SleptIn, Slice, State};

use super::*;
use crate::model::FoundStall;

const ID: LoopId = LoopId(1);

fn loop_with(past: &[(u64, u64)], all: u64) -> Box<Loop> {
    let mut machine = Box::new(Loop::ZERO);
    machine.counters.stalls = all;
    for (number, (began_at, ended_at)) in (all - past.len() as u64..).zip(past) {
        let at = usize::try_from(number % ioscope_common::PAST_STALLS as u64).unwrap();
        machine.past_stalls[at].began_at = *began_at;
        machine.past_stalls[at].ended_at = *ended_at;
    }
    machine
}

fn moment(serving_ns: Option<u64>) -> Moment {
    let open = OpenInterval { state: State::Running, ns: 0, ready_ns: 0 };
    Moment { open, serving_ns, threshold: Duration::from_nanos(100) }
}

fn capture(slice: u64, function: u64) -> Capture {
    let stack = Arc::new(Stack { user: vec![function], ..Stack::default() });
    Capture { at: slice, slice, cause: Cause::User, weight_ns: 5, count: 1, stack }
}

#[test]
fn what_was_seen_in_a_stall_stays_with_it_to_its_end() {
    let mut log = StallLog::default();
    let mut machine = loop_with(&[], 0);
    machine.serving_since = 1_000;
    // Before it is long enough, and of another one that never will be.
    log.capture(&capture(1_000, 7));
    log.capture(&capture(500, 8));
    log.update(ID, &machine, None, &moment(Some(90)));
    assert_eq!(log.iter().count(), 0);
    log.update(ID, &machine, None, &moment(Some(120)));
    log.found(&FoundStall { id: ID, began_at: 1_000, found_at: 1_110 });
    log.capture(&capture(1_000, 7));
    let ongoing = log.ongoing.as_ref().unwrap();
    assert_eq!((ongoing.duration_ns(), ongoing.found_at, ongoing.stacks.total_ns()), (120, Some(1_110), 10));

    let ended = loop_with(&[(1_000, 1_300)], 1);
    log.update(ID, &ended, Some(&machine), &moment(None));
    // A capture may come late.
    log.capture(&capture(1_000, 9));
    assert!(log.ongoing.is_none());
    let [stall] = log.past().collect::<Vec<_>>()[..] else { panic!("{log:?}") };
    assert_eq!((stall.duration_ns(), stall.ended_at, stall.found_at), (300, Some(1_300), Some(1_110)));
    let stacks: Vec<_> = stall.stacks.iter().map(|stack| (stack.stack.user[0], stack.count)).collect();
    assert_eq!(stacks, [(7, 2), (9, 1)]);
}

#[test]
fn what_is_not_kept_is_counted() {
    let mut log = StallLog::default();
    let six = loop_with(&[(30, 40), (50, 60), (70, 80), (90, 95)], 6);
    log.update(ID, &six, None, &moment(None));
    assert_eq!((log.past().len(), log.dropped()), (4, 2));
    let mut before = six;
    for number in 7..100 {
        let now = loop_with(&[(number * 100, number * 100 + 50)], number);
        log.update(ID, &now, Some(&before), &moment(None));
        before = now;
    }
    assert_eq!((log.past().len() as u64 + log.dropped(), log.past().len()), (99, PAST_STALLS));
    assert_eq!(log.past().last().map(|stall| stall.began_at), Some(9_900));
}

#[test]
fn an_account_adds_up_whatever_is_in_it() {
    let slept = |syscall, total_ns| SleptIn { syscall, count: 2, total_ns, max_ns: total_ns, argument: 3 };
    let slice = Slice {
        ready_ns: 100,
        throttled_ns: 200,
        user_samples: 1,
        kernel_samples: 2,
        slept_in: [slept(74, 50), slept(NO_SYSCALL, 60), slept(STOPPED, 70), slept(0, 80)],
        slept_elsewhere: slept(9, 90),
    };
    let mut machine = loop_with(&[], 0);
    (machine.syscall, machine.argument) = (1, 4);
    let open = OpenInterval { state: State::Blocked, ns: 30, ready_ns: 20 };
    let account = Account::of(&slice, 1_000, Some((&machine, &open)));
    let parts = account.parts();
    assert_eq!(parts.iter().map(|(_, ns)| ns).sum::<u64>(), 1_000);
    let of = |cause| parts.iter().find(|(other, _)| *other == cause).map(|(_, ns)| *ns);
    assert_eq!(of(Cause::Blocked(OTHER_SYSCALLS)), Some(90 + 30));
    assert_eq!((of(Cause::PageFault), of(Cause::Stopped)), (Some(60), Some(70)));
    assert_eq!((of(Cause::Preempted), of(Cause::Throttled)), (Some(120), Some(200)));
    // What is left is split as the samples are.
    assert_eq!((of(Cause::User), of(Cause::Kernel)), (Some(100), Some(200)));
    assert_eq!(of(Cause::OnCpu), None);
    let unsampled = Account { user_samples: 0, kernel_samples: 0, ..account };
    assert_eq!(unsampled.user_and_kernel_ns(), None);
    assert_eq!(unsampled.parts().iter().map(|(_, ns)| ns).sum::<u64>(), 1_000);
}

#[test]
fn stacks_are_bounded_and_what_is_left_out_is_weighed() {
    let mut stacks = Stacks::default();
    for function in 0..STACKS as u64 + 10 {
        stacks.add(&capture(1, function));
    }
    stacks.add(&capture(1, 3));
    assert_eq!((stacks.iter().len(), stacks.lost_ns()), (STACKS, 50));
    assert_eq!(stacks.iter().next().map(|stack| (stack.stack.user[0], stack.weight_ns)), Some((3, 10)));
}
