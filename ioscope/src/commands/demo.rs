//! `ioscope demo`: starts built-in loops as a process of their own and traces that.

use std::{
    io::{self, BufRead as _, BufReader, IsTerminal as _, Write as _},
    os::unix::process::CommandExt as _,
    process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{
    run::{Run, block_on},
    stat, trace,
    ui::{self, Settings},
};
use crate::cli::{DemoArgs, DemoView, StatArgs, TargetArgs, TraceArgs, TracingArgs};

/// For so long where nobody can press Ctrl-C.
const UNATTENDED: Duration = Duration::from_secs(10);

const WHAT_TO_LOOK_FOR: &str = "\
built-in loops: stall-compute parses JSON for 250 ms every 2 s and stall-blocking sleeps 300 ms
in a handler every 3 s: see their STALLS and P99; epoll-overload has no time to rest; the rest is healthy";

/// The same, in the room that a title has.
const TITLE: &str = "demo: see stall-compute, stall-blocking and epoll-overload";

/// Runs the command.
pub(super) fn run(args: &DemoArgs) -> Result<ExitCode> {
    let attended = io::stdout().is_terminal();
    let view = match args.view {
        DemoView::Auto if attended => DemoView::Ui,
        DemoView::Auto => DemoView::Stat,
        view => view,
    };
    let duration = args.duration.or((!attended).then_some(UNATTENDED));
    let settings = Settings::read(&args.screen, &args.tracing)?;
    let mut loops = Loops::start()?;
    block_on(async {
        let targets = TargetArgs { pids: vec![loops.pid()], ..TargetArgs::default() };
        let mut run = match view {
            DemoView::Ui => Run::start_for_screen(&targets, &settings.tracing)?,
            _ => Run::start(&targets, &args.tracing, view == DemoView::Trace)?,
        };
        loops.go()?;
        if view != DemoView::Ui {
            eprintln!("ioscope: {WHAT_TO_LOOK_FOR}");
        }
        match view {
            DemoView::Ui => {
                if let Some(duration) = duration {
                    run.stop_after(duration);
                }
                ui::run_on(run, TITLE.to_owned(), settings).await
            }
            DemoView::Trace => {
                trace::show(run, &TraceArgs { duration, ..trace_args(targets, &args.tracing) }).await
            }
            DemoView::Auto | DemoView::Stat => {
                stat::show(run, &StatArgs { duration, ..stat_args(targets, &args.tracing) }).await
            }
        }
    })
}

fn stat_args(targets: TargetArgs, tracing: &TracingArgs) -> StatArgs {
    StatArgs {
        targets,
        tracing: tracing.clone(),
        duration: None,
        interval: None,
        json: false,
        syscalls: false,
        folded: None,
        flamegraph: None,
        details: false,
        fail_on: None,
    }
}

fn trace_args(targets: TargetArgs, tracing: &TracingArgs) -> TraceArgs {
    TraceArgs { targets, tracing: tracing.clone(), duration: None, json: false, blocked: true }
}

/// The process of the loops. It ends when its standard input does: at the latest when this process
/// ends, however that comes about.
struct Loops {
    process: Child,
    /// Closing it ends the loops.
    input: Option<ChildStdin>,
    /// Kept open: the process says something at its end.
    output: BufReader<ChildStdout>,
}

impl Loops {
    /// Starts them. They do nothing until [`Self::go`].
    fn start() -> Result<Self> {
        let mut process = Command::new("/proc/self/exe")
            .args(["__worker", "scenarios"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Ctrl-C is for this process, which then ends the loops.
            .process_group(0)
            .spawn()
            .context("the built-in loops cannot be started")?;
        let input = process.stdin.take();
        let output = process.stdout.take().context("the built-in loops have no output")?;
        let mut loops = Self { process, input, output: BufReader::new(output) };
        let mut ready = String::new();
        loops.output.read_line(&mut ready).context("the built-in loops do not answer")?;
        anyhow::ensure!(!ready.is_empty(), "the built-in loops have ended before they began");
        Ok(loops)
    }

    fn pid(&self) -> u32 {
        self.process.id()
    }

    fn go(&mut self) -> Result<()> {
        let input = self.input.as_mut().context("the built-in loops have no input")?;
        input.write_all(b"go\n").context("the built-in loops do not listen")
    }
}

impl Drop for Loops {
    fn drop(&mut self) {
        drop(self.input.take());
        // There is nobody to tell of an error, and nothing to be done about it.
        let _ = self.process.wait();
    }
}
