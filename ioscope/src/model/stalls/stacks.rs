//! Where a thread was, and different such places with the time that each stands for.

use std::sync::Arc;

use super::Cause;
use crate::symbols::Frame;

/// How many different stacks of a stall are kept apart; what comes after is counted.
pub const STACKS: usize = 64;

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
