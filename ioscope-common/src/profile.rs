//! Which system calls a loop's thread makes in its slices: how many, and how long they take. Kept for those
//! runs only that ask for it, by probes of its own at every system call.
//!
//! There is a place for every number, so that nothing has to be dropped: the calls that a program can make are
//! bounded, and those that are none (a number beyond the table) are counted together.

use crate::SYSCALLS;

/// How often a system call was made, and how long it took.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(any(test, feature = "user"), derive(Debug))]
#[repr(C)]
pub struct CallTimes {
    /// How often it returned.
    pub count: u64,
    /// From entry to return, in nanoseconds, added up.
    pub total_ns: u64,
    /// The longest, in nanoseconds.
    pub max_ns: u64,
}

impl CallTimes {
    #[inline(always)]
    const fn add(&mut self, ns: u64) {
        self.count += 1;
        self.total_ns += ns;
        if ns > self.max_ns {
            self.max_ns = ns;
        }
    }
}

/// The system calls of one loop, outside its wait calls.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct SyscallProfile {
    /// When the present call was entered, in nanoseconds of `CLOCK_MONOTONIC`; 0 in none.
    pub entered_at: u64,
    /// Its number.
    pub number: u32,
    /// Unused.
    pub reserved: u32,
    /// By the number.
    pub calls: [CallTimes; SYSCALLS],
    /// All numbers beyond.
    pub others: CallTimes,
}

impl SyscallProfile {
    /// Nothing yet.
    pub const ZERO: Self = {
        let none = CallTimes { count: 0, total_ns: 0, max_ns: 0 };
        Self { entered_at: 0, number: 0, reserved: 0, calls: [none; SYSCALLS], others: none }
    };

    /// A call is entered. One that was entered before did not return: it was the last of a program
    /// that ran another one, or its return was not seen.
    #[inline(always)]
    pub const fn enter(&mut self, number: u32, now: u64) {
        self.number = number;
        self.entered_at = now;
    }

    /// The present call returns; nothing happens if its entry was not seen. The number is that of the entry: at
    /// the return of some (`rt_sigreturn`) the registers are those of another.
    #[inline(always)]
    pub fn leave(&mut self, now: u64) {
        let entered_at = self.entered_at;
        if entered_at == 0 {
            return;
        }
        self.entered_at = 0;
        let ns = now.saturating_sub(entered_at);
        // The verifier knows nothing of a number that comes from memory, and has to see it checked.
        let number = core::hint::black_box(self.number) as usize;
        match self.calls.get_mut(number) {
            Some(call) => call.add(ns),
            None => self.others.add(ns),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_by_number_with_their_times() {
        let mut profile = SyscallProfile::ZERO;
        for (number, from, to) in [(0, 10, 15), (511, 20, 22), (0, 30, 31), (512, 40, 47), (u32::MAX, 50, 50)]
        {
            profile.enter(number, from);
            profile.leave(to);
        }
        assert_eq!(profile.calls[0], CallTimes { count: 2, total_ns: 6, max_ns: 5 });
        assert_eq!(profile.calls[511], CallTimes { count: 1, total_ns: 2, max_ns: 2 });
        assert_eq!(profile.others, CallTimes { count: 2, total_ns: 7, max_ns: 7 });
        assert_eq!(profile.calls.iter().map(|call| call.count).sum::<u64>(), 3);
    }

    #[test]
    fn half_of_a_call_is_none() {
        let mut profile = SyscallProfile::ZERO;
        profile.leave(5);
        profile.enter(3, 10);
        profile.enter(4, 20);
        profile.leave(21);
        profile.leave(30);
        let counted: Vec<_> = (0..SYSCALLS).filter(|number| profile.calls[*number].count > 0).collect();
        assert_eq!((counted, profile.others.count), (vec![4], 0));
        assert_eq!(profile.calls[4], CallTimes { count: 1, total_ns: 1, max_ns: 1 });
    }
}
