//! A second source: another tool that counts the wait calls of the same processes at the same time.
//! bpftrace where it is there, else strace, or the one that `IOSCOPE_TEST_SECOND_SOURCE` names.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use ioscope_common::WaitCall;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::NamedTempFile;

use super::ioscope::{say, wait};
use super::worker::calls;

/// A tool that does not attach within this has failed.
const PATIENCE: Duration = Duration::from_mins(1);
const TRACEFS: &str = "/sys/kernel/tracing";

/// What a thread's wait calls came to, without those that the kernel goes on with by itself.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Returns of each wait call.
    pub(crate) returns: BTreeMap<String, u64>,
    /// The sum of their positive results.
    pub(crate) ready: u64,
}

impl Tally {
    pub(crate) fn iterations(&self) -> u64 {
        self.returns.values().sum()
    }
}

/// By thread. A thread without a return is left out.
pub(crate) type Tallies = BTreeMap<u32, Tally>;

/// The tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    /// Counts in the kernel, at the tracepoints of the calls' returns. It sees the return of a call that
    /// began before it attached.
    Bpftrace,
    /// Stops the program at each call. Attaching interrupts a call that a thread sleeps in, so that the
    /// program has to be stopped before.
    Strace,
}

impl Tool {
    /// The one to use; `None`, with the reason, where there is none.
    pub(crate) fn choose() -> Result<Self, String> {
        let wanted = std::env::var("IOSCOPE_TEST_SECOND_SOURCE").ok();
        let has = |name| wanted.as_deref().is_none_or(|wanted| wanted == name) && runs(name);
        if has("bpftrace") && mount_tracefs() {
            Ok(Self::Bpftrace)
        } else if has("strace") {
            Ok(Self::Strace)
        } else {
            Err(format!("{} cannot be run", wanted.as_deref().unwrap_or("neither bpftrace nor strace")))
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bpftrace => "bpftrace",
            Self::Strace => "strace",
        }
    }

    /// Attaches it to the processes.
    pub(crate) fn start(self, pids: &[u32]) -> SecondSource {
        match self {
            Self::Bpftrace => SecondSource::bpftrace(pids),
            Self::Strace => SecondSource::strace(pids),
        }
    }
}

pub(crate) fn runs(name: &str) -> bool {
    let mut command = Command::new(name);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// bpftrace reads the tracepoints' layouts there, and does not mount it.
pub(crate) fn mount_tracefs() -> bool {
    let is_there = || Path::new(TRACEFS).join("events/syscalls").exists();
    if !is_there() {
        let mounted = Command::new("mount").args(["-t", "tracefs", "tracefs", TRACEFS]).status();
        if !mounted.is_ok_and(|status| status.success()) {
            say(&format!("tracefs cannot be mounted on {TRACEFS}: bpftrace does not work without"));
        }
    }
    is_there()
}

/// A tool at work; killed if the test fails before it ends.
pub(crate) struct SecondSource {
    tool: Tool,
    child: Child,
    /// What it writes to standard output.
    output: Option<JoinHandle<Vec<u8>>>,
    /// strace's log.
    log: Option<NamedTempFile>,
}

impl SecondSource {
    fn bpftrace(pids: &[u32]) -> Self {
        let mut child = Command::new("bpftrace")
            .args(["-B", "line", "-f", "json", "-e", &bpftrace_program(pids)])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bpftrace starts");
        let stdout = child.stdout.take().expect("it is piped");
        let mut stdout = BufReader::new(stdout);
        let mut said = Vec::new();
        // Its last probe, which says so, is attached.
        while !String::from_utf8_lossy(&said).contains("attached") {
            let length = stdout.read_until(b'\n', &mut said).expect("a pipe can be read");
            assert!(length > 0, "bpftrace ended: {}", String::from_utf8_lossy(&said));
        }
        let output = thread::spawn(move || {
            stdout.read_to_end(&mut said).expect("a pipe can be read");
            said
        });
        Self { tool: Tool::Bpftrace, child, output: Some(output), log: None }
    }

    fn strace(pids: &[u32]) -> Self {
        let log = NamedTempFile::new().expect("a temporary file can be made");
        let names: Vec<&str> = calls().map(WaitCall::name).chain(["restart_syscall"]).collect();
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-e", &format!("trace={}", names.join(",")), "-o"]).arg(log.path());
        command.args(pids.iter().flat_map(|pid| ["-p".to_owned(), pid.to_string()]));
        let child = command.stdin(Stdio::null()).spawn().expect("strace starts");
        let end = Instant::now() + PATIENCE;
        while !pids.iter().all(|pid| is_traced_by(*pid, child.id())) {
            assert!(Instant::now() < end, "strace does not attach to {pids:?}");
            thread::sleep(Duration::from_millis(5));
        }
        Self { tool: Tool::Strace, child, output: None, log: Some(log) }
    }

    /// Detaches it, and asks it what it counted.
    pub(crate) fn end(mut self) -> Tallies {
        kill_process(Pid::from_child(&self.child), Signal::INT).expect("it is running");
        let status = wait(&mut self.child).expect("it ends");
        let tallies = match (self.tool, &self.log, self.output.take()) {
            (Tool::Bpftrace, _, Some(output)) => {
                assert!(status.success(), "bpftrace: {status}");
                from_bpftrace(&output.join().expect("it does not panic"))
            }
            // It ends by the signal, once it has let go.
            (Tool::Strace, Some(log), _) => {
                from_strace(&fs::read_to_string(log.path()).expect("it is there"))
            }
            _ => unreachable!("each tool has its output"),
        };
        tallies.into_iter().filter(|(_, tally)| tally.iterations() > 0).collect()
    }
}

impl Drop for SecondSource {
    fn drop(&mut self) {
        // Both fail when it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The codes by which the kernel says, to itself, that it goes on with a call: `include/linux/errno.h`.
const RESTARTS: &str = "args->ret == -512 || args->ret == -513 || args->ret == -514 || args->ret == -516";

/// Counts what returns, and what is ready by its result.
fn bpftrace_program(pids: &[u32]) -> String {
    let any = pids.iter().map(|pid| format!("pid == {pid}")).collect::<Vec<_>>().join(" || ");
    let mut program = String::new();
    for call in calls().map(WaitCall::name) {
        if !Path::new(TRACEFS).join("events/syscalls").join(format!("sys_exit_{call}")).exists() {
            continue;
        }
        let count = format!(
            "if (args->ret == -516) {{ @restarting[tid] = \"{call}\"; }}
             if (!({RESTARTS})) {{
                 @returns[tid, \"{call}\"] = count();
                 if (args->ret > 0) {{ @ready[tid, \"{call}\"] = sum(args->ret); }}
             }}"
        );
        let _ = if call == WaitCall::IoUringEnter.name() {
            // One that only submits is no wait. One that began before is one that sleeps.
            write!(
                program,
                "tracepoint:syscalls:sys_enter_{call} /({any}) && (args->flags & 1) == 0/ {{
                     @submits[tid] = 1;
                 }}
                 tracepoint:syscalls:sys_exit_{call} /{any}/ {{
                     if (@submits[tid]) {{ delete(@submits[tid]); }} else {{ {count} }}
                 }}\n"
            )
        } else {
            writeln!(program, "tracepoint:syscalls:sys_exit_{call} /{any}/ {{ {count} }}")
        };
    }
    let _ = write!(
        program,
        // By which the kernel goes on with other calls, too.
        "tracepoint:syscalls:sys_exit_restart_syscall /({any}) && @restarting[tid] != \"\"/ {{
             if (!({RESTARTS})) {{
                 @returns[tid, @restarting[tid]] = count();
                 if (args->ret > 0) {{ @ready[tid, @restarting[tid]] = sum(args->ret); }}
                 delete(@restarting[tid]);
             }}
         }}
         interval:ms:100 {{ printf(\"attached\\n\"); }}"
    );
    program
}

fn from_bpftrace(output: &[u8]) -> Tallies {
    let mut tallies = Tallies::new();
    for document in super::ioscope::documents(output) {
        let Some(maps) = document["data"].as_object().filter(|_| document["type"] == "map") else { continue };
        for (name, entries) in maps {
            for (key, value) in entries.as_object().into_iter().flatten() {
                let Some((tid, call)) = key.split_once(',') else { continue };
                let tally = tallies.entry(tid.parse().expect("a number")).or_default();
                let value = value.as_u64().expect("a number");
                match name.as_str() {
                    "@returns" => *tally.returns.entry(call.to_owned()).or_default() += value,
                    "@ready" => tally.ready += value,
                    _ => {}
                }
            }
        }
    }
    tallies
}

/// Lines such as these, each after a thread's number:
///
/// ```text
/// epoll_wait(5, [{events=EPOLLIN, …}], 128, -1) = 1
/// poll([{fd=3, events=POLLIN}], 1, -1) = ? ERESTART_RESTARTBLOCK (Interrupted by signal)
/// restart_syscall(<... resuming interrupted poll ...>) = 1
/// epoll_wait(5, <unfinished ...>
/// <... epoll_wait resumed>[], 128, 100) = -1 EINTR (Interrupted system call)
/// ```
fn from_strace(log: &str) -> Tallies {
    let mut tallies = Tallies::new();
    // By thread: the beginning of a line that goes on later, and the call that is interrupted.
    let mut unfinished: HashMap<u32, String> = HashMap::new();
    let mut interrupted: HashMap<u32, String> = HashMap::new();
    for line in log.lines() {
        let Some((tid, line)) = line.split_once(char::is_whitespace) else { continue };
        let (tid, line): (u32, _) = (tid.parse().expect("a number"), line.trim_start());
        if let Some(beginning) = line.strip_suffix("<unfinished ...>") {
            unfinished.insert(tid, beginning.to_owned());
            continue;
        }
        let whole = match line.strip_prefix("<... ").and_then(|line| line.split_once(" resumed>")) {
            Some((call, rest)) => unfinished.remove(&tid).unwrap_or_else(|| format!("{call}(")) + rest,
            None => line.to_owned(),
        };
        let Some((call, result)) = whole.split_once('(').zip(whole.rsplit_once(" = ")) else { continue };
        let (mut call, arguments, result) = (call.0.to_owned(), call.1, result.1);
        if call == WaitCall::IoUringEnter.name() && !arguments.contains("IORING_ENTER_GETEVENTS") {
            continue;
        }
        if call == "restart_syscall" {
            let Some(wait_call) = interrupted.remove(&tid) else { continue };
            call = wait_call;
        }
        if result.starts_with('?') {
            interrupted.insert(tid, call);
            continue;
        }
        let tally = tallies.entry(tid).or_default();
        *tally.returns.entry(call).or_default() += 1;
        let number = result.split_whitespace().next().and_then(|number| number.parse::<i64>().ok());
        tally.ready += u64::try_from(number.expect("a number")).unwrap_or(0);
    }
    tallies
}

/// Whether all threads of a process have this tracer.
fn is_traced_by(pid: u32, tracer: u32) -> bool {
    let wanted = format!("TracerPid:\t{tracer}\n");
    let threads = fs::read_dir(format!("/proc/{pid}/task")).expect("it is running");
    threads.flatten().all(|thread| {
        fs::read_to_string(thread.path().join("status")).is_ok_and(|status| status.contains(&wanted))
    })
}
