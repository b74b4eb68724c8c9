//! What compiles and links the probes: found, or installed, or a message that says what to install.
//!
//! Two ways, the first that is there:
//!
//! - Debian's Rust for the web. Its rustc is current and its core for BPF comes compiled.
//! - The toolchain that runs this command, if it has rust-src: core is compiled from source.
//!
//! Both need bpf-linker, built against an LLVM as new as rustc's.

use std::{
    env, fmt, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::TARGET;
use crate::{
    packages::{self, Package},
    workspace::{cache_directory, output, run, which},
};

/// The version that the committed object is linked with.
const LINKER_VERSION: &str = "0.13.0";

const DEBIAN: &[Package] = &[
    Package {
        name: "rustc-web",
        provides: "/usr/bin/rustc",
        why: "a rustc whose core for BPF comes compiled",
    },
    Package { name: "cargo-web", provides: "/usr/bin/cargo", why: "the cargo of that rustc" },
    Package {
        name: "libstd-rust-web-dev-bpf",
        provides: "/usr/lib/rustlib/bpfel-unknown-none/lib",
        why: "core for BPF",
    },
];

/// A compiler and a linker for the probes.
pub(crate) struct Toolchain {
    cargo: PathBuf,
    compiler: PathBuf,
    sysroot: PathBuf,
    linker: PathBuf,
    /// Whether core has to be compiled along.
    build_std: bool,
    /// The first line of `rustc -vV`: version, commit and date.
    pub(crate) rustc: String,
    /// The version of rustc's LLVM.
    pub(crate) llvm: String,
    /// Name and version of the linker.
    pub(crate) linker_version: String,
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let core = if self.build_std { "core from source" } else { "core as Debian compiled it" };
        write!(f, "{}, LLVM {}, {core}, {}", self.rustc, self.llvm, self.linker_version)
    }
}

impl Toolchain {
    /// Finds a toolchain. `install`: whether to install what is missing, as far as possible.
    /// `from_source`: take the second way at once.
    pub(crate) fn find(install: bool, from_source: bool) -> Result<Self> {
        if !from_source {
            let wanted: Vec<&Package> = DEBIAN.iter().collect();
            if install && packages::can_install() {
                packages::install(&wanted)?;
            }
            if wanted.iter().all(|package| package.is_there()) {
                return Self::at(Path::new("/usr"), false, install);
            }
        }
        let sysroot = output(Command::new("rustc").args(["--print", "sysroot"]))?;
        let sysroot = Path::new(sysroot.trim());
        if library_source(sysroot).join("core").is_dir() {
            return Self::at(sysroot, true, install);
        }
        let names = DEBIAN.iter().map(|package| package.name).collect::<Vec<_>>().join(" ");
        bail!(
            "no compiler for {TARGET}. Either, on Debian, as root: `cargo xtask build-ebpf --install`, \
             which installs {names} and bpf-linker. Or anywhere: `rustup component add rust-src`, \
             then `cargo xtask build-ebpf --install`"
        )
    }

    fn at(sysroot: &Path, build_std: bool, install: bool) -> Result<Self> {
        let compiler = sysroot.join("bin/rustc");
        let version = output(Command::new(&compiler).arg("-vV").env_remove("LD_LIBRARY_PATH"))?;
        let (rustc, llvm) = read_version(&version)?;
        let mut toolchain = Self {
            cargo: sysroot.join("bin/cargo"),
            compiler,
            sysroot: sysroot.to_owned(),
            linker: PathBuf::new(),
            build_std,
            rustc,
            llvm,
            linker_version: String::new(),
        };
        (toolchain.linker, toolchain.linker_version) = toolchain.find_linker(install)?;
        Ok(toolchain)
    }

    /// A cargo that builds for BPF, whatever cargo or toolchain runs this command. It takes the rest
    /// of its arguments and its target directory from the caller.
    pub(crate) fn cargo(&self) -> Command {
        let mut command = self.clean_cargo();
        // An option of its own for the linker: in rustflags its path would end up in symbol names.
        command.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &self.linker);
        if self.build_std {
            // `-Z`, and core's own unstable features.
            command.env("RUSTC_BOOTSTRAP", "1").args(["-Z", "build-std=core"]);
        } else {
            // The one crate with an unstable feature: inline assembly for BPF.
            command.env("RUSTC_BOOTSTRAP", "aya_ebpf");
        }
        command
    }

    /// Where core's source is, or would be: a path that gets into the object.
    pub(crate) fn library_source(&self) -> PathBuf {
        library_source(&self.sysroot)
    }

    fn clean_cargo(&self) -> Command {
        let mut command = Command::new(&self.cargo);
        for (name, _) in env::vars_os() {
            if name.to_str().is_some_and(steers_a_build) {
                command.env_remove(name);
            }
        }
        command.env("RUSTC", &self.compiler);
        command
    }

    fn find_linker(&self, install: bool) -> Result<(PathBuf, String)> {
        let major = self.llvm.split('.').next().unwrap_or_default();
        let kept = cache_directory()?.join(format!("bpf-toolchain/llvm-{major}"));
        let installed = kept.join("bin/bpf-linker");
        let mut unfit = String::new();
        for candidate in [Some(installed.clone()), which("bpf-linker")].into_iter().flatten() {
            match linker_version(&candidate) {
                Ok(version) if version.ends_with(LINKER_VERSION) => return Ok((candidate, version)),
                Ok(version) => unfit = format!(" ({} is {version})", candidate.display()),
                Err(_) => {}
            }
        }
        if !install {
            bail!(
                "bpf-linker {LINKER_VERSION} is missing{unfit}: `cargo xtask build-ebpf --install` builds \
                 it in {}, or put one with LLVM {major} or newer into PATH",
                kept.display()
            );
        }
        self.install_linker(&kept, major)?;
        let version = linker_version(&installed)?;
        Ok((installed, version))
    }

    /// Builds bpf-linker against the LLVM that rustc itself uses, so that it reads what rustc writes.
    fn install_linker(&self, kept: &Path, major: &str) -> Result<()> {
        let llvm = self.llvm_library(major)?;
        let libraries = kept.join("lib");
        fs::create_dir_all(&libraries)?;
        // bpf-linker's build looks for libLLVM.so below LLVM_PREFIX, and has the loader look there.
        for name in
            [Some("libLLVM.so"), llvm.file_name().and_then(|name| name.to_str())].into_iter().flatten()
        {
            let link = libraries.join(name);
            if link.is_symlink() {
                fs::remove_file(&link)?;
            }
            symlink(&llvm, &link).with_context(|| format!("cannot link {}", link.display()))?;
        }
        eprintln!("bpf-linker is missing: building it takes a minute or two");
        run(self
            .clean_cargo()
            .args(["install", "bpf-linker", "--version", LINKER_VERSION, "--locked", "--quiet"])
            .args(["--no-default-features", "--features"])
            .arg(format!("llvm-{major}"))
            .arg("--root")
            .arg(kept)
            .env("LLVM_PREFIX", kept))
        .context("building bpf-linker")
    }

    /// The shared library of rustc's LLVM: in the system's library directory for a packaged rustc,
    /// in its own for rustup's.
    fn llvm_library(&self, major: &str) -> Result<PathBuf> {
        let system = PathBuf::from(format!("/usr/lib/{}-linux-gnu", env::consts::ARCH));
        let directories = if self.build_std {
            vec![self.sysroot.join("lib")]
        } else {
            vec![system, self.sysroot.join("lib")]
        };
        let prefix = format!("libLLVM.so.{major}.");
        for directory in &directories {
            for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
                if entry.file_name().to_string_lossy().starts_with(&prefix) {
                    return Ok(entry.path());
                }
            }
        }
        bail!("no {prefix}* in {}", directories[0].display())
    }
}

fn library_source(sysroot: &Path) -> PathBuf {
    sysroot.join("lib/rustlib/src/rust/library")
}

fn linker_version(linker: &Path) -> Result<String> {
    let version = output(Command::new(linker).arg("--version").env_remove("LD_LIBRARY_PATH"))?;
    Ok(version.trim().to_owned())
}

/// The version line and LLVM's version in what `rustc -vV` writes.
fn read_version(text: &str) -> Result<(String, String)> {
    let rustc = text.lines().next().context("rustc -vV wrote nothing")?;
    let llvm = text.lines().find_map(|line| line.strip_prefix("LLVM version: "));
    Ok((rustc.to_owned(), llvm.context("rustc -vV names no LLVM")?.to_owned()))
}

/// Whether an environment variable would make an inner cargo build something else than it is told:
/// `cargo run` sets some for this command, the caller may have set others for the host's build. What
/// says where packages come from stays.
fn steers_a_build(name: &str) -> bool {
    const KEPT: [&str; 6] =
        ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_", "CARGO_TERM_"];
    let cargo = name == "CARGO" || name.starts_with("CARGO_");
    (cargo && !KEPT.iter().any(|kept| name.starts_with(kept)))
        || ["RUSTC", "RUSTDOC", "RUSTFLAGS", "RUSTDOCFLAGS", "RUSTUP_TOOLCHAIN", "LD_LIBRARY_PATH"]
            .contains(&name)
        || name.starts_with("RUSTC_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_steers_a_build_is_removed() {
        for name in
            ["CARGO", "CARGO_TARGET_DIR", "CARGO_ENCODED_RUSTFLAGS", "RUSTC_WRAPPER", "RUSTUP_TOOLCHAIN"]
        {
            assert!(steers_a_build(name), "{name}");
        }
        for name in ["CARGO_HOME", "CARGO_REGISTRIES_X_INDEX", "CARGO_NET_OFFLINE", "RUSTUP_HOME", "PATH"] {
            assert!(!steers_a_build(name), "{name}");
        }
    }

    #[test]
    fn versions_are_read_from_rustc() {
        let text =
            "rustc 1.96.0 (ac68faa20 2026-05-25)\nbinary: rustc\nrelease: 1.96.0\nLLVM version: 22.1.8\n";
        let (rustc, llvm) = read_version(text).unwrap();
        assert_eq!(rustc, "rustc 1.96.0 (ac68faa20 2026-05-25)");
        assert_eq!(llvm, "22.1.8");
        assert!(read_version("rustc 1.96.0\n").is_err());
    }
}
