//! A line as text: the call as strace writes it, then how long it slept and how long the loop ran,
//! in columns; what is not on every line comes last.

use std::io::{self, Write};

use ioscope_common::{
    Block, Iteration, NO_WAKEUP, STOPPED, State, TIMEOUT_NEVER, TIMEOUT_UNKNOWN, WaitCall, WakerContext,
};

use super::{Call, Event, FLAGS, Moment, Turn, context, errno_name, has_wakeup};
use crate::{
    model::Identity,
    output::{json::syscall_name, numbers::Nanoseconds, stalls},
};

/// A name of 15 characters and a number of 7 take one more than this together.
const THREAD: usize = 22;
/// `epoll_pwait2(epfd 12, max 1024, timeout 100ms)`.
const CALL: usize = 46;
/// `= -1 EINTR`.
const RESULT: usize = 10;
const DURATION: usize = 6;

pub(super) fn write(
    out: &mut impl io::Write,
    at: Moment,
    who: &Identity,
    event: Event<'_>,
) -> io::Result<()> {
    let mut line = Line { bytes: Vec::with_capacity(256) };
    // Writing to a vector does not fail.
    let _ = line.write(at, who, event);
    out.write_all(&line.bytes)
}

struct Line {
    bytes: Vec<u8>,
}

impl Line {
    fn write(&mut self, at: Moment, who: &Identity, event: Event<'_>) -> io::Result<()> {
        self.time(at);
        self.cell(THREAD, |out| write!(out, "{}/{}", who.comm, who.tid))?;
        match event {
            Event::Iteration(turn) => self.iteration(turn)?,
            Event::Block(block) => self.block(block)?,
            Event::Stall(stall) => stalls::write_trace(&mut self.bytes, stall)?,
            Event::Waiting(call, ns) => {
                self.cell(CALL, |out| write_call(out, call))?;
                self.cell(RESULT, |out| write!(out, "= ?"))?;
                write!(self.bytes, "slept {:>DURATION$} so far", Nanoseconds(ns))?;
            }
        }
        self.bytes.push(b'\n');
        Ok(())
    }

    /// A text, filled up to a width, and a blank.
    fn cell(&mut self, width: usize, write: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> io::Result<()> {
        let start = self.bytes.len();
        write(&mut self.bytes)?;
        // In UTF-8 every character has one byte that is not of this form.
        let characters = self.bytes[start..].iter().filter(|byte| **byte & 0xc0 != 0x80).count();
        let blanks = width.saturating_sub(characters) + 1;
        self.bytes.resize(self.bytes.len() + blanks, b' ');
        Ok(())
    }

    /// `HH:MM:SS.` and microseconds.
    fn time(&mut self, at: Moment) {
        let micros = at.time_of_day_ns / 1_000;
        let seconds = micros / 1_000_000;
        self.digits(seconds / 3_600, 2, b':');
        self.digits(seconds / 60 % 60, 2, b':');
        self.digits(seconds % 60, 2, b'.');
        self.digits(micros % 1_000_000, 6, b' ');
    }

    /// A number with leading zeroes, and what follows it.
    fn digits(&mut self, number: u64, digits: u32, after: u8) {
        for place in (0..digits).rev() {
            self.bytes.push(b"0123456789"[(number / 10_u64.pow(place) % 10) as usize]);
        }
        self.bytes.push(after);
    }

    fn iteration(&mut self, turn: Turn<'_>) -> io::Result<()> {
        let Turn { record, unfinished, stall, .. } = turn;
        let call = Call::of(record);
        self.cell(CALL, |out| write_call(out, call))?;
        self.cell(RESULT, |out| write_result(out, record.result))?;
        let slept = if record.flags & Iteration::SLEPT == 0 { "took " } else { "slept" };
        let (wait, ran) = (Nanoseconds(record.wait_ns), Nanoseconds(record.loop_ns));
        write!(self.bytes, "{slept} {wait:>DURATION$}, ran {ran:>DURATION$}")?;
        if unfinished {
            write!(self.bytes, " so far")?;
        }
        if stall {
            write!(self.bytes, ", a stall")?;
        }
        if record.blocked_ns > 0 {
            write!(self.bytes, ", blocked {}", Nanoseconds(record.blocked_ns))?;
        }
        if record.parked_ns > 0 {
            write!(self.bytes, ", parked {} besides", Nanoseconds(record.parked_ns))?;
        }
        self.waker(turn)?;
        // What woke it is as late as it was itself.
        if record.ready_ns != Iteration::READY_UNSEEN && !has_wakeup(record) {
            write!(self.bytes, "; ready for {}", Nanoseconds(u64::from(record.ready_ns)))?;
        }
        if call.is_ring() {
            write!(self.bytes, "; {} completions", record.events)?;
        }
        for (bit, _, name) in FLAGS {
            if record.flags & bit != 0 {
                write!(self.bytes, "; {name}")?;
            }
        }
        Ok(())
    }

    fn waker(&mut self, turn: Turn<'_>) -> io::Result<()> {
        let Turn { record, waker, .. } = turn;
        if !has_wakeup(record) {
            return Ok(());
        }
        let (name, tid) = (waker.unwrap_or("thread"), record.waker);
        match context(record) {
            WakerContext::Thread => write!(self.bytes, "; woken by {name}/{tid}")?,
            WakerContext::Interrupt => write!(self.bytes, "; woken by interrupt")?,
            WakerContext::SoftInterrupt if tid == 0 => write!(self.bytes, "; woken by softirq")?,
            WakerContext::SoftInterrupt => write!(self.bytes, "; woken by softirq on {name}/{tid}")?,
            WakerContext::None => write!(self.bytes, "; woken")?,
        }
        write!(self.bytes, ", {} late", Nanoseconds(record.wakeup_ns))?;
        // The kernel can hide a switch; then nobody knows when the thread came to a CPU.
        if record.run_queue_ns == NO_WAKEUP {
            return Ok(());
        }
        write!(self.bytes, " (run queue {})", Nanoseconds(record.run_queue_ns))
    }

    fn block(&mut self, block: &Block) -> io::Result<()> {
        let length = Nanoseconds(block.ns);
        let state = if block.state == State::Parked as u32 { "parked" } else { "blocked" };
        match block.syscall {
            STOPPED => write!(self.bytes, "… stopped for {length}"),
            syscall => write!(self.bytes, "… {state} in {} for {length}", syscall_name(syscall)),
        }
    }
}

fn write_call(out: &mut Vec<u8>, call: Call) -> io::Result<()> {
    let Call { call, fd, max_events, timeout } = call;
    let Some(call) = call else { return write!(out, "?") };
    out.extend_from_slice(call.name().as_bytes());
    match call {
        WaitCall::EpollWait | WaitCall::EpollPwait | WaitCall::EpollPwait2 => {
            // As a program hands it over, a limit is signed: it may have handed over nonsense.
            write!(out, "(epfd {fd}, max {}, ", max_events.cast_signed())?;
        }
        WaitCall::Poll | WaitCall::Ppoll => write!(out, "({max_events} fds, ")?,
        WaitCall::Select | WaitCall::Pselect6 => write!(out, "(nfds {max_events}, ")?,
        WaitCall::IoUringEnter => write!(out, "(ring {fd}, ")?,
        WaitCall::IoGetevents | WaitCall::IoPgetevents => write!(out, "(max {max_events}, ")?,
    }
    // A timeout is shown exactly: in the largest unit in which it is a whole number.
    match timeout {
        TIMEOUT_NEVER => write!(out, "no timeout)"),
        TIMEOUT_UNKNOWN => write!(out, "timeout ?)"),
        0 => write!(out, "timeout 0)"),
        ns if ns % 1_000_000_000 == 0 => write!(out, "timeout {}s)", ns / 1_000_000_000),
        ns if ns % 1_000_000 == 0 => write!(out, "timeout {}ms)", ns / 1_000_000),
        ns if ns % 1_000 == 0 => write!(out, "timeout {}µs)", ns / 1_000),
        ns => write!(out, "timeout {ns}ns)"),
    }
}

fn write_result(out: &mut Vec<u8>, result: i32) -> io::Result<()> {
    if result >= 0 {
        return write!(out, "= {result}");
    }
    match errno_name(-result) {
        Some(name) => write!(out, "= -1 {name}"),
        None => write!(out, "= -1 errno {}", -result),
    }
}
