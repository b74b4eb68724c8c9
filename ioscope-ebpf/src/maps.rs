//! The maps, and the read-only configuration.

use aya_ebpf::{
    Global,
    macros::map,
    maps::{Array, HashMap, PerCpuArray, RingBuf, Stack},
};
use ioscope_common::{
    CommPatterns, Control, DIRECTORY_BLOCK, Drops, LoopSlot, PollerKey, PollerUsers, ProbeConfig,
    SyscallProfile,
};

/// `BPF_F_MMAPABLE`: user space maps the array into its memory. Since Linux 5.5,
/// `include/uapi/linux/bpf.h`.
const MMAPABLE: u32 = 1 << 10;

/// Set by the loader; the verifier knows every value in it.
#[unsafe(no_mangle)]
pub(crate) static CONFIG: Global<ProbeConfig> = Global::new(ProbeConfig::NONE);

/// One field of the configuration.
macro_rules! config {
    ($($field:tt)+) => {{
        let base: *const ioscope_common::ProbeConfig = (&raw const $crate::maps::CONFIG).cast();
        // SAFETY: `Global` is a transparent wrapper around the configuration, which is plain data.
        // The read is volatile because the loader, not the compiler, knows the value.
        unsafe { core::ptr::read_volatile(&raw const (*base).$($field)+) }
    }};
}
pub(crate) use config;

/// The collector's switches: one entry.
#[map]
pub(crate) static CONTROL: Array<Control> = Array::with_max_entries(1, MMAPABLE);

/// What was dropped, one entry per CPU.
#[map]
pub(crate) static DROPS: PerCpuArray<Drops> = PerCpuArray::with_max_entries(1, 0);

/// The loops. The loader gives it its size.
#[map]
pub(crate) static LOOPS: Array<LoopSlot> = Array::with_max_entries(1, MMAPABLE);

/// Where a thread's loop is: its place in [`LOOPS`] plus one, by the thread's number, in blocks.
/// Indexed, not hashed: it is read at every context switch and at every wait call of the machine.
#[map]
pub(crate) static DIRECTORY: Array<[u32; DIRECTORY_BLOCK]> = Array::with_max_entries(1, MMAPABLE);

/// The place in [`LOOPS`], plus one, of the thread that runs on each CPU; 0 when it has none. The
/// context switch keeps it, so that a system call need not ask who makes it: on kernels whose verifier
/// inlines this lookup (since Linux 6.10) that saves a call.
#[map]
pub(crate) static RUNNING: PerCpuArray<u32> = PerCpuArray::with_max_entries(1, 0);

/// The free places in [`LOOPS`].
#[map]
pub(crate) static FREE: Stack<u32> = Stack::with_max_entries(1, 0);

/// The target processes, by their number in ioscope's pid namespace.
#[map]
pub(crate) static TARGETS: HashMap<u32, u8> = HashMap::with_max_entries(16_384, 0);

/// What target processes are called.
#[map]
pub(crate) static COMM_PATTERNS: Array<CommPatterns> = Array::with_max_entries(1, 0);

/// Who waits on which poller.
#[map]
pub(crate) static POLLERS: HashMap<PollerKey, PollerUsers> = HashMap::with_max_entries(16_384, 0);

/// The pollers whose readiness is noted: the place of the note in [`NOTES`], by where the poller lies in the kernel.
#[map]
pub(crate) static WATCHED: HashMap<u64, u32> = HashMap::with_max_entries(16_384, 0);

/// When a poller first became ready since a wait call on it last returned, in nanoseconds of `CLOCK_MONOTONIC`; 0 for not
/// since. Each loop has places for its own pollers; the loader gives the map its size.
#[map]
pub(crate) static NOTES: Array<u64> = Array::with_max_entries(1, 0);

/// The system calls of each loop, by its place in [`LOOPS`]. The loader gives it that map's size if they are asked for.
#[map]
pub(crate) static PROFILES: Array<SyscallProfile> = Array::with_max_entries(1, MMAPABLE);

/// The stream.
#[map]
pub(crate) static STREAM: RingBuf = RingBuf::with_byte_size(4096, 0);

/// Captures of stacks, and how the sleeps went on that they tell of. The loader gives it its size.
#[map]
pub(crate) static CAPTURES: RingBuf = RingBuf::with_byte_size(4096, 0);

/// Adds one to a drop count.
macro_rules! count_drop {
    ($field:ident) => {
        if let Some(drops) = $crate::maps::DROPS.get_ptr_mut(0) {
            // SAFETY: the pointer is this CPU's entry, which lives as long as the map.
            unsafe { (*drops).$field += 1 };
        }
    };
}
pub(crate) use count_drop;
