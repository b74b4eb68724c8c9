//! What is known of one loop.

use ioscope_common::{
    Blocker, Counters, ErrnoCount, Loop, OpenInterval, PollerKind, RingEvents, State, WaitCall, Wake,
};

use super::{batch::Throttling, distribution::Distribution, syscalls::Syscalls};

/// Time per state, in nanoseconds, by [`State`]'s number.
pub type TimeNs = [u64; State::COUNT];

/// A poller and how often it was waited on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Poller {
    /// What it is.
    pub kind: PollerKind,
    /// Its file descriptor (a registered ring's index), or −1.
    pub fd: i32,
    /// How many wait calls on it returned.
    pub iterations: u64,
}

/// All counts of a loop up to one moment. Two of them differ by what happened in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stats {
    /// When the loop was first seen, or where a difference begins.
    pub from: u64,
    /// The moment, or the loop's end.
    pub until: u64,
    /// Time per state from one to the other: it adds up to the difference.
    pub time_ns: TimeNs,
    /// How often the loop went from one state to another, by [`State::edge`]; a sleep outside the wait call
    /// counts when it has ended.
    pub edges: [u64; State::EDGES],
    /// Counters.
    pub counters: Counters,
    /// What happened to the rings that it waits on.
    pub ring_events: RingEvents,
    /// How often its process was held back by a limit; `None` if nothing limits it, or it is not known.
    pub throttling: Option<Throttling>,
    /// Pollers.
    pub pollers: Vec<Poller>,
    /// What it was BLOCKED in, the longest total first.
    pub blockers: Vec<Blocker>,
    /// What found no place among these.
    pub other_blockers: Option<Blocker>,
    /// The system calls of its slices; `None` unless they were asked for.
    pub syscalls: Option<Syscalls>,
    /// The errnos that wait calls failed with, `EINTR` apart.
    pub errnos: Vec<ErrnoCount>,
    /// Loop durations.
    pub loop_duration: Distribution,
    /// Wakeup latencies.
    pub wakeup_latency: Distribution,
    /// Run-queue delays.
    pub run_queue_delay: Distribution,
    /// Poll delays.
    pub poll_delay: Distribution,
    /// Ready delays.
    pub ready_delay: Distribution,
    /// Ready events per wakeup.
    pub ready_per_wakeup: Distribution,
}

impl Stats {
    /// How many wait calls returned.
    pub fn iterations(&self) -> u64 {
        self.counters.returns.iter().sum()
    }

    /// Nanoseconds from first to last.
    pub const fn elapsed_ns(&self) -> u64 {
        self.until.saturating_sub(self.from)
    }

    /// Nanoseconds in a state.
    pub const fn time_in(&self, state: State) -> u64 {
        self.time_ns[state as usize]
    }

    /// How often it went from one state to another.
    pub const fn changes(&self, from: State, to: State) -> u64 {
        self.edges[State::edge(from, to)]
    }

    /// The share of time that the loop was not idle: 0 to 1.
    pub fn utilisation(&self) -> f64 {
        let elapsed = self.elapsed_ns();
        if elapsed == 0 {
            return 0.0;
        }
        let idle = self.time_in(State::Waiting) + self.time_in(State::Parked);
        1.0 - idle as f64 / elapsed as f64
    }

    /// A count over this span, per second.
    pub fn per_second(&self, count: u64) -> f64 {
        let elapsed = self.elapsed_ns();
        if elapsed == 0 { 0.0 } else { count as f64 * 1e9 / elapsed as f64 }
    }

    /// The wait call that returned most often.
    pub fn main_wait_call(&self) -> Option<WaitCall> {
        WaitCall::ALL
            .into_iter()
            .filter(|call| self.counters.returns[call.index()] > 0)
            .max_by_key(|call| self.counters.returns[call.index()])
    }

    /// Takes in a newer copy of the same loop; `raw` is the one that was taken in before.
    pub(super) fn update(&mut self, now: &Loop, raw: Option<&Loop>, open: &OpenInterval, until: u64) {
        self.until = until;
        self.time_ns = now.time_ns;
        self.time_ns[open.state as usize] += open.ns;
        self.time_ns[State::Ready as usize] += open.ready_ns;
        self.counters = now.counters;
        self.edges = now.edges;
        self.pollers = now
            .pollers
            .iter()
            .filter_map(|poller| {
                let kind = u8::try_from(poller.kind).ok().and_then(PollerKind::from_number)?;
                Some(Poller { kind, fd: poller.fd, iterations: poller.iterations })
            })
            .collect();
        self.blockers = now.blockers.iter().filter(|blocker| blocker.count > 0).copied().collect();
        self.blockers.sort_by_key(|blocker| std::cmp::Reverse(blocker.total_ns));
        self.other_blockers = Some(now.other_blockers).filter(|blocker| blocker.count > 0);
        self.errnos = now.errnos.iter().filter(|entry| entry.count > 0).copied().collect();
        self.loop_duration.add_since(&now.loop_duration, raw.map(|raw| &raw.loop_duration));
        self.wakeup_latency.add_since(&now.wakeup_latency, raw.map(|raw| &raw.wakeup_latency));
        self.run_queue_delay.add_since(&now.run_queue_delay, raw.map(|raw| &raw.run_queue_delay));
        self.poll_delay.add_since(&now.poll_delay, raw.map(|raw| &raw.poll_delay));
        self.ready_delay.add_since(&now.ready_delay, raw.map(|raw| &raw.ready_delay));
        self.ready_per_wakeup.add_since(&now.ready_per_wakeup, raw.map(|raw| &raw.ready_per_wakeup));
    }

    /// Takes in what others than the loop's thread have counted.
    pub(super) const fn take_in(&mut self, ring_events: RingEvents, throttling: Option<Throttling>) {
        self.ring_events = ring_events;
        self.throttling = throttling;
    }

    /// Nothing yet, from this moment on.
    pub fn new(from: u64) -> Self {
        Self {
            from,
            until: from,
            time_ns: [0; State::COUNT],
            edges: [0; State::EDGES],
            counters: Loop::ZERO.counters,
            ring_events: RingEvents::default(),
            throttling: None,
            pollers: Vec::new(),
            blockers: Vec::new(),
            other_blockers: None,
            syscalls: None,
            errnos: Vec::new(),
            loop_duration: Distribution::default(),
            wakeup_latency: Distribution::default(),
            run_queue_delay: Distribution::default(),
            poll_delay: Distribution::default(),
            ready_delay: Distribution::default(),
            ready_per_wakeup: Distribution::default(),
        }
    }

    /// Adds what another loop did: times, counts and distributions in sum, so that shares and rates are those
    /// of all loops together per loop. Pollers, system calls and errnos are not kept.
    pub fn add(&mut self, other: &Self) {
        self.until += other.elapsed_ns();
        for (time, more) in self.time_ns.iter_mut().zip(&other.time_ns) {
            *time += more;
        }
        for (edge, more) in self.edges.iter_mut().zip(&other.edges) {
            *edge += more;
        }
        self.counters.add(&other.counters);
        self.loop_duration.merge(&other.loop_duration);
        self.wakeup_latency.merge(&other.wakeup_latency);
        self.run_queue_delay.merge(&other.run_queue_delay);
        self.poll_delay.merge(&other.poll_delay);
        self.ready_delay.merge(&other.ready_delay);
        self.ready_per_wakeup.merge(&other.ready_per_wakeup);
    }

    /// What happened after `earlier`, a former state of the same loop. A longest value of the
    /// difference that is not known is the longest that is possible.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let mut counters = self.counters;
        // That a poller is shared may come to light late, and then there were none.
        counters.stalls = counters.stalls.max(earlier.counters.stalls);
        counters.stalled_ns = counters.stalled_ns.max(earlier.counters.stalled_ns);
        counters.subtract(&earlier.counters);
        let mut time_ns = self.time_ns;
        for (time, before) in time_ns.iter_mut().zip(&earlier.time_ns) {
            // What was READY in an open interval can turn out as WAITING: a wakeup that led to nothing.
            *time = time.saturating_sub(*before);
        }
        let mut edges = self.edges;
        for (count, before) in edges.iter_mut().zip(&earlier.edges) {
            *count = count.saturating_sub(*before);
        }
        let pollers = self
            .pollers
            .iter()
            .map(|poller| {
                let before = earlier.pollers.iter().find(|p| p.kind == poller.kind && p.fd == poller.fd);
                Poller { iterations: poller.iterations - before.map_or(0, |p| p.iterations), ..*poller }
            })
            .filter(|poller| poller.iterations > 0)
            .collect();
        let mut blockers: Vec<Blocker> = self
            .blockers
            .iter()
            .map(|blocker| {
                difference(blocker, earlier.blockers.iter().find(|b| b.syscall == blocker.syscall))
            })
            .filter(|blocker| blocker.count > 0)
            .collect();
        blockers.sort_by_key(|blocker| std::cmp::Reverse(blocker.total_ns));
        let errnos = self
            .errnos
            .iter()
            .map(|entry| {
                let before = earlier.errnos.iter().find(|e| e.errno == entry.errno).map_or(0, |e| e.count);
                ErrnoCount { count: entry.count - before, ..*entry }
            })
            .filter(|entry| entry.count > 0)
            .collect();
        Self {
            from: earlier.until,
            until: self.until,
            time_ns,
            edges,
            counters,
            throttling: self.throttling.map(|now| {
                let before = earlier.throttling.unwrap_or_default();
                Throttling {
                    periods: now.periods.saturating_sub(before.periods),
                    throttled_periods: now.throttled_periods.saturating_sub(before.throttled_periods),
                    throttled_ns: now.throttled_ns.saturating_sub(before.throttled_ns),
                }
            }),
            ring_events: RingEvents {
                cq_overflows: self.ring_events.cq_overflows - earlier.ring_events.cq_overflows,
                io_wq_punts: self.ring_events.io_wq_punts - earlier.ring_events.io_wq_punts,
            },
            pollers,
            blockers,
            other_blockers: self
                .other_blockers
                .map(|blocker| difference(&blocker, earlier.other_blockers.as_ref()))
                .filter(|blocker| blocker.count > 0),
            syscalls: self.syscalls.as_ref().map(|syscalls| match &earlier.syscalls {
                Some(earlier) => syscalls.since(earlier),
                None => syscalls.clone(),
            }),
            errnos,
            loop_duration: self.loop_duration.since(&earlier.loop_duration),
            wakeup_latency: self.wakeup_latency.since(&earlier.wakeup_latency),
            run_queue_delay: self.run_queue_delay.since(&earlier.run_queue_delay),
            poll_delay: self.poll_delay.since(&earlier.poll_delay),
            ready_delay: self.ready_delay.since(&earlier.ready_delay),
            ready_per_wakeup: self.ready_per_wakeup.since(&earlier.ready_per_wakeup),
        }
    }
}

fn difference(now: &Blocker, earlier: Option<&Blocker>) -> Blocker {
    earlier.map_or(*now, |earlier| Blocker {
        count: now.count - earlier.count,
        total_ns: now.total_ns - earlier.total_ns,
        ..*now
    })
}

/// Whether the thread only ever looks at a poller that others wait on: Go's monitor, which sleeps between its looks, and threads that
/// come by with no time to wait. That it does not wait is by design, and no stall.
pub(super) fn only_looks(machine: &Loop, shared: bool) -> bool {
    let returns: u64 = machine.counters.returns.iter().sum();
    shared && returns > 0 && returns == machine.counters.check_ins
}

/// What a loop's thread does at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Present {
    /// Its state.
    pub state: State,
    /// For how long, in nanoseconds.
    pub for_ns: u64,
    /// The system call that it sleeps in while BLOCKED or PARKED: a number, or
    /// [`NO_SYSCALL`](ioscope_common::NO_SYSCALL) or [`STOPPED`](ioscope_common::STOPPED).
    pub syscall: Option<i32>,
    /// How long its slice has lasted, without PARKED time, while it is outside its wait call.
    pub slice_ns: Option<u64>,
    /// How long it has served, since its wait call returned or since it was last PARKED, while it is outside
    /// its wait call: long enough, and it is a stall. Not of a thread that only ever looks at a poller that others
    /// wait on.
    pub serving_ns: Option<u64>,
}

impl Present {
    /// What a copy of a loop says of the moment `now`.
    pub fn of(machine: &Loop, wake: Wake, shared: bool, now: u64) -> Self {
        let open = machine.open_interval(wake, shared, now);
        let state = open.now();
        let asleep = matches!(state, State::Blocked | State::Parked);
        let in_slice = machine.in_wait == 0 && machine.returned_at != 0 && machine.restarting == 0;
        let serves = in_slice && !only_looks(machine, shared);
        let parked_now = if open.state == State::Parked { open.ns } else { 0 };
        let idle = machine.slice_parked_ns + parked_now;
        Self {
            state,
            for_ns: if open.ready_ns > 0 { open.ready_ns } else { open.ns },
            syscall: asleep.then_some(machine.syscall),
            serving_ns: serves.then(|| now.saturating_sub(parked_now).saturating_sub(machine.serving_since)),
            slice_ns: in_slice.then(|| now.saturating_sub(machine.returned_at).saturating_sub(idle)),
        }
    }
}
