//! Context switches: when a thread sleeps, is woken and gets a CPU.

use super::{Block, Loop, State, Step, Wake};
use crate::WaitCall;

impl Loop {
    #[inline(always)]
    pub(super) fn switch_out(&mut self, asleep: bool, syscall: i32, futex: bool, now: u64) -> Step {
        if !asleep {
            self.change(State::Ready, now);
        } else if self.in_wait != 0 {
            if self.slept != 0 && wakes_for_events_only(self.call) {
                self.counters.futile_wakeups += 1;
            }
            self.slept = 1;
            self.change(State::Waiting, now);
        } else {
            self.syscall = syscall;
            self.futex = u8::from(futex);
            self.charge(now);
            // Whether this is a way to BLOCKED or to PARKED, its end will tell.
            self.state = State::Blocked as u8;
        }
        Step::NOTHING
    }

    #[inline(always)]
    pub(super) fn switch_in(&mut self, wake: Wake, shared: bool, now: u64) -> Step {
        let mut step = Step::NOTHING;
        let waiting = self.state == State::Waiting as u8;
        if waiting || self.state == State::Blocked as u8 {
            // A wakeup from before this stay on the CPU is an old one. One from before the sleep
            // itself is not: the waker may be quicker than the sleeper.
            let seen = wake.at > self.on_cpu_since;
            let mut until = now;
            if seen && wake.at < now {
                until = if wake.at > self.since { wake.at } else { self.since };
            }
            let since = self.since;
            let asleep_ns = until.saturating_sub(since);
            if waiting {
                self.woken_at = if seen { until } else { 0 };
                self.on_cpu_at = now;
                self.waker = wake.waker;
                self.waker_context = wake.context;
            } else {
                if self.futex != 0 && shared {
                    self.state = State::Parked as u8;
                    self.slice_parked_ns += asleep_ns;
                    self.stop_serving(self.stall_threshold, since);
                    // What it does next is another stretch: idle between them, it kept nobody waiting.
                    self.slice.begin();
                    if self.serving_since != 0 {
                        self.serving_since = until;
                    }
                } else {
                    self.slice_blocked_ns += asleep_ns;
                    self.count_blocker(asleep_ns);
                    self.slice.sleep(self.syscall, self.argument, asleep_ns);
                }
                self.count_edge(State::Running as u8, self.state);
                self.last_block =
                    Block { since, ns: asleep_ns, syscall: self.syscall, state: u32::from(self.state) };
                step = Step::BLOCK;
            }
            self.change(State::Ready, until);
            self.throttled = 0;
        }
        if self.state == State::Ready as u8 {
            let ready_ns = now.saturating_sub(self.since);
            if self.throttled != 0 {
                self.counters.throttled_ns += ready_ns;
                if self.in_wait == 0 {
                    self.slice.throttled_ns += ready_ns;
                }
            } else if self.in_wait == 0 {
                self.slice.ready_ns += ready_ns;
            }
        }
        self.change(if self.in_wait != 0 { State::Polling } else { State::Running }, now);
        if self.found_asleep != 0 {
            self.found_asleep = 2;
        }
        self.on_cpu_since = now;
        step
    }

    /// Whether the thread is off its CPU as far as was seen: before any transition of its own but
    /// [`Transition::SwitchIn`], that it got the CPU has been missed.
    #[inline(always)]
    pub const fn is_off_cpu(&self) -> bool {
        // A thread that was found asleep is dealt with where it enters or returns.
        self.state != State::Polling as u8 && self.state != State::Running as u8 && self.found_asleep != 1
    }

    /// The thread is taken to have had its CPU from its wakeup on. How long it waited for it is not known,
    /// and not recorded.
    #[inline(always)]
    pub(super) fn switch_in_unseen(&mut self, wake: Wake, shared: bool, now: u64) -> Step {
        self.counters.unseen += 1;
        let mut at = now;
        if self.state != State::Ready as u8 && wake.at > self.on_cpu_since && wake.at < now {
            at = if wake.at > self.since { wake.at } else { self.since };
        }
        let step = self.switch_in(wake, shared, at);
        self.on_cpu_at = 0;
        step
    }

    #[inline(always)]
    fn count_blocker(&mut self, ns: u64) {
        for blocker in &mut self.blockers {
            if blocker.count == 0 || blocker.syscall == self.syscall {
                blocker.syscall = self.syscall;
                blocker.record(ns);
                return;
            }
        }
        self.other_blockers.record(ns);
    }
}

/// A ring's waiter is woken to do work for the ring, too, and one of Linux AIO for each completion up to the
/// number that it waits for.
#[inline(always)]
const fn wakes_for_events_only(call: u8) -> bool {
    call < WaitCall::IoUringEnter as u8
}
