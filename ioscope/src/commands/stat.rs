//! `ioscope stat`: counts for a while, then a summary.

use std::{
    collections::HashMap,
    io::{self, ErrorKind, Write},
    process::ExitCode,
    time::Duration,
};

use anyhow::Result;

use super::run::{Run, Turn, block_on};
use crate::{
    cli::StatArgs,
    model::{LoopId, Model, Stats},
    output::{json, summary::Summary, text},
    source::{LiveSource, Source as _},
};

/// Runs the command.
pub(super) fn run(args: &StatArgs) -> Result<ExitCode> {
    block_on(async { show(Run::start(&args.targets, &args.tracing, false)?, args).await })
}

/// Prints what a run counts.
pub(super) async fn show(run: Run, args: &StatArgs) -> Result<ExitCode> {
    let mut printer = Printer::new(args);
    run.watch(args.duration, |turn, source| printer.take(turn, source)).await
}

/// What has to be printed when.
struct Printer<'a> {
    args: &'a StatArgs,
    model: Model,
    /// What an interval begins from: when, and the loops' counts then.
    interval_from: Option<u64>,
    before: HashMap<LoopId, Stats>,
}

impl<'a> Printer<'a> {
    fn new(args: &'a StatArgs) -> Self {
        Self {
            args,
            model: Model::new(args.tracing.stall_threshold),
            interval_from: None,
            before: HashMap::new(),
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
            return print(self.args, &summary);
        }
        if last { print(self.args, &Summary::of_run(&self.model, source.attach())) } else { Ok(true) }
    }
}

/// Prints a summary; `false` when nobody reads any more.
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
