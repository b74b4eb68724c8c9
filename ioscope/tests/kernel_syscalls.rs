//! `ioscope stat --syscalls`: the system calls of slices, against what a loop says that it made, and against bpftrace on a program
//! in another language.

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use ioscope::demo::{Pattern, RingMode, Slice, Spec, ThreadReport, Work};
use ioscope::probe::hooks::SLICE_SYSCALLS;
use ioscope_common::WaitCall;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use support::ioscope::{IOSCOPE, Tracing, can_trace, documents, say};
use support::kernel;
use support::second_source::{mount_tracefs, runs};
use support::tracer::Tracer;
use support::worker::Worker;

const MS: u64 = 1_000_000;

fn stat(pid: u32, more: &[&str]) -> Command {
    let mut command = Command::new(IOSCOPE);
    command.args(["stat", "--json", "--pid", &pid.to_string()]).args(more);
    command
}

/// Runs the loop to its end under `ioscope stat`.
fn run(spec: Spec, more: &[&str]) -> (Value, ThreadReport) {
    let mut worker = Worker::of(&[spec]);
    let tracing = Tracing::start(stat(worker.id(), more));
    worker.say().expect("the worker listens");
    let report = worker.report().expect("the worker reports");
    worker.end().expect("the worker ends");
    let (_, mut documents) = tracing.end();
    let summary = documents.pop().expect("a summary");
    let [report] = report.threads.try_into().expect("one loop");
    let loops = summary["loops"].as_array().expect("loops");
    let traced = loops.iter().find(|traced| traced["tid"] == report.tid).expect("it is traced");
    (traced.clone(), report)
}

fn number(value: &Value) -> u64 {
    value.as_u64().expect("a number")
}

/// Count, total and longest of a system call; all 0 if it was not made.
fn of(traced: &Value, syscall: &str) -> (u64, u64, u64) {
    let calls = traced["syscalls"]["calls"].as_array().expect("a list");
    let call = calls.iter().find(|call| call["syscall"] == syscall);
    call.map_or((0, 0, 0), |call| {
        (number(&call["count"]), number(&call["total_ns"]), number(&call["max_ns"]))
    })
}

fn every_slice(work: &[Work]) -> Vec<Slice> {
    work.iter().copied().map(Slice::always).collect()
}

/// A sleep's length is the loop's own measurement, which the clock is read for outside the call.
#[test]
fn each_call_is_counted_and_timed() {
    if !can_trace("each_call_is_counted_and_timed") {
        return;
    }
    let spec = Spec {
        iterations: Some(100),
        work: every_slice(&[Work::Nanosleep { ns: MS }, Work::Fsync { bytes: 1 }]),
        ..Spec::new(WaitCall::EpollPwait, Pattern::AlwaysReady)
    };
    let (traced, report) = run(spec, &["--syscalls"]);
    // The loop's first wait call makes it one; what it makes of files and events before is not its slices'.
    for (syscall, told) in [("nanosleep", report.blocked["nanosleep"]), ("fsync", report.blocked["fsync"])] {
        let (count, total, max) = of(&traced, syscall);
        assert_eq!((count, told.count), (100, 100), "{syscall}: {traced:#}");
        assert!(total <= told.sum_ns && max <= told.max_ns, "{syscall}: {total}, {max}, told {told:?}");
    }
    // What is long is nearly all in the call; of what is short, the probes and the clock are the greater part.
    let (slept, told) = (of(&traced, "nanosleep").1, report.blocked["nanosleep"].sum_ns);
    assert!(slept >= 100 * MS && slept * 100 >= told * 80, "{slept}, told {told}");
    // One to the file each time, and one that tells its partner of its end.
    assert_eq!(of(&traced, "write").0, 101, "{traced:#}");
    assert_eq!(of(&traced, "epoll_pwait").0, 0, "wait calls are no calls of slices: {traced:#}");
    let calls = traced["syscalls"]["calls"].as_array().expect("a list");
    let in_slices: u64 = calls.iter().map(|call| number(&call["count"])).sum();
    let crossings = number(&traced["syscalls"]["crossings"]);
    assert_eq!(crossings, in_slices + number(&traced["iterations"]));
    let per_event = traced["syscalls"]["crossings_per_ready_event"].as_f64().expect("a number");
    assert!((per_event - crossings as f64 / report.ready_events as f64).abs() < 1e-9);
}

/// Calls of `io_uring_enter` that only submit are calls of the slice, those that wait are not.
#[test]
fn submissions_are_calls_of_slices() {
    const TEST: &str = "submissions_are_calls_of_slices";
    if !can_trace(TEST) {
        return;
    }
    if !kernel::can(WaitCall::IoUringEnter, Pattern::AlwaysReady) {
        say(&format!("SKIPPED {TEST}: this kernel has no io_uring"));
        return;
    }
    let spec = Spec {
        iterations: Some(200),
        ring: RingMode::SubmitThenWait,
        ..Spec::new(WaitCall::IoUringEnter, Pattern::AlwaysReady)
    };
    let (traced, report) = run(spec, &["--syscalls"]);
    assert_eq!(report.iterations, 200);
    assert_eq!(number(&traced["submissions"]), report.submissions);
    // The first makes the thread a loop: by functions, after its entry.
    let counted = of(&traced, "io_uring_enter").0;
    assert!(counted == report.submissions || counted + 1 == report.submissions, "{traced:#}");
}

/// Nothing is counted and nothing attached that was not asked for.
#[test]
fn without_being_asked_there_is_nothing() {
    if !can_trace("without_being_asked_there_is_nothing") {
        return;
    }
    let spec = Spec {
        iterations: Some(10),
        work: every_slice(&[Work::Nanosleep { ns: MS }]),
        ..Spec::new(WaitCall::EpollPwait, Pattern::AlwaysReady)
    };
    let (traced, report) = run(spec, &[]);
    assert_eq!(number(&traced["iterations"]), report.iterations);
    assert!(traced.get("syscalls").is_none(), "{traced:#}");
    let probes = Tracer::of(&[]).expect("it can trace");
    assert_eq!(probes.way_of(SLICE_SYSCALLS), None);
}

/// For each number that it reads, it is woken by as many events, and makes calls of several kinds in each slice, one of
/// a number that no kernel has among them.
const PYTHON: &str = r"
import ctypes, os, select, sys
libc = ctypes.CDLL(None)
poller = select.epoll()
poller.register(0, select.EPOLLIN)
pipe = os.pipe()
poller.register(pipe[0], select.EPOLLIN)
null = os.open('/dev/null', os.O_WRONLY)
left = 0
sys.stdout.write('ready\n'); sys.stdout.flush()
while True:
    for fd, _ in poller.poll():
        if fd == 0:
            line = os.read(0, 64)
            if not line:
                sys.exit()
            left = int(line)
        else:
            os.read(pipe[0], 1)
            os.write(null, b'x')
            os.getppid()
            os.stat('/')
            libc.syscall(100000)
            left -= 1
        os.write(pipe[1], b'x') if left else os.write(1, b'done\n')
";

struct Program {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Program {
    fn start() -> Self {
        let mut child = Command::new("python3")
            .args(["-c", PYTHON])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut program = Self { child, input, output };
        program.expect("ready");
        program
    }

    fn expect(&mut self, line: &str) {
        let mut said = String::new();
        self.output.read_line(&mut said).expect("a pipe can be read");
        assert_eq!(said.trim_end(), line);
    }

    fn turn(&mut self, times: u32) {
        write!(self.input.as_mut().expect("it is open"), "{times}").expect("it listens");
        self.expect("done");
        self.wait_until_asleep();
    }

    /// Until it sleeps in its wait call again, with nothing to do: its calls are known at both ends.
    fn wait_until_asleep(&self) {
        let state =
            || std::fs::read_to_string(format!("/proc/{}/syscall", self.child.id())).unwrap_or_default();
        while !state().starts_with(&format!("{} ", libc_epoll_wait())) {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

/// What Python's `epoll.poll` calls.
const fn libc_epoll_wait() -> u32 {
    if cfg!(target_arch = "x86_64") { 232 } else { 22 }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The returns of a thread's system calls by number, as bpftrace counts them until it is ended.
struct Bpftrace {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Bpftrace {
    fn start(tid: u32) -> Self {
        let program = format!(
            "tracepoint:raw_syscalls:sys_exit /tid == {tid}/ {{ @calls[args->id] = count(); }}
             interval:ms:100 {{ printf(\"attached\\n\"); }}"
        );
        let mut child = Command::new("bpftrace")
            .args(["-B", "line", "-f", "json", "-e", &program])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bpftrace starts");
        let mut output = BufReader::new(child.stdout.take().expect("it is piped"));
        let mut said = String::new();
        while !said.ends_with("attached\\n\"}\n") {
            let length = output.read_line(&mut said).expect("a pipe can be read");
            assert!(length > 0, "bpftrace ended: {said}");
        }
        Self { child, output }
    }

    fn end(mut self) -> BTreeMap<i64, u64> {
        kill_process(Pid::from_child(&self.child), Signal::INT).expect("it is running");
        let mut rest = Vec::new();
        self.output.read_to_end(&mut rest).expect("a pipe can be read");
        assert!(self.child.wait().expect("it is ours").success());
        let mut calls = BTreeMap::new();
        for document in documents(&rest).iter().filter(|document| document["type"] == "map") {
            for (id, count) in document["data"]["@calls"].as_object().into_iter().flatten() {
                calls.insert(id.parse().expect("a number"), number(count));
            }
        }
        calls
    }
}

impl Drop for Bpftrace {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// By another tool, at the same time, on a program that knows nothing of it.
#[test]
fn bpftrace_counts_the_same() {
    const TEST: &str = "bpftrace_counts_the_same";
    const TURNS: u32 = 500;
    if !can_trace(TEST) {
        return;
    }
    if !runs("bpftrace") || !runs("python3") || !mount_tracefs() {
        say(&format!("SKIPPED {TEST}: it takes bpftrace and python3"));
        return;
    }
    let mut program = Program::start();
    let pid = program.child.id();
    // Once for what Python does the first time only.
    program.turn(3);
    let second = Bpftrace::start(pid);
    let tracing = Tracing::start(stat(pid, &["--syscalls"]));
    program.turn(TURNS);
    kill_process(Pid::from_child(&tracing.child), Signal::INT).expect("it is running");
    let (_, documents) = tracing.end();
    let told = second.end();
    let traced = &documents[0]["loops"][0];
    let others: u64 = told.iter().filter(|(id, _)| **id >= 512).map(|(_, count)| count).sum();
    let told_of = |id: u32| told.get(&i64::from(id)).copied().unwrap_or(0);
    let number_of = |name: &str| {
        let arch = ioscope::probe::arch::Arch::host().expect("it is traced");
        ioscope::probe::syscalls::number(arch, name).expect("it has one")
    };
    assert_eq!(of(traced, "others").0, u64::from(TURNS), "{traced:#}");
    assert_eq!(of(traced, "getppid").0, u64::from(TURNS), "{traced:#}");
    assert_eq!(of(traced, "read").0, u64::from(TURNS) + 1, "{traced:#}");
    assert_eq!(of(traced, "others").0, others, "{told:?}");
    let mut seen = others;
    for call in traced["syscalls"]["calls"].as_array().expect("a list") {
        let name = call["syscall"].as_str().expect("a name");
        if name == "others" {
            continue;
        }
        assert_eq!(number(&call["count"]), told_of(number_of(name)), "{name}: {told:?}");
        seen += number(&call["count"]);
    }
    let waits = told_of(libc_epoll_wait());
    assert_eq!(number(&traced["iterations"]), waits, "{told:?}");
    // Nothing that bpftrace saw is missing.
    assert_eq!(told.values().sum::<u64>(), seen + waits, "{told:?}\n{traced:#}");
    assert_eq!(number(&traced["syscalls"]["crossings"]), seen + waits);
}
