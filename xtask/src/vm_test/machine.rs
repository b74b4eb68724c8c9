//! One virtual machine, from its start to its end: its output is read as it comes, and it is ended when it hangs.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::Path,
    process::{Child, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{
    console::{Transcript, end_of_console},
    kernels::Kernel,
    qemu::Qemu,
    steps::Kind,
};

/// A machine that says nothing for so long hangs: longer than a step may take.
const SILENCE: Duration = Duration::from_mins(17);
/// However much it says.
const LIFE: Duration = Duration::from_hours(1);

/// What a machine is made of.
pub(super) struct Plan<'a> {
    pub(super) qemu: &'a Qemu,
    pub(super) kernel: &'a Kernel,
    pub(super) image: &'a Path,
    pub(super) kind: Kind,
    /// In MiB.
    pub(super) memory: u64,
    /// For the kernel's command line.
    pub(super) append: &'a str,
    /// Where the console's text goes.
    pub(super) console: &'a Path,
    /// What begins each line of output.
    pub(super) label: &'a str,
}

/// What came of a machine.
pub(super) struct Run {
    pub(super) transcript: Transcript,
    /// If it did not come to its end: why, with what its console shows.
    pub(super) death: Option<String>,
    /// From its start to its end.
    pub(super) wall: Duration,
    /// CPU time of the host's.
    pub(super) cpu: Duration,
}

/// An emulator that ends with its owner.
struct Emulator(Child);

impl Drop for Emulator {
    fn drop(&mut self) {
        // It has ended already when all went well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Boots the machine and reads it to its end.
pub(super) fn run(plan: &Plan<'_>) -> Result<Run> {
    let start = Instant::now();
    let mut command = plan.qemu.command();
    match plan.kind {
        Kind::Parallel => command.args(["-accel", "tcg,thread=multi"]),
        // An instruction takes two nanoseconds, and nothing else takes time: what sleeps, sleeps no longer
        // than it has to.
        Kind::Counted => command.args(["-accel", "tcg,thread=single", "-icount", "shift=1,sleep=off"]),
    };
    command.args(["-smp", &plan.kind.cpus().to_string(), "-m", &plan.memory.to_string()]);
    command.arg("-serial").arg(format!("file:{}", plan.console.display()));
    command.args(["-chardev", "stdio,id=out,signal=off", "-serial", "chardev:out"]);
    command.arg("-kernel").arg(&plan.kernel.image).arg("-initrd").arg(plan.image);
    let [console_line, output_line] = plan.qemu.arch.serial_lines();
    command.arg("-append").arg(format!(
        "console={console_line} quiet panic=-1 oops=panic {} rdinit=/vm/init -- vm-guest /dev/{output_line}",
        plan.append
    ));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut emulator = Emulator(command.spawn().context("cannot start QEMU")?);
    let output = emulator.0.stdout.take().context("QEMU's output")?;
    let (send, lines) = channel();
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = Vec::new();
        while output.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&line);
            if send.send(text.trim_end_matches(['\n', '\r']).to_owned()).is_err() {
                return;
            }
            line.clear();
        }
    });
    let mut transcript = Transcript::default();
    let hang = read(&lines, plan.label, &mut transcript);
    if hang.is_some() {
        emulator.0.kill().context("cannot end QEMU")?;
    }
    let mut errors = String::new();
    if let Some(mut stderr) = emulator.0.stderr.take() {
        stderr.read_to_string(&mut errors)?;
    }
    let cpu = cpu_time(emulator.0.id());
    let status = emulator.0.wait()?;
    let death = (!transcript.is_over).then(|| {
        let during = transcript.last_step().map_or_else(|| "at boot".to_owned(), |step| format!("in {step}"));
        let why = hang.unwrap_or_else(|| format!("it ended {during}, QEMU with {status}"));
        let console = fs::read(plan.console).unwrap_or_default();
        let console = end_of_console(&String::from_utf8_lossy(&console));
        format!("{why}\n{}{console}", errors.trim_start())
    });
    Ok(Run { transcript, death, wall: start.elapsed(), cpu })
}

/// What a process has used of the CPUs, as long as it has not been waited for: `proc_pid_stat(5)`, fields 14 and 15.
fn cpu_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The second field, in parentheses, may have blanks.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let ticks: u64 =
        rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second().max(1))
}

/// Reads to the end of the output. Tells if the machine hangs.
fn read(lines: &Receiver<String>, label: &str, transcript: &mut Transcript) -> Option<String> {
    let start = Instant::now();
    loop {
        let left = LIFE.checked_sub(start.elapsed()).unwrap_or_default();
        match lines.recv_timeout(SILENCE.min(left)) {
            Ok(line) => {
                if let Some(line) = transcript.take(&line) {
                    let mut out = std::io::stdout().lock();
                    // Whoever reads may have gone; the tests go on.
                    let _ = writeln!(out, "{label} | {line}");
                }
            }
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => {
                let during = transcript.last_step().unwrap_or("the boot");
                let limit = if left.is_zero() { LIFE } else { SILENCE.min(left) };
                return Some(format!("it hangs in {during}: no end in sight after {} s", limit.as_secs()));
            }
        }
    }
}
