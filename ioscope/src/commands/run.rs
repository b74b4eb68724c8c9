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
    process::{Pid, PidfdFlags, pidfd_open},
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, MissedTickBehavior, interval_at},
};

use crate::{
    cli::{TargetArgs, TracingArgs},
    model::Batch,
    probe::{
        Plan, ProbeError,
        environment::{Environment, missing_privilege},
        launch::{Gated, Running},
        privileges,
    },
    source::{LiveSource, Source as _, selection::Selection},
};

/// Loops that there is room for, when one process or a few are traced.
const LOOPS_OF_PROCESSES: u32 = 1024;
/// And when there may be any number.
const LOOPS_OF_MACHINE: u32 = 8192;

/// A run: a source and what it traces.
pub(super) struct Run {
    pub(super) source: LiveSource,
    /// The processes that were named; the run ends with the last of them.
    named: Vec<OwnedFd>,
    command: Option<Running>,
    signals: Signals,
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
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
        if targets.is_empty() {
            bail!(
                "nothing to trace: name processes with --pid, --comm, --cgroup or --all, or a program after --"
            );
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
        let gated = if targets.program.is_empty() { None } else { Some(Gated::start(&targets.program)?) };
        found.processes.extend(gated.as_ref().map(Gated::pid));
        let many = targets.all || !targets.cgroups.is_empty() || !targets.comm.is_empty();
        let plan = Plan {
            targets: found,
            capacity: tracing.max_loops.unwrap_or(if many { LOOPS_OF_MACHINE } else { LOOPS_OF_PROCESSES }),
            stream_bytes: if stream { tracing.buffer << 20 } else { 4096 },
            stream: if stream { Control::STREAM_ALL } else { Control::STREAM_OFF },
            stall_threshold: tracing.stall_threshold,
            diagnostics: tracing.verbose,
        };
        let source = LiveSource::start(&plan).map_err(with_advice)?;
        let signals = Signals {
            interrupt: signal(SignalKind::interrupt()).context("signals cannot be caught")?,
            terminate: signal(SignalKind::terminate()).context("signals cannot be caught")?,
        };
        let command = gated.map(Gated::release).transpose()?;
        announce_ready();
        Ok(Self { source, named, command, signals })
    }

    /// Takes batches until it is time to stop: after `duration`, at Ctrl-C, when the targets or the
    /// command have ended, or when `visit` says so by `false`. The exit code is the command's.
    ///
    /// Rights that only starting takes are given up first: files and ports have to be open by now.
    pub(super) async fn watch(
        mut self,
        duration: Option<Duration>,
        mut visit: impl FnMut(Turn<'_>, &LiveSource) -> Result<bool>,
    ) -> Result<ExitCode> {
        give_up_rights();
        let started = Instant::now();
        let mut ticks = interval_at(started, self.source.tick());
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let end = duration.map(|duration| started + duration);
        let mut asked_to_stop = false;
        loop {
            let over = tokio::select! {
                _ = ticks.tick() => false,
                () = sleep_until(end) => true,
                _ = self.signals.terminate.recv() => true,
                _ = self.signals.interrupt.recv() => {
                    // The command was interrupted too, and is waited for; asked twice, it is not.
                    let wait = self.command.is_some() && !asked_to_stop;
                    asked_to_stop = true;
                    !wait
                }
            };
            if over || self.targets_have_ended() {
                break;
            }
            let Some(batch) = self.source.next_batch()? else { break };
            if !visit(Turn::Batch(&batch), &self.source)? {
                break;
            }
        }
        self.source.detach()?;
        if let Some(batch) = self.source.next_batch()? {
            visit(Turn::Last(&batch), &self.source)?;
        }
        match self.command {
            Some(command) if command.has_ended() => Ok(exit_code(command.wait()?)),
            _ => Ok(ExitCode::SUCCESS),
        }
    }

    fn targets_have_ended(&self) -> bool {
        if let Some(command) = &self.command {
            return command.has_ended();
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

/// Gives up what only starting takes. ioscope works as well with it: it is no reason not to go on.
pub(super) fn give_up_rights() {
    if let Err(error) = privileges::keep_what_reading_takes() {
        log::warn!("{error}");
    }
}

/// Tells a waiting test or benchmark that the probes are attached.
fn announce_ready() {
    if std::env::var_os("IOSCOPE_READY").is_some() {
        eprintln!("ioscope: ready");
    }
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
