//! The stalls of one loop, as batches tell of them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use ioscope_common::{Loop, OpenInterval};

use super::{Account, Capture, PAST_STALLS, Stacks, Stall, WeightedStack};
use crate::model::{FoundStall, LoopId, ResolvedArgument};

/// The stalls of a loop: the one that goes on, and the latest of those that have ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StallLog {
    /// The one that goes on.
    pub ongoing: Option<Stall>,
    past: VecDeque<Stall>,
    dropped: u64,
    /// The stacks of those that are not kept.
    gone: Stacks,
    /// Captures of slices that are no stalls, or not yet, by when they began.
    pending: BTreeMap<u64, Stacks>,
    /// What was found out of arguments, the latest last.
    resolved: VecDeque<ResolvedArgument>,
}

/// So many slices' captures wait for what becomes of them.
const PENDING_SLICES: usize = 4;

/// So many arguments are remembered.
const RESOLVED: usize = 16;

/// What a copy of a loop is looked at with.
pub(in crate::model) struct Moment {
    pub(in crate::model) open: OpenInterval,
    /// How long the loop has served.
    pub(in crate::model) serving_ns: Option<u64>,
    /// From this loop duration on it is a stall.
    pub(in crate::model) threshold: Duration,
}

impl StallLog {
    /// The ended ones that are kept, in the order of their beginning.
    pub fn past(&self) -> impl DoubleEndedIterator<Item = &Stall> + ExactSizeIterator {
        self.past.iter()
    }

    /// All that are kept, the ongoing one last.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Stall> {
        self.past.iter().chain(&self.ongoing)
    }

    /// How many ended ones are not kept: for want of room, or because more ended at a time than the
    /// kernel's side keeps.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The stacks of all stalls there were, those that are not kept among them; the same one more than once.
    pub fn every_stack(&self) -> impl Iterator<Item = &WeightedStack> {
        self.gone.iter().chain(self.iter().flat_map(|stall| stall.stacks.iter()))
    }

    /// The stall that began then.
    pub fn get(&self, began_at: u64) -> Option<&Stall> {
        self.iter().rev().find(|stall| stall.began_at == began_at)
    }

    /// Takes in a newer copy of the loop; `before` is the one that was taken in last.
    pub(in crate::model) fn update(
        &mut self,
        id: LoopId,
        now: &Loop,
        before: Option<&Loop>,
        moment: &Moment,
    ) {
        let kept = ioscope_common::PAST_STALLS as u64;
        let all = now.counters.stalls;
        let known = before.map_or(0, |before| before.counters.stalls);
        let first = known.max(all.saturating_sub(kept));
        self.dropped += first - known;
        for number in first..all {
            if let Some(past) = usize::try_from(number % kept).ok().and_then(|at| now.past_stalls.get(at)) {
                let duration = past.ended_at.saturating_sub(past.began_at);
                let account = Account::of(&past.slice, duration, None);
                self.end(id, past.began_at, past.ended_at, account);
            }
        }
        let threshold = moment.threshold.as_nanos();
        let duration = moment.serving_ns.filter(|ns| u128::from(*ns) >= threshold);
        let Some(duration) = duration else {
            // It has ended, and is among those above; unless the threshold was changed meanwhile.
            self.ongoing = None;
            return;
        };
        let account = Account::of(&now.slice, duration, Some((now, &moment.open)));
        if now.ended != 0 {
            // It ended with its thread. The last copy may come more than once.
            if self.get(now.serving_since).is_none_or(Stall::is_ongoing) {
                self.end(id, now.serving_since, now.ended, account);
            }
            return;
        }
        let stall = self.take(id, now.serving_since, account);
        self.ongoing = Some(stall);
    }

    /// A stall has ended.
    fn end(&mut self, id: LoopId, began_at: u64, ended_at: u64, account: Account) {
        let stall = Stall { ended_at: Some(ended_at), ..self.take(id, began_at, account) };
        if self.past.len() == PAST_STALLS
            && let Some(gone) = self.past.pop_front()
        {
            self.gone.add_all(&gone.stacks);
            self.dropped += 1;
        }
        self.past.push_back(stall);
    }

    /// A stall with all that is known of it so far.
    fn take(&mut self, loop_id: LoopId, began_at: u64, mut account: Account) -> Stall {
        for blocked in &mut account.blocked {
            let known =
                self.resolved.iter().rev().find(|known| {
                    known.syscall == blocked.syscall && Some(known.argument) == blocked.argument
                });
            blocked.resolved = known.map(|known| Arc::clone(&known.text));
        }
        match self.ongoing.take() {
            Some(stall) if stall.began_at == began_at => Stall { account, ..stall },
            _ => {
                let stacks = self.pending.remove(&began_at).unwrap_or_default();
                Stall { loop_id, began_at, found_at: None, ended_at: None, account, stacks }
            }
        }
    }

    fn get_mut(&mut self, began_at: u64) -> Option<&mut Stall> {
        self.ongoing.iter_mut().chain(self.past.iter_mut().rev()).find(|stall| stall.began_at == began_at)
    }

    /// A stall was found while it went on.
    pub(in crate::model) fn found(&mut self, found: &FoundStall) {
        if let Some(stall) = self.get_mut(found.began_at) {
            stall.found_at = Some(found.found_at);
        }
    }

    /// It was found out what an argument stands for.
    pub(in crate::model) fn resolve(&mut self, argument: &ResolvedArgument) {
        self.resolved
            .retain(|known| (known.syscall, known.argument) != (argument.syscall, argument.argument));
        if self.resolved.len() == RESOLVED {
            self.resolved.pop_front();
        }
        self.resolved.push_back(argument.clone());
        let stall = self.ongoing.as_mut().or(self.past.back_mut());
        for blocked in stall.into_iter().flat_map(|stall| &mut stall.account.blocked) {
            if blocked.syscall == argument.syscall && blocked.argument == Some(argument.argument) {
                blocked.resolved = Some(Arc::clone(&argument.text));
            }
        }
    }

    /// It was seen where the thread was.
    pub(in crate::model) fn capture(&mut self, capture: &Capture) {
        if let Some(stall) = self.get_mut(capture.slice) {
            stall.stacks.add(capture);
            return;
        }
        self.pending.entry(capture.slice).or_default().add(capture);
        while self.pending.len() > PENDING_SLICES {
            self.pending.pop_first();
        }
    }
}
