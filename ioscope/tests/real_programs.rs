//! Real programs under a fixed load: ioscope counts what a second source counts, thread by thread, to the
//! last iteration and the last ready event.
//!
//! Both watch the same processes over the same events. They attach either while the program sleeps in its
//! wait calls, which is how ioscope mostly finds one, and detach while it does again; or, where it never sleeps
//! for long (a timer of redis goes off ten times a second), while it is stopped: a stop makes every wait call
//! return, so that neither can see one that the other does not.
//!
//! A program that this machine lacks is skipped, aloud, as is everything where ioscope may not trace.
//! `--nocapture --test-threads 1` shows the table.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::ioscope::{IOSCOPE, Tracing, can_trace, say};
use support::load::{Client, Load};
use support::programs::{Missing, Program};
use support::second_source::{Tallies, Tally, Tool};
use support::server::Server;

/// More requests than any load has: the programs that exit after so many do not.
const ENOUGH: usize = 1_000_000_000;
const REQUESTS: usize = 2_000;
const CONNECTIONS: usize = 8;
/// How often a program that wakes by itself while the tools attach or detach is started again.
const TRIES: u32 = 5;
const PATIENCE: Duration = Duration::from_secs(20);

/// How a program is when the tools attach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// Every loop sleeps in a wait call. Its return, with the first request, is the first iteration.
    Asleep,
    /// By a signal; outside wait calls, for it made them return.
    Stopped,
}

/// What is expected of a program, besides that the counts are equal.
struct Expected {
    runtime: &'static str,
    found: Found,
    /// How many loops there are at least, those that had nothing to do included.
    loops: usize,
}

/// The load on a program, prepared before the tools attach. It returns how many events the program itself
/// says it had ready, where it says so.
type Work = Box<dyn FnOnce() -> Option<u64>>;

/// One program at a time: there are not many CPUs.
static TURN: Mutex<()> = Mutex::new(());

/// Runs a program under a load, watched by ioscope and the second source, and compares what they counted.
#[track_caller]
fn compare(program: Program, expected: &Expected, prepare: impl Fn(&Server) -> Work) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let name = format!("{program:?}");
    if !can_trace(&name) {
        return;
    }
    let tool = match Tool::choose() {
        Ok(tool) => tool,
        Err(reason) => return skip(&name, &reason),
    };
    // strace interrupts a call to attach.
    let found = if tool == Tool::Strace { Found::Stopped } else { expected.found };
    for _ in 0..TRIES {
        let server = match program.start(ENOUGH) {
            Ok(server) => server,
            Err(Missing(what)) => return skip(&name, &format!("this machine lacks {what}")),
        };
        if let Some(run) = watch(&server, tool, found, &prepare) {
            return run.judge(&name, tool, expected);
        }
        say(&format!("{name} woke up while the tools attached or detached: once more"));
    }
    panic!("{name} never sleeps");
}

#[track_caller]
fn skip(name: &str, reason: &str) {
    assert!(std::env::var_os("IOSCOPE_TEST_REQUIRE_ALL").is_none(), "{name}: {reason}");
    say(&format!("SKIPPED {name}: {reason}"));
}

/// What was counted in one run.
struct Run {
    report: Value,
    second: Tallies,
    own: Option<u64>,
}

/// One run; `None` when the program was not as it should have been found.
fn watch(server: &Server, tool: Tool, found: Found, prepare: impl Fn(&Server) -> Work) -> Option<Run> {
    let pids = server.pids();
    let work = prepare(server);
    settle(&pids);
    if found == Found::Stopped {
        stop(&pids);
    }
    let before = sleepers(&pids);
    let second = tool.start(&pids);
    let list = pids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let mut command = Command::new(IOSCOPE);
    command.args(["stat", "--json", "--pid", &list]);
    let ioscope = Tracing::start(command);
    if found == Found::Stopped {
        signal(&pids, Signal::CONT);
    } else if before.is_empty() || sleepers(&pids) != before {
        return None;
    }
    let own = work();
    settle(&pids);
    if found == Found::Stopped {
        stop(&pids);
    }
    let before = sleepers(&pids);
    kill_process(Pid::from_child(&ioscope.child), Signal::INT).expect("it is running");
    let (code, documents) = ioscope.end();
    assert_eq!(code, Some(0));
    let [report] = <[Value; 1]>::try_from(documents).expect("one document");
    let second = second.end();
    if found == Found::Asleep && sleepers(&pids) != before {
        return None;
    }
    Some(Run { report, second, own })
}

impl Run {
    #[track_caller]
    fn judge(&self, name: &str, tool: Tool, expected: &Expected) {
        let all = self.report["loops"].as_array().expect("there are loops");
        let loops: Vec<&Value> = all.iter().filter(|entry| entry["iterations"] != 0).collect();
        let first: Tallies = loops
            .iter()
            .map(|entry| (number(&entry["tid"]).try_into().expect("a tid"), tally(entry)))
            .collect();
        self.print(name, tool, &loops, &first);
        assert_eq!(first, self.second, "{name}: ioscope, then {}", tool.name());
        assert!(all.len() >= expected.loops, "{name} has {} loops", all.len());
        for (what, count) in self.report["dropped"].as_object().expect("an object") {
            assert_eq!(count, 0, "{what}");
        }
        for entry in all {
            assert_eq!(entry["runtime"], expected.runtime, "{entry:#}");
            assert_eq!(entry["missed"], 0, "{entry:#}");
            let states = entry["time_ns"].as_object().expect("an object").values().map(number).sum::<u64>();
            assert_eq!(states, number(&entry["elapsed_ns"]), "{entry:#}");
        }
        if let Some(own) = self.own {
            let ready: u64 = first.values().map(|tally| tally.ready).sum();
            assert_eq!(ready, own, "{name}: ready events, then its own figure");
        }
    }

    /// A row of the table in docs/real-programs.md; with `IOSCOPE_TEST_DETAILS`, a line per loop, too.
    fn print(&self, name: &str, tool: Tool, loops: &[&Value], first: &Tallies) {
        let of = |tallies: &Tallies| {
            let (iterations, ready) = tallies.values().fold((0, 0), |(iterations, ready), tally| {
                (iterations + tally.iterations(), ready + tally.ready)
            });
            format!("{iterations} | {ready}")
        };
        let mut calls = BTreeMap::<&str, u64>::new();
        for (call, count) in first.values().flat_map(|tally| &tally.returns) {
            *calls.entry(call).or_default() += count;
        }
        let calls =
            calls.iter().map(|(call, count)| format!("{call} {count}")).collect::<Vec<_>>().join(", ");
        let own = self.own.map_or_else(|| "-".to_owned(), |own| own.to_string());
        let Some(busiest) = loops.iter().max_by_key(|entry| number(&entry["iterations"])) else { return };
        say(&format!(
            "| {name} | {} | {} | {calls} | {} | {} {} | {own} | {} |",
            busiest["runtime"].as_str().unwrap_or("?"),
            loops.len(),
            of(first),
            tool.name(),
            of(&self.second),
            times(busiest),
        ));
        if std::env::var_os("IOSCOPE_TEST_DETAILS").is_none() {
            return;
        }
        for entry in loops {
            let share = |state: &str| {
                format!(
                    "{state} {}",
                    number(&entry["time_ns"][state]) * 1_000 / number(&entry["elapsed_ns"]).max(1)
                )
            };
            say(&format!(
                "    {} {}/{}: iterations {}, ready {}, check-ins {}, interrupted {} | {} | per mille: {}; blocked in {}",
                entry["comm"].as_str().unwrap_or("?"),
                entry["pid"],
                entry["tid"],
                entry["iterations"],
                entry["ready_events"],
                entry["check_ins"],
                entry["interrupted"],
                times(entry),
                ["waiting", "polling", "ready", "running", "blocked", "parked"].map(share).join(" "),
                entry["blocked_in"],
            ));
        }
    }
}

/// A loop's utilisation in per cent, and its wakeup latencies in microseconds.
fn times(entry: &Value) -> String {
    let tenths = |nanoseconds: u64| format!("{}.{}", nanoseconds / 1_000, nanoseconds / 100 % 10);
    let latency = &entry["wakeup_latency_ns"];
    format!(
        "{:.0} % | {} / {}",
        entry["utilisation"].as_f64().unwrap_or(0.0) * 100.0,
        tenths(number(&latency["p50"])),
        tenths(number(&latency["p99"])),
    )
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no number: {value}"))
}

fn tally(entry: &Value) -> Tally {
    let calls = entry["wait_calls"].as_object().expect("an object");
    let returns: BTreeMap<String, u64> =
        calls.iter().map(|(call, count)| (call.clone(), number(count))).collect();
    let tally = Tally { returns, ready: number(&entry["ready_events"]) };
    assert_eq!(tally.iterations(), number(&entry["iterations"]), "{entry:#}");
    tally
}

/// The threads that sleep in a wait call, and how often each has gone to sleep.
fn sleepers(pids: &[u32]) -> BTreeMap<String, String> {
    let numbers: Vec<String> = wait_call_numbers().iter().map(ToString::to_string).collect();
    let sleeper = |task: fs::DirEntry| {
        let syscall = fs::read_to_string(task.path().join("syscall")).ok()?;
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let sleeps = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches"))?;
        let waits = numbers.iter().any(|number| syscall.split(' ').next() == Some(number));
        waits.then(|| (task.path().display().to_string(), sleeps.to_owned()))
    };
    let tasks = |pid| fs::read_dir(format!("/proc/{pid}/task")).expect("it is running").flatten();
    pids.iter().flat_map(tasks).filter_map(sleeper).collect()
}

fn wait_call_numbers() -> Vec<i64> {
    vec![
        #[cfg(target_arch = "x86_64")]
        libc::SYS_epoll_wait,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_poll,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_select,
        libc::SYS_epoll_pwait,
        libc::SYS_epoll_pwait2,
        libc::SYS_ppoll,
        libc::SYS_pselect6,
        libc::SYS_io_uring_enter,
    ]
}

/// Waits until the loops have gone to sleep, or for a while: some never do for long.
fn settle(pids: &[u32]) {
    let mut before = sleepers(pids);
    for _ in 0..10 {
        sleep(Duration::from_millis(30));
        let now = sleepers(pids);
        if !now.is_empty() && now == before {
            return;
        }
        before = now;
    }
}

/// Stops the processes, and waits until every thread is.
fn stop(pids: &[u32]) {
    signal(pids, Signal::STOP);
    let end = Instant::now() + PATIENCE;
    let is_stopped = |task: fs::DirEntry| {
        // A thread that has ended meanwhile is as good.
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_else(|_| ") T".to_owned());
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['T', 't', 'Z']))
    };
    let tasks = |pid| fs::read_dir(format!("/proc/{pid}/task")).expect("it is running").flatten();
    while !pids.iter().flat_map(tasks).all(is_stopped) {
        assert!(Instant::now() < end, "{pids:?} do not stop");
        sleep(Duration::from_millis(5));
    }
}

fn signal(pids: &[u32], signal: Signal) {
    for pid in pids {
        let pid = i32::try_from(*pid).ok().and_then(Pid::from_raw).expect("a pid");
        kill_process(pid, signal).expect("it is ours");
    }
}

/// The tests' own client: requests one by one and several at once on connections that were there before,
/// then on new ones, which are closed again.
fn own_client(program: Program) -> impl Fn(&Server) -> Work {
    move |server| {
        let load = Load { protocol: program.protocol(), connections: CONNECTIONS, requests: REQUESTS };
        let port = server.port;
        let mut client = Client::connect(load, port).expect("it listens");
        Box::new(move || {
            client.run().expect("it answers");
            client.run_at_once().expect("it answers");
            let few = Load { requests: CONNECTIONS, ..load };
            Client::connect(few, port).and_then(|mut other| other.run()).expect("it accepts and answers");
            None
        })
    }
}

/// A load generator as people use it.
fn generator(mut command: Command) -> Work {
    Box::new(move || {
        command.stdin(Stdio::null()).stdout(Stdio::null());
        assert!(command.status().expect("it starts").success(), "{command:?}");
        None
    })
}

fn has(name: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let has = std::env::split_paths(&paths).any(|path| path.join(name).is_file());
    if !has {
        skip(name, &format!("this machine lacks {name}"));
    }
    has
}

/// The figure that a server's status text has behind `name`.
fn figure(text: &str, name: &str) -> u64 {
    let (_, rest) = text.split_once(name).unwrap_or_else(|| panic!("no {name} in {text}"));
    let digits: String = rest.trim_start().chars().take_while(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

/// Asks on a connection that is open already, so that the question is one ready event.
fn ask(connection: &mut TcpStream, question: &[u8], end: &str) -> String {
    connection.write_all(question).expect("it listens");
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains(end) {
        let mut buffer = [0; 16_384];
        let length = connection.read(&mut buffer).expect("it answers");
        assert!(length > 0, "it hung up");
        answer.extend_from_slice(&buffer[..length]);
    }
    String::from_utf8_lossy(&answer).into_owned()
}

/// Requests on open connections, between two looks at a figure of the program's own, which counts its reads:
/// each is one ready event, the second look included.
fn with_own_figure(
    program: Program,
    look: impl Fn(&mut TcpStream) -> u64 + Copy + 'static,
) -> impl Fn(&Server) -> Work {
    move |server| {
        let load = Load { protocol: program.protocol(), connections: CONNECTIONS, requests: REQUESTS };
        let mut client = Client::connect(load, server.port).expect("it listens");
        let mut control = TcpStream::connect((Ipv4Addr::LOCALHOST, server.port)).expect("it listens");
        control.set_read_timeout(Some(PATIENCE)).expect("a socket has one");
        // Every connection is accepted by then.
        client.run().expect("it answers");
        let before = look(&mut control);
        Box::new(move || {
            client.run().expect("it answers");
            client.run_at_once().expect("it answers");
            let own = look(&mut control) - before;
            // Open until the tools are gone: a hang-up is a ready event, too.
            std::mem::forget((client, control));
            Some(own)
        })
    }
}

macro_rules! with_own_client {
    ($($test:ident: $program:ident, $runtime:literal, $found:ident, $loops:literal;)*) => {$(
        #[test]
        fn $test() {
            let program = Program::$program;
            let expected = Expected { runtime: $runtime, found: Found::$found, loops: $loops };
            compare(program, &expected, own_client(program));
        }
    )*};
}

with_own_client! {
    asyncio: Asyncio, "asyncio", Asleep, 1;
    uvloop: Uvloop, "uvloop", Asleep, 1;
    gevent: Gevent, "gevent", Asleep, 1;
    python_without_a_library: PythonEpoll, "python", Asleep, 1;
    node: Node, "libuv", Asleep, 2;
    go: Go, "go", Asleep, 1;
    java_nio: JavaNio, "java-nio", Asleep, 1;
    netty: Netty, "netty", Asleep, 1;
    asio: Asio, "asio", Asleep, 1;
    tokio_multi_thread: TokioMultiThread, "tokio", Asleep, 1;
    tokio_current_thread: TokioCurrentThread, "tokio", Asleep, 1;
    nginx: Nginx, "nginx", Asleep, 1;
    nginx_workers: NginxWorkers, "nginx", Asleep, 2;
    redis: Redis, "redis", Stopped, 1;
    memcached: Memcached, "libevent", Stopped, 2;
    haproxy: Haproxy, "haproxy", Stopped, 1;
}

#[test]
fn go_stopped() {
    let expected = Expected { runtime: "go", found: Found::Stopped, loops: 1 };
    compare(Program::Go, &expected, own_client(Program::Go));
}

#[test]
fn redis_by_its_own_figure() {
    let expected = Expected { runtime: "redis", found: Found::Stopped, loops: 1 };
    let look = |control: &mut TcpStream| {
        figure(&ask(control, b"INFO stats\r\n", "dump_payload_sanitizations"), "total_reads_processed:")
    };
    compare(Program::Redis, &expected, with_own_figure(Program::Redis, look));
}

#[test]
fn nginx_by_its_own_figure() {
    let expected = Expected { runtime: "nginx", found: Found::Asleep, loops: 1 };
    let look = |control: &mut TcpStream| {
        let request = b"GET /status HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let status = ask(control, request, "Waiting:");
        // Under the headings: accepted, handled, requests.
        let numbers = status.split_once("requests\n").expect("a status").1;
        numbers.split_whitespace().nth(2).and_then(|number| number.parse().ok()).expect("a number")
    };
    compare(Program::Nginx, &expected, with_own_figure(Program::Nginx, look));
}

#[test]
fn redis_under_redis_benchmark() {
    if !has("redis-benchmark") {
        return;
    }
    let expected = Expected { runtime: "redis", found: Found::Stopped, loops: 1 };
    compare(Program::Redis, &expected, |server| {
        let mut command = Command::new("redis-benchmark");
        let port = server.port.to_string();
        command.args(["-p", &port, "-n", "20000", "-c", "20", "-t", "set,get", "-q"]);
        generator(command)
    });
}

#[test]
fn nginx_under_wrk() {
    if !has("wrk") {
        return;
    }
    let expected = Expected { runtime: "nginx", found: Found::Asleep, loops: 2 };
    compare(Program::NginxWorkers, &expected, |server| {
        let mut command = Command::new("wrk");
        let url = format!("http://127.0.0.1:{}/", server.port);
        command.args(["-t", "1", "-c", "20", "-d", "1s", &url]);
        generator(command)
    });
}
