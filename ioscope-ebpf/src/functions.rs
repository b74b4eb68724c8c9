//! Wait calls, seen at the functions behind the system calls: nothing else on the machine pays for it.
//!
//! Each function takes the saved registers and returns the call's result. 32-bit calls have functions of their own,
//! which are left alone. The loader says which function a program goes to; the name differs between architectures.

use aya_ebpf::{
    macros::{fentry, fexit},
    maps::ProgramArray,
    programs::{FEntryContext, FExitContext},
};
use ioscope_common::{Transition, WaitCall, flag, seen};

use crate::{
    kernel::Task,
    loops::LoopRef,
    maps::config,
    sched::saved_registers,
    syscalls::{Registers, action_of, on_other, on_return, on_wait},
    undisturbed::undisturbed,
};

/// The saved registers that a function behind a system call is given. Before Linux 5.15 they are taken from the thread's
/// stack: some kernels do not describe the argument's type, and the verifier refuses to read it (seen on 5.10).
macro_rules! registers {
    ($ctx:ident) => {
        if config!(flags) & flag::TASK_REGISTERS == 0 {
            saved_registers(Task::current())
        } else {
            Registers::from_argument($ctx.arg(0))
        }
    };
}

/// A hook that goes on to a body: the one that all hooks of its kind share, so that the verifier goes through that once and
/// not for every system call. The map is the hook's own, because a map takes the programs of functions of one signature only
/// (`kernel/bpf/core.c`: `__bpf_prog_map_compatible`), and kernels write the wait calls' in two ways.
macro_rules! hook {
    ($program:ident, $attribute:ident, $context:ident, $what:ident) => {
        #[$attribute]
        pub(crate) fn $program(ctx: $context) -> i32 {
            #[unsafe(link_section = "maps")]
            #[unsafe(export_name = concat!("body_of_", stringify!($program)))]
            static BODY: ProgramArray = ProgramArray::with_max_entries(1, 0);

            if config!(flags) & flag::PREEMPTIBLE == 0 || !is_done(registers!(ctx), seen::$what) {
                // SAFETY: the body takes the context that this takes, and nothing is to be done after it.
                unsafe { BODY.tail_call(&ctx, 0) };
            }
            0
        }
    };
}

/// The hooks of a wait call.
macro_rules! wait_call {
    ($enter:ident, $return:ident) => {
        hook!($enter, fentry, FEntryContext, ENTRY);
        hook!($return, fexit, FExitContext, RETURN);
    };
}

wait_call!(enter_epoll_wait, return_epoll_wait);
wait_call!(enter_epoll_pwait, return_epoll_pwait);
wait_call!(enter_epoll_pwait2, return_epoll_pwait2);
wait_call!(enter_poll, return_poll);
wait_call!(enter_ppoll, return_ppoll);
wait_call!(enter_select, return_select);
wait_call!(enter_pselect6, return_pselect6);
wait_call!(enter_io_uring_enter, return_io_uring_enter);
wait_call!(enter_io_getevents, return_io_getevents);
wait_call!(enter_io_pgetevents, return_io_pgetevents);
hook!(return_restart_syscall, fexit, FExitContext, RETURN);

/// The body of the wait calls' entries.
#[fentry]
pub(crate) fn wait_call_entry(ctx: FEntryContext) -> i32 {
    let registers = registers!(ctx);
    if let Some(call) = WaitCall::from_number(action_of(registers.syscall())) {
        undisturbed(|| on_wait(call, registers, false));
    }
    0
}

/// The body of their returns.
#[fexit]
pub(crate) fn wait_call_return(ctx: FExitContext) -> i32 {
    // After the arguments, of which there is one, comes the result.
    undisturbed(|| on_return(registers!(ctx), ctx.arg(1)));
    0
}

/// The kernel goes on with a call that a signal interrupted.
#[fentry]
pub(crate) fn enter_restart_syscall(ctx: FEntryContext) -> i32 {
    undisturbed(|| on_other(Transition::Resume, registers!(ctx)));
    0
}

/// A signal handler has run.
#[fentry]
pub(crate) fn enter_rt_sigreturn(ctx: FEntryContext) -> i32 {
    undisturbed(|| on_other(Transition::HandlerDone, registers!(ctx)));
    0
}

/// Whether another program of this hook was here before, and its body with it. A thread without a loop is left to the body:
/// it may be a target's.
#[inline(always)]
fn is_done(registers: Registers, what: u32) -> bool {
    LoopRef::running(registers)
        .or_else(|| LoopRef::of(Task::current().pid()))
        .is_some_and(|this| this.has_seen(what))
}
