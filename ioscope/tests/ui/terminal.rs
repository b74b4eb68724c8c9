//! A terminal for a program under test: a pseudo-terminal, with an emulator that reads what is written on
//! it. The program is its session's leader and the terminal is its own, so that sizes and signals come as
//! they do in real life.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    num::NonZeroU16,
    os::fd::OwnedFd,
    process::{Child, Command, ExitStatus},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags, open},
    process::{Pid, Signal, kill_process},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, OptionalActions, Termios, Winsize, tcgetattr, tcsetattr, tcsetwinsize},
};

/// How long anything may take on a machine that has much else to do.
const PATIENCE: Duration = Duration::from_mins(1);

pub(super) struct Terminal {
    child: Child,
    /// The terminal's side.
    master: File,
    /// The program's side, kept open so that it can be looked at.
    slave: OwnedFd,
    before: Termios,
    emulator: vt100::Parser,
    /// All that was written, as it came.
    written: Vec<u8>,
}

fn cells(number: u16) -> NonZeroU16 {
    NonZeroU16::new(number).expect("a terminal has cells")
}

fn size(width: u16, height: u16) -> Winsize {
    Winsize { ws_col: width, ws_row: height, ws_xpixel: 0, ws_ypixel: 0 }
}

impl Terminal {
    /// Starts a program on a terminal of this size, which has 256 colours.
    pub(super) fn run(width: u16, height: u16, command: &[&str]) -> Self {
        Self::run_with(width, height, command, &[])
    }

    /// The same, with these variables.
    pub(super) fn run_with(width: u16, height: u16, command: &[&str], variables: &[(&str, &str)]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a pty");
        grantpt(&master).expect("a pty");
        unlockpt(&master).expect("a pty");
        let name = ptsname(&master, Vec::new()).expect("a pty has a name");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let slave = open(name.as_c_str(), flags, Mode::empty()).expect("the other side");
        tcsetwinsize(&master, size(width, height)).expect("a pty has a size");
        let before = tcgetattr(&slave).expect("a pty has modes");
        let side = || slave.try_clone().expect("a descriptor can be copied");
        // Not the leader of a process group, it becomes the session's leader and runs the command itself.
        let child = Command::new("setsid")
            .arg("--ctty")
            .args(command)
            .env("TERM", "xterm-256color")
            // Whoever runs the tests may have a configuration.
            .env("XDG_CONFIG_HOME", "/nonexistent")
            .env_remove("NO_COLOR")
            .env_remove("COLORTERM")
            .envs(variables.iter().copied())
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .expect("setsid (util-linux) starts");
        let emulator = vt100::Parser::new(cells(height), cells(width), 0);
        Self { child, master: File::from(master), slave, before, emulator, written: Vec::new() }
    }

    pub(super) fn screen(&self) -> &vt100::Screen {
        self.emulator.screen()
    }

    pub(super) fn text(&self) -> String {
        self.screen().contents()
    }

    /// Reads what is there, and waits for it no longer than this; tells whether there was anything.
    fn pump(&mut self, patience: Duration) -> bool {
        let mut fds = [PollFd::new(&self.master, PollFlags::IN)];
        let patience = Timespec::try_from(patience).expect("short");
        if poll(&mut fds, Some(&patience)).expect("poll works") == 0 {
            return false;
        }
        let mut bytes = [0; 1 << 12];
        let read = self.master.read(&mut bytes).expect("the slave is open");
        self.emulator.process(&bytes[..read]);
        self.written.extend_from_slice(&bytes[..read]);
        true
    }

    /// Waits for a sequence that has this beginning and this end, and no control character in between; returns what is in
    /// between.
    #[track_caller]
    pub(super) fn wait_for_sequence(&mut self, beginning: &[u8], end: &[u8]) -> Vec<u8> {
        let start = Instant::now();
        loop {
            let begins = self.written.windows(beginning.len()).position(|bytes| bytes == beginning);
            if let Some(at) = begins {
                let rest = &self.written[at + beginning.len()..];
                let length = rest.iter().take_while(|byte| !byte.is_ascii_control()).count();
                if rest.len() >= length + end.len() {
                    assert_eq!(&rest[length..][..end.len()], end);
                    return rest[..length].to_vec();
                }
            }
            self.pump(Duration::from_millis(50));
            assert!(start.elapsed() < PATIENCE, "it was not written:\n{}", self.text());
        }
    }

    /// The colours that are on the screen, each once.
    pub(super) fn colours(&self) -> Vec<vt100::Color> {
        let (rows, columns) = self.screen().size();
        let cells = (0..rows.get()).flat_map(|row| (0..columns.get()).map(move |column| (row, column)));
        let mut colours = Vec::new();
        for cell in cells.filter_map(|(row, column)| self.screen().cell(row, column)) {
            for colour in [cell.fgcolor(), cell.bgcolor()] {
                if !colours.contains(&colour) {
                    colours.push(colour);
                }
            }
        }
        colours
    }

    #[track_caller]
    fn wait_until(&mut self, what: &str, is: impl Fn(&str) -> bool) {
        let start = Instant::now();
        while !is(&self.text()) {
            self.pump(Duration::from_millis(50));
            assert!(start.elapsed() < PATIENCE, "{what} did not happen:\n{}", self.text());
        }
    }

    #[track_caller]
    pub(super) fn wait_for(&mut self, text: &str) {
        self.wait_until(&format!("{text:?}"), |screen| screen.contains(text));
    }

    #[track_caller]
    pub(super) fn wait_for_no(&mut self, text: &str) {
        self.wait_until(&format!("no {text:?}"), |screen| !screen.contains(text));
    }

    /// Reads for this long, whatever comes.
    pub(super) fn watch_for(&mut self, duration: Duration) {
        let start = Instant::now();
        while let Some(left) = duration.checked_sub(start.elapsed()) {
            self.pump(left);
        }
    }

    pub(super) fn type_in(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).expect("the slave is open");
    }

    pub(super) fn resize(&mut self, width: u16, height: u16) {
        self.emulator.screen_mut().set_size(cells(height), cells(width));
        tcsetwinsize(&self.master, size(width, height)).expect("a pty has a size");
    }

    pub(super) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// What a shell does with its terminal when its job has stopped: its own modes, a clear screen.
    pub(super) fn take_back(&mut self) {
        tcsetattr(&self.slave, OptionalActions::Now, &self.before).expect("a pty has modes");
        self.emulator.process(b"\x1b[?1049l\x1b[?25h\x1b[2J");
    }

    fn modes(&self) -> Termios {
        tcgetattr(&self.slave).expect("a pty has modes")
    }

    pub(super) fn is_raw(&self) -> bool {
        !self.modes().local_modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    #[track_caller]
    pub(super) fn wait_for_end(&mut self) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is a child") {
                while self.pump(Duration::ZERO) {}
                return status;
            }
            self.pump(Duration::from_millis(20));
            assert!(start.elapsed() < PATIENCE, "it does not end:\n{}", self.text());
        }
    }

    /// The modes, the screen and the cursor are as before.
    #[track_caller]
    pub(super) fn assert_restored(&self) {
        let (before, now) = (&self.before, self.modes());
        assert_eq!(now.input_modes, before.input_modes);
        assert_eq!(now.output_modes, before.output_modes);
        assert_eq!(now.local_modes, before.local_modes);
        assert_eq!(now.control_modes, before.control_modes);
        assert!(!self.screen().alternate_screen(), "it is still on the other screen");
        assert!(!self.screen().hide_cursor(), "the cursor is hidden");
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It is gone already when all went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
