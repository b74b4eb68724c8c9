//! What an executable file says about the runtime inside it: ELF class, Go's build information, and
//! the few strings that survive stripping. Opened as /proc/PID/exe, which reaches the very file that the
//! process runs, in another mount namespace or deleted.
//!
//! Cost is bounded whatever the file's size: the section headers (at most [`MOST_SECTIONS`]) and, when
//! asked for, the first [`MOST_STRING_BYTES`] of the read-only data.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use memchr::memmem;
use object::elf::{ELFCLASS32, ELFCLASS64, ELFMAG, FileHeader64, SHF_ALLOC, SHF_WRITE, SHT_NOBITS};
use object::read::ReadCache;
use object::read::elf::{FileHeader, SectionHeader};

/// More sections than this, and the file's sections are left alone: 4 MiB of headers.
const MOST_SECTIONS: usize = 65_536;

/// How much read-only data is searched for strings: about 10 ms of a CPU when the file is in the page cache,
/// 60 ms when it is nothing but source paths.
/// Deno, with V8 and tokio inside, has 24 MiB of it.
const MOST_STRING_BYTES: u64 = 32 << 20;

/// One read while searching: it stays in the second-level cache.
const CHUNK: usize = 256 << 10;

/// How much of a chunk is searched again with the next one: longer than any string searched for.
const OVERLAP: usize = 256;

/// The longest directory name of a crate that is recognised, as in `tokio-1.54.1`.
const LONGEST_CRATE: usize = 64;

/// Which executable this is, so that it need not be read twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct FileKey {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

/// The word size of an executable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElfClass {
    /// 32-bit pointers: i386 and arm programs, and x32.
    Elf32,
    /// 64-bit pointers.
    Elf64,
}

/// A Rust crate whose source paths, kept for panic messages, prove that it is compiled in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Crate {
    /// tokio, with its runtime: a program can use the channels alone.
    Tokio,
    /// monoio.
    Monoio,
    /// async-io: the reactor of smol and async-std.
    AsyncIo,
    /// mio.
    Mio,
}

impl Crate {
    const ALL: [Self; 4] = [Self::Tokio, Self::Monoio, Self::AsyncIo, Self::Mio];

    /// The crate's name in its registry.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tokio => "tokio",
            Self::Monoio => "monoio",
            Self::AsyncIo => "async-io",
            Self::Mio => "mio",
        }
    }

    /// The part of its source, below `src/`, that a program with an event loop has.
    const fn below_source(self) -> &'static str {
        match self {
            Self::Tokio => "runtime/",
            Self::Monoio | Self::AsyncIo | Self::Mio => "",
        }
    }
}

/// A string that only the named library contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Marker {
    /// Asio's epoll reactor, standalone or in Boost.
    Asio,
    /// libuv, linked statically.
    Libuv,
    /// libevent, linked statically.
    Libevent,
    /// libev, linked statically.
    Libev,
}

impl Marker {
    const ALL: [Self; 4] = [Self::Asio, Self::Libuv, Self::Libevent, Self::Libev];

    /// The string. For Asio, the C++ type name that run-time type information keeps; for libuv, the format
    /// in which it prints its handles (Bun reads libuv's environment variables too, without having libuv);
    /// for the others, an environment variable that they read.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Asio => "4asio6detail13epoll_reactorE",
            Self::Libuv => "[%c%c%c] %-8s %p",
            Self::Libevent => "EVENT_EPOLL_USE_CHANGELIST",
            Self::Libev => "LIBEV_FLAGS",
        }
    }
}

/// What the strings of an executable prove.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Strings {
    /// The crates compiled in, with their version where the path names it (a vendored crate's does not).
    pub crates: BTreeMap<Crate, Option<String>>,
    /// The markers found.
    pub markers: Vec<Marker>,
}

/// What an executable says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecutableFacts {
    /// Its word size; `None` when it is no ELF file or cannot be read.
    pub class: Option<ElfClass>,
    /// The ELF section that proves a Go program.
    pub go_section: Option<&'static str>,
    /// What its strings prove; `None` while they have not been read.
    pub strings: Option<Strings>,
}

/// The open executable of a process.
#[derive(Debug)]
pub(super) struct Executable {
    file: File,
    key: FileKey,
}

impl Executable {
    /// Opens it; `None` without one (a kernel thread), without permission, or when it is no regular file.
    pub(super) fn open(path: &Path) -> Option<Self> {
        let file = File::open(path).ok()?;
        let meta = file.metadata().ok().filter(std::fs::Metadata::is_file)?;
        let key = FileKey {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
        };
        Some(Self { file, key })
    }

    pub(super) fn key(&self) -> &FileKey {
        &self.key
    }

    /// Its word size, from the first bytes of the file.
    pub(super) fn class(&self) -> Option<ElfClass> {
        // The magic, and the class in the byte after it.
        let mut start = [0; ELFMAG.len() + 1];
        self.file.read_exact_at(&mut start, 0).ok()?;
        match start.split_last()? {
            (&ELFCLASS32, magic) if magic == ELFMAG => Some(ElfClass::Elf32),
            (&ELFCLASS64, magic) if magic == ELFMAG => Some(ElfClass::Elf64),
            _ => None,
        }
    }

    /// The cheap facts: everything but the strings.
    pub(super) fn facts(&self) -> ExecutableFacts {
        let class = self.class();
        let go_section = self.sections().into_iter().find_map(|section| go_section(&section.name));
        ExecutableFacts { class, go_section, strings: None }
    }

    /// Reads the read-only data, at most [`MOST_STRING_BYTES`] of it.
    pub(super) fn strings(&self) -> Strings {
        let mut search = Search::new();
        let mut left = MOST_STRING_BYTES;
        for section in self.sections().into_iter().filter(Section::is_read_only_data) {
            let size = section.size.min(left);
            search.read(&self.file, section.offset, size);
            left -= size;
        }
        search.found
    }

    /// The sections of a 64-bit executable; none when its headers are gone or make no sense.
    fn sections(&self) -> Vec<Section> {
        self.read_sections().unwrap_or_default()
    }

    fn read_sections(&self) -> object::read::Result<Vec<Section>> {
        // ELFCLASS64 in the machine's own byte order: a program that runs here.
        let data = ReadCache::new(&self.file);
        let header = FileHeader64::<object::NativeEndian>::parse(&data)?;
        let endian = header.endian()?;
        if header.shnum(endian, &data)? > MOST_SECTIONS {
            return Ok(Vec::new());
        }
        let table = header.sections(endian, &data)?;
        let section = |header: &object::elf::SectionHeader64<object::NativeEndian>| Section {
            name: table.section_name(endian, header).unwrap_or_default().to_vec(),
            flags: header.sh_flags(endian),
            in_file: header.sh_type(endian) != SHT_NOBITS,
            offset: header.sh_offset(endian),
            size: header.sh_size(endian),
        };
        Ok(table.iter().map(section).collect())
    }
}

#[derive(Debug)]
struct Section {
    name: Vec<u8>,
    flags: u64,
    in_file: bool,
    offset: u64,
    size: u64,
}

impl Section {
    fn is_read_only_data(&self) -> bool {
        let loaded = self.flags & u64::from(SHF_ALLOC) != 0 && self.flags & u64::from(SHF_WRITE) == 0;
        loaded && self.in_file && self.name.starts_with(b".rodata")
    }
}

/// The Go linker writes both, and neither `-s -w` nor strip removes them.
fn go_section(name: &[u8]) -> Option<&'static str> {
    [".go.buildinfo", ".note.go.buildid"].into_iter().find(|go| go.as_bytes() == name)
}

/// The strings searched for, and what was found of them.
struct Search {
    source: memmem::Finder<'static>,
    markers: Vec<(Marker, memmem::Finder<'static>)>,
    found: Strings,
}

impl Search {
    fn new() -> Self {
        let finder = |marker: Marker| (marker, memmem::Finder::new(marker.text()));
        Self {
            source: memmem::Finder::new("/src/"),
            markers: Marker::ALL.map(finder).into(),
            found: Strings::default(),
        }
    }

    /// Searches `size` bytes of the file from `offset`, chunk by chunk; stops early where the file ends.
    fn read(&mut self, file: &File, mut offset: u64, size: u64) {
        let mut chunk = vec![0; CHUNK];
        let mut kept = 0;
        let mut left = usize::try_from(size).unwrap_or(usize::MAX);
        while left > 0 {
            let wanted = left.min(CHUNK - kept);
            let Ok(count @ 1..) = file.read_at(&mut chunk[kept..kept + wanted], offset) else { return };
            let full = kept + count;
            self.look(&chunk[..full]);
            kept = full.min(OVERLAP);
            chunk.copy_within(full - kept..full, 0);
            offset += count as u64;
            left -= count;
        }
    }

    fn look(&mut self, bytes: &[u8]) {
        for at in self.source.find_iter(bytes) {
            if let Some((name, version)) = crate_of_path(bytes, at) {
                let known = self.found.crates.entry(name).or_default();
                *known = known.take().or(version);
            }
        }
        let found = &mut self.found.markers;
        self.markers.retain(|(marker, finder)| {
            let there = finder.find(bytes).is_some();
            found.extend(there.then_some(*marker));
            !there
        });
    }
}

/// The crate whose source path has its `/src/` at `at`, with its version if the path has one.
///
/// `…/tokio-1.54.1/src/runtime/…` is tokio from a registry, `vendor/tokio/src/runtime/…` a vendored one.
fn crate_of_path(bytes: &[u8], at: usize) -> Option<(Crate, Option<String>)> {
    let before = &bytes[at.saturating_sub(LONGEST_CRATE)..at];
    let start = before.iter().rposition(|byte| *byte == b'/')? + 1;
    let directory = str::from_utf8(&before[start..]).ok()?;
    let below = &bytes[at + "/src/".len()..];
    Crate::ALL.into_iter().find_map(|name| {
        let rest = directory.strip_prefix(name.name())?;
        let version = match rest.strip_prefix('-') {
            Some(version) if is_version(version) => Some(version.to_owned()),
            None if rest.is_empty() => None,
            _ => return None,
        };
        below.starts_with(name.below_source().as_bytes()).then_some((name, version))
    })
}

fn is_version(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_digit()) && text.contains('.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn search(bytes: &[u8]) -> Strings {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, bytes).unwrap();
        let mut search = Search::new();
        search.read(&file, 0, bytes.len() as u64);
        search.found
    }

    #[test]
    fn a_path_in_a_registry_names_the_crate_and_its_version() {
        let found =
            search(b"xx/registry/src/index-1/tokio-1.54.1/src/runtime/park.rs/rustc/1/library/core/src/x");
        assert_eq!(found.crates, BTreeMap::from([(Crate::Tokio, Some("1.54.1".to_owned()))]));
    }

    #[test]
    fn a_vendored_crate_has_no_version() {
        let found = search(b"/build/vendor/async-io/src/reactor.rs\0/vendor/mio/src/poll.rs");
        assert_eq!(found.crates, BTreeMap::from([(Crate::AsyncIo, None), (Crate::Mio, None)]));
    }

    #[test]
    fn a_version_seen_once_is_kept() {
        let found = search(b"/mio/src/poll.rs/mio-1.2.5/src/poll.rs/mio/src/poll.rs");
        assert_eq!(found.crates[&Crate::Mio].as_deref(), Some("1.2.5"));
    }

    #[test]
    fn other_crates_and_tokio_without_its_runtime_prove_nothing() {
        let found = search(
            b"/tokio-1.54.1/src/sync/mpsc/chan.rs /tokio-util-0.7.1/src/runtime/x.rs /tokio-x/src/runtime/ \
              /mymio-1.0.0/src/lib.rs /src/ tokio-1.0.0/src/runtime/",
        );
        assert_eq!(found, Strings::default());
    }

    #[test]
    fn a_string_across_two_chunks_is_found_once() {
        for shift in 0..40 {
            let mut bytes = vec![b'.'; CHUNK - shift];
            bytes.extend_from_slice(b"/monoio-0.2.4/src/driver/[%c%c%c] %-8s %p\0");
            bytes.resize(2 * CHUNK + 100, 0);
            let found = search(&bytes);
            assert_eq!(found.crates[&Crate::Monoio].as_deref(), Some("0.2.4"), "shift {shift}");
            assert_eq!(found.markers, [Marker::Libuv], "shift {shift}");
        }
    }

    #[test]
    fn every_marker_is_found() {
        for marker in Marker::ALL {
            assert_eq!(search(format!("..{}\0", marker.text()).as_bytes()).markers, [marker]);
        }
    }

    #[test]
    fn the_test_executable_is_this_machines_and_has_read_only_data() {
        let executable = Executable::open(Path::new("/proc/self/exe")).unwrap();
        let native = if size_of::<usize>() == 8 { ElfClass::Elf64 } else { ElfClass::Elf32 };
        assert_eq!(executable.class(), Some(native));
        assert_eq!(executable.facts().go_section, None);
        assert!(executable.sections().iter().any(Section::is_read_only_data));
    }

    #[test]
    fn what_is_no_elf_file_says_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("exe");
        for content in [&b""[..], b"\x7fE", b"#!/bin/sh\n", b"\x7fELF\x02\x01\x01 cut off"] {
            std::fs::write(&path, content).unwrap();
            let executable = Executable::open(&path).unwrap();
            assert_eq!(executable.facts().go_section, None);
            assert_eq!(executable.strings(), Strings::default());
        }
        assert!(Executable::open(directory.path()).is_none());
        assert!(Executable::open(Path::new("/nonexistent")).is_none());
    }

    #[test]
    fn a_32_bit_executable_is_told_by_its_header() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("exe");
        std::fs::write(&path, b"\x7fELF\x01\x01\x01").unwrap();
        assert_eq!(Executable::open(&path).unwrap().class(), Some(ElfClass::Elf32));
    }
}
