//! The kernel side: what this kernel offers, loading, attaching, draining. The only place that names aya.

pub mod btf;
