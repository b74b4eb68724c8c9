//! A line as JSON: an object, flat but for the waker. Fields are added, never changed or taken away.
//!
//! `timeout_ns` is −1 for a call that waits for ever and null where it could not be read; a duration
//! that was not measured is left out.

use std::io;

use ioscope_common::{
    Drops, Iteration, NO_WAKEUP, State, TIMEOUT_NEVER, TIMEOUT_UNKNOWN, WaitCall, WakerContext,
};
use serde::Serialize;

use super::{Call, Event, FLAGS, Moment, Turn, context, errno_name, has_wakeup};
use crate::{
    model::Identity,
    output::{json::syscall_name, stalls::StallJson},
};

#[derive(Serialize)]
struct Line<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    time: Time,
    monotonic_ns: u64,
    pid: u32,
    tid: u32,
    comm: &'a str,
    #[serde(flatten)]
    body: Body<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Body<'a> {
    Iteration(Completed<'a>),
    Block { state: &'static str, syscall: String, blocked_ns: u64 },
    Waiting(StillWaiting),
    Stall(Box<StallJson>),
}

#[derive(Serialize)]
struct Arguments {
    call: Option<&'static str>,
    fd: i32,
    max_events: u32,
    timeout_ns: Option<i64>,
}

#[derive(Serialize)]
struct Completed<'a> {
    #[serde(flatten)]
    arguments: Arguments,
    result: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    errno: Option<&'static str>,
    ready_events: u32,
    slept: bool,
    wait_ns: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    wakeup_latency_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run_queue_delay_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ready_delay_ns: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    waker: Option<Waker<'a>>,
    loop_duration_ns: u64,
    blocked_ns: u64,
    parked_ns: u64,
    stall: bool,
    flags: Flags,
    unfinished: bool,
}

#[derive(Serialize)]
struct StillWaiting {
    #[serde(flatten)]
    arguments: Arguments,
    wait_ns: u64,
    unfinished: bool,
}

#[derive(Serialize)]
struct Waker<'a> {
    context: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    comm: Option<&'a str>,
}

/// A moment as RFC 3339 has it, UTC.
struct Time(Moment);

impl Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_rfc3339_micros(self.0.utc()))
    }
}

/// The names of the flags that are set.
struct Flags(u8);

impl Serialize for Flags {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(FLAGS.iter().filter(|(bit, ..)| self.0 & bit != 0).map(|(_, name, _)| name))
    }
}

pub(super) fn write(
    out: &mut impl io::Write,
    at: Moment,
    who: &Identity,
    event: Event<'_>,
) -> io::Result<()> {
    let (kind, body) = match event {
        Event::Iteration(turn) => ("iteration", Body::Iteration(finished(turn))),
        Event::Block(block) => {
            let state = if block.state == State::Parked as u32 { "parked" } else { "blocked" };
            let syscall = syscall_name(block.syscall);
            ("block", Body::Block { state, syscall, blocked_ns: block.ns })
        }
        Event::Stall(stall) => {
            let kind = if stall.is_ongoing() { "stall" } else { "stall_ended" };
            (kind, Body::Stall(Box::new(StallJson::of(stall))))
        }
        Event::Waiting(call, wait_ns) => {
            ("waiting", Body::Waiting(StillWaiting { arguments: arguments(call), wait_ns, unfinished: true }))
        }
    };
    let line = Line {
        kind,
        time: Time(at),
        monotonic_ns: at.monotonic_ns,
        pid: who.pid,
        tid: who.tid,
        comm: &who.comm,
        body,
    };
    serde_json::to_writer(&mut *out, &line)?;
    out.write_all(b"\n")
}

pub(super) fn write_drops(out: &mut impl io::Write, drops: &Drops) -> io::Result<()> {
    #[derive(Serialize)]
    struct Line {
        #[serde(rename = "type")]
        kind: &'static str,
        dropped: crate::output::json::Dropped,
    }
    serde_json::to_writer(&mut *out, &Line { kind: "dropped", dropped: drops.into() })?;
    out.write_all(b"\n")
}

fn arguments(call: Call) -> Arguments {
    let timeout_ns = match call.timeout {
        TIMEOUT_UNKNOWN => None,
        TIMEOUT_NEVER => Some(-1),
        timeout => Some(timeout),
    };
    Arguments { call: call.call.map(WaitCall::name), fd: call.fd, max_events: call.max_events, timeout_ns }
}

fn finished(turn: Turn<'_>) -> Completed<'_> {
    let Turn { record, waker, unfinished, stall } = turn;
    let woken = has_wakeup(record);
    Completed {
        arguments: arguments(Call::of(record)),
        result: record.result,
        errno: if record.result < 0 { errno_name(-record.result) } else { None },
        ready_events: record.events,
        slept: record.flags & Iteration::SLEPT != 0,
        wait_ns: record.wait_ns,
        wakeup_latency_ns: woken.then_some(record.wakeup_ns),
        run_queue_delay_ns: (record.run_queue_ns != NO_WAKEUP).then_some(record.run_queue_ns),
        ready_delay_ns: (record.ready_ns != Iteration::READY_UNSEEN).then_some(record.ready_ns),
        waker: match context(record) {
            WakerContext::None => None,
            // The thread that an interrupt happened to come to has nothing to do with it.
            WakerContext::Interrupt => Some(Waker { context: "interrupt", tid: None, comm: None }),
            WakerContext::SoftInterrupt => Some(by_thread("softirq", record, waker)),
            WakerContext::Thread => Some(by_thread("thread", record, waker)),
        },
        loop_duration_ns: record.loop_ns,
        blocked_ns: record.blocked_ns,
        parked_ns: record.parked_ns,
        stall,
        flags: Flags(record.flags),
        unfinished,
    }
}

fn by_thread<'a>(context: &'static str, record: &Iteration, comm: Option<&'a str>) -> Waker<'a> {
    Waker { context, tid: (record.waker != 0).then_some(record.waker), comm }
}
