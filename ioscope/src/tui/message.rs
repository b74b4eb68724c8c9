//! What can happen to the screen, and what the screen asks for in return.

use std::time::Duration;

use crossterm::event::{KeyEvent, MouseEvent};

use crate::model::{Batch, LoopId};

/// A thing that happens.
#[derive(Debug)]
pub enum Message {
    /// The source has a batch.
    Batch(Box<Batch>),
    /// A key was pressed.
    Key(KeyEvent),
    /// The mouse did something.
    Mouse(MouseEvent),
    /// Text was pasted.
    Paste(String),
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Draw: something that is on the screen has changed.
    Redraw,
    /// Give the terminal back until the shell brings ioscope to the foreground again.
    Suspend,
    /// Hand this text to the terminal's clipboard.
    Copy(String),
    /// Let these loops stream their iterations from now on, and no others.
    Stream(Vec<LoopId>),
    /// From this loop duration on it is a stall.
    StallThreshold(Duration),
    /// Take batches at least so often.
    Pace(Duration),
    /// Turn off the kernel's statistics of the probes' own time.
    StopBpfTime,
    /// End.
    Quit,
}
