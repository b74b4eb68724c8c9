//! Counts what a loop's wait calls return, and how long everything takes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use ioscope_common::WaitCall;
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use super::DemoError;
use super::poller::{Ask, Poller};
use super::report::ThreadReport;
use super::spec::Spec;
use super::sys::{self, Returned, Timeout};

/// CPU time that the calling thread has used.
pub(super) fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// The running count of one loop.
pub(super) struct Tally {
    call: WaitCall,
    timing: bool,
    count_sleeps: bool,
    started: Instant,
    returned: Option<Instant>,
    report: ThreadReport,
}

impl Tally {
    /// Nothing counted yet.
    pub(super) fn new(spec: &Spec) -> Self {
        let is_sized = matches!(
            spec.call,
            WaitCall::EpollWait
                | WaitCall::EpollPwait
                | WaitCall::EpollPwait2
                | WaitCall::IoGetevents
                | WaitCall::IoPgetevents
        );
        let is_set =
            matches!(spec.call, WaitCall::Poll | WaitCall::Ppoll | WaitCall::Select | WaitCall::Pselect6);
        Self {
            call: spec.call,
            timing: spec.timing,
            count_sleeps: spec.count_sleeps,
            started: Instant::now(),
            returned: None,
            report: ThreadReport {
                batch_full: is_sized.then_some(0),
                all_ready: is_set.then_some(0),
                sleeps: spec.count_sleeps.then_some(0),
                ..ThreadReport::default()
            },
        }
    }

    /// How often the wait call has returned.
    pub(super) fn iterations(&self) -> u64 {
        self.report.iterations
    }

    /// Submits what is queued, makes one wait call, and counts both.
    pub(super) fn wait(&mut self, poller: &mut dyn Poller, ask: Ask) -> Result<Returned, DemoError> {
        self.report.submissions += poller.submit()?;
        let entered = self.timing.then(Instant::now);
        // Nothing between here and the call: a thread's first look at the clock is a page fault, which may sleep.
        let switches = if self.count_sleeps { sys::voluntary_switches() } else { 0 };
        let result = poller.wait(ask);
        if self.count_sleeps && sys::voluntary_switches() > switches {
            *self.report.sleeps.get_or_insert(0) += 1;
        }
        let returned = self.timing.then(Instant::now);
        let ready = poller.collect(result);
        if let (Some(entered), Some(returned)) = (entered, returned) {
            self.time(ask, result, ready, entered, returned);
        }
        self.count(poller, ask, result, ready);
        Ok(result)
    }

    fn time(&mut self, ask: Ask, result: Returned, ready: u32, entered: Instant, returned: Instant) {
        if let Some(before) = self.returned.replace(returned) {
            self.report.loop_duration.add(sys::nanoseconds(entered - before));
        }
        let elapsed = returned - entered;
        self.report.wait.add(sys::nanoseconds(elapsed));
        let Timeout::After(timeout) = ask.timeout.rounded_for(self.call) else { return };
        let expired = matches!(result, Ok(_) | Err(Errno::TIME)) && ready == 0;
        if expired && !timeout.is_zero() && !ask.no_minimum {
            self.report.poll_delay.add(sys::nanoseconds(elapsed.saturating_sub(timeout)));
        }
    }

    fn count(&mut self, poller: &dyn Poller, ask: Ask, result: Returned, ready: u32) {
        let report = &mut self.report;
        report.iterations += 1;
        report.ready_events += u64::from(ready);
        let is_check_in = ask.timeout == Timeout::After(Duration::ZERO);
        report.check_ins += u64::from(is_check_in);
        report.no_minimum += u64::from(ask.no_minimum);
        match result {
            Ok(_) | Err(Errno::TIME) => {
                let could_sleep = !is_check_in && !ask.no_minimum;
                report.empty_wakeups += u64::from(ready == 0 && could_sleep);
                report.etime += u64::from(result.is_err());
                let is_full = u64::from(Some(ready) == poller.capacity());
                for count in [&mut report.batch_full, &mut report.all_ready].into_iter().flatten() {
                    *count += is_full;
                }
            }
            Err(Errno::INTR) => report.interrupted += 1,
            Err(errno) => *report.errors.entry(errno.raw_os_error()).or_default() += 1,
        }
    }

    /// Does some work that burns CPU, and counts how much.
    pub(super) fn burn(&mut self, work: impl FnOnce()) {
        let before = thread_cpu();
        work();
        self.report.work_cpu.add(sys::nanoseconds(thread_cpu().saturating_sub(before)));
    }

    /// Does something that sleeps in the named system call, and counts how long.
    pub(super) fn block<T>(&mut self, syscall: &str, work: impl FnOnce() -> T) -> T {
        let before = Instant::now();
        let done = work();
        let elapsed = sys::nanoseconds(before.elapsed());
        self.report.blocked.entry(syscall.to_owned()).or_default().add(elapsed);
        done
    }

    /// The report of the calling thread, whose loop ends here.
    pub(super) fn finish(self, comm: String, poller: &dyn Poller) -> ThreadReport {
        ThreadReport {
            tid: rustix::thread::gettid().as_raw_nonzero().get(),
            comm,
            poller: Some(poller.describe()),
            wait_calls: BTreeMap::from([(self.call.name().to_owned(), self.report.iterations)]),
            thread_cpu_ns: sys::nanoseconds(thread_cpu()),
            wall_ns: sys::nanoseconds(self.started.elapsed()),
            ..self.report
        }
    }
}
