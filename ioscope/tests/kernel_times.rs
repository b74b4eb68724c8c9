//! Time per state, compared with what the loops measure themselves: within 2 % where two clocks are read, exactly
//! where the tracer's own figures bound each other. A comparison that a busy machine can spoil is tried again.

mod support;

use std::cell::Cell;
use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ioscope::demo::{Pattern, Slice, Spec, ThreadReport, Work};
use ioscope::model::LoopModel;
use ioscope_common::{State, WaitCall};
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use support::expect::brief;
use support::kernel;
use support::tracer::Tracer;
use support::worker::Worker;

const US: u64 = 1_000;
const MS: u64 = 1_000_000;
/// How often a comparison is tried before it has failed.
const TRIES: u32 = 3;

/// One at a time: the tests of this file would take each other's CPU.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A loop, by the tracer and by itself.
struct Both {
    model: LoopModel,
    report: ThreadReport,
    /// What the host took of all CPUs meanwhile, in nanoseconds: as much at most.
    stolen_ns: u64,
}

impl Both {
    fn time(&self, state: State) -> u64 {
        self.model.stats.time_in(state)
    }

    /// What the loop says of the system call that its work sleeps in: in nanoseconds, and how often.
    fn told(&self, syscall: &str) -> (u64, u64) {
        self.report.blocked.get(syscall).map_or((0, 0), |total| (total.sum_ns, total.count))
    }

    /// What the tracer says of it.
    fn blocked_in(&self, syscall: &str) -> (u64, u64) {
        let name = |number| ioscope::output::json::syscall_name(number);
        let of_name = self.model.stats.blockers.iter().find(|blocker| name(blocker.syscall) == syscall);
        of_name.map_or((0, 0), |blocker| (blocker.total_ns, blocker.count))
    }
}

/// On an emulated machine, where attaching takes seconds, the tests share a tracer.
static KEPT: Mutex<Option<Tracer>> = Mutex::new(None);

/// Runs these loops to their end; `prepare` is given the worker before it is let go.
fn run(specs: &[Spec], prepare: impl FnOnce(&Worker)) -> Option<Vec<Both>> {
    let mut worker = Worker::of(specs);
    let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner).take();
    let mut tracer = if let Some(mut tracer) = kept {
        tracer.add_target(worker.id());
        tracer
    } else {
        Tracer::of(&[worker.id()])?
    };
    prepare(&worker);
    let stolen_before = stolen_ticks();
    worker.say().expect("the worker listens");
    let report = worker.report().expect("the worker reports");
    // A tick that is not full is not told.
    let stolen_ns = match stolen_ticks().saturating_sub(stolen_before) {
        0 => 0,
        ticks => (ticks + 1) * 1_000_000_000 / rustix::param::clock_ticks_per_second(),
    };
    if kernel::is_emulated() {
        // What has ended is exact, too.
        let is_one = |model: &LoopModel| {
            report.threads.iter().any(|thread| thread.tid.cast_unsigned() == model.identity.tid)
        };
        tracer.take_until(|model| {
            model.loops().filter(|model| is_one(model) && model.ended).count() == report.threads.len()
        });
    } else {
        tracer.finish();
    }
    worker.end().expect("the worker ends");
    let both = |report: ThreadReport| {
        let tid = u32::try_from(report.tid).expect("a thread's number is positive");
        Both { model: tracer.by_tid(tid).expect("every loop is traced").clone(), report, stolen_ns }
    };
    let all = report.threads.into_iter().map(both).collect();
    if kernel::is_emulated() {
        *KEPT.lock().unwrap_or_else(PoisonError::into_inner) = Some(tracer);
    }
    Some(all)
}

/// What the host took of all CPUs since they run, in ticks of `/proc/stat`: the eighth number (`proc_stat(5)`).
fn stolen_ticks() -> u64 {
    let stat = fs::read_to_string("/proc/stat").expect("it can be read");
    let stolen = stat.split_whitespace().nth(8).expect("eight numbers");
    stolen.parse().expect("a number")
}

/// `Ok` when two figures differ by 2 % at most.
fn near(what: &str, traced: u64, truth: u64) -> Result<(), String> {
    if traced.abs_diff(truth) * 50 <= truth {
        Ok(())
    } else {
        Err(format!("{what}: traced {traced}, truth {truth}"))
    }
}

/// `Ok` when RUNNING is the CPU time that the work used, within 2 %. What the host takes meanwhile is RUNNING as
/// far as anybody here can see, and need not be in the CPU time.
fn burnt(both: &Both) -> Result<(), String> {
    let (running, cpu, stolen) = (both.time(State::Running), both.report.work_cpu.sum_ns, both.stolen_ns);
    if (cpu - cpu / 50..=cpu + cpu / 50 + stolen).contains(&running) {
        Ok(())
    } else {
        Err(format!("RUNNING: traced {running}, truth {cpu}, stolen {stolen}"))
    }
}

/// Tries a comparison until it holds. What it finds wrong is what the last try found.
fn try_to(specs: &[Spec], compare: impl Fn(&Both) -> Result<(), String>) {
    let _alone = alone();
    for last in 1..=TRIES {
        let Some(loops) = run(specs, |_| ()) else { return };
        let wrong = loops.iter().find_map(|both| Some((compare(both).err()?, both)));
        let Some((wrong, both)) = wrong else { return };
        assert!(last < TRIES, "{wrong}\n{}\n{:?}", brief(&both.model), both.report);
    }
}

fn working(call: WaitCall, iterations: u64, work: Work) -> Spec {
    Spec {
        iterations: Some(iterations),
        work: vec![Slice::always(work)],
        ..Spec::new(call, Pattern::AlwaysReady)
    }
}

#[test]
fn burning_is_running() {
    let specs = [
        working(WaitCall::EpollPwait, 450, Work::Burn { ns: 2 * MS }),
        Spec { pattern: Pattern::Ticker, ..working(WaitCall::Ppoll, 180, Work::ParseJson { ns: 4 * MS }) },
    ];
    try_to(&specs, |both| {
        burnt(both)?;
        let idle = both.time(State::Blocked) + both.time(State::Parked);
        if idle == 0 { Ok(()) } else { Err(format!("neither blocked nor parked: {idle}")) }
    });
}

/// Sleeps of a known length, in a known system call.
fn sleeping(work: Work, iterations: u64) {
    let syscall = work.syscall().expect("it sleeps");
    let specs = [
        working(WaitCall::EpollPwait, iterations, work),
        Spec { pattern: Pattern::PingPong, ..working(WaitCall::IoUringEnter, iterations, work) },
    ];
    try_to(&specs, |both| {
        let (told, times) = both.told(syscall);
        let (blocked, sleeps) = both.blocked_in(syscall);
        // A loop that owns its poller is blocked by a futex, not parked.
        assert_eq!(both.time(State::Parked), 0, "{}", brief(&both.model));
        let all: u64 = both.model.stats.blockers.iter().map(|blocker| blocker.total_ns).sum();
        assert_eq!(both.time(State::Blocked), all, "{}", brief(&both.model));
        // In the system call it is blocked, about to run again, or running; on the way there it may sleep for a page.
        let (ready, running) = (both.time(State::Ready), both.time(State::Running));
        let most = all + ready + running;
        assert!(blocked <= told && told <= most, "{told}: {}", brief(&both.model));
        // A timer may be late, and is not early.
        if let Work::Nanosleep { ns } | Work::SleepInHandler { ns } | Work::Futex { ns } = work {
            assert!(ns * times <= most, "{times} times {ns}: {}", brief(&both.model));
        }
        if both.report.iterations != times || sleeps < times {
            return Err(format!("{sleeps} sleeps, {times} by the loop"));
        }
        // The ping-pong's READY belongs to its wait, too.
        let own_ready = ready.saturating_sub(both.model.stats.run_queue_delay.sum());
        near(syscall, blocked + own_ready, told)
    });
}

#[test]
fn nanosleep_is_blocked() {
    sleeping(Work::Nanosleep { ns: 5 * MS }, 60);
}

#[test]
fn a_sleeping_handler_is_blocked() {
    sleeping(Work::SleepInHandler { ns: 20 * MS }, 15);
}

#[test]
fn futex_of_a_loop_with_its_own_poller_is_blocked() {
    sleeping(Work::Futex { ns: 5 * MS }, 60);
}

#[test]
fn a_read_of_a_pipe_is_blocked() {
    sleeping(Work::PipeRead { ns: 5 * MS }, 60);
}

/// How long a disk takes nobody knows; but what is not blocked in `fsync` is running or ready.
#[test]
fn fsync_is_blocked() {
    let specs = [working(WaitCall::EpollPwait, 20, Work::Fsync { bytes: 1 << 20 })];
    try_to(&specs, |both| {
        let (told, _) = both.told("fsync");
        let (blocked, sleeps) = both.blocked_in("fsync");
        let most = both.time(State::Blocked) + both.time(State::Ready) + both.time(State::Running);
        assert!(blocked <= told && told <= most, "{told}: {}", brief(&both.model));
        assert!(sleeps > 0 || blocked == 0, "{}", brief(&both.model));
        Ok(())
    });
}

#[test]
fn waiting_is_what_the_loop_waits() {
    let calls = [WaitCall::EpollPwait2, WaitCall::Ppoll, WaitCall::Pselect6, WaitCall::IoPgetevents];
    let specs = |pattern| {
        let calls = calls.into_iter().filter(|call| kernel::has_call(*call));
        calls.map(move |call| Spec {
            iterations: Some(80),
            period_ns: 4 * MS,
            timeout_ns: Some(5 * MS),
            count_sleeps: true,
            ..Spec::new(call, pattern)
        })
    };
    for pattern in [Pattern::PingPong, Pattern::Expire] {
        let specs: Vec<Spec> = specs(pattern)
            .map(|spec| Spec { timeout_ns: spec.timeout_ns.filter(|_| pattern == Pattern::Expire), ..spec })
            .collect();
        try_to(&specs, |both| {
            let stats = &both.model.stats;
            let (ready, polling) = (both.time(State::Ready), both.time(State::Polling));
            // Of the time after a wakeup, what is not READY is POLLING: on the way out.
            assert!(stats.run_queue_delay.sum() <= ready, "{}", brief(&both.model));
            assert!(stats.wakeup_latency.sum() <= ready + polling, "{}", brief(&both.model));
            assert!(stats.run_queue_delay.sum() <= stats.wakeup_latency.sum(), "{}", brief(&both.model));
            // Some kernels hide some wakeups; and beside the call it may sleep for a page.
            let (seen, sleeps) = (stats.wakeup_latency.count(), both.report.sleeps.unwrap_or(0));
            let outside: u64 = stats.blockers.iter().map(|blocker| blocker.count).sum();
            let most = seen + stats.counters.unseen + outside;
            assert!(seen <= sleeps && sleeps <= most, "{sleeps}: {}", brief(&both.model));
            near("the wait", both.time(State::Waiting) + ready + polling, both.report.wait.sum_ns)?;
            // After its last wait call, which ends the loop's own watch, a loop may sleep in `io_destroy`.
            near("the life", stats.elapsed_ns() - both.time(State::Blocked), both.report.wall_ns)?;
            if pattern == Pattern::Expire {
                let wait = both.report.wait.count * 5 * MS;
                let late = both.report.poll_delay.sum_ns;
                // A timer may be late, and is not early. The loop's clock is read outside the call, the tracer's inside.
                let waiting = both.time(State::Waiting);
                assert!(waiting <= wait + late, "{wait} {late} {}", brief(&both.model));
                assert!(wait <= waiting + ready + polling, "{wait} {}", brief(&both.model));
                assert!(stats.poll_delay.sum() <= late, "{late} {}", brief(&both.model));
            }
            Ok(())
        });
    }
}

/// Of threads that share a poller, those that have no turn are parked: idle, not blocked.
#[test]
fn threads_without_a_turn_are_parked() {
    let specs = [Spec {
        threads: 3,
        iterations: Some(250),
        period_ns: MS,
        ..Spec::new(WaitCall::EpollPwait, Pattern::TakeTurns)
    }];
    try_to(&specs, |both| {
        let stats = &both.model.stats;
        let (told, _) = both.told("futex");
        let parked = both.time(State::Parked);
        // Until a second thread has waited on it, a poller is not known to be shared.
        let blocked = both.time(State::Blocked);
        let ready = both.time(State::Ready) - stats.run_queue_delay.sum();
        // The program's clock runs from before the call to after it: on the way in and out it is RUNNING.
        // And its first turn may come after a while, before which it is no loop.
        let before = both.report.wall_ns.saturating_sub(stats.elapsed_ns());
        let (least, most) = (parked + blocked, parked + blocked + ready + both.time(State::Running) + before);
        if told < least - least / 50 || told > most + most / 50 {
            return Err(format!("PARKED: traced {least} to {most}, truth {told}"));
        }
        let idle = both.time(State::Waiting) + parked;
        #[expect(clippy::cast_precision_loss, reason = "a share")]
        let utilisation = 1.0 - idle as f64 / stats.elapsed_ns() as f64;
        assert!((stats.utilisation() - utilisation).abs() < 1e-9, "{}", brief(&both.model));
        // A loop duration is without them.
        assert!(stats.loop_duration.sum() + idle <= stats.elapsed_ns(), "{}", brief(&both.model));
        // Who gets all turns at once, which is the scheduler's choice, hardly parks.
        let before_it_was_known: u64 = stats.blockers.iter().map(|blocker| blocker.count).sum();
        if blocked * 10 <= parked || before_it_was_known <= 5 {
            Ok(())
        } else {
            Err(format!("blocked: {blocked}"))
        }
    });
}

/// Keeps a CPU busy until dropped.
struct Hog(Child);

impl Hog {
    fn on(cpu: usize) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", "while :; do :; done"]).stdin(Stdio::null());
        let hog = Self(shell.spawn().expect("sh can be run"));
        pin(Pid::from_child(&hog.0), cpu);
        hog
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Keeps a thread, and those that it starts from now on, on one CPU.
fn pin(thread: Pid, cpu: usize) {
    let mut cpus = CpuSet::new();
    cpus.set(cpu);
    sched_setaffinity(Some(thread), &cpus).expect("a child's affinity is ours to set");
}

/// A process that competes for the CPU makes a loop READY for as long as it runs itself, and late to run when
/// it is woken.
#[test]
fn a_competitor_for_the_cpu_makes_a_loop_ready() {
    let _alone = alone();
    let allowed = sched_getaffinity(None).expect("our affinity can be read");
    let cpu = (0..CpuSet::MAX_CPU).find(|cpu| allowed.is_set(*cpu)).expect("we run somewhere");
    let specs = [
        working(WaitCall::EpollPwait, 200, Work::Burn { ns: 3 * MS }),
        Spec {
            pattern: Pattern::PingPong,
            period_ns: 500 * US,
            ..working(WaitCall::Ppoll, 150, Work::Burn { ns: 3 * MS })
        },
    ];
    // One after the other: they would compete with each other.
    for spec in specs {
        let spec = [spec];
        for last in 1..=TRIES {
            let Some(free) = run(&spec, |worker| pin(worker.pid(), cpu)) else { return };
            let hog = Cell::new(None);
            let contended = run(&spec, |worker| {
                pin(worker.pid(), cpu);
                hog.set(Some(Hog::on(cpu)));
            });
            let contended = contended.expect("it was possible before");
            let (free, contended) = (&free[0], &contended[0]);
            let (before, after) = (free.time(State::Ready), contended.time(State::Ready));
            let delays =
                (free.model.stats.run_queue_delay.sum(), contended.model.stats.run_queue_delay.sum());
            let busy = contended.report.work_cpu.sum_ns;
            let running = burnt(contended);
            // Whether a woken thread waits for the competitor is the scheduler's choice: the delays are told,
            // not judged.
            // Where others compete with it anyway, it makes no difference that is sure.
            let least = if before > busy / 4 { busy / 4 } else { before + busy / 4 };
            if after > least && running.is_ok() {
                break;
            }
            assert!(
                last < TRIES,
                "READY {before} → {after}, delays {delays:?}, {running:?}\n{}",
                brief(&contended.model)
            );
        }
    }
}
