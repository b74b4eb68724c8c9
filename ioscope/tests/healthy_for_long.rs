//! Real programs at moderate load, all at once and for as long as one wishes: not one stall that is the program's own, nor one that is
//! none. `cargo xtask healthy` runs it; it takes its time, and wants the machine to itself.
//!
//! A thread that waits for a CPU while others have it is stalled indeed: such a stall is shown with its share, and
//! the scheduler's own count of that waiting (`schedstat`) stands beside ioscope's.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::ioscope::{IOSCOPE, Tracing, can_trace, say};
use support::load::{Client, Load};
use support::programs::{Missing, Program};
use support::server::Server;

const PROGRAMS: [Program; 9] = [
    Program::Redis,
    Program::NginxWorkers,
    Program::Node,
    Program::Asyncio,
    Program::TokioMultiThread,
    Program::TokioCurrentThread,
    Program::Go,
    Program::Memcached,
    Program::Haproxy,
];

const CONNECTIONS: usize = 4;
/// Requests in flight together, and how often.
const ROUND: usize = 8;
const EACH: Duration = Duration::from_millis(40);
/// More than there are: the programs that exit after so many do not.
const ENOUGH: usize = 1_000_000_000;
/// How long, in seconds: set by `cargo xtask healthy`.
const SECONDS: &str = "IOSCOPE_HEALTHY_SECONDS";

struct Running {
    program: Program,
    server: Server,
    requests: AtomicU64,
}

/// How long the threads of these processes have waited for a CPU, in nanoseconds, by the scheduler's own count: the second number
/// of `schedstat`.
fn waited_for_cpu(pids: &[u32]) -> u64 {
    let tasks =
        pids.iter().filter_map(|pid| fs::read_dir(format!("/proc/{pid}/task")).ok()).flatten().flatten();
    tasks
        .filter_map(|task| {
            let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split_whitespace().nth(1)?.parse::<u64>().ok()
        })
        .sum()
}

fn milliseconds(ns: u64) -> String {
    format!("{:.1} ms", ns as f64 / 1e6)
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// Whether others had the CPU for most of it: a stall, and not the program's doing.
fn is_for_others(stall: &Value) -> bool {
    let account = &stall["account_ns"];
    (number(&account["preempted"]) + number(&account["throttled"])) * 2 >= number(&stall["duration_ns"])
}

fn told(stall: &Value) -> String {
    let cause = &stall["cause"];
    let share = cause["share"].as_f64().unwrap_or(0.0) * 100.0;
    let what = cause["syscall"].as_str().or(cause["name"].as_str()).unwrap_or("?");
    format!("{} {what} {share:.0} %", milliseconds(number(&stall["duration_ns"])))
}

#[test]
#[ignore = "takes as long as it is told to: cargo xtask healthy"]
fn programs_that_are_healthy_for_long() {
    const TEST: &str = "programs_that_are_healthy_for_long";
    let seconds = std::env::var(SECONDS).ok().and_then(|text| text.parse().ok());
    let Some(lasts) = seconds.map(Duration::from_secs) else {
        return say(&format!("SKIPPED {TEST}: `cargo xtask healthy` says for how long"));
    };
    if !can_trace(TEST) {
        return;
    }
    let mut running = Vec::new();
    for program in PROGRAMS {
        match program.start(ENOUGH) {
            Ok(server) => running.push(Running { program, server, requests: AtomicU64::new(0) }),
            Err(Missing(what)) => say(&format!("without {program:?}: this machine lacks {what}")),
        }
    }
    let done = AtomicBool::new(false);
    let (document, waited) = std::thread::scope(|scope| {
        for one in &running {
            let load = Load { protocol: one.program.protocol(), connections: CONNECTIONS, requests: ROUND };
            let mut client = Client::connect(load, one.server.port).expect("it accepts");
            // A program that is compiled as it runs has done so.
            client.run_at_once().expect("it answers");
            let done = &done;
            scope.spawn(move || {
                let mut next = Instant::now();
                while !done.load(Ordering::Relaxed) {
                    client.run_at_once().expect("it answers");
                    one.requests.fetch_add(ROUND as u64, Ordering::Relaxed);
                    next = (next + EACH).max(Instant::now());
                    std::thread::sleep(next.saturating_duration_since(Instant::now()));
                }
            });
        }
        let pids: Vec<String> =
            running.iter().flat_map(|one| one.server.pids()).map(|pid| pid.to_string()).collect();
        let mut command = Command::new(IOSCOPE);
        command.args(["stat", "--json", "--pid", &pids.join(",")]);
        let waited = |one: &Running| waited_for_cpu(&one.server.pids());
        let ioscope = Tracing::start(command);
        let before: Vec<_> = running.iter().map(waited).collect();
        std::thread::sleep(lasts);
        let after = running.iter().map(waited);
        let waited: Vec<_> = after.zip(before).map(|(after, before)| after.saturating_sub(before)).collect();
        kill_process(Pid::from_child(&ioscope.child), Signal::INT).expect("it is running");
        let (code, mut documents) = ioscope.end();
        done.store(true, Ordering::Relaxed);
        assert_eq!((code, documents.len()), (Some(0), 1));
        (documents.remove(0), waited)
    });
    print(&running, &document, &waited, lasts);
}

/// The table, as docs/findings.md has it. Fails if there was a stall that others do not explain.
fn print(running: &[Running], document: &Value, waited: &[u64], lasts: Duration) {
    let loops = document["loops"].as_array().expect("an array");
    let mut by_process: BTreeMap<u64, Vec<&Value>> = BTreeMap::new();
    for entry in loops {
        by_process.entry(number(&entry["pid"])).or_default().push(entry);
    }
    say(&format!("\n{} s, kernel {}", lasts.as_secs(), document["kernel"].as_str().unwrap_or_default()));
    say(
        "| program | requests | iterations | stalled from | longest slice | its loops READY | its threads waited (schedstat) | stalls | of them others' doing | the program's own |",
    );
    say("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    let mut own_stalls = Vec::new();
    for (one, waited) in running.iter().zip(waited) {
        let pids = one.server.pids();
        let of: Vec<_> = pids.iter().filter_map(|pid| by_process.get(&u64::from(*pid))).flatten().collect();
        let sum = |count: &dyn Fn(&Value) -> u64| of.iter().map(|entry| count(entry)).sum::<u64>();
        let iterations = sum(&|entry| number(&entry["iterations"]));
        assert!(iterations > 0, "{:?} was watched at work", one.program);
        let longest = of.iter().map(|entry| number(&entry["loop_duration_ns"]["max"])).max().unwrap_or(0);
        let stalls: Vec<&Value> = of
            .iter()
            .flat_map(|entry| entry["stalls"]["list"].as_array().into_iter().flatten())
            .chain(of.iter().map(|entry| &entry["stalls"]["ongoing"]).filter(|stall| !stall.is_null()))
            .collect();
        let kept = stalls.len() as u64;
        let ongoing = of.iter().filter(|entry| !entry["stalls"]["ongoing"].is_null()).count() as u64;
        let counted = sum(&|entry| number(&entry["stalls"]["count"])) + ongoing;
        let (others, own): (Vec<_>, Vec<_>) = stalls.into_iter().partition(|stall| is_for_others(stall));
        let list = |stalls: &[&Value]| stalls.iter().map(|stall| told(stall)).collect::<Vec<_>>().join(", ");
        say(&format!(
            "| {:?} | {} | {iterations} | {} | {} | {} | {} | {counted} | {} | {} |",
            one.program,
            one.requests.load(Ordering::Relaxed),
            milliseconds(number(&of[0]["stalls"]["threshold_ns"])),
            milliseconds(longest),
            milliseconds(sum(&|entry| number(&entry["time_ns"]["ready"]))),
            milliseconds(*waited),
            list(&others),
            list(&own),
        ));
        if counted > kept {
            say(&format!("{:?}: {} stalls more are not kept", one.program, counted - kept));
        }
        own_stalls.extend(own.into_iter().map(|stall| format!("{:?}: {stall:#}", one.program)));
    }
    let bad: Vec<_> = document["findings"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|finding| finding["severity"] != "info")
        .map(|finding| format!("{} {} {}", finding["severity"], finding["tag"], finding["comm"]))
        .collect();
    say(&format!(
        "findings at warn or above: {}",
        if bad.is_empty() { "none".to_owned() } else { bad.join(", ") }
    ));
    assert!(own_stalls.is_empty(), "stalls that others do not explain: {}", own_stalls.join("\n"));
}
