//! `io_uring`: how requests go in, and what becomes of them.

use ioscope_common::WaitCall;

use super::{Detector, ENOUGH, Finding, Inputs, Severity, count, mean, per_second, ratio, share};

/// One request a call, and a second one now and then.
const ABOUT_ONE: f64 = 1.1;
/// A thousand calls a second are worth a line where they could be fewer;
const CALLS_PER_SECOND_WARN: f64 = 1_000.0;
/// where each is a wait, too, they are what a program with one request in flight makes: it takes ten thousand.
const CALLS_PER_SECOND_INFO: f64 = 10_000.0;
/// So many calls that only submit, to each wait, could have been one.
const SUBMISSIONS_TO_WAITS: u64 = 2;

/// A call of `io_uring_enter` for each request.
pub(super) struct SubmitOneAtATime;

impl Detector for SubmitOneAtATime {
    fn tag(&self) -> &'static str {
        "submit-one-at-a-time"
    }

    fn meaning(&self) -> &'static str {
        "every request costs an io_uring_enter of its own: the ring is used as if it were system calls"
    }

    fn advice(&self) -> &'static str {
        "queue requests as they come, and submit them together with the next wait (io_uring_submit_and_wait)"
    }

    fn check(&self, inputs: &Inputs<'_>) -> Option<Finding> {
        let stats = inputs.stats;
        let counters = &stats.counters;
        let waits = counters.returns[WaitCall::IoUringEnter.index()];
        let rate = stats.per_second(counters.submitting_calls);
        let requests = ratio(counters.requests, counters.submitting_calls);
        if counters.submitting_calls < ENOUGH || requests > ABOUT_ONE {
            return None;
        }
        let apart = counters.submissions >= SUBMISSIONS_TO_WAITS * waits.max(1);
        let severity = if apart && rate >= CALLS_PER_SECOND_WARN {
            Severity::Warn
        } else if rate >= CALLS_PER_SECOND_INFO {
            Severity::Info
        } else {
            return None;
        };
        let evidence = [
            per_second("submitting_calls", rate),
            mean("requests_per_call", requests),
            mean("submissions_per_wait", ratio(counters.submissions, waits.max(1))),
        ];
        Some(inputs.finding(self, severity, "submits its requests one at a time", evidence))
    }
}

/// Of the completions: from here on the queue is too small, not a burst too large.
const OVERFLOW_SHARE_CRITICAL: f64 = 0.01;

/// Completions found the completion queue full.
pub(super) struct CqOverflow;

impl Detector for CqOverflow {
    fn tag(&self) -> &'static str {
        "cq-overflow"
    }

    fn meaning(&self) -> &'static str {
        "completions found no room in the completion queue; the kernel keeps them in memory of its own until the \
         program makes room"
    }

    fn advice(&self) -> &'static str {
        "make the completion queue larger (IORING_SETUP_CQSIZE), or take completions out more often"
    }

    fn check(&self, inputs: &Inputs<'_>) -> Option<Finding> {
        let stats = inputs.stats;
        let overflows = stats.ring_events.cq_overflows;
        if overflows == 0 {
            return None;
        }
        let part = ratio(overflows, stats.counters.ready_events.max(overflows));
        let severity = if part >= OVERFLOW_SHARE_CRITICAL { Severity::Critical } else { Severity::Warn };
        let evidence = [
            count("overflows", overflows),
            share("of_completions", part),
            per_second("completions", stats.per_second(stats.counters.ready_events)),
        ];
        Some(inputs.finding(self, severity, "overflows the completion queue of its ring", evidence))
    }
}

/// Of the requests: one in ten that takes the slow way is a pattern; one in a hundred worth knowing.
const PUNT_SHARE_WARN: f64 = 0.10;
const PUNT_SHARE_INFO: f64 = 0.01;
const PUNTS_PER_SECOND_WARN: f64 = 100.0;
const FEW_PUNTS: u64 = 10;

/// Requests are handed to worker threads of the kernel.
pub(super) struct IoWqPunts;

impl Detector for IoWqPunts {
    fn tag(&self) -> &'static str {
        "io-wq-punts"
    }

    fn meaning(&self) -> &'static str {
        "requests that would block are handed to worker threads of the kernel (io-wq), which costs switches and CPU \
         time"
    }

    fn advice(&self) -> &'static str {
        "use what can be done without blocking (pollable files, O_DIRECT reads), leave IOSQE_ASYNC out, and limit the \
         workers (IORING_REGISTER_IOWQ_MAX_WORKERS)"
    }

    fn check(&self, inputs: &Inputs<'_>) -> Option<Finding> {
        let stats = inputs.stats;
        let punts = stats.ring_events.io_wq_punts;
        let part = ratio(punts, stats.counters.requests.max(punts));
        let rate = stats.per_second(punts);
        let severity = if punts >= ENOUGH && rate >= PUNTS_PER_SECOND_WARN && part >= PUNT_SHARE_WARN {
            Severity::Warn
        } else if punts >= FEW_PUNTS && part >= PUNT_SHARE_INFO {
            Severity::Info
        } else {
            return None;
        };
        let evidence = [per_second("punts", rate), count("punts", punts), share("of_requests", part)];
        Some(inputs.finding(
            self,
            severity,
            "has its requests done by worker threads of the kernel",
            evidence,
        ))
    }
}
