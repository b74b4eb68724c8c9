//! Each finding, raised by a fault of its own and not by its healthy twin: the built-in loops misbehave on the real
//! kernel, and `ioscope stat --json` tells. Fault and twin run side by side in one process, where they do not disturb
//! each other. Those of delays, which others bring about, are in `findings_of_delays.rs`.
//!
//! Numbers that a finding rests on are held against a second source where there is one: the program's own, or the
//! kernel's.

mod support;

use std::time::Duration;

use ioscope::demo::{Pattern, RingMode, Slice, Spec, Work};
use ioscope_common::WaitCall;
use serde_json::Value;
use support::again::up_to_three_times;
use support::findings::{
    MS, US, burn, finding, is_at_least, loop_called, named, stat, stat_beside, ticking, turn,
};
use support::ioscope::{IOSCOPE, Worker, run, say, sleeps_of};

/// From here on a finding calls a slice or a sleep long.
const LONG_NS: u64 = 10 * MS;

/// Runs a fault and its twin and checks who has the finding, and what it rests on and all that was said.
#[track_caller]
fn prove(tag: &str, severity: &str, fault: Spec, twin: Spec, check: impl Fn(&Value, &Value)) {
    let Some(_turn) = turn(tag) else { return };
    let specs = [named("fault", fault), named("twin", twin)];
    let specs = serde_json::to_string(&specs).expect("specs are JSON");
    up_to_three_times(|| {
        let worker = Worker::start(&specs);
        let (code, report) = stat(worker.pid(), &["--fail-on", "warn"]);
        let own = worker.end();
        let found = finding(&report, tag, "fault").unwrap_or_else(|| panic!("no {tag}: {report:#}"));
        assert!(is_at_least(found, severity), "{found:#}");
        assert_eq!(found["comm"].as_str().map(|comm| comm.starts_with("fault")), Some(true), "{found:#}");
        // Where the machine itself made a slice of the twin long, by the twin's own clock, it rightly has it.
        let twin = own.threads.iter().filter(|thread| thread.comm == "twin");
        let longest = twin.map(|twin| twin.loop_duration.max_ns).max();
        let is_of_slices = ["blocking-call", "cpu-bound-callback"].contains(&tag);
        let disturbed = is_of_slices && longest >= Some(LONG_NS);
        let twins = finding(&report, tag, "twin");
        assert!(disturbed || twins.is_none(), "the twin has it too: {report:#}");
        // On a busy machine there may be others.
        let findings = report["findings"].as_array().expect("an array");
        let is_bad = findings.iter().any(|finding| is_at_least(finding, "warn"));
        assert_eq!(code, Some(if is_bad { 3 } else { 0 }), "{report:#}");
        for text in ["summary", "advice"] {
            assert!(found[text].as_str().is_some_and(|text| !text.is_empty()), "{found:#}");
        }
        check(&found["evidence"], &report);
    });
}

/// Within so much of it.
#[track_caller]
fn about(value: &Value, expected: f64, tolerance: f64) {
    let value = value.as_f64().unwrap_or_else(|| panic!("no number: {value}"));
    assert!((value - expected).abs() <= expected * tolerance, "{value}, not {expected}");
}

#[test]
fn a_blocking_call() {
    let sleep = Slice::each(300 * MS, Work::SleepInHandler { ns: 150 * MS });
    let fault = ticking(WaitCall::EpollPwait, 5 * MS, vec![burn(20 * US), sleep]);
    let twin = ticking(WaitCall::EpollPwait, 5 * MS, vec![burn(20 * US)]);
    prove("blocking-call", "critical", fault, twin, |evidence, report| {
        let found = finding(report, "blocking-call", "fault").expect("it was found");
        assert_eq!(found["subject"], "nanosleep");
        about(&evidence["longest_ns"], 150e6, 0.2);
        // The last one may go on when ioscope leaves: it is in the finding, and not yet in the count of sleeps.
        let blocked = &loop_called(report, "fault")["blocked_in"][0];
        let times = |of: &Value| of.as_u64().expect("a count");
        let more = times(&evidence["times"]) - times(&blocked["count"]);
        assert!(more <= 1, "{report:#}");
        assert_eq!(evidence["total_ns"] == blocked["total_ns"], more == 0, "{report:#}");
    });
}

#[test]
fn short_blocking_calls_all_the_time() {
    let fault = ticking(WaitCall::Ppoll, 5 * MS, vec![Slice::always(Work::PipeRead { ns: MS })]);
    let twin = ticking(
        WaitCall::Ppoll,
        5 * MS,
        vec![Slice { every: 100, ..Slice::always(Work::PipeRead { ns: MS }) }],
    );
    prove("blocking-call", "warn", fault, twin, |_, report| {
        assert_eq!(finding(report, "blocking-call", "fault").expect("it was found")["subject"], "read");
    });
}

#[test]
fn a_cpu_bound_callback() {
    let compute = Slice::each(300 * MS, Work::ParseJson { ns: 150 * MS });
    let fault = ticking(WaitCall::EpollPwait, 5 * MS, vec![burn(20 * US), compute]);
    let twin = ticking(WaitCall::EpollPwait, 5 * MS, vec![burn(500 * US)]);
    prove("cpu-bound-callback", "critical", fault, twin, |evidence, _| {
        assert!(evidence["longest_ns"].as_u64() >= Some(150 * MS), "{evidence}");
    });
}

#[test]
fn busy_polling() {
    let fault = Spec::new(WaitCall::EpollPwait, Pattern::CheckIn);
    let twin = Spec { timeout_ns: Some(10 * MS), ..Spec::new(WaitCall::EpollPwait, Pattern::Expire) };
    prove("busy-polling", "warn", fault, twin, |evidence, report| {
        // Every check-in was in vain.
        let entry = loop_called(report, "fault");
        let seconds = entry["elapsed_ns"].as_f64().expect("a number") / 1e9;
        about(
            &evidence["empty_check_ins_per_second"],
            entry["check_ins"].as_f64().expect("a number") / seconds,
            1e-6,
        );
    });
}

#[test]
fn a_thundering_herd() {
    let Some(_turn) = turn("thundering-herd") else { return };
    up_to_three_times(|| {
        // Eight threads in poll on one descriptor are woken by every tick, and one of them gets it.
        let herd = Spec { threads: 8, shared: true, ..ticking(WaitCall::EpollPwait, MS, vec![]) };
        let alone = ticking(WaitCall::EpollPwait, MS, vec![]);
        let specs = [named("fault", herd), named("twin", alone)];
        let worker = Worker::start(&serde_json::to_string(&specs).expect("specs are JSON"));
        std::thread::sleep(Duration::from_millis(100));
        let (code, report, slept) = stat_beside(worker.pid(), || sleeps_of(worker.pid(), "fault"));
        worker.end();
        let found =
            finding(&report, "thundering-herd", "fault").unwrap_or_else(|| panic!("none: {report:#}"));
        assert!(is_at_least(found, "warn") && code == Some(3), "{found:#}");
        assert!(finding(&report, "thundering-herd", "twin").is_none(), "{report:#}");
        // The kernel counted a sleep for each wakeup, in vain or not. ioscope traced a little longer than that.
        let loops = report["loops"].as_array().expect("an array");
        let herd =
            loops.iter().filter(|entry| entry["comm"].as_str().is_some_and(|comm| comm.starts_with("fault")));
        let count = |entry: &Value, key: &str| entry[key].as_u64().expect("a count");
        let seen: u64 = herd
            .map(|entry| count(entry, "futile_wakeups") + count(&entry["wakeup_latency_ns"], "count"))
            .sum();
        assert!(seen * 100 >= slept * 98 && seen * 2 <= slept * 3, "{seen} of {slept}: {report:#}");
    });
}

#[test]
fn a_timer_storm() {
    let fault = Spec { timeout_ns: Some(200 * US), ..Spec::new(WaitCall::Ppoll, Pattern::Expire) };
    let twin = Spec { timeout_ns: Some(10 * MS), ..Spec::new(WaitCall::Ppoll, Pattern::Expire) };
    prove("timer-storm", "warn", fault, twin, |_, _| ());
}

/// Two threads that share a poller and do this after each event that one of them has taken.
fn taking_turns(work: Work) -> Spec {
    let spec = Spec::new(WaitCall::EpollPwait, Pattern::TakeTurns);
    Spec { threads: 2, period_ns: 5 * MS, work: vec![Slice::always(work)], ..spec }
}

#[test]
fn a_poller_that_nobody_waits_on() {
    // Both sleep at once, most of the time; of the healthy ones, hardly ever.
    let fault = taking_turns(Work::Nanosleep { ns: 300 * MS });
    let twin = taking_turns(Work::Nanosleep { ns: MS });
    prove("poller-unpolled", "warn", fault, twin, |evidence, report| {
        // From the second thread's event, at most a tick after the first's, to the end of the first one's sleep.
        let longest = evidence["longest_ns"].as_u64().expect("a time");
        assert!((250 * MS..400 * MS).contains(&longest), "{longest}: {report:#}");
        let found = finding(report, "poller-unpolled", "fault").expect("it was found");
        assert_eq!(found["also"].as_array().map(Vec::len), Some(1), "both share it: {found:#}");
    });
}

#[test]
fn a_batch_that_is_always_full() {
    let batches =
        |max_events| Spec { fds: 512, max_events, ..Spec::new(WaitCall::EpollPwait, Pattern::Batch) };
    prove("batch-always-full", "warn", batches(8), batches(1024), |evidence, _| {
        assert_eq!(evidence["batch_size"], 8);
    });
}

#[test]
fn one_event_per_wakeup() {
    let fault = Spec::new(WaitCall::EpollPwait, Pattern::AlwaysReady);
    let twin = Spec { fds: 8, ..Spec::new(WaitCall::EpollPwait, Pattern::Batch) };
    prove("one-event-per-wakeup", "info", fault, twin, |evidence, report| {
        let rate = evidence["wait_calls_per_second"].as_f64().expect("a rate");
        if rate >= 50_000.0 {
            let found = finding(report, "one-event-per-wakeup", "fault").expect("it was found");
            assert_eq!(found["severity"], "warn", "it is never idle: {found:#}");
        } else {
            say(&format!(
                "SKIPPED the warning of one-event-per-wakeup: {rate:.0} wait calls a second are too few"
            ));
        }
        about(&evidence["events_per_wait_call_mean"], 1.0, 1e-9);
    });
}

fn ring(mode: RingMode, fds: u32) -> Spec {
    Spec { ring: mode, fds, ..Spec::new(WaitCall::IoUringEnter, Pattern::Batch) }
}

#[test]
fn requests_that_are_submitted_one_at_a_time() {
    let (fault, twin) = (ring(RingMode::SubmitEach, 8), ring(RingMode::SubmitThenWait, 8));
    prove("submit-one-at-a-time", "warn", fault, twin, |evidence, report| {
        about(&evidence["requests_per_call_mean"], 1.0, 1e-9);
        // Of the twin, which makes batches of 1 to 8, every request is a completion.
        let twin = loop_called(report, "twin");
        about(&twin["io_uring"]["requests"], twin["ready_events"].as_f64().expect("a number"), 0.001);
    });
}

#[test]
fn completions_that_overflow() {
    let (fault, twin) = (ring(RingMode::TakeLate, 8), ring(RingMode::Plain, 8));
    prove("cq-overflow", "critical", fault, twin, |evidence, report| {
        assert_eq!(evidence["overflows"], loop_called(report, "fault")["io_uring"]["cq_overflows"]);
        assert_eq!(loop_called(report, "twin")["io_uring"]["cq_overflows"], 0);
    });
}

#[test]
fn requests_that_are_done_by_workers() {
    let (fault, twin) = (ring(RingMode::Workers, 8), ring(RingMode::Plain, 8));
    prove("io-wq-punts", "warn", fault, twin, |_, report| {
        // Every request was marked for a worker.
        let rings = &loop_called(report, "fault")["io_uring"];
        about(&rings["io_wq_punts"], rings["requests"].as_f64().expect("a number"), 0.01);
        assert_eq!(loop_called(report, "twin")["io_uring"]["io_wq_punts"], 0);
    });
}

#[test]
fn what_the_exit_code_is() {
    let Some(_turn) = turn("--fail-on") else { return };
    up_to_three_times(|| {
        let sleeping = |ns: u64| {
            let work = vec![Slice::each(100 * MS, Work::Nanosleep { ns })];
            let spec = Spec { duration_ns: Some(600 * MS), ..ticking(WaitCall::EpollPwait, 5 * MS, work) };
            format!(
                "printf 'go\\ngo\\n' | {} __worker '{}' > /dev/null",
                IOSCOPE,
                serde_json::to_string(&spec).expect("a spec is JSON")
            )
        };
        let code = |fail_on: &[&str], script: &str| {
            let mut arguments = vec!["stat", "--json"];
            arguments.extend(fail_on);
            arguments.extend(["--", "sh", "-c", script]);
            run(arguments).status.code()
        };
        // 15 ms of every 100 are worth a warning, 120 ms of them are critical.
        let (warned, critical) = (sleeping(15 * MS), sleeping(120 * MS));
        assert_eq!(code(&[], &critical), Some(0));
        assert_eq!(code(&["--fail-on", "warn"], &warned), Some(3));
        assert_eq!(code(&["--fail-on", "critical"], &warned), Some(0));
        assert_eq!(code(&["--fail-on", "critical"], &critical), Some(3));
        // What the command says of itself goes first.
        assert_eq!(code(&["--fail-on", "warn"], &format!("{critical}; exit 7")), Some(7));
        let bad = run(["stat", "--fail-on", "info", "--pid", "1"]);
        assert_eq!(bad.status.code(), Some(2), "no such severity to fail on");
    });
}
