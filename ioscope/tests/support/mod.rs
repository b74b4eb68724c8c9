//! What test files share: real programs and a client that gives them a known amount of work; the built-in
//! loops as a process of their own, and a tracer to compare them with.

#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod again;
pub(crate) mod cgroups;
pub(crate) mod expect;
pub(crate) mod findings;
pub(crate) mod helper;
pub(crate) mod ioscope;
pub(crate) mod kernel;
pub(crate) mod load;
pub(crate) mod programs;
pub(crate) mod second_source;
pub(crate) mod server;
pub(crate) mod tracer;
pub(crate) mod worker;
