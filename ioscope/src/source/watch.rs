//! Watches for stalls: glances at the loops' memory often enough to find one in time, whatever becomes of
//! the stream, and takes in the captures of where their threads are.
//!
//! A loop that is in its wait call cannot stall before the threshold has passed from now, so that the next
//! glance is due when the first slice can be over it: a healthy process is looked at as rarely as the
//! threshold is long.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use ioscope_common::{NO_SYSCALL, STOPPED, SleptRecord, State};

use super::{arguments::resolve, naming::Naming};
use crate::{
    model::{
        Batch, FoundStall, LoopId, Present, ResolvedArgument,
        stalls::{Capture, Cause, RawStack, Stack, StackCopy},
    },
    probe::{self, Captured, SAMPLES_PER_SECOND, Session, SliceGlance, read_stack},
};

/// How often a loop that is over the threshold is looked at.
const STALLED_PACE: Duration = Duration::from_millis(10);
/// Never more often than this.
const FASTEST_PACE: Duration = Duration::from_millis(2);
/// Nor less often, however long the threshold.
const SLOWEST_PACE: Duration = Duration::from_millis(250);
/// A batch out of its turn, because a stall was found or has ended, takes no more than this share of the time.
const NEWS_SHARE: u32 = 20;

/// At the end, names are waited for so long.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// What a sample of the clock stands for.
const SAMPLE_NS: u64 = 1_000_000_000 / SAMPLES_PER_SECOND;

/// Who is in a place.
#[derive(Clone, Copy)]
pub(super) struct Occupant {
    pub(super) id: LoopId,
    pub(super) pid: u32,
}

/// What is known of stalls from one glance to the next.
pub(super) struct Watch {
    naming: Naming,
    threshold: u64,
    warn: u64,
    /// Loops that are in a stall, by their place: when its slice began.
    stalled: HashMap<u32, u64>,
    /// Sleeps whose beginning was captured, by the loop's place.
    sleeping: HashMap<u32, Sleeping>,
    /// What waits for its stack to be named, by the ticket.
    unnamed: HashMap<u64, Unnamed>,
    /// What the next batch will tell.
    found: Vec<FoundStall>,
    captures: Vec<(LoopId, Capture)>,
    resolved: Vec<ResolvedArgument>,
    /// A batch is wanted out of its turn.
    news: bool,
    /// None is handed out before.
    quiet_until: Instant,
    next: Instant,
}

/// A sleep whose stack was captured.
#[derive(Clone)]
struct Sleeping {
    id: LoopId,
    since: u64,
    slice: u64,
    cause: Cause,
    stack: Names,
    /// How long it has lasted, as far as is known.
    ns: u64,
    /// How much of it has been told.
    told_ns: u64,
}

/// Whether a stack has its names.
#[derive(Clone)]
enum Names {
    Asked(u64),
    Done(Arc<Stack>),
}

/// What waits for its stack's names.
enum Unnamed {
    /// A sample of the clock: all but the stack.
    Sample(LoopId, Capture),
    /// A sleep that goes on, in this place.
    Sleep(u32),
    /// A sleep that has ended.
    Slept(Sleeping),
}

impl Watch {
    pub(super) fn new(threshold: Duration, warn: Duration) -> Self {
        let now = Instant::now();
        Self {
            naming: Naming::start(),
            threshold: nanoseconds(threshold),
            warn: nanoseconds(warn),
            stalled: HashMap::new(),
            sleeping: HashMap::new(),
            unnamed: HashMap::new(),
            found: Vec::new(),
            captures: Vec::new(),
            resolved: Vec::new(),
            news: false,
            quiet_until: now,
            next: now,
        }
    }

    pub(super) fn set_thresholds(&mut self, threshold: Duration, warn: Duration) {
        self.threshold = nanoseconds(threshold);
        self.warn = nanoseconds(warn);
        self.next = Instant::now();
    }

    /// When to look next.
    pub(super) const fn next(&self) -> Instant {
        self.next
    }

    /// Whether there is something to tell at once. Asked once, it is told.
    pub(super) fn has_news(&mut self) -> bool {
        self.news && Instant::now() >= self.quiet_until && std::mem::take(&mut self.news)
    }

    /// Looks. `who` tells who is in a place, if that is known yet.
    pub(super) fn look(&mut self, session: &mut Session, who: impl Fn(u32) -> Option<Occupant>, now: u64) {
        let (mut suspects, mut stalled_on) = (Vec::new(), 0);
        let mut soonest = self.early(self.threshold);
        session.glance_at_slices(|slot, glance| {
            let early = self.early(glance.threshold);
            let served = served(&glance, now);
            if served < early {
                soonest = soonest.min(early - served);
            }
            let known = self.stalled.get(&slot);
            if served >= early || known.is_some() {
                suspects.push(slot);
                stalled_on += usize::from(known.is_some());
            }
        });
        // Those that have ended and left their place.
        if stalled_on < self.stalled.len() {
            self.stalled.retain(|slot, _| suspects.contains(slot));
            self.news = true;
        }
        session.drain_captures(|capture| self.take_capture(capture, &who));
        let named = self.naming.take();
        self.take_names(named);
        for slot in suspects {
            let pace = self.inspect(session, &who, slot, now);
            soonest = soonest.min(pace);
        }
        let pace = Duration::from_nanos(soonest).clamp(FASTEST_PACE, SLOWEST_PACE);
        self.next = Instant::now() + pace;
    }

    /// A sleep that may become a stall is looked at earlier than by the threshold, while it is sure to go on.
    fn early(&self, threshold: u64) -> u64 {
        threshold.min(self.warn.max(threshold / 2))
    }

    /// Looks closer at a loop whose slice is long. Returns when to look again, in nanoseconds.
    fn inspect(
        &mut self,
        session: &mut Session,
        who: &impl Fn(u32) -> Option<Occupant>,
        slot: u32,
        now: u64,
    ) -> u64 {
        let Some(entry) = session.copy(slot) else { return self.threshold };
        let (machine, threshold) = (&entry.machine, entry.stall_threshold);
        let present = Present::of(machine, entry.wake, entry.shared != 0, now.max(machine.since));
        let served = present.serving_ns.unwrap_or(0);
        let before = self.stalled.get(&slot).copied();
        if served < threshold || before.is_some_and(|before| before != machine.serving_since) {
            self.news |= self.stalled.remove(&slot).is_some();
        }
        let Some(Occupant { id, pid }) = who(slot) else {
            // A loop that was born after the last batch: the next one finds out who it is.
            self.news = true;
            return nanoseconds(STALLED_PACE);
        };
        let stalls = served >= threshold;
        if stalls && self.stalled.insert(slot, machine.serving_since).is_none() {
            self.found.push(FoundStall { id, began_at: machine.serving_since, found_at: now });
            self.news = true;
        }
        if present.state == State::Blocked && served >= self.warn {
            if stalls && let Some(text) = resolve(pid, machine.syscall, machine.argument) {
                let (syscall, argument) = (machine.syscall, machine.argument);
                self.resolved.push(ResolvedArgument { id, syscall, argument, text });
            }
            if self.sleeping.get(&slot).is_none_or(|known| known.since != machine.since) {
                let raw = RawStack {
                    pid,
                    kernel: Vec::new(),
                    user: vec![entry.asleep_at.ip],
                    copy: Some(stack_copy(&entry.asleep_at, read_stack(pid, entry.asleep_at.sp))),
                };
                // What was read is the sleep's only if it has not ended meanwhile.
                let still = session.copy(slot).is_some_and(|again| {
                    again.machine.since == machine.since && again.machine.state == machine.state
                });
                if still {
                    session.set_captured(slot);
                    let cause = Cause::of_sleep(machine.syscall);
                    self.begin_sleep(slot, id, machine.since, machine.serving_since, cause, raw);
                }
            }
            self.tell_so_far(slot, machine.since, now);
        }
        if stalls { nanoseconds(STALLED_PACE) } else { threshold.saturating_sub(served) }
    }

    /// A thread has fallen asleep where it was captured.
    fn begin_sleep(&mut self, slot: u32, id: LoopId, since: u64, slice: u64, cause: Cause, raw: RawStack) {
        let stack = match self.naming.ask(raw) {
            Ok(ticket) => {
                self.unnamed.insert(ticket, Unnamed::Sleep(slot));
                Names::Asked(ticket)
            }
            Err(stack) => Names::Done(stack),
        };
        self.sleeping.insert(slot, Sleeping { id, since, slice, cause, stack, ns: 0, told_ns: 0 });
    }

    /// A sleep goes on: so far it is this long.
    fn tell_so_far(&mut self, slot: u32, since: u64, now: u64) {
        if let Some(known) = self.sleeping.get_mut(&slot).filter(|known| known.since == since) {
            known.ns = now.saturating_sub(since);
            self.captures.extend(known.tell());
        }
    }

    fn take_capture(&mut self, capture: probe::Capture, who: &impl Fn(u32) -> Option<Occupant>) {
        match capture {
            probe::Capture::Stack(captured) => {
                let Some(Occupant { id, pid }) = who(captured.slot) else { return };
                let (slot, slice, at, asleep_in) =
                    (captured.slot, captured.slice, captured.at, captured.asleep_in);
                let in_kernel = !captured.kernel.is_empty();
                let raw = raw(pid, captured);
                if let Some(syscall) = asleep_in {
                    self.begin_sleep(slot, id, at, slice, Cause::of_sleep(syscall), raw);
                    return;
                }
                let cause = if in_kernel { Cause::Kernel } else { Cause::User };
                let stack = Arc::default();
                let capture = Capture { at, slice, cause, weight_ns: SAMPLE_NS, count: 1, stack };
                match self.naming.ask(raw) {
                    Ok(ticket) => {
                        self.unnamed.insert(ticket, Unnamed::Sample(id, capture));
                    }
                    Err(stack) => self.captures.push((id, Capture { stack, ..capture })),
                }
            }
            probe::Capture::Slept(slept) => self.end_sleep(&slept),
        }
    }

    fn end_sleep(&mut self, slept: &SleptRecord) {
        let known = self.sleeping.remove(&slept.slot).filter(|known| known.since == slept.since);
        let Some(mut known) = known.filter(|_| slept.state == State::Blocked as u32) else { return };
        known.ns = slept.ns;
        if let Names::Asked(ticket) = known.stack {
            self.unnamed.insert(ticket, Unnamed::Slept(known));
        } else {
            self.captures.extend(known.tell());
        }
    }

    /// Takes in what has got its names.
    fn take_names(&mut self, named: Vec<(u64, Arc<Stack>)>) {
        for (ticket, stack) in named {
            match self.unnamed.remove(&ticket) {
                Some(Unnamed::Sample(id, capture)) => self.captures.push((id, Capture { stack, ..capture })),
                Some(Unnamed::Slept(mut known)) => {
                    known.stack = Names::Done(stack);
                    self.captures.extend(known.tell());
                }
                Some(Unnamed::Sleep(slot)) => {
                    let known = self.sleeping.get_mut(&slot);
                    if let Some(known) = known.filter(|known| known.has_asked(ticket)) {
                        known.stack = Names::Done(stack);
                        self.captures.extend(known.tell());
                    }
                }
                None => {}
            }
        }
    }

    /// Waits for the names of what was captured, at the end.
    pub(super) fn finish(&mut self) {
        let named = self.naming.take_all(LAST_PATIENCE);
        self.take_names(named);
    }

    /// Hands over what there is to tell.
    pub(super) fn hand_over(&mut self, batch: &mut Batch) {
        batch.found = std::mem::take(&mut self.found);
        batch.captures = std::mem::take(&mut self.captures);
        batch.resolved = std::mem::take(&mut self.resolved);
        self.news = false;
    }

    /// A batch has been taken, which took so long.
    pub(super) fn batch_took(&mut self, time: Duration) {
        self.quiet_until = Instant::now() + time * NEWS_SHARE;
    }

    /// A process has ended.
    pub(super) fn forget_process(&self, pid: u32) {
        self.naming.forget(pid);
    }

    /// Nobody is in this place any more.
    pub(super) fn forget(&mut self, slot: u32) {
        self.stalled.remove(&slot);
        self.sleeping.remove(&slot);
    }
}

impl Sleeping {
    /// What of its length has not been told yet.
    fn tell(&mut self) -> Option<(LoopId, Capture)> {
        let Names::Done(stack) = &self.stack else { return None };
        let weight_ns = self.ns.checked_sub(self.told_ns).filter(|ns| *ns > 0)?;
        let count = u64::from(self.told_ns == 0);
        self.told_ns = self.ns;
        let Self { id, since: at, slice, cause, .. } = *self;
        Some((id, Capture { at, slice, cause, weight_ns, count, stack: Arc::clone(stack) }))
    }

    fn has_asked(&self, for_ticket: u64) -> bool {
        matches!(self.stack, Names::Asked(ticket) if ticket == for_ticket)
    }
}

/// How long a slice has lasted, as far as a glance can tell.
fn served(glance: &SliceGlance, now: u64) -> u64 {
    glance.served_since.map_or(0, |since| glance.parked_since.unwrap_or(now).saturating_sub(since))
}

fn raw(pid: u32, captured: Captured) -> RawStack {
    let copy = (!captured.stack.is_empty()).then(|| stack_copy(&captured.registers, captured.stack));
    let mut user = captured.user;
    if user.is_empty() {
        user.push(captured.registers.ip);
    }
    RawStack { pid, kernel: captured.kernel, user, copy }
}

fn stack_copy(registers: &ioscope_common::UserRegisters, bytes: Vec<u8>) -> StackCopy {
    let ioscope_common::UserRegisters { ip, sp, fp, lr } = *registers;
    StackCopy { ip, sp, fp, lr, bytes }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Whether a sleep outside any system call that has a name.
pub(super) const fn is_special(syscall: i32) -> bool {
    matches!(syscall, NO_SYSCALL | STOPPED)
}
