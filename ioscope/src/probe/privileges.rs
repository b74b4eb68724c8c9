//! Giving up what is not needed any more: loading and attaching the probes takes more rights than
//! reading what they find.
//!
//! What stays, where it is held at all:
//!
//! | capability | for |
//! | --- | --- |
//! | `CAP_BPF` | every operation on a map, where `kernel.unprivileged_bpf_disabled` is set (`kernel/bpf/syscall.c`, `__sys_bpf`) |
//! | `CAP_SYS_ADMIN` | the same, only where `CAP_BPF` is not held |
//! | `CAP_SYS_PTRACE` | `/proc/PID` of other users: what a process runs, what it has open |
//! | `CAP_DAC_READ_SEARCH` | executables that belong to other users |
//! | `CAP_CHECKPOINT_RESTORE` | `/proc/PID/map_files`: libraries that were replaced while a program uses them (`fs/proc/base.c`, `proc_map_files_get_link`) |
//!
//! `CAP_PERFMON` goes: programs that are attached stay so without it. `CAP_SYSLOG` goes: whoever reads
//! `/proc/kallsyms` does so before. With `no_new_privs`, no program that ioscope may still start gets
//! anything back; a traced command was forked before, and keeps all that it was given.
//!
//! Capabilities belong to a thread. What threads are started later have no more than the one that
//! starts them.

use std::collections::HashSet;

use caps::{CapSet, Capability, CapsHashSet, errors::CapsError};

/// What reading takes.
const NEEDED: [Capability; 4] = [
    Capability::CAP_BPF,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_CHECKPOINT_RESTORE,
];

/// Why rights could not be given up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// The kernel refused to change the capabilities.
    #[error("capabilities cannot be given up: {0}")]
    Capabilities(#[from] CapsError),
    /// The kernel refused to set `no_new_privs`.
    #[error("no_new_privs cannot be set: {0}")]
    NoNewPrivileges(#[source] std::io::Error),
}

/// Gives up, for this thread, all that is not needed once the probes are attached. Files that only root
/// may write, and ports that only root may take, have to be open by then.
///
/// # Errors
/// When the kernel refuses. What could be given up until then is given up.
pub fn keep_what_reading_takes() -> Result<(), PrivilegeError> {
    let held = caps::read(None, CapSet::Permitted)?;
    let mut kept: CapsHashSet = NEEDED.into_iter().filter(|needed| held.contains(needed)).collect();
    if !kept.contains(&Capability::CAP_BPF) && held.contains(&Capability::CAP_SYS_ADMIN) {
        kept.insert(Capability::CAP_SYS_ADMIN);
    }
    keep(&kept)
}

/// Gives up, for this thread, everything.
///
/// # Errors
/// As [`keep_what_reading_takes`].
pub fn keep_nothing() -> Result<(), PrivilegeError> {
    keep(&HashSet::new())
}

fn keep(kept: &CapsHashSet) -> Result<(), PrivilegeError> {
    // The bounding set first: narrowing it takes a capability, which goes afterwards. Without that one
    // it stays as it is, and `no_new_privs` does its work.
    if caps::has_cap(None, CapSet::Effective, Capability::CAP_SETPCAP)? {
        for capability in caps::read(None, CapSet::Bounding)?.difference(kept) {
            caps::drop(None, CapSet::Bounding, *capability)?;
        }
    }
    // Kernels from before 4.3 have no ambient set; ioscope does not run there.
    caps::clear(None, CapSet::Ambient)?;
    caps::set(None, CapSet::Effective, kept)?;
    caps::set(None, CapSet::Permitted, kept)?;
    caps::clear(None, CapSet::Inheritable)?;
    rustix::thread::set_no_new_privs(true).map_err(|error| PrivilegeError::NoNewPrivileges(error.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In a thread of its own: what it gives up, others keep.
    fn in_a_thread<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
        std::thread::spawn(run).join().unwrap()
    }

    #[test]
    fn nothing_but_what_is_needed_stays() {
        let before = caps::read(None, CapSet::Permitted).unwrap();
        let after = in_a_thread(|| {
            keep_what_reading_takes().unwrap();
            assert!(rustix::thread::no_new_privs().unwrap());
            [CapSet::Permitted, CapSet::Effective].map(|set| caps::read(None, set).unwrap())
        });
        let needed: CapsHashSet = NEEDED.into_iter().filter(|needed| before.contains(needed)).collect();
        assert_eq!(after, [needed.clone(), needed]);
        assert_eq!(caps::read(None, CapSet::Permitted).unwrap(), before);
    }

    #[test]
    fn everything_can_be_given_up() {
        let after = in_a_thread(|| {
            keep_nothing().unwrap();
            [CapSet::Permitted, CapSet::Effective, CapSet::Inheritable, CapSet::Ambient]
                .map(|set| caps::read(None, set).unwrap())
        });
        assert!(after.iter().all(CapsHashSet::is_empty), "{after:?}");
    }
}
