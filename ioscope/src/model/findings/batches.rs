//! How many events a wait call brings.

use super::{Detector, ENOUGH, Finding, Inputs, Severity, count, mean, per_second, ratio, share};

/// Nearly always: a burst fills a batch now and then.
const FULL_SHARE: f64 = 0.90;
/// A loop that is idle half of the time takes what is left over in its next turn, and no harm done.
const IDLE_ENOUGH: f64 = 0.50;

/// Wait calls bring as many events as they ask for at most.
pub(super) struct BatchAlwaysFull;

impl Detector for BatchAlwaysFull {
    fn tag(&self) -> &'static str {
        "batch-always-full"
    }

    fn meaning(&self) -> &'static str {
        "wait calls return as many events as they have room for: more are ready, and wait for the next turn"
    }

    fn advice(&self) -> &'static str {
        "give the wait call room for more events (maxevents), or spread the descriptors over more loops"
    }

    fn check(&self, inputs: &Inputs<'_>) -> Option<Finding> {
        let stats = inputs.stats;
        let full = stats.counters.batch_full;
        let part = ratio(full, inputs.productive_returns());
        let size = stats.ready_per_wakeup.max();
        // With room for one, the batch says nothing: a program that watches one descriptor asks for no more.
        if full < ENOUGH || part < FULL_SHARE || size < 2 {
            return None;
        }
        let idle = inputs.idle_share();
        let severity = if idle < IDLE_ENOUGH { Severity::Warn } else { Severity::Info };
        let evidence = [
            share("batches_full", part),
            count("batch_size", size),
            per_second("batches", stats.per_second(inputs.productive_returns())),
            share("idle", idle),
        ];
        Some(inputs.finding(self, severity, "finds its batches full", evidence))
    }
}

/// At ten thousand a second the way into the kernel and back costs a tenth of a CPU and more.
const WAKEUPS_PER_SECOND: f64 = 10_000.0;
/// One event each, and a second one now and then.
const ABOUT_ONE: f64 = 1.1;
/// A loop that is never idle and yet finds one event at a time has no backlog to take: the event is the same over and
/// over, or it asks for one only. A peer that waits for each answer leaves it idle in between.
const NEVER_IDLE: f64 = 0.10;
const SATURATED_PER_SECOND: f64 = 50_000.0;

/// Each wait call brings one event, at a high rate.
pub(super) struct OneEventPerWakeup;

impl Detector for OneEventPerWakeup {
    fn tag(&self) -> &'static str {
        "one-event-per-wakeup"
    }

    fn meaning(&self) -> &'static str {
        "every event costs a wait call of its own, at a high rate"
    }

    fn advice(&self) -> &'static str {
        "ask for more than one event a call, and read a descriptor until it has no more; one that is ready all the \
         time and is not read needs EPOLLET, or to be left out"
    }

    fn check(&self, inputs: &Inputs<'_>) -> Option<Finding> {
        let stats = inputs.stats;
        let returns = inputs.productive_returns();
        let rate = stats.per_second(returns);
        let events = stats.ready_per_wakeup.mean();
        if returns < ENOUGH || rate < WAKEUPS_PER_SECOND || !(0.9..=ABOUT_ONE).contains(&events) {
            return None;
        }
        let idle = inputs.idle_share();
        let saturated = idle < NEVER_IDLE && rate >= SATURATED_PER_SECOND;
        let severity = if saturated { Severity::Warn } else { Severity::Info };
        let evidence =
            [per_second("wait_calls", rate), mean("events_per_wait_call", events), share("idle", idle)];
        Some(inputs.finding(self, severity, "makes a wait call for every single event", evidence))
    }
}
