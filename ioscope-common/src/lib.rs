//! What ioscope's probes and its collector share: the loop's state machine, its histograms, the
//! records of the stream and the maps' entries. Written once, run in the kernel, tested on the host.
//!
//! No `std`, no dependencies, no `unsafe`, and no panics: the BPF verifier would see them.
#![cfg_attr(not(test), no_std)]
#![expect(clippy::inline_always, reason = "a probe is one function: calls between BPF functions cost")]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "what is narrowed is known to fit, and a check would be a panic, which the verifier refuses"
)]

mod comm_pattern;
mod config;
mod control;
mod event_loop;
#[cfg(test)]
mod event_loop_tests;
mod histogram;
mod profile;
mod record;
mod stall;
mod wait_call;

pub use comm_pattern::{COMM_LEN, CommPatterns, PatternError};
pub use config::{CGROUPS, Offsets, ProbeConfig, SYSCALLS, action, flag, kfunc};
pub use control::{
    ArgsInMemory, Control, DIRECTORY_BLOCK, Drops, LoopSlot, PollerKey, PollerUsers, RingEvents, seen, status,
};
pub use event_loop::{
    BLOCKERS, Block, Blocker, Counters, EINTR, ERRNOS, ETIME, ErrnoCount, Loop, NO_SYSCALL, NO_WAKEUP,
    OpenInterval, POLLERS, PollerKind, PollerUse, READY_UNKNOWN, READY_UNMEASURED, STOPPED, State, Step,
    TIMEOUT_NEVER, TIMEOUT_UNKNOWN, Transition, WaitArgs, Wake, WakerContext,
};
pub use histogram::{
    COUNT_BUCKETS, Counts, DURATION_BUCKETS, Durations, Histogram, bucket_high, bucket_low, bucket_of,
};
pub use profile::{CallTimes, SyscallProfile};
pub use record::{BlockRecord, Iteration, kind};
pub use stall::{
    CaptureRecord, KERNEL_FRAMES, PAST_STALLS, PastStall, SLICE_SLEEPS, STACK_BYTES, STACK_PIECE, SleptIn,
    SleptRecord, Slice, USER_FRAMES, UserRegisters,
};
pub use wait_call::WaitCall;
