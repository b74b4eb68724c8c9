//! What a process is traced with: a table of tracers, and one way to start any of them, to know that
//! it is attached, and to end it.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use super::{Bench, sys};
use crate::{packages::Package, workspace::run};

/// A way to trace a process. Known by its name.
pub(super) struct Tracer {
    /// In the table and in JSON.
    pub(super) name: &'static str,
    /// The Debian package that it takes, but for our own.
    pub(super) package: Option<&'static Package>,
    how: How,
}

impl PartialEq for Tracer {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

/// How to run it.
enum How {
    /// Nothing runs.
    Not,
    /// A verb of ioscope and its arguments; `{pid}` is filled in.
    Ioscope(&'static [&'static str], Ready),
    /// Another program and its arguments, the same way.
    Program(&'static str, &'static [&'static str], Ready),
}

/// How to tell that it is attached.
#[derive(Clone, Copy)]
enum Ready {
    /// It writes this line to stdout.
    Stdout(&'static str),
    /// It writes this line to stderr.
    Stderr(&'static str),
    /// The kernel names it as the process's tracer.
    Ptrace,
    /// It has perf events open.
    PerfEvents,
}

/// ioscope's, with `IOSCOPE_READY=1` in its environment.
const ATTACHED: Ready = Ready::Stderr("ioscope: ready");

pub(super) static BARE: Tracer = Tracer { name: "bare", package: None, how: How::Not };

/// Probes on the entry and the exit of every system call that do nothing: the kernel's own part in
/// the cost of all tracers below.
pub(super) static FLOOR: Tracer =
    Tracer { name: "floor", package: None, how: How::Ioscope(&["__floor"], Ready::Stdout("ready")) };

/// The same, but each reads the clock: the kernel's part in the cost of whatever tells durations.
pub(super) static CLOCK: Tracer = Tracer {
    name: "floor + clock",
    package: None,
    how: How::Ioscope(&["__floor", "--clock"], Ready::Stdout("ready")),
};

pub(super) static STAT: Tracer = Tracer {
    name: "stat",
    package: None,
    how: How::Ioscope(&["stat", "--json", "--pid", "{pid}", "--duration", "3600s"], ATTACHED),
};

/// The same, and the system calls of slices.
pub(super) static STAT_SYSCALLS: Tracer = Tracer {
    name: "stat --syscalls",
    package: None,
    how: How::Ioscope(&["stat", "--json", "--syscalls", "--pid", "{pid}", "--duration", "3600s"], ATTACHED),
};

/// `stat` where no slice is ever too long, nothing samples, and hardly anybody looks.
pub(super) static STAT_BLIND: Tracer = Tracer {
    name: "stat, no stalls",
    package: None,
    how: How::Ioscope(
        &[
            "stat",
            "--json",
            "--stall-threshold",
            "1000h",
            "--warn-threshold",
            "1000h",
            "--without",
            "sampling clock",
            "--pid",
            "{pid}",
            "--duration",
            "3600s",
        ],
        ATTACHED,
    ),
};

/// `stat` to which nobody tells when an epoll instance becomes ready.
pub(super) static STAT_UNREADY: Tracer = Tracer {
    name: "stat, no ready delay",
    package: None,
    how: How::Ioscope(
        &["stat", "--json", "--without", "readiness of epoll", "--pid", "{pid}", "--duration", "3600s"],
        ATTACHED,
    ),
};

pub(super) static TRACE: Tracer = Tracer {
    name: "trace",
    package: None,
    how: How::Ioscope(&["trace", "--json", "--pid", "{pid}"], ATTACHED),
};

/// What a person would write to get at least the durations that `stat` shows.
pub(super) static BPFTRACE: Tracer = Tracer {
    name: "bpftrace",
    package: Some(&Package { name: "bpftrace", provides: "bpftrace", why: "to compare with" }),
    how: How::Program("bpftrace", &["-B", "line", "-e", BPFTRACE_PROGRAM], Ready::Stdout("ready")),
};

// glibc's `epoll_wait` is `epoll_pwait` where the kernel has no other.
#[cfg(target_arch = "x86_64")]
const BPFTRACE_PROGRAM: &str = "\
    tracepoint:syscalls:sys_enter_epoll_wait /pid == {pid}/ { \
        @entered[tid] = nsecs; if (@left[tid]) { @loop_duration = hist(nsecs - @left[tid]); } } \
    tracepoint:syscalls:sys_exit_epoll_wait /@entered[tid]/ { \
        @wait = hist(nsecs - @entered[tid]); @left[tid] = nsecs; delete(@entered[tid]); } \
    interval:ms:100 { printf(\"ready\\n\"); }";
#[cfg(not(target_arch = "x86_64"))]
const BPFTRACE_PROGRAM: &str = "\
    tracepoint:syscalls:sys_enter_epoll_pwait /pid == {pid}/ { \
        @entered[tid] = nsecs; if (@left[tid]) { @loop_duration = hist(nsecs - @left[tid]); } } \
    tracepoint:syscalls:sys_exit_epoll_pwait /@entered[tid]/ { \
        @wait = hist(nsecs - @entered[tid]); @left[tid] = nsecs; delete(@entered[tid]); } \
    interval:ms:100 { printf(\"ready\\n\"); }";

pub(super) static STRACE: Tracer = Tracer {
    name: "strace -c",
    package: Some(&Package { name: "strace", provides: "strace", why: "to compare with" }),
    how: How::Program("strace", &["-c", "-f", "-p", "{pid}"], Ready::Ptrace),
};

pub(super) static PERF: Tracer = Tracer {
    name: "perf trace -s",
    package: Some(&Package { name: "linux-perf", provides: "perf", why: "to compare with" }),
    how: How::Program("perf", &["trace", "-s", "-p", "{pid}"], Ready::PerfEvents),
};

/// All of them, in the order of the report.
pub(super) static ALL: [&Tracer; 11] = [
    &BARE,
    &FLOOR,
    &CLOCK,
    &STAT,
    &STAT_SYSCALLS,
    &STAT_BLIND,
    &STAT_UNREADY,
    &TRACE,
    &BPFTRACE,
    &STRACE,
    &PERF,
];

/// A tracer takes this long to attach, or it has failed.
const ATTACH_TIMEOUT: Duration = Duration::from_secs(20);
/// A tracer ends within this time after it was asked to, or it is killed.
const END_TIMEOUT: Duration = Duration::from_secs(20);
/// Between being attached, or detached, and the measurement.
const SETTLE: Duration = Duration::from_millis(150);

/// A tracer at work. Dropping it kills it.
pub(super) struct Session {
    tracer: &'static Tracer,
    /// `None` for [`How::Not`].
    child: Option<Child>,
    target: u32,
    pub(super) stdout: PathBuf,
    stderr: PathBuf,
}

impl Session {
    /// Starts the tracer on the bench's traced process, and waits until it is attached.
    pub(super) fn start(bench: &Bench, tracer: &'static Tracer) -> Result<Self> {
        Self::start_on(bench, tracer, bench.traced.pid())
    }

    /// The same, on another process.
    pub(super) fn start_on(bench: &Bench, tracer: &'static Tracer, target: u32) -> Result<Self> {
        let path =
            |suffix: &str| bench.directory.join(format!("{}.{suffix}", tracer.name.replace([' ', ','], "-")));
        let mut session =
            Self { tracer, child: None, target, stdout: path("stdout"), stderr: path("stderr") };
        let (mut command, arguments, ready) = match &tracer.how {
            How::Not => return Ok(session),
            How::Ioscope(arguments, ready) => (Command::new(&bench.ioscope), *arguments, *ready),
            How::Program(program, arguments, ready) => {
                mount_tracefs()?;
                (Command::new(program), *arguments, *ready)
            }
        };
        for argument in arguments {
            command.arg(argument.replace("{pid}", &target.to_string()));
        }
        let stdout = if *tracer == TRACE { Path::new("/dev/null") } else { &session.stdout };
        command
            .env("IOSCOPE_READY", "1")
            .stdin(Stdio::piped())
            .stdout(File::create(stdout)?)
            .stderr(File::create(&session.stderr)?);
        session.child = Some(command.spawn().with_context(|| format!("cannot start {}", tracer.name))?);
        session.wait_until_attached(ready)?;
        sleep(SETTLE);
        Ok(session)
    }

    /// The tracer's CPU time so far.
    pub(super) fn cpu_time(&self) -> Result<Duration> {
        let child = self.child.as_ref().context("nothing runs")?;
        Ok(sys::cpu_time(child.id())?)
    }

    /// Has it end as a person would, so that it writes what it has to say, and waits for that.
    pub(super) fn end(&mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        drop(child.stdin.take());
        if self.tracer != &FLOOR {
            sys::interrupt(child.id())?;
        }
        let deadline = Instant::now() + END_TIMEOUT;
        while child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                child.kill()?;
                child.wait()?;
                bail!("{} did not end in {} s", self.tracer.name, END_TIMEOUT.as_secs());
            }
            sleep(Duration::from_millis(5));
        }
        sleep(SETTLE);
        Ok(())
    }

    fn wait_until_attached(&mut self, ready: Ready) -> Result<()> {
        let deadline = Instant::now() + ATTACH_TIMEOUT;
        while !self.is_attached(ready)? {
            let child = self.child.as_mut().context("nothing runs")?;
            if let Some(status) = child.try_wait()? {
                // It may have been attached, and done, since the last look.
                bail!("{status}: {}", self.last_words());
            }
            if Instant::now() > deadline {
                bail!("not attached after {} s: {}", ATTACH_TIMEOUT.as_secs(), self.last_words());
            }
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn is_attached(&self, ready: Ready) -> Result<bool> {
        let has_line = |path: &Path, line: &str| -> Result<bool> {
            let text = fs::read(path)?;
            Ok(String::from_utf8_lossy(&text).lines().any(|one| one.trim() == line))
        };
        Ok(match ready {
            Ready::Stdout(line) => has_line(&self.stdout, line)?,
            Ready::Stderr(line) => has_line(&self.stderr, line)?,
            Ready::Ptrace => fs::read_to_string(format!("/proc/{}/status", self.target))?
                .lines()
                .filter_map(|line| line.strip_prefix("TracerPid:"))
                .any(|pid| pid.trim() != "0"),
            Ready::PerfEvents => self.child.as_ref().is_some_and(|child| has_perf_events(child.id())),
        })
    }

    /// What it wrote to stderr about its failure: the last line that speaks of an error, or the last.
    fn last_words(&self) -> String {
        let text = fs::read(&self.stderr).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let mut lines = text.lines().rev().map(str::trim).filter(|line| !line.is_empty());
        let last = lines.clone().next();
        let error = lines.find(|line| line.to_lowercase().contains("error"));
        error.or(last).unwrap_or("it wrote nothing to stderr").to_owned()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// bpftrace and perf read the tracepoints' layouts there, and do not mount it themselves.
fn mount_tracefs() -> Result<()> {
    const TRACEFS: &str = "/sys/kernel/tracing";

    if Path::new(TRACEFS).join("events").exists() {
        return Ok(());
    }
    run(Command::new("mount").args(["-t", "tracefs", "tracefs", TRACEFS]))
}

fn has_perf_events(pid: u32) -> bool {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors
        .flatten()
        .filter_map(|entry| fs::read_link(entry.path()).ok())
        .any(|target| target.as_os_str() == "anon_inode:[perf_event]")
}
