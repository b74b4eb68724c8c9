//! The hooks that the probes are attached to: one table, in the order in which they are attached.
//!
//! The system calls' entry comes last of the tracepoints, when everything that follows from it is in
//! place; the iterator over the threads that are asleep comes after it, so that no thread is missed
//! between the two.

/// How a hook is loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HookKind {
    /// A tracepoint whose arguments the verifier knows by the kernel's type information: `tp_btf`,
    /// since Linux 5.5.
    Tracepoint,
    /// An iterator that runs once, at the start: since Linux 5.8.
    Iterator,
}

/// A hook.
#[derive(PartialEq, Eq, Debug)]
pub struct Hook {
    /// The kernel's name for it.
    pub name: &'static str,
    /// The program in the object.
    pub program: &'static str,
    /// How it is loaded.
    pub kind: HookKind,
    /// Whether there is no tracing without it.
    pub required: bool,
    /// What it is for, and so what is lost without it.
    pub gives: &'static str,
}

/// Whether a hook is in use.
#[derive(Clone, Debug)]
pub struct HookStatus {
    /// Which.
    pub hook: &'static Hook,
    /// Why not.
    pub missing: Option<String>,
    /// How many instructions the verifier went through to accept its program; `None` where the kernel
    /// does not tell (before Linux 5.16).
    pub verified: Option<u32>,
}

/// All hooks.
pub static HOOKS: &[Hook] = &[
    Hook {
        name: "sched_switch",
        program: "sched_switch",
        kind: HookKind::Tracepoint,
        required: true,
        gives: "the states WAITING, READY, BLOCKED and PARKED",
    },
    Hook {
        name: "sched_waking",
        program: "sched_waking",
        kind: HookKind::Tracepoint,
        required: false,
        gives: "wakeup latency, run-queue delay and wakers",
    },
    Hook {
        name: "sched_process_exit",
        program: "sched_process_exit",
        kind: HookKind::Tracepoint,
        required: true,
        gives: "the end of threads",
    },
    Hook {
        name: "sched_process_exec",
        program: "sched_process_exec",
        kind: HookKind::Tracepoint,
        required: false,
        gives: "changes of program, and --comm for programs that start later",
    },
    Hook {
        name: "sched_process_fork",
        program: "sched_process_fork",
        kind: HookKind::Tracepoint,
        required: false,
        gives: "--follow, and --comm for processes that fork",
    },
    Hook {
        name: "io_uring_cqe_overflow",
        program: "io_uring_cqe_overflow",
        kind: HookKind::Tracepoint,
        required: false,
        gives: "the finding cq-overflow: completions that found a ring's queue full",
    },
    Hook {
        name: "io_uring_queue_async_work",
        program: "io_uring_queue_async_work",
        kind: HookKind::Tracepoint,
        required: false,
        gives: "the finding io-wq-punts: requests that a ring handed to worker threads",
    },
    Hook {
        name: "sys_exit",
        program: "sys_exit",
        kind: HookKind::Tracepoint,
        required: true,
        gives: "the return of wait calls",
    },
    Hook {
        name: "sys_enter",
        program: "sys_enter",
        kind: HookKind::Tracepoint,
        required: true,
        gives: "the entry of wait calls",
    },
    Hook {
        name: "task",
        program: "find_loops",
        kind: HookKind::Iterator,
        required: false,
        gives: "loops that sleep when tracing starts, before they first wake",
    },
];
