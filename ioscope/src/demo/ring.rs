//! An `io_uring` queues, entered by `io_uring_enter` alone: the crate sets it up and moves its queues.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use io_uring::{EnterFlags, IoUring};

use super::DemoError;
use super::poller::{Ask, Fault, Poller, Sources};
use super::report::{PollerKind, PollerReport};
use super::spec::{RingMode, Spec};
use super::sys::{self, Enter, Returned, RingOperation, Timeout};

/// How long the kernel's submission thread stays awake with nothing to do. Short, so that waking it
/// (`IORING_ENTER_SQ_WAKEUP`) comes up, and so that it leaves the CPUs to others.
const SQ_IDLE_MS: u32 = 2;

/// How often [`RingMode::TakeLate`] takes completions out: every so-manieth wait.
const TAKE_EVERY: u64 = 32;

/// The user data of an operation that is no watched source.
const NO_SOURCE: u64 = u64::MAX;

/// A queues, for the thread that made it.
pub(super) struct Ring {
    mode: RingMode,
    queues: IoUring,
    /// The ring's fd, or its index if registered.
    handle: RawFd,
    sources: Sources,
    watched: Vec<bool>,
    /// Queued, and not submitted yet.
    queued: u32,
    /// How many completions the next wait asks for.
    minimum: u32,
    /// How many waits there were.
    waits: u64,
}

impl Ring {
    pub(super) fn new(spec: &Spec, sources: &Sources) -> Result<Self, DemoError> {
        let mut builder = IoUring::builder();
        match spec.ring {
            RingMode::SqPoll => {
                builder.setup_sqpoll(SQ_IDLE_MS);
            }
            RingMode::DeferTaskrun => {
                builder.setup_single_issuer().setup_defer_taskrun();
            }
            RingMode::Plain
            | RingMode::SubmitThenWait
            | RingMode::SubmitEach
            | RingMode::Registered
            | RingMode::TakeLate
            | RingMode::Workers => {}
        }
        // Room for a poll on each source and as many no-ops.
        let entries = (spec.fds * 2).next_power_of_two();
        let queues = builder.build(entries).map_err(DemoError::io("set up a ring"))?;
        let handle = match spec.ring {
            RingMode::Registered => {
                let index =
                    sys::register_ring(queues.as_raw_fd()).map_err(DemoError::system("register a ring"))?;
                RawFd::try_from(index).unwrap_or(-1)
            }
            _ => queues.as_raw_fd(),
        };
        let watched = vec![false; sources.len()];
        Ok(Self {
            mode: spec.ring,
            queues,
            handle,
            sources: Arc::clone(sources),
            watched,
            queued: 0,
            minimum: 1,
            waits: 0,
        })
    }

    fn push(&mut self, operation: RingOperation, user_data: u64) -> Result<(), DemoError> {
        let by_workers = self.mode == RingMode::Workers;
        if !sys::push(&mut self.queues.submission(), operation, user_data, by_workers) {
            return Err(DemoError::Spec("the submission queue is full".to_owned()));
        }
        self.queued += 1;
        Ok(())
    }

    fn flags(&mut self, flags: EnterFlags) -> u32 {
        let mut flags = flags;
        flags.set(EnterFlags::REGISTERED_RING, self.mode == RingMode::Registered);
        if self.mode == RingMode::SqPoll {
            // Sees the queue's new tail before it looks whether the thread sleeps; see `need_wakeup`.
            flags.set(EnterFlags::SQ_WAKEUP, self.queues.submission().need_wakeup());
        }
        flags.bits()
    }
}

impl Poller for Ring {
    fn arm(&mut self, count: u32) -> Result<(), DemoError> {
        for _ in 0..count {
            self.push(RingOperation::Nop, NO_SOURCE)?;
        }
        self.minimum = count;
        Ok(())
    }

    fn watch(&mut self, count: u32) -> Result<(), DemoError> {
        for index in 0..self.sources.len().min(count as usize) {
            if !self.watched[index] {
                let fd = self.sources[index].as_raw_fd();
                self.push(RingOperation::PollReadable(fd), index as u64)?;
                self.watched[index] = true;
            }
        }
        self.minimum = 1;
        Ok(())
    }

    fn submit(&mut self) -> Result<u64, DemoError> {
        let at_a_time = match self.mode {
            RingMode::SubmitThenWait => self.queued,
            RingMode::SubmitEach => 1,
            _ => return Ok(0),
        };
        let mut calls = 0;
        while self.queued > 0 {
            let flags = self.flags(EnterFlags::empty());
            let enter = Enter {
                ring: self.handle,
                submit: at_a_time,
                minimum: 0,
                flags,
                timeout: Timeout::Never,
                unmapped: false,
            };
            let submitted =
                sys::io_uring_enter(&enter).map_err(DemoError::system("io_uring_enter to submit"))?;
            calls += 1;
            self.queued -= submitted.min(self.queued);
            if self.mode == RingMode::SubmitThenWait || submitted == 0 {
                break;
            }
        }
        Ok(calls)
    }

    fn wait(&mut self, ask: Ask) -> Returned {
        let enter = Enter {
            ring: self.handle,
            submit: self.queued,
            minimum: if ask.no_minimum { 0 } else { self.minimum },
            flags: self.flags(EnterFlags::GETEVENTS),
            timeout: ask.timeout,
            unmapped: ask.fault == Some(Fault::Pointer),
        };
        if ask.fault == Some(Fault::Fd) {
            let flags = EnterFlags::GETEVENTS.bits();
            return sys::io_uring_enter(&Enter { ring: -1, flags, ..enter });
        }
        let result = sys::io_uring_enter(&enter);
        if let Ok(submitted) = result {
            self.queued -= submitted.min(self.queued);
        }
        result
    }

    /// The completions in the queue: as this takes them all each time, those posted since the last return.
    fn collect(&mut self, _result: Returned) -> u32 {
        let mut count = 0;
        self.waits += 1;
        if self.mode == RingMode::TakeLate && !self.waits.is_multiple_of(TAKE_EVERY) {
            return 0;
        }
        for completion in self.queues.completion() {
            count += 1;
            let source = usize::try_from(completion.user_data()).unwrap_or(usize::MAX);
            if let Some(watched) = self.watched.get_mut(source) {
                *watched = false;
            }
        }
        count
    }

    fn capacity(&self) -> Option<u32> {
        None
    }

    fn describe(&self) -> PollerReport {
        PollerReport { kind: PollerKind::IoUring, fd: Some(self.queues.as_raw_fd()) }
    }
}
