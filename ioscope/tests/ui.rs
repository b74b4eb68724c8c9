//! The terminal UI at a terminal: the binary under a pseudo-terminal, tracing the built-in loops, driven by
//! keys. What it shows is read as a terminal would show it, and what it leaves behind, too.
//!
//! Needs what tracing needs. Without it the tests are skipped, aloud; where `CI=true` they fail.

#[path = "ui/terminal.rs"]
mod terminal;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    process::{Child, Command, Stdio},
};

use ioscope::{
    demo::{Pattern, Slice, Spec, Work},
    probe::environment::{Environment, missing_privilege},
};
use ioscope_common::WaitCall;
use rustix::process::{Pid, Signal, kill_process};
use terminal::Terminal;

const IOSCOPE: &str = env!("CARGO_BIN_EXE_ioscope");

/// Whether tracing is allowed here; says so if not.
fn may_trace() -> bool {
    let Some(advice) = missing_privilege(&Environment::read()) else { return true };
    assert!(std::env::var("CI").as_deref() != Ok("true"), "this machine has to allow tracing: {advice}");
    // Past the test harness, which keeps to itself what a passing test prints.
    let _ = writeln!(std::io::stderr(), "SKIPPED, the UI was not tested: {advice}");
    false
}

/// Two loops in a process of their own, which leave the machine to others: a healthy one, and one that stalls
/// every second.
struct Worker(Child);

fn specs() -> [Spec; 2] {
    let healthy = Spec {
        comm: Some("healthy".to_owned()),
        period_ns: 5_000_000,
        ..Spec::new(WaitCall::EpollPwait, Pattern::Ticker)
    };
    let stalling = Spec {
        comm: Some("stalling".to_owned()),
        work: vec![Slice::each(1_000_000_000, Work::SleepInHandler { ns: 600_000_000 })],
        ..healthy.clone()
    };
    [healthy, stalling]
}

impl Worker {
    fn start() -> Self {
        let mut child = Command::new(IOSCOPE)
            .args(["__worker", &serde_json::to_string(&specs()).expect("it is JSON")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the worker starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("it says ready");
        assert!(line.contains("\"ready\":true"), "{line}");
        child.stdin.as_mut().expect("piped").write_all(b"go\n").expect("it listens");
        Self(child)
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// ioscope on the worker, with its first screen there.
fn watch(worker: &Worker) -> Terminal {
    let mut terminal = Terminal::run(80, 24, &[IOSCOPE, "--pid", &worker.pid()]);
    terminal.wait_for("healthy");
    terminal
}

/// Goes to the end of what is there, and again as long as more of it comes.
fn to_the_end_until(terminal: &mut Terminal, text: &str) {
    for _ in 0..100 {
        terminal.type_in("G");
        terminal.watch_for(std::time::Duration::from_millis(300));
        if terminal.text().contains(text) {
            return;
        }
    }
    terminal.wait_for(text);
}

/// Every screen with its own keys, with what the traced loops do in it; ends on Loops.
fn every_screen(terminal: &mut Terminal) {
    terminal.type_in("/healthy");
    terminal.wait_for("1 of 2 loops");
    terminal.type_in("\r");
    terminal.wait_for("/healthy");
    terminal.type_in("\x1b");
    terminal.wait_for_no("/healthy");
    terminal.type_in("c");
    terminal.wait_for("[x] STALLS");
    terminal.type_in("c");
    terminal.wait_for_no("[x] STALLS");

    // The stalling loop, found by its name wherever it stands.
    terminal.type_in("/stalling\rg\r");
    terminal.wait_for("thread");
    terminal.wait_for("┃ ");
    terminal.wait_for("falls asleep");
    to_the_end_until(terminal, "epoll_pwait = 1");
    terminal.type_in("\x1b");
    terminal.wait_for("▲/S");
    terminal.wait_for("/stalling");
    // (Esc and a character after it at once would be Alt and that character.)
    terminal.type_in("\x1b");
    terminal.wait_for_no("/stalling");

    terminal.type_in("3");
    terminal.wait_for("─ waiting");
    terminal.wait_for("5.00s live");
    terminal.type_in("z");
    terminal.wait_for("2.00s live");
    // Some second of it is a stall: asleep in its handler.
    terminal.wait_for("BBBBBB");
    terminal.type_in("\x1b[D");
    terminal.wait_for("PAUSED");
    terminal.type_in(" Z");
    terminal.wait_for("5.00s live");

    terminal.type_in("4");
    terminal.wait_for("WHERE ITS TIME WENT");
    terminal.wait_for("B blocked in");
    terminal.wait_for("it is over");

    terminal.type_in("5");
    terminal.wait_for("wait calls per event");
    terminal.type_in("\t");
    terminal.wait_for("▲/S");
}

#[test]
fn a_session_with_keys_and_sizes_leaves_the_terminal_as_it_was() {
    if !may_trace() {
        return;
    }
    let worker = Worker::start();
    let mut terminal = watch(&worker);
    assert!(terminal.screen().alternate_screen() && terminal.screen().hide_cursor());
    assert!(terminal.is_raw());
    for text in ["own CPU", "BPF", "stalling", "STALLS", "q quit"] {
        terminal.wait_for(text);
    }
    terminal.wait_for("STALLED");

    terminal.type_in("?");
    terminal.wait_for("keys and states");
    terminal.type_in("q");
    terminal.wait_for_no("keys and states");
    terminal.type_in("jj");
    terminal.wait_for("2/2");
    terminal.type_in("\x1b[A");
    terminal.wait_for("1/2");
    terminal.type_in("s");
    terminal.wait_for("▼/S");
    terminal.type_in("r");
    terminal.wait_for("▲/S");

    for (width, height) in [(80, 24), (120, 40)] {
        terminal.resize(width, height);
        every_screen(&mut terminal);
    }

    terminal.type_in(" ");
    terminal.wait_for("PAUSED");
    let paused = terminal.text();
    terminal.watch_for(std::time::Duration::from_millis(700));
    assert_eq!(terminal.text(), paused, "it stands still");
    terminal.type_in(" ");
    terminal.wait_for_no("PAUSED");

    terminal.resize(200, 50);
    terminal.wait_for("SLEEPS IN");
    terminal.resize(20, 4);
    terminal.wait_for_no("STALLS");
    terminal.resize(120, 40);
    terminal.wait_for("RUNTIME");

    terminal.type_in("q");
    let status = terminal.wait_for_end();
    assert!(status.success(), "{status}");
    terminal.assert_restored();
}

#[test]
fn a_signal_leaves_the_terminal_as_it_was() {
    if !may_trace() {
        return;
    }
    let worker = Worker::start();
    for signal in [Signal::TERM, Signal::INT] {
        let mut terminal = watch(&worker);
        terminal.signal(signal);
        let status = terminal.wait_for_end();
        assert!(status.success(), "{status}");
        terminal.assert_restored();
    }
}

/// A stop from elsewhere: the shell takes its terminal back, and gives it again with `fg`.
#[test]
fn a_stop_and_a_continue_bring_the_screen_back() {
    if !may_trace() {
        return;
    }
    let worker = Worker::start();
    let mut terminal = watch(&worker);
    terminal.signal(Signal::STOP);
    terminal.watch_for(std::time::Duration::from_millis(100));
    terminal.take_back();
    assert!(!terminal.is_raw());
    assert!(!terminal.text().contains("healthy"));
    terminal.signal(Signal::CONT);
    terminal.wait_for("healthy");
    assert!(terminal.is_raw() && terminal.screen().alternate_screen() && terminal.screen().hide_cursor());
    terminal.type_in("\x03");
    assert!(terminal.wait_for_end().success());
    terminal.assert_restored();
}

#[test]
fn the_last_state_stays_when_the_target_has_ended() {
    if !may_trace() {
        return;
    }
    let worker = Worker::start();
    let mut terminal = watch(&worker);
    drop(worker);
    terminal.wait_for("TARGET ENDED");
    terminal.wait_for("2 loops");
    terminal.wait_for("healthy");
    terminal.type_in("q");
    assert!(terminal.wait_for_end().success());
    terminal.assert_restored();
}

#[test]
fn a_command_stays_off_the_screen_and_its_exit_code_passes_through() {
    if !may_trace() {
        return;
    }
    let script = "echo SCRIBBLE; echo SCRIBBLE >&2; read line; exit 7";
    let mut terminal = Terminal::run(80, 24, &[IOSCOPE, "--", "sh", "-c", script]);
    terminal.wait_for("TARGET ENDED");
    assert!(!terminal.text().contains("SCRIBBLE"));
    terminal.type_in("q");
    assert_eq!(terminal.wait_for_end().code(), Some(7));
    terminal.assert_restored();
    assert!(!terminal.text().contains("SCRIBBLE"));
}

#[test]
fn an_error_is_told_on_the_terminal_as_it_was() {
    let mut terminal = Terminal::run(80, 24, &[IOSCOPE, "--pid", "4194305"]);
    let status = terminal.wait_for_end();
    assert!(!status.success());
    terminal.wait_for("ioscope: ");
    terminal.assert_restored();
}

#[test]
fn without_a_terminal_a_summary_is_printed_by_the_second() {
    if !may_trace() {
        return;
    }
    let worker = Worker::start();
    let mut child = Command::new(IOSCOPE)
        .args(["--pid", &worker.pid()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("ioscope starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped"));
    let mut text = String::new();
    while text.matches("WAIT CALL").count() < 2 {
        assert_ne!(lines.read_line(&mut text).expect("it prints"), 0, "{text}");
    }
    kill_process(Pid::from_child(&child), Signal::TERM).expect("it runs");
    lines.read_to_string(&mut text).expect("it prints");
    assert!(child.wait().expect("it ends").success());
    assert!(!text.contains('\x1b') && text.contains("healthy"), "{text}");
}
