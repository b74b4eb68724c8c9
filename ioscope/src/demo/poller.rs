//! What a loop waits on, whichever wait call it is: one trait, three makers.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use ioscope_common::WaitCall;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, read, write};

use super::DemoError;
use super::aio::Aio;
use super::fdset::{EpollSet, PollSet, SelectSet};
use super::report::PollerReport;
use super::ring::Ring;
use super::spec::Spec;
use super::sys::{Returned, Timeout};

/// An eventfd.
#[derive(Debug)]
pub(super) struct EventFd(OwnedFd);

impl EventFd {
    /// With nothing in it, and reads that never block.
    pub(super) fn nonblocking(is_semaphore: bool) -> Result<Self, DemoError> {
        let mut flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        flags.set(EventfdFlags::SEMAPHORE, is_semaphore);
        Ok(Self(eventfd(0, flags).map_err(DemoError::system("eventfd"))?))
    }

    /// With nothing in it, and reads that sleep until there is.
    pub(super) fn blocking() -> Result<Self, DemoError> {
        Ok(Self(eventfd(0, EventfdFlags::CLOEXEC).map_err(DemoError::system("eventfd"))?))
    }

    /// Adds to it: it is readable from now on.
    pub(super) fn add(&self, value: u64) -> Result<(), DemoError> {
        write(&self.0, &value.to_ne_bytes()).map(drop).map_err(DemoError::system("write to an eventfd"))
    }

    /// Takes what is in it (one, of a semaphore): nothing if a read would have blocked.
    pub(super) fn take(&self) -> Result<Option<u64>, DemoError> {
        let mut value = [0; 8];
        loop {
            match read(&self.0, &mut value) {
                Ok(_) => return Ok(Some(u64::from_ne_bytes(value))),
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(DemoError::system("read of an eventfd")(errno)),
            }
        }
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl std::os::fd::AsFd for EventFd {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The eventfds that a loop watches.
pub(super) type Sources = Arc<[EventFd]>;

/// What goes wrong with a wait call on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Its fd is not open.
    Fd,
    /// Its buffer is not mapped.
    Pointer,
}

/// What a wait call asks for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    /// How long to sleep at most.
    pub(super) timeout: Timeout,
    /// Whether no event at all is enough.
    pub(super) no_minimum: bool,
    /// What is wrong with it.
    pub(super) fault: Option<Fault>,
}

impl Ask {
    /// With nothing wrong.
    pub(super) const fn new(timeout: Timeout) -> Self {
        Self { timeout, no_minimum: false, fault: None }
    }
}

/// Something to wait on.
pub(super) trait Poller {
    /// Lets the next wait call find exactly `count` events ready, or at most as many as it takes.
    fn arm(&mut self, count: u32) -> Result<(), DemoError>;

    /// Watches the first `count` sources, for another thread to make ready.
    fn watch(&mut self, count: u32) -> Result<(), DemoError>;

    /// Submits what is queued, if that is done apart from the wait: how many calls it took.
    fn submit(&mut self) -> Result<u64, DemoError> {
        Ok(0)
    }

    /// Makes the wait call, once.
    fn wait(&mut self, ask: Ask) -> Returned;

    /// How many events were ready, once it has returned.
    fn collect(&mut self, result: Returned) -> u32 {
        result.unwrap_or(0)
    }

    /// How many events it takes at most.
    fn capacity(&self) -> Option<u32>;

    /// For the report.
    fn describe(&self) -> PollerReport;
}

/// Makes what `spec`'s loops wait on, in the thread that is going to.
pub(super) fn build(
    spec: &Spec,
    sources: &Sources,
    epoll: Option<&Arc<OwnedFd>>,
) -> Result<Box<dyn Poller>, DemoError> {
    Ok(match spec.call {
        WaitCall::EpollWait | WaitCall::EpollPwait | WaitCall::EpollPwait2 => {
            Box::new(EpollSet::new(spec, sources, epoll)?)
        }
        WaitCall::Poll | WaitCall::Ppoll => Box::new(PollSet::new(spec, sources)),
        WaitCall::Select | WaitCall::Pselect6 => Box::new(SelectSet::new(spec, sources)?),
        WaitCall::IoUringEnter => Box::new(Ring::new(spec, sources)?),
        WaitCall::IoGetevents | WaitCall::IoPgetevents => Box::new(Aio::new(spec, sources)?),
    })
}
