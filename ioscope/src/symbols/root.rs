//! Files as a process sees them: in its mount namespace, below its root directory.
//!
//! What a program has on its disk is its own affair: a path is looked up with the process's root as root, so that no link in it
//! leads out (`RESOLVE_IN_ROOT`, since Linux 5.6), and nothing but a regular file is opened.

use std::{fs::File, io, os::fd::OwnedFd, path::Path};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};

/// A root directory. It stays what it is when the process has ended.
#[derive(Debug)]
pub(super) struct Root(OwnedFd);

impl Root {
    /// The root of a process. Takes `CAP_SYS_PTRACE` for processes of others.
    pub(super) fn of(pid: u32) -> io::Result<Self> {
        Self::open_directory(Path::new(&format!("/proc/{pid}/root")))
    }

    /// Our own.
    pub(super) fn own() -> io::Result<Self> {
        Self::open_directory(Path::new("/"))
    }

    fn open_directory(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::openat(CWD, path, flags, Mode::empty())?))
    }

    /// Opens a regular file by its absolute path.
    pub(super) fn open(&self, path: &Path) -> io::Result<File> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        regular(openat2(&self.0, path, reading(), Mode::empty(), resolve)?.into())
    }
}

/// Opens a regular file by a path of ours.
pub(super) fn open(path: &Path) -> io::Result<File> {
    regular(rustix::fs::openat(CWD, path, reading(), Mode::empty())?.into())
}

/// Without `NONBLOCK` the opening of a FIFO would wait for a writer.
const fn reading() -> OFlags {
    OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY)
}

fn regular(file: File) -> io::Result<File> {
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Read, os::unix::fs::symlink};

    use super::*;

    #[test]
    fn no_link_leads_out_of_the_root() {
        let directory = tempfile::tempdir().unwrap();
        let jail = directory.path().join("jail");
        fs::create_dir_all(jail.join("etc")).unwrap();
        fs::write(jail.join("etc/inside"), "inside").unwrap();
        fs::write(directory.path().join("outside"), "outside").unwrap();
        symlink("/etc/inside", jail.join("absolute")).unwrap();
        symlink("../../outside", jail.join("etc/up")).unwrap();

        let root = Root::open_directory(&jail).unwrap();
        for path in ["/etc/inside", "/absolute"] {
            let mut text = String::new();
            root.open(Path::new(path)).unwrap().read_to_string(&mut text).unwrap();
            assert_eq!(text, "inside");
        }
        assert!(root.open(Path::new("/etc/up")).is_err());
        assert!(root.open(Path::new("/../outside")).is_err());
    }

    #[test]
    fn what_is_no_regular_file_is_not_opened_and_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let fifo = directory.path().join("fifo");
        rustix::fs::mknodat(CWD, &fifo, rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();
        let root = Root::own().unwrap();
        assert!(root.open(&fifo).is_err());
        assert!(open(&fifo).is_err());
        assert!(root.open(directory.path()).is_err());
        assert!(open(Path::new("/dev/null")).is_err());
    }
}
