//! Which ring an `io_uring_enter` is about, and how many completions it has had.
//!
//! The kernel publishes completions by moving the tail of the ring's completion queue, which is a
//! count of all that were ever posted. Reading it when a wait call returns costs that call two
//! reads; a probe on every completion would cost every completion, and would miss none more.

use aya_ebpf::{macros::btf_tracepoint, programs::BtfTracePointContext};
use ioscope_common::{Control, flag};

use crate::{
    files,
    kernel::{Task, read_kernel},
    loops::LoopRef,
    maps::config,
    pollers::notes_are_kept_of,
};

/// The ring's address in the kernel (`struct io_ring_ctx`), found from the descriptor as the kernel
/// finds it: 0 when there is none.
#[inline(always)]
pub(crate) fn ring_of(task: Task, fd: u32, registered: bool) -> u64 {
    let file = if registered { registered_file(task, fd) } else { files::open_file(task, fd) };
    file.map_or(0, files::private_data)
}

/// A thread has 16 registered rings: `IO_RINGFD_REG_MAX`, `include/linux/io_uring_types.h`.
const REGISTERED_RINGS: u32 = 16;

#[inline(always)]
fn registered_file(task: Task, index: u32) -> Option<u64> {
    let context = task.pointer(config!(offsets.task_io_uring));
    if context == 0 || index >= REGISTERED_RINGS {
        return None;
    }
    let rings = context + u64::from(config!(offsets.io_uring_task_registered_rings));
    read_kernel::<u64>(rings + u64::from(index) * 8).filter(|file| *file != 0)
}

/// How many completions have been posted to a ring, modulo 2^32.
#[inline(always)]
pub(crate) fn posted(ring: u64) -> u32 {
    completion_queue(ring, config!(offsets.io_rings_cq_tail))
}

/// How many of them the program has taken out, modulo 2^32.
#[inline(always)]
pub(crate) fn taken(ring: u64) -> u32 {
    completion_queue(ring, config!(offsets.io_rings_cq_head))
}

#[inline(always)]
fn completion_queue(ring: u64, offset: u32) -> u32 {
    read_kernel::<u64>(ring + u64::from(config!(offsets.io_ring_ctx_rings)))
        .and_then(|rings| read_kernel::<u32>(rings + u64::from(offset)))
        .unwrap_or(0)
}

/// What can happen to a ring, beside completions.
#[derive(Clone, Copy)]
pub(crate) enum RingEvent {
    /// A completion found the completion queue full.
    CqOverflow,
    /// A request went to a worker thread.
    IoWqPunt,
}

/// A completion found no room in the completion queue. Its first argument is the ring, on every kernel that has the
/// tracepoint (since Linux 5.19, `include/trace/events/io_uring.h`). The count that the ring itself keeps
/// (`io_rings.cq_overflow`) is of completions that the kernel had to give up, which is another thing: those that
/// overflow are kept apart until there is room.
#[btf_tracepoint(function = "io_uring_cqe_overflow")]
pub(crate) fn io_uring_cqe_overflow(ctx: BtfTracePointContext) -> i32 {
    happened(ctx.arg::<u64>(0), RingEvent::CqOverflow)
}

/// A request is handed to a worker thread.
#[btf_tracepoint(function = "io_uring_queue_async_work")]
pub(crate) fn io_uring_queue_async_work(ctx: BtfTracePointContext) -> i32 {
    let first = ctx.arg::<u64>(0);
    let ring = if config!(flags) & flag::PUNT_HAS_REQUEST == 0 {
        first
    } else {
        read_kernel::<u64>(first + u64::from(config!(offsets.io_kiocb_ctx))).unwrap_or(0)
    };
    happened(ring, RingEvent::IoWqPunt)
}

#[inline(always)]
fn happened(ring: u64, event: RingEvent) -> i32 {
    if notes_are_kept_of(Control::NOTES_OF_RINGS)
        && let Some(waiter) = LoopRef::of_poller(ring)
    {
        waiter.count_ring_event(event);
    }
    0
}
