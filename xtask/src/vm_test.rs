//! `cargo xtask vm-test`: the kernel tests on other kernels, in virtual machines.
//!
//! QEMU and Debian's kernels come from the mirrors of the machine's own apt ([`apt`], [`qemu`], [`kernels`]) into
//! ioscope's cache directory. The test programs and all that they need are packed into the archive that a kernel
//! unpacks as its first file system ([`programs`], [`elf`], [`image`], [`cpio`]), with this very program as
//! the first process ([`guest`]), which does what [`steps`] say. A machine ([`machine`]) is emulated, not
//! virtualised: KVM is not asked for, so that the command does the same everywhere. What came of it all is a
//! matrix ([`report`]).

mod apt;
mod arch;
mod console;
mod cpio;
mod cross;
mod doctor;
mod elf;
mod guest;
mod image;
mod kernels;
mod machine;
mod programs;
mod protocol;
mod qemu;
mod report;
mod steps;
mod sys;
mod untraced;
mod version;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Mutex,
    time::Instant,
};

use anyhow::{Context as _, Result};

use self::{
    arch::Arch,
    cross::Cross,
    image::Image,
    kernels::{Kernel, Kernels},
    machine::{Plan, Run},
    programs::{Programs, TOOLS, stripped},
    protocol::JOB,
    qemu::Qemu,
    report::Report,
    steps::{Kind, job, place},
};
pub(crate) use self::{
    guest::{GuestArgs, run_guest},
    untraced::{UntracedArgs, run_untraced},
};
use crate::workspace::{Metadata, cache_directory, root};

/// The code of a test harness whose tests failed.
const FAILED: u8 = 101;

/// Run the kernel tests on other kernels, in virtual machines
///
/// Fetches QEMU and Debian's kernels on first use. Needs neither root nor KVM. The exit code is that of the
/// tests: 0 if all is as it should be, 101 if not.
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
    /// Appended to the kernels' command line: `--append preempt=full`
    #[arg(long, value_name = "TEXT", default_value = "")]
    append: String,
    /// Ask the mirrors for newer kernels, even if they were asked within the last week
    #[arg(long)]
    refresh: bool,
    /// Write the matrix to docs/kernels.md, too
    #[arg(long)]
    write: bool,
    /// Handed to the test programs: `cargo xtask vm-test -- check_ins`
    #[arg(last = true, value_name = "FILTER")]
    for_tests: Vec<String>,
}

/// What all machines have in common.
struct Setting {
    qemu: Qemu,
    kernels: Vec<Kernel>,
    /// By kind: the archive, and how much memory a machine with it needs, in MiB.
    images: BTreeMap<Kind, (PathBuf, u64)>,
    /// For what is made on the way.
    directory: PathBuf,
    arch: Arch,
    append: String,
}

/// Runs the command; the exit code is that of the tests.
pub(crate) fn run_command(args: &Args) -> Result<ExitCode> {
    let start = Instant::now();
    let setting = Setting::prepare(args)?;
    let runs = setting.run_all(args.jobs)?;
    let report = Report::new(&setting, args.limits(), runs, start.elapsed());
    print!("\n{report}");
    if args.write {
        let path = root().join("docs/kernels.md");
        fs::write(&path, report.page()).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let problems = report.problems();
    for problem in &problems {
        eprintln!("NOT GOOD: {problem}");
    }
    Ok(if problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) })
}

impl Args {
    /// In which way less than everything was asked for, for a person.
    fn limits(&self) -> Vec<String> {
        let mut limits = Vec::new();
        if !self.test.is_empty() {
            limits.push(format!("only the test programs {}", self.test.join(", ")));
        }
        if !self.for_tests.is_empty() {
            limits.push(format!("only tests with {} in their names", self.for_tests.join(" or ")));
        }
        if !self.append.is_empty() {
            limits.push(format!("`{}` on the kernels' command line", self.append));
        }
        limits
    }
}

impl Setting {
    /// Fetches and builds what is missing.
    fn prepare(args: &Args) -> Result<Self> {
        let arch = args.arch.or(Arch::HOST).context("virtual machines run on x86_64 and aarch64 only")?;
        let cache = cache_directory()?.join("vm-test");
        let qemu = Qemu::find(&cache, arch)?;
        let mut known = Kernels::open(&cache, arch, args.refresh)?;
        let series: Vec<&str> = if args.kernel.is_empty() {
            arch.series().to_vec()
        } else {
            args.kernel.iter().map(String::as_str).collect()
        };
        let kernels: Vec<Kernel> = series.iter().map(|series| known.get(series)).collect::<Result<_>>()?;

        let directory = Metadata::read()?.target_directory.join("vm-test");
        fs::create_dir_all(&directory)?;
        let cross = if Arch::HOST == Some(arch) { None } else { Some(Cross::find(&cache, arch)?) };
        let programs = Programs::build(cross.as_ref(), &args.test)?;
        let mut image = pack(&programs, arch, cross.as_ref(), &directory)?;
        let mut images = BTreeMap::new();
        // Who looks for one test does not wait for measurements.
        let measure = args.write || args.for_tests.is_empty();
        for kind in Kind::ALL {
            let Some(job) = job(kind, &programs, &args.for_tests, measure) else { continue };
            image.text(JOB, serde_json::to_string_pretty(&job)?);
            let path = directory.join(format!("{arch}-{}.cpio", kind.name()));
            let size = image.write(&path)? >> 20;
            // The first file system may fill half of the memory, and while it is unpacked, the archive is
            // there a second time.
            images.insert(kind, (path, 512 + 3 * size));
        }
        Ok(Self { qemu, kernels, images, directory, arch, append: args.append.clone() })
    }

    /// Runs all machines, so many at a time.
    fn run_all(&self, jobs: u32) -> Result<BTreeMap<(usize, Kind), Run>> {
        // The newest first: they take longest, and the shorter ones fill what is left of the CPUs at the end.
        let kernels = (0..self.kernels.len()).rev();
        let tasks = kernels.flat_map(|kernel| self.images.keys().map(move |kind| (kernel, *kind)));
        let tasks = Mutex::new(tasks);
        let results = Mutex::new(BTreeMap::new());
        std::thread::scope(|scope| {
            for _ in 0..jobs {
                scope.spawn(|| {
                    loop {
                        let Some(task) = tasks.lock().ok().and_then(|mut tasks| tasks.next()) else { return };
                        let result = self.run(task);
                        if let Ok(mut results) = results.lock() {
                            results.insert(task, result);
                        }
                    }
                });
            }
        });
        let results = results.into_inner().ok().context("a machine's thread panicked")?;
        results.into_iter().map(|(task, result)| Ok((task, result?))).collect()
    }

    /// Runs a machine, and a second time if it died: a test that fails is not tried again.
    fn run(&self, (kernel, kind): (usize, Kind)) -> Result<Run> {
        let kernel = &self.kernels[kernel];
        let (image, memory) = &self.images[&kind];
        let name = format!("{}-{}-{}", self.arch, kernel.series, kind.name());
        let label = format!("{:>5} {}", kernel.series, kind.name());
        let plan = Plan {
            qemu: &self.qemu,
            kernel,
            image,
            kind,
            memory: *memory,
            append: &self.append,
            console: &self.directory.join(name + ".console"),
            label: &label,
        };
        let run = machine::run(&plan)?;
        let Some(death) = &run.death else { return Ok(run) };
        eprintln!("{label} | the machine died, and is started once more: {death}");
        machine::run(&plan)
    }
}

/// Everything that the guests need, but for their jobs.
fn pack(programs: &Programs, arch: Arch, cross: Option<&Cross>, directory: &Path) -> Result<Image> {
    let root = cross.map_or_else(|| PathBuf::from("/"), Cross::root);
    let mut image = Image::new(&root, arch);
    let directory = directory.join(format!("stripped-{arch}"));
    let stripped = |path: &Path| stripped(path, &directory, cross);
    image.program(Path::new("/vm/init"), &stripped(&programs.init)?)?;
    image.program(&programs.ioscope, &stripped(&programs.ioscope)?)?;
    for (name, path) in &programs.tests {
        image.program(Path::new(&place(name)), &stripped(path)?)?;
    }
    for tool in TOOLS {
        if !image.tool(tool)? {
            eprintln!("{tool} is not here: tests that need it are skipped");
        }
    }
    Ok(image)
}
