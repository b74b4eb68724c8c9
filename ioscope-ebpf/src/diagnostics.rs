//! The probes' own rare diagnostics. Off unless the loader asks for them: the level is read-only
//! data, so that the verifier knows it and drops what it makes unreachable. Off, they cost nothing.
//!
//! Each is said by a function of its own, which is called: one place per message, outside the way
//! that every system call takes. A drop is said once on each CPU; the counts say the rest.

use aya_log_ebpf::{
    macro_support::{Level, level_enabled},
    warn,
};

use crate::maps::DROPS;

#[inline(always)]
fn enabled() -> bool {
    level_enabled(Level::Warn)
}

/// Whether a drop, which has been counted as one of these, was the first on this CPU.
macro_rules! is_first {
    ($($field:ident),+) => {
        // SAFETY: the pointer is this CPU's entry, which lives as long as the map.
        DROPS.get_ptr(0).is_some_and(|drops| unsafe { 0 $(+ (*drops).$field)+ } == 1)
    };
}

/// A transition of a thread cannot follow the one before it.
#[inline(always)]
pub(crate) fn impossible_transition(tid: u32) {
    if enabled() {
        say_impossible(tid);
    }
}

#[inline(never)]
fn say_impossible(tid: u32) {
    warn!((), "thread {} entered a wait call inside a wait call: a return was missed", tid);
}

/// There is no room for a thread's loop.
#[inline(always)]
pub(crate) fn loops_full(kernel_tid: u32) {
    if enabled() && is_first!(loops_full, sleepers_full) {
        say_loops_full(kernel_tid);
    }
}

#[inline(never)]
fn say_loops_full(kernel_tid: u32) {
    warn!((), "no room for thread {}, and perhaps others: the map of loops is full", kernel_tid);
}

/// A thread's number is beyond what the directory was made for.
#[inline(always)]
pub(crate) fn out_of_directory(kernel_tid: u32) {
    if enabled() && is_first!(out_of_directory) {
        say_out_of_directory(kernel_tid);
    }
}

#[inline(never)]
fn say_out_of_directory(kernel_tid: u32) {
    warn!((), "thread {}, and perhaps others, is beyond the end of the directory", kernel_tid);
}

/// There is no room for a process among the targets.
#[inline(always)]
pub(crate) fn targets_full(process: u32) {
    if enabled() && is_first!(targets_full) {
        say_targets_full(process);
    }
}

#[inline(never)]
fn say_targets_full(process: u32) {
    warn!((), "no room for process {}, and perhaps others: the map of targets is full", process);
}
