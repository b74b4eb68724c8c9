//! Wait calls that a stop and a continue interrupt: the kernel goes on with some by itself, which the program
//! does not see, and fails the others.

mod support;

use std::time::Duration;

use ioscope::demo::{Pattern, Spec};
use ioscope::model::LoopModel;
use ioscope_common::{STOPPED, State, WaitCall};
use rustix::process::Signal;

use support::expect::brief;
use support::kernel;
use support::tracer::Tracer;
use support::worker::{Worker, calls};

const STOPS: u64 = 3;
const STOPPED_FOR: Duration = Duration::from_millis(200);

/// Takes batches until so many loops are so; a moment after that.
fn once(tracer: &mut Tracer, loops: usize, is_so: impl Fn(&LoopModel) -> bool) -> u64 {
    tracer.take_until(|model| model.loops().filter(|model| is_so(model)).count() == loops);
    // A batch's time is from before its copies are made.
    tracer.take();
    tracer.model.now()
}

/// Which calls the kernel goes on with: `poll` by `restart_syscall`, the others by entering them again.
fn goes_on(call: WaitCall) -> bool {
    matches!(
        call,
        WaitCall::Poll | WaitCall::Ppoll | WaitCall::Select | WaitCall::Pselect6 | WaitCall::IoPgetevents
    )
}

#[test]
fn a_stop_and_a_continue() {
    let specs: Vec<Spec> = calls()
        .filter(|call| kernel::can(*call, Pattern::Expire))
        .map(|call| Spec {
            timeout_ns: Some(4_000_000_000),
            iterations: Some(if goes_on(call) { 1 } else { STOPS }),
            ..Spec::new(call, Pattern::Expire)
        })
        .collect();
    let mut worker = Worker::of(&specs);
    let Some(mut tracer) = Tracer::of(&[worker.id()]) else { return };
    worker.say().expect("the worker listens");
    let waits = |model: &LoopModel| model.present.state == State::Waiting;
    // Some are stopped in their first wait call, and are loops all the same.
    let loops = specs.len();
    let is_stopped =
        |model: &LoopModel| model.present.state == State::Blocked && model.present.syscall == Some(STOPPED);
    let (mut least, mut most) = (0, 0);
    for _ in 0..STOPS {
        let before = once(&mut tracer, loops, waits);
        worker.signal(Signal::STOP);
        // A thread stops when it gets to it.
        let stopped = once(&mut tracer, loops, is_stopped);
        std::thread::sleep(STOPPED_FOR);
        tracer.take();
        least += tracer.model.now() - stopped;
        worker.signal(Signal::CONT);
        most += once(&mut tracer, loops, |model| !is_stopped(model)) - before;
    }
    let report = worker.report().expect("the worker reports");
    tracer.finish();
    for (spec, thread) in specs.iter().zip(&report.threads) {
        let tid = u32::try_from(thread.tid).expect("a thread's number is positive");
        let model = tracer.by_tid(tid).unwrap_or_else(|| panic!("no loop {tid}: {spec:?}"));
        let counters = &model.stats.counters;
        let (restarts, interrupted) = if goes_on(spec.call) { (STOPS, 0) } else { (0, STOPS) };
        assert_eq!(thread.interrupted, interrupted, "{spec:?}");
        assert_eq!(counters.restarts, restarts, "{}", brief(model));
        assert_eq!(counters.interrupted, interrupted, "{}", brief(model));
        assert_eq!(counters.returns[spec.call.index()], thread.iterations, "{}", brief(model));
        assert_eq!(model.stats.iterations(), thread.iterations, "{}", brief(model));
        assert_eq!(counters.timeouts, thread.empty_wakeups, "{}", brief(model));
        assert_eq!(counters.ready_events + counters.errors, 0, "{}", brief(model));
        assert_eq!(model.stats.loop_duration.count(), thread.iterations - 1, "{}", brief(model));
        // It was no wait, and no work either.
        let stopped = model.stats.blockers.iter().find(|blocker| blocker.syscall == STOPPED);
        let stopped = stopped.unwrap_or_else(|| panic!("never stopped: {}", brief(model)));
        assert_eq!(stopped.count, STOPS, "{}", brief(model));
        assert!((least..=most).contains(&stopped.total_ns), "{least} to {most}: {}", brief(model));
        assert!(model.stats.time_in(State::Blocked) >= stopped.total_ns, "{}", brief(model));
    }
    worker.end().expect("the worker ends");
}

/// A handler runs while the process is stopped and continued: `EINTR` once, and no restart is left over.
#[test]
fn a_handler_after_a_stop() {
    let specs: Vec<Spec> = calls()
        .map(|call| Spec {
            iterations: Some(20),
            period_ns: 10_000_000,
            ..Spec::new(call, Pattern::Interrupted)
        })
        .collect();
    let mut worker = Worker::of(&specs);
    let Some(mut tracer) = Tracer::of(&[worker.id()]) else { return };
    worker.say().expect("the worker listens");
    for _ in 0..6 {
        std::thread::sleep(Duration::from_millis(13));
        worker.signal(Signal::STOP);
        std::thread::sleep(Duration::from_millis(13));
        worker.signal(Signal::CONT);
    }
    let report = worker.report().expect("the worker reports");
    tracer.finish();
    for thread in &report.threads {
        let tid = u32::try_from(thread.tid).expect("a thread's number is positive");
        let model = tracer.by_tid(tid).unwrap_or_else(|| panic!("no loop {tid}"));
        let counters = &model.stats.counters;
        // A signal that comes when the kernel has decided to enter the call again, and has not, makes two of one: a moment
        // on a real machine, where it hardly happens, and not so short on an emulated one.
        let twice = model.stats.iterations().checked_sub(thread.iterations);
        let twice = twice.unwrap_or_else(|| panic!("calls are missing: {}", brief(model)));
        let most = if kernel::is_emulated() { counters.restarts } else { counters.restarts.min(2) };
        assert!(twice <= most, "{}", brief(model));
        assert_eq!(counters.interrupted, thread.interrupted + twice, "{}", brief(model));
        assert_eq!(thread.interrupted, thread.iterations, "{}", brief(model));
    }
    worker.end().expect("the worker ends");
}
