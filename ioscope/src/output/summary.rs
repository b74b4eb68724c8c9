//! The summary of a run or of an interval: what `stat` and `report` print, as text or as JSON.

use std::{collections::HashMap, sync::Arc, time::Duration};

use ioscope_common::Drops;

use super::json::syscall_name;
use crate::model::{
    Cost, Identity, LoopId, LoopModel, Model, Stats, Unpolled,
    findings::{self, Finding, Inputs, Severity},
    stalls::Stall,
};

/// What happened in a run, or in an interval of one.
#[derive(Clone, Debug)]
pub struct Summary {
    /// The hooks, by kind.
    pub attach: String,
    /// Nanoseconds that it covers.
    pub elapsed_ns: u64,
    /// From this loop duration on it is a stall, of loops that have no threshold of their own.
    pub stall_threshold: Duration,
    /// The loops, in the order in which they were found.
    pub loops: Vec<LoopSummary>,
    /// What is wrong with them, the worst first.
    pub findings: Vec<Finding>,
    /// What was dropped, in the whole run.
    pub drops: Drops,
    /// What tracing has cost, in the whole run.
    pub cost: Cost,
}

/// What one loop did.
#[derive(Clone, Debug)]
pub struct LoopSummary {
    /// Who it is.
    pub identity: Arc<Identity>,
    /// What it did.
    pub stats: Stats,
    /// How long the stall lasts that it is in, in nanoseconds; 0 for none.
    pub ongoing_stall_ns: u64,
    /// The stalls that it was in, as far as they are kept.
    pub stalls: Vec<Stall>,
    /// How many are not.
    pub stalls_dropped: u64,
    /// From which loop duration on it is a stall of this loop.
    pub stall_threshold: Duration,
    /// For how long nobody waited on the poller that it shares with others, at the end and at most.
    pub unpolled: Option<Unpolled>,
}

impl Summary {
    /// Of the whole run so far.
    pub fn of_run(model: &Model, attach: &str) -> Self {
        Self::of(model, attach, model.elapsed_ns(), |model| model.stats.clone())
    }

    /// Of the time since the loops had these counts.
    pub fn of_interval(
        model: &Model,
        attach: &str,
        elapsed_ns: u64,
        before: &HashMap<LoopId, Stats>,
    ) -> Self {
        Self::of(model, attach, elapsed_ns, |model| match before.get(&model.id) {
            Some(before) => model.stats.since(before),
            None => model.stats.clone(),
        })
    }

    /// How bad the worst finding is.
    pub fn worst(&self) -> Option<Severity> {
        self.findings.iter().map(|finding| finding.severity).max()
    }

    fn of(model: &Model, attach: &str, elapsed_ns: u64, stats: impl Fn(&LoopModel) -> Stats) -> Self {
        let loops: Vec<_> = model
            .loops()
            .map(|loop_model| {
                let stats = stats(loop_model);
                let ended_in_it = |stall: &&Stall| stall.ended_at.is_none_or(|at| at >= stats.from);
                LoopSummary {
                    identity: Arc::clone(&loop_model.identity),
                    ongoing_stall_ns: loop_model.ongoing_stall(model.threshold_of(loop_model)).unwrap_or(0),
                    stall_threshold: model.threshold_of(loop_model),
                    stalls: loop_model.stalls.iter().filter(ended_in_it).cloned().collect(),
                    unpolled: model.unpolled(loop_model),
                    stalls_dropped: loop_model.stalls.dropped(),
                    stats,
                }
            })
            .collect();
        let findings = findings::find(model.loops().zip(&loops).map(|(loop_model, summary)| Inputs {
            identity: &summary.identity,
            stats: &summary.stats,
            present: &loop_model.present,
            ended: loop_model.ended,
            stalls: &summary.stalls,
            unpolled: summary.unpolled,
            stall_threshold: summary.stall_threshold,
            syscall_name,
        }));
        Self {
            attach: attach.to_owned(),
            elapsed_ns,
            stall_threshold: model.stall_threshold,
            loops,
            findings,
            drops: *model.drops(),
            cost: model.cost(),
        }
    }
}
