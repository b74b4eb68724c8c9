//! Real programs at work, with nothing wrong with them: no finding that is worth a warning.
//!
//! Two seconds each of requests on eight connections that are in flight together. What comes of a machine that has
//! other work, ioscope finds too, and rightly: where the kernel's own count says that the program waited for a CPU
//! for long, findings of delays are told, and are no failure. A program that this machine lacks is skipped, aloud.
//! `--nocapture --test-threads 1` shows what was found.

mod support;

use std::fs;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::ioscope::{IOSCOPE, Tracing, can_trace, say};
use support::load::{Client, Load};
use support::programs::{Missing, Program};

const CONNECTIONS: usize = 8;
/// Requests between two looks at the clock.
const ROUND: usize = 80;
const LOAD_LASTS: Duration = Duration::from_secs(2);
/// More requests than any load has: the programs that exit after so many do not.
const ENOUGH: usize = 1_000_000_000;

/// A machine that keeps a program waiting for a CPU for so much of the time is busy with others.
const BUSY_SHARE: f64 = 0.05;
/// What that explains: a lock whose holder has no CPU is held for long, too.
const OF_BUSY_MACHINES: [&str; 5] =
    ["run-queue-starvation", "long-ready-delay", "poll-delay", "cgroup-throttling", "blocking-call"];

/// How long the threads of these processes have waited for a CPU, in nanoseconds: the scheduler's own count, the
/// second number of `/proc/PID/task/TID/schedstat`. The most of any.
fn waited_for_cpu(pids: &[u32]) -> u64 {
    let tasks = pids.iter().filter_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).ok()).flatten();
    let waited = tasks.filter_map(|task| {
        let text = fs::read_to_string(task.ok()?.path().join("schedstat")).ok()?;
        text.split_whitespace().nth(1)?.parse().ok()
    });
    waited.max().unwrap_or(0)
}

#[track_caller]
fn is_healthy(program: Program) {
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let name = format!("{program:?}");
    if !can_trace(&name) {
        return;
    }
    let server = match program.start(ENOUGH) {
        Ok(server) => server,
        Err(Missing(what)) => {
            assert!(std::env::var_os("IOSCOPE_TEST_REQUIRE_ALL").is_none(), "{name} needs {what}");
            return say(&format!("SKIPPED {name}: this machine lacks {what}"));
        }
    };
    let load = Load { protocol: program.protocol(), connections: CONNECTIONS, requests: ROUND };
    let mut client = Client::connect(load, server.port).expect("it accepts");
    // A program that is compiled as it runs has done so.
    client.run_at_once().expect("it answers");
    let pids = server.pids();
    let list = pids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let mut command = Command::new(IOSCOPE);
    command.args(["stat", "--json", "--pid", &list]);
    let ioscope = Tracing::start(command);
    let (begun, before) = (Instant::now(), waited_for_cpu(&pids));
    let mut requests = 0;
    while begun.elapsed() < LOAD_LASTS {
        client.run_at_once().expect("it answers");
        requests += ROUND;
    }
    let waited = (waited_for_cpu(&pids) - before) as f64 / begun.elapsed().as_nanos() as f64;
    kill_process(Pid::from_child(&ioscope.child), Signal::INT).expect("it is running");
    let (code, documents) = ioscope.end();
    assert_eq!((code, documents.len()), (Some(0), 1));
    let report = &documents[0];
    let served: u64 = sum(report, "ready_events");
    assert!(served as usize * 2 > requests, "it was watched at work: {served} events, {requests} requests");

    let findings = report["findings"].as_array().expect("an array");
    let told: Vec<String> = findings
        .iter()
        .map(|finding| format!("{} {} {}", finding["severity"], finding["tag"], finding["evidence"]))
        .collect();
    let busy = waited >= BUSY_SHARE;
    say(&format!("{name}: {requests} requests, waited {:.1} % for a CPU; {told:?}", waited * 100.0));
    let bad = findings.iter().filter(|finding| finding["severity"] != "info");
    let unexplained: Vec<_> = bad
        .filter(|finding| !busy || !OF_BUSY_MACHINES.contains(&finding["tag"].as_str().unwrap_or_default()))
        .collect();
    assert!(unexplained.is_empty(), "{name}: {unexplained:#?}");
}

fn sum(report: &Value, key: &str) -> u64 {
    report["loops"].as_array().expect("an array").iter().filter_map(|entry| entry[key].as_u64()).sum()
}

#[test]
fn redis() {
    is_healthy(Program::Redis);
}

#[test]
fn nginx() {
    is_healthy(Program::NginxWorkers);
}

#[test]
fn memcached() {
    is_healthy(Program::Memcached);
}

#[test]
fn haproxy() {
    is_healthy(Program::Haproxy);
}

#[test]
fn node() {
    is_healthy(Program::Node);
}

#[test]
fn asyncio() {
    is_healthy(Program::Asyncio);
}

#[test]
fn tokio_multi_thread() {
    is_healthy(Program::TokioMultiThread);
}

#[test]
fn tokio_current_thread() {
    is_healthy(Program::TokioCurrentThread);
}

#[test]
fn go() {
    is_healthy(Program::Go);
}

#[test]
fn java() {
    is_healthy(Program::JavaNio);
}

#[test]
fn asio() {
    is_healthy(Program::Asio);
}
