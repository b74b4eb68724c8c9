//! Attaching the hooks: each job by the first way that works.

use std::io::Read as _;

use aya::{
    Btf as ProgramBtf, Ebpf,
    programs::{
        BtfTracePoint, FEntry, FExit, Iter, PerfEvent, Program, ProgramError,
        perf_event::{PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent},
    },
    util::online_cpus,
};

use super::{
    arch::Arch,
    btf::Btf,
    error::ProbeError,
    hooks::{Hook, HookChoice, HookKind, Job, JobStatus, Way},
    session::SAMPLES_PER_SECOND,
};

/// Programs in use, and how many instructions the verifier went through to accept each.
type Programs = Vec<(&'static str, Option<u32>)>;

/// What is asked of the running kernel while the hooks are attached.
pub(super) struct Kernel<'a> {
    pub(super) arch: Arch,
    pub(super) btf: &'a Btf,
    pub(super) program_btf: &'a ProgramBtf,
    /// Programs on functions may be preempted, and it is better to do without them.
    pub(super) preempts_functions: bool,
}

impl Kernel<'_> {
    /// Goes the first way that works.
    ///
    /// # Errors
    /// When none does, and there is no tracing without it.
    pub(super) fn take_on(
        &self,
        ebpf: &mut Ebpf,
        job: &'static Job,
        choice: HookChoice,
    ) -> Result<JobStatus, ProbeError> {
        let mut status = JobStatus { job, way: None, programs: Vec::new(), refused: Vec::new() };
        let mut failed = None;
        for way in job.ways.iter().filter(|way| choice.allows(job, way)) {
            match self.go(ebpf, way) {
                Ok(programs) => {
                    return Ok(JobStatus { way: Some(way), programs, ..status });
                }
                Err((hook, error)) => {
                    leave(ebpf, way)?;
                    status.refused.push((way.name, format!("{}: {}", hook.name, brief(&error))));
                    failed = Some((hook, error));
                }
            }
        }
        match failed {
            Some((hook, error)) if job.required => Err(ProbeError::from_attach(hook.name, &error)),
            _ => Ok(status),
        }
    }

    /// Attaches all hooks of a way. Returns its programs, and how many instructions the verifier went through.
    fn go(&self, ebpf: &mut Ebpf, way: &'static Way) -> Result<Programs, (&'static Hook, ProgramError)> {
        let mut programs = Vec::with_capacity(way.hooks.len());
        for hook in way.hooks {
            if self.lacks_system_call(hook) {
                continue;
            }
            let verified = self.attach(ebpf, hook).map_err(|error| (hook, error))?;
            programs.push((hook.program, verified));
        }
        Ok(programs)
    }

    /// Loads a hook's program and attaches it. Returns how many instructions the verifier went through.
    pub(super) fn attach(&self, ebpf: &mut Ebpf, hook: &'static Hook) -> Result<Option<u32>, ProgramError> {
        let program = ebpf.program_mut(hook.program).ok_or(ProgramError::NotLoaded)?;
        let function = hook.function(self.arch);
        let function = function.as_deref().unwrap_or_default();
        match hook.kind {
            HookKind::Tracepoint => {
                let program: &mut BtfTracePoint = program.try_into()?;
                program.load(hook.name, self.program_btf)?;
                program.attach()?;
            }
            HookKind::Function | HookKind::SyscallEntry => {
                let program: &mut FEntry = program.try_into()?;
                program.load(function, self.program_btf)?;
                program.attach()?;
            }
            HookKind::SyscallReturn => {
                if self.preempts_functions {
                    let reason = "the kernel preempts programs on functions, and may then leave some out";
                    return Err(ProgramError::IOError(std::io::Error::other(reason)));
                }
                if !self.keeps_trampolines() {
                    let reason = "the kernel may free what a thread returns to (fixed in Linux 5.12)";
                    return Err(ProgramError::IOError(std::io::Error::other(reason)));
                }
                let program: &mut FExit = program.try_into()?;
                program.load(function, self.program_btf)?;
                program.attach()?;
            }
            HookKind::Clock => {
                let program: &mut PerfEvent = program.try_into()?;
                program.load()?;
                for cpu in online_cpus().map_err(|(_, error)| ProgramError::IOError(error))? {
                    program.attach(
                        PerfEventConfig::Software(SoftwareEvent::CpuClock),
                        PerfEventScope::AllProcessesOneCpu { cpu },
                        SamplePolicy::Frequency(SAMPLES_PER_SECOND),
                        false,
                    )?;
                }
            }
            HookKind::Iterator => {
                let program: &mut Iter = program.try_into()?;
                program.load(hook.name, self.program_btf)?;
                let link = program.attach()?;
                run_iterator(program.take_link(link)?)?;
            }
        }
        Ok(program.info()?.verified_instruction_count())
    }

    /// Whether a hook is the function of a system call that this kernel does not have: it is too old for it, or of an
    /// architecture that has none. That the function is there and cannot be hooked is another matter.
    fn lacks_system_call(&self, hook: &Hook) -> bool {
        matches!(hook.kind, HookKind::SyscallEntry | HookKind::SyscallReturn)
            && hook.function(self.arch).is_some_and(|function| !self.btf.has_func(&function))
    }

    /// Whether a hooked function may be left while threads sleep in it. Before, the memory that they return to could be
    /// freed: `kernel/bpf/trampoline.c`, `struct bpf_tramp_image`, since Linux 5.12 and in stable series.
    fn keeps_trampolines(&self) -> bool {
        self.btf.has_struct("bpf_tramp_image")
    }
}

/// Takes a program away, and with it its hook.
pub(super) fn unload(program: &mut Program) -> Result<(), ProbeError> {
    let unloaded = match program {
        Program::BtfTracePoint(program) => program.unload(),
        Program::FEntry(program) => program.unload(),
        Program::FExit(program) => program.unload(),
        Program::Iter(program) => program.unload(),
        Program::PerfEvent(program) => program.unload(),
        _ => Ok(()),
    };
    match unloaded {
        // A program that was not loaded has nothing to unload.
        Ok(()) | Err(ProgramError::NotLoaded) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Takes away what was attached of a way that did not work.
fn leave(ebpf: &mut Ebpf, way: &Way) -> Result<(), ProbeError> {
    for hook in way.hooks {
        if let Some(program) = ebpf.program_mut(hook.program) {
            unload(program)?;
        }
    }
    Ok(())
}

/// The kernel runs the iterator's program while its file is read.
fn run_iterator(link: aya::programs::iter::IterLink) -> Result<(), ProgramError> {
    let mut file = link.into_file().map_err(|error| ProgramError::IOError(std::io::Error::other(error)))?;
    let mut nothing = Vec::new();
    file.read_to_end(&mut nothing)?;
    Ok(())
}

/// Why a hook could not be used, in a line.
fn brief(error: &ProgramError) -> String {
    match error {
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let reason = log.lines().rev().find(|line| !line.is_empty() && !line.starts_with("processed"));
            format!("{io_error}: {}", reason.unwrap_or("no log"))
        }
        other => other.to_string(),
    }
}
