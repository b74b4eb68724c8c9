//! Threads that come and go: born by the thousand, killed in a wait call, replaced by another program,
//! forked.

mod support;

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use ioscope::demo::{Pattern, Report, Spec, Start};
use ioscope::model::LoopModel;
use ioscope::probe::{Plan, Targets};
use ioscope_common::{State, WaitCall};
use rustix::event::{Timespec, poll};
use rustix::process::Signal;

use support::expect::brief;
use support::helper::{Helper, is_helper, listen, speak};
use support::kernel;
use support::tracer::{Tracer, plan};
use support::worker::{IOSCOPE, Worker};

/// Threads that one helper starts, one wait call each.
const CHURN: u64 = 20_000;
/// Of which so many live at once.
const AT_ONCE: usize = 50;
/// Loops that there is room for.
const CAPACITY: u32 = 256;
/// More threads than that, at the same time.
const CROWD: usize = 300;

/// A wait call that does not wait.
fn check_in() {
    poll(&mut [], Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).expect("polling nothing cannot fail");
}

#[test]
#[ignore = "twenty_thousand_threads starts it"]
fn helper_of_many_threads() {
    if !is_helper() {
        return;
    }
    for _ in 0..kernel::many(CHURN) / AT_ONCE as u64 {
        std::thread::scope(|scope| {
            for _ in 0..AT_ONCE {
                scope.spawn(check_in);
            }
        });
    }
    speak("churned");
    listen();
    for crowd in [CAPACITY as usize, CROWD] {
        let barrier = Barrier::new(crowd + 1);
        std::thread::scope(|scope| {
            for _ in 0..crowd {
                scope.spawn(|| {
                    check_in();
                    barrier.wait();
                    barrier.wait();
                });
            }
            barrier.wait();
            speak("crowded");
            listen();
            barrier.wait();
        });
        speak("gone");
        listen();
    }
}

#[test]
fn twenty_thousand_threads() {
    let mut helper = Helper::start("helper_of_many_threads");
    let Some(mut tracer) = Tracer::start(&Plan { capacity: CAPACITY, ..plan(&[helper.id()]) }) else {
        return;
    };
    helper.say();
    let listener = std::thread::spawn(move || {
        helper.hear("churned");
        helper
    });
    let churn = kernel::many(CHURN);
    let mut seen = 0;
    let mut drops = 0;
    let deadline = Instant::now() + Duration::from_mins(1);
    // The last of them may still be on their way out when the helper says that it is done.
    while !listener.is_finished() || seen + drops < churn {
        assert!(Instant::now() < deadline, "seen {seen}, without room {drops}: each is one of the two");
        std::thread::sleep(Duration::from_millis(1));
        let batch = tracer.take_raw();
        drops = batch.drops.loops_full;
        for sample in batch.samples.iter().filter(|sample| batch.ended.contains(&sample.id)) {
            let returns: u64 = sample.machine.counters.returns.iter().sum();
            assert_eq!((returns, sample.machine.counters.check_ins), (1, 1), "{:?}", sample.identity);
            seen += 1;
        }
    }
    eprintln!("seen {seen}, without room {drops}");
    assert_eq!(seen + drops, churn, "each is seen or counted");
    let mut helper = listener.join().expect("the helper has been heard");
    let before = tracer.take_raw().drops.loops_full;
    // Every place is free again, or this crowd would not fit.
    for (crowd, without_room) in [(CAPACITY as usize, 0), (CROWD, CROWD as u64 - u64::from(CAPACITY))] {
        helper.say();
        helper.hear("crowded");
        let deadline = Instant::now() + Duration::from_secs(30);
        let room = crowd.min(CAPACITY as usize);
        // A loop of which no copy comes out whole is left out of a batch.
        let batch = loop {
            let batch = tracer.take_raw();
            assert!(batch.samples.len() <= room, "{:?}", batch.drops);
            if batch.samples.len() == room {
                break batch;
            }
            assert!(Instant::now() < deadline, "{} of {room}: {:?}", batch.samples.len(), batch.drops);
        };
        assert_eq!(batch.drops.loops_full - before, without_room);
        helper.say();
        helper.hear("gone");
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut left = room;
        while left > 0 {
            assert!(Instant::now() < deadline, "{left} places are not given back");
            std::thread::sleep(Duration::from_millis(1));
            left -= tracer.take_raw().ended.len();
        }
    }
    helper.say();
    helper.end();
}

/// However many programs see a wait call, each thread that is found asleep without room is counted once.
#[test]
fn sleepers_without_room() {
    let spec = Spec {
        start: Start::BeforeGo,
        iterations: Some(1),
        threads: 8,
        ..Spec::new(WaitCall::Ppoll, Pattern::AlwaysReady)
    };
    let worker = Worker::of(&[spec]);
    let Some(mut tracer) = Tracer::start(&Plan { capacity: 3, ..plan(&[worker.id()]) }) else { return };
    let batch = tracer.take_raw();
    assert_eq!((batch.samples.len(), batch.drops.loops_full), (3, 5), "{:?}", batch.drops);
    worker.signal(Signal::KILL);
}

/// A loop that is killed in its wait call was waiting to the end.
#[test]
fn killed_in_a_wait_call() {
    let calls = [WaitCall::EpollPwait, WaitCall::Ppoll, WaitCall::IoUringEnter, WaitCall::IoPgetevents];
    let specs: Vec<Spec> = calls
        .into_iter()
        .map(|call| Spec {
            start: Start::BeforeGo,
            iterations: Some(1),
            threads: 2,
            ..Spec::new(call, Pattern::AlwaysReady)
        })
        .collect();
    let worker = Worker::of(&specs);
    let Some(mut tracer) = Tracer::of(&[worker.id()]) else { return };
    std::thread::sleep(Duration::from_millis(50));
    tracer.take();
    assert_eq!(tracer.count(), calls.len() * 2, "loops that sleep are found");
    let killed = Instant::now();
    worker.signal(Signal::KILL);
    tracer.take_until(|model| model.loops().all(|model| model.ended));
    tracer.finish();
    let dying = killed.elapsed();
    for model in tracer.model.loops() {
        let stats = &model.stats;
        // Some leave with `EINTR`, which the program does not live to see; the others were to go on.
        // A ring's wait that also submitted returns how much it did, whatever became of the wait.
        let ring = stats.counters.returns[WaitCall::IoUringEnter.index()];
        assert_eq!(stats.iterations() - ring, stats.counters.interrupted, "{}", brief(model));
        assert_eq!((stats.counters.ready_events, stats.loop_duration.count()), (0, 0), "{}", brief(model));
        // Not while it waited. On its way out a thread may have to wait for others, or for its requests to be cancelled, which
        // is seen where all takes long.
        let blocked = u128::from(stats.time_in(State::Blocked));
        assert!(blocked <= if kernel::is_emulated() { dying.as_nanos() } else { 0 }, "{}", brief(model));
        assert!(stats.time_in(State::Waiting) >= 50_000_000, "{}", brief(model));
    }
}

#[test]
#[ignore = "a_thread_that_executes_another_program starts it"]
fn helper_that_executes() {
    if !is_helper() {
        return;
    }
    // The harness runs this in a thread that is not the process's first, so that the kernel ends the first
    // and gives its number to this one.
    for _ in 0..5 {
        check_in();
    }
    let error = Command::new(IOSCOPE).arg("--version").exec();
    panic!("{error}");
}

/// Returns of all wait calls, summed over loops.
fn returns<'a>(loops: impl Iterator<Item = &'a LoopModel>) -> u64 {
    loops.map(|model| model.stats.iterations()).sum()
}

#[test]
fn a_thread_that_executes_another_program() {
    let mut helper = Helper::start("helper_that_executes");
    let pid = helper.id();
    let Some(mut tracer) = Tracer::of(&[pid]) else { return };
    helper.say();
    helper.end();
    tracer.take_until(|model| model.loops().count() == 1 && model.loops().all(|model| model.ended));
    tracer.finish();
    let (before, after): (Vec<&LoopModel>, Vec<&LoopModel>) =
        tracer.model.loops().partition(|model| model.identity.tid != pid);
    assert_eq!(returns(before.into_iter()), 5);
    // The program that follows makes the one check-in of every Rust program, and is no loop by that.
    assert_eq!(returns(after.into_iter()), 0);
}

/// A shell that waits for a word, and then starts a worker, which it lets go.
fn shell_with_worker(specs: &[Spec], report: &std::path::Path) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"read word; printf 'go\ngo\n' | "$0" __worker "$1" > "$2""#, IOSCOPE]);
    shell.arg(serde_json::to_string(specs).expect("specs are JSON")).arg(report);
    shell
}

/// The last line that the worker wrote.
fn read_report(path: &std::path::Path) -> Report {
    let text = std::fs::read_to_string(path).expect("the worker has written");
    serde_json::from_str(text.lines().last().expect("a line")).expect("a report")
}

fn follow(follow: bool) {
    let file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
    let specs = [
        Spec { threads: 3, iterations: Some(7), ..Spec::new(WaitCall::EpollPwait, Pattern::AlwaysReady) },
        Spec { iterations: Some(5), ..Spec::new(WaitCall::Ppoll, Pattern::Expire) },
    ];
    let mut command = shell_with_worker(&specs, file.path());
    let mut shell = command.stdin(std::process::Stdio::piped()).spawn().expect("sh can be run");
    let targets = Targets { processes: vec![shell.id()], follow, ..Targets::default() };
    let Some(mut tracer) = Tracer::start(&Plan { targets, ..plan(&[]) }) else {
        let _ = shell.kill();
        let _ = shell.wait();
        return;
    };
    drop(shell.stdin.take());
    assert!(shell.wait().expect("it is ours").success());
    let report = read_report(file.path());
    if !follow {
        tracer.finish();
        assert_eq!(tracer.count(), 0, "a child is no target");
        return;
    }
    tracer.take_until(|model| model.loops().count() == 4 && model.loops().all(|model| model.ended));
    tracer.finish();
    for thread in &report.threads {
        let tid = u32::try_from(thread.tid).expect("a thread's number is positive");
        let model = tracer.by_tid(tid).unwrap_or_else(|| panic!("no loop {tid}"));
        assert_eq!(model.identity.pid, report.pid);
        assert_eq!(model.stats.iterations(), thread.iterations, "{}", brief(model));
    }
    // The worker's main thread makes the one check-in of every Rust program, and is no loop by that.
    assert!(tracer.by_tid(report.pid).is_none());
}

#[test]
fn children_are_followed() {
    follow(true);
}

#[test]
fn children_are_not_followed_unasked() {
    follow(false);
}
