//! ioscope: what an event loop is doing, seen from the kernel.
//!
//! One way through: `probe` → `source` → `model` → `output` and the screens, wired by `commands`.

pub mod cli;
pub mod commands;
pub mod demo;
pub mod model;
pub mod output;
pub mod probe;
pub mod runtime;
pub mod source;
pub mod symbols;
pub mod tui;
