//! Reading the kernel's memory, at offsets that the loader found in the kernel's own type
//! information.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{
    bpf_get_current_task, bpf_get_current_task_btf, bpf_probe_read_kernel, bpf_probe_read_user,
};
use ioscope_common::{COMM_LEN, flag};

use crate::maps::config;

/// Where a structure of the kernel lies.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    address: *const u8,
    /// The verifier knows the pointer as one to such a structure, a hook's argument or a helper's result, so that
    /// its members may be read directly. It follows the value of this on each path, and drops the other read.
    known: bool,
}

impl Place {
    /// From a pointer that the verifier knows.
    #[inline(always)]
    pub(crate) const fn known(address: *const c_void) -> Self {
        Self { address: address.cast(), known: true }
    }

    /// From an address that it knows nothing of.
    #[inline(always)]
    pub(crate) const fn unknown(address: u64) -> Self {
        Self { address: address as *const u8, known: false }
    }

    #[inline(always)]
    pub(crate) const fn is_known(self) -> bool {
        self.known
    }

    #[inline(always)]
    pub(crate) const fn address(self) -> *const u8 {
        self.address
    }

    /// A member of the size of `T` at this offset; 0 where an unknown address cannot be read.
    #[inline(always)]
    pub(crate) fn read<T: Copy + Default>(self, offset: u32) -> T {
        if self.known {
            // SAFETY: the offset is a member's, from this kernel's type information, and the verifier
            // checks the access.
            unsafe { core::ptr::read_volatile(self.address.add(offset as usize).cast()) }
        } else {
            read_kernel(self.address as u64 + u64::from(offset)).unwrap_or_default()
        }
    }
}

/// A `struct task_struct`.
#[derive(Clone, Copy)]
pub(crate) struct Task(Place);

impl Task {
    /// The thread that runs.
    #[inline(always)]
    pub(crate) fn current() -> Self {
        if config!(flags) & flag::CURRENT_TASK == 0 {
            // SAFETY: always allowed in a tracing program.
            Self(Place::unknown(unsafe { bpf_get_current_task() }))
        } else {
            // SAFETY: as above; it is always valid.
            Self(Place::known(unsafe { bpf_get_current_task_btf() }.cast_const().cast()))
        }
    }

    /// A tracepoint's argument.
    #[inline(always)]
    pub(crate) const fn from_argument(task: *const c_void) -> Self {
        Self(Place::known(task))
    }

    /// Where it lies.
    #[inline(always)]
    pub(crate) const fn place(self) -> Place {
        self.0
    }

    #[inline(always)]
    fn read<T: Copy + Default>(self, offset: u32) -> T {
        self.0.read(offset)
    }

    /// The thread's number in the initial pid namespace.
    #[inline(always)]
    pub(crate) fn pid(self) -> u32 {
        self.read(config!(offsets.task_pid))
    }

    /// The process's number in the initial pid namespace.
    #[inline(always)]
    pub(crate) fn tgid(self) -> u32 {
        self.read(config!(offsets.task_tgid))
    }

    /// The scheduler's state bits; 0 is runnable.
    #[inline(always)]
    pub(crate) fn state(self) -> u32 {
        self.read(config!(offsets.task_state))
    }

    /// Whether the thread is in a 32-bit program's system call, whose number and arguments mean
    /// something else: x86_64 `TS_COMPAT`, aarch64 `TIF_32BIT`.
    #[inline(always)]
    pub(crate) fn in_compat_syscall(self) -> bool {
        self.read::<u32>(config!(offsets.task_compat)) & config!(offsets.task_compat_mask) != 0
    }

    /// Whether its cgroup's limit keeps it off its CPU.
    #[inline(always)]
    pub(crate) fn throttled(self) -> bool {
        self.read::<u8>(config!(offsets.task_throttled)) != 0
    }

    /// The preempt count, where the architecture keeps it in the thread.
    #[inline(always)]
    pub(crate) fn preempt_count(self) -> u32 {
        self.read(config!(offsets.task_preempt_count))
    }

    /// A pointer at this offset; not to be followed directly.
    #[inline(always)]
    pub(crate) fn pointer(self, offset: u32) -> u64 {
        self.read(offset)
    }

    /// The same, for arithmetic: read so that the verifier takes it for a number. It lets nothing but constants be
    /// added to what it knows as a pointer.
    #[inline(always)]
    pub(crate) fn address(self, offset: u32) -> u64 {
        read_kernel(self.0.address() as u64 + u64::from(offset)).unwrap_or(0)
    }

    /// The thread's name.
    #[inline(always)]
    pub(crate) fn comm(self) -> [u8; COMM_LEN] {
        let words: [u64; 2] =
            [self.read(config!(offsets.task_comm)), self.read(config!(offsets.task_comm) + 8)];
        // SAFETY: sixteen bytes either way.
        unsafe { core::mem::transmute(words) }
    }
}

/// Reads kernel memory that the verifier knows nothing of. An address that cannot be read yields
/// `None`.
#[inline(always)]
pub(crate) fn read_kernel<T: Copy + Default>(address: u64) -> Option<T> {
    let mut value = T::default();
    // SAFETY: the helper checks the address and writes no more than the value's size.
    let failed = unsafe {
        bpf_probe_read_kernel((&raw mut value).cast(), size_of::<T>() as u32, address as *const c_void)
    };
    (failed == 0).then_some(value)
}

/// Reads the current process's memory; `None` when it is not there.
#[inline(always)]
pub(crate) fn read_user<T: Copy + Default>(address: u64) -> Option<T> {
    let mut value = T::default();
    // SAFETY: as above.
    let failed = unsafe {
        bpf_probe_read_user((&raw mut value).cast(), size_of::<T>() as u32, address as *const c_void)
    };
    (failed == 0).then_some(value)
}

/// Numbers of a thread or process in ioscope's pid namespace and in its own, innermost one.
#[derive(Clone, Copy)]
pub(crate) struct Numbers {
    /// 0 when it is not visible there.
    pub(crate) ours: u32,
    pub(crate) inner: u32,
}

/// How many levels of pid namespaces are looked through for ioscope's own. They nest 32 deep at most
/// (`MAX_PID_NS_LEVEL`, `include/linux/pid_namespace.h`), and 2 or 3 deep in practice.
const NAMESPACE_LEVELS: u32 = 8;

/// The numbers of a `struct pid` at this address; `initial` is the one in the initial namespace.
#[inline(always)]
fn numbers(pid: u64, initial: u32) -> Numbers {
    let level = read_kernel::<u32>(pid + u64::from(config!(offsets.pid_level))).unwrap_or(0);
    if level == 0 && in_initial_namespace() {
        return Numbers { ours: initial, inner: initial };
    }
    let upid = |level: u32| {
        pid + u64::from(config!(offsets.pid_numbers))
            + u64::from(level) * u64::from(config!(offsets.upid_size))
    };
    let number = |upid: u64| read_kernel::<u32>(upid + u64::from(config!(offsets.upid_nr))).unwrap_or(0);
    let inner = number(upid(level));
    if in_initial_namespace() {
        return Numbers { ours: initial, inner };
    }
    for at in 0..NAMESPACE_LEVELS {
        if at > level {
            break;
        }
        let inum = read_kernel::<u64>(upid(at) + u64::from(config!(offsets.upid_ns)))
            .and_then(|ns| read_kernel::<u32>(ns + u64::from(config!(offsets.pid_namespace_inum))));
        if inum == Some(config!(pid_namespace)) {
            return Numbers { ours: number(upid(at)), inner };
        }
    }
    Numbers { ours: 0, inner }
}

/// A thread's numbers. Slow: for a thread's first wait call.
#[inline(always)]
pub(crate) fn thread_numbers(task: Task) -> Numbers {
    numbers(task.address(config!(offsets.task_thread_pid)), task.pid())
}

/// A process's numbers. Slow: for a thread's first wait call.
#[inline(always)]
pub(crate) fn process_numbers(task: Task) -> Numbers {
    let signal = task.address(config!(offsets.task_signal));
    let pid = read_kernel::<u64>(signal + u64::from(config!(offsets.signal_tgid_pid))).unwrap_or(0);
    numbers(pid, task.tgid())
}

/// A process's number in ioscope's pid namespace.
#[inline(always)]
pub(crate) fn process_number(task: Task) -> u32 {
    if in_initial_namespace() { task.tgid() } else { process_numbers(task).ours }
}

/// A thread's number in ioscope's pid namespace.
#[inline(always)]
pub(crate) fn thread_number(task: Task) -> u32 {
    if in_initial_namespace() { task.pid() } else { thread_numbers(task).ours }
}

#[inline(always)]
fn in_initial_namespace() -> bool {
    config!(flags) & ioscope_common::flag::PID_NAMESPACE == 0
}
