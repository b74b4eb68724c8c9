//! How a session ends, at one moment, and what it has lost until then.

use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};

use ioscope_common::{Drops, status};
use rustix::time::{ClockId, clock_gettime};

use super::{AsPod, Session};
use crate::probe::{attach::unload, error::ProbeError};

impl Session {
    /// What was dropped so far.
    pub fn drops(&self) -> Result<Drops, ProbeError> {
        let counted = match self.dropped {
            Some(dropped) => dropped,
            None => self.count_drops()?,
        };
        Ok(Drops { skipped_runs: self.skipped_runs(), ..counted })
    }

    /// All but the runs that were left out.
    fn count_drops(&self) -> Result<Drops, ProbeError> {
        let mut total = Drops::default();
        for AsPod(cpu) in self.drops.get(&0, 0)?.iter() {
            total.ring_full += cpu.ring_full;
            total.loops_full += cpu.loops_full;
            total.targets_full += cpu.targets_full;
            total.out_of_directory += cpu.out_of_directory;
            total.compat_calls += cpu.compat_calls;
            total.captures_full += cpu.captures_full;
        }
        Ok(total)
    }

    /// Runs of the programs that the kernel left out.
    fn skipped_runs(&self) -> u64 {
        let mut total = self.skipped_before;
        for (name, _) in self.jobs.iter().flat_map(|status| &status.programs) {
            if let Some(program) = self.ebpf.program(name)
                && let Ok(fd) = program.fd()
            {
                total += recursion_misses(fd.as_fd().as_raw_fd());
            }
        }
        total
    }

    /// When the loops were put out of the probes' reach, in nanoseconds of `CLOCK_MONOTONIC`, if they were: what is known of
    /// them is of this moment.
    pub const fn frozen_at(&self) -> Option<u64> {
        self.frozen_at
    }

    /// Takes all loops out of the probes' reach, at once: detaching one probe after the other takes milliseconds, in
    /// which the rest would see half of what happens (a thread that sleeps in a wait call whose entry nobody saw).
    fn freeze(&mut self) -> Result<(), ProbeError> {
        if self.frozen_at.is_some() {
            return Ok(());
        }
        // What comes from here on is no loss, and nobody wants to read of it.
        self.dropped = Some(self.count_drops()?);
        self.log_diagnostics();
        self.diagnostics = None;
        while self.free.pop(0).is_ok() {}
        for slot in 0..self.loops.len() {
            if self.loops.status(slot) == Some(status::LIVE)
                && let Some(kernel_tid) = self.loops.forget_registers(slot)
                && !self.directory.forget(kernel_tid, slot + 1)
            {
                // Its thread was found asleep, and had made a loop of its own.
                self.loops.clear(slot);
            }
        }
        self.frozen_at = Some(monotonic_ns());
        Ok(())
    }

    /// Detaches the probes: the maps stand still from here on.
    pub fn detach(&mut self) -> Result<(), ProbeError> {
        self.freeze()?;
        self.ran_ns = self.run_time_ns()?;
        self.skipped_before = self.skipped_runs();
        self.ebpf.programs_mut().try_for_each(|(_, program)| unload(program))
    }
}

/// How often the kernel left out a program because it was running on that CPU already; 0 where it does not tell (before
/// Linux 5.12): `bpf_prog_show_fdinfo`, `kernel/bpf/syscall.c`.
fn recursion_misses(fd: RawFd) -> u64 {
    let facts = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).unwrap_or_default();
    facts
        .lines()
        .find_map(|line| line.strip_prefix("recursion_misses:"))
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}

/// The probes' clock.
fn monotonic_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}
