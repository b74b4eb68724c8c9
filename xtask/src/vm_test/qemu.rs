//! QEMU: the machine's own if it is new enough, else Debian's, unpacked into the cache.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::{
    apt::{Apt, Archive, Installed, Suite, unpack},
    arch::Arch,
};
use crate::workspace::{output, which};

/// Emulation of 7.2 crashes some guests.
const OLDEST: u32 = 8;

/// An emulator that runs here.
#[derive(Clone, Debug)]
pub(super) struct Qemu {
    /// What it emulates.
    pub(super) arch: Arch,
    program: PathBuf,
    /// Where it was unpacked; none for the machine's own.
    root: Option<PathBuf>,
    /// Its version, for a person.
    pub(super) version: String,
}

impl Qemu {
    /// Finds one, or fetches it.
    pub(super) fn find(cache: &Path, arch: Arch) -> Result<Self> {
        if let Some(program) = which(arch.emulator())
            && let Ok(qemu) = Self::at(arch, program, None)
        {
            return Ok(qemu);
        }
        let root = cache.join(format!("qemu-{arch}"));
        let program = root.join("usr/bin").join(arch.emulator());
        if let Ok(qemu) = Self::at(arch, program.clone(), Some(root.clone())) {
            return Ok(qemu);
        }
        fetch(cache, arch, &root)?;
        Self::at(arch, program, Some(root))
    }

    /// One that is there; an error if it does not run, or is too old.
    fn at(arch: Arch, program: PathBuf, root: Option<PathBuf>) -> Result<Self> {
        let mut qemu = Self { arch, program, root, version: String::new() };
        let text = output(qemu.bare().arg("--version"))?;
        let version = parse_version(&text).with_context(|| format!("what QEMU is this: {text}"))?;
        if version.0 < OLDEST {
            bail!("QEMU {} is too old", version.1);
        }
        qemu.version = version.1;
        Ok(qemu)
    }

    fn bare(&self) -> Command {
        // If this command is killed, its machines end as well.
        let mut command = match which("setpriv") {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "KILL"]).arg(&self.program);
                command
            }
            None => Command::new(&self.program),
        };
        if let Some(root) = &self.root {
            let triplet = format!("{}-linux-gnu", std::env::consts::ARCH);
            let libraries = [root.join("usr/lib").join(&triplet), root.join("lib").join(&triplet)];
            let libraries = libraries.map(|directory| directory.display().to_string()).join(":");
            command.env("LD_LIBRARY_PATH", libraries);
            command.env("QEMU_MODULE_DIR", root.join("usr/lib").join(&triplet).join("qemu"));
            for firmware in ["usr/share/qemu", "usr/share/seabios"] {
                command.arg("-L").arg(root.join(firmware));
            }
        }
        command
    }

    /// The emulator, with a machine that has nothing but what every run needs.
    pub(super) fn command(&self) -> Command {
        let mut command = self.bare();
        command.args(self.arch.machine());
        command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        command
    }
}

/// The number before the first dot, and the version whole.
fn parse_version(text: &str) -> Option<(u32, String)> {
    let version = text.lines().next()?.split(' ').nth(3)?;
    Some((version.split('.').next()?.parse().ok()?, version.to_owned()))
}

/// Downloads Debian's packages and unpacks them below `root`.
fn fetch(cache: &Path, arch: Arch, root: &Path) -> Result<()> {
    let (suites, release) = suites(&codename()?)?;
    eprintln!("{} is missing, or too old: Debian's is unpacked in {}", arch.emulator(), root.display());
    let host = Arch::HOST.context("virtual machines run on x86_64 and aarch64 only")?;
    let apt = Apt::new(&cache.join("apt-qemu"), host.debian(), &suites, Installed::Machine)?;
    if let Err(error) = apt.update() {
        eprintln!("{error:#}");
    }
    let packages = apt.download_with_dependencies(&[arch.emulator_package()], release)?;
    let unfinished = root.with_extension("unfinished");
    let _ = fs::remove_dir_all(&unfinished);
    unpack(&packages, &unfinished)?;
    let _ = fs::remove_dir_all(root);
    fs::rename(&unfinished, root)?;
    apt.clean()
}

/// The name of the machine's Debian release.
fn codename() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release").context("/etc/os-release")?;
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    Ok(name.context("/etc/os-release has no VERSION_CODENAME")?.trim_matches('"').to_owned())
}

/// Where a release has a QEMU that is new enough, and the release to ask it of, if that is not the machine's.
fn suites(codename: &str) -> Result<(Vec<Suite>, Option<&'static str>)> {
    match codename {
        "bookworm" => Ok((
            vec![
                (Archive::Main, "bookworm"),
                (Archive::Security, "bookworm-security"),
                (Archive::Main, "bookworm-backports"),
            ],
            Some("bookworm-backports"),
        )),
        "trixie" => Ok((vec![(Archive::Main, "trixie"), (Archive::Security, "trixie-security")], None)),
        other => bail!("no QEMU is known for {other}: put one of version {OLDEST} or newer into PATH"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_the_first_line() {
        let text = "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright\n";
        assert_eq!(parse_version(text), Some((10, "10.0.2".to_owned())));
        assert_eq!(parse_version("QEMU emulator version 7.2.22\n"), Some((7, "7.2.22".to_owned())));
        assert_eq!(parse_version("something else"), None);
    }
}
