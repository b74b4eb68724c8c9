//! The UI without a terminal: messages in, drawings out.

mod drawings;
mod fixture;
mod messages;
mod pictures;
mod preview;
mod screens;
