//! What the probes themselves take, by the kernel's statistics of BPF programs.

use std::time::Duration;

use aya::programs::ProgramError;
use aya::sys::{Stats, enable_stats};

use super::{Session, ending::told};
use crate::probe::error::ProbeError;

impl Session {
    /// How long the probes have run, all together, in nanoseconds; `None` unless the kernel's BPF
    /// statistics are on and have seen them.
    pub fn run_time_ns(&self) -> Result<Option<u64>, ProbeError> {
        if !self.statistics && self.measuring.is_none() {
            return Ok(None);
        }
        if let Some(total) = self.ran_ns {
            return Ok(Some(total));
        }
        let mut total = Duration::ZERO;
        for (name, _) in self.jobs.iter().flat_map(|status| &status.programs) {
            if let Some(program) = self.program(name) {
                match program.info() {
                    Ok(info) => total += info.run_time(),
                    // It has done its work and is unloaded.
                    Err(ProgramError::NotLoaded) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        let stand_ins = self.stand_ins.iter();
        let of_stand_ins: u64 = stand_ins.map(|stand_in| told(&stand_in.program, "run_time_ns:")).sum();
        Ok(Some(u64::try_from(total.as_nanos()).unwrap_or(u64::MAX).saturating_add(of_stand_ins)))
    }

    /// Lets the kernel measure how long BPF programs run (`BPF_ENABLE_STATS`, since Linux 5.8,
    /// kernel/bpf/syscall.c: `bpf_enable_stats`), until it is told otherwise or this process ends. Returns
    /// whether it does: turning it on takes `CAP_SYS_ADMIN`. It costs every run of every BPF program of the
    /// machine two reads of the clock and some additions (`__bpf_prog_enter`, `bpf_prog_run`).
    pub fn measure_run_time(&mut self, on: bool) -> bool {
        self.measuring = if on { enable_stats(Stats::RunTime).ok() } else { None };
        self.measuring.is_some() || self.statistics
    }
}
