//! What the table of loops says of each loop, worked out once a batch and not once a frame.

use std::{sync::Arc, time::Duration};

use ioscope_common::WaitCall;

use super::window::Window;
use crate::model::{Distribution, Identity, LoopId, LoopModel, Model, Present, Stats};

/// A loop in the table. What is a rate or a percentile is of the recent window.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) id: LoopId,
    pub(super) identity: Arc<Identity>,
    pub(super) wait_call: Option<WaitCall>,
    pub(super) present: Present,
    /// How long the stall lasts that it is in, in nanoseconds.
    pub(super) ongoing_stall: Option<u64>,
    pub(super) ended: bool,
    /// 0 to 1.
    pub(super) utilisation: f64,
    pub(super) iterations_per_s: f64,
    pub(super) events_per_s: f64,
    /// None without a wakeup.
    pub(super) events_per_wakeup: Option<f64>,
    pub(super) loop_duration: Percentiles,
    pub(super) wakeup_latency: Percentiles,
    /// Since tracing began: a stall is rare, and not to be missed.
    pub(super) stalls: u64,
    /// Of these, recent.
    pub(super) recent_stalls: u64,
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
}

impl Row {
    fn of(entry: &LoopModel, recent: &Stats, stall_threshold: Duration) -> Self {
        let events = &recent.ready_per_wakeup;
        Self {
            id: entry.id,
            identity: Arc::clone(&entry.identity),
            wait_call: entry.stats.main_wait_call().or_else(|| entry.wait_call()),
            present: entry.present,
            ongoing_stall: entry.ongoing_stall(stall_threshold),
            ended: entry.ended,
            utilisation: recent.utilisation(),
            iterations_per_s: recent.per_second(recent.iterations()),
            events_per_s: recent.per_second(recent.counters.ready_events),
            events_per_wakeup: (events.count() > 0).then(|| events.mean()),
            loop_duration: Percentiles::of(&recent.loop_duration),
            wakeup_latency: Percentiles::of(&recent.wakeup_latency),
            stalls: entry.stats.counters.stalls,
            recent_stalls: recent.counters.stalls,
        }
    }
}

/// A row for each loop, in the model's order. One that has ended keeps the row of its last moment.
pub(super) fn rows(model: &Model, window: &Window, mut before: Vec<Row>) -> Vec<Row> {
    before.retain(|row| row.ended);
    before.sort_by_key(|row| row.id);
    model
        .loops()
        .map(|entry| {
            let kept = before.binary_search_by_key(&entry.id, |row| row.id).ok();
            match kept {
                Some(at) => before[at].clone(),
                None => Row::of(entry, &window.recent(entry), model.stall_threshold),
            }
        })
        .collect()
}
