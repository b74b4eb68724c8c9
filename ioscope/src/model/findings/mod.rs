//! Findings: what is wrong with a loop, why one can say so, and what to do about it.
//!
//! A [`Detector`] looks at what is known of one loop over a span of time ([`Inputs`]) and makes a [`Finding`] of it, or
//! nothing. All of them are in one table, [`DETECTORS`]; a family of them is a file. They are pure functions of the
//! model's numbers: no clock, no input or output, and no words of a screen beyond the sentences that they are.
//!
//! Thresholds are constants with a reason. Where a rate is asked for, a number of events is asked for too
//! ([`ENOUGH`]): the rates of a few milliseconds mean nothing.

mod batches;
mod delays;
mod pollers;
mod rings;
mod slices;
#[cfg(test)]
mod tests;
mod wakeups;

use std::{sync::Arc, time::Duration};

use ioscope_common::State;

use super::{
    Identity, Present, Stats, Unpolled,
    stalls::{Cause, Stall},
};
use crate::symbols::Origin;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Worth knowing; may be as it should be.
    Info,
    /// Costs latency or CPU time that it need not.
    Warn,
    /// The loop does not do its work in time.
    Critical,
}

impl Severity {
    /// Its name in JSON and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Critical => "critical",
        }
    }
}

/// A number with its unit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Quantity {
    /// How many.
    Count(u64),
    /// A time, in nanoseconds.
    Nanoseconds(u64),
    /// How many a second.
    PerSecond(f64),
    /// A part of a whole: 0 to 1.
    Share(f64),
    /// A mean of counts.
    Mean(f64),
}

/// A named number that a finding rests on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evidence {
    /// What it is of: lower case, words joined by `_`, without the unit.
    pub name: &'static str,
    /// How much.
    pub quantity: Quantity,
}

/// Something that is wrong with one loop, or with several of a process in the same way.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// What it is, in kebab case; never changes.
    pub tag: &'static str,
    /// How bad.
    pub severity: Severity,
    /// The loops, the one that the numbers are of first.
    pub loops: Vec<Arc<Identity>>,
    /// A sentence.
    pub summary: String,
    /// What is at fault, where that is not the loop itself: a system call's name.
    pub subject: Option<String>,
    /// Where in the program, as far as a stall's stacks tell: the functions, innermost first, [`FUNCTIONS`] at most.
    pub place: Vec<Arc<str>>,
    /// The numbers, the most telling first.
    pub evidence: Vec<Evidence>,
    /// What to do.
    pub advice: &'static str,
}

/// What is known of one loop over a span of time.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Who it is.
    pub identity: &'a Arc<Identity>,
    /// What it did in that time.
    pub stats: &'a Stats,
    /// What it does at the end of it.
    pub present: &'a Present,
    /// Whether its thread has ended: what it did last does not go on.
    pub ended: bool,
    /// The stalls of that time, as far as they are kept.
    pub stalls: &'a [Stall],
    /// For how long nobody waited on the poller that it shares with others; `None` if it shares none.
    pub unpolled: Option<Unpolled>,
    /// From this loop duration on it is a stall.
    pub stall_threshold: Duration,
    /// The name of a system call, by its number.
    pub syscall_name: fn(i32) -> String,
}

impl Inputs<'_> {
    /// A part of the time that it covers: 0 to 1.
    fn share(&self, ns: u64) -> f64 {
        ratio(ns, self.stats.elapsed_ns())
    }

    /// The share of the time in which it was asleep for want of work.
    fn idle_share(&self) -> f64 {
        self.share(self.stats.time_in(State::Waiting) + self.stats.time_in(State::Parked))
    }

    /// Wait calls that are no failures, and have found something or had to sleep for it.
    const fn productive_returns(&self) -> u64 {
        self.stats.ready_per_wakeup.count()
    }

    /// Whether other threads take over when this one blocks, computes or waits for a CPU: Go takes its processor away from a
    /// thread that blocks, lets idle threads take what is queued at others, and has its monitor look at the poller.
    fn others_go_on(&self) -> bool {
        self.identity.runtime == Some("go")
    }

    /// The stall threshold in nanoseconds.
    fn threshold_ns(&self) -> u64 {
        u64::try_from(self.stall_threshold.as_nanos()).unwrap_or(u64::MAX)
    }

    /// Where the stalls' time went that went to this, the heaviest stack of all: its functions in the program,
    /// innermost first. None without names.
    fn place(&self, is_meant: impl Fn(Cause) -> bool) -> Vec<Arc<str>> {
        let stacks = self.stalls.iter().flat_map(|stall| stall.stacks.iter());
        let meant = stacks.filter(|stack| is_meant(stack.cause) && !stack.stack.frames.is_empty());
        let Some(heaviest) = meant.max_by_key(|stack| stack.weight_ns) else { return Vec::new() };
        let in_program = heaviest.stack.frames.iter().filter(|frame| frame.origin != Origin::Kernel);
        in_program.map(|frame| Arc::clone(&frame.name)).take(FUNCTIONS).collect()
    }

    /// The makings of a finding of this loop.
    fn finding(
        &self,
        detector: &dyn Detector,
        severity: Severity,
        summary: impl Into<String>,
        evidence: impl Into<Vec<Evidence>>,
    ) -> Finding {
        Finding {
            tag: detector.tag(),
            severity,
            loops: vec![Arc::clone(self.identity)],
            summary: summary.into(),
            subject: None,
            place: Vec::new(),
            evidence: evidence.into(),
            advice: detector.advice(),
        }
    }
}

/// From this loop duration on, a slice is long: at 10 ms a person or a peer's timer notices.
const LONG_SLICE_NS: u64 = 10_000_000;

/// So many functions tell where something is.
const FUNCTIONS: usize = 8;

/// So few events are not yet a rate, nor a quantile.
const ENOUGH: u64 = 100;

/// One kind of finding.
pub trait Detector: Sync {
    /// Its findings' tag.
    fn tag(&self) -> &'static str;

    /// What its findings mean, in a sentence.
    fn meaning(&self) -> &'static str;

    /// What to do about them.
    fn advice(&self) -> &'static str;

    /// Whether there is one.
    fn check(&self, inputs: &Inputs<'_>) -> Option<Finding>;
}

/// All of them, in the order in which findings of the same severity are told.
pub static DETECTORS: &[&dyn Detector] = &[
    &slices::BlockingCall,
    &slices::CpuBoundCallback,
    &delays::CgroupThrottling,
    &delays::RunQueueStarvation,
    &delays::LongReadyDelay,
    &delays::PollDelay,
    &pollers::PollerUnpolled,
    &wakeups::BusyPolling,
    &wakeups::ThunderingHerd,
    &wakeups::TimerStorm,
    &batches::BatchAlwaysFull,
    &batches::OneEventPerWakeup,
    &rings::CqOverflow,
    &rings::SubmitOneAtATime,
    &rings::IoWqPunts,
];

/// The findings of these loops, the worst first. Loops of a process that have the same one, about the same thing, are
/// told of together, with the numbers of the one that has it worst.
pub fn find<'a>(loops: impl IntoIterator<Item = Inputs<'a>>) -> Vec<Finding> {
    let mut found: Vec<(usize, Finding)> = Vec::new();
    for inputs in loops {
        for (order, detector) in DETECTORS.iter().enumerate() {
            let Some(finding) = detector.check(&inputs) else { continue };
            let same = found.iter_mut().find(|(known_order, known)| {
                *known_order == order
                    && known.subject == finding.subject
                    && known.is_of_process(inputs.identity)
            });
            match same {
                Some((_, known)) => known.join(finding),
                None => found.push((order, finding)),
            }
        }
    }
    found.sort_by_key(|(order, finding)| (std::cmp::Reverse(finding.severity), *order));
    found.into_iter().map(|(_, finding)| finding).collect()
}

impl Finding {
    /// Whether it is of loops of this one's process.
    fn is_of_process(&self, identity: &Identity) -> bool {
        // A process that is not visible from here has a number in its own namespace only.
        let process = |of: &Identity| (of.pid, of.inner.filter(|_| of.pid == 0).map(|inner| inner.0));
        self.loops.iter().any(|known| process(known) == process(identity))
    }

    /// Takes in the same finding of another loop.
    fn join(&mut self, other: Self) {
        let mut loops = std::mem::take(&mut self.loops);
        if (other.severity, other.weight()) > (self.severity, self.weight()) {
            let mut all = other.loops.clone();
            all.append(&mut loops);
            *self = Self { loops: all, ..other };
        } else {
            loops.extend(other.loops);
            self.loops = loops;
        }
    }

    /// By which one loop has it worse than another: the most telling number.
    fn weight(&self) -> f64 {
        self.evidence.first().map_or(0.0, |evidence| match evidence.quantity {
            Quantity::Count(number) | Quantity::Nanoseconds(number) => number as f64,
            Quantity::PerSecond(value) | Quantity::Share(value) | Quantity::Mean(value) => value,
        })
    }
}

const fn count(name: &'static str, number: u64) -> Evidence {
    Evidence { name, quantity: Quantity::Count(number) }
}

const fn nanoseconds(name: &'static str, ns: u64) -> Evidence {
    Evidence { name, quantity: Quantity::Nanoseconds(ns) }
}

const fn per_second(name: &'static str, rate: f64) -> Evidence {
    Evidence { name, quantity: Quantity::PerSecond(rate) }
}

const fn share(name: &'static str, share: f64) -> Evidence {
    Evidence { name, quantity: Quantity::Share(share) }
}

const fn mean(name: &'static str, mean: f64) -> Evidence {
    Evidence { name, quantity: Quantity::Mean(mean) }
}

/// A part of a whole, or one number to another; 0 of nothing.
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
