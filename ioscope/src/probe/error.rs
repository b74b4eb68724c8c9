//! What can go wrong between ioscope and the kernel.

use aya::{BtfError as ProgramBtfError, EbpfError, maps::MapError, programs::ProgramError};
use ioscope_common::PatternError;

use super::{btf::BtfError, layout::LayoutError};

/// Why tracing cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// No system call numbers are known for it.
    #[error("ioscope traces x86_64 and aarch64; this program was built for another architecture")]
    Architecture,
    /// The kernel's type information cannot be read.
    #[error("the kernel's type information cannot be read: {0} (the kernel needs CONFIG_DEBUG_INFO_BTF=y)")]
    Btf(#[from] BtfError),
    /// The same, when aya reads it.
    #[error("the kernel's type information cannot be read: {0} (the kernel needs CONFIG_DEBUG_INFO_BTF=y)")]
    ProgramBtf(#[source] ProgramBtfError),
    /// A member that the probes cannot do without is missing.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// The kernel said no.
    #[error("the kernel does not allow this process to load BPF programs")]
    NotPermitted,
    /// A hook without which there is nothing to see.
    #[error("the probe on {hook} cannot be used: {reason}")]
    Hook {
        /// Which.
        hook: &'static str,
        /// Why.
        reason: String,
    },
    /// The object does not load.
    #[error("the probes cannot be loaded: {0}")]
    Load(#[source] EbpfError),
    /// The object lacks a map.
    #[error("the probes' object has no map {0} of the expected kind")]
    Object(&'static str),
    /// A map operation failed.
    #[error("a BPF map refused an operation: {0}")]
    Map(#[from] MapError),
    /// A program operation failed.
    #[error("a BPF program refused an operation: {0}")]
    Program(#[from] ProgramError),
    /// The maps cannot be mapped into memory.
    #[error("a BPF map cannot be mapped into memory: {0}")]
    Memory(#[source] std::io::Error),
    /// A glob over names cannot be compiled.
    #[error("the pattern `{glob}` {}", match reason {
        PatternError::TooLong => "is too long: all patterns together have 63 characters at most",
        PatternError::Class => "has a [ without its ], or nothing in between",
    })]
    Pattern {
        /// As given.
        glob: String,
        /// Why.
        reason: PatternError,
    },
}

impl ProbeError {
    pub(super) fn from_load(error: EbpfError) -> Self {
        if is_permission(&error) { Self::NotPermitted } else { Self::Load(error) }
    }

    pub(super) fn from_attach(hook: &'static str, error: &ProgramError) -> Self {
        if is_permission(error) { Self::NotPermitted } else { Self::Hook { hook, reason: brief(error) } }
    }
}

/// Why a hook could not be used, in a line: of the verifier's log the last word.
pub(super) fn brief(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let reason = log.lines().rev().find(|line| !line.is_empty() && !line.starts_with("processed"));
            format!("{io_error}: {}", reason.unwrap_or("no log"))
        }
        other => other.to_string(),
    }
}

/// Whether somewhere below an error the kernel said `EPERM`. `EACCES` is the verifier's word.
fn is_permission(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.raw_os_error() == Some(libc::EPERM))
        {
            return true;
        }
        cause = error.source();
    }
    false
}
