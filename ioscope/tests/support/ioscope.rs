//! The `ioscope` command as a user runs it, and a program for it to trace.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::OnceLock;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ioscope::demo::Report;

/// The command.
pub(crate) const IOSCOPE: &str = env!("CARGO_BIN_EXE_ioscope");

/// A command that takes longer than this has failed.
const PATIENCE: Duration = Duration::from_mins(1);

/// Whether ioscope can trace here. Where it cannot, the test that asks is skipped, aloud; on a build machine
/// it has to.
pub(crate) fn can_trace(test: &str) -> bool {
    static REASON: OnceLock<Option<String>> = OnceLock::new();
    let reason = REASON.get_or_init(|| {
        let doctor = run(["doctor"]);
        (doctor.status.code() != Some(0)).then(|| text(&doctor.stdout))
    });
    let Some(reason) = reason else { return true };
    let on_build_machine = std::env::var_os("CI").is_some_and(|ci| ci == "true");
    assert!(!on_build_machine, "CI=true, and ioscope cannot trace: {reason}");
    let why = reason.lines().find(|line| line.starts_with("Tracing does not work")).unwrap_or_default();
    say(&format!("SKIPPED {test}: {why}"));
    false
}

/// Past the test harness, which keeps to itself what a passing test prints.
pub(crate) fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").expect("standard error can be written");
}

/// Runs the command to its end.
pub(crate) fn run(arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Output {
    let mut command = Command::new(IOSCOPE);
    command.args(arguments);
    output(command)
}

/// Runs a command to its end; fails when it takes too long.
pub(crate) fn output(mut command: Command) -> Output {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdout = child.stdout.take().expect("it is piped");
    let mut stderr = child.stderr.take().expect("it is piped");
    let read = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stdout.read_to_end(&mut bytes).map(|_| bytes)
    });
    let read_errors = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stderr.read_to_end(&mut bytes).map(|_| bytes)
    });
    let status = wait(&mut child).unwrap_or_else(|| {
        let _ = child.kill();
        panic!("{command:?} does not end");
    });
    let join = |thread: std::thread::JoinHandle<std::io::Result<Vec<u8>>>| {
        thread.join().expect("it does not panic").expect("a pipe can be read")
    };
    Output { status, stdout: join(read), stderr: join(read_errors) }
}

/// Waits for a process to end, but not for ever.
pub(crate) fn wait(child: &mut Child) -> Option<std::process::ExitStatus> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if let Some(status) = child.try_wait().expect("it is our child") {
            return Some(status);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    None
}

/// What was written, as text.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// An `ioscope` that traces until it is told to stop, or its targets end.
pub(crate) struct Tracing {
    pub(crate) child: Child,
}

impl Tracing {
    /// Starts it and waits until the probes are attached.
    pub(crate) fn start(mut command: Command) -> Self {
        let child = command
            .env("IOSCOPE_READY", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut tracing = Self { child: child.unwrap_or_else(|error| panic!("{command:?}: {error}")) };
        let stderr = tracing.child.stderr.take().expect("it is piped");
        let mut stderr = BufReader::new(stderr);
        let mut said = String::new();
        while !said.ends_with("ioscope: ready\n") {
            let length = stderr.read_line(&mut said).expect("a pipe can be read");
            assert!(length > 0, "it ended before it traced: {said}");
        }
        // What it says from now on is read only to keep it going.
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
        tracing
    }

    /// The exit code and the JSON that it printed, a document a line or one in all.
    pub(crate) fn end(mut self) -> (Option<i32>, Vec<serde_json::Value>) {
        let mut stdout = self.child.stdout.take().expect("it is piped");
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            stdout.read_to_end(&mut bytes).map(|_| bytes)
        });
        let status = wait(&mut self.child).expect("it ends");
        let bytes = reader.join().expect("it does not panic").expect("a pipe can be read");
        (status.code(), documents(&bytes))
    }
}

impl Drop for Tracing {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The JSON documents in a text.
pub(crate) fn documents(bytes: &[u8]) -> Vec<serde_json::Value> {
    let stream = serde_json::Deserializer::from_slice(bytes).into_iter();
    stream.map(|document| document.expect("it is JSON")).collect()
}

/// A built-in loop in a process of its own, of which ioscope expects nothing special.
pub(crate) struct Worker {
    child: Child,
    input: Option<ChildStdin>,
    /// Reads what it says after "ready".
    output: Option<JoinHandle<std::io::Result<String>>>,
}

/// A loop of `epoll_pwait` with a timeout of 2 ms that always expires, called `name`.
pub(crate) fn expiring(name: &str) -> String {
    format!(r#"{{"call":"epoll_pwait","pattern":"expire","timeout_ns":2000000,"comm":"{name}"}}"#)
}

impl Worker {
    /// Starts the loops that a JSON text describes.
    pub(crate) fn start(specs: &str) -> Self {
        Self::start_with(specs, |_| ())
    }

    /// The same, after a change to the command.
    pub(crate) fn start_with(specs: &str, change: impl FnOnce(&mut Command)) -> Self {
        let mut command = Command::new(IOSCOPE);
        command.args(["__worker", specs]).stdin(Stdio::piped()).stdout(Stdio::piped());
        change(&mut command);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = child.stdout.take().expect("it is piped");
        let mut worker = Self { input: child.stdin.take(), child, output: None };
        let mut stdout = BufReader::new(stdout);
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a pipe can be read");
        assert!(line.contains("ready"), "the worker says {line:?}");
        worker.output = Some(std::thread::spawn(move || {
            let mut said = String::new();
            stdout.read_to_string(&mut said).map(|_| said)
        }));
        worker.input.as_mut().expect("it is piped").write_all(b"go\n").expect("it listens");
        worker
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Has it end. What its loops did, by their own count.
    pub(crate) fn end(mut self) -> Report {
        drop(self.input.take());
        assert!(wait(&mut self.child).expect("it ends").success());
        let said = self.output.take().expect("it was started").join().expect("it does not panic");
        serde_json::from_str(&said.expect("a pipe can be read")).expect("the last line is the report")
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Copies a program. Another process does that: one that is forked from this process meanwhile would have the copy open
/// for writing, too, and as long as it has, the copy cannot be executed.
pub(crate) fn copy_program(from: &Path, to: &Path) {
    let status = Command::new("cp").arg(from).arg(to).status().expect("cp is there");
    assert!(status.success(), "{status}");
}

/// Has a command run as the user that owns nothing.
pub(crate) fn as_nobody(command: &mut Command) -> &mut Command {
    const NOBODY: u32 = 65_534;
    command.uid(NOBODY).gid(NOBODY)
}

/// The value of a line of `/proc/PID/status`.
pub(crate) fn status_of(process: &Path, field: &str) -> String {
    let status = std::fs::read_to_string(process.join("status")).expect("it is running");
    field_of(&status, field).unwrap_or_else(|| panic!("no {field} in {status}")).to_owned()
}

fn field_of<'a>(status: &'a str, field: &str) -> Option<&'a str> {
    status.lines().find_map(|line| Some(line.strip_prefix(field)?.strip_prefix(':')?.trim()))
}

/// Voluntary context switches of a process's threads called so: the kernel's count of their sleeps.
pub(crate) fn sleeps_of(pid: u32, comm: &str) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it is running");
    let statuses = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("status")).ok());
    statuses
        .filter(|status| field_of(status, "Name").is_some_and(|name| name.starts_with(comm)))
        .filter_map(|status| field_of(&status, "voluntary_ctxt_switches")?.parse::<u64>().ok())
        .sum()
}

/// Waits until the threads called so have slept so often from now on.
pub(crate) fn wait_for_sleeps(pid: u32, comm: &str, count: u64) {
    let (first, end) = (sleeps_of(pid, comm), Instant::now() + PATIENCE);
    while sleeps_of(pid, comm) < first + count {
        assert!(Instant::now() < end, "{comm} does not sleep");
        std::thread::sleep(Duration::from_millis(5));
    }
}
