//! The kernel side: what this kernel offers, loading, attaching, draining. The only place that names aya.

pub mod arch;
pub mod btf;
pub mod layout;
pub mod syscalls;
