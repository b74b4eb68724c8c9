//! Where a thread is while its slice is too long: its stack in the kernel and in the program, and enough
//! to unwind the latter by tables.
//!
//! Nothing here runs for a loop whose slice is short, but for one question at each tick of the sampling
//! clock and at each sleep outside a wait call.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{
        bpf_get_current_pid_tgid, bpf_get_stack, bpf_probe_read_user, bpf_ringbuf_output,
        bpf_ringbuf_reserve, bpf_ringbuf_submit,
    },
    macros::perf_event,
    programs::PerfEventContext,
};
use ioscope_common::{CaptureRecord, NO_SYSCALL, STACK_BYTES, STACK_PIECE, SleptRecord, kind};

use crate::{
    kernel::Task,
    loops::{LoopRef, NO_WAKEUP, now, warn_threshold},
    maps::{CAPTURES, count_drop},
    sched::saved_registers,
    syscalls::Registers,
};

/// `BPF_F_USER_STACK`, `include/uapi/linux/bpf.h`.
const USER_STACK: u64 = 1 << 8;

/// Sleeps of a loop are captured so far apart at least, in nanoseconds: one that sleeps ten thousand times
/// in a slice does not pay for ten thousand captures.
const SLEEPS_APART: u64 = 1_000_000;

/// A tick of the clock on this CPU: whoever runs is asked how long its slice has lasted.
#[perf_event]
pub(crate) fn sample(ctx: PerfEventContext) -> u32 {
    // SAFETY: always allowed.
    let tid = unsafe { bpf_get_current_pid_tgid() } as u32;
    if let Some(this) = LoopRef::of(tid) {
        let now = now();
        if this.has_served_for(warn_threshold(), now) {
            let in_kernel = has_kernel_stack(ctx.as_ptr());
            this.count_sample(in_kernel);
            capture(ctx.as_ptr(), this, saved_registers(Task::current()), None, now);
        }
    }
    0
}

/// The clock's tick has interrupted the kernel: there is a frame of it. In the program's own code there is
/// none.
#[inline(always)]
fn has_kernel_stack(ctx: *mut c_void) -> bool {
    let mut frame = 0_u64;
    // SAFETY: the helper writes no more than the size.
    let length = unsafe { bpf_get_stack(ctx, (&raw mut frame).cast(), size_of::<u64>() as u32, 0) };
    length > 0
}

/// The thread that runs is about to sleep outside a wait call. Tells whether that was captured.
#[inline(always)]
pub(crate) fn on_sleep(
    ctx: *mut c_void,
    this: LoopRef,
    registers: Registers,
    syscall: i32,
    now: u64,
) -> bool {
    this.has_served_for(warn_threshold(), now)
        && this.may_capture(now, SLEEPS_APART)
        && capture(ctx, this, registers, Some(syscall), now)
}

/// Takes the stacks of the thread that runs, and hands them to the collector.
#[inline(always)]
fn capture(ctx: *mut c_void, this: LoopRef, registers: Registers, asleep_in: Option<i32>, now: u64) -> bool {
    // SAFETY: the map is a ring buffer. What comes back is as large as was asked for, or null.
    let record: *mut CaptureRecord = unsafe {
        bpf_ringbuf_reserve((&raw const CAPTURES).cast_mut().cast(), size_of::<CaptureRecord>() as u64, 0)
    }
    .cast();
    if record.is_null() {
        count_drop!(captures_full);
        return false;
    }
    let user = registers.user();
    // SAFETY: the record is ours until it is submitted; the helpers write no more than they are told.
    unsafe {
        (*record).kind = kind::CAPTURE;
        (*record).asleep = u8::from(asleep_in.is_some());
        (*record).slot = this.slot();
        (*record).at = now;
        (*record).slice = this.serving_since();
        (*record).syscall = asleep_in.unwrap_or(NO_SYSCALL);
        (*record).registers = user;
        (*record).user_length = bpf_get_stack(
            ctx,
            (&raw mut (*record).user).cast(),
            size_of_val(&(*record).user) as u32,
            USER_STACK,
        ) as i32;
        (*record).kernel_length =
            bpf_get_stack(ctx, (&raw mut (*record).kernel).cast(), size_of_val(&(*record).kernel) as u32, 0)
                as i32;
        let mut length = 0;
        while length < STACK_BYTES {
            let into = (&raw mut (*record).stack).cast::<u8>().add(length);
            let from = user.sp.wrapping_add(length as u64) as *const c_void;
            if bpf_probe_read_user(into.cast(), STACK_PIECE as u32, from) != 0 {
                break;
            }
            length += STACK_PIECE;
        }
        (*record).stack_length = length as u32;
        bpf_ringbuf_submit(record.cast(), NO_WAKEUP);
    }
    true
}

/// A sleep that was captured has ended.
#[inline(always)]
pub(crate) fn on_wake(this: LoopRef) {
    let block = this.last_block();
    let record = SleptRecord {
        kind: kind::SLEPT,
        reserved: [0; 3],
        slot: this.slot(),
        since: block.since,
        ns: block.ns,
        state: block.state,
        unused: 0,
    };
    // SAFETY: the record is readable for its size.
    let failed = unsafe {
        bpf_ringbuf_output(
            (&raw const CAPTURES).cast_mut().cast(),
            (&raw const record).cast_mut().cast(),
            size_of::<SleptRecord>() as u64,
            NO_WAKEUP,
        )
    };
    if failed != 0 {
        count_drop!(captures_full);
    }
}
