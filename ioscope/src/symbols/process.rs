//! What a process runs: its mappings, and the files behind them.

use std::{
    cell::OnceCell,
    collections::HashMap,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    rc::{Rc, Weak},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::fs::MemfdFlags;

use super::{
    Frame, Origin, Registers, Unwound,
    frame::printable,
    jit::PerfMap,
    maps::{self, Backing, Mapping},
    module::{FileKey, Module, Named, contained},
    root::{self, Root},
    unwind::{Code, Space, Walker},
};

/// How long it is believed that a process runs what it did, and has mapped what it had.
const FRESH: Duration = Duration::from_millis(250);

/// An address that is in no mapping is reason enough to look again, but not more often than so.
const FRESH_FOR_UNKNOWN: Duration = Duration::from_millis(10);

/// Why nothing can be told about a process.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// There is no such process, or it has ended.
    #[error("there is no process {0}")]
    Gone(u32),
    /// What the process has mapped cannot be read.
    #[error("cannot read what process {pid} has mapped: {error}")]
    Maps {
        /// The process.
        pid: u32,
        /// Why: most often `CAP_SYS_PTRACE` is missing.
        error: io::Error,
    },
}

/// The files of all processes.
#[derive(Debug, Default)]
pub(super) struct Modules {
    known: HashMap<FileKey, Weak<Module>>,
    vdso: OnceCell<Option<Rc<Module>>>,
    own: OnceCell<Option<Root>>,
}

/// A program as a process runs it: another `exec` makes another image.
pub(super) struct Process {
    pid: u32,
    /// Its number in its own namespace.
    own_number: u32,
    identity: Identity,
    root: Option<Root>,
    maps: String,
    mapped: Vec<Mapped>,
    looked: Instant,
    walker: Walker,
    perf_map: PerfMap,
    perf_map_looked: Option<Instant>,
    memory: OnceCell<Option<File>>,
    pub(super) used: u64,
}

/// What changes when a process's number is given to another, or when it runs another program: when it was started, and
/// where its program's code and its stack are (`fs/proc/array.c`, `do_task_stat`).
#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity([String; 3]);

struct Mapped {
    mapping: Mapping,
    label: Option<Arc<str>>,
    module: OnceCell<Option<Rc<Module>>>,
}

impl Process {
    /// Reads what a process has mapped.
    pub(super) fn open(pid: u32) -> Result<Self, ProcessError> {
        let identity = Identity::read(pid).ok_or(ProcessError::Gone(pid))?;
        let maps = fs::read(format!("/proc/{pid}/maps")).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ProcessError::Gone(pid),
            _ => ProcessError::Maps { pid, error },
        })?;
        let maps = String::from_utf8_lossy(&maps).into_owned();
        Ok(Self {
            pid,
            own_number: own_number(pid).unwrap_or(pid),
            identity,
            root: Root::of(pid).ok(),
            mapped: maps::executable(&maps).into_iter().map(Mapped::new).collect(),
            maps,
            looked: Instant::now(),
            walker: Walker::default(),
            perf_map: PerfMap::default(),
            perf_map_looked: None,
            memory: OnceCell::new(),
            used: 0,
        })
    }

    /// Whether it runs something: a process that has ended and was not waited for has nothing mapped.
    fn runs(&self) -> bool {
        !self.mapped.is_empty()
    }

    /// Looks whether the process still is what it was. What it was is kept when it has ended.
    pub(super) fn refresh(&mut self) {
        self.look_again(FRESH);
    }

    fn look_again(&mut self, fresh: Duration) {
        if self.looked.elapsed() < fresh {
            return;
        }
        self.looked = Instant::now();
        let Ok(now) = Self::open(self.pid) else { return };
        if !now.runs() || (now.identity == self.identity && now.maps == self.maps) {
            return;
        }
        let before = std::mem::replace(self, now);
        self.used = before.used;
        if before.identity == self.identity {
            self.perf_map = before.perf_map;
            self.root = before.root;
            for old in before.mapped {
                // Opened files are kept where nothing changed.
                if let Some(new) = self.mapped.iter_mut().find(|new| new.mapping == old.mapping) {
                    *new = old;
                }
            }
        }
    }

    /// Opens all files that code is mapped from.
    pub(super) fn prepare(&self, modules: &mut Modules) {
        for mapped in &self.mapped {
            mapped.module(self.pid, self.root.as_ref(), modules);
        }
    }

    /// The mapping that has this address, after another look where there seems to be none.
    fn find(&mut self, address: u64) -> Option<usize> {
        find(&self.mapped, address).or_else(|| {
            self.look_again(FRESH_FOR_UNKNOWN);
            find(&self.mapped, address)
        })
    }

    /// Walks up a stack.
    pub(super) fn unwind(&mut self, registers: &Registers, stack: &[u8], modules: &mut Modules) -> Unwound {
        // What the first address is in has to be known for certain.
        self.find(registers.ip);
        let Self { walker, mapped, pid, root, memory, .. } = self;
        let highest =
            mapped.iter().map(|mapped| mapped.mapping.range.end).filter(|end| *end >> 63 == 0).max();
        let mut space = View { pid: *pid, mapped, root: root.as_ref(), memory, modules };
        walker.walk(registers, highest.unwrap_or(u64::MAX), stack, &mut space)
    }

    /// What is at an address, innermost first. Of a return address, the call is meant, which is before.
    pub(super) fn name(
        &mut self,
        address: u64,
        is_return: bool,
        modules: &mut Modules,
        frames: &mut Vec<Frame>,
    ) {
        let at = if is_return { address.saturating_sub(1) } else { address };
        let found = self.find(at);
        let Some(mapped) = found.map(|found| &self.mapped[found]) else {
            return frames.push(unnamed(address, Origin::User));
        };
        let label = mapped.label.clone();
        let module = mapped.module(self.pid, self.root.as_ref(), modules);
        let in_module = module.and_then(|module| {
            let start = module.start(&mapped.mapping.in_file())?;
            let address = start.wrapping_add(at - mapped.mapping.range.start);
            Some((module.names(address), address))
        });
        match in_module {
            Some((names, _)) if !names.is_empty() => {
                let frame = |Named { name, location, inlined }: &Named| Frame {
                    name: name.clone(),
                    module: label.clone(),
                    location: location.clone(),
                    inlined: *inlined,
                    origin: Origin::User,
                };
                frames.extend(names.iter().map(frame));
            }
            Some((_, in_module)) => {
                let offset = if is_return { in_module + 1 } else { in_module };
                frames.push(offset_in(label, offset, address));
            }
            None => {
                let file_offset = mapped.mapping.offset.wrapping_add(address - mapped.mapping.range.start);
                match self.jit_name(at) {
                    Some(frame) => frames.push(frame),
                    None => frames.push(offset_in(label, file_offset, address)),
                }
            }
        }
    }

    fn jit_name(&mut self, address: u64) -> Option<Frame> {
        let function = self.perf_map.find(address).or_else(|| {
            self.read_perf_map();
            self.perf_map.find(address)
        })?;
        Some(Frame {
            name: function.name,
            module: None,
            location: function.location,
            inlined: false,
            origin: Origin::Jit,
        })
    }

    /// Where the runtime writes it: in its own `/tmp`, by the number that it has for itself.
    fn read_perf_map(&mut self) {
        if self.perf_map_looked.is_some_and(|looked| looked.elapsed() < FRESH_FOR_UNKNOWN) {
            return;
        }
        self.perf_map_looked = Some(Instant::now());
        let Some(root) = &self.root else { return };
        let path = format!("/tmp/perf-{}.map", self.own_number);
        if let Ok(file) = root.open(Path::new(&path))
            && let Err(error) = self.perf_map.update(&file)
        {
            log::debug!("process {}: {path}: {error}", self.pid);
        }
    }
}

/// A process, as a walk up its stack sees it.
struct View<'a> {
    pid: u32,
    mapped: &'a [Mapped],
    root: Option<&'a Root>,
    memory: &'a OnceCell<Option<File>>,
    modules: &'a mut Modules,
}

impl Space for View<'_> {
    fn code(&mut self, address: u64) -> Option<Code> {
        let mapped = &self.mapped[find(self.mapped, address)?];
        let module = mapped.module(self.pid, self.root, self.modules).and_then(|module| {
            let start = module.start(&mapped.mapping.in_file())?;
            Some((module, start))
        });
        Some(Code { range: mapped.mapping.range.clone(), module })
    }

    fn instructions(&mut self, address: u64, bytes: &mut [u8]) -> bool {
        let open = || File::open(format!("/proc/{}/mem", self.pid)).ok();
        let memory = self.memory.get_or_init(open);
        memory.as_ref().is_some_and(|memory| memory.read_exact_at(bytes, address).is_ok())
    }
}

impl Mapped {
    fn new(mapping: Mapping) -> Self {
        let label = match &mapping.backing {
            Backing::File(path) | Backing::Deleted(path) => Some(printable(path)),
            Backing::Vdso => Some("[vdso]".into()),
            Backing::Anonymous | Backing::Special => None,
        };
        Self { mapping, label, module: OnceCell::new() }
    }

    fn module(&self, pid: u32, root: Option<&Root>, modules: &mut Modules) -> Option<Rc<Module>> {
        self.module.get_or_init(|| modules.open(pid, root, &self.mapping)).clone()
    }
}

impl Modules {
    fn open(&mut self, pid: u32, root: Option<&Root>, mapping: &Mapping) -> Option<Rc<Module>> {
        match &mapping.backing {
            Backing::File(path) | Backing::Deleted(path) => {
                let file = open_mapped(pid, root, mapping, Path::new(path))?;
                self.module(file, Path::new(path), root)
            }
            Backing::Vdso => self.vdso.get_or_init(own_vdso).clone(),
            Backing::Anonymous | Backing::Special => None,
        }
    }

    fn module(&mut self, file: File, path: &Path, root: Option<&Root>) -> Option<Rc<Module>> {
        let key = FileKey::of(&file).ok()?;
        if let Some(known) = self.known.get(&key).and_then(Weak::upgrade) {
            return Some(known);
        }
        let own = self.own.get_or_init(|| Root::own().ok()).as_ref();
        let roots: Vec<_> = root.into_iter().chain(own).collect();
        let module = match contained(|| Module::new(file, path, &roots))? {
            Ok(module) => Rc::new(module),
            Err(error) => {
                log::debug!("{}: {error}", path.display());
                return None;
            }
        };
        self.known.retain(|_, module| module.strong_count() > 0);
        self.known.insert(key, Rc::downgrade(&module));
        Some(module)
    }
}

/// Opens the file behind a mapping, whatever became of its name: the surest way first, which takes
/// `CAP_SYS_ADMIN` or `CAP_CHECKPOINT_RESTORE` (`fs/proc/base.c`, `proc_map_files_get_link`).
fn open_mapped(pid: u32, root: Option<&Root>, mapping: &Mapping, path: &Path) -> Option<File> {
    let Mapping { range, inode, backing, .. } = mapping;
    let by_range = PathBuf::from(format!("/proc/{pid}/map_files/{:x}-{:x}", range.start, range.end));
    let has_the_inode = |file: &File| file.metadata().is_ok_and(|meta| meta.ino() == *inode);
    let by_name = || match backing {
        Backing::File(_) => root.and_then(|root| root.open(path).ok()),
        _ => None,
    };
    // The kernel names a file as we see it: a process with another root sees it by another name.
    let by_our_name = || root::open(path).ok().filter(has_the_inode);
    let executable = || root::open(Path::new(&format!("/proc/{pid}/exe"))).ok().filter(has_the_inode);
    root::open(&by_range).ok().or_else(by_name).or_else(executable).or_else(by_our_name)
}

/// The kernel maps the same into every process (of the same word size), us included.
fn own_vdso() -> Option<Rc<Module>> {
    image(&own_vdso_bytes()?).map(Rc::new)
}

/// A module that is no file.
fn image(bytes: &[u8]) -> Option<Module> {
    let mut file: File = rustix::fs::memfd_create("ioscope-vdso", MemfdFlags::CLOEXEC).ok()?.into();
    file.write_all(bytes).ok()?;
    contained(|| Module::new(file, Path::new("[vdso]"), &[]))?.ok()
}

fn own_vdso_bytes() -> Option<Vec<u8>> {
    let maps = fs::read_to_string("/proc/self/maps").ok()?;
    let mapping = maps::executable(&maps).into_iter().find(|mapping| mapping.backing == Backing::Vdso)?;
    let length = mapping.range.end - mapping.range.start;
    let mut image = vec![0; usize::try_from(length).ok()?];
    File::open("/proc/self/mem").ok()?.read_exact_at(&mut image, mapping.range.start).ok()?;
    Some(image)
}

impl Identity {
    fn read(pid: u32) -> Option<Self> {
        let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
        Self::parse(&String::from_utf8_lossy(&stat))
    }

    fn parse(stat: &str) -> Option<Self> {
        // Whatever is in the name, its end is the last bracket; the third field comes next.
        let fields: Vec<_> = stat[stat.rfind(')')? + 1..].split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).map(|field| (*field).to_owned());
        Some(Self([field(22)?, field(26)?, field(28)?]))
    }
}

/// The number that a process has in its own namespace.
fn own_number(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let numbers = status.lines().find_map(|line| line.strip_prefix("NStgid:"))?;
    numbers.split_ascii_whitespace().next_back()?.parse().ok()
}

fn find(mapped: &[Mapped], address: u64) -> Option<usize> {
    maps::find(mapped, |mapped| &mapped.mapping.range, address)
}

/// No name, but a file: of an ELF file the offset is an address as the linker numbered it.
fn offset_in(label: Option<Arc<str>>, offset: u64, address: u64) -> Frame {
    let Some(label) = label else { return unnamed(address, Origin::User) };
    let file = label.rsplit('/').next().unwrap_or(&label);
    let name = format!("{file}+{offset:#x}").into();
    Frame { name, module: Some(label), location: None, inlined: false, origin: Origin::User }
}

/// Nothing is known but the address.
pub(super) fn unnamed(address: u64, origin: Origin) -> Frame {
    Frame { name: format!("{address:#x}").into(), module: None, location: None, inlined: false, origin }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_by_its_start_its_code_and_its_stack() {
        let stat = "42 (a) b) S 1 42 42 0 -1 4194560 0 0 0 0 0 0 0 0 20 0 1 0 777 0 0 0 4096 8192 9999 0";
        assert_eq!(
            Identity::parse(stat),
            Some(Identity(["777".to_owned(), "4096".to_owned(), "9999".to_owned()]))
        );
        assert_eq!(Identity::parse("42 (a"), None);
        assert_eq!(Identity::parse("42 (a) S 1"), None);
    }

    /// What a traced program has on its disk may be anything. Here, a byte of a file is another, each third
    /// one in turn.
    #[test]
    fn broken_files_cost_names_and_nothing_else() {
        let whole = own_vdso_bytes().unwrap();
        let module = image(&whole).unwrap();
        let range = 0..whole.len() as u64;
        let start = module.start(&range).unwrap();
        let named: Vec<u64> = range
            .clone()
            .step_by(64)
            .map(|at| start + at)
            .filter(|at| !module.names(*at).is_empty())
            .collect();
        assert!(named.len() > 3, "the vdso has functions");
        let registers = |at: u64| Registers { ip: at, sp: 0x1000, fp: 0x1010, lr: at };
        let mut opened = 0;
        for place in (0..whole.len()).step_by(3) {
            // Where nothing is there is nothing to break.
            if whole[place.saturating_sub(8)..(place + 8).min(whole.len())].iter().all(|byte| *byte == 0) {
                continue;
            }
            let mut broken = whole.clone();
            broken[place] = !broken[place];
            let Some(module) = image(&broken).map(Rc::new) else { continue };
            opened += 1;
            for at in named.iter().step_by(named.len() / 3) {
                module.names(*at);
                let mut space = One { module: module.clone(), range: range.clone() };
                let found = Walker::<super::super::unwind::Native>::default().walk(
                    &registers(*at),
                    1 << 47,
                    &[0x55; 256],
                    &mut space,
                );
                assert!(!found.addresses.is_empty());
            }
        }
        assert!(opened > 300, "{opened}");
    }

    /// A file that is mapped from address 0 on.
    struct One {
        module: Rc<Module>,
        range: std::ops::Range<u64>,
    }

    impl Space for One {
        fn code(&mut self, address: u64) -> Option<Code> {
            let code = || Code { range: self.range.clone(), module: Some((self.module.clone(), 0)) };
            self.range.contains(&address).then(code)
        }

        fn instructions(&mut self, _: u64, _: &mut [u8]) -> bool {
            false
        }
    }

    #[test]
    fn a_process_that_is_gone_is_an_error_with_its_number() {
        let error = Process::open(u32::MAX).err().unwrap();
        assert_eq!(error.to_string(), format!("there is no process {}", u32::MAX));
    }
}
