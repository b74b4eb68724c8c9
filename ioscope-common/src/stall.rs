//! What a slice's time goes to, kept while it goes on, and the records of where its thread was.
//!
//! A slice's account is part of the loop's state machine and runs in the kernel with it. Every slice has
//! one, because nobody knows in advance which will be a stall; it costs a wait call a few stores.

use crate::STOPPED;

/// How many system calls a slice keeps apart as reasons for being BLOCKED.
pub const SLICE_SLEEPS: usize = 4;

/// How many stalls that have ended a loop keeps for the collector.
pub const PAST_STALLS: usize = 4;

/// How often and how long a slice was asleep in one system call.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "user"), derive(Debug))]
#[repr(C)]
pub struct SleptIn {
    /// Its number, [`NO_SYSCALL`](crate::NO_SYSCALL) or [`STOPPED`]. Meaningless while `count` is 0, as is
    /// all else.
    pub syscall: i32,
    /// How many sleeps.
    pub count: u32,
    /// Their total, in nanoseconds.
    pub total_ns: u64,
    /// The longest, in nanoseconds.
    pub max_ns: u64,
    /// That one's first argument.
    pub argument: u64,
}

impl SleptIn {
    /// A free entry.
    pub const FREE: Self = Self { syscall: 0, count: 0, total_ns: 0, max_ns: 0, argument: 0 };

    #[inline(always)]
    fn add(&mut self, syscall: i32, argument: u64, ns: u64) {
        if self.count == 0 {
            *self = Self { syscall, count: 1, total_ns: ns, max_ns: ns, argument };
            return;
        }
        self.count = self.count.wrapping_add(1);
        self.total_ns += ns;
        if ns > self.max_ns {
            self.max_ns = ns;
            self.argument = argument;
        }
    }
}

/// What a slice's time went to so far, but for PARKED, which is kept apart, and for what is left: on a CPU.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "user"), derive(Debug))]
#[repr(C)]
pub struct Slice {
    /// READY, in nanoseconds, without the next.
    pub ready_ns: u64,
    /// Kept off its CPU by its cgroup's limit, in nanoseconds. The machine calls it READY.
    pub throttled_ns: u64,
    /// Samples of the clock that found the thread in the program's own code. Written by the sampling
    /// probe, beside the machine.
    pub user_samples: u32,
    /// Likewise, in the kernel.
    pub kernel_samples: u32,
    /// BLOCKED, by system call, in the order of their first sleep.
    pub slept_in: [SleptIn; SLICE_SLEEPS],
    /// What found no place among these; its number means nothing.
    pub slept_elsewhere: SleptIn,
}

impl Slice {
    /// Nothing yet.
    pub const NEW: Self = Self {
        ready_ns: 0,
        throttled_ns: 0,
        user_samples: 0,
        kernel_samples: 0,
        slept_in: [SleptIn::FREE; SLICE_SLEEPS],
        slept_elsewhere: SleptIn::FREE,
    };

    /// Begins anew. A wait call's return comes here, mostly to find that nothing is to be done.
    #[inline(always)]
    pub(crate) fn begin(&mut self) {
        self.ready_ns = 0;
        self.throttled_ns = 0;
        self.user_samples = 0;
        self.kernel_samples = 0;
        // Places are taken in their order.
        if self.slept_in[0].count != 0 {
            for entry in &mut self.slept_in {
                entry.count = 0;
            }
            self.slept_elsewhere.count = 0;
        }
    }

    /// A sleep has ended.
    #[inline(always)]
    pub(crate) fn sleep(&mut self, syscall: i32, argument: u64, ns: u64) {
        for entry in &mut self.slept_in {
            if entry.count == 0 || entry.syscall == syscall {
                entry.add(syscall, argument, ns);
                return;
            }
        }
        self.slept_elsewhere.add(STOPPED, argument, ns);
    }
}

/// A stall that has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "user"), derive(Debug))]
#[repr(C)]
pub struct PastStall {
    /// When it began, in nanoseconds of `CLOCK_MONOTONIC`.
    pub began_at: u64,
    /// When it ended.
    pub ended_at: u64,
    /// What the time between went to.
    pub slice: Slice,
}

impl PastStall {
    /// A free entry.
    pub const FREE: Self = Self { began_at: 0, ended_at: 0, slice: Slice::NEW };
}

/// The registers by which a stack is unwound.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "user"), derive(Debug))]
#[repr(C)]
pub struct UserRegisters {
    /// Where the program goes on.
    pub ip: u64,
    /// The stack pointer.
    pub sp: u64,
    /// The frame pointer: `rbp`, `x29`.
    pub fp: u64,
    /// The link register: `x30`; 0 on `x86_64`.
    pub lr: u64,
}

/// Frames of a program that a capture keeps at most: `PERF_MAX_STACK_DEPTH`, which is the kernel's own
/// limit unless it was raised (`kernel.perf_event_max_stack`), `include/uapi/linux/perf_event.h`.
pub const USER_FRAMES: usize = 127;
/// Frames of the kernel that a capture keeps at most.
pub const KERNEL_FRAMES: usize = 48;
/// How much of the stack a capture keeps at most, in bytes.
pub const STACK_BYTES: usize = 16 << 10;
/// In pieces of so many bytes: one that cannot be read in full ends the copy.
pub const STACK_PIECE: usize = 1 << 10;

/// Where a thread was at one moment. It lies in the ring buffer as it is; what is beyond the lengths that it
/// names is whatever was there before.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct CaptureRecord {
    /// [`kind::CAPTURE`](crate::kind::CAPTURE).
    pub kind: u8,
    /// 1 when the thread is about to sleep, 0 when the clock found it on a CPU.
    pub asleep: u8,
    /// Unused.
    pub reserved: [u8; 2],
    /// The loop's place in the map of loops.
    pub slot: u32,
    /// When, in nanoseconds of `CLOCK_MONOTONIC`. Of a sleep: when it began.
    pub at: u64,
    /// Since when it serves: by this, the stall is told.
    pub slice: u64,
    /// The system call that it is about to sleep in, [`NO_SYSCALL`](crate::NO_SYSCALL) or [`STOPPED`].
    pub syscall: i32,
    /// How many bytes of `user` are filled; negative when there are none to be had.
    pub user_length: i32,
    /// How many bytes of `kernel` are filled; nothing when it was in the program's own code.
    pub kernel_length: i32,
    /// How many bytes of `stack` are filled.
    pub stack_length: u32,
    /// The program's registers.
    pub registers: UserRegisters,
    /// Addresses in the program, innermost first, found by frame pointers.
    pub user: [u64; USER_FRAMES],
    /// Addresses in the kernel, innermost first.
    pub kernel: [u64; KERNEL_FRAMES],
    /// The program's stack, from its stack pointer upwards.
    pub stack: [u8; STACK_BYTES],
}

/// How a sleep went on that a [`CaptureRecord`] tells the beginning of.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "user"), derive(Debug))]
#[repr(C)]
pub struct SleptRecord {
    /// [`kind::SLEPT`](crate::kind::SLEPT).
    pub kind: u8,
    /// Unused.
    pub reserved: [u8; 3],
    /// The loop's place in the map of loops.
    pub slot: u32,
    /// When it began: the capture's `at`.
    pub since: u64,
    /// How long it lasted, in nanoseconds.
    pub ns: u64,
    /// A [`State`](crate::State): BLOCKED or PARKED.
    pub state: u32,
    /// Unused.
    pub unused: u32,
}
