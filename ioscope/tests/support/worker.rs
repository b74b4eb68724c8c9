//! The built-in loops as a process: started, let go, and asked for their own counts.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use ioscope::demo::{Report, Spec};
use ioscope_common::WaitCall;
use rustix::process::{Pid, Signal, kill_process};

use super::kernel;

pub(crate) type Outcome = Result<(), Box<dyn Error>>;

/// The program under test.
pub(crate) const IOSCOPE: &str = env!("CARGO_BIN_EXE_ioscope");

/// The calls that this architecture and this kernel have.
pub(crate) fn calls() -> impl Iterator<Item = WaitCall> {
    let is_x86 = cfg!(target_arch = "x86_64");
    WaitCall::ALL.into_iter().filter(move |call| {
        (is_x86 || !matches!(call, WaitCall::EpollWait | WaitCall::Poll | WaitCall::Select))
            && kernel::has_call(*call)
    })
}

/// A worker that said it is ready; killed if a test fails before it ends.
pub(crate) struct Worker {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// What it said: its number and its threads', in its own pid namespace.
    pub(crate) ready: serde_json::Value,
}

impl Worker {
    /// Starts one by `command`, which ends in the name of the program; returns when it is ready.
    pub(crate) fn start(mut command: Command, specs: &[Spec]) -> Result<Self, Box<dyn Error>> {
        command.arg("__worker").arg(serde_json::to_string(specs)?);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let input = child.stdin.take().ok_or("no stdin")?;
        let output = BufReader::new(child.stdout.take().ok_or("no stdout")?);
        let mut worker = Self { child, input, output, ready: serde_json::Value::Null };
        worker.ready = serde_json::from_str(&worker.line()?)?;
        Ok(worker)
    }

    /// Starts one as a child of this process.
    pub(crate) fn of(specs: &[Spec]) -> Self {
        Self::start(Command::new(IOSCOPE), specs).expect("the worker starts")
    }

    fn line(&mut self) -> Result<String, Box<dyn Error>> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line)
    }

    /// Waits for its loops to end. Its main thread does not yet.
    pub(crate) fn report(&mut self) -> Result<Report, Box<dyn Error>> {
        let report: Report = serde_json::from_str(&self.line()?)?;
        // Who joins a thread can be told so before the kernel tells of its end (`do_exit`: `exit_mm` comes first).
        let deadline = Instant::now() + Duration::from_secs(5);
        for thread in &report.threads {
            let entry = format!("/proc/{}/task/{}", self.id(), thread.tid);
            while Path::new(&entry).exists() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        Ok(report)
    }

    /// Whatever it waits for: "go", then "exit".
    pub(crate) fn say(&mut self) -> Outcome {
        Ok(writeln!(self.input)?)
    }

    /// Its number: where it was started by another program, that one's.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The same.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends the process a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the worker takes signals");
    }

    pub(crate) fn is_running(&mut self) -> Result<bool, Box<dyn Error>> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Lets it exit.
    pub(crate) fn end(mut self) -> Outcome {
        self.say()?;
        let status = self.child.wait()?;
        if status.success() { Ok(()) } else { Err(format!("the worker: {status}").into()) }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It is gone already when all went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
