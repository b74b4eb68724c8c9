//! The guest's file system: what is packed for it, and where it lies.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::BufWriter,
    os::unix::fs::PermissionsExt as _,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::{arch::Arch, cpio, elf::Libraries};

/// What lies at a path.
enum Entry {
    Directory(u32),
    /// A file of this machine.
    File(PathBuf),
    Text(String),
    Link(String),
    CharacterDevice(u32, (u32, u32)),
}

/// A file system in the making.
pub(super) struct Image {
    /// Where the guest's programs and libraries come from: `/`, or another machine's.
    root: PathBuf,
    libraries: Libraries,
    entries: BTreeMap<PathBuf, Entry>,
}

impl Image {
    /// One with what every machine has; the rest comes from `root`.
    pub(super) fn new(root: &Path, arch: Arch) -> Self {
        let libraries = Libraries::new(root, arch);
        let mut image = Self { root: root.to_owned(), libraries, entries: BTreeMap::new() };
        for (directory, mode) in
            [("/dev", 0o755), ("/proc", 0o755), ("/sys", 0o755), ("/root", 0o700), ("/tmp", 0o1777)]
        {
            image.insert(directory, Entry::Directory(mode));
        }
        // The first process's own output, before it has mounted anything.
        image.insert("/dev/console", Entry::CharacterDevice(0o600, (5, 1)));
        image.text("/etc/passwd", "root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/sh\n".to_owned());
        image.text("/etc/group", "root:x:0:\nnogroup:x:65534:\n".to_owned());
        image
    }

    fn insert(&mut self, path: impl AsRef<Path>, entry: Entry) {
        let path = path.as_ref();
        for parent in path.ancestors().skip(1).filter(|parent| *parent != Path::new("/")) {
            self.entries.entry(parent.to_owned()).or_insert(Entry::Directory(0o755));
        }
        self.entries.insert(path.to_owned(), entry);
    }

    /// A file with this text.
    pub(super) fn text(&mut self, path: &str, text: String) {
        self.insert(path, Entry::Text(text));
    }

    /// An executable of this machine, at a path of the guest's, and what it loads.
    pub(super) fn program(&mut self, path: &Path, executable: &Path) -> Result<()> {
        self.insert(path, Entry::File(executable.to_owned()));
        for library in self.libraries.closure(executable)? {
            self.copy(Path::new(&library))?;
        }
        Ok(())
    }

    /// A program of the guest's system, by its name; tells whether there is one.
    pub(super) fn tool(&mut self, name: &str) -> Result<bool> {
        for directory in ["/usr/bin", "/bin", "/usr/sbin", "/sbin"] {
            let path = Path::new(directory).join(name);
            if self.on_host(&path).exists() {
                let file = self.copy(&path)?;
                for library in self.libraries.closure(&self.on_host(&file))? {
                    self.copy(Path::new(&library))?;
                }
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn on_host(&self, path: &Path) -> PathBuf {
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }

    /// Packs a file as it lies in the guest's system, with the links that lead to it; returns where they lead.
    fn copy(&mut self, path: &Path) -> Result<PathBuf> {
        let mut at = PathBuf::from("/");
        let mut left: Vec<PathBuf> = components(path);
        let mut links = 0;
        while let Some(next) = left.pop() {
            if next == Path::new("..") {
                at.pop();
                continue;
            }
            at.push(next);
            let host = self.on_host(&at);
            let metadata =
                fs::symlink_metadata(&host).with_context(|| format!("cannot find {}", host.display()))?;
            if metadata.is_symlink() {
                links += 1;
                if links > 40 {
                    bail!("{} leads nowhere", path.display());
                }
                let target = fs::read_link(&host)?;
                self.insert(&at, Entry::Link(target.to_string_lossy().into_owned()));
                if target.is_absolute() {
                    at = PathBuf::from("/");
                } else {
                    at.pop();
                }
                left.extend(components(&target));
            } else if metadata.is_file() {
                self.insert(&at, Entry::File(host));
            }
        }
        Ok(at)
    }

    /// Writes the archive; returns its size.
    pub(super) fn write(&self, path: &Path) -> Result<u64> {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut writer = cpio::Writer::new(BufWriter::new(file));
        for (path, entry) in &self.entries {
            let path = path.to_string_lossy();
            match entry {
                Entry::Directory(mode) => writer.directory(&path, *mode)?,
                Entry::Text(text) => writer.file(&path, 0o644, text.as_bytes())?,
                Entry::Link(target) => writer.link(&path, target)?,
                Entry::CharacterDevice(mode, number) => writer.character_device(&path, *mode, *number)?,
                Entry::File(file) => {
                    let content =
                        fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
                    let mode = fs::metadata(file)?.permissions().mode() & 0o777;
                    writer.file(&path, mode, &content)?;
                }
            }
        }
        writer.finish()?;
        Ok(fs::metadata(path)?.len())
    }
}

/// What a path is made of, last first.
fn components(path: &Path) -> Vec<PathBuf> {
    let parts = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(PathBuf::from(name)),
        Component::ParentDir => Some(PathBuf::from("..")),
        _ => None,
    });
    let mut parts: Vec<PathBuf> = parts.collect();
    parts.reverse();
    parts
}
