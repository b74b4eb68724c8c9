//! What a loop does for too long between its wait calls: sleep in a system call, or compute.

use ioscope_common::{Blocker, NO_SYSCALL, STOPPED, State};

use super::{Cause, Detector, Finding, Inputs, LONG_SLICE_NS, Severity, count, nanoseconds, ratio, share};

/// A system call in which so much of the time is slept is a habit of the loop, however short each sleep.
const BLOCKED_SHARE_WARN: f64 = 0.10;
/// With sleeps that are long ([`LONG_SLICE_NS`]), it takes less: everything that waits is late by them.
const LONG_BLOCKED_SHARE_WARN: f64 = 0.02;
/// A loop that is stalled for so much of its time does not do its work.
const STALLED_SHARE_CRITICAL: f64 = 0.05;

/// The loop sleeps in a system call that is no wait call.
pub(super) struct BlockingCall;

impl Detector for BlockingCall {
    fn tag(&self) -> &'static str {
        "blocking-call"
    }

    fn meaning(&self) -> &'static str {
        "the loop sleeps in a system call outside its wait call, and serves nobody meanwhile"
    }

    fn advice(&self) -> &'static str {
        "hand the call to a thread pool, use its non-blocking form, or do without it; \
         `ioscope trace --blocked` shows each time"
    }

    fn check(&self, inputs: &Inputs<'_>) -> Option<Finding> {
        let stats = inputs.stats;
        // A thread that only ever checks in waits somewhere else by design: Go's monitor sleeps between its looks.
        if stats.iterations() > 0
            && stats.iterations() == stats.counters.check_ins
            && stats.counters.ready_events == 0
        {
            return None;
        }
        let (blocker, severity) = blockers(inputs)
            .filter_map(|blocker| Some((blocker, blocking_severity(&blocker, inputs)?)))
            .max_by_key(|(blocker, severity)| (*severity, blocker.total_ns))?;
        let severity = of_runtime(severity, inputs);
        let name = (inputs.syscall_name)(blocker.syscall);
        let summary = if blocker.syscall == NO_SYSCALL {
            "sleeps outside any system call: a page fault that waits for the disk, or a lock in the kernel"
                .to_owned()
        } else {
            format!("sleeps in {name} between its wait calls")
        };
        let evidence = [
            nanoseconds("longest", longest(&blocker)),
            nanoseconds("total", blocker.total_ns),
            count("times", blocker.count),
            share("time", inputs.share(blocker.total_ns)),
        ];
        let place = inputs.place(|cause| cause == Cause::of_sleep(blocker.syscall));
        Some(Finding { subject: Some(name), place, ..inputs.finding(self, severity, summary, evidence) })
    }
}

/// That nobody goes on with the poller is told by another finding.
fn of_runtime(severity: Severity, inputs: &Inputs<'_>) -> Severity {
    if inputs.others_go_on() { Severity::Info } else { severity }
}

/// What the loop slept in; a sleep that goes on is counted where it belongs.
fn blockers(inputs: &Inputs<'_>) -> impl Iterator<Item = Blocker> {
    let mut blockers = inputs.stats.blockers.clone();
    if !inputs.ended
        && inputs.present.state == State::Blocked
        && let Some(syscall) = inputs.present.syscall
    {
        let ns = inputs.present.for_ns.min(inputs.stats.elapsed_ns());
        match blockers.iter_mut().find(|blocker| blocker.syscall == syscall) {
            Some(known) => {
                known.count += 1;
                known.total_ns += ns;
                known.max_ns = known.max_ns.max(ns);
            }
            None => blockers.push(Blocker { syscall, reserved: 0, count: 1, total_ns: ns, max_ns: ns }),
        }
    }
    // A stop by a signal or a debugger is nobody's mistake.
    blockers.into_iter().filter(|blocker| blocker.syscall != STOPPED)
}

/// Of an interval the longest is not known, but it is no longer than all of them.
fn longest(blocker: &Blocker) -> u64 {
    blocker.max_ns.min(blocker.total_ns)
}

fn blocking_severity(blocker: &Blocker, inputs: &Inputs<'_>) -> Option<Severity> {
    let longest = longest(blocker);
    let part = inputs.share(blocker.total_ns);
    if longest >= inputs.threshold_ns() {
        let critical = part >= STALLED_SHARE_CRITICAL;
        Some(if critical { Severity::Critical } else { Severity::Warn })
    } else if part >= BLOCKED_SHARE_WARN || (longest >= LONG_SLICE_NS && part >= LONG_BLOCKED_SHARE_WARN) {
        Some(Severity::Warn)
    } else {
        (longest >= LONG_SLICE_NS).then_some(Severity::Info)
    }
}

/// Slices over [`LONG_SLICE_NS`] in which the loop computes may take this much of the time: more, and what becomes
/// ready is late by them more often than not by chance.
const LONG_CPU_SHARE_WARN: f64 = 0.10;
/// Of the stalls' time so much has to have gone to computing; the rest has findings of its own.
const CPU_PART: f64 = 0.5;

/// The loop computes for too long at a time.
pub(super) struct CpuBoundCallback;

impl Detector for CpuBoundCallback {
    fn tag(&self) -> &'static str {
        "cpu-bound-callback"
    }

    fn meaning(&self) -> &'static str {
        "the loop computes for so long between two wait calls that everything else is late"
    }

    fn advice(&self) -> &'static str {
        "cut the work into pieces that yield to the loop, or hand it to another thread or process"
    }

    fn check(&self, inputs: &Inputs<'_>) -> Option<Finding> {
        let stats = inputs.stats;
        let counters = &stats.counters;
        let ongoing =
            inputs.present.serving_ns.filter(|ns| !inputs.ended && *ns >= inputs.threshold_ns()).unwrap_or(0);
        let ongoing_here = ongoing.min(stats.elapsed_ns());
        let stalled = counters.stalled_ns + ongoing_here;
        // What was not on a CPU, in any slice, may all have been in these: the rest is the least that was.
        let off_cpu = stats.time_in(State::Blocked) + stats.time_in(State::Ready);
        let at_least = stalled.saturating_sub(off_cpu);
        // Of the stalls that are kept, it was measured.
        let measured = inputs.stalls.iter().map(|stall| stall.account.on_cpu_ns()).sum();
        let computed = at_least.max(measured).min(stalled);
        if stalled > 0 && (ratio(computed, stalled) >= CPU_PART || computed >= inputs.threshold_ns()) {
            let severity = if inputs.share(stalled) >= STALLED_SHARE_CRITICAL {
                Severity::Critical
            } else {
                Severity::Warn
            };
            let longest = counters.longest_stall_ns.min(counters.stalled_ns).max(ongoing);
            let evidence = [
                nanoseconds("longest", longest),
                nanoseconds("stalled", stalled),
                count("stalls", counters.stalls + u64::from(ongoing > 0)),
                share("on_cpu_at_least", ratio(computed, stalled)),
                share("time", inputs.share(stalled)),
            ];
            let summary = if ongoing > 0 {
                "computes without coming back to its wait call"
            } else {
                "stalls by computing between its wait calls"
            };
            let place = inputs.place(|cause| matches!(cause, Cause::User | Cause::Kernel | Cause::OnCpu));
            let severity = of_runtime(severity, inputs);
            return Some(Finding { place, ..inputs.finding(self, severity, summary, evidence) });
        }
        let long = stats.loop_duration.buckets().filter(|(low, ..)| *low >= LONG_SLICE_NS);
        let (slices, least) =
            long.fold((0, 0), |(slices, least), (low, _, number)| (slices + number, least + low * number));
        let computed = least.saturating_sub(off_cpu);
        let severity = if inputs.share(computed) >= LONG_CPU_SHARE_WARN {
            Severity::Warn
        } else if computed >= LONG_SLICE_NS && ratio(computed, least) >= CPU_PART {
            Severity::Info
        } else {
            return None;
        };
        let evidence = [
            nanoseconds("longest", stats.loop_duration.max()),
            nanoseconds("on_cpu_at_least", computed),
            count("long_slices", slices),
            share("time", inputs.share(computed)),
        ];
        let severity = of_runtime(severity, inputs);
        Some(inputs.finding(self, severity, "computes for 10 ms and more between its wait calls", evidence))
    }
}
