//! The note beside the committed object: which compiler and linker made it, and its hash.

use std::{collections::BTreeMap, fmt, str::FromStr};

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};

use super::toolchain::Toolchain;

/// What made an object, and which object that was.
#[derive(Debug, PartialEq)]
pub(crate) struct Stamp {
    rustc: String,
    llvm: String,
    linker: String,
    sha256: String,
}

impl Stamp {
    pub(crate) fn new(toolchain: &Toolchain, object: &[u8]) -> Self {
        Self {
            rustc: toolchain.rustc.clone(),
            llvm: toolchain.llvm.clone(),
            linker: toolchain.linker_version.clone(),
            sha256: sha256(object),
        }
    }

    /// Whether both were made by the same compiler and linker, so that the same sources give the
    /// same bytes.
    pub(crate) fn same_compiler(&self, other: &Self) -> bool {
        self.rustc == other.rustc && self.llvm == other.llvm && self.linker == other.linker
    }

    /// Whether it was written for these very bytes.
    pub(crate) fn is_of(&self, object: &[u8]) -> bool {
        self.sha256 == sha256(object)
    }
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# Written by `cargo xtask build-ebpf`, for ioscope.bpf.o beside it.")?;
        writeln!(f, "rustc: {}", self.rustc)?;
        writeln!(f, "llvm: {}", self.llvm)?;
        writeln!(f, "linker: {}", self.linker)?;
        writeln!(f, "sha256: {}", self.sha256)
    }
}

impl FromStr for Stamp {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let mut values = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((key, value)) = line.split_once(": ") else { bail!("no `key: value`: {line}") };
            values.insert(key, value.to_owned());
        }
        let mut take = |key| values.remove(key).with_context(|| format!("no line `{key}: …`"));
        Ok(Self {
            rustc: take("rustc")?,
            llvm: take("llvm")?,
            linker: take("linker")?,
            sha256: take("sha256")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(rustc: &str, object: &[u8]) -> Stamp {
        Stamp {
            rustc: rustc.to_owned(),
            llvm: "22.1.8".to_owned(),
            linker: "bpf-linker 0.13.0".to_owned(),
            sha256: sha256(object),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let stamp = stamp("rustc 1.96.0 (ac68faa20 2026-05-25)", b"object");
        assert_eq!(stamp.to_string().parse::<Stamp>().unwrap(), stamp);
    }

    #[test]
    fn another_object_by_the_same_compiler() {
        let one = stamp("rustc 1.96.0", b"one");
        let two = stamp("rustc 1.96.0", b"two");
        assert!(one.same_compiler(&two));
        assert!(one.is_of(b"one") && !one.is_of(b"two"));
        assert!(!one.same_compiler(&stamp("rustc 1.95.0", b"one")));
    }

    #[test]
    fn a_missing_line_is_named() {
        let error = "rustc: 1\nllvm: 2\nlinker: 3\n".parse::<Stamp>().unwrap_err();
        assert!(error.to_string().contains("sha256"), "{error}");
    }
}
