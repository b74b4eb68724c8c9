//! Exact counts: every wait call in every pattern, compared to the last one with what the loops count
//! themselves, on the running kernel.

mod support;

use ioscope::demo::{Pattern, Report, RingMode, Spec, Start};
use ioscope_common::WaitCall;

use support::expect::{brief, check_histograms, seen, told};
use support::kernel::{self, many};
use support::tracer::Tracer;
use support::worker::{Worker, calls};

/// How many wait calls a loop makes where every pattern is tried.
const FEW: u64 = 10;
const MILLION: u64 = 1_000_000;

const RING_MODES: [RingMode; 5] = [
    RingMode::Plain,
    RingMode::SubmitThenWait,
    RingMode::SqPoll,
    RingMode::DeferTaskrun,
    RingMode::Registered,
];

/// Every wait call; `io_uring_enter` with its ring in every mode.
fn kinds() -> impl Iterator<Item = (WaitCall, RingMode)> {
    calls().flat_map(|call| {
        let modes: &[RingMode] =
            if call == WaitCall::IoUringEnter { &RING_MODES } else { &[RingMode::Plain] };
        modes.iter().filter(|mode| kernel::has_ring(**mode)).map(move |mode| (call, *mode))
    })
}

/// Runs these loops, a process for each list, and compares every count of every thread.
fn compare(processes: &[Vec<Spec>]) {
    compare_in_turn(&[processes.to_vec()]);
}

/// The same with several such groups, of which one runs at a time.
fn compare_in_turn(groups: &[Vec<Vec<Spec>>]) {
    let processes = groups.concat();
    let mut workers: Vec<Worker> = processes.iter().map(|specs| Worker::of(specs)).collect();
    let pids: Vec<u32> = workers.iter().map(Worker::id).collect();
    let Some(mut tracer) = Tracer::of(&pids) else { return };
    let mut reports: Vec<Report> = Vec::with_capacity(workers.len());
    let mut waiting = workers.iter_mut();
    for group in groups {
        let mut running: Vec<&mut Worker> = waiting.by_ref().take(group.len()).collect();
        for worker in &mut running {
            worker.say().expect("the worker listens");
        }
        reports.extend(running.iter_mut().map(|worker| worker.report().expect("the worker reports")));
    }
    tracer.finish();
    let drops = tracer.model.drops();
    assert_eq!((drops.loops_full, drops.ring_full), (0, 0), "{drops:?}");
    let (mut loops, mut missed) = (0, 0);
    for (specs, report) in processes.iter().zip(&reports) {
        let of_threads = specs.iter().flat_map(|spec| (0..spec.threads).map(move |_| spec));
        for (spec, thread) in of_threads.zip(&report.threads) {
            let tid = u32::try_from(thread.tid).expect("a thread's number is positive");
            let model = tracer.by_tid(tid).unwrap_or_else(|| {
                let others: Vec<_> = tracer.model.loops().map(brief).collect();
                panic!("no loop {tid}: {spec:?}\n{drops:?}\n{}", others.join("\n"))
            });
            assert_eq!(model.identity.pid, report.pid, "{spec:?}");
            assert_eq!(model.identity.inner, None, "{spec:?}");
            assert!(model.ended, "{spec:?}");
            loops += 1;
            let told = told(spec, thread);
            let seen = seen(model, &told);
            // What the kernel left out is known to be missing, and not a call more. Of the same calls, at least one is told
            // otherwise for something that was left out.
            if drops.skipped_runs > 0 && seen != told {
                missed += told.calls().checked_sub(seen.calls()).expect("no call is seen twice").max(1);
                continue;
            }
            assert_eq!(seen, told, "the tracer, then the loop itself: {spec:?}\n{}", brief(model));
            check_histograms(model, thread);
        }
    }
    assert_eq!(tracer.count(), loops, "nobody else is a loop");
    assert!(missed <= drops.skipped_runs, "{missed} calls are missing: {drops:?}");
    if drops.skipped_runs > 0 {
        println!("{missed} calls were missed; the kernel left out {} runs at most", drops.skipped_runs);
    }
    for worker in workers {
        worker.end().expect("the worker ends");
    }
}

/// A pattern with all wait calls that can do it: started before and after "go", one thread and four.
fn processes_of(pattern: Pattern) -> Vec<Vec<Spec>> {
    let does = |call: &WaitCall| match pattern {
        Pattern::NoMinimum => {
            matches!(call, WaitCall::IoUringEnter | WaitCall::IoGetevents | WaitCall::IoPgetevents)
        }
        Pattern::TakeTurns => call.name().starts_with("epoll"),
        _ => true,
    };
    let mut processes = Vec::new();
    for start in [Start::AfterGo, Start::BeforeGo] {
        for threads in [1, 4] {
            let spec = |(call, ring)| Spec {
                ring,
                start,
                threads,
                fds: if pattern == Pattern::Batch { 8 } else { 1 },
                max_events: 5,
                iterations: Some(FEW),
                period_ns: 200_000,
                count_sleeps: true,
                ..Spec::new(call, pattern)
            };
            let kinds = kinds().filter(|(call, _)| does(call) && kernel::can(*call, pattern));
            processes.push(kinds.map(spec).collect());
        }
    }
    processes
}

/// The other tests try these one by one, side by side. Attaching the probes takes an emulated machine seconds, so
/// that there it is done once for several.
#[test]
fn every_pattern_in_turn() {
    const PATTERNS: [Pattern; 11] = [
        Pattern::AlwaysReady,
        Pattern::Batch,
        Pattern::Expire,
        Pattern::CheckIn,
        Pattern::NoMinimum,
        Pattern::PingPong,
        Pattern::Ticker,
        Pattern::Interrupted,
        Pattern::BadFd,
        Pattern::BadPointer,
        Pattern::TakeTurns,
    ];
    for patterns in PATTERNS.chunks(4) {
        compare_in_turn(&patterns.iter().map(|pattern| processes_of(*pattern)).collect::<Vec<_>>());
    }
}

#[test]
fn always_ready() {
    compare(&processes_of(Pattern::AlwaysReady));
}

#[test]
fn batches_of_different_sizes() {
    compare(&processes_of(Pattern::Batch));
}

#[test]
fn timeouts_that_expire() {
    compare(&processes_of(Pattern::Expire));
}

#[test]
fn check_ins() {
    compare(&processes_of(Pattern::CheckIn));
}

#[test]
fn no_least_number_of_events() {
    compare(&processes_of(Pattern::NoMinimum));
}

#[test]
fn woken_by_a_partner() {
    compare(&processes_of(Pattern::PingPong));
}

#[test]
fn woken_by_a_ticker() {
    compare(&processes_of(Pattern::Ticker));
}

#[test]
fn interrupted_by_signals() {
    compare(&processes_of(Pattern::Interrupted));
}

#[test]
fn descriptors_that_are_not_open() {
    compare(&processes_of(Pattern::BadFd));
}

#[test]
fn buffers_that_are_not_mapped() {
    compare(&processes_of(Pattern::BadPointer));
}

#[test]
fn threads_that_take_turns() {
    compare(&processes_of(Pattern::TakeTurns));
}

/// As fast as a loop can be.
fn tight(call: WaitCall, ring: RingMode, pattern: Pattern, iterations: u64) -> Spec {
    Spec { ring, iterations: Some(iterations), timing: false, ..Spec::new(call, pattern) }
}

/// One wait call of each family, and the ring in the modes that differ in what they count.
#[test]
fn a_million_of_each_family() {
    let families = [
        (WaitCall::EpollPwait, RingMode::Plain),
        (WaitCall::Ppoll, RingMode::Plain),
        (WaitCall::Pselect6, RingMode::Plain),
        (WaitCall::IoPgetevents, RingMode::Plain),
        (WaitCall::IoUringEnter, RingMode::Plain),
        (WaitCall::IoUringEnter, RingMode::SubmitThenWait),
    ];
    let specs = |kinds: &[(WaitCall, RingMode)]| -> Vec<Spec> {
        kinds.iter().map(|(call, ring)| tight(*call, *ring, Pattern::AlwaysReady, many(MILLION))).collect()
    };
    compare(&families.chunks(3).map(specs).collect::<Vec<_>>());
}

#[test]
fn a_million_by_four_threads() {
    let shared = Spec {
        threads: 4,
        shared: true,
        ..tight(WaitCall::EpollPwait, RingMode::Plain, Pattern::AlwaysReady, many(MILLION))
    };
    let own = Spec { threads: 4, ..tight(WaitCall::Ppoll, RingMode::Plain, Pattern::CheckIn, many(MILLION)) };
    compare(&[vec![shared], vec![own]]);
}

#[test]
fn a_million_batches() {
    let batch = |call| Spec {
        fds: 8,
        max_events: 5,
        ..tight(call, RingMode::Plain, Pattern::Batch, many(MILLION / 4))
    };
    let epoll =
        if kernel::has_call(WaitCall::EpollPwait2) { WaitCall::EpollPwait2 } else { WaitCall::EpollPwait };
    compare(&[vec![batch(epoll)], vec![batch(WaitCall::IoUringEnter)]]);
}
