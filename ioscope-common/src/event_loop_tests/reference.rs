//! What should be known of a loop, worked out from its whole story: lists of intervals, calls and sleeps are
//! made first, and everything is counted from these. Slow, without state, and nothing like the machine.

use std::collections::BTreeMap;

use super::simulation::{STALL, Story};
use crate::{
    BLOCKERS, EINTR, ERRNOS, ETIME, Iteration, NO_WAKEUP, PAST_STALLS, POLLERS, PastStall, PollerKind,
    READY_UNKNOWN, READY_UNMEASURED, State, Transition, WaitArgs, WaitCall,
};

/// The thread was in a state for so long.
pub(super) struct Interval {
    pub(super) state: State,
    pub(super) from: u64,
    pub(super) to: u64,
    /// READY by the cgroup's doing.
    throttled: bool,
}

/// A sleep outside wait calls.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Sleep {
    pub(super) since: u64,
    pub(super) ns: u64,
    pub(super) syscall: i32,
    pub(super) parked: bool,
}

/// The wakeup that ended a sleep in a wait call.
#[derive(Clone, Copy)]
struct Wakeup {
    at: u64,
    on_cpu: u64,
    waker: u32,
    context: u32,
}

/// A wait call, from its entry to the return that the program saw.
struct Call {
    args: WaitArgs,
    entered: u64,
    slept: bool,
    /// Of the last sleep since it was last gone on with.
    wakeup: Option<Wakeup>,
    /// When it left with a restart code, and how many completions there were; until it is known what became
    /// of it.
    left: Option<(u64, u64)>,
    /// When, with which result, and how many completions.
    returned: Option<(u64, i64, u64)>,
    /// When its first event became ready; `READY_UNKNOWN` or `READY_UNMEASURED`.
    ready_at: u64,
}

impl Call {
    /// How long the first of its events had been ready when it returned.
    fn ready_delay(&self, events: u64, returned: u64) -> Option<u64> {
        if events == 0 || self.ready_at == READY_UNMEASURED {
            return None;
        }
        let seen = (self.ready_at != READY_UNKNOWN).then(|| returned - self.ready_at);
        let woken = self.wakeup.map(|wakeup| returned - wakeup.at);
        if self.args.call == WaitCall::IoUringEnter { seen.or(woken) } else { woken.or(seen) }
    }
}

/// All that is worked out.
#[derive(Default)]
pub(super) struct Truth {
    /// The state at the story's end; none in a sleep outside wait calls: BLOCKED or PARKED, it is not known.
    last: Option<State>,
    pub(super) intervals: Vec<Interval>,
    pub(super) sleeps: Vec<Sleep>,
    calls: Vec<Call>,
    pub(super) submissions: u64,
    /// Sleeps in an epoll, poll or select call, but for the first of each.
    futile_wakeups: u64,
    pub(super) restarts: u64,
    /// From when to when, and how many calls had been entered by then.
    stalls: Vec<(u64, u64, usize)>,
    ended: Option<u64>,
}

/// Reads a story.
pub(super) fn read(story: &Story) -> Truth {
    let mut truth = Truth::default();
    let mut last = story.born;
    let mut on_cpu = true;
    let mut sleep: Option<(i32, bool)> = None;
    let mut throttled = false;
    let mut serving: Option<u64> = None;
    // Wakeups before this are old.
    let mut seen_at = story.born;
    if let Some(args) = story.found_asleep {
        truth.calls.push(Call { slept: true, ..entered(args, story.born) });
        (on_cpu, sleep, seen_at) = (false, Some((0, false)), 0);
    }
    for happening in &story.happenings {
        let now = happening.at;
        let waits = truth.waits();
        let mut add = |state, from, to| {
            let throttled = throttled && state == State::Ready && sleep.is_none();
            truth.intervals.push(Interval { state, from, to, throttled });
        };
        if on_cpu {
            add(if waits { State::Polling } else { State::Running }, last, now);
        } else if let Transition::SwitchIn { wake, shared } = happening.transition {
            match sleep {
                None => add(State::Ready, last, now),
                Some((syscall, futex)) => {
                    let seen = wake.at > seen_at;
                    let woken = if seen { wake.at.clamp(last, now) } else { now };
                    let parked = !waits && futex && shared;
                    let state = match (waits, parked) {
                        (true, _) => State::Waiting,
                        (_, true) => State::Parked,
                        _ => State::Blocked,
                    };
                    add(state, last, woken);
                    add(State::Ready, woken, now);
                    if waits {
                        if let Some(call) = truth.calls.last_mut() {
                            call.wakeup = seen.then_some(Wakeup {
                                at: woken,
                                on_cpu: now,
                                waker: wake.waker,
                                context: wake.context,
                            });
                        }
                    } else {
                        truth.sleeps.push(Sleep { since: last, ns: woken - last, syscall, parked });
                        if parked && let Some(since) = serving {
                            truth.has_served(since, last);
                            serving = Some(woken);
                        }
                    }
                }
            }
        }
        last = now;
        match happening.transition {
            Transition::SwitchIn { .. } => (on_cpu, seen_at) = (true, now),
            Transition::SwitchOut { asleep, syscall, futex, throttled: by_cgroup, .. } => {
                (on_cpu, throttled) = (false, by_cgroup);
                sleep = asleep.then_some((syscall, futex));
                if let Some(call) = truth.calls.last_mut().filter(|_| waits && asleep) {
                    truth.futile_wakeups += u64::from(call.slept && wakes_for_events_only(&call.args));
                    call.slept = true;
                }
            }
            Transition::SwitchInUnseen { .. } => unreachable!("stories tell of every switch"),
            Transition::Submit => truth.submissions += 1,
            Transition::End => truth.ended = Some(now),
            Transition::Enter { args, .. } => {
                seen_at = now;
                let since = serving.take();
                if !truth.goes_on(Some(&args)) {
                    truth.is_interrupted();
                    if let Some(since) = since {
                        truth.has_served(since, now);
                    }
                    truth.calls.push(entered(args, now));
                }
            }
            Transition::Resume => {
                if truth.goes_on(None) {
                    serving = None;
                    seen_at = now;
                }
            }
            Transition::HandlerDone => truth.is_interrupted(),
            Transition::Return { result, ready_at, .. } => {
                if let Some(call) = truth.calls.last_mut().filter(|_| waits) {
                    serving = Some(now);
                    if result <= -512 {
                        call.left = Some((now, happening.found));
                    } else {
                        call.returned = Some((now, result, happening.found));
                        call.ready_at = ready_at;
                    }
                }
            }
        }
    }
    truth.last = last_state(on_cpu, truth.waits(), sleep.is_some());
    truth
}

/// The state at the end of a story; `None` when the end of the sleep would decide.
const fn last_state(on_cpu: bool, waits: bool, asleep: bool) -> Option<State> {
    match (on_cpu, waits, asleep) {
        (true, true, _) => Some(State::Polling),
        (true, false, _) => Some(State::Running),
        (false, _, false) => Some(State::Ready),
        (false, true, true) => Some(State::Waiting),
        (false, false, true) => None,
    }
}

/// Rings and Linux AIO wake their waiters for other reasons, too.
fn wakes_for_events_only(args: &WaitArgs) -> bool {
    matches!(args.poller, PollerKind::Epoll | PollerKind::Set)
}

fn entered(args: WaitArgs, at: u64) -> Call {
    Call {
        args,
        entered: at,
        slept: false,
        wakeup: None,
        left: None,
        returned: None,
        ready_at: READY_UNMEASURED,
    }
}

/// What should be counted.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub(super) time_ns: [u64; State::COUNT],
    /// From one state to another, and how often.
    pub(super) edges: BTreeMap<(State, State), u64>,
    pub(super) returns: [u64; WaitCall::COUNT],
    pub(super) ready_events: u64,
    pub(super) empty_wakeups: u64,
    pub(super) timeouts: u64,
    pub(super) check_ins: u64,
    pub(super) batch_full: u64,
    pub(super) errors: u64,
    pub(super) interrupted: u64,
    pub(super) restarts: u64,
    pub(super) submissions: u64,
    /// Calls that submitted, and how many requests.
    pub(super) requests: (u64, u64),
    pub(super) futile_wakeups: u64,
    /// Number, sum and longest.
    pub(super) stalls: (u64, u64, u64),
    /// Of the latest: when it began, and READY, throttled and BLOCKED time.
    pub(super) accounts: Vec<[u64; 4]>,
    pub(super) throttled_ns: u64,
    pub(super) other_poller_returns: u64,
    /// Kind, descriptor and returns, in the order of first use.
    pub(super) pollers: Vec<(u32, i32, u64)>,
    /// System call, number, sum and longest, in the order of first use.
    pub(super) blockers: Vec<(i32, u64, u64, u64)>,
    pub(super) other_blockers: (u64, u64),
    pub(super) errnos: Vec<(u32, u64)>,
    /// Number and sum of the histograms' values.
    pub(super) loop_duration: (u64, u64),
    pub(super) wakeup_latency: (u64, u64),
    pub(super) run_queue_delay: (u64, u64),
    pub(super) poll_delay: (u64, u64),
    pub(super) ready_delay: (u64, u64),
    pub(super) ready_unknown: u64,
    pub(super) ready_per_wakeup: (u64, u64),
    pub(super) iterations: Vec<Iteration>,
}

impl Truth {
    /// Whether the thread is in a wait call.
    fn waits(&self) -> bool {
        self.calls.last().is_some_and(|call| call.returned.is_none() && call.left.is_none())
    }

    /// It served from one moment to the other.
    fn has_served(&mut self, since: u64, until: u64) {
        if until - since >= STALL {
            self.stalls.push((since, until, self.calls.len()));
        }
    }

    /// Whether a call that left with a restart code is gone on with, by this entry or by `restart_syscall`.
    fn goes_on(&mut self, by: Option<&WaitArgs>) -> bool {
        let Some(call) = self.calls.last_mut().filter(|call| call.left.is_some()) else { return false };
        if by.is_some_and(|by| by.call != call.args.call || by.fd != call.args.fd) {
            return false;
        }
        call.left = None;
        // What woke it was the signal, and that is over.
        call.wakeup = None;
        self.restarts += 1;
        true
    }

    /// A call that left with a restart code and was not gone on with has failed with `EINTR`.
    fn is_interrupted(&mut self) {
        if let Some(call) = self.calls.last_mut()
            && let Some((left, found)) = call.left.take()
        {
            call.returned = Some((left, -i64::from(EINTR), found));
        }
    }

    /// Counts all that can be counted.
    pub(super) fn count(&self) -> Counted {
        let mut counted = Counted {
            submissions: self.submissions,
            futile_wakeups: self.futile_wakeups,
            restarts: self.restarts,
            ..Counted::default()
        };
        for Interval { state, from, to, .. } in &self.intervals {
            counted.time_ns[*state as usize] += to - from;
        }
        let states: Vec<State> =
            self.intervals.iter().map(|interval| interval.state).chain(self.last).collect();
        for pair in states.windows(2).filter(|pair| pair[0] != pair[1]) {
            *counted.edges.entry((pair[0], pair[1])).or_default() += 1;
        }
        for sleep in self.sleeps.iter().filter(|sleep| !sleep.parked) {
            let known = counted.blockers.iter().position(|blocker| blocker.0 == sleep.syscall);
            if known.is_none() && counted.blockers.len() == BLOCKERS {
                counted.other_blockers.0 += 1;
                counted.other_blockers.1 += sleep.ns;
                continue;
            }
            let at = known.unwrap_or_else(|| {
                counted.blockers.push((sleep.syscall, 0, 0, 0));
                counted.blockers.len() - 1
            });
            let blocker = &mut counted.blockers[at];
            *blocker = (blocker.0, blocker.1 + 1, blocker.2 + sleep.ns, blocker.3.max(sleep.ns));
        }
        // Places are taken at the entry.
        for call in &self.calls {
            let key = (call.args.poller as u32, call.args.fd);
            let has_place = counted.pollers.iter().any(|poller| (poller.0, poller.1) == key);
            if !has_place && counted.pollers.len() < POLLERS {
                counted.pollers.push((key.0, key.1, 0));
            }
        }
        for (at, call) in self.calls.iter().enumerate() {
            counted.add(call);
            let end = self.calls.get(at + 1).map(|next| (next.entered, 0));
            let end = end.or(self.ended.map(|ended| (ended, Iteration::CUT)));
            if let (Some((returned, ..)), Some((until, cut))) = (call.returned, end) {
                let stalled = self.stalls.iter().any(|stall| stall.2 == at + 1 && stall.0 >= returned);
                let stalled = if stalled { Iteration::STALLED } else { 0 };
                let record = self.slice(counted.iteration(call), returned, until, cut | stalled);
                counted.iterations.push(record);
                if cut == 0 {
                    add(&mut counted.loop_duration, record.loop_ns);
                }
            }
        }
        for &(since, until, _) in &self.stalls {
            let (count, sum, longest) = counted.stalls;
            let ns = until - since;
            counted.stalls = (count + 1, sum + ns, longest.max(ns));
            counted.accounts.push(self.account(since, until));
        }
        counted.accounts.drain(..counted.accounts.len().saturating_sub(PAST_STALLS));
        let throttled = self.intervals.iter().filter(|interval| interval.throttled);
        counted.throttled_ns = throttled.map(|interval| interval.to - interval.from).sum();
        counted
    }

    /// What a stretch's time went to.
    fn account(&self, from: u64, to: u64) -> [u64; 4] {
        let ready = |throttled: bool| {
            let inside = self.intervals.iter().filter(|interval| from <= interval.from && interval.to <= to);
            let ready =
                inside.filter(|interval| interval.state == State::Ready && interval.throttled == throttled);
            ready.map(|interval| interval.to - interval.from).sum::<u64>()
        };
        let slept = self.sleeps.iter().filter(|sleep| from <= sleep.since && sleep.since + sleep.ns <= to);
        let blocked = slept.filter(|sleep| !sleep.parked).map(|sleep| sleep.ns).sum();
        [from, ready(false), ready(true), blocked]
    }

    /// Completes a record by the slice that followed.
    fn slice(&self, record: Iteration, from: u64, to: u64, cut: u8) -> Iteration {
        let slept = |parked: bool| {
            let inside =
                self.sleeps.iter().filter(|sleep| from <= sleep.since && sleep.since + sleep.ns <= to);
            inside.filter(|sleep| sleep.parked == parked).map(|sleep| sleep.ns).sum::<u64>()
        };
        Iteration {
            loop_ns: to - from - slept(true),
            blocked_ns: slept(false),
            parked_ns: slept(true),
            flags: record.flags | cut,
            ..record
        }
    }
}

fn add(distribution: &mut (u64, u64), value: u64) {
    distribution.0 += 1;
    distribution.1 += value;
}

impl Counted {
    /// The wait of a call that has returned, as its record has it.
    fn iteration(&self, call: &Call) -> Iteration {
        let (at, result, found) = call.returned.expect("it has returned");
        let wait_ns = at - call.entered;
        let is_ring = call.args.call == WaitCall::IoUringEnter;
        let has_place =
            self.pollers.iter().any(|poller| (poller.0, poller.1) == (call.args.poller as u32, call.args.fd));
        let events = match (is_ring, has_place) {
            (true, true) => found,
            (true, false) => 0,
            _ => u64::try_from(result).unwrap_or(0),
        };
        let failed = result < 0 && !(is_ring && result == -i64::from(ETIME));
        let limited = !is_ring
            && !matches!(
                call.args.call,
                WaitCall::Poll | WaitCall::Ppoll | WaitCall::Select | WaitCall::Pselect6
            );
        let mut flags = 0;
        let mut set = |flag, on: bool| flags |= if on { flag } else { 0 };
        set(Iteration::SLEPT, call.slept);
        set(Iteration::CHECK_IN, call.args.timeout == 0);
        let has_expired = u64::try_from(call.args.timeout).is_ok_and(|ns| ns > 0 && wait_ns >= ns);
        set(Iteration::TIMED_OUT, !failed && events == 0 && has_expired);
        let is_full = limited && events > 0 && events == u64::from(call.args.max_events);
        set(Iteration::BATCH_FULL, !failed && is_full);
        let wakeup = call.wakeup;
        let ready = call.ready_delay(events, at).map(|ns| u32::try_from(ns).expect("small"));
        Iteration {
            kind: crate::kind::ITERATION,
            slot: 7,
            call: call.args.call as u8,
            flags,
            waker_context: wakeup.map_or(0, |wakeup| u8::try_from(wakeup.context).expect("small")),
            returned_at: at,
            wait_ns,
            loop_ns: Iteration::UNFINISHED,
            wakeup_ns: wakeup.map_or(NO_WAKEUP, |wakeup| at - wakeup.at),
            run_queue_ns: wakeup.map_or(NO_WAKEUP, |wakeup| wakeup.on_cpu - wakeup.at),
            timeout: call.args.timeout,
            result: i32::try_from(result).expect("small"),
            events: u32::try_from(events).expect("small"),
            fd: call.args.fd,
            max_events: call.args.max_events,
            waker: wakeup.map_or(0, |wakeup| wakeup.waker),
            ready_ns: ready.unwrap_or(Iteration::READY_UNSEEN),
            ..Iteration::ZERO
        }
    }

    /// Counts a call, if it has returned.
    fn add(&mut self, call: &Call) {
        if call.returned.is_none() {
            return;
        }
        let record = self.iteration(call);
        self.returns[call.args.call.index()] += 1;
        let key = (call.args.poller as u32, call.args.fd);
        match self.pollers.iter_mut().find(|poller| (poller.0, poller.1) == key) {
            Some(poller) => poller.2 += 1,
            None => self.other_poller_returns += 1,
        }
        let events = u64::from(record.events);
        self.ready_events += events;
        let has = |flag: u8| record.flags & flag != 0;
        self.check_ins += u64::from(has(Iteration::CHECK_IN));
        self.timeouts += u64::from(has(Iteration::TIMED_OUT));
        self.batch_full += u64::from(has(Iteration::BATCH_FULL));
        if let Some(wakeup) = call.wakeup {
            add(&mut self.wakeup_latency, record.wakeup_ns);
            add(&mut self.run_queue_delay, wakeup.on_cpu - wakeup.at);
        }
        let errno = u32::try_from(-record.result).unwrap_or(0);
        let is_ring = call.args.call == WaitCall::IoUringEnter;
        if is_ring && record.result > 0 {
            add(&mut self.requests, u64::try_from(record.result).expect("positive"));
        }
        match call.ready_delay(events, record.returned_at) {
            Some(delay) => add(&mut self.ready_delay, delay),
            None => self.ready_unknown += u64::from(events > 0 && call.ready_at != READY_UNMEASURED),
        }
        if errno == EINTR {
            self.interrupted += 1;
        } else if errno != 0 && !(is_ring && errno == ETIME) {
            self.errors += 1;
            let is_known = self.errnos.iter().any(|known| known.0 == errno);
            if !is_known && self.errnos.len() < ERRNOS {
                self.errnos.push((errno, 0));
            }
            if let Some(known) = self.errnos.iter_mut().find(|known| known.0 == errno) {
                known.1 += 1;
            }
        } else {
            let checks_in = has(Iteration::CHECK_IN);
            self.empty_wakeups += u64::from(call.slept && events == 0 && !checks_in);
            if events > 0 || !checks_in {
                add(&mut self.ready_per_wakeup, events);
            }
            if has(Iteration::TIMED_OUT) {
                let timeout = u64::try_from(call.args.timeout).expect("it has expired");
                add(&mut self.poll_delay, record.wait_ns - timeout);
            }
        }
    }
}

/// What a machine has counted.
pub(super) fn of_machine(machine: &crate::Loop, iterations: &[Iteration]) -> Counted {
    fn histogram<const N: usize>(histogram: &crate::Histogram<N>) -> (u64, u64) {
        (histogram.buckets.iter().map(|&count| u64::from(count)).sum(), histogram.sum)
    }
    let counters = &machine.counters;
    let blockers = machine.blockers.iter().filter(|blocker| blocker.count > 0);
    let errnos = machine.errnos.iter().filter(|errno| errno.count > 0);
    Counted {
        time_ns: machine.time_ns,
        edges: State::ALL
            .into_iter()
            .flat_map(|from| State::ALL.map(|to| ((from, to), machine.edges[State::edge(from, to)])))
            .filter(|(_, count)| *count > 0)
            .collect(),
        returns: counters.returns,
        ready_events: counters.ready_events,
        empty_wakeups: counters.empty_wakeups,
        timeouts: counters.timeouts,
        check_ins: counters.check_ins,
        batch_full: counters.batch_full,
        errors: counters.errors,
        interrupted: counters.interrupted,
        restarts: counters.restarts,
        submissions: counters.submissions,
        requests: (counters.submitting_calls, counters.requests),
        futile_wakeups: counters.futile_wakeups,
        stalls: (counters.stalls, counters.stalled_ns, counters.longest_stall_ns),
        accounts: past_stalls(machine).map(account_of).collect(),
        throttled_ns: counters.throttled_ns,
        other_poller_returns: counters.other_poller_returns,
        pollers: machine
            .pollers
            .iter()
            .filter(|poller| poller.kind != 0)
            .map(|poller| (poller.kind, poller.fd, poller.iterations))
            .collect(),
        blockers: blockers
            .map(|blocker| (blocker.syscall, blocker.count, blocker.total_ns, blocker.max_ns))
            .collect(),
        other_blockers: (machine.other_blockers.count, machine.other_blockers.total_ns),
        errnos: errnos.map(|errno| (errno.errno, errno.count)).collect(),
        loop_duration: histogram(&machine.loop_duration),
        wakeup_latency: histogram(&machine.wakeup_latency),
        run_queue_delay: histogram(&machine.run_queue_delay),
        poll_delay: histogram(&machine.poll_delay),
        ready_delay: histogram(&machine.ready_delay),
        ready_unknown: counters.ready_unknown,
        ready_per_wakeup: histogram(&machine.ready_per_wakeup),
        iterations: iterations.to_vec(),
    }
}

/// Those that are kept, in the order of their beginning.
fn past_stalls(machine: &crate::Loop) -> impl Iterator<Item = &PastStall> {
    let kept = PAST_STALLS as u64;
    let all = machine.counters.stalls;
    (all.saturating_sub(kept)..all)
        .map(move |at| &machine.past_stalls[usize::try_from(at % kept).expect("small")])
}

fn account_of(stall: &PastStall) -> [u64; 4] {
    let slice = &stall.slice;
    let used = slice.slept_in.iter().chain([&slice.slept_elsewhere]).filter(|entry| entry.count > 0);
    let blocked = used.map(|entry| entry.total_ns).sum();
    [stall.began_at, slice.ready_ns, slice.throttled_ns, blocked]
}
