//! What the loader tells the probes before they run: where this kernel keeps what they read, which
//! system calls matter, and what to trace. It becomes read-only data, so that the verifier knows
//! every value and drops the code that a value makes unreachable.

/// What a system call means to the probes, beside the numbers of [`WaitCall`](crate::WaitCall).
pub mod action {
    /// Nothing.
    pub const NONE: u8 = 0;
    /// `restart_syscall`.
    pub const RESUME: u8 = 11;
    /// `rt_sigreturn`.
    pub const HANDLER_DONE: u8 = 12;
    /// The last of the actions at a system call's entry.
    pub const LAST: u8 = HANDLER_DONE;
    /// One of the futex waits: nothing at its entry, but sleeping in it may be PARKED.
    pub const FUTEX: u8 = 13;
}

/// Functions of the kernel's that programs call: what stands in the object's calls instead of the functions' numbers,
/// which differ between kernels. The loader replaces it.
pub mod kfunc {
    /// `bpf_preempt_disable`, since Linux 6.10.
    pub const PREEMPT_DISABLE: u32 = 0x1005_c0b1;
    /// `bpf_preempt_enable`, since Linux 6.10.
    pub const PREEMPT_ENABLE: u32 = 0x1005_c0b2;
    /// `bpf_local_irq_save`, since Linux 6.14.
    pub const IRQ_SAVE: u32 = 0x1005_c0b3;
    /// `bpf_local_irq_restore`, since Linux 6.14.
    pub const IRQ_RESTORE: u32 = 0x1005_c0b4;
}

/// How many system call numbers are known; both x86_64's and aarch64's end below.
pub const SYSCALLS: usize = 512;

/// How many cgroups can be targets.
pub const CGROUPS: usize = 4;

/// Which threads are traced, and what this kernel offers: bits of [`ProbeConfig::flags`].
pub mod flag {
    /// Every thread.
    pub const ALL: u32 = 1;
    /// Threads in [`ProbeConfig::cgroups`](super::ProbeConfig::cgroups).
    pub const CGROUP: u32 = 2;
    /// Processes whose name matches the patterns.
    pub const COMM: u32 = 4;
    /// Children of targets.
    pub const FOLLOW: u32 = 8;
    /// `sched_switch` has the previous thread's state as its fourth argument (since Linux 5.18,
    /// commit `fa2c3254d7cf`); before, it is read from the thread.
    pub const SWITCH_STATE: u32 = 16;
    /// Completions posted to rings can be read.
    pub const RINGS: u32 = 32;
    /// ioscope runs outside the initial pid namespace.
    pub const PID_NAMESPACE: u32 = 64;
    /// The preempt count is found from the CPU's run queue.
    pub const PREEMPT_BY_RUN_QUEUE: u32 = 128;
    /// The preempt count is found from where the CPUs' own memory begins.
    pub const PREEMPT_PER_CPU: u32 = 256;
    /// The preempt count is in the thread.
    pub const PREEMPT_IN_TASK: u32 = 512;
    /// A 64-bit program can make 32-bit system calls.
    pub const MIXED_SYSCALLS: u32 = 1024;
    /// A cgroup's limit is enforced thread by thread, and the thread says so (since Linux 6.18).
    pub const THROTTLED_TASK: u32 = 1 << 16;
    /// A cgroup's limit is enforced queue by queue, and the queue says so.
    pub const THROTTLED_QUEUE: u32 = 1 << 17;
    /// The architecture has a register for the address that a function returns to.
    pub const LINK_REGISTER: u32 = 1 << 18;
    /// The helper that names the running thread to the verifier, `bpf_get_current_task_btf`, is there (since Linux
    /// 5.11); otherwise its members are read as any other memory.
    pub const CURRENT_TASK: u32 = 2048;
    /// The helper that finds a thread's saved registers, `bpf_task_pt_regs`, is there (since Linux 5.15);
    /// otherwise they are at the top of its kernel stack.
    pub const TASK_REGISTERS: u32 = 4096;
    /// The kernel may preempt programs, and lets them forbid it (since Linux 6.14).
    pub const PREEMPTIBLE: u32 = 8192;
    /// `io_uring_queue_async_work` has the request, not the ring, as its first argument (before
    /// Linux 6.0 it has the ring: `include/trace/events/io_uring.h`).
    pub const PUNT_HAS_REQUEST: u32 = 16384;
    /// A cgroup has a list of its ancestors' numbers (until Linux 6.0).
    pub const CGROUP_IDS: u32 = 32768;
}

/// Offsets, in bytes, of what the probes read in the kernel's structures.
#[derive(Clone, Copy, Default)]
#[cfg_attr(any(test, feature = "user"), derive(Debug, PartialEq, Eq))]
#[repr(C)]
pub struct Offsets {
    /// `task_struct.pid`
    pub task_pid: u32,
    /// `task_struct.tgid`
    pub task_tgid: u32,
    /// `task_struct.comm`
    pub task_comm: u32,
    /// `task_struct.__state`, before Linux 5.14 `state`
    pub task_state: u32,
    /// Where a thread says that it is in a 32-bit system call: x86_64 `thread_info.status`,
    /// aarch64 `thread_info.flags`
    pub task_compat: u32,
    /// Which bit there
    pub task_compat_mask: u32,
    /// `task_struct.signal`
    pub task_signal: u32,
    /// `task_struct.thread_pid`
    pub task_thread_pid: u32,
    /// `task_struct.files`
    pub task_files: u32,
    /// `task_struct.io_uring`
    pub task_io_uring: u32,
    /// `signal_struct.pids[PIDTYPE_TGID]`
    pub signal_tgid_pid: u32,
    /// `signal_struct.live`
    pub signal_live: u32,
    /// `pid.level`
    pub pid_level: u32,
    /// `pid.numbers`
    pub pid_numbers: u32,
    /// Size of `upid`
    pub upid_size: u32,
    /// `upid.nr`
    pub upid_nr: u32,
    /// `upid.ns`
    pub upid_ns: u32,
    /// `pid_namespace.ns.inum`
    pub pid_namespace_inum: u32,
    /// `files_struct.fdt`
    pub files_fdt: u32,
    /// `fdtable.max_fds`
    pub fdtable_max_fds: u32,
    /// `fdtable.fd`
    pub fdtable_fd: u32,
    /// `file.private_data`
    pub file_private_data: u32,
    /// `io_uring_task.registered_rings`
    pub io_uring_task_registered_rings: u32,
    /// `io_ring_ctx.rings`
    pub io_ring_ctx_rings: u32,
    /// `io_rings.cq.head`
    pub io_rings_cq_head: u32,
    /// `io_rings.cq.tail`
    pub io_rings_cq_tail: u32,
    /// `io_kiocb.ctx`
    pub io_kiocb_ctx: u32,
    /// The argument registers in `pt_regs`
    pub regs_args: [u32; 6],
    /// The system call's number in `pt_regs`
    pub regs_syscall: u32,
    /// The preempt count in `task_struct`
    pub task_preempt_count: u32,
    /// `task_struct.se.cfs_rq`
    pub task_cfs_rq: u32,
    /// `cfs_rq.rq`
    pub cfs_rq_rq: u32,
    /// Where the program goes on, in `pt_regs`
    pub regs_ip: u32,
    /// `pt_regs.cx`, of x86_64
    pub regs_cx: u32,
    /// The stack pointer in `pt_regs`
    pub regs_sp: u32,
    /// The frame pointer in `pt_regs`
    pub regs_fp: u32,
    /// The link register in `pt_regs`, where the architecture has one
    pub regs_lr: u32,
    /// `task_struct.throttled`
    pub task_throttled: u32,
    /// `cfs_rq.throttle_count`
    pub cfs_rq_throttle_count: u32,
    /// `task_struct.stack`
    pub task_stack: u32,
    /// From the start of a kernel stack to the saved registers at its top
    pub stack_registers: u32,
    /// `sock.sk_wq`
    pub sock_wq: u32,
    /// `socket_wq.wait.head`
    pub socket_wq_head: u32,
    /// From `eppoll_entry.wait.entry` back to the start of the `eppoll_entry`
    pub eppoll_entry_link: u32,
    /// From `eppoll_entry.wait` back to the start of the `eppoll_entry`
    pub eppoll_entry_wait: u32,
    /// `eppoll_entry.base`
    pub eppoll_entry_base: u32,
    /// `epitem.ep`
    pub epitem_ep: u32,
    /// `epitem.event.events`
    pub epitem_events: u32,
    /// `task_struct.cgroups`
    pub task_cgroups: u32,
    /// `css_set.dfl_cgrp`
    pub css_set_cgroup: u32,
    /// `cgroup.level`
    pub cgroup_level: u32,
    /// `cgroup.ancestor_ids`
    pub cgroup_ancestor_ids: u32,
}

/// All that the loader tells the probes.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct ProbeConfig {
    /// What each system call number means: a [`WaitCall`](crate::WaitCall) or an [`action`].
    pub actions: [u8; SYSCALLS],
    /// Where things are.
    pub offsets: Offsets,
    /// Bits of [`flag`].
    pub flags: u32,
    /// ioscope's process, in its own pid namespace: never traced.
    pub own_tgid: u32,
    /// ioscope's pid namespace, by its inode number.
    pub pid_namespace: u32,
    /// Cgroups whose threads, and whose descendants' threads, are traced; 0 for none.
    pub cgroups: [u64; CGROUPS],
    /// Where the CPUs' own memory begins: the kernel's `__per_cpu_offset`.
    pub per_cpu_offsets: u64,
    /// Where a CPU keeps its preempt count: from there, or from its run queue.
    pub preempt_count: u64,
    /// The preempt count's bits that say: a soft interrupt is being served.
    pub soft_interrupt_mask: u32,
    /// Likewise: a hardware interrupt, or one that cannot be masked.
    pub interrupt_mask: u32,
}

impl ProbeConfig {
    /// Traces nothing.
    pub const NONE: Self = Self {
        actions: [action::NONE; SYSCALLS],
        offsets: Offsets {
            task_pid: 0,
            task_tgid: 0,
            task_comm: 0,
            task_state: 0,
            task_compat: 0,
            task_compat_mask: 0,
            task_signal: 0,
            task_thread_pid: 0,
            task_files: 0,
            task_io_uring: 0,
            signal_tgid_pid: 0,
            signal_live: 0,
            pid_level: 0,
            pid_numbers: 0,
            upid_size: 0,
            upid_nr: 0,
            upid_ns: 0,
            pid_namespace_inum: 0,
            files_fdt: 0,
            fdtable_max_fds: 0,
            fdtable_fd: 0,
            file_private_data: 0,
            io_uring_task_registered_rings: 0,
            io_ring_ctx_rings: 0,
            io_rings_cq_head: 0,
            io_rings_cq_tail: 0,
            io_kiocb_ctx: 0,
            regs_args: [0; 6],
            regs_syscall: 0,
            task_preempt_count: 0,
            task_cfs_rq: 0,
            cfs_rq_rq: 0,
            regs_ip: 0,
            regs_cx: 0,
            regs_sp: 0,
            regs_fp: 0,
            regs_lr: 0,
            task_throttled: 0,
            cfs_rq_throttle_count: 0,
            task_stack: 0,
            stack_registers: 0,
            sock_wq: 0,
            socket_wq_head: 0,
            eppoll_entry_link: 0,
            eppoll_entry_wait: 0,
            eppoll_entry_base: 0,
            epitem_ep: 0,
            epitem_events: 0,
            task_cgroups: 0,
            css_set_cgroup: 0,
            cgroup_level: 0,
            cgroup_ancestor_ids: 0,
        },
        flags: 0,
        own_tgid: 0,
        pid_namespace: 0,
        cgroups: [0; CGROUPS],
        per_cpu_offsets: 0,
        preempt_count: 0,
        soft_interrupt_mask: 0,
        interrupt_mask: 0,
    };
}
