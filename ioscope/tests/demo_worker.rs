//! The worker process as another program sees it: by its protocol, by strace, and when stopped in a wait call.

mod support;

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::time::Duration;

use ioscope::demo::{Pattern, Spec, Start};
use ioscope_common::WaitCall;

use support::kernel;
use support::worker::{IOSCOPE, Outcome, Worker, calls};

/// Each wait call, as often as its place in the list says, so that no two counts are the same.
fn specs(pattern: Pattern) -> Vec<Spec> {
    calls()
        .filter(|call| kernel::can(*call, pattern))
        .zip(1..)
        .map(|(call, place)| Spec {
            iterations: Some(100 + place),
            period_ns: 50_000,
            ..Spec::new(call, pattern)
        })
        .collect()
}

/// The calls and errors of `strace -c`, by system call.
fn parse_summary(text: &str) -> BTreeMap<String, (u64, u64)> {
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let errors = if fields.len() == 6 { fields[4].parse().ok()? } else { 0 };
        Some(((*fields.last()?).to_owned(), (fields.get(3)?.parse().ok()?, errors)))
    };
    text.lines().filter_map(parse).collect()
}

#[test]
fn strace_counts_the_same() -> Outcome {
    let works = Command::new("strace").args(["-c", "-o", "/dev/null", "true"]).stderr(Stdio::null()).status();
    if !works.is_ok_and(|status| status.success()) {
        eprintln!("skipped: strace is not here, or may not trace");
        return Ok(());
    }
    for pattern in [Pattern::AlwaysReady, Pattern::Expire, Pattern::Interrupted, Pattern::BadPointer] {
        let summary = tempfile::NamedTempFile::new()?;
        let mut command = Command::new("strace");
        command.args(["-f", "-c", "-o"]).arg(summary.path()).arg(IOSCOPE);
        let mut worker = Worker::start(command, &specs(pattern))?;
        worker.say()?;
        let report = worker.report()?;
        worker.end()?;
        let seen = parse_summary(&std::fs::read_to_string(summary.path())?);
        let calls = calls().filter(|call| kernel::can(*call, pattern));
        for (call, thread) in calls.zip(&report.threads) {
            // Rust's start-up polls once.
            let start_up = u64::from(call == WaitCall::Poll);
            let errors = thread.interrupted + thread.etime + thread.errors.values().sum::<u64>();
            let counted = (thread.iterations + thread.submissions + start_up, errors);
            assert_eq!(seen.get(call.name()), Some(&counted), "{} {pattern:?}", call.name());
        }
    }
    Ok(())
}

#[test]
fn loops_sleep_before_go_and_the_main_thread_stays_after_the_report() -> Outcome {
    let specs: Vec<Spec> =
        specs(Pattern::CheckIn).into_iter().map(|spec| Spec { start: Start::BeforeGo, ..spec }).collect();
    let mut worker = Worker::start(Command::new(IOSCOPE), &specs)?;
    assert_eq!(worker.ready["pid"], worker.id());
    assert_eq!(worker.ready["tids"].as_array().map(Vec::len), Some(specs.len()));
    for tid in worker.ready["tids"].as_array().ok_or("no tids")? {
        let stat = std::fs::read_to_string(format!("/proc/{}/task/{tid}/stat", worker.id()))?;
        assert!(stat.contains(") S "), "not asleep: {stat}");
    }
    worker.say()?;
    let report = worker.report()?;
    for (spec, thread) in specs.iter().zip(&report.threads) {
        assert_eq!(Some(thread.iterations - 1), spec.iterations, "the return at go comes on top");
        assert_eq!(Some(thread.check_ins), spec.iterations);
    }
    assert!(worker.is_running()?);
    worker.end()
}

/// A stop and a continue make the kernel restart a wait call, or fail it with `EINTR`: it returns to the
/// program once either way.
#[test]
fn a_stop_and_a_continue_lose_no_call() -> Outcome {
    let specs: Vec<Spec> = calls()
        .filter(|call| kernel::can(*call, Pattern::Expire))
        .map(|call| Spec {
            timeout_ns: Some(400_000_000),
            iterations: Some(2),
            ..Spec::new(call, Pattern::Expire)
        })
        .collect();
    let mut worker = Worker::start(Command::new(IOSCOPE), &specs)?;
    worker.say()?;
    std::thread::sleep(Duration::from_millis(100));
    let pid = worker.pid();
    for signal in [rustix::process::Signal::STOP, rustix::process::Signal::CONT] {
        rustix::process::kill_process(pid, signal)?;
        std::thread::sleep(Duration::from_millis(50));
    }
    let report = worker.report()?;
    for thread in &report.threads {
        assert_eq!(thread.iterations, 2);
        assert_eq!(thread.empty_wakeups + thread.interrupted, 2, "{thread:?}");
        assert!(thread.errors.is_empty(), "{thread:?}");
    }
    worker.end()
}
