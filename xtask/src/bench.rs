//! `cargo xtask bench`: what ioscope costs the program it watches, beside what others cost, all in
//! one run.
//!
//! A table of scenarios ([`scenario`]), each measured under a table of tracers ([`tracer`]). Every
//! tracer of a scenario is measured once a round, in an order that turns with the round, so that a
//! machine that slows down slows them all. What counts is a ratio within the run: to the empty pair
//! of probes, the least that any tracer of this kind can cost on the machine at hand. Nothing here
//! fails a build: a number over its budget is marked, for a person to judge.

mod frames;
mod report;
mod scenario;
mod sys;
mod tracer;
mod worker;

use std::{path::PathBuf, process::Command, time::Duration};

use anyhow::{Context as _, Result, bail};

pub(crate) use self::worker::{WorkerArgs, nanoseconds_per_getppid, run_worker};
use self::{
    report::{Report, Row},
    scenario::{SCENARIOS, Scenario},
    worker::{Call, Worker},
};
use crate::{
    packages::{self, Package},
    workspace::{Metadata, cargo, root, run},
};

/// Measure what tracing costs, ioscope's and others'
///
/// Takes root. Rows of tools that are not there are skipped by name, rows that fail say why.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often each row is measured
    #[arg(long, value_name = "NUMBER", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Only these scenarios
    #[arg(long, value_name = "SCENARIO", value_delimiter = ',')]
    only: Vec<String>,
    /// Only these tracers, and those they are compared with
    #[arg(long, value_name = "TRACER", value_delimiter = ',')]
    tracer: Vec<String>,
    /// Write the numbers to a file, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Measure this program instead of building the workspace's
    #[arg(long, value_name = "PROGRAM")]
    ioscope: Option<PathBuf>,
    /// The CPU that the traced process is held to; by default the last one
    #[arg(long, value_name = "NUMBER")]
    cpu: Option<usize>,
    /// How long one measurement of a call's cost takes, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 300)]
    milliseconds: u64,
    /// Install the tools to compare with that are missing (as root, on Debian)
    #[arg(long)]
    install: bool,
}

/// What the scenarios measure with.
struct Bench {
    /// The ioscope to measure.
    ioscope: PathBuf,
    /// For the tracers' output.
    directory: PathBuf,
    /// How long to measure a call's cost.
    time: Duration,
    /// The process that is traced: it calls `epoll_wait`. Idle between measurements.
    traced: Worker,
    /// A process that nobody asked to trace: it calls `getppid`.
    untraced: Worker,
    /// A process to trace that calls `getppid` in its slices.
    serving: Worker,
}

pub(crate) fn run_command(args: &Args) -> Result<()> {
    if !packages::is_root() {
        bail!("loading probes takes root: `sudo -E cargo xtask bench`");
    }
    let scenarios = chosen(&args.only)?;
    if args.install {
        let tools: Vec<&Package> = tracer::ALL.iter().filter_map(|tracer| tracer.package).collect();
        packages::install(&tools)?;
    }
    let mut bench = Bench::new(args)?;
    let mut report = Report::new(args.rounds)?;
    for scenario in &scenarios {
        report.add(scenario, args.tracer.as_slice());
    }
    for round in 0..args.rounds {
        eprintln!("round {} of {}", round + 1, args.rounds);
        for scenario in &scenarios {
            measure_round(&mut bench, scenario, report.rows_of(scenario), round);
        }
    }
    report.conclude();
    print!("{report}");
    if args.only.is_empty() || args.only.iter().any(|name| name == frames::NAME) {
        frames::run(&bench)?;
    }
    if let Some(file) = &args.json {
        let text = serde_json::to_string_pretty(&report)? + "\n";
        std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

fn chosen(only: &[String]) -> Result<Vec<&'static Scenario>> {
    let known = || SCENARIOS.iter().map(|scenario| scenario.name).chain([frames::NAME]);
    let unknown = only.iter().find(|name| known().all(|known| known != name.as_str()));
    if let Some(name) = unknown {
        let names = known().collect::<Vec<_>>().join(", ");
        bail!("no scenario `{name}`; there are {names}");
    }
    Ok(SCENARIOS
        .iter()
        .filter(|scenario| only.is_empty() || only.iter().any(|name| name == scenario.name))
        .collect())
}

/// Measures each row of the scenario once.
fn measure_round(bench: &mut Bench, scenario: &Scenario, rows: &mut [Row], round: u32) {
    let count = rows.len();
    for place in 0..count {
        let row = &mut rows[(place + round as usize) % count];
        if row.is_over() {
            continue;
        }
        if let Some(missing) = row.tracer().package.filter(|package| !package.is_there()) {
            row.skip(format!("{} is not installed", missing.name));
            continue;
        }
        match (scenario.measure)(bench, row.tracer()) {
            Ok(measured) => row.push(measured),
            Err(error) => row.fail(format!("{error:#}")),
        }
    }
}

impl Bench {
    fn new(args: &Args) -> Result<Self> {
        let metadata = Metadata::read()?;
        let ioscope = if let Some(program) = &args.ioscope {
            program.canonicalize().with_context(|| format!("no {}", program.display()))?
        } else {
            run(Command::new(cargo())
                .args(["build", "--release", "--locked", "--package", "ioscope"])
                .current_dir(root()))?;
            metadata.target_directory.join("release/ioscope")
        };
        let directory = metadata.target_directory.join("bench");
        std::fs::create_dir_all(&directory)?;
        let cpu = match args.cpu {
            Some(cpu) => cpu,
            None => std::thread::available_parallelism()?.get() - 1,
        };
        Ok(Self {
            ioscope,
            directory,
            time: Duration::from_millis(args.milliseconds),
            traced: Worker::start(Call::EpollWait, cpu)?,
            untraced: Worker::start(Call::Getppid, cpu)?,
            serving: Worker::start(Call::GetppidOfLoop, cpu)?,
        })
    }
}
