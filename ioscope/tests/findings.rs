//! Each finding, raised by a fault of its own and not by its healthy twin: the built-in loops misbehave on the real
//! kernel, and `ioscope stat --json` tells. Fault and twin run side by side in one process, where they do not disturb
//! each other.
//!
//! Numbers that a finding rests on are held against a second source where there is one: the program's own, or the
//! kernel's.

mod support;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ioscope::demo::{Pattern, RingMode, Slice, Spec, Work};
use ioscope_common::WaitCall;
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use support::cgroups::CpuLimit;
use support::helper::{Helper, is_helper};
use support::ioscope::{IOSCOPE, Tracing, Worker, can_trace, documents, run, say};

const US: u64 = 1_000;
const MS: u64 = 1_000 * US;
/// From here on a finding calls a slice or a sleep long.
const LONG_NS: u64 = 10 * MS;

/// One at a time: there are not many CPUs.
fn turn(test: &str) -> Option<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    can_trace(test).then_some(turn)
}

fn named(comm: &str, spec: Spec) -> Spec {
    Spec { comm: Some(comm.to_owned()), ..spec }
}

/// A loop that is woken each `period` and then does this.
fn ticking(call: WaitCall, period_ns: u64, work: Vec<Slice>) -> Spec {
    Spec { period_ns, work, ..Spec::new(call, Pattern::Ticker) }
}

fn burn(ns: u64) -> Slice {
    Slice::always(Work::Burn { ns })
}

/// What `ioscope stat` says of a process, and its exit code.
fn stat(pid: u32, more: &[&str]) -> (Option<i32>, Value) {
    let pid = pid.to_string();
    let mut arguments = vec!["stat", "--json", "--pid", &pid, "--duration", "1500ms"];
    arguments.extend(more);
    let output = run(arguments);
    let mut documents = documents(&output.stdout);
    assert_eq!(documents.len(), 1, "{}", String::from_utf8_lossy(&output.stderr));
    (output.status.code(), documents.remove(0))
}

/// The same, and what a second source counted while ioscope traced.
fn stat_beside(pid: u32, count: impl Fn() -> u64) -> (Option<i32>, Value, u64) {
    let mut command = Command::new(IOSCOPE);
    command.args(["stat", "--json", "--fail-on", "warn", "--pid", &pid.to_string()]);
    let before = count();
    let tracing = Tracing::start(command);
    let attached = count();
    std::thread::sleep(Duration::from_millis(1500));
    let traced = count() - attached;
    kill_process(Pid::from_child(&tracing.child), Signal::INT).expect("it is running");
    let (code, mut documents) = tracing.end();
    let after = count();
    assert!(before <= attached && attached <= after && documents.len() == 1);
    (code, documents.remove(0), traced)
}

fn loop_called<'a>(report: &'a Value, comm: &str) -> &'a Value {
    let loops = report["loops"].as_array().expect("an array");
    loops.iter().find(|entry| entry["comm"] == comm).unwrap_or_else(|| panic!("no loop {comm}: {report:#}"))
}

/// The finding with this tag that is of a loop with this name.
fn finding<'a>(report: &'a Value, tag: &str, comm: &str) -> Option<&'a Value> {
    let is_of = |who: &Value| who["comm"].as_str().is_some_and(|name| name.starts_with(comm));
    report["findings"].as_array().expect("an array").iter().find(|finding| {
        let others = finding["also"].as_array();
        finding["tag"] == tag && (is_of(finding) || others.is_some_and(|others| others.iter().any(is_of)))
    })
}

/// Whether a finding is as bad as that at least.
fn is_at_least(finding: &Value, severity: &str) -> bool {
    let order = ["info", "warn", "critical"];
    let place = |name: &str| order.iter().position(|known| *known == name);
    place(finding["severity"].as_str().expect("a text")) >= place(severity)
}

/// Runs a fault and its twin and checks who has the finding. What it rests on, and all that was said.
#[track_caller]
fn prove(tag: &str, severity: &str, fault: Spec, twin: Spec) -> Option<(Value, Value)> {
    let _turn = turn(tag)?;
    let specs = [named("fault", fault), named("twin", twin)];
    let worker = Worker::start(&serde_json::to_string(&specs).expect("specs are JSON"));
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
    Some((found["evidence"].clone(), report))
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
    let Some((evidence, report)) = prove("blocking-call", "critical", fault, twin) else { return };
    let found = finding(&report, "blocking-call", "fault").expect("it was found");
    assert_eq!(found["subject"], "nanosleep");
    about(&evidence["longest_ns"], 150e6, 0.2);
    // The last one may go on when ioscope leaves: it is in the finding, and not yet in the count of sleeps.
    let blocked = &loop_called(&report, "fault")["blocked_in"][0];
    let times = |of: &Value| of.as_u64().expect("a count");
    let more = times(&evidence["times"]) - times(&blocked["count"]);
    assert!(more <= 1, "{report:#}");
    assert_eq!(evidence["total_ns"] == blocked["total_ns"], more == 0, "{report:#}");
}

#[test]
fn short_blocking_calls_all_the_time() {
    let fault = ticking(WaitCall::Ppoll, 5 * MS, vec![Slice::always(Work::PipeRead { ns: MS })]);
    let twin = ticking(
        WaitCall::Ppoll,
        5 * MS,
        vec![Slice { every: 100, ..Slice::always(Work::PipeRead { ns: MS }) }],
    );
    let Some((_, report)) = prove("blocking-call", "warn", fault, twin) else { return };
    assert_eq!(finding(&report, "blocking-call", "fault").expect("it was found")["subject"], "read");
}

#[test]
fn a_cpu_bound_callback() {
    let compute = Slice::each(300 * MS, Work::ParseJson { ns: 150 * MS });
    let fault = ticking(WaitCall::EpollPwait, 5 * MS, vec![burn(20 * US), compute]);
    let twin = ticking(WaitCall::EpollPwait, 5 * MS, vec![burn(500 * US)]);
    let Some((evidence, _)) = prove("cpu-bound-callback", "critical", fault, twin) else { return };
    assert!(evidence["longest_ns"].as_u64() >= Some(150 * MS), "{evidence}");
}

#[test]
fn busy_polling() {
    let fault = Spec::new(WaitCall::EpollPwait, Pattern::CheckIn);
    let twin = Spec { timeout_ns: Some(10 * MS), ..Spec::new(WaitCall::EpollPwait, Pattern::Expire) };
    let Some((evidence, report)) = prove("busy-polling", "warn", fault, twin) else { return };
    // Every check-in was in vain.
    let entry = loop_called(&report, "fault");
    let seconds = entry["elapsed_ns"].as_f64().expect("a number") / 1e9;
    about(
        &evidence["empty_check_ins_per_second"],
        entry["check_ins"].as_f64().expect("a number") / seconds,
        1e-6,
    );
}

/// Voluntary context switches of a process's threads called so: the kernel's count of their sleeps.
fn sleeps(pid: u32, comm: &str) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it is running");
    let statuses = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("status")).ok());
    let field = |status: &str, name: &str| {
        status.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim().to_owned()))
    };
    statuses
        .filter(|status| field(status, "Name").is_some_and(|name| name.starts_with(comm)))
        .filter_map(|status| field(&status, "voluntary_ctxt_switches")?.parse::<u64>().ok())
        .sum()
}

#[test]
fn a_thundering_herd() {
    let Some(_turn) = turn("thundering-herd") else { return };
    // Eight threads in poll on one descriptor are woken by every tick, and one of them gets it.
    let herd = Spec { threads: 8, shared: true, ..ticking(WaitCall::EpollPwait, MS, vec![]) };
    let alone = ticking(WaitCall::EpollPwait, MS, vec![]);
    let specs = [named("fault", herd), named("twin", alone)];
    let worker = Worker::start(&serde_json::to_string(&specs).expect("specs are JSON"));
    std::thread::sleep(Duration::from_millis(100));
    let (code, report, slept) = stat_beside(worker.pid(), || sleeps(worker.pid(), "fault"));
    worker.end();
    let found = finding(&report, "thundering-herd", "fault").unwrap_or_else(|| panic!("none: {report:#}"));
    assert!(is_at_least(found, "warn") && code == Some(3), "{found:#}");
    assert!(finding(&report, "thundering-herd", "twin").is_none(), "{report:#}");
    // The kernel counted a sleep for each wakeup, in vain or not. ioscope traced a little longer than that.
    let loops = report["loops"].as_array().expect("an array");
    let herd =
        loops.iter().filter(|entry| entry["comm"].as_str().is_some_and(|comm| comm.starts_with("fault")));
    let count = |entry: &Value, key: &str| entry[key].as_u64().expect("a count");
    let seen: u64 =
        herd.map(|entry| count(entry, "futile_wakeups") + count(&entry["wakeup_latency_ns"], "count")).sum();
    assert!(seen * 100 >= slept * 98 && seen * 2 <= slept * 3, "{seen} of {slept}: {report:#}");
}

#[test]
fn a_timer_storm() {
    let fault = Spec { timeout_ns: Some(200 * US), ..Spec::new(WaitCall::Ppoll, Pattern::Expire) };
    let twin = Spec { timeout_ns: Some(10 * MS), ..Spec::new(WaitCall::Ppoll, Pattern::Expire) };
    prove("timer-storm", "warn", fault, twin);
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
    let Some((evidence, report)) = prove("poller-unpolled", "warn", fault, twin) else { return };
    // From the second thread's event, at most a tick after the first's, to the end of the first one's sleep.
    let longest = evidence["longest_ns"].as_u64().expect("a time");
    assert!((250 * MS..400 * MS).contains(&longest), "{longest}: {report:#}");
    let found = finding(&report, "poller-unpolled", "fault").expect("it was found");
    assert_eq!(found["also"].as_array().map(Vec::len), Some(1), "both share it: {found:#}");
}

#[test]
fn a_batch_that_is_always_full() {
    let batches =
        |max_events| Spec { fds: 512, max_events, ..Spec::new(WaitCall::EpollPwait, Pattern::Batch) };
    let Some((evidence, _)) = prove("batch-always-full", "warn", batches(8), batches(1024)) else { return };
    assert_eq!(evidence["batch_size"], 8);
}

#[test]
fn one_event_per_wakeup() {
    let fault = Spec::new(WaitCall::EpollPwait, Pattern::AlwaysReady);
    let twin = Spec { fds: 8, ..Spec::new(WaitCall::EpollPwait, Pattern::Batch) };
    let Some((evidence, report)) = prove("one-event-per-wakeup", "info", fault, twin) else { return };
    let rate = evidence["wait_calls_per_second"].as_f64().expect("a rate");
    if rate >= 50_000.0 {
        let found = finding(&report, "one-event-per-wakeup", "fault").expect("it was found");
        assert_eq!(found["severity"], "warn", "it is never idle: {found:#}");
    } else {
        say(&format!(
            "SKIPPED the warning of one-event-per-wakeup: {rate:.0} wait calls a second are too few"
        ));
    }
    about(&evidence["events_per_wait_call_mean"], 1.0, 1e-9);
}

/// A loop on a socket that a thread sends to every 5 ms; after each wakeup it computes for so long.
fn read_slowly(compute: Duration) {
    let (reader, writer) = UnixDatagram::pair().expect("sockets can be made");
    reader.set_nonblocking(true).expect("it can be set");
    std::thread::spawn(move || {
        while writer.send(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("an epoll instance can be made");
    epoll::add(&epoll, &reader, epoll::EventData::new_u64(0), epoll::EventFlags::IN)
        .expect("a socket can be watched");
    let mut events = Vec::with_capacity(8);
    loop {
        epoll::wait(&epoll, spare_capacity(&mut events), None).expect("it waits");
        events.clear();
        while reader.recv(&mut [0; 8]).is_ok() {}
        let begun = Instant::now();
        while begun.elapsed() < compute {
            std::hint::spin_loop();
        }
    }
}

#[test]
#[ignore = "a program for another test to trace"]
fn reads_late() {
    if is_helper() {
        read_slowly(Duration::from_millis(60));
    }
}

#[test]
#[ignore = "a program for another test to trace"]
fn reads_soon() {
    if is_helper() {
        read_slowly(Duration::ZERO);
    }
}

#[test]
fn a_long_ready_delay() {
    const TAG: &str = "long-ready-delay";
    let Some(_turn) = turn(TAG) else { return };
    for (program, expected) in [("reads_late", true), ("reads_soon", false)] {
        let mut helper = Helper::start(program);
        helper.say();
        let (_, report) = stat(helper.id(), &[]);
        let entry = loop_called(&report, program);
        if entry["ready_delay_ns"]["count"] == 0 {
            return say(&format!("SKIPPED {TAG}: this kernel does not tell when sockets become ready"));
        }
        let found = finding(&report, TAG, program);
        assert_eq!(found.is_some(), expected, "{report:#}");
        if let Some(found) = found {
            assert!(is_at_least(found, "warn"), "{found:#}");
            // What comes at any moment of 60 ms waits for the rest of them.
            let delay = &found["evidence"]["ready_delay_p50_ns"];
            assert!(
                delay.as_u64() > Some(30 * MS),
                "the first message of each time waits longest: {found:#}"
            );
        }
    }
}

/// How late the timers of a thread may be.
const SLACK: u64 = 30 * MS;

#[test]
fn a_poll_delay() {
    let Some(_turn) = turn("poll-delay") else { return };
    let expiring = |comm: &str| {
        let spec = Spec { timeout_ns: Some(5 * MS), ..Spec::new(WaitCall::EpollPwait, Pattern::Expire) };
        serde_json::to_string(&named(comm, spec)).expect("a spec is JSON")
    };
    // The slack of a thread's timers is inherited; it is this thread's, and the test's own.
    let ours = rustix::thread::current_timer_slack().expect("it is told");
    rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(SLACK)).expect("it can be set");
    let fault = Worker::start(&expiring("fault"));
    rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(ours)).expect("it can be set");
    let twin = Worker::start(&expiring("twin"));
    let (_, late) = stat(fault.pid(), &[]);
    let (_, punctual) = stat(twin.pid(), &[]);
    fault.end();
    twin.end();
    let found = finding(&late, "poll-delay", "fault").unwrap_or_else(|| panic!("none: {late:#}"));
    let delay = found["evidence"]["poll_delay_p50_ns"].as_u64().expect("a number");
    assert!((10 * MS..=SLACK + 10 * MS).contains(&delay), "{found:#}");
    assert!(finding(&punctual, "poll-delay", "twin").is_none(), "{punctual:#}");
}

fn ring(mode: RingMode, fds: u32) -> Spec {
    Spec { ring: mode, fds, ..Spec::new(WaitCall::IoUringEnter, Pattern::Batch) }
}

#[test]
fn requests_that_are_submitted_one_at_a_time() {
    let (fault, twin) = (ring(RingMode::SubmitEach, 8), ring(RingMode::SubmitThenWait, 8));
    let Some((evidence, report)) = prove("submit-one-at-a-time", "warn", fault, twin) else { return };
    about(&evidence["requests_per_call_mean"], 1.0, 1e-9);
    // Of the twin, which makes batches of 1 to 8, every request is a completion.
    let twin = loop_called(&report, "twin");
    about(&twin["io_uring"]["requests"], twin["ready_events"].as_f64().expect("a number"), 0.001);
}

#[test]
fn completions_that_overflow() {
    let (fault, twin) = (ring(RingMode::TakeLate, 8), ring(RingMode::Plain, 8));
    if let Some((evidence, report)) = prove("cq-overflow", "critical", fault, twin) {
        assert_eq!(evidence["overflows"], loop_called(&report, "fault")["io_uring"]["cq_overflows"]);
        assert_eq!(loop_called(&report, "twin")["io_uring"]["cq_overflows"], 0);
    }
}

#[test]
fn requests_that_are_done_by_workers() {
    let (fault, twin) = (ring(RingMode::Workers, 8), ring(RingMode::Plain, 8));
    let Some((_, report)) = prove("io-wq-punts", "warn", fault, twin) else { return };
    // Every request was marked for a worker.
    let rings = &loop_called(&report, "fault")["io_uring"];
    about(&rings["io_wq_punts"], rings["requests"].as_f64().expect("a number"), 0.01);
    assert_eq!(loop_called(&report, "twin")["io_uring"]["io_wq_punts"], 0);
}

/// Programs that burn a CPU until dropped.
struct Hogs(Vec<Child>);

impl Hogs {
    fn start(count: usize) -> Self {
        let hog = |_| {
            let mut command = Command::new("taskset");
            command.args(["-c", "0", "sh", "-c", "while :; do :; done"]);
            command.stdin(Stdio::null()).spawn().expect("taskset is there")
        };
        Self((0..count).map(hog).collect())
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        for hog in &mut self.0 {
            let _ = hog.kill();
            let _ = hog.wait();
        }
    }
}

/// A loop that has 5 ms to do every 10 ms, in a process of its own that keeps to the first CPU.
fn pinned(comm: &str) -> Worker {
    let spec = named(comm, ticking(WaitCall::EpollPwait, 10 * MS, vec![burn(5 * MS)]));
    let worker = Worker::start(&serde_json::to_string(&spec).expect("a spec is JSON"));
    let done =
        Command::new("taskset").args(["-apc", "0", &worker.pid().to_string()]).stdout(Stdio::null()).status();
    assert!(done.is_ok_and(|status| status.success()), "taskset works");
    worker
}

/// How long the threads of a process called so have waited for a CPU, in nanoseconds: the scheduler's own count, the
/// second number of `/proc/PID/task/TID/schedstat`.
fn waited_for_cpu(pid: u32, comm: &str) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it is running");
    tasks
        .filter_map(Result::ok)
        .filter(|task| fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.trim_end() == comm))
        .filter_map(|task| {
            let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
            text.split_whitespace().nth(1)?.parse::<u64>().ok()
        })
        .sum()
}

#[test]
fn a_starved_loop() {
    const TAG: &str = "run-queue-starvation";
    let Some(_turn) = turn(TAG) else { return };
    let worker = pinned("fault");
    let hogs = Hogs::start(3);
    let (code, report, waited) = stat_beside(worker.pid(), || waited_for_cpu(worker.pid(), "fault"));
    drop(hogs);
    let found = finding(&report, TAG, "fault").unwrap_or_else(|| panic!("none: {report:#}"));
    assert!(is_at_least(found, "warn") && code == Some(3), "{report:#}");
    // The scheduler has counted it, too; in steps, and ioscope traced a little longer than that. Until its first wait call,
    // for which it had to wait as well, it was no loop.
    let entry = loop_called(&report, "fault");
    let time = |of: &Value| of.as_u64().expect("a time");
    let before = time(&report["elapsed_ns"]).saturating_sub(time(&entry["elapsed_ns"]));
    let ready = time(&entry["time_ns"]["ready"]);
    let (least, most) = (waited.saturating_sub(before) / 10 * 9, waited / 2 * 3);
    assert!((least..=most).contains(&ready), "{ready} of {waited}, {before} before: {report:#}");

    // The same loop, left alone; unless the machine has other work of its own.
    let (_, report, waited) = stat_beside(worker.pid(), || waited_for_cpu(worker.pid(), "fault"));
    worker.end();
    if waited > 75 * MS {
        return say(&format!("SKIPPED the twin of {TAG}: the machine is busy, it waited {} ms", waited / MS));
    }
    assert!(finding(&report, TAG, "fault").is_none(), "{report:#}");
}

#[test]
fn a_throttled_cgroup() {
    const TAG: &str = "cgroup-throttling";
    let Some(_turn) = turn(TAG) else { return };
    let spec =
        serde_json::to_string(&named("fault", ticking(WaitCall::EpollPwait, 10 * MS, vec![burn(5 * MS)])));
    let spec = spec.expect("a spec is JSON");
    for (name, quota, expected) in [("limited", Some(20_000), true), ("free", None, false)] {
        let group = match CpuLimit::of(name, quota) {
            Ok(group) => group,
            Err(reason) => return say(&format!("SKIPPED {TAG}: no cgroup can be limited: {reason}")),
        };
        let worker = Worker::start(&spec);
        group.take_in(worker.pid());
        let (code, report, throttled) = stat_beside(worker.pid(), || group.throttled_times());
        worker.end();
        let found = finding(&report, TAG, "fault");
        assert_eq!(found.is_some(), expected, "{report:#}");
        if let Some(found) = found {
            assert!(is_at_least(found, "warn") && code == Some(3), "{report:#}");
            let counted = found["evidence"]["throttled"].as_u64().expect("a count");
            // A period is 100 ms, and ioscope traced a little longer than that.
            assert!(
                counted + 1 >= throttled && counted <= throttled + 8,
                "{counted} of {throttled}: {found:#}"
            );
            // And is not taken for starved by others.
            assert!(finding(&report, "run-queue-starvation", "fault").is_none(), "{report:#}");
        }
    }
}

#[test]
fn what_the_exit_code_is() {
    let Some(_turn) = turn("--fail-on") else { return };
    let sleeping = |ns: u64| {
        let work = vec![Slice::each(100 * MS, Work::Nanosleep { ns })];
        let spec = Spec { duration_ns: Some(600 * MS), ..ticking(WaitCall::EpollPwait, 5 * MS, work) };
        format!(
            "printf 'go\\ngo\\n' | {} __worker '{}' > /dev/null",
            support::ioscope::IOSCOPE,
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
}
