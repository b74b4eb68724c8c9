//! Starting a program that is traced from its first instruction: it waits at a gate, after `fork` and
//! before `execve`, until the probes know it.
#![expect(unsafe_code, reason = "what runs between fork and execve has rules that no type states")]

use std::{
    ffi::OsString,
    fs::File,
    io::{IsTerminal as _, Read as _, Write as _, stderr, stdin, stdout},
    os::{fd::OwnedFd, unix::process::CommandExt as _},
    process::{Command, ExitStatus, Stdio},
    thread::JoinHandle,
};

use rustix::pipe::{PipeFlags, pipe_with};

use super::privileges;

/// Why a program could not be started.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// There is no command.
    #[error("there is no command to run")]
    Empty,
    /// It cannot be run.
    #[error("{program} cannot be run: {source}")]
    Run {
        /// As given.
        program: String,
        /// Why.
        source: std::io::Error,
    },
    /// The gate failed.
    #[error("the program cannot be held at its start: {0}")]
    Gate(#[source] std::io::Error),
}

/// A program that waits to be let go.
pub struct Gated {
    pid: u32,
    gate: File,
    program: String,
    waiter: JoinHandle<std::io::Result<ExitStatus>>,
}

/// What becomes of the program's standard streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Streams {
    /// They are this process's own.
    Inherited,
    /// Those that are a terminal go nowhere: it is this process's alone.
    OffTerminal,
}

impl Gated {
    /// Starts a command, which waits before its first instruction.
    pub fn start(command: &[OsString], streams: Streams) -> Result<Self, LaunchError> {
        let (program, arguments) = command.split_first().ok_or(LaunchError::Empty)?;
        let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|error| LaunchError::Gate(error.into()));
        let (gate_read, gate_write) = pipe()?;
        let (pid_read, pid_write) = pipe()?;
        let mut child = Command::new(program);
        child.args(arguments);
        if streams == Streams::OffTerminal {
            let instead = |terminal: bool| if terminal { Stdio::null() } else { Stdio::inherit() };
            child
                .stdin(instead(stdin().is_terminal()))
                .stdout(instead(stdout().is_terminal()))
                .stderr(instead(stderr().is_terminal()));
        }
        // SAFETY: between fork and execve only getpid, write and read are called, on descriptors that
        // the closure owns; all three are async-signal-safe, and nothing is allocated.
        unsafe {
            child.pre_exec(move || wait_at_gate(&pid_write, &gate_read));
        }
        // `spawn` returns only after `execve`, and so has a thread of its own.
        let waiter = std::thread::spawn(move || {
            let mut running = child.spawn()?;
            // The closure's ends of the pipes go with it: the other side sees the end of them.
            drop(child);
            // This thread has nothing left to do that takes a right.
            if let Err(error) = privileges::keep_nothing() {
                log::warn!("{error}");
            }
            running.wait()
        });
        let mut pid = [0; 4];
        let read = File::from(pid_read).read_exact(&mut pid);
        let program = program.to_string_lossy().into_owned();
        let gated = Self { pid: u32::from_ne_bytes(pid), gate: File::from(gate_write), program, waiter };
        match read {
            Ok(()) => Ok(gated),
            // The child has said nothing: the fork itself failed.
            Err(error) => Err(gated.failure().unwrap_or(LaunchError::Gate(error))),
        }
    }

    /// Its number in this pid namespace.
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    fn failure(self) -> Option<LaunchError> {
        let program = self.program;
        self.waiter.join().ok()?.err().map(|source| LaunchError::Run { program, source })
    }

    /// Lets it go. What comes back ends when the program does.
    pub fn release(mut self) -> Result<Running, LaunchError> {
        self.gate.write_all(&[1]).map_err(LaunchError::Gate)?;
        Ok(Running { program: self.program, waiter: self.waiter })
    }
}

fn wait_at_gate(pid_write: &OwnedFd, gate_read: &OwnedFd) -> std::io::Result<()> {
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    rustix::io::write(pid_write, &pid.to_ne_bytes())?;
    let mut go = [0];
    match rustix::io::read(gate_read, &mut go)? {
        // ioscope gave up before it let go.
        0 => Err(std::io::ErrorKind::Interrupted.into()),
        _ => Ok(()),
    }
}

/// A program that runs.
pub struct Running {
    program: String,
    waiter: JoinHandle<std::io::Result<ExitStatus>>,
}

impl Running {
    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.waiter.is_finished()
    }

    /// Waits for its end.
    pub fn wait(self) -> Result<ExitStatus, LaunchError> {
        let Self { program, waiter } = self;
        match waiter.join() {
            Ok(Ok(status)) => Ok(status),
            Ok(Err(source)) => Err(LaunchError::Run { program, source }),
            Err(_) => Err(LaunchError::Gate(std::io::ErrorKind::Other.into())),
        }
    }
}
