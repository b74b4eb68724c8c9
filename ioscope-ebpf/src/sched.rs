//! The scheduler: when a loop's thread leaves and gets its CPU, and who wakes it.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    helpers::generated::{bpf_get_smp_processor_id, bpf_task_pt_regs},
    macros::btf_tracepoint,
    programs::BtfTracePointContext,
};
use ioscope_common::{NO_SYSCALL, STOPPED, SYSCALLS, Transition, WakerContext, action, flag};

use crate::{
    kernel::{Task, read_kernel, thread_number},
    loops::{LoopRef, now},
    maps::config,
    stalls,
    syscalls::{Registers, action_of},
};

/// `__TASK_STOPPED` and `__TASK_TRACED`, include/linux/sched.h.
const STOPPED_OR_TRACED: u32 = 0x4 | 0x8;

/// A context switch.
#[btf_tracepoint(function = "sched_switch")]
pub(crate) fn sched_switch(ctx: BtfTracePointContext) -> i32 {
    let previous = Task::from_argument(ctx.arg::<*const c_void>(1));
    let next = Task::from_argument(ctx.arg::<*const c_void>(2));
    let leaving = LoopRef::of(previous.pid());
    let coming = LoopRef::of(next.pid());
    if leaving.is_none() && coming.is_none() {
        return 0;
    }
    LoopRef::set_running(coming);
    let now = now();
    if let Some(leaving) = leaving {
        // First of all: what is still to be found out would double the ways through it that the verifier goes.
        leaving.note_unseen(|| now);
        // A preempted thread is runnable, whatever it was about to become.
        let preempted = ctx.arg::<u64>(0) & 0xff != 0;
        let state = if preempted {
            0
        } else if config!(flags) & flag::SWITCH_STATE != 0 {
            ctx.arg::<u32>(3)
        } else {
            previous.state()
        };
        let asleep = state != 0;
        let (mut syscall, mut futex, mut argument) = (NO_SYSCALL, false, 0);
        if asleep && !leaving.in_wait() {
            let registers = saved_registers(previous);
            (syscall, futex) = sleeps_in(previous, registers, state);
            argument = registers.first_argument();
            let captured = stalls::on_sleep(ctx.as_ptr(), leaving, registers, syscall, now);
            leaving.set_asleep_at(registers.user(), captured);
        }
        let throttled = !asleep && is_throttled(previous);
        leaving.switch_out(Transition::SwitchOut { asleep, syscall, futex, argument, throttled }, now);
    }
    if let Some(coming) = coming {
        coming.switch_in(now);
    }
    0
}

/// The system call that a thread sleeps in, and whether it is a futex wait.
#[inline(always)]
fn sleeps_in(task: Task, registers: Registers, state: u32) -> (i32, bool) {
    if state & STOPPED_OR_TRACED != 0 {
        return (STOPPED, false);
    }
    let number = registers.syscall();
    if number >= SYSCALLS as u32 || task.in_compat_syscall() {
        return (NO_SYSCALL, false);
    }
    (number as i32, action_of(number) == action::FUTEX)
}

/// Whether a thread that leaves its CPU runnable does so because its cgroup has used up its share.
#[inline(always)]
fn is_throttled(task: Task) -> bool {
    if config!(flags) & flag::THROTTLED_TASK != 0 {
        return task.throttled();
    }
    if config!(flags) & flag::THROTTLED_QUEUE != 0 {
        let group_queue = task.pointer(config!(offsets.task_cfs_rq));
        let count = group_queue + u64::from(config!(offsets.cfs_rq_throttle_count));
        return read_kernel::<u32>(count).is_some_and(|count| count != 0);
    }
    false
}

/// The registers that a thread entered the kernel with: by the helper or, where there is none, from the top of its
/// kernel stack (`task_pt_regs`, `arch/*/include/asm/processor.h`).
#[inline(always)]
pub(crate) fn saved_registers(task: Task) -> Registers {
    let place = task.place();
    if config!(flags) & flag::TASK_REGISTERS != 0 && place.is_known() {
        // SAFETY: the verifier knows the pointer as a task's.
        let registers = unsafe { bpf_task_pt_regs(place.address().cast_mut().cast()) };
        return Registers::from_argument(registers as *const c_void);
    }
    let stack = task.pointer(config!(offsets.task_stack));
    Registers::at(stack + u64::from(config!(offsets.stack_registers)))
}

/// A sleeping thread is about to be made runnable.
#[btf_tracepoint(function = "sched_waking")]
pub(crate) fn sched_waking(ctx: BtfTracePointContext) -> i32 {
    let woken = Task::from_argument(ctx.arg::<*const c_void>(0));
    if let Some(woken) = LoopRef::of(woken.pid()) {
        let current = Task::current();
        woken.woken(thread_number(current), waker_context(current) as u32, now());
    }
    0
}

#[inline(always)]
fn waker_context(current: Task) -> WakerContext {
    match preempt_count(current) {
        Some(count) if count & config!(interrupt_mask) != 0 => WakerContext::Interrupt,
        Some(count) if count & config!(soft_interrupt_mask) != 0 => WakerContext::SoftInterrupt,
        // The idle task wakes nobody of its own.
        _ if current.pid() == 0 => WakerContext::Interrupt,
        _ => WakerContext::Thread,
    }
}

#[inline(always)]
fn preempt_count(current: Task) -> Option<u32> {
    let flags = config!(flags);
    if flags & flag::PREEMPT_IN_TASK != 0 {
        return Some(current.preempt_count());
    }
    let base = if flags & flag::PREEMPT_BY_RUN_QUEUE != 0 {
        let group_queue = current.pointer(config!(offsets.task_cfs_rq));
        read_kernel::<u64>(group_queue + u64::from(config!(offsets.cfs_rq_rq)))?
    } else if flags & flag::PREEMPT_PER_CPU != 0 {
        // SAFETY: always allowed.
        let cpu = unsafe { bpf_get_smp_processor_id() };
        read_kernel::<u64>(config!(per_cpu_offsets) + u64::from(cpu) * 8)?
    } else {
        return None;
    };
    read_kernel(base.wrapping_add(config!(preempt_count)))
}
