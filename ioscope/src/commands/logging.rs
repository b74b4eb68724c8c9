//! The log: what ioscope, and the probes, have to say beside the data. It goes to standard error.

use std::io::{IsTerminal as _, Write as _, stderr};

use log::{Level, LevelFilter, Log, Metadata, Record, debug};

static LOGGER: Logger = Logger;

/// A line a record. What cannot be written is lost: there is no other place to say so.
struct Logger;

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        // The probes' crate is called ioscope_probes. Of libraries, only what is amiss: they do not know that somebody has
        // an answer to what they warn of.
        let of_libraries = if log::max_level() > LevelFilter::Warn { Level::Warn } else { Level::Error };
        metadata.target().starts_with("ioscope") || metadata.level() <= of_libraries
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let from = if record.target().starts_with("ioscope_probes") { "probes: " } else { "" };
            let _ = writeln!(stderr(), "ioscope: {from}{}", record.args());
        }
    }

    fn flush(&self) {}
}

/// Starts the log; `verbose` is more than warnings. The first call counts.
pub(super) fn start(verbose: bool) {
    if log::set_logger(&LOGGER).is_ok() {
        log::set_max_level(if verbose { LevelFilter::Debug } else { LevelFilter::Warn });
        debug!("version {}", env!("CARGO_PKG_VERSION"));
    }
}

/// Keeps the log off a terminal that is a screen.
pub(super) struct Hushed(LevelFilter);

impl Hushed {
    /// From now on, until it is dropped. A standard error that is no terminal goes on.
    pub(super) fn while_on_screen() -> Self {
        let before = log::max_level();
        if stderr().is_terminal() {
            log::set_max_level(LevelFilter::Off);
        }
        Self(before)
    }
}

impl Drop for Hushed {
    fn drop(&mut self) {
        log::set_max_level(self.0);
    }
}
