//! From captured stacks to named ones, in a thread of its own: the symbols of a big program take their time,
//! and whoever drains the kernel's buffers has none.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::{Duration, Instant},
};

use crate::{
    model::stalls::{RawStack, Stack},
    probe::privileges,
    symbols::{Frame, Origin, Registers, Resolver},
};

/// More captures than this do not wait to be named: what comes then keeps its addresses only.
const MOST_WAITING: usize = 1024;

enum Request {
    Name(u64, Box<RawStack>),
    Forget(u32),
}

/// The thread that names stacks, as seen from outside.
pub(super) struct Naming {
    requests: Sender<Request>,
    named: Receiver<(u64, Arc<Stack>)>,
    waiting: HashSet<u64>,
    next: u64,
}

impl Naming {
    /// Starts the thread. Before privileges are given up: it opens what only they open, and gives its own
    /// up afterwards.
    pub(super) fn start() -> Self {
        let (requests, work) = channel();
        let (done, named) = channel();
        let (started_up, is_up) = channel();
        let thread = std::thread::Builder::new().name("symbols".to_owned());
        let started = thread.spawn(move || {
            let mut resolver = Resolver::new();
            if let Err(error) = privileges::keep_what_reading_takes() {
                log::warn!("{error}");
            }
            drop(started_up);
            for request in work {
                match request {
                    Request::Name(ticket, raw) => {
                        let stack = Arc::new(name(&mut resolver, *raw));
                        if done.send((ticket, stack)).is_err() {
                            return;
                        }
                    }
                    Request::Forget(pid) => resolver.forget(pid),
                }
            }
        });
        match started {
            // It holds the other end until its privileges are gone.
            Ok(_) => drop(is_up.recv() as Result<(), _>),
            Err(error) => log::warn!("stacks stay without names: no thread can be started: {error}"),
        }
        Self { requests, named, waiting: HashSet::new(), next: 0 }
    }

    /// Asks for a stack's names. The ticket comes back with them.
    pub(super) fn ask(&mut self, raw: RawStack) -> Result<u64, Arc<Stack>> {
        if self.waiting.len() >= MOST_WAITING {
            return Err(Arc::new(Stack { kernel: raw.kernel, user: raw.user, frames: Vec::new() }));
        }
        self.next += 1;
        match self.requests.send(Request::Name(self.next, Box::new(raw))) {
            Ok(()) => {
                self.waiting.insert(self.next);
                Ok(self.next)
            }
            // There is no such thread.
            Err(error) => Err(Arc::new(match error.0 {
                Request::Name(_, raw) => Stack { kernel: raw.kernel, user: raw.user, frames: Vec::new() },
                Request::Forget(_) => Stack::default(),
            })),
        }
    }

    /// What has its names by now.
    pub(super) fn take(&mut self) -> Vec<(u64, Arc<Stack>)> {
        let named: Vec<_> = self.named.try_iter().collect();
        for (ticket, _) in &named {
            self.waiting.remove(ticket);
        }
        named
    }

    /// Waits for what was asked for, so long at most.
    pub(super) fn take_all(&mut self, patience: Duration) -> Vec<(u64, Arc<Stack>)> {
        let mut all = self.take();
        let until = Instant::now() + patience;
        while !self.waiting.is_empty() {
            match self.named.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok((ticket, stack)) => {
                    self.waiting.remove(&ticket);
                    all.push((ticket, stack));
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        all
    }

    /// Lets go of a process that has ended.
    pub(super) fn forget(&self, pid: u32) {
        // Without the thread there is nothing to let go of.
        let _ = self.requests.send(Request::Forget(pid));
    }
}

/// Unwinds and names.
fn name(resolver: &mut Resolver, raw: RawStack) -> Stack {
    let RawStack { pid, kernel, mut user, copy } = raw;
    if let Some(copy) = copy {
        let registers = Registers { ip: copy.ip, sp: copy.sp, fp: copy.fp, lr: copy.lr };
        let unwound = resolver.unwind(pid, &registers, &copy.bytes).addresses;
        // Where there are no tables, frame pointers may have come further; where there are, they may have led
        // astray.
        if unwound.len() > 1 || user.is_empty() {
            user = unwound;
        }
    }
    let mut frames = resolver.resolve(pid, &kernel, &user).frames;
    frames.drain(..way_to_probe(&frames));
    Stack { kernel, user, frames }
}

/// How many of the innermost frames are the kernel's way to the probe in which a sleep's stack is taken, and the probe itself, which has
/// a name or none.
fn way_to_probe(frames: &[Frame]) -> usize {
    /// The probe, and up to three functions that lead to it.
    const LONGEST: usize = 4;
    let leads_there = |frame: &Frame| {
        frame.origin == Origin::Kernel
            && ["bpf_prog_", "bpf_trace_run", "__bpf_trace_", "__traceiter_", "bpf_trampoline_"]
                .iter()
                .any(|prefix| frame.name.starts_with(prefix))
    };
    let innermost = &frames[..frames.len().min(LONGEST)];
    innermost.iter().rposition(leads_there).map_or(0, |last| last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_the_probe_is_no_part_of_a_stack() {
        let stack = |names: &[&str], origin| -> Vec<Frame> {
            let frame = |name: &&str| Frame {
                name: (*name).into(),
                module: None,
                location: None,
                inlined: false,
                origin,
            };
            names.iter().map(frame).collect()
        };
        for (names, own) in [
            (&["bpf_prog_c69f_sched_switch", "bpf_trace_run4", "__schedule", "schedule"][..], 2),
            (&["0xffffffffc0027565", "bpf_trace_run4", "__traceiter_sched_switch", "__schedule"], 3),
            (&["__schedule", "schedule", "do_nanosleep"], 0),
            (&["0xffffffffc0027565"], 0),
            (&[], 0),
        ] {
            assert_eq!(way_to_probe(&stack(names, Origin::Kernel)), own, "{names:?}");
        }
        assert_eq!(way_to_probe(&stack(&["bpf_prog_of_mine", "main"], Origin::User)), 0);
    }
}
