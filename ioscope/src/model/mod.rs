//! Pure data and arithmetic: loops, what they did, what they do now. No clock and no input or output:
//! batches come in, and everything else is asked of it.

mod batch;
mod distribution;
pub mod findings;
pub mod stalls;
mod stats;
mod syscalls;
mod unpolled;

use std::{borrow::Cow, collections::BTreeMap, sync::Arc, time::Duration};

use ioscope_common::{Drops, Loop, NO_SYSCALL, STOPPED, WaitCall};

pub use batch::{Batch, Cost, FoundStall, Identity, LoopId, ResolvedArgument, Sample, Throttling};
pub use distribution::Distribution;
use stalls::Moment;
pub use stalls::StallLog;
pub use stats::{Poller, Present, Stats, TimeNs};
pub use syscalls::{SyscallUse, Syscalls};
use unpolled::SharedPollers;
pub use unpolled::{PollerId, Unpolled};

/// Everything known of one loop.
#[derive(Clone, Debug)]
pub struct LoopModel {
    /// Its name in this run.
    pub id: LoopId,
    /// Who it is.
    pub identity: Arc<Identity>,
    /// Whether its thread has ended.
    pub ended: bool,
    /// What it did.
    pub stats: Stats,
    /// What it does.
    pub present: Present,
    /// Its stalls.
    pub stalls: StallLog,
    /// Whether another thread of the process uses its poller too.
    pub shares_poller: bool,
    /// From which loop duration on it is a stall of this loop, where that is another one than the run's: its
    /// runtime's.
    pub own_threshold: Option<Duration>,
    /// The copy that these were made of.
    raw: Box<Loop>,
}

impl LoopModel {
    /// Whether the thread has shown itself to be a loop, by a wait call that it is in, that goes on after a stop, or
    /// that has returned. One that was only seen to submit to a ring has not, nor has one whose only wait call was
    /// a `poll` that checked in: every Rust program does so when it starts, on its standard descriptors. A single
    /// check-in on an epoll instance is another matter: it takes events away from those who share it, as Go's
    /// monitor thread does.
    pub fn is_loop(&self) -> bool {
        let counters = &self.stats.counters;
        let returns = self.stats.iterations();
        let polls = counters.returns[WaitCall::Poll.index()] + counters.returns[WaitCall::Ppoll.index()];
        let polled_once = returns == 1 && polls == 1 && counters.check_ins == 1;
        self.raw.in_wait != 0 || self.raw.restarting != 0 || (returns > 0 && !polled_once)
    }

    /// The wait call that it is in, or was in last.
    pub fn wait_call(&self) -> Option<ioscope_common::WaitCall> {
        ioscope_common::WaitCall::from_number(self.raw.call)
    }

    /// How long the present slice has lasted, if it is a stall by this threshold, in nanoseconds.
    pub fn ongoing_stall(&self, threshold: Duration) -> Option<u64> {
        self.present.serving_ns.filter(|ns| !self.ended && u128::from(*ns) >= threshold.as_nanos())
    }
}

/// Everything known in a run.
#[derive(Clone, Debug)]
pub struct Model {
    /// From this loop duration on it is a stall, unless the loop has a threshold of its own.
    pub stall_threshold: Duration,
    started_at: Option<u64>,
    now: u64,
    drops: Drops,
    cost: Cost,
    loops: BTreeMap<LoopId, LoopModel>,
    shared_pollers: SharedPollers,
    /// Of loops that have a threshold of their own.
    thresholds: BTreeMap<LoopId, Duration>,
}

impl Model {
    /// Nothing yet.
    pub const fn new(stall_threshold: Duration) -> Self {
        Self {
            stall_threshold,
            started_at: None,
            now: 0,
            drops: Drops {
                ring_full: 0,
                loops_full: 0,
                targets_full: 0,
                out_of_directory: 0,
                compat_calls: 0,
                skipped_runs: 0,
                captures_full: 0,
                sleepers_full: 0,
            },
            cost: Cost { bpf_ns: None, collector_cpu_ns: 0 },
            loops: BTreeMap::new(),
            shared_pollers: SharedPollers::new(),
            thresholds: BTreeMap::new(),
        }
    }

    /// Takes in a batch. Batches come in the order of their time.
    pub fn apply(&mut self, batch: &Batch) {
        self.started_at.get_or_insert(batch.at);
        self.now = batch.at;
        self.drops = batch.drops;
        self.cost = batch.cost;
        self.thresholds.extend(batch.thresholds.iter().copied());
        for sample in &batch.samples {
            self.take_sample(sample, batch.at);
        }
        let sharing = self.loops.values().filter(|model| model.shares_poller && !model.ended);
        self.shared_pollers.update(sharing.map(|model| (model.identity.pid, &*model.raw)), batch.at);
        for found in &batch.found {
            if let Some(model) = self.loops.get_mut(&found.id) {
                model.stalls.found(found);
            }
        }
        for argument in &batch.resolved {
            if let Some(model) = self.loops.get_mut(&argument.id) {
                model.stalls.resolve(argument);
            }
        }
        for (id, capture) in &batch.captures {
            if let Some(model) = self.loops.get_mut(id) {
                model.stalls.capture(capture);
            }
        }
        for (id, syscalls) in &batch.syscalls {
            if let Some(model) = self.loops.get_mut(id) {
                model.stats.syscalls = Some(syscalls.clone());
            }
        }
        for id in &batch.ended {
            if let Some(model) = self.loops.get_mut(id) {
                model.ended = true;
            }
        }
    }

    fn take_sample(&mut self, sample: &Sample, at: u64) {
        let Sample { id, identity, wake, shared, ring_events, throttling, machine } = sample;
        let mut machine = Cow::Borrowed(machine);
        if stats::only_looks(&machine, *shared) {
            let counters = &mut machine.to_mut().counters;
            (counters.stalls, counters.stalled_ns, counters.longest_stall_ns) = (0, 0, 0);
        }
        let machine = &*machine;
        let until = if machine.ended == 0 { at.max(machine.since) } else { machine.ended };
        let open = machine.open_interval(*wake, *shared, until);
        let present = Present::of(machine, *wake, *shared, until);
        let own_threshold = self.thresholds.get(id).copied();
        let threshold = own_threshold.unwrap_or(self.stall_threshold);
        let now = Moment { open, serving_ns: present.serving_ns, threshold };
        if let Some(model) = self.loops.get_mut(id) {
            // A thread that was found asleep may turn out to begin later.
            model.stats.from = machine.born;
            model.stats.update(machine, Some(&model.raw), &open, until);
            model.stats.take_in(*ring_events, *throttling);
            model.identity = Arc::clone(identity);
            model.present = present;
            model.shares_poller = *shared;
            model.own_threshold = own_threshold;
            model.stalls.update(*id, machine, Some(&model.raw), &now);
            model.raw.clone_from(machine);
        } else {
            let mut stalls = StallLog::default();
            stalls.update(*id, machine, None, &now);
            let mut stats = Stats::new(machine.born);
            stats.update(machine, None, &open, until);
            stats.take_in(*ring_events, *throttling);
            let model = LoopModel {
                id: *id,
                identity: Arc::clone(identity),
                ended: false,
                stats,
                present,
                stalls,
                shares_poller: *shared,
                own_threshold,
                raw: machine.clone(),
            };
            self.loops.insert(*id, model);
        }
    }

    /// From which loop duration on it is a stall of this loop.
    pub fn threshold_of(&self, model: &LoopModel) -> Duration {
        model.own_threshold.unwrap_or(self.stall_threshold)
    }

    /// The loops, in the order in which they were found.
    pub fn loops(&self) -> impl Iterator<Item = &LoopModel> {
        self.loops.values().filter(|model| model.is_loop())
    }

    /// A loop.
    pub fn get(&self, id: LoopId) -> Option<&LoopModel> {
        self.loops.get(&id)
    }

    /// Forgets the loops that ended before this moment, in nanoseconds of `CLOCK_MONOTONIC`: a run that is
    /// watched for days keeps what lives.
    pub fn forget_ended(&mut self, before: u64) {
        self.loops.retain(|_, model| !model.ended || model.stats.until >= before);
        let loops = &self.loops;
        self.thresholds.retain(|id, _| loops.contains_key(id));
    }

    /// For how long nobody waits on the poller that a loop shares with others; `None` if it shares none.
    pub fn unpolled(&self, model: &LoopModel) -> Option<Unpolled> {
        PollerId::of(model.identity.pid, &model.raw)
            .filter(|_| model.shares_poller)
            .and_then(|id| self.shared_pollers.get(id))
    }

    /// When the last batch was taken, in nanoseconds of `CLOCK_MONOTONIC`.
    pub const fn now(&self) -> u64 {
        self.now
    }

    /// Nanoseconds from the first batch to the last.
    pub fn elapsed_ns(&self) -> u64 {
        self.started_at.map_or(0, |started_at| self.now.saturating_sub(started_at))
    }

    /// What was dropped.
    pub const fn drops(&self) -> &Drops {
        &self.drops
    }

    /// What tracing has cost.
    pub const fn cost(&self) -> Cost {
        self.cost
    }
}

/// What a thread sleeps in, when it is not a system call that has a name of its own.
pub const fn special_syscall(number: i32) -> Option<&'static str> {
    match number {
        STOPPED => Some("stopped"),
        NO_SYSCALL => Some("no system call"),
        _ => None,
    }
}
