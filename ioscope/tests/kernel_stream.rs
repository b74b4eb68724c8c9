//! The stream: every iteration is a record, or is counted as dropped; records add up to the counters.

mod support;

use ioscope::demo::Slice;
use ioscope::demo::{Pattern, Spec, Start, Work};
use ioscope_common::{Iteration, WaitCall};

use support::expect::brief;
use support::kernel::{has_call, many};
use support::tracer::{Tracer, streaming};
use support::worker::Worker;

const ROOMY: u32 = 1 << 26;
const TINY: u32 = 4096;

/// Runs the loops to their end, with batches taken on the way if wanted.
fn run(specs: &[Spec], stream_bytes: u32, takes: bool) -> Option<Tracer> {
    let mut worker = Worker::of(specs);
    let mut tracer = Tracer::start(&streaming(&[worker.id()], stream_bytes))?;
    worker.say().expect("the worker listens");
    let mut worker = if takes {
        std::thread::scope(|scope| {
            let reporter = scope.spawn(move || {
                worker.report().expect("the worker reports");
                worker
            });
            while !reporter.is_finished() {
                tracer.take();
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            reporter.join().expect("the worker reports")
        })
    } else {
        worker.report().expect("the worker reports");
        worker
    };
    tracer.finish();
    worker.say().expect("the worker listens");
    Some(tracer)
}

fn specs() -> Vec<Spec> {
    let loops = |call, pattern, iterations| Spec {
        iterations: Some(iterations),
        period_ns: 300_000,
        timing: false,
        ..Spec::new(call, pattern)
    };
    let blocking =
        vec![Slice::always(Work::Nanosleep { ns: 100_000 }), Slice::always(Work::Futex { ns: 50_000 })];
    let specs = [
        loops(WaitCall::EpollPwait, Pattern::AlwaysReady, many(200_000)),
        Spec { threads: 4, ..loops(WaitCall::Ppoll, Pattern::CheckIn, many(50_000)) },
        Spec { fds: 8, ..loops(WaitCall::IoUringEnter, Pattern::Batch, many(50_000)) },
        loops(WaitCall::Pselect6, Pattern::PingPong, 500),
        loops(WaitCall::EpollPwait2, Pattern::Expire, 200),
        loops(WaitCall::Ppoll, Pattern::Interrupted, 200),
        Spec { start: Start::BeforeGo, ..loops(WaitCall::EpollPwait, Pattern::Ticker, 500) },
        Spec { threads: 3, ..loops(WaitCall::EpollPwait, Pattern::TakeTurns, 200) },
        Spec { work: blocking, ..loops(WaitCall::IoPgetevents, Pattern::PingPong, 300) },
    ];
    specs.into_iter().filter(|spec| has_call(spec.call)).collect()
}

#[test]
fn records_add_up_to_the_counters() {
    let Some(tracer) = run(&specs(), ROOMY, true) else { return };
    assert_eq!(tracer.model.drops().ring_full, 0);
    let mut loops = 0;
    for model in tracer.model.loops() {
        let stats = &model.stats;
        let records = tracer.iterations.get(&model.id).map_or(&[][..], Vec::as_slice);
        assert_eq!(records.len() as u64, stats.iterations(), "{}", brief(model));
        let sum = |of: &dyn Fn(&Iteration) -> u64| records.iter().map(of).sum::<u64>();
        let having = |flag: u8| sum(&|record| u64::from(record.flags & flag != 0));
        assert_eq!(sum(&|record| u64::from(record.events)), stats.counters.ready_events, "{}", brief(model));
        assert_eq!(having(Iteration::CHECK_IN), stats.counters.check_ins, "{}", brief(model));
        assert_eq!(having(Iteration::TIMED_OUT), stats.counters.timeouts, "{}", brief(model));
        assert_eq!(having(Iteration::BATCH_FULL), stats.counters.batch_full, "{}", brief(model));
        let failed = sum(&|record| u64::from(record.result < 0 && record.result != -62));
        assert_eq!(failed, stats.counters.errors + stats.counters.interrupted, "{}", brief(model));
        let latencies = || records.iter().filter(|record| record.wakeup_ns != ioscope_common::NO_WAKEUP);
        assert_eq!(latencies().count() as u64, stats.wakeup_latency.count(), "{}", brief(model));
        let total: u64 = latencies().map(|record| record.wakeup_ns).sum();
        assert_eq!(total, stats.wakeup_latency.sum(), "{}", brief(model));
        // Where the kernel hid the switch-in, the wakeup is known and the time on the run queue is not.
        let queued = || latencies().filter(|record| record.run_queue_ns != ioscope_common::NO_WAKEUP);
        assert_eq!(queued().count() as u64, stats.run_queue_delay.count(), "{}", brief(model));
        let total: u64 = queued().map(|record| record.run_queue_ns).sum();
        assert_eq!(total, stats.run_queue_delay.sum(), "{}", brief(model));

        // The last slice was cut by the thread's end.
        let (last, complete) = records.split_last().expect("a loop has iterated");
        assert_ne!(last.flags & Iteration::CUT, 0, "{last:?}");
        assert!(complete.iter().all(|record| record.flags & Iteration::CUT == 0), "{}", brief(model));
        let slices: u64 = complete.iter().map(|record| record.loop_ns).sum();
        assert_eq!(slices, stats.loop_duration.sum(), "{}", brief(model));
        assert_eq!(complete.len() as u64, stats.loop_duration.count(), "{}", brief(model));

        // An iteration begins where the one before has ended.
        for pair in records.windows(2) {
            let [before, after] = pair else { unreachable!("two at a time") };
            let entered = before.returned_at + before.loop_ns + before.parked_ns;
            assert_eq!(entered + after.wait_ns, after.returned_at, "{before:?}\n{after:?}");
        }
        assert_eq!(last.returned_at + last.loop_ns + last.parked_ns, stats.until, "{last:?}");

        // Sleeps outside wait calls: each is a record, and belongs to a slice.
        let blocks = tracer.blocks.get(&model.id).map_or(&[][..], Vec::as_slice);
        let sleeps: u64 = stats.blockers.iter().map(|blocker| blocker.count).sum();
        let parked = blocks.iter().filter(|block| block.state == ioscope_common::State::Parked as u32);
        let (parked, parked_ns) = parked.fold((0, 0), |(count, ns), block| (count + 1, ns + block.ns));
        assert_eq!(blocks.len() as u64, sleeps + parked, "{}", brief(model));
        let slept: u64 = blocks.iter().map(|block| block.ns).sum();
        let in_blockers: u64 = stats.blockers.iter().map(|blocker| blocker.total_ns).sum();
        assert_eq!(slept, in_blockers + parked_ns, "{}", brief(model));
        assert_eq!(stats.time_in(ioscope_common::State::Blocked), in_blockers, "{}", brief(model));
        assert_eq!(stats.time_in(ioscope_common::State::Parked), parked_ns, "{}", brief(model));
        loops += 1;
    }
    assert_eq!(loops, specs().iter().map(|spec| spec.threads).sum::<u32>());
}

/// What does not fit is counted, to the last record.
#[test]
fn what_a_full_buffer_loses_is_counted() {
    let specs = [
        Spec {
            iterations: Some(many(50_000)),
            timing: false,
            ..Spec::new(WaitCall::EpollPwait, Pattern::AlwaysReady)
        },
        Spec {
            threads: 2,
            iterations: Some(many(50_000)),
            timing: false,
            ..Spec::new(WaitCall::Ppoll, Pattern::CheckIn)
        },
    ];
    let Some(tracer) = run(&specs, TINY, false) else { return };
    let drained = tracer.iterations.values().chain(&[]).map(|records| records.len() as u64).sum::<u64>()
        + tracer.blocks.values().map(|blocks| blocks.len() as u64).sum::<u64>();
    let sleeps: u64 =
        tracer.model.loops().flat_map(|model| &model.stats.blockers).map(|blocker| blocker.count).sum();
    let completed: u64 = tracer.model.loops().map(|model| model.stats.iterations()).sum();
    let lost = tracer.model.drops().ring_full;
    assert!(lost > 0 && drained > 0, "{lost} {drained}");
    assert_eq!(drained + lost, completed + sleeps);
    assert_eq!(completed, 3 * many(50_000), "the counters are exact all the same");
}

/// Without a consumer nothing is written.
#[test]
fn nothing_streams_unasked() {
    let mut worker = Worker::of(&[Spec { iterations: Some(1000), ..Spec::default() }]);
    let Some(mut tracer) = Tracer::of(&[worker.id()]) else { return };
    worker.say().expect("the worker listens");
    worker.report().expect("the worker reports");
    tracer.finish();
    assert!(tracer.iterations.is_empty() && tracer.blocks.is_empty());
    assert_eq!(tracer.model.drops().ring_full, 0);
}
