//! What an executable needs to run: its loader and its libraries.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use object::{
    Endianness,
    elf::{DT_NEEDED, FileHeader64},
    read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _},
};

use super::arch::Arch;

/// The loader and the libraries that an executable names.
#[derive(Debug, Default, PartialEq, Eq)]
struct Needs {
    loader: Option<String>,
    libraries: Vec<String>,
}

fn needs(bytes: &[u8]) -> Result<Needs> {
    let header = FileHeader64::<Endianness>::parse(bytes)?;
    let endian = header.endian()?;
    let mut needs = Needs::default();
    for segment in header.program_headers(endian, bytes)? {
        if let Some(loader) = segment.interpreter(endian, bytes)? {
            needs.loader = Some(String::from_utf8_lossy(loader).into_owned());
        }
    }
    let sections = header.sections(endian, bytes)?;
    if let Some((entries, strings)) = sections.dynamic(endian, bytes)? {
        let strings = sections.strings(endian, bytes, strings)?;
        for entry in entries.iter().filter(|entry| entry.tag32(endian) == Some(DT_NEEDED)) {
            needs.libraries.push(String::from_utf8_lossy(entry.string(endian, strings)?).into_owned());
        }
    }
    Ok(needs)
}

/// A file system with libraries: `/`, or a directory that is some other machine's `/`.
pub(super) struct Libraries {
    root: PathBuf,
    directories: Vec<String>,
}

impl Libraries {
    pub(super) fn new(root: &Path, arch: Arch) -> Self {
        let triplet = format!("{}-linux-gnu", arch.gnu());
        let directories = [
            format!("/lib/{triplet}"),
            format!("/usr/lib/{triplet}"),
            "/lib64".to_owned(),
            "/usr/lib64".to_owned(),
            "/lib".to_owned(),
            "/usr/lib".to_owned(),
        ];
        Self { root: root.to_owned(), directories: directories.to_vec() }
    }

    /// The paths, within that file system, of everything that this executable loads.
    pub(super) fn closure(&self, executable: &Path) -> Result<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        let mut open = vec![executable.to_owned()];
        while let Some(file) = open.pop() {
            let bytes = fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let needs = needs(&bytes).with_context(|| format!("{} is no executable", file.display()))?;
            let libraries = needs.libraries.iter().map(|name| self.find(name, &file));
            for path in needs.loader.map(Ok).into_iter().chain(libraries) {
                let path = path?;
                if found.insert(path.clone()) {
                    open.push(self.on_host(&path));
                }
            }
        }
        Ok(found)
    }

    fn find(&self, name: &str, needed_by: &Path) -> Result<String> {
        self.directories
            .iter()
            .map(|directory| format!("{directory}/{name}"))
            .find(|path| self.on_host(path).exists())
            .with_context(|| format!("{}, which {} needs, is nowhere", name, needed_by.display()))
    }

    fn on_host(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_program_needs_its_loader_and_libc() {
        let Some(arch) = Arch::HOST else { return };
        let this = std::env::current_exe().expect("it has a path");
        let found = Libraries::new(Path::new("/"), arch).closure(&this).expect("it runs");
        let ends = |end: &str| found.iter().any(|path| path.ends_with(end));
        assert!(ends("/libc.so.6") && ends("/libgcc_s.so.1"), "{found:?}");
        assert!(found.iter().any(|path| path.contains("/ld-linux")), "{found:?}");
        assert!(found.iter().all(|path| Path::new(path).exists()), "{found:?}");
    }

    #[test]
    fn what_is_no_executable_is_refused() {
        assert!(needs(b"#!/bin/sh\n").is_err());
        assert!(needs(b"").is_err());
    }
}
