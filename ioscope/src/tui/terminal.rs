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
    clipboard::CopyToClipboard,
    cursor::{Hide, Show},
    event::{DisableBracketedPaste, DisableMouseCapture, EnableBracketedPaste, EnableMouseCapture},
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
    mouse: bool,
}

type Output = Terminal<CrosstermBackend<BufWriter<Stdout>>>;

impl Screen {
    /// Takes the terminal over, and the mouse if it is wanted.
    ///
    /// # Errors
    /// When there is none.
    pub fn open(mouse: bool) -> io::Result<Self> {
        PANIC_HOOK.call_once(|| {
            let next = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                give_back();
                next(panic);
            }));
        });
        let terminal = terminal()?;
        take(mouse)?;
        Ok(Self { terminal, mouse })
    }

    /// Draws the state.
    ///
    /// # Errors
    /// When the terminal has gone.
    pub fn draw(&mut self, app: &App) -> io::Result<()> {
        self.terminal.draw(|frame| view(app, frame)).map(drop)
    }

    /// Hands a text to the terminal's clipboard, by OSC 52. There is no answer.
    ///
    /// # Errors
    /// When the terminal has gone.
    pub fn copy(&mut self, text: &str) -> io::Result<()> {
        execute!(io::stdout(), CopyToClipboard::to_clipboard_from(text))
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
        take(self.mouse)
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
fn take(mouse: bool) -> io::Result<()> {
    TAKEN.store(true, Ordering::Relaxed);
    enable_raw_mode()
        .and_then(|()| {
            execute!(io::stdout(), EnterAlternateScreen, Clear(ClearType::All), Hide, EnableBracketedPaste)
        })
        .and_then(|()| if mouse { execute!(io::stdout(), EnableMouseCapture) } else { Ok(()) })
        .inspect_err(|_| give_back())
}

/// Gives the terminal back if it was taken. Errors have nowhere to go: it may be gone.
fn give_back() {
    if TAKEN.swap(false, Ordering::Relaxed) {
        let mut out = io::stdout();
        let _ = execute!(out, DisableMouseCapture, DisableBracketedPaste, LeaveAlternateScreen, Show);
        let _ = out.flush();
        let _ = disable_raw_mode();
    }
}
