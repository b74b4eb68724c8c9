//! What the time of a slice went to: parts that add up to the whole.

use std::sync::Arc;

use ioscope_common::{Loop, NO_SYSCALL, OpenInterval, STOPPED, SleptIn, Slice, State};

/// What a stall's time went to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    /// The whole, in nanoseconds.
    pub duration_ns: u64,
    /// Of it, runnable and waiting for a CPU: preempted, or woken and not yet let on.
    pub preempted_ns: u64,
    /// Of it, kept off its CPU by its cgroup's limit (`cpu.max`).
    pub throttled_ns: u64,
    /// Of it, asleep outside any system call: a page fault that waits for the disk or for another
    /// thread, a stop by a signal or a debugger; or in a system call. The longest total first.
    pub blocked: Vec<BlockedIn>,
    /// Samples taken while the thread was on a CPU, in the program's own code.
    pub user_samples: u64,
    /// Samples taken while the thread was on a CPU, in the kernel.
    pub kernel_samples: u64,
}

/// How often and how long a slice was asleep in one system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockedIn {
    /// The system call's number, [`NO_SYSCALL`] (a page fault), [`STOPPED`], or [`OTHER_SYSCALLS`].
    pub syscall: i32,
    /// How many sleeps, the present one included.
    pub count: u64,
    /// Their total, in nanoseconds.
    pub total_ns: u64,
    /// The longest, in nanoseconds.
    pub max_ns: u64,
    /// The first argument of the longest of them that the probes saw: a descriptor, an address.
    pub argument: Option<u64>,
    /// What that argument stands for: a file's path, a socket with its peer, `futex 0x7f…`.
    pub resolved: Option<Arc<str>>,
}

impl BlockedIn {
    fn of(slept: &SleptIn) -> Self {
        Self {
            syscall: slept.syscall,
            count: u64::from(slept.count),
            total_ns: slept.total_ns,
            max_ns: slept.max_ns,
            argument: Some(slept.argument),
            resolved: None,
        }
    }
}

/// In place of a system call's number: those that found no place of their own.
pub const OTHER_SYSCALLS: i32 = -3;

/// What a part of a stall's time went to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// On a CPU, in the program's own code.
    User,
    /// On a CPU, in the kernel.
    Kernel,
    /// On a CPU, where no sample tells which of the two.
    OnCpu,
    /// Runnable, waiting for a CPU.
    Preempted,
    /// Kept off its CPU by its cgroup's limit.
    Throttled,
    /// Asleep in this system call, or in [`OTHER_SYSCALLS`].
    Blocked(i32),
    /// Asleep in a page fault.
    PageFault,
    /// Stopped by a signal or a debugger.
    Stopped,
}

impl Cause {
    /// Of a sleep.
    pub const fn of_sleep(syscall: i32) -> Self {
        match syscall {
            NO_SYSCALL => Self::PageFault,
            STOPPED => Self::Stopped,
            syscall => Self::Blocked(syscall),
        }
    }

    /// Its name in JSON; a system call's name is told apart from it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Kernel => "kernel",
            Self::OnCpu => "on_cpu",
            Self::Preempted => "preempted",
            Self::Throttled => "throttled",
            Self::Blocked(_) => "blocked",
            Self::PageFault => "page_fault",
            Self::Stopped => "stopped",
        }
    }
}

impl Account {
    /// Of a slice that has lasted so long. One that goes on is in the middle of something, too.
    pub(super) fn of(slice: &Slice, duration_ns: u64, now: Option<(&Loop, &OpenInterval)>) -> Self {
        let mut account = Self {
            duration_ns,
            preempted_ns: slice.ready_ns,
            throttled_ns: slice.throttled_ns,
            blocked: slice.slept_in.iter().filter(|entry| entry.count > 0).map(BlockedIn::of).collect(),
            user_samples: u64::from(slice.user_samples),
            kernel_samples: u64::from(slice.kernel_samples),
        };
        if slice.slept_elsewhere.count > 0 {
            let other = BlockedIn::of(&slice.slept_elsewhere);
            account.blocked.push(BlockedIn { syscall: OTHER_SYSCALLS, argument: None, ..other });
        }
        if let Some((machine, open)) = now {
            account.preempted_ns += open.ready_ns;
            match open.state {
                State::Ready if machine.throttled != 0 => account.throttled_ns += open.ns,
                State::Ready => account.preempted_ns += open.ns,
                State::Blocked => account.sleep(machine.syscall, machine.argument, open.ns),
                _ => {}
            }
        }
        account.blocked.sort_by_key(|blocked| std::cmp::Reverse(blocked.total_ns));
        account
    }

    /// Adds a sleep that goes on.
    fn sleep(&mut self, syscall: i32, argument: u64, ns: u64) {
        let full = self.blocked.len() >= ioscope_common::SLICE_SLEEPS;
        let known = self.blocked.iter().position(|blocked| blocked.syscall == syscall);
        let other = self.blocked.iter().position(|blocked| blocked.syscall == OTHER_SYSCALLS);
        let at = known.or_else(|| other.filter(|_| full)).unwrap_or_else(|| {
            let syscall = if full { OTHER_SYSCALLS } else { syscall };
            self.blocked.push(BlockedIn { syscall, ..BlockedIn::of(&SleptIn::FREE) });
            self.blocked.len() - 1
        });
        let blocked = &mut self.blocked[at];
        blocked.count += 1;
        blocked.total_ns += ns;
        if ns >= blocked.max_ns {
            blocked.max_ns = ns;
            blocked.argument = (blocked.syscall != OTHER_SYSCALLS).then_some(argument);
        }
    }

    /// On a CPU, in nanoseconds: what is left when all else is taken away, each part of which was
    /// measured.
    pub fn on_cpu_ns(&self) -> u64 {
        self.duration_ns.saturating_sub(self.preempted_ns + self.throttled_ns + self.blocked_ns())
    }

    /// Asleep, in nanoseconds.
    pub fn blocked_ns(&self) -> u64 {
        self.blocked.iter().map(|blocked| blocked.total_ns).sum()
    }

    /// On a CPU in the program's own code, and in the kernel, in nanoseconds: by the share of the samples,
    /// and so as exact as they are many. `None` without samples.
    pub fn user_and_kernel_ns(&self) -> Option<(u64, u64)> {
        let samples = self.user_samples + self.kernel_samples;
        if samples == 0 {
            return None;
        }
        let on_cpu = self.on_cpu_ns();
        let kernel = u128::from(on_cpu) * u128::from(self.kernel_samples) / u128::from(samples);
        let kernel = u64::try_from(kernel).unwrap_or(on_cpu);
        Some((on_cpu - kernel, kernel))
    }

    /// The parts that are not nothing, the longest first. They add up to the whole.
    pub fn parts(&self) -> Vec<(Cause, u64)> {
        let mut parts = vec![(Cause::Preempted, self.preempted_ns), (Cause::Throttled, self.throttled_ns)];
        match self.user_and_kernel_ns() {
            Some((user, kernel)) => parts.extend([(Cause::User, user), (Cause::Kernel, kernel)]),
            None => parts.push((Cause::OnCpu, self.on_cpu_ns())),
        }
        parts.extend(self.blocked.iter().map(|blocked| (Cause::of_sleep(blocked.syscall), blocked.total_ns)));
        parts.retain(|(_, ns)| *ns > 0);
        parts.sort_by_key(|(cause, ns)| (std::cmp::Reverse(*ns), *cause));
        parts
    }

    /// The longest part.
    pub fn main_cause(&self) -> Option<(Cause, u64)> {
        self.parts().into_iter().next()
    }
}
