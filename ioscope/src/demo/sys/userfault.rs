//! A page that takes as long to come as one wishes: `userfaultfd(2)`, with a thread that hands it over.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::ptr::{self, NonNull};
use std::time::Duration;

use rustix::io::Errno;

/// `O_CLOEXEC | UFFD_USER_MODE_ONLY`: faults of the program's own code only, which needs no privilege,
/// `include/uapi/linux/userfaultfd.h`.
const FLAGS: libc::c_int = libc::O_CLOEXEC | 1;

/// `struct uffdio_api`.
#[repr(C)]
struct Api {
    version: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_register`.
#[repr(C)]
struct Register {
    start: u64,
    length: u64,
    mode: u64,
    ioctls: u64,
}

/// `struct uffdio_zeropage`.
#[repr(C)]
struct ZeroPage {
    start: u64,
    length: u64,
    mode: u64,
    zeroed: i64,
}

/// `UFFD_API`.
const API: u64 = 0xaa;
/// `UFFDIO_REGISTER_MODE_MISSING`.
const MODE_MISSING: u64 = 1;

/// `_IOWR(UFFDIO, number, size)`, `include/uapi/asm-generic/ioctl.h`.
const fn request(number: u64, size: usize) -> libc::c_ulong {
    (3 << 30) | ((size as libc::c_ulong) << 16) | ((API as libc::c_ulong) << 8) | number as libc::c_ulong
}

/// Memory of one page, which is not there when it is first touched.
pub(in crate::demo) struct SlowPage {
    faults: OwnedFd,
    page: NonNull<u8>,
    size: usize,
}

// SAFETY: the mapping belongs to the value; it is touched by one thread and filled by the kernel.
unsafe impl Send for SlowPage {}
// SAFETY: as above; `touch` reads, and `hand_over` asks the kernel.
unsafe impl Sync for SlowPage {}

impl SlowPage {
    pub(in crate::demo) fn new() -> Result<Self, Errno> {
        let size = rustix::param::page_size();
        // SAFETY: makes a descriptor, and touches no memory.
        let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, FLAGS) };
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(last_errno)?;
        // SAFETY: the descriptor was made above, and is nobody else's.
        let faults = unsafe { OwnedFd::from_raw_fd(fd) };
        let mut api = Api { version: API, features: 0, ioctls: 0 };
        ioctl(&faults, request(0x3f, size_of::<Api>()), &mut api)?;
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let page = unsafe {
            libc::mmap(
                ptr::null_mut(),
                size,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(last_errno());
        }
        let page = NonNull::new(page.cast()).ok_or(Errno::FAULT)?;
        let this = Self { faults, page, size };
        let mut register =
            Register { start: this.start(), length: size as u64, mode: MODE_MISSING, ioctls: 0 };
        ioctl(&this.faults, request(0x00, size_of::<Register>()), &mut register)?;
        Ok(this)
    }

    fn start(&self) -> u64 {
        self.page.as_ptr() as u64
    }

    /// Reads from the page, and sleeps in the page fault until it is handed over.
    #[inline(never)]
    pub(in crate::demo) fn touch(&self) -> u8 {
        // SAFETY: within the mapping.
        unsafe { ptr::read_volatile(self.page.as_ptr()) }
    }

    /// Waits for the page to be touched, then so long, and hands it over.
    pub(in crate::demo) fn hand_over(&self, after: Duration) -> Result<(), Errno> {
        // struct uffd_msg: of the one kind of message that is asked for, all that matters is that it came.
        let mut message = [0_u8; 32];
        rustix::io::retry_on_intr(|| rustix::io::read(&self.faults, &mut message))?;
        std::thread::sleep(after);
        let mut zero = ZeroPage { start: self.start(), length: self.size as u64, mode: 0, zeroed: 0 };
        ioctl(&self.faults, request(0x04, size_of::<ZeroPage>()), &mut zero)
    }
}

impl Drop for SlowPage {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours, and nothing refers to it any more.
        unsafe { libc::munmap(self.page.as_ptr().cast(), self.size) };
    }
}

fn ioctl<T>(fd: &OwnedFd, request: libc::c_ulong, argument: &mut T) -> Result<(), Errno> {
    // SAFETY: the argument is the structure that the request is for: its size is in the request.
    let failed = unsafe { libc::ioctl(fd.as_raw_fd(), request, ptr::from_mut(argument)) };
    if failed < 0 { Err(last_errno()) } else { Ok(()) }
}

pub(super) fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
