//! Keeping the CPU while a program runs.
//!
//! Kernels may preempt a program that is hooked to a function (fully preemptible ones, since Linux 5.12) or to a tracepoint
//! (since 7.0). Then the context switch would find the thread's loop half written; and the kernel, which does not run a
//! program inside itself on one CPU, would leave out the program for every other thread that comes by meanwhile.
//!
//! Forbidding preemption is not enough: when it is allowed again, still inside the program, the kernel makes up for
//! what it was kept from. Not so while interrupts are off; the thread then goes on until the next occasion, which
//! comes when the program has ended.

use ioscope_common::{flag, kfunc};

use crate::maps::config;

/// A function of the kernel's: the loader puts its number into the call, which has this one instead.
macro_rules! kernel_function {
    ($placeholder:expr, ($($argument:expr),*) as $type:ty) => {
        // SAFETY: a call of a number is how a program calls into the kernel, and the types are those of the kernel's
        // functions, `kernel/bpf/helpers.c`. It is never reached where the loader has put nothing there. Each that takes
        // something away is followed by the one that gives it back.
        unsafe { core::mem::transmute::<usize, $type>($placeholder as usize)($($argument),*) }
    };
}

/// Runs this without losing the CPU, if it could be lost.
#[inline(always)]
pub(crate) fn undisturbed(body: impl FnOnce()) {
    let preemptible = config!(flags) & flag::PREEMPTIBLE != 0;
    if preemptible {
        kernel_function!(kfunc::PREEMPT_DISABLE, () as unsafe extern "C" fn());
    }
    body();
    if preemptible {
        let mut interrupts = 0_u64;
        kernel_function!(kfunc::IRQ_SAVE, (&raw mut interrupts) as unsafe extern "C" fn(*mut u64));
        kernel_function!(kfunc::PREEMPT_ENABLE, () as unsafe extern "C" fn());
        kernel_function!(kfunc::IRQ_RESTORE, (&raw mut interrupts) as unsafe extern "C" fn(*mut u64));
    }
}
