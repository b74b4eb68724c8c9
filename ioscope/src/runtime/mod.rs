//! Recognises the event-loop runtime of a process (libuv, asyncio, tokio, Go, …) from /proc facts.
//!
//! Two halves that meet only here: `facts`, `executable` and `identity` gather what /proc says
//! and judge nothing; `table` judges by a table of rules and reads nothing. A process that vanishes, a
//! kernel thread, a deleted executable or a lack of permission is no error: there are fewer facts then,
//! and often no answer.

mod executable;
mod facts;
mod identity;
mod table;
#[cfg(test)]
mod table_tests;

use std::collections::HashMap;
use std::path::PathBuf;

pub use executable::{Crate, ElfClass, ExecutableFacts, Marker, Strings};
pub use facts::ProcessFacts;
pub use identity::ProcessIdentity;
pub use table::{PollerSharing, Runtime, StallPreset, recognise, recognise_thread};

use executable::{Executable, FileKey};

/// How many executables are remembered; past it all are forgotten and looked at again.
const CACHED_EXECUTABLES: usize = 1024;

/// Gathers facts and recognises runtimes. What it read out of an executable it remembers by that file's
/// device, inode, size and modification time, so that a hundred workers cost one look.
#[derive(Debug)]
pub struct Recogniser {
    proc: PathBuf,
    executables: HashMap<FileKey, ExecutableFacts>,
}

impl Default for Recogniser {
    fn default() -> Self {
        Self::new("/proc")
    }
}

impl Recogniser {
    /// A recogniser that reads this proc file system: `/proc`, or a directory that looks like it.
    pub fn new(proc: impl Into<PathBuf>) -> Self {
        Self { proc: proc.into(), executables: HashMap::new() }
    }

    /// The runtime of a process; `None` when nothing proves one.
    pub fn recognise(&mut self, pid: u32) -> Option<Runtime> {
        recognise(&self.facts(pid))
    }

    /// What [`recognise`] and [`recognise_thread`] judge by. The strings of the executable are read only
    /// when the cheaper facts leave a question that they could answer.
    pub fn facts(&mut self, pid: u32) -> ProcessFacts {
        let directory = self.proc.join(pid.to_string());
        let mut facts = ProcessFacts::gather(&directory);
        let Some(executable) = Executable::open(&directory.join("exe")) else { return facts };

        let known = self.executables.get(executable.key());
        facts.executable_facts = known.cloned().unwrap_or_else(|| executable.facts());
        if facts.executable_facts.strings.is_none() && table::strings_could_matter(&facts) {
            facts.executable_facts.strings = Some(executable.strings());
        } else if known.is_some() {
            return facts;
        }
        if self.executables.len() >= CACHED_EXECUTABLES {
            self.executables.clear();
        }
        self.executables.insert(*executable.key(), facts.executable_facts.clone());
        facts
    }

    /// What a screen shows of a process; `None` when there is no such process.
    pub fn identity(&self, pid: u32) -> Option<ProcessIdentity> {
        ProcessIdentity::read(&self.proc.join(pid.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    use super::*;

    fn process(root: &Path, pid: u32, executable: &Path, comm: &str) {
        let directory = root.join(pid.to_string());
        let task = directory.join("task").join(pid.to_string());
        fs::create_dir_all(&task).unwrap();
        fs::write(task.join("comm"), comm).unwrap();
        symlink(executable, directory.join("exe")).unwrap();
    }

    #[test]
    fn an_executable_is_read_once_and_its_strings_only_when_asked_for() {
        let root = tempfile::tempdir().unwrap();
        let program = std::env::current_exe().unwrap();
        process(root.path(), 1, &program, "tokio-rt-worker\n");
        process(root.path(), 2, &program, "server\n");
        process(root.path(), 3, &program, "server\n");
        let mut recogniser = Recogniser::new(root.path());

        assert_eq!(recogniser.recognise(1).map(|found| found.name), Some("tokio"));
        assert!(recogniser.executables.values().all(|known| known.strings.is_none()));
        let read = recogniser.facts(2);
        assert!(read.executable_facts.strings.is_some());
        assert_eq!(recogniser.facts(3), read);
        assert_eq!(recogniser.executables.len(), 1);
    }

    #[test]
    fn a_changed_executable_is_another() {
        let root = tempfile::tempdir().unwrap();
        let program = root.path().join("program");
        fs::write(&program, b"\x7fELF\x02").unwrap();
        process(root.path(), 1, &program, "program\n");
        let mut recogniser = Recogniser::new(root.path());
        assert_eq!(recogniser.facts(1).executable_facts.class, Some(ElfClass::Elf64));
        fs::write(&program, b"\x7fELF\x01, longer").unwrap();
        assert_eq!(recogniser.facts(1).executable_facts.class, Some(ElfClass::Elf32));
    }

    #[test]
    fn what_is_not_there_is_no_error() {
        let root = tempfile::tempdir().unwrap();
        let mut recogniser = Recogniser::new(root.path());
        assert_eq!(recogniser.recognise(1), None);
        assert_eq!(recogniser.identity(1), None);
        process(root.path(), 1, Path::new("/opt/gone (deleted)"), "gone\n");
        assert_eq!(recogniser.recognise(1), None);
        assert_eq!(recogniser.facts(1).executable.as_deref(), Some("/opt/gone"));
    }
}
