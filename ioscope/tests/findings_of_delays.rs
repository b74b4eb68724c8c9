//! Findings of delays that others bring about, each with a healthy twin: a loop that computes for long, timers that may
//! be late, other programs on its CPU, a limit of its cgroup. As in `findings.rs`, on the real kernel.

mod support;

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ioscope::demo::{Pattern, Spec};
use ioscope_common::WaitCall;
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use serde_json::Value;
use support::again::up_to_three_times;
use support::cgroups::CpuLimit;
use support::findings::{
    MS, burn, finding, is_at_least, loop_called, named, stat, stat_beside, ticking, turn,
};
use support::helper::{Helper, is_helper};
use support::ioscope::{Worker, say};

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
    up_to_three_times(|| {
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
    });
}

/// How late the timers of a thread may be.
const SLACK: u64 = 30 * MS;

#[test]
fn a_poll_delay() {
    let Some(_turn) = turn("poll-delay") else { return };
    up_to_three_times(|| {
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
    });
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
    up_to_three_times(|| {
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
            return say(&format!(
                "SKIPPED the twin of {TAG}: the machine is busy, it waited {} ms",
                waited / MS
            ));
        }
        assert!(finding(&report, TAG, "fault").is_none(), "{report:#}");
    });
}

#[test]
fn a_throttled_cgroup() {
    const TAG: &str = "cgroup-throttling";
    let Some(_turn) = turn(TAG) else { return };
    up_to_three_times(|| {
        let spec = serde_json::to_string(&named(
            "fault",
            ticking(WaitCall::EpollPwait, 10 * MS, vec![burn(5 * MS)]),
        ));
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
    });
}
