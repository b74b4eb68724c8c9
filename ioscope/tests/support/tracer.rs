//! The tracer in this process: the probes on the running kernel, and what they have counted.

use std::collections::HashMap;
use std::io::Write as _;
use std::time::{Duration, Instant};

use clap::ValueEnum as _;
use ioscope::cli::Hooks;
use ioscope::model::{Batch, LoopId, LoopModel, Model};
use ioscope::probe::hooks::HookChoice;
use ioscope::probe::{Plan, ProbeError, Targets};
use ioscope::source::{LiveSource, Source as _};
use ioscope_common::{Block, Control, Iteration};

use super::expect::brief;

/// The stall threshold of these tests: none of their slices is a stall unless it is meant to be.
pub(crate) const STALL_THRESHOLD: Duration = Duration::from_hours(1);

/// Traces these processes, without a stream.
pub(crate) fn plan(processes: &[u32]) -> Plan {
    Plan {
        targets: Targets { processes: processes.to_vec(), ..Targets::default() },
        capacity: 1024,
        stream_bytes: 4096,
        stream: Control::STREAM_OFF,
        stall_threshold: STALL_THRESHOLD,
        warn_threshold: STALL_THRESHOLD,
        presets: false,
        syscalls: false,
        without: Vec::new(),
        hooks: hooks(),
        diagnostics: false,
    }
}

/// Which ways to hook are tried: all, or those that the variable names which the program itself goes by, so that
/// every test can be run on each way.
pub(crate) fn hooks() -> HookChoice {
    let Some(choice) = std::env::var_os("IOSCOPE_HOOKS") else { return HookChoice::Auto };
    let choice = choice.to_str().expect("text");
    Hooks::from_str(choice, false).expect("one of the ways").into()
}

/// The same, and every iteration is streamed through a buffer of this size.
pub(crate) fn streaming(processes: &[u32], stream_bytes: u32) -> Plan {
    Plan { stream_bytes, stream: Control::STREAM_ALL, ..plan(processes) }
}

/// The probes at work, and all that came from them.
pub(crate) struct Tracer {
    source: LiveSource,
    pub(crate) model: Model,
    pub(crate) iterations: HashMap<LoopId, Vec<Iteration>>,
    pub(crate) blocks: HashMap<LoopId, Vec<Block>>,
}

impl Tracer {
    /// `None` where this process may not trace: the test is skipped, and says so. A build machine must.
    pub(crate) fn start(plan: &Plan) -> Option<Self> {
        match LiveSource::start(plan) {
            Ok(source) => Some(Self {
                source,
                model: Model::new(plan.stall_threshold),
                iterations: HashMap::new(),
                blocks: HashMap::new(),
            }),
            Err(
                error @ (ProbeError::NotPermitted
                | ProbeError::Btf(_)
                | ProbeError::ProgramBtf(_)
                | ProbeError::Architecture),
            ) => {
                let on_build_machine = std::env::var_os("CI").is_some_and(|ci| ci == "true");
                assert!(!on_build_machine, "CI=true, and the probes cannot be used: {error}");
                let test = std::thread::current().name().unwrap_or("a test").to_owned();
                // Past the test harness, which keeps what a test that passes prints to itself.
                let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {error}");
                None
            }
            Err(error) => panic!("the probes do not start: {error}"),
        }
    }

    /// The same, for tests that start what they trace before.
    pub(crate) fn of(processes: &[u32]) -> Option<Self> {
        Self::start(&plan(processes))
    }

    /// The way by which a job of the probes is done here.
    pub(crate) fn way_of(&self, job: &str) -> Option<&'static str> {
        let status = self.source.jobs().iter().find(|status| status.job.name == job)?;
        status.way.map(|way| way.name)
    }

    pub(crate) fn add_target(&mut self, process: u32) {
        self.source.add_target(process).expect("there is room for a target");
    }

    /// Takes a batch into the model.
    pub(crate) fn take(&mut self) -> Batch {
        let batch = self.take_raw();
        self.model.apply(&batch);
        self.check_every_loop();
        for (id, iteration) in &batch.iterations {
            self.iterations.entry(*id).or_default().push(*iteration);
        }
        for (id, block) in &batch.blocks {
            self.blocks.entry(*id).or_default().push(*block);
        }
        batch
    }

    /// Takes a batch that the model does not get.
    pub(crate) fn take_raw(&mut self) -> Batch {
        self.source.next_batch().expect("the maps can be read").expect("a live source goes on")
    }

    /// Takes batches until what they add up to is as it should be.
    pub(crate) fn take_until(&mut self, is_so: impl Fn(&Model) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !is_so(&self.model) {
            assert!(Instant::now() < deadline, "it does not come about: {:?}", self.model.drops());
            std::thread::sleep(Duration::from_millis(2));
            self.take();
        }
    }

    /// Takes the probes off, and the last batch.
    pub(crate) fn finish(&mut self) {
        self.source.detach().expect("the probes come off");
        self.take();
    }

    /// What is true of every loop, whatever it does.
    fn check_every_loop(&self) {
        let drops = self.model.drops();
        assert_eq!((drops.targets_full, drops.out_of_directory, drops.compat_calls), (0, 0, 0), "{drops:?}");
        for model in self.model.loops() {
            let stats = &model.stats;
            let whole: u64 = stats.time_ns.iter().sum();
            assert_eq!(
                whole,
                stats.until - stats.from,
                "time per state adds up to the life of {}",
                brief(model)
            );
            assert_eq!(stats.counters.impossible, 0, "{drops:?} {}", brief(model));
        }
    }

    /// The loop of a thread, by its number in this pid namespace.
    pub(crate) fn by_tid(&self, tid: u32) -> Option<&LoopModel> {
        self.model.loops().find(|model| model.identity.tid == tid)
    }

    /// How many loops there are.
    pub(crate) fn count(&self) -> usize {
        self.model.loops().count()
    }
}
