//! Threads that sleep in a wait call when tracing begins. They are loops already; without this they
//! would show only when they next wake.

use core::ffi::c_void;

use ioscope_common::WaitCall;

use crate::{
    kernel::Task,
    loops::{LoopRef, now},
    sched::saved_registers,
    syscalls::{action_of, arguments, waits},
    targets::is_target,
};

/// `include/linux/sched.h`.
const TASK_INTERRUPTIBLE: u32 = 1;

/// What the kernel hands an iterator over tasks: `struct bpf_iter__task`,
/// `kernel/bpf/task_iter.c`.
#[repr(C)]
pub(crate) struct TaskIterator {
    meta: *const c_void,
    task: *const c_void,
}

/// Runs once for every thread of the machine.
///
/// # Safety
/// The kernel calls it with its context.
#[unsafe(link_section = "iter/task")]
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn find_loops(ctx: *mut TaskIterator) -> i32 {
    // SAFETY: the verifier checks the access.
    let task = unsafe { core::ptr::read_volatile(&raw const (*ctx).task) };
    if !task.is_null() {
        consider(Task::from_argument(task));
    }
    0
}

#[inline(always)]
fn consider(task: Task) {
    let pid = task.pid();
    // Wait calls sleep so that a signal wakes them. A thread that a signal or a debugger has stopped is past
    // its call, which has returned, though its registers still name it.
    if task.state() & TASK_INTERRUPTIBLE == 0 || LoopRef::of(pid).is_some() || !is_target(task) {
        return;
    }
    let registers = saved_registers(task);
    let Some(call) = WaitCall::from_number(action_of(registers.syscall())) else {
        return;
    };
    if task.in_compat_syscall() || !waits(call, registers) {
        return;
    }
    let now = now();
    // Another process's memory cannot be read from here: its timeout stays unknown.
    let args = arguments(call, || task, registers, |_| None, now);
    if let Some(this) = LoopRef::create(task, registers, Some(&args), now) {
        this.use_poller(task.tgid(), args.poller, args.fd);
        this.watch_poller(task, &args);
    }
}
