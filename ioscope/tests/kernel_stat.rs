//! `ioscope stat --json` as a program, compared with the loops' own report: by pid, from a program's first
//! instruction, and across pid namespaces.

mod support;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;

use ioscope::demo::{Pattern, Report, Spec, Start, ThreadReport};
use ioscope_common::WaitCall;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use support::kernel;
use support::tracer::Tracer;
use support::worker::{IOSCOPE, Worker, calls};

/// Whether the probes may be used here; says that the test is skipped if not.
fn may_trace() -> bool {
    Tracer::of(&[]).is_some()
}

/// `ioscope stat --json`, attached; killed if a test fails before it ends.
struct Stat {
    child: Child,
    errors: JoinHandle<String>,
}

impl Stat {
    /// Starts it by `command`, and waits until it is attached.
    fn start(mut command: Command) -> Self {
        command.env("IOSCOPE_READY", "1").stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("ioscope can be run");
        let mut errors = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut line = String::new();
        while line.trim_end() != "ioscope: ready" {
            line.clear();
            assert!(errors.read_line(&mut line).expect("text") > 0, "ioscope ended before it was ready");
            eprint!("{line}");
        }
        let errors = std::thread::spawn(move || {
            let mut rest = String::new();
            errors.read_to_string(&mut rest).expect("text");
            rest
        });
        Self { child, errors }
    }

    /// What it prints when it ends.
    fn end(mut self) -> Value {
        let mut text = String::new();
        self.child.stdout.take().expect("a pipe").read_to_string(&mut text).expect("text");
        let status = self.child.wait().expect("it is ours");
        let errors = self.errors.join().expect("it was read");
        assert!(status.success(), "{status}: {errors}");
        assert_eq!(errors, "", "nothing to complain of");
        serde_json::from_str(&text).expect("JSON")
    }
}

fn stat() -> Command {
    let mut command = Command::new(IOSCOPE);
    command.args(["stat", "--json"]);
    command
}

/// The loop of a thread, by one of its two numbers.
fn loop_of<'a>(summary: &'a Value, number: &str, tid: i32) -> &'a Value {
    let loops = summary["loops"].as_array().expect("an array");
    let mut of_thread = loops.iter().filter(|entry| entry[number] == tid);
    let entry = of_thread.next().unwrap_or_else(|| panic!("no loop {tid}: {summary:#}"));
    assert!(of_thread.next().is_none(), "two loops {tid}: {summary:#}");
    entry
}

/// Compares what the contract says of a loop.
fn compare(entry: &Value, thread: &ThreadReport) {
    let count = |key: &str| entry[key].as_u64().unwrap_or_else(|| panic!("{key}: {entry:#}"));
    let calls: BTreeMap<String, u64> =
        serde_json::from_value(entry["wait_calls"].clone()).expect("counts by name");
    assert_eq!(calls, thread.wait_calls, "{entry:#}");
    assert_eq!(entry["comm"], thread.comm);
    assert_eq!(count("iterations"), thread.iterations, "{entry:#}");
    assert_eq!(count("ready_events"), thread.ready_events, "{entry:#}");
    assert_eq!(count("timeouts"), thread.empty_wakeups, "{entry:#}");
    assert_eq!(count("check_ins"), thread.check_ins + thread.no_minimum, "{entry:#}");
    assert_eq!(count("batch_full"), thread.batch_full.unwrap_or(0), "{entry:#}");
    assert_eq!(count("interrupted"), thread.interrupted, "{entry:#}");
    assert_eq!(count("errors"), thread.errors.values().sum::<u64>(), "{entry:#}");
    assert_eq!(count("missed"), 0, "{entry:#}");
    let of_pollers: u64 = entry["pollers"]
        .as_array()
        .expect("an array")
        .iter()
        .map(|poller| poller["iterations"].as_u64().expect("a count"))
        .sum();
    assert_eq!(of_pollers, thread.iterations, "{entry:#}");
    let times: BTreeMap<String, u64> = serde_json::from_value(entry["time_ns"].clone()).expect("times");
    assert_eq!(times.len(), 6, "{entry:#}");
    assert_eq!(times.values().sum::<u64>(), count("elapsed_ns"), "{entry:#}");
}

fn compare_all(summary: &Value, number: &str, report: &Report) {
    assert_eq!(summary["schema"], 1);
    for reason in ["ring_full", "loops_full", "targets_full", "out_of_directory", "compat_calls"] {
        assert_eq!(summary["dropped"][reason], 0, "{summary:#}");
    }
    for thread in &report.threads {
        compare(loop_of(summary, number, thread.tid), thread);
    }
}

/// Every wait call in some patterns, each with a count of its own.
fn specs() -> Vec<Spec> {
    let patterns =
        [Pattern::AlwaysReady, Pattern::CheckIn, Pattern::Expire, Pattern::Interrupted, Pattern::BadPointer];
    calls()
        .flat_map(|call| patterns.into_iter().map(move |pattern| (call, pattern)))
        .filter(|(call, pattern)| kernel::can(*call, *pattern))
        .zip(1..)
        .map(|((call, pattern), place)| Spec {
            iterations: Some(place),
            period_ns: 200_000,
            ..Spec::new(call, pattern)
        })
        .collect()
}

#[test]
fn stat_of_a_process() {
    if !may_trace() {
        return;
    }
    let mut worker = Worker::of(&specs());
    let mut command = stat();
    command.args(["--pid", &worker.id().to_string()]);
    let stat = Stat::start(command);
    worker.say().expect("the worker listens");
    let report = worker.report().expect("the worker reports");
    // The target's end is the end of the run.
    worker.end().expect("the worker ends");
    let summary = stat.end();
    compare_all(&summary, "tid", &report);
    assert_eq!(summary["loops"].as_array().map(Vec::len), Some(report.threads.len()));
}

/// Interrupted, it prints what it has seen of loops that go on.
#[test]
fn stat_until_interrupted() {
    if !may_trace() {
        return;
    }
    let spec = Spec { start: Start::BeforeGo, iterations: Some(1), ..Spec::default() };
    let worker = Worker::of(&[spec]);
    let mut command = stat();
    command.args(["--pid", &worker.id().to_string()]);
    let stat = Stat::start(command);
    std::thread::sleep(std::time::Duration::from_millis(300));
    kill_process(Pid::from_child(&stat.child), Signal::INT).expect("it takes signals");
    let summary = stat.end();
    let entry = &summary["loops"][0];
    assert_eq!(entry["iterations"], 0, "{summary:#}");
    assert_eq!(entry["time_ns"]["waiting"], entry["elapsed_ns"], "{summary:#}");
}

/// The last line that the worker wrote.
fn read_report(path: &Path) -> Report {
    let text = std::fs::read_to_string(path).expect("the worker has written");
    serde_json::from_str(text.lines().last().expect("a line")).expect("a report")
}

/// A shell that starts a worker, lets it go, and writes what it says to a file.
fn with_worker(mut command: Command, specs: &[Spec], report: &Path) -> Command {
    command.args(["--", "sh", "-c", r#"printf 'go\ngo\n' | "$0" __worker "$1" > "$2""#, IOSCOPE]);
    command.arg(serde_json::to_string(specs).expect("specs are JSON")).arg(report);
    command
}

#[test]
fn stat_of_a_command() {
    if !may_trace() {
        return;
    }
    let file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
    let stat = Stat::start(with_worker(stat(), &specs(), file.path()));
    let summary = stat.end();
    let report = read_report(file.path());
    compare_all(&summary, "tid", &report);
    // The worker's main thread makes the one check-in of every Rust program, and is no loop by that.
    assert_eq!(summary["loops"].as_array().map(Vec::len), Some(report.threads.len()));
}

/// `unshare` with new pid namespace; `None` where it is missing or not allowed.
fn unshare(arguments: &[&str]) -> Option<Command> {
    let works = Command::new("unshare").args(["-pf", "true"]).stderr(Stdio::null()).status();
    if !works.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: unshare is not here, or may not unshare");
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(arguments);
    Some(command)
}

/// The only child of a process.
fn child_of(pid: u32) -> u32 {
    let path = format!("/proc/{pid}/task/{pid}/children");
    std::fs::read_to_string(path).expect("it is running").trim().parse().expect("one child")
}

fn few() -> Vec<Spec> {
    vec![
        Spec { threads: 3, iterations: Some(11), ..Spec::new(WaitCall::EpollPwait, Pattern::AlwaysReady) },
        Spec { iterations: Some(7), ..Spec::new(WaitCall::Ppoll, Pattern::Expire) },
    ]
}

/// A container's process has two numbers, here and in there.
#[test]
fn a_target_in_a_pid_namespace() {
    if !may_trace() {
        return;
    }
    let Some(mut command) = unshare(&["-pf"]) else { return };
    command.arg(IOSCOPE);
    let mut worker = Worker::start(command, &few()).expect("the worker starts");
    let pid = child_of(worker.id());
    let mut command = stat();
    command.args(["--pid", &pid.to_string()]);
    let stat = Stat::start(command);
    worker.say().expect("the worker listens");
    let report = worker.report().expect("the worker reports");
    worker.end().expect("the worker ends");
    let summary = stat.end();
    assert_eq!(report.pid, 1, "the first in its namespace");
    compare_all(&summary, "namespace_tid", &report);
    for entry in summary["loops"].as_array().expect("an array") {
        assert_eq!((&entry["pid"], &entry["namespace_pid"]), (&pid.into(), &1.into()), "{summary:#}");
        assert_ne!(entry["tid"], entry["namespace_tid"], "{summary:#}");
    }
}

/// Inside a namespace, ioscope speaks of the numbers that are valid there.
#[test]
fn ioscope_in_a_pid_namespace() {
    if !may_trace() {
        return;
    }
    let Some(mut command) = unshare(&["-pf", "--mount-proc"]) else { return };
    let file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
    command.args([IOSCOPE, "stat", "--json"]);
    let summary = Stat::start(with_worker(command, &few(), file.path())).end();
    let report = read_report(file.path());
    assert!(report.pid < 20, "a number of the namespace");
    compare_all(&summary, "tid", &report);
    for entry in summary["loops"].as_array().expect("an array") {
        assert_eq!((&entry["pid"], &entry["namespace_pid"]), (&report.pid.into(), &Value::Null));
    }
}
