//! The terminal: taken over, and given back as it was, whatever ends ioscope: a quit, an error, a panic,
//! a suspension.

use std::{
    io::{self, BufWriter, Stdout, Write as _},
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
    },
};

use crossterm::{
    cursor::{Hide, Show},
    execute,
    terminal::{
        Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
    },
};
use ratatui::{Terminal, backend::CrosstermBackend};
use rustix::process::{Signal, getpid, kill_process};

use super::{state::App, view::view};

/// A frame goes out in one write, as far as it can.
const FRAME_BYTES: usize = 64 << 10;

/// Whether the terminal is taken over, for the panic hook.
static TAKEN: AtomicBool = AtomicBool::new(false);
static PANIC_HOOK: Once = Once::new();

/// The terminal while it is ioscope's.
pub struct Screen {
    terminal: Output,
}

type Output = Terminal<CrosstermBackend<BufWriter<Stdout>>>;

impl Screen {
    /// Takes the terminal over.
    ///
    /// # Errors
    /// When there is none.
    pub fn open() -> io::Result<Self> {
        PANIC_HOOK.call_once(|| {
            let next = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                give_back();
                next(panic);
            }));
        });
        let terminal = terminal()?;
        take()?;
        Ok(Self { terminal })
    }

    /// Draws the state.
    ///
    /// # Errors
    /// When the terminal has gone.
    pub fn draw(&mut self, app: &App) -> io::Result<()> {
        self.terminal.draw(|frame| view(app, frame)).map(drop)
    }

    /// Gives the terminal back and stops, until the shell says to go on.
    ///
    /// # Errors
    /// When the terminal has gone.
    pub fn suspend(&mut self) -> io::Result<()> {
        give_back();
        kill_process(getpid(), Signal::TSTP)?;
        self.resume()
    }

    /// Takes the terminal over again after a stop: the shell has changed its modes meanwhile, and what
    /// was on it is unknown.
    ///
    /// # Errors
    /// When the terminal has gone.
    pub fn resume(&mut self) -> io::Result<()> {
        give_back();
        // A new one knows nothing of what is on the screen. (To clear the old one, ratatui would ask the
        // terminal where the cursor is; the answer would go to whoever reads the keys.)
        self.terminal = terminal()?;
        take()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

fn terminal() -> io::Result<Output> {
    Terminal::new(CrosstermBackend::new(BufWriter::with_capacity(FRAME_BYTES, io::stdout())))
}

/// Takes the terminal over, with nothing on it.
fn take() -> io::Result<()> {
    TAKEN.store(true, Ordering::Relaxed);
    enable_raw_mode()
        .and_then(|()| execute!(io::stdout(), EnterAlternateScreen, Clear(ClearType::All), Hide))
        .inspect_err(|_| give_back())
}

/// Gives the terminal back if it was taken. Errors have nowhere to go: it may be gone.
fn give_back() {
    if TAKEN.swap(false, Ordering::Relaxed) {
        let mut out = io::stdout();
        let _ = execute!(out, LeaveAlternateScreen, Show);
        let _ = out.flush();
        let _ = disable_raw_mode();
    }
}
