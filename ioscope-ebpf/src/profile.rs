//! The system calls of a loop's slices, each with its time: only when they are asked for, because every system call
//! of the machine pays for these hooks.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use ioscope_common::{SyscallProfile, WaitCall, action};

use crate::{
    kernel::Task,
    loops::{LoopRef, now},
    maps::PROFILES,
    syscalls::{Registers, action_of, waits},
    undisturbed::undisturbed,
};

/// Every system call's entry.
#[btf_tracepoint(function = "sys_enter")]
pub(crate) fn profile_enter(ctx: BtfTracePointContext) -> i32 {
    let registers = Registers::from_argument(ctx.arg(0));
    let Some(this) = loop_of(registers) else {
        return 0;
    };
    let number = ctx.arg::<u32>(1);
    // The numbers of 32-bit calls mean others.
    if registers.may_be_compat() && Task::current().in_compat_syscall() {
        return 0;
    }
    let action = action_of(number);
    let is_wait = match WaitCall::from_number(action) {
        Some(call) => waits(call, registers),
        None => action == action::RESUME && (this.in_wait() || this.is_restarting()),
    };
    if !is_wait {
        undisturbed(|| {
            if let Some(profile) = profile_of(this) {
                profile.enter(number, now());
            }
        });
    }
    0
}

/// Every system call's exit.
#[btf_tracepoint(function = "sys_exit")]
pub(crate) fn profile_exit(ctx: BtfTracePointContext) -> i32 {
    let registers = Registers::from_argument(ctx.arg(0));
    if let Some(this) = loop_of(registers) {
        undisturbed(|| {
            if let Some(profile) = profile_of(this)
                && profile.entered_at != 0
            {
                profile.leave(now());
            }
        });
    }
    0
}

/// The loop of the thread that runs. Nothing is noted: the thread may lose its CPU here.
#[inline(always)]
fn loop_of(registers: Registers) -> Option<LoopRef> {
    LoopRef::running(registers).or_else(|| LoopRef::of(Task::current().pid()))
}

#[inline(always)]
fn profile_of<'a>(this: LoopRef) -> Option<&'a mut SyscallProfile> {
    // SAFETY: the pointer is an array entry's. Only the thread writes there, one call after the other.
    PROFILES.get_ptr_mut(this.slot()).map(|profile| unsafe { &mut *profile })
}
