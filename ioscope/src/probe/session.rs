//! A tracing session: the probes loaded and attached, and the maps that they fill.
//!
//! Dropping a session detaches everything; a process that is killed leaves nothing behind either,
//! because the kernel closes its descriptors.
#![expect(unsafe_code, reason = "aya asks for a promise about what goes into a map")]

mod cost;
mod ending;

use std::{
    cell::Cell,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use aya::{
    Btf as ProgramBtf, Ebpf, EbpfLoader, Pod,
    maps::{Array, HashMap, Map, MapData, PerCpuArray, RingBuf, Stack},
    programs::Program,
    util::online_cpus,
};
use aya_log::EbpfLogger;
use ioscope_common::{
    BlockRecord, CallTimes, CaptureRecord, CommPatterns, Control, DIRECTORY_BLOCK, Drops, Iteration,
    LoopSlot, POLLERS, ProbeConfig, SyscallProfile, kind, status,
};
use log::Log;

use ending::Leaving;

use super::{
    arch::Arch,
    attach::{Kernel, LeftOut, StandIn, unload},
    btf::Btf,
    captures::Capture,
    config,
    environment::Environment,
    error::ProbeError,
    hooks::{
        EPOLL_READINESS, FENTRY, JOBS, Job, JobStatus, LOOPS_ASLEEP, RETURN_OF_SLEEPERS, RING_READINESS,
        SLICE_SYSCALLS, WAIT_CALLS,
    },
    kfuncs,
    memory::{MappedArray, SliceGlance},
    plan::Plan,
    preemption,
};

/// [`DIRECTORY_BLOCK`] as the kernel counts entries.
#[expect(clippy::cast_possible_truncation, reason = "it is 1,024")]
const BLOCK: u32 = DIRECTORY_BLOCK as u32;

/// How many pollers a loop has room for, as the kernel counts entries.
#[expect(clippy::cast_possible_truncation, reason = "there are a few")]
const POLLERS_OF_A_LOOP: u32 = POLLERS as u32;

/// The probes, as committed; `cargo xtask build-ebpf` makes it.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!("ioscope.bpf.o");

/// How long the returns of threads that were asleep when tracing began are looked out for. A loop that has a timer
/// returns sooner than that.
const PATIENCE_WITH_SLEEPERS: Duration = Duration::from_secs(10);

/// How often the clock looks at what runs on each CPU. Not a divisor of what programs' own timers like, so
/// that it does not always meet them at the same place.
pub const SAMPLES_PER_SECOND: u64 = 199;

/// Room for captures on each CPU: the collector takes them out every 10 ms, in which the clock makes two
/// and a thread that sleeps again and again makes ten.
const CAPTURES_PER_CPU: usize = 16;

/// Room for the probes' diagnostics: some hundred, of which there are a few.
const DIAGNOSTICS_BYTES: u32 = 64 << 10;

#[derive(Clone, Copy)]
#[repr(transparent)]
struct AsPod<T>(T);
// SAFETY: plain numbers without padding that matters.
unsafe impl Pod for AsPod<ProbeConfig> {}
// SAFETY: as above.
unsafe impl Pod for AsPod<CommPatterns> {}
// SAFETY: as above.
unsafe impl Pod for AsPod<Drops> {}

/// A record of the stream.
#[derive(Clone, Copy, Debug)]
pub enum Record {
    /// A complete iteration.
    Iteration(Iteration),
    /// A sleep outside a wait call.
    Block(BlockRecord),
}

/// The probes at work.
pub struct Session {
    /// `None` when the probes have been told to go.
    ebpf: Option<Ebpf>,
    stand_ins: Vec<StandIn>,
    leaving: Option<Leaving>,
    loops: MappedArray<LoopSlot>,
    directory: MappedArray<[u32; DIRECTORY_BLOCK]>,
    control: MappedArray<Control>,
    /// `None` unless system calls were asked for.
    profiles: Option<MappedArray<SyscallProfile>>,
    free: Stack<MapData, u32>,
    targets: HashMap<MapData, u32, u8>,
    drops: PerCpuArray<MapData, AsPod<Drops>>,
    stream: RingBuf<MapData>,
    captures: RingBuf<MapData>,
    jobs: Vec<JobStatus>,
    /// Since when the returns of threads are looked out for that were asleep when tracing began, by a hook for that.
    awaiting_sleepers: Option<Instant>,
    /// Of programs that are unloaded by now.
    skipped_before: u64,
    /// And of all, when that was last asked.
    skipped_lately: Cell<(Option<Instant>, u64)>,
    statistics: bool,
    /// When the loops were put out of the probes' reach, and what had been dropped by then.
    frozen_at: Option<u64>,
    dropped: Option<Drops>,
    /// What keeps the kernel's statistics on.
    measuring: Option<OwnedFd>,
    /// How long the probes had run when they were detached: then there is nobody to ask.
    ran_ns: Option<u64>,
    diagnostics: Option<EbpfLogger<&'static dyn Log>>,
}

impl Session {
    /// Loads the probes, attaches them, and finds the loops that sleep at this moment.
    ///
    /// # Errors
    /// When this kernel or this process's privileges do not allow it: see [`ProbeError`].
    pub fn start(plan: &Plan) -> Result<Self, ProbeError> {
        let arch = Arch::host().ok_or(ProbeError::Architecture)?;
        let btf = Btf::from_sys_fs()?;
        let program_btf = ProgramBtf::from_sys_fs().map_err(ProbeError::ProgramBtf)?;
        let environment = Environment::read();
        let preempts = environment.preempts.known().copied();
        let mut object = OBJECT.to_vec();
        let can_forbid = preempts != Some(false) && kfuncs::resolve(&mut object, &program_btf);
        let preempts_tracepoints =
            environment.kernel_version.known().is_none_or(|version| *version >= preemption::ALWAYS);
        let probe_config = config::build(&btf, arch, &plan.targets, can_forbid)?;
        let pid_max = config::pid_max();
        let directory_blocks = pid_max.div_ceil(BLOCK).max(1);
        let log_level: u8 = if plan.diagnostics { u8::MAX } else { 0 };

        let mut ebpf = EbpfLoader::new()
            .btf(Some(&program_btf))
            .override_global("CONFIG", &AsPod(probe_config), true)
            .override_global("AYA_LOG_LEVEL", &log_level, false)
            .map_max_entries("LOOPS", plan.capacity)
            .map_max_entries("FREE", plan.capacity)
            .map_max_entries("NOTES", plan.capacity * POLLERS_OF_A_LOOP)
            .map_max_entries("DIRECTORY", directory_blocks)
            .map_max_entries("PROFILES", if plan.syscalls { plan.capacity } else { 1 })
            .map_max_entries("STREAM", plan.stream_bytes)
            .map_max_entries("CAPTURES", captures_bytes())
            .map_max_entries("AYA_LOGS", if plan.diagnostics { DIAGNOSTICS_BYTES } else { 4096 })
            .load(&object)
            .map_err(ProbeError::from_load)?;

        let mut free: Stack<_, u32> = Stack::try_from(take(&mut ebpf, "FREE")?)?;
        for slot in (0..plan.capacity).rev() {
            free.push(slot, 0)?;
        }
        let mut targets: HashMap<_, u32, u8> = HashMap::try_from(take(&mut ebpf, "TARGETS")?)?;
        for process in &plan.targets.processes {
            targets.insert(process, 1, 0)?;
        }
        if !plan.targets.comm.is_empty() {
            let map = ebpf.map_mut("COMM_PATTERNS").ok_or(ProbeError::Object("COMM_PATTERNS"))?;
            let mut patterns: Array<_, AsPod<CommPatterns>> = Array::try_from(map)?;
            patterns.set(0, AsPod(compile(&plan.targets.comm)?), 0)?;
        }
        let control = map_array(&ebpf, "CONTROL", 1)?;
        control.set_stream(plan.stream);
        control.set_stall_threshold(nanoseconds(plan.stall_threshold));
        control.set_warn_threshold(nanoseconds(plan.warn_threshold));

        let mut session = Self {
            stand_ins: Vec::new(),
            leaving: None,
            loops: map_array(&ebpf, "LOOPS", plan.capacity)?,
            directory: map_array(&ebpf, "DIRECTORY", directory_blocks)?,
            control,
            profiles: plan.syscalls.then(|| map_array(&ebpf, "PROFILES", plan.capacity)).transpose()?,
            free,
            targets,
            drops: PerCpuArray::try_from(take(&mut ebpf, "DROPS")?)?,
            stream: RingBuf::try_from(take(&mut ebpf, "STREAM")?)?,
            captures: RingBuf::try_from(take(&mut ebpf, "CAPTURES")?)?,
            jobs: Vec::with_capacity(JOBS.len()),
            awaiting_sleepers: None,
            skipped_before: 0,
            skipped_lately: Cell::default(),
            statistics: config::statistics_are_on(),
            frozen_at: None,
            dropped: None,
            measuring: None,
            ran_ns: None,
            diagnostics: plan
                .diagnostics
                .then(|| EbpfLogger::init(&mut ebpf))
                .transpose()
                .map_err(|_| ProbeError::Object("AYA_LOGS"))?,
            ebpf: None,
        };
        let kernel = Kernel {
            arch,
            btf: &btf,
            program_btf: &program_btf,
            preempts_functions: preempts == Some(true) && !can_forbid,
            left_out: LeftOut {
                at_functions: can_forbid,
                at_tracepoints: can_forbid && preempts_tracepoints,
            },
        };
        session.attach(&mut ebpf, &kernel, plan)?;
        session.ebpf = Some(ebpf);
        Ok(session)
    }

    /// Attaches the hooks, job by job.
    fn attach(&mut self, ebpf: &mut Ebpf, kernel: &Kernel<'_>, plan: &Plan) -> Result<(), ProbeError> {
        let is_wanted = |job: &&Job| {
            (job.name != SLICE_SYSCALLS || plan.syscalls)
                && (job.required || !plan.without.iter().any(|name| name == job.name))
        };
        // Where there are several ways, the first may do.
        let sole_way = |job: &'static Job| {
            let mut ways = job.ways.iter().filter(|way| plan.hooks.allows(job, way));
            ways.next().filter(|_| ways.next().is_none())
        };
        let ways = JOBS.iter().filter(is_wanted).filter_map(sole_way);
        kernel.load_ahead(ebpf, ways.flat_map(|way| way.hooks));
        for job in JOBS.iter().filter(is_wanted) {
            if job.name == LOOPS_ASLEEP && self.way() == FENTRY {
                // Should it fail, these loops show from their next wait call on.
                let attached = kernel.attach_never_missed(ebpf, &mut self.stand_ins, &RETURN_OF_SLEEPERS);
                self.awaiting_sleepers = attached.is_ok().then(Instant::now);
            }
            let status = kernel.take_on(ebpf, &mut self.stand_ins, job, plan.hooks)?;
            if status.way.is_some() {
                self.control.keep_notes(match job.name {
                    EPOLL_READINESS => Control::NOTES_OF_EPOLL,
                    RING_READINESS => Control::NOTES_OF_RINGS,
                    _ => 0,
                });
            }
            self.jobs.push(status);
        }
        Ok(())
    }

    fn program(&self, name: &str) -> Option<&Program> {
        self.ebpf.as_ref()?.program(name)
    }

    /// What became of each job.
    pub fn jobs(&self) -> &[JobStatus] {
        &self.jobs
    }

    /// The way by which the wait calls are seen: `fentry` or `tracepoint`.
    pub fn way(&self) -> &'static str {
        let job = self.jobs.iter().find(|status| status.job.name == WAIT_CALLS);
        job.and_then(|status| status.way).map_or("", |way| way.name)
    }

    /// How many loops there is room for.
    pub fn capacity(&self) -> u32 {
        self.loops.len()
    }

    /// Makes a process a target, by its number in ioscope's pid namespace.
    pub fn add_target(&mut self, process: u32) -> Result<(), ProbeError> {
        Ok(self.targets.insert(process, 1, 0)?)
    }

    /// Calls `visit` with a copy of every loop in use. A loop that is too busy for a copy is left out
    /// this time.
    pub fn scan(&mut self, mut visit: impl FnMut(u32, Box<LoopSlot>)) -> Result<(), ProbeError> {
        let mut asleep_all_along = false;
        for slot in 0..self.loops.len() {
            match self.loops.status(slot) {
                Some(status::LIVE) => {
                    let Some(entry) = self.loops.copy(slot) else { continue };
                    // A thread that was found asleep may have made a loop of its own at that moment.
                    if self.frozen_at.is_some() || self.directory.place_of(entry.kernel_tid) == slot + 1 {
                        asleep_all_along |= entry.machine.found_asleep != 0;
                        visit(slot, entry);
                    } else if self.loops.status(slot) == Some(status::LIVE) {
                        self.release(slot)?;
                    }
                }
                Some(status::ENDED) => {
                    if let Some(entry) = self.loops.copy(slot) {
                        visit(slot, entry);
                    }
                }
                _ => {}
            }
        }
        self.release_sleepers(asleep_all_along)
    }

    /// Takes the hook for them away when all have returned, or after a while: every system call of the machine pays
    /// for it.
    fn release_sleepers(&mut self, are_there: bool) -> Result<(), ProbeError> {
        let Some(since) = self.awaiting_sleepers else { return Ok(()) };
        if are_there && since.elapsed() < PATIENCE_WITH_SLEEPERS {
            return Ok(());
        }
        self.awaiting_sleepers = None;
        self.skipped_before += self.skipped_runs_of(RETURN_OF_SLEEPERS.program);
        self.stand_ins.retain(|stand_in| stand_in.of != RETURN_OF_SLEEPERS.program);
        match self.ebpf.as_mut().and_then(|ebpf| ebpf.program_mut(RETURN_OF_SLEEPERS.program)) {
            Some(program) => Ok(unload(program)?),
            None => Ok(()),
        }
    }

    /// Frees an ended loop's place. Only after its last copy was taken and the stream drained.
    pub fn release(&mut self, slot: u32) -> Result<(), ProbeError> {
        self.loops.clear(slot);
        if let Some(profiles) = &self.profiles {
            profiles.clear_calls(slot);
        }
        Ok(self.free.push(slot, 0)?)
    }

    /// Calls `visit` with the records of the stream, oldest first, `limit` at most. Returns how many
    /// there were.
    pub fn drain(&mut self, limit: usize, mut visit: impl FnMut(Record)) -> usize {
        let mut drained = 0;
        while drained < limit {
            let Some(item) = self.stream.next() else { break };
            drained += 1;
            if let Some(record) = decode(&item) {
                visit(record);
            }
        }
        drained
    }

    /// Hands what the probes have to say to the log, if the plan asked for it.
    pub fn log_diagnostics(&mut self) {
        if let Some(diagnostics) = &mut self.diagnostics {
            diagnostics.flush();
        }
    }

    /// Who has a place, however busy: a copy of the entry that may be several moments' in what changes.
    /// `None` when the place is free.
    pub fn tenant(&self, slot: u32) -> Option<Box<LoopSlot>> {
        self.loops.glance(slot).filter(|entry| entry.status != status::FREE)
    }

    /// Which loops stream: [`Control::STREAM_OFF`] and its siblings.
    pub fn set_stream(&self, stream: u32) {
        self.control.set_stream(stream);
    }

    /// Marks a loop for [`Control::STREAM_MARKED`].
    pub fn mark(&self, slot: u32, marked: bool) {
        self.loops.mark(slot, marked);
    }

    /// Tells the probes that a loop's poller is shared by its runtime's design.
    pub fn set_shared(&self, slot: u32) {
        self.loops.set_shared(slot);
    }

    /// From which loop duration on a slice is a stall, of all loops that there are and will be.
    pub fn set_stall_threshold(&self, threshold: Duration) {
        self.control.set_stall_threshold(nanoseconds(threshold));
        for slot in 0..self.loops.len() {
            self.set_stall_threshold_of(slot, threshold);
        }
    }

    /// From which loop duration on it is looked at where the thread is.
    pub fn set_warn_threshold(&self, threshold: Duration) {
        self.control.set_warn_threshold(nanoseconds(threshold));
    }

    /// From which loop duration on a slice of the loop in this place is a stall.
    pub fn set_stall_threshold_of(&self, slot: u32, threshold: Duration) {
        self.loops.set_stall_threshold(slot, nanoseconds(threshold));
    }

    /// The system calls of the loop in this place outside its wait calls, by number, and those whose number is beyond
    /// what is known; `None` unless the plan asked for them. What returns meanwhile may be counted in part.
    pub fn syscalls(&self, slot: u32) -> Option<Vec<(Option<usize>, CallTimes)>> {
        Some(self.profiles.as_ref()?.calls(slot).collect())
    }

    /// Calls `visit` with what of a loop tells whether its slice is too long, for every loop that lives;
    /// cheap enough to be done often.
    pub fn glance_at_slices(&self, visit: impl FnMut(u32, SliceGlance)) {
        self.loops.glance_at_slices(visit);
    }

    /// Tells the probes that it is known where a loop's thread sleeps, so that they tell when it wakes. Should
    /// it be awake by now, nothing comes of it.
    pub fn set_captured(&self, slot: u32) {
        self.loops.set_captured(slot);
    }

    /// A copy of a loop's entry, if it is in use and could be copied.
    pub fn copy(&self, slot: u32) -> Option<Box<LoopSlot>> {
        self.loops.copy(slot).filter(|entry| entry.status == status::LIVE)
    }

    /// Calls `visit` with the captures of stacks since the last time, oldest first.
    pub fn drain_captures(&mut self, mut visit: impl FnMut(Capture)) {
        while let Some(item) = self.captures.next() {
            if let Some(capture) = Capture::decode(&item) {
                visit(capture);
            }
        }
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// The size of the captures' buffer.
fn captures_bytes() -> u32 {
    let cpus = online_cpus().map_or(1, |cpus| cpus.len());
    let wanted = (cpus * CAPTURES_PER_CPU * size_of::<CaptureRecord>()).next_power_of_two();
    u32::try_from(wanted.clamp(1 << 20, 32 << 20)).unwrap_or(1 << 20)
}

/// The programs refer to maps by descriptors until they are loaded, so that a map that is taken must
/// be kept.
fn take(ebpf: &mut Ebpf, name: &'static str) -> Result<Map, ProbeError> {
    ebpf.take_map(name).ok_or(ProbeError::Object(name))
}

fn map_array<T: super::memory::Shared>(
    ebpf: &Ebpf,
    name: &'static str,
    entries: u32,
) -> Result<MappedArray<T>, ProbeError> {
    match ebpf.map(name) {
        Some(Map::Array(data)) => MappedArray::new(data.fd(), entries).map_err(ProbeError::Memory),
        _ => Err(ProbeError::Object(name)),
    }
}

/// Compiles globs over process names.
///
/// # Errors
/// When one cannot be compiled, or all together are too long.
fn compile(globs: &[String]) -> Result<CommPatterns, ProbeError> {
    let mut patterns = CommPatterns::NONE;
    for glob in globs {
        patterns.add(glob.as_bytes()).map_err(|reason| ProbeError::Pattern { glob: glob.clone(), reason })?;
    }
    Ok(patterns)
}

fn decode(item: &[u8]) -> Option<Record> {
    // SAFETY: the probes write whole records, of which every bit pattern is a value; the ring buffer
    // aligns them to 8 bytes.
    unsafe {
        match (item.first()?, item.len()) {
            (&kind::ITERATION, length) if length >= size_of::<Iteration>() => {
                Some(Record::Iteration(std::ptr::read_unaligned(item.as_ptr().cast())))
            }
            (&kind::BLOCK, length) if length >= size_of::<BlockRecord>() => {
                Some(Record::Block(std::ptr::read_unaligned(item.as_ptr().cast())))
            }
            _ => None,
        }
    }
}
