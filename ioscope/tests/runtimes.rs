//! Recognition of real programs. One that this machine lacks is skipped, aloud; with
//! `IOSCOPE_TEST_REQUIRE_ALL` set it is a failure.
//!
//! The second source is the kernel: a server without work must be asleep in one of the calls that its
//! runtime is said to wait in.

mod support;

use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use ioscope::runtime::{ElfClass, Recogniser};
use ioscope_common::WaitCall;
use support::load::{Client, Load};
use support::programs::{Missing, Program};
use support::server::Server;

const REQUESTS: usize = 200;
const CONNECTIONS: usize = 4;

/// Runs the program under a little load, and recognises it at rest and with connections open.
#[track_caller]
fn expect(program: Program, name: &str, evidence: &str) {
    let server = match program.start(REQUESTS) {
        Ok(server) => server,
        Err(Missing(what)) => {
            assert!(std::env::var_os("IOSCOPE_TEST_REQUIRE_ALL").is_none(), "{program:?} needs {what}");
            return say(&format!("SKIPPED {program:?}: this machine lacks {what}"));
        }
    };
    let mut recogniser = Recogniser::default();
    let identity = recogniser.identity(server.pid()).expect("it is running");
    assert!(!identity.is_kernel_thread && !identity.command_line.is_empty(), "{identity:?}");
    assert_eq!(identity.elf_class, Some(ElfClass::Elf64), "{identity:?}");

    let runtime = recogniser.recognise(server.pid()).expect("it is recognised");
    assert_eq!(runtime.name, name);
    assert!(runtime.evidence.contains(evidence), "{}", runtime.evidence);
    let call = sleeps_in(&server, runtime.wait_calls);
    say(&format!("{program:?}: {name} ({}), asleep in {}", runtime.evidence, call.name()));

    let load = Load { protocol: program.protocol(), connections: CONNECTIONS, requests: REQUESTS };
    let mut client = Client::connect(load, server.port).expect("it listens");
    let connected = recogniser.recognise(server.pid());
    assert_eq!(connected.map(|runtime| runtime.name), Some(name), "with connections open");
    client.run().expect("it answers");
    if program.exits() {
        let status = server.wait();
        assert!(status.success(), "{status}");
    }
}

/// Past the test harness, which keeps to itself what a passing test prints.
fn say(line: &str) {
    writeln!(std::io::stderr(), "{line}").expect("standard error can be written");
}

/// The expected call that a thread of the server sleeps in, once it does.
fn sleeps_in(server: &Server, expected: &[WaitCall]) -> WaitCall {
    let tasks = format!("/proc/{}/task", server.pid());
    let end = Instant::now() + Duration::from_secs(30);
    let mut seen = Vec::new();
    while Instant::now() < end {
        seen.clear();
        for task in fs::read_dir(&tasks).expect("it is running").flatten() {
            let syscall = fs::read_to_string(task.path().join("syscall")).unwrap_or_default();
            seen.extend(
                syscall.split(' ').next().and_then(|number| number.trim().parse().ok()).and_then(wait_call),
            );
        }
        if let Some(call) = seen.iter().find(|call| expected.contains(call)) {
            return *call;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("asleep in {seen:?}, expected one of {expected:?}");
}

fn wait_call(number: i64) -> Option<WaitCall> {
    Some(match number {
        #[cfg(target_arch = "x86_64")]
        libc::SYS_epoll_wait => WaitCall::EpollWait,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_poll => WaitCall::Poll,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_select => WaitCall::Select,
        libc::SYS_epoll_pwait => WaitCall::EpollPwait,
        libc::SYS_epoll_pwait2 => WaitCall::EpollPwait2,
        libc::SYS_ppoll => WaitCall::Ppoll,
        libc::SYS_pselect6 => WaitCall::Pselect6,
        libc::SYS_io_uring_enter => WaitCall::IoUringEnter,
        _ => return None,
    })
}

#[test]
fn asyncio() {
    expect(Program::Asyncio, "asyncio", "maps _asyncio.");
}

#[test]
fn uvloop() {
    expect(Program::Uvloop, "uvloop", "of uvloop");
}

#[test]
fn gevent() {
    expect(Program::Gevent, "gevent", "of gevent");
}

#[test]
fn python_without_a_library() {
    expect(Program::PythonEpoll, "python", "has an epoll instance open");
}

#[test]
fn node() {
    expect(Program::Node, "libuv", "executable named node");
}

#[test]
fn go() {
    expect(Program::Go, "go", ".go.buildinfo section");
}

#[test]
fn java_nio() {
    expect(Program::JavaNio, "java-nio", "has an epoll instance open");
}

#[test]
fn netty() {
    expect(Program::Netty, "netty", "thread named nioEven");
}

#[test]
fn asio() {
    expect(Program::Asio, "asio", "executable contains 4asio");
}

#[test]
fn tokio_multi_thread() {
    expect(Program::TokioMultiThread, "tokio", "thread named tokio-rt-worker");
}

#[test]
fn tokio_current_thread() {
    expect(Program::TokioCurrentThread, "tokio", "executable contains tokio 1.");
}

#[test]
fn tokio_stripped_and_renamed() {
    expect(Program::TokioStripped, "tokio", "executable contains tokio 1.");
}

#[test]
fn nginx() {
    expect(Program::Nginx, "nginx", "executable named nginx");
}

#[test]
fn redis() {
    expect(Program::Redis, "redis", "named redis-server");
}

#[test]
fn memcached() {
    expect(Program::Memcached, "libevent", "maps libevent-");
}

#[test]
fn haproxy() {
    expect(Program::Haproxy, "haproxy", "executable named haproxy");
}
