//! Wait calls: what their entry and return make of a loop, and their arguments. They are seen at the functions
//! behind the system calls ([`crate::functions`]) or, where these cannot be hooked, at the tracepoints of every system
//! call's entry and exit, which are here.
//!
//! Both tracepoints fire for every system call of the machine, so the test of the number comes
//! first and nothing before it.

use core::ffi::c_void;

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use ioscope_common::{
    PollerKind, SYSCALLS, Step, TIMEOUT_NEVER, TIMEOUT_UNKNOWN, Transition, UserRegisters, WaitArgs,
    WaitCall, action, flag, seen,
};

use crate::{
    kernel::{Place, Task, read_user},
    loops::{LoopRef, now},
    maps::{config, count_drop},
    rings,
    targets::is_current_target,
    undisturbed::undisturbed,
};

/// What a system call's number means.
#[inline(always)]
pub(crate) fn action_of(number: u32) -> u8 {
    if number < SYSCALLS as u32 { config!(actions[number as usize]) } else { action::NONE }
}

/// The saved registers of a system call: `struct pt_regs`.
#[derive(Clone, Copy)]
pub(crate) struct Registers(Place);

impl Registers {
    /// From a pointer that the verifier knows as `struct pt_regs`.
    #[inline(always)]
    pub(crate) const fn from_argument(regs: *const c_void) -> Self {
        Self(Place::known(regs))
    }

    /// From an address that the verifier knows nothing of.
    #[inline(always)]
    pub(crate) const fn at(address: u64) -> Self {
        Self(Place::unknown(address))
    }

    /// Where they lie.
    #[inline(always)]
    pub(crate) fn address(self) -> u64 {
        self.0.address() as u64
    }

    #[inline(always)]
    fn read<T: Copy + Default>(self, offset: u32) -> T {
        self.0.read(offset)
    }

    /// Whether this may be a 32-bit system call: `int 0x80`, which a 64-bit program can make too. On
    /// x86_64 the `syscall` instruction leaves the address of the next instruction in `rcx`, and
    /// `int 0x80` what was there before. aarch64 has programs of either kind, but no mixed ones.
    #[inline(always)]
    pub(crate) fn may_be_compat(self) -> bool {
        config!(flags) & flag::MIXED_SYSCALLS != 0
            && self.read::<u64>(config!(offsets.regs_ip)) != self.read::<u64>(config!(offsets.regs_cx))
    }

    /// The number of the system call: 8 bytes on x86_64, 4 on aarch64, of which 4 are used.
    #[inline(always)]
    pub(crate) fn syscall(self) -> u32 {
        self.read(config!(offsets.regs_syscall))
    }

    /// The first argument of the system call.
    #[inline(always)]
    pub(crate) fn first_argument(self) -> u64 {
        self.read(config!(offsets.regs_args[0]))
    }

    /// What the program's stack is unwound from.
    #[inline(always)]
    pub(crate) fn user(self) -> UserRegisters {
        UserRegisters {
            ip: self.read(config!(offsets.regs_ip)),
            sp: self.read(config!(offsets.regs_sp)),
            fp: self.read(config!(offsets.regs_fp)),
            lr: if config!(flags) & flag::LINK_REGISTER != 0 {
                self.read(config!(offsets.regs_lr))
            } else {
                0
            },
        }
    }
}

/// An argument of the system call.
macro_rules! argument {
    ($registers:expr, $index:literal) => {
        $registers.read::<u64>(config!(offsets.regs_args[$index]))
    };
}

/// Every system call's entry.
#[btf_tracepoint(function = "sys_enter")]
pub(crate) fn sys_enter(ctx: BtfTracePointContext) -> i32 {
    // A number beyond 32 bits is none: the kernel looks at the lower half only.
    let action = action_of(ctx.arg::<u32>(1));
    if action == action::NONE || action > action::LAST {
        return 0;
    }
    let registers = Registers::from_argument(ctx.arg(0));
    undisturbed(|| match WaitCall::from_number(action) {
        Some(call) => on_wait(call, registers, true),
        None if action == action::RESUME => on_other(Transition::Resume, registers),
        None => on_other(Transition::HandlerDone, registers),
    });
    0
}

/// The entry of a system call that is no wait call, and matters all the same.
#[inline(always)]
pub(crate) fn on_other(transition: Transition, registers: Registers) {
    let what = if matches!(transition, Transition::Resume) { seen::ENTRY } else { seen::HANDLER_DONE };
    if let Some(this) = LoopRef::running(registers).or_else(find_running)
        && !may_be_done(this, what)
    {
        this.set_seen(what);
        this.step(transition);
    }
}

/// Whether another program of this hook has done its work, if there is more than one.
#[inline(always)]
fn may_be_done(this: LoopRef, what: u32) -> bool {
    config!(flags) & flag::PREEMPTIBLE != 0 && this.has_seen(what)
}

/// The entry of a wait call. `mixed`: it may be a 32-bit one.
#[inline(always)]
pub(crate) fn on_wait(call: WaitCall, registers: Registers, mixed: bool) {
    let running = LoopRef::running(registers);
    let known = match running {
        Some(_) if !mixed || !registers.may_be_compat() => running,
        _ => {
            let task = Task::current();
            let known = LoopRef::of(task.pid());
            if known.is_none() && !is_current_target(task) {
                return;
            }
            if mixed && task.in_compat_syscall() {
                count_drop!(compat_calls);
                return;
            }
            known
        }
    };
    let now = now();
    let this = if let Some(known) = known {
        if running.is_none() {
            LoopRef::set_running(Some(known));
        }
        known
    } else {
        let task = Task::current();
        let Some(new) = LoopRef::create(task, registers, None, now) else {
            return;
        };
        LoopRef::set_running(Some(new));
        new
    };
    if may_be_done(this, seen::ENTRY) {
        return;
    }
    this.set_seen(seen::ENTRY);
    if !waits(call, registers) {
        this.step(Transition::Submit);
        return;
    }
    let args = this.forgotten_args(&arguments(call, Task::current, registers, read_user_timeout, now));
    let step = this.step(Transition::Enter { args, stall_threshold: this.stall_threshold() });
    if step.has(Step::NEW_POLLER) || step.has(Step::OTHER_RING) {
        let task = Task::current();
        if step.has(Step::NEW_POLLER) {
            this.use_poller(task.tgid(), args.poller, args.fd);
        }
        this.watch_poller(task, &args);
    } else if args.ring != 0 {
        this.forget_taken(&args);
    }
}

/// The loop of the thread that runs, found by asking who that is.
#[inline(always)]
fn find_running() -> Option<LoopRef> {
    let known = LoopRef::of(Task::current().pid())?;
    LoopRef::set_running(Some(known));
    Some(known)
}

/// Every system call's exit.
#[btf_tracepoint(function = "sys_exit")]
pub(crate) fn sys_exit(ctx: BtfTracePointContext) -> i32 {
    let registers = Registers::from_argument(ctx.arg(0));
    let action = action_of(registers.syscall());
    if action == action::NONE || action > action::RESUME {
        return 0;
    }
    undisturbed(|| on_return(registers, ctx.arg::<i64>(1)));
    0
}

/// The return of a wait call, or of one that was gone on with.
#[inline(always)]
pub(crate) fn on_return(registers: Registers, result: i64) {
    let Some(this) = LoopRef::running(registers).or_else(find_running) else {
        return;
    };
    // Beside the functions there is, for a while, the tracepoint for threads that slept when tracing began.
    if this.has_seen(seen::RETURN) {
        return;
    }
    this.set_seen(seen::RETURN);
    if this.in_wait() {
        let ring = if config!(flags) & flag::RINGS == 0 { 0 } else { this.ring() };
        let posted = if ring == 0 { 0 } else { rings::posted(ring) };
        let ready_at = this.ready_at();
        let step = this.step(Transition::Return { result, posted, ready_at });
        if step.has(Step::READY_TAKEN) {
            this.forget_ready();
        } else if step.has(Step::UNEXPLAINED) {
            this.watch_again();
        }
    } else if result > 0 && action_of(registers.syscall()) == WaitCall::IoUringEnter as u8 {
        this.submitted(result as u32);
    }
}

// Flags of io_uring_enter: include/uapi/linux/io_uring.h.
const IORING_ENTER_GETEVENTS: u64 = 1 << 0;
const IORING_ENTER_EXT_ARG: u64 = 1 << 3;
const IORING_ENTER_REGISTERED_RING: u64 = 1 << 4;
const IORING_ENTER_ABS_TIMER: u64 = 1 << 5;
const IORING_ENTER_EXT_ARG_REG: u64 = 1 << 6;

/// Whether the call waits: `io_uring_enter` does so on demand only.
#[inline(always)]
pub(crate) fn waits(call: WaitCall, registers: Registers) -> bool {
    !matches!(call, WaitCall::IoUringEnter) || argument!(registers, 3) & IORING_ENTER_GETEVENTS != 0
}

/// Of the program that runs.
#[inline(always)]
fn read_user_timeout(address: u64) -> Option<[i64; 2]> {
    read_user(address)
}

/// A wait call's arguments, from its registers and the program's memory.
#[inline(always)]
pub(crate) fn arguments(
    call: WaitCall,
    task: impl FnOnce() -> Task,
    registers: Registers,
    read: impl Fn(u64) -> Option<[i64; 2]>,
    now: u64,
) -> WaitArgs {
    let mut args = WaitArgs {
        call,
        poller: PollerKind::Set,
        fd: -1,
        max_events: 0,
        timeout: TIMEOUT_UNKNOWN,
        ring: 0,
        taken: 0,
    };
    match call {
        WaitCall::EpollWait | WaitCall::EpollPwait | WaitCall::EpollPwait2 => {
            args.poller = PollerKind::Epoll;
            args.fd = argument!(registers, 0) as i32;
            args.max_events = argument!(registers, 2) as u32;
            args.timeout = if matches!(call, WaitCall::EpollPwait2) {
                time(argument!(registers, 3), NANOSECOND, read)
            } else {
                milliseconds(argument!(registers, 3))
            };
        }
        WaitCall::Poll => {
            args.max_events = argument!(registers, 1) as u32;
            args.timeout = milliseconds(argument!(registers, 2));
        }
        WaitCall::Ppoll => {
            args.max_events = argument!(registers, 1) as u32;
            args.timeout = time(argument!(registers, 2), NANOSECOND, read);
        }
        WaitCall::Select => {
            args.max_events = argument!(registers, 0) as u32;
            args.timeout = time(argument!(registers, 4), MICROSECOND, read);
        }
        WaitCall::Pselect6 => {
            args.max_events = argument!(registers, 0) as u32;
            args.timeout = time(argument!(registers, 4), NANOSECOND, read);
        }
        WaitCall::IoGetevents | WaitCall::IoPgetevents => {
            args.poller = PollerKind::Aio;
            args.max_events = argument!(registers, 2) as u32;
            // It returns at once when it needs no event.
            args.timeout = if argument!(registers, 1) == 0 {
                0
            } else {
                time(argument!(registers, 4), NANOSECOND, read)
            };
        }
        WaitCall::IoUringEnter => ring_arguments(&mut args, task, registers, read, now),
    }
    args
}

#[inline(always)]
fn ring_arguments(
    args: &mut WaitArgs,
    task: impl FnOnce() -> Task,
    registers: Registers,
    read: impl Fn(u64) -> Option<[i64; 2]>,
    now: u64,
) {
    let flags = argument!(registers, 3);
    let registered = flags & IORING_ENTER_REGISTERED_RING != 0;
    args.poller = if registered { PollerKind::RegisteredRing } else { PollerKind::Ring };
    args.fd = argument!(registers, 0) as i32;
    args.timeout = if argument!(registers, 2) == 0 {
        0
    } else if flags & IORING_ENTER_EXT_ARG_REG != 0 {
        TIMEOUT_UNKNOWN
    } else if flags & IORING_ENTER_EXT_ARG != 0 {
        // struct io_uring_getevents_arg: its second half is two 32-bit numbers and the address of
        // a timespec.
        match read(argument!(registers, 4) + 8) {
            Some([_, address]) => {
                let timeout = time(address as u64, NANOSECOND, read);
                if flags & IORING_ENTER_ABS_TIMER != 0 && timeout > 0 {
                    let left = timeout - now as i64;
                    if left > 0 { left } else { 0 }
                } else {
                    timeout
                }
            }
            None => TIMEOUT_UNKNOWN,
        }
    } else {
        TIMEOUT_NEVER
    };
    if config!(flags) & flag::RINGS != 0 {
        args.ring = rings::ring_of(task(), args.fd as u32, registered);
        if args.ring != 0 {
            args.taken = rings::taken(args.ring);
        }
    }
}

/// A timeout in milliseconds, an `int`: negative is never.
#[inline(always)]
const fn milliseconds(timeout: u64) -> i64 {
    let timeout = timeout as i32;
    if timeout < 0 { TIMEOUT_NEVER } else { timeout as i64 * 1_000_000 }
}

const NANOSECOND: i64 = 1;
const MICROSECOND: i64 = 1_000;

/// A timeout in the program's memory: seconds and a fraction in this unit; no address is never.
#[inline(always)]
fn time(address: u64, unit: i64, read: impl Fn(u64) -> Option<[i64; 2]>) -> i64 {
    if address == 0 {
        return TIMEOUT_NEVER;
    }
    match read(address) {
        // What does not fit into 64 bits of nanoseconds does not end either.
        Some([seconds, fraction]) if (0..9_000_000_000).contains(&seconds) => {
            seconds * 1_000_000_000 + fraction * unit
        }
        Some([seconds, _]) if seconds >= 0 => TIMEOUT_NEVER,
        _ => TIMEOUT_UNKNOWN,
    }
}

/// Nothing, at every system call's entry: what the hook itself costs.
#[btf_tracepoint(function = "sys_enter")]
pub(crate) fn empty_enter(_ctx: BtfTracePointContext) -> i32 {
    0
}

/// Nothing, at every system call's exit.
#[btf_tracepoint(function = "sys_exit")]
pub(crate) fn empty_exit(_ctx: BtfTracePointContext) -> i32 {
    0
}

/// Reads the clock, at every system call's entry: what telling the time costs on top.
#[btf_tracepoint(function = "sys_enter")]
pub(crate) fn clock_enter(_ctx: BtfTracePointContext) -> i32 {
    // A program returns 32 bits; zero is what it must return.
    (now() >> 63) as i32
}

/// Reads the clock, at every system call's exit.
#[btf_tracepoint(function = "sys_exit")]
pub(crate) fn clock_exit(_ctx: BtfTracePointContext) -> i32 {
    (now() >> 63) as i32
}
