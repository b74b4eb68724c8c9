//! Programs to trace that no worker can play: tests that do something only when another test starts them,
//! as a process of their own.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Where this is set, a test is a helper.
const MARK: &str = "IOSCOPE_TEST_HELPER";
/// What a helper's lines begin with: the test harness writes lines of its own.
const VOICE: &str = "helper: ";

/// A helper process, killed if the test fails before it ends.
pub(crate) struct Helper {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Helper {
    /// Starts the ignored test of this name; returns when it has said "ready".
    pub(crate) fn start(test: &str) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
        command.args(["--exact", test, "--ignored", "--nocapture"]).env(MARK, "1");
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("this program can be run");
        let input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut helper = Self { child, input, output };
        helper.hear("ready");
        helper
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Lets it go on.
    pub(crate) fn say(&mut self) {
        writeln!(self.input, "go").expect("the helper listens");
    }

    /// Waits until it has said this.
    pub(crate) fn hear(&mut self, word: &str) {
        let mut line = String::new();
        while !line.trim_end().ends_with(&format!("{VOICE}{word}")) {
            line.clear();
            let length = self.output.read_line(&mut line).expect("the helper speaks text");
            assert!(length > 0, "the helper ended before it said {word:?}");
        }
    }

    /// What it says next.
    pub(crate) fn answer(&mut self) -> String {
        loop {
            let mut line = String::new();
            let length = self.output.read_line(&mut line).expect("the helper speaks text");
            assert!(length > 0, "the helper ended before it answered");
            if let Some((_, words)) = line.trim_end().split_once(VOICE) {
                return words.to_owned();
            }
        }
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) {
        self.child.wait().expect("it is ours");
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        // It is gone already when all went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In the helper: whether this test was started as one. It says "ready", and waits to be let go.
pub(crate) fn is_helper() -> bool {
    let is_helper = std::env::var_os(MARK).is_some();
    if is_helper {
        speak("ready");
        listen();
    }
    is_helper
}

/// In the helper: says something.
pub(crate) fn speak(word: &str) {
    println!("\n{VOICE}{word}");
}

/// In the helper: waits to be let go.
pub(crate) fn listen() {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).expect("stdin is a pipe");
}
