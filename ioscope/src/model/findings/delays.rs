//! What keeps a loop that could run from running, and what has to wait for it.

use ioscope_common::State;

use super::{
    Detector, ENOUGH, Finding, Inputs, LONG_SLICE_NS, Severity, count, nanoseconds, per_second, ratio, share,
};

/// A loop that waits for a CPU for less of the time is not held up by it.
const READY_SHARE_WARN: f64 = 0.10;
const READY_SHARE_CRITICAL: f64 = 0.30;
/// Of the time in which it has work, a third spent waiting for a CPU makes the work take half as long again; a program
/// that shares a machine of its size with its clients stays below.
const STARVED_SHARE_WARN: f64 = 1.0 / 3.0;
const STARVED_SHARE_CRITICAL: f64 = 2.0 / 3.0;
/// A program and its client on one machine wake each other onto the same CPU, and each waits there while the other
/// works: for half of the time, and for microseconds each. Who waits for a thread that does not give way waits for
/// the scheduler's slice, a millisecond and more (`base_slice_ns`, `kernel/sched/fair.c`): a turn of the loop on
/// average, or one wakeup in a hundred.
const LONG_WAIT_NS: u64 = 1_000_000;
/// So many wakeups make a median.
const WAKEUPS_FOR_MEDIAN: u64 = 10;

/// The loop is runnable and gets no CPU, because others have them.
pub(super) struct RunQueueStarvation;

impl Detector for RunQueueStarvation {
    fn tag(&self) -> &'static str {
        "run-queue-starvation"
    }

    fn meaning(&self) -> &'static str {
        "the loop has work and waits for a CPU that others have"
    }

    fn advice(&self) -> &'static str {
        "give it a CPU of its own (taskset, cpuset), a higher weight (nice, cpu.weight), or the machine less to do"
    }

    fn check(&self, inputs: &Inputs<'_>) -> Option<Finding> {
        let stats = inputs.stats;
        // Held back by a limit of its cgroup, it waits for its next share, not for others.
        if held_back(inputs).is_some_and(|held_back| held_back.share >= HELD_BACK_SHARE_WARN) {
            return None;
        }
        let ready = stats.time_in(State::Ready);
        let wanted = ready + stats.time_in(State::Running) + stats.time_in(State::Polling);
        let (part, starved) = (inputs.share(ready), ratio(ready, wanted));
        let delay = &stats.run_queue_delay;
        let late = delay.count() >= WAKEUPS_FOR_MEDIAN && delay.quantile(0.5) >= LONG_SLICE_NS;
        let a_turn = ready / stats.iterations().max(1);
        // Where others go on with its work, it is not the loop that waits for this thread.
        let waits_long = (a_turn >= LONG_WAIT_NS && !inputs.others_go_on())
            || (delay.count() >= ENOUGH && delay.quantile(0.99) >= LONG_WAIT_NS);
        let severity = if waits_long && part >= READY_SHARE_CRITICAL && starved >= STARVED_SHARE_CRITICAL {
            Severity::Critical
        } else if late || (waits_long && part >= READY_SHARE_WARN && starved >= STARVED_SHARE_WARN) {
            Severity::Warn
        } else {
            return None;
        };
        let evidence = [
            share("ready", part),
            share("of_time_with_work", starved),
            nanoseconds("ready_a_turn", a_turn),
            nanoseconds("run_queue_delay_p50", delay.quantile(0.5)),
            nanoseconds("run_queue_delay_p99", delay.quantile(0.99)),
        ];
        Some(inputs.finding(self, severity, "waits for a CPU while it has work", evidence))
    }
}

/// A limit that is hit in one period of ten is no accident.
const PERIODS_SHARE_WARN: f64 = 0.10;
const PERIODS_SHARE_CRITICAL: f64 = 0.50;
/// And it matters to this loop if it is held back for so much of the time: others of the cgroup may have been.
const HELD_BACK_SHARE_WARN: f64 = 0.05;
const HELD_BACK_SHARE_CRITICAL: f64 = 0.30;

/// How much a limit holds a loop back.
struct HeldBack {
    /// For how much of the time: measured, or, where the kernel does not tell of a thread, at most.
    share: f64,
    /// In how many of the limit's periods its cgroup was; `None` where the kernel's count cannot be read.
    periods: Option<f64>,
}

fn held_back(inputs: &Inputs<'_>) -> Option<HeldBack> {
    let stats = inputs.stats;
    let throttling = stats.throttling.filter(|throttling| throttling.throttled_periods > 0);
    let measured = stats.counters.throttled_ns;
    if measured == 0 && throttling.is_none() {
        return None;
    }
    let held_back_ns = if measured > 0 { measured } else { stats.time_in(State::Ready) };
    let periods = throttling.map(|throttling| ratio(throttling.throttled_periods, throttling.periods));
    Some(HeldBack { share: inputs.share(held_back_ns), periods })
}

/// The loop's cgroup uses up its CPU limit.
pub(super) struct CgroupThrottling;

impl Detector for CgroupThrottling {
    fn tag(&self) -> &'static str {
        "cgroup-throttling"
    }

    fn meaning(&self) -> &'static str {
        "the CPU limit of the loop's cgroup holds it back until the next period"
    }

    fn advice(&self) -> &'static str {
        "raise cpu.max (a container's CPU limit), or have fewer threads share it"
    }

    fn check(&self, inputs: &Inputs<'_>) -> Option<Finding> {
        let held_back = held_back(inputs)?;
        let periods_are = |share: f64| held_back.periods.is_none_or(|periods| periods >= share);
        let severity = if held_back.share >= HELD_BACK_SHARE_CRITICAL && periods_are(PERIODS_SHARE_CRITICAL) {
            Severity::Critical
        } else if held_back.share >= HELD_BACK_SHARE_WARN && periods_are(PERIODS_SHARE_WARN) {
            Severity::Warn
        } else {
            Severity::Info
        };
        let mut evidence = vec![share("held_back", held_back.share)];
        if let Some(throttling) = inputs.stats.throttling {
            evidence.extend([
                share("periods_throttled", ratio(throttling.throttled_periods, throttling.periods)),
                count("throttled", throttling.throttled_periods),
                count("periods", throttling.periods),
                nanoseconds("throttled_over_cpus", throttling.throttled_ns),
            ]);
        }
        Some(inputs.finding(self, severity, "is held back by the CPU limit of its cgroup", evidence))
    }
}

/// An event in a hundred that waits twice what is noticed.
const READY_DELAY_P99_NS: u64 = 2 * LONG_SLICE_NS;

/// What has become ready waits for the loop.
pub(super) struct LongReadyDelay;

impl Detector for LongReadyDelay {
    fn tag(&self) -> &'static str {
        "long-ready-delay"
    }

    fn meaning(&self) -> &'static str {
        "what became ready waited long for the wait call that returned it"
    }

    fn advice(&self) -> &'static str {
        "the loop is busy or late when events come: shorten its slices, or spread its descriptors over more loops"
    }

    fn check(&self, inputs: &Inputs<'_>) -> Option<Finding> {
        let delay = &inputs.stats.ready_delay;
        let (p50, p99) = (delay.quantile(0.5), delay.quantile(0.99));
        let mostly = delay.count() >= WAKEUPS_FOR_MEDIAN && p50 >= LONG_SLICE_NS;
        let often = delay.count() >= ENOUGH && p99 >= READY_DELAY_P99_NS;
        if !mostly && !often {
            return None;
        }
        let critical = mostly && p50 >= inputs.threshold_ns();
        let severity = if critical { Severity::Critical } else { Severity::Warn };
        let evidence = [
            nanoseconds("ready_delay_p50", p50),
            nanoseconds("ready_delay_p99", p99),
            nanoseconds("ready_delay_longest", delay.max()),
            count("measured", delay.count()),
        ];
        Some(inputs.finding(self, severity, "leaves ready events waiting", evidence))
    }
}

/// The kernel lets a timeout be late by a thousandth of it, or by five for a niced thread (`fs/select.c`,
/// `select_estimate_accuracy`): by 5 ms at most where a second has a timeout that expires.
const TIMEOUTS_PER_SECOND: f64 = 1.0;

/// Timeouts expire late.
pub(super) struct PollDelay;

impl Detector for PollDelay {
    fn tag(&self) -> &'static str {
        "poll-delay"
    }

    fn meaning(&self) -> &'static str {
        "wait calls return long after their timeout: the loop's timers are late"
    }

    fn advice(&self) -> &'static str {
        "look at the run-queue delay; if it is short, at the thread's timer slack (PR_SET_TIMERSLACK) and at the \
         machine's idle states"
    }

    fn check(&self, inputs: &Inputs<'_>) -> Option<Finding> {
        let stats = inputs.stats;
        let delay = &stats.poll_delay;
        let rate = stats.per_second(delay.count());
        let late = delay.count() >= WAKEUPS_FOR_MEDIAN
            && rate >= TIMEOUTS_PER_SECOND
            && delay.quantile(0.5) >= LONG_SLICE_NS;
        let evidence = [
            nanoseconds("poll_delay_p50", delay.quantile(0.5)),
            nanoseconds("poll_delay_p99", delay.quantile(0.99)),
            nanoseconds("run_queue_delay_p50", stats.run_queue_delay.quantile(0.5)),
            count("timeouts", delay.count()),
            per_second("timeouts", rate),
        ];
        late.then(|| {
            inputs.finding(
                self,
                Severity::Warn,
                "returns from its wait calls long after their timeouts",
                evidence,
            )
        })
    }
}
