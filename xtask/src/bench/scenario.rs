//! What is measured: a table of scenarios. Each says under which tracers, and what the numbers may
//! be. A new row is one entry here.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{
    Bench,
    tracer::{BARE, BPFTRACE, FLOOR, PERF, RECORD, STAT, STRACE, Session, TRACE, Tracer},
};
use crate::workspace::output;

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
}

/// One measurement.
pub(super) struct Measured {
    /// In the scenario's unit.
    pub(super) value: f64,
    /// What one has to know to read it.
    pub(super) note: Option<String>,
}

/// The scenarios, in the order of the report.
pub(super) static SCENARIOS: [Scenario; 5] = [
    Scenario {
        name: "traced",
        title: "a traced process's epoll_wait, always ready",
        unit: "ns/call",
        rows: &[
            (&BARE, Budget::None),
            (&FLOOR, Budget::None),
            (&STAT, Budget::TimesFloor(1.25)),
            (&TRACE, Budget::TimesFloor(1.75)),
            (&RECORD, Budget::TimesFloor(1.75)),
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
        name: "elsewhere",
        title: "another process's getppid, while one is traced",
        unit: "ns/call",
        rows: &[
            (&BARE, Budget::None),
            (&FLOOR, Budget::None),
            (&STAT, Budget::TimesFloor(1.1)),
            (&TRACE, Budget::TimesFloor(1.1)),
            (&RECORD, Budget::TimesFloor(1.1)),
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
        rows: &[(&STAT, Budget::AtMost(2.0)), (&TRACE, Budget::None), (&RECORD, Budget::AtMost(10.0))],
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
        rows: &[(&STAT, Budget::AtMost(0.0)), (&RECORD, Budget::AtMost(0.0))],
        measure: |bench, tracer| {
            let paced = Paced::run(bench, tracer, 500_000)?;
            let dropped = paced.summary.get("dropped").and_then(Value::as_object);
            let dropped = dropped.context("the summary says nothing of drops")?;
            let value = dropped.values().filter_map(Value::as_f64).sum();
            Ok(Measured { value, note: Some(at_rate(paced.rate)) })
        },
    },
    Scenario {
        name: "disk",
        title: "a recording's size, at 100,000 iterations/s",
        unit: "B/iteration",
        rows: &[(&RECORD, Budget::AtMost(12.0))],
        measure: |bench, tracer| {
            let paced = Paced::run(bench, tracer, 100_000)?;
            let loops = paced.summary.get("loops").and_then(Value::as_array);
            let iterations: f64 = loops
                .context("the summary has no loops")?
                .iter()
                .filter_map(|one| one.get("iterations").and_then(Value::as_f64))
                .sum();
            let size = fs::metadata(&paced.recording)?.len();
            Ok(Measured { value: size as f64 / iterations, note: Some(at_rate(paced.rate)) })
        },
    },
];

/// What came of tracing iterations at a steady rate.
struct Paced {
    /// Iterations per second, as reached.
    rate: f64,
    /// ioscope's: what `stat` writes at its end, or what `report` makes of the recording.
    summary: Value,
    /// Where `record` wrote.
    recording: PathBuf,
}

impl Paced {
    fn run(bench: &mut Bench, tracer: &'static Tracer, rate: u32) -> Result<Self> {
        let mut session = Session::start(bench, tracer)?;
        let (rate, _) = bench.traced.pace(rate, Duration::from_secs(2))?;
        session.end()?;
        let text = if *tracer == RECORD {
            output(Command::new(&bench.ioscope).args(["report", "--json"]).arg(&session.file))?
        } else {
            fs::read_to_string(&session.stdout)?
        };
        let summary = serde_json::from_str(&text).context("ioscope's summary")?;
        Ok(Self { rate, summary, recording: session.file.clone() })
    }
}

fn at_rate(rate: f64) -> String {
    format!("at {rate:.0}/s")
}
