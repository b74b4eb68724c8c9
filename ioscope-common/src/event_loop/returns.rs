//! How wait calls end, and calls that the kernel leaves to deliver a signal.

use super::{
    EINTR, ERRNOS, ETIME, ErrnoCount, Loop, NO_WAKEUP, READY_UNKNOWN, READY_UNMEASURED, State, Step,
    WakerContext,
};
use crate::{WaitCall, record::Iteration};

impl Loop {
    /// Counts a return that happened at `now`.
    #[inline(always)]
    pub(super) fn account_return(&mut self, result: i64, posted: u32, ready_at: u64, now: u64) -> Step {
        let counters = &mut self.counters;
        if let Some(returns) = counters.returns.get_mut(usize::from(self.call).wrapping_sub(1)) {
            *returns += 1;
        }
        let ring = self.call == WaitCall::IoUringEnter as u8;
        let mut events = if result > 0 { result as u32 } else { 0 };
        if let Some(poller) = self.pollers.get_mut(usize::from(self.poller)) {
            poller.iterations += 1;
            if ring {
                events = posted.wrapping_sub(poller.posted);
                poller.posted = posted;
            }
        } else {
            counters.other_poller_returns += 1;
            if ring {
                events = 0;
            }
        }
        let errno = if result < 0 { (-result) as u32 } else { 0 };
        let failed = errno != 0 && !(ring && errno == ETIME);
        let wait_ns = now.saturating_sub(self.entered_at);
        let check_in = self.timeout == 0;
        let mut flags = 0;
        counters.ready_events += u64::from(events);
        if self.slept != 0 {
            flags |= Iteration::SLEPT;
        }
        if check_in {
            counters.check_ins += 1;
            flags |= Iteration::CHECK_IN;
        }
        if failed {
            if errno == EINTR {
                counters.interrupted += 1;
            } else {
                counters.errors += 1;
                count_errno(&mut self.errnos, errno);
            }
        } else {
            if events == 0 {
                if self.slept != 0 && !check_in {
                    counters.empty_wakeups += 1;
                }
                if self.timeout > 0 && wait_ns >= self.timeout as u64 {
                    counters.timeouts += 1;
                    flags |= Iteration::TIMED_OUT;
                    self.poll_delay.record(wait_ns - self.timeout as u64);
                }
            }
            if events != 0 || !check_in {
                self.ready_per_wakeup.record(u64::from(events));
            }
            if events != 0 && events == self.max_events && has_batch_limit(self.call) {
                counters.batch_full += 1;
                flags |= Iteration::BATCH_FULL;
            }
        }
        let mut wakeup_ns = NO_WAKEUP;
        let mut run_queue_ns = NO_WAKEUP;
        if self.slept != 0 && self.woken_at != 0 {
            wakeup_ns = now.saturating_sub(self.woken_at);
            self.wakeup_latency.record(wakeup_ns);
            if self.on_cpu_at != 0 {
                run_queue_ns = self.on_cpu_at.saturating_sub(self.woken_at);
                self.run_queue_delay.record(run_queue_ns);
            }
        } else {
            if self.slept != 0 {
                self.counters.unseen += 1;
            }
            self.waker = 0;
            self.waker_context = WakerContext::None as u32;
        }
        self.returned_at = now;
        let last = &mut self.last;
        last.call = self.call;
        last.flags = flags;
        last.waker_context = self.waker_context as u8;
        last.returned_at = now;
        last.wait_ns = wait_ns;
        last.loop_ns = Iteration::UNFINISHED;
        last.wakeup_ns = wakeup_ns;
        last.run_queue_ns = run_queue_ns;
        last.timeout = self.timeout;
        last.result = result as i32;
        last.events = events;
        last.fd = self.fd;
        last.max_events = self.max_events;
        last.waker = self.waker;
        last.ready_ns = Iteration::READY_UNSEEN;
        self.account_ready(ring, ready_at, now)
    }

    /// Records how long the first of the events had been ready.
    ///
    /// A thread that sleeps in a wait call is woken by its events becoming ready, and nothing is ready when it goes
    /// to sleep: so its wakeup is the moment, whichever kind of descriptor it was. But a ring's thread may wait
    /// for several completions, and is woken by the last.
    #[inline(always)]
    fn account_ready(&mut self, ring: bool, ready_at: u64, now: u64) -> Step {
        // Out of memory again: the verifier has followed both, range by range, into histograms, and would go on with
        // each of the ranges.
        let last = core::hint::black_box(&self.last);
        let (events, wakeup_ns) = (last.events, last.wakeup_ns);
        if ready_at == READY_UNMEASURED {
            return Step::NOTHING;
        }
        let seen = ready_at != READY_UNKNOWN && ready_at <= now;
        if events == 0 {
            // What became ready before the call began, and was not returned by it, the program has dealt with.
            return if seen && ready_at < self.entered_at { Step::READY_TAKEN } else { Step::NOTHING };
        }
        let woken = wakeup_ns != NO_WAKEUP && !(ring && seen);
        if !woken && !seen {
            self.counters.ready_unknown += 1;
            return Step::NOTHING;
        }
        self.ready_ns = if woken { wakeup_ns } else { now - ready_at };
        let delay = *core::hint::black_box(&self.ready_ns);
        self.ready_delay.record(delay);
        let most = Iteration::READY_AT_MOST;
        self.last.ready_ns = if delay < u64::from(most) { delay as u32 } else { most };
        if seen { Step::READY_TAKEN } else { Step::UNEXPLAINED }
    }

    /// The call that left with a restart code came back to the program as `EINTR`.
    #[inline(always)]
    pub(super) fn interrupted(&mut self) {
        self.restarting = 0;
        let stalled = self.last.flags & Iteration::STALLED;
        self.account_return(-i64::from(EINTR), self.restart_posted, READY_UNMEASURED, self.restart_at);
        self.last.flags |= stalled;
    }

    #[inline(always)]
    pub(super) fn handler_done(&mut self) -> Step {
        if self.restarting != 0 {
            self.interrupted();
        }
        Step::NOTHING
    }

    #[inline(always)]
    pub(super) fn resume(&mut self, now: u64) -> Step {
        if self.restarting == 0 {
            return Step::NOTHING;
        }
        self.restarting = 0;
        self.counters.restarts += 1;
        // What woke it was the signal: no latency of the wait.
        self.woken_at = 0;
        self.change(State::Polling, now);
        self.in_wait = 1;
        self.on_cpu_since = now;
        Step::NOTHING
    }
}

/// `poll` and `select` cannot find more ready than they were given, and a ring has no such limit.
#[inline(always)]
const fn has_batch_limit(call: u8) -> bool {
    call == WaitCall::EpollWait as u8
        || call == WaitCall::EpollPwait as u8
        || call == WaitCall::EpollPwait2 as u8
        || call == WaitCall::IoGetevents as u8
        || call == WaitCall::IoPgetevents as u8
}

#[inline(always)]
fn count_errno(errnos: &mut [ErrnoCount; ERRNOS], errno: u32) {
    for entry in errnos {
        if entry.errno == 0 || entry.errno == errno {
            entry.errno = errno;
            entry.count += 1;
            return;
        }
    }
}
