//! Why ioscope cannot run here at all, and what to do about it.

use std::fmt;
use std::path::Path;

use super::{Environment, Lockdown, Namespace};

/// The oldest kernel that ioscope is tested on. The ring buffer, the task iterator and `CAP_BPF` came with 5.8, BTF
/// tracepoints and mappable arrays with 5.5.
pub const MINIMUM_KERNEL: (u32, u32) = (5, 10);

/// Before this, BPF maps count as locked memory (`kernel/bpf/syscall.c`: `bpf_charge_memlock`), of which a process is
/// allowed a few pages.
pub const NO_LOCKED_MEMORY: (u32, u32) = (5, 11);

/// The capabilities that `setcap` should give, so that nothing is missing.
const CAPABILITIES: &str = "cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search,cap_syslog";

/// What is wrong, and what puts it right. Displayed, it is one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advice {
    /// What is missing.
    pub problem: String,
    /// The command to run, or the setting to change.
    pub remedy: String,
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.problem, self.remedy)
    }
}

/// The first thing, if any, without which no probe can be loaded.
///
/// What cannot be told is taken to be right: then loading says what is wrong.
pub fn missing_privilege(environment: &Environment) -> Option<Advice> {
    let checks =
        [unknown_machine, old_kernel, no_capability, locked_memory, user_namespace, no_btf, locked_down];
    checks.into_iter().find_map(|check| check(environment))
}

fn advice(problem: impl Into<String>, remedy: impl Into<String>) -> Advice {
    Advice { problem: problem.into(), remedy: remedy.into() }
}

fn unknown_machine(environment: &Environment) -> Option<Advice> {
    environment.arch.is_none().then(|| {
        advice(
            format!("ioscope does not know the architecture {}", environment.process.machine),
            "it runs on x86_64 and aarch64",
        )
    })
}

fn old_kernel(environment: &Environment) -> Option<Advice> {
    let (major, minor) = MINIMUM_KERNEL;
    environment.kernel_version.is_known_and(|version| *version < MINIMUM_KERNEL).then(|| {
        advice(
            format!("kernel {} is too old", environment.process.kernel_release),
            format!(
                "ioscope needs Linux {major}.{minor} or newer, for the BPF ring buffer and typed tracepoints"
            ),
        )
    })
}

fn no_capability(environment: &Environment) -> Option<Advice> {
    let capabilities = environment.process.capabilities.known()?;
    if capabilities.can_trace() {
        return None;
    }
    let missing = match (capabilities.bpf, capabilities.perfmon) {
        (true, _) => "CAP_PERFMON",
        (_, true) => "CAP_BPF",
        _ => "CAP_BPF and CAP_PERFMON",
    };
    // Root without capabilities is root in a container: sudo would change nothing.
    if environment.process.uid == 0 {
        return Some(advice(
            format!("root lacks {missing} here"),
            "start the container with --cap-add=BPF,PERFMON,SYS_PTRACE,DAC_READ_SEARCH,SYSLOG --pid=host (or --privileged)",
        ));
    }
    Some(advice(
        format!("tracing needs {missing}"),
        format!("run `sudo ioscope …`, or once `{}`", setcap_command(environment)),
    ))
}

fn locked_memory(environment: &Environment) -> Option<Advice> {
    let limit = environment.process.memlock?;
    let may_raise = environment.process.capabilities.known()?.sys_resource;
    (counts_locked_memory(environment) && !may_raise).then(|| {
        advice(
            format!(
                "before Linux 5.11 BPF maps are locked memory, of which this process may have {} KiB",
                limit >> 10
            ),
            format!("run `sudo ioscope …`, or once `{}`", setcap_command(environment)),
        )
    })
}

fn counts_locked_memory(environment: &Environment) -> bool {
    environment.kernel_version.is_known_and(|version| *version < NO_LOCKED_MEMORY)
}

/// The command that lets this program trace for whoever may run it.
pub fn setcap_command(environment: &Environment) -> String {
    let path =
        environment.process.executable.known().map_or("$(command -v ioscope)".into(), |path| quote(path));
    let more = if counts_locked_memory(environment) { ",cap_sys_resource" } else { "" };
    format!("sudo setcap {CAPABILITIES}{more}+ep {path}")
}

fn user_namespace(environment: &Environment) -> Option<Advice> {
    environment.user_namespace.is_known_and(|Namespace { initial, .. }| !initial).then(|| {
        advice(
            "this is a user namespace, in which root may not trace the kernel",
            "run `sudo ioscope …` outside of it (in rootless Docker or Podman: on the host)",
        )
    })
}

fn no_btf(environment: &Environment) -> Option<Advice> {
    let reason = match &environment.btf {
        super::Fact::Known(size) if *size > 0 => return None,
        super::Fact::Known(_) => "/sys/kernel/btf/vmlinux is empty",
        super::Fact::Unknown(reason) => reason,
    };
    Some(advice(
        format!("the kernel does not describe its structures ({reason})"),
        "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y, and in a container mount /sys",
    ))
}

fn locked_down(environment: &Environment) -> Option<Advice> {
    environment.lockdown.is_known_and(|mode| *mode == Lockdown::Confidentiality).then(|| {
        advice(
            "the kernel is locked down for confidentiality, so that BPF may not read its memory",
            "boot with lockdown=integrity (or without lockdown=confidentiality)",
        )
    })
}

/// A path for a shell: in single quotes if it has anything that a shell would take amiss.
fn quote(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%=".contains(c);
    if text.chars().all(plain) { text.into_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}
