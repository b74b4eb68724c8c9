//! The kernel side: what this kernel offers, loading, attaching, draining. The only place that names aya.

pub mod arch;
mod attach;
pub mod btf;
mod captures;
pub mod clock;
mod config;
pub mod environment;
mod error;
pub mod features;
mod floor;
pub mod hooks;
pub mod kallsyms;
mod kfuncs;
pub mod launch;
pub mod layout;
mod memory;
mod plan;
mod preemption;
pub mod privileges;
mod session;
pub mod syscalls;

pub use captures::{Capture, Captured, read_stack};
pub use config::MAX_CGROUPS;
pub use error::ProbeError;
pub use floor::Floor;
pub use memory::SliceGlance;
pub use plan::{Plan, Targets};
pub use session::{Record, SAMPLES_PER_SECOND, Session};
