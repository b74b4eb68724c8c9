//! Debian packages that a command needs: finding out which are missing, and installing them where
//! that is wanted and possible.

use std::{env, fs, path::Path, process::Command, sync::Once};

use anyhow::{Result, bail};

use crate::workspace::{run, which};

/// A package, how to see that it is there, and what it is for.
pub(crate) struct Package {
    /// Debian's name for it.
    pub(crate) name: &'static str,
    /// It is there if this is: a program's name, or an absolute path.
    pub(crate) provides: &'static str,
    /// What is lost without it, for a person.
    pub(crate) why: &'static str,
}

impl Package {
    /// Whether the machine has what this package provides, from wherever it came.
    pub(crate) fn is_there(&self) -> bool {
        if self.provides.starts_with('/') {
            Path::new(self.provides).exists()
        } else {
            which(self.provides).is_some()
        }
    }
}

/// Whether packages can be installed here at all: Debian or a child of it, and root.
pub(crate) fn can_install() -> bool {
    is_root() && which("apt-get").is_some()
}

/// Whether to install without being asked: a build machine that says so, and only if possible.
pub(crate) fn may_install_unasked() -> bool {
    env::var_os("CI").is_some_and(|value| value == "true" || value == "1") && can_install()
}

/// Whether this process runs as root.
pub(crate) fn is_root() -> bool {
    // The second number is the effective user id. proc(5), "/proc/pid/status".
    fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|status| {
            let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
            ids.split_whitespace().nth(1).map(|id| id == "0")
        })
        .unwrap_or(false)
}

/// Installs those of `packages` that are missing.
pub(crate) fn install(packages: &[&Package]) -> Result<()> {
    static UPDATED: Once = Once::new();

    let missing: Vec<&Package> = packages.iter().copied().filter(|package| !package.is_there()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !can_install() {
        bail!("to install {} takes root and apt-get", names(&missing));
    }
    for package in &missing {
        eprintln!("{} is missing: {}", package.name, package.why);
    }
    let mut updated = Ok(());
    UPDATED.call_once(|| updated = run(Command::new("apt-get").args(["update", "--quiet"])));
    if let Err(error) = updated {
        // The lists that the machine has may do.
        eprintln!("{error:#}");
    }
    // Nothing that the machine has goes for it, and another apt at work is waited for.
    run(Command::new("apt-get")
        .args(["install", "--yes", "--quiet", "--no-install-recommends", "--no-remove"])
        .args(["--option", "DPkg::Lock::Timeout=300"])
        .args(missing.iter().map(|package| package.name))
        .env("DEBIAN_FRONTEND", "noninteractive"))?;
    let still: Vec<&Package> = missing.into_iter().filter(|package| !package.is_there()).collect();
    if !still.is_empty() {
        bail!("apt-get installed {}, and yet it is not there", names(&still));
    }
    Ok(())
}

fn names(packages: &[&Package]) -> String {
    packages.iter().map(|package| package.name).collect::<Vec<_>>().join(" ")
}
