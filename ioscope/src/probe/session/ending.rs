//! How a session ends, at one moment, and what it has lost until then.

use std::os::fd::{AsFd as _, AsRawFd as _};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use aya::{Ebpf, programs::ProgramFd};
use ioscope_common::{Drops, status};
use rustix::thread::{MembarrierCommand, membarrier};
use rustix::time::{ClockId, clock_gettime};

use super::{AsPod, Session};
use crate::probe::{
    attach::StandIn,
    error::ProbeError,
    hooks::{FORKS, RETURN_OF_SLEEPERS, WAIT_CALLS},
};

/// How often the kernel is asked what it has left out.
const SKIPPED_RUNS_EVERY: Duration = Duration::from_secs(1);

impl Session {
    /// What was dropped so far.
    pub fn drops(&self) -> Result<Drops, ProbeError> {
        let counted = match self.dropped {
            Some(dropped) => dropped,
            None => self.count_drops()?,
        };
        Ok(Drops { skipped_runs: self.skipped_runs_lately(), ..counted })
    }

    /// Runs of the programs that the kernel left out, as of a second ago at most: asking takes a file for each program, and
    /// drops are asked for a hundred times a second. When the probes are detached it is exact.
    fn skipped_runs_lately(&self) -> u64 {
        let (asked_at, known) = self.skipped_lately.get();
        if self.frozen_at.is_none() && asked_at.is_some_and(|at| at.elapsed() < SKIPPED_RUNS_EVERY) {
            return known;
        }
        let skipped = self.skipped_runs();
        self.skipped_lately.set((Some(Instant::now()), skipped));
        skipped
    }

    /// All but the runs that were left out.
    fn count_drops(&self) -> Result<Drops, ProbeError> {
        let mut total = Drops::default();
        let mut sleepers_full = 0;
        for AsPod(cpu) in self.drops.get(&0, 0)?.iter() {
            total.ring_full += cpu.ring_full;
            total.loops_full += cpu.loops_full;
            total.targets_full += cpu.targets_full;
            total.out_of_directory += cpu.out_of_directory;
            total.compat_calls += cpu.compat_calls;
            total.captures_full += cpu.captures_full;
            sleepers_full += cpu.sleepers_full;
        }
        // What has no loop has nothing to tell the other programs of a hook that one of them was there: all count it.
        let programs = self.programs_that_see(WAIT_CALLS);
        for count in [&mut total.loops_full, &mut total.out_of_directory, &mut total.compat_calls] {
            *count = count.div_ceil(programs);
        }
        total.loops_full += sleepers_full;
        total.targets_full = total.targets_full.div_ceil(self.programs_that_see(FORKS));
        Ok(total)
    }

    /// How many programs see the same event, of those that a job is for.
    fn programs_that_see(&self, job: &str) -> u64 {
        let status = self.jobs.iter().find(|status| status.job.name == job);
        let Some(hook) = status.and_then(|status| status.way?.hooks.last()) else { return 1 };
        1 + self.stand_ins.iter().filter(|stand_in| stand_in.of == hook.program).count() as u64
    }

    /// Runs of the programs that the kernel left out, with all that stand in for them.
    fn skipped_runs(&self) -> u64 {
        let sleepers = self.awaiting_sleepers.map(|_| RETURN_OF_SLEEPERS.program);
        let programs = self.jobs.iter().flat_map(|status| &status.programs).map(|(name, _)| *name);
        self.skipped_before + programs.chain(sleepers).map(|name| self.skipped_runs_of(name)).sum::<u64>()
    }

    /// Of one of them: no more than of whichever was left out least, itself or one that stands in for it.
    pub(super) fn skipped_runs_of(&self, name: &str) -> u64 {
        let Some(own) = self.program(name).and_then(|program| program.fd().ok()) else { return 0 };
        let stand_ins = self.stand_ins.iter().filter(|stand_in| stand_in.of == name);
        let all = stand_ins.map(|stand_in| &stand_in.program).chain([own]);
        all.map(|program| told(program, "recursion_misses:")).min().unwrap_or(0)
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
        // What happens to a ring is counted by the ring, whatever becomes of its thread.
        self.control.keep_no_notes();
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

    /// Detaches the probes: the maps stand still from here on. The probes that do nothing any more go meanwhile, and have gone
    /// when the session is dropped: to let go of a hooked function takes the kernel until all CPUs have passed by
    /// (`kernel/trace/ftrace.c`, `ftrace_shutdown`), one function after the other.
    pub fn detach(&mut self) -> Result<(), ProbeError> {
        self.freeze()?;
        // Until whatever is at work in a loop has done it (`kernel/sched/membarrier.c`: `synchronize_rcu`).
        let are_idle = membarrier(MembarrierCommand::Global).is_ok();
        self.ran_ns = self.run_time_ns()?;
        self.skipped_before = self.skipped_runs();
        self.awaiting_sleepers = None;
        if let Some(ebpf) = self.ebpf.take() {
            self.leaving = Some(Leaving::of(ebpf, std::mem::take(&mut self.stand_ins)));
        }
        if !are_idle {
            self.leaving = None;
        }
        Ok(())
    }
}

/// Programs on their way out. Whoever drops this waits until they have gone.
pub(super) struct Leaving(Option<JoinHandle<()>>);

impl Leaving {
    fn of(ebpf: Ebpf, stand_ins: Vec<StandIn>) -> Self {
        let leave = move || drop((stand_ins, ebpf));
        // Without a thread they go here and now: what is not run is dropped.
        Self(thread::Builder::new().name("detaching".to_owned()).spawn(leave).ok())
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        // That it panicked would be told by then.
        let _ = self.0.take().map(JoinHandle::join);
    }
}

/// A number that the kernel tells of a program; 0 where it does not: `bpf_prog_show_fdinfo`, `kernel/bpf/syscall.c`. How often
/// it left the program out because it was running on that CPU already, `recursion_misses:`, is told since Linux 5.12.
pub(super) fn told(program: &ProgramFd, what: &str) -> u64 {
    let facts = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_fd().as_raw_fd()));
    facts
        .unwrap_or_default()
        .lines()
        .find_map(|line| line.strip_prefix(what))
        .and_then(|number| number.trim().parse().ok())
        .unwrap_or(0)
}

/// The probes' clock.
fn monotonic_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}
