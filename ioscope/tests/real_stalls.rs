//! Real programs that stall: what ioscope says of them names the culprit. What is not installed is skipped, aloud.

mod support;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;

use support::again::up_to_three_times;
use support::ioscope::{IOSCOPE, Tracing, can_trace, documents, output, say};

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
    stalls_by_loop(program).into_iter().max_by_key(Vec::len).unwrap_or_default()
}

/// Those of all its loops.
fn all_stalls_of(program: &[&str]) -> Vec<Value> {
    stalls_by_loop(program).concat()
}

fn stalls_by_loop(program: &[&str]) -> Vec<Vec<Value>> {
    let mut command = Command::new(IOSCOPE);
    // node leaves a log where it is started.
    command.args(["stat", "--json", "--"]).args(program).current_dir(std::env::temp_dir());
    let traced = output(command);
    let document = documents(&traced.stdout).pop().expect("a summary");
    let loops = document["loops"].as_array().expect("loops");
    loops.iter().map(stalls_in).collect()
}

/// The stalls of a loop, the one that went on when ioscope left among them.
fn stalls_in(traced: &Value) -> Vec<Value> {
    let mut list = traced["stalls"]["list"].as_array().expect("a list").clone();
    list.extend(Some(traced["stalls"]["ongoing"].clone()).filter(|stall| !stall.is_null()));
    list
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
    up_to_three_times(|| {
        let stalls = stalls_of(program);
        if let Some(wrong) = wrong(&stalls) {
            panic!("{wrong}: {stalls:#?}");
        }
    });
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
        up_to_three_times(|| {
            // What a busy machine does to it is no stall of its own.
            let idle = stalls_of(&[&program, flavour, "idle"]);
            assert!(idle.iter().all(|stall| stall["cause"]["name"] == "preempted"), "{flavour}: {idle:#?}");
        });
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
    up_to_three_times(|| {
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
        let slept = stalls.iter().any(|stall| {
            stall["cause"]["syscall"].as_str().is_some_and(|name| name.ends_with("nanosleep"))
                && share(stall) >= 0.9
        });
        assert!(slept, "{stalls:#?}");
    });
}

const GO: &str = r#"
package main

import (
	"os"
	"time"
)

var sum uint64

//go:noinline
func spinInGoroutine(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
		for i := uint64(0); i < 50000000; i++ {
			sum += i * i
		}
	}
}

func main() {
	// Its threads wait on an epoll instance from the first file on that can be waited for.
	reader, writer, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	go func() {
		buffer := make([]byte, 16)
		for {
			if _, err := reader.Read(buffer); err != nil {
				return
			}
		}
	}()
	for turn := 0; turn < 100; turn++ {
		time.Sleep(10 * time.Millisecond)
		writer.Write([]byte("x"))
		if turn == 30 && len(os.Args) > 1 {
			spinInGoroutine(600 * time.Millisecond)
		}
	}
}
"#;

/// Its monitor sleeps between its looks at the poller, and its threads park: none of that is a stall. A goroutine that computes is its
/// thread's.
#[test]
fn an_idle_go_does_not_stall_and_a_goroutine_that_spins_is_named() {
    const TEST: &str = "an_idle_go_does_not_stall_and_a_goroutine_that_spins_is_named";
    if !can_trace(TEST) {
        return;
    }
    if !Command::new("go").arg("version").output().is_ok_and(|output| output.status.success()) {
        return say(&format!("SKIPPED {TEST}: go is not installed"));
    }
    let directory = tempfile::tempdir().expect("a directory");
    let (source, program) = (directory.path().join("main.go"), directory.path().join("turns"));
    std::fs::write(&source, GO).expect("it can be written");
    let mut compiler = Command::new("go");
    compiler
        .args(["build", "-o"])
        .arg(&program)
        .arg(&source)
        .env("GOFLAGS", "-mod=mod")
        .env("GO111MODULE", "off");
    let built = compiler.output().expect("go starts");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let program = program.to_str().expect("its path is text");

    let its_own = |stalls: &[Value]| -> Vec<Value> {
        stalls.iter().filter(|stall| stall["cause"]["name"] != "preempted").cloned().collect()
    };
    up_to_three_times(|| {
        let idle = its_own(&all_stalls_of(&[program]));
        assert!(idle.is_empty(), "{idle:#?}");
    });
    up_to_three_times(|| {
        let stalls = all_stalls_of(&[program, "spin"]);
        // The thread that spins may be told of, and nobody else.
        let asleep: Vec<_> =
            its_own(&stalls).into_iter().filter(|stall| stall["cause"]["name"] == "blocked").collect();
        assert!(asleep.is_empty(), "{asleep:#?}");
        let longest = stalls.iter().max_by_key(|stall| stall["duration_ns"].as_u64());
        let is_named = longest.is_some_and(|stall| frames(stall).contains("main.spinInGoroutine"));
        assert!(is_named, "{stalls:#?}");
    });
}

/// A redis without a port in a directory of its own, until dropped.
struct Redis {
    child: std::process::Child,
    directory: tempfile::TempDir,
}

impl Redis {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--enable-debug-command", "yes", "--unixsocket"])
            .arg(directory.path().join("redis"))
            .stdout(std::process::Stdio::null())
            .spawn()
            .expect("redis starts");
        Self { child, directory }
    }

    /// Sends a command, and reads the answer until it ends so.
    fn ask(&self, command: &str, end: &str) {
        let deadline = Instant::now() + Duration::from_mins(1);
        let mut stream = loop {
            match UnixStream::connect(self.directory.path().join("redis")) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < deadline, "redis does not listen: {error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        stream.write_all(format!("{command}\r\n").as_bytes()).expect("it listens");
        let (mut tail, mut buffer) = (Vec::new(), vec![0; 1 << 16]);
        while !tail.ends_with(end.as_bytes()) {
            let length = stream.read(&mut buffer).expect("it answers");
            assert!(length > 0, "{command}: {}", String::from_utf8_lossy(&tail));
            tail.extend_from_slice(&buffer[..length]);
            let keep = tail.len().saturating_sub(256);
            tail.drain(..keep);
        }
    }

    /// What `ioscope stat` says of its loop, with these arguments, while this happens.
    fn traced(&self, arguments: &[&str], happens: impl FnOnce()) -> Value {
        let mut command = Command::new(IOSCOPE);
        command.args(["stat", "--json", "--pid", &self.child.id().to_string()]).args(arguments);
        let tracing = Tracing::start(command);
        happens();
        let pid = rustix::process::Pid::from_child(&tracing.child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("it is running");
        let (_, mut documents) = tracing.end();
        documents[0]["loops"][0].take()
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two million keys take redis a good part of a second to go through.
const KEYS: u32 = 2_000_000;

#[test]
fn keys_in_a_full_redis_is_named() {
    const TEST: &str = "keys_in_a_full_redis_is_named";
    if !can_trace(TEST) || !has("redis-server", TEST) {
        return;
    }
    let redis = Redis::start();
    redis.ask(&format!("DEBUG POPULATE {KEYS}"), "+OK\r\n");
    up_to_three_times(|| {
        // None of them matches, so that nothing but the search takes time.
        let traced = redis.traced(&[], || redis.ask("KEYS nothing-is-called-so", "*0\r\n"));
        assert_eq!(traced["runtime"], "redis", "{traced:#}");
        // It answers before it waits again.
        let stalls = stalls_in(&traced);
        let longest = stalls.iter().max_by_key(|stall| stall["duration_ns"].as_u64());
        let stall = longest.unwrap_or_else(|| panic!("no stall: {traced:#}"));
        let of = |part: &str| stall["account_ns"][part].as_f64().unwrap_or(0.0);
        let computing = of("user");
        // What others took of the CPU is not its own doing.
        let own = computing / (stall["duration_ns"].as_f64().expect("a number") - of("preempted"));
        let named = stall["stacks"].as_array().expect("stacks").iter().any(|stack| {
            let frames = stack["frames"].as_array().cloned().unwrap_or_default();
            frames.iter().any(|frame| frame["name"].as_str().is_some_and(|name| name.contains("keysCommand")))
        });
        assert!(
            computing >= 150e6 && named && own >= 0.9,
            "{computing} ns computing, {own} of its own, named: {named}: {traced:#}"
        );
    });
}

/// What the slow log of redis takes for slow: no threshold was asked for.
#[test]
fn redis_is_judged_by_its_own_number() {
    const TEST: &str = "redis_is_judged_by_its_own_number";
    if !can_trace(TEST) || !has("redis-server", TEST) {
        return;
    }
    let redis = Redis::start();
    redis.ask("PING", "+PONG\r\n");
    up_to_three_times(|| {
        let sleep = || {
            // The runtime is known with the first batch.
            std::thread::sleep(Duration::from_millis(600));
            redis.ask("DEBUG SLEEP 0.03", "+OK\r\n");
        };
        let traced = redis.traced(&[], sleep);
        assert_eq!(traced["stalls"]["threshold_ns"], 10_000_000, "{traced:#}");
        let slept = |stall: &Value| {
            stall["cause"]["syscall"].as_str().is_some_and(|name| name.ends_with("nanosleep"))
                && (30_000_000..60_000_000).contains(&stall["duration_ns"].as_u64().expect("a number"))
        };
        let list = stalls_in(&traced);
        assert_eq!(list.iter().filter(|stall| slept(stall)).count(), 1, "{traced:#}");
        // Who says so has it otherwise.
        let traced = redis.traced(&["--stall-threshold", "1s"], sleep);
        assert_eq!(traced["stalls"]["threshold_ns"], 1_000_000_000, "{traced:#}");
        assert_eq!(traced["stalls"]["count"], 0, "{traced:#}");
    });
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
