//! Which processes are traced.

use aya_ebpf::helpers::generated::bpf_get_current_ancestor_cgroup_id;
use ioscope_common::{CGROUPS, flag};

use crate::{
    diagnostics,
    kernel::{Task, process_number, read_kernel},
    maps::{COMM_PATTERNS, TARGETS, config, count_drop},
};

/// Whether the current thread is to be traced.
#[inline(always)]
pub(crate) fn is_current_target(task: Task) -> bool {
    is_target(task) || (config!(flags) & flag::CGROUP != 0 && is_current_in_cgroups(task))
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
fn is_current_in_cgroups(task: Task) -> bool {
    let has_ids = config!(flags) & flag::CGROUP_IDS != 0;
    let cgroup = if has_ids { cgroup_of(task) } else { 0 };
    for level in 0..CGROUP_LEVELS {
        let id = if has_ids {
            ancestor_of(cgroup, level as u32)
        } else {
            // SAFETY: always allowed in a tracing program. It returns 0 below the thread's own cgroup.
            unsafe { bpf_get_current_ancestor_cgroup_id(level) }
        };
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

/// Where the `struct cgroup` is that a thread is in.
#[inline(always)]
fn cgroup_of(task: Task) -> u64 {
    let set = task.address(config!(offsets.task_cgroups));
    read_kernel::<u64>(set + u64::from(config!(offsets.css_set_cgroup))).unwrap_or(0)
}

/// The number of a cgroup's ancestor, or its own; 0 below it.
#[inline(always)]
fn ancestor_of(cgroup: u64, level: u32) -> u64 {
    let own = read_kernel::<u32>(cgroup + u64::from(config!(offsets.cgroup_level))).unwrap_or(0);
    if level > own {
        return 0;
    }
    let ids = cgroup + u64::from(config!(offsets.cgroup_ancestor_ids));
    read_kernel::<u64>(ids + u64::from(level) * 8).unwrap_or(0)
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
