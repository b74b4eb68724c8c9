//! What the tests on real programs share: the programs, and a client that gives them a known amount of work.

#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod ioscope;
pub(crate) mod load;
pub(crate) mod programs;
pub(crate) mod server;
