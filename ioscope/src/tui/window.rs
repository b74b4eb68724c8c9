//! What is recent: the last few seconds of each loop, as the difference between its counts now and its
//! counts at a mark.
//!
//! Two marks are kept, so the window grows from one step to two and falls back: a copy of a loop's counts
//! is some 10 KiB, and there may be thousands.

use std::collections::{HashMap, VecDeque};

use crate::model::{Cost, LoopId, LoopModel, Model, Stats};

/// Nanoseconds between two marks.
const STEP: u64 = 2_000_000_000;
const MARKS: usize = 2;

/// The counts at one moment.
#[derive(Clone, Debug)]
struct Mark {
    at: u64,
    cost: Cost,
    loops: HashMap<LoopId, Stats>,
}

/// What ioscope itself costs, as shares of one CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct CostShare {
    /// The collector.
    pub(super) collector: f64,
    /// The probes, if the kernel measures them.
    pub(super) probes: Option<f64>,
}

/// The marks, oldest first.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    marks: VecDeque<Mark>,
}

impl Window {
    /// Takes notice of the model as it is after a batch. What is recent has to be asked before.
    pub(super) fn advance(&mut self, model: &Model) {
        let due = self.marks.back().is_none_or(|mark| model.now().saturating_sub(mark.at) >= STEP);
        if due {
            if self.marks.len() == MARKS {
                self.marks.pop_front();
            }
            let loops = model
                .loops()
                .filter(|entry| !entry.ended)
                .map(|entry| (entry.id, entry.stats.clone()))
                .collect();
            self.marks.push_back(Mark { at: model.now(), cost: model.cost(), loops });
        }
    }

    /// What a loop did recently: since the oldest mark, or since it began.
    pub(super) fn recent(&self, entry: &LoopModel) -> Stats {
        let mark = self.marks.front().and_then(|mark| mark.loops.get(&entry.id));
        match mark {
            // A thread that was found asleep may turn out to begin later: its counts begin anew.
            Some(mark) if mark.from == entry.stats.from => entry.stats.since(mark),
            _ => entry.stats.clone(),
        }
    }

    /// What tracing cost recently; nothing is known of it before the second batch.
    pub(super) fn cost(&self, model: &Model) -> Option<CostShare> {
        let mark = self.marks.front().filter(|mark| mark.at < model.now())?;
        let elapsed = (model.now() - mark.at) as f64;
        let (before, now) = (mark.cost, model.cost());
        let share = |before: u64, now: u64| now.saturating_sub(before) as f64 / elapsed;
        Some(CostShare {
            collector: share(before.collector_cpu_ns, now.collector_cpu_ns),
            probes: before.bpf_ns.zip(now.bpf_ns).map(|(before, now)| share(before, now)),
        })
    }
}
