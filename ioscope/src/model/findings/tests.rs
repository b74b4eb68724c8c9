//! Each finding at the edge of its thresholds: a loop is made up that is just bad enough, and one that is not.

use std::{sync::Arc, time::Duration};

use ioscope_common::{Blocker, Durations, STOPPED, State, WaitCall};

use super::*;
use crate::{
    model::{
        Distribution, LoopId, Throttling,
        stalls::{Account, BlockedIn, Capture, Stack, Stacks},
    },
    symbols::Frame,
};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
const FSYNC: i32 = 74;

/// A loop that was watched for ten seconds and waited all the time.
fn idle() -> Stats {
    let mut stats = Stats::new(SECOND);
    stats.until = 11 * SECOND;
    stats.time_ns[State::Waiting as usize] = 10 * SECOND;
    stats
}

/// So much of its ten seconds it was in this state instead of WAITING.
fn with_time(before: Stats, state: State, ns: u64) -> Stats {
    let mut changed = before;
    changed.time_ns[state as usize] += ns;
    changed.time_ns[State::Waiting as usize] -= ns;
    changed
}

/// So often this value, each.
fn distribution(values: &[(u64, u64)]) -> Distribution {
    let mut histogram = Durations::EMPTY;
    for &(value, number) in values {
        for _ in 0..number {
            histogram.record(value);
        }
    }
    let mut distribution = Distribution::default();
    distribution.add_since(&histogram, None);
    distribution
}

fn blocked(syscall: i32, count: u64, total_ns: u64, max_ns: u64) -> Stats {
    let mut stats = with_time(idle(), State::Blocked, total_ns);
    stats.blockers.push(Blocker { syscall, reserved: 0, count, total_ns, max_ns });
    stats
}

fn identity(pid: u32, tid: u32, runtime: Option<&'static str>) -> Arc<Identity> {
    let comm = format!("loop-{tid}");
    Arc::new(Identity { pid, tid, inner: None, comm, process: "program".to_owned(), runtime })
}

const WAITING: Present =
    Present { state: State::Waiting, for_ns: MS, syscall: None, slice_ns: None, serving_ns: None };

fn inputs<'a>(identity: &'a Arc<Identity>, stats: &'a Stats, present: &'a Present) -> Inputs<'a> {
    Inputs {
        identity,
        stats,
        present,
        ended: false,
        stalls: &[],
        unpolled: None,
        stall_threshold: Duration::from_millis(100),
        syscall_name: |number| format!("call {number}"),
    }
}

fn all(stats: &Stats) -> Vec<Finding> {
    find([inputs(&identity(1, 1, None), stats, &WAITING)])
}

/// Tag and severity of all that is found.
fn tags(stats: &Stats) -> Vec<(&'static str, Severity)> {
    all(stats).iter().map(|finding| (finding.tag, finding.severity)).collect()
}

const NOTHING: [(&str, Severity); 0] = [];
use Severity::{Critical, Info, Warn};

#[test]
fn an_idle_loop_has_none() {
    assert_eq!(tags(&idle()), NOTHING);
    assert_eq!(tags(&Stats::new(5)), NOTHING);
}

#[test]
fn tags_are_kebab_case_and_their_own() {
    let mut tags: Vec<_> = DETECTORS.iter().map(|detector| detector.tag()).collect();
    assert!(tags.iter().all(|tag| tag.chars().all(|c| c.is_ascii_lowercase() || c == '-')), "{tags:?}");
    tags.sort_unstable();
    tags.dedup();
    assert_eq!(tags.len(), DETECTORS.len());
}

#[test]
fn blocking_call() {
    let tag = "blocking-call";
    assert_eq!(tags(&blocked(FSYNC, 5, 30 * MS, 10 * MS - 1)), NOTHING);
    assert_eq!(tags(&blocked(FSYNC, 5, 30 * MS, 10 * MS)), [(tag, Info)]);
    // From 10 ms on, 2 % of ten seconds; however short, 10 %.
    assert_eq!(tags(&blocked(FSYNC, 50, 200 * MS - 1, 10 * MS)), [(tag, Info)]);
    assert_eq!(tags(&blocked(FSYNC, 50, 200 * MS, 10 * MS)), [(tag, Warn)]);
    assert_eq!(tags(&blocked(FSYNC, 9_000, SECOND - 1, MS)), NOTHING);
    assert_eq!(tags(&blocked(FSYNC, 9_000, SECOND, MS)), [(tag, Warn)]);
    // A stall, and stalls for 5 %.
    assert_eq!(tags(&blocked(FSYNC, 1, 100 * MS, 100 * MS)), [(tag, Warn)]);
    assert_eq!(tags(&blocked(FSYNC, 5, 500 * MS, 100 * MS)), [(tag, Critical)]);
    // Of an interval the longest may be older than it.
    assert_eq!(tags(&blocked(FSYNC, 1, 9 * MS, 100 * MS)), NOTHING);
    assert_eq!(tags(&blocked(STOPPED, 1, 5 * SECOND, 5 * SECOND)), NOTHING);
    let findings = all(&blocked(FSYNC, 5, 500 * MS, 100 * MS));
    assert_eq!(findings[0].subject.as_deref(), Some("call 74"));
    assert_eq!(findings[0].evidence[0], nanoseconds("longest", 100 * MS));
}

#[test]
fn poller_unpolled() {
    let tag = "poller-unpolled";
    let (who, stats) = (identity(1, 1, None), idle());
    let found = |longest_ns, now_ns| {
        let unpolled = Some(Unpolled::seen(now_ns, longest_ns));
        let found = find([Inputs { unpolled, ..inputs(&who, &stats, &WAITING) }]);
        found.iter().map(|finding| (finding.tag, finding.severity)).collect::<Vec<_>>()
    };
    assert_eq!(found(100 * MS - 1, 0), NOTHING);
    assert_eq!(found(100 * MS, 0), [(tag, Warn)]);
    assert_eq!(found(SECOND - 1, 0), [(tag, Warn)]);
    assert_eq!(found(SECOND, 0), [(tag, Critical)]);
    // One of the threads that share it, and not each.
    let unpolled = Some(Unpolled::seen(0, SECOND));
    let other = identity(1, 2, None);
    let both = [&who, &other].map(|identity| Inputs { unpolled, ..inputs(identity, &stats, &WAITING) });
    let findings = find(both);
    assert_eq!((findings.len(), findings[0].loops.len()), (1, 2));
    assert_eq!(findings[0].evidence[0], nanoseconds("longest", SECOND));
}

#[test]
fn a_sleep_that_goes_on_is_a_blocking_call() {
    let stats = with_time(idle(), State::Blocked, 3 * SECOND);
    let who = identity(1, 1, None);
    let present = Present {
        state: State::Blocked,
        for_ns: 3 * SECOND,
        syscall: Some(FSYNC),
        slice_ns: Some(3 * SECOND),
        serving_ns: Some(3 * SECOND),
    };
    let findings = find([inputs(&who, &stats, &present)]);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!((findings[0].tag, findings[0].severity), ("blocking-call", Critical));
    let ended = Inputs { ended: true, ..inputs(&who, &stats, &present) };
    assert_eq!(find([ended]), []);
}

#[test]
fn what_blocks_by_design_is_no_blocking_call() {
    let stats = blocked(35, 500, 9 * SECOND, 20 * MS);
    assert_eq!(find([inputs(&identity(1, 1, Some("go")), &stats, &WAITING)])[0].severity, Info);
    let mut monitor = stats;
    monitor.counters.returns[WaitCall::EpollPwait.index()] = 100;
    monitor.counters.check_ins = 100;
    assert_eq!(tags(&monitor), NOTHING);
    let computes = stalled(500 * MS, 4, 0, 0);
    assert_eq!(find([inputs(&identity(1, 1, Some("go")), &computes, &WAITING)])[0].severity, Info);
}

fn stalled(stalled_ns: u64, count: u64, blocked: u64, ready: u64) -> Stats {
    let mut stats = with_time(idle(), State::Running, stalled_ns - blocked - ready);
    stats = with_time(with_time(stats, State::Blocked, blocked), State::Ready, ready);
    stats.counters.stalls = count;
    stats.counters.stalled_ns = stalled_ns;
    stats.counters.longest_stall_ns = stalled_ns / count.max(1);
    stats
}

#[test]
fn cpu_bound_callback() {
    let tag = "cpu-bound-callback";
    assert_eq!(tags(&stalled(100 * MS, 1, 0, 0)), [(tag, Warn)]);
    assert_eq!(tags(&stalled(500 * MS - 1, 4, 0, 0)), [(tag, Warn)]);
    assert_eq!(tags(&stalled(500 * MS, 4, 0, 0)), [(tag, Critical)]);
    // Half of it asleep or without a CPU is the edge.
    assert_eq!(tags(&stalled(100 * MS, 1, 0, 50 * MS)), [(tag, Warn)]);
    assert_eq!(tags(&stalled(100 * MS, 1, 0, 50 * MS + 1)), NOTHING);
    // Long slices that are no stalls: 10 % of the time, counted from the lower end of their bucket.
    let long = |ns: u64, number: u64| {
        let mut stats = with_time(idle(), State::Running, ns * number);
        stats.loop_duration = distribution(&[(ns, number)]);
        stats
    };
    assert_eq!(tags(&long(9 * MS, 900)), NOTHING);
    assert_eq!(tags(&long(20 * MS, 5)), [(tag, Info)]);
    assert_eq!(tags(&long(20 * MS, 60)), [(tag, Warn)]);
    let evidence = &all(&long(20 * MS, 60))[0].evidence;
    assert_eq!((evidence[0], evidence[2]), (nanoseconds("longest", 20 * MS), count("long_slices", 60)));
}

#[test]
fn a_callback_that_does_not_return_is_one() {
    let stats = with_time(idle(), State::Running, 3 * SECOND);
    let present = Present {
        state: State::Running,
        for_ns: SECOND,
        syscall: None,
        slice_ns: Some(3 * SECOND),
        serving_ns: Some(3 * SECOND),
    };
    let who = identity(1, 1, None);
    let findings = find([inputs(&who, &stats, &present)]);
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!((findings[0].tag, findings[0].severity), ("cpu-bound-callback", Critical));
    assert!(findings[0].summary.contains("without coming back"));
}

fn ready(ready: u64, running: u64) -> Stats {
    with_time(with_time(idle(), State::Ready, ready), State::Running, running)
}

#[test]
fn run_queue_starvation() {
    let tag = "run-queue-starvation";
    assert_eq!(tags(&ready(SECOND - 1, 2 * SECOND - 2)), NOTHING, "less than a tenth of the time");
    assert_eq!(tags(&ready(SECOND, 2 * SECOND)), [(tag, Warn)]);
    assert_eq!(tags(&ready(SECOND, 2 * SECOND + 1)), NOTHING, "less than a third of its work");
    assert_eq!(tags(&ready(3 * SECOND, 1_500 * MS)), [(tag, Critical)]);
    assert_eq!(tags(&ready(3 * SECOND, 1_501 * MS)), [(tag, Warn)]);
    // Two that wake each other: half of the time, and microseconds each.
    let often = |turns: u64, p99: u64| {
        let mut stats = ready(4 * SECOND, 4 * SECOND);
        stats.counters.returns[WaitCall::EpollWait.index()] = turns;
        stats.run_queue_delay = distribution(&[(1_000, 900), (p99, 100)]);
        stats
    };
    assert_eq!(tags(&often(4_001, 900_000)), NOTHING);
    assert_eq!(tags(&often(4_000, 900_000)), [(tag, Warn)]);
    assert_eq!(tags(&often(4_001, 1_100_000)), [(tag, Warn)]);
    let late = |ns: u64, number: u64| {
        let mut stats = idle();
        stats.run_queue_delay = distribution(&[(ns, number)]);
        stats
    };
    assert_eq!(tags(&late(11 * MS, 10)), [(tag, Warn)]);
    assert_eq!(tags(&late(11 * MS, 9)), NOTHING);
    assert_eq!(tags(&late(9 * MS, 10)), NOTHING);
}

#[test]
fn cgroup_throttling() {
    let tag = "cgroup-throttling";
    let throttled = |throttled_periods: u64, ready_ns: u64| {
        let mut stats = ready(ready_ns, ready_ns);
        stats.throttling =
            Some(Throttling { periods: 100, throttled_periods, throttled_ns: throttled_periods * 90 * MS });
        stats
    };
    assert_eq!(tags(&throttled(0, 0)), NOTHING);
    assert_eq!(tags(&throttled(9, 500 * MS)), [(tag, Info)]);
    assert_eq!(tags(&throttled(10, 500 * MS - 1)), [(tag, Info)]);
    assert_eq!(tags(&throttled(10, 500 * MS)), [(tag, Warn)]);
    assert_eq!(tags(&throttled(50, 3 * SECOND - 1)), [(tag, Warn)]);
    // It explains the time without a CPU: that is no second finding.
    assert_eq!(tags(&throttled(50, 3 * SECOND)), [(tag, Critical)]);
    // What the kernel tells of the thread itself goes before what may be, and does without the count.
    let mut measured = throttled(50, 3 * SECOND);
    measured.counters.throttled_ns = 500 * MS;
    assert_eq!(tags(&measured), [(tag, Warn)]);
    measured.throttling = None;
    assert_eq!(tags(&measured), [(tag, Warn)]);
    measured.counters.throttled_ns = 500 * MS - 1;
    assert_eq!(tags(&measured), [("run-queue-starvation", Warn), (tag, Info)]);
}

#[test]
fn long_ready_delay() {
    let tag = "long-ready-delay";
    let late = |values: &[(u64, u64)]| {
        let mut stats = idle();
        stats.ready_delay = distribution(values);
        stats
    };
    assert_eq!(tags(&late(&[(11 * MS, 9)])), NOTHING);
    assert_eq!(tags(&late(&[(11 * MS, 10)])), [(tag, Warn)]);
    assert_eq!(tags(&late(&[(9 * MS, 1_000)])), NOTHING);
    assert_eq!(tags(&late(&[(120 * MS, 10)])), [(tag, Critical)]);
    // One in a hundred.
    assert_eq!(tags(&late(&[(MS, 980), (25 * MS, 20)])), [(tag, Warn)]);
    assert_eq!(tags(&late(&[(MS, 995), (25 * MS, 5)])), NOTHING);
}

#[test]
fn poll_delay() {
    let tag = "poll-delay";
    let late = |ns: u64, number: u64| {
        let mut stats = idle();
        stats.poll_delay = distribution(&[(ns, number)]);
        stats
    };
    assert_eq!(tags(&late(11 * MS, 10)), [(tag, Warn)]);
    assert_eq!(tags(&late(9 * MS, 10)), NOTHING);
    assert_eq!(tags(&late(11 * MS, 9)), NOTHING, "less than one a second");
}

fn returns(found: &[(u64, u64)], check_ins: u64) -> Stats {
    let mut stats = idle();
    stats.ready_per_wakeup = distribution(found);
    stats.counters.ready_events = stats.ready_per_wakeup.sum();
    stats.counters.returns[WaitCall::EpollWait.index()] = stats.ready_per_wakeup.count() + check_ins;
    stats.counters.check_ins = check_ins;
    stats
}

#[test]
fn busy_polling() {
    let tag = "busy-polling";
    let busy = |found: u64, check_ins: u64, cpu: u64| {
        with_time(returns(&[(1, found)], check_ins), State::Polling, cpu)
    };
    assert_eq!(tags(&busy(10, 10_000, SECOND)), [(tag, Warn)]);
    assert_eq!(tags(&busy(10, 9_999, SECOND)), NOTHING, "less than a thousand a second");
    assert_eq!(tags(&busy(1_001, 10_000, SECOND)), NOTHING, "one in ten finds something");
    assert_eq!(tags(&busy(10, 10_000, SECOND - 1)), NOTHING, "a tenth of a CPU");
}

#[test]
fn thundering_herd() {
    let tag = "thundering-herd";
    let herd = |futile: u64, wakeups: u64| {
        let mut stats = idle();
        stats.counters.futile_wakeups = futile;
        stats.wakeup_latency = distribution(&[(1_000, wakeups)]);
        stats
    };
    assert_eq!(tags(&herd(1_000, 2_333)), [(tag, Warn)]);
    assert_eq!(tags(&herd(1_000, 2_334)), NOTHING);
    assert_eq!(tags(&herd(999, 0)), NOTHING);
}

#[test]
fn timer_storm() {
    let tag = "timer-storm";
    let storm = |timeouts: u64, found: u64| {
        let mut stats = returns(&[(0, timeouts), (1, found)], 0);
        stats.counters.timeouts = timeouts;
        stats
    };
    assert_eq!(tags(&storm(5_000, 555)), [(tag, Warn)]);
    assert_eq!(tags(&storm(5_000, 556)), NOTHING);
    assert_eq!(tags(&storm(4_999, 0)), NOTHING);
}

#[test]
fn batch_always_full() {
    let tag = "batch-always-full";
    let full = |batch_full: u64, size: u64, busy: u64| {
        let mut stats = with_time(returns(&[(size, 1_000)], 0), State::Running, busy);
        stats.counters.batch_full = batch_full;
        stats
    };
    assert_eq!(tags(&full(900, 8, 5 * SECOND + 1)), [(tag, Warn)]);
    assert_eq!(tags(&full(900, 8, 5 * SECOND)), [(tag, Info)]);
    assert_eq!(tags(&full(899, 8, 6 * SECOND)), NOTHING);
    assert_eq!(tags(&full(1_000, 1, 6 * SECOND)), NOTHING, "a batch of one");
}

#[test]
fn one_event_per_wakeup() {
    let tag = "one-event-per-wakeup";
    let single = |calls: u64, busy: u64| with_time(returns(&[(1, calls)], 0), State::Running, busy);
    assert_eq!(tags(&single(100_000, SECOND)), [(tag, Info)]);
    assert_eq!(tags(&single(99_999, SECOND)), NOTHING);
    assert_eq!(tags(&single(500_000, 9 * SECOND + 1)), [(tag, Warn)]);
    assert_eq!(tags(&single(500_000, 9 * SECOND)), [(tag, Info)]);
    assert_eq!(tags(&single(499_999, 9 * SECOND + 1)), [(tag, Info)]);
    assert_eq!(tags(&returns(&[(1, 90_000), (2, 12_000)], 0)), NOTHING);
}

#[test]
fn submit_one_at_a_time() {
    let tag = "submit-one-at-a-time";
    let submitting = |calls: u64, requests: u64, apart: u64, waits: u64| {
        let mut stats = idle();
        stats.counters.submitting_calls = calls;
        stats.counters.requests = requests;
        stats.counters.submissions = apart;
        stats.counters.returns[WaitCall::IoUringEnter.index()] = waits;
        stats
    };
    assert_eq!(tags(&submitting(10_000, 11_000, 10_000, 5_000)), [(tag, Warn)]);
    assert_eq!(tags(&submitting(10_000, 11_001, 10_000, 5_000)), NOTHING, "more than one each");
    assert_eq!(tags(&submitting(10_000, 10_000, 10_000, 5_001)), NOTHING, "a submission to a wait");
    assert_eq!(tags(&submitting(9_999, 9_999, 9_999, 10)), NOTHING, "a thousand a second");
    assert_eq!(tags(&submitting(100_000, 100_000, 0, 100_000)), [(tag, Info)]);
}

#[test]
fn cq_overflow() {
    let tag = "cq-overflow";
    let overflown = |overflows: u64| {
        let mut stats = returns(&[(4, 250)], 0);
        stats.ring_events.cq_overflows = overflows;
        stats
    };
    assert_eq!(tags(&overflown(0)), NOTHING);
    assert_eq!(tags(&overflown(1)), [(tag, Warn)]);
    assert_eq!(tags(&overflown(9)), [(tag, Warn)]);
    assert_eq!(tags(&overflown(10)), [(tag, Critical)]);
}

#[test]
fn io_wq_punts() {
    let tag = "io-wq-punts";
    let punted = |punts: u64, requests: u64| {
        let mut stats = idle();
        stats.counters.requests = requests;
        stats.ring_events.io_wq_punts = punts;
        stats
    };
    assert_eq!(tags(&punted(1_000, 10_000)), [(tag, Warn)]);
    assert_eq!(tags(&punted(1_000, 10_001)), [(tag, Info)]);
    assert_eq!(tags(&punted(999, 999)), [(tag, Info)]);
    assert_eq!(tags(&punted(10, 1_000)), [(tag, Info)]);
    assert_eq!(tags(&punted(10, 1_001)), NOTHING);
    assert_eq!(tags(&punted(9, 9)), NOTHING);
}

#[test]
fn loops_of_a_process_are_told_of_together_and_the_worst_first() {
    let (slow, slower) = (blocked(FSYNC, 5, 300 * MS, 20 * MS), blocked(FSYNC, 5, 400 * MS, 30 * MS));
    let other = blocked(35, 5, 500 * MS, 100 * MS);
    let identities = [identity(1, 1, None), identity(1, 2, None), identity(2, 3, None), identity(1, 4, None)];
    let stats = [&slow, &slower, &slow, &other];
    let findings = find(identities.iter().zip(stats).map(|(who, stats)| inputs(who, stats, &WAITING)));
    let tids: Vec<Vec<u32>> =
        findings.iter().map(|finding| finding.loops.iter().map(|of| of.tid).collect()).collect();
    assert_eq!(tids, [vec![4], vec![2, 1], vec![3]]);
    assert_eq!(findings[1].evidence[0], nanoseconds("longest", 30 * MS));
    assert_eq!(findings[0].severity, Critical);
}

fn stall(account: Account, cause: Cause, function: &str) -> Stall {
    let frame = |name: &str, origin| Frame {
        name: name.into(),
        module: None,
        location: None,
        inlined: false,
        origin,
    };
    let frames =
        vec![frame("schedule", Origin::Kernel), frame(function, Origin::User), frame("main", Origin::User)];
    let stack = Arc::new(Stack { kernel: Vec::new(), user: Vec::new(), frames });
    let mut stacks = Stacks::default();
    let weight_ns = account.duration_ns;
    stacks.add(&Capture { at: 0, slice: 0, cause, weight_ns, count: 1, stack });
    Stall { loop_id: LoopId(1), began_at: 0, found_at: None, ended_at: Some(0), account, stacks }
}

#[test]
fn a_stalls_stack_tells_where() {
    let slept = BlockedIn {
        syscall: FSYNC,
        count: 1,
        total_ns: 150 * MS,
        max_ns: 150 * MS,
        argument: None,
        resolved: None,
    };
    let sleeping = Account { duration_ns: 150 * MS, blocked: vec![slept], ..Account::default() };
    let computing = Account { duration_ns: 400 * MS, preempted_ns: 100 * MS, ..Account::default() };
    let stalls =
        [stall(sleeping, Cause::Blocked(FSYNC), "write_log"), stall(computing, Cause::User, "parse")];
    let who = identity(1, 1, None);
    // Without the stalls' own accounts, all of the time without a CPU might have been in the second one.
    let mut stats = stalled(550 * MS, 2, 150 * MS, 0);
    stats.blockers = blocked(FSYNC, 1, 150 * MS, 150 * MS).blockers;
    stats = with_time(stats, State::Ready, 400 * MS);
    assert_eq!(find([inputs(&who, &stats, &WAITING)]).len(), 1);
    let findings = find([Inputs { stalls: &stalls, ..inputs(&who, &stats, &WAITING) }]);
    let places: Vec<_> = findings.iter().map(|found| (found.tag, found.place.join(" "))).collect();
    assert_eq!(
        places,
        [("cpu-bound-callback", "parse main".to_owned()), ("blocking-call", "write_log main".to_owned())]
    );
}
