//! What each loop did in each second of the last two minutes: what the sparklines and the preview draw.

use std::collections::{HashMap, VecDeque};

use ioscope_common::State;

use crate::model::{LoopId, LoopModel, Model};

/// Nanoseconds that a moment is.
const STEP: u64 = 1_000_000_000;
/// How many are kept: as many as are shown at most.
pub(super) const MOMENTS: usize = 120;

/// What a loop, or several of them, did in a second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moment {
    /// By state, of 255.
    shares: [u8; State::COUNT],
    /// It was in a stall in it, or at its end.
    pub(super) stalled: bool,
}

impl Moment {
    /// The share of a state, 0 to 1.
    pub(super) fn share(self, state: State) -> f64 {
        f64::from(self.shares[state as usize]) / 255.0
    }

    /// The share in which it was not idle, 0 to 1.
    pub(super) fn busy(self) -> f64 {
        let idle = [State::Waiting, State::Parked].map(|state| u32::from(self.shares[state as usize]));
        let all: u32 = self.shares.iter().copied().map(u32::from).sum();
        if all == 0 { 0.0 } else { f64::from(all - idle[0] - idle[1]) / f64::from(all) }
    }
}

/// A loop's past.
#[derive(Clone, Debug)]
struct Track {
    until: u64,
    time_ns: [u64; State::COUNT],
    stalls: u64,
    /// The oldest first.
    moments: VecDeque<Moment>,
}

/// The past of all loops.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    due: u64,
    tracks: HashMap<LoopId, Track>,
}

impl History {
    /// Takes notice of the model as it is after a batch.
    pub(super) fn advance(&mut self, model: &Model) {
        if model.now() < self.due {
            return;
        }
        self.due = model.now() + STEP - STEP / 16;
        self.tracks.retain(|id, _| model.get(*id).is_some());
        for entry in model.loops().filter(|entry| !entry.ended) {
            let stalled = entry.ongoing_stall(model.threshold_of(entry)).is_some();
            let track = self.tracks.entry(entry.id).or_insert_with(|| Track::new(entry));
            if entry.stats.until.saturating_sub(track.until) >= STEP / 2 {
                track.advance(entry, stalled);
            }
        }
    }

    /// A loop's last moments, at most so many, the newest first.
    fn newest(&self, id: LoopId, most: usize) -> impl Iterator<Item = Moment> {
        let track = self.tracks.get(&id).into_iter();
        track.flat_map(|track| track.moments.iter().rev()).take(most).copied()
    }

    /// How busy a loop was in its last moments, the newest last, as shares.
    pub(super) fn busy(&self, id: LoopId, most: usize) -> Vec<f64> {
        let mut shares: Vec<f64> = self.newest(id, most).map(Moment::busy).collect();
        shares.reverse();
        shares
    }

    /// How busy the busiest of some loops was, moment by moment.
    pub(super) fn busiest(&self, ids: impl Iterator<Item = LoopId>, most: usize) -> Vec<f64> {
        let mut greatest: Vec<f64> = Vec::new();
        for id in ids {
            for (at, moment) in self.newest(id, most).enumerate() {
                match greatest.get_mut(at) {
                    Some(known) => *known = known.max(moment.busy()),
                    None => greatest.push(moment.busy()),
                }
            }
        }
        greatest.reverse();
        greatest
    }

    /// What some loops did on average, moment by moment, the newest last: of those that there were.
    pub(super) fn mean(&self, ids: impl Iterator<Item = LoopId>) -> Vec<Moment> {
        let mut sums: Vec<([u64; State::COUNT], u64, bool)> = Vec::new();
        for id in ids {
            for (at, moment) in self.newest(id, MOMENTS).enumerate() {
                if at == sums.len() {
                    sums.push(Default::default());
                }
                let (shares, loops, stalled) = &mut sums[at];
                for (sum, share) in shares.iter_mut().zip(moment.shares) {
                    *sum += u64::from(share);
                }
                *loops += 1;
                *stalled |= moment.stalled;
            }
        }
        let mean = |(shares, loops, stalled): ([u64; State::COUNT], u64, bool)| Moment {
            shares: shares.map(|sum| u8::try_from(sum / loops.max(1)).unwrap_or(u8::MAX)),
            stalled,
        };
        sums.into_iter().rev().map(mean).collect()
    }
}

impl Track {
    /// As the loop began.
    fn new(entry: &LoopModel) -> Self {
        Self { until: entry.stats.from, time_ns: [0; State::COUNT], stalls: 0, moments: VecDeque::new() }
    }

    /// Adds what the loop did since the last time, which was some time ago.
    fn advance(&mut self, entry: &LoopModel, stalled: bool) {
        let stats = &entry.stats;
        let elapsed = stats.until - self.until;
        let stalled = stalled || stats.counters.stalls > self.stalls;
        let mut moment = Moment { stalled, ..Moment::default() };
        for ((share, before), state) in moment.shares.iter_mut().zip(&mut self.time_ns).zip(State::ALL) {
            let now = stats.time_in(state);
            let part = now.saturating_sub(*before).min(elapsed);
            *share = u8::try_from((part * 255 + elapsed / 2) / elapsed).unwrap_or(u8::MAX);
            *before = now;
        }
        (self.until, self.stalls) = (stats.until, stats.counters.stalls);
        // When the screen is made anew less often than once a second, what is known is the mean of several.
        let seconds = usize::try_from((elapsed + STEP / 2) / STEP).unwrap_or(MOMENTS).clamp(1, MOMENTS);
        self.moments.extend(std::iter::repeat_n(moment, seconds));
        self.moments.drain(..self.moments.len().saturating_sub(MOMENTS));
    }
}
