//! The architectures that virtual machines can have, and what differs between them.

use std::fmt;

/// An architecture, by the kernel's and Rust's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Arch {
    #[value(name = "x86_64")]
    X86_64,
    #[value(name = "aarch64")]
    Aarch64,
}

impl Arch {
    /// This machine's.
    pub(super) const HOST: Option<Self> = if cfg!(target_arch = "x86_64") {
        Some(Self::X86_64)
    } else if cfg!(target_arch = "aarch64") {
        Some(Self::Aarch64)
    } else {
        None
    };

    /// Debian's name.
    pub(super) fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// The first part of a GNU triplet, and of a Rust target.
    pub(super) fn gnu(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// The package that has the emulator.
    pub(super) fn emulator_package(self) -> &'static str {
        match self {
            Self::X86_64 => "qemu-system-x86",
            Self::Aarch64 => "qemu-system-arm",
        }
    }

    /// The emulator's program.
    pub(super) fn emulator(self) -> &'static str {
        match self {
            Self::X86_64 => "qemu-system-x86_64",
            Self::Aarch64 => "qemu-system-aarch64",
        }
    }

    /// The machine and the CPU to emulate: the plainest that Debian's cloud kernels boot on.
    pub(super) fn machine(self) -> [&'static str; 4] {
        match self {
            Self::X86_64 => ["-machine", "q35", "-cpu", "max"],
            Self::Aarch64 => ["-machine", "virt", "-cpu", "cortex-a57"],
        }
    }

    /// The names of the machine's two serial lines: for the kernel's console, and for the guest's output.
    pub(super) fn serial_lines(self) -> [&'static str; 2] {
        match self {
            Self::X86_64 => ["ttyS0", "ttyS1"],
            Self::Aarch64 => ["ttyAMA0", "ttyAMA1"],
        }
    }

    /// The series of kernels that the whole matrix has.
    pub(super) fn series(self) -> &'static [&'static str] {
        match self {
            Self::X86_64 => &["5.10", "6.1", "6.12", "6.18", "7.3"],
            Self::Aarch64 => &["6.1", "6.18"],
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.gnu())
    }
}
