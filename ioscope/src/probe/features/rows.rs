//! The rows of the table, and how each finds out.

use super::{Feature, FeatureKind, Missing, Since};

use crate::probe::btf::Btf;
use crate::probe::environment::{Capabilities, Fact};
use crate::probe::layout::{IoUringLayout, KernelLayout, PreemptCount, PreemptPlace};

/// Every feature, in the order in which `doctor` shows them.
pub static FEATURES: &[Feature] = &[
    // `include/trace/events/syscalls.h`, `kernel/bpf/verifier.c` (`BPF_TRACE_RAW_TP`).
    Feature {
        name: "syscall hooks",
        kind: FeatureKind::Hook,
        essential: true,
        needs: "tp_btf on sys_enter and sys_exit (Linux 5.5, CONFIG_FTRACE_SYSCALLS)",
        since: Since::linux(5, 5),
        lost: "everything: wait calls are not seen",
        check: |btf, _| {
            arguments(btf, "sys_enter", &["struct pt_regs *", "long int"])?;
            arguments(btf, "sys_exit", &["struct pt_regs *", "long int"])?;
            yes("tp_btf sys_enter and sys_exit: every process's system calls take the slower path meanwhile")
        },
    },
    // `include/trace/events/sched.h`: `prev_state` was added in 5.18.
    Feature {
        name: "context switches",
        kind: FeatureKind::Hook,
        essential: true,
        needs: "tp_btf on sched_switch (Linux 5.5)",
        since: Since::linux(5, 5),
        lost: "time per state: waiting, running and blocked cannot be told apart",
        check: |btf, _| {
            let found =
                arguments(btf, "sched_switch", &["bool", "struct task_struct *", "struct task_struct *"])?;
            match found {
                3 => yes("3 arguments: the state of the thread that leaves is read from the thread"),
                _ => yes(format!("{found} arguments: the state of the thread that leaves is handed over")),
            }
        },
    },
    // `include/trace/events/sched.h`, `kernel/sched/core.c` (`ttwu_do_activate` and its callers).
    Feature {
        name: "wakeups",
        kind: FeatureKind::Hook,
        essential: false,
        needs: "tp_btf on sched_waking (Linux 5.5)",
        since: Since::linux(5, 5),
        lost: "wakeup latency, run-queue delay, and who woke the loop",
        check: |btf, _| {
            arguments(btf, "sched_waking", &["struct task_struct *"])?;
            yes("tp_btf sched_waking")
        },
    },
    // `include/trace/events/sched.h`: `sched_process_exit` got `group_dead` in 6.15.
    Feature {
        name: "process life",
        kind: FeatureKind::Hook,
        essential: false,
        needs: "tp_btf on sched_process_fork, sched_process_exec and sched_process_exit (Linux 5.5)",
        since: Since::linux(5, 5),
        lost: "threads and children that start while ioscope runs, and the end of those that exit",
        check: |btf, _| {
            let task = "struct task_struct *";
            arguments(btf, "sched_process_fork", &[task, task])?;
            arguments(btf, "sched_process_exec", &[task, "pid_t", "struct linux_binprm *"])?;
            arguments(btf, "sched_process_exit", &[task])?;
            yes("tp_btf sched_process_fork, sched_process_exec and sched_process_exit")
        },
    },
    // `kernel/bpf/task_iter.c`: the function by which the target `task` is registered.
    Feature {
        name: "task iterator",
        kind: FeatureKind::Hook,
        essential: false,
        needs: "iter/task (Linux 5.8)",
        since: Since::linux(5, 8),
        lost: "loops that were already waiting when ioscope started, until their next wait call",
        check: |btf, _| {
            if btf.has_func("bpf_iter_task") {
                return yes("iter/task");
            }
            missing("the kernel has no iterator over tasks", "Linux 5.8 or newer")
        },
    },
    // `io_uring/io_uring.c`, `include/linux/io_uring_types.h`; `kernel.io_uring_disabled` since 6.6.
    Feature {
        name: "io_uring completions",
        kind: FeatureKind::Facility,
        essential: false,
        needs: "BTF of io_ring_ctx (Linux 5.8, CONFIG_IO_URING)",
        since: Since::linux(5, 8),
        lost: "how many completions each wait on a ring returned with",
        check: |btf, environment| {
            if environment.io_uring_disabled == Fact::Known(2) {
                return missing(
                    "io_uring is switched off for everyone (kernel.io_uring_disabled=2)",
                    "nothing to do, as no program can use it here; `sysctl kernel.io_uring_disabled=0` allows it",
                );
            }
            match IoUringLayout::of(btf) {
                Some(ring) if ring.registered_rings.is_some() => yes("read from the ring's tail"),
                Some(_) => yes("read from the ring's tail; this kernel has no registered rings (Linux 5.18)"),
                None => missing("the kernel has no io_uring", "a kernel with CONFIG_IO_URING"),
            }
        },
    },
    // `include/linux/preempt.h`, `arch/x86/include/asm/preempt.h`, `kernel/sched/sched.h` (`runqueues`).
    Feature {
        name: "waker context",
        kind: FeatureKind::Facility,
        essential: false,
        needs: "the preemption count: per-CPU variables in BTF, or CAP_SYSLOG and CONFIG_KALLSYMS_ALL",
        since: Since::CONFIGURED,
        lost: "whether a loop was woken by a task or by an interrupt",
        check: |btf, environment| {
            let count = environment.arch.and_then(|arch| PreemptCount::of(btf, arch));
            match count.map(|count| count.place) {
                Some(PreemptPlace::Task { .. }) => yes("preempt_count of the task"),
                Some(PreemptPlace::PerCpu { symbol, from_task: Some(_), .. }) => {
                    yes(format!("{symbol}, found from the run queue"))
                }
                Some(PreemptPlace::PerCpu { symbol, .. }) if environment.may(|caps| caps.syslog) => {
                    yes(format!("{symbol}, if /proc/kallsyms lists it (CONFIG_KALLSYMS_ALL)"))
                }
                Some(PreemptPlace::PerCpu { symbol, .. }) => {
                    missing(format!("the address of {symbol} is hidden"), "CAP_SYSLOG (`sudo ioscope …`)")
                }
                None => missing("the kernel's BTF has no preemption count", "a newer kernel"),
            }
        },
    },
    // `arch/*/include/asm/ptrace.h`, `include/linux/sched.h`, `fs/file.c`: every member that has no substitute.
    Feature {
        name: "kernel layout",
        kind: FeatureKind::Facility,
        essential: true,
        needs: "BTF of task_struct, pid, files_struct and pt_regs (CONFIG_DEBUG_INFO_BTF)",
        since: Since::CONFIGURED,
        lost: "everything: the probes would not know where to read",
        check: |btf, environment| {
            let Some(arch) = environment.arch else {
                return missing("an unknown architecture", "x86_64 or aarch64");
            };
            match KernelLayout::read(btf, arch) {
                Ok(_) => yes(format!("{} types in the kernel's BTF", btf.type_count())),
                Err(error) => missing(error.to_string(), "a kernel that this release of ioscope knows"),
            }
        },
    },
    // `kernel/bpf/ringbuf.c`, since 5.8.
    Feature {
        name: "ring buffer",
        kind: FeatureKind::Facility,
        essential: true,
        needs: "BPF_MAP_TYPE_RINGBUF (Linux 5.8)",
        since: Since::linux(5, 8),
        lost: "everything: there is no other way out for the records",
        check: |btf, _| {
            enumerator(
                btf,
                "bpf_map_type",
                "BPF_MAP_TYPE_RINGBUF",
                "the kernel has no BPF ring buffer",
                "5.8",
            )
        },
    },
    // `kernel/trace/bpf_trace.c` (`bpf_task_pt_regs_proto`, since 5.15; `bpf_get_current_task_btf_proto`, since 5.11);
    // `arch/*/include/asm/processor.h` (`task_pt_regs`).
    Feature {
        name: "blocking system call",
        kind: FeatureKind::Facility,
        essential: false,
        needs: "bpf_task_pt_regs (Linux 5.15), or the registers at the top of the kernel stack",
        since: Since::linux(5, 8),
        lost: "the name of the system call that a blocked or parked thread sleeps in, read when it goes to sleep",
        check: |btf, _| {
            if btf.enum_value("bpf_func_id", "BPF_FUNC_task_pt_regs").is_ok() {
                return yes("bpf_task_pt_regs");
            }
            if btf.offset("task_struct", "stack").is_ok() {
                return yes("read from the top of the kernel stack: the kernel has no bpf_task_pt_regs");
            }
            missing("the kernel has neither bpf_task_pt_regs nor task_struct.stack", "Linux 5.15 or newer")
        },
    },
    // `kernel/bpf/trampoline.c` (`struct bpf_tramp_image`: a function may be left while threads sleep in it; since 5.12, and
    // in stable series before), `arch/arm64/net/bpf_jit_comp.c` (since 6.0). Whether it attaches is found out by attaching.
    Feature {
        name: "function hooks",
        kind: FeatureKind::Hook,
        essential: false,
        needs: "fentry and fexit on the functions behind system calls (Linux 5.12, and 5.10 in its stable series)",
        since: Since::linux(5, 10),
        lost: "tracing for which nothing else on the machine pays: tracepoints are used instead",
        check: |btf, environment| {
            let prefix =
                environment.arch.map_or("__x64_sys_", super::super::arch::Arch::syscall_function_prefix);
            let function = format!("{prefix}epoll_pwait");
            if !btf.has_func(&function) {
                return missing(
                    format!("the kernel's type information has no {function}"),
                    "a kernel built with CONFIG_ARCH_HAS_SYSCALL_WRAPPER and BTF of functions",
                );
            }
            if !btf.has_struct("bpf_tramp_image") {
                return missing("the kernel may free what a thread returns to", "Linux 5.12 or newer");
            }
            yes(format!("{function} and its like are described; the hooks below say whether they attach"))
        },
    },
    // `fs/eventpoll.c` (`ep_poll_callback`); `include/trace/events/sock.h` (`sk_data_ready`, since 6.3).
    Feature {
        name: "readiness of epoll",
        kind: FeatureKind::Hook,
        essential: false,
        needs: "fentry on ep_poll_callback, or tp_btf on sk_data_ready (Linux 6.3)",
        since: Since::linux(5, 5),
        lost: "ready delay of events that wait for a busy loop on epoll; by sk_data_ready, of all but sockets that receive",
        check: |btf, _| {
            let function = btf.has_func("ep_poll_callback");
            match (function, arguments(btf, "sk_data_ready", &["const struct sock *"])) {
                (true, Ok(_)) => yes("ep_poll_callback where functions can be hooked, else sk_data_ready"),
                (true, Err(_)) => yes("ep_poll_callback, where functions can be hooked"),
                (false, Ok(_)) => yes("sk_data_ready: sockets that receive"),
                (false, Err(reason)) => Err(reason),
            }
        },
    },
    // `include/trace/events/io_uring.h`: the first argument is the ring in every kernel since 5.5, what follows is not.
    Feature {
        name: "completions posted",
        kind: FeatureKind::Hook,
        essential: false,
        needs: "tp_btf on io_uring_complete (Linux 5.5)",
        since: Since::linux(5, 5),
        lost: "ready delay of completions",
        check: |btf, _| {
            let count = btf
                .tracepoint_params("io_uring_complete")
                .map_err(|error| Missing {
                    why: error.to_string(),
                    how: "a kernel with CONFIG_IO_URING".into(),
                })?
                .len();
            yes(format!("io_uring_complete, {count} arguments, of which the first is used"))
        },
    },
    // `kernel/bpf/helpers.c` (`bpf_preempt_disable`, since 6.10; `bpf_local_irq_save`, since 6.14); `include/linux/tracepoint.h`
    // (tracepoints leave preemption on since 7.0).
    Feature {
        name: "undisturbed probes",
        kind: FeatureKind::Facility,
        essential: false,
        needs: "a kernel that does not preempt probes, or bpf_preempt_disable and bpf_local_irq_save (Linux 6.14)",
        since: Since::CONFIGURED,
        lost: "tracing by functions: tracepoints are used instead, in which a kernel before 7.0 is not preempted",
        check: |btf, environment| {
            let preempts = environment.preempts.known().copied();
            let functions = ["bpf_preempt_disable", "bpf_local_irq_save"];
            match functions.iter().find(|function| !btf.has_func(function)) {
                _ if preempts == Some(false) => yes("this kernel does not preempt probes"),
                None => yes("this kernel may preempt probes, and they can forbid it"),
                Some(function) if preempts.is_none() => yes(format!(
                    "nothing tells whether this kernel preempts probes, and it has no {function}"
                )),
                Some(function) => missing(
                    format!("this kernel preempts probes, and has no {function}"),
                    "Linux 6.14 or newer, or preempt=voluntary on the kernel's command line",
                ),
            }
        },
    },
    // `kernel/bpf/arraymap.c` (`BPF_F_MMAPABLE`), since 5.5.
    Feature {
        name: "mapped counters",
        kind: FeatureKind::Facility,
        essential: true,
        needs: "BPF_F_MMAPABLE arrays (Linux 5.5)",
        since: Since::linux(5, 5),
        lost: "everything: the loops lie in such an array",
        check: |btf, _| enumerator(btf, "", "BPF_F_MMAPABLE", "the kernel cannot map BPF arrays", "5.5"),
    },
    // `kernel/events/core.c` (`perf_swevent_init_hrtimer`), `include/uapi/linux/bpf.h`.
    Feature {
        name: "sampling clock",
        kind: FeatureKind::Hook,
        essential: false,
        needs: "perf_event, software cpu-clock (Linux 4.9), CAP_PERFMON",
        since: Since::linux(4, 9),
        lost: "stacks of what stalls a loop on the CPU; stalls are found all the same, and what they sleep in",
        check: |btf, environment| {
            let why = "the kernel has no BPF programs on perf events";
            enumerator(btf, "bpf_prog_type", "BPF_PROG_TYPE_PERF_EVENT", why, "4.9")?;
            if !environment.may(|capabilities: &Capabilities| capabilities.perfmon) {
                return missing("a clock on every CPU takes CAP_PERFMON", "`sudo ioscope …`");
            }
            yes("cpu-clock on every CPU")
        },
    },
    // `kernel/bpf/syscall.c` (`bpf_enable_stats`, which asks for CAP_SYS_ADMIN), since 5.8.
    Feature {
        name: "own overhead",
        kind: FeatureKind::Facility,
        essential: false,
        needs: "BPF_ENABLE_STATS (Linux 5.8), CAP_SYS_ADMIN",
        since: Since::linux(5, 8),
        lost: "the time that the probes themselves take",
        check: |btf, environment| {
            if environment.bpf_stats_enabled.is_known_and(|enabled| *enabled != 0) {
                return yes("run-time statistics are on (kernel.bpf_stats_enabled)");
            }
            let why = "the kernel cannot time BPF programs on demand";
            enumerator(btf, "bpf_cmd", "BPF_ENABLE_STATS", why, "5.8")?;
            if !environment.may(|capabilities: &Capabilities| capabilities.sys_admin) {
                return missing(
                    "switching run-time statistics on takes CAP_SYS_ADMIN",
                    "`sudo ioscope …`, or `sudo sysctl kernel.bpf_stats_enabled=1`",
                );
            }
            yes("run-time statistics while ioscope runs")
        },
    },
];

#[expect(clippy::unnecessary_wraps, reason = "the last expression of a check")]
fn yes(detail: impl Into<String>) -> Result<String, Missing> {
    Ok(detail.into())
}

fn missing(why: impl Into<String>, how: impl Into<String>) -> Result<String, Missing> {
    Err(Missing { why: why.into(), how: how.into() })
}

/// Asks that a tracepoint's arguments begin with these types, and tells how many it has.
fn arguments(btf: &Btf, tracepoint: &str, types: &[&str]) -> Result<usize, Missing> {
    let params = btf
        .tracepoint_params(tracepoint)
        .map_err(|error| Missing { why: error.to_string(), how: "a kernel that has it".into() })?;
    let found: Vec<_> = params.iter().map(|param| param.type_name.as_str()).collect();
    if found.len() < types.len() || types.iter().zip(&found).any(|(wanted, found)| wanted != found) {
        return Err(Missing {
            why: format!("the arguments of {tracepoint} are ({}) here", found.join(", ")),
            how: "a release of ioscope that knows this kernel".into(),
        });
    }
    Ok(found.len())
}

/// Asks for a number of the BPF interface, all of which are in the kernel's BTF.
fn enumerator(btf: &Btf, name: &str, value: &str, why: &str, since: &str) -> Result<String, Missing> {
    match btf.enum_value(name, value) {
        Ok(_) => yes(value),
        Err(_) => missing(why, format!("Linux {since} or newer")),
    }
}
