//! The hooks that the probes are attached to: one table of what they are for, in the order in which they are attached,
//! and of the ways to it, best first.
//!
//! Whether a way works is found out by going it: a kernel may have a function in its type information and refuse to
//! hook it, or load a program and refuse to attach it. The first way whose hooks can all be attached is used, and the
//! others are not touched, so that they cost nothing.
//!
//! The wait calls come after all that follows from them is in place, their returns before their entries; the
//! iterator over the threads that are asleep comes last, so that no thread is missed between the two.

use ioscope_common::WaitCall;

use super::{arch::Arch, features::Since};

/// How a hook is loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HookKind {
    /// A tracepoint whose arguments the verifier knows by the kernel's type information: `tp_btf`,
    /// since Linux 5.5.
    Tracepoint,
    /// A sampling clock on every CPU: `perf_event`, since Linux 4.9.
    Clock,
    /// The entry of a kernel function: fentry, since Linux 5.5.
    Function,
    /// The entry of the function behind a system call.
    SyscallEntry,
    /// Its return: fexit, as fentry.
    SyscallReturn,
    /// An iterator that runs once, at the start: since Linux 5.8.
    Iterator,
}

/// A hook.
#[derive(PartialEq, Eq, Debug)]
pub struct Hook {
    /// The kernel's name for it; of a function behind a system call, the system call's.
    pub name: &'static str,
    /// The program in the object.
    pub program: &'static str,
    /// How it is loaded.
    pub kind: HookKind,
    /// Whether other copies of the program stand in for it when the kernel leaves it out: see [`STAND_INS`].
    pub never_missed: bool,
    /// The program that it goes on to, and shares with others of its kind, by way of the map `body_of_` and its own name.
    pub body: Option<&'static str>,
}

/// How many programs stand in for one that must not miss a call, on a kernel that preempts programs.
///
/// Such a kernel does not run a program on a CPU where another thread was preempted in it
/// (`kernel/bpf/trampoline.c`: `__bpf_prog_enter_recur`, `kernel/trace/bpf_trace.c`: `__bpf_trace_run`). The programs forbid
/// preemption, but not before they have begun. So there are several of each, and the first that the kernel runs does the
/// work; a call is missed only where other threads were preempted in every one of them, at the same time on one CPU.
pub const STAND_INS: usize = 2;

impl Hook {
    /// With other copies of its program to stand in for it.
    const fn never_missed(self) -> Self {
        Self { never_missed: true, ..self }
    }

    /// Whether it is the function of a wait call: there are kernels that are too old for it, and architectures without it.
    pub fn is_wait_call(&self) -> bool {
        let of_syscall = matches!(self.kind, HookKind::SyscallEntry | HookKind::SyscallReturn);
        of_syscall && WaitCall::ALL.iter().any(|call| call.name() == self.name)
    }

    /// The names that the function may have that it is attached to, if it is attached to one. A system call without
    /// arguments is, on x86_64, a second name of another function, and the kernel's type information has that one
    /// (`arch/x86/include/asm/syscall_wrapper.h`: `__SYS_STUB0`).
    pub fn functions(&self, arch: Arch) -> Vec<String> {
        match self.kind {
            HookKind::Function => vec![self.name.to_owned()],
            HookKind::SyscallEntry | HookKind::SyscallReturn => [arch.syscall_function_prefix(), "__do_sys_"]
                .map(|prefix| prefix.to_owned() + self.name)
                .into(),
            HookKind::Tracepoint | HookKind::Clock | HookKind::Iterator => Vec::new(),
        }
    }
}

/// A way to do something: all of its hooks, together.
#[derive(PartialEq, Eq, Debug)]
pub struct Way {
    /// What it is called: `fentry`, `tracepoint`, `iterator`.
    pub name: &'static str,
    /// The first kernel in which it works.
    pub since: Since,
    /// In this order. A function behind a system call that the kernel does not have is left out.
    pub hooks: &'static [Hook],
}

/// Something that hooks are for.
#[derive(PartialEq, Eq, Debug)]
pub struct Job {
    /// What it is called, in `doctor`.
    pub name: &'static str,
    /// Whether there is no tracing without it.
    pub required: bool,
    /// What it gives, and so what is lost without it.
    pub gives: &'static str,
    /// The ways, best first.
    pub ways: &'static [Way],
}

/// What became of a job.
#[derive(Clone, Debug)]
pub struct JobStatus {
    /// Which.
    pub job: &'static Job,
    /// The way that is used; `None` if none works.
    pub way: Option<&'static Way>,
    /// The programs of that way, and how many instructions the verifier went through to accept each; `None` where the
    /// kernel does not tell (before Linux 5.16).
    pub programs: Vec<(&'static str, Option<u32>)>,
    /// The ways that were tried in vain, and why.
    pub refused: Vec<(&'static Way, String)>,
}

impl JobStatus {
    /// Why there is nothing of it; `None` if there is.
    pub fn missing(&self) -> Option<String> {
        if self.way.is_some() {
            return None;
        }
        let reasons: Vec<_> = self.refused.iter().map(|(way, why)| format!("{}: {why}", way.name)).collect();
        Some(if reasons.is_empty() { "switched off".to_owned() } else { reasons.join("; ") })
    }
}

/// Which ways may be gone.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum HookChoice {
    /// The best that works.
    #[default]
    Auto,
    /// Of the wait calls, functions only.
    Functions,
    /// Tracepoints only, throughout.
    Tracepoints,
}

/// The name of the way by functions.
pub const FENTRY: &str = "fentry";
/// The name of the way by tracepoints.
pub const TRACEPOINT: &str = "tracepoint";

impl HookChoice {
    /// Whether a way of a job may be gone.
    pub fn allows(self, job: &Job, way: &Way) -> bool {
        match self {
            Self::Auto => true,
            Self::Functions => job.name != WAIT_CALLS || way.name == FENTRY,
            Self::Tracepoints => way.name != FENTRY,
        }
    }
}

/// The name of the job that makes a tracer of all this.
pub const WAIT_CALLS: &str = "wait calls";
/// The name of the job that finds new processes.
pub const FORKS: &str = "forks";
/// The name of the job that finds the loops that are there already.
pub const LOOPS_ASLEEP: &str = "loops asleep";
/// How a thread that was in a wait call before its function was hooked is seen to return from it: the hook of a function's
/// return is reached by those only that have passed the hook of its entry. It is attached for a while, beside the
/// functions, while there are such threads.
pub static RETURN_OF_SLEEPERS: Hook = tracepoint("sys_exit", "sys_exit").never_missed();
/// The name of the job that counts the system calls of slices: done only when they are asked for.
pub const SLICE_SYSCALLS: &str = "system calls of slices";
/// The name of the job that notes when epoll instances become ready.
pub const EPOLL_READINESS: &str = "readiness of epoll";
/// The name of the job that notes when completions are posted.
pub const RING_READINESS: &str = "completions of io_uring";

/// Since when functions can be hooked: `kernel/bpf/trampoline.c`, `struct bpf_tramp_image`, 5.12 and 5.10's stable series; on
/// aarch64 where a function's entry can be replaced (`arch/arm64/Kconfig`: `HAVE_DYNAMIC_FTRACE_WITH_DIRECT_CALLS`).
const FUNCTIONS: Since = Since::linux(5, 10).on_aarch64(6, 4);

const fn tracepoint(name: &'static str, program: &'static str) -> Hook {
    Hook { name, program, kind: HookKind::Tracepoint, never_missed: false, body: None }
}

const fn entry(name: &'static str, program: &'static str) -> Hook {
    Hook { name, program, kind: HookKind::SyscallEntry, never_missed: true, body: None }
}

const fn exit(name: &'static str, program: &'static str) -> Hook {
    Hook { name, program, kind: HookKind::SyscallReturn, never_missed: true, body: Some("wait_call_return") }
}

const fn wait(name: &'static str, program: &'static str) -> Hook {
    Hook { body: Some("wait_call_entry"), ..entry(name, program) }
}

/// All jobs.
pub static JOBS: &[Job] = &[
    Job {
        name: "context switches",
        required: true,
        gives: "the states WAITING, READY, BLOCKED and PARKED",
        ways: &[Way {
            name: TRACEPOINT,
            since: Since::linux(5, 5),
            hooks: &[tracepoint("sched_switch", "sched_switch")],
        }],
    },
    Job {
        name: "wakeups",
        required: false,
        gives: "wakeup latency, run-queue delay and wakers",
        ways: &[Way {
            name: TRACEPOINT,
            since: Since::linux(5, 5),
            hooks: &[tracepoint("sched_waking", "sched_waking")],
        }],
    },
    Job {
        name: "exits",
        required: true,
        gives: "the end of threads",
        ways: &[Way {
            name: TRACEPOINT,
            since: Since::linux(5, 5),
            hooks: &[tracepoint("sched_process_exit", "sched_process_exit").never_missed()],
        }],
    },
    Job {
        name: "execs",
        required: false,
        gives: "changes of program, and --comm for programs that start later",
        ways: &[Way {
            name: TRACEPOINT,
            since: Since::linux(5, 5),
            hooks: &[tracepoint("sched_process_exec", "sched_process_exec").never_missed()],
        }],
    },
    Job {
        name: FORKS,
        required: false,
        gives: "--follow, and --comm for processes that fork",
        ways: &[Way {
            name: TRACEPOINT,
            since: Since::linux(5, 5),
            hooks: &[tracepoint("sched_process_fork", "sched_process_fork").never_missed()],
        }],
    },
    Job {
        name: EPOLL_READINESS,
        required: false,
        gives: "ready delay of events that wait for a busy loop on epoll (by tracepoint: sockets that receive, only)",
        ways: &[
            Way {
                name: FENTRY,
                since: FUNCTIONS,
                hooks: &[Hook {
                    name: "ep_poll_callback",
                    program: "ep_poll_callback",
                    kind: HookKind::Function,
                    never_missed: false,
                    body: None,
                }],
            },
            Way {
                name: TRACEPOINT,
                since: Since::linux(6, 3),
                hooks: &[tracepoint("sk_data_ready", "sk_data_ready")],
            },
        ],
    },
    Job {
        name: RING_READINESS,
        required: false,
        gives: "ready delay of completions",
        ways: &[Way {
            name: TRACEPOINT,
            since: Since::linux(5, 5),
            hooks: &[tracepoint("io_uring_complete", "io_uring_complete")],
        }],
    },
    Job {
        name: "overflows of io_uring",
        required: false,
        gives: "completions that found a ring's queue full",
        ways: &[Way {
            name: TRACEPOINT,
            // `include/trace/events/io_uring.h`.
            since: Since::linux(5, 19),
            hooks: &[tracepoint("io_uring_cqe_overflow", "io_uring_cqe_overflow")],
        }],
    },
    Job {
        name: "io-wq of io_uring",
        required: false,
        gives: "requests that a ring handed to worker threads",
        ways: &[Way {
            name: TRACEPOINT,
            since: Since::linux(5, 5),
            hooks: &[tracepoint("io_uring_queue_async_work", "io_uring_queue_async_work")],
        }],
    },
    Job {
        name: WAIT_CALLS,
        required: true,
        gives: "the wait calls (by tracepoint: every system call of the machine pays for it)",
        ways: &[
            Way {
                name: FENTRY,
                since: FUNCTIONS,
                hooks: &[
                    exit("epoll_wait", "return_epoll_wait"),
                    exit("epoll_pwait", "return_epoll_pwait"),
                    exit("epoll_pwait2", "return_epoll_pwait2"),
                    exit("poll", "return_poll"),
                    exit("ppoll", "return_ppoll"),
                    exit("select", "return_select"),
                    exit("pselect6", "return_pselect6"),
                    exit("io_uring_enter", "return_io_uring_enter"),
                    exit("io_getevents", "return_io_getevents"),
                    exit("io_pgetevents", "return_io_pgetevents"),
                    exit("restart_syscall", "return_restart_syscall"),
                    entry("restart_syscall", "enter_restart_syscall"),
                    entry("rt_sigreturn", "enter_rt_sigreturn"),
                    wait("epoll_wait", "enter_epoll_wait"),
                    wait("epoll_pwait", "enter_epoll_pwait"),
                    wait("epoll_pwait2", "enter_epoll_pwait2"),
                    wait("poll", "enter_poll"),
                    wait("ppoll", "enter_ppoll"),
                    wait("select", "enter_select"),
                    wait("pselect6", "enter_pselect6"),
                    wait("io_uring_enter", "enter_io_uring_enter"),
                    wait("io_getevents", "enter_io_getevents"),
                    wait("io_pgetevents", "enter_io_pgetevents"),
                ],
            },
            Way {
                name: TRACEPOINT,
                since: Since::linux(5, 5),
                hooks: &[
                    tracepoint("sys_exit", "sys_exit").never_missed(),
                    tracepoint("sys_enter", "sys_enter").never_missed(),
                ],
            },
        ],
    },
    Job {
        name: "sampling clock",
        required: false,
        gives: "stacks of what stalls a loop on the CPU, and how much of that is in the kernel",
        ways: &[Way {
            name: "perf_event",
            since: Since::linux(4, 9),
            hooks: &[Hook {
                name: "cpu-clock",
                program: "sample",
                kind: HookKind::Clock,
                never_missed: false,
                body: None,
            }],
        }],
    },
    Job {
        name: SLICE_SYSCALLS,
        required: false,
        gives: "--syscalls (every system call of the machine pays for it)",
        ways: &[Way {
            name: TRACEPOINT,
            since: Since::linux(5, 5),
            hooks: &[tracepoint("sys_exit", "profile_exit"), tracepoint("sys_enter", "profile_enter")],
        }],
    },
    Job {
        name: LOOPS_ASLEEP,
        required: false,
        gives: "loops that sleep when tracing starts, before they first wake",
        ways: &[Way {
            name: "iterator",
            since: Since::linux(5, 8),
            hooks: &[Hook {
                name: "task",
                program: "find_loops",
                kind: HookKind::Iterator,
                never_missed: false,
                body: None,
            }],
        }],
    },
];

#[cfg(test)]
mod tests {
    use super::super::session::OBJECT;
    use super::*;

    #[test]
    fn every_program_is_in_the_object_and_so_is_its_body() {
        let object = aya_obj::Object::parse(OBJECT).unwrap();
        let hooks: Vec<_> = JOBS.iter().flat_map(|job| job.ways).flat_map(|way| way.hooks).collect();
        assert!(hooks.iter().any(|hook| hook.body.is_some()));
        for hook in hooks {
            for program in [hook.program].into_iter().chain(hook.body) {
                assert!(object.programs.contains_key(program), "{program} of {hook:?}");
            }
            let has_map = object.maps.contains_key(&format!("body_of_{}", hook.program));
            assert_eq!(has_map, hook.body.is_some(), "{hook:?}");
        }
    }

    #[test]
    fn all_wait_calls_are_hooked_at_functions() {
        let way = &JOBS.iter().find(|job| job.name == WAIT_CALLS).unwrap().ways[0];
        for call in WaitCall::ALL {
            let hooks: Vec<_> = way.hooks.iter().filter(|hook| hook.name == call.name()).collect();
            assert!(hooks.iter().all(|hook| hook.is_wait_call()), "{hooks:?}");
            assert_eq!(hooks.len(), 2, "its entry and its return: {hooks:?}");
        }
        assert!(way.hooks.iter().any(|hook| !hook.is_wait_call()), "the others are on every kernel");
    }

    #[test]
    fn a_system_call_without_arguments_has_another_name() {
        let hooks = JOBS.iter().flat_map(|job| job.ways).flat_map(|way| way.hooks);
        let functions: Vec<_> = hooks.flat_map(|hook| hook.functions(Arch::X86_64)).collect();
        for expected in ["__x64_sys_epoll_wait", "__do_sys_rt_sigreturn", "ep_poll_callback"] {
            assert!(functions.iter().any(|function| function == expected), "{expected}: {functions:?}");
        }
        assert!(!functions.iter().any(|function| function.contains("sched_switch")), "{functions:?}");
    }
}
