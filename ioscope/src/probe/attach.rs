//! Attaching the hooks: each job by the first way that works.

use std::{any::Any, collections::BTreeMap, io::Read as _, thread};

use aya::{
    Btf as ProgramBtf, Ebpf,
    maps::ProgramArray,
    programs::{
        BtfTracePoint, FEntry, FExit, Iter, PerfEvent, Program, ProgramError, ProgramFd,
        perf_event::{PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent},
    },
    util::online_cpus,
};

use super::{
    arch::Arch,
    btf::Btf,
    error::{ProbeError, brief},
    hooks::{Hook, HookChoice, HookKind, Job, JobStatus, STAND_INS, Way},
    session::SAMPLES_PER_SECOND,
};

/// Programs in use, and how many instructions the verifier went through to accept each.
type Programs = Vec<(&'static str, Option<u32>)>;

/// A hook that could not be attached, and why.
type Refusal = (&'static Hook, ProgramError);

/// The hooks that go on to one program, by the signature of their functions, and these.
type Callers = BTreeMap<Option<u32>, Vec<(&'static Hook, String)>>;

/// What such a program has become: a copy for each signature, with its hooks, and how many instructions were verified.
type Bodies = (Vec<(Vec<&'static Hook>, ProgramFd)>, Option<u32>);

/// A program that stands in for another one: see [`STAND_INS`].
pub(super) struct StandIn {
    /// The program that it stands in for.
    pub(super) of: &'static str,
    /// Itself: several are made of one in the object.
    pub(super) program: ProgramFd,
    /// What keeps it attached.
    _link: Box<dyn Any + Send>,
}

/// Which programs the kernel may leave out, if they are such as can be stood in for.
#[derive(Clone, Copy)]
pub(super) struct LeftOut {
    pub(super) at_functions: bool,
    pub(super) at_tracepoints: bool,
}

/// What is asked of the running kernel while the hooks are attached.
pub(super) struct Kernel<'a> {
    pub(super) arch: Arch,
    pub(super) btf: &'a Btf,
    pub(super) program_btf: &'a ProgramBtf,
    /// Programs on functions may be preempted, and it is better to do without them.
    pub(super) preempts_functions: bool,
    /// Programs that it may leave out.
    pub(super) left_out: LeftOut,
}

/// Loads and attaches as many more copies of a program as [`STAND_INS`] says, and leaves it unloaded.
macro_rules! attach_copies {
    ($program:expr, $type:ty, $target:expr, $btf:expr, $of:expr, $attached:expr) => {{
        let program: &mut $type = $program.try_into()?;
        for _ in 0..STAND_INS {
            program.load($target, $btf)?;
            let link = program.attach()?;
            let link = Box::new(program.take_link(link)?);
            let copy = program.fd()?.try_clone().map_err(ProgramError::IOError)?;
            $attached.push(StandIn { of: $of, program: copy, _link: link });
            program.unload()?;
        }
    }};
}

impl Kernel<'_> {
    /// Loads the programs of these hooks, of those that are tracepoints, side by side: to verify them is most of what a start
    /// takes, and the kernel does not mind (`kernel/bpf/verifier.c`, `bpf_check`: the lock is for the unprivileged). What
    /// cannot be loaded is tried again, and told of, where it is attached.
    pub(super) fn load_ahead(&self, ebpf: &mut Ebpf, hooks: impl IntoIterator<Item = &'static Hook>) {
        let is_alone = |hook: &&Hook| hook.kind == HookKind::Tracepoint && !self.has_stand_ins(hook);
        let hooks: Vec<&'static Hook> = hooks.into_iter().filter(is_alone).collect();
        if hooks.len() < 2 {
            return;
        }
        let programs = ebpf.programs_mut().filter_map(|(name, program)| match program {
            Program::BtfTracePoint(program) if program.fd().is_err() => {
                Some((*hooks.iter().find(|hook| hook.program == name)?, program))
            }
            _ => None,
        });
        thread::scope(|scope| {
            let load = |(hook, program): (&'static Hook, &mut BtfTracePoint)| {
                program.load(hook.name, self.program_btf)
            };
            let loading: Vec<_> = programs
                .filter_map(|one| thread::Builder::new().spawn_scoped(scope, move || load(one)).ok())
                .collect();
            for thread in loading {
                let _ = thread.join();
            }
        });
    }

    /// Goes the first way that works.
    ///
    /// # Errors
    /// When none does, and there is no tracing without it.
    pub(super) fn take_on(
        &self,
        ebpf: &mut Ebpf,
        stand_ins: &mut Vec<StandIn>,
        job: &'static Job,
        choice: HookChoice,
    ) -> Result<JobStatus, ProbeError> {
        let mut status = JobStatus { job, way: None, programs: Vec::new(), refused: Vec::new() };
        let mut failed = None;
        for way in job.ways.iter().filter(|way| choice.allows(job, way)) {
            match self.go(ebpf, stand_ins, way) {
                Ok(programs) => {
                    return Ok(JobStatus { way: Some(way), programs, ..status });
                }
                Err((hook, error)) => {
                    log::debug!("{}: {error}", hook.name);
                    leave(ebpf, stand_ins, way)?;
                    status.refused.push((way, format!("{}: {}", hook.name, brief(&error))));
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
    fn go(
        &self,
        ebpf: &mut Ebpf,
        stand_ins: &mut Vec<StandIn>,
        way: &'static Way,
    ) -> Result<Programs, Refusal> {
        self.load_ahead(ebpf, way.hooks);
        let mut programs = Vec::with_capacity(way.hooks.len());
        for hook in way.hooks {
            if self.lacks_wait_call(hook) {
                continue;
            }
            let verified = self.attach_never_missed(ebpf, stand_ins, hook).map_err(|error| (hook, error))?;
            if programs.is_empty() {
                // Not before one hook is attached: where none can be, it would be in vain. Until then it does nothing.
                programs.extend(self.load_bodies(ebpf, way)?);
            }
            programs.push((hook.program, verified));
        }
        Ok(programs)
    }

    /// Loads the programs that a way's hooks go on to, and tells the hooks where they are.
    ///
    /// Side by side, as in [`Self::load_ahead`]. The kernel wants one of them for each signature that the hooked functions
    /// have (`kernel/bpf/core.c`, `__bpf_prog_map_compatible`).
    fn load_bodies(&self, ebpf: &mut Ebpf, way: &'static Way) -> Result<Programs, Refusal> {
        let mut wanted: BTreeMap<&'static str, Callers> = BTreeMap::new();
        for hook in way.hooks {
            if let (Some(body), Some(function)) = (hook.body, self.function(hook)) {
                let callers = wanted.entry(body).or_default();
                callers.entry(self.btf.func_signature(&function)).or_default().push((hook, function));
            }
        }
        let bodies = ebpf.programs_mut().filter_map(|(name, program)| {
            let (name, callers) = wanted.iter().find(|(body, _)| **body == name)?;
            Some((*name, program, callers))
        });
        let loaded: Vec<_> = thread::scope(|scope| {
            let loading: Vec<_> = bodies
                .map(|(name, program, callers)| {
                    (name, scope.spawn(move || self.load_for_each_signature(program, callers)))
                })
                .collect();
            let loaded = loading.into_iter().map(|(name, thread)| (name, thread.join()));
            loaded.map(|(name, result)| Some((name, result.ok()?))).collect::<Option<_>>()
        })
        .ok_or_else(|| (&way.hooks[0], other_error("a thread that loads programs panicked")))?;
        let mut programs = Programs::new();
        for (body, result) in loaded {
            let (copies, verified) = result?;
            for (hooks, copy) in copies {
                for hook in hooks {
                    lead_to(ebpf, hook, &copy).map_err(|error| (hook, error))?;
                }
            }
            programs.push((body, verified));
        }
        Ok(programs)
    }

    /// Loads a body once for each signature, and leaves it unloaded. Returns the copies, for which hooks each is, and how
    /// many instructions the verifier went through at most.
    fn load_for_each_signature(&self, program: &mut Program, callers: &Callers) -> Result<Bodies, Refusal> {
        let mut copies = Vec::with_capacity(callers.len());
        let mut verified = None;
        for callers in callers.values() {
            let Some((hook, function)) = callers.first() else { continue };
            let (copy, instructions) = self.load_copy(program, function).map_err(|error| (*hook, error))?;
            verified = verified.max(instructions);
            copies.push((callers.iter().map(|(hook, _)| *hook).collect(), copy));
        }
        Ok((copies, verified))
    }

    fn load_copy(
        &self,
        program: &mut Program,
        function: &str,
    ) -> Result<(ProgramFd, Option<u32>), ProgramError> {
        match program {
            Program::FEntry(program) => program.load(function, self.program_btf)?,
            Program::FExit(program) => program.load(function, self.program_btf)?,
            _ => return Err(other_error("only programs at functions are shared")),
        }
        let copy = program.fd()?.try_clone().map_err(ProgramError::IOError)?;
        let verified = program.info()?.verified_instruction_count();
        unload(program)?;
        Ok((copy, verified))
    }

    /// Loads a hook's program and attaches it, and what stands in for it. Returns how many instructions the verifier went
    /// through.
    pub(super) fn attach_never_missed(
        &self,
        ebpf: &mut Ebpf,
        stand_ins: &mut Vec<StandIn>,
        hook: &'static Hook,
    ) -> Result<Option<u32>, ProgramError> {
        // One program in the object makes all copies, and is the hook's own in the end.
        self.attach_stand_ins(ebpf, stand_ins, hook)?;
        self.attach(ebpf, hook)
    }

    /// Whether the kernel may leave out a hook's program, and none of its runs may be missed.
    const fn has_stand_ins(&self, hook: &Hook) -> bool {
        let LeftOut { at_functions, at_tracepoints } = self.left_out;
        hook.never_missed
            && if matches!(hook.kind, HookKind::Tracepoint) { at_tracepoints } else { at_functions }
    }

    /// Attaches what stands in for a hook's program, if that has such.
    fn attach_stand_ins(
        &self,
        ebpf: &mut Ebpf,
        stand_ins: &mut Vec<StandIn>,
        hook: &'static Hook,
    ) -> Result<(), ProgramError> {
        if !self.has_stand_ins(hook) {
            return Ok(());
        }
        let program = ebpf.program_mut(hook.program).ok_or(ProgramError::NotLoaded)?;
        let function = self.function(hook);
        let target = function.as_deref().unwrap_or(hook.name);
        match hook.kind {
            HookKind::SyscallEntry => {
                attach_copies!(program, FEntry, target, self.program_btf, hook.program, stand_ins);
            }
            HookKind::SyscallReturn => {
                attach_copies!(program, FExit, target, self.program_btf, hook.program, stand_ins);
            }
            HookKind::Tracepoint => {
                attach_copies!(program, BtfTracePoint, target, self.program_btf, hook.program, stand_ins);
            }
            HookKind::Function | HookKind::Clock | HookKind::Iterator => {}
        }
        Ok(())
    }

    /// Loads a hook's program and attaches it. Returns how many instructions the verifier went through.
    fn attach(&self, ebpf: &mut Ebpf, hook: &'static Hook) -> Result<Option<u32>, ProgramError> {
        let program = ebpf.program_mut(hook.program).ok_or(ProgramError::NotLoaded)?;
        let function = self.function(hook);
        let function = function.as_deref().unwrap_or(hook.name);
        match hook.kind {
            HookKind::Tracepoint => {
                let program: &mut BtfTracePoint = program.try_into()?;
                if program.fd().is_err() {
                    program.load(hook.name, self.program_btf)?;
                }
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
                    return Err(other_error(reason));
                }
                if !self.keeps_trampolines() {
                    let reason = "the kernel may free what a thread returns to (fixed in Linux 5.12)";
                    return Err(other_error(reason));
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

    /// Whether a hook is the function of a wait call that this kernel does not have: it is too old for it, or of an
    /// architecture that has none. That the function is there and cannot be hooked is another matter; and so is a system call
    /// that every kernel has, and that has a name here which nobody knows.
    fn lacks_wait_call(&self, hook: &Hook) -> bool {
        hook.is_wait_call() && self.function(hook).is_none()
    }

    /// The function that a hook is attached to, as this kernel calls it; `None` if it has none of its names.
    fn function(&self, hook: &Hook) -> Option<String> {
        hook.functions(self.arch).into_iter().find(|function| self.btf.has_func(function))
    }

    /// Whether a hooked function may be left while threads sleep in it. Before, the memory that they return to could be
    /// freed: `kernel/bpf/trampoline.c`, `struct bpf_tramp_image`, since Linux 5.12 and in stable series.
    fn keeps_trampolines(&self) -> bool {
        self.btf.has_struct("bpf_tramp_image")
    }
}

/// Tells a hook's program where the one is that it goes on to.
fn lead_to(ebpf: &mut Ebpf, hook: &Hook, body: &ProgramFd) -> Result<(), ProgramError> {
    let map = ebpf.map_mut(&format!("body_of_{}", hook.program)).ok_or(ProgramError::NotLoaded)?;
    Ok(ProgramArray::try_from(map)?.set(0, body, 0)?)
}

fn other_error(reason: &str) -> ProgramError {
    ProgramError::IOError(std::io::Error::other(reason))
}

/// Takes a program away, and with it its hook.
pub(super) fn unload(program: &mut Program) -> Result<(), ProgramError> {
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
        failed => failed,
    }
}

/// Takes away what was attached of a way that did not work.
fn leave(ebpf: &mut Ebpf, stand_ins: &mut Vec<StandIn>, way: &Way) -> Result<(), ProbeError> {
    for hook in way.hooks {
        stand_ins.retain(|stand_in| stand_in.of != hook.program);
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
