//! The load of each loop in the last minute, second by second: what the sparklines draw.

use std::collections::{HashMap, VecDeque};

use ioscope_common::State;

use crate::model::{LoopId, Model, Stats};

/// Nanoseconds between two samples.
const STEP: u64 = 1_000_000_000;
/// How many are kept: as many as a column may show.
const SAMPLES: usize = 60;

/// A loop's load.
#[derive(Clone, Debug)]
struct Track {
    until: u64,
    idle_ns: u64,
    /// The oldest first, 0 to 255.
    samples: VecDeque<u8>,
}

/// The load of all loops.
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
            let (until, idle_ns) = (entry.stats.until, idle(&entry.stats));
            let Some(track) = self.tracks.get_mut(&entry.id) else {
                let samples = VecDeque::new();
                self.tracks.insert(entry.id, Track { until, idle_ns, samples });
                continue;
            };
            let elapsed = until.saturating_sub(track.until);
            if elapsed > 0 {
                let idle = idle_ns.saturating_sub(track.idle_ns).min(elapsed);
                if track.samples.len() == SAMPLES {
                    track.samples.pop_front();
                }
                track.samples.push_back(u8::try_from((elapsed - idle) * 255 / elapsed).unwrap_or(u8::MAX));
                (track.until, track.idle_ns) = (until, idle_ns);
            }
        }
    }

    /// A loop's last samples, the newest last, as shares.
    pub(super) fn of(&self, id: LoopId, most: usize) -> Vec<f64> {
        self.tracks.get(&id).map_or_else(Vec::new, |track| {
            let skip = track.samples.len().saturating_sub(most);
            track.samples.iter().skip(skip).map(|sample| f64::from(*sample) / 255.0).collect()
        })
    }

    /// The greatest of some loops' samples, moment by moment: those that all have.
    pub(super) fn greatest(&self, ids: impl Iterator<Item = LoopId>, most: usize) -> Vec<f64> {
        let mut greatest: Vec<f64> = Vec::new();
        for id in ids {
            let samples = self.of(id, most);
            // The newest are last: a loop that has fewer is younger.
            if samples.len() > greatest.len() {
                greatest.splice(0..0, vec![0.0; samples.len() - greatest.len()]);
            }
            let younger_by = greatest.len() - samples.len();
            for (at, sample) in samples.into_iter().enumerate() {
                let known = &mut greatest[younger_by + at];
                *known = known.max(sample);
            }
        }
        greatest
    }
}

fn idle(stats: &Stats) -> u64 {
    stats.time_in(State::Waiting) + stats.time_in(State::Parked)
}
