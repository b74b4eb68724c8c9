//! The terminal: taken over, and given back as it was, whatever ends ioscope: a quit, an error, a panic,
//! a suspension.

use std::{
    io::{self, BufWriter, IsTerminal as _, Stdout, Write as _},
    panic::PanicHookInfo,
    sync::{
        Mutex, Once, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, ThreadId},
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
/// The thread that draws, and with which the screen ends.
static OWNER: Mutex<Option<ThreadId>> = Mutex::new(None);
/// What other threads had to say when they panicked, until there is a place to say it.
static LAST_WORDS: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// And no more than that of it.
const MOST_WORDS: usize = 8;

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
        *OWNER.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread::current().id());
        PANIC_HOOK.call_once(|| {
            let next = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                if !keep_for_later(panic) {
                    give_back();
                    next(panic);
                }
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

    /// Gives the terminal back and stops, until the shell says to go on (by a signal, `SIGCONT`): then comes
    /// [`Self::resume`]. Returns at once where nobody could continue it: the kernel stops no orphaned process group.
    ///
    /// # Errors
    /// When it cannot be stopped.
    pub fn stop(&mut self) -> io::Result<()> {
        give_back();
        Ok(kill_process(getpid(), Signal::TSTP)?)
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

/// The screen survives another thread's panic (what reads the files of traced programs may panic, and is caught): its
/// message waits until the screen is gone, if it would be written over it. Tells whether it does.
fn keep_for_later(panic: &PanicHookInfo<'_>) -> bool {
    let own = *OWNER.lock().unwrap_or_else(PoisonError::into_inner) == Some(thread::current().id());
    if own || !TAKEN.load(Ordering::Relaxed) || !io::stderr().is_terminal() {
        return false;
    }
    let mut words = LAST_WORDS.lock().unwrap_or_else(PoisonError::into_inner);
    if words.len() < MOST_WORDS {
        let thread = thread::current();
        words.push(format!("thread '{}' {panic}", thread.name().unwrap_or("without a name")));
    }
    true
}

/// Gives the terminal back if it was taken. Errors have nowhere to go: it may be gone.
fn give_back() {
    if TAKEN.swap(false, Ordering::Relaxed) {
        let mut out = io::stdout();
        let _ = execute!(out, DisableMouseCapture, DisableBracketedPaste, LeaveAlternateScreen, Show);
        let _ = out.flush();
        let _ = disable_raw_mode();
        for words in LAST_WORDS.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = writeln!(io::stderr(), "ioscope: {words}");
        }
    }
}
