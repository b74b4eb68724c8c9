//! Stalls of each cause, injected into a loop of which it is known what it does: found while they go on, with
//! the right length, most of it on the right cause, and the right function. What a busy machine can spoil is tried
//! again.

mod support;

use std::fs;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use ioscope::demo::{Pattern, Slice, Spec, ThreadReport, Work};
use ioscope::probe::Plan;
use ioscope::source::{LiveSource, Source as _};
use ioscope_common::{Control, WaitCall};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::Value;

use support::cgroups::{CpuLimit, SlowDisk};
use support::ioscope::{IOSCOPE, Tracing, can_trace, say};
use support::tracer::plan;
use support::worker::Worker;

const MS: u64 = 1_000_000;
/// How often it is tried, at most: up to the first time that all is as it should be.
const TRIES: u32 = 8;
/// Found so late at most: 10 ms and 5 % of the threshold.
const FOUND_WITHIN: u64 = 100 * MS + 10 * MS + 5 * MS;

/// One at a time: the tests of this file would take each other's CPU.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A loop whose every slice does this.
fn working(iterations: u64, work: &[Work]) -> Spec {
    Spec {
        iterations: Some(iterations),
        work: work.iter().copied().map(Slice::always).collect(),
        ..Spec::new(WaitCall::EpollPwait, Pattern::AlwaysReady)
    }
}

/// What came of a loop: by `ioscope stat --json`, and by itself.
struct Both {
    traced: Value,
    report: ThreadReport,
}

/// Runs a loop to its end under `ioscope stat`. `command` starts the worker; `prepare` is given it before it
/// is let go.
fn run(command: Command, spec: Spec, prepare: impl FnOnce(&Worker)) -> Both {
    run_to(command, spec, prepare, |_| ())
}

/// The same; `conclude` is given the worker when its loops have ended and it has not.
fn run_to(
    command: Command,
    spec: Spec,
    prepare: impl FnOnce(&Worker),
    conclude: impl FnOnce(&Worker),
) -> Both {
    let mut worker = Worker::start(command, &[spec]).expect("the worker starts");
    prepare(&worker);
    // On a busy machine it is to be seen how late ioscope is, not how long it waits for a CPU.
    let mut stat = undisturbed(2);
    stat.args(["stat", "--json", "--pid", &worker.id().to_string()]);
    let tracing = Tracing::start(stat);
    worker.say().expect("the worker listens");
    let report = worker.report().expect("the worker reports");
    conclude(&worker);
    worker.end().expect("the worker ends");
    let (_, mut documents) = tracing.end();
    let mut document = documents.pop().expect("a summary");
    let loops = document["loops"].as_array_mut().expect("loops");
    let [report] = report.threads.try_into().expect("one loop");
    let traced = loops.drain(..).find(|traced| traced["tid"] == report.tid).expect("it is traced");
    Both { traced, report }
}

/// An ioscope that others do not take the CPU from: of this real-time priority, where that can be had.
fn undisturbed(priority: u32) -> Command {
    static CAN: OnceLock<bool> = OnceLock::new();
    let can = *CAN.get_or_init(|| {
        let tried = Command::new("chrt").args(["-f", "1", "true"]).status();
        tried.is_ok_and(|status| status.success())
    });
    let mut command = Command::new(if can { "chrt" } else { IOSCOPE });
    if can {
        command.args(["-f", &priority.to_string(), IOSCOPE]);
    }
    command
}

/// What should be found.
struct Expected {
    cause: &'static str,
    syscall: Option<&'static str>,
    /// A function that is in the heaviest stack, this close to its innermost end.
    function: Option<(&'static str, usize)>,
    argument: Option<&'static str>,
}

fn check(both: &Both, expected: &Expected) -> Result<(), String> {
    let stalls = &both.traced["stalls"];
    let list = stalls["list"].as_array().expect("a list");
    let number = |value: &Value| value.as_u64().expect("a number");
    let slices = &both.report.loop_duration;
    let ensure = |is_so: bool, what: String| if is_so { Ok(()) } else { Err(what) };
    // The last slice has no end: the loop returned from its last wait call to stop.
    let count = slices.count;
    ensure(list.len() as u64 >= count, format!("{count} stalls, found {}", list.len()))?;
    let traced: u64 =
        list.iter().take(usize::try_from(count).expect("few")).map(|s| number(&s["duration_ns"])).sum();
    let within = |a: u64, b: u64, percent: u64| a.abs_diff(b) * 100 <= b * percent;
    ensure(within(traced, slices.sum_ns, 2), format!("{traced} ns traced, truth {}", slices.sum_ns))?;
    for stall in list {
        let duration = number(&stall["duration_ns"]);
        let parts: u64 = stall["account_ns"].as_object().expect("parts").values().map(number).sum();
        ensure(parts == duration, format!("the parts add up to {parts}, not {duration}"))?;
        let found = stall["found_at_ns"].as_u64().ok_or("it was not found while it went on")?;
        let after = found - number(&stall["began_at_ns"]);
        ensure((100 * MS..=FOUND_WITHIN).contains(&after), format!("found after {after} ns"))?;
        let cause = &stall["cause"];
        ensure(cause["name"] == expected.cause, format!("{cause}"))?;
        ensure(cause["syscall"].as_str() == expected.syscall, format!("{cause}"))?;
        // What others took of the CPU meanwhile is told apart, and is not much.
        let away = if expected.cause == "preempted" { 0 } else { number(&stall["account_ns"]["preempted"]) };
        let least = (0.9 * (duration - away) as f64 / duration as f64).max(0.7);
        ensure(cause["share"].as_f64().is_some_and(|share| share >= least), format!("{least}: {cause}"))?;
        if let Some(wanted) = expected.argument {
            let argument = stall["blocked_in"][0]["argument"].as_str().unwrap_or_default();
            ensure(argument.contains(wanted), format!("its argument is {argument}"))?;
        }
        if let Some((function, depth)) = expected.function {
            let frames = stall["stacks"][0]["frames"].as_array().ok_or("there is no stack")?;
            let names: Vec<_> =
                frames.iter().map(|frame| frame["name"].as_str().unwrap_or_default()).collect();
            let at = names.iter().position(|name| name.contains(function));
            ensure(at.is_some_and(|at| at <= depth), format!("{function} is not on top of {names:?}"))?;
        }
    }
    Ok(())
}

fn expect(
    expected: &Expected,
    spec: impl Fn() -> Spec,
    command: impl Fn() -> Command,
    prepare: impl Fn(&Worker),
) {
    let _alone = alone();
    if !can_trace(std::thread::current().name().unwrap_or("a test")) {
        return;
    }
    for last in 1..=TRIES {
        let both = run(command(), spec(), &prepare);
        let Err(wrong) = check(&both, expected) else { return };
        assert!(last < TRIES, "{wrong}\n{:#}\n{:?}", both.traced["stalls"], both.report);
    }
}

const BLOCKED: Expected = Expected { cause: "blocked", syscall: None, function: None, argument: None };

#[test]
fn a_spin_is_the_programs_own() {
    let expected = Expected { cause: "user", function: Some(("demo_parse_large_json", 1)), ..BLOCKED };
    expect(&expected, || working(3, &[Work::ParseJson { ns: 300 * MS }]), || undisturbed(1), |_| ());
}

#[test]
fn a_sleep_is_the_system_calls() {
    let expected =
        Expected { syscall: Some("nanosleep"), function: Some(("demo_sleep_in_handler", 8)), ..BLOCKED };
    expect(&expected, || working(3, &[Work::SleepInHandler { ns: 250 * MS }]), || undisturbed(1), |_| ());
}

#[test]
fn a_mutex_is_a_futex_with_its_address() {
    let expected = Expected {
        syscall: Some("futex"),
        function: Some(("demo_lock", 10)),
        argument: Some("futex 0x"),
        ..BLOCKED
    };
    expect(&expected, || working(3, &[Work::Mutex { ns: 300 * MS }]), || undisturbed(1), |_| ());
}

/// Several sleeps make a stall, too.
#[test]
fn fsync_names_its_file() {
    let expected = Expected {
        syscall: Some("fsync"),
        function: Some(("write_and_sync", 40)),
        argument: Some("ioscope-demo-"),
        ..BLOCKED
    };
    let Some(slow) = SlowDisk::of("write", 20) else {
        say("SKIPPED fsync_names_its_file: there is no cgroup that slows a disk");
        return;
    };
    let take_in = |worker: &Worker| {
        slow.take_in(worker.id());
    };
    expect(&expected, || working(3, &[Work::Fsync { bytes: 1 }; 10]), || undisturbed(1), take_in);
}

#[test]
fn a_page_that_does_not_come_is_a_page_fault() {
    let expected = Expected { cause: "page_fault", function: Some(("SlowPage::touch", 1)), ..BLOCKED };
    expect(&expected, || working(3, &[Work::PageFault { ns: 300 * MS }]), || undisturbed(1), |_| ());
}

/// A storm of them, each of which waits for the disk.
#[test]
fn pages_from_the_disk_are_page_faults() {
    const TEST: &str = "pages_from_the_disk_are_page_faults";
    const PAGES: u32 = 60;
    const READS_PER_SECOND: u32 = 200;
    // What the limit lets pass at once, after a rest: the share of a slice of it (`throtl_slice`, block/blk-throttle.c).
    const AT_ONCE: u32 = READS_PER_SECOND / 10;
    let expected = Expected { cause: "page_fault", function: Some(("demo_touch_pages", 40)), ..BLOCKED };
    let Some(slow) = SlowDisk::of("read", READS_PER_SECOND) else {
        say(&format!("SKIPPED {TEST}: there is no cgroup that slows a disk"));
        return;
    };
    let take_in = |worker: &Worker| {
        slow.take_in(worker.id());
    };
    expect(&expected, || working(3, &[Work::PageStorm { pages: PAGES }]), || undisturbed(1), take_in);
    if !can_trace(TEST) {
        return;
    }
    // By another source, the kernel's: each was a fault that went to the disk, and a sleep.
    let faults = std::cell::Cell::new(0);
    let major_faults = |pid: u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it is running");
        let after_name = stat.rsplit_once(") ").expect("a name").1;
        after_name.split(' ').nth(9).and_then(|field| field.parse::<u64>().ok()).expect("a count")
    };
    let _alone = alone();
    let spec = working(4, &[Work::PageStorm { pages: PAGES }]);
    let both = run_to(undisturbed(1), spec, take_in, |worker| faults.set(major_faults(worker.id())));
    let list = both.traced["stalls"]["list"].as_array().expect("a list");
    let sleeps: u64 = list
        .iter()
        .flat_map(|stall| stall["blocked_in"].as_array().into_iter().flatten())
        .filter(|blocked| blocked["syscall"] == "no system call")
        .map(|blocked| blocked["count"].as_u64().expect("a count"))
        .sum();
    // A page that need not wait for its turn may be there before the thread sleeps, and some kernels hide a switch now and
    // then. What the program itself was read in for is in the kernel's count, too.
    assert!(
        (sleeps + u64::from(AT_ONCE)) * 100 >= u64::from(4 * PAGES) * 98 && sleeps <= faults.get() + 8,
        "{sleeps} of {}",
        faults.get()
    );
}

/// A process that uses a CPU up, until it is dropped.
struct Hog(std::process::Child);

impl Hog {
    fn on(cpu: CpuSet) -> Self {
        let child = Command::new("sh").args(["-c", "while :; do :; done"]).spawn().expect("a shell");
        sched_setaffinity(Some(Pid::from_child(&child)), &cpu).expect("it can be pinned");
        Self(child)
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The first CPU that this process may use.
fn one_cpu() -> CpuSet {
    let all = sched_getaffinity(None).expect("it can be asked");
    let first = (0..CpuSet::MAX_CPU).find(|cpu| all.is_set(*cpu)).expect("there is a CPU");
    let mut one = CpuSet::new();
    one.set(first);
    one
}

#[test]
fn a_hog_on_the_same_cpu_preempts() {
    let expected = Expected { cause: "preempted", ..BLOCKED };
    let nice = || {
        let mut command = Command::new("nice");
        command.args(["-n", "19", IOSCOPE]);
        command
    };
    let cpu = one_cpu();
    let hogs = Mutex::new(Vec::new());
    let prepare = |worker: &Worker| {
        sched_setaffinity(Some(worker.pid()), &cpu).expect("it can be pinned");
        let mut hogs = hogs.lock().expect("nothing panicked");
        hogs.clear();
        hogs.push(Hog::on(cpu));
    };
    expect(&expected, || working(3, &[Work::Burn { ns: 8 * MS }]), nice, prepare);
}

#[test]
fn a_limit_of_its_cgroup_throttles() {
    let expected = Expected { cause: "throttled", ..BLOCKED };
    let Ok(limited) = CpuLimit::of("stalls", Some(3_000)) else {
        say("SKIPPED a_limit_of_its_cgroup_throttles: there is no cgroup of CPU time");
        return;
    };
    let command = || Command::new(IOSCOPE);
    let cpu = one_cpu();
    let prepare = |worker: &Worker| {
        sched_setaffinity(Some(worker.pid()), &cpu).expect("it can be pinned");
        limited.take_in(worker.id());
    };
    expect(&expected, || working(3, &[Work::Burn { ns: 12 * MS }]), command, prepare);
    if !can_trace("a_limit_of_its_cgroup_throttles") {
        return;
    }
    // By two other sources: what the loop did not run of its slices, by its own clocks, and the kernel, which says
    // that there was a limit to run into.
    let mut compared = Vec::new();
    for _ in 0..TRIES {
        let before = limited.throttled_times();
        let Both { traced, report } = run(command(), working(4, &[Work::Burn { ns: 12 * MS }]), prepare);
        assert!(limited.throttled_times() > before);
        let list = traced["stalls"]["list"].as_array().expect("a list");
        let of = |stall: &serde_json::Value| stall["account_ns"]["throttled"].as_u64().expect("a number");
        let throttled: u64 = list.iter().take(3).map(of).sum();
        let slices = report.loop_duration;
        let off_cpu = slices.sum_ns - report.work_cpu.sum_ns * slices.count / report.work_cpu.count;
        assert!(throttled * 100 <= off_cpu * 103, "traced {throttled}, off its CPU {off_cpu}");
        // What others took of the CPU besides is preemption; on a busy machine it is tried again.
        if throttled * 100 >= off_cpu * 80 {
            return;
        }
        compared.push((throttled, off_cpu));
    }
    panic!("traced, off its CPU: {compared:?}");
}

/// Of one thread alone in its group on one CPU, the kernel's own count of throttled time is that thread's: it counts by queue,
/// from the moment at which the group's share is used up to that at which it has a new one. ioscope's is a little
/// longer, by the wait for the CPU after that. Both are taken as shares of the time that each was counted for.
#[test]
fn throttled_time_is_the_kernels() {
    const TEST: &str = "throttled_time_is_the_kernels";
    let _alone = alone();
    if !can_trace(TEST) {
        return;
    }
    let Ok(limited) = CpuLimit::of("time", Some(50_000)) else {
        return say(&format!("SKIPPED {TEST}: there is no cgroup of CPU time"));
    };
    let spec =
        Spec { iterations: None, duration_ns: Some(30_000 * MS), ..working(1, &[Work::Burn { ns: 2 * MS }]) };
    let mut worker = Worker::start(Command::new(IOSCOPE), &[spec]).expect("the worker starts");
    sched_setaffinity(Some(worker.pid()), &one_cpu()).expect("it can be pinned");
    limited.take_in(worker.id());
    worker.say().expect("the worker listens");
    std::thread::sleep(Duration::from_millis(300));
    let mut compared = Vec::new();
    for _ in 0..TRIES {
        let mut stat = undisturbed(2);
        stat.args(["stat", "--json", "--duration", "5s", "--pid", &worker.id().to_string()]);
        let tracing = Tracing::start(stat);
        let (began, before) = (Instant::now(), limited.throttled_ns());
        let (_, documents) = tracing.end();
        let (counted, elapsed) = (limited.throttled_ns() - before, began.elapsed());
        let traced = &documents[0]["loops"][0];
        let number = |field: &str| traced[field].as_f64().expect("a number");
        let ours = number("throttled_ns") / number("elapsed_ns");
        let kernels = counted as f64 / elapsed.as_nanos() as f64;
        // A period more or less of fifty is at either end.
        if kernels > 0.1 && (0.95..=1.08).contains(&(ours / kernels)) {
            return;
        }
        compared.push((ours, kernels));
    }
    panic!("throttled by ioscope, by the kernel: {compared:?}");
}

/// What is short is no stall, whatever it is.
#[test]
fn healthy_twins_raise_nothing() {
    // Longer by their own clock, they may be a stall by ioscope's, which is read inside the wait calls.
    const HARDLY: u64 = 90 * MS;
    let _alone = alone();
    if !can_trace("healthy_twins_raise_nothing") {
        return;
    }
    let twins = [
        Work::ParseJson { ns: 5 * MS },
        Work::SleepInHandler { ns: 5 * MS },
        Work::Mutex { ns: 5 * MS },
        Work::Fsync { bytes: 1 },
        Work::PageFault { ns: 5 * MS },
    ];
    for work in twins {
        for last in 1..=TRIES {
            let both = run(undisturbed(1), working(20, &[work]), |_| ());
            let stalls = &both.traced["stalls"];
            let number = |of: &str| stalls[of].as_u64().expect("a number");
            // Of those that a wait call ended. The slice after the last, which ends with its thread, the loop does not time.
            let (count, stalled) = (number("count"), number("longest_ns"));
            let longest = both.report.loop_duration.max_ns;
            assert!(stalls["ongoing"].is_null());
            assert!(count == 0 || longest >= HARDLY, "{work:?}, {longest} ns: {stalls:#}");
            assert!(stalled <= longest + longest / 50, "{work:?}, {longest} ns: {stalls:#}");
            if stalls["list"].as_array().is_some_and(Vec::is_empty) && longest < HARDLY {
                break;
            }
            assert!(last < TRIES, "the machine is too busy: {:?}\n{stalls:#}", both.report);
        }
    }
}

/// Nobody drains the stream, which is as small as can be: a loop that does not come back is found all the same.
#[test]
fn a_stall_that_does_not_end_is_found_though_the_stream_is_full() {
    let _alone = alone();
    if !can_trace("a_stall_that_does_not_end_is_found_though_the_stream_is_full") {
        return;
    }
    let sleep = Slice { every: 1_000, ..Slice::always(Work::SleepInHandler { ns: 3_000 * MS }) };
    let spec = Spec { work: vec![sleep], ..working(1_001, &[]) };
    let mut found_after = Vec::new();
    for _ in 0..TRIES {
        let mut worker =
            Worker::start(undisturbed(1), std::slice::from_ref(&spec)).expect("the worker starts");
        let plan = Plan {
            stall_threshold: Duration::from_millis(100),
            warn_threshold: Duration::from_millis(10),
            stream: Control::STREAM_ALL,
            ..plan(&[worker.id()])
        };
        let mut source = LiveSource::start(&plan).expect("it can trace");
        worker.say().expect("the worker listens");
        let deadline = Instant::now() + Duration::from_secs(10);
        let batch = loop {
            assert!(Instant::now() < deadline, "it is not found");
            std::thread::sleep(source.next_look().saturating_duration_since(Instant::now()));
            if source.look_for_stalls() {
                let batch = source.next_batch().expect("it goes on").expect("a batch");
                if !batch.found.is_empty() {
                    break batch;
                }
            }
        };
        assert!(batch.drops.ring_full > 0, "the stream is not full");
        found_after.push(batch.found[0].found_at - batch.found[0].began_at);
        if found_after.last().is_some_and(|after| *after <= FOUND_WITHIN) {
            return;
        }
    }
    panic!("found after {found_after:?} ns");
}

/// Workers that share a poller wait for each other: that is idle, however long it takes.
#[test]
fn threads_that_park_do_not_stall() {
    let _alone = alone();
    if !can_trace("threads_that_park_do_not_stall") {
        return;
    }
    // The sleep leaves the turn to another, or one may take all.
    let spec = Spec {
        threads: 3,
        period_ns: 150 * MS,
        iterations: None,
        duration_ns: Some(3_000 * MS),
        work: vec![Slice::always(Work::Nanosleep { ns: 5 * MS })],
        ..Spec::new(WaitCall::EpollPwait, Pattern::TakeTurns)
    };
    for last in 1..=TRIES {
        let mut worker = Worker::of(std::slice::from_ref(&spec));
        let mut stat = Command::new(IOSCOPE);
        stat.args(["stat", "--json", "--stall-threshold", "50ms", "--pid", &worker.id().to_string()]);
        let tracing = Tracing::start(stat);
        worker.say().expect("the worker listens");
        worker.report().expect("the worker reports");
        worker.end().expect("the worker ends");
        let (_, documents) = tracing.end();
        let loops = documents[0]["loops"].as_array().expect("loops");
        let number = |traced: &Value, of: &str| traced.pointer(of).and_then(Value::as_u64).expect("a number");
        let sum = |of: &str| loops.iter().map(|traced| number(traced, of)).sum::<u64>();
        let (parked, stalled) = (sum("/time_ns/parked"), sum("/stalls/total_ns") + sum("/stalls/ongoing_ns"));
        // What is long for another reason, as the wait for a CPU after a wakeup, may rightly be a stall.
        if loops.len() >= 2 && parked > 2_000 * MS && stalled * 10 < parked {
            return;
        }
        assert!(last < TRIES, "{parked} ns parked, {stalled} ns stalled: {loops:#?}");
    }
}
