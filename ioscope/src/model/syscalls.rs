//! The system calls of a loop's slices, and how often it enters the kernel for an event: for runs that asked for
//! them.

use ioscope_common::Counters;

/// A system call that was made outside wait calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyscallUse {
    /// Its number, or [`OTHER_SYSCALLS`](super::stalls::OTHER_SYSCALLS) for all that are beyond what is known.
    pub syscall: i32,
    /// How often it returned.
    pub count: u64,
    /// From entry to return, in nanoseconds, added up: asleep or not.
    pub total_ns: u64,
    /// The longest, in nanoseconds.
    pub max_ns: u64,
}

/// The system calls of a loop's slices, the longest total first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Syscalls {
    list: Vec<SyscallUse>,
}

impl Syscalls {
    /// Of these.
    pub fn new(mut list: Vec<SyscallUse>) -> Self {
        list.sort_by_key(|call| (std::cmp::Reverse(call.total_ns), call.syscall));
        Self { list }
    }

    /// The longest total first.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &SyscallUse> {
        self.list.iter()
    }

    /// How many returned.
    pub fn count(&self) -> u64 {
        self.list.iter().map(|call| call.count).sum()
    }

    /// How long all of them took, in nanoseconds.
    pub fn total_ns(&self) -> u64 {
        self.list.iter().map(|call| call.total_ns).sum()
    }

    /// How often the loop entered the kernel by a system call, its wait calls included, with those that the kernel had it enter
    /// again after a signal.
    pub fn crossings(&self, counters: &Counters) -> u64 {
        self.count() + counters.returns.iter().sum::<u64>() + counters.restarts
    }

    /// That, for each ready event; `None` without one.
    pub fn crossings_per_ready_event(&self, counters: &Counters) -> Option<f64> {
        let events = counters.ready_events;
        (events > 0).then(|| self.crossings(counters) as f64 / events as f64)
    }

    /// What happened after `earlier`. The longest is the longest of the whole time: when it was is not known.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let difference = |call: &SyscallUse| {
            let before = earlier.list.iter().find(|before| before.syscall == call.syscall);
            SyscallUse {
                count: call.count.saturating_sub(before.map_or(0, |before| before.count)),
                total_ns: call.total_ns.saturating_sub(before.map_or(0, |before| before.total_ns)),
                ..*call
            }
        };
        Self::new(self.list.iter().map(difference).filter(|call| call.count > 0).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ioscope_common::Loop;

    const fn call(syscall: i32, count: u64, total_ns: u64) -> SyscallUse {
        SyscallUse { syscall, count, total_ns, max_ns: 9 }
    }

    #[test]
    fn crossings_are_of_all_system_calls() {
        let syscalls = Syscalls::new(vec![call(0, 10, 5), call(1, 20, 50)]);
        assert_eq!(syscalls.iter().map(|call| call.syscall).collect::<Vec<_>>(), [1, 0]);
        let mut counters = Loop::ZERO.counters;
        assert_eq!(syscalls.crossings_per_ready_event(&counters), None);
        counters.returns[1] = 9;
        counters.restarts = 1;
        counters.ready_events = 20;
        assert_eq!(syscalls.crossings(&counters), 40);
        assert_eq!(syscalls.crossings_per_ready_event(&counters), Some(2.0));
    }

    #[test]
    fn a_difference_leaves_out_what_did_not_happen() {
        let earlier = Syscalls::new(vec![call(0, 10, 5), call(1, 20, 50)]);
        let now = Syscalls::new(vec![call(0, 10, 5), call(1, 21, 53), call(2, 1, 7)]);
        assert_eq!(now.since(&earlier), Syscalls::new(vec![call(2, 1, 7), call(1, 1, 3)]));
    }
}
