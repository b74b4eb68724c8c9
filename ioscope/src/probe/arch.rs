//! The architectures that ioscope runs on.

use std::fmt;

/// An architecture of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 64-bit Arm.
    Aarch64,
}

impl Arch {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// The one that this program was built for; `None` where ioscope knows no system call numbers.
    pub const fn host() -> Option<Self> {
        if cfg!(target_arch = "x86_64") {
            Some(Self::X86_64)
        } else if cfg!(target_arch = "aarch64") {
            Some(Self::Aarch64)
        } else {
            None
        }
    }

    /// What the name of the function behind a system call begins with: `arch/*/include/asm/syscall_wrapper.h`.
    pub const fn syscall_function_prefix(self) -> &'static str {
        match self {
            Self::X86_64 => "__x64_sys_",
            Self::Aarch64 => "__arm64_sys_",
        }
    }

    /// As `uname -m` has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }
}

impl fmt::Display for Arch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
