//! Which processes are traced.

use aya_ebpf::helpers::generated::bpf_get_current_ancestor_cgroup_id;
use ioscope_common::{CGROUPS, flag};

use crate::{
    diagnostics,
    kernel::{Task, process_number},
    maps::{COMM_PATTERNS, TARGETS, config, count_drop},
};

/// Whether the current thread is to be traced.
#[inline(always)]
pub(crate) fn is_current_target(task: Task) -> bool {
    is_target(task) || (config!(flags) & flag::CGROUP != 0 && is_current_in_cgroups())
}

/// Whether a thread is to be traced, as far as can be told of one that does not run now.
#[inline(always)]
pub(crate) fn is_target(task: Task) -> bool {
    let process = process_number(task);
    if process == config!(own_tgid) {
        return false;
    }
    config!(flags) & flag::ALL != 0 || is_listed(process)
}

#[inline(always)]
fn is_listed(process: u32) -> bool {
    TARGETS.get_ptr(process).is_some()
}

/// Depth of a cgroup below the root that is looked at.
const CGROUP_LEVELS: i32 = 16;

#[inline(always)]
fn is_current_in_cgroups() -> bool {
    for level in 0..CGROUP_LEVELS {
        // SAFETY: always allowed in a tracing program. It returns 0 below the thread's own cgroup.
        let id = unsafe { bpf_get_current_ancestor_cgroup_id(level) };
        if id == 0 {
            return false;
        }
        for at in 0..CGROUPS {
            if config!(cgroups[at]) == id {
                return true;
            }
        }
    }
    false
}

/// Makes a process a target.
#[inline(always)]
pub(crate) fn add(process: u32) {
    if TARGETS.insert(process, 1, 0).is_err() {
        count_drop!(targets_full);
        diagnostics::targets_full(process);
    }
}

/// A process is gone.
#[inline(always)]
pub(crate) fn remove(process: u32) {
    let _ = TARGETS.remove(process);
}

/// A process was born of `parent`.
#[inline(always)]
pub(crate) fn on_birth(parent: Task, child: Task) {
    if config!(flags) & flag::FOLLOW != 0 && is_listed(process_number(parent)) {
        add(process_number(child));
    } else {
        match_name(child);
    }
}

/// Makes a process a target when it is called as one.
#[inline(always)]
pub(crate) fn match_name(task: Task) {
    if config!(flags) & flag::COMM == 0 {
        return;
    }
    let comm = task.comm();
    if let Some(patterns) = COMM_PATTERNS.get(0)
        && patterns.matches(&comm)
    {
        add(process_number(task));
    }
}
