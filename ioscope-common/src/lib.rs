//! What the probes and the collector share.
#![no_std]

mod wait_call;

pub use wait_call::WaitCall;
