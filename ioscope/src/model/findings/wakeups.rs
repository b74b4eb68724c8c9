//! Wait calls and wakeups that come to nothing.

use ioscope_common::State;

use super::{Detector, ENOUGH, Finding, Inputs, Severity, per_second, ratio, share};

/// A loop that looks a thousand times a second is not asleep to the machine, and one that looks less often costs
/// next to nothing.
const CHECK_INS_PER_SECOND: f64 = 1_000.0;
/// Runtimes look again after a batch, or between tasks: a look in vain to each that finds something, or two.
const CHECK_INS_TO_FINDS: u64 = 10;
/// So much of a CPU is worth a line.
const POLLING_CPU_SHARE: f64 = 0.10;

/// The loop looks for events again and again instead of sleeping until there are some.
pub(super) struct BusyPolling;

impl Detector for BusyPolling {
    fn tag(&self) -> &'static str {
        "busy-polling"
    }

    fn meaning(&self) -> &'static str {
        "the loop checks in again and again and finds nothing: it burns a CPU instead of sleeping"
    }

    fn advice(&self) -> &'static str {
        "give the wait call a timeout; where it has to check in, look whether a task is always runnable or a timer \
         always due"
    }

    fn check(&self, inputs: &Inputs<'_>) -> Option<Finding> {
        let stats = inputs.stats;
        let counters = &stats.counters;
        let finds = inputs.productive_returns();
        let empty = stats.iterations().saturating_sub(counters.errors + counters.interrupted + finds);
        let rate = stats.per_second(empty);
        let cpu = inputs.share(stats.time_in(State::Running) + stats.time_in(State::Polling));
        let busy = empty >= ENOUGH
            && rate >= CHECK_INS_PER_SECOND
            && empty >= CHECK_INS_TO_FINDS * finds
            && cpu >= POLLING_CPU_SHARE;
        let evidence = [
            per_second("empty_check_ins", rate),
            share("of_returns", ratio(empty, stats.iterations())),
            share("on_cpu", cpu),
            per_second("ready_events", stats.per_second(counters.ready_events)),
        ];
        busy.then(|| {
            inputs.finding(self, Severity::Warn, "checks in again and again and finds nothing", evidence)
        })
    }
}

/// A hundred wakeups for nothing in a second.
const FUTILE_PER_SECOND: f64 = 100.0;
/// Of all wakeups: a loop with a poller of its own has none, and two that share one well have a few.
const FUTILE_SHARE: f64 = 0.30;

/// Several threads are woken for what one of them gets.
pub(super) struct ThunderingHerd;

impl Detector for ThunderingHerd {
    fn tag(&self) -> &'static str {
        "thundering-herd"
    }

    fn meaning(&self) -> &'static str {
        "threads that wait for the same thing are woken together, and all but one find nothing and sleep again"
    }

    fn advice(&self) -> &'static str {
        "have one thread wait for each descriptor: EPOLLEXCLUSIVE or EPOLLET on a shared one, SO_REUSEPORT for \
         listeners"
    }

    fn check(&self, inputs: &Inputs<'_>) -> Option<Finding> {
        let stats = inputs.stats;
        let futile = stats.counters.futile_wakeups;
        let rate = stats.per_second(futile);
        let part = ratio(futile, futile + stats.wakeup_latency.count());
        let herd = futile >= ENOUGH && rate >= FUTILE_PER_SECOND && part >= FUTILE_SHARE;
        let evidence = [
            per_second("futile_wakeups", rate),
            share("of_wakeups", part),
            per_second("ready_events", stats.per_second(stats.counters.ready_events)),
        ];
        herd.then(|| {
            inputs.finding(self, Severity::Warn, "is woken together with others, and finds nothing", evidence)
        })
    }
}

/// Timers of ordinary programs go off ten to a hundred times a second; five hundred keep a CPU from ever idling deeply.
const TIMEOUTS_PER_SECOND: f64 = 500.0;
/// Nearly all returns: a server under load whose timers go off beside its work is no storm.
const TIMEOUT_SHARE: f64 = 0.90;

/// The loop wakes for timeouts, and for little else.
pub(super) struct TimerStorm;

impl Detector for TimerStorm {
    fn tag(&self) -> &'static str {
        "timer-storm"
    }

    fn meaning(&self) -> &'static str {
        "the loop wakes hundreds of times a second for a timeout, with no event"
    }

    fn advice(&self) -> &'static str {
        "look for a timer that is set again and again, or a loop that polls a flag: let whoever sets it wake the loop"
    }

    fn check(&self, inputs: &Inputs<'_>) -> Option<Finding> {
        let stats = inputs.stats;
        let timeouts = stats.counters.timeouts;
        let rate = stats.per_second(timeouts);
        let part = ratio(timeouts, inputs.productive_returns());
        let storm = timeouts >= ENOUGH && rate >= TIMEOUTS_PER_SECOND && part >= TIMEOUT_SHARE;
        let evidence = [
            per_second("timeouts", rate),
            share("of_returns", part),
            share("on_cpu", inputs.share(stats.time_in(State::Running) + stats.time_in(State::Polling))),
        ];
        storm.then(|| inputs.finding(self, Severity::Warn, "wakes for timeouts, with no event", evidence))
    }
}
