//! Every wait call in every pattern: that the report is what the pattern makes it.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ioscope_common::WaitCall;

use super::*;

/// How many wait calls each loop of these tests makes.
const COUNT: u64 = 13;
const FDS: u32 = 8;
const MAX_EVENTS: u32 = 5;

/// What a report should hold; the counts that depend on luck are not in it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Expected {
    ready_events: u64,
    empty_wakeups: u64,
    check_ins: u64,
    no_minimum: u64,
    batch_full: Option<u64>,
    all_ready: Option<u64>,
    interrupted: u64,
    etime: u64,
    errors: BTreeMap<i32, u64>,
    submissions: u64,
}

fn is_epoll(call: WaitCall) -> bool {
    matches!(call, WaitCall::EpollWait | WaitCall::EpollPwait | WaitCall::EpollPwait2)
}

fn is_aio(call: WaitCall) -> bool {
    matches!(call, WaitCall::IoGetevents | WaitCall::IoPgetevents)
}

fn is_poll(call: WaitCall) -> bool {
    matches!(call, WaitCall::Poll | WaitCall::Ppoll)
}

/// The results of a loop's wait calls that returned events.
fn batches(spec: &Spec) -> Vec<u64> {
    let has_maximum = is_epoll(spec.call) || is_aio(spec.call);
    let maximum = if has_maximum { spec.max_events } else { u32::MAX };
    match spec.pattern {
        Pattern::AlwaysReady | Pattern::PingPong => (0..COUNT).map(|_| 1).collect(),
        Pattern::Batch => {
            (0..COUNT).map(|index| u64::from(batch_size(index, spec.fds).min(maximum))).collect()
        }
        // Its own kind of event: POLLNVAL.
        Pattern::BadFd if is_poll(spec.call) => (0..COUNT).map(|_| 1).collect(),
        _ => Vec::new(),
    }
}

fn expected(spec: &Spec) -> Expected {
    let mut results = batches(spec);
    let is_ring = spec.call == WaitCall::IoUringEnter;
    if spec.start == Start::BeforeGo {
        results.push(1);
    }
    let times = |capacity: u32| results.iter().filter(|&&ready| ready == u64::from(capacity)).count() as u64;
    let in_pattern = |patterns: &[Pattern]| if patterns.contains(&spec.pattern) { COUNT } else { 0 };
    let errno = match spec.pattern {
        Pattern::BadFd if is_poll(spec.call) => None,
        Pattern::BadFd if is_aio(spec.call) => Some(libc::EINVAL),
        Pattern::BadFd => Some(libc::EBADF),
        Pattern::BadPointer => Some(libc::EFAULT),
        _ => None,
    };
    Expected {
        ready_events: results.iter().sum(),
        empty_wakeups: in_pattern(&[Pattern::Expire]),
        check_ins: in_pattern(&[Pattern::CheckIn]),
        no_minimum: in_pattern(&[Pattern::NoMinimum]),
        batch_full: (is_epoll(spec.call) || is_aio(spec.call)).then(|| times(spec.max_events)),
        all_ready: (!is_epoll(spec.call) && !is_aio(spec.call) && !is_ring).then(|| times(spec.fds)),
        interrupted: in_pattern(&[Pattern::Interrupted]),
        etime: if is_ring { in_pattern(&[Pattern::Expire, Pattern::CheckIn]) } else { 0 },
        errors: errno.map(|errno| (errno, COUNT)).into_iter().collect(),
        // Each call that has something to wait for needs one before it.
        submissions: if spec.ring == RingMode::SubmitThenWait { results.len() as u64 } else { 0 },
    }
}

/// Runs a spec, and checks what is true of any report.
fn checked(spec: &Spec) -> Report {
    let report = run(spec).unwrap_or_else(|error| panic!("{spec:?}: {error}"));
    assert_eq!(report.threads.len(), spec.threads as usize, "{spec:?}");
    for (index, thread) in (0..).zip(&report.threads) {
        assert_eq!(thread.comm, spec.comm(index));
        assert_eq!(thread.wait_calls, BTreeMap::from([(spec.call.name().to_owned(), thread.iterations)]));
        assert_eq!(thread.wait.count, thread.iterations, "{spec:?}");
        assert_eq!(thread.loop_duration.count, thread.iterations.saturating_sub(1), "{spec:?}");
        assert!(thread.wait.sum_ns + thread.loop_duration.sum_ns <= thread.wall_ns, "{spec:?}: {thread:?}");
        assert_eq!(thread.poll_delay.count, thread.empty_wakeups, "{spec:?}");
        assert!(thread.sleeps.is_none_or(|sleeps| sleeps <= thread.iterations), "{spec:?}: {thread:?}");
    }
    report
}

/// Runs a spec, and compares every count.
fn check(spec: &Spec) {
    for thread in checked(spec).threads {
        let counted = Expected {
            ready_events: thread.ready_events,
            empty_wakeups: thread.empty_wakeups,
            check_ins: thread.check_ins,
            no_minimum: thread.no_minimum,
            batch_full: thread.batch_full,
            all_ready: thread.all_ready,
            interrupted: thread.interrupted,
            etime: thread.etime,
            errors: thread.errors.clone(),
            submissions: thread.submissions,
        };
        assert_eq!(counted, expected(spec), "{spec:?}");
        let gate = u64::from(spec.start == Start::BeforeGo);
        assert_eq!(thread.iterations, COUNT + gate, "{spec:?}");
        // At "go" it was seen to sleep; an always-ready epoll, poll or select never does.
        let sleeps = thread.sleeps.unwrap();
        assert!(sleeps >= gate, "{spec:?}: {thread:?}");
        if spec.pattern == Pattern::AlwaysReady && spec.ring == RingMode::Plain {
            assert_eq!(sleeps, gate, "{spec:?}: {thread:?}");
        }
    }
}

fn check_everywhere(pattern: Pattern, calls: &[WaitCall]) {
    for &call in calls.iter().filter(|&&call| sys::number(call).is_some()) {
        let modes: &[RingMode] = match call {
            WaitCall::IoUringEnter => &[
                RingMode::Plain,
                RingMode::SubmitThenWait,
                RingMode::SqPoll,
                RingMode::DeferTaskrun,
                RingMode::Registered,
            ],
            _ => &[RingMode::Plain],
        };
        for &ring in modes {
            for start in [Start::AfterGo, Start::BeforeGo] {
                check(&Spec {
                    ring,
                    start,
                    fds: if pattern == Pattern::Batch { FDS } else { 1 },
                    max_events: MAX_EVENTS,
                    iterations: Some(COUNT),
                    period_ns: 100_000,
                    count_sleeps: true,
                    ..Spec::new(call, pattern)
                });
            }
        }
    }
}

#[test]
fn always_ready() {
    check_everywhere(Pattern::AlwaysReady, &WaitCall::ALL);
}

#[test]
fn batches_of_different_sizes() {
    check_everywhere(Pattern::Batch, &WaitCall::ALL);
}

#[test]
fn timeouts_that_expire() {
    check_everywhere(Pattern::Expire, &WaitCall::ALL);
}

#[test]
fn check_ins() {
    check_everywhere(Pattern::CheckIn, &WaitCall::ALL);
}

#[test]
fn no_least_number_of_events() {
    let calls = [WaitCall::IoUringEnter, WaitCall::IoGetevents, WaitCall::IoPgetevents];
    check_everywhere(Pattern::NoMinimum, &calls);
}

#[test]
fn woken_by_a_partner() {
    check_everywhere(Pattern::PingPong, &WaitCall::ALL);
}

#[test]
fn interrupted_by_signals() {
    check_everywhere(Pattern::Interrupted, &WaitCall::ALL);
}

#[test]
fn fds_that_are_not_open() {
    check_everywhere(Pattern::BadFd, &WaitCall::ALL);
}

#[test]
fn buffers_that_are_not_mapped() {
    check_everywhere(Pattern::BadPointer, &WaitCall::ALL);
}

#[test]
fn a_ticker_wakes_them_all() {
    for call in WaitCall::ALL.into_iter().filter(|&call| sys::number(call).is_some()) {
        let spec = Spec {
            iterations: Some(COUNT),
            fds: 4,
            threads: 2,
            period_ns: 100_000,
            ..Spec::new(call, Pattern::Ticker)
        };
        let report = checked(&spec);
        assert_eq!(report.total(|thread| thread.iterations), 2 * COUNT);
        assert!(report.total(|thread| thread.ready_events) >= 2 * COUNT, "{report:?}");
        assert_eq!(report.drivers.len(), 1);
    }
}

#[test]
fn threads_share_an_epoll() {
    for (pattern, start) in [
        (Pattern::AlwaysReady, Start::AfterGo),
        (Pattern::Expire, Start::BeforeGo),
        (Pattern::CheckIn, Start::BeforeGo),
    ] {
        let spec = Spec {
            iterations: Some(COUNT),
            threads: 3,
            shared: true,
            start,
            count_sleeps: true,
            ..Spec::new(WaitCall::EpollPwait, pattern)
        };
        check(&spec);
    }
}

#[test]
fn threads_take_turns() {
    for start in [Start::AfterGo, Start::BeforeGo] {
        let spec = Spec {
            iterations: Some(COUNT),
            threads: 3,
            start,
            period_ns: 100_000,
            ..Spec::new(WaitCall::EpollPwait, Pattern::TakeTurns)
        };
        let report = checked(&spec);
        // Whoever has the turn takes every event, and only then hands over: no return is empty.
        for thread in &report.threads {
            assert_eq!((thread.iterations, thread.ready_events), (COUNT, COUNT), "{thread:?}");
            assert_eq!(thread.poller, report.threads[0].poller);
        }
        assert!(report.threads.iter().any(|thread| thread.blocked.contains_key("futex")), "{report:?}");
    }
}

#[test]
fn work_takes_what_it_was_given() {
    const NS: u64 = 300_000;
    for work in [
        Work::Burn { ns: NS },
        Work::ParseJson { ns: NS },
        Work::Nanosleep { ns: NS },
        Work::SleepInHandler { ns: NS },
        Work::Fsync { bytes: 512 },
        Work::Futex { ns: NS },
        Work::PipeRead { ns: NS },
    ] {
        let spec = Spec {
            iterations: Some(4),
            work: vec![Slice { work, every: 2, every_ns: 0 }],
            ..Spec::new(WaitCall::EpollPwait, Pattern::AlwaysReady)
        };
        let report = checked(&spec);
        let thread = &report.threads[0];
        let total = match work.syscall() {
            Some(syscall) => thread.blocked[syscall],
            None => thread.work_cpu,
        };
        let least = if matches!(work, Work::Fsync { .. }) { 0 } else { 2 * NS };
        assert_eq!(total.count, 2, "{work:?}: {thread:?}");
        assert!(total.sum_ns >= least && total.max_ns * 2 >= total.sum_ns, "{work:?}: {thread:?}");
        assert_eq!(thread.blocked.len(), usize::from(work.syscall().is_some()));
    }
}

#[test]
fn work_that_is_due_each_so_often_is_not_due_at_once() {
    let spec = Spec {
        iterations: Some(3),
        work: vec![Slice::each(3_600_000_000_000, Work::Burn { ns: 1 })],
        ..Spec::new(WaitCall::EpollPwait, Pattern::CheckIn)
    };
    assert_eq!(checked(&spec).threads[0].work_cpu.count, 0);
}

#[test]
fn without_timing_counts_remain() {
    let spec = Spec {
        iterations: Some(COUNT),
        timing: false,
        ..Spec::new(WaitCall::EpollPwait, Pattern::AlwaysReady)
    };
    let report = run(&spec).unwrap();
    let thread = &report.threads[0];
    assert_eq!((thread.iterations, thread.wait), (COUNT, Total::default()));
    assert!(thread.wall_ns > 0);
}

#[test]
fn a_duration_ends_a_loop() {
    let spec = Spec {
        duration_ns: Some(20_000_000),
        timeout_ns: Some(1_000_000),
        ..Spec::new(WaitCall::Ppoll, Pattern::Expire)
    };
    assert!(checked(&spec).threads[0].wall_ns >= 20_000_000);
}

#[test]
fn the_demo_runs_until_stopped() {
    let stop = AtomicBool::new(false);
    let report = std::thread::scope(|scope| {
        let running = scope.spawn(|| run_scenarios(&stop));
        std::thread::sleep(Duration::from_millis(200));
        stop.store(true, Ordering::Relaxed);
        running.join().unwrap().unwrap()
    });
    assert_eq!(report.threads.len(), scenarios().iter().map(|spec| spec.threads as usize).sum::<usize>());
    for thread in &report.threads {
        assert!(report.drivers.iter().all(|driver| driver.tid != thread.tid));
        assert!((1..=15).contains(&thread.comm.len()));
    }
    assert!(report.total(|thread| thread.iterations) > 0);
}

#[test]
fn a_fleet_that_is_dropped_lets_its_threads_go() {
    let spec = Spec {
        start: Start::BeforeGo,
        threads: 2,
        iterations: Some(1),
        ..Spec::new(WaitCall::Ppoll, Pattern::Interrupted)
    };
    let fleet = Fleet::prepare(&[spec]).unwrap();
    let tids = fleet.tids();
    assert_eq!(tids.len(), 2);
    let is_alive = |tid: &i32| std::path::Path::new(&format!("/proc/self/task/{tid}")).exists();
    assert!(tids.iter().all(is_alive));
    drop(fleet);
    let deadline = Instant::now() + Duration::from_secs(10);
    while tids.iter().any(is_alive) {
        assert!(Instant::now() < deadline, "a thread stayed");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn specs_survive_json() {
    for spec in scenarios() {
        let json = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<Spec>(&json).unwrap(), spec);
    }
    let spec: Spec = serde_json::from_str(r#"{"call":"pselect6","pattern":"ping_pong"}"#).unwrap();
    assert_eq!(spec, Spec::new(WaitCall::Pselect6, Pattern::PingPong));
}

#[test]
fn what_no_loop_does_is_refused() {
    let bounded = |call, pattern| Spec { iterations: Some(1), ..Spec::new(call, pattern) };
    let refused = [
        Spec::new(WaitCall::Ppoll, Pattern::CheckIn),
        bounded(WaitCall::Ppoll, Pattern::NoMinimum),
        bounded(WaitCall::Ppoll, Pattern::TakeTurns),
        Spec { shared: true, ..bounded(WaitCall::EpollPwait, Pattern::Batch) },
        Spec { ring: RingMode::SqPoll, ..bounded(WaitCall::Ppoll, Pattern::CheckIn) },
        Spec { fds: 0, ..bounded(WaitCall::Ppoll, Pattern::CheckIn) },
        Spec { threads: 0, ..bounded(WaitCall::Ppoll, Pattern::CheckIn) },
        Spec { max_events: 0, ..bounded(WaitCall::EpollPwait, Pattern::CheckIn) },
    ];
    for spec in refused {
        assert!(matches!(run(&spec), Err(DemoError::Spec(_))), "{spec:?}");
    }
    for json in [r#"{"call":"read"}"#, r#"{"colour":1}"#, "", "[", "7"] {
        assert!(matches!(worker_main([json.to_owned()].into_iter()), Err(DemoError::Json(_))), "{json}");
    }
}

#[test]
fn names_fit_the_kernel() {
    let spec = Spec { comm: Some("überlastete-schleife".to_owned()), threads: 12, ..Spec::default() };
    assert_eq!(spec.comm(11), "überlastete-11");
    assert_eq!(Spec { threads: 1, ..spec }.comm(0), "überlastete-sc");
    assert_eq!(Spec::new(WaitCall::EpollPwait2, Pattern::CheckIn).comm(0), "epoll_pwait2");
}

#[test]
fn batch_sizes_cover_all() {
    for fds in [1, 2, 7, 8, 64] {
        let sizes: Vec<u32> = (0..1000).map(|index| batch_size(index, fds)).collect();
        assert!(sizes.iter().all(|size| (1..=fds).contains(size)));
        assert!(sizes.contains(&1));
    }
    assert!((0..8).all(|size| (0..8).any(|index| batch_size(index, 8) == size + 1)));
}

#[test]
fn the_worker_keeps_to_its_protocol() {
    let spec = Spec {
        iterations: Some(COUNT),
        start: Start::BeforeGo,
        ..Spec::new(WaitCall::EpollPwait, Pattern::CheckIn)
    };
    let mut output = Vec::new();
    worker::serve(std::slice::from_ref(&spec), &mut Cursor::new("go\n"), &mut output).unwrap();
    let output = String::from_utf8(output).unwrap();
    let (ready, report) = output.split_once('\n').unwrap();
    let ready: serde_json::Value = serde_json::from_str(ready).unwrap();
    let report: Report = serde_json::from_str(report).unwrap();
    assert_eq!(ready["ready"], true);
    assert_eq!(ready["pid"], report.pid);
    assert_eq!(ready["tids"][0], report.threads[0].tid);
    assert_eq!(report.threads[0].check_ins, COUNT);

    // Nobody said "go".
    let mut output = Vec::new();
    worker::serve(&[spec], &mut Cursor::new(""), &mut output).unwrap();
    assert_eq!(String::from_utf8(output).unwrap().lines().count(), 1);
}
