//! What is measured: a table of scenarios. Each says under which tracers, and what the numbers may
//! be. A new row is one entry here.

use std::{
    fs,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{
    Bench,
    tracer::{
        BARE, BPFTRACE, CLOCK, FLOOR, PERF, STAT, STAT_BLIND, STAT_SYSCALLS, STAT_UNREADY, STRACE, Session,
        TRACE, Tracer,
    },
};

/// One thing to measure.
pub(super) struct Scenario {
    /// On the command line and in JSON.
    pub(super) name: &'static str,
    /// For a person: what the numbers are.
    pub(super) title: &'static str,
    pub(super) unit: &'static str,
    /// The rows, and what each may be.
    pub(super) rows: &'static [(&'static Tracer, Budget)],
    /// Measures one row once.
    pub(super) measure: fn(&mut Bench, &'static Tracer) -> Result<Measured>,
}

/// What a number may be.
#[derive(Clone, Copy)]
pub(super) enum Budget {
    /// Anything: it is there to compare with.
    None,
    /// What the tracer adds, at most so many times what the empty pair adds.
    TimesFloor(f64),
    /// At most this.
    AtMost(f64),
    /// At most so many times another row, the bare call's cost included.
    TimesRow(f64, &'static Tracer),
}

/// One measurement.
pub(super) struct Measured {
    /// In the scenario's unit.
    pub(super) value: f64,
    /// What one has to know to read it.
    pub(super) note: Option<String>,
}

/// The scenarios, in the order of the report.
pub(super) static SCENARIOS: [Scenario; 6] = [
    Scenario {
        name: "traced",
        title: "a traced process's epoll_wait, always ready",
        unit: "ns/call",
        rows: &[
            (&BARE, Budget::None),
            (&FLOOR, Budget::None),
            (&CLOCK, Budget::None),
            (&STAT, Budget::TimesFloor(1.25)),
            (&STAT_SYSCALLS, Budget::None),
            (&TRACE, Budget::TimesFloor(1.75)),
            (&BPFTRACE, Budget::None),
            (&STRACE, Budget::None),
            (&PERF, Budget::None),
        ],
        measure: |bench, tracer| {
            let mut session = Session::start(bench, tracer)?;
            let value = bench.traced.time(bench.time)?;
            session.end()?;
            Ok(Measured { value, note: None })
        },
    },
    Scenario {
        name: "stalls",
        title: "the same call, with and without looking for stalls, and ready delay",
        unit: "ns/call",
        rows: &[
            (&STAT_BLIND, Budget::None),
            (&STAT, Budget::TimesRow(1.05, &STAT_BLIND)),
            (&STAT_UNREADY, Budget::TimesRow(1.05, &STAT)),
        ],
        measure: |bench, tracer| {
            let mut session = Session::start(bench, tracer)?;
            let value = bench.traced.time(bench.time)?;
            session.end()?;
            Ok(Measured { value, note: None })
        },
    },
    Scenario {
        name: "slices",
        title: "a traced loop's getppid, between its wait calls",
        unit: "ns/call",
        rows: &[
            (&BARE, Budget::None),
            (&FLOOR, Budget::None),
            (&STAT, Budget::None),
            (&STAT_SYSCALLS, Budget::None),
            (&STRACE, Budget::None),
            (&PERF, Budget::None),
        ],
        measure: |bench, tracer| {
            let mut session = Session::start_on(bench, tracer, bench.serving.pid())?;
            let value = bench.serving.time(bench.time)?;
            session.end()?;
            Ok(Measured { value, note: None })
        },
    },
    Scenario {
        name: "elsewhere",
        title: "another process's getppid, while one is traced",
        unit: "ns/call",
        rows: &[
            (&BARE, Budget::None),
            (&FLOOR, Budget::None),
            (&CLOCK, Budget::None),
            (&STAT, Budget::TimesFloor(1.1)),
            (&STAT_SYSCALLS, Budget::None),
            (&TRACE, Budget::TimesFloor(1.1)),
            (&BPFTRACE, Budget::None),
            (&STRACE, Budget::None),
            (&PERF, Budget::None),
        ],
        measure: |bench, tracer| {
            let mut session = Session::start(bench, tracer)?;
            let value = bench.untraced.time(bench.time)?;
            session.end()?;
            Ok(Measured { value, note: None })
        },
    },
    Scenario {
        name: "collector",
        title: "the collector's CPU at 100,000 iterations/s",
        unit: "% of a CPU",
        rows: &[(&STAT, Budget::AtMost(2.0)), (&TRACE, Budget::None)],
        measure: |bench, tracer| {
            let mut session = Session::start(bench, tracer)?;
            let (start, before) = (Instant::now(), session.cpu_time()?);
            let (rate, _) = bench.traced.pace(100_000, Duration::from_secs(2))?;
            let spent = session.cpu_time()?.saturating_sub(before);
            let value = 100.0 * spent.as_secs_f64() / start.elapsed().as_secs_f64();
            session.end()?;
            Ok(Measured { value, note: Some(at_rate(rate)) })
        },
    },
    Scenario {
        name: "drops",
        title: "what is lost of 500,000 iterations/s",
        unit: "records",
        rows: &[(&STAT, Budget::AtMost(0.0))],
        measure: |bench, tracer| {
            let mut session = Session::start(bench, tracer)?;
            let (rate, _) = bench.traced.pace(500_000, Duration::from_secs(2))?;
            session.end()?;
            let summary = fs::read_to_string(&session.stdout)?;
            let summary: Value = serde_json::from_str(&summary).context("ioscope's summary")?;
            let dropped = summary.get("dropped").and_then(Value::as_object);
            let dropped = dropped.context("the summary says nothing of drops")?;
            let value = dropped.values().filter_map(Value::as_f64).sum();
            Ok(Measured { value, note: Some(at_rate(rate)) })
        },
    },
];

fn at_rate(rate: f64) -> String {
    format!("at {rate:.0}/s")
}
