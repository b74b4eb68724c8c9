//! The wait calls: the system calls that an event loop sleeps in.

/// A system call in which an event loop waits for events.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(any(test, feature = "user"), derive(Debug))]
#[repr(u8)]
pub enum WaitCall {
    /// `epoll_wait(2)`; absent on aarch64.
    EpollWait = 1,
    /// `epoll_pwait(2)`.
    EpollPwait = 2,
    /// `epoll_pwait2(2)`, since Linux 5.11.
    EpollPwait2 = 3,
    /// `poll(2)`; absent on aarch64.
    Poll = 4,
    /// `ppoll(2)`.
    Ppoll = 5,
    /// `select(2)`; absent on aarch64.
    Select = 6,
    /// `pselect6(2)`.
    Pselect6 = 7,
    /// `io_uring_enter(2)` with `IORING_ENTER_GETEVENTS`.
    IoUringEnter = 8,
    /// `io_getevents(2)`.
    IoGetevents = 9,
    /// `io_pgetevents(2)`.
    IoPgetevents = 10,
}

impl WaitCall {
    /// How many kinds there are.
    pub const COUNT: usize = 10;

    /// Every kind, in the order of its number.
    pub const ALL: [Self; Self::COUNT] = [
        Self::EpollWait,
        Self::EpollPwait,
        Self::EpollPwait2,
        Self::Poll,
        Self::Ppoll,
        Self::Select,
        Self::Pselect6,
        Self::IoUringEnter,
        Self::IoGetevents,
        Self::IoPgetevents,
    ];

    /// The kind with this number (1 to [`Self::COUNT`]).
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            1 => Self::EpollWait,
            2 => Self::EpollPwait,
            3 => Self::EpollPwait2,
            4 => Self::Poll,
            5 => Self::Ppoll,
            6 => Self::Select,
            7 => Self::Pselect6,
            8 => Self::IoUringEnter,
            9 => Self::IoGetevents,
            10 => Self::IoPgetevents,
            _ => return None,
        })
    }

    /// Where this kind's counter stands in an array of [`Self::COUNT`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize - 1
    }

    /// The system call's name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::EpollWait => "epoll_wait",
            Self::EpollPwait => "epoll_pwait",
            Self::EpollPwait2 => "epoll_pwait2",
            Self::Poll => "poll",
            Self::Ppoll => "ppoll",
            Self::Select => "select",
            Self::Pselect6 => "pselect6",
            Self::IoUringEnter => "io_uring_enter",
            Self::IoGetevents => "io_getevents",
            Self::IoPgetevents => "io_pgetevents",
        }
    }
}
