//! When a poller became ready: noted at the moment, by whoever makes it so, for the loop to find when its wait call
//! returns.
//!
//! A note is kept per poller and tells of the first event since the last return; so that it costs an event one lookup,
//! and a wait call next to nothing. Epoll instances are told by the function that the kernel calls for every file
//! that becomes ready ([`ep_poll_callback`]) or, where functions cannot be hooked, by the tracepoint of sockets
//! that have received ([`sk_data_ready`]); rings by the tracepoint of completions.

use aya_ebpf::{
    macros::{btf_tracepoint, fentry},
    programs::{BtfTracePointContext, FEntryContext},
};
use ioscope_common::POLLERS;

use crate::{
    kernel::{Place, read_kernel},
    loops::now,
    maps::{NOTES, WATCHED, config},
};

/// Where notes of a loop's poller go that nobody else waits on.
#[inline(always)]
const fn place_of(slot: u32, at: usize) -> u32 {
    slot * POLLERS as u32 + at as u32
}

/// Has it noted when the poller at this address becomes ready; returns where. Threads that share it share the note.
#[inline(always)]
pub(crate) fn watch(address: u64, slot: u32, at: usize) -> Option<u32> {
    if let Some(place) = WATCHED.get_ptr(address) {
        // SAFETY: a map entry's pointer.
        return Some(unsafe { *place });
    }
    let place = place_of(slot, at);
    forget(place);
    WATCHED.insert(address, place, 0).is_ok().then_some(place)
}

/// Whether the poller at this address is watched.
#[inline(always)]
pub(crate) fn is_watched(address: u64) -> bool {
    WATCHED.get_ptr(address).is_some()
}

/// The place of the loop that watches the poller at this address; of threads that share it, the first.
#[inline(always)]
pub(crate) fn watcher(address: u64) -> Option<u32> {
    // SAFETY: a map entry's pointer.
    WATCHED.get_ptr(address).map(|place| unsafe { *place } / POLLERS as u32)
}

/// The loop whose place this is has ended.
#[inline(always)]
pub(crate) fn unwatch(address: u64, slot: u32, at: usize) {
    // SAFETY: a map entry's pointer.
    if address != 0 && WATCHED.get_ptr(address).is_some_and(|place| unsafe { *place } == place_of(slot, at)) {
        let _ = WATCHED.remove(address);
    }
}

/// What the note says: a time, or [`READY_UNKNOWN`](ioscope_common::READY_UNKNOWN).
#[inline(always)]
pub(crate) fn noted(place: u32) -> u64 {
    // SAFETY: an array entry's pointer.
    NOTES
        .get_ptr(place)
        .map_or(ioscope_common::READY_UNKNOWN, |note| unsafe { core::ptr::read_volatile(note) })
}

/// The next event is the first again.
#[inline(always)]
pub(crate) fn forget(place: u32) {
    if let Some(note) = NOTES.get_ptr_mut(place) {
        // SAFETY: an array entry's pointer.
        unsafe { core::ptr::write_volatile(note, ioscope_common::READY_UNKNOWN) };
    }
}

/// The poller at this address is ready.
#[inline(always)]
fn note(address: u64) {
    let Some(place) = WATCHED.get_ptr(address) else {
        return;
    };
    // SAFETY: a map entry's pointer.
    if let Some(note) = NOTES.get_ptr_mut(unsafe { *place }) {
        // SAFETY: an array entry's pointer. When two events come at once, either may be the first.
        unsafe {
            if core::ptr::read_volatile(note) == ioscope_common::READY_UNKNOWN {
                core::ptr::write_volatile(note, now());
            }
        }
    }
}

/// Bits of `epoll_event.events` that ask for no event: `EP_PRIVATE_BITS`, `fs/eventpoll.c`.
const NO_EVENTS: u32 = 0xf000_0000;
/// `EPOLLIN` and `EPOLLRDNORM`, `include/uapi/linux/eventpoll.h`.
const IN: u32 = 0x1 | 0x40;

/// A file that an epoll instance watches has become ready, `fs/eventpoll.c`. For what it was not asked for it does
/// nothing, as here.
#[fentry(function = "ep_poll_callback")]
pub(crate) fn ep_poll_callback(ctx: FEntryContext) -> i32 {
    let wait = ctx.arg::<u64>(0);
    let events = ctx.arg::<u64>(3) as u32;
    let entry = wait.wrapping_sub(u64::from(config!(offsets.eppoll_entry_wait)));
    if let Some((poller, wanted)) = watched_by(entry)
        && wanted & !NO_EVENTS != 0
        && (events == 0 || events & wanted != 0)
    {
        note(poller);
    }
    0
}

/// Of an entry in the list of those who wait for a file: the epoll instance that has put it there, and the events that
/// it waits for. Of an entry that is not an epoll instance's, anything.
#[inline(always)]
fn watched_by(entry: u64) -> Option<(u64, u32)> {
    let item = read_kernel::<u64>(entry + u64::from(config!(offsets.eppoll_entry_base)))?;
    let poller = read_kernel::<u64>(item + u64::from(config!(offsets.epitem_ep)))?;
    let wanted = read_kernel::<u32>(item + u64::from(config!(offsets.epitem_events)))?;
    Some((poller, wanted))
}

/// How many of those who wait for one socket are looked at.
const WAITERS: u32 = 4;

/// A socket has received, or has a connection to accept, `include/trace/events/sock.h`; since Linux 6.3.
#[btf_tracepoint(function = "sk_data_ready")]
pub(crate) fn sk_data_ready(ctx: BtfTracePointContext) -> i32 {
    let queue = Place::known(ctx.arg(0)).read::<u64>(config!(offsets.sock_wq));
    let head = queue + u64::from(config!(offsets.socket_wq_head));
    let mut link = read_kernel::<u64>(head).unwrap_or(0);
    for _ in 0..WAITERS {
        if link == 0 || link == head {
            break;
        }
        let entry = link.wrapping_sub(u64::from(config!(offsets.eppoll_entry_link)));
        if let Some((poller, wanted)) = watched_by(entry)
            && wanted & IN != 0
        {
            note(poller);
        }
        link = read_kernel::<u64>(link).unwrap_or(0);
    }
    0
}

/// A completion is posted to a ring, `include/trace/events/io_uring.h`. Its first argument is the ring in every kernel
/// that has it.
#[btf_tracepoint(function = "io_uring_complete")]
pub(crate) fn io_uring_complete(ctx: BtfTracePointContext) -> i32 {
    note(ctx.arg(0));
    0
}
