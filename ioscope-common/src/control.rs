//! What lies in the maps: the switches that the collector sets, the counts of what was dropped, and
//! a loop's entry.

use crate::{COMM_LEN, Loop, UserRegisters, Wake};

/// The collector's switches: one entry, mapped into its memory.
#[derive(Clone, Copy)]
#[cfg_attr(any(test, feature = "user"), derive(Debug))]
#[repr(C)]
pub struct Control {
    /// Which loops stream their iterations: one of [`Control::STREAM_OFF`] and its siblings.
    pub stream: u32,
    /// Of which pollers it is noted when they become ready, and what happens to them: bits, [`Control::NOTES_OF_EPOLL`] and its sibling.
    pub notes: u32,
    /// A loop duration from here on is a stall, in nanoseconds, of loops that are new.
    pub stall_threshold: u64,
    /// From this loop duration on, in nanoseconds, it is looked at where the thread is.
    pub warn_threshold: u64,
}

impl Control {
    /// No loop streams.
    pub const STREAM_OFF: u32 = 0;
    /// Every loop streams.
    pub const STREAM_ALL: u32 = 1;
    /// The loops that are marked stream.
    pub const STREAM_MARKED: u32 = 2;

    /// Epoll instances.
    pub const NOTES_OF_EPOLL: u32 = 1;
    /// Rings.
    pub const NOTES_OF_RINGS: u32 = 2;
}

/// What was dropped, one entry per CPU.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "user"), derive(Debug))]
#[repr(C)]
pub struct Drops {
    /// Records that found no place in the ring buffer.
    pub ring_full: u64,
    /// Threads that found no place in the map of loops.
    pub loops_full: u64,
    /// Processes that found no place in the map of targets.
    pub targets_full: u64,
    /// Threads whose number is beyond what the directory was made for.
    pub out_of_directory: u64,
    /// Wait calls of 32-bit programs, which are not traced.
    pub compat_calls: u64,
    /// Runs of the probes that the kernel left out, because the same probe was running on that CPU already. Counted
    /// by the kernel, filled in by the collector.
    pub skipped_runs: u64,
    /// Captures of stacks that found no place in their ring buffer.
    pub captures_full: u64,
    /// Of threads that were found asleep in a wait call, those that found no place in the map of loops. One program
    /// finds them, where a wait call may be seen by several; the collector makes them part of `loops_full`.
    pub sleepers_full: u64,
}

/// Whether an entry of the map of loops is in use.
pub mod status {
    /// Free, or being prepared.
    pub const FREE: u32 = 0;
    /// A living thread's.
    pub const LIVE: u32 = 1;
    /// A thread's that has ended; the collector takes it over and frees it.
    pub const ENDED: u32 = 2;
}

/// A wait call's arguments as plain numbers: [`WaitArgs`](crate::WaitArgs).
#[derive(Clone, Copy)]
#[cfg_attr(any(test, feature = "user"), derive(Debug))]
#[repr(C)]
pub struct ArgsInMemory {
    /// Nanoseconds, or one of the constants.
    pub timeout: i64,
    /// The ring's address.
    pub ring: u64,
    /// What was taken out of the ring.
    pub taken: u32,
    /// The limit of events.
    pub max_events: u32,
    /// The poller's descriptor.
    pub fd: i32,
    /// The [`WaitCall`](crate::WaitCall).
    pub call: u8,
    /// The [`PollerKind`](crate::PollerKind).
    pub poller: u8,
    /// Unused.
    pub reserved: u16,
}

/// An entry of the map of loops.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub struct LoopSlot {
    // What is seldom touched comes first, so that what every system call touches lies together.
    /// The thread's name when it was first seen.
    pub comm: [u8; COMM_LEN],
    /// The program's registers when its last sleep outside a wait call began. Written by itself.
    pub asleep_at: UserRegisters,
    /// When a sleep was last captured. Written by itself.
    pub captured_at: u64,
    /// Not 0: where the thread was when its present or last sleep began has been captured. Written by
    /// itself.
    pub captured: u32,
    /// Which of the thread's hooks has been dealt with last: one of [`seen`]. Written by itself.
    pub seen: u32,
    /// A loop duration from here on is a stall of this loop, in nanoseconds: [`Control::stall_threshold`], unless the
    /// collector knows better.
    pub stall_threshold: u64,
    /// Odd while the machine is being written: a reader takes a copy, and takes it again when this
    /// has changed meanwhile.
    pub seq: u32,
    /// One of [`status`].
    pub status: u32,
    /// The thread's process, in ioscope's pid namespace (0: not visible there).
    pub tgid: u32,
    /// The thread, in ioscope's pid namespace (0: not visible there).
    pub tid: u32,
    /// The process in its own, innermost pid namespace.
    pub inner_tgid: u32,
    /// The thread in its own, innermost pid namespace.
    pub inner_tid: u32,
    /// The thread in the initial pid namespace.
    pub kernel_tid: u32,
    /// Not 0: another thread of the process uses the poller too. Set by either, never reset.
    pub shared: u32,
    /// Not 0: the collector wants this loop's stream.
    pub marked: u32,
    /// What the last step asked for: a [`Step`](crate::Step). See [`Step::bits`](crate::Step::bits).
    pub step: u32,
    /// Where the thread's registers lie while it is in a system call, an address in the kernel: at the
    /// top of its kernel stack, and so no other living thread's.
    pub registers: u64,
    /// The last wakeup: written by the waker's CPU.
    pub wake: Wake,
    /// What a wait call is entered with, on its way to the machine: see [`Self::step`].
    pub args: ArgsInMemory,
    /// What happened to the rings that the loop waits on: written by whoever it happens to.
    pub ring_events: RingEvents,
    /// The machine: written by the thread's own transitions.
    pub machine: Loop,
}

/// The hooks of a thread's wait calls. A kernel that preempts programs may leave one out, so that each hook has several;
/// whichever comes first does what there is to do, and by this the others see that it is done.
pub mod seen {
    /// None yet.
    pub const NOTHING: u32 = 0;
    /// A wait call's entry.
    pub const ENTRY: u32 = 1;
    /// A wait call's return.
    pub const RETURN: u32 = 2;
    /// The end of a signal handler.
    pub const HANDLER_DONE: u32 = 3;
}

/// What happened to the rings that a loop waits on. Both only grow.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "user"), derive(Debug))]
#[repr(C)]
pub struct RingEvents {
    /// Completions that found the completion queue full.
    pub cq_overflows: u64,
    /// Requests that were handed to a worker thread of the kernel (io-wq), because they would have blocked.
    pub io_wq_punts: u64,
}

/// A poller that a process's threads wait on: the key.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct PollerKey {
    /// The process, in the initial pid namespace.
    pub tgid: u32,
    /// A [`PollerKind`](crate::PollerKind).
    pub kind: u32,
    /// The file descriptor.
    pub fd: i32,
}

/// A poller that a process's threads wait on: who does.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct PollerUsers {
    /// The first user's place in the map of loops.
    pub slot: u32,
    /// The first user's thread, in the initial pid namespace.
    pub kernel_tid: u32,
    /// How many threads have come and not ended.
    pub users: u32,
}

/// Entries of a block of the directory, which leads from a thread's number to its place.
pub const DIRECTORY_BLOCK: usize = 1024;
