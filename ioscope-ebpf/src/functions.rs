//! Wait calls, seen at the functions behind the system calls: nothing else on the machine pays for it.
//!
//! Each function takes the saved registers and returns the call's result. 32-bit calls have functions of their own,
//! which are left alone. The loader says which function a program goes to; the name differs between architectures.

use core::ffi::c_void;

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
    syscalls::{Registers, on_other, on_return, on_wait},
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

/// A program that stands in for another one, if the kernel has left that out; and the map of one place where it finds that
/// one. A program of its own, so that the kernel, which does not run a program inside itself, has no reason to leave out
/// this one too; and a map of its own, because a map takes the programs of one function only.
macro_rules! stand_in {
    ($program:ident, $section:literal, $context:ident, $what:ident) => {
        const _: () = {
            #[unsafe(link_section = "maps")]
            #[unsafe(export_name = concat!("of_", stringify!($program)))]
            static PROGRAM: ProgramArray = ProgramArray::with_max_entries(1, 0);

            #[unsafe(link_section = $section)]
            #[unsafe(export_name = concat!("instead_of_", stringify!($program)))]
            extern "C" fn stand_in(ctx: *mut c_void) -> i32 {
                let ctx = $context::new(ctx);
                if !is_done(registers!(ctx), seen::$what) {
                    // SAFETY: it takes the context that this one takes, and nothing is to be done after it.
                    unsafe { PROGRAM.tail_call(&ctx, 0) };
                }
                0
            }
        };
    };
}

/// The programs of a wait call.
macro_rules! wait_call {
    ($call:ident, $enter:ident, $return:ident) => {
        #[doc = concat!("The entry of [`WaitCall::", stringify!($call), "`].")]
        #[fentry]
        pub(crate) fn $enter(ctx: FEntryContext) -> i32 {
            undisturbed(|| on_wait(WaitCall::$call, registers!(ctx), false));
            0
        }

        #[doc = concat!("The return of [`WaitCall::", stringify!($call), "`].")]
        #[fexit]
        pub(crate) fn $return(ctx: FExitContext) -> i32 {
            // After the arguments, of which there is one, comes the result.
            undisturbed(|| on_return(registers!(ctx), ctx.arg(1)));
            0
        }

        stand_in!($enter, "fentry", FEntryContext, ENTRY);
        stand_in!($return, "fexit", FExitContext, RETURN);
    };
}

wait_call!(EpollWait, enter_epoll_wait, return_epoll_wait);
wait_call!(EpollPwait, enter_epoll_pwait, return_epoll_pwait);
wait_call!(EpollPwait2, enter_epoll_pwait2, return_epoll_pwait2);
wait_call!(Poll, enter_poll, return_poll);
wait_call!(Ppoll, enter_ppoll, return_ppoll);
wait_call!(Select, enter_select, return_select);
wait_call!(Pselect6, enter_pselect6, return_pselect6);
wait_call!(IoUringEnter, enter_io_uring_enter, return_io_uring_enter);
wait_call!(IoGetevents, enter_io_getevents, return_io_getevents);
wait_call!(IoPgetevents, enter_io_pgetevents, return_io_pgetevents);

/// The kernel goes on with a call that a signal interrupted.
#[fentry]
pub(crate) fn enter_restart_syscall(ctx: FEntryContext) -> i32 {
    undisturbed(|| on_other(Transition::Resume, registers!(ctx)));
    0
}

/// And that returns.
#[fexit]
pub(crate) fn return_restart_syscall(ctx: FExitContext) -> i32 {
    undisturbed(|| on_return(registers!(ctx), ctx.arg(1)));
    0
}

/// A signal handler has run.
#[fentry]
pub(crate) fn enter_rt_sigreturn(ctx: FEntryContext) -> i32 {
    undisturbed(|| on_other(Transition::HandlerDone, registers!(ctx)));
    0
}

/// Whether there is nothing to stand in for. A thread without a loop is left to the program: it may be a target's.
#[inline(always)]
fn is_done(registers: Registers, what: u32) -> bool {
    LoopRef::running(registers)
        .or_else(|| LoopRef::of(Task::current().pid()))
        .is_some_and(|this| this.has_seen(what))
}
