//! `cargo xtask build-ebpf`: the probes' object, which is committed, so that building ioscope takes
//! no BPF toolchain; and the check that the committed object is what the sources say.
//!
//! The object is reproducible: the same compiler gives the same bytes in any directory, for any
//! user. Another compiler gives the same code, data, maps and relocations. A stamp beside the object says which compiler made it, so that the check knows what
//! to ask for.

mod compare;
mod stamp;
mod strip;
mod toolchain;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use self::{stamp::Stamp, toolchain::Toolchain};
use crate::workspace::{Metadata, root, run};

const OBJECT: &str = "ioscope/src/probe/ioscope.bpf.o";
const STAMP: &str = "ioscope/src/probe/ioscope.bpf.stamp";
const TARGET: &str = "bpfel-unknown-none";
const PACKAGE: &str = "ioscope-ebpf";
const PROGRAM: &str = "ioscope-probes";
const PROFILE: &str = "ebpf";

/// Build the probes' object, which is committed
///
/// Takes Debian's Rust for the web (its rustc has a prebuilt core for BPF) or, where there is none,
/// a rustup toolchain with rust-src; and bpf-linker.
#[derive(clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "they are flags of a command line")]
pub(crate) struct Args {
    /// Write nothing: build, and fail if the committed object is not what the sources say
    #[arg(long)]
    check: bool,
    /// Install what is missing: Debian packages (as root), and bpf-linker in ioscope's cache
    /// directory. On a build machine (CI=true, root, Debian) it is so without asking
    #[arg(long)]
    install: bool,
    /// Compile core from rust-src even where Debian's compiled one is there: another compiler's look
    /// at the same sources
    #[arg(long)]
    from_source: bool,
    /// Keep type and line information, so that the verifier's refusals name source lines; not to be
    /// committed
    #[arg(long, conflicts_with = "check")]
    lines: bool,
}

pub(crate) fn run_command(args: &Args) -> Result<()> {
    let install = args.install || crate::packages::may_install_unasked();
    let toolchain = Toolchain::find(install, args.from_source)?;
    eprintln!("with {toolchain}");
    let metadata = Metadata::read()?;
    let built = compile(&toolchain, &metadata)?;
    let object = strip::without_debug_information(
        &fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?,
        args.lines,
    )?;
    let summary = compare::summary(&object)?;
    let stamp = Stamp::new(&toolchain, &object);
    if args.check { check(&object, &stamp) } else { write(&object, &stamp, &summary) }
}

/// Runs cargo and returns the linked object's path.
fn compile(toolchain: &Toolchain, metadata: &Metadata) -> Result<PathBuf> {
    // A directory of its own: the cargo that runs this command may hold the lock of the usual one,
    // and another compiler would throw out what that one has built.
    let target = metadata.target_directory.join("ebpf");
    let mut command = toolchain.cargo();
    command
        .args(["build", "--locked", "--package", PACKAGE, "--bin", PROGRAM])
        .args(["--profile", PROFILE, "--target", TARGET, "--target-dir"])
        .arg(&target)
        .env("CARGO_ENCODED_RUSTFLAGS", flags(toolchain, metadata).join("\u{1f}"))
        .current_dir(root());
    run(&mut command)?;
    Ok(target.join(TARGET).join(PROFILE).join(PROGRAM))
}

fn flags(toolchain: &Toolchain, metadata: &Metadata) -> Vec<String> {
    let mut flags = vec![
        // BTF is made from debug information, all of it: with less the kernel refuses the types.
        "-Cdebuginfo=2".to_owned(),
        "-Clink-arg=--btf".to_owned(),
        // Which kernel's register layout aya-ebpf's own bindings have; it would take the builder's.
        // The probes use none of it: their offsets come from the running kernel.
        "--cfg=bpf_target_arch=\"x86_64\"".to_owned(),
    ];
    let mut remap = |from: &Path, to: &str| {
        flags.push(format!("--remap-path-prefix={}={to}", from.display()));
    };
    remap(root(), "/ioscope");
    for directory in metadata.source_directories() {
        remap(directory, "/registry");
    }
    remap(&toolchain.library_source(), "/library");
    flags
}

fn write(object: &[u8], stamp: &Stamp, summary: &str) -> Result<()> {
    for (path, bytes) in [(OBJECT, object), (STAMP, stamp.to_string().as_bytes())] {
        fs::write(root().join(path), bytes).with_context(|| format!("cannot write {path}"))?;
    }
    eprintln!("{OBJECT}: {summary}");
    Ok(())
}

fn check(object: &[u8], stamp: &Stamp) -> Result<()> {
    const ADVICE: &str = "run `cargo xtask build-ebpf` and commit what it writes";

    let read =
        |path: &str| fs::read(root().join(path)).with_context(|| format!("{path} is not there: {ADVICE}"));
    let committed = read(OBJECT)?;
    let committed_stamp: Stamp = String::from_utf8(read(STAMP)?)?.parse().context(STAMP)?;
    if !committed_stamp.is_of(&committed) {
        bail!("{OBJECT} is not the object that {STAMP} was written for: {ADVICE}");
    }
    let same_compiler = committed_stamp.same_compiler(stamp);
    if same_compiler && committed == object {
        eprintln!("{OBJECT} is what the sources say, to the byte");
        return Ok(());
    }
    let scope = if same_compiler { compare::Scope::Everything } else { compare::Scope::Code };
    let differences = compare::differences(&committed, object, scope)?;
    if differences.is_empty() && !same_compiler {
        eprintln!("{OBJECT} is what the sources say, but for the type information of another compiler");
        return Ok(());
    }
    if differences.is_empty() {
        bail!("{OBJECT} is laid out in another way than the sources say: {ADVICE}");
    }
    bail!("{OBJECT} is not what the sources say: {ADVICE}\n  {}", differences.join("\n  "))
}
