//! gdb, as the source of registers and stacks, and as the second opinion on what they mean: all from one and the same stop
//! of the process.

use std::fs;
use std::process::{Command, Stdio};

use ioscope::symbols::Registers;

/// A thread, stopped.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) registers: Registers,
    /// From the stack pointer to the stack's end.
    pub(crate) stack: Vec<u8>,
    /// gdb's names of its functions, innermost first; `??` where it has none.
    pub(crate) backtrace: Vec<String>,
}

#[cfg(target_arch = "x86_64")]
const REGISTERS: &str = "$pc, $sp, $rbp, 0ul";
#[cfg(target_arch = "aarch64")]
const REGISTERS: &str = "$pc, $sp, $x29, $x30";

/// Whether there is a gdb.
pub(crate) fn is_there() -> bool {
    let version = Command::new("gdb").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// Stops the process's main thread, looks at it, and lets it go on.
pub(crate) fn snapshot(pid: u32) -> Snapshot {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("it is running");
    let stack = maps.lines().find(|line| line.ends_with("[stack]")).expect("it has a stack");
    let end = stack.split(['-', ' ']).nth(1).expect("a mapping has an end");
    look(pid, 1, &format!("0x{end}"))
}

/// Looks at the second thread, and at so many bytes of its stack.
pub(crate) fn snapshot_of_second_thread(pid: u32, bytes: usize) -> Snapshot {
    look(pid, 2, &format!("$sp+{bytes}"))
}

fn look(pid: u32, thread: u32, end: &str) -> Snapshot {
    let directory = tempfile::tempdir().expect("there is room");
    let file = directory.path().join("stack");
    let registers = REGISTERS
        .split(", ")
        .map(|register| format!("(unsigned long){register}"))
        .collect::<Vec<_>>()
        .join(", ");
    let commands = [
        "set debuginfod enabled off".to_owned(),
        "set width 0".to_owned(),
        "set backtrace past-main on".to_owned(),
        "set backtrace past-entry on".to_owned(),
        "set print frame-arguments none".to_owned(),
        "set language c".to_owned(),
        format!("thread {thread}"),
        format!("printf \"REGISTERS %lx %lx %lx %lx\\n\", {registers}"),
        format!("dump binary memory {} (char*)$sp (char*)({end})", file.display()),
        "set language auto".to_owned(),
        "printf \"BACKTRACE\\n\"".to_owned(),
        "backtrace".to_owned(),
    ];
    let mut gdb = Command::new("gdb");
    gdb.args(["-nx", "-batch", "-p", &pid.to_string()]).env("LC_ALL", "C");
    gdb.args(commands.iter().flat_map(|command| ["-ex", command]));
    let output = gdb.output().expect("gdb runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let all = || format!("{text}\n{}", String::from_utf8_lossy(&output.stderr));

    let line =
        text.lines().find_map(|line| line.strip_prefix("REGISTERS ")).unwrap_or_else(|| panic!("{}", all()));
    let numbers: Vec<_> =
        line.split(' ').map(|digits| u64::from_str_radix(digits, 16).expect("a number")).collect();
    let [ip, sp, fp, lr] = numbers[..] else { panic!("{}", all()) };
    Snapshot {
        registers: Registers { ip, sp, fp, lr },
        stack: fs::read(file).unwrap_or_else(|error| panic!("{error}: {}", all())),
        backtrace: text.lines().skip_while(|line| *line != "BACKTRACE").filter_map(function).collect(),
    }
}

/// `#2  0x000055… in outer_layer (depth=…) at spin.c:40`
fn function(line: &str) -> Option<String> {
    let (number, rest) = line.strip_prefix('#')?.split_once(' ')?;
    number.parse::<u32>().ok()?;
    let rest = rest.trim_start();
    let rest = match rest.split_once(" in ") {
        Some((address, rest)) if address.starts_with("0x") => rest,
        _ => rest,
    };
    if rest.starts_with("<signal handler called>") {
        return Some("<signal handler called>".to_owned());
    }
    // The arguments come last, behind a space; names of templates and lambdas have brackets too.
    let name = rest.split(" (").next()?;
    Some(name.to_owned())
}
