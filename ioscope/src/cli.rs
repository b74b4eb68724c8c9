//! The command line: what can be typed, as clap reads it. What it means is found out in
//! [`commands`](crate::commands).

use std::{ffi::OsString, path::PathBuf, time::Duration};

use clap::{
    ArgMatches, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum,
    parser::ValueSource,
};

use crate::probe::hooks::HookChoice;

/// Shows what event loops are doing, from the kernel, without touching the program.
///
/// Without a command, opens the terminal UI on the targets.
#[derive(Debug, Parser)]
#[command(name = "ioscope", version, max_term_width = 100, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Verb>,
    /// For the terminal UI.
    #[command(flatten)]
    pub ui: UiArgs,
}

impl Cli {
    /// Reads the command line, or ends the process with what is wrong with it.
    pub fn read() -> Self {
        let matches = Self::command().get_matches();
        let mut cli = Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
        let given =
            |matches: &ArgMatches| matches.value_source("stall_threshold") == Some(ValueSource::CommandLine);
        match &mut cli.command {
            None => cli.ui.screen.stall_threshold_given = given(&matches),
            Some(Verb::Demo(args)) => {
                args.screen.stall_threshold_given =
                    matches.subcommand().is_some_and(|(_, matches)| given(matches));
            }
            Some(Verb::Stat(StatArgs { tracing, .. }) | Verb::Trace(TraceArgs { tracing, .. })) => {
                tracing.presets = matches.subcommand().is_some_and(|(_, matches)| !given(matches));
            }
            Some(_) => {}
        }
        cli
    }
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Count for a while, then print a summary.
    Stat(StatArgs),
    /// Print a line per iteration, as strace does per system call.
    ///
    /// A line tells of a wait call and of the slice after it, until the next one; its time is when the
    /// call returned, and it is printed when the slice has ended.
    Trace(TraceArgs),
    /// Say what this machine allows, feature by feature, and how to get what is missing.
    Doctor(DoctorArgs),
    /// Trace built-in loops of each kind, live: needs no target.
    Demo(DemoArgs),
    /// Print the configuration of the terminal UI, or check it.
    Config(ConfigArgs),
    /// Run built-in loops to be traced by another ioscope, or by a test.
    #[command(name = "__worker", hide = true)]
    Worker {
        /// What to run.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Attach empty probes until standard input ends: what tracing costs at least.
    #[command(name = "__floor", hide = true)]
    Floor {
        /// Let them read the clock.
        #[arg(long)]
        clock: bool,
    },
}

/// What to trace.
#[derive(Args, Clone, Debug, Default)]
pub struct TargetArgs {
    /// Processes, with all their threads: numbers, separated by commas; can be repeated.
    #[arg(short, long = "pid", value_name = "PID", value_delimiter = ',')]
    pub pids: Vec<u32>,
    /// Processes by name: a glob such as `redis-*`; can be repeated. Processes that start later count.
    #[arg(long, value_name = "GLOB")]
    pub comm: Vec<String>,
    /// Processes in a cgroup of version 2 and below: a path; can be repeated.
    #[arg(long = "cgroup", value_name = "PATH")]
    pub cgroups: Vec<PathBuf>,
    /// Every process of the machine.
    #[arg(short, long, conflicts_with_all = ["pids", "comm", "cgroups", "program"])]
    pub all: bool,
    /// The targets' children, too.
    #[arg(short, long)]
    pub follow: bool,
    /// A program to start, traced from its first instruction, and its children.
    #[arg(last = true, value_name = "COMMAND")]
    pub program: Vec<OsString>,
}

impl TargetArgs {
    /// Whether nothing was named.
    pub fn is_empty(&self) -> bool {
        self.pids.is_empty()
            && self.comm.is_empty()
            && self.cgroups.is_empty()
            && !self.all
            && self.program.is_empty()
    }
}

/// How to trace.
#[derive(Args, Clone, Debug)]
pub struct TracingArgs {
    /// From this loop duration on, it is a stall. Without it, runtimes that have a number of their own are judged by that.
    #[arg(long, value_name = "DURATION", default_value = "100ms", value_parser = duration)]
    pub stall_threshold: Duration,
    /// From this loop duration on, it is looked at where the thread is.
    #[arg(long, value_name = "DURATION", default_value = "10ms", value_parser = duration)]
    pub warn_threshold: Duration,
    /// Room for so many loops at once; what is beyond is counted as dropped.
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub max_loops: Option<u32>,
    /// How to see the wait calls: at the kernel's functions, for which nothing else on the machine pays, or at
    /// the tracepoints of every system call.
    #[arg(long, value_enum, env = "IOSCOPE_HOOKS", default_value_t = Hooks::Auto)]
    pub hooks: Hooks,
    /// Size of the stream's buffer in MiB, a power of two.
    #[arg(long, value_name = "MIB", default_value_t = 16, value_parser = power_of_two)]
    pub buffer: u32,
    /// Leave out what `doctor` calls so: what it costs can be measured.
    #[arg(long, hide = true, value_name = "HOOK")]
    pub without: Vec<String>,
    /// Runtimes are judged by their own numbers: no threshold was given.
    #[arg(skip)]
    pub presets: bool,
    /// Say more on standard error: the probes' own diagnostics, too.
    #[arg(short, long)]
    pub verbose: bool,
}

/// How the terminal UI is to be.
#[derive(Args, Clone, Debug, Default)]
pub struct ScreenArgs {
    /// Keys, theme and defaults of the terminal UI, instead of ~/.config/ioscope/config.toml.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Do not let the kernel measure the probes' own time while it is shown.
    #[arg(long)]
    pub no_bpf_time: bool,
    /// Whether the command line has a threshold of its own.
    #[arg(skip)]
    pub stall_threshold_given: bool,
}

/// `config`.
#[derive(Args, Clone, Debug)]
pub struct ConfigArgs {
    /// Print the configuration as it is without a file: a start for one of your own.
    #[arg(long)]
    pub print_default: bool,
    /// Check this file, instead of ~/.config/ioscope/config.toml.
    #[arg(long, value_name = "FILE", conflicts_with = "print_default")]
    pub config: Option<PathBuf>,
}

/// How to see the wait calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Hooks {
    /// By functions where this kernel allows it, else by tracepoints.
    Auto,
    /// By functions.
    Fentry,
    /// By tracepoints.
    Tracepoint,
}

impl From<Hooks> for HookChoice {
    fn from(hooks: Hooks) -> Self {
        match hooks {
            Hooks::Auto => Self::Auto,
            Hooks::Fentry => Self::Functions,
            Hooks::Tracepoint => Self::Tracepoints,
        }
    }
}

/// The terminal UI.
#[derive(Args, Clone, Debug)]
pub struct UiArgs {
    /// What to trace.
    #[command(flatten)]
    pub targets: TargetArgs,
    /// How.
    #[command(flatten)]
    pub tracing: TracingArgs,
    /// On what kind of screen.
    #[command(flatten)]
    pub screen: ScreenArgs,
}

/// `stat`.
#[derive(Args, Clone, Debug)]
pub struct StatArgs {
    /// What to trace.
    #[command(flatten)]
    pub targets: TargetArgs,
    /// How.
    #[command(flatten)]
    pub tracing: TracingArgs,
    /// Stop after this time; without it, at Ctrl-C or when the targets have ended.
    #[arg(short, long, value_name = "DURATION", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Print a summary of each interval, too.
    #[arg(short, long, value_name = "DURATION", value_parser = duration)]
    pub interval: Option<Duration>,
    /// Print JSON: one object, or one a line with --interval.
    #[arg(long)]
    pub json: bool,
    /// Count the system calls of each loop's slices, too, with their times. Every system call of the machine takes longer
    /// meanwhile.
    #[arg(long)]
    pub syscalls: bool,
    /// Write the stacks of all stalls, merged, as folded stacks with their nanoseconds: what flamegraph.pl, inferno and
    /// speedscope read. `-` is standard output, instead of the summary.
    #[arg(long, value_name = "FILE")]
    pub folded: Option<PathBuf>,
    /// Write them as a flame graph, an SVG file. `-` is standard output, instead of the summary.
    #[arg(long, value_name = "FILE")]
    pub flamegraph: Option<PathBuf>,
    /// Print every loop in full, however many there are.
    #[arg(long, conflicts_with = "json")]
    pub details: bool,
    /// Exit with 3 when there is a finding at least as bad; a command's own failure goes first.
    #[arg(long, value_enum, value_name = "SEVERITY")]
    pub fail_on: Option<FailOn>,
}

/// Which findings make `stat` fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FailOn {
    /// Those that cost latency or CPU time, and worse ones.
    Warn,
    /// Those of loops that do not do their work in time.
    Critical,
}

/// `trace`.
#[derive(Args, Clone, Debug)]
pub struct TraceArgs {
    /// What to trace.
    #[command(flatten)]
    pub targets: TargetArgs,
    /// How.
    #[command(flatten)]
    pub tracing: TracingArgs,
    /// Stop after this time; without it, at Ctrl-C or when the targets have ended.
    #[arg(short, long, value_name = "DURATION", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Print a JSON object a line.
    #[arg(long)]
    pub json: bool,
    /// Print sleeps outside the wait call, too: in which system call, and for how long.
    #[arg(long)]
    pub blocked: bool,
}

/// `doctor`.
#[derive(Args, Clone, Copy, Debug)]
pub struct DoctorArgs {
    /// How to see the wait calls.
    #[arg(long, value_enum, env = "IOSCOPE_HOOKS", default_value_t = Hooks::Auto)]
    pub hooks: Hooks,
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// `demo`.
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// How to trace.
    #[command(flatten)]
    pub tracing: TracingArgs,
    /// On what kind of screen.
    #[command(flatten)]
    pub screen: ScreenArgs,
    /// What to show.
    #[arg(long, value_enum, default_value_t = DemoView::Auto)]
    pub view: DemoView,
    /// Stop after this time; without it, at Ctrl-C, or after 10 s when standard output is no terminal.
    #[arg(short, long, value_name = "DURATION", value_parser = duration)]
    pub duration: Option<Duration>,
}

/// What `demo` shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DemoView {
    /// The terminal UI on a terminal, else `stat`.
    Auto,
    /// The terminal UI.
    Ui,
    /// The summary.
    Stat,
    /// A line per iteration.
    Trace,
}

/// A duration with its unit; a bare number is seconds.
pub fn duration(text: &str) -> Result<Duration, String> {
    let parsed = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())?,
        Err(_) => humantime::parse_duration(text)
            .map_err(|error| format!("{error}; write for example 5s, 250ms or 1m30s"))?,
    };
    if parsed.is_zero() { Err("it must be longer than nothing".to_owned()) } else { Ok(parsed) }
}

fn power_of_two(text: &str) -> Result<u32, String> {
    match text.parse::<u32>() {
        Ok(value) if value.is_power_of_two() && value <= 1024 => Ok(value),
        _ => Err("it must be a power of two from 1 to 1024".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations_take_units_and_bare_seconds() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("5"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("0.5"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1m30s"), Ok(Duration::from_secs(90)));
        for bad in ["", "0", "0s", "-1", "five", "1e400", "nan"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn targets_are_lists_and_repeat() {
        let cli = Cli::try_parse_from(["ioscope", "--pid", "1,2", "-p", "3"]).expect("valid");
        assert_eq!(cli.ui.targets.pids, [1, 2, 3]);
        assert!(Cli::try_parse_from(["ioscope", "--all", "--pid", "1"]).is_err());
    }
}
