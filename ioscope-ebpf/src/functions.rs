//! Wait calls, seen at the functions behind the system calls: nothing else on the machine pays for it.
//!
//! Each function takes the saved registers and returns the call's result. 32-bit calls have functions of their own,
//! which are left alone. The loader says which function a program goes to; the name differs between architectures.

use aya_ebpf::{
    macros::{fentry, fexit},
    programs::{FEntryContext, FExitContext},
};
use ioscope_common::{Transition, WaitCall, flag};

use crate::{
    kernel::Task,
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

/// The two programs of a wait call.
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
