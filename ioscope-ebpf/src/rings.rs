//! Which ring an `io_uring_enter` is about, and how many completions it has had.
//!
//! The kernel publishes completions by moving the tail of the ring's completion queue, which is a
//! count of all that were ever posted. Reading it when a wait call returns costs that call two
//! reads; a probe on every completion would cost every completion, and would miss none more.

use crate::{
    files,
    kernel::{Task, read_kernel},
    maps::config,
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
