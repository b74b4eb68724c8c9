//! The text of `stat` and `report`: a table of the loops, and each loop in full when they are few.

use std::{io, time::Duration};

use ioscope_common::{Drops, State};
use unicode_width::UnicodeWidthStr as _;

use super::{
    json::{called, kernel, syscall_name},
    numbers::{count, duration, percent, rate},
    stalls,
    summary::{LoopSummary, Summary},
};
use crate::model::{
    Distribution, Stats, SyscallUse,
    findings::{Finding, Quantity, Severity},
};

/// Up to so many loops are printed in full without being asked for.
const FEW_LOOPS: usize = 3;

/// A shared poller that nobody waits on for less than this is as it should be.
const UNPOLLED_SHOWN_NS: u64 = 1_000_000;

/// Writes a summary.
pub fn write(out: &mut impl io::Write, summary: &Summary, details: bool) -> io::Result<()> {
    writeln!(
        out,
        "ioscope {} · kernel {} · {} · {}",
        env!("CARGO_PKG_VERSION"),
        kernel(),
        summary.attach,
        duration(summary.elapsed_ns)
    )?;
    if summary.loops.is_empty() {
        writeln!(out, "\nno wait call was seen: no target made one while it was traced")?;
    } else {
        writeln!(out)?;
        write_table(out, summary)?;
        write_thresholds(out, summary)?;
        if details || summary.loops.len() <= FEW_LOOPS {
            for entry in &summary.loops {
                write_loop(out, entry)?;
            }
        }
        write_findings(out, &summary.findings)?;
    }
    write_drops(out, &summary.drops)
}

/// What stands before a finding.
pub(crate) const fn severity_mark(severity: Severity) -> &'static str {
    match severity {
        Severity::Info => "i",
        Severity::Warn => "!",
        Severity::Critical => "!!",
    }
}

/// Writes the findings, the worst first.
fn write_findings(out: &mut impl io::Write, findings: &[Finding]) -> io::Result<()> {
    if findings.is_empty() {
        return writeln!(out, "\nno findings");
    }
    for finding in findings {
        let (first, others) = finding.loops.split_at(finding.loops.len().min(1));
        let name = first.first().map_or_else(String::new, |of| format!("{}/{}", of.comm, of.tid));
        let others = match others.len() {
            0 => String::new(),
            1 => " and another loop of its process".to_owned(),
            number => format!(" and {number} other loops of its process"),
        };
        let mark = severity_mark(finding.severity);
        writeln!(
            out,
            "\n{mark:>2} {} {}: {name}{others} {}",
            finding.severity.name(),
            finding.tag,
            finding.summary
        )?;
        if !finding.place.is_empty() {
            writeln!(out, "   in {}", finding.place.join(" ← "))?;
        }
        let evidence: Vec<_> = finding
            .evidence
            .iter()
            .map(|evidence| format!("{} {}", evidence.name.replace('_', " "), quantity(evidence.quantity)))
            .collect();
        writeln!(out, "   {}", evidence.join(" · "))?;
        writeln!(out, "   → {}", finding.advice)?;
    }
    Ok(())
}

fn quantity(quantity: Quantity) -> String {
    match quantity {
        Quantity::Count(number) => count(number),
        Quantity::Nanoseconds(ns) => duration(ns),
        Quantity::PerSecond(value) => format!("{}/s", rate(value)),
        Quantity::Share(value) => percent(value),
        Quantity::Mean(value) => rate(value),
    }
}

/// A column: its heading, whether it is aligned to the left, and its text for a loop.
struct Column {
    heading: &'static str,
    left: bool,
    text: fn(&LoopSummary) -> String,
}

const COLUMNS: &[Column] = &[
    Column { heading: "TID", left: false, text: |entry| entry.identity.tid.to_string() },
    Column { heading: "NAME", left: true, text: |entry| entry.identity.comm.clone() },
    Column { heading: "RUNTIME", left: true, text: |entry| entry.identity.runtime.unwrap_or("-").to_owned() },
    Column {
        heading: "WAIT CALL",
        left: true,
        text: |entry| entry.stats.main_wait_call().map_or("-", |call| call.name()).to_owned(),
    },
    Column { heading: "UTIL", left: false, text: |entry| percent(entry.stats.utilisation()) },
    Column {
        heading: "ITER/S",
        left: false,
        text: |entry| rate(entry.stats.per_second(entry.stats.iterations())),
    },
    Column { heading: "EV/WAKE", left: false, text: |entry| rate(entry.stats.ready_per_wakeup.mean()) },
    Column { heading: "LOOP P50", left: false, text: |entry| quantile(&entry.stats.loop_duration, 0.5) },
    Column { heading: "P99", left: false, text: |entry| quantile(&entry.stats.loop_duration, 0.99) },
    Column { heading: "WAKE P50", left: false, text: |entry| quantile(&entry.stats.wakeup_latency, 0.5) },
    Column { heading: "P99", left: false, text: |entry| quantile(&entry.stats.wakeup_latency, 0.99) },
    Column { heading: "DELAY P99", left: false, text: |entry| quantile(&entry.stats.ready_delay, 0.99) },
    Column { heading: "STALLS", left: false, text: |entry| count(entry.stats.counters.stalls) },
];

/// Says from when on it is a stall, where that is not the same for all loops.
fn write_thresholds(out: &mut impl io::Write, summary: &Summary) -> io::Result<()> {
    let threshold = |of: Duration| duration(u64::try_from(of.as_nanos()).unwrap_or(u64::MAX));
    let mut own: Vec<(&str, Duration)> = summary
        .loops
        .iter()
        .filter(|entry| entry.stall_threshold != summary.stall_threshold)
        .map(|entry| (entry.identity.runtime.unwrap_or("-"), entry.stall_threshold))
        .collect();
    own.sort_unstable();
    own.dedup();
    if own.is_empty() {
        return Ok(());
    }
    let own: Vec<_> =
        own.iter().map(|(runtime, of)| format!("{runtime} from {} on", threshold(*of))).collect();
    writeln!(out, "\nstalls: {}, others from {} on", own.join(", "), threshold(summary.stall_threshold))
}

fn quantile(distribution: &Distribution, share: f64) -> String {
    if distribution.count() == 0 { "-".to_owned() } else { duration(distribution.quantile(share)) }
}

fn write_table(out: &mut impl io::Write, summary: &Summary) -> io::Result<()> {
    let rows: Vec<Vec<String>> = summary
        .loops
        .iter()
        .map(|entry| COLUMNS.iter().map(|column| (column.text)(entry)).collect())
        .collect();
    let headings: Vec<String> = COLUMNS.iter().map(|column| column.heading.to_owned()).collect();
    let left: Vec<bool> = COLUMNS.iter().map(|column| column.left).collect();
    write_aligned(out, "", &left, std::iter::once(&headings).chain(&rows))
}

/// Writes rows with their columns aligned, two blanks apart.
fn write_aligned<'a>(
    out: &mut impl io::Write,
    indent: &str,
    left: &[bool],
    rows: impl Iterator<Item = &'a Vec<String>> + Clone,
) -> io::Result<()> {
    let mut widths = vec![0; left.len()];
    for row in rows.clone() {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.width());
        }
    }
    for row in rows {
        let mut line = indent.to_owned();
        for (at, ((cell, width), left)) in row.iter().zip(&widths).zip(left).enumerate() {
            if at > 0 {
                line.push_str("  ");
            }
            let blanks = " ".repeat(width - cell.width());
            if *left {
                line.push_str(cell);
                line.push_str(&blanks);
            } else {
                line.push_str(&blanks);
                line.push_str(cell);
            }
        }
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn write_loop(out: &mut impl io::Write, entry: &LoopSummary) -> io::Result<()> {
    let LoopSummary { identity, stats, ongoing_stall_ns, .. } = entry;
    write!(out, "\n{} (process {}, thread {}", identity.comm, identity.pid, identity.tid)?;
    if let Some((pid, tid)) = identity.inner {
        write!(out, "; in its container {pid}, {tid}")?;
    }
    write!(out, ")")?;
    if let Some(runtime) = identity.runtime {
        write!(out, " · {runtime}")?;
    }
    writeln!(out, "{}", pollers(stats))?;
    let time = State::ALL
        .map(|state| {
            format!(
                "{} {}",
                state.name(),
                percent(stats.time_in(state) as f64 / stats.elapsed_ns().max(1) as f64)
            )
        })
        .join("  ");
    writeln!(out, "  {time}")?;
    let calls: Vec<String> = ioscope_common::WaitCall::ALL
        .into_iter()
        .filter(|call| stats.counters.returns[call.index()] > 0)
        .map(|call| format!("{} {}", call.name(), count(stats.counters.returns[call.index()])))
        .collect();
    writeln!(out, "  iterations {}  ready events {}", calls.join(", "), count(stats.counters.ready_events))?;
    write_counters(out, stats)?;
    let heading = ["", "count", "mean", "p50", "p90", "p99", "p99.9", "max"].map(str::to_owned).to_vec();
    let rows = [
        row("loop duration", &stats.loop_duration, duration),
        row("wakeup latency", &stats.wakeup_latency, duration),
        row("run-queue delay", &stats.run_queue_delay, duration),
        row("ready delay", &stats.ready_delay, duration),
        row("poll delay", &stats.poll_delay, duration),
        row("events per wakeup", &stats.ready_per_wakeup, count),
    ];
    let left = [true, false, false, false, false, false, false, false];
    write_aligned(out, "  ", &left, std::iter::once(&heading).chain(rows.iter().flatten()))?;
    for blocker in &stats.blockers {
        writeln!(
            out,
            "  blocked in {}: {} times, {} in all, {} at most",
            syscall_name(blocker.syscall),
            count(blocker.count),
            duration(blocker.total_ns),
            duration(blocker.max_ns)
        )?;
    }
    write_syscalls(out, stats)?;
    if stats.counters.stalls > 0 {
        writeln!(
            out,
            "  stalls over {}: {}, {} in all, {} at most",
            duration(u64::try_from(entry.stall_threshold.as_nanos()).unwrap_or(u64::MAX)),
            count(stats.counters.stalls),
            duration(stats.counters.stalled_ns),
            duration(stats.counters.longest_stall_ns)
        )?;
    }
    if *ongoing_stall_ns > 0 {
        writeln!(out, "  stalled now, for {}", duration(*ongoing_stall_ns))?;
    }
    if let Some(unpolled) = entry.unpolled.filter(|unpolled| unpolled.longest_ns >= UNPOLLED_SHOWN_NS) {
        writeln!(
            out,
            "  the poller that it shares was seen unpolled, with no thread waiting on it, for {} at most",
            duration(unpolled.longest_ns)
        )?;
    }
    stalls::write_worst(out, entry.stalls.iter())
}

/// So many system calls are printed, those that took longest; the rest in one line.
const SYSCALLS_SHOWN: usize = 12;

/// Writes the system calls of a loop's slices, if they were counted.
fn write_syscalls(out: &mut impl io::Write, stats: &Stats) -> io::Result<()> {
    let Some(syscalls) = &stats.syscalls else { return Ok(()) };
    write!(out, "  kernel crossings {}", count(syscalls.crossings(&stats.counters)))?;
    if let Some(per_event) = syscalls.crossings_per_ready_event(&stats.counters) {
        write!(out, "  {} per ready event", rate(per_event))?;
    }
    writeln!(
        out,
        "  of them in slices {}, for {} in all",
        count(syscalls.count()),
        duration(syscalls.total_ns())
    )?;
    let row = |name: String, calls: u64, total: u64, max: u64| {
        vec![name, count(calls), duration(total), duration(total / calls.max(1)), duration(max)]
    };
    let mut rows = vec![["", "count", "total", "mean", "max"].map(str::to_owned).to_vec()];
    let shown = syscalls.iter().take(SYSCALLS_SHOWN);
    rows.extend(shown.map(|call| row(called(call.syscall), call.count, call.total_ns, call.max_ns)));
    let rest: Vec<_> = syscalls.iter().skip(SYSCALLS_SHOWN).collect();
    if !rest.is_empty() {
        let sum = |of: fn(&SyscallUse) -> u64| rest.iter().map(|call| of(call)).sum::<u64>();
        let max = rest.iter().map(|call| call.max_ns).max().unwrap_or(0);
        let name = format!("{} more", rest.len());
        rows.push(row(name, sum(|call| call.count), sum(|call| call.total_ns), max));
    }
    if rows.len() > 1 {
        write_aligned(out, "    ", &[true, false, false, false, false], rows.iter())?;
    }
    Ok(())
}

fn pollers(stats: &Stats) -> String {
    let names: Vec<String> = stats
        .pollers
        .iter()
        .map(|poller| {
            if poller.fd < 0 {
                poller.kind.name().to_owned()
            } else {
                format!("{} {}", poller.kind.name(), poller.fd)
            }
        })
        .collect();
    if names.is_empty() { String::new() } else { format!(" · waits on {}", names.join(", ")) }
}

fn write_counters(out: &mut impl io::Write, stats: &Stats) -> io::Result<()> {
    let counters = &stats.counters;
    let present: Vec<String> = [
        ("empty wakeups", counters.empty_wakeups),
        ("timeouts", counters.timeouts),
        ("check-ins", counters.check_ins),
        ("batch full", counters.batch_full),
        ("submissions", counters.submissions),
        ("requests submitted", counters.requests),
        ("completions that overflowed", stats.ring_events.cq_overflows),
        ("requests punted to io-wq", stats.ring_events.io_wq_punts),
        ("futile wakeups", counters.futile_wakeups),
        ("interrupted", counters.interrupted),
        ("restarted", counters.restarts),
        ("errors", counters.errors),
        ("missed transitions", counters.impossible),
        ("unseen switches and wakeups", counters.unseen),
    ]
    .into_iter()
    .filter(|(_, value)| *value > 0)
    .map(|(name, value)| format!("{name} {}", count(value)))
    .collect();
    if present.is_empty() { Ok(()) } else { writeln!(out, "  {}", present.join("  ")) }
}

/// A distribution's row; none without values.
fn row(name: &str, distribution: &Distribution, format: fn(u64) -> String) -> Option<Vec<String>> {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a mean of whole numbers")]
    let mean = if name == "events per wakeup" {
        rate(distribution.mean())
    } else {
        format(distribution.mean() as u64)
    };
    (distribution.count() > 0).then(|| {
        vec![
            name.to_owned(),
            count(distribution.count()),
            mean,
            format(distribution.quantile(0.5)),
            format(distribution.quantile(0.9)),
            format(distribution.quantile(0.99)),
            format(distribution.quantile(0.999)),
            format(distribution.max()),
        ]
    })
}

fn write_drops(out: &mut impl io::Write, drops: &Drops) -> io::Result<()> {
    drop_lines(drops).try_for_each(|line| writeln!(out, "\n{line}"))
}

/// What was dropped, if anything, and why: a line each.
pub fn drop_lines(drops: &Drops) -> impl Iterator<Item = String> {
    [
        (drops.ring_full, "records dropped: the stream's buffer was full (--buffer makes it larger)"),
        (drops.loops_full, "wait calls not traced: no room for more loops (--max-loops makes more)"),
        (drops.targets_full, "processes not traced: no room for more targets"),
        (drops.out_of_directory, "wait calls not traced: kernel.pid_max was raised meanwhile (start again)"),
        (
            drops.skipped_runs,
            "runs of probes at most were left out by the kernel: counts may be too low by as many",
        ),
        (drops.captures_full, "stacks not captured: their buffer was full"),
        (drops.compat_calls, "wait calls of 32-bit programs not traced: ioscope traces 64-bit programs only"),
    ]
    .into_iter()
    .filter(|(number, _)| *number > 0)
    .map(|(number, what)| format!("{} {what}", count(number)))
}
