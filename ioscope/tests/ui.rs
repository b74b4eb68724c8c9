//! The terminal UI at a terminal: the binary under a pseudo-terminal, tracing the built-in loops, driven by
//! keys. What it shows is read as a terminal would show it, and what it leaves behind, too.
//!
//! Needs what tracing needs. Without it the tests are skipped, aloud; where `CI=true` they fail.

#[path = "ui/terminal.rs"]
mod terminal;

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::PathBuf,
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

/// ioscope on the worker, with both of its loops there. One that sleeps in its handler is one from its next wait on.
fn watch(worker: &Worker) -> Terminal {
    let mut terminal = Terminal::run(80, 24, &[IOSCOPE, "--pid", &worker.pid()]);
    terminal.wait_for("2 loops");
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
    // The rest of that frame.
    terminal.watch_for(std::time::Duration::from_millis(300));
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

/// Ctrl-Z, at a shell that does job control: the key stops ioscope, `fg` goes on with it.
#[test]
fn a_key_stops_it_and_the_shell_brings_it_back() {
    if !may_trace() {
        return;
    }
    let worker = Worker::start();
    // (A shell that is not interactive has no job control by itself, and reads no `fg` from the terminal.)
    let script = r#"set -m; "$0" --pid "$1"; echo "STOPPED WITH $?"; read -r; fg; echo "ENDED WITH $?""#;
    let mut terminal = Terminal::run(80, 24, &["bash", "-c", script, IOSCOPE, &worker.pid()]);
    terminal.wait_for("healthy");
    assert!(terminal.is_raw());
    terminal.type_in("\x1a");
    // 128 and SIGTSTP.
    terminal.wait_for("STOPPED WITH 148");
    assert!(!terminal.text().contains("healthy"), "{}", terminal.text());
    terminal.assert_restored();
    terminal.watch_for(std::time::Duration::from_millis(600));
    assert!(!terminal.text().contains("healthy"), "nothing is drawn while it is stopped");
    terminal.assert_restored();
    terminal.type_in("\n");
    terminal.wait_for("healthy");
    // Taken over once, and for good.
    assert!(terminal.is_raw() && terminal.screen().alternate_screen() && terminal.screen().hide_cursor());
    // It goes on: keys are read, and the screen changes.
    terminal.type_in("?");
    terminal.wait_for("keys and states");
    terminal.type_in("q");
    terminal.wait_for_no("keys and states");
    terminal.type_in("q");
    terminal.wait_for("ENDED WITH 0");
    assert!(terminal.wait_for_end().success());
    terminal.assert_restored();
}

/// An example of this crate, built as the tests are.
fn example(name: &str) -> PathBuf {
    // A run of one test builds no examples.
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| env!("CARGO").into()))
        .args(["build", "--quiet", "--package", env!("CARGO_PKG_NAME"), "--example", name])
        .status();
    assert!(status.expect("cargo starts").success());
    let test = std::env::current_exe().expect("the test has a path");
    test.ancestors().nth(2).expect("it lies in deps").join("examples").join(name)
}

#[test]
fn a_panic_leaves_the_terminal_as_it_was_and_can_be_read() {
    let program = example("panic_on_screen");
    let program = program.to_str().expect("a path");
    let quietly = [("RUST_BACKTRACE", "0")];

    let mut terminal = Terminal::run_with(80, 24, &[program], &quietly);
    terminal.wait_for("1 Loops");
    assert!(terminal.is_raw() && terminal.screen().alternate_screen() && terminal.screen().hide_cursor());
    terminal.type_in("x");
    assert_eq!(terminal.wait_for_end().code(), Some(101));
    terminal.assert_restored();
    assert!(terminal.text().contains("what draws fell over"), "{}", terminal.text());
    assert!(!terminal.text().contains("1 Loops"));

    let mut terminal = Terminal::run_with(80, 24, &[program, "aside"], &quietly);
    terminal.wait_for("1 Loops");
    terminal.type_in("x");
    // The screen stays, and nothing is written over it.
    terminal.watch_for(std::time::Duration::from_millis(500));
    assert!(terminal.is_raw() && terminal.screen().alternate_screen() && terminal.screen().hide_cursor());
    assert!(terminal.text().contains("1 Loops") && !terminal.text().contains("fell over"));
    terminal.type_in("x");
    assert!(terminal.wait_for_end().success());
    terminal.assert_restored();
    assert!(terminal.text().contains("a thread aside fell over"), "{}", terminal.text());
}

/// Which colours are on the screen, by what the terminal says of itself and what the configuration wants.
#[test]
fn colours_are_those_that_the_terminal_has_and_the_user_wants() {
    use vt100::Color::{Default, Idx, Rgb};
    if !may_trace() {
        return;
    }
    let worker = Worker::start();
    let directory = tempfile::tempdir().expect("a directory");
    let colours = |palette: &str, variables: &[(&str, &str)]| {
        let file = directory.path().join(format!("{palette}.toml"));
        std::fs::write(&file, format!("[theme]\npalette = \"{palette}\"\n")).expect("it is written");
        let file = file.to_str().expect("a path");
        let command = [IOSCOPE, "--config", file, "--pid", &worker.pid()];
        let mut terminal = Terminal::run_with(120, 40, &command, variables);
        terminal.wait_for("healthy");
        // The help has every state in its colour.
        terminal.type_in("?");
        terminal.wait_for("keys and states");
        terminal.colours()
    };
    let true_colour = ("COLORTERM", "truecolor");
    let (screen, plain) = (("TERM", "screen"), ("NO_COLOR", "1"));
    let is_true = |colour: &vt100::Color| matches!(colour, Rgb(..));
    let is_of_16 = |colour: &vt100::Color| matches!(colour, Default | Idx(0..16));

    let terminals_own = colours("terminal", &[screen]);
    assert!(terminals_own.len() > 3 && terminals_own.iter().all(is_of_16), "{terminals_own:?}");
    for palette in ["dark", "light"] {
        let without = colours(palette, &[screen]);
        assert!(without.len() > 3 && without.iter().all(is_of_16), "{without:?}");
        let with = colours(palette, &[true_colour]);
        assert!(with.iter().filter(|colour| is_true(colour)).count() > 3, "{with:?}");
        assert!(with.iter().all(|colour| is_true(colour) || *colour == Default), "{with:?}");
    }
    // The blue of WAITING.
    assert!(colours("light", &[true_colour]).contains(&Rgb(0x1f, 0x5f, 0xbf)));
    assert!(colours("dark", &[true_colour]).contains(&Rgb(0x6e, 0xa8, 0xfe)));
    assert_eq!(colours("dark", &[true_colour, plain]), [Default]);
}

/// What `y` hands to the terminal: OSC 52, to the clipboard, in base64, ended by ST.
#[test]
fn a_copied_row_arrives_at_the_terminals_clipboard() {
    if !may_trace() {
        return;
    }
    let worker = Worker::start();
    let mut terminal = watch(&worker);
    terminal.type_in("/stalling\r");
    terminal.wait_for("1 of ");
    terminal.type_in("g");
    terminal.wait_for("1/1");
    terminal.type_in("y");
    terminal.wait_for("OSC 52");
    let text = terminal.wait_for_sequence(b"\x1b]52;c;", b"\x1b\\");
    let text = String::from_utf8(base64(&text)).expect("text");
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        line.unwrap_or_else(|| panic!("no {name} in {text}")).to_owned()
    };
    assert_eq!(value("process "), worker.pid());
    assert_eq!(value("name "), "stalling");
    assert_eq!(value("wait call "), "epoll_pwait");
    assert!(value("utilisation ").ends_with('%'), "{text}");
    let tasks = std::fs::read_dir(format!("/proc/{}/task", worker.pid())).expect("it lives");
    let thread = value("thread ");
    assert!(tasks.flatten().any(|task| task.file_name().to_str() == Some(&thread)), "{text}");
}

/// Decodes base64 (RFC 4648), padding included.
fn base64(text: &[u8]) -> Vec<u8> {
    assert!(text.len().is_multiple_of(4), "it is padded");
    let digit = |byte: &u8| match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        other => panic!("{other} is no digit"),
    };
    let mut bytes = Vec::new();
    for group in text.chunks(4) {
        let digits: Vec<u8> = group.iter().filter(|byte| **byte != b'=').map(digit).collect();
        let bits = digits.iter().fold(0_u32, |bits, digit| bits << 6 | u32::from(*digit));
        let bits = bits << (6 * (4 - digits.len()));
        bytes.extend_from_slice(&bits.to_be_bytes()[1..digits.len()]);
    }
    bytes
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
