//! What a loop waits on: its pollers, who shares them, and when they become ready.

use core::sync::atomic::{Ordering, compiler_fence};

use ioscope_common::{
    Control, POLLERS as POLLERS_OF_A_LOOP, PollerKey, PollerKind, PollerUse, PollerUsers, READY_UNKNOWN,
    READY_UNMEASURED, WaitArgs, status,
};

use crate::{
    files,
    kernel::Task,
    loops::{LoopRef, entry_field},
    maps::{CONTROL, LOOPS, POLLERS},
    ready,
    rings::{self, RingEvent},
};

impl LoopRef {
    /// The loop that watches the poller at this address in the kernel.
    #[inline(always)]
    pub(crate) fn of_poller(address: u64) -> Option<Self> {
        Self::at(ready::watcher(address)? + 1)
    }

    /// Counts something that happened to one of its rings, on whatever CPU.
    #[inline(always)]
    pub(crate) fn count_ring_event(self, event: RingEvent) {
        // SAFETY: the pointer is an array entry's.
        let count = unsafe {
            match event {
                RingEvent::CqOverflow => &raw mut (*self.entry).ring_events.cq_overflows,
                RingEvent::IoWqPunt => &raw mut (*self.entry).ring_events.io_wq_punts,
            }
        };
        // SAFETY: as above. The target has no atomic addition; one is not needed, because the kernel adds to an
        // overflow under the ring's lock, and hands requests over from the thread that submits them.
        unsafe { core::ptr::write_volatile(count, core::ptr::read_volatile(count) + 1) };
    }

    /// The ring that the present wait call waits on, by its address in the kernel; 0 for none.
    #[inline(always)]
    pub(crate) fn ring(self) -> u64 {
        let poller = entry_field!(self, machine.poller);
        // SAFETY: the pointer is an array entry's, and the index is checked.
        unsafe { (*self.entry).machine.pollers.get(usize::from(poller)).map_or(0, |poller| poller.address) }
    }

    /// The thread waits on a poller for the first time: tells it and the others that they share it.
    #[inline(always)]
    pub(crate) fn use_poller(self, tgid: u32, poller: PollerKind, fd: i32) {
        if !matches!(poller, PollerKind::Epoll | PollerKind::Ring) {
            return;
        }
        let key = PollerKey { tgid, kind: poller as u32, fd };
        let kernel_tid = entry_field!(self, kernel_tid);
        let first = PollerUsers { slot: self.slot(), kernel_tid, users: 1 };
        let Some(users) = POLLERS.get_ptr_mut(key) else {
            let _ = POLLERS.insert(key, first, 0);
            return;
        };
        // SAFETY: the pointers are map entries'. The counts are approximate when threads register at
        // the same time; what follows from them is a mark that is only ever set.
        unsafe {
            let other = LOOPS.get_ptr_mut((*users).slot);
            let alive = other.is_some_and(|other| {
                (*other).kernel_tid == (*users).kernel_tid
                    && (*other).status == status::LIVE
                    && (*other).machine.fd == fd
            });
            if (*users).users <= 1 && !alive {
                // The descriptor's number was used for another poller before.
                *users = first;
                return;
            }
            (*users).users += 1;
            core::ptr::write_volatile(&raw mut (*self.entry).shared, 1);
            if let Some(other) = other
                && alive
            {
                core::ptr::write_volatile(&raw mut (*other).shared, 1);
            }
        }
    }

    /// The present or last wait call's poller, if it has a place in the loop.
    #[inline(always)]
    fn poller(self) -> Option<*mut PollerUse> {
        let at = usize::from(core::hint::black_box(entry_field!(self, machine.poller)));
        if at >= POLLERS_OF_A_LOOP {
            return None;
        }
        // SAFETY: the pointer is an array entry's, and the index is in range.
        Some(unsafe { (&raw mut (*self.entry).machine.pollers).cast::<PollerUse>().add(at) })
    }

    /// Has it noted when the poller of the wait call that the thread has entered becomes ready.
    #[inline(always)]
    pub(crate) fn watch_poller(self, task: Task, args: &WaitArgs) {
        match args.poller {
            PollerKind::Epoll if notes_are_kept_of(Control::NOTES_OF_EPOLL) => {
                self.watch(files::open_file(task, args.fd as u32).map_or(0, files::private_data));
            }
            PollerKind::Ring | PollerKind::RegisteredRing if notes_are_kept_of(Control::NOTES_OF_RINGS) => {
                self.watch(args.ring);
            }
            _ => {}
        }
    }

    #[inline(always)]
    fn watch(self, address: u64) {
        let at = entry_field!(self, machine.poller);
        let Some(poller) = self.poller() else {
            return;
        };
        let place = if address == 0 { None } else { ready::watch(address, self.slot(), usize::from(at)) };
        self.add_to_seq();
        compiler_fence(Ordering::SeqCst);
        // SAFETY: the pointer is into an array entry's machine, which only the thread's own transitions write.
        unsafe {
            (*poller).address = address;
            (*poller).note = place.map_or(0, |place| place + 1);
        }
        self.end_write();
    }

    /// The thread slept on its epoll instance and got events, and nobody was seen to make it ready: either no hook
    /// tells of this kind of file, or the descriptor stands for another instance by now. Not asked each time.
    #[inline(always)]
    pub(crate) fn watch_again(self) {
        let Some(poller) = self.poller() else {
            return;
        };
        // SAFETY: the pointer is into an array entry.
        let PollerUse { kind, fd, iterations, address, .. } = unsafe { *poller };
        if kind != PollerKind::Epoll as u32
            || iterations & 7 != 0
            || !notes_are_kept_of(Control::NOTES_OF_EPOLL)
        {
            return;
        }
        let now_there = files::open_file(Task::current(), fd as u32).map_or(0, files::private_data);
        if now_there != address || !ready::is_watched(address) {
            self.watch(now_there);
        }
    }

    /// When the poller of the present wait call became ready.
    #[inline(always)]
    pub(crate) fn ready_at(self) -> u64 {
        let Some(poller) = self.poller() else {
            return READY_UNMEASURED;
        };
        // SAFETY: the pointer is into an array entry.
        let PollerUse { kind, note, .. } = unsafe { *poller };
        if note != 0 {
            ready::noted(note - 1)
        } else if kind == PollerKind::Set as u32 {
            READY_UNKNOWN
        } else {
            READY_UNMEASURED
        }
    }

    /// The note has served.
    #[inline(always)]
    pub(crate) fn forget_ready(self) {
        if let Some(poller) = self.poller() {
            // SAFETY: the pointer is into an array entry.
            let note = unsafe { (*poller).note };
            if note != 0 {
                ready::forget(note - 1);
            }
        }
    }

    /// The thread is about to wait on a ring. What it has taken out of it by itself needs no return of a wait call
    /// to reach it.
    #[inline(always)]
    pub(crate) fn forget_taken(self, args: &WaitArgs) {
        let at = self.ready_at();
        if at != READY_UNKNOWN && at != READY_UNMEASURED && rings::posted(args.ring) == args.taken {
            self.forget_ready();
        }
    }
}

/// Whether notes are kept of when such a poller becomes ready.
#[inline(always)]
pub(crate) fn notes_are_kept_of(which: u32) -> bool {
    // SAFETY: an array entry's pointer.
    CONTROL
        .get_ptr(0)
        .is_some_and(|control| unsafe { core::ptr::read_volatile(&raw const (*control).notes) } & which != 0)
}
