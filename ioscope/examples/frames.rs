//! What a frame of the terminal UI costs with a thousand loops: `cargo xtask bench` runs it.
//!
//! Made-up loops, moved by the same state machine that runs in the kernel, are handed to the UI as a live
//! source would, batch by batch; each screen is then made and drawn a hundred times. Prints a JSON object:
//! milliseconds (the median and the worst) and the memory of the process.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ioscope::{
    model::{Batch, Cost, Identity, LoopId, Sample},
    tui::{App, Config, Effect, Message, Palette, Theme, Tracing, update, view},
};
use ioscope_common::{Loop, PollerKind, READY_UNKNOWN, RingEvents, Transition, WaitArgs, WaitCall, Wake};
use ratatui::{Terminal, backend::TestBackend};
use serde_json::json;

const LOOPS: u32 = 1000;
const ROUNDS: usize = 100;
const SIZE: (u16, u16) = (200, 50);
const US: u64 = 1_000;
const TICK: u64 = 250_000 * US;

/// A thread that turns a thousand times a second.
struct Thread {
    id: LoopId,
    identity: Arc<Identity>,
    machine: Box<Loop>,
    wake: Wake,
    now: u64,
}

impl Thread {
    fn new(number: u32) -> Self {
        let mut machine = Box::new(Loop::ZERO);
        machine.begin(number, TICK);
        let identity = Identity {
            pid: 1 + number / 8,
            tid: 10_000 + number,
            inner: None,
            comm: format!("worker-{number}"),
            process: format!("server-{}", number / 8),
            runtime: Some("tokio"),
        };
        Self {
            id: LoopId(u64::from(number)),
            identity: Arc::new(identity),
            machine,
            wake: Wake::default(),
            now: TICK,
        }
    }

    fn step(&mut self, after: u64, transition: Transition) {
        self.now += after;
        self.machine.step(transition, self.now);
    }

    fn turn(&mut self, run: u64) {
        let args = WaitArgs {
            call: WaitCall::EpollWait,
            poller: PollerKind::Epoll,
            fd: 3,
            max_events: 1024,
            timeout: -1,
            ring: 0,
            taken: 0,
        };
        self.step(0, Transition::Enter { args, stall_threshold: 100_000 * US });
        self.step(
            US,
            Transition::SwitchOut { asleep: true, syscall: -1, futex: false, argument: 0, throttled: false },
        );
        let sleep = 1_000 * US - run;
        self.wake = Wake { at: self.now + sleep - 20 * US, waker: 1, context: 1 };
        let wake = self.wake;
        self.step(sleep - 2 * US, Transition::SwitchIn { wake, shared: false });
        self.step(US, Transition::Return { result: 1, posted: 0, ready_at: READY_UNKNOWN });
        self.now += run;
    }

    fn sample(&self) -> Sample {
        Sample {
            id: self.id,
            identity: Arc::clone(&self.identity),
            wake: self.wake,
            shared: false,
            ring_events: RingEvents::default(),
            throttling: None,
            machine: self.machine.clone(),
        }
    }
}

/// What the threads did until this moment, with the iterations of those that stream.
fn batch(at: u64, threads: &mut [Thread], streaming: &[LoopId]) -> Batch {
    let mut batch = Batch { at, cost: Cost::default(), ..Batch::default() };
    for thread in threads {
        let run = 20 * US + u64::from(thread.identity.tid % 900) * US;
        while thread.now + 1_100 * US < at {
            thread.turn(run);
            if streaming.contains(&thread.id) && thread.machine.last.returned_at != 0 {
                batch.iterations.push((thread.id, thread.machine.last));
            }
        }
        batch.samples.push(thread.sample());
    }
    batch
}

fn press(app: &mut App, code: KeyCode) -> Vec<Effect> {
    update(app, Message::Key(KeyEvent::new(code, KeyModifiers::NONE)))
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The median and the worst.
fn summary(mut times: Vec<Duration>) -> serde_json::Value {
    times.sort_unstable();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    let worst = times.last().copied().unwrap_or_default();
    json!({ "median_ms": milliseconds(median), "worst_ms": milliseconds(worst) })
}

/// The most memory that this process has had, in KiB.
fn memory_kib() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn main() -> anyhow::Result<()> {
    let mut threads: Vec<Thread> = (1..=LOOPS).map(Thread::new).collect();
    let theme = Theme::new(&Palette::TERMINAL);
    let mut app = App::new(Tracing::default(), Duration::from_millis(100), theme, &Config::default(), SIZE);
    let mut terminal = Terminal::new(TestBackend::new(SIZE.0, SIZE.1))?;
    let mut screens = serde_json::Map::new();
    let mut streaming = Vec::new();
    let mut at = TICK;
    for (key, name) in [('1', "loops"), ('2', "detail"), ('3', "timeline"), ('4', "stalls"), ('5', "compare")]
    {
        let effects = press(&mut app, KeyCode::Char(key));
        let mut take = |effects: Vec<Effect>| {
            for effect in effects {
                if let Effect::Stream(loops) = effect {
                    streaming = loops;
                }
            }
            streaming.clone()
        };
        let mut ids = take(effects);
        let (mut updates, mut draws) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            at += TICK;
            let batch = Box::new(batch(at, &mut threads, &ids));
            let start = Instant::now();
            let effects = update(&mut app, Message::Batch(batch));
            let taken_in = Instant::now();
            terminal.draw(|frame| view(&app, frame))?;
            draws.push(taken_in.elapsed());
            updates.push(taken_in - start);
            ids = take(effects);
        }
        screens.insert(name.to_owned(), json!({ "frame": summary(draws), "batch": summary(updates) }));
    }
    // The threads of this program are no part of the UI.
    let own_kib = u64::from(LOOPS) * u64::try_from(size_of::<Loop>() * 2)? / 1024;
    println!(
        "{}",
        json!({ "loops": LOOPS, "screens": screens, "rss_kib": memory_kib(), "made_up_kib": own_kib })
    );
    Ok(())
}
