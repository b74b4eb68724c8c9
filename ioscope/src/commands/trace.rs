//! `ioscope trace`: a line per iteration.

use std::{
    collections::HashMap,
    io::{self, BufWriter, ErrorKind, StdoutLock, Write},
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use ioscope_common::{Block, Iteration, State};

use super::{
    run::{self, Run, block_on},
    wakers::Wakers,
};
use crate::{
    cli::TraceArgs,
    model::{Batch, Identity, LoopId, Model, Present, Sample, stalls::Stall},
    output::{
        text::drop_lines,
        trace::{Call, Event, Moment, Turn, write_json, write_json_drops, write_text},
    },
    probe::clock::WallClock,
};

/// Runs the command.
pub(super) fn run(args: &TraceArgs) -> Result<ExitCode> {
    block_on(async { show(Run::start(&args.targets, &args.tracing, true)?, args).await })
}

/// Prints a run's iterations; it has to stream.
pub(super) async fn show(run: Run, args: &TraceArgs) -> Result<ExitCode> {
    let mut printer = Printer::new(args);
    let ended = run.watch(args.duration, |turn, _| match turn {
        run::Turn::Batch(batch) => printer.batch(batch),
        run::Turn::Last(batch) => printer.last(batch),
    });
    Ok(ended.await?.exit_code())
}

/// Prints what batches bring.
struct Printer {
    out: BufWriter<StdoutLock<'static>>,
    json: bool,
    blocked: bool,
    /// Nobody reads any more.
    closed: bool,
    surroundings: Surroundings,
    loops: HashMap<LoopId, Arc<Identity>>,
    stalls: Stalls,
    /// What the batch holds, with its time.
    lines: Vec<(u64, LoopId, Line)>,
    /// Of loops that were born after the batch's samples were taken: the next one tells who they are.
    early: Vec<(u64, LoopId, Line)>,
}

/// What a line tells beside its record.
struct Surroundings {
    clock: WallClock,
    wakers: Wakers,
}

/// What becomes a line.
#[derive(Clone)]
enum Line {
    Stall(Box<Stall>),
    Iteration(Iteration),
    Unfinished(Iteration),
    Block(Block),
    Waiting(Call, u64),
}

impl Printer {
    fn new(args: &TraceArgs) -> Self {
        Self {
            out: BufWriter::with_capacity(1 << 16, io::stdout().lock()),
            json: args.json,
            blocked: args.blocked,
            closed: false,
            surroundings: Surroundings { clock: WallClock::default(), wakers: Wakers::default() },
            loops: HashMap::new(),
            stalls: Stalls::new(args.tracing.stall_threshold),
            lines: Vec::new(),
            early: Vec::new(),
        }
    }

    /// Prints a batch; `false` when nobody reads any more.
    fn batch(&mut self, batch: &Batch) -> Result<bool> {
        self.take(batch, false);
        let printed = self.print();
        self.check(printed)?;
        for id in &batch.ended {
            self.loops.remove(id);
        }
        Ok(!self.closed)
    }

    /// Prints the last batch, and what has not ended by now.
    fn last(&mut self, batch: &Batch) -> Result<bool> {
        self.take(batch, true);
        let unfinished = batch.samples.iter().filter_map(|sample| unfinished(sample, batch.at));
        self.lines.extend(unfinished);
        let mut printed = self.print();
        if self.json && !self.closed {
            printed = printed.and_then(|()| write_json_drops(&mut self.out, &batch.drops));
        }
        let printed = printed.and_then(|()| self.out.flush());
        self.check(printed)?;
        for line in drop_lines(&batch.drops) {
            eprintln!("ioscope: {line}");
        }
        Ok(false)
    }

    /// Takes in a batch, in the order of time.
    fn take(&mut self, batch: &Batch, last: bool) {
        self.surroundings.clock = WallClock::now();
        for sample in &batch.samples {
            let known = self.loops.get(&sample.id);
            if !known.is_some_and(|identity| Arc::ptr_eq(identity, &sample.identity)) {
                self.loops.insert(sample.id, Arc::clone(&sample.identity));
            }
        }
        self.lines.append(&mut self.early);
        self.lines.extend(self.stalls.take(batch, last));
        let iterations =
            batch.iterations.iter().map(|(id, record)| (record.returned_at, *id, Line::Iteration(*record)));
        self.lines.extend(iterations);
        if self.blocked {
            self.lines.extend(batch.blocks.iter().map(|(id, block)| (block.since, *id, Line::Block(*block))));
        }
        let now = Instant::now();
        for (_, record) in &batch.iterations {
            self.surroundings.wakers.look_up(record.waker, now);
        }
    }

    /// Writes the lines of the loops that are known.
    fn print(&mut self) -> io::Result<()> {
        self.lines.sort_by_key(|(at, ..)| *at);
        let mut lines = std::mem::take(&mut self.lines);
        for (at, id, line) in lines.drain(..) {
            let Some(identity) = self.loops.get(&id) else {
                self.early.push((at, id, line));
                continue;
            };
            if self.closed {
                continue;
            }
            let write = if self.json { write_json } else { write_text };
            write(&mut self.out, self.surroundings.moment(at), identity, self.surroundings.event(&line))?;
        }
        self.lines = lines;
        if self.closed { Ok(()) } else { self.out.flush() }
    }

    /// A pipe that nobody reads is the end, and no error.
    fn check(&mut self, printed: io::Result<()>) -> Result<()> {
        match printed {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(())
            }
            printed => printed.context("standard output cannot be written"),
        }
    }
}

impl Surroundings {
    const fn moment(&self, at: u64) -> Moment {
        Moment {
            monotonic_ns: at,
            unix_ns: self.clock.unix_ns(at),
            time_of_day_ns: self.clock.time_of_day_ns(at),
        }
    }

    fn event<'a>(&'a self, line: &'a Line) -> Event<'a> {
        match line {
            Line::Iteration(record) => Event::Iteration(self.turn(record, false)),
            Line::Unfinished(record) => Event::Iteration(self.turn(record, true)),
            Line::Block(block) => Event::Block(block),
            Line::Waiting(call, ns) => Event::Waiting(*call, *ns),
            Line::Stall(stall) => Event::Stall(stall),
        }
    }

    fn turn<'a>(&'a self, record: &'a Iteration, unfinished: bool) -> Turn<'a> {
        let waker = self.wakers.name(record.waker);
        let stall = record.flags & Iteration::STALLED != 0;
        Turn { record, waker, unfinished, stall }
    }
}

/// What a loop is in the middle of: its slice, or its wait call.
fn unfinished(sample: &Sample, at: u64) -> Option<(u64, LoopId, Line)> {
    let machine = &sample.machine;
    if machine.ended != 0 || machine.restarting != 0 || machine.call == 0 {
        return None;
    }
    let present = Present::of(machine, sample.wake, sample.shared, at);
    if machine.in_wait != 0 {
        let ns = at.saturating_sub(machine.entered_at);
        return Some((at, sample.id, Line::Waiting(Call::present(machine), ns)));
    }
    let loop_ns = present.slice_ns.filter(|_| machine.last.loop_ns == Iteration::UNFINISHED)?;
    let now = |state| if present.state == state { present.for_ns } else { 0 };
    let record = Iteration {
        loop_ns,
        blocked_ns: machine.slice_blocked_ns + now(State::Blocked),
        parked_ns: machine.slice_parked_ns + now(State::Parked),
        ..machine.last
    };
    Some((machine.returned_at, sample.id, Line::Unfinished(record)))
}

/// Notices when stalls are found and when they end.
struct Stalls {
    model: Model,
    /// Those that were told of, by when they began, and whether they had ended.
    told: HashMap<LoopId, (u64, bool)>,
}

impl Stalls {
    fn new(threshold: Duration) -> Self {
        Self { model: Model::new(threshold), told: HashMap::new() }
    }

    /// What is new since the batch before. A stall's end is told a little later, when its last captures have
    /// come in and have their names; at the latest in the last batch.
    fn take(&mut self, batch: &Batch, last: bool) -> Vec<(u64, LoopId, Line)> {
        self.model.apply(&self.of_interest(batch));
        self.model.forget_ended(batch.at.saturating_sub(FORGET_AFTER_NS));
        if !batch.ended.is_empty() {
            self.told.retain(|id, _| self.model.get(*id).is_some());
        }
        let mut lines = Vec::new();
        for model in self.model.loops() {
            for stall in model.stalls.iter() {
                let patience = if stall.stacks.is_empty() { NAMED_AFTER_NS } else { SETTLES_AFTER_NS };
                let settled = stall.ended_at.is_none_or(|at| last || batch.at >= at + patience);
                let state = (stall.began_at, !stall.is_ongoing());
                if settled && self.told.get(&model.id).is_none_or(|told| *told < state) {
                    let at = stall.ended_at.or(stall.found_at).unwrap_or(batch.at);
                    lines.push((at, model.id, Line::Stall(Box::new(stall.clone()))));
                    self.told.insert(model.id, state);
                }
            }
        }
        lines
    }

    /// What of a batch has to do with stalls: of the loops, those that are in one, or were in one since the
    /// batch before.
    fn of_interest(&self, batch: &Batch) -> Batch {
        let matters = |sample: &&Sample| {
            let known = self.model.get(sample.id);
            let own = batch.thresholds.iter().rev().find(|(id, _)| *id == sample.id).map(|(_, own)| *own);
            let threshold = own
                .or_else(|| known.and_then(|known| known.own_threshold))
                .unwrap_or(self.model.stall_threshold)
                .as_nanos();
            let slice =
                Present::of(&sample.machine, sample.wake, sample.shared, batch.at.max(sample.machine.since))
                    .serving_ns;
            known.map_or(0, |known| known.stats.counters.stalls) != sample.machine.counters.stalls
                || slice.is_some_and(|ns| u128::from(ns) >= threshold)
                || known.is_some_and(|known| known.stalls.ongoing.is_some())
                || batch.captures.iter().any(|(id, _)| *id == sample.id)
        };
        Batch {
            at: batch.at,
            samples: batch.samples.iter().filter(matters).cloned().collect(),
            ended: batch.ended.clone(),
            found: batch.found.clone(),
            captures: batch.captures.clone(),
            resolved: batch.resolved.clone(),
            thresholds: batch.thresholds.clone(),
            ..Batch::default()
        }
    }
}

/// The last captures have come in by then.
const SETTLES_AFTER_NS: u64 = 50_000_000;
/// And have their names by then, the first of a big program, too.
const NAMED_AFTER_NS: u64 = 1_000_000_000;

/// Loops that have ended are of no use any more.
const FORGET_AFTER_NS: u64 = 1_000_000_000;
