//! What this machine and this process are allowed: facts, and no opinion except [`missing_privilege`].
//!
//! Each fact is read once at the start, for `doctor` and for the message that says why ioscope cannot run. A file
//! that is missing or unreadable is no error: it is an unknown, with the reason.

mod advice;
mod files;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::path::{Path, PathBuf};

use caps::{CapSet, Capability};

pub use advice::{Advice, MINIMUM_KERNEL, NO_LOCKED_MEMORY, missing_privilege, setcap_command};

use super::{arch::Arch, preemption};

/// The inode number of the initial PID namespace (`PROC_PID_INIT_INO`, `include/linux/proc_ns.h`).
const INITIAL_PID_NS: u64 = 0xEFFF_FFFC;
/// The inode number of the initial user namespace (`PROC_USER_INIT_INO`, same file).
const INITIAL_USER_NS: u64 = 0xEFFF_FFFD;

/// Something that can be looked up, or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fact<T> {
    /// It is this.
    Known(T),
    /// It cannot be told, for this reason.
    Unknown(String),
}

impl<T> Fact<T> {
    /// The value, if it is known.
    pub fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unknown(_) => None,
        }
    }

    /// Whether it is known and satisfies a condition.
    pub fn is_known_and(&self, condition: impl FnOnce(&T) -> bool) -> bool {
        self.known().is_some_and(condition)
    }

    fn and_then<U>(self, convert: impl FnOnce(T) -> Fact<U>) -> Fact<U> {
        match self {
            Self::Known(value) => convert(value),
            Self::Unknown(reason) => Fact::Unknown(reason),
        }
    }
}

impl<T: fmt::Display> fmt::Display for Fact<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(value) => value.fmt(f),
            Self::Unknown(reason) => write!(f, "unknown ({reason})"),
        }
    }
}

/// How far the kernel is locked down (`security/lockdown`): in [`Self::Confidentiality`], BPF programs may not
/// read kernel memory (`LOCKDOWN_BPF_READ_KERNEL`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lockdown {
    /// Not at all.
    None,
    /// What changes the running kernel is refused. Tracing is not.
    Integrity,
    /// What reads kernel memory is refused too.
    Confidentiality,
}

impl fmt::Display for Lockdown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Integrity => "integrity",
            Self::Confidentiality => "confidentiality",
        })
    }
}

/// The effective capabilities that make a difference, each by its `CAP_` name.
#[expect(clippy::struct_excessive_bools, reason = "each is a capability of its own")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Load BPF programs and maps, since Linux 5.8.
    pub bpf: bool,
    /// Let them trace, and read kernel memory, since Linux 5.8.
    pub perfmon: bool,
    /// Both of the above, and run-time statistics.
    pub sys_admin: bool,
    /// Look into `/proc/PID` of other users: file descriptors, maps, namespaces.
    pub sys_ptrace: bool,
    /// Read files that belong to other users: executables for symbols, tracefs.
    pub dac_read_search: bool,
    /// See kernel addresses in `/proc/kallsyms`.
    pub syslog: bool,
    /// Raise the limit of locked memory, which BPF maps count against before Linux 5.11.
    pub sys_resource: bool,
}

impl Capabilities {
    fn read() -> Fact<Self> {
        match caps::read(None, CapSet::Effective) {
            Err(error) => Fact::Unknown(error.to_string()),
            Ok(set) => Fact::Known(Self {
                bpf: set.contains(&Capability::CAP_BPF),
                perfmon: set.contains(&Capability::CAP_PERFMON),
                sys_admin: set.contains(&Capability::CAP_SYS_ADMIN),
                sys_ptrace: set.contains(&Capability::CAP_SYS_PTRACE),
                dac_read_search: set.contains(&Capability::CAP_DAC_READ_SEARCH),
                syslog: set.contains(&Capability::CAP_SYSLOG),
                sys_resource: set.contains(&Capability::CAP_SYS_RESOURCE),
            }),
        }
    }

    /// Whether a tracing program may be loaded at all.
    pub fn can_trace(self) -> bool {
        self.sys_admin || (self.bpf && self.perfmon)
    }
}

/// What the process itself is, as the kernel's calls tell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// The kernel's release, as `uname -r` has it.
    pub kernel_release: String,
    /// The architecture, as `uname -m` has it.
    pub machine: String,
    /// The effective user.
    pub uid: u32,
    /// The effective capabilities.
    pub capabilities: Fact<Capabilities>,
    /// The soft limit of locked memory, in bytes; `None` is no limit.
    pub memlock: Option<u64>,
    /// The path of this program.
    pub executable: Fact<PathBuf>,
}

impl Process {
    fn read() -> Self {
        let uname = rustix::system::uname();
        Self {
            kernel_release: uname.release().to_string_lossy().into_owned(),
            machine: uname.machine().to_string_lossy().into_owned(),
            uid: rustix::process::geteuid().as_raw(),
            capabilities: Capabilities::read(),
            memlock: rustix::process::getrlimit(rustix::process::Resource::Memlock).current,
            executable: match std::env::current_exe() {
                Ok(path) => Fact::Known(path),
                Err(error) => Fact::Unknown(error.to_string()),
            },
        }
    }
}

/// A namespace that this process is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// Its inode number.
    pub inode: u64,
    /// Whether it is the one that the machine was started with.
    pub initial: bool,
}

/// Everything that is known of the machine and the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Environment {
    /// What the kernel's calls tell.
    pub process: Process,
    /// The architecture; `None` if ioscope does not know it.
    pub arch: Option<Arch>,
    /// Major and minor number of the kernel.
    pub kernel_version: Fact<(u32, u32)>,
    /// The size of the kernel's BTF in bytes; unknown if it has none.
    pub btf: Fact<u64>,
    /// How far the kernel is locked down.
    pub lockdown: Fact<Lockdown>,
    /// The security modules that are active, in their order.
    pub security_modules: Fact<Vec<String>>,
    /// `kernel.unprivileged_bpf_disabled`: 0 no, 1 yes until reboot, 2 yes.
    pub unprivileged_bpf_disabled: Fact<i64>,
    /// `kernel.perf_event_paranoid`: −1 to 2 (Debian's and Ubuntu's kernels have up to 4).
    pub perf_event_paranoid: Fact<i64>,
    /// `kernel.bpf_stats_enabled`: 1 if the kernel times every BPF program.
    pub bpf_stats_enabled: Fact<i64>,
    /// `net.core.bpf_jit_enable`: 0 is interpreted, many times slower.
    pub bpf_jit_enable: Fact<i64>,
    /// `kernel.kptr_restrict`: 0 to 2.
    pub kptr_restrict: Fact<i64>,
    /// `kernel.io_uring_disabled`, since Linux 6.6: 0 no, 1 for the unprivileged, 2 for all.
    pub io_uring_disabled: Fact<i64>,
    /// The PID namespace of this process: the numbers that its user knows processes by.
    pub pid_namespace: Fact<Namespace>,
    /// The user namespace of this process: capabilities in one that is not initial do not count for BPF.
    pub user_namespace: Fact<Namespace>,
    /// Where the cgroup v2 hierarchy is mounted.
    pub cgroup2: Fact<PathBuf>,
    /// Where tracefs is mounted.
    pub tracefs: Fact<PathBuf>,
    /// Whether the kernel preempts what runs in it, probes included.
    pub preempts: Fact<bool>,
    /// What hints at a container: empty if nothing does.
    pub container: Vec<&'static str>,
}

impl Environment {
    /// Looks around.
    pub fn read() -> Self {
        Self::read_from(Path::new("/"), Process::read())
    }

    /// Takes the files from under `root`.
    fn read_from(root: &Path, process: Process) -> Self {
        let files = files::Files::new(root);
        let mounts = files.mounts();
        Self {
            arch: Arch::ALL.into_iter().find(|arch| arch.name() == process.machine),
            preempts: preemption::read(
                root,
                &process.kernel_release,
                &parse_version(&process.kernel_release),
            ),
            kernel_version: parse_version(&process.kernel_release),
            process,
            btf: files.size("sys/kernel/btf/vmlinux"),
            lockdown: files.text("sys/kernel/security/lockdown").and_then(|text| parse_lockdown(&text)),
            security_modules: files.text("sys/kernel/security/lsm").and_then(|text| {
                Fact::Known(text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect())
            }),
            unprivileged_bpf_disabled: files.number("proc/sys/kernel/unprivileged_bpf_disabled"),
            perf_event_paranoid: files.number("proc/sys/kernel/perf_event_paranoid"),
            bpf_stats_enabled: files.number("proc/sys/kernel/bpf_stats_enabled"),
            bpf_jit_enable: files.number("proc/sys/net/core/bpf_jit_enable"),
            kptr_restrict: files.number("proc/sys/kernel/kptr_restrict"),
            io_uring_disabled: files.number("proc/sys/kernel/io_uring_disabled"),
            pid_namespace: files.namespace("proc/self/ns/pid", INITIAL_PID_NS),
            user_namespace: files.namespace("proc/self/ns/user", INITIAL_USER_NS),
            cgroup2: files::mount_point(&mounts, "cgroup2"),
            tracefs: files::mount_point(&mounts, "tracefs"),
            container: files.container_hints(),
        }
    }

    /// Whether a capability is there, or it is not known that it is not.
    pub fn may(&self, capability: impl FnOnce(&Capabilities) -> bool) -> bool {
        self.process.capabilities.known().is_none_or(capability)
    }
}

fn parse_version(release: &str) -> Fact<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => Fact::Known((major, minor)),
        _ => Fact::Unknown(format!("a kernel release of {release:?}")),
    }
}

/// The file lists the modes, the active one in brackets.
fn parse_lockdown(text: &str) -> Fact<Lockdown> {
    let active = text.split_once('[').and_then(|(_, rest)| rest.split_once(']'));
    match active.map(|(mode, _)| mode) {
        Some("none") => Fact::Known(Lockdown::None),
        Some("integrity") => Fact::Known(Lockdown::Integrity),
        Some("confidentiality") => Fact::Known(Lockdown::Confidentiality),
        _ => Fact::Unknown(format!("a lockdown mode of {text:?}")),
    }
}
