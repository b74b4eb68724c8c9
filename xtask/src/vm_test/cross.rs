//! Programs for another architecture than this machine's: Debian's Rust, its standard library for that
//! architecture, its cross compiler as the linker, and a small system for the guest. All of it is unpacked into
//! the cache, nothing is installed.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{
    apt::{self, Apt, Archive, Installed, Suite},
    arch::Arch,
};
use crate::workspace::output;

/// Debian's Rust, which `cargo xtask build-ebpf --install` installs: it has a package of its standard library
/// for every architecture.
const CARGO: &str = "/usr/bin/cargo";
const RUSTC: &str = "/usr/bin/rustc";

/// The release that has both.
const SUITES: &[Suite] = &[
    (Archive::Main, "bookworm"),
    (Archive::Main, "bookworm-updates"),
    (Archive::Security, "bookworm-security"),
];

/// What the guest gets: the standard library, and what the tests start.
const GUEST: &[&str] = &[
    "libstd-rust-web-dev",
    "coreutils",
    "dash",
    "grep",
    "libgcc-s1",
    "mount",
    "procps",
    "strace",
    "util-linux",
];

/// A way to make programs for another architecture.
pub(super) struct Cross {
    directory: PathBuf,
    arch: Arch,
}

impl Cross {
    /// Finds it, or fetches it.
    pub(super) fn find(cache: &Path, arch: Arch) -> Result<Self> {
        let cross = Self { directory: cache.join(format!("cross-{arch}")), arch };
        for program in [CARGO, RUSTC] {
            if !Path::new(program).exists() {
                bail!("{program} is missing: `cargo xtask build-ebpf --install` installs Debian's Rust");
            }
        }
        if !cross.linker().exists() {
            cross.fetch(cache)?;
        }
        cross.check()?;
        Ok(cross)
    }

    /// The guest's system.
    pub(super) fn root(&self) -> PathBuf {
        self.directory.join("root")
    }

    fn tools(&self) -> PathBuf {
        self.directory.join("tools")
    }

    /// Where both standard libraries are.
    fn sysroot(&self) -> PathBuf {
        self.directory.join("sysroot")
    }

    fn linker(&self) -> PathBuf {
        self.directory.join("linker")
    }

    /// The Rust target.
    fn target(&self) -> String {
        format!("{}-unknown-linux-gnu", self.arch.gnu())
    }

    /// The tool that takes the debug information out.
    pub(super) fn strip(&self) -> Command {
        let mut command =
            Command::new(self.tools().join(format!("usr/bin/{}-linux-gnu-strip", self.arch.gnu())));
        command.env("LD_LIBRARY_PATH", self.libraries());
        command
    }

    /// Those of the tools themselves.
    fn libraries(&self) -> PathBuf {
        self.tools().join(format!("usr/lib/{}-linux-gnu", std::env::consts::ARCH))
    }

    /// A cargo that builds for the architecture.
    pub(super) fn cargo(&self, verb: &str) -> Command {
        let mut command = Command::new(CARGO);
        let name = self.target().to_uppercase().replace('-', "_");
        command.arg(verb).arg("--target").arg(self.target()).env("RUSTC", RUSTC);
        command.env(format!("CARGO_TARGET_{name}_LINKER"), self.linker());
        command
            .env(format!("CARGO_TARGET_{name}_RUSTFLAGS"), format!("--sysroot={}", self.sysroot().display()));
        // What the cargo that runs this command has set for itself.
        for steering in
            ["LD_LIBRARY_PATH", "RUSTUP_TOOLCHAIN", "CARGO", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"]
        {
            command.env_remove(steering);
        }
        command
    }

    fn fetch(&self, cache: &Path) -> Result<()> {
        let host = Arch::HOST.context("virtual machines run on x86_64 and aarch64 only")?;
        eprintln!("what makes programs for {} is unpacked in {}", self.arch, self.directory.display());
        let guest = Apt::new(
            &cache.join(format!("apt-{}", self.arch)),
            self.arch.debian(),
            SUITES,
            Installed::Nothing,
        )?;
        get(&guest, GUEST, &self.root())?;
        let tools = Apt::new(&cache.join("apt-tools"), host.debian(), SUITES, Installed::Machine)?;
        let compiler = format!("gcc-{}-linux-gnu", self.arch.gnu());
        let headers = format!("libc6-dev-{}-cross", self.arch.debian());
        get(&tools, &[&compiler, &headers], &self.tools())?;

        let libraries = self.sysroot().join("lib/rustlib");
        fs::create_dir_all(&libraries)?;
        let own = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
        for (root, target) in [(Path::new("/"), own), (self.root().as_path(), self.target())] {
            let link = libraries.join(&target);
            let _ = fs::remove_file(&link);
            symlink(root.join("usr/lib/rustlib").join(&target), &link)?;
        }
        // Last: it tells that all is there.
        let tools = self.tools();
        let gnu = self.arch.gnu();
        let script = format!(
            "#!/bin/sh\nLD_LIBRARY_PATH={} exec {}/usr/bin/{gnu}-linux-gnu-gcc --sysroot={} \
             -B{}/usr/{gnu}-linux-gnu/lib \"$@\"\n",
            self.libraries().display(),
            tools.display(),
            tools.display(),
            tools.display(),
        );
        fs::write(self.linker(), script)?;
        fs::set_permissions(self.linker(), fs::Permissions::from_mode(0o755))?;
        Ok(())
    }

    /// A standard library is of use to its own compiler only.
    fn check(&self) -> Result<()> {
        let mut command = Command::new(RUSTC);
        command.arg("--sysroot").arg(self.sysroot()).args([
            "--target",
            &self.target(),
            "--crate-type",
            "lib",
        ]);
        command.args(["--emit", "metadata", "--out-dir"]).arg(&self.directory).env_remove("LD_LIBRARY_PATH");
        let source = self.directory.join("empty.rs");
        fs::write(&source, "")?;
        output(command.arg(&source)).map(|_| ()).with_context(|| {
            format!(
                "Debian's rustc and the standard library for {} are of different versions: remove {}",
                self.arch,
                self.directory.display()
            )
        })
    }
}

fn get(apt: &Apt, packages: &[&str], to: &Path) -> Result<()> {
    if let Err(error) = apt.update() {
        eprintln!("{error:#}");
    }
    apt::unpack(&apt.download_with_dependencies(packages, None)?, to)?;
    apt.clean()
}
