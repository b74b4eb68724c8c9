//! Where the workspace is, and how to start another program from inside `cargo xtask`.

use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

/// What `cargo metadata` tells about the workspace that these commands need.
#[derive(Deserialize)]
pub(crate) struct Metadata {
    /// Where cargo puts what it builds.
    pub(crate) target_directory: PathBuf,
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    manifest_path: PathBuf,
    /// `None` for the workspace's own crates.
    source: Option<String>,
}

impl Metadata {
    /// Asks cargo, which fetches the dependencies' sources if they are missing.
    pub(crate) fn read() -> Result<Self> {
        let mut command = Command::new(cargo());
        command.args(["metadata", "--locked", "--format-version", "1"]).current_dir(root());
        serde_json::from_str(&output(&mut command)?).context("cargo metadata's answer")
    }

    /// The directories that hold the dependencies' sources, one a registry: each is the parent of
    /// many packages.
    pub(crate) fn source_directories(&self) -> Vec<&Path> {
        let mut directories: Vec<&Path> = self
            .packages
            .iter()
            .filter(|package| package.source.is_some())
            .filter_map(|package| package.manifest_path.parent()?.parent())
            .collect();
        directories.sort_unstable();
        directories.dedup();
        directories
    }
}

/// The workspace's root: the directory above this crate.
pub(crate) fn root() -> &'static Path {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest)
}

/// The cargo that runs this command.
pub(crate) fn cargo() -> OsString {
    env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// A directory of ours that outlives `cargo clean`.
pub(crate) fn cache_directory() -> Result<PathBuf> {
    let base = match env::var_os("XDG_CACHE_HOME").map(PathBuf::from) {
        Some(directory) if directory.is_absolute() => directory,
        _ => {
            let home = env::var_os("HOME").context("neither XDG_CACHE_HOME nor HOME is set")?;
            PathBuf::from(home).join(".cache")
        }
    };
    Ok(base.join("ioscope"))
}

/// Shows the command and runs it. Any other end than success is an error.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    eprintln!("+ {}", shown(command));
    let status = command.status().with_context(|| format!("cannot start {}", shown(command)))?;
    if !status.success() {
        bail!("{} ended with {status}", shown(command));
    }
    Ok(())
}

/// Runs the command and returns what it wrote to stdout. Any other end than success is an error,
/// which quotes stderr.
pub(crate) fn output(command: &mut Command) -> Result<String> {
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot start {}", shown(command)))?;
    if !output.status.success() {
        bail!(
            "{} ended with {}: {}",
            shown(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("{} wrote no UTF-8", shown(command)))
}

/// The full path of a program, if PATH has it.
pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file())
}

fn shown(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}
