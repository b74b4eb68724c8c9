//! System call numbers and names, of each architecture.
//!
//! The probes are handed the numbers as constants, so that one object serves every architecture; a screen turns
//! the number of the call that a thread sleeps in back into its name. The tables of all architectures are
//! always there, so that a recording made on one can be looked at on another.

mod names;

use ioscope_common::WaitCall;

use super::arch::Arch;

/// System calls with consecutive numbers: the first, and their names.
type Run = (u32, &'static [&'static str]);

const fn runs(arch: Arch) -> &'static [Run] {
    match arch {
        Arch::X86_64 => &[(0, names::X86_64), (424, names::COMMON_424)],
        Arch::Aarch64 => &[(0, names::AARCH64), (260, names::AARCH64_260), (424, names::COMMON_424)],
    }
}

/// The name of a system call; `None` for a number that this table does not have.
pub fn name(arch: Arch, number: u32) -> Option<&'static str> {
    runs(arch).iter().find_map(|(first, names)| names.get(number.checked_sub(*first)? as usize).copied())
}

/// The number of a system call; `None` where the architecture lacks it.
pub fn number(arch: Arch, name: &str) -> Option<u32> {
    all(arch).find_map(|(number, known)| (known == name).then_some(number))
}

/// Every system call of an architecture, by rising number.
pub fn all(arch: Arch) -> impl Iterator<Item = (u32, &'static str)> {
    runs(arch).iter().flat_map(|&(first, names)| (first..).zip(names.iter().copied()))
}

/// The numbers that the probes tell system calls apart by.
///
/// `None` is a call that the architecture lacks, not one that the running kernel is too old for: a number that
/// a kernel does not know is never seen there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyscallNumbers {
    /// The wait calls, each at [`WaitCall::index`].
    pub wait: [Option<u32>; WaitCall::COUNT],
    /// `restart_syscall`: a wait that a signal interrupted goes on under this number.
    pub restart_syscall: u32,
    /// `rt_sigreturn`: the end of a signal handler, which returns into the code that was interrupted.
    pub rt_sigreturn: u32,
    /// `futex`.
    pub futex: u32,
    /// `futex_wait`, since Linux 6.7.
    pub futex_wait: u32,
    /// `futex_waitv`, since Linux 5.16.
    pub futex_waitv: u32,
    /// `futex_wake`, since Linux 6.7.
    pub futex_wake: u32,
    /// `futex_requeue`, since Linux 6.7.
    pub futex_requeue: u32,
}

impl SyscallNumbers {
    /// Those of an architecture.
    pub fn of(arch: Arch) -> Self {
        let wait = WaitCall::ALL.map(|call| number(arch, call.name()));
        // Numbers that every architecture has; a test holds these against the tables.
        let (restart_syscall, rt_sigreturn, futex) = match arch {
            Arch::X86_64 => (219, 15, 202),
            Arch::Aarch64 => (128, 139, 98),
        };
        Self {
            wait,
            restart_syscall,
            rt_sigreturn,
            futex,
            futex_wait: 455,
            futex_waitv: 449,
            futex_wake: 454,
            futex_requeue: 456,
        }
    }

    /// The number of a wait call.
    pub fn wait_call(&self, call: WaitCall) -> Option<u32> {
        self.wait[call.index()]
    }

    /// The wait call with this number.
    pub fn wait_call_of(&self, number: u32) -> Option<WaitCall> {
        WaitCall::ALL.into_iter().find(|call| self.wait_call(*call) == Some(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_calls_have_their_numbers() {
        let of = |arch| SyscallNumbers::of(arch).wait;
        let x86_64 = [232, 281, 441, 7, 271, 23, 270, 426, 208, 333];
        assert_eq!(of(Arch::X86_64), x86_64.map(Some));
        let aarch64 =
            [None, Some(22), Some(441), None, Some(73), None, Some(72), Some(426), Some(4), Some(292)];
        assert_eq!(of(Arch::Aarch64), aarch64);
    }

    #[test]
    fn a_number_leads_back_to_its_wait_call() {
        for arch in Arch::ALL {
            let numbers = SyscallNumbers::of(arch);
            for call in WaitCall::ALL {
                if let Some(number) = numbers.wait_call(call) {
                    assert_eq!(numbers.wait_call_of(number), Some(call));
                    assert_eq!(name(arch, number), Some(call.name()));
                }
            }
            assert_eq!(numbers.wait_call_of(9_999), None);
        }
    }

    #[test]
    fn the_other_numbers_are_those_of_the_tables() {
        for arch in Arch::ALL {
            let numbers = SyscallNumbers::of(arch);
            for (number, call) in [
                (numbers.restart_syscall, "restart_syscall"),
                (numbers.rt_sigreturn, "rt_sigreturn"),
                (numbers.futex, "futex"),
                (numbers.futex_wait, "futex_wait"),
                (numbers.futex_waitv, "futex_waitv"),
                (numbers.futex_wake, "futex_wake"),
                (numbers.futex_requeue, "futex_requeue"),
            ] {
                assert_eq!(name(arch, number), Some(call), "{arch}");
            }
        }
    }

    #[test]
    fn names_and_numbers_are_one_to_one() {
        for arch in Arch::ALL {
            let mut last = None;
            for (at, call) in all(arch) {
                assert!(last < Some(at), "{arch} {call}");
                last = Some(at);
                assert_eq!(name(arch, at), Some(call));
                assert_eq!(number(arch, call), Some(at), "{arch} {call}");
            }
            assert!(last >= Some(470), "{arch} ends at {last:?}");
        }
        assert_eq!(name(Arch::X86_64, 400), None);
        assert_eq!(name(Arch::Aarch64, 250), None);
        assert_eq!(name(Arch::X86_64, u32::MAX), None);
        assert_eq!(number(Arch::Aarch64, "epoll_wait"), None);
    }

    #[test]
    fn the_host_agrees() {
        let Some(arch) = Arch::host() else { return };
        for (number, call) in [
            (libc::SYS_read, "read"),
            (libc::SYS_epoll_pwait, "epoll_pwait"),
            (libc::SYS_epoll_pwait2, "epoll_pwait2"),
            (libc::SYS_ppoll, "ppoll"),
            (libc::SYS_pselect6, "pselect6"),
            (libc::SYS_io_uring_enter, "io_uring_enter"),
            (libc::SYS_io_getevents, "io_getevents"),
            (libc::SYS_restart_syscall, "restart_syscall"),
            (libc::SYS_rt_sigreturn, "rt_sigreturn"),
            (libc::SYS_futex, "futex"),
            (libc::SYS_futex_waitv, "futex_waitv"),
            (libc::SYS_clock_nanosleep, "clock_nanosleep"),
            (libc::SYS_kexec_file_load, "kexec_file_load"),
            (libc::SYS_mseal, "mseal"),
        ] {
            assert_eq!(name(arch, u32::try_from(number).unwrap()), Some(call));
        }
        #[cfg(target_arch = "x86_64")]
        for (number, call) in
            [(libc::SYS_epoll_wait, "epoll_wait"), (libc::SYS_poll, "poll"), (libc::SYS_select, "select")]
        {
            assert_eq!(name(arch, u32::try_from(number).unwrap()), Some(call));
        }
    }

    /// The C headers of the machine, where it has them: each of their numbers has its name here.
    #[test]
    fn the_headers_agree() {
        for (arch, path) in [
            (Arch::X86_64, "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
            (Arch::Aarch64, "/usr/include/aarch64-linux-gnu/asm/unistd_64.h"),
        ] {
            let Ok(header) = std::fs::read_to_string(path) else {
                eprintln!("SKIPPED for {arch}: no {path}");
                continue;
            };
            let mut seen = 0;
            for line in header.lines() {
                let Some(define) = line.strip_prefix("#define __NR_") else { continue };
                let Some((call, number)) = define.split_once(char::is_whitespace) else { continue };
                let Ok(at) = number.trim().parse() else { continue };
                // Headers newer than the table may know more, at its end only.
                if at < 473 {
                    assert_eq!(name(arch, at), Some(call));
                }
                seen += 1;
            }
            assert!(seen > 300, "{path} has {seen} numbers");
        }
    }
}
