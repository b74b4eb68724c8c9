//! The records of the stream, from the kernel to the collector through the ring buffer.

/// Which record it is: the first byte of each.
pub mod kind {
    /// An [`Iteration`](super::Iteration).
    pub const ITERATION: u8 = 1;
    /// A [`BlockRecord`](super::BlockRecord).
    pub const BLOCK: u8 = 2;
    /// A [`CaptureRecord`](crate::CaptureRecord).
    pub const CAPTURE: u8 = 3;
    /// A [`SleptRecord`](crate::SleptRecord).
    pub const SLEPT: u8 = 4;
}

/// A turn of a loop: a wait call from its entry to its return, and the slice that followed, until
/// the next entry. Durations are in nanoseconds, times in nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "user"), derive(Debug))]
#[repr(C)]
pub struct Iteration {
    /// [`kind::ITERATION`].
    pub kind: u8,
    /// A [`WaitCall`](crate::WaitCall).
    pub call: u8,
    /// [`Self::SLEPT`] and others.
    pub flags: u8,
    /// A [`WakerContext`](crate::WakerContext).
    pub waker_context: u8,
    /// The loop's place in the map of loops.
    pub slot: u32,
    /// When the wait call returned.
    pub returned_at: u64,
    /// How long it took, from entry to return.
    pub wait_ns: u64,
    /// The loop duration that followed, or [`Self::UNFINISHED`].
    pub loop_ns: u64,
    /// Of that slice: BLOCKED.
    pub blocked_ns: u64,
    /// Beside that slice: PARKED.
    pub parked_ns: u64,
    /// The wakeup latency, or [`NO_WAKEUP`](crate::NO_WAKEUP).
    pub wakeup_ns: u64,
    /// The part of it until the thread was on a CPU, or [`NO_WAKEUP`](crate::NO_WAKEUP) where that was not seen.
    pub run_queue_ns: u64,
    /// The timeout, [`TIMEOUT_NEVER`](crate::TIMEOUT_NEVER) or
    /// [`TIMEOUT_UNKNOWN`](crate::TIMEOUT_UNKNOWN).
    pub timeout: i64,
    /// What the call returned: a count, or a negated errno.
    pub result: i32,
    /// Ready events.
    pub events: u32,
    /// The poller's descriptor, or −1.
    pub fd: i32,
    /// The limit of events, 0 for none.
    pub max_events: u32,
    /// The thread that woke it; 0 for none.
    pub waker: u32,
    /// The ready delay, [`Self::READY_AT_MOST`] for that or more, or [`Self::READY_UNSEEN`].
    pub ready_ns: u32,
}

impl Iteration {
    /// The wait call slept.
    pub const SLEPT: u8 = 1;
    /// Its timeout expired.
    pub const TIMED_OUT: u8 = 2;
    /// Its timeout was zero.
    pub const CHECK_IN: u8 = 4;
    /// It returned as many events as it had asked for.
    pub const BATCH_FULL: u8 = 8;
    /// The thread ended in the slice.
    pub const CUT: u8 = 16;
    /// It was in a stall in the slice.
    pub const STALLED: u8 = 32;

    /// The ready delay of a wait call whose events were not seen to become ready, or that returned none.
    pub const READY_UNSEEN: u32 = u32::MAX;
    /// The longest ready delay that fits: 4.3 seconds.
    pub const READY_AT_MOST: u32 = u32::MAX - 1;

    /// The loop duration of a slice that has not ended.
    pub const UNFINISHED: u64 = u64::MAX;

    /// A free entry's.
    pub(crate) const ZERO: Self = Self {
        kind: 0,
        call: 0,
        flags: 0,
        waker_context: 0,
        slot: 0,
        returned_at: 0,
        wait_ns: 0,
        loop_ns: 0,
        blocked_ns: 0,
        parked_ns: 0,
        wakeup_ns: 0,
        run_queue_ns: 0,
        timeout: 0,
        result: 0,
        events: 0,
        fd: 0,
        max_events: 0,
        waker: 0,
        ready_ns: 0,
    };
}

/// A sleep outside the wait call.
#[derive(Clone, Copy, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "user"), derive(Debug))]
#[repr(C)]
pub struct BlockRecord {
    /// [`kind::BLOCK`].
    pub kind: u8,
    /// Unused.
    pub reserved: [u8; 3],
    /// The loop's place in the map of loops.
    pub slot: u32,
    /// The sleep.
    pub block: crate::Block,
}
