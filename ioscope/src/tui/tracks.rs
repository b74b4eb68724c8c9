//! What the loops that stream have done lately: their iterations and sleeps, and from these, in which state
//! each was when.

use std::collections::{HashMap, VecDeque};

use ioscope_common::{Block, Iteration, NO_WAKEUP, State};

use crate::model::{Batch, LoopId, Present};

/// At most so many iterations, and sleeps, of a loop.
const MOST: usize = 16_384;
/// And of all loops together: many lanes have a shorter past each, so that neither memory nor the time of a
/// frame grows with them.
const MOST_OF_ALL: usize = 65_536;
/// However many there are, so many of each.
const LEAST: usize = 512;
/// And not those that ended so many nanoseconds ago.
const LONGEST: u64 = 120_000_000_000;

/// A loop's.
#[derive(Clone, Debug, Default)]
pub(super) struct Track {
    /// In the order of their time.
    iterations: VecDeque<Iteration>,
    blocks: VecDeque<Block>,
}

/// All loops'.
#[derive(Clone, Debug, Default)]
pub(super) struct Tracks(HashMap<LoopId, Track>);

/// A loop was in a state for a time, in nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Segment {
    pub(super) state: State,
    pub(super) from: u64,
    pub(super) to: u64,
    /// It belongs to a stall.
    pub(super) stall: bool,
}

impl Tracks {
    /// Takes in what a batch has of them.
    pub(super) fn take(&mut self, batch: &Batch) {
        for (id, iteration) in &batch.iterations {
            let track = self.0.entry(*id).or_default();
            push(&mut track.iterations, *iteration);
        }
        for (id, block) in &batch.blocks {
            let track = self.0.entry(*id).or_default();
            push(&mut track.blocks, *block);
        }
        if batch.iterations.is_empty() && batch.blocks.is_empty() {
            return;
        }
        let before = batch.at.saturating_sub(LONGEST);
        let most = (MOST_OF_ALL / self.0.len().max(1)).clamp(LEAST, MOST);
        for track in self.0.values_mut() {
            trim(&mut track.iterations, most);
            trim(&mut track.blocks, most);
            while track.iterations.front().is_some_and(|iteration| end(iteration) < before) {
                track.iterations.pop_front();
            }
            while track.blocks.front().is_some_and(|block| block.since + block.ns < before) {
                track.blocks.pop_front();
            }
        }
        self.0.retain(|_, track| !track.iterations.is_empty() || !track.blocks.is_empty());
    }

    pub(super) fn of(&self, id: LoopId) -> Option<&Track> {
        self.0.get(&id)
    }
}

fn trim<T>(queue: &mut VecDeque<T>, most: usize) {
    if queue.len() > most {
        queue.drain(..queue.len() - most);
        queue.shrink_to(most * 2);
    }
}

fn push<T>(queue: &mut VecDeque<T>, value: T) {
    if queue.len() == MOST {
        queue.pop_front();
    }
    queue.push_back(value);
}

/// When an iteration's wait call was entered.
pub(super) const fn start(iteration: &Iteration) -> u64 {
    iteration.returned_at.saturating_sub(iteration.wait_ns)
}

/// When its slice ended.
pub(super) const fn end(iteration: &Iteration) -> u64 {
    if iteration.loop_ns == Iteration::UNFINISHED {
        return iteration.returned_at;
    }
    iteration.returned_at.saturating_add(iteration.loop_ns).saturating_add(iteration.parked_ns)
}

/// When its sleep was ended by a wakeup, if one was seen.
pub(super) const fn woken(iteration: &Iteration) -> Option<u64> {
    if iteration.wakeup_ns == NO_WAKEUP || iteration.flags & Iteration::SLEPT == 0 {
        return None;
    }
    Some(iteration.returned_at.saturating_sub(iteration.wakeup_ns))
}

impl Track {
    /// The iterations that touch a span of time, in their order.
    pub(super) fn iterations(&self, from: u64, to: u64) -> impl DoubleEndedIterator<Item = &Iteration> {
        let first = self.iterations.partition_point(|iteration| end(iteration) < from);
        let last = self.iterations.partition_point(|iteration| start(iteration) <= to);
        self.iterations.range(first..last.max(first))
    }

    /// The last ones, the newest first.
    pub(super) fn newest(&self) -> impl Iterator<Item = &Iteration> {
        self.iterations.iter().rev()
    }

    /// The iteration at a moment.
    pub(super) fn at(&self, moment: u64) -> Option<&Iteration> {
        self.iterations(moment, moment).next_back()
    }

    /// Calls `visit` with the states in a span of time, in their order, as far as they are known. What is
    /// within a slice and no sleep is RUNNING: the stream does not tell of preemption there. So is the way
    /// into a wait call that sleeps WAITING.
    pub(super) fn segments(&self, from: u64, to: u64, threshold: u64, mut visit: impl FnMut(Segment)) {
        for iteration in self.iterations(from, to) {
            let stall = iteration.loop_ns != Iteration::UNFINISHED && iteration.loop_ns >= threshold;
            let mut add = |state, from: u64, to: u64, stall| {
                if from < to {
                    visit(Segment { state, from, to, stall });
                }
            };
            let (entered, returned, ended) = (start(iteration), iteration.returned_at, end(iteration));
            if iteration.flags & Iteration::SLEPT == 0 {
                add(State::Polling, entered, returned, false);
            } else if let Some(woken) = woken(iteration) {
                add(State::Waiting, entered, woken, false);
                // Of a wakeup whose CPU was not seen it is not known what was which: that is left out.
                if iteration.run_queue_ns != NO_WAKEUP {
                    let on_cpu = woken + iteration.run_queue_ns;
                    add(State::Ready, woken, on_cpu, false);
                    add(State::Polling, on_cpu, returned, false);
                }
            } else {
                add(State::Waiting, entered, returned, false);
            }
            let mut at = returned;
            let first = self.blocks.partition_point(|block| block.since < returned);
            for block in self.blocks.range(first..).take_while(|block| block.since < ended) {
                let parked = block.state == State::Parked as u32;
                let state = if parked { State::Parked } else { State::Blocked };
                add(State::Running, at, block.since, stall);
                add(state, block.since, block.since + block.ns, stall && !parked);
                at = block.since + block.ns;
            }
            add(State::Running, at, ended, stall);
        }
    }
}

/// What is known of a loop's present, which no record tells of yet: its state and for how long, and the slice
/// that it is in.
pub(super) fn present(present: &Present, now: u64, threshold: u64) -> [Option<Segment>; 2] {
    let stall = present.slice_ns.is_some_and(|ns| ns >= threshold);
    let from = now.saturating_sub(present.for_ns);
    let last = Segment { state: present.state, from, to: now, stall };
    // PARKED time is not in the slice's length: what lies before is left unknown.
    let slice = present.slice_ns.map(|ns| now.saturating_sub(ns));
    let before = slice.filter(|began| *began < from).map(|began| Segment {
        state: State::Running,
        from: began,
        to: from,
        stall,
    });
    [before, Some(last)]
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn iteration(returned_at: u64, wait_ns: u64, loop_ns: u64) -> Iteration {
        Iteration {
            kind: 1,
            call: 1,
            flags: Iteration::SLEPT,
            waker_context: 1,
            slot: 0,
            returned_at,
            wait_ns,
            loop_ns,
            blocked_ns: 0,
            parked_ns: 0,
            wakeup_ns: 30,
            run_queue_ns: 20,
            timeout: -1,
            result: 1,
            events: 1,
            fd: 3,
            max_events: 0,
            waker: 9,
            ready_ns: Iteration::READY_UNSEEN,
        }
    }

    fn segments(track: &Track, from: u64, to: u64) -> Vec<(State, u64, u64, bool)> {
        let mut all = Vec::new();
        track.segments(from, to, 1_000, |s| all.push((s.state, s.from, s.to, s.stall)));
        all
    }

    #[test]
    fn states_follow_from_iterations_and_sleeps() {
        let mut tracks = Tracks::default();
        let id = LoopId(1);
        let block = Block { since: 250, ns: 100, syscall: 74, state: State::Blocked as u32 };
        tracks.take(&Batch {
            at: 3_000,
            iterations: vec![(id, iteration(200, 100, 300)), (id, iteration(600, 100, 1_400))],
            blocks: vec![(id, block)],
            ..Batch::default()
        });
        let track = tracks.of(id).expect("it is there");
        assert_eq!(
            segments(track, 0, 10_000),
            [
                (State::Waiting, 100, 170, false),
                (State::Ready, 170, 190, false),
                (State::Polling, 190, 200, false),
                (State::Running, 200, 250, false),
                (State::Blocked, 250, 350, false),
                (State::Running, 350, 500, false),
                (State::Waiting, 500, 570, false),
                (State::Ready, 570, 590, false),
                (State::Polling, 590, 600, false),
                (State::Running, 600, 2_000, true),
            ]
        );
        assert_eq!(segments(track, 501, 510).len(), 4, "only what touches the span");
        assert_eq!(track.at(1_000).map(|iteration| iteration.returned_at), Some(600));
        assert_eq!(track.at(2_500), None);
        assert_eq!(track.at(50), None);
    }

    #[test]
    fn a_run_queue_delay_that_is_unknown_is_neither_ready_nor_polling() {
        let mut tracks = Tracks::default();
        let unknown = Iteration { run_queue_ns: NO_WAKEUP, ..iteration(200, 100, 300) };
        tracks.take(&Batch { at: 3_000, iterations: vec![(LoopId(1), unknown)], ..Batch::default() });
        let track = tracks.of(LoopId(1)).expect("it is there");
        let expected = [(State::Waiting, 100, 170, false), (State::Running, 200, 500, false)];
        assert_eq!(segments(track, 0, 10_000), expected);
    }

    #[test]
    fn what_is_old_or_too_much_goes() {
        let mut tracks = Tracks::default();
        let many = (0..40_000_u64).map(|at| (LoopId(1), iteration(1_000 + at * 100, 50, 40))).collect();
        tracks.take(&Batch { at: 5_000_000, iterations: many, ..Batch::default() });
        assert_eq!(tracks.of(LoopId(1)).map(|track| track.iterations.len()), Some(MOST));
        let one = vec![(LoopId(2), iteration(LONGEST * 2, 50, 40))];
        tracks.take(&Batch { at: LONGEST * 2, iterations: one, ..Batch::default() });
        assert!(tracks.of(LoopId(1)).is_none() && tracks.of(LoopId(2)).is_some());
    }
}
