//! `ioscope` without a command: the terminal UI on a live run; without a terminal, `stat` by the second.

use std::{
    io::{self, IsTerminal as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, Result};
use crossterm::event::{Event as Input, EventStream};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::{
    signal::unix::{SignalKind, signal},
    time::timeout,
};

use super::{
    config,
    logging::Hushed,
    run::{Event, Run, block_on},
    stat,
};
use crate::{
    cli::{ScreenArgs, StatArgs, TargetArgs, TracingArgs, UiArgs},
    source::{Source as _, Streaming, printable},
    tui::{App, Config, Effect, Message, MissingHook, Screen, Theme, Tracing, update},
};

/// How often a summary is printed where there is no terminal to draw on.
const PRINT_INTERVAL: Duration = Duration::from_secs(1);

/// So many processes are called by their names in the title.
const MOST_NAMED: usize = 4;
/// How soon the signal comes that let it go on, after a stop.
const CONTINUED: Duration = Duration::from_millis(100);

/// Runs the command.
pub(super) fn run(args: &UiArgs) -> Result<ExitCode> {
    if !io::stdout().is_terminal() {
        return stat::run(&StatArgs {
            targets: args.targets.clone(),
            tracing: args.tracing.clone(),
            duration: None,
            interval: Some(PRINT_INTERVAL),
            json: false,
            syscalls: false,
            folded: None,
            flamegraph: None,
            details: false,
            fail_on: None,
        });
    }
    block_on(async {
        let settings = Settings::read(&args.screen, &args.tracing)?;
        let run = Run::start_for_screen(&args.targets, &settings.tracing)?;
        run_on(run, title(&args.targets), settings).await
    })
}

/// How the screen is to be: the configuration, and what the command line says on top of it.
pub(super) struct Settings {
    config: Config,
    /// With the configured threshold, where the command line has none.
    pub(super) tracing: TracingArgs,
}

impl Settings {
    /// Reads the configuration.
    pub(super) fn read(screen: &ScreenArgs, tracing: &TracingArgs) -> Result<Self> {
        let mut config = config::load(screen.config.as_deref())?;
        config.bpf_time &= !screen.no_bpf_time;
        let mut tracing = tracing.clone();
        if !screen.stall_threshold_given {
            tracing.presets = config.stall_threshold.is_none();
            tracing.stall_threshold = config.stall_threshold.unwrap_or(tracing.stall_threshold);
        }
        Ok(Self { config, tracing })
    }
}

/// Shows a run that has started, until it is quit. The title names the target, for people. The exit code
/// is the run's.
pub(super) async fn run_on(mut run: Run, title: String, settings: Settings) -> Result<ExitCode> {
    // While the right to it is there.
    let bpf_time = settings.config.bpf_time && run.source.measure_run_time(true);
    // Before the screen starts a thread.
    run.give_up_rights();
    let hushed = Hushed::while_on_screen();
    let shown = show(&mut run, title, &settings, bpf_time).await;
    drop(hushed);
    // Without the screen nobody would know that it still runs, with its output gone.
    run.end_command();
    shown?;
    run.exit_code()
}

async fn show(run: &mut Run, title: String, settings: &Settings, bpf_time: bool) -> Result<()> {
    let Settings { config, tracing: TracingArgs { stall_threshold, .. } } = settings;
    let tracing = tracing(run, title, bpf_time);
    let size = crossterm::terminal::size().context("the terminal's size is not known")?;
    let mut app = App::new(tracing, *stall_threshold, theme(config), config, size);
    let mut continued = signal(SignalKind::from_raw(rustix::process::Signal::CONT.as_raw()))
        .context("signals cannot be caught")?;
    let mut screen = Screen::open(config.mouse).context("the terminal cannot be used")?;
    let mut inputs = EventStream::new();
    let mut redraw = true;
    loop {
        if redraw {
            screen.draw(&app).context("the terminal cannot be drawn on")?;
        }
        let mut messages = tokio::select! {
            event = run.next() => match event? {
                Event::Batch(batch) => vec![Message::Batch(batch)],
                Event::Ended => {
                    let last = run.finish()?.map(|batch| Message::Batch(Box::new(batch)));
                    last.into_iter().chain([Message::TargetsEnded]).collect()
                }
                Event::Stop => break,
            },
            input = inputs.next() => match input {
                Some(input) => message(&input?).into_iter().collect(),
                None => break,
            },
            _ = continued.recv() => {
                screen.resume().context("the terminal cannot be used again")?;
                redraw = true;
                continue;
            }
        };
        // What else has been typed meanwhile is drawn with it, once.
        while let Some(Some(input)) = inputs.next().now_or_never() {
            messages.extend(message(&input?));
        }
        redraw = false;
        for message in messages {
            for effect in update(&mut app, message) {
                match effect {
                    Effect::Redraw => redraw = true,
                    Effect::Suspend => {
                        screen.stop().context("it cannot be stopped")?;
                        // The signal to go on is for this stop: the terminal is taken over again but once.
                        let _ = timeout(CONTINUED, continued.recv()).await;
                        screen.resume().context("the terminal cannot be used again")?;
                    }
                    Effect::Copy(text) => screen.copy(&text).context("the terminal cannot be used")?,
                    Effect::Stream(loops) if loops.is_empty() => run.source.stream(Streaming::Off),
                    Effect::Stream(loops) => run.source.stream(Streaming::Only(&loops)),
                    Effect::StallThreshold(threshold) => run.source.set_stall_threshold(threshold),
                    Effect::Pace(pace) => run.source.set_pace(pace),
                    Effect::StopBpfTime => {
                        run.source.measure_run_time(false);
                    }
                    Effect::Quit => return Ok(()),
                }
            }
        }
    }
    Ok(())
}

fn message(input: &Input) -> Option<Message> {
    match *input {
        Input::Key(key) => Some(Message::Key(key)),
        Input::Mouse(mouse) => Some(Message::Mouse(mouse)),
        Input::Paste(ref text) => Some(Message::Paste(text.clone())),
        Input::Resize(width, height) => Some(Message::Resize { width, height }),
        Input::FocusGained | Input::FocusLost => None,
    }
}

/// What the screen has to know of the run, once.
fn tracing(run: &Run, title: String, bpf_time: bool) -> Tracing {
    let missing = run.source.jobs().iter().filter(|status| status.way.is_none());
    Tracing {
        title,
        attach: run.source.attach().to_owned(),
        bpf_time,
        missing: missing
            .map(|status| MissingHook { name: status.job.name.to_owned(), lost: status.job.gives.to_owned() })
            .collect(),
    }
}

/// Without colours if <https://no-color.org> is followed: the variable is set, and not empty. True colour only
/// where the terminal says, as most that have it do, that it has it.
fn theme(config: &Config) -> Theme {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let true_colour = variable("COLORTERM").is_some_and(|value| value == "truecolor" || value == "24bit");
    Theme::new(&config.palette(variable("NO_COLOR").is_none(), true_colour))
}

/// A process's name and number.
fn named(pid: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    format!("{} ({pid})", printable(name.trim_end())).trim_start().to_owned()
}

/// The targets, for people.
fn title(targets: &TargetArgs) -> String {
    if targets.all {
        return "all processes".to_owned();
    }
    let processes = match targets.pids.as_slice() {
        [] => None,
        pids if pids.len() <= MOST_NAMED => {
            Some(pids.iter().copied().map(named).collect::<Vec<_>>().join(", "))
        }
        pids => Some(format!("{} processes", pids.len())),
    };
    let program = targets.program.first().map(|program| {
        let path = std::path::Path::new(program);
        path.file_name().unwrap_or(program).to_string_lossy().into_owned()
    });
    let cgroups = targets.cgroups.iter().map(|path| path.display().to_string());
    let parts: Vec<String> =
        processes.into_iter().chain(program).chain(targets.comm.iter().cloned()).chain(cgroups).collect();
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_name_the_targets() {
        let of = |targets: TargetArgs| title(&targets);
        assert_eq!(of(TargetArgs { all: true, ..TargetArgs::default() }), "all processes");
        assert_eq!(of(TargetArgs { pids: vec![1; 5], ..TargetArgs::default() }), "5 processes");
        // No process has this number.
        let nobody = u32::MAX;
        assert_eq!(of(TargetArgs { pids: vec![nobody], ..TargetArgs::default() }), "(4294967295)");
        let two = of(TargetArgs { pids: vec![std::process::id(), nobody], ..TargetArgs::default() });
        assert!(two.ends_with(&format!("({}), (4294967295)", std::process::id())), "{two}");
        let mixed = TargetArgs {
            comm: vec!["redis-*".to_owned()],
            program: vec!["/bin/sleep".into(), "1".into()],
            ..TargetArgs::default()
        };
        assert_eq!(of(mixed), "sleep, redis-*");
    }
}
