//! `cargo xtask vm-test`: the kernel tests on other kernels, in virtual machines.
//!
//! QEMU and Debian's kernels come from the mirrors of the machine's own apt ([`apt`], [`qemu`], [`kernels`]) into
//! ioscope's cache directory. The test programs and all that they need are packed into the archive that a kernel
//! unpacks as its first file system ([`programs`], [`elf`], [`image`], [`cpio`]), with this very program as
//! the first process ([`guest`]). A machine ([`machine`]) is emulated, not virtualised: KVM is not asked for, so
//! that the command does the same everywhere.

mod apt;
mod arch;
mod console;
mod cpio;
mod elf;
mod guest;
mod image;
mod kernels;
mod machine;
mod programs;
mod protocol;
mod qemu;
mod sys;
mod version;

use std::{
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Mutex,
};

use anyhow::{Context as _, Result};

pub(crate) use self::guest::{GuestArgs, run_guest};
use self::{
    arch::Arch,
    image::Image,
    kernels::{Kernel, Kernels},
    machine::{Plan, Run},
    programs::{Programs, TOOLS, stripped},
    protocol::{JOB, Job, Step},
    qemu::Qemu,
};
use crate::workspace::{Metadata, cache_directory};

/// A step that takes longer is killed.
const SECONDS_PER_STEP: u64 = 360;
/// The code of a test harness whose tests failed.
const FAILED: u8 = 101;

/// Run the kernel tests on other kernels, in virtual machines
///
/// Fetches QEMU and Debian's kernels on first use. Needs neither root nor KVM.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The kernels: series such as 6.12, of which Debian's newest is taken [default: the whole matrix]
    #[arg(long, value_name = "SERIES", value_delimiter = ',', num_args = 1..)]
    kernel: Vec<String>,
    /// The machines' architecture [default: this machine's]
    #[arg(long)]
    arch: Option<Arch>,
    /// Only these test programs
    #[arg(long, value_name = "PROGRAM", value_delimiter = ',')]
    test: Vec<String>,
    /// How many machines at a time
    #[arg(long, value_name = "NUMBER", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    jobs: u32,
    /// CPUs of each machine
    #[arg(long, value_name = "NUMBER", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..))]
    cpus: u32,
    /// Ask the mirrors for newer kernels, even if they were asked within the last week
    #[arg(long)]
    refresh: bool,
    /// Handed to the test programs: `cargo xtask vm-test -- check_ins`
    #[arg(last = true, value_name = "FILTER")]
    for_tests: Vec<String>,
}

/// Runs the command; the exit code is that of the tests.
pub(crate) fn run_command(args: &Args) -> Result<ExitCode> {
    let arch = args.arch.or(Arch::HOST).context("virtual machines run on x86_64 and aarch64 only")?;
    let cache = cache_directory()?.join("vm-test");
    let qemu = Qemu::find(&cache, arch)?;
    let mut kernels = Kernels::open(&cache, arch, args.refresh)?;
    let series: Vec<&str> = if args.kernel.is_empty() {
        arch.series().to_vec()
    } else {
        args.kernel.iter().map(String::as_str).collect()
    };
    let kernels: Vec<Kernel> = series.iter().map(|series| kernels.get(series)).collect::<Result<_>>()?;

    let directory = Metadata::read()?.target_directory.join("vm-test");
    std::fs::create_dir_all(&directory)?;
    let programs = Programs::build(|_| (), &args.test)?;
    programs::left_out().for_each(|line| eprintln!("{line}"));
    let archive = directory.join(format!("{arch}.cpio"));
    let size = pack(&programs, args, arch, &directory)?.write(&archive)?;
    // Half of it is the first file system's at most, and the archive is there a second time while it is unpacked.
    let memory = 512 + 3 * (size >> 20);
    eprintln!("QEMU {}, an image of {} MiB, {memory} MiB a machine", qemu.version, size >> 20);

    let next = Mutex::new(kernels.iter());
    let results = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..args.jobs {
            scope.spawn(|| {
                loop {
                    let Some(kernel) = next.lock().ok().and_then(|mut next| next.next()) else { return };
                    let label = if kernels.len() > 1 { kernel.series.as_str() } else { "" };
                    let plan = Plan {
                        qemu: &qemu,
                        kernel,
                        image: &archive,
                        cpus: args.cpus,
                        memory,
                        counts_instructions: false,
                        directory: &directory.join(format!("{arch}-{}", kernel.series)),
                        label,
                    };
                    let result = run_machine(&plan);
                    if let Ok(mut results) = results.lock() {
                        results.insert(kernel.series.clone(), result);
                    }
                }
            });
        }
    });
    let mut good = true;
    let mut results = results.into_inner().context("a machine's thread panicked")?;
    for kernel in &kernels {
        let run = results.remove(&kernel.series).context("a machine was not run")??;
        good &= summarise(kernel, &run);
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

/// Runs a machine, and a second time if it died: a test that fails is not tried again.
fn run_machine(plan: &Plan<'_>) -> Result<Run> {
    let run = machine::run(plan)?;
    let Some(death) = &run.death else { return Ok(run) };
    eprintln!("{}: the machine died, and is started once more: {death}", plan.kernel.series);
    machine::run(plan)
}

/// Everything that the guest needs.
fn pack(programs: &Programs, args: &Args, arch: Arch, directory: &Path) -> Result<Image> {
    let mut image = Image::new(Path::new("/"), arch);
    let stripped = |path: &Path| stripped(path, &directory.join("stripped"), arch);
    image.program(Path::new("/vm/init"), &stripped(&env::current_exe()?)?)?;
    image.program(&programs.ioscope, &stripped(&programs.ioscope)?)?;
    let ioscope = programs.ioscope.display().to_string();
    let report = |name: &str, arguments: &[&str]| Step {
        name: name.to_owned(),
        command: std::iter::once(ioscope.as_str())
            .chain(arguments.iter().copied())
            .map(str::to_owned)
            .collect(),
        is_report: true,
    };
    let mut steps = vec![report("doctor", &["doctor", "--json"])];
    for (name, path) in &programs.tests {
        let place = PathBuf::from("/vm/tests").join(name);
        image.program(&place, &stripped(path)?)?;
        let mut command = vec![place.display().to_string()];
        command.extend(["--test-threads=1", "--color=never"].map(str::to_owned));
        command.extend(args.for_tests.iter().cloned());
        steps.push(Step { name: name.clone(), command, is_report: false });
    }
    for tool in TOOLS {
        if !image.tool(tool)? {
            eprintln!("{tool} is not here: tests that need it are skipped");
        }
    }
    let environment = [
        ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", "/root"),
        ("LANG", "C.UTF-8"),
        // Long tests are shorter.
        ("IOSCOPE_TEST_EMULATED", "1"),
        // Tests that cannot trace are not skipped, but fail.
        ("CI", "true"),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let job = Job { environment, steps, seconds_per_step: SECONDS_PER_STEP };
    image.text(JOB, serde_json::to_string_pretty(&job)?);
    Ok(image)
}

/// Says what came of a machine; returns whether all went well.
fn summarise(kernel: &Kernel, run: &Run) -> bool {
    let transcript = &run.transcript;
    println!(
        "\nLinux {} ({}): booted in {:.1} s, {} CPUs, clock {}, {:.0} s in all",
        kernel.series,
        transcript.release.as_deref().unwrap_or(&kernel.version),
        transcript.boot_seconds,
        transcript.cpus,
        transcript.clock_source,
        run.wall.as_secs_f64()
    );
    for outcome in &transcript.outcomes {
        println!(
            "  {:<18} {} passed, {} failed, {} skipped, {:.1} s{}",
            outcome.step,
            outcome.passed,
            outcome.failed,
            outcome.skipped.len(),
            outcome.seconds,
            if outcome.is_good() { "" } else { "  NOT GOOD" }
        );
        for name in &outcome.failures {
            println!("    failed: {name}");
        }
        for what in &outcome.skipped {
            println!("    skipped: {what}");
        }
    }
    if let Some(death) = &run.death {
        println!("  THE MACHINE DIED: {death}");
    }
    transcript.is_good()
}
