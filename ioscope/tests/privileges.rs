//! What ioscope may do: traced as root, by a user who was given the capabilities, and without any.

mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use caps::Capability;
use rustix::fs::XattrFlags;
use support::ioscope::{
    IOSCOPE, Tracing, Worker, as_nobody, can_trace, copy_program, documents, expiring, output, say,
    status_of, text, wait_for_sleeps,
};
use support::kernel;

/// Whether this process may do what the tests need: give capabilities to files, be another user.
fn is_root(test: &str) -> bool {
    if !can_trace(test) {
        return false;
    }
    let may = [Capability::CAP_SETFCAP, Capability::CAP_SETUID]
        .iter()
        .all(|needed| caps::has_cap(None, caps::CapSet::Effective, *needed).unwrap_or(false));
    if !may {
        say(&format!("SKIPPED {test}: not root"));
    }
    may
}

/// The command as it would be installed: everybody may run it, with these capabilities.
struct Installed {
    directory: tempfile::TempDir,
}

impl Installed {
    fn with(capabilities: &[Capability]) -> Self {
        let directory = tempfile::tempdir().expect("it can be made");
        fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).expect("it is ours");
        let installed = Self { directory };
        copy_program(Path::new(IOSCOPE), &installed.path());
        fs::set_permissions(installed.path(), Permissions::from_mode(0o755)).expect("it is ours");
        if !capabilities.is_empty() {
            set_capabilities(&installed.path(), capabilities);
        }
        installed
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("ioscope")
    }

    fn as_nobody(&self) -> Command {
        let mut command = Command::new(self.path());
        as_nobody(&mut command).current_dir("/");
        command
    }
}

/// As setcap(8) with `+ep`: `struct vfs_cap_data`, `include/uapi/linux/capability.h`.
fn set_capabilities(path: &Path, capabilities: &[Capability]) {
    const REVISION_2: u32 = 0x0200_0000;
    const EFFECTIVE: u32 = 1;
    let permitted = bits(capabilities);
    let [low, high] = [permitted & u64::from(u32::MAX), permitted >> 32];
    let mut value = (REVISION_2 | EFFECTIVE).to_le_bytes().to_vec();
    for word in [low, 0, high, 0] {
        value.extend(u32::try_from(word).expect("half of 64 bits").to_le_bytes());
    }
    rustix::fs::setxattr(path, "security.capability", &value, XattrFlags::empty())
        .expect("root may do it, on a file system that has capabilities");
}

fn bits(capabilities: &[Capability]) -> u64 {
    capabilities.iter().map(Capability::bitmask).sum()
}

/// A set of capabilities as `/proc` shows it.
fn hexadecimal(capabilities: &[Capability]) -> String {
    format!("{:016x}", bits(capabilities))
}

/// What `ioscope doctor` says to give.
const RECOMMENDED: [Capability; 5] = [
    Capability::CAP_BPF,
    Capability::CAP_PERFMON,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_SYSLOG,
];

/// And what it says besides before Linux 5.11, where maps are locked memory.
fn for_locked_memory() -> &'static [Capability] {
    if kernel::version() < (5, 11) { &[Capability::CAP_SYS_RESOURCE] } else { &[] }
}

/// What stays of it.
const KEPT: [Capability; 3] =
    [Capability::CAP_BPF, Capability::CAP_SYS_PTRACE, Capability::CAP_DAC_READ_SEARCH];

#[test]
fn a_user_with_the_capabilities_traces_anothers_process() {
    if !is_root("a_user_with_the_capabilities_traces_anothers_process") {
        return;
    }
    for (given, kept) in [
        (&RECOMMENDED[..], &KEPT[..]),
        (&[Capability::CAP_BPF, Capability::CAP_PERFMON], &[Capability::CAP_BPF]),
        (&[Capability::CAP_SYS_ADMIN], &[Capability::CAP_SYS_ADMIN]),
    ] {
        let installed = Installed::with(&[given, for_locked_memory()].concat());
        let worker = Worker::start(&expiring("privileges"));
        let mut command = installed.as_nobody();
        command.args(["stat", "--json", "--pid", &worker.pid().to_string()]);
        let tracing = Tracing::start(command);
        wait_for_sleeps(worker.pid(), "privileges", 30);
        let process = Path::new("/proc").join(tracing.child.id().to_string());
        for set in ["CapEff", "CapPrm"] {
            assert_eq!(status_of(&process, set), hexadecimal(kept), "{set} of {given:?}");
        }
        for set in ["CapInh", "CapAmb"] {
            assert_eq!(status_of(&process, set), hexadecimal(&[]), "{set} of {given:?}");
        }
        assert_eq!(status_of(&process, "NoNewPrivs"), "1");
        worker.end();
        let (code, documents) = tracing.end();
        assert_eq!(code, Some(0), "{given:?}");
        assert!(documents[0]["loops"][0]["iterations"].as_u64() > Some(10), "{given:?}: {}", documents[0]);
    }
}

#[test]
fn without_privileges_a_line_says_what_is_missing_and_how_to_get_it() {
    if !is_root("without_privileges_a_line_says_what_is_missing_and_how_to_get_it") {
        return;
    }
    let worker = Worker::start(&expiring("privileges"));
    for (given, missing) in [
        (&[][..], "tracing needs CAP_BPF and CAP_PERFMON"),
        (&[Capability::CAP_BPF], "tracing needs CAP_PERFMON"),
        (&[Capability::CAP_PERFMON], "tracing needs CAP_BPF"),
    ] {
        let installed = Installed::with(given);
        let path = installed.path();
        let remedy = format!(
            "sudo setcap cap_bpf,cap_perfmon,cap_sys_ptrace,cap_dac_read_search,cap_syslog{}+ep {}",
            if for_locked_memory().is_empty() { "" } else { ",cap_sys_resource" },
            path.display()
        );
        for verb in ["stat", "trace"] {
            let mut command = installed.as_nobody();
            command.args([verb, "--pid", &worker.pid().to_string()]);
            let refused = output(command);
            let stderr = text(&refused.stderr);
            assert_eq!((refused.status.code(), text(&refused.stdout).as_str()), (Some(1), ""), "{stderr}");
            assert_eq!(stderr.lines().count(), 1, "{stderr}");
            assert!(stderr.contains(missing) && stderr.contains(&remedy), "{stderr}");
        }
        let mut command = installed.as_nobody();
        command.args(["doctor", "--json"]);
        let doctor = output(command);
        assert_eq!(doctor.status.code(), Some(1));
        let report = documents(&doctor.stdout).remove(0);
        assert_eq!(report["works"], false);
        assert_eq!(report["problem"], missing);
        assert_eq!(report["setcap"], remedy);
    }
}

#[test]
fn a_traced_command_keeps_what_ioscope_gives_up() {
    if !is_root("a_traced_command_keeps_what_ioscope_gives_up") {
        return;
    }
    // The first line is the command's own rights, the rest those of ioscope and all its threads. The
    // rights are given up when the first batch is taken.
    let script = "sleep 0.5; grep -h CapEff /proc/self/status /proc/$PPID/task/*/status; \
                  grep -h NoNewPrivs /proc/self/status";
    let mut command = Command::new(IOSCOPE);
    command.args(["trace", "--", "sh", "-c", script]);
    let done = output(command);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done.stderr));
    let stdout = text(&done.stdout);
    let mut sets = stdout.lines().filter_map(|line| line.strip_prefix("CapEff:").map(str::trim));
    assert_eq!(sets.next(), Some(status_of(Path::new("/proc/self"), "CapEff").as_str()), "{stdout}");
    let own: Vec<&str> = sets.collect();
    assert!(own.len() >= 2, "{stdout}");
    // Root has one more to keep.
    let kept = [&KEPT[..], &[Capability::CAP_CHECKPOINT_RESTORE]].concat();
    let (kept, nothing) = (hexadecimal(&kept), hexadecimal(&[]));
    assert!(own.iter().all(|set| *set == kept || *set == nothing), "{stdout}");
    assert!(stdout.contains("NoNewPrivs:\t0"), "{stdout}");
}
