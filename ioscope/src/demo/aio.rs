//! The kernel's asynchronous I/O: polls submitted by `io_submit`, waited for by `io_getevents`.

use std::os::fd::AsRawFd;
use std::sync::Arc;

use ioscope_common::WaitCall;

use super::DemoError;
use super::poller::{Ask, Fault, Poller, Sources};
use super::report::{PollerKind, PollerReport};
use super::spec::Spec;
use super::sys::{AioContext, AioEvent, Returned, Target};

/// The data of an operation that is no watched source.
const NO_SOURCE: u64 = u64::MAX;

/// A context, and what is in flight in it.
pub(super) struct Aio {
    call: WaitCall,
    context: AioContext,
    sources: Sources,
    watched: Vec<bool>,
    events: Vec<AioEvent>,
    /// Polls of a ready source that completed and were not taken yet.
    pending: u32,
    /// Whether the first source was made ready for good.
    is_ready: bool,
}

impl Aio {
    pub(super) fn new(spec: &Spec, sources: &Sources) -> Result<Self, DemoError> {
        // Room for a poll on each source, and as many on the one that is always ready.
        let context = AioContext::new(spec.fds * 2).map_err(DemoError::system("io_setup"))?;
        Ok(Self {
            call: spec.call,
            context,
            sources: Arc::clone(sources),
            watched: vec![false; sources.len()],
            events: vec![AioEvent::default(); spec.max_events as usize],
            pending: 0,
            is_ready: false,
        })
    }

    fn submit_poll(&self, source: usize, data: u64) -> Result<(), DemoError> {
        let fd = self.sources[source].as_raw_fd();
        self.context.submit_poll(fd, data).map(drop).map_err(DemoError::system("io_submit"))
    }
}

impl Poller for Aio {
    /// Tops up to `count`: what the last call left behind is still there.
    fn arm(&mut self, count: u32) -> Result<(), DemoError> {
        if !self.is_ready {
            self.sources[0].add(1)?;
            self.is_ready = true;
        }
        while self.pending < count {
            // The source is ready, so the poll completes before io_submit returns.
            self.submit_poll(0, NO_SOURCE)?;
            self.pending += 1;
        }
        Ok(())
    }

    fn watch(&mut self, count: u32) -> Result<(), DemoError> {
        for index in 0..self.sources.len().min(count as usize) {
            if !self.watched[index] {
                self.submit_poll(index, index as u64)?;
                self.watched[index] = true;
            }
        }
        Ok(())
    }

    fn wait(&mut self, ask: Ask) -> Returned {
        let minimum = u32::from(!ask.no_minimum);
        let events = match ask.fault {
            Some(Fault::Pointer) => Target::Unmapped,
            _ => Target::Buffer(self.events.as_mut_slice()),
        };
        self.context.wait(self.call, ask.fault == Some(Fault::Fd), minimum, events, ask.timeout)
    }

    fn collect(&mut self, result: Returned) -> u32 {
        let count = result.unwrap_or(0);
        for event in self.events.iter().take(count as usize) {
            let source = usize::try_from(event.data).unwrap_or(usize::MAX);
            match self.watched.get_mut(source) {
                Some(watched) => *watched = false,
                None => self.pending -= 1,
            }
        }
        count
    }

    fn capacity(&self) -> Option<u32> {
        u32::try_from(self.events.len()).ok()
    }

    fn describe(&self) -> PollerReport {
        PollerReport { kind: PollerKind::Aio, fd: None }
    }
}
