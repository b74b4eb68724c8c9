//! A file whose pages are on the disk only: each that is touched is a page fault that waits for it.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::ptr::{self, NonNull};

use rustix::io::Errno;

use super::userfault::last_errno;

/// A mapped file.
pub(in crate::demo) struct ColdFile {
    file: File,
    base: NonNull<u8>,
    pages: usize,
    page_size: usize,
}

impl ColdFile {
    /// Maps a file that has so many pages, all written to the disk.
    pub(in crate::demo) fn new(file: File, pages: u32) -> Result<Self, Errno> {
        let page_size = rustix::param::page_size();
        let pages = pages as usize;
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let base = unsafe {
            libc::mmap(
                ptr::null_mut(),
                pages * page_size,
                libc::PROT_READ,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(last_errno());
        }
        let base = NonNull::new(base.cast()).ok_or(Errno::NOMEM)?;
        let this = Self { file, base, pages, page_size };
        // A fault brings its own page, and not its neighbours.
        this.advise(libc::MADV_RANDOM)?;
        Ok(this)
    }

    /// Has the kernel forget the pages: those that are touched next come from the disk.
    pub(in crate::demo) fn evict(&self) -> Result<(), Errno> {
        self.advise(libc::MADV_DONTNEED)?;
        // SAFETY: it touches no memory of this process.
        let errno = unsafe { libc::posix_fadvise(self.file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
        if errno == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(errno)) }
    }

    /// A stall by page faults, to be found by name in a stall's stack: touches every page. The sum of what is there.
    #[inline(never)]
    pub(in crate::demo) fn demo_touch_pages(&self) -> u64 {
        let mut sum = 0_u64;
        for page in 0..self.pages {
            // SAFETY: within the mapping, which nobody makes shorter.
            sum += u64::from(unsafe { self.base.add(page * self.page_size).read_volatile() });
        }
        sum
    }

    fn advise(&self, advice: libc::c_int) -> Result<(), Errno> {
        // SAFETY: the mapping is this value's, and what is thrown away is on the disk.
        let done = unsafe { libc::madvise(self.base.as_ptr().cast(), self.pages * self.page_size, advice) };
        if done == 0 { Ok(()) } else { Err(last_errno()) }
    }
}

impl Drop for ColdFile {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's.
        let _ = unsafe { libc::munmap(self.base.as_ptr().cast(), self.pages * self.page_size) };
    }
}
