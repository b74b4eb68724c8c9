//! ioscope: what an event loop is doing, seen from the kernel.

pub mod demo;
pub mod model;
pub mod probe;
pub mod runtime;
