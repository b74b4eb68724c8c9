//! What ioscope uses of the kernel, feature by feature: the one table of it.
//!
//! `doctor` prints it, the header names what is missing, and the loader asks it before it loads a program whose
//! hook may not be there. A row asks the BTF for what it needs, and not the version, wherever BTF can tell:
//! distributions carry features to older kernels. Each row cites the kernel source that it rests on, under
//! <https://github.com/torvalds/linux/tree/v6.12>.

mod rows;
#[cfg(test)]
mod tests;

use super::arch::Arch;
use super::btf::Btf;
use super::environment::Environment;

pub use rows::FEATURES;

/// What of the kernel a feature rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeatureKind {
    /// A place in the kernel where a program is attached.
    Hook,
    /// Something that programs or ioscope itself make use of.
    Facility,
}

/// The first kernel that has something, as its makers released it. Distributions carry some things to older kernels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since {
    x86_64: Option<(u32, u32)>,
    aarch64: Option<(u32, u32)>,
}

impl Since {
    /// This version, on every architecture.
    pub const fn linux(major: u32, minor: u32) -> Self {
        Self { x86_64: Some((major, minor)), aarch64: Some((major, minor)) }
    }

    /// No version: it is a matter of how a kernel is configured.
    pub const CONFIGURED: Self = Self { x86_64: None, aarch64: None };

    /// The same, but for aarch64, where it is this version.
    #[must_use]
    pub const fn on_aarch64(self, major: u32, minor: u32) -> Self {
        Self { aarch64: Some((major, minor)), ..self }
    }

    /// The version on this architecture, as in `5.15`; `None` if it is a matter of configuration.
    pub fn on(self, arch: Arch) -> Option<String> {
        let version = match arch {
            Arch::X86_64 => self.x86_64,
            Arch::Aarch64 => self.aarch64,
        };
        version.map(|(major, minor)| format!("{major}.{minor}"))
    }
}

/// A row of the table.
pub struct Feature {
    /// What it is called, in `doctor` and in code that asks for it.
    pub name: &'static str,
    /// What of the kernel it rests on.
    pub kind: FeatureKind,
    /// Whether ioscope can do nothing at all without it.
    pub essential: bool,
    /// What it needs, with the first kernel that has it.
    pub needs: &'static str,
    /// And that kernel for a program to compare with.
    pub since: Since,
    /// What is lost where it is missing.
    pub lost: &'static str,
    /// Finds out whether it is there.
    check: fn(&Btf, &Environment) -> Result<String, Missing>,
}

/// Why a feature is not there, and how to get it.
pub(crate) struct Missing {
    why: String,
    how: String,
}

/// Whether a feature is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Support {
    /// It is, in this form.
    Yes(String),
    /// It is not.
    No {
        /// What is missing.
        why: String,
        /// What ioscope cannot do for it.
        lost: &'static str,
        /// What would bring it.
        how: String,
    },
}

impl Support {
    /// Whether the feature is there.
    pub fn is_yes(&self) -> bool {
        matches!(self, Self::Yes(_))
    }
}

impl Feature {
    /// Finds out whether it is there. Nothing is loaded or attached for it.
    pub fn probe(&self, btf: &Btf, environment: &Environment) -> Support {
        match (self.check)(btf, environment) {
            Ok(detail) => Support::Yes(detail),
            Err(Missing { why, how }) => Support::No { why, lost: self.lost, how },
        }
    }
}

/// The row of this name.
pub fn feature(name: &str) -> Option<&'static Feature> {
    FEATURES.iter().find(|feature| feature.name == name)
}
