//! The JSON of `stat` and `report`. Versioned: fields are added, never changed or taken away.

use std::{collections::BTreeMap, io, sync::Arc};

use ioscope_common::{Counters, Drops, State};
use serde::Serialize;

use super::{
    stalls::StallJson,
    summary::{LoopSummary, Summary},
};
use crate::{
    model::{
        Distribution, Identity, Syscalls,
        findings::{self, Evidence, Quantity},
        special_syscall,
        stalls::OTHER_SYSCALLS,
    },
    probe::{arch::Arch, syscalls},
};

/// The version of the format.
const SCHEMA: u32 = 1;

/// Writes a summary as one object: indented for people, or as one line.
pub fn write(out: &mut impl io::Write, summary: &Summary, pretty: bool) -> io::Result<()> {
    let document = Document::of(summary);
    if pretty {
        serde_json::to_writer_pretty(&mut *out, &document)?;
    } else {
        serde_json::to_writer(&mut *out, &document)?;
    }
    writeln!(out)
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    ioscope: &'static str,
    kernel: String,
    attach: &'a str,
    elapsed_ns: u64,
    loops: Vec<Loop<'a>>,
    findings: Vec<Finding<'a>>,
    dropped: Dropped,
    overhead: Overhead,
}

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "the contract's names")]
struct Loop<'a> {
    pid: u32,
    tid: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace_pid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace_tid: Option<u32>,
    comm: &'a str,
    process: &'a str,
    runtime: Option<&'static str>,
    elapsed_ns: u64,
    wait_calls: BTreeMap<&'static str, u64>,
    iterations: u64,
    ready_events: u64,
    empty_wakeups: u64,
    timeouts: u64,
    check_ins: u64,
    batch_full: u64,
    errors: u64,
    interrupted: u64,
    restarts: u64,
    submissions: u64,
    futile_wakeups: u64,
    io_uring: IoUring,
    errnos: BTreeMap<u32, u64>,
    time_ns: BTreeMap<String, u64>,
    throttled_ns: u64,
    utilisation: f64,
    loop_duration_ns: Quantiles,
    wakeup_latency_ns: Quantiles,
    run_queue_delay_ns: Quantiles,
    poll_delay_ns: Quantiles,
    ready_delay_ns: Quantiles,
    ready_unknown: u64,
    ready_per_wakeup: Quantiles,
    pollers: Vec<Poller>,
    blocked_in: Vec<Blocked>,
    stalls: Stalls,
    #[serde(skip_serializing_if = "Option::is_none")]
    syscalls: Option<SyscallsJson>,
    /// Of a poller that threads share.
    #[serde(skip_serializing_if = "Option::is_none")]
    poller_unpolled: Option<PollerUnpolled>,
    missed: u64,
    unseen: u64,
}

#[derive(Serialize)]
struct Quantiles {
    count: u64,
    mean: f64,
    p50: u64,
    p90: u64,
    p99: u64,
    p999: u64,
    max: u64,
}

impl Quantiles {
    fn of(distribution: &Distribution) -> Self {
        Self {
            count: distribution.count(),
            mean: distribution.mean(),
            p50: distribution.quantile(0.5),
            p90: distribution.quantile(0.9),
            p99: distribution.quantile(0.99),
            p999: distribution.quantile(0.999),
            max: distribution.max(),
        }
    }
}

#[derive(Serialize)]
struct Poller {
    kind: &'static str,
    fd: i32,
    iterations: u64,
}

#[derive(Serialize)]
struct IoUring {
    submitting_calls: u64,
    requests: u64,
    cq_overflows: u64,
    io_wq_punts: u64,
}

#[derive(Serialize)]
struct PollerUnpolled {
    now_ns: u64,
    longest_ns: u64,
}

#[derive(Serialize)]
struct Blocked {
    syscall: String,
    count: u64,
    total_ns: u64,
    max_ns: u64,
}

/// The system calls of slices; crossings are all system calls, the wait calls among them.
#[derive(Serialize)]
struct SyscallsJson {
    crossings: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    crossings_per_ready_event: Option<f64>,
    calls: Vec<Blocked>,
}

impl SyscallsJson {
    fn of(syscalls: &Syscalls, counters: &Counters) -> Self {
        Self {
            crossings: syscalls.crossings(counters),
            crossings_per_ready_event: syscalls.crossings_per_ready_event(counters),
            calls: syscalls
                .iter()
                .map(|call| Blocked {
                    syscall: called(call.syscall),
                    count: call.count,
                    total_ns: call.total_ns,
                    max_ns: call.max_ns,
                })
                .collect(),
        }
    }
}

/// The name of a system call that was made.
pub(super) fn called(syscall: i32) -> String {
    if syscall == OTHER_SYSCALLS { "others".to_owned() } else { syscall_name(syscall) }
}

#[derive(Serialize)]
struct Stalls {
    count: u64,
    ongoing_ns: u64,
    longest_ns: u64,
    total_ns: u64,
    threshold_ns: u64,
    dropped: u64,
    ongoing: Option<StallJson>,
    list: Vec<StallJson>,
}

/// What was dropped.
#[derive(Serialize)]
pub(super) struct Dropped {
    ring_full: u64,
    loops_full: u64,
    targets_full: u64,
    out_of_directory: u64,
    compat_calls: u64,
    skipped_runs: u64,
    captures_full: u64,
}

impl From<&Drops> for Dropped {
    fn from(drops: &Drops) -> Self {
        Self {
            ring_full: drops.ring_full,
            loops_full: drops.loops_full,
            targets_full: drops.targets_full,
            out_of_directory: drops.out_of_directory,
            compat_calls: drops.compat_calls,
            skipped_runs: drops.skipped_runs,
            captures_full: drops.captures_full,
        }
    }
}

#[derive(Serialize)]
struct Overhead {
    bpf_ns: Option<u64>,
    collector_cpu_ns: u64,
}

impl<'a> Document<'a> {
    fn of(summary: &'a Summary) -> Self {
        Self {
            schema: SCHEMA,
            ioscope: env!("CARGO_PKG_VERSION"),
            kernel: kernel(),
            attach: &summary.attach,
            elapsed_ns: summary.elapsed_ns,
            loops: summary.loops.iter().map(Loop::of).collect(),
            findings: summary.findings.iter().map(Finding::of).collect(),
            dropped: Dropped::from(&summary.drops),
            overhead: Overhead {
                bpf_ns: summary.cost.bpf_ns,
                collector_cpu_ns: summary.cost.collector_cpu_ns,
            },
        }
    }
}

impl<'a> Loop<'a> {
    fn of(entry: &'a LoopSummary) -> Self {
        let LoopSummary {
            identity,
            stats,
            ongoing_stall_ns,
            stalls,
            stalls_dropped,
            unpolled,
            stall_threshold,
        } = entry;
        let counters = &stats.counters;
        Self {
            pid: identity.pid,
            tid: identity.tid,
            namespace_pid: identity.inner.map(|inner| inner.0),
            namespace_tid: identity.inner.map(|inner| inner.1),
            comm: &identity.comm,
            process: &identity.process,
            runtime: identity.runtime,
            elapsed_ns: stats.elapsed_ns(),
            wait_calls: ioscope_common::WaitCall::ALL
                .into_iter()
                .filter(|call| counters.returns[call.index()] > 0)
                .map(|call| (call.name(), counters.returns[call.index()]))
                .collect(),
            iterations: stats.iterations(),
            ready_events: counters.ready_events,
            empty_wakeups: counters.empty_wakeups,
            timeouts: counters.timeouts,
            check_ins: counters.check_ins,
            batch_full: counters.batch_full,
            errors: counters.errors,
            interrupted: counters.interrupted,
            restarts: counters.restarts,
            submissions: counters.submissions,
            futile_wakeups: counters.futile_wakeups,
            io_uring: IoUring {
                submitting_calls: counters.submitting_calls,
                requests: counters.requests,
                cq_overflows: stats.ring_events.cq_overflows,
                io_wq_punts: stats.ring_events.io_wq_punts,
            },
            errnos: stats.errnos.iter().map(|entry| (entry.errno, entry.count)).collect(),
            time_ns: State::ALL
                .into_iter()
                .map(|state| (state.name().to_ascii_lowercase(), stats.time_in(state)))
                .collect(),
            throttled_ns: counters.throttled_ns,
            utilisation: stats.utilisation(),
            loop_duration_ns: Quantiles::of(&stats.loop_duration),
            wakeup_latency_ns: Quantiles::of(&stats.wakeup_latency),
            run_queue_delay_ns: Quantiles::of(&stats.run_queue_delay),
            poll_delay_ns: Quantiles::of(&stats.poll_delay),
            ready_delay_ns: Quantiles::of(&stats.ready_delay),
            ready_unknown: counters.ready_unknown,
            ready_per_wakeup: Quantiles::of(&stats.ready_per_wakeup),
            pollers: stats
                .pollers
                .iter()
                .map(|poller| Poller {
                    kind: poller.kind.name(),
                    fd: poller.fd,
                    iterations: poller.iterations,
                })
                .collect(),
            blocked_in: stats
                .blockers
                .iter()
                .map(|blocker| (syscall_name(blocker.syscall), blocker))
                .chain(stats.other_blockers.iter().map(|blocker| ("others".to_owned(), blocker)))
                .map(|(syscall, blocker)| Blocked {
                    syscall,
                    count: blocker.count,
                    total_ns: blocker.total_ns,
                    max_ns: blocker.max_ns,
                })
                .collect(),
            stalls: Stalls {
                count: counters.stalls,
                ongoing_ns: *ongoing_stall_ns,
                longest_ns: counters.longest_stall_ns,
                total_ns: counters.stalled_ns,
                threshold_ns: u64::try_from(stall_threshold.as_nanos()).unwrap_or(u64::MAX),
                dropped: *stalls_dropped,
                ongoing: stalls.iter().find(|stall| stall.is_ongoing()).map(StallJson::of),
                list: stalls.iter().filter(|stall| !stall.is_ongoing()).map(StallJson::of).collect(),
            },
            syscalls: stats.syscalls.as_ref().map(|syscalls| SyscallsJson::of(syscalls, counters)),
            poller_unpolled: unpolled
                .map(|unpolled| PollerUnpolled { now_ns: unpolled.now_ns, longest_ns: unpolled.longest_ns }),
            missed: counters.impossible,
            unseen: counters.unseen,
        }
    }
}

/// A finding; `pid`, `tid` and `comm` are those of the loop that the numbers are of.
#[derive(Serialize)]
struct Finding<'a> {
    tag: &'static str,
    severity: &'static str,
    pid: u32,
    tid: u32,
    comm: &'a str,
    summary: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    /// Functions, innermost first.
    #[serde(rename = "where", skip_serializing_if = "Vec::is_empty")]
    place: Vec<&'a str>,
    evidence: serde_json::Map<String, serde_json::Value>,
    advice: &'static str,
    /// The other loops that have it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    also: Vec<Who<'a>>,
}

#[derive(Serialize)]
struct Who<'a> {
    pid: u32,
    tid: u32,
    comm: &'a str,
}

impl<'a> Finding<'a> {
    fn of(finding: &'a findings::Finding) -> Self {
        let who =
            |identity: &'a Arc<Identity>| Who { pid: identity.pid, tid: identity.tid, comm: &identity.comm };
        let (worst, others) = finding.loops.split_at(finding.loops.len().min(1));
        let Who { pid, tid, comm } = worst.first().map_or(Who { pid: 0, tid: 0, comm: "" }, who);
        Self {
            tag: finding.tag,
            severity: finding.severity.name(),
            pid,
            tid,
            comm,
            summary: &finding.summary,
            subject: finding.subject.as_deref(),
            place: finding.place.iter().map(|function| &**function).collect(),
            evidence: finding.evidence.iter().map(field).collect(),
            advice: finding.advice,
            also: others.iter().map(who).collect(),
        }
    }
}

/// A number, its unit in its name.
fn field(evidence: &Evidence) -> (String, serde_json::Value) {
    let (unit, value) = match evidence.quantity {
        Quantity::Count(number) => ("", number.into()),
        Quantity::Nanoseconds(ns) => ("_ns", ns.into()),
        Quantity::PerSecond(rate) => ("_per_second", rate.into()),
        Quantity::Share(share) => ("_share", share.into()),
        Quantity::Mean(mean) => ("_mean", mean.into()),
    };
    (format!("{}{unit}", evidence.name), value)
}

/// A system call's name; of a number that has none, the number.
pub fn syscall_name(number: i32) -> String {
    if let Some(name) = special_syscall(number) {
        return name.to_owned();
    }
    let name = u32::try_from(number)
        .ok()
        .and_then(|number| Arch::host().and_then(|arch| syscalls::name(arch, number)));
    name.map_or_else(|| format!("syscall {number}"), str::to_owned)
}

/// The running kernel's release.
pub fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}
