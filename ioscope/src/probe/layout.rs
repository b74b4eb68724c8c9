//! Where the members of kernel structures are that the probes read.
//!
//! What every kernel that ioscope supports has is an offset, and its absence an error that names structure and
//! member. What a configuration or a version can lack is an `Option`, and its absence a line in
//! [`KernelLayout::lost`] which says what ioscope cannot show for want of it. All offsets are in bytes from the
//! start of the structure.
//!
//! The versions in the comments are those of the kernel's own releases; a distribution can carry a change
//! earlier, which is why nothing here asks for a version.

mod preempt_count;
mod readiness;

pub use preempt_count::{PerCpuPath, PreemptCount, PreemptPlace};
pub use readiness::ReadinessLayout;

use super::arch::Arch;
use super::btf::{Btf, BtfError, TypeKind};

/// An essential member is not where any kernel is known to have it.
#[derive(Debug, thiserror::Error)]
#[error("the layout of {structure}.{member} is not to be had on kernel {kernel}: {source}")]
pub struct LayoutError {
    /// The structure.
    pub structure: &'static str,
    /// The member, as first looked for.
    pub member: String,
    /// The running kernel's release.
    pub kernel: String,
    /// What the BTF says.
    pub source: BtfError,
}

/// An optional member that this kernel lacks, and what is lost for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The structure.
    pub structure: &'static str,
    /// The member, as first looked for.
    pub member: &'static str,
    /// What ioscope cannot show without it.
    pub feature: &'static str,
}

/// Everything that the probes need to know of this kernel's structures.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelLayout {
    /// The architecture that it is of.
    pub arch: Arch,
    /// `struct task_struct`.
    pub task: TaskLayout,
    /// `struct signal_struct`.
    pub signal: SignalLayout,
    /// `struct pid` and its namespaces.
    pub pid: PidLayout,
    /// From a file descriptor to its file.
    pub files: FilesLayout,
    /// `struct pt_regs`: the registers that a thread has saved on its way into the kernel.
    pub regs: RegsLayout,
    /// Where the kernel counts nested interrupts; without it a waker in an interrupt is not told from a task.
    pub preempt_count: Option<PreemptCount>,
    /// `io_uring`; `None` in a kernel without `CONFIG_IO_URING`.
    pub io_uring: Option<IoUringLayout>,
    /// From a file that becomes ready to the epoll instance that watches it; `None` in a kernel without epoll.
    pub readiness: Option<ReadinessLayout>,
    /// What of the above is missing, and what is lost for it.
    pub lost: Vec<Lost>,
}

/// Offsets in `struct task_struct`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskLayout {
    /// `pid`: the thread's number in the initial namespace (user space's tid), 4 bytes.
    pub pid: u32,
    /// `tgid`: the process's number in the initial namespace, 4 bytes.
    pub tgid: u32,
    /// `comm`: the thread's name, 16 bytes, NUL-terminated.
    pub comm: u32,
    /// `__state`; called `state` before Linux 5.14.
    pub state: u32,
    /// How large the state is: 4 bytes, 8 before Linux 5.14 (where the lower 4 are all that is used).
    pub state_size: u32,
    /// `flags`: `PF_*`, of which `PF_KTHREAD` is `0x0020_0000`, 4 bytes.
    pub flags: u32,
    /// What tells a thread whose current system call is a 32-bit one.
    pub compat: CompatLayout,
    /// `signal`: a pointer to `struct signal_struct`.
    pub signal: u32,
    /// `thread_pid`: a pointer to the thread's `struct pid`, since Linux 4.19.
    pub thread_pid: u32,
    /// `files`: a pointer to `struct files_struct`.
    pub files: u32,
    /// `group_leader`: a pointer to the process's first thread.
    pub group_leader: u32,
    /// `real_parent`: a pointer to the task that forked this one.
    pub real_parent: u32,
    /// `exit_code`: as `wait(2)` reports it, 4 bytes.
    pub exit_code: u32,
    /// `start_boottime`, in nanoseconds of `CLOCK_BOOTTIME`, 8 bytes; `real_start_time` before Linux 5.5.
    pub start_boottime: u32,
    /// `stack`: where the kernel stack begins.
    pub stack: u32,
    /// From there to the saved registers, `struct pt_regs`, at its top (`task_pt_regs`,
    /// `arch/*/include/asm/processor.h`): see [`stack_registers`].
    pub stack_registers: u32,
    /// `io_uring`: a pointer to `struct io_uring_task`, null in a thread that never used it. With
    /// `CONFIG_IO_URING`, since Linux 5.10.
    pub io_uring: Option<u32>,
}

/// A word in `struct task_struct`, and the bits of it that are set during a 32-bit system call.
///
/// Its numbers are those of another architecture: taken for the native ones, `epoll_wait` would be `connect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CompatLayout {
    /// x86: `thread_info.status` (since Linux 4.16), 4 bytes. Arm: `thread_info.flags`, 8 bytes, of which
    /// the lower 4 suffice.
    pub word: u32,
    /// x86: `TS_COMPAT` (`arch/x86/include/asm/thread_info.h`). Arm: `TIF_32BIT`, bit 22
    /// (`arch/arm64/include/asm/thread_info.h`).
    pub mask: u32,
}

/// Offsets in `struct signal_struct`, which the threads of a process share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignalLayout {
    /// `pids[PIDTYPE_TGID]`: a pointer to the process's `struct pid`, since Linux 4.19.
    pub tgid_pid: u32,
    /// `live.counter`: threads that have not begun to exit, 4 bytes.
    pub live: u32,
}

/// Offsets on the way from a `struct pid` to its number in each namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PidLayout {
    /// `pid.level`: how deep the innermost namespace is that it has a number in, 4 bytes; 0 is the initial.
    pub level: u32,
    /// `pid.numbers`: one `struct upid` for each level, from 0.
    pub numbers: u32,
    /// The size of `struct upid`.
    pub numbers_stride: u32,
    /// `upid.nr`: the number, 4 bytes.
    pub nr: u32,
    /// `upid.ns`: a pointer to `struct pid_namespace`.
    pub ns: u32,
    /// `pid_namespace.ns.inum`: the inode number of `/proc/PID/ns/pid`, 4 bytes.
    pub ns_inum: u32,
}

/// Offsets on the way from a task's `files` to what a descriptor stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilesLayout {
    /// `files_struct.fdt`: a pointer to `struct fdtable`.
    pub fdt: u32,
    /// `fdtable.fd`: a pointer to an array of pointers to `struct file`.
    pub fd: u32,
    /// `fdtable.max_fds`: how long that array is, 4 bytes.
    pub max_fds: u32,
    /// `file.private_data`: of an epoll instance its `struct eventpoll`, of a ring its `struct io_ring_ctx`.
    pub private_data: u32,
    /// `file.f_op`: what kind of file it is.
    pub f_op: u32,
}

/// Offsets in `struct pt_regs`. Each register has 8 bytes unless it says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegsLayout {
    /// The arguments of a system call. x86: `di si dx r10 r8 r9`. Arm: `orig_x0 regs[1] … regs[5]`: the result
    /// overwrites `regs[0]`, and `orig_x0` keeps what it was.
    pub args: [u32; 6],
    /// The number of the system call, −1 if there is none. x86: `orig_ax`. Arm: `syscallno`, 4 bytes.
    pub syscall: u32,
    /// How large that number is: 8 bytes on x86, 4 on Arm.
    pub syscall_size: u32,
    /// The result. x86: `ax`. Arm: `regs[0]`.
    pub result: u32,
    /// Where user space goes on. x86: `ip`. Arm: `pc`.
    pub ip: u32,
    /// The stack pointer: `sp`.
    pub sp: u32,
    /// The frame pointer. x86: `bp`. Arm: `regs[29]`.
    pub fp: u32,
    /// The link register. Arm: `regs[30]`; x86 has none.
    pub lr: Option<u32>,
    /// What tells user mode from kernel mode. x86: `cs`, its lower two bits 3 in user mode; 2 or 8 bytes, of
    /// which the first matters. Arm: `pstate`, its lower four bits 0 in user mode.
    pub mode: u32,
}

/// Offsets in the structures of `io_uring`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IoUringLayout {
    /// `io_ring_ctx.rings`: a pointer to `struct io_rings`.
    pub rings: u32,
    /// `io_ring_ctx.cached_cq_tail`: the kernel's own copy of the tail, 4 bytes; ahead of the one in the ring
    /// while a batch of completions is being written.
    pub cached_cq_tail: Option<u32>,
    /// `io_rings.sq.head`: what the kernel has taken off the submission queue, 4 bytes.
    pub sq_head: u32,
    /// `io_rings.sq.tail`: what user space has put on the submission queue, 4 bytes.
    pub sq_tail: u32,
    /// `io_rings.cq.head`: what user space has taken off the completion queue, 4 bytes.
    pub cq_head: u32,
    /// `io_rings.cq.tail`: what the kernel has put on the completion queue, 4 bytes.
    pub cq_tail: u32,
    /// `io_rings.cq_overflow`: completions that were lost for want of room, 4 bytes.
    pub cq_overflow: Option<u32>,
    /// `io_uring_task.registered_rings`: an array of pointers to `struct file`, which
    /// `IORING_ENTER_REGISTERED_RING` gives an index into. Since Linux 5.18.
    pub registered_rings: Option<u32>,
    /// How many elements that array has; 0 if there is none.
    pub registered_rings_len: u32,
    /// `io_kiocb.ctx`: a pointer to the ring that a request is of, `struct io_ring_ctx`.
    pub request_ring: Option<u32>,
}

impl KernelLayout {
    /// Reads a kernel's layout from its BTF.
    pub fn read(btf: &Btf, arch: Arch) -> Result<Self, LayoutError> {
        let mut reader = Reader { btf, lost: Vec::new() };
        Ok(Self {
            arch,
            task: TaskLayout::read(&mut reader, arch)?,
            signal: SignalLayout::read(&reader)?,
            pid: PidLayout::read(&reader)?,
            files: FilesLayout::read(&reader)?,
            regs: RegsLayout::read(&reader, arch)?,
            preempt_count: PreemptCount::read(&mut reader, arch),
            io_uring: IoUringLayout::read(&mut reader),
            readiness: ReadinessLayout::read(&mut reader),
            lost: reader.lost,
        })
    }
}

impl TaskLayout {
    fn read(reader: &mut Reader<'_>, arch: Arch) -> Result<Self, LayoutError> {
        let task = |members: &[&str]| reader.need("task_struct", members);
        let state = reader.need_member("task_struct", &["__state", "state"])?;
        let compat = match arch {
            Arch::X86_64 => CompatLayout { word: task(&["thread_info.status"])?, mask: 0x2 },
            Arch::Aarch64 => CompatLayout { word: task(&["thread_info.flags"])?, mask: 1 << 22 },
        };
        Ok(Self {
            pid: task(&["pid"])?,
            tgid: task(&["tgid"])?,
            comm: task(&["comm"])?,
            state: state.0,
            state_size: state.1,
            flags: task(&["flags"])?,
            compat,
            signal: task(&["signal"])?,
            thread_pid: task(&["thread_pid"])?,
            files: task(&["files"])?,
            group_leader: task(&["group_leader"])?,
            real_parent: task(&["real_parent"])?,
            exit_code: task(&["exit_code"])?,
            start_boottime: task(&["start_boottime", "real_start_time"])?,
            stack: task(&["stack"])?,
            stack_registers: stack_registers(reader.btf, reader.need_size("pt_regs")?),
            io_uring: reader.want("task_struct", "io_uring", "rings that are entered by a registered index"),
        })
    }
}

/// How far a thread's saved registers are from the start of its kernel stack. For kernels before Linux 5.15 only, later
/// ones have a helper that knows (and, since 6.9, padding above the registers that this does not know of).
///
/// A stack has 16 KiB on either architecture (`THREAD_SIZE`, `arch/x86/include/asm/page_64_types.h`,
/// `arch/arm64/include/asm/memory.h`), and twice that in a kernel with KASAN, the memory checker, whose structures
/// show in BTF.
fn stack_registers(btf: &Btf, size_of_registers: u32) -> u32 {
    const THREAD_SIZE: u32 = 16 << 10;
    let size = btf.size_of("thread_union").unwrap_or_else(|_| {
        THREAD_SIZE << u32::from(btf.has_struct("kasan_free_meta") || btf.has_struct("kasan_alloc_meta"))
    });
    size.saturating_sub(size_of_registers)
}

impl SignalLayout {
    fn read(reader: &Reader<'_>) -> Result<Self, LayoutError> {
        let index = reader.btf.enum_value("pid_type", "PIDTYPE_TGID").unwrap_or(1);
        Ok(Self {
            tgid_pid: reader.need("signal_struct", &[&format!("pids[{index}]")])?,
            live: reader.need("signal_struct", &["live.counter"])?,
        })
    }
}

impl PidLayout {
    fn read(reader: &Reader<'_>) -> Result<Self, LayoutError> {
        Ok(Self {
            level: reader.need("pid", &["level"])?,
            numbers: reader.need("pid", &["numbers"])?,
            numbers_stride: reader.need_size("upid")?,
            nr: reader.need("upid", &["nr"])?,
            ns: reader.need("upid", &["ns"])?,
            ns_inum: reader.need("pid_namespace", &["ns.inum"])?,
        })
    }
}

impl FilesLayout {
    fn read(reader: &Reader<'_>) -> Result<Self, LayoutError> {
        Ok(Self {
            fdt: reader.need("files_struct", &["fdt"])?,
            fd: reader.need("fdtable", &["fd"])?,
            max_fds: reader.need("fdtable", &["max_fds"])?,
            private_data: reader.need("file", &["private_data"])?,
            f_op: reader.need("file", &["f_op"])?,
        })
    }
}

impl RegsLayout {
    fn read(reader: &Reader<'_>, arch: Arch) -> Result<Self, LayoutError> {
        let (args, syscall, result, ip, mode) = match arch {
            Arch::X86_64 => (["di", "si", "dx", "r10", "r8", "r9"], "orig_ax", "ax", "ip", "cs"),
            Arch::Aarch64 => (
                ["orig_x0", "regs[1]", "regs[2]", "regs[3]", "regs[4]", "regs[5]"],
                "syscallno",
                "regs[0]",
                "pc",
                "pstate",
            ),
        };
        let mut arg_offsets = [0; 6];
        for (offset, register) in arg_offsets.iter_mut().zip(args) {
            *offset = reader.need("pt_regs", &[register])?;
        }
        let (syscall, syscall_size) = reader.need_member("pt_regs", &[syscall])?;
        Ok(Self {
            args: arg_offsets,
            syscall,
            syscall_size,
            result: reader.need("pt_regs", &[result])?,
            ip: reader.need("pt_regs", &[ip])?,
            sp: reader.need("pt_regs", &["sp"])?,
            fp: reader.need("pt_regs", &[if arch == Arch::X86_64 { "bp" } else { "regs[29]" }])?,
            lr: match arch {
                Arch::X86_64 => None,
                Arch::Aarch64 => Some(reader.need("pt_regs", &["regs[30]"])?),
            },
            mode: reader.need("pt_regs", &[mode])?,
        })
    }
}

impl IoUringLayout {
    /// That of a kernel; `None` if it has no `io_uring`.
    pub fn of(btf: &Btf) -> Option<Self> {
        Self::read(&mut Reader { btf, lost: Vec::new() })
    }

    fn read(reader: &mut Reader<'_>) -> Option<Self> {
        let feature = "io_uring: completions of each wait, and rings as pollers";
        let registered = reader.btf.member("io_uring_task", "registered_rings").ok();
        let rings = reader.want("io_ring_ctx", "rings", feature)?;
        let sq_head = reader.want("io_rings", "sq.head", feature)?;
        let sq_tail = reader.want("io_rings", "sq.tail", feature)?;
        let cq_head = reader.want("io_rings", "cq.head", feature)?;
        let cq_tail = reader.want("io_rings", "cq.tail", feature)?;
        Some(Self {
            rings,
            cached_cq_tail: reader.btf.offset("io_ring_ctx", "cached_cq_tail").ok(),
            sq_head,
            sq_tail,
            cq_head,
            cq_tail,
            cq_overflow: reader.want("io_rings", "cq_overflow", "completions lost to a full queue"),
            registered_rings: reader.want(
                "io_uring_task",
                "registered_rings",
                "rings that are entered by a registered index",
            ),
            request_ring: reader.want("io_kiocb", "ctx", "requests that a ring hands to worker threads"),
            registered_rings_len: registered
                .filter(|member| member.kind == TypeKind::Array)
                .map_or(0, |member| member.size / 8),
        })
    }
}

/// Asks the BTF, and keeps account of what is missing.
struct Reader<'a> {
    btf: &'a Btf,
    lost: Vec<Lost>,
}

impl Reader<'_> {
    /// The offset of a member, by the first of its names that this kernel has.
    fn need(&self, structure: &'static str, members: &[&str]) -> Result<u32, LayoutError> {
        Self::first_of(structure, members, |member| self.btf.offset(structure, member))
    }

    /// The size of a structure.
    fn need_size(&self, structure: &'static str) -> Result<u32, LayoutError> {
        Self::first_of(structure, &["size"], |_| self.btf.size_of(structure))
    }

    /// The offset and size of a member, by the first of its names that this kernel has.
    fn need_member(&self, structure: &'static str, members: &[&str]) -> Result<(u32, u32), LayoutError> {
        Self::first_of(structure, members, |member| {
            self.btf.member(structure, member).map(|found| (found.offset, found.size))
        })
    }

    fn first_of<T>(
        structure: &'static str,
        members: &[&str],
        ask: impl Fn(&str) -> Result<T, BtfError>,
    ) -> Result<T, LayoutError> {
        let mut first_error = None;
        for member in members {
            match ask(member) {
                Ok(answer) => return Ok(answer),
                Err(source) => first_error = first_error.or(Some((*member, source))),
            }
        }
        let (member, source) = first_error
            .unwrap_or_else(|| ("", BtfError::NoType { what: "struct", name: structure.to_owned() }));
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        Err(LayoutError { structure, member: member.to_owned(), kernel, source })
    }

    /// The offset of a member that may be missing.
    fn want(&mut self, structure: &'static str, member: &'static str, feature: &'static str) -> Option<u32> {
        let offset = self.btf.offset(structure, member).ok();
        if offset.is_none() {
            self.lost.push(Lost { structure, member, feature });
        }
        offset
    }
}

#[cfg(test)]
pub(crate) mod tests;
