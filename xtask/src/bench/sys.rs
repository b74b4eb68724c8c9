//! The few system calls that the benchmark makes itself, as safe functions. The only file of this
//! crate with unsafe code.
#![expect(
    unsafe_code,
    reason = "the measured calls are made as a C program would make them, without a wrapper"
)]

use std::{
    io,
    mem::MaybeUninit,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
    time::Duration,
};

/// Holds the calling thread to one CPU.
pub(super) fn pin_to_cpu(cpu: usize) -> io::Result<()> {
    // SAFETY: all bits zero is the empty set.
    let mut set: libc::cpu_set_t = unsafe { MaybeUninit::zeroed().assume_init() };
    if cpu >= 8 * size_of::<libc::cpu_set_t>() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: the number is within the set.
    unsafe { libc::CPU_SET(cpu, &mut set) };
    // SAFETY: the set is initialised and as long as it is said to be.
    check(unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) })?;
    Ok(())
}

/// An epoll instance that watches one descriptor, which is always ready.
pub(super) struct AlwaysReady {
    epoll: OwnedFd,
    _event: OwnedFd,
}

impl AlwaysReady {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: it takes no pointers.
        let epoll = owned(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        // A counter over zero makes an eventfd readable, and nobody reads it.
        // SAFETY: it takes no pointers.
        let event = owned(unsafe { libc::eventfd(1, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
        let mut interest = libc::epoll_event { events: libc::EPOLLIN.cast_unsigned(), u64: 0 };
        // SAFETY: both descriptors are open, the event is initialised.
        check(unsafe {
            libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, event.as_raw_fd(), &raw mut interest)
        })?;
        Ok(Self { epoll, _event: event })
    }

    /// One `epoll_wait`, for one event and without a timeout: it returns at once, but for the kernel
    /// it is a wait and no check-in.
    #[inline]
    pub(super) fn wait(&self) {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        // SAFETY: the descriptor is open, and there is room for the one event.
        unsafe { libc::epoll_wait(self.epoll.as_raw_fd(), &raw mut event, 1, -1) };
    }
}

/// One `getppid`, the cheapest system call that libc does not answer itself.
#[inline]
pub(super) fn getppid() {
    // SAFETY: it takes no pointers and cannot fail.
    unsafe { libc::getppid() };
}

/// Sends SIGINT, as Ctrl-C does.
pub(super) fn interrupt(pid: u32) -> io::Result<()> {
    // SAFETY: it takes no pointers.
    check(unsafe { libc::kill(pid.cast_signed(), libc::SIGINT) })?;
    Ok(())
}

/// The CPU time of all threads of another process so far, in user space and in the kernel.
pub(super) fn cpu_time(pid: u32) -> io::Result<Duration> {
    let mut clock = 0;
    // SAFETY: there is room for the clock's number.
    let errno = unsafe { libc::clock_getcpuclockid(pid.cast_signed(), &raw mut clock) };
    if errno != 0 {
        return Err(io::Error::from_raw_os_error(errno));
    }
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: there is room for the time.
    check(unsafe { libc::clock_gettime(clock, &raw mut time) })?;
    Ok(Duration::new(time.tv_sec.cast_unsigned(), u32::try_from(time.tv_nsec).unwrap_or(0)))
}

fn owned(descriptor: i32) -> io::Result<OwnedFd> {
    let descriptor = check(descriptor)?;
    // SAFETY: the kernel has just handed it out, to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
