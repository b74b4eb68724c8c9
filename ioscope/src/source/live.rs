//! Batches from a live session.

use std::{
    collections::HashMap,
    os::unix::fs::MetadataExt as _,
    sync::Arc,
    time::{Duration, Instant},
};

use ioscope_common::{COMM_LEN, CallTimes, Control, LoopSlot, status};
use rustix::time::{ClockId, clock_gettime};

use super::{
    Source, SourceError, Streaming,
    throttling::ThrottlingCounts,
    watch::{Occupant, Watch},
};
use crate::{
    model::{
        Batch, Cost, Identity, LoopId, Sample, SyscallUse, Syscalls, Throttling, stalls::OTHER_SYSCALLS,
    },
    probe::{Plan, ProbeError, Record, Session, hooks::JobStatus},
    runtime::{PollerSharing, ProcessFacts, Recogniser, Runtime, recognise_thread},
};

/// How often a batch is taken while nothing streams: a copy of the counters costs little.
const QUIET_TICK: Duration = Duration::from_millis(250);
/// How often while loops stream: the buffer must not fill up in between.
const STREAM_TICK: Duration = Duration::from_millis(20);
/// How often the copies are taken while some loops stream, of whom only the records are wanted sooner.
const SAMPLE_TICK: Duration = Duration::from_millis(100);
/// At most so many records a batch: what is left waits for the next.
const MAX_RECORDS: usize = 1 << 20;
/// How old the counts of cgroups may be: asking for them reads a few files a process.
const THROTTLING_AGE_NS: u64 = 1_000_000_000;
/// A runtime may show itself only once its libraries are loaded: it is looked for so often.
const RECOGNITION_TRIES: u32 = 4;

/// Which loops stream.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Streams {
    None,
    /// For a screen, which does not need a copy of all loops with each batch.
    Some,
    All,
}

/// A live session as a source.
pub struct LiveSource {
    session: Session,
    streaming: Streams,
    /// Between two batches while nothing streams.
    pace: Duration,
    /// When the copies were last taken; 0 when they have to be taken now.
    sampled_at: u64,
    next_id: u64,
    /// Who has which place, by the place.
    tenants: HashMap<u32, Tenant>,
    processes: HashMap<u32, Process>,
    recogniser: Recogniser,
    watch: Watch,
    warn_threshold: Duration,
    /// Each runtime's stalls begin where the table of runtimes says.
    presets: bool,
    /// Loops that have got a threshold of their own, for the next batch to tell.
    thresholds: Vec<(LoopId, Duration)>,
    detached: bool,
}

/// A loop in its place.
struct Tenant {
    id: LoopId,
    kernel_tid: u32,
    born: u64,
    identity: Arc<Identity>,
}

/// What is known of a process, for all its loops.
struct Process {
    name: String,
    facts: ProcessFacts,
    recognised: bool,
    tries: u32,
    throttling: ThrottlingCounts,
    /// What these said last, and when they were asked.
    throttled: (Option<Throttling>, u64),
}

impl LiveSource {
    /// Starts tracing.
    ///
    /// # Errors
    /// When the kernel does not allow it.
    pub fn start(plan: &Plan) -> Result<Self, ProbeError> {
        Ok(Self {
            session: Session::start(plan)?,
            streaming: if plan.stream == Control::STREAM_OFF { Streams::None } else { Streams::All },
            pace: QUIET_TICK,
            sampled_at: 0,
            next_id: 0,
            tenants: HashMap::new(),
            processes: HashMap::new(),
            recogniser: Recogniser::default(),
            watch: Watch::new(plan.stall_threshold, plan.warn_threshold),
            warn_threshold: plan.warn_threshold,
            presets: plan.presets,
            thresholds: Vec::new(),
            detached: false,
        })
    }

    /// When to look for stalls next.
    pub const fn next_look(&self) -> Instant {
        self.watch.next()
    }

    /// Looks for stalls. `true` when one was found or has ended, so that a batch should be taken at once.
    pub fn look_for_stalls(&mut self) -> bool {
        self.watch_stalls();
        self.watch.has_news()
    }

    fn watch_stalls(&mut self) {
        let tenants = &self.tenants;
        let who = |slot| {
            let tenant = tenants.get(&slot)?;
            Some(Occupant { id: tenant.id, pid: tenant.identity.pid })
        };
        let now = self.now();
        self.watch.look(&mut self.session, who, now);
    }

    /// Makes a process a target.
    pub fn add_target(&mut self, process: u32) -> Result<(), ProbeError> {
        self.session.add_target(process)
    }

    /// Detaches the probes; the next batch is the last, and exact.
    pub fn detach(&mut self) -> Result<(), ProbeError> {
        self.sampled_at = 0;
        self.detached = true;
        self.session.detach()
    }

    /// The moment that what can be read now is of.
    fn now(&self) -> u64 {
        self.session.frozen_at().unwrap_or_else(monotonic_ns)
    }

    /// The loop in this place, who it is found out if it is new.
    fn tenant(&mut self, slot: u32, entry: &LoopSlot) -> (LoopId, Arc<Identity>) {
        let comm = text(&entry.comm);
        let machine = &entry.machine;
        // A thread that was found asleep may turn out to begin later, before its first return.
        let is_same = |tenant: &Tenant| {
            tenant.kernel_tid == entry.kernel_tid && (tenant.born == machine.born || machine.returned_at == 0)
        };
        if let Some(tenant) = self.tenants.get_mut(&slot).filter(|tenant| is_same(tenant))
            && tenant.identity.runtime.is_some()
        {
            tenant.born = machine.born;
            return (tenant.id, Arc::clone(&tenant.identity));
        }
        let (process, runtime) = self.recognise(entry.tgid, &comm);
        if let Some(tenant) = self.tenants.get_mut(&slot).filter(|tenant| is_same(tenant)) {
            tenant.born = machine.born;
            if tenant.identity.runtime != runtime.as_ref().map(|runtime| runtime.name) {
                let identity = Identity {
                    runtime: runtime.as_ref().map(|runtime| runtime.name),
                    ..Identity::clone(&tenant.identity)
                };
                tenant.identity = Arc::new(identity);
            }
            let (id, identity) = (tenant.id, Arc::clone(&tenant.identity));
            self.preset(slot, id, runtime.as_ref());
            return (id, identity);
        }
        if runtime.as_ref().is_some_and(|runtime| runtime.poller_sharing == PollerSharing::Shared) {
            self.session.set_shared(slot);
        }
        self.next_id += 1;
        let id = LoopId(self.next_id);
        let identity = Arc::new(Identity {
            pid: entry.tgid,
            tid: entry.tid,
            inner: (entry.inner_tid != entry.tid).then_some((entry.inner_tgid, entry.inner_tid)),
            comm,
            process,
            runtime: runtime.as_ref().map(|runtime| runtime.name),
        });
        self.preset(slot, id, runtime.as_ref());
        let tenant =
            Tenant { id, kernel_tid: entry.kernel_tid, born: machine.born, identity: Arc::clone(&identity) };
        self.tenants.insert(slot, tenant);
        (id, identity)
    }

    /// A process's name, and the runtime of one of its threads.
    fn recognise(&mut self, pid: u32, thread: &str) -> (String, Option<Runtime>) {
        let process = self.processes.entry(pid).or_insert_with(|| Process {
            name: std::fs::read_to_string(format!("/proc/{pid}/comm"))
                .map(|name| printable(name.trim_end()))
                .unwrap_or_default(),
            facts: ProcessFacts::default(),
            recognised: false,
            tries: 0,
            throttling: ThrottlingCounts::of(pid),
            throttled: (None, 0),
        });
        if !process.recognised && process.tries < RECOGNITION_TRIES && !is_own_program(pid) {
            process.tries += 1;
            process.facts = self.recogniser.facts(pid);
            process.recognised = recognise_thread(&process.facts, thread).is_some();
        }
        let runtime = recognise_thread(&process.facts, thread);
        (process.name.clone(), runtime)
    }

    /// Gives a loop the threshold of its runtime, if that has one.
    fn preset(&mut self, slot: u32, id: LoopId, runtime: Option<&Runtime>) {
        if let Some(preset) = runtime.and_then(|runtime| runtime.stall_preset).filter(|_| self.presets) {
            self.session.set_stall_threshold_of(slot, preset.threshold);
            self.thresholds.push((id, preset.threshold));
        }
    }

    /// The system calls of a loop's slices, if they are counted.
    fn syscalls(&self, slot: u32) -> Option<Syscalls> {
        let calls = self.session.syscalls(slot)?;
        let call = |(number, times): (Option<usize>, CallTimes)| SyscallUse {
            syscall: number.and_then(|number| i32::try_from(number).ok()).unwrap_or(OTHER_SYSCALLS),
            count: times.count,
            total_ns: times.total_ns,
            max_ns: times.max_ns,
        };
        Some(Syscalls::new(calls.into_iter().map(call).collect()))
    }

    /// The loop in this place, whatever it does at this moment.
    fn id_of(&mut self, slot: u32) -> Option<LoopId> {
        if let Some(tenant) = self.tenants.get(&slot) {
            return Some(tenant.id);
        }
        let entry = self.session.tenant(slot)?;
        Some(self.tenant(slot, &entry).0)
    }

    /// How often the process was held back, as of a moment ago; of the last batch, as of now.
    fn throttling(&mut self, pid: u32, now: u64) -> Option<Throttling> {
        let process = self.processes.get_mut(&pid)?;
        let (known, asked_at) = process.throttled;
        if !self.detached && now.saturating_sub(asked_at) < THROTTLING_AGE_NS {
            return known;
        }
        let throttled = process.throttling.since().or(known);
        process.throttled = (throttled, now);
        throttled
    }

    fn sample(&mut self, slot: u32, entry: &LoopSlot, now: u64) -> Sample {
        let (id, identity) = self.tenant(slot, entry);
        let throttling = self.throttling(identity.pid, now);
        Sample {
            id,
            identity,
            wake: entry.wake,
            shared: entry.shared != 0,
            ring_events: entry.ring_events,
            throttling,
            machine: Box::new(entry.machine),
        }
    }
}

impl Source for LiveSource {
    fn next_batch(&mut self) -> Result<Option<Batch>, SourceError> {
        let began = Instant::now();
        let mut batch = Batch { at: self.now(), ..Batch::default() };
        // Copies first, then the stream: the records of a loop that has ended lie in the stream by then,
        // and its place is given back only after they were taken out.
        let mut entries = Vec::new();
        let pace = u64::try_from(self.pace.min(SAMPLE_TICK).as_nanos()).unwrap_or(0);
        if self.streaming != Streams::Some || batch.at >= self.sampled_at + pace {
            self.sampled_at = batch.at;
            self.session.scan(|slot, entry| entries.push((slot, entry)))?;
        }
        let mut ended = Vec::new();
        for (slot, entry) in entries {
            let over = entry.status == status::ENDED;
            let sample = self.sample(slot, &entry, batch.at);
            if over {
                ended.push(slot);
                batch.ended.push(sample.id);
            }
            if let Some(syscalls) = self.syscalls(slot) {
                batch.syscalls.push((sample.id, syscalls));
            }
            batch.samples.push(sample);
        }
        let tenants = &self.tenants;
        let mut unknown = Vec::new();
        self.session.drain(MAX_RECORDS, |record| match tenants.get(&slot_of(&record)) {
            Some(tenant) => add(&mut batch, tenant.id, record),
            None => unknown.push(record),
        });
        // Loops that were born after the copies were taken, or were too busy for one.
        for record in unknown {
            if let Some(id) = self.id_of(slot_of(&record)) {
                add(&mut batch, id, record);
            }
        }
        // By now everyone is known.
        self.watch_stalls();
        if self.detached {
            self.watch.finish();
        }
        self.watch.hand_over(&mut batch);
        for slot in ended {
            self.tenants.remove(&slot);
            self.watch.forget(slot);
            self.session.release(slot)?;
        }
        if !batch.ended.is_empty() {
            let tenants = &self.tenants;
            let lives = |pid| tenants.values().any(|tenant| tenant.identity.pid == pid);
            for pid in self.processes.keys().filter(|pid| !lives(**pid)) {
                self.watch.forget_process(*pid);
            }
            self.processes.retain(|pid, _| lives(*pid));
        }
        batch.thresholds = std::mem::take(&mut self.thresholds);
        self.session.log_diagnostics();
        batch.drops = self.session.drops()?;
        batch.cost = Cost { bpf_ns: self.session.run_time_ns()?, collector_cpu_ns: cpu_ns() };
        self.watch.batch_took(began.elapsed());
        Ok(Some(batch))
    }

    fn tick(&self) -> Duration {
        if self.streaming == Streams::None { self.pace } else { STREAM_TICK }
    }

    fn set_pace(&mut self, pace: Duration) {
        self.pace = pace.min(QUIET_TICK);
    }

    fn measure_run_time(&mut self, on: bool) -> bool {
        self.session.measure_run_time(on)
    }

    fn stream(&mut self, which: Streaming<'_>) {
        self.streaming = match which {
            Streaming::Off => Streams::None,
            Streaming::All => Streams::All,
            Streaming::Only(_) => Streams::Some,
        };
        match which {
            Streaming::Off => self.session.set_stream(Control::STREAM_OFF),
            Streaming::All => self.session.set_stream(Control::STREAM_ALL),
            Streaming::Only(ids) => {
                for (slot, tenant) in &self.tenants {
                    self.session.mark(*slot, ids.contains(&tenant.id));
                }
                self.session.set_stream(Control::STREAM_MARKED);
            }
        }
    }

    fn set_stall_threshold(&mut self, threshold: Duration) {
        if std::mem::take(&mut self.presets) {
            self.thresholds.extend(self.tenants.values().map(|tenant| (tenant.id, threshold)));
        }
        self.session.set_stall_threshold(threshold);
        self.session.set_warn_threshold(self.warn_threshold.min(threshold));
        self.watch.set_thresholds(threshold, self.warn_threshold.min(threshold));
    }

    fn attach(&self) -> &'static str {
        self.session.way()
    }

    fn jobs(&self) -> &[JobStatus] {
        self.session.jobs()
    }
}

/// Whether a process runs this very program: the built-in loops, which use no runtime, though their
/// executable has one in it.
fn is_own_program(pid: u32) -> bool {
    let file = |path: &str| std::fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()));
    matches!((file(&format!("/proc/{pid}/exe")), file("/proc/self/exe")), (Ok(theirs), Ok(ours)) if theirs == ours)
}

/// The place of the loop that a record is of.
const fn slot_of(record: &Record) -> u32 {
    match record {
        Record::Iteration(iteration) => iteration.slot,
        Record::Block(block) => block.slot,
    }
}

fn add(batch: &mut Batch, id: LoopId, record: Record) {
    match record {
        Record::Iteration(iteration) => batch.iterations.push((id, iteration)),
        Record::Block(block) => batch.blocks.push((id, block.block)),
    }
}

/// A thread's name, up to its first zero byte.
fn text(comm: &[u8; COMM_LEN]) -> String {
    let end = comm.iter().position(|byte| *byte == 0).unwrap_or(COMM_LEN);
    printable(&String::from_utf8_lossy(&comm[..end]))
}

/// A name as a terminal may show it: a program calls itself what it likes, escape sequences too.
pub(crate) fn printable(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// The probes' clock.
fn monotonic_ns() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

/// CPU time of this process, all threads.
fn cpu_ns() -> u64 {
    nanoseconds(ClockId::ProcessCPUTime)
}

fn nanoseconds(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}
