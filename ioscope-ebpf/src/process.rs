//! Births, ends and changes of program.

use core::ffi::c_void;

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};

use crate::{
    kernel::{Task, process_number, read_kernel},
    loops::LoopRef,
    maps::config,
    targets,
    undisturbed::undisturbed,
};

/// A thread was born. Only a process of its own needs a decision: a thread is traced if its process
/// is.
#[btf_tracepoint(function = "sched_process_fork")]
pub(crate) fn sched_process_fork(ctx: BtfTracePointContext) -> i32 {
    let parent = Task::from_argument(ctx.arg::<*const c_void>(0));
    let child = Task::from_argument(ctx.arg::<*const c_void>(1));
    if child.pid() == child.tgid() {
        targets::on_birth(parent, child);
    }
    0
}

/// A process runs another program: the loop that its thread was is over.
#[btf_tracepoint(function = "sched_process_exec")]
pub(crate) fn sched_process_exec(ctx: BtfTracePointContext) -> i32 {
    let task = Task::from_argument(ctx.arg::<*const c_void>(0));
    let (tgid, pid) = (task.tgid(), task.pid());
    let old_pid = ctx.arg::<u32>(1);
    if let Some(this) = LoopRef::of(pid) {
        this.end(tgid, pid);
        LoopRef::set_running(None);
    }
    // A thread that is not its process's first takes over the first one's number.
    if old_pid != pid
        && let Some(this) = LoopRef::of(old_pid)
    {
        this.end(tgid, old_pid);
        LoopRef::set_running(None);
    }
    targets::match_name(task);
    0
}

/// A thread has ended.
#[btf_tracepoint(function = "sched_process_exit")]
pub(crate) fn sched_process_exit(ctx: BtfTracePointContext) -> i32 {
    let task = Task::from_argument(ctx.arg::<*const c_void>(0));
    let pid = task.pid();
    if let Some(this) = LoopRef::of(pid) {
        undisturbed(|| {
            this.end(task.tgid(), pid);
            LoopRef::set_running(None);
        });
    }
    let live = task.pointer(config!(offsets.task_signal)) + u64::from(config!(offsets.signal_live));
    if read_kernel::<u32>(live) == Some(0) {
        targets::remove(process_number(task));
    }
    0
}
