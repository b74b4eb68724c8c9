//! An ELF file that processes run code from: its names and its unwind tables, read when first needed and kept
//! for as long as a process that has it mapped is known.
//!
//! What a lookup costs is dominated by the first one in a file, which reads symbol tables and debug information;
//! what an address is called is remembered.

use std::{
    cell::{Cell, OnceCell, RefCell},
    collections::HashMap,
    fs::File,
    io,
    ops::Range,
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, MetadataExt},
    },
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

use blazesym::symbolize::{CodeInfo, Input, Symbolizer, source};
use framehop::ExplicitModuleSectionInfo;
use object::{Object, ObjectSection, ObjectSegment, ReadCache, SegmentFlags, elf::PF_X};

use super::{Location, debug_file::Link, frame::printable, root::Root};

/// Unwind tables longer than this are left alone; the longest seen, a browser's, are 20 MiB.
const LONGEST_SECTION: u64 = 256 << 20;

/// So many addresses are remembered; then it starts anew.
const MOST_NAMED: usize = 1 << 15;

/// Which file it is, so that it is read once however many processes have it mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FileKey {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
}

impl FileKey {
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        Ok(Self {
            device: meta.dev(),
            inode: meta.ino(),
            size: meta.size(),
            modified: (meta.mtime(), meta.mtime_nsec()),
        })
    }
}

/// The bytes of a section.
pub(super) type Bytes = Arc<[u8]>;

/// Runs what reads tables that a traced program brings. The libraries that do it return errors where they expected them;
/// where they did not, and panic, that is the end of this reading and no more.
pub(super) fn contained<T>(read: impl FnOnce() -> T) -> Option<T> {
    panic::catch_unwind(AssertUnwindSafe(read)).ok()
}

/// An open ELF file. Addresses in it are as the linker numbered them.
#[derive(Debug)]
pub(super) struct Module {
    file: File,
    debug: Option<File>,
    /// What is loaded; what is executable first.
    segments: Vec<Segment>,
    /// Of 32-bit files no stack is unwound.
    is_64: bool,
    sources: OnceCell<Vec<Source>>,
    tables: OnceCell<Tables>,
    named: RefCell<HashMap<u64, Rc<[Named]>>>,
    /// Whether reading its names has come to an unforeseen end.
    nameless: Cell<bool>,
}

#[derive(Debug)]
struct Segment {
    in_file: Range<u64>,
    address: u64,
    executable: bool,
}

/// How to get from a function to its caller.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pub(super) sections: ExplicitModuleSectionInfo<Bytes>,
    /// Whether there is a function among them that returns from a signal handler.
    pub(super) has_signal_frames: bool,
}

/// The augmentation of what returns from signal handlers, with the byte that ends it.
const SIGNAL_FRAME: &[u8] = b"zRS\0";

/// A function at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) name: Arc<str>,
    pub(super) location: Option<Location>,
    pub(super) inlined: bool,
}

impl Module {
    /// Takes a file and looks for its debug file.
    pub(super) fn new(file: File, path: &Path, roots: &[&Root]) -> object::read::Result<Self> {
        let cache = ReadCache::new(&file);
        let object = object::File::parse(&cache)?;
        let segment = |segment: object::Segment<'_, '_, _>| {
            let (offset, size) = segment.file_range();
            let SegmentFlags::Elf { p_flags } = segment.flags() else { return None };
            Some(Segment {
                in_file: offset..offset.checked_add(size)?,
                address: segment.address(),
                executable: p_flags & PF_X != 0,
            })
        };
        let mut segments: Vec<_> = object.segments().filter_map(segment).collect();
        segments.sort_by_key(|segment| !segment.executable);
        let is_64 = object.is_64();
        let link = Link::read(&object);
        let debug = link.find(&file, path, roots);
        Ok(Self {
            debug,
            segments,
            is_64,
            sources: OnceCell::new(),
            tables: OnceCell::new(),
            named: RefCell::default(),
            nameless: Cell::new(false),
            file,
        })
    }

    /// The address of where a mapping of this part of the file begins. That may be before the segment which is meant,
    /// since mappings are of whole pages, and what is before belongs to another, at another distance.
    pub(super) fn start(&self, part: &Range<u64>) -> Option<u64> {
        let meant = |segment: &&Segment| segment.in_file.start < part.end && part.start < segment.in_file.end;
        let segment = self.segments.iter().find(meant)?;
        Some(segment.address.wrapping_sub(segment.in_file.start).wrapping_add(part.start))
    }

    /// What is at an address: the innermost inlined function first, the one that it all was compiled into
    /// last. Empty when there is no name.
    pub(super) fn names(&self, address: u64) -> Rc<[Named]> {
        if let Some(known) = self.named.borrow().get(&address) {
            return known.clone();
        }
        let sources =
            self.sources.get_or_init(|| self.debug.iter().chain([&self.file]).map(Source::new).collect());
        let find = || sources.iter().find_map(|source| source.names(address)).unwrap_or_default();
        let found = if self.nameless.get() { None } else { Some(contained(find)) };
        self.nameless.set(matches!(found, None | Some(None)));
        let found: Rc<[Named]> = found.flatten().unwrap_or_default();
        let mut named = self.named.borrow_mut();
        if named.len() >= MOST_NAMED {
            named.clear();
        }
        named.insert(address, found.clone());
        found
    }

    /// The unwind tables; `None` for a 32-bit file.
    pub(super) fn tables(&self) -> Option<&Tables> {
        self.is_64.then(|| {
            self.tables.get_or_init(|| {
                let read = contained(|| self.read_tables().unwrap_or_default());
                let sections = read.unwrap_or_default();
                let has = |table: &Bytes| memchr::memmem::find(table, SIGNAL_FRAME).is_some();
                Tables { has_signal_frames: sections.eh_frame.as_ref().is_some_and(has), sections }
            })
        })
    }

    /// Whether these are the instructions at an address.
    pub(super) fn has_instructions(&self, address: u64, instructions: &[u8]) -> bool {
        let found = self.segments.iter().filter(|segment| segment.executable).find_map(|segment| {
            let offset = address.checked_sub(segment.address)?.checked_add(segment.in_file.start)?;
            segment.in_file.contains(&offset).then_some(offset)
        });
        let mut there = vec![0; instructions.len()];
        found.is_some_and(|offset| self.file.read_exact_at(&mut there, offset).is_ok())
            && there == instructions
    }

    fn read_tables(&self) -> object::read::Result<ExplicitModuleSectionInfo<Bytes>> {
        let cache = ReadCache::new(&self.file);
        let object = object::File::parse(&cache)?;
        let range = |name: &str| {
            let section = object.section_by_name(name)?;
            Some(section.address()..section.address().checked_add(section.size())?)
        };
        let data = |name: &str| read_section(&self.file, &object.section_by_name(name)?);
        let mut tables = ExplicitModuleSectionInfo {
            // Relative to it, addresses in the module have to fit into 32 bits.
            base_svma: self.segments.iter().map(|segment| segment.address).min().unwrap_or_default(),
            text_svma: range(".text"),
            got_svma: range(".got"),
            eh_frame_svma: range(".eh_frame"),
            eh_frame: data(".eh_frame"),
            eh_frame_hdr_svma: range(".eh_frame_hdr"),
            eh_frame_hdr: data(".eh_frame_hdr"),
            ..ExplicitModuleSectionInfo::default()
        };
        if tables.eh_frame.is_none() {
            tables.debug_frame = data(".debug_frame").or_else(|| {
                let debug = self.debug.as_ref()?;
                let cache = ReadCache::new(debug);
                let object = object::File::parse(&cache).ok()?;
                read_section(debug, &object.section_by_name(".debug_frame")?)
            });
        }
        Ok(tables)
    }
}

/// `None` when there is nothing in the file, or when it is compressed (only `.debug_frame` ever is).
fn read_section<'data>(file: &File, section: &impl ObjectSection<'data>) -> Option<Bytes> {
    let range = section.compressed_file_range().ok()?;
    if range.format != object::CompressionFormat::None || range.uncompressed_size > LONGEST_SECTION {
        return None;
    }
    let mut bytes = vec![0; usize::try_from(range.uncompressed_size).ok()?];
    file.read_exact_at(&mut bytes, range.offset).ok()?;
    (!bytes.is_empty()).then(|| bytes.into())
}

/// A file with names: the program's own or its debug file.
#[derive(Debug)]
struct Source {
    symbolizer: Symbolizer,
    /// A way to the very file that is open.
    path: PathBuf,
}

impl Source {
    fn new(file: &File) -> Self {
        // It shall look for nothing else: which debug file belongs to the module was found out before.
        let symbolizer = Symbolizer::builder()
            .set_debug_dirs(Some([] as [&Path; 0]))
            // The number of a descriptor is not reused while it is open.
            .enable_auto_reload(false)
            .build();
        Self { symbolizer, path: format!("/proc/self/fd/{}", file.as_raw_fd()).into() }
    }

    /// With debug information, or without where it is broken or does not know the address.
    fn names(&self, address: u64) -> Option<Rc<[Named]>> {
        [true, false].into_iter().find_map(|debug_syms| self.look_up(address, debug_syms))
    }

    fn look_up(&self, address: u64, debug_syms: bool) -> Option<Rc<[Named]>> {
        let mut elf = source::Elf::new(&self.path);
        elf.debug_syms = debug_syms;
        let found = self.symbolizer.symbolize_single(&elf.into(), Input::VirtOffset(address));
        let symbol = match found {
            Ok(found) => found.into_sym()?,
            Err(error) => {
                log::debug!("{}: {address:#x}: {error}", self.path.display());
                return None;
            }
        };
        if symbol.name.is_empty() {
            return None;
        }
        let inlined = symbol.inlined.iter().rev().map(|inlined| Named {
            name: printable(&inlined.name),
            location: inlined.code_info.as_ref().map(location),
            inlined: true,
        });
        let outer = Named {
            name: printable(&symbol.name),
            location: symbol.code_info.as_deref().map(location),
            inlined: false,
        };
        Some(inlined.chain([outer]).collect())
    }
}

fn location(info: &CodeInfo<'_>) -> Location {
    Location { file: printable(&info.to_path().to_string_lossy()), line: info.line.filter(|line| *line > 0) }
}
