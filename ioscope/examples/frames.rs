//! What a frame of the terminal UI costs with a thousand loops: `cargo xtask bench` runs it.
//!
//! Made-up loops, moved by the same state machine that runs in the kernel, are handed to the UI as a live
//! source would, batch by batch; each screen is then made and drawn a hundred times. Their times are spread over
//! decades, as those of real loops are, so that histograms are as wide as they get. Prints a JSON object:
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

/// Made-up numbers, the same in every run.
struct Dice(u64);

impl Dice {
    /// From the one to the other, each decade as often as the next.
    fn between(&mut self, least: u64, most: u64) -> u64 {
        // xorshift64
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let share = (self.0 >> 11) as f64 / (1_u64 << 53) as f64;
        let value = least as f64 * (most as f64 / least as f64).powf(share);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "between two whole numbers"
        )]
        let value = value as u64;
        value
    }
}

/// A thread that turns some thousand times a second.
struct Thread {
    id: LoopId,
    identity: Arc<Identity>,
    machine: Box<Loop>,
    wake: Wake,
    dice: Dice,
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
            dice: Dice(u64::from(number)),
            now: TICK,
        }
    }

    fn step(&mut self, after: u64, transition: Transition) {
        self.now += after;
        self.machine.step(transition, self.now);
    }

    fn turn(&mut self) {
        let dice = &mut self.dice;
        let (run, sleep, latency) =
            (dice.between(2 * US, 2_000 * US), dice.between(50 * US, 2_000 * US), dice.between(US, 300 * US));
        // Some turns are timers'.
        let timer = dice.between(1, 100) < 3;
        let events = if timer { 0 } else { dice.between(1, 500) };
        let args = WaitArgs {
            call: WaitCall::EpollWait,
            poller: PollerKind::Epoll,
            fd: 3,
            max_events: 1024,
            timeout: if timer { i64::try_from(sleep).unwrap_or(-1) } else { -1 },
            ring: 0,
            taken: 0,
        };
        self.step(0, Transition::Enter { args, stall_threshold: 100_000 * US });
        self.step(
            US,
            Transition::SwitchOut { asleep: true, syscall: -1, futex: false, argument: 0, throttled: false },
        );
        let woken_at = self.now + sleep;
        self.wake = Wake { at: woken_at, waker: 1, context: 1 };
        let wake = self.wake;
        self.step(sleep + latency, Transition::SwitchIn { wake, shared: false });
        let ready_at = if timer { READY_UNKNOWN } else { woken_at };
        let result = i64::try_from(events).unwrap_or(0);
        self.step(US, Transition::Return { result, posted: 0, ready_at });
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
        // The longest turn.
        while thread.now + 5_000 * US < at {
            thread.turn();
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
    // The threads of this program are no part of the UI; the copies of them in a batch are.
    let own_kib = u64::from(LOOPS) * u64::try_from(size_of::<Loop>())? / 1024;
    println!(
        "{}",
        json!({ "loops": LOOPS, "screens": screens, "rss_kib": memory_kib(), "made_up_kib": own_kib })
    );
    Ok(())
}
