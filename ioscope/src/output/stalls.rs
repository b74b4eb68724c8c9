//! Stalls as text and as JSON: how long, on what, and where.

use std::{fmt::Write as _, io};

use serde::Serialize;

use super::{
    json::syscall_name,
    numbers::{Nanoseconds, duration, percent},
};
use crate::model::stalls::{BlockedIn, Cause, OTHER_SYSCALLS, Stall, WeightedStack};

/// The worst ones are printed, so many.
const WORST: usize = 5;
/// Parts of a stall's time smaller than this are not printed, as a share.
const SMALL_PART: f64 = 0.005;
/// Stacks of a stall that are printed in text, and in JSON.
const TEXT_STACKS: usize = 2;
const JSON_STACKS: usize = 10;
/// Functions of a stack that are printed in text.
const TEXT_FRAMES: usize = 12;

/// What a part of a stall went to, for people.
pub fn cause_text(cause: Cause) -> String {
    match cause {
        Cause::User => "on CPU in the program".to_owned(),
        Cause::Kernel => "on CPU in the kernel".to_owned(),
        Cause::OnCpu => "on CPU".to_owned(),
        Cause::Preempted => "preempted".to_owned(),
        Cause::Throttled => "throttled by its cgroup".to_owned(),
        Cause::Blocked(OTHER_SYSCALLS) => "blocked in other system calls".to_owned(),
        Cause::Blocked(syscall) => format!("blocked in {}", syscall_name(syscall)),
        Cause::PageFault => "waiting for a page".to_owned(),
        Cause::Stopped => "stopped".to_owned(),
    }
}

/// A stall in a line: how long, and on what.
pub fn line(stall: &Stall) -> String {
    let account = &stall.account;
    let whole = account.duration_ns.max(1) as f64;
    let mut text = duration(account.duration_ns);
    if stall.is_ongoing() {
        text.push_str(" so far");
    }
    let parts = account.parts();
    let shown = parts.iter().filter(|(_, ns)| *ns as f64 / whole >= SMALL_PART);
    for (at, (cause, ns)) in shown.enumerate() {
        text.push_str(if at == 0 { ": " } else { ", " });
        let _ = write!(text, "{} {}", cause_text(*cause), percent(*ns as f64 / whole));
        if let Some(blocked) = in_what(stall, *cause) {
            text.push_str(&details(blocked));
        }
    }
    text
}

fn in_what(stall: &Stall, cause: Cause) -> Option<&BlockedIn> {
    stall.account.blocked.iter().find(|blocked| Cause::of_sleep(blocked.syscall) == cause)
}

/// How often, and on what.
fn details(blocked: &BlockedIn) -> String {
    let mut details = Vec::new();
    if blocked.count > 1 {
        details.push(format!("{} times, {} at most", blocked.count, duration(blocked.max_ns)));
    }
    details.extend(blocked.resolved.as_deref().map(str::to_owned));
    if details.is_empty() { String::new() } else { format!(" ({})", details.join("; ")) }
}

/// The functions of a stack, innermost first: by name, or by address where they have none.
pub fn functions(stack: &WeightedStack) -> impl Iterator<Item = String> {
    let stack = &stack.stack;
    let named = stack.frames.iter().map(|frame| match &frame.location {
        Some(location) => format!("{} ({location})", frame.name),
        None => frame.name.to_string(),
    });
    let bare: &[u64] = if stack.frames.is_empty() { &stack.user } else { &[] };
    let bare_kernel: &[u64] = if stack.frames.is_empty() { &stack.kernel } else { &[] };
    named.chain(bare_kernel.iter().chain(bare).map(|address| format!("{address:#x}")))
}

/// Writes the worst of a loop's stalls with their stacks, the longest first.
pub fn write_worst<'a>(out: &mut impl io::Write, stalls: impl Iterator<Item = &'a Stall>) -> io::Result<()> {
    for stall in worst(stalls).into_iter().take(WORST) {
        writeln!(out, "  stall of {}", line(stall))?;
        write_stacks(out, "    ", stall)?;
    }
    Ok(())
}

/// Writes a stall's heaviest stacks.
pub fn write_stacks(out: &mut impl io::Write, indent: &str, stall: &Stall) -> io::Result<()> {
    let total = stall.stacks.total_ns().max(1) as f64;
    for stack in stall.stacks.iter().take(TEXT_STACKS) {
        let share = percent(stack.weight_ns as f64 / total);
        writeln!(out, "{indent}{share} of what was seen, {}:", cause_text(stack.cause))?;
        let mut functions = functions(stack);
        for function in functions.by_ref().take(TEXT_FRAMES) {
            writeln!(out, "{indent}  {function}")?;
        }
        let more = functions.count();
        if more > 0 {
            writeln!(out, "{indent}  … {more} more")?;
        }
    }
    Ok(())
}

/// The longest first; one that goes on is longer than any.
pub fn worst<'a>(stalls: impl Iterator<Item = &'a Stall>) -> Vec<&'a Stall> {
    let mut stalls: Vec<_> = stalls.collect();
    stalls.sort_by_key(|stall| std::cmp::Reverse((stall.is_ongoing(), stall.duration_ns())));
    stalls
}

/// A stall in JSON. Times are in nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Serialize)]
pub struct StallJson {
    began_at_ns: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    found_at_ns: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended_at_ns: Option<u64>,
    duration_ns: u64,
    account_ns: AccountJson,
    blocked_in: Vec<BlockedJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cause: Option<CauseJson>,
    user_samples: u64,
    kernel_samples: u64,
    stacks: Vec<StackJson>,
}

/// The parts add up to the stall's duration. On CPU is not split where no sample tells how.
#[derive(Serialize)]
struct AccountJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    kernel: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_cpu: Option<u64>,
    preempted: u64,
    throttled: u64,
    page_fault: u64,
    stopped: u64,
    blocked: u64,
}

#[derive(Serialize)]
struct BlockedJson {
    syscall: String,
    count: u64,
    total_ns: u64,
    max_ns: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    argument: Option<String>,
}

#[derive(Serialize)]
struct CauseJson {
    name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    syscall: Option<String>,
    share: f64,
}

#[derive(Serialize)]
struct StackJson {
    cause: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    syscall: Option<String>,
    weight_ns: u64,
    count: u64,
    /// Innermost first.
    frames: Vec<FrameJson>,
}

#[derive(Serialize)]
struct FrameJson {
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    module: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    inlined: bool,
}

impl StallJson {
    /// Of a stall.
    pub fn of(stall: &Stall) -> Self {
        let account = &stall.account;
        let split = account.user_and_kernel_ns();
        let asleep = |wanted: fn(Cause) -> bool| {
            let sleeps = account.blocked.iter().filter(|blocked| wanted(Cause::of_sleep(blocked.syscall)));
            sleeps.map(|blocked| blocked.total_ns).sum()
        };
        Self {
            began_at_ns: stall.began_at,
            found_at_ns: stall.found_at,
            ended_at_ns: stall.ended_at,
            duration_ns: account.duration_ns,
            account_ns: AccountJson {
                user: split.map(|split| split.0),
                kernel: split.map(|split| split.1),
                on_cpu: if split.is_none() { Some(account.on_cpu_ns()) } else { None },
                preempted: account.preempted_ns,
                throttled: account.throttled_ns,
                page_fault: asleep(|cause| cause == Cause::PageFault),
                stopped: asleep(|cause| cause == Cause::Stopped),
                blocked: asleep(|cause| matches!(cause, Cause::Blocked(_))),
            },
            blocked_in: account.blocked.iter().map(BlockedJson::of).collect(),
            cause: account.main_cause().map(|(cause, ns)| CauseJson {
                name: cause.name(),
                syscall: syscall_of(cause),
                share: ns as f64 / account.duration_ns.max(1) as f64,
            }),
            user_samples: account.user_samples,
            kernel_samples: account.kernel_samples,
            stacks: stall.stacks.iter().take(JSON_STACKS).map(StackJson::of).collect(),
        }
    }
}

fn syscall_of(cause: Cause) -> Option<String> {
    match cause {
        Cause::Blocked(OTHER_SYSCALLS) => Some("others".to_owned()),
        Cause::Blocked(syscall) => Some(syscall_name(syscall)),
        _ => None,
    }
}

impl BlockedJson {
    fn of(blocked: &BlockedIn) -> Self {
        let cause = Cause::of_sleep(blocked.syscall);
        Self {
            syscall: syscall_of(cause).unwrap_or_else(|| syscall_name(blocked.syscall)),
            count: blocked.count,
            total_ns: blocked.total_ns,
            max_ns: blocked.max_ns,
            argument: blocked.resolved.as_deref().map(str::to_owned),
        }
    }
}

impl StackJson {
    fn of(stack: &WeightedStack) -> Self {
        let named = stack.stack.frames.iter().map(|frame| FrameJson {
            name: frame.name.to_string(),
            module: frame.module.as_deref().map(str::to_owned),
            location: frame.location.as_ref().map(ToString::to_string),
            inlined: frame.inlined,
        });
        let mut frames: Vec<_> = named.collect();
        if frames.is_empty() {
            frames = functions(stack)
                .map(|name| FrameJson { name, module: None, location: None, inlined: false })
                .collect();
        }
        Self {
            cause: stack.cause.name(),
            syscall: syscall_of(stack.cause),
            weight_ns: stack.weight_ns,
            count: stack.count,
            frames,
        }
    }
}

/// A line of `trace`: a stall was found, or has ended.
pub(super) fn write_trace(out: &mut impl io::Write, stall: &Stall) -> io::Result<()> {
    let verb = if stall.is_ongoing() { "stalled, " } else { "stall ended, " };
    write!(out, "{verb}{}", line(stall))?;
    if let Some(found_at) = stall.found_at.filter(|_| stall.is_ongoing()) {
        write!(out, "; found after {}", Nanoseconds(found_at.saturating_sub(stall.began_at)))?;
    }
    if let Some(top) = stall.stacks.iter().next() {
        let path: Vec<_> = functions(top).take(3).collect();
        write!(out, "; in {}", path.join(" < "))?;
    }
    Ok(())
}
