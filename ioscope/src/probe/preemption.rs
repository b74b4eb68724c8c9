//! Whether this kernel may preempt the probes.
//!
//! A program on a function may be preempted in a kernel that runs fully (or lazily) preemptible, since Linux 5.12; one on a
//! tracepoint since 7.0 (`include/linux/tracepoint.h`: before, the call forbade it). The mode is chosen when the kernel
//! is built, at boot or later, and is no part of the kernel's type information: it is read from where it can be
//! had, and the version is asked where nothing else tells.

use std::fs;

use super::environment::{Environment, Fact};

/// The first kernel whose tracepoints can be preempted in.
const PREEMPTIBLE_TRACEPOINTS: (u32, u32) = (7, 0);

/// Which programs may be preempted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Preemption {
    /// Those on functions.
    pub(super) functions: bool,
    /// Those on tracepoints.
    pub(super) tracepoints: bool,
}

impl Preemption {
    /// Of the running kernel.
    pub(super) fn read(environment: &Environment) -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let build = rustix::system::uname().version().to_string_lossy().into_owned();
        let release = &environment.process.kernel_release;
        let preemptible = mode(
            &text("/sys/kernel/debug/sched/preempt"),
            &text("/proc/cmdline"),
            &build,
            &text(&format!("/boot/config-{release}")),
        );
        Self::of(preemptible, &environment.kernel_version)
    }

    fn of(preemptible: Option<bool>, version: &Fact<(u32, u32)>) -> Self {
        let since_7 = version.is_known_and(|version| *version >= PREEMPTIBLE_TRACEPOINTS);
        // Since 7.0 a kernel of these architectures is always preemptible (`kernel/Kconfig.preempt`).
        let preemptible = preemptible.unwrap_or(since_7);
        Self { functions: preemptible, tracepoints: preemptible && since_7 }
    }
}

/// Whether the kernel preempts what runs in it; `None` if nothing tells. `switch` is the file of the mode in force, with
/// the mode in parentheses, `build` what `uname -v` says, `config` the kernel's configuration.
fn mode(switch: &str, command_line: &str, build: &str, config: &str) -> Option<bool> {
    let preempts = |mode: &str| match mode {
        "full" | "lazy" => Some(true),
        "none" | "voluntary" => Some(false),
        _ => None,
    };
    let in_force = switch.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map(|(mode, _)| mode);
    if let Some(answer) = in_force.and_then(preempts) {
        return Some(answer);
    }
    let words = build.split_whitespace().collect::<Vec<_>>();
    if words.iter().any(|word| *word == "PREEMPT_RT" || *word == "PREEMPT") {
        return Some(true);
    }
    if !words.iter().any(|word| word.starts_with("PREEMPT")) {
        return Some(false);
    }
    // PREEMPT_DYNAMIC: the last word on the command line, or what it was built for.
    let chosen = command_line.split_whitespace().rev().find_map(|word| word.strip_prefix("preempt="));
    if let Some(answer) = chosen.and_then(preempts) {
        return Some(answer);
    }
    let is_set = |name: &str| config.lines().any(|line| line.strip_prefix(name) == Some("=y"));
    if is_set("CONFIG_PREEMPT") || is_set("CONFIG_PREEMPT_LAZY") {
        return Some(true);
    }
    (is_set("CONFIG_PREEMPT_NONE") || is_set("CONFIG_PREEMPT_VOLUNTARY")).then_some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DYNAMIC: &str = "#1 SMP PREEMPT_DYNAMIC Debian 6.12.1-1";

    #[test]
    fn the_mode_in_force_is_believed_first() {
        assert_eq!(mode("none voluntary (full) lazy\n", "preempt=none", DYNAMIC, ""), Some(true));
        assert_eq!(mode("none (voluntary) full\n", "preempt=full", DYNAMIC, ""), Some(false));
        assert_eq!(mode("full (lazy)\n", "", DYNAMIC, ""), Some(true));
    }

    #[test]
    fn then_what_it_was_built_and_booted_with() {
        assert_eq!(mode("", "", "#1 SMP Debian 5.10", ""), Some(false));
        assert_eq!(mode("", "", "#1 SMP PREEMPT_RT Debian", ""), Some(true));
        assert_eq!(mode("", "quiet preempt=full", DYNAMIC, ""), Some(true));
        assert_eq!(mode("", "", DYNAMIC, "CONFIG_PREEMPT_COUNT=y\nCONFIG_PREEMPT=y\n"), Some(true));
        assert_eq!(mode("", "", DYNAMIC, "CONFIG_PREEMPT_VOLUNTARY=y\n"), Some(false));
        assert_eq!(mode("", "", DYNAMIC, ""), None);
    }

    #[test]
    fn tracepoints_can_be_preempted_in_since_7_0() {
        let of = |preemptible, version| Preemption::of(preemptible, &Fact::Known(version));
        assert_eq!(of(Some(true), (6, 19)), Preemption { functions: true, tracepoints: false });
        assert_eq!(of(None, (6, 19)), Preemption { functions: false, tracepoints: false });
        assert_eq!(of(None, (7, 0)), Preemption { functions: true, tracepoints: true });
        assert_eq!(of(Some(false), (7, 3)), Preemption { functions: false, tracepoints: false });
    }
}
