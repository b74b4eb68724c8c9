//! A server program, running: started, waited for, and killed at the latest when it is dropped.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A server that is not ready, or does not exit, within this has failed.
const PATIENCE: Duration = Duration::from_mins(1);

/// How one learns that a server is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Readiness {
    /// It prints a line `ready`.
    Says,
    /// It accepts a connection: one more than the load's.
    Accepts,
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) port: u16,
    // What it was built into and configured from.
    _directory: TempDir,
}

impl Server {
    /// Starts it and waits until it is ready.
    pub(crate) fn start(mut command: Command, readiness: Readiness, port: u16, directory: TempDir) -> Self {
        let stdout = if readiness == Readiness::Says { Stdio::piped() } else { Stdio::null() };
        let child = command.stdin(Stdio::null()).stdout(stdout).spawn();
        let child = child.unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        // From here on a panic kills it.
        let mut server = Self { child, port, _directory: directory };
        match readiness {
            Readiness::Says => server.wait_for_word(),
            Readiness::Accepts => server.wait_for_port(),
        }
        server
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// It, and the processes that it has started.
    pub(crate) fn pids(&self) -> Vec<u32> {
        let pid = self.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        std::iter::once(pid)
            .chain(children.split_whitespace().filter_map(|child| child.parse().ok()))
            .collect()
    }

    /// Waits until it has started so many processes.
    pub(crate) fn wait_for_children(&self, count: usize) {
        let end = Instant::now() + PATIENCE;
        while self.pids().len() <= count {
            assert!(Instant::now() < end, "the server does not start its processes");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until one of its threads is called so.
    pub(crate) fn wait_for_thread(&self, prefix: &str) {
        let end = Instant::now() + PATIENCE;
        let is_there = || {
            let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).into_iter().flatten().flatten();
            let mut names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
            names.any(|name| name.starts_with(prefix))
        };
        while !is_there() {
            assert!(Instant::now() < end, "no thread {prefix}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for it to exit of its own accord.
    pub(crate) fn wait(mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("pid {} handled its requests and does not exit", self.pid());
    }

    fn wait_for_word(&mut self) {
        let stdout = self.child.stdout.take().expect("it is piped");
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).expect("a pipe can be read");
        assert_eq!(line.trim_end(), "ready", "the server's first line");
    }

    fn wait_for_port(&mut self) {
        let end = Instant::now() + PATIENCE;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_err() {
            let exited = self.child.try_wait().expect("it is our child");
            assert!(exited.is_none(), "the server exited: {exited:?}");
            assert!(Instant::now() < end, "the server does not listen on port {}", self.port);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The first of them first: it would start others in place of its children. All of this fails when
        // it has exited already.
        let children =
            if let Ok(None) = self.child.try_wait() { self.pids().split_off(1) } else { Vec::new() };
        let _ = self.child.kill();
        for child in children.into_iter().filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
            let _ = kill_process(child, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// A port that is free now, and that no other test of this process is given.
pub(crate) fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("there is a free port");
        let port = listener.local_addr().expect("it is bound").port();
        if GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(port) {
            return port;
        }
    }
}
