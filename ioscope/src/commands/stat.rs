//! `ioscope stat`: counts for a while, then a summary.

use std::{
    collections::HashMap,
    io::{self, ErrorKind, Write},
    process::ExitCode,
    time::Duration,
};

use anyhow::Result;

use super::{
    run::{Run, Turn, block_on},
    stack_files::StackFiles,
};
use crate::{
    cli::{FailOn, StatArgs},
    model::{LoopId, Model, Stats, findings::Severity},
    output::{json, summary::Summary, text},
    source::{LiveSource, Source as _},
};

/// Runs the command.
pub(super) fn run(args: &StatArgs) -> Result<ExitCode> {
    let files = StackFiles::open(args)?;
    block_on(async {
        show_with(Run::start_counting(&args.targets, &args.tracing, args.syscalls)?, args, files).await
    })
}

/// Prints what a run counts.
pub(super) async fn show(run: Run, args: &StatArgs) -> Result<ExitCode> {
    show_with(run, args, StackFiles::open(args)?).await
}

async fn show_with(run: Run, args: &StatArgs, files: StackFiles) -> Result<ExitCode> {
    let mut printer = Printer::new(args);
    printer.is_silent = files.take_stdout();
    let ended = run.watch(args.duration, |turn, source| printer.take(turn, source)).await?;
    files.write(&printer.model)?;
    // What the command says of itself comes first: its own failure may be why there are findings.
    if printer.is_bad && !ended.command_failed() {
        return Ok(ExitCode::from(FOUND));
    }
    Ok(ended.exit_code())
}

/// The exit code when there is a finding that `--fail-on` asks for.
const FOUND: u8 = 3;

/// What has to be printed when.
struct Printer<'a> {
    args: &'a StatArgs,
    model: Model,
    /// What an interval begins from: when, and the loops' counts then.
    interval_from: Option<u64>,
    before: HashMap<LoopId, Stats>,
    /// There was a finding that `--fail-on` asks for, in a summary that was printed.
    is_bad: bool,
    /// Nothing is to be printed: standard output is somebody else's.
    is_silent: bool,
}

impl<'a> Printer<'a> {
    fn new(args: &'a StatArgs) -> Self {
        Self {
            args,
            model: Model::new(args.tracing.stall_threshold),
            interval_from: None,
            before: HashMap::new(),
            is_bad: false,
            is_silent: false,
        }
    }

    fn take(&mut self, turn: Turn<'_>, source: &LiveSource) -> Result<bool> {
        let (batch, last) = match turn {
            Turn::Batch(batch) => (batch, false),
            Turn::Last(batch) => (batch, true),
        };
        self.model.apply(batch);
        let from = *self.interval_from.get_or_insert(batch.at);
        if let Some(interval) = self.args.interval
            && Duration::from_nanos(batch.at - from) >= interval
            && !last
        {
            let summary = Summary::of_interval(&self.model, source.attach(), batch.at - from, &self.before);
            self.interval_from = Some(batch.at);
            self.before = self.model.loops().map(|model| (model.id, model.stats.clone())).collect();
            return self.print(&summary);
        }
        if last { self.print(&Summary::of_run(&self.model, source.attach())) } else { Ok(true) }
    }

    /// Prints a summary; `false` when nobody reads any more.
    fn print(&mut self, summary: &Summary) -> Result<bool> {
        let bad = self.args.fail_on.map(|fail_on| match fail_on {
            FailOn::Warn => Severity::Warn,
            FailOn::Critical => Severity::Critical,
        });
        self.is_bad |= bad.is_some_and(|bad| summary.worst() >= Some(bad));
        if self.is_silent { Ok(true) } else { print(self.args, summary) }
    }
}

fn print(args: &StatArgs, summary: &Summary) -> Result<bool> {
    let mut out = io::stdout().lock();
    let printed = if args.json {
        json::write(&mut out, summary, args.interval.is_none())
    } else {
        text::write(&mut out, summary, args.details)
    };
    match printed.and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(anyhow::Error::new(error).context("the summary cannot be written")),
    }
}
