//! The terminal UI: a state, the messages that change it, and a drawing of it.
//!
//! | part | does |
//! | --- | --- |
//! | [`App`] | the whole state: the model, what is recent of it, and how it is looked at |
//! | [`Message`] | all that can happen: a batch, a key, the mouse, a new size, the targets' end |
//! | [`Config`] | keys, theme and defaults |
//! | [`update`] | the only thing that changes the state; says by [`Effect`]s what the caller has to do |
//! | [`view`] | draws the state, and changes nothing |
//! | [`Screen`] | the terminal, which it leaves as it found it |
//!
//! Knows nothing of probes: batches come in as messages, from whichever source. Knows no clock either:
//! time is what the batches say. Only [`Screen`] touches the terminal, so everything else runs in tests.

mod bindings;
mod cells;
mod columns;
mod config;
mod history;
mod message;
mod rows;
mod shown;
mod state;
mod terminal;
#[cfg(test)]
mod tests;
mod theme;
mod tracks;
mod update;
mod view;
mod window;

pub use config::{Config, ConfigError, ConfigFileError};
pub use message::{Effect, Message};
pub use state::{App, MissingHook, Tracing};
pub use terminal::Screen;
pub use theme::{Palette, Theme};
pub use update::update;
pub use view::view;
