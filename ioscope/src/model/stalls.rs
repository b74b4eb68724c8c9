//! Stalls: what a slice at or over the threshold was spent on, where, and which ones there were.
//!
//! Pure data and arithmetic, as all of the model. Addresses are as the kernel saw them: what they are
//! called is asked of `symbols`, by who draws or prints them.

use std::{collections::VecDeque, sync::Arc};

use ioscope_common::{NO_SYSCALL, STOPPED};

use super::LoopId;

/// How many stalls of a loop are kept, the latest; what had to go is counted.
pub const PAST_STALLS: usize = 32;

/// How many different stacks of a stall are kept apart; what comes after is counted.
pub const STACKS: usize = 64;

/// A stall, past or still going on. Times are in nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stall {
    /// Whose it is.
    pub loop_id: LoopId,
    /// When the slice began: when its wait call returned. With the loop, it names the stall.
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
    /// How long it lasted, or has lasted, in nanoseconds, without PARKED time.
    pub const fn duration_ns(&self) -> u64 {
        self.account.duration_ns
    }

    /// Whether it goes on.
    pub const fn is_ongoing(&self) -> bool {
        self.ended_at.is_none()
    }
}

/// What a slice's time went to. PARKED time is in none of it.
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

/// Where a thread was, as the kernel saw it: addresses, innermost first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Stack {
    /// In the kernel; empty when it was in the program's own code.
    pub kernel: Vec<u64>,
    /// In the program. Found by frame pointers, or, where there was a copy of the stack and tables to
    /// unwind it with, by these.
    pub user: Vec<u64>,
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
    /// When the slice began.
    pub slice: u64,
    /// [`Cause::User`] or [`Cause::Kernel`] of a sample; of a sleep, what it was in.
    pub cause: Cause,
    /// How much time it stands for, in nanoseconds: the distance of the samples, or the sleep's length.
    pub weight_ns: u64,
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
            count: 1,
            weight_ns: capture.weight_ns,
        });
    }

    /// Adds what others found: to merge those of several stalls.
    pub fn add_all(&mut self, other: &Self) {
        other.list.iter().for_each(|stack| self.add_weighted(stack));
        self.lost_ns += other.lost_ns;
    }

    fn add_weighted(&mut self, new: &WeightedStack) {
        let known = self.list.iter().position(|known| known.cause == new.cause && known.stack == new.stack);
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

    /// The stall that began then.
    pub fn get(&self, began_at: u64) -> Option<&Stall> {
        self.iter().rev().find(|stall| stall.began_at == began_at)
    }
}
