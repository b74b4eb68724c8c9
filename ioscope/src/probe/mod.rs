//! The kernel side: what this kernel offers, loading, attaching, draining. The only place that names aya.

pub mod arch;
pub mod btf;
pub mod environment;
pub mod features;
pub mod kallsyms;
pub mod layout;
pub mod syscalls;
