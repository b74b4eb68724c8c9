//! What the table of loops says of each loop and of each process, worked out once a refresh and not once a
//! frame.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use ioscope_common::WaitCall;

use super::window::Window;
use crate::model::{Distribution, Identity, LoopId, LoopModel, Model, Present, Stats, findings::Severity};

/// What a row is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Key {
    Process(u32),
    Loop(LoopId),
}

/// A row of the table. What is a rate or a percentile is of the recent window. Of a process, counts and rates
/// are sums, and everything else is its worst loop's.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) key: Key,
    /// Of a process: its own, with its name for a thread's.
    pub(super) identity: Arc<Identity>,
    /// How many loops.
    pub(super) loops: usize,
    pub(super) wait_call: Option<WaitCall>,
    pub(super) present: Present,
    /// How long the stall lasts that it is in, in nanoseconds.
    pub(super) ongoing_stall: Option<u64>,
    pub(super) ended: bool,
    /// 0 to 1.
    pub(super) utilisation: f64,
    pub(super) iterations_per_s: f64,
    pub(super) events_per_s: f64,
    /// Returns that count as wakeups, and their events.
    wakeups: (u64, u64),
    pub(super) loop_duration: Percentiles,
    pub(super) wakeup_latency: Percentiles,
    pub(super) ready_delay: Percentiles,
    /// Since tracing began: a stall is rare, and not to be missed.
    pub(super) stalls: u64,
    /// Of these, recent.
    pub(super) recent_stalls: u64,
    /// The worst of what is wrong with it since tracing began, and how many things that are; without those that are only
    /// worth knowing.
    pub(super) findings: Option<(Severity, usize)>,
}

/// Nanoseconds; none without values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Percentiles {
    pub(super) p50: Option<u64>,
    pub(super) p99: Option<u64>,
}

impl Percentiles {
    fn of(distribution: &Distribution) -> Self {
        let at = |share| (distribution.count() > 0).then(|| distribution.quantile(share));
        Self { p50: at(0.5), p99: at(0.99) }
    }

    fn worst(&mut self, other: Self) {
        self.p50 = self.p50.max(other.p50);
        self.p99 = self.p99.max(other.p99);
    }
}

impl Row {
    fn of(entry: &LoopModel, recent: &Stats, stall_threshold: Duration) -> Self {
        let events = &recent.ready_per_wakeup;
        Self {
            key: Key::Loop(entry.id),
            identity: Arc::clone(&entry.identity),
            loops: 1,
            wait_call: entry.stats.main_wait_call().or_else(|| entry.wait_call()),
            present: entry.present,
            ongoing_stall: entry.ongoing_stall(stall_threshold),
            ended: entry.ended,
            utilisation: recent.utilisation(),
            iterations_per_s: recent.per_second(recent.iterations()),
            events_per_s: recent.per_second(recent.counters.ready_events),
            wakeups: (events.count(), events.sum()),
            loop_duration: Percentiles::of(&recent.loop_duration),
            wakeup_latency: Percentiles::of(&recent.wakeup_latency),
            ready_delay: Percentiles::of(&recent.ready_delay),
            stalls: entry.stats.counters.stalls,
            recent_stalls: recent.counters.stalls,
            findings: None,
        }
    }

    /// Takes in that so many things are wrong with it, so bad at worst.
    pub(super) fn find(&mut self, severity: Severity, number: usize) {
        let (worst, known) = self.findings.unwrap_or((severity, 0));
        self.findings = Some((worst.max(severity), known + number));
    }

    /// A process, of its first loop.
    fn process(first: &Self) -> Self {
        let identity = Identity {
            tid: first.identity.pid,
            comm: first.identity.process.clone(),
            ..Identity::clone(&first.identity)
        };
        Self { key: Key::Process(identity.pid), identity: Arc::new(identity), ..first.clone() }
    }

    fn add(&mut self, other: &Self) {
        if self.identity.runtime != other.identity.runtime && self.identity.runtime.is_some() {
            Arc::make_mut(&mut self.identity).runtime = None;
        }
        self.loops += other.loops;
        if self.wait_call != other.wait_call {
            self.wait_call = None;
        }
        if other.ongoing_stall > self.ongoing_stall {
            self.ongoing_stall = other.ongoing_stall;
            self.present = other.present;
        }
        self.ended &= other.ended;
        self.utilisation = self.utilisation.max(other.utilisation);
        self.iterations_per_s += other.iterations_per_s;
        self.events_per_s += other.events_per_s;
        self.wakeups = (self.wakeups.0 + other.wakeups.0, self.wakeups.1 + other.wakeups.1);
        self.loop_duration.worst(other.loop_duration);
        self.wakeup_latency.worst(other.wakeup_latency);
        self.ready_delay.worst(other.ready_delay);
        self.stalls += other.stalls;
        self.recent_stalls += other.recent_stalls;
        if let Some((severity, number)) = other.findings {
            self.find(severity, number);
        }
    }

    /// None without a wakeup.
    pub(super) fn events_per_wakeup(&self) -> Option<f64> {
        (self.wakeups.0 > 0).then(|| self.wakeups.1 as f64 / self.wakeups.0 as f64)
    }

    pub(super) const fn is_process(&self) -> bool {
        matches!(self.key, Key::Process(_))
    }

    /// The loop, if it is one.
    pub(super) const fn loop_id(&self) -> Option<LoopId> {
        match self.key {
            Key::Loop(id) => Some(id),
            Key::Process(_) => None,
        }
    }
}

/// A row for each loop, in the model's order. One that has ended keeps the row of its last moment.
pub(super) fn rows(model: &Model, window: &Window, mut before: Vec<Row>) -> Vec<Row> {
    before.retain(|row| row.ended);
    before.sort_by_key(|row| row.key);
    model
        .loops()
        .map(|entry| {
            let kept = before.binary_search_by_key(&Key::Loop(entry.id), |row| row.key).ok();
            match kept {
                Some(at) => before[at].clone(),
                None => Row::of(entry, &window.recent(entry), model.threshold_of(entry)),
            }
        })
        .collect()
}

/// A row for each process of some loops.
pub(super) fn processes(rows: &[Row]) -> Vec<Row> {
    let mut processes: BTreeMap<u32, Row> = BTreeMap::new();
    for row in rows {
        processes
            .entry(row.identity.pid)
            .and_modify(|process| process.add(row))
            .or_insert_with(|| Row::process(row));
    }
    processes.into_values().collect()
}
