//! Whether this kernel may preempt the probes.
//!
//! A program on a function may be preempted in a kernel that runs fully (or lazily) preemptible, since Linux 5.12; one on a
//! tracepoint since 7.0 (`include/linux/tracepoint.h`: before, the call forbade it). The mode is chosen when the kernel
//! is built, at boot or later, and is no part of the kernel's type information: it is read from where it can be
//! had, and the version is asked where nothing else tells.

use std::{fs, io::Read as _, path::Path};

use flate2::read::GzDecoder;

use super::environment::Fact;

/// The first kernel that is always preemptible, on these architectures (`kernel/Kconfig.preempt`).
pub(super) const ALWAYS: (u32, u32) = (7, 0);

/// Whether this kernel preempts what runs in it, probes included; unknown if nothing tells. Takes files from under
/// `root`.
pub(super) fn read(root: &Path, release: &str, version: &Fact<(u32, u32)>) -> Fact<bool> {
    let text = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let build = rustix::system::uname().version().to_string_lossy().into_owned();
    let config =
        compressed(&root.join("proc/config.gz")).unwrap_or_else(|| text(&format!("boot/config-{release}")));
    let preempts = mode(&text("sys/kernel/debug/sched/preempt"), &text("proc/cmdline"), &build, &config)
        .or_else(|| version.is_known_and(|version| *version >= ALWAYS).then_some(true));
    match preempts {
        Some(preempts) => Fact::Known(preempts),
        None => {
            Fact::Unknown("debugfs is not mounted, and the kernel's configuration is not there".to_owned())
        }
    }
}

fn compressed(path: &Path) -> Option<String> {
    let mut text = String::new();
    GzDecoder::new(fs::File::open(path).ok()?).read_to_string(&mut text).ok()?;
    Some(text)
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
}
