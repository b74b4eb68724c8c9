//! The wait calls as raw system calls, and the few others that no safe crate offers.
//!
//! Raw, because a libc is free to turn one wait call into another (glibc's `poll` is `ppoll` on some
//! architectures) and the loops must issue exactly the one whose count they report. The only part of
//! the demo with `unsafe` in it.
#![expect(unsafe_code, reason = "raw system calls are what this file is for")]

mod cold_file;
mod userfault;

use std::ffi::{c_int, c_long};
use std::os::fd::RawFd;
use std::ptr;
use std::time::Duration;

use io_uring::{opcode, squeue, types};
use ioscope_common::WaitCall;
use rustix::io::Errno;

pub(super) use cold_file::ColdFile;
pub(super) use userfault::SlowPage;

/// What a system call returned: a count, or the errno.
pub(super) type Returned = Result<u32, Errno>;

/// `io_pgetevents(2)`, which libc does not name on every target.
#[cfg(target_arch = "x86_64")]
const SYS_IO_PGETEVENTS: c_long = 333;
#[cfg(not(target_arch = "x86_64"))]
const SYS_IO_PGETEVENTS: c_long = 292;

/// The number of a wait call on this architecture; none if it has no such call.
#[cfg_attr(
    target_arch = "x86_64",
    expect(clippy::unnecessary_wraps, reason = "only other architectures lack a call")
)]
pub(super) const fn number(call: WaitCall) -> Option<c_long> {
    Some(match call {
        #[cfg(target_arch = "x86_64")]
        WaitCall::EpollWait => libc::SYS_epoll_wait,
        #[cfg(target_arch = "x86_64")]
        WaitCall::Poll => libc::SYS_poll,
        #[cfg(target_arch = "x86_64")]
        WaitCall::Select => libc::SYS_select,
        #[cfg(not(target_arch = "x86_64"))]
        WaitCall::EpollWait | WaitCall::Poll | WaitCall::Select => return None,
        WaitCall::EpollPwait => libc::SYS_epoll_pwait,
        WaitCall::EpollPwait2 => libc::SYS_epoll_pwait2,
        WaitCall::Ppoll => libc::SYS_ppoll,
        WaitCall::Pselect6 => libc::SYS_pselect6,
        WaitCall::IoUringEnter => libc::SYS_io_uring_enter,
        WaitCall::IoGetevents => libc::SYS_io_getevents,
        WaitCall::IoPgetevents => SYS_IO_PGETEVENTS,
    })
}

/// How long a wait call may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Timeout {
    /// Until something is ready.
    Never,
    /// At most so long; zero makes a check-in.
    After(Duration),
}

impl Timeout {
    /// The timeout that `call` keeps: its unit is a millisecond, a microsecond or a nanosecond.
    pub(super) fn rounded_for(self, call: WaitCall) -> Self {
        let Self::After(duration) = self else { return self };
        let unit = match call {
            WaitCall::EpollWait | WaitCall::EpollPwait | WaitCall::Poll => 1_000_000,
            WaitCall::Select => 1_000,
            _ => 1,
        };
        Self::After(Duration::from_nanos(nanoseconds(duration).div_ceil(unit) * unit))
    }

    fn milliseconds(self) -> c_int {
        match self {
            Self::Never => -1,
            Self::After(duration) => {
                c_int::try_from(nanoseconds(duration).div_ceil(1_000_000)).unwrap_or(c_int::MAX)
            }
        }
    }

    fn timespec(self) -> Option<libc::timespec> {
        match self {
            Self::Never => None,
            Self::After(duration) => Some(libc::timespec {
                tv_sec: libc::time_t::try_from(duration.as_secs()).unwrap_or(libc::time_t::MAX),
                tv_nsec: c_long::from(duration.subsec_nanos()),
            }),
        }
    }
}

/// A duration in nanoseconds, saturated at 584 years.
pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Where a wait call writes its events.
pub(super) enum Target<'a, T: ?Sized> {
    /// Here.
    Buffer(&'a mut T),
    /// To an address that is never mapped: the call fails with `EFAULT`.
    Unmapped,
}

/// An address in the first page, which no process may map.
fn unmapped<T>() -> *mut T {
    ptr::without_provenance_mut(1)
}

impl<T> Target<'_, [T]> {
    fn pointer(&mut self) -> *mut T {
        match self {
            Self::Buffer(buffer) => buffer.as_mut_ptr(),
            Self::Unmapped => unmapped(),
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::Buffer(buffer) => buffer.len(),
            Self::Unmapped => 1,
        }
    }
}

fn returned(value: c_long) -> Returned {
    u32::try_from(value).map_err(|_| {
        // A value that fits no u32 is -1: libc's sign for "see errno".
        Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
    })
}

fn pointer_to<T>(value: Option<&mut T>) -> *mut T {
    value.map_or(ptr::null_mut(), ptr::from_mut)
}

/// `epoll_wait`, `epoll_pwait` or `epoll_pwait2`; any other call is `ENOSYS`.
pub(super) fn epoll_wait(
    call: WaitCall,
    epoll: RawFd,
    mut events: Target<'_, [libc::epoll_event]>,
    timeout: Timeout,
) -> Returned {
    let number = number(call).ok_or(Errno::NOSYS)?;
    let max = c_int::try_from(events.len()).unwrap_or(c_int::MAX);
    let mask = ptr::null::<libc::sigset_t>();
    // SAFETY: the kernel writes at most `max` events, the length of the buffer, and reads the timespec,
    // which outlives the call; an unmapped address is its to refuse.
    returned(unsafe {
        match call {
            WaitCall::EpollWait => {
                libc::syscall(number, epoll, events.pointer(), max, timeout.milliseconds())
            }
            WaitCall::EpollPwait => {
                libc::syscall(number, epoll, events.pointer(), max, timeout.milliseconds(), mask, 8_usize)
            }
            WaitCall::EpollPwait2 => {
                let mut timespec = timeout.timespec();
                let timespec = pointer_to(timespec.as_mut());
                libc::syscall(number, epoll, events.pointer(), max, timespec, mask, 8_usize)
            }
            _ => return Err(Errno::NOSYS),
        }
    })
}

/// `poll` or `ppoll`; any other call is `ENOSYS`.
pub(super) fn poll(call: WaitCall, mut fds: Target<'_, [libc::pollfd]>, timeout: Timeout) -> Returned {
    let number = number(call).ok_or(Errno::NOSYS)?;
    // SAFETY: the kernel reads and writes as many entries as the buffer is long, and the timespec (ppoll
    // writes what is left of it), which outlives the call; an unmapped address is its to refuse.
    returned(unsafe {
        match call {
            WaitCall::Poll => libc::syscall(number, fds.pointer(), fds.len(), timeout.milliseconds()),
            WaitCall::Ppoll => {
                let mut timespec = timeout.timespec();
                let timespec = pointer_to(timespec.as_mut());
                libc::syscall(
                    number,
                    fds.pointer(),
                    fds.len(),
                    timespec,
                    ptr::null::<libc::sigset_t>(),
                    8_usize,
                )
            }
            _ => return Err(Errno::NOSYS),
        }
    })
}

/// The fds that a `select` watches: a bit each.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FdSet([u64; Self::CAPACITY as usize / 64]);

impl FdSet {
    /// fds from this one on do not fit.
    pub(super) const CAPACITY: u32 = 1024;

    /// Adds an fd; false if it does not fit.
    pub(super) fn insert(&mut self, fd: RawFd) -> bool {
        match usize::try_from(fd).ok().and_then(|fd| Some((self.0.get_mut(fd / 64)?, fd % 64))) {
            Some((word, bit)) => {
                *word |= 1 << bit;
                true
            }
            None => false,
        }
    }
}

/// `select` or `pselect6` for reading on the fds below `nfds`; any other call is `ENOSYS`.
pub(super) fn select(call: WaitCall, nfds: u32, mut read: Target<'_, FdSet>, timeout: Timeout) -> Returned {
    let number = number(call).ok_or(Errno::NOSYS)?;
    let nfds = nfds.min(FdSet::CAPACITY);
    let read = match &mut read {
        Target::Buffer(set) => ptr::from_mut(*set),
        Target::Unmapped => unmapped(),
    };
    let none = ptr::null_mut::<FdSet>();
    let mut timespec = timeout.timespec();
    // SAFETY: the kernel reads and writes the bits below `nfds`, all within the set, and the timeout, which
    // outlives the call; an unmapped address is its to refuse.
    returned(unsafe {
        match call {
            WaitCall::Select => {
                let mut timeval = timespec.map(|timespec| libc::timeval {
                    tv_sec: timespec.tv_sec,
                    tv_usec: timespec.tv_nsec.unsigned_abs().div_ceil(1_000).cast_signed(),
                });
                libc::syscall(number, nfds, read, none, none, pointer_to(timeval.as_mut()))
            }
            WaitCall::Pselect6 => {
                let timespec = pointer_to(timespec.as_mut());
                libc::syscall(number, nfds, read, none, none, timespec, ptr::null::<u8>())
            }
            _ => return Err(Errno::NOSYS),
        }
    })
}

/// `struct io_uring_getevents_arg` (`include/uapi/linux/io_uring.h`).
#[repr(C)]
struct EnterArgument {
    sigmask: u64,
    sigmask_size: u32,
    min_wait_us: u32,
    timespec: u64,
}

/// What an `io_uring_enter` asks for.
pub(super) struct Enter {
    /// The ring's fd, or its index with `IORING_ENTER_REGISTERED_RING`.
    pub(super) ring: RawFd,
    /// How many entries to submit.
    pub(super) submit: u32,
    /// How many completions to wait for.
    pub(super) minimum: u32,
    /// `IORING_ENTER_*`; `EXT_ARG` is added as needed.
    pub(super) flags: u32,
    /// How long to wait at most.
    pub(super) timeout: Timeout,
    /// Whether to hand over an argument at an unmapped address.
    pub(super) unmapped: bool,
}

/// `io_uring_enter`: how many entries it submitted.
pub(super) fn io_uring_enter(enter: &Enter) -> Returned {
    let timespec = enter.timeout.timespec();
    let argument = EnterArgument {
        sigmask: 0,
        sigmask_size: 0,
        min_wait_us: 0,
        timespec: timespec.as_ref().map_or(0, |timespec| ptr::from_ref(timespec).expose_provenance() as u64),
    };
    let (flags, argument, size) = if enter.unmapped {
        (
            enter.flags | io_uring::EnterFlags::EXT_ARG.bits(),
            unmapped::<EnterArgument>().cast_const(),
            size_of::<EnterArgument>(),
        )
    } else if timespec.is_some() {
        let flags = enter.flags | io_uring::EnterFlags::EXT_ARG.bits();
        (flags, ptr::from_ref(&argument), size_of::<EnterArgument>())
    } else {
        (enter.flags, ptr::null(), 8)
    };
    // SAFETY: the argument and the timespec it points to outlive the call. The entries that it submits hold
    // no address: `push` makes none that do.
    returned(unsafe {
        libc::syscall(
            libc::SYS_io_uring_enter,
            enter.ring,
            enter.submit,
            enter.minimum,
            flags,
            argument,
            size,
        )
    })
}

/// Registers a ring's fd with the calling thread (`IORING_REGISTER_RING_FDS`): the index to enter it by.
pub(super) fn register_ring(ring: RawFd) -> Returned {
    /// `struct io_uring_rsrc_update` (`include/uapi/linux/io_uring.h`).
    #[repr(C)]
    struct Update {
        offset: u32,
        reserved: u32,
        data: u64,
    }
    const IORING_REGISTER_RING_FDS: u32 = 20;
    let data = u64::try_from(ring).map_err(|_| Errno::BADF)?;
    let mut update = Update { offset: u32::MAX, reserved: 0, data };
    // SAFETY: the kernel reads and writes one `Update`, which outlives the call.
    returned(unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            ring,
            IORING_REGISTER_RING_FDS,
            ptr::from_mut(&mut update),
            1,
        )
    })?;
    Ok(update.offset)
}

/// An operation whose entry holds no address.
#[derive(Clone, Copy, Debug)]
pub(super) enum RingOperation {
    /// Completes at once.
    Nop,
    /// Completes once the fd is readable.
    PollReadable(RawFd),
}

/// Queues an operation, to be done by a worker thread of the kernel or as the kernel sees fit; false if the queue is
/// full.
pub(super) fn push(
    queue: &mut io_uring::SubmissionQueue<'_>,
    operation: RingOperation,
    user_data: u64,
    by_worker: bool,
) -> bool {
    const POLLIN: u32 = 1;
    let entry: squeue::Entry = match operation {
        RingOperation::Nop => opcode::Nop::new().build(),
        RingOperation::PollReadable(fd) => opcode::PollAdd::new(types::Fd(fd), POLLIN).build(),
    };
    let flags = if by_worker { squeue::Flags::ASYNC } else { squeue::Flags::empty() };
    // SAFETY: neither operation has a buffer that would have to outlive it.
    unsafe { queue.push(&entry.user_data(user_data).flags(flags)).is_ok() }
}

/// `struct io_event` (`include/uapi/linux/aio_abi.h`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AioEvent {
    /// The `data` that the operation was submitted with.
    pub(super) data: u64,
    object: u64,
    result: i64,
    result2: i64,
}

/// `struct iocb` (`include/uapi/linux/aio_abi.h`), little-endian.
#[repr(C)]
struct AioOperation {
    data: u64,
    key: u32,
    rw_flags: u32,
    opcode: u16,
    priority: i16,
    fd: u32,
    buffer: u64,
    bytes: u64,
    offset: i64,
    reserved: u64,
    flags: u32,
    event_fd: u32,
}

/// A context of the kernel's asynchronous I/O; destroyed when dropped.
#[derive(Debug)]
pub(super) struct AioContext(u64);

impl AioContext {
    /// A context for so many operations in flight.
    pub(super) fn new(operations: u32) -> Result<Self, Errno> {
        let mut context = 0_u64;
        // SAFETY: the kernel writes one context id, which outlives the call.
        returned(unsafe { libc::syscall(libc::SYS_io_setup, operations, ptr::from_mut(&mut context)) })?;
        Ok(Self(context))
    }

    /// Submits an `IOCB_CMD_POLL`, which completes once `fd` is readable.
    pub(super) fn submit_poll(&self, fd: RawFd, data: u64) -> Returned {
        const IOCB_CMD_POLL: u16 = 5;
        const POLLIN: u64 = 1;
        let operation = AioOperation {
            data,
            key: 0,
            rw_flags: 0,
            opcode: IOCB_CMD_POLL,
            priority: 0,
            fd: u32::try_from(fd).map_err(|_| Errno::BADF)?,
            buffer: POLLIN,
            bytes: 0,
            offset: 0,
            reserved: 0,
            flags: 0,
            event_fd: 0,
        };
        let mut operations = [ptr::from_ref(&operation)];
        // SAFETY: the kernel copies the one operation during the call, and it names no buffer.
        returned(unsafe { libc::syscall(libc::SYS_io_submit, self.0, 1_usize, operations.as_mut_ptr()) })
    }

    /// `io_getevents` or `io_pgetevents`; on no context at all if `invalid`.
    pub(super) fn wait(
        &self,
        call: WaitCall,
        invalid: bool,
        minimum: u32,
        mut events: Target<'_, [AioEvent]>,
        timeout: Timeout,
    ) -> Returned {
        let number = match call {
            WaitCall::IoGetevents | WaitCall::IoPgetevents => number(call).ok_or(Errno::NOSYS)?,
            _ => return Err(Errno::NOSYS),
        };
        let context = if invalid { 0 } else { self.0 };
        let mut timespec = timeout.timespec();
        let timespec = pointer_to(timespec.as_mut());
        let minimum = c_long::from(minimum);
        // SAFETY: the kernel writes at most as many events as the buffer is long and reads the timespec, which
        // outlives the call; an unmapped address is its to refuse. io_getevents ignores the last argument.
        returned(unsafe {
            libc::syscall(
                number,
                context,
                minimum,
                events.len(),
                events.pointer(),
                timespec,
                ptr::null::<u8>(),
            )
        })
    }
}

impl Drop for AioContext {
    fn drop(&mut self) {
        // SAFETY: the context is this value's own, and no operation in it names a buffer.
        unsafe { libc::syscall(libc::SYS_io_destroy, self.0) };
    }
}

/// The signal that interrupts wait calls.
const SIGNAL: c_int = libc::SIGUSR2;

extern "C" fn on_signal(_signal: c_int) {}

/// Installs a handler that does nothing, without `SA_RESTART`: the signal interrupts, and kills nobody.
pub(super) fn install_handler() -> Result<(), Errno> {
    // SAFETY: sigaction is plain data, of which all zeroes is a value; the handler touches nothing.
    returned(c_long::from(unsafe {
        let mut action = std::mem::zeroed::<libc::sigaction>();
        action.sa_sigaction = on_signal as *const () as usize;
        libc::sigaction(SIGNAL, &raw const action, ptr::null_mut())
    }))
    .map(drop)
}

/// Sends that signal to a thread of this process.
pub(super) fn interrupt(tid: i32) -> Result<(), Errno> {
    // SAFETY: no address is passed; a thread that is gone is ESRCH.
    returned(unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, SIGNAL) }).map(drop)
}

/// How often the calling thread has given up its CPU by itself: slept, that is.
pub(super) fn voluntary_switches() -> u64 {
    // SAFETY: rusage is plain data, of which all zeroes is a value, and outlives the call.
    let usage = unsafe {
        let mut usage = std::mem::zeroed::<libc::rusage>();
        libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
        usage
    };
    u64::try_from(usage.ru_nvcsw).unwrap_or(0)
}
