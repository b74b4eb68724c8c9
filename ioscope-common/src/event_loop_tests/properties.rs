//! What holds of every life that a thread can have.

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use super::Outcome;
use super::reference::{Counted, Sleep, of_machine, read};
use super::simulation::{Dice, Story, tell};
use crate::{
    Counters, Loop, NO_SYSCALL, OpenInterval, PollerKind, READY_UNMEASURED, State, Step, Transition,
    WaitArgs, WaitCall, Wake,
};

fn dice() -> impl Strategy<Value = Vec<Dice>> {
    prop::collection::vec(any::<Dice>(), 1..200)
}

/// The machine at the start of a story.
fn begin(story: &Story) -> Outcome {
    let mut outcome = Outcome::born(story.born);
    if let Some(args) = &story.found_asleep {
        outcome.machine.found_asleep(args, super::simulation::STALL);
    }
    outcome
}

fn play(story: &Story) -> Outcome {
    let mut outcome = begin(story);
    for happening in &story.happenings {
        let step = outcome.step(happening.transition, happening.at);
        assert!(!step.has(Step::IMPOSSIBLE), "{happening:?}");
    }
    outcome
}

/// Times per state with the open interval, as a reader adds them up.
fn read_times(machine: &Loop, open: &OpenInterval) -> [u64; State::COUNT] {
    let mut times = machine.time_ns;
    times[open.state as usize] += open.ns;
    times[State::Ready as usize] += open.ready_ns;
    times
}

/// What a thread that was found asleep may do first, however unlikely.
fn any_first() -> impl Strategy<Value = Transition> {
    let args = WaitArgs {
        call: WaitCall::Ppoll,
        poller: PollerKind::Set,
        fd: -1,
        max_events: 1,
        timeout: -1,
        ring: 0,
        taken: 0,
    };
    prop_oneof![
        Just(Transition::Enter { args, stall_threshold: u64::MAX }),
        (-600_i64..5).prop_map(|result| Transition::Return { result, posted: 0, ready_at: READY_UNMEASURED }),
        Just(Transition::Resume),
        Just(Transition::HandlerDone),
        Just(Transition::Submit),
        any::<bool>().prop_map(|asleep| Transition::SwitchOut {
            asleep,
            syscall: 1,
            futex: false,
            argument: 0,
            throttled: false
        }),
        (0_u64..2_000, any::<bool>()).prop_map(|(at, shared)| Transition::SwitchIn {
            wake: Wake { at, waker: 1, context: 1 },
            shared
        }),
    ]
}

/// The stories would prove little if one of these never came up in them.
#[test]
fn the_stories_have_everything_in_them() {
    let mut runner = TestRunner::deterministic();
    let mut all = Loop::ZERO;
    let mut flags = 0;
    for _ in 0..300 {
        let dice = dice().new_tree(&mut runner).expect("dice always fall").current();
        let outcome = play(&tell(dice.len().is_multiple_of(4), &dice));
        let counters = &outcome.machine.counters;
        let sums = &mut all.counters;
        for (sum, count) in sums.returns.iter_mut().zip(&counters.returns) {
            *sum += count;
        }
        sums.ready_events += counters.ready_events;
        sums.empty_wakeups += counters.empty_wakeups;
        sums.timeouts += counters.timeouts;
        sums.check_ins += counters.check_ins;
        sums.batch_full += counters.batch_full;
        sums.errors += counters.errors;
        sums.interrupted += counters.interrupted;
        sums.restarts += counters.restarts;
        sums.submissions += counters.submissions;
        sums.submitting_calls += counters.submitting_calls;
        sums.requests += counters.requests;
        sums.futile_wakeups += counters.futile_wakeups;
        sums.stalls += counters.stalls;
        sums.other_poller_returns += counters.other_poller_returns;
        all.other_blockers.count += outcome.machine.other_blockers.count;
        for (sum, time) in all.time_ns.iter_mut().zip(&outcome.machine.time_ns) {
            *sum += time;
        }
        flags |= outcome.iterations.iter().fold(0, |flags, iteration| flags | iteration.flags);
        // A count of completions that has passed 2^32.
        all.ended |= u64::from(outcome.machine.pollers.iter().any(|p| p.address != 0 && p.posted < 1_000));
    }
    let Counters {
        returns,
        ready_events,
        empty_wakeups,
        timeouts,
        check_ins,
        batch_full,
        errors,
        interrupted,
        restarts,
        submissions,
        submitting_calls,
        requests,
        futile_wakeups,
        stalls,
        other_poller_returns,
        ..
    } = all.counters;
    let counts = [
        ready_events,
        empty_wakeups,
        timeouts,
        check_ins,
        batch_full,
        errors,
        interrupted,
        restarts,
        submissions,
        submitting_calls,
        requests,
        futile_wakeups,
        stalls,
        other_poller_returns,
        all.other_blockers.count,
        all.ended,
    ];
    assert!(counts.iter().all(|&count| count > 0), "{counts:?}");
    assert!(returns.iter().all(|&count| count > 0), "{returns:?}");
    assert!(all.time_ns.iter().all(|&time| time > 0), "{:?}", all.time_ns);
    assert_eq!(flags, 63, "every flag of a record");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    /// Every count, every time, every record and every histogram is what the reference makes of the same story.
    #[test]
    fn the_machine_counts_what_the_reference_counts(found_asleep: bool, dice in dice()) {
        let story = tell(found_asleep, &dice);
        let truth = read(&story);
        let Outcome { machine, iterations, blocks } = play(&story);
        let last = story.happenings.last().map_or(story.born, |happening| happening.at);
        let open = machine.open_interval(Wake::default(), false, last);
        let counted = Counted {
            time_ns: read_times(&machine, &open),
            ..of_machine(&machine, &iterations)
        };
        prop_assert_eq!(counted, truth.count());
        let blocks: Vec<Sleep> = blocks
            .iter()
            .map(|block| Sleep {
                since: block.since,
                ns: block.ns,
                syscall: block.syscall,
                parked: block.state == State::Parked as u32,
            })
            .collect();
        prop_assert_eq!(blocks, truth.sleeps);
        prop_assert_eq!(machine.counters.impossible, 0);
    }

    /// Every nanosecond of a life is in one state, at every moment of it.
    #[test]
    fn times_add_up(found_asleep: bool, dice in dice()) {
        let story = tell(found_asleep, &dice);
        let mut outcome = begin(&story);
        for happening in &story.happenings {
            outcome.step(happening.transition, happening.at);
            let machine = &outcome.machine;
            prop_assert_eq!(machine.time_ns.iter().sum::<u64>(), machine.since - machine.born);
            // A step that changes no state leaves the interval open.
            let open = machine.open_interval(Wake::default(), false, happening.at);
            let whole: u64 = read_times(machine, &open).iter().sum();
            prop_assert_eq!(whole, happening.at - machine.born);
        }
        let machine = &outcome.machine;
        let slices: u64 = outcome.iterations.iter().map(|iteration| iteration.loop_ns).sum();
        let parked = machine.time_ns[State::Parked as usize];
        prop_assert!(slices + parked <= machine.since - machine.born);
    }

    /// What a reader makes of an open interval is what its end turns it into.
    #[test]
    fn an_open_interval_is_charged_as_it_was_read(found_asleep: bool, dice in dice()) {
        let story = tell(found_asleep, &dice);
        let mut outcome = begin(&story);
        for happening in &story.happenings {
            let expected = match happening.transition {
                Transition::SwitchIn { wake, shared } => {
                    let open = outcome.machine.open_interval(wake, shared, happening.at);
                    prop_assert_eq!(open.ns + open.ready_ns, happening.at - outcome.machine.since);
                    Some(read_times(&outcome.machine, &open))
                }
                _ => None,
            };
            outcome.step(happening.transition, happening.at);
            if let Some(expected) = expected {
                prop_assert_eq!(outcome.machine.time_ns, expected);
            }
        }
    }

    /// A clock that goes back (another CPU's may) makes no time, and takes none away.
    #[test]
    fn time_never_goes_back(
        found_asleep: bool,
        dice in dice(),
        back in prop::collection::vec(0_u64..400, 200),
        wake in 0_u64..20_000,
    ) {
        let story = tell(found_asleep, &dice);
        let mut outcome = begin(&story);
        let mut latest = story.born;
        for (happening, back) in story.happenings.iter().zip(&back) {
            let now = happening.at.saturating_sub(*back);
            let before = outcome.machine.time_ns;
            let wake = Wake { at: wake, waker: 1, context: 1 };
            let open = outcome.machine.open_interval(wake, true, now);
            prop_assert_eq!(open.ns + open.ready_ns, now.saturating_sub(outcome.machine.since));
            outcome.step(happening.transition, now);
            latest = latest.max(now);
            let machine = &outcome.machine;
            prop_assert!(machine.since <= latest);
            prop_assert_eq!(machine.time_ns.iter().sum::<u64>(), machine.since - machine.born);
            prop_assert!(before.iter().zip(&machine.time_ns).all(|(before, now)| before <= now));
            prop_assert!(machine.loop_duration.sum <= story.happenings.len() as u64 * latest);
        }
    }

    /// A loop that is found asleep may be anywhere on its way out of the wait call, or past it.
    #[test]
    fn a_loop_that_is_found_asleep_may_do_anything_first(
        first in prop::collection::vec((any_first(), 0_u64..500), 1..8),
    ) {
        let mut outcome = Outcome::born(1_000);
        let args = WaitArgs {
            call: WaitCall::EpollWait,
            poller: PollerKind::Epoll,
            fd: 3,
            max_events: 8,
            timeout: crate::TIMEOUT_UNKNOWN,
            ring: 0,
            taken: 0,
        };
        outcome.machine.found_asleep(&args, super::simulation::STALL);
        let mut now = 1_000;
        for (at, (transition, passed)) in first.into_iter().enumerate() {
            now += passed;
            let step = outcome.step(transition, now);
            prop_assert!(at > 0 || !step.has(Step::IMPOSSIBLE), "{transition:?}");
            let machine = &outcome.machine;
            prop_assert_eq!(machine.time_ns.iter().sum::<u64>(), machine.since - machine.born);
        }
        prop_assert!(State::from_number(outcome.machine.state).is_some());
    }

    /// Whatever comes in whatever order: nothing overflows, no index leaves its array, time adds up.
    #[test]
    fn nonsense_does_no_harm(all in prop::collection::vec((any_first(), any::<u32>()), 1..100)) {
        let mut outcome = Outcome::born(0);
        let mut latest = 0;
        for (transition, now) in all {
            outcome.step(transition, u64::from(now));
            latest = latest.max(u64::from(now));
            let machine = &outcome.machine;
            prop_assert!(machine.since <= latest);
            prop_assert_eq!(machine.time_ns.iter().sum::<u64>(), machine.since - machine.born);
        }
        outcome.step(Transition::SwitchOut { asleep: true, syscall: NO_SYSCALL, futex: true, argument: 0, throttled: false }, latest);
        outcome.step(Transition::End, latest + 1);
        prop_assert_eq!(outcome.machine.ended, latest + 1);
    }
}
