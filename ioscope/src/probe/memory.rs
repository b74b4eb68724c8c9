//! BPF arrays, mapped into this process's memory: reading a loop costs no system call.
#![expect(unsafe_code, reason = "the memory is shared with the kernel's probes")]

use std::{
    marker::PhantomData,
    mem::offset_of,
    num::NonZeroUsize,
    os::fd::AsFd,
    ptr::NonNull,
    sync::atomic::{Ordering, fence},
};

use ioscope_common::{
    CallTimes, Control, DIRECTORY_BLOCK, Loop, LoopSlot, SYSCALLS, State, SyscallProfile, status,
};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A `BPF_MAP_TYPE_ARRAY` made with `BPF_F_MMAPABLE`, mapped.
pub(super) struct MappedArray<T: Shared> {
    base: NonNull<T>,
    entries: u32,
    length: NonZeroUsize,
    _entries: PhantomData<T>,
}

/// Types that may lie in memory that the kernel writes at any time.
///
/// # Safety
/// Plain numbers only: every bit pattern is a value. The size is a multiple of 8, which is the
/// distance at which the kernel lays out the entries of an array (`array_map_alloc`,
/// kernel/bpf/arraymap.c).
pub(super) unsafe trait Shared: Copy {}

// SAFETY: plain numbers; the sizes are asserted below.
unsafe impl Shared for LoopSlot {}
// SAFETY: as above.
unsafe impl Shared for Control {}
// SAFETY: as above.
unsafe impl Shared for [u32; DIRECTORY_BLOCK] {}
// SAFETY: as above.
unsafe impl Shared for SyscallProfile {}

const _: () = assert!(
    size_of::<LoopSlot>().is_multiple_of(8)
        && size_of::<Control>().is_multiple_of(8)
        && size_of::<SyscallProfile>().is_multiple_of(8)
        && size_of::<[u32; DIRECTORY_BLOCK]>().is_multiple_of(8)
);

// SAFETY: the mapping belongs to the value, and a thread that has it may use it.
unsafe impl<T: Shared> Send for MappedArray<T> {}

impl<T: Shared> MappedArray<T> {
    /// Maps an array of `entries` entries.
    pub(super) fn new(map: impl AsFd, entries: u32) -> std::io::Result<Self> {
        let length = size_of::<T>() * entries as usize;
        let length = NonZeroUsize::new(length).ok_or(std::io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                length.get(),
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::SHARED,
                map,
                0,
            )?
        };
        let base = NonNull::new(base.cast()).ok_or(std::io::ErrorKind::InvalidInput)?;
        Ok(Self { base, entries, length, _entries: PhantomData })
    }

    /// How many entries there are.
    pub(super) const fn len(&self) -> u32 {
        self.entries
    }

    /// Where an entry is; `None` beyond the end. The kernel may write there at any time.
    fn entry(&self, index: u32) -> Option<NonNull<T>> {
        // SAFETY: the index is checked, so that the result is within the mapping.
        (index < self.entries).then(|| unsafe { self.base.add(index as usize) })
    }
}

impl<T: Shared> Drop for MappedArray<T> {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing refers to it any more. An error would mean that it
        // is not mapped, which is what is wanted.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.length.get()) };
    }
}

/// A field of an entry, read as another CPU may be writing it.
macro_rules! read_field {
    ($entry:expr, $($field:tt)+) => {{
        // SAFETY: the entry is within the mapping, and the field is a plain number.
        unsafe { std::ptr::read_volatile(&raw const (*$entry.as_ptr()).$($field)+) }
    }};
}

/// A field of an entry, written as another CPU may be reading it.
macro_rules! write_field {
    ($entry:expr, $($field:ident).+, $value:expr) => {{
        // SAFETY: as for reading.
        unsafe { std::ptr::write_volatile(&raw mut (*$entry.as_ptr()).$($field).+, $value) }
    }};
}

/// What a glance at a loop tells of its slice. The fields are not one moment's: whoever finds something
/// takes a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SliceGlance {
    /// Since when it serves, in nanoseconds of `CLOCK_MONOTONIC`; `None` in a wait call.
    pub served_since: Option<u64>,
    /// Since when it is PARKED, if it is.
    pub parked_since: Option<u64>,
    /// From how long a slice on it is in a stall, in nanoseconds.
    pub threshold: u64,
}

/// So many free places in a row are taken for the end: a place may be free for a moment among used ones.
const FREE_AT_END: u32 = 64;

/// How often a copy is tried again that the kernel wrote into meanwhile.
const COPY_TRIES: u32 = 256;

/// How much of an entry is one moment's in a copy: all but the histograms, which come last. They only
/// grow, and may be some iterations behind; once the probes are detached, they are not.
const ONE_MOMENT: usize = offset_of!(LoopSlot, machine) + offset_of!(Loop, loop_duration);

impl MappedArray<LoopSlot> {
    /// An entry's status; `None` beyond the end.
    pub(super) fn status(&self, slot: u32) -> Option<u32> {
        self.entry(slot).map(|entry| read_field!(entry, status))
    }

    /// A copy of an entry that is one moment's, but for its histograms: see [`ONE_MOMENT`]. `None` beyond
    /// the end, or when the thread is so busy that none could be had: take the one before, and try again
    /// later.
    pub(super) fn copy(&self, slot: u32) -> Option<Box<LoopSlot>> {
        let entry = self.entry(slot)?;
        let mut copy = self.glance(slot)?;
        for _ in 0..COPY_TRIES {
            let before = read_field!(entry, seq);
            if before.is_multiple_of(2) {
                fence(Ordering::Acquire);
                // SAFETY: both are entries, and no part of the copy is borrowed; what the kernel writes
                // into meanwhile is discarded below, and every bit pattern is a value.
                unsafe {
                    std::ptr::copy_nonoverlapping(
                        entry.as_ptr().cast::<u8>(),
                        (&raw mut *copy).cast::<u8>(),
                        ONE_MOMENT,
                    );
                }
                fence(Ordering::Acquire);
                if read_field!(entry, seq) == before {
                    return Some(copy);
                }
            }
            std::hint::spin_loop();
        }
        None
    }

    /// A copy of an entry that the kernel may have written into meanwhile: only what never changes, while
    /// the place is the same thread's, can be relied on. `None` beyond the end.
    pub(super) fn glance(&self, slot: u32) -> Option<Box<LoopSlot>> {
        // SAFETY: within the mapping, and every bit pattern is a value.
        self.entry(slot).map(|entry| Box::new(unsafe { std::ptr::read_volatile(entry.as_ptr()) }))
    }

    /// Calls `visit` with every living loop's slice. Places are given out from the first on, so that it ends
    /// where the free ones begin.
    pub(super) fn glance_at_slices(&self, mut visit: impl FnMut(u32, SliceGlance)) {
        let mut free = 0;
        for slot in 0..self.entries {
            let Some(entry) = self.entry(slot) else { break };
            if read_field!(entry, status) != status::LIVE {
                free += 1;
                if free > FREE_AT_END {
                    break;
                }
                continue;
            }
            free = 0;
            let since = read_field!(entry, machine.serving_since);
            let in_slice = read_field!(entry, machine.in_wait) == 0
                && read_field!(entry, machine.restarting) == 0
                && since != 0;
            let parks = read_field!(entry, machine.state) == State::Blocked as u8
                && read_field!(entry, machine.futex) != 0
                && read_field!(entry, shared) != 0;
            let parked_since = parks.then(|| read_field!(entry, machine.since));
            let threshold = read_field!(entry, stall_threshold);
            visit(slot, SliceGlance { served_since: in_slice.then_some(since), parked_since, threshold });
        }
    }

    /// Marks a loop for streaming, or takes the mark away.
    pub(super) fn mark(&self, slot: u32, marked: bool) {
        if let Some(entry) = self.entry(slot) {
            write_field!(entry, marked, u32::from(marked));
        }
    }

    /// Tells the probes that a loop's poller is shared, though no second thread was seen on it yet.
    pub(super) fn set_shared(&self, slot: u32) {
        if let Some(entry) = self.entry(slot) {
            write_field!(entry, shared, 1);
        }
    }

    /// From which loop duration on, in nanoseconds, a slice of this loop is a stall.
    pub(super) fn set_stall_threshold(&self, slot: u32, nanoseconds: u64) {
        if let Some(entry) = self.entry(slot) {
            write_field!(entry, stall_threshold, nanoseconds);
        }
    }

    /// Tells the probes that it is known where a loop's thread sleeps, so that they tell when it wakes.
    pub(super) fn set_captured(&self, slot: u32) {
        if let Some(entry) = self.entry(slot) {
            write_field!(entry, captured, 1);
        }
    }

    /// The probes do not find the loop by its thread's registers any more. Returns the thread's number in the initial pid
    /// namespace.
    pub(super) fn forget_registers(&self, slot: u32) -> Option<u32> {
        let entry = self.entry(slot)?;
        write_field!(entry, registers, 0);
        Some(read_field!(entry, kernel_tid))
    }

    /// Makes an entry free again. The probes must not know it any more.
    pub(super) fn clear(&self, slot: u32) {
        if let Some(entry) = self.entry(slot) {
            // SAFETY: within the mapping; all zeroes is a free entry.
            unsafe { std::ptr::write_bytes(entry.as_ptr(), 0, 1) };
        }
    }
}

impl MappedArray<[u32; DIRECTORY_BLOCK]> {
    /// The directory does not lead from a thread to this place (plus one) any more. Returns whether it did.
    pub(super) fn forget(&self, kernel_tid: u32, place: u32) -> bool {
        let tid = kernel_tid as usize;
        if self.place_of(kernel_tid) != place {
            return false;
        }
        if let Some(block) = u32::try_from(tid / DIRECTORY_BLOCK).ok().and_then(|block| self.entry(block)) {
            // SAFETY: the index is within the block.
            unsafe { std::ptr::write_volatile(block.as_ptr().cast::<u32>().add(tid % DIRECTORY_BLOCK), 0) };
        }
        true
    }

    /// Which place, plus one, the directory gives for a thread; 0 for none.
    pub(super) fn place_of(&self, kernel_tid: u32) -> u32 {
        let tid = kernel_tid as usize;
        let Some(block) = u32::try_from(tid / DIRECTORY_BLOCK).ok().and_then(|block| self.entry(block))
        else {
            return 0;
        };
        // SAFETY: the index is within the block.
        unsafe { std::ptr::read_volatile(block.as_ptr().cast::<u32>().add(tid % DIRECTORY_BLOCK)) }
    }
}

impl MappedArray<SyscallProfile> {
    /// The system calls of the loop in this place that were made, by number, and those whose number is beyond the
    /// table. What is counted meanwhile may be in it in part.
    pub(super) fn calls(&self, slot: u32) -> impl Iterator<Item = (Option<usize>, CallTimes)> {
        let entry = self.entry(slot);
        let numbers = (0..SYSCALLS).map(Some).chain([None]);
        numbers.filter_map(move |number| {
            let entry = entry?;
            let times = match number {
                Some(number) => read_field!(entry, calls[number]),
                None => read_field!(entry, others),
            };
            (times.count > 0).then_some((number, times))
        })
    }

    /// Begins anew, for another loop. The probes must not know the loop any more.
    pub(super) fn clear_calls(&self, slot: u32) {
        if let Some(entry) = self.entry(slot) {
            // SAFETY: within the mapping; all zeroes is a profile of nothing.
            unsafe { std::ptr::write_bytes(entry.as_ptr(), 0, 1) };
        }
    }
}

impl MappedArray<Control> {
    /// Which loops stream.
    pub(super) fn set_stream(&self, stream: u32) {
        if let Some(entry) = self.entry(0) {
            write_field!(entry, stream, stream);
        }
    }

    /// From which loop duration on, in nanoseconds, it is looked at where the thread is.
    pub(super) fn set_warn_threshold(&self, nanoseconds: u64) {
        if let Some(entry) = self.entry(0) {
            write_field!(entry, warn_threshold, nanoseconds);
        }
    }

    /// Adds to the pollers of which it is noted when they become ready.
    pub(super) fn keep_notes(&self, which: u32) {
        if let Some(entry) = self.entry(0) {
            let notes = read_field!(entry, notes) | which;
            write_field!(entry, notes, notes);
        }
    }

    /// Notes nothing of any poller from here on.
    pub(super) fn keep_no_notes(&self) {
        if let Some(entry) = self.entry(0) {
            write_field!(entry, notes, 0);
        }
    }

    /// From which loop duration on, in nanoseconds, a slice is a stall.
    pub(super) fn set_stall_threshold(&self, nanoseconds: u64) {
        if let Some(entry) = self.entry(0) {
            write_field!(entry, stall_threshold, nanoseconds);
        }
    }
}
