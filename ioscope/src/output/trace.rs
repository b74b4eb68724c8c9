//! The lines of `trace`: what happened to a loop, as text or as JSON.
//!
//! Each line is complete in itself: whatever it needs beside the record is handed in, resolved. Text
//! and JSON say the same.

mod json;
#[cfg(test)]
mod tests;
mod text;

use std::{io, time::Duration, time::SystemTime};

use ioscope_common::{Block, Drops, Iteration, Loop, NO_WAKEUP, WaitCall, WakerContext};

use crate::model::{Identity, stalls::Stall};

/// A thing that happened, or has not ended yet.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// A wait call that returned, and the slice after it.
    Iteration(Turn<'a>),
    /// A sleep outside the wait call.
    Block(&'a Block),
    /// A wait call that had not returned when tracing ended.
    Waiting(Call, u64),
    /// A stall that was found, or has ended.
    Stall(&'a Stall),
}

/// An iteration.
#[derive(Clone, Copy, Debug)]
pub struct Turn<'a> {
    /// The record. Of an unfinished one, durations are those so far.
    pub record: &'a Iteration,
    /// The name of the thread that woke it, if it is known.
    pub waker: Option<&'a str>,
    /// The slice had not ended when tracing did.
    pub unfinished: bool,
    /// Its loop duration is a stall.
    pub stall: bool,
}

/// A wait call and its arguments.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Which; `None` if this program does not know its number.
    pub call: Option<WaitCall>,
    /// The poller's descriptor, or −1.
    pub fd: i32,
    /// The limit of events, 0 for none.
    pub max_events: u32,
    /// Nanoseconds, or [`TIMEOUT_NEVER`](ioscope_common::TIMEOUT_NEVER) and its siblings.
    pub timeout: i64,
}

impl Call {
    /// An iteration's.
    pub const fn of(record: &Iteration) -> Self {
        Self {
            call: WaitCall::from_number(record.call),
            fd: record.fd,
            max_events: record.max_events,
            timeout: record.timeout,
        }
    }

    /// The one that a loop is in, or was in last.
    pub const fn present(machine: &Loop) -> Self {
        Self {
            call: WaitCall::from_number(machine.call),
            fd: machine.fd,
            max_events: machine.max_events,
            timeout: machine.timeout,
        }
    }

    fn is_ring(self) -> bool {
        self.call == Some(WaitCall::IoUringEnter)
    }
}

/// Where in time a line stands.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// Nanoseconds of `CLOCK_MONOTONIC`.
    pub monotonic_ns: u64,
    /// Nanoseconds since 1970, UTC.
    pub unix_ns: u64,
    /// Nanoseconds since midnight, local time.
    pub time_of_day_ns: u64,
}

impl Moment {
    fn utc(self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_nanos(self.unix_ns)
    }
}

/// Writes a line of text.
pub fn write_text(out: &mut impl io::Write, at: Moment, who: &Identity, event: Event<'_>) -> io::Result<()> {
    text::write(out, at, who, event)
}

/// Writes a line of JSON.
pub fn write_json(out: &mut impl io::Write, at: Moment, who: &Identity, event: Event<'_>) -> io::Result<()> {
    json::write(out, at, who, event)
}

/// Writes the last line of JSON: what was dropped.
pub fn write_json_drops(out: &mut impl io::Write, drops: &Drops) -> io::Result<()> {
    json::write_drops(out, drops)
}

/// What was remarkable about an iteration, in the order in which it is told: by its flag, its name in
/// JSON, and for people.
const FLAGS: [(u8, &str, &str); 4] = [
    (Iteration::TIMED_OUT, "timed_out", "timed out"),
    (Iteration::CHECK_IN, "check_in", "check-in"),
    (Iteration::BATCH_FULL, "batch_full", "batch full"),
    (Iteration::CUT, "thread_ended", "thread ended"),
];

fn has_wakeup(record: &Iteration) -> bool {
    record.wakeup_ns != NO_WAKEUP
}

fn context(record: &Iteration) -> WakerContext {
    WakerContext::from_number(record.waker_context)
}

/// The errnos that wait calls fail with, by `asm-generic/errno-base.h` and `asm-generic/errno.h`,
/// which `x86_64` and aarch64 share.
const fn errno_name(errno: i32) -> Option<&'static str> {
    Some(match errno {
        1 => "EPERM",
        4 => "EINTR",
        6 => "ENXIO",
        9 => "EBADF",
        11 => "EAGAIN",
        12 => "ENOMEM",
        13 => "EACCES",
        14 => "EFAULT",
        16 => "EBUSY",
        17 => "EEXIST",
        22 => "EINVAL",
        38 => "ENOSYS",
        62 => "ETIME",
        75 => "EOVERFLOW",
        77 => "EBADFD",
        95 => "EOPNOTSUPP",
        125 => "ECANCELED",
        130 => "EOWNERDEAD",
        _ => return None,
    })
}
