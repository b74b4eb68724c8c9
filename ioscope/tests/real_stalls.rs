//! Real programs that stall: what ioscope says of them names the culprit. What is not installed is skipped, aloud.

mod support;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use support::ioscope::{IOSCOPE, can_trace, documents, output, say};

/// Whether a program is installed.
fn has(program: &str, test: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success());
    if !there {
        say(&format!("SKIPPED {test}: {program} is not installed"));
    }
    there
}

/// The stalls of the loop that has most of them, in a program that runs to its end under `ioscope stat`.
fn stalls_of(program: &[&str]) -> Vec<Value> {
    let mut command = Command::new(IOSCOPE);
    command.args(["stat", "--json", "--"]).args(program);
    let traced = output(command);
    let document = documents(&traced.stdout).pop().expect("a summary");
    let loops = document["loops"].as_array().expect("loops");
    let list = |traced: &Value| traced["stalls"]["list"].as_array().expect("a list").clone();
    let worst = loops.iter().map(list).max_by_key(Vec::len);
    worst.unwrap_or_default()
}

fn share(stall: &Value) -> f64 {
    stall["cause"]["share"].as_f64().expect("a number")
}

fn frames(stall: &Value) -> String {
    let frames = stall["stacks"][0]["frames"].as_array().cloned().unwrap_or_default();
    frames.iter().filter_map(|frame| frame["name"].as_str()).collect::<Vec<_>>().join(" < ")
}

/// Tried again where a busy machine may have spoilt it.
fn try_to(program: &[&str], wrong: impl Fn(&[Value]) -> Option<String>) {
    for last in 1..=3 {
        let stalls = stalls_of(program);
        let Some(wrong) = wrong(&stalls) else { return };
        assert!(last < 3, "{wrong}: {stalls:#?}");
    }
}

/// The example that this crate brings along.
fn tokio_blocking() -> String {
    let tests = std::env::current_exe().expect("this is a program");
    let built = tests.ancestors().nth(2).expect("it lies in deps").join("examples/tokio_blocking");
    built.to_str().expect("its path is text").to_owned()
}

#[test]
fn an_idle_tokio_does_not_stall_and_a_blocked_one_does() {
    const TEST: &str = "an_idle_tokio_does_not_stall_and_a_blocked_one_does";
    if !can_trace(TEST) {
        return;
    }
    let program = tokio_blocking();
    for flavour in ["current", "multi"] {
        // What a busy machine does to it is no stall of its own.
        let idle = stalls_of(&[&program, flavour, "idle"]);
        assert!(idle.iter().all(|stall| stall["cause"]["name"] == "preempted"), "{flavour}: {idle:#?}");
        try_to(&[&program, flavour, "block"], |stalls| {
            let slept =
                |stall: &&Value| stall["cause"]["syscall"] == "clock_nanosleep" && share(stall) >= 0.9;
            match stalls.iter().find(slept) {
                None => Some(format!("{flavour}: no sleep")),
                Some(stall) if !frames(stall).contains("blocking_in_a_task") => {
                    Some(format!("{flavour}: the culprit is not named: {}", frames(stall)))
                }
                Some(_) => None,
            }
        });
    }
}

#[test]
fn debug_sleep_in_redis_is_a_sleep() {
    const TEST: &str = "debug_sleep_in_redis_is_a_sleep";
    if !can_trace(TEST) || !has("redis-server", TEST) {
        return;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let socket = directory.path().join("redis");
    let server = format!(
        "exec redis-server --port 0 --unixsocket {} --save '' --enable-debug-command yes > /dev/null",
        socket.display()
    );
    for last in 1..=3 {
        let client_socket = socket.clone();
        let client = std::thread::spawn(move || {
            let end = Instant::now() + Duration::from_secs(20);
            let mut stream = loop {
                match UnixStream::connect(&client_socket) {
                    Ok(stream) => break stream,
                    Err(error) => assert!(Instant::now() < end, "redis does not listen: {error}"),
                }
                std::thread::sleep(Duration::from_millis(20));
            };
            let mut answer = [0; 64];
            stream.write_all(b"DEBUG SLEEP 0.4\r\n").expect("it listens");
            let length = stream.read(&mut answer).expect("it answers");
            assert!(answer[..length].starts_with(b"+OK"), "{}", String::from_utf8_lossy(&answer[..length]));
            stream.write_all(b"SHUTDOWN NOSAVE\r\n").expect("it listens");
            let _ = stream.read(&mut answer);
        });
        let stalls = stalls_of(&["sh", "-c", &server]);
        client.join().expect("the client succeeds");
        let slept = stalls.iter().find(|stall| {
            stall["cause"]["syscall"].as_str().is_some_and(|name| name.ends_with("nanosleep"))
                && share(stall) >= 0.9
        });
        if slept.is_some() {
            return;
        }
        assert!(last < 3, "{stalls:#?}");
    }
}

const ASYNCIO: &str = "
import asyncio, time
async def main():
    for turn in range(30):
        await asyncio.sleep(0.01)
        if turn % 10 == 5:
            time.sleep(0.3)
asyncio.run(main())
";

#[test]
fn a_sleep_in_asyncio_is_a_sleep() {
    const TEST: &str = "a_sleep_in_asyncio_is_a_sleep";
    if !can_trace(TEST) || !has("python3", TEST) {
        return;
    }
    try_to(&["python3", "-c", ASYNCIO], |stalls| {
        let of_sleep = |stall: &&Value| {
            stall["cause"]["syscall"]
                .as_str()
                .is_some_and(|name| name.ends_with("nanosleep") || name == "select")
                && share(stall) >= 0.9
        };
        let slept = stalls.iter().filter(of_sleep).count();
        (slept < 3).then(|| format!("3 sleeps, found {slept}"))
    });
}

const NODE: &str = "
const fs = require('fs');
function spinInCallback(ms) { const end = Date.now() + ms; while (Date.now() < end); }
function syncInCallback(ms) {
    const end = Date.now() + ms, file = fs.openSync('/tmp/ioscope-test-' + process.pid, 'w');
    while (Date.now() < end) { fs.writeSync(file, 'x'); fs.fsyncSync(file); }
    fs.closeSync(file); fs.unlinkSync('/tmp/ioscope-test-' + process.pid);
}
let turn = 0;
const timer = setInterval(() => {
    turn += 1;
    if (turn == 10) (process.argv[1] == 'fsync' ? syncInCallback : spinInCallback)(600);
    if (turn == 20) clearInterval(timer);
}, 10);
";

#[test]
fn a_synchronous_loop_in_node_is_its_own() {
    const TEST: &str = "a_synchronous_loop_in_node_is_its_own";
    if !can_trace(TEST) || !has("node", TEST) {
        return;
    }
    // `node -e` gives the arguments from the second on.
    try_to(&["node", "--perf-basic-prof", "-e", NODE, "spin"], |stalls| {
        let longest = stalls.iter().max_by_key(|stall| stall["duration_ns"].as_u64());
        let Some(stall) = longest else { return Some("no stall".to_owned()) };
        let duration = stall["duration_ns"].as_u64().expect("a number");
        let named = stall["stacks"].as_array().expect("stacks").iter().any(|stack| {
            stack["frames"].as_array().is_some_and(|frames| {
                frames.iter().any(|f| f["name"].as_str().is_some_and(|name| name.contains("spinInCallback")))
            })
        });
        if duration < 590_000_000 {
            Some(format!("it lasted {duration} ns"))
        } else if !named {
            Some(format!("the culprit is not named: {}", frames(stall)))
        } else {
            None
        }
    });
    let perf_map = std::env::temp_dir();
    // What node has written for its functions' names.
    for entry in std::fs::read_dir(perf_map).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let ended = name.strip_prefix("perf-").and_then(|rest| rest.strip_suffix(".map"));
        if ended.is_some_and(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists()) {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[test]
fn fsync_in_node_names_its_file() {
    const TEST: &str = "fsync_in_node_names_its_file";
    if !can_trace(TEST) || !has("node", TEST) {
        return;
    }
    try_to(&["node", "-e", NODE, "fsync"], |stalls| {
        let longest = stalls.iter().max_by_key(|stall| stall["duration_ns"].as_u64());
        let Some(stall) = longest else { return Some("no stall".to_owned()) };
        let blocked = stall["blocked_in"].as_array().expect("a list");
        let fsync = blocked.iter().find(|blocked| blocked["syscall"] == "fsync");
        let file = fsync.and_then(|fsync| fsync["argument"].as_str()).unwrap_or_default();
        (!file.contains("ioscope-test-")).then(|| format!("fsync of {file}"))
    });
}
