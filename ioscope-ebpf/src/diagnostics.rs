//! The probes' own rare diagnostics. Off unless the loader asks for them: the level is read-only
//! data, and the verifier drops what it makes unreachable.

pub(crate) fn impossible_transition(_tid: u32) {}
