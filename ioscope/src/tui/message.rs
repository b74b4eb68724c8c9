//! What can happen to the screen, and what the screen asks for in return.

use crossterm::event::KeyEvent;

use crate::model::Batch;

/// A thing that happens.
#[derive(Debug)]
pub enum Message {
    /// The source has a batch.
    Batch(Box<Batch>),
    /// A key was pressed.
    Key(KeyEvent),
    /// The terminal has another size now, in cells.
    Resize {
        /// Columns.
        width: u16,
        /// Rows.
        height: u16,
    },
    /// The targets have ended: no more batches come.
    TargetsEnded,
}

/// What the caller of [`update`](super::update()) has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Draw: something that is on the screen has changed.
    Redraw,
    /// Give the terminal back until the shell brings ioscope to the foreground again.
    Suspend,
    /// End.
    Quit,
}
