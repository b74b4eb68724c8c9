//! What a tracer is to count of a loop, by the loop's own report.

use std::collections::BTreeMap;

use ioscope::demo::{Pattern, PollerKind as Waited, RingMode, Spec, Start, ThreadReport};
use ioscope::model::LoopModel;
use ioscope_common::{PollerKind, State, WaitCall};

use super::kernel;

/// Counts that two observers of a loop agree on.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    comm: String,
    wait_calls: BTreeMap<String, u64>,
    ready_events: u64,
    timeouts: u64,
    empty_wakeups: Option<u64>,
    check_ins: u64,
    batch_full: u64,
    interrupted: u64,
    restarts: u64,
    errors: u64,
    errnos: BTreeMap<u32, u64>,
    submissions: u64,
    /// Kind, descriptor (none where only the kernel knows it) and returns; in the order of first use.
    pollers: Vec<(PollerKind, Option<i32>, u64)>,
    /// Returns that were neither errors nor empty check-ins.
    wakeups: u64,
}

impl Counts {
    /// All wait calls.
    pub(crate) fn calls(&self) -> u64 {
        self.wait_calls.values().sum()
    }
}

/// What the loop's own report says.
pub(crate) fn told(spec: &Spec, report: &ThreadReport) -> Counts {
    let errors = report.errors.values().sum();
    // A call that asks for no event at least never waits: it checks in.
    let check_ins = report.check_ins + report.no_minimum;
    let gate = u64::from(spec.start == Start::BeforeGo && spec.pattern != Pattern::TakeTurns);
    let nothing_was_ready = matches!(spec.pattern, Pattern::CheckIn | Pattern::NoMinimum);
    Counts {
        comm: report.comm.clone(),
        wait_calls: report.wait_calls.iter().map(|(call, count)| (call.clone(), *count)).collect(),
        ready_events: report.ready_events,
        // The calls that nothing could wake: all others sleep for ever.
        timeouts: report.empty_wakeups,
        // Of those, the ones that found the time to sleep.
        empty_wakeups: report.sleeps.filter(|_| spec.pattern == Pattern::Expire).map(|sleeps| sleeps - gate),
        check_ins,
        batch_full: report.batch_full.unwrap_or(0),
        interrupted: report.interrupted,
        restarts: 0,
        errors,
        errnos: report.errors.iter().map(|(errno, count)| (errno.unsigned_abs(), *count)).collect(),
        // What was submitted before the loop fell asleep was before the tracer's time.
        submissions: report.submissions - if spec.ring == RingMode::SubmitThenWait { gate } else { 0 },
        pollers: pollers(spec, report, gate),
        wakeups: report.iterations
            - errors
            - report.interrupted
            - if nothing_was_ready { check_ins } else { 0 },
    }
}

fn pollers(spec: &Spec, report: &ThreadReport, gate: u64) -> Vec<(PollerKind, Option<i32>, u64)> {
    let poller = report.poller.expect("a loop has a poller");
    let (kind, fd) = match poller.kind {
        Waited::Epoll => (PollerKind::Epoll, poller.fd),
        Waited::IoUring if spec.ring == RingMode::Registered => (PollerKind::RegisteredRing, None),
        Waited::IoUring => (PollerKind::Ring, poller.fd),
        Waited::Aio => (PollerKind::Aio, Some(-1)),
        Waited::Poll | Waited::Select => (PollerKind::Set, Some(-1)),
    };
    let faulty = match spec.pattern {
        Pattern::BadFd if poller.kind == Waited::Epoll => Some(PollerKind::Epoll),
        Pattern::BadFd if poller.kind == Waited::IoUring => Some(PollerKind::Ring),
        _ => None,
    };
    let mut pollers = Vec::new();
    match faulty {
        Some(faulty) => {
            pollers.push((kind, fd, gate));
            pollers.push((faulty, Some(-1), report.iterations - gate));
        }
        None => pollers.push((kind, fd, report.iterations)),
    }
    pollers.retain(|poller| poller.2 > 0);
    pollers
}

/// What the tracer says of the same loop. What the report cannot tell is taken over from `told`.
pub(crate) fn seen(model: &LoopModel, told: &Counts) -> Counts {
    let stats = &model.stats;
    let counters = &stats.counters;
    let wait_calls = WaitCall::ALL
        .into_iter()
        .map(|call| (call.name().to_owned(), counters.returns[call.index()]))
        .filter(|(_, count)| *count > 0)
        .collect();
    // Before Linux 6.1, work for a ring that comes between its waiter's look for it and its sleep ends the wait: the call is
    // restarted (`io_run_task_work_sig`) or, if it has submitted something, returns how much. The work is done on the way
    // out, behind the hook of the return, so that what completes then is counted by the next return: if there is one.
    let may_leave = kernel::version() < (6, 1) && told.wait_calls.contains_key(WaitCall::IoUringEnter.name());
    let or_told = |seen: u64, told: u64, is_so: bool| if may_leave && is_so { told } else { seen };
    let known = |kind: PollerKind| told.pollers.iter().any(|told| told.0 == kind && told.1.is_some());
    Counts {
        comm: model.identity.comm.clone(),
        wait_calls,
        ready_events: or_told(
            counters.ready_events,
            told.ready_events,
            counters.ready_events + 1 == told.ready_events,
        ),
        timeouts: counters.timeouts,
        empty_wakeups: told.empty_wakeups.map(|_| counters.empty_wakeups),
        check_ins: counters.check_ins,
        batch_full: counters.batch_full,
        interrupted: counters.interrupted,
        restarts: or_told(counters.restarts, told.restarts, counters.restarts <= 2),
        errors: counters.errors,
        errnos: stats.errnos.iter().map(|entry| (entry.errno, entry.count)).collect(),
        submissions: counters.submissions,
        pollers: stats
            .pollers
            .iter()
            .map(|poller| (poller.kind, known(poller.kind).then_some(poller.fd), poller.iterations))
            .collect(),
        wakeups: stats.ready_per_wakeup.count(),
    }
}

/// A loop in a few lines, for a test that fails.
pub(crate) fn brief(model: &LoopModel) -> String {
    let stats = &model.stats;
    let distributions = [
        ("loop duration", &stats.loop_duration),
        ("wakeup latency", &stats.wakeup_latency),
        ("run queue delay", &stats.run_queue_delay),
        ("poll delay", &stats.poll_delay),
        ("ready per wakeup", &stats.ready_per_wakeup),
    ]
    .map(|(name, of)| format!("{name}: {} {} {}", of.count(), of.sum(), of.max()));
    format!(
        "{:?}\n{:?}\nfrom {} until {}: {:?}\n{:?} {:?} {:?}\n{distributions:?}",
        model.identity,
        stats.counters,
        stats.from,
        stats.until,
        stats.time_ns,
        stats.pollers,
        stats.blockers,
        stats.errnos
    )
}

/// What has to be true of the histograms of any loop that has ended.
pub(crate) fn check_histograms(model: &LoopModel, report: &ThreadReport) {
    let stats = &model.stats;
    // A thread that ended in a slice has not completed it.
    assert_eq!(stats.loop_duration.count(), report.iterations - 1, "{}", brief(model));
    assert_eq!(stats.poll_delay.count(), stats.counters.timeouts, "{}", brief(model));
    assert_eq!(stats.ready_per_wakeup.sum(), stats.counters.ready_events, "{}", brief(model));
    // Some kernels hide some wakeups and switches.
    let unseen = stats.counters.unseen;
    assert!(stats.wakeup_latency.count() >= stats.run_queue_delay.count(), "{}", brief(model));
    assert!(stats.wakeup_latency.count() <= stats.run_queue_delay.count() + unseen, "{}", brief(model));
    assert!(stats.run_queue_delay.sum() <= stats.wakeup_latency.sum(), "{}", brief(model));
    assert!(stats.run_queue_delay.sum() <= stats.time_in(State::Ready), "{}", brief(model));
    if let Some(sleeps) = report.sleeps {
        // Every sleep in a wait call was ended by a wakeup; the others were outside one, for a page or a lock of the
        // process's memory.
        let outside: u64 = stats.blockers.iter().map(|blocker| blocker.count).sum();
        assert!(stats.wakeup_latency.count() <= sleeps, "{}", brief(model));
        // Now and then a signal comes when its thread is about to sleep, and keeps it from that: there is no wakeup then, and
        // if the CPU goes to another thread, the kernel counts a voluntary switch (`kernel/sched/core.c`, `__schedule`). So
        // does work for a ring that its waiter is to do, which is announced as a signal is (`task_work_add`, `TWA_SIGNAL`).
        // On a machine that takes long for each step, it is not so seldom.
        let is_ring = stats.counters.returns[WaitCall::IoUringEnter.index()] > 0;
        let announced = if is_ring { sleeps } else { stats.counters.interrupted };
        let kept_awake = announced.min(1 + sleeps / 2);
        let ended = stats.wakeup_latency.count() + unseen + outside + kept_awake;
        assert!(ended >= sleeps, "{sleeps} sleeps, by the kernel: {}", brief(model));
        assert!(unseen <= 3 + sleeps / 20, "few are unseen: {}", brief(model));
    }
}
