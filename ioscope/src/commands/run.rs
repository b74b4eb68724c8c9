//! What every command that traces does: find the targets, start the source, take batches until it is
//! time to stop.

use std::{
    os::fd::OwnedFd,
    process::{ExitCode, ExitStatus},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use ioscope_common::Control;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal as SignalNumber, pidfd_open, pidfd_send_signal},
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, Interval, MissedTickBehavior, interval_at},
};

use super::{failure::Usage, logging};
use crate::{
    cli::{TargetArgs, TracingArgs},
    model::Batch,
    probe::{
        Plan, ProbeError,
        environment::{Environment, missing_privilege},
        launch::{Gated, Running, Streams},
        privileges,
    },
    source::{LiveSource, Source as _, selection::Selection},
};

/// Loops that there is room for, when one process or a few are traced.
const LOOPS_OF_PROCESSES: u32 = 1024;
/// And when there may be any number.
const LOOPS_OF_MACHINE: u32 = 8192;

/// MiB of the stream's buffer for a screen: ten thousand iterations a tick.
const SCREEN_BUFFER: u32 = 1;

/// A run: a source and what it traces.
pub(super) struct Run {
    pub(super) source: LiveSource,
    /// The processes that were named; the run ends with the last of them.
    named: Vec<OwnedFd>,
    command: Option<Command>,
    signals: Signals,
    ticks: Interval,
    /// When to stop, if at a certain time.
    end: Option<Instant>,
    /// Ctrl-C was pressed while the command, which got it too, goes on.
    interrupted: bool,
    /// The last batch was taken.
    finished: bool,
    /// Rights that only starting takes are still there.
    privileged: bool,
}

/// What is asked for beside the counts.
#[derive(Clone, Copy)]
struct Wanted {
    /// A record of each iteration.
    stream: bool,
    /// The system calls of slices.
    syscalls: bool,
}

/// A program that was started for the run.
struct Command {
    running: Running,
    /// By which it is told to end.
    process: Option<OwnedFd>,
}

/// How a run ended.
pub(super) struct Ended {
    /// How its command ended, if it had one that did.
    command: Option<ExitStatus>,
}

impl Ended {
    /// The command's exit code, if it has ended, or 0.
    pub(super) fn exit_code(&self) -> ExitCode {
        self.command.map_or(ExitCode::SUCCESS, exit_code)
    }

    /// Whether the command ended, and not as it should.
    pub(super) fn command_failed(&self) -> bool {
        self.command.is_some_and(|status| !status.success())
    }
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

/// What happens next in a run.
pub(super) enum Event {
    /// A batch has come.
    Batch(Box<Batch>),
    /// The targets or the command have ended, or the source has.
    Ended,
    /// It is time to stop: a signal says so, or the clock.
    Stop,
}

/// Why the run loop gives the command a turn.
#[derive(Clone, Copy)]
pub(super) enum Turn<'a> {
    /// A batch has come.
    Batch(&'a Batch),
    /// The last batch has come: the probes are detached and every count is exact.
    Last(&'a Batch),
}

impl Run {
    /// Finds the targets and starts tracing them.
    pub(super) fn start(targets: &TargetArgs, tracing: &TracingArgs, stream: bool) -> Result<Self> {
        Self::start_with(targets, tracing, Wanted { stream, syscalls: false }, Streams::Inherited)
    }

    /// The same without a stream, and the system calls of slices are counted if they are asked for.
    pub(super) fn start_counting(
        targets: &TargetArgs,
        tracing: &TracingArgs,
        syscalls: bool,
    ) -> Result<Self> {
        Self::start_with(targets, tracing, Wanted { stream: false, syscalls }, Streams::Inherited)
    }

    /// The same, where the terminal is a screen of ioscope's: a command does not write on it or read from it.
    pub(super) fn start_for_screen(targets: &TargetArgs, tracing: &TracingArgs) -> Result<Self> {
        Self::start_with(targets, tracing, Wanted { stream: false, syscalls: false }, Streams::OffTerminal)
    }

    fn start_with(
        targets: &TargetArgs,
        tracing: &TracingArgs,
        wanted: Wanted,
        streams: Streams,
    ) -> Result<Self> {
        let Wanted { stream, syscalls } = wanted;
        logging::start(tracing.verbose);
        if targets.is_empty() {
            bail!(Usage(
                "nothing to trace: name processes with --pid, --comm, --cgroup or --all, or a program after --"
            ));
        }
        let selection = Selection {
            pids: targets.pids.clone(),
            comm: targets.comm.clone(),
            cgroups: targets.cgroups.clone(),
            all: targets.all,
            follow: targets.follow || !targets.program.is_empty(),
        };
        let mut found = selection.resolve()?;
        let named = if targets.comm.is_empty() && targets.cgroups.is_empty() && !targets.all {
            targets.pids.iter().filter_map(|pid| open(*pid)).collect()
        } else {
            Vec::new()
        };
        let gated =
            if targets.program.is_empty() { None } else { Some(Gated::start(&targets.program, streams)?) };
        found.processes.extend(gated.as_ref().map(Gated::pid));
        let process = gated.as_ref().and_then(|gated| open(gated.pid()));
        let many = targets.all || !targets.cgroups.is_empty() || !targets.comm.is_empty();
        let plan = Plan {
            targets: found,
            capacity: tracing.max_loops.unwrap_or(if many { LOOPS_OF_MACHINE } else { LOOPS_OF_PROCESSES }),
            stream_bytes: match (stream, streams) {
                (true, _) => tracing.buffer << 20,
                // Some loops may stream, those that the screen shows in full.
                (false, Streams::OffTerminal) => tracing.buffer.min(SCREEN_BUFFER) << 20,
                (false, Streams::Inherited) => 4096,
            },
            stream: if stream { Control::STREAM_ALL } else { Control::STREAM_OFF },
            stall_threshold: tracing.stall_threshold,
            warn_threshold: tracing.warn_threshold.min(tracing.stall_threshold),
            presets: tracing.presets,
            syscalls,
            without: tracing.without.clone(),
            hooks: tracing.hooks.into(),
            diagnostics: tracing.verbose,
        };
        let source = LiveSource::start(&plan).map_err(with_advice)?;
        for status in source.jobs() {
            match status.missing() {
                Some(reason) => log::warn!("without {}: {reason}", status.job.gives),
                None => {
                    log::debug!("{}: {}", status.job.name, status.way.map_or("", |way| way.name));
                }
            }
            for (way, reason) in &status.refused {
                log::debug!("{} not by {}: {reason}", status.job.name, way.name);
            }
        }
        let signals = Signals {
            interrupt: signal(SignalKind::interrupt()).context("signals cannot be caught")?,
            terminate: signal(SignalKind::terminate()).context("signals cannot be caught")?,
        };
        let running = gated.map(Gated::release).transpose()?;
        let command = running.map(|running| Command { running, process });
        announce_ready();
        let ticks = ticks(source.tick());
        Ok(Self {
            source,
            named,
            command,
            signals,
            ticks,
            end: None,
            interrupted: false,
            finished: false,
            privileged: true,
        })
    }

    /// Stops the run so long from now.
    pub(super) fn stop_after(&mut self, duration: Duration) {
        self.end = Some(Instant::now() + duration);
    }

    /// Waits for what comes next. It may be given up and asked for again: nothing is lost.
    ///
    /// The first time, rights that only starting takes are given up.
    pub(super) async fn next(&mut self) -> Result<Event> {
        self.give_up_rights();
        loop {
            // The source's pace changes with what it streams.
            if self.ticks.period() != self.source.tick() {
                self.ticks = ticks(self.source.tick());
            }
            tokio::select! {
                _ = self.ticks.tick(), if !self.finished => break,
                () = tokio::time::sleep_until(self.source.next_look().into()), if !self.finished => {
                    if self.source.look_for_stalls() {
                        break;
                    }
                }
                () = sleep_until(self.end) => return Ok(Event::Stop),
                _ = self.signals.terminate.recv() => return Ok(Event::Stop),
                _ = self.signals.interrupt.recv() => {
                    // The command was interrupted too, and is waited for; asked twice, it is not.
                    if self.command.is_none() || self.interrupted {
                        return Ok(Event::Stop);
                    }
                    self.interrupted = true;
                }
            }
        }
        if self.targets_have_ended() {
            return Ok(Event::Ended);
        }
        Ok(self.source.next_batch()?.map_or(Event::Ended, |batch| Event::Batch(Box::new(batch))))
    }

    /// Gives up the rights that only starting takes, for this thread and those that it starts from now
    /// on: files and ports have to be open by now. It works as well with them, so that an error is no
    /// reason not to go on.
    pub(super) fn give_up_rights(&mut self) {
        if std::mem::take(&mut self.privileged)
            && let Err(error) = privileges::keep_what_reading_takes()
        {
            log::warn!("{error}");
        }
    }

    /// Detaches the probes and takes the last batch, in which every count is exact. Nothing but
    /// [`Event::Stop`] comes after it.
    pub(super) fn finish(&mut self) -> Result<Option<Batch>> {
        self.finished = true;
        self.source.detach()?;
        Ok(self.source.next_batch()?)
    }

    /// The command's exit code, if it has ended, or 0.
    pub(super) fn exit_code(mut self) -> Result<ExitCode> {
        Ok(self.command_status()?.map_or(ExitCode::SUCCESS, exit_code))
    }

    /// How the command ended, if it has.
    fn command_status(&mut self) -> Result<Option<ExitStatus>> {
        let ended = self.command.take_if(|command| command.running.has_ended());
        Ok(ended.map(|command| command.running.wait()).transpose()?)
    }

    /// Tells the command to end, if there is one that has not.
    pub(super) fn end_command(&self) {
        if let Some(Command { running, process: Some(process) }) = &self.command
            && !running.has_ended()
        {
            // It may have ended in this moment.
            let _ = pidfd_send_signal(process, SignalNumber::TERM);
        }
    }

    /// Takes batches until it is time to stop: after `duration`, at Ctrl-C, when the targets or the
    /// command have ended, or when `visit` says so by `false`. A command that has not ended by then is told to.
    pub(super) async fn watch(
        mut self,
        duration: Option<Duration>,
        mut visit: impl FnMut(Turn<'_>, &LiveSource) -> Result<bool>,
    ) -> Result<Ended> {
        if let Some(duration) = duration {
            self.stop_after(duration);
        }
        while let Event::Batch(batch) = self.next().await? {
            if !visit(Turn::Batch(&batch), &self.source)? {
                break;
            }
        }
        let last = self.finish()?;
        // A command that could not be run leaves nothing to tell of.
        let status = self.command_status()?;
        if let Some(batch) = last {
            visit(Turn::Last(&batch), &self.source)?;
        }
        // What was started to be traced does not go on without it, as with perf.
        self.end_command();
        Ok(Ended { command: status })
    }

    fn targets_have_ended(&self) -> bool {
        if let Some(command) = &self.command {
            return command.running.has_ended();
        }
        !self.named.is_empty() && self.named.iter().all(has_ended)
    }
}

/// What to say when tracing cannot start: where a privilege or the like is missing, that and how to
/// get it.
pub(super) fn with_advice(error: ProbeError) -> anyhow::Error {
    let advice = match error {
        ProbeError::NotPermitted | ProbeError::Btf(_) | ProbeError::ProgramBtf(_) => {
            missing_privilege(&Environment::read())
        }
        _ => None,
    };
    advice.map_or_else(|| error.into(), |advice| anyhow::anyhow!("{advice}"))
}

/// Tells a waiting test or benchmark that the probes are attached.
fn announce_ready() {
    if std::env::var_os("IOSCOPE_READY").is_some() {
        eprintln!("ioscope: ready");
    }
}

/// A tick now, and one each period.
fn ticks(period: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now(), period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

async fn sleep_until(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// A descriptor that tells when a process ends; `None` when it has.
fn open(pid: u32) -> Option<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
    pidfd_open(pid, PidfdFlags::empty()).ok()
}

fn has_ended(process: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(process, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ready| ready > 0)
}

/// As a shell reports it: a signal's number plus 128.
fn exit_code(status: ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt as _;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(1);
    ExitCode::from(u8::try_from(code & 0xff).unwrap_or(1))
}

/// Runs a command's future on a runtime of one thread.
pub(super) fn block_on<T>(future: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("the asynchronous runtime cannot be started")?
        .block_on(future)
}
