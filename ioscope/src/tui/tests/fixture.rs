//! Made-up loops, moved by the same state machine that runs in the kernel, and a scene of them that shows
//! everything which the screen can show.

use std::{cell::RefCell, sync::Arc, time::Duration};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ioscope_common::{
    Block, Drops, Iteration, Loop, PollerKind, READY_UNKNOWN, RingEvents, Step, Transition, WaitArgs,
    WaitCall, Wake,
};

use crate::{
    model::{
        Batch, Cost, Identity, LoopId, Sample,
        stalls::{Capture, Cause, Stack},
    },
    symbols::{Frame, Location, Origin},
    tui::{App, Config, Effect, Message, MissingHook, Palette, Theme, Tracing, update},
};

pub(super) const US: u64 = 1_000;
pub(super) const MS: u64 = 1_000 * US;
pub(super) const S: u64 = 1_000 * MS;
/// When tracing starts.
pub(super) const START: u64 = 1_000 * S;
pub(super) const STALL: Duration = Duration::from_millis(100);

/// A thread that is a loop.
pub(super) struct Thread {
    id: LoopId,
    identity: Arc<Identity>,
    call: WaitCall,
    machine: Box<Loop>,
    wake: Wake,
    /// The thread that wakes it.
    pub(super) waker: u32,
    /// What it would stream, until a batch takes it.
    iterations: RefCell<Vec<Iteration>>,
    blocks: RefCell<Vec<Block>>,
    pub(super) shared: bool,
    pub(super) now: u64,
}

/// One turn of a loop.
#[derive(Clone, Copy)]
pub(super) struct Turn {
    /// Asleep in the wait call; 0 for a call that returns at once.
    pub(super) wait: u64,
    /// From the wakeup to the CPU.
    pub(super) latency: u64,
    pub(super) events: i64,
    pub(super) run: u64,
}

impl Thread {
    pub(super) fn new(
        number: u32,
        (process, pid): (&str, u32),
        comm: &str,
        runtime: Option<&'static str>,
        call: WaitCall,
    ) -> Self {
        let mut machine = Box::new(Loop::ZERO);
        machine.begin(number, START);
        let identity = Identity {
            pid,
            tid: pid + number,
            inner: None,
            comm: comm.to_owned(),
            process: process.to_owned(),
            runtime,
        };
        Self {
            id: LoopId(u64::from(number)),
            identity: Arc::new(identity),
            call,
            machine,
            wake: Wake::default(),
            waker: 1,
            iterations: RefCell::default(),
            blocks: RefCell::default(),
            shared: false,
            now: START,
        }
    }

    pub(super) fn step(&mut self, after: u64, transition: Transition) {
        self.now += after;
        let step = self.machine.step(transition, self.now);
        if step.has(Step::ITERATION) {
            self.iterations.get_mut().push(self.machine.last);
        }
        if step.has(Step::BLOCK) {
            self.blocks.get_mut().push(self.machine.last_block);
        }
    }

    pub(super) fn tid(&self) -> u32 {
        self.identity.tid
    }

    /// A capture of its present slice, by the names of its functions, the innermost first.
    fn capture(&self, cause: Cause, weight_ns: u64, names: &[(&str, &str, u32)]) -> (LoopId, Capture) {
        let frame = |(name, file, line): &(&str, &str, u32)| Frame {
            name: Arc::from(*name),
            module: Some(Arc::from("/usr/bin/server")),
            location: (*line > 0).then(|| Location { file: Arc::from(*file), line: Some(*line) }),
            inlined: false,
            origin: if file.is_empty() { Origin::Kernel } else { Origin::User },
        };
        let stack = Stack { frames: names.iter().map(frame).collect(), ..Stack::default() };
        let slice = self.machine.last.returned_at;
        let capture =
            Capture { at: slice + 50 * MS, slice, cause, weight_ns, count: 10, stack: Arc::new(stack) };
        (self.id, capture)
    }

    pub(super) fn enter(&mut self, after: u64) {
        let args = WaitArgs {
            call: self.call,
            poller: PollerKind::Epoll,
            fd: 3,
            max_events: 1024,
            timeout: -1,
            ring: 0,
            taken: 0,
        };
        let stall_threshold = u64::try_from(STALL.as_nanos()).expect("short");
        self.step(after, Transition::Enter { args, stall_threshold });
    }

    pub(super) fn sleep(&mut self, after: u64, syscall: i32, futex: bool) {
        self.step(
            after,
            Transition::SwitchOut { asleep: true, syscall, futex, argument: 0, throttled: false },
        );
    }

    /// Wakes up, and is on a CPU so long after.
    pub(super) fn wake(&mut self, after: u64, latency: u64) {
        self.wake = Wake { at: self.now + after, waker: self.waker, context: 1 };
        let (wake, shared) = (self.wake, self.shared);
        self.step(after + latency, Transition::SwitchIn { wake, shared });
    }

    pub(super) fn turn(&mut self, turn: Turn) {
        self.enter(0);
        if turn.wait > 0 {
            self.sleep(US, -1, false);
            self.wake(turn.wait, turn.latency);
        }
        self.step(US, Transition::Return { result: turn.events, posted: 0, ready_at: READY_UNKNOWN });
        self.now += turn.run;
    }

    /// Turns until this moment, which is not passed.
    pub(super) fn turns_until(&mut self, until: u64, turn: Turn) {
        while self.now + turn.wait + turn.latency + turn.run + 2 * US <= until {
            self.turn(turn);
        }
    }

    pub(super) fn sample(&self) -> Sample {
        Sample {
            id: self.id,
            identity: Arc::clone(&self.identity),
            wake: self.wake,
            shared: self.shared,
            ring_events: RingEvents::default(),
            throttling: None,
            machine: self.machine.clone(),
        }
    }
}

pub(super) fn batch(at: u64, threads: &[Thread]) -> Batch {
    Batch {
        at,
        samples: threads.iter().map(Thread::sample).collect(),
        iterations: streamed(threads, |thread| &thread.iterations),
        blocks: streamed(threads, |thread| &thread.blocks),
        // 1.5 % of a CPU, and 0.7 %.
        cost: Cost { bpf_ns: Some((at - START) * 7 / 1000), collector_cpu_ns: (at - START) * 15 / 1000 },
        ..Batch::default()
    }
}

fn streamed<T>(threads: &[Thread], of: impl Fn(&Thread) -> &RefCell<Vec<T>>) -> Vec<(LoopId, T)> {
    threads
        .iter()
        .flat_map(|thread| of(thread).take().into_iter().map(|record| (thread.id, record)))
        .collect()
}

pub(super) fn app(colour: bool, size: (u16, u16)) -> App {
    let tracing = Tracing {
        title: "server (1200)".to_owned(),
        attach: "tracepoint".to_owned(),
        missing: Vec::new(),
        bpf_time: true,
    };
    let palette = if colour { Palette::TERMINAL } else { Palette::NONE };
    App::new(tracing, STALL, Theme::new(&palette), &Config::default(), size)
}

pub(super) fn take(app: &mut App, batch: Batch) -> Vec<Effect> {
    update(app, Message::Batch(Box::new(batch)))
}

pub(super) fn press(app: &mut App, code: KeyCode) -> Vec<Effect> {
    update(app, Message::Key(KeyEvent::new(code, KeyModifiers::NONE)))
}

/// A steady loop: a thousand turns a second at so many percent of a CPU.
pub(super) const fn steady(percent: u64) -> Turn {
    let run = percent * 10 * US;
    Turn { wait: MS - run - 12 * US, latency: 10 * US, events: 1, run }
}

const SERVER: (&str, u32) = ("server", 1200);

/// A loop in every state; one that has stalled, one that stalls now, one that has ended.
pub(super) fn scene(app: &mut App) {
    scene_after(app, 3, |_, percent| steady(percent));
}

/// The same, when they have been at it for a minute and more, at times less busy and at times in each other's way.
pub(super) fn long_scene(app: &mut App) {
    scene_after(app, 75, |second, percent| {
        let ebb = [0, 1, 3, 6, 9, 10, 8, 9, 7, 4, 2, 1, 0][usize::try_from(second / 2 % 13).expect("small")];
        let run = percent * (100 - 6 * ebb) / 100;
        let latency = 12 * US * (second % 20).saturating_sub(11) * percent.min(40) / 10;
        Turn { latency: (10 * US).max(latency).min(MS - run * 10 * US - 12 * US), ..steady(run) }
    });
}

/// So many seconds long, of such turns, by the second and by how busy a loop is.
fn scene_after(app: &mut App, seconds: u64, turn: fn(u64, u64) -> Turn) {
    let thread = |number, comm, runtime, call| Thread::new(number, SERVER, comm, runtime, call);
    let mut threads = [
        thread(1, "waiting", Some("libuv"), WaitCall::EpollPwait),
        thread(2, "polling", Some("nginx"), WaitCall::EpollWait),
        thread(3, "ready", Some("asyncio"), WaitCall::EpollWait),
        thread(4, "running", None, WaitCall::IoUringEnter),
        thread(5, "blocked-on-disk", Some("redis"), WaitCall::EpollWait),
        thread(6, "parked", Some("tokio"), WaitCall::EpollWait),
        thread(7, "stalled-now", Some("libuv"), WaitCall::EpollPwait2),
        thread(8, "größe-日本", None, WaitCall::Poll),
        thread(9, "ended", None, WaitCall::Ppoll),
    ];
    threads[5].shared = true;
    threads[0].waker = threads[1].tid();
    threads[5].waker = threads[2].tid();
    threads[4].enter(0);
    threads[4].step(US, Transition::Return { result: 1, posted: 0, ready_at: READY_UNKNOWN });
    // A stall that is over.
    threads[4].now += 240 * MS;
    for second in 0..=seconds {
        let until = START + second * S;
        for (thread, percent) in threads.iter_mut().zip([5, 20, 96, 75, 30, 40, 50, 0, 10]) {
            thread.turns_until(until, turn(second, percent));
        }
        if second < seconds {
            take(app, batch(until, &threads));
        }
    }
    let end = START + seconds * S + 250 * MS;
    let [waiting, polling, ready, running, blocked, parked, stalled, idle, ended] = &mut threads;
    waiting.enter(0);
    waiting.sleep(US, -1, false);
    polling.turns_until(end, steady(20));
    polling.enter(0);
    ready.turns_until(end - 5 * MS, steady(96));
    ready.step(
        0,
        Transition::SwitchOut { asleep: false, syscall: -1, futex: false, argument: 0, throttled: false },
    );
    running.turns_until(end, steady(75));
    blocked.turns_until(end - 42 * MS, steady(30));
    blocked.sleep(0, i32::try_from(libc::SYS_fsync).expect("small"), false);
    parked.turns_until(end - 9 * MS, steady(40));
    parked.sleep(0, i32::try_from(libc::SYS_futex).expect("small"), true);
    stalled.turns_until(end - 180 * MS, steady(50));
    idle.turns_until(end, steady(0));
    ended.step(0, Transition::End);
    let mut last = batch(end, &threads);
    last.captures.extend(captures(&threads[6]));
    last.ended.push(LoopId(9));
    take(app, last);
}

/// Where the loop that stalls was found.
fn captures(stalled: &Thread) -> [(LoopId, Capture); 3] {
    let callers = [
        ("server::handle_upload", "src/upload.rs", 88),
        ("server::dispatch", "src/server.rs", 131),
        ("main", "src/main.rs", 20),
    ];
    let below = |names: &[(&'static str, &'static str, u32)]| [names, &callers[..]].concat();
    [
        stalled.capture(Cause::User, 120 * MS, &below(&[("json::parse", "src/json.rs", 412)])),
        stalled.capture(
            Cause::User,
            30 * MS,
            &below(&[("json::number", "src/json.rs", 512), ("json::parse", "src/json.rs", 430)]),
        ),
        stalled.capture(
            Cause::Kernel,
            30 * MS,
            &below(&[("clear_page_erms", "", 0), ("json::parse", "src/json.rs", 440)]),
        ),
    ]
}

/// Two minutes of a loop that is busier and busier until a minute ago, has slept on the disk for a while, in which it
/// stalled, and computes for long now and then; beside a quiet one.
pub(super) fn two_minutes(app: &mut App) {
    let server = ("server", 1200);
    let mut threads = [
        Thread::new(1, server, "server", Some("libuv"), WaitCall::EpollPwait),
        Thread::new(2, server, "libuv-worker", Some("libuv"), WaitCall::EpollPwait),
    ];
    let fsync = i32::try_from(libc::SYS_fsync).expect("small");
    take(app, batch(START, &threads));
    for second in 1..=130 {
        let until = START + second * S;
        let [busy, quiet] = &mut threads;
        let percent = match second {
            0..=70 => second,
            71..=85 => 25,
            _ => 30 + 20 * (second / 4 % 3),
        };
        if (90..=100).contains(&second) {
            busy.enter(0);
            busy.step(US, Transition::Return { result: 1, posted: 0, ready_at: READY_UNKNOWN });
            busy.sleep(20 * MS, fsync, false);
            busy.wake((second - 85) * 10 * MS, 40 * MS);
            busy.now += MS;
        } else if second % 7 == 0 {
            busy.turn(Turn { run: 40 * MS, ..steady(percent) });
        }
        busy.turns_until(until, Turn { latency: 100 * US, ..steady(percent.min(85)) });
        quiet.turns_until(until, Turn { wait: 100 * MS, latency: 20 * US, events: 1, run: 200 * US });
        take(app, batch(until, &threads));
    }
}

/// So many loops, each busier than the one before, for so many seconds.
pub(super) fn crowd(app: &mut App, count: u32, seconds: u64) {
    let mut threads: Vec<Thread> = (1..=count)
        .map(|number| Thread::new(number, SERVER, &format!("loop-{number}"), None, WaitCall::EpollWait))
        .collect();
    for second in 0..=seconds {
        let until = START + second * S;
        for (percent, thread) in threads.iter_mut().enumerate() {
            thread.turns_until(until, steady(percent as u64 % 90));
        }
        take(app, batch(until, &threads));
    }
}

pub(super) fn drop_some(app: &mut App) {
    let drops = Drops { ring_full: 12, compat_calls: 3, ..Drops::default() };
    take(app, Batch { at: START + 4 * S, drops, ..Batch::default() });
}

pub(super) fn miss_a_hook(app: &mut App) {
    app.tracing.missing.push(MissingHook {
        name: "sched_waking".to_owned(),
        lost: "wakeup latency, run-queue delay and wakers".to_owned(),
    });
}

/// Three servers, one well and two badly off.
pub(super) fn servers(app: &mut App) {
    let (good, slow, bad) = (("good", 2000), ("slow", 3000), ("blocking", 4000));
    let mut threads = [
        Thread::new(1, good, "good-0", Some("tokio"), WaitCall::EpollWait),
        Thread::new(2, good, "good-1", Some("tokio"), WaitCall::EpollWait),
        Thread::new(3, slow, "slow", Some("libuv"), WaitCall::EpollPwait),
        Thread::new(4, bad, "blocking", Some("asyncio"), WaitCall::EpollWait),
    ];
    let turns = [steady(12), steady(14), steady(71), Turn { events: 4, ..steady(30) }];
    let fsync = i32::try_from(libc::SYS_fsync).expect("small");
    for second in 0..=4 {
        let until = START + second * S;
        for (thread, turn) in threads.iter_mut().zip(turns) {
            thread.turns_until(until, turn);
        }
        if second > 0 {
            threads[3].sleep(0, fsync, false);
            threads[3].wake(150 * MS, 20 * US);
        }
        take(app, batch(until, &threads));
    }
}
