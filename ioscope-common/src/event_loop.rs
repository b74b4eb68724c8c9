//! The state machine of an event loop, with everything that is counted on the way.
//!
//! The probes run this code in the kernel, one call of [`Loop::step`] for every transition of a
//! thread; tests run the same code with made-up transitions. It knows no clock and no kernel: the
//! time and all arguments come from the caller, and only the thread's own transitions write here
//! (what a waker writes lies in [`Wake`], beside the machine, and is handed in).
//!
//! Fields are plain numbers, without padding and valid for every bit pattern, because they lie in a
//! BPF map that user space maps into its memory.
mod counters;
mod returns;
mod switches;
mod transition;

use crate::{Counts, Durations, PAST_STALLS, PastStall, Slice, WaitCall, record::Iteration};

pub use counters::{BLOCKERS, Block, Blocker, Counters, ERRNOS, ErrnoCount, POLLERS, PollerUse};
use transition::RESTART_CODES;
pub use transition::{
    EINTR, ETIME, NO_SYSCALL, NO_WAKEUP, PollerKind, READY_UNKNOWN, READY_UNMEASURED, STOPPED, State, Step,
    TIMEOUT_NEVER, TIMEOUT_UNKNOWN, Transition, WaitArgs, Wake, WakerContext,
};

/// The time since a thread's last transition.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "user"), derive(Debug))]
pub struct OpenInterval {
    /// The state that the thread went into.
    pub state: State,
    /// How long it was in it, in nanoseconds.
    pub ns: u64,
    /// How long, after that, it has been READY.
    pub ready_ns: u64,
}

impl OpenInterval {
    /// The state now.
    #[must_use]
    pub const fn now(&self) -> State {
        if self.ready_ns == 0 { self.state } else { State::Ready }
    }
}

/// A loop: where its thread is now, and all that was counted so far. Times are in nanoseconds of
/// `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "user"), derive(Debug))]
#[repr(C)]
pub struct Loop {
    /// The [`State`] that the thread has been in since `since`. See [`Loop::state_at`].
    pub state: u8,
    /// 1 inside a wait call.
    pub in_wait: u8,
    /// 1 when the present wait call has slept.
    pub slept: u8,
    /// Of a thread that was found asleep in a wait call, until its first return or entry: 1, and 2 from
    /// its first CPU on. Whether it slept in the call, or in the kernel on its way out of it (frozen, say),
    /// only shows then.
    pub found_asleep: u8,
    /// 1 after a wait call left with a restart code, until it is known what became of it.
    pub restarting: u8,
    /// The present or last wait call, a [`WaitCall`].
    pub call: u8,
    /// Its poller's index in `pollers`, or [`POLLERS`].
    pub poller: u8,
    /// 1 when the present BLOCKED is a futex wait.
    pub futex: u8,
    /// The system call that the thread sleeps in while BLOCKED.
    pub syscall: i32,
    /// The present or last wait call's descriptor.
    pub fd: i32,
    /// When `state` began.
    pub since: u64,
    /// When tracing of this loop began.
    pub born: u64,
    /// When the thread ended; 0 while it lives.
    pub ended: u64,
    /// When the thread last got its CPU or entered a wait call, whichever is later.
    pub on_cpu_since: u64,
    /// When it entered the present or last wait call.
    pub entered_at: u64,
    /// When a wait call last returned; 0 before the first return.
    pub returned_at: u64,
    /// Since when it serves: since a wait call last returned or, if that is later, since it was last PARKED;
    /// 0 before the first return. A stall is a stretch from here to the next wait call or PARKED.
    pub serving_since: u64,
    /// The stall threshold when it last entered a wait call, in nanoseconds.
    pub stall_threshold: u64,
    /// When the present wait call's last sleep was ended by a wakeup; 0 if none was seen.
    pub woken_at: u64,
    /// When the thread got a CPU after that.
    pub on_cpu_at: u64,
    /// When the wait call left with a restart code.
    pub restart_at: u64,
    /// The present or last wait call's timeout.
    pub timeout: i64,
    /// The present or last wait call's limit of events.
    pub max_events: u32,
    /// Who ended the last sleep in a wait call.
    pub waker: u32,
    /// In which context, a [`WakerContext`].
    pub waker_context: u32,
    /// Rings only: completions posted when the call with the restart code left.
    pub restart_posted: u32,
    /// The first argument of the system call that the thread sleeps in while BLOCKED.
    pub argument: u64,
    /// 1 when the present READY is the cgroup's doing.
    pub throttled: u32,
    /// Unused.
    pub reserved: u32,
    /// How long the first event had been ready when a wait call last returned one.
    pub ready_ns: u64,
    /// BLOCKED time since the last return.
    pub slice_blocked_ns: u64,
    /// PARKED time since the last return.
    pub slice_parked_ns: u64,
    /// What the time since `serving_since` went to.
    pub slice: Slice,
    /// Time per state, without the present one's since `since`.
    pub time_ns: [u64; State::COUNT],
    /// The last iteration: its wait, from its return on; its slice, from the next entry on.
    pub last: Iteration,
    /// The last sleep outside the wait call.
    pub last_block: Block,
    /// Counters.
    pub counters: Counters,
    /// How often it went from one state to another, by [`State::edge`]. A sleep outside the wait call counts
    /// when it ends: only then is it known whether it was BLOCKED or PARKED.
    pub edges: [u64; State::EDGES],
    /// What it waits on.
    pub pollers: [PollerUse; POLLERS],
    /// What it is BLOCKED in.
    pub blockers: [Blocker; BLOCKERS],
    /// What found no place among these.
    pub other_blockers: Blocker,
    /// The errnos that wait calls failed with, `EINTR` apart.
    pub errnos: [ErrnoCount; ERRNOS],
    /// The latest stalls that have ended: the n-th of all is at n modulo their number.
    pub past_stalls: [PastStall; PAST_STALLS],
    /// Loop durations, without PARKED time.
    pub loop_duration: Durations,
    /// First wakeup of the sleep to the return to user space.
    pub wakeup_latency: Durations,
    /// First wakeup of the sleep to being on a CPU.
    pub run_queue_delay: Durations,
    /// How late past their timeout wait calls returned.
    pub poll_delay: Durations,
    /// How long the event that became ready first had been so when a wait call returned it.
    pub ready_delay: Durations,
    /// Events per return, of returns that are neither errors nor empty check-ins.
    pub ready_per_wakeup: Counts,
}

impl Loop {
    /// A free entry: all zeroes, as the kernel hands out a map.
    pub const ZERO: Self = Self {
        state: 0,
        in_wait: 0,
        slept: 0,
        found_asleep: 0,
        restarting: 0,
        call: 0,
        poller: 0,
        futex: 0,
        syscall: 0,
        fd: 0,
        since: 0,
        born: 0,
        ended: 0,
        on_cpu_since: 0,
        entered_at: 0,
        returned_at: 0,
        serving_since: 0,
        stall_threshold: 0,
        woken_at: 0,
        on_cpu_at: 0,
        restart_at: 0,
        timeout: 0,
        max_events: 0,
        waker: 0,
        waker_context: 0,
        restart_posted: 0,
        argument: 0,
        throttled: 0,
        reserved: 0,
        ready_ns: 0,
        slice_blocked_ns: 0,
        slice_parked_ns: 0,
        slice: Slice::NEW,
        time_ns: [0; State::COUNT],
        last: Iteration::ZERO,
        last_block: Block { since: 0, ns: 0, syscall: 0, state: 0 },
        counters: Counters::ZERO,
        edges: [0; State::EDGES],
        pollers: [PollerUse::FREE; POLLERS],
        blockers: [Blocker::FREE; BLOCKERS],
        other_blockers: Blocker::FREE,
        errnos: [ErrnoCount::FREE; ERRNOS],
        past_stalls: [PastStall::FREE; PAST_STALLS],
        loop_duration: Durations::EMPTY,
        wakeup_latency: Durations::EMPTY,
        run_queue_delay: Durations::EMPTY,
        poll_delay: Durations::EMPTY,
        ready_delay: Durations::EMPTY,
        ready_per_wakeup: Counts::EMPTY,
    };

    /// Makes of a free entry a loop that is about to enter its first wait call at `now`.
    #[inline(always)]
    pub const fn begin(&mut self, slot: u32, now: u64) {
        self.state = State::Running as u8;
        self.since = now;
        self.born = now;
        self.entered_at = now;
        self.on_cpu_since = now;
        self.last.kind = crate::kind::ITERATION;
        self.last.slot = slot;
    }

    /// Makes of a new loop one whose thread was found asleep in a wait call, which began before
    /// tracing did.
    #[inline(always)]
    pub fn found_asleep(&mut self, args: &WaitArgs, stall_threshold: u64) -> Step {
        self.stall_threshold = stall_threshold;
        self.state = State::Waiting as u8;
        self.in_wait = 1;
        self.slept = 1;
        self.found_asleep = 1;
        self.on_cpu_since = 0;
        self.take_args(args)
    }

    /// Moves the thread on. `now` never goes back for one thread; should it all the same, no time
    /// passes.
    #[inline(always)]
    pub fn step(&mut self, transition: Transition, now: u64) -> Step {
        match transition {
            Transition::Enter { args, stall_threshold } => self.enter(&args, stall_threshold, now),
            Transition::Return { result, posted, ready_at } => self.returned(result, posted, ready_at, now),
            Transition::Resume => self.resume(now),
            Transition::HandlerDone => self.handler_done(),
            Transition::Submit => {
                self.counters.submissions += 1;
                Step::NOTHING
            }
            Transition::SwitchOut { asleep, syscall, futex, argument, throttled } => {
                self.argument = argument;
                self.throttled = u32::from(throttled);
                self.switch_out(asleep, syscall, futex, now)
            }
            Transition::SwitchIn { wake, shared } => self.switch_in(wake, shared, now),
            Transition::SwitchInUnseen { wake, shared } => self.switch_in_unseen(wake, shared, now),
            Transition::End => self.end(now),
        }
    }

    /// A call of `io_uring_enter` that submits only has returned. That moves the thread nowhere: it is not waiting
    /// before it, in it or after it.
    #[inline(always)]
    pub const fn submitted(&mut self, requests: u32) {
        self.counters.count_requests(requests);
    }

    /// Where the time from the last transition to `now` belongs, for a reader: what of it is past a
    /// wakeup (READY, or nothing), and what came before, in the state that it is in.
    pub fn open_interval(&self, wake: Wake, shared: bool, now: u64) -> OpenInterval {
        let whole = now.saturating_sub(self.since);
        let state = State::from_number(self.state).unwrap_or(State::Running);
        let asleep = matches!(state, State::Waiting | State::Blocked);
        let mut open = OpenInterval { state, ns: whole, ready_ns: 0 };
        if asleep && wake.at > self.on_cpu_since && wake.at < now {
            open.ready_ns = now.saturating_sub(if wake.at > self.since { wake.at } else { self.since });
            open.ns = whole - open.ready_ns;
        }
        if state == State::Blocked && self.futex != 0 && shared {
            open.state = State::Parked;
        }
        open
    }

    /// Closes the present state's interval.
    #[inline(always)]
    fn charge(&mut self, now: u64) {
        let passed = now.saturating_sub(self.since);
        // Its own look at the state, and its own bound: the compiler would make one of several bounds, and Linux 6.1's
        // verifier go down a way on which they contradict each other.
        let state = core::hint::black_box(self.state);
        if let Some(time) = self.time_ns.get_mut(usize::from(state)) {
            *time += passed;
        }
        self.since += passed;
    }

    /// Counts a change from one state to another.
    #[inline(always)]
    fn count_edge(&mut self, from: u8, to: u8) {
        let edge = usize::from(core::hint::black_box(from)) * State::COUNT + usize::from(to);
        if let Some(count) = self.edges.get_mut(edge) {
            *count += 1;
        }
    }

    /// Closes the present state's interval and goes into another state.
    #[inline(always)]
    fn change(&mut self, to: State, now: u64) {
        self.charge(now);
        if self.state != to as u8 {
            self.count_edge(self.state, to as u8);
            self.state = to as u8;
        }
    }

    #[inline(always)]
    fn enter(&mut self, args: &WaitArgs, stall_threshold: u64, now: u64) -> Step {
        if self.restarting != 0 {
            // The same call again with no handler in between is the kernel's restart of it.
            if self.call == args.call as u8 && self.fd == args.fd {
                return self.resume(now);
            }
            self.interrupted();
        }
        let mut step = Step::NOTHING;
        if self.in_wait != 0 {
            if self.found_asleep != 0 {
                // It had returned before it was found: its life begins here.
                self.time_ns = [0; State::COUNT];
                self.edges = [0; State::EDGES];
                self.since = now;
                self.born = now;
            } else {
                self.counters.impossible += 1;
                step = Step::IMPOSSIBLE;
            }
            self.found_asleep = 0;
            self.returned_at = 0;
            self.serving_since = 0;
        }
        self.change(State::Polling, now);
        if self.returned_at != 0 {
            let slice = now.saturating_sub(self.returned_at).saturating_sub(self.slice_parked_ns);
            self.loop_duration.record(slice);
            self.stop_serving(stall_threshold, now);
            self.last.loop_ns = slice;
            self.last.blocked_ns = self.slice_blocked_ns;
            self.last.parked_ns = self.slice_parked_ns;
            step = step.and(Step::ITERATION);
        }
        self.stall_threshold = stall_threshold;
        self.in_wait = 1;
        self.slept = 0;
        self.woken_at = 0;
        self.entered_at = now;
        self.on_cpu_since = now;
        step.and(self.take_args(args))
    }

    /// The thread waits or parks from now on. Was it a stall until then?
    #[inline(always)]
    fn stop_serving(&mut self, stall_threshold: u64, now: u64) {
        let ns = now.saturating_sub(self.serving_since);
        if ns < stall_threshold || self.serving_since == 0 {
            return;
        }
        let at = self.counters.stalls as usize % PAST_STALLS;
        if let Some(past) = self.past_stalls.get_mut(core::hint::black_box(at)) {
            past.began_at = self.serving_since;
            past.ended_at = now;
            past.slice = self.slice;
        }
        self.last.flags |= Iteration::STALLED;
        self.counters.stalls += 1;
        self.counters.stalled_ns += ns;
        if ns > self.counters.longest_stall_ns {
            self.counters.longest_stall_ns = ns;
        }
    }

    #[inline(always)]
    fn take_args(&mut self, args: &WaitArgs) -> Step {
        self.call = args.call as u8;
        self.fd = args.fd;
        self.timeout = args.timeout;
        self.max_events = args.max_events;
        let kind = args.poller as u32;
        let mut step = Step::NOTHING;
        let same =
            self.pollers.get(usize::from(self.poller)).is_some_and(|p| p.kind == kind && p.fd == args.fd);
        if !same {
            self.poller = 0;
            // Its place or the first free one: entries are never freed, so the free ones are last.
            for poller in &mut self.pollers {
                if poller.kind == 0 {
                    poller.kind = kind;
                    poller.fd = args.fd;
                    step = Step::NEW_POLLER;
                    break;
                }
                if poller.kind == kind && poller.fd == args.fd {
                    break;
                }
                self.poller += 1;
            }
        }
        if matches!(args.poller, PollerKind::Ring | PollerKind::RegisteredRing)
            // No ring at all, too: what the descriptor stood for before is gone, and not to be read.
            && let Some(poller) = self.pollers.get_mut(usize::from(self.poller))
            && poller.address != args.ring
        {
            poller.address = args.ring;
            poller.posted = args.taken;
            step = step.and(Step::OTHER_RING);
        }
        step
    }

    #[inline(always)]
    fn returned(&mut self, result: i64, posted: u32, ready_at: u64, now: u64) -> Step {
        if self.in_wait == 0 {
            return Step::NOTHING;
        }
        self.change(State::Running, now);
        self.in_wait = 0;
        self.found_asleep = 0;
        // Here begins its slice. Should the call have been interrupted, what it sleeps in its signal handler
        // belongs to that.
        self.slice_blocked_ns = 0;
        self.slice_parked_ns = 0;
        self.slice.begin();
        self.serving_since = now;
        if result <= -512 && RESTART_CODES.contains(&result) {
            self.restarting = 1;
            self.restart_at = now;
            self.restart_posted = posted;
            self.last.flags &= !Iteration::STALLED;
            return Step::NOTHING;
        }
        if result > 0 && self.call == WaitCall::IoUringEnter as u8 {
            self.counters.count_requests(result as u32);
        }
        self.account_return(result, posted, ready_at, now)
    }

    #[inline(always)]
    fn end(&mut self, now: u64) -> Step {
        self.charge(now);
        self.ended = now;
        if self.in_wait == 0 && self.restarting == 0 && self.returned_at != 0 {
            self.last.loop_ns = now.saturating_sub(self.returned_at).saturating_sub(self.slice_parked_ns);
            self.last.blocked_ns = self.slice_blocked_ns;
            self.last.parked_ns = self.slice_parked_ns;
            self.last.flags |= Iteration::CUT;
            return Step::ITERATION;
        }
        Step::NOTHING
    }
}
