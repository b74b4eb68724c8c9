//! The wait calls on fds: the epoll, poll and select families.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use ioscope_common::WaitCall;
use rustix::event::epoll;

use super::DemoError;
use super::poller::{Ask, Fault, Poller, Sources};
use super::report::{PollerKind, PollerReport};
use super::spec::Spec;
use super::sys::{self, FdSet, Returned, Target};

/// Keeps the first so many sources ready.
struct Level {
    sources: Sources,
    ready: usize,
}

impl Level {
    fn new(sources: &Sources) -> Self {
        Self { sources: Arc::clone(sources), ready: 0 }
    }

    /// Touches only the sources that are to change.
    fn set(&mut self, count: u32) -> Result<(), DemoError> {
        let count = usize::try_from(count).unwrap_or(usize::MAX).min(self.sources.len());
        for source in self.sources.iter().take(count).skip(self.ready) {
            source.add(1)?;
        }
        for source in self.sources.iter().take(self.ready).skip(count) {
            source.take()?;
        }
        self.ready = count;
        Ok(())
    }
}

/// An epoll instance with every source in it, level-triggered.
pub(super) struct EpollSet {
    call: WaitCall,
    level: Level,
    epoll: Arc<OwnedFd>,
    events: Vec<libc::epoll_event>,
}

/// An epoll instance that watches these sources.
pub(super) fn new_epoll(sources: &Sources) -> Result<OwnedFd, DemoError> {
    let instance = epoll::create(epoll::CreateFlags::CLOEXEC).map_err(DemoError::system("epoll_create1"))?;
    for (index, source) in (0_u64..).zip(sources.iter()) {
        epoll::add(&instance, source, epoll::EventData::new_u64(index), epoll::EventFlags::IN)
            .map_err(DemoError::system("epoll_ctl"))?;
    }
    Ok(instance)
}

impl EpollSet {
    pub(super) fn new(
        spec: &Spec,
        sources: &Sources,
        epoll: Option<&Arc<OwnedFd>>,
    ) -> Result<Self, DemoError> {
        let epoll = match epoll {
            Some(epoll) => Arc::clone(epoll),
            None => Arc::new(new_epoll(sources)?),
        };
        let events = vec![libc::epoll_event { events: 0, u64: 0 }; spec.max_events as usize];
        Ok(Self { call: spec.call, level: Level::new(sources), epoll, events })
    }
}

impl Poller for EpollSet {
    fn arm(&mut self, count: u32) -> Result<(), DemoError> {
        self.level.set(count)
    }

    fn watch(&mut self, _count: u32) -> Result<(), DemoError> {
        Ok(())
    }

    fn wait(&mut self, ask: Ask) -> Returned {
        let epoll = if ask.fault == Some(Fault::Fd) { -1 } else { self.epoll.as_raw_fd() };
        let events = match ask.fault {
            Some(Fault::Pointer) => Target::Unmapped,
            _ => Target::Buffer(self.events.as_mut_slice()),
        };
        sys::epoll_wait(self.call, epoll, events, ask.timeout)
    }

    fn capacity(&self) -> Option<u32> {
        u32::try_from(self.events.len()).ok()
    }

    fn describe(&self) -> PollerReport {
        PollerReport { kind: PollerKind::Epoll, fd: Some(self.epoll.as_raw_fd()) }
    }
}

/// The set of `poll` and `ppoll`.
pub(super) struct PollSet {
    call: WaitCall,
    level: Level,
    fds: Vec<libc::pollfd>,
}

impl PollSet {
    pub(super) fn new(spec: &Spec, sources: &Sources) -> Self {
        let fds = sources
            .iter()
            .map(|source| libc::pollfd { fd: source.as_raw_fd(), events: libc::POLLIN, revents: 0 })
            .collect();
        Self { call: spec.call, level: Level::new(sources), fds }
    }
}

impl Poller for PollSet {
    fn arm(&mut self, count: u32) -> Result<(), DemoError> {
        self.level.set(count)
    }

    fn watch(&mut self, _count: u32) -> Result<(), DemoError> {
        Ok(())
    }

    fn wait(&mut self, ask: Ask) -> Returned {
        match ask.fault {
            None => sys::poll(self.call, Target::Buffer(self.fds.as_mut_slice()), ask.timeout),
            Some(Fault::Fd) => {
                // A negative fd would be skipped; this one no process can have open.
                let mut fds = [libc::pollfd { fd: RawFd::MAX, events: libc::POLLIN, revents: 0 }];
                sys::poll(self.call, Target::Buffer(fds.as_mut_slice()), ask.timeout)
            }
            Some(Fault::Pointer) => sys::poll(self.call, Target::Unmapped, ask.timeout),
        }
    }

    fn capacity(&self) -> Option<u32> {
        u32::try_from(self.fds.len()).ok()
    }

    fn describe(&self) -> PollerReport {
        PollerReport { kind: PollerKind::Poll, fd: None }
    }
}

/// The set of `select` and `pselect6`.
pub(super) struct SelectSet {
    call: WaitCall,
    level: Level,
    watched: FdSet,
    nfds: u32,
    closed: RawFd,
}

impl SelectSet {
    pub(super) fn new(spec: &Spec, sources: &Sources) -> Result<Self, DemoError> {
        let mut watched = FdSet::default();
        let mut nfds = 0;
        for source in sources.iter() {
            let fd = source.as_raw_fd();
            if !watched.insert(fd) {
                return Err(DemoError::Spec(format!("select takes no fd from {} on", FdSet::CAPACITY)));
            }
            nfds = nfds.max(u32::try_from(fd).map_or(0, |fd| fd + 1));
        }
        let closed = closed_fd(&sources[0])?;
        Ok(Self { call: spec.call, level: Level::new(sources), watched, nfds, closed })
    }
}

/// An fd that is not open, yet low enough for the kernel to look at: select skips those past the end of the
/// process's fd table, so the table is made to reach so far.
fn closed_fd(source: impl AsFd) -> Result<RawFd, DemoError> {
    static NEXT: AtomicI32 = AtomicI32::new(0);
    // Each loop has a number of its own, and the kernel gives out the lowest first: these stay closed.
    let wanted = 700 + NEXT.fetch_add(1, Ordering::Relaxed) % 300;
    let opened = rustix::io::fcntl_dupfd_cloexec(source, wanted).map_err(DemoError::system("fcntl"))?;
    Ok(opened.as_raw_fd())
}

impl Poller for SelectSet {
    fn arm(&mut self, count: u32) -> Result<(), DemoError> {
        self.level.set(count)
    }

    fn watch(&mut self, _count: u32) -> Result<(), DemoError> {
        Ok(())
    }

    fn wait(&mut self, ask: Ask) -> Returned {
        let mut read = self.watched;
        match ask.fault {
            None => sys::select(self.call, self.nfds, Target::Buffer(&mut read), ask.timeout),
            Some(Fault::Fd) => {
                let mut read = FdSet::default();
                read.insert(self.closed);
                let nfds = u32::try_from(self.closed).map_or(0, |fd| fd + 1);
                sys::select(self.call, nfds, Target::Buffer(&mut read), ask.timeout)
            }
            Some(Fault::Pointer) => sys::select(self.call, self.nfds, Target::Unmapped, ask.timeout),
        }
    }

    fn capacity(&self) -> Option<u32> {
        u32::try_from(self.level.sources.len()).ok()
    }

    fn describe(&self) -> PollerReport {
        PollerReport { kind: PollerKind::Select, fd: None }
    }
}
