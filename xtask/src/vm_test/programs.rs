//! What is run in a guest: the test programs as cargo builds them, and the tools that they start.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::cross::Cross;
use crate::workspace::{cargo, root, which};

/// What the unit tests are called.
const UNIT: &str = "unit";

/// Why findings are not tested in a guest.
const MODEL: &str = "the model that they come from is the same on every kernel, and what it is fed with is tested by the others";

/// Test programs that are not run in a guest, and why.
const LEFT_OUT: &[(&str, &str)] = &[
    ("demo_worker", "it holds the built-in loops against strace, and no probe takes part"),
    ("findings", MODEL),
    ("findings_of_delays", MODEL),
    ("findings_healthy", "the programs that it traces are not in the image"),
    ("healthy_for_long", "it takes ten minutes, and the programs that it traces are not in the image"),
    ("kernel_stalls", "it asks for milliseconds that an emulated machine does not keep to"),
    ("real_programs", "the servers and runtimes that it traces are not in the image"),
    ("real_stalls", "the programs that it traces are not in the image"),
    ("runtimes", "the servers and runtimes that it recognises are not in the image"),
    ("stall_files", "it asks for shares of time that an emulated machine does not keep to"),
    ("symbols", "the compilers that it asks for programs are not in the image"),
    ("ui", "the screens are the same on every kernel; what feeds them is tested by the others"),
];

/// Test programs of which only a part is run in a guest, unless it is asked for other tests: what their names have in
/// them, and why no more.
const PARTS: &[(&str, &[&str], &str)] = &[
    ("kernel_counts", &["every_pattern_in_turn", "a_million"], "the others try the same patterns one by one"),
    ("cli", &["cgroup", "32_bit", "children"], "the rest of the command line is the same on every kernel"),
    (UNIT, &["probe::"], "the rest asks the kernel nothing"),
];

/// The part of a test program that is run in a guest; empty for all of it.
pub(super) fn part(name: &str) -> &'static [&'static str] {
    PARTS.iter().find(|(known, _, _)| *known == name).map_or(&[], |(_, part, _)| part)
}

/// What the tests start by name. One that this machine lacks is missing in the guest, too, and the tests that
/// need it say so.
pub(super) const TOOLS: &[&str] =
    &["sh", "cat", "cp", "echo", "grep", "kill", "mount", "setsid", "sleep", "strace", "true", "unshare"];

/// The programs that cargo has built.
pub(super) struct Programs {
    /// The guest's first process.
    pub(super) init: PathBuf,
    /// `ioscope` itself, where the tests look for it.
    pub(super) ioscope: PathBuf,
    /// Name and path of each test program.
    pub(super) tests: Vec<(String, PathBuf)>,
}

/// A line of cargo's messages, as far as it matters.
#[derive(Deserialize)]
struct Message {
    executable: Option<PathBuf>,
    target: Option<Target>,
    profile: Option<Profile>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
    kind: Vec<String>,
}

#[derive(Deserialize)]
struct Profile {
    test: bool,
}

impl Programs {
    /// Builds `ioscope` and its tests. `only`: no other test programs than these.
    /// `cross`: what builds them, if they are for another architecture.
    pub(super) fn build(cross: Option<&Cross>, only: &[String]) -> Result<Self> {
        let builder = |verb: &str| {
            cross.map_or_else(
                || {
                    let mut command = Command::new(cargo());
                    command.arg(verb);
                    command
                },
                |cross| cross.cargo(verb),
            )
        };
        let mut command = builder("test");
        command.args(["--no-run", "--locked", "--profile", "vm", "--package", "ioscope"]).current_dir(root());
        command.args(["--message-format", "json-render-diagnostics"]);
        for name in only {
            match name.as_str() {
                UNIT => command.arg("--lib"),
                name => command.args(["--test", name]),
            };
        }
        eprintln!("building the tests");
        let built = command.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
        if !built.status.success() {
            bail!("the tests do not build: cargo ended with {}", built.status);
        }
        let text = String::from_utf8(built.stdout).context("cargo's messages")?;
        let programs = Self::parse(&text)?;
        if let Some(name) = only.iter().find(|name| programs.tests.iter().all(|(known, _)| known != *name)) {
            let why = LEFT_OUT.iter().find(|(known, _)| known == name).map_or("", |(_, why)| *why);
            bail!("{name} is not run in a guest: {why}");
        }
        let init = if cross.is_none() {
            std::env::current_exe()?
        } else {
            // This very program, for the other architecture.
            let mut command = builder("build");
            command.args(["--locked", "--profile", "vm", "--package", "xtask"]).current_dir(root());
            command.args(["--message-format", "json-render-diagnostics"]);
            let built = command.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
            let text = String::from_utf8(built.stdout).context("cargo's messages")?;
            executable(&text, "xtask").context("xtask does not build")?
        };
        Ok(Self { init, ..programs })
    }

    fn parse(messages: &str) -> Result<Self> {
        let mut ioscope = None;
        let mut tests = Vec::new();
        for line in messages.lines() {
            let Ok(Message { executable: Some(path), target: Some(target), profile: Some(profile) }) =
                serde_json::from_str(line)
            else {
                continue;
            };
            let is = |kind: &str| target.kind.iter().any(|known| known == kind);
            if is("bin") && !profile.test && target.name == "ioscope" {
                ioscope = Some(path);
            } else if profile.test && (is("test") || is("lib")) {
                let name = if is("lib") { UNIT.to_owned() } else { target.name };
                if !LEFT_OUT.iter().any(|(left_out, _)| *left_out == name) {
                    tests.push((name, path));
                }
            }
        }
        tests.sort();
        if tests.is_empty() {
            bail!("cargo built no test program");
        }
        let ioscope = ioscope.context("cargo built no ioscope")?;
        Ok(Self { init: PathBuf::new(), ioscope, tests })
    }
}

/// The program of this name in cargo's messages.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Message>(line).ok());
    let mut found = messages.filter_map(|message| Some((message.executable?, message.target?)));
    found.find(|(_, target)| target.name == name).map(|(path, _)| path)
}

/// Says which test programs are not run, and why.
pub(super) fn left_out() -> impl Iterator<Item = String> {
    let whole = LEFT_OUT.iter().map(|(name, why)| format!("{name} is not run in a guest: {why}"));
    let parts = PARTS
        .iter()
        .map(|(name, part, why)| format!("of {name}, only {} is run in a guest: {why}", part.join(", ")));
    whole.chain(parts)
}

/// A copy without debug information, if the tool for it is there: a tenth of the size. Returns what to pack.
pub(super) fn stripped(executable: &Path, directory: &Path, cross: Option<&Cross>) -> Result<PathBuf> {
    let strip = cross.map(Cross::strip).or_else(|| which("strip").map(Command::new));
    let Some(mut strip) = strip else { return Ok(executable.to_owned()) };
    fs::create_dir_all(directory)?;
    let name = executable.file_name().context("an executable has a name")?;
    let copy = directory.join(name);
    let time = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    if time(&copy) <= time(executable) {
        run_quietly(strip.arg("--strip-debug").arg("-o").arg(&copy).arg(executable))?;
    }
    Ok(copy)
}

fn run_quietly(command: &mut Command) -> Result<()> {
    let status =
        command.stdin(Stdio::null()).status().with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_in_cargos_messages() {
        let messages = r#"
{"reason":"compiler-artifact","target":{"name":"serde","kind":["lib"]},"profile":{"test":false},"executable":null}
{"reason":"compiler-artifact","target":{"name":"ioscope","kind":["bin"]},"profile":{"test":true},"executable":"/t/deps/ioscope-1"}
{"reason":"compiler-artifact","target":{"name":"ioscope","kind":["bin"]},"profile":{"test":false},"executable":"/t/ioscope"}
{"reason":"compiler-artifact","target":{"name":"ioscope","kind":["lib"]},"profile":{"test":true},"executable":"/t/deps/ioscope-2"}
{"reason":"compiler-artifact","target":{"name":"runtimes","kind":["test"]},"profile":{"test":true},"executable":"/t/deps/runtimes-1"}
{"reason":"compiler-artifact","target":{"name":"cli","kind":["test"]},"profile":{"test":true},"executable":"/t/deps/cli-1"}
{"reason":"build-finished","success":true}"#;
        let programs = Programs::parse(messages).expect("there are some");
        assert_eq!(programs.ioscope, Path::new("/t/ioscope"));
        let names: Vec<&str> = programs.tests.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["cli", "unit"]);
        assert!(Programs::parse("").is_err());
    }
}
