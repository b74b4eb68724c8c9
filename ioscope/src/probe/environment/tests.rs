use std::fs;
use std::os::unix::fs::symlink;

use super::*;

/// A process that lacks nothing.
pub(crate) fn privileged() -> Process {
    Process {
        kernel_release: "6.12.3-test".into(),
        machine: "x86_64".into(),
        uid: 0,
        capabilities: Fact::Known(Capabilities {
            bpf: true,
            perfmon: true,
            sys_admin: true,
            sys_ptrace: true,
            dac_read_search: true,
            syslog: true,
            sys_resource: true,
        }),
        memlock: None,
        executable: Fact::Known("/usr/local/bin/ioscope".into()),
    }
}

/// A machine that lacks nothing, and its files.
fn machine() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("sys/kernel/btf/vmlinux", "0123456789");
    write("sys/kernel/security/lockdown", "none [integrity] confidentiality\n");
    write("sys/kernel/security/lsm", "lockdown,capability,yama\n");
    write("proc/sys/kernel/perf_event_paranoid", "-1\n");
    write("proc/sys/kernel/kptr_restrict", "high\n");
    write("proc/sys/net/core/bpf_jit_enable", "1\n");
    write(
        "proc/self/mounts",
        "proc /proc proc rw 0 0\ncgroup2 /sys/fs/c\\040group\\134 cgroup2 rw 0 0\nsysfs /sys sysfs rw 0 0\n",
    );
    write(".dockerenv", "");
    fs::create_dir_all(root.path().join("proc/self/ns")).unwrap();
    symlink("pid:[4026532201]", root.path().join("proc/self/ns/pid")).unwrap();
    symlink("user:[4026531837]", root.path().join("proc/self/ns/user")).unwrap();
    root
}

pub(crate) fn healthy() -> Environment {
    Environment::read_from(machine().path(), privileged())
}

#[test]
fn facts_are_read() {
    let environment = healthy();
    assert_eq!(environment.arch, Some(Arch::X86_64));
    assert_eq!(environment.kernel_version, Fact::Known((6, 12)));
    assert_eq!(environment.btf, Fact::Known(10));
    assert_eq!(environment.lockdown, Fact::Known(Lockdown::Integrity));
    assert_eq!(
        environment.security_modules,
        Fact::Known(vec!["lockdown".into(), "capability".into(), "yama".into()])
    );
    assert_eq!(environment.perf_event_paranoid, Fact::Known(-1));
    assert_eq!(environment.bpf_jit_enable, Fact::Known(1));
    assert_eq!(environment.pid_namespace, Fact::Known(Namespace { inode: 4_026_532_201, initial: false }));
    assert!(environment.user_namespace.is_known_and(|namespace| namespace.initial));
    assert_eq!(environment.cgroup2, Fact::Known("/sys/fs/c group\\".into()));
    assert_eq!(environment.container, ["Docker (/.dockerenv)"]);
    assert_eq!(missing_privilege(&environment), None);
}

#[test]
fn what_is_not_there_is_unknown_and_says_why() {
    let environment = healthy();
    let reason = "there is no /proc/sys/kernel/io_uring_disabled";
    assert_eq!(environment.io_uring_disabled, Fact::Unknown(reason.into()));
    assert_eq!(environment.io_uring_disabled.to_string(), format!("unknown ({reason})"));
    assert_eq!(
        environment.kptr_restrict,
        Fact::Unknown("/proc/sys/kernel/kptr_restrict has \"high\"".into())
    );
    assert_eq!(environment.tracefs, Fact::Unknown("no tracefs is mounted".into()));
    let empty = tempfile::tempdir().unwrap();
    let nothing = Environment::read_from(empty.path(), privileged());
    assert_eq!(nothing.lockdown, Fact::Unknown("there is no /sys/kernel/security/lockdown".into()));
    assert_eq!(nothing.cgroup2, Fact::Unknown("there is no /proc/self/mounts".into()));
    assert!(nothing.pid_namespace.known().is_none() && nothing.container.is_empty());
}

#[test]
fn versions() {
    for (release, version) in
        [("6.18.44-cloud", (6, 18)), ("5.10.0-46-amd64", (5, 10)), ("7.3", (7, 3)), ("6.1+x", (6, 1))]
    {
        assert_eq!(parse_version(release), Fact::Known(version), "{release}");
    }
    for release in ["", "x", "6", "6.x"] {
        assert!(parse_version(release).known().is_none(), "{release}");
    }
}

fn line(change: impl FnOnce(&mut Environment)) -> String {
    let mut environment = healthy();
    change(&mut environment);
    missing_privilege(&environment).unwrap().to_string()
}

#[test]
fn an_ordinary_user_is_told_the_command() {
    let user = |environment: &mut Environment| {
        environment.process.uid = 1000;
        environment.process.capabilities = Fact::Known(Capabilities::default());
    };
    assert_eq!(
        line(user),
        "tracing needs CAP_BPF and CAP_PERFMON: run `sudo ioscope …`, or once `sudo setcap \
         cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search,cap_syslog+ep /usr/local/bin/ioscope`"
    );
    let odd_path = line(|environment| {
        user(environment);
        environment.process.executable = Fact::Known("/opt/it's here/ioscope".into());
    });
    assert!(odd_path.ends_with(r"+ep '/opt/it'\''s here/ioscope'`"), "{odd_path}");
    let half = line(|environment| {
        user(environment);
        environment.process.capabilities = Fact::Known(Capabilities { bpf: true, ..Capabilities::default() });
    });
    assert!(half.starts_with("tracing needs CAP_PERFMON:"), "{half}");
}

#[test]
fn old_kernels_have_a_limit_of_locked_memory() {
    let old = |environment: &mut Environment| {
        environment.process.uid = 1000;
        environment.process.memlock = Some(64 << 10);
        environment.process.capabilities =
            Fact::Known(Capabilities { bpf: true, perfmon: true, ..Capabilities::default() });
        environment.kernel_version = Fact::Known((5, 10));
    };
    assert_eq!(
        line(old),
        "before Linux 5.11 BPF maps are locked memory, of which this process may have 64 KiB: run `sudo ioscope …`, \
         or once `sudo setcap cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search,cap_syslog,cap_sys_resource+ep \
         /usr/local/bin/ioscope`"
    );
    let mut environment = healthy();
    old(&mut environment);
    environment.kernel_version = Fact::Known((5, 11));
    assert_eq!(missing_privilege(&environment), None);
}

#[test]
fn two_capabilities_are_enough() {
    let mut environment = healthy();
    environment.process.uid = 1000;
    environment.process.capabilities =
        Fact::Known(Capabilities { bpf: true, perfmon: true, ..Capabilities::default() });
    assert_eq!(missing_privilege(&environment), None);
}

#[test]
fn root_in_a_container_is_not_sent_to_sudo() {
    let text = line(|environment| {
        environment.process.capabilities = Fact::Known(Capabilities::default());
    });
    assert!(text.starts_with("root lacks CAP_BPF and CAP_PERFMON here: start the container"), "{text}");
    let text = line(|environment| {
        environment.user_namespace = Fact::Known(Namespace { inode: 1, initial: false });
    });
    assert!(text.contains("user namespace"), "{text}");
}

#[test]
fn the_kernel_can_be_what_is_missing() {
    let text = line(|environment| environment.btf = Fact::Unknown("there is no file".into()));
    assert!(text.contains("CONFIG_DEBUG_INFO_BTF"), "{text}");
    let text = line(|environment| environment.lockdown = Fact::Known(Lockdown::Confidentiality));
    assert!(text.contains("lockdown=integrity"), "{text}");
    let text = line(|environment| {
        environment.process.kernel_release = "5.4.0-26".into();
        environment.kernel_version = Fact::Known((5, 4));
    });
    assert_eq!(
        text,
        "kernel 5.4.0-26 is too old: ioscope needs Linux 5.10 or newer, for the BPF ring buffer and typed tracepoints"
    );
    let text = line(|environment| {
        environment.arch = None;
        environment.process.machine = "riscv64".into();
    });
    assert!(text.contains("riscv64"), "{text}");
}

#[test]
fn what_is_unknown_is_not_held_against_the_machine() {
    let mut environment = healthy();
    environment.process.capabilities = Fact::Unknown("no reason".into());
    environment.kernel_version = Fact::Unknown("no reason".into());
    environment.lockdown = Fact::Unknown("no reason".into());
    environment.user_namespace = Fact::Unknown("no reason".into());
    assert_eq!(missing_privilege(&environment), None);
}

#[test]
fn the_running_machine() {
    let environment = Environment::read();
    assert!(environment.kernel_version.known().is_some());
    assert!(environment.pid_namespace.known().is_some());
    println!("{environment:#?}");
    println!("{:?}", missing_privilege(&environment));
}
