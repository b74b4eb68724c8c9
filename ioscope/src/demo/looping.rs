//! One loop thread: from its set-up to its report.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use ioscope_common::WaitCall;

use super::DemoError;
use super::poller::{self, Ask, EventFd, Fault, Poller, Sources};
use super::report::ThreadReport;
use super::spec::{Pattern, Spec, Start, batch_size};
use super::sys::Timeout;
use super::tally::Tally;
use super::turns::Turns;
use super::work::{Feed, Worker};

/// The timeout that expires when the spec names none.
const EXPIRY: Duration = Duration::from_millis(1);

/// What a loop shares with the threads that drive it.
pub(super) struct Station {
    /// What it watches.
    pub(super) sources: Sources,
    /// Where it asks its partner for an answer.
    pub(super) request: EventFd,
    /// Where it asks its feeder for a byte.
    pub(super) feed: Option<Feed>,
    /// Its thread; 0 until it runs.
    pub(super) tid: AtomicI32,
    /// Whether it has begun with its pattern: interrupted on the way there, it would count what no pattern has.
    pub(super) is_under_way: AtomicBool,
    /// Whether it has ended.
    pub(super) is_done: AtomicBool,
}

impl Station {
    pub(super) fn new(spec: &Spec, sources: Sources) -> Result<Self, DemoError> {
        Ok(Self {
            sources,
            request: EventFd::blocking()?,
            feed: Feed::new(spec)?,
            tid: AtomicI32::new(0),
            is_under_way: AtomicBool::new(false),
            is_done: AtomicBool::new(false),
        })
    }
}

/// Tells the drivers, however the loop ends.
struct Done<'a>(&'a Station);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.is_done.store(true, Ordering::Release);
        // Wakes the drivers that sleep in a read. It fails only if the counter is full, and then they are awake.
        let requests = [Some(&self.0.request), self.0.feed.as_ref().map(|feed| &feed.request)];
        for request in requests.into_iter().flatten() {
            let _ = request.add(1);
        }
    }
}

/// Everything that a loop thread is given.
#[derive(Clone)]
pub(super) struct Looping {
    pub(super) spec: Arc<Spec>,
    pub(super) index: u32,
    pub(super) station: Arc<Station>,
    pub(super) stop: Arc<AtomicBool>,
    /// The epoll instance, if it is shared.
    pub(super) epoll: Option<Arc<OwnedFd>>,
    /// The turns, if the threads take any.
    pub(super) turns: Option<Arc<Turns>>,
    /// Where threads that share a poller meet once all of them have left it at "go".
    pub(super) meeting: Option<Arc<Barrier>>,
}

impl Looping {
    /// Runs the loop in the calling thread, which was started for it.
    pub(super) fn run(self) -> Result<ThreadReport, DemoError> {
        let station = &*self.station;
        let _done = Done(station);
        let mut poller = poller::build(&self.spec, &station.sources, self.epoll.as_ref())?;
        let mut worker = Worker::new(&self.spec, station.feed.as_ref())?;
        station.tid.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Release);
        let mut tally = Tally::new(&self.spec);
        match &self.turns {
            Some(turns) => self.take_turns(turns, &mut *poller, &mut worker, &mut tally)?,
            None => self.iterate(&mut *poller, &mut worker, &mut tally)?,
        }
        Ok(tally.finish(self.spec.comm(self.index), &*poller))
    }

    fn iterate(
        &self,
        poller: &mut dyn Poller,
        worker: &mut Worker<'_>,
        tally: &mut Tally,
    ) -> Result<(), DemoError> {
        if self.spec.start == Start::BeforeGo {
            self.sleep_until_go(poller, tally)?;
        }
        self.station.is_under_way.store(true, Ordering::Release);
        let end = self.spec.iterations.map_or(u64::MAX, |count| tally.iterations().saturating_add(count));
        let deadline = self.deadline();
        let mut is_asked = false;
        let mut index = 0;
        while tally.iterations() < end && !self.is_over(deadline) {
            self.step(index, &mut is_asked, poller, tally)?;
            worker.run(tally)?;
            index += 1;
        }
        Ok(())
    }

    /// Sleeps in the wait call until somebody makes the first source ready.
    fn sleep_until_go(&self, poller: &mut dyn Poller, tally: &mut Tally) -> Result<(), DemoError> {
        loop {
            poller.watch(1)?;
            // The result is counted; whether it was "go", the source tells.
            let _ = tally.wait(poller, Ask::new(Timeout::Never))?;
            if self.station.sources[0].take()?.is_some() {
                break;
            }
        }
        if let Some(meeting) = &self.meeting {
            meeting.wait();
        }
        Ok(())
    }

    /// One iteration: makes ready what the pattern wants ready, and waits.
    fn step(
        &self,
        index: u64,
        is_asked: &mut bool,
        poller: &mut dyn Poller,
        tally: &mut Tally,
    ) -> Result<(), DemoError> {
        let spec = &*self.spec;
        let timeout = spec.timeout_ns.map_or(Timeout::Never, |ns| Timeout::After(Duration::from_nanos(ns)));
        let mut ask = Ask::new(timeout);
        match spec.pattern {
            Pattern::AlwaysReady => poller.arm(1)?,
            Pattern::Batch => poller.arm(batch_size(index, spec.fds))?,
            Pattern::Expire => {
                if timeout == Timeout::Never {
                    ask.timeout = Timeout::After(EXPIRY);
                }
            }
            Pattern::CheckIn => ask.timeout = Timeout::After(Duration::ZERO),
            Pattern::NoMinimum => ask.no_minimum = true,
            Pattern::PingPong => {
                poller.watch(1)?;
                if !*is_asked {
                    self.station.request.add(1)?;
                    *is_asked = true;
                }
            }
            Pattern::Ticker | Pattern::TakeTurns => poller.watch(spec.fds)?,
            Pattern::Interrupted => {}
            Pattern::BadFd => ask.fault = Some(Fault::Fd),
            Pattern::BadPointer => {
                ask.fault = Some(Fault::Pointer);
                // An io_uring_enter with something to submit reports that, and not what failed.
                if spec.call != WaitCall::IoUringEnter {
                    poller.arm(1)?;
                }
            }
        }
        let result = tally.wait(poller, ask)?;
        if result.is_ok() {
            match spec.pattern {
                Pattern::PingPong if self.station.sources[0].take()?.is_some() => *is_asked = false,
                Pattern::Ticker | Pattern::TakeTurns => {
                    for source in self.station.sources.iter() {
                        source.take()?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn take_turns(
        &self,
        turns: &Turns,
        poller: &mut dyn Poller,
        worker: &mut Worker<'_>,
        tally: &mut Tally,
    ) -> Result<(), DemoError> {
        let seat = turns.join();
        let end = self.spec.iterations.unwrap_or(u64::MAX);
        // The first turn comes after "go", however early the thread was started.
        let mut deadline = None;
        while tally.iterations() < end && !self.is_over(deadline) {
            if seat.take() {
                let stepped = self.step(0, &mut false, poller, tally);
                seat.hand_over();
                stepped?;
                worker.run(tally)?;
            } else {
                tally.block("futex", thread::park);
            }
            deadline = deadline.or_else(|| self.deadline());
        }
        Ok(())
    }

    fn deadline(&self) -> Option<Instant> {
        self.spec.duration_ns.map(|ns| Instant::now() + Duration::from_nanos(ns))
    }

    fn is_over(&self, deadline: Option<Instant>) -> bool {
        self.stop.load(Ordering::Relaxed) || deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }
}
