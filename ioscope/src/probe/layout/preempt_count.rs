//! Where the kernel keeps the preempt count, which tells an interrupt from a thread.

use super::Reader;
use crate::probe::{arch::Arch, btf::Btf};

/// Where the count is that says whether an interrupt is being served, and how to read it.
///
/// Its bits are no part of BTF. Linux 7.3 moved them, to make room for a count of disabled interrupts, and with
/// the same change got the per-CPU variable by which it is recognised here (`include/linux/preempt.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PreemptCount {
    /// Where it is; 4 bytes, or 8 of which the lower 4 are these.
    pub place: PreemptPlace,
    /// Set while a softirq is served on this CPU (`SOFTIRQ_OFFSET`; the other bits of that field say that
    /// softirqs are disabled, as any task may do). With `CONFIG_PREEMPT_RT` softirqs run in threads, and it stays 0.
    pub softirq: u32,
    /// Not 0 while a hard interrupt is served (`HARDIRQ_MASK`).
    pub hardirq: u32,
    /// Not 0 in a non-maskable interrupt (`NMI_MASK`, less the highest bit, which can mean something else).
    pub nmi: u32,
}

/// Where the kernel keeps its preemption count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreemptPlace {
    /// x86: in a per-CPU variable.
    PerCpu {
        /// The variable: `pcpu_hot` in Linux 6.2 to 6.14, `__preempt_count` in every other.
        symbol: &'static str,
        /// Where in the variable.
        offset: u32,
        /// The way there from the task that runs. `None` where BTF has no per-CPU variables (Debian's 5.10):
        /// then the symbol's address has to be found in `/proc/kallsyms`.
        from_task: Option<PerCpuPath>,
    },
    /// Arm: in the task that runs, `thread_info.preempt.count`.
    Task {
        /// From the start of `struct task_struct`.
        offset: u32,
    },
}

/// The way from the task that runs to a per-CPU variable of the CPU that it runs on, without the address of
/// either: the task's run queue is itself a per-CPU variable, and all of these have the same distances from each
/// other on every CPU.
///
/// `*(task + cfs_rq)` → `*(that + rq)` → `that + distance`. It needs neither `CONFIG_KALLSYMS_ALL`, without which
/// `/proc/kallsyms` has no variables, nor a capability to see addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PerCpuPath {
    /// `task_struct.se.cfs_rq`: a pointer to the `struct cfs_rq` of the task's group on the task's CPU; it is
    /// kept for tasks of every scheduling class. With `CONFIG_FAIR_GROUP_SCHED`.
    pub cfs_rq: u32,
    /// `cfs_rq.rq`: a pointer to the CPU's `struct rq`. With `CONFIG_FAIR_GROUP_SCHED`.
    pub rq: u32,
    /// What to add to that pointer, in bytes.
    pub distance: i64,
}

impl PreemptCount {
    /// That of a kernel; `None` if its BTF does not say.
    pub fn of(btf: &Btf, arch: Arch) -> Option<Self> {
        Self::read(&mut Reader { btf, lost: Vec::new() }, arch)
    }

    pub(super) fn read(reader: &mut Reader<'_>, arch: Arch) -> Option<Self> {
        let place = match arch {
            Arch::X86_64 => {
                let (symbol, offset) = match reader.btf.offset("pcpu_hot", "preempt_count") {
                    Ok(offset) => ("pcpu_hot", offset),
                    Err(_) => ("__preempt_count", 0),
                };
                let from_task = PerCpuPath::to(reader.btf, symbol, offset);
                PreemptPlace::PerCpu { symbol, offset, from_task }
            }
            Arch::Aarch64 => {
                let feature = "whether a waker was an interrupt or a task";
                PreemptPlace::Task {
                    offset: reader.want("task_struct", "thread_info.preempt.count", feature)?,
                }
            }
        };
        let (hardirq, nmi) = if reader.btf.has_var("local_interrupt_disable_state") {
            (0x0f00_0000, 0x7000_0000)
        } else {
            (0x000f_0000, 0x00f0_0000)
        };
        Some(Self { place, softirq: 0x100, hardirq, nmi })
    }
}

impl PerCpuPath {
    fn to(btf: &Btf, symbol: &str, offset: u32) -> Option<Self> {
        let place = |variable| btf.var_offset(".data..percpu", variable).ok().map(i64::from);
        Some(Self {
            cfs_rq: btf.offset("task_struct", "se.cfs_rq").ok()?,
            rq: btf.offset("cfs_rq", "rq").ok()?,
            distance: place(symbol)? + i64::from(offset) - place("runqueues")?,
        })
    }
}
