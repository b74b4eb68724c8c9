//! Pollers that threads share.

use super::{Detector, Finding, Inputs, Severity, nanoseconds};

/// So many times the threshold: whatever a peer's patience is, it has ended.
const CRITICAL_TIMES: u64 = 10;

/// No thread waits on a poller that several share.
pub(super) struct PollerUnpolled;

impl Detector for PollerUnpolled {
    fn tag(&self) -> &'static str {
        "poller-unpolled"
    }

    fn meaning(&self) -> &'static str {
        "no thread waited on the poller that several share: what became ready meanwhile was not taken by any of them"
    }

    fn advice(&self) -> &'static str {
        "all its threads were busy or blocked at once: hand blocking work to a pool of its own (spawn_blocking), cut long \
         tasks up, or have more threads"
    }

    fn check(&self, inputs: &Inputs<'_>) -> Option<Finding> {
        let unpolled = inputs.unpolled?;
        let threshold = inputs.threshold_ns();
        if unpolled.longest_ns < threshold {
            return None;
        }
        let critical = unpolled.longest_ns >= threshold.saturating_mul(CRITICAL_TIMES);
        let severity = if critical { Severity::Critical } else { Severity::Warn };
        let evidence = [nanoseconds("longest", unpolled.longest_ns), nanoseconds("now", unpolled.now_ns)];
        Some(inputs.finding(self, severity, "shares a poller on which no thread waited", evidence))
    }
}
