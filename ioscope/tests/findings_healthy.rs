//! Real programs at work, with nothing wrong with them: no finding that is worth a warning.
//!
//! Two seconds each of requests on eight connections that are in flight together. What comes of a machine that has
//! other work, ioscope finds too, and rightly: where others had a tenth of the CPUs' time, findings of delays are told,
//! and are no failure. A program that this machine lacks is skipped, aloud.
//! `--nocapture --test-threads 1` shows what was found.

mod support;

use std::cell::RefCell;
use std::fs;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::again::up_to_three_times;
use support::ioscope::{IOSCOPE, Tracing, can_trace, say};
use support::load::{Client, Load};
use support::programs::{Missing, Program};

const CONNECTIONS: usize = 8;
/// Requests between two looks at the clock.
const ROUND: usize = 80;
const LOAD_LASTS: Duration = Duration::from_secs(2);
/// More requests than any load has: the programs that exit after so many do not.
const ENOUGH: usize = 1_000_000_000;

/// A machine whose CPUs do other work for so much of their time is busy with that.
const BUSY_SHARE: f64 = 0.10;
/// What that explains: a lock whose holder has no CPU is held for long, too.
const OF_BUSY_MACHINES: [&str; 6] = [
    "run-queue-starvation",
    "long-ready-delay",
    "poll-delay",
    "cgroup-throttling",
    "blocking-call",
    "poller-unpolled",
];

/// What the CPUs have done, in clock ticks: all together, and of that, anything at all; the first line of `/proc/stat`.
fn machine() -> (u64, u64) {
    let text = fs::read_to_string("/proc/stat").expect("it is there");
    let line = text.lines().next().unwrap_or_default();
    let ticks: Vec<u64> =
        line.split_whitespace().skip(1).take(8).filter_map(|ticks| ticks.parse().ok()).collect();
    // user nice system idle iowait irq softirq steal
    let all = ticks.iter().sum();
    (all, all - ticks[3] - ticks[4])
}

/// The CPU time of these processes, in clock ticks: fields 14 and 15 of `/proc/PID/stat`.
fn cpu_of(pids: impl IntoIterator<Item = u32>) -> u64 {
    let of = |pid: u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let (_, fields) = text.rsplit_once(')')?;
        let times = fields.split_whitespace().skip(11).take(2);
        Some(times.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>())
    };
    pids.into_iter().filter_map(of).sum()
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
    let client = RefCell::new(client);
    // A machine that is itself a guest has hiccups that nobody counts: what is the program's own comes again.
    up_to_three_times(|| {
        let unexplained = what_is_wrong(&name, &server.pids(), &mut client.borrow_mut());
        assert!(unexplained.is_empty(), "{name}: {unexplained:#?}");
    });
}

/// What ioscope finds wrong with a server under load, unless it is that the machine is busy.
fn what_is_wrong(name: &str, pids: &[u32], client: &mut Client) -> Vec<Value> {
    let list = pids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let mut command = Command::new(IOSCOPE);
    command.args(["stat", "--json", "--pid", &list]);
    let ioscope = Tracing::start(command);
    let ours = || cpu_of(pids.iter().copied().chain([std::process::id(), ioscope.child.id()]));
    let (begun, before) = (Instant::now(), (machine(), ours()));
    let mut requests = 0_u64;
    while begun.elapsed() < LOAD_LASTS {
        client.run_at_once().expect("it answers");
        requests += ROUND as u64;
    }
    let after = (machine(), ours());
    let others = (after.0.1 - before.0.1).saturating_sub(after.1 - before.1);
    let others = others as f64 / (after.0.0 - before.0.0).max(1) as f64;
    kill_process(Pid::from_child(&ioscope.child), Signal::INT).expect("it is running");
    let (code, documents) = ioscope.end();
    assert_eq!((code, documents.len()), (Some(0), 1));
    let report = &documents[0];
    let events = sum(report, "ready_events");
    assert!(events * 2 > requests, "it was watched at work: {events} events, {requests} requests");

    let findings = report["findings"].as_array().expect("an array");
    let told: Vec<String> = findings
        .iter()
        .map(|finding| format!("{} {} {}", finding["severity"], finding["tag"], finding["evidence"]))
        .collect();
    let busy = others >= BUSY_SHARE;
    say(&format!("{name}: {requests} requests, others had {:.1} % of the machine; {told:?}", others * 100.0));
    let bad = findings.iter().filter(|finding| finding["severity"] != "info");
    bad.filter(|finding| !busy || !OF_BUSY_MACHINES.contains(&finding["tag"].as_str().unwrap_or_default()))
        .cloned()
        .collect()
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
