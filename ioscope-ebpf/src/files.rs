//! From a file descriptor to what it stands for, as the kernel finds it.

use crate::{
    kernel::{Task, read_kernel},
    maps::config,
};

/// The `struct file` that a thread has open under this number.
#[inline(always)]
pub(crate) fn open_file(task: Task, fd: u32) -> Option<u64> {
    let files = task.pointer(config!(offsets.task_files));
    let table = read_kernel::<u64>(files + u64::from(config!(offsets.files_fdt)))?;
    if fd >= read_kernel::<u32>(table + u64::from(config!(offsets.fdtable_max_fds)))? {
        return None;
    }
    let files = read_kernel::<u64>(table + u64::from(config!(offsets.fdtable_fd)))?;
    read_kernel::<u64>(files + u64::from(fd) * 8).filter(|file| *file != 0)
}

/// What kind of file it is decides what this is: of a ring its `struct io_ring_ctx`, of an epoll instance its
/// `struct eventpoll`. 0 when it cannot be read.
#[inline(always)]
pub(crate) fn private_data(file: u64) -> u64 {
    read_kernel(file + u64::from(config!(offsets.file_private_data))).unwrap_or(0)
}
