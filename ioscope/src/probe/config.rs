//! What the probes are told before they run, put together from the kernel's own descriptions.

use ioscope_common::{CGROUPS, Offsets, ProbeConfig, SYSCALLS, WaitCall, action, flag};

use super::{
    arch::Arch,
    btf::Btf,
    error::ProbeError,
    kallsyms::Symbols,
    layout::{KernelLayout, PreemptPlace},
    plan::Targets,
    syscalls::SyscallNumbers,
};

/// The inode number of the initial pid namespace: `PROC_PID_INIT_INO`, `include/linux/proc_ns.h`.
const INITIAL_PID_NAMESPACE: u32 = 0xEFFF_FFFC;

/// Puts the configuration together.
/// `preemptible`: the kernel may preempt the probes, and they are able to forbid it.
pub(super) fn build(
    btf: &Btf,
    arch: Arch,
    targets: &Targets,
    preemptible: bool,
) -> Result<ProbeConfig, ProbeError> {
    let layout = KernelLayout::read(btf, arch)?;
    let mut config = ProbeConfig {
        actions: actions(arch),
        offsets: offsets(&layout),
        own_tgid: std::process::id(),
        ..ProbeConfig::NONE
    };
    for (place, cgroup) in config.cgroups.iter_mut().zip(&targets.cgroups) {
        *place = *cgroup;
    }
    let mut set = |bit: u32, on: bool| {
        if on {
            config.flags |= bit;
        }
    };
    set(flag::ALL, targets.all);
    set(flag::CGROUP, !targets.cgroups.is_empty());
    set(flag::COMM, !targets.comm.is_empty());
    set(flag::FOLLOW, targets.follow);
    set(flag::SWITCH_STATE, btf.tracepoint_params("sched_switch").is_ok_and(|params| params.len() >= 4));
    set(flag::RINGS, layout.io_uring.is_some());
    set(flag::PREEMPTIBLE, preemptible);
    set(flag::CURRENT_TASK, has_helper(btf, "BPF_FUNC_get_current_task_btf"));
    set(flag::TASK_REGISTERS, has_helper(btf, "BPF_FUNC_task_pt_regs"));
    set(
        flag::PUNT_HAS_REQUEST,
        btf.tracepoint_params("io_uring_queue_async_work")
            .is_ok_and(|params| params.first().is_some_and(|first| first.type_name.contains("io_kiocb"))),
    );
    if arch == Arch::X86_64 {
        set(flag::MIXED_SYSCALLS, true);
        config.offsets.regs_cx = btf.offset("pt_regs", "cx")?;
    }
    config.pid_namespace = own_pid_namespace().unwrap_or(INITIAL_PID_NAMESPACE);
    set(flag::PID_NAMESPACE, config.pid_namespace != INITIAL_PID_NAMESPACE);
    find_preempt_count(&layout, &mut config);
    find_throttling(btf, &mut config);
    find_cgroups(btf, &mut config);
    if layout.regs.lr.is_some() {
        config.flags |= flag::LINK_REGISTER;
    }
    Ok(config)
}

/// Whether programs may call a helper: all are in the kernel's own type information.
fn has_helper(btf: &Btf, name: &str) -> bool {
    btf.enum_value("bpf_func_id", name).is_ok()
}

/// How the probes tell a waker in an interrupt from a thread. Without it, only the idle task is known
/// to be none.
fn find_preempt_count(layout: &KernelLayout, config: &mut ProbeConfig) {
    let Some(count) = &layout.preempt_count else { return };
    config.soft_interrupt_mask = count.softirq;
    config.interrupt_mask = count.hardirq | count.nmi;
    match count.place {
        PreemptPlace::Task { offset } => {
            config.flags |= flag::PREEMPT_IN_TASK;
            config.offsets.task_preempt_count = offset;
        }
        PreemptPlace::PerCpu { from_task: Some(path), .. } => {
            config.flags |= flag::PREEMPT_BY_RUN_QUEUE;
            config.offsets.task_cfs_rq = path.cfs_rq;
            config.offsets.cfs_rq_rq = path.rq;
            config.preempt_count = path.distance.cast_unsigned();
        }
        PreemptPlace::PerCpu { symbol, offset, from_task: None } => {
            const PER_CPU_OFFSETS: &str = "__per_cpu_offset";
            let Ok(symbols) = Symbols::read(&[symbol, PER_CPU_OFFSETS]) else { return };
            if let (Some(count), Some(offsets)) = (symbols.address(symbol), symbols.address(PER_CPU_OFFSETS))
            {
                config.flags |= flag::PREEMPT_PER_CPU;
                config.per_cpu_offsets = offsets;
                config.preempt_count = count + u64::from(offset);
            }
        }
    }
}

/// A cgroup's ancestors, where the kernel keeps a list of their numbers: until Linux 6.0. Later ones have it for the asking
/// (`bpf_get_current_ancestor_cgroup_id`), to which tracing programs were let since 5.15 only.
fn find_cgroups(btf: &Btf, config: &mut ProbeConfig) {
    if let (Ok(cgroups), Ok(cgroup), Ok(level), Ok(ids)) = (
        btf.offset("task_struct", "cgroups"),
        btf.offset("css_set", "dfl_cgrp"),
        btf.offset("cgroup", "level"),
        btf.offset("cgroup", "ancestor_ids"),
    ) {
        config.flags |= flag::CGROUP_IDS;
        config.offsets.task_cgroups = cgroups;
        config.offsets.css_set_cgroup = cgroup;
        config.offsets.cgroup_level = level;
        config.offsets.cgroup_ancestor_ids = ids;
    }
}

/// How the probes tell a thread that its cgroup's limit keeps off its CPU from one that was preempted: since
/// Linux 6.18 each thread leaves by itself and says so (`throttle_cfs_rq_work`, `kernel/sched/fair.c`); before,
/// its queue is taken off the CPU, all at once. Without `CONFIG_CFS_BANDWIDTH` there is no such limit.
fn find_throttling(btf: &Btf, config: &mut ProbeConfig) {
    if let Ok(offset) = btf.offset("task_struct", "throttled") {
        config.flags |= flag::THROTTLED_TASK;
        config.offsets.task_throttled = offset;
    } else if let (Ok(queue), Ok(count)) =
        (btf.offset("task_struct", "se.cfs_rq"), btf.offset("cfs_rq", "throttle_count"))
    {
        config.flags |= flag::THROTTLED_QUEUE;
        config.offsets.task_cfs_rq = queue;
        config.offsets.cfs_rq_throttle_count = count;
    }
}

/// More than this many cgroups do not fit.
pub const MAX_CGROUPS: usize = CGROUPS;

/// Namespaces' inode numbers have 32 bits: `proc_alloc_inum`, `fs/proc/generic.c`.
fn own_pid_namespace() -> Option<u32> {
    use std::os::unix::fs::MetadataExt as _;
    u32::try_from(std::fs::metadata("/proc/self/ns/pid").ok()?.ino()).ok()
}

/// One more than the largest thread number that this kernel gives out.
pub(super) fn pid_max() -> u32 {
    /// `PID_MAX_LIMIT` of 64-bit kernels, include/linux/threads.h.
    const PID_MAX_LIMIT: u32 = 4 * 1024 * 1024;
    std::fs::read_to_string("/proc/sys/kernel/pid_max")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(PID_MAX_LIMIT)
        .clamp(1, PID_MAX_LIMIT)
}

/// Whether the kernel measures how long BPF programs run. It costs every program some 20 ns a run, so
/// that ioscope leaves it as it is.
pub(super) fn statistics_are_on() -> bool {
    std::fs::read_to_string("/proc/sys/kernel/bpf_stats_enabled").is_ok_and(|text| text.trim() == "1")
}

fn actions(arch: Arch) -> [u8; SYSCALLS] {
    let numbers = SyscallNumbers::of(arch);
    let mut actions = [action::NONE; SYSCALLS];
    let mut set = |number: u32, action: u8| {
        if let Some(place) = actions.get_mut(number as usize) {
            *place = action;
        }
    };
    for call in WaitCall::ALL {
        if let Some(number) = numbers.wait_call(call) {
            set(number, call as u8);
        }
    }
    set(numbers.restart_syscall, action::RESUME);
    set(numbers.rt_sigreturn, action::HANDLER_DONE);
    for futex in [numbers.futex, numbers.futex_wait, numbers.futex_waitv] {
        set(futex, action::FUTEX);
    }
    actions
}

fn offsets(layout: &KernelLayout) -> Offsets {
    let KernelLayout { task, signal, pid, files, regs, io_uring, readiness, .. } = layout;
    let mut offsets = Offsets {
        task_pid: task.pid,
        task_tgid: task.tgid,
        task_comm: task.comm,
        task_state: task.state,
        task_compat: task.compat.word,
        task_compat_mask: task.compat.mask,
        task_signal: task.signal,
        task_thread_pid: task.thread_pid,
        task_files: task.files,
        signal_tgid_pid: signal.tgid_pid,
        signal_live: signal.live,
        pid_level: pid.level,
        pid_numbers: pid.numbers,
        upid_size: pid.numbers_stride,
        upid_nr: pid.nr,
        upid_ns: pid.ns,
        pid_namespace_inum: pid.ns_inum,
        files_fdt: files.fdt,
        fdtable_max_fds: files.max_fds,
        fdtable_fd: files.fd,
        file_private_data: files.private_data,
        regs_args: regs.args,
        regs_syscall: regs.syscall,
        regs_ip: regs.ip,
        regs_sp: regs.sp,
        regs_fp: regs.fp,
        regs_lr: regs.lr.unwrap_or(0),
        task_stack: task.stack,
        stack_registers: task.stack_registers,
        ..Offsets::default()
    };
    if let Some(readiness) = readiness {
        offsets.sock_wq = readiness.sock_wq;
        offsets.socket_wq_head = readiness.socket_wq_head;
        offsets.eppoll_entry_wait = readiness.entry_wait;
        offsets.eppoll_entry_link = readiness.entry_link;
        offsets.eppoll_entry_base = readiness.entry_base;
        offsets.epitem_ep = readiness.item_ep;
        offsets.epitem_events = readiness.item_events;
    }
    if let Some(io_uring) = io_uring {
        offsets.io_ring_ctx_rings = io_uring.rings;
        offsets.io_rings_cq_head = io_uring.cq_head;
        offsets.io_rings_cq_tail = io_uring.cq_tail;
        offsets.io_kiocb_ctx = io_uring.request_ring.unwrap_or(0);
        offsets.task_io_uring = task.io_uring.unwrap_or(0);
        offsets.io_uring_task_registered_rings = io_uring.registered_rings.unwrap_or(0);
    }
    offsets
}
