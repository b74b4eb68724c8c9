//! The guest's side: the first process of a virtual machine. It makes the machine usable, runs the steps of
//! its job one after the other, says how each has ended, and restarts the machine, which ends the emulator.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use rustix::{
    mount::{MountFlags, mount},
    process::{Pid, Signal, WaitOptions, kill_process_group, wait},
    system::{RebootCommand, reboot},
    termios::{OptionalActions, tcdrain, tcgetattr, tcsetattr},
};

use super::{
    protocol::{Event, JOB, Job, Step},
    sys,
};

/// The first process in a virtual machine of `vm-test`, which starts it itself
#[derive(clap::Args)]
pub(crate) struct GuestArgs {
    /// Where the output goes: a serial line
    output: String,
}

/// File systems: what, where, and with which options. One that a kernel lacks costs what needs it.
const MOUNTS: &[(&str, &str, &str)] = &[
    ("proc", "/proc", ""),
    ("sysfs", "/sys", ""),
    ("devtmpfs", "/dev", ""),
    ("devpts", "/dev/pts", "gid=5,mode=620,ptmxmode=666"),
    ("tmpfs", "/dev/shm", "mode=1777"),
    ("tmpfs", "/run", "mode=755"),
    ("bpf", "/sys/fs/bpf", "mode=700"),
    ("debugfs", "/sys/kernel/debug", ""),
    ("tracefs", "/sys/kernel/tracing", ""),
    ("securityfs", "/sys/kernel/security", ""),
    ("cgroup2", "/sys/fs/cgroup", ""),
];

/// Runs the job; does not return, since a kernel without its first process panics.
pub(crate) fn run_guest(args: &GuestArgs) -> Result<()> {
    if std::process::id() != 1 {
        anyhow::bail!("this is the first process of a virtual machine, and nothing else");
    }
    if let Err(error) = work(args) {
        // The console, which the host shows when a machine has ended without a word.
        eprintln!("the guest failed: {error:#}");
        sleep(Duration::from_millis(200));
    }
    rustix::fs::sync();
    reboot(RebootCommand::Restart).context("the machine does not restart")
}

fn work(args: &GuestArgs) -> Result<()> {
    let started = Instant::now();
    for (kind, place, options) in MOUNTS {
        fs::create_dir_all(place).with_context(|| format!("cannot make {place}"))?;
        let options = std::ffi::CString::new(*options)?;
        if let Err(error) = mount(*kind, *place, *kind, MountFlags::empty(), options.as_c_str()) {
            // The kernel may have mounted it itself.
            if error != rustix::io::Errno::BUSY {
                eprintln!("{kind} cannot be mounted at {place}: {error}");
            }
        }
    }
    if let Err(error) = sys::loopback_up() {
        eprintln!("the loopback device stays down: {error}");
    }
    let mut out = serial(&args.output)?;
    let text = fs::read_to_string(JOB).context(JOB)?;
    let job: Job = serde_json::from_str(&text).context(JOB)?;
    Event::Booted {
        release: read_line("/proc/sys/kernel/osrelease"),
        cpus: std::thread::available_parallelism().map_or(0, usize::from),
        seconds: seconds_since_boot().unwrap_or_else(|| started.elapsed().as_secs_f64()),
        clock_source: read_line("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
    }
    .write(&mut out)?;
    let mut succeeded = BTreeSet::new();
    for step in &job.steps {
        if step.only_after.as_ref().is_some_and(|other| !succeeded.contains(other.as_str())) {
            Event::LeftOut { step: step.name.clone() }.write(&mut out)?;
            continue;
        }
        Event::Begin { step: step.name.clone() }.write(&mut out)?;
        let started = Instant::now();
        let ended = run_step(step, &job, &mut out);
        let (code, too_long) = ended.unwrap_or_else(|error| {
            let _ = writeln!(out, "{} cannot be run: {error:#}", step.name);
            (Some(127), false)
        });
        if code == Some(0) {
            succeeded.insert(step.name.as_str());
        }
        let seconds = started.elapsed().as_secs_f64();
        Event::End { step: step.name.clone(), code, seconds, too_long }.write(&mut out)?;
    }
    Event::Over.write(&mut out)?;
    // What is still on its way would be lost with the machine.
    tcdrain(&out)?;
    Ok(())
}

/// The serial line, as it is: no character is changed on its way.
fn serial(path: &str) -> Result<File> {
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NOCTTY)
        .open(path)
        .with_context(|| format!("cannot open {path}"))?;
    let mut modes = tcgetattr(&file)?;
    modes.make_raw();
    tcsetattr(&file, OptionalActions::Now, &modes)?;
    Ok(file)
}

/// Runs a step to its end: its exit code, and whether it had to be killed.
fn run_step(step: &Step, job: &Job, out: &mut File) -> Result<(Option<i32>, bool)> {
    let (program, arguments) = step.command.split_first().context("an empty command")?;
    let mut command = Command::new(program);
    command.args(arguments).env_clear().envs(&job.environment).envs(&step.environment).current_dir("/");
    // A group of its own, which can be killed as a whole.
    command.stdin(Stdio::null()).stderr(out.try_clone()?).process_group(0);
    command.stdout(if step.is_report { Stdio::piped() } else { Stdio::from(out.try_clone()?) });
    let mut child = command.spawn().with_context(|| format!("cannot start {program}"))?;
    let report = child.stdout.take().map(|mut pipe| {
        std::thread::spawn(move || {
            let mut text = String::new();
            pipe.read_to_string(&mut text).map(|_| text)
        })
    });
    let limit = Duration::from_secs(job.seconds_per_step);
    let ended = wait_for(&child, limit, out)?;
    if let Some(report) = report {
        let text = report.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??;
        match serde_json::from_str(&text) {
            Ok(report) => Event::Report { step: step.name.clone(), report }.write(out)?,
            Err(error) => writeln!(out, "{} reports no JSON ({error}): {text}", step.name)?,
        }
    }
    Ok(ended)
}

/// Waits for a child, and on the way for whatever else has become a child of the first process.
fn wait_for(child: &Child, limit: Duration, out: &mut File) -> Result<(Option<i32>, bool)> {
    let pid = Pid::from_child(child);
    let start = Instant::now();
    let mut too_long = false;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((ended, status))) if ended == pid => {
                return Ok((status.exit_status(), too_long));
            }
            Ok(Some(_)) => continue,
            Ok(None) => sleep(Duration::from_millis(5)),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("cannot wait"),
        }
        if !too_long && start.elapsed() > limit {
            too_long = true;
            writeln!(out, "\nit takes longer than {} s and is killed", limit.as_secs())?;
            // The kernel's list of what sleeps and does not answer, on the console.
            let _ = fs::write("/proc/sysrq-trigger", "w");
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

fn read_line(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn seconds_since_boot() -> Option<f64> {
    read_line("/proc/uptime").split(' ').next()?.parse().ok()
}
