//! Small programs, built here and now, each of which spins in a function that is known.

use std::ffi::OsStr;
use std::fmt::Debug;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use tempfile::TempDir;

/// A directory for what is built.
pub(crate) struct Workshop(TempDir);

impl Workshop {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("there is room"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Compiles a source file of `tests/programs`; `None` without a compiler for it.
    pub(crate) fn build(&self, source: &str, flags: &[&str]) -> Option<PathBuf> {
        let program = self.path("program");
        let compiler = match Path::new(source).extension().and_then(OsStr::to_str) {
            Some("c") => "cc",
            Some("cpp") => "c++",
            _ => "rustc",
        };
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs").join(source);
        let mut command = Command::new(compiler);
        command.args(flags).arg("-o").arg(&program).arg(source);
        match command.output() {
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr).into_owned();
                assert!(output.status.success(), "{command:?}: {said}");
                Some(program)
            }
            Err(error) => {
                skip(&format!("{compiler}: {error}"));
                None
            }
        }
    }

    /// Runs a tool that must succeed.
    pub(crate) fn tool(&self, program: &str, arguments: &[&dyn AsRef<OsStr>]) -> String {
        let mut command = Command::new(program);
        command.args(arguments.iter().map(AsRef::as_ref)).current_dir(self.0.path());
        let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

/// A program that has said that it is ready. It is killed at the end.
pub(crate) struct Running {
    child: Child,
    pub(crate) pid: u32,
    /// Kept open: who writes to a closed pipe is killed.
    _output: BufReader<ChildStdout>,
}

impl Running {
    pub(crate) fn start(program: impl AsRef<OsStr> + Debug) -> Self {
        Self::command(&mut Command::new(program))
    }

    /// Waits for the line `ready`.
    pub(crate) fn command(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let output = child.stdout.take().expect("it is piped");
        let mut line = String::new();
        let mut output = BufReader::new(output);
        output.read_line(&mut line).expect("it can be read");
        assert_eq!(line.trim_end(), "ready", "{command:?}");
        // On from the line to where it spins.
        std::thread::sleep(std::time::Duration::from_millis(50));
        let pid = child.id();
        Self { child, pid, _output: output }
    }

    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// Past the test harness, which keeps to itself what a passing test prints. With `IOSCOPE_TEST_REQUIRE_ALL`
/// set, what is skipped is a failure.
pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("IOSCOPE_TEST_REQUIRE_ALL").is_none(), "{why}");
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    writeln!(std::io::stderr(), "SKIPPED {test}: {why}").expect("standard error can be written");
}
