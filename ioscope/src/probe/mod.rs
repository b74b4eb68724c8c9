//! The kernel side: what this kernel offers, loading, attaching, draining. The only place that names aya.

pub mod arch;
pub mod btf;
mod config;
mod error;
pub mod hooks;
pub mod layout;
mod memory;
mod session;
pub mod syscalls;

pub use error::ProbeError;
pub use session::{Plan, Record, Session, Targets};
