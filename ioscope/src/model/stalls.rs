//! Stalls: what a slice at or over the threshold was spent on, where, and which ones there were.
//!
//! Pure data and arithmetic, as all of the model. Stacks come with the names of their functions: they are
//! asked for while the process lives, and a recording has nobody to ask.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use ioscope_common::{Loop, NO_SYSCALL, OpenInterval, STOPPED, SleptIn, Slice, State};

use super::{FoundStall, LoopId, ResolvedArgument};
use crate::symbols::Frame;

/// How many stalls of a loop are kept, the latest; what had to go is counted.
pub const PAST_STALLS: usize = 32;

/// How many different stacks of a stall are kept apart; what comes after is counted.
pub const STACKS: usize = 64;

/// A stall, past or still going on. Times are in nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stall {
    /// Whose it is.
    pub loop_id: LoopId,
    /// When it began: when the wait call returned, or when the loop was last PARKED. With the loop, it names the
    /// stall.
    pub began_at: u64,
    /// When it was found to be a stall, while it went on; `None` when it had ended by then.
    pub found_at: Option<u64>,
    /// When it ended; `None` while it goes on.
    pub ended_at: Option<u64>,
    /// How it is cut up: the parts add up to [`Self::duration_ns`].
    pub account: Account,
    /// Where its time went, as far as was seen, the heaviest first.
    pub stacks: Stacks,
}

impl Stall {
    /// How long it lasted, or has lasted, in nanoseconds.
    pub const fn duration_ns(&self) -> u64 {
        self.account.duration_ns
    }

    /// Whether it goes on.
    pub const fn is_ongoing(&self) -> bool {
        self.ended_at.is_none()
    }
}

/// What a stall's time went to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// The whole, in nanoseconds.
    pub duration_ns: u64,
    /// Of it, runnable and waiting for a CPU: preempted, or woken and not yet let on.
    pub preempted_ns: u64,
    /// Of it, kept off its CPU by its cgroup's limit (`cpu.max`).
    pub throttled_ns: u64,
    /// Of it, asleep outside any system call: a page fault that waits for the disk or for another
    /// thread, a stop by a signal or a debugger; or in a system call. The longest total first.
    pub blocked: Vec<BlockedIn>,
    /// Samples taken while the thread was on a CPU, in the program's own code.
    pub user_samples: u64,
    /// Samples taken while the thread was on a CPU, in the kernel.
    pub kernel_samples: u64,
}

/// How often and how long a slice was asleep in one system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockedIn {
    /// The system call's number, [`NO_SYSCALL`] (a page fault), [`STOPPED`], or [`OTHER_SYSCALLS`].
    pub syscall: i32,
    /// How many sleeps, the present one included.
    pub count: u64,
    /// Their total, in nanoseconds.
    pub total_ns: u64,
    /// The longest, in nanoseconds.
    pub max_ns: u64,
    /// The first argument of the longest of them that the probes saw: a descriptor, an address.
    pub argument: Option<u64>,
    /// What that argument stands for: a file's path, a socket with its peer, `futex 0x7f…`.
    pub resolved: Option<Arc<str>>,
}

impl BlockedIn {
    fn of(slept: &SleptIn) -> Self {
        Self {
            syscall: slept.syscall,
            count: u64::from(slept.count),
            total_ns: slept.total_ns,
            max_ns: slept.max_ns,
            argument: Some(slept.argument),
            resolved: None,
        }
    }
}

/// In place of a system call's number: those that found no place of their own.
pub const OTHER_SYSCALLS: i32 = -3;

/// What a part of a stall's time went to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// On a CPU, in the program's own code.
    User,
    /// On a CPU, in the kernel.
    Kernel,
    /// On a CPU, where no sample tells which of the two.
    OnCpu,
    /// Runnable, waiting for a CPU.
    Preempted,
    /// Kept off its CPU by its cgroup's limit.
    Throttled,
    /// Asleep in this system call, or in [`OTHER_SYSCALLS`].
    Blocked(i32),
    /// Asleep in a page fault.
    PageFault,
    /// Stopped by a signal or a debugger.
    Stopped,
}

impl Cause {
    /// Of a sleep.
    pub const fn of_sleep(syscall: i32) -> Self {
        match syscall {
            NO_SYSCALL => Self::PageFault,
            STOPPED => Self::Stopped,
            syscall => Self::Blocked(syscall),
        }
    }

    /// Its name in JSON; a system call's name is told apart from it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Kernel => "kernel",
            Self::OnCpu => "on_cpu",
            Self::Preempted => "preempted",
            Self::Throttled => "throttled",
            Self::Blocked(_) => "blocked",
            Self::PageFault => "page_fault",
            Self::Stopped => "stopped",
        }
    }
}

impl Account {
    /// Of a slice that has lasted so long. One that goes on is in the middle of something, too.
    fn of(slice: &Slice, duration_ns: u64, now: Option<(&Loop, &OpenInterval)>) -> Self {
        let mut account = Self {
            duration_ns,
            preempted_ns: slice.ready_ns,
            throttled_ns: slice.throttled_ns,
            blocked: slice.slept_in.iter().filter(|entry| entry.count > 0).map(BlockedIn::of).collect(),
            user_samples: u64::from(slice.user_samples),
            kernel_samples: u64::from(slice.kernel_samples),
        };
        if slice.slept_elsewhere.count > 0 {
            let other = BlockedIn::of(&slice.slept_elsewhere);
            account.blocked.push(BlockedIn { syscall: OTHER_SYSCALLS, argument: None, ..other });
        }
        if let Some((machine, open)) = now {
            account.preempted_ns += open.ready_ns;
            match open.state {
                State::Ready if machine.throttled != 0 => account.throttled_ns += open.ns,
                State::Ready => account.preempted_ns += open.ns,
                State::Blocked => account.sleep(machine.syscall, machine.argument, open.ns),
                _ => {}
            }
        }
        account.blocked.sort_by_key(|blocked| std::cmp::Reverse(blocked.total_ns));
        account
    }

    /// Adds a sleep that goes on.
    fn sleep(&mut self, syscall: i32, argument: u64, ns: u64) {
        let full = self.blocked.len() >= ioscope_common::SLICE_SLEEPS;
        let known = self.blocked.iter().position(|blocked| blocked.syscall == syscall);
        let other = self.blocked.iter().position(|blocked| blocked.syscall == OTHER_SYSCALLS);
        let at = known.or_else(|| other.filter(|_| full)).unwrap_or_else(|| {
            let syscall = if full { OTHER_SYSCALLS } else { syscall };
            self.blocked.push(BlockedIn { syscall, ..BlockedIn::of(&SleptIn::FREE) });
            self.blocked.len() - 1
        });
        let blocked = &mut self.blocked[at];
        blocked.count += 1;
        blocked.total_ns += ns;
        if ns >= blocked.max_ns {
            blocked.max_ns = ns;
            blocked.argument = (blocked.syscall != OTHER_SYSCALLS).then_some(argument);
        }
    }

    /// On a CPU, in nanoseconds: what is left when all else is taken away, each part of which was
    /// measured.
    pub fn on_cpu_ns(&self) -> u64 {
        self.duration_ns.saturating_sub(self.preempted_ns + self.throttled_ns + self.blocked_ns())
    }

    /// Asleep, in nanoseconds.
    pub fn blocked_ns(&self) -> u64 {
        self.blocked.iter().map(|blocked| blocked.total_ns).sum()
    }

    /// On a CPU in the program's own code, and in the kernel, in nanoseconds: by the share of the samples,
    /// and so as exact as they are many. `None` without samples.
    pub fn user_and_kernel_ns(&self) -> Option<(u64, u64)> {
        let samples = self.user_samples + self.kernel_samples;
        if samples == 0 {
            return None;
        }
        let on_cpu = self.on_cpu_ns();
        let kernel = u128::from(on_cpu) * u128::from(self.kernel_samples) / u128::from(samples);
        let kernel = u64::try_from(kernel).unwrap_or(on_cpu);
        Some((on_cpu - kernel, kernel))
    }

    /// The parts that are not nothing, the longest first. They add up to the whole.
    pub fn parts(&self) -> Vec<(Cause, u64)> {
        let mut parts = vec![(Cause::Preempted, self.preempted_ns), (Cause::Throttled, self.throttled_ns)];
        match self.user_and_kernel_ns() {
            Some((user, kernel)) => parts.extend([(Cause::User, user), (Cause::Kernel, kernel)]),
            None => parts.push((Cause::OnCpu, self.on_cpu_ns())),
        }
        parts.extend(self.blocked.iter().map(|blocked| (Cause::of_sleep(blocked.syscall), blocked.total_ns)));
        parts.retain(|(_, ns)| *ns > 0);
        parts.sort_by_key(|(cause, ns)| (std::cmp::Reverse(*ns), *cause));
        parts
    }

    /// The longest part.
    pub fn main_cause(&self) -> Option<(Cause, u64)> {
        self.parts().into_iter().next()
    }
}

/// Where a thread was, innermost first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stack {
    /// In the kernel; empty when it was in the program's own code.
    pub kernel: Vec<u64>,
    /// In the program. Found by frame pointers, or, where there was a copy of the stack and tables to
    /// unwind it with, by these.
    pub user: Vec<u64>,
    /// The functions of both, inlined ones included; empty where nobody was asked.
    pub frames: Vec<Frame>,
}

impl Stack {
    /// Whether both are in the same functions: at which instruction of them does not matter.
    pub fn is_like(&self, other: &Self) -> bool {
        if self.frames.is_empty() || other.frames.is_empty() {
            return self == other;
        }
        let functions = |stack: &Self| -> Vec<_> {
            stack.frames.iter().map(|frame| (Arc::clone(&frame.name), frame.module.clone())).collect()
        };
        self.frames.len() == other.frames.len() && functions(self) == functions(other)
    }
}

/// The registers that unwinding starts from, and a piece of the stack above the stack pointer.
#[derive(Clone, PartialEq, Eq)]
pub struct StackCopy {
    /// Where the program goes on.
    pub ip: u64,
    /// The stack pointer, which is where `bytes` begin.
    pub sp: u64,
    /// The frame pointer: `rbp`, `x29`.
    pub fp: u64,
    /// The link register: `x30`; 0 on `x86_64`.
    pub lr: u64,
    /// The stack from `sp` upwards, as far as it could be read.
    pub bytes: Vec<u8>,
}

impl std::fmt::Debug for StackCopy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { ip, sp, fp, lr, bytes } = self;
        write!(f, "StackCopy {{ ip: {ip:#x}, sp: {sp:#x}, fp: {fp:#x}, lr: {lr:#x}, {} bytes }}", bytes.len())
    }
}

/// A capture as the source takes it out of the kernel, before it is unwound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawStack {
    /// The process, in ioscope's pid namespace.
    pub pid: u32,
    /// In the kernel.
    pub kernel: Vec<u64>,
    /// In the program, by frame pointers: the first is right, the others are where the program keeps
    /// frame pointers.
    pub user: Vec<u64>,
    /// To unwind with tables.
    pub copy: Option<StackCopy>,
}

/// One capture of a slice that is over the warning threshold, or of a sleep that begins in one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// When it was taken.
    pub at: u64,
    /// Since when the loop served.
    pub slice: u64,
    /// [`Cause::User`] or [`Cause::Kernel`] of a sample; of a sleep, what it was in.
    pub cause: Cause,
    /// How much time it stands for, in nanoseconds: the distance of the samples, or the sleep's length.
    pub weight_ns: u64,
    /// 1, or 0 when it goes on with a sleep that was told of before.
    pub count: u64,
    /// Where.
    pub stack: Arc<Stack>,
}

/// Different stacks and how much time each stands for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stacks {
    list: Vec<WeightedStack>,
    lost_ns: u64,
}

/// A stack and how much time it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedStack {
    /// Where.
    pub stack: Arc<Stack>,
    /// [`Cause::User`], [`Cause::Kernel`], or what it slept in.
    pub cause: Cause,
    /// How many captures found it.
    pub count: u64,
    /// The time that they stand for, in nanoseconds.
    pub weight_ns: u64,
}

impl Stacks {
    /// Adds a capture's.
    pub fn add(&mut self, capture: &Capture) {
        self.add_weighted(&WeightedStack {
            stack: Arc::clone(&capture.stack),
            cause: capture.cause,
            count: capture.count,
            weight_ns: capture.weight_ns,
        });
    }

    /// Adds what others found: to merge those of several stalls.
    pub fn add_all(&mut self, other: &Self) {
        other.list.iter().for_each(|stack| self.add_weighted(stack));
        self.lost_ns += other.lost_ns;
    }

    fn add_weighted(&mut self, new: &WeightedStack) {
        let known =
            self.list.iter().position(|known| known.cause == new.cause && known.stack.is_like(&new.stack));
        let Some(mut at) = known.or_else(|| {
            (self.list.len() < STACKS).then(|| {
                self.list.push(WeightedStack { count: 0, weight_ns: 0, ..new.clone() });
                self.list.len() - 1
            })
        }) else {
            self.lost_ns += new.weight_ns;
            return;
        };
        self.list[at].count += new.count;
        self.list[at].weight_ns += new.weight_ns;
        while at > 0 && self.list[at - 1].weight_ns < self.list[at].weight_ns {
            self.list.swap(at - 1, at);
            at -= 1;
        }
    }

    /// The heaviest first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &WeightedStack> {
        self.list.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The time that all of them stand for, in nanoseconds.
    pub fn total_ns(&self) -> u64 {
        self.list.iter().map(|stack| stack.weight_ns).sum()
    }

    /// The time of captures that found no place, in nanoseconds.
    pub const fn lost_ns(&self) -> u64 {
        self.lost_ns
    }
}

/// The stalls of a loop: the one that goes on, and the latest of those that have ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StallLog {
    /// The one that goes on.
    pub ongoing: Option<Stall>,
    past: VecDeque<Stall>,
    dropped: u64,
    /// The stacks of those that are not kept.
    gone: Stacks,
    /// Captures of slices that are no stalls, or not yet, by when they began.
    pending: BTreeMap<u64, Stacks>,
    /// What was found out of arguments, the latest last.
    resolved: VecDeque<ResolvedArgument>,
}

/// So many slices' captures wait for what becomes of them.
const PENDING_SLICES: usize = 4;

/// So many arguments are remembered.
const RESOLVED: usize = 16;

/// What a copy of a loop is looked at with.
pub(super) struct Moment {
    pub(super) open: OpenInterval,
    /// How long the loop has served.
    pub(super) serving_ns: Option<u64>,
    /// From this loop duration on it is a stall.
    pub(super) threshold: Duration,
}

impl StallLog {
    /// The ended ones that are kept, in the order of their beginning.
    pub fn past(&self) -> impl DoubleEndedIterator<Item = &Stall> + ExactSizeIterator {
        self.past.iter()
    }

    /// All that are kept, the ongoing one last.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Stall> {
        self.past.iter().chain(&self.ongoing)
    }

    /// How many ended ones are not kept: for want of room, or because more ended at a time than the
    /// kernel's side keeps.
    pub const fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The stacks of all stalls there were, those that are not kept among them; the same one more than once.
    pub fn every_stack(&self) -> impl Iterator<Item = &WeightedStack> {
        self.gone.iter().chain(self.iter().flat_map(|stall| stall.stacks.iter()))
    }

    /// The stall that began then.
    pub fn get(&self, began_at: u64) -> Option<&Stall> {
        self.iter().rev().find(|stall| stall.began_at == began_at)
    }

    /// Takes in a newer copy of the loop; `before` is the one that was taken in last.
    pub(super) fn update(&mut self, id: LoopId, now: &Loop, before: Option<&Loop>, moment: &Moment) {
        let kept = ioscope_common::PAST_STALLS as u64;
        let all = now.counters.stalls;
        let known = before.map_or(0, |before| before.counters.stalls);
        let first = known.max(all.saturating_sub(kept));
        self.dropped += first - known;
        for number in first..all {
            if let Some(past) = usize::try_from(number % kept).ok().and_then(|at| now.past_stalls.get(at)) {
                let duration = past.ended_at.saturating_sub(past.began_at);
                let account = Account::of(&past.slice, duration, None);
                self.end(id, past.began_at, past.ended_at, account);
            }
        }
        let threshold = moment.threshold.as_nanos();
        let duration = moment.serving_ns.filter(|ns| u128::from(*ns) >= threshold);
        let Some(duration) = duration else {
            // It has ended, and is among those above; unless the threshold was changed meanwhile.
            self.ongoing = None;
            return;
        };
        let account = Account::of(&now.slice, duration, Some((now, &moment.open)));
        if now.ended != 0 {
            // It ended with its thread. The last copy may come more than once.
            if self.get(now.serving_since).is_none_or(Stall::is_ongoing) {
                self.end(id, now.serving_since, now.ended, account);
            }
            return;
        }
        let stall = self.take(id, now.serving_since, account);
        self.ongoing = Some(stall);
    }

    /// A stall has ended.
    fn end(&mut self, id: LoopId, began_at: u64, ended_at: u64, account: Account) {
        let stall = Stall { ended_at: Some(ended_at), ..self.take(id, began_at, account) };
        if self.past.len() == PAST_STALLS
            && let Some(gone) = self.past.pop_front()
        {
            self.gone.add_all(&gone.stacks);
            self.dropped += 1;
        }
        self.past.push_back(stall);
    }

    /// A stall with all that is known of it so far.
    fn take(&mut self, loop_id: LoopId, began_at: u64, mut account: Account) -> Stall {
        for blocked in &mut account.blocked {
            let known =
                self.resolved.iter().rev().find(|known| {
                    known.syscall == blocked.syscall && Some(known.argument) == blocked.argument
                });
            blocked.resolved = known.map(|known| Arc::clone(&known.text));
        }
        match self.ongoing.take() {
            Some(stall) if stall.began_at == began_at => Stall { account, ..stall },
            _ => {
                let stacks = self.pending.remove(&began_at).unwrap_or_default();
                Stall { loop_id, began_at, found_at: None, ended_at: None, account, stacks }
            }
        }
    }

    fn get_mut(&mut self, began_at: u64) -> Option<&mut Stall> {
        self.ongoing.iter_mut().chain(self.past.iter_mut().rev()).find(|stall| stall.began_at == began_at)
    }

    /// A stall was found while it went on.
    pub(super) fn found(&mut self, found: &FoundStall) {
        if let Some(stall) = self.get_mut(found.began_at) {
            stall.found_at = Some(found.found_at);
        }
    }

    /// It was found out what an argument stands for.
    pub(super) fn resolve(&mut self, argument: &ResolvedArgument) {
        self.resolved
            .retain(|known| (known.syscall, known.argument) != (argument.syscall, argument.argument));
        if self.resolved.len() == RESOLVED {
            self.resolved.pop_front();
        }
        self.resolved.push_back(argument.clone());
        let stall = self.ongoing.as_mut().or(self.past.back_mut());
        for blocked in stall.into_iter().flat_map(|stall| &mut stall.account.blocked) {
            if blocked.syscall == argument.syscall && blocked.argument == Some(argument.argument) {
                blocked.resolved = Some(Arc::clone(&argument.text));
            }
        }
    }

    /// It was seen where the thread was.
    pub(super) fn capture(&mut self, capture: &Capture) {
        if let Some(stall) = self.get_mut(capture.slice) {
            stall.stacks.add(capture);
            return;
        }
        self.pending.entry(capture.slice).or_default().add(capture);
        while self.pending.len() > PENDING_SLICES {
            self.pending.pop_first();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: LoopId = LoopId(1);

    fn loop_with(past: &[(u64, u64)], all: u64) -> Box<Loop> {
        let mut machine = Box::new(Loop::ZERO);
        machine.counters.stalls = all;
        for (number, (began_at, ended_at)) in (all - past.len() as u64..).zip(past) {
            let at = usize::try_from(number % ioscope_common::PAST_STALLS as u64).unwrap();
            machine.past_stalls[at].began_at = *began_at;
            machine.past_stalls[at].ended_at = *ended_at;
        }
        machine
    }

    fn moment(serving_ns: Option<u64>) -> Moment {
        let open = OpenInterval { state: State::Running, ns: 0, ready_ns: 0 };
        Moment { open, serving_ns, threshold: Duration::from_nanos(100) }
    }

    fn capture(slice: u64, function: u64) -> Capture {
        let stack = Arc::new(Stack { user: vec![function], ..Stack::default() });
        Capture { at: slice, slice, cause: Cause::User, weight_ns: 5, count: 1, stack }
    }

    #[test]
    fn what_was_seen_in_a_stall_stays_with_it_to_its_end() {
        let mut log = StallLog::default();
        let mut machine = loop_with(&[], 0);
        machine.serving_since = 1_000;
        // Before it is long enough, and of another one that never will be.
        log.capture(&capture(1_000, 7));
        log.capture(&capture(500, 8));
        log.update(ID, &machine, None, &moment(Some(90)));
        assert_eq!(log.iter().count(), 0);
        log.update(ID, &machine, None, &moment(Some(120)));
        log.found(&FoundStall { id: ID, began_at: 1_000, found_at: 1_110 });
        log.capture(&capture(1_000, 7));
        let ongoing = log.ongoing.as_ref().unwrap();
        assert_eq!(
            (ongoing.duration_ns(), ongoing.found_at, ongoing.stacks.total_ns()),
            (120, Some(1_110), 10)
        );

        let ended = loop_with(&[(1_000, 1_300)], 1);
        log.update(ID, &ended, Some(&machine), &moment(None));
        // A capture may come late.
        log.capture(&capture(1_000, 9));
        assert!(log.ongoing.is_none());
        let [stall] = log.past().collect::<Vec<_>>()[..] else { panic!("{log:?}") };
        assert_eq!((stall.duration_ns(), stall.ended_at, stall.found_at), (300, Some(1_300), Some(1_110)));
        let stacks: Vec<_> = stall.stacks.iter().map(|stack| (stack.stack.user[0], stack.count)).collect();
        assert_eq!(stacks, [(7, 2), (9, 1)]);
    }

    #[test]
    fn what_is_not_kept_is_counted() {
        let mut log = StallLog::default();
        let six = loop_with(&[(30, 40), (50, 60), (70, 80), (90, 95)], 6);
        log.update(ID, &six, None, &moment(None));
        assert_eq!((log.past().len(), log.dropped()), (4, 2));
        let mut before = six;
        for number in 7..100 {
            let now = loop_with(&[(number * 100, number * 100 + 50)], number);
            log.update(ID, &now, Some(&before), &moment(None));
            before = now;
        }
        assert_eq!((log.past().len() as u64 + log.dropped(), log.past().len()), (99, PAST_STALLS));
        assert_eq!(log.past().last().map(|stall| stall.began_at), Some(9_900));
    }

    #[test]
    fn an_account_adds_up_whatever_is_in_it() {
        let slept =
            |syscall, total_ns| SleptIn { syscall, count: 2, total_ns, max_ns: total_ns, argument: 3 };
        let slice = Slice {
            ready_ns: 100,
            throttled_ns: 200,
            user_samples: 1,
            kernel_samples: 2,
            slept_in: [slept(74, 50), slept(NO_SYSCALL, 60), slept(STOPPED, 70), slept(0, 80)],
            slept_elsewhere: slept(9, 90),
        };
        let mut machine = loop_with(&[], 0);
        (machine.syscall, machine.argument) = (1, 4);
        let open = OpenInterval { state: State::Blocked, ns: 30, ready_ns: 20 };
        let account = Account::of(&slice, 1_000, Some((&machine, &open)));
        let parts = account.parts();
        assert_eq!(parts.iter().map(|(_, ns)| ns).sum::<u64>(), 1_000);
        let of = |cause| parts.iter().find(|(other, _)| *other == cause).map(|(_, ns)| *ns);
        assert_eq!(of(Cause::Blocked(OTHER_SYSCALLS)), Some(90 + 30));
        assert_eq!((of(Cause::PageFault), of(Cause::Stopped)), (Some(60), Some(70)));
        assert_eq!((of(Cause::Preempted), of(Cause::Throttled)), (Some(120), Some(200)));
        // What is left is split as the samples are.
        assert_eq!((of(Cause::User), of(Cause::Kernel)), (Some(100), Some(200)));
        assert_eq!(of(Cause::OnCpu), None);
        let unsampled = Account { user_samples: 0, kernel_samples: 0, ..account };
        assert_eq!(unsampled.user_and_kernel_ns(), None);
        assert_eq!(unsampled.parts().iter().map(|(_, ns)| ns).sum::<u64>(), 1_000);
    }

    #[test]
    fn stacks_are_bounded_and_what_is_left_out_is_weighed() {
        let mut stacks = Stacks::default();
        for function in 0..STACKS as u64 + 10 {
            stacks.add(&capture(1, function));
        }
        stacks.add(&capture(1, 3));
        assert_eq!((stacks.iter().len(), stacks.lost_ns()), (STACKS, 50));
        assert_eq!(stacks.iter().next().map(|stack| (stack.stack.user[0], stack.weight_ns)), Some((3, 10)));
    }
}
