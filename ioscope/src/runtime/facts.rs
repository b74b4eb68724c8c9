//! Gathers what /proc says of a process that could tell its runtime: names of the executable, libraries,
//! threads and open files. It judges nothing.
//!
//! Every list has a limit, so that a process with a million mappings or descriptors costs milliseconds;
//! what proves a runtime comes early in all of them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::executable::ExecutableFacts;

/// How much of `maps` is read: some 80,000 mappings. The kernel holds the process's memory map locked meanwhile.
const MOST_MAPS_BYTES: u64 = 8 << 20;

/// How many threads' names are read; the oldest come first.
const MOST_THREADS: usize = 512;

/// How many descriptors are looked at; the lowest come first, and a runtime opens its own at its start.
const MOST_DESCRIPTORS: usize = 1024;

/// What the kernel appends to the path of a file that was deleted.
const DELETED: &str = " (deleted)";

/// What /proc says of a process. An empty field: nothing there, or no permission to see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcessFacts {
    /// The executable's path, as the process's own mount namespace names it.
    pub executable: Option<String>,
    /// Paths of the shared libraries mapped.
    pub libraries: BTreeSet<String>,
    /// The names of the threads, at most 15 bytes each.
    pub thread_names: BTreeSet<String>,
    /// Paths of the Java archives open.
    pub archives: BTreeSet<String>,
    /// Whether a descriptor is an epoll instance.
    pub has_epoll: bool,
    /// What the executable file itself says.
    pub executable_facts: ExecutableFacts,
}

impl ProcessFacts {
    /// Gathers all but [`Self::executable_facts`] from a process's directory in /proc.
    pub(super) fn gather(directory: &Path) -> Self {
        let mut facts = Self {
            executable: executable(directory),
            libraries: libraries(directory),
            thread_names: thread_names(directory),
            ..Self::default()
        };
        for target in descriptors(directory) {
            if target == "anon_inode:[eventpoll]" {
                facts.has_epoll = true;
            } else if has_extension(&target, "jar") {
                facts.archives.insert(target);
            }
        }
        facts
    }

    /// The executable's file name.
    pub fn executable_name(&self) -> Option<&str> {
        self.executable.as_deref().map(file_name)
    }
}

/// The last part of a path.
pub(super) fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn executable(directory: &Path) -> Option<String> {
    link(&directory.join("exe"))
}

fn link(path: &Path) -> Option<String> {
    let target = fs::read_link(path).ok()?.to_string_lossy().into_owned();
    Some(target.strip_suffix(DELETED).map(str::to_owned).unwrap_or(target))
}

fn libraries(directory: &Path) -> BTreeSet<String> {
    let mut libraries = BTreeSet::new();
    let Ok(file) = File::open(directory.join("maps")) else { return libraries };
    let mut reader = BufReader::with_capacity(64 << 10, file.take(MOST_MAPS_BYTES));
    let mut line = Vec::new();
    // Reading fails with ESRCH once the process is gone: what was read stays.
    while matches!(reader.read_until(b'\n', &mut line), Ok(1..)) {
        let text = String::from_utf8_lossy(&line);
        if let Some(path) = mapped_library(&text)
            && !libraries.contains(path)
        {
            libraries.insert(path.to_owned());
        }
        line.clear();
    }
    libraries
}

/// The library's path in a line of maps: `start-end perms offset device inode   /usr/lib/libuv.so.1`.
fn mapped_library(line: &str) -> Option<&str> {
    // None of the fields before a path has a slash; a name like `[anon: a/b]` does not end in one of a library.
    let path = line.get(line.find(" /")? + 1..)?.trim_end_matches('\n');
    let path = path.strip_suffix(DELETED).unwrap_or(path);
    let name = file_name(path);
    (has_extension(name, "so") || name.contains(".so.")).then_some(path)
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path).extension().is_some_and(|found| found == extension)
}

fn thread_names(directory: &Path) -> BTreeSet<String> {
    let Ok(tasks) = fs::read_dir(directory.join("task")) else { return BTreeSet::new() };
    let name = |task: fs::DirEntry| name_of(&task.path());
    tasks.flatten().take(MOST_THREADS).filter_map(name).collect()
}

/// The name of a process or a thread, from its directory.
pub(super) fn name_of(directory: &Path) -> Option<String> {
    let name = fs::read(directory.join("comm")).ok()?;
    Some(String::from_utf8_lossy(name.strip_suffix(b"\n").unwrap_or(&name)).into_owned())
}

fn descriptors(directory: &Path) -> Vec<String> {
    let Ok(descriptors) = fs::read_dir(directory.join("fd")) else { return Vec::new() };
    let is_number = |entry: &fs::DirEntry| entry.file_name().as_bytes().iter().all(u8::is_ascii_digit);
    let numbered = descriptors.flatten().filter(is_number).take(MOST_DESCRIPTORS);
    numbered.filter_map(|entry| link(&entry.path())).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn a_proc_directory_is_read() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("42");
        fs::create_dir_all(directory.join("fd")).unwrap();
        for (tid, name) in [("42", "server\n"), ("43", "tokio-rt-worker\n"), ("44", "tokio-rt-worker\n")] {
            fs::create_dir_all(directory.join("task").join(tid)).unwrap();
            fs::write(directory.join("task").join(tid).join("comm"), name).unwrap();
        }
        symlink("/opt/app/server (deleted)", directory.join("exe")).unwrap();
        symlink("anon_inode:[eventpoll]", directory.join("fd/3")).unwrap();
        symlink("/usr/share/java/netty-common.jar", directory.join("fd/4")).unwrap();
        symlink("socket:[1]", directory.join("fd/5")).unwrap();
        fs::write(
            directory.join("maps"),
            "55d0-55d1 r--p 00000000 fe:00 1   /opt/app/server\n\
             55d1-55d2 rw-p 00000000 00:00 0   [heap]\n\
             7f00-7f01 r--p 00000000 fe:00 2   /usr/lib/libuv.so.1.0.0\n\
             7f01-7f02 r-xp 00001000 fe:00 2   /usr/lib/libuv.so.1.0.0\n\
             7f02-7f03 r-xp 00001000 fe:00 3   /venv/with a space/uvloop/loop.cpython-311-x86_64-linux-gnu.so (deleted)\n\
             7f03-7f04 r--p 00000000 fe:00 4   /usr/lib/locale/locale-archive\n\
             7f04-7f05 rw-p 00000000 00:00 0 \n\
             7f05-7f06 rw-p 00000000 00:00 0   [anon:x.so]\n",
        )
        .unwrap();

        let facts = ProcessFacts::gather(&directory);
        assert_eq!(facts.executable.as_deref(), Some("/opt/app/server"));
        assert_eq!(facts.executable_name(), Some("server"));
        assert_eq!(
            facts.libraries,
            set(&[
                "/usr/lib/libuv.so.1.0.0",
                "/venv/with a space/uvloop/loop.cpython-311-x86_64-linux-gnu.so"
            ])
        );
        assert_eq!(facts.thread_names, set(&["server", "tokio-rt-worker"]));
        assert_eq!(facts.archives, set(&["/usr/share/java/netty-common.jar"]));
        assert!(facts.has_epoll);
    }

    #[test]
    fn no_process_means_no_facts() {
        assert_eq!(ProcessFacts::gather(Path::new("/nonexistent")), ProcessFacts::default());
    }

    #[test]
    fn a_kernel_thread_has_a_name_and_nothing_else() {
        // kthreadd; a container hides it.
        let directory = Path::new("/proc/2");
        if name_of(directory).as_deref() != Some("kthreadd") {
            return;
        }
        let facts = ProcessFacts::gather(directory);
        assert_eq!(facts, ProcessFacts { thread_names: set(&["kthreadd"]), ..ProcessFacts::default() });
    }

    #[test]
    fn this_very_process_is_seen() {
        let thread = std::thread::Builder::new().name("facts-test-name".to_owned());
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let thread = thread.spawn(move || stopped.recv()).unwrap();
        let facts = loop {
            // The name is set by the new thread itself, a moment after it starts.
            let facts = ProcessFacts::gather(Path::new("/proc/self"));
            if facts.thread_names.contains("facts-test-name") {
                break facts;
            }
            std::thread::yield_now();
        };
        drop(stop);
        thread.join().unwrap().unwrap_err();

        let executable = std::env::current_exe().unwrap();
        assert_eq!(facts.executable.as_deref(), executable.to_str());
        assert!(facts.libraries.iter().any(|path| file_name(path).starts_with("libc.so")), "{facts:?}");
    }
}
