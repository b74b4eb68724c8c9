//! A line as text: the call as strace writes it, then how long it slept and how long the loop ran,
//! in columns; what is not on every line comes last.

use std::io::{self, Write};

use ioscope_common::{
    Block, Iteration, STOPPED, State, TIMEOUT_NEVER, TIMEOUT_UNKNOWN, WaitCall, WakerContext,
};

use super::{Call, Event, FLAGS, Moment, Turn, context, errno_name, has_wakeup};
use crate::{
    model::Identity,
    output::{json::syscall_name, numbers::duration},
};

/// A name of 15 characters and a number of 7 take one more than this together.
const THREAD: usize = 22;
/// `epoll_pwait2(epfd 12, max 1024, timeout 100ms)`.
const CALL: usize = 46;
/// `-1 EINTR`.
const RESULT: usize = 8;
const DURATION: usize = 6;

pub(super) fn write(
    out: &mut impl io::Write,
    at: Moment,
    who: &Identity,
    event: Event<'_>,
) -> io::Result<()> {
    let mut line = Line { bytes: Vec::with_capacity(256), column: 0 };
    line.time(at);
    let thread = format_args!("{}/{}", who.comm, who.tid).to_string();
    line.cell(&thread, THREAD);
    match event {
        Event::Iteration(turn) => line.iteration(turn),
        Event::Block(block) => line.block(block),
        Event::Waiting(call, ns) => {
            line.cell(&call_text(call), CALL);
            line.cell("= ?", RESULT + 2);
            line.add(&format!("slept {:>DURATION$} so far", duration(ns)));
        }
    }
    line.bytes.push(b'\n');
    out.write_all(&line.bytes)
}

struct Line {
    bytes: Vec<u8>,
    /// Characters so far.
    column: usize,
}

impl Line {
    fn add(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
        self.column += text.chars().count();
    }

    /// A text, filled up to a width, and a blank.
    fn cell(&mut self, text: &str, width: usize) {
        let end = self.column + width;
        self.add(text);
        while self.column <= end {
            self.add(" ");
        }
    }

    /// `HH:MM:SS.` and microseconds.
    fn time(&mut self, at: Moment) {
        let micros = at.time_of_day_ns / 1_000;
        let seconds = micros / 1_000_000;
        let text = format!(
            "{:02}:{:02}:{:02}.{:06} ",
            seconds / 3_600,
            seconds / 60 % 60,
            seconds % 60,
            micros % 1_000_000
        );
        self.add(&text);
    }

    fn iteration(&mut self, turn: Turn<'_>) {
        let Turn { record, unfinished, stall, .. } = turn;
        let call = Call::of(record);
        self.cell(&call_text(call), CALL);
        self.cell(&result_text(record), RESULT + 2);
        let slept = if record.flags & Iteration::SLEPT == 0 { "took " } else { "slept" };
        self.add(&format!(
            "{slept} {:>DURATION$}, ran {:>DURATION$}",
            duration(record.wait_ns),
            duration(record.loop_ns)
        ));
        if unfinished {
            self.add(" so far");
        }
        if stall {
            self.add(", a stall");
        }
        if record.blocked_ns > 0 {
            self.add(&format!(", blocked {}", duration(record.blocked_ns)));
        }
        if record.parked_ns > 0 {
            self.add(&format!(", parked {} besides", duration(record.parked_ns)));
        }
        self.waker(turn);
        if call.is_ring() {
            self.add(&format!("; {} completions", record.events));
        }
        for (bit, _, name) in FLAGS {
            if record.flags & bit != 0 {
                self.add("; ");
                self.add(name);
            }
        }
    }

    fn waker(&mut self, turn: Turn<'_>) {
        let Turn { record, waker, .. } = turn;
        if !has_wakeup(record) {
            return;
        }
        self.add("; woken by ");
        match (context(record), record.waker) {
            (WakerContext::Interrupt, _) => self.add("interrupt"),
            (WakerContext::SoftInterrupt, 0) => self.add("softirq"),
            (WakerContext::SoftInterrupt, tid) => {
                self.add("softirq on ");
                self.thread(waker, tid);
            }
            (WakerContext::Thread, tid) => self.thread(waker, tid),
            (WakerContext::None, _) => self.add("?"),
        }
        let late = duration(record.wakeup_ns);
        self.add(&format!(", {late} late (run queue {})", duration(record.run_queue_ns)));
    }

    fn thread(&mut self, name: Option<&str>, tid: u32) {
        self.add(name.unwrap_or("thread"));
        self.add(&format!("/{tid}"));
    }

    fn block(&mut self, block: &Block) {
        let length = duration(block.ns);
        let state = if block.state == State::Parked as u32 { "parked" } else { "blocked" };
        match block.syscall {
            STOPPED => self.add(&format!("… stopped for {length}")),
            syscall => self.add(&format!("… {state} in {} for {length}", syscall_name(syscall))),
        }
    }
}

fn call_text(call: Call) -> String {
    let mut text = Vec::with_capacity(CALL);
    // Writing to a vector does not fail.
    let _ = write_call(&mut text, call);
    String::from_utf8(text).unwrap_or_default()
}

fn write_call(out: &mut impl Write, call: Call) -> io::Result<()> {
    let Call { call, fd, max_events, timeout } = call;
    let Some(call) = call else { return write!(out, "?") };
    write!(out, "{}(", call.name())?;
    match call {
        WaitCall::EpollWait | WaitCall::EpollPwait | WaitCall::EpollPwait2 => {
            // As a program hands it over, a limit is signed: it may have handed over nonsense.
            write!(out, "epfd {fd}, max {}, ", max_events.cast_signed())?;
        }
        WaitCall::Poll | WaitCall::Ppoll => write!(out, "{max_events} fds, ")?,
        WaitCall::Select | WaitCall::Pselect6 => write!(out, "nfds {max_events}, ")?,
        WaitCall::IoUringEnter => write!(out, "ring {fd}, ")?,
        WaitCall::IoGetevents | WaitCall::IoPgetevents => write!(out, "max {max_events}, ")?,
    }
    match timeout {
        TIMEOUT_NEVER => write!(out, "no timeout)"),
        TIMEOUT_UNKNOWN => write!(out, "timeout ?)"),
        timeout => write!(out, "timeout {})", exact(timeout)),
    }
}

/// Nanoseconds in the largest unit in which they are a whole number.
fn exact(ns: i64) -> String {
    match ns {
        0 => "0".to_owned(),
        ns if ns % 1_000_000_000 == 0 => format!("{}s", ns / 1_000_000_000),
        ns if ns % 1_000_000 == 0 => format!("{}ms", ns / 1_000_000),
        ns if ns % 1_000 == 0 => format!("{}µs", ns / 1_000),
        ns => format!("{ns}ns"),
    }
}

fn result_text(record: &Iteration) -> String {
    match record.result {
        result if result >= 0 => format!("= {result}"),
        result => match errno_name(-result) {
            Some(name) => format!("= -1 {name}"),
            None => format!("= -1 errno {}", -result),
        },
    }
}
