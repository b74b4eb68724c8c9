//! What a screen shows of a process before anything is known of its loops, read cheaply from /proc.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use super::executable::{ElfClass, Executable};
use super::facts::name_of;

/// How much of a command line is read: enough for any screen.
const MOST_COMMAND_LINE_BYTES: u64 = 64 << 10;

/// `PF_KTHREAD` in the flags of /proc/PID/stat: include/linux/sched.h.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// Who a process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessIdentity {
    /// Its name, at most 15 bytes; a kernel thread's can be longer.
    pub comm: String,
    /// Its arguments; empty for a kernel thread, a zombie, or without permission.
    pub command_line: Vec<String>,
    /// Its pid in its own pid namespace, where that is another number.
    pub namespace_pid: Option<u32>,
    /// The word size of its executable; `None` for a kernel thread or without permission. The probes read
    /// arguments as a 64-bit program passes them.
    pub elf_class: Option<ElfClass>,
    /// Whether it is a thread of the kernel: it has no loops.
    pub is_kernel_thread: bool,
    /// When it started, in clock ticks after boot. With the pid it names the process for good: a pid
    /// that was given out again has another.
    pub start_ticks: u64,
    /// The same as a time after boot, suspend included (`CLOCK_BOOTTIME`).
    pub started_after_boot: Duration,
}

impl ProcessIdentity {
    /// Reads it from the process's directory in /proc; `None` when there is no such process.
    pub(super) fn read(directory: &Path) -> Option<Self> {
        let comm = name_of(directory)?;
        let stat = Stat::parse(&text(&directory.join("stat"))?)?;
        let status = text(&directory.join("status")).unwrap_or_default();
        Some(Self {
            comm,
            command_line: command_line(directory),
            namespace_pid: namespace_pid(&status),
            elf_class: Executable::open(&directory.join("exe")).and_then(|executable| executable.class()),
            is_kernel_thread: stat.flags & KERNEL_THREAD != 0,
            start_ticks: stat.start_ticks,
            started_after_boot: ticks(stat.start_ticks),
        })
    }
}

/// A file as text, its odd bytes replaced: a thread may give itself any name.
fn text(path: &Path) -> Option<String> {
    fs::read(path).ok().map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn ticks(count: u64) -> Duration {
    let per_second = rustix::param::clock_ticks_per_second().max(1);
    let rest = count % per_second * 1_000_000_000 / per_second;
    Duration::from_secs(count / per_second) + Duration::from_nanos(rest)
}

fn command_line(directory: &Path) -> Vec<String> {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(directory.join("cmdline")) {
        // ESRCH: the process is gone, and what was read is what there is.
        let _ = file.take(MOST_COMMAND_LINE_BYTES).read_to_end(&mut bytes);
    }
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    if bytes.is_empty() {
        return Vec::new();
    }
    bytes.split(|byte| *byte == 0).map(|argument| String::from_utf8_lossy(argument).into_owned()).collect()
}

/// `NSpid: 4711 12` lists the pid in each namespace, the reader's first, the process's own last.
fn namespace_pid(status: &str) -> Option<u32> {
    let mut pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace();
    let seen = pids.next()?;
    pids.next_back().filter(|own| *own != seen)?.parse().ok()
}

/// The fields of /proc/PID/stat used here: `proc_pid_stat(5)`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    flags: u64,
    start_ticks: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        // The name, in parentheses, may itself contain any of them; the state, field 3, follows the last.
        let (_, fields) = text.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3)?.parse().ok();
        Some(Self { flags: field(9)?, start_ticks: field(22)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_shift_the_fields() {
        let text =
            "7 (a) b (c) S 1 7 7 0 -1 4194560 1 0 0 0 1 2 0 0 20 0 1 0 8399 1000 200 18446744073709551615";
        assert_eq!(Stat::parse(text), Some(Stat { flags: 4_194_560, start_ticks: 8399 }));
        assert_eq!(Stat::parse("7 (a) S 1 7"), None);
        assert_eq!(Stat::parse(""), None);
    }

    #[test]
    fn only_another_number_in_its_own_namespace_is_told() {
        assert_eq!(namespace_pid("Name:\tx\nNSpid:\t4711\t12\nNSpgid:\t4711\t12\n"), Some(12));
        assert_eq!(namespace_pid("NSpid:\t4711\t300\t1\n"), Some(1));
        assert_eq!(namespace_pid("NSpid:\t4711\n"), None);
        assert_eq!(namespace_pid("NSpid:\t4711\t4711\n"), None);
        assert_eq!(namespace_pid("Name:\tx\n"), None);
    }

    #[test]
    fn a_made_up_process_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        assert_eq!(ProcessIdentity::read(path), None);
        fs::write(path.join("comm"), "kworker/0:1-events\n").unwrap();
        fs::write(
            path.join("stat"),
            "9 (kworker/0:1-ev) I 2 0 0 0 -1 69238880 0 0 0 0 0 0 0 0 20 0 1 0 150 0 0",
        )
        .unwrap();
        fs::write(path.join("cmdline"), "").unwrap();
        let identity = ProcessIdentity::read(path).unwrap();
        assert!(identity.is_kernel_thread);
        assert_eq!(identity.comm, "kworker/0:1-events");
        assert_eq!(identity.command_line, Vec::<String>::new());
        assert_eq!(identity.elf_class, None);
        assert_eq!(
            identity.started_after_boot,
            Duration::from_millis(150 * 1000 / rustix::param::clock_ticks_per_second())
        );

        fs::write(path.join("cmdline"), "node\0\0--flag\0").unwrap();
        fs::write(path.join("exe"), b"\x7fELF\x01").unwrap();
        let identity = ProcessIdentity::read(path).unwrap();
        assert_eq!(identity.command_line, ["node", "", "--flag"]);
        assert_eq!(identity.elf_class, Some(ElfClass::Elf32));
    }

    #[test]
    fn this_very_process_is_known() {
        let identity = ProcessIdentity::read(Path::new("/proc/self")).unwrap();
        assert_eq!(identity.command_line, std::env::args().collect::<Vec<_>>());
        assert!(!identity.is_kernel_thread);
        assert!(identity.elf_class.is_some());
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let now = Duration::try_from(now).unwrap();
        assert!(identity.started_after_boot <= now && identity.start_ticks > 0);
    }
}
