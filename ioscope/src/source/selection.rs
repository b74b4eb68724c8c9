//! From what the user asked for to what is traced: process numbers, names, cgroups.

use std::{
    fs,
    io::ErrorKind,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use ioscope_common::{COMM_LEN, CommPatterns};

use crate::{
    probe::{MAX_CGROUPS, Targets},
    runtime::{ElfClass, Recogniser},
};

/// What the user asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// Processes.
    pub pids: Vec<u32>,
    /// Globs over process names.
    pub comm: Vec<String>,
    /// Cgroups: paths in the cgroup2 file system, or below its mount point.
    pub cgroups: Vec<PathBuf>,
    /// Every process.
    pub all: bool,
    /// Children too.
    pub follow: bool,
}

/// Why a selection cannot be traced.
#[derive(Debug, thiserror::Error)]
pub enum SelectionError {
    /// There is no such process.
    #[error("there is no process {0}")]
    NoProcess(u32),
    /// A thread's number where a process's is wanted.
    #[error("{tid} is a thread of process {pid}: trace it with --pid {pid}")]
    Thread {
        /// As given.
        tid: u32,
        /// Its process.
        pid: u32,
    },
    /// A thread of the kernel has no wait calls.
    #[error("process {0} ({1}) is a thread of the kernel: it makes no system calls")]
    KernelThread(u32, String),
    /// Numbers and arguments of 32-bit system calls mean something else.
    #[error("process {0} ({1}) is a 32-bit program: ioscope traces 64-bit programs only")]
    ThirtyTwoBit(u32, String),
    /// There is no cgroup2 file system.
    #[error("no cgroup2 file system is mounted: --cgroup needs one (mount -t cgroup2 none DIRECTORY)")]
    NoCgroupFileSystem,
    /// The path is no cgroup.
    #[error("{path} is no cgroup of version 2: {reason}")]
    Cgroup {
        /// As looked for.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// More cgroups than fit.
    #[error("--cgroup can be given {MAX_CGROUPS} times at most: name a common parent instead")]
    TooManyCgroups,
    /// A glob over names cannot be used.
    #[error("--comm {glob}: {reason}")]
    Comm {
        /// As given.
        glob: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// /proc cannot be read.
    #[error("/proc cannot be read: {0}")]
    Proc(#[source] std::io::Error),
}

impl Selection {
    /// Finds the processes.
    ///
    /// # Errors
    /// When what was asked for does not exist or cannot be traced.
    pub fn resolve(&self) -> Result<Targets, SelectionError> {
        let mut targets =
            Targets { comm: self.comm.clone(), all: self.all, follow: self.follow, ..Targets::default() };
        for pid in &self.pids {
            check(*pid)?;
            targets.processes.push(*pid);
        }
        if !self.comm.is_empty() {
            let patterns = compile(&self.comm)?;
            targets.processes.extend(processes()?.filter(|pid| is_called(*pid, &patterns)));
        }
        if self.cgroups.len() > MAX_CGROUPS {
            return Err(SelectionError::TooManyCgroups);
        }
        for path in &self.cgroups {
            let path = find_cgroup(path)?;
            // A cgroup's id is its directory's inode number: kernfs_ino, include/linux/kernfs.h.
            let id = fs::metadata(&path).map_err(|error| cgroup_error(&path, &error))?.ino();
            targets.cgroups.push(id);
            members(&path, &mut targets.processes)?;
        }
        let own = std::process::id();
        targets.processes.retain(|pid| *pid != own);
        targets.processes.sort_unstable();
        targets.processes.dedup();
        Ok(targets)
    }
}

fn check(pid: u32) -> Result<(), SelectionError> {
    let Some(identity) = Recogniser::default().identity(pid) else {
        return Err(SelectionError::NoProcess(pid));
    };
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let leader = status
        .lines()
        .find_map(|line| line.strip_prefix("Tgid:"))
        .and_then(|leader| leader.trim().parse().ok());
    match leader {
        Some(leader) if leader != pid => Err(SelectionError::Thread { tid: pid, pid: leader }),
        _ if identity.is_kernel_thread => Err(SelectionError::KernelThread(pid, identity.comm)),
        _ if identity.elf_class == Some(ElfClass::Elf32) => {
            Err(SelectionError::ThirtyTwoBit(pid, identity.comm))
        }
        _ => Ok(()),
    }
}

/// All processes.
fn processes() -> Result<impl Iterator<Item = u32>, SelectionError> {
    Ok(fs::read_dir("/proc")
        .map_err(SelectionError::Proc)?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()))
}

fn is_called(pid: u32, patterns: &CommPatterns) -> bool {
    let Ok(name) = fs::read(format!("/proc/{pid}/comm")) else { return false };
    let mut comm = [0; COMM_LEN];
    let name = name.strip_suffix(b"\n").unwrap_or(&name);
    for (to, from) in comm.iter_mut().zip(name) {
        *to = *from;
    }
    patterns.matches(&comm)
}

/// Compiles globs over names as the probes do.
fn compile(globs: &[String]) -> Result<CommPatterns, SelectionError> {
    let mut patterns = CommPatterns::NONE;
    for glob in globs {
        patterns.add(glob.as_bytes()).map_err(|error| SelectionError::Comm {
            glob: glob.clone(),
            reason: match error {
                ioscope_common::PatternError::TooLong => "all patterns together have 63 characters at most",
                ioscope_common::PatternError::Class => "a [ without its ], or nothing in between",
            },
        })?;
    }
    Ok(patterns)
}

fn cgroup_error(path: &Path, error: &std::io::Error) -> SelectionError {
    let reason =
        if error.kind() == ErrorKind::NotFound { "it does not exist".to_owned() } else { error.to_string() };
    SelectionError::Cgroup { path: path.to_owned(), reason }
}

/// The directory of a cgroup, given as a path or as a path below the mount point.
fn find_cgroup(given: &Path) -> Result<PathBuf, SelectionError> {
    let root = mount_point().ok_or(SelectionError::NoCgroupFileSystem)?;
    let path = if given.starts_with(&root) {
        given.to_owned()
    } else {
        root.join(given.strip_prefix("/").unwrap_or(given))
    };
    if path.join("cgroup.procs").exists() {
        return Ok(path);
    }
    fs::metadata(&path).map_err(|error| cgroup_error(&path, &error))?;
    Err(SelectionError::Cgroup { path, reason: "it has no cgroup.procs".to_owned() })
}

fn mount_point() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ').skip(1);
        let (path, kind) = (fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(path))
    })
}

/// The processes in a cgroup and below.
fn members(path: &Path, processes: &mut Vec<u32>) -> Result<(), SelectionError> {
    let list = fs::read_to_string(path.join("cgroup.procs")).map_err(|error| cgroup_error(path, &error))?;
    processes.extend(list.lines().filter_map(|line| line.parse::<u32>().ok()).filter(|pid| *pid != 0));
    for entry in fs::read_dir(path).map_err(|error| cgroup_error(path, &error))?.flatten() {
        // A cgroup that is removed meanwhile has no members.
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let _ = members(&entry.path(), processes);
        }
    }
    Ok(())
}
