//! `ioscope doctor`: what this machine allows. It looks around, and then it tries.

use std::{
    fmt::Write as _,
    io::{self, ErrorKind, Write as _},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use ioscope_common::Control;

use crate::{
    cli::DoctorArgs,
    output::doctor::{Fact, Item, Refused, Report, write_json, write_text},
    probe::{
        Plan, ProbeError, Session, Targets,
        arch::Arch,
        btf::Btf,
        environment::{self, Capabilities, Environment, NO_LOCKED_MEMORY, missing_privilege, setcap_command},
        features::{FEATURES, Support},
        hooks::{HookChoice, JOBS, Job, JobStatus, Way},
    },
};

/// Runs the command. The exit code says whether tracing works.
pub(super) fn run(args: DoctorArgs) -> Result<ExitCode> {
    let report = examine(args.hooks.into());
    let mut out = io::stdout().lock();
    let printed = if args.json { write_json(&mut out, &report) } else { write_text(&mut out, &report) };
    match printed.and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        printed => printed.context("standard output cannot be written")?,
    }
    Ok(if report.works { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn examine(choice: HookChoice) -> Report {
    let environment = Environment::read();
    let attempt = attempt(choice);
    let (problem, remedy) = match &attempt {
        Ok(_) => (None, None),
        Err(error) => match missing_privilege(&environment) {
            Some(advice) => (Some(advice.problem), Some(advice.remedy)),
            None => (Some(error.to_string()), None),
        },
    };
    Report {
        schema: 1,
        ioscope: env!("CARGO_PKG_VERSION"),
        works: attempt.is_ok(),
        attached_in_ms: attempt
            .as_ref()
            .ok()
            .map(|attempt| milliseconds(attempt.attaching + attempt.detaching)),
        detached_in_ms: attempt.as_ref().ok().map(|attempt| milliseconds(attempt.detaching)),
        problem,
        remedy,
        machine: machine(&environment),
        privileges: privileges(&environment),
        features: features(&environment),
        hooks: hooks(attempt.as_ref().map(|attempt| &*attempt.jobs), choice, environment.arch),
        setcap: setcap_command(&environment),
    }
}

/// What came of attaching the probes.
struct Attempt {
    jobs: Vec<JobStatus>,
    /// How long that took.
    attaching: Duration,
    /// And taking them away again.
    detaching: Duration,
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Loads and attaches everything, to trace nothing, and takes it away again.
fn attempt(hooks: HookChoice) -> Result<Attempt, ProbeError> {
    let plan = Plan {
        targets: Targets::default(),
        capacity: 1,
        stream_bytes: 4096,
        stream: Control::STREAM_OFF,
        stall_threshold: Duration::from_millis(100),
        warn_threshold: Duration::from_millis(10),
        presets: false,
        syscalls: true,
        without: Vec::new(),
        hooks,
        diagnostics: false,
    };
    let began = Instant::now();
    let session = Session::start(&plan)?;
    let jobs = session.jobs().to_vec();
    let attached = Instant::now();
    drop(session);
    Ok(Attempt { jobs, attaching: attached - began, detaching: attached.elapsed() })
}

fn machine(environment: &Environment) -> Vec<Fact> {
    let process = &environment.process;
    let namespace = |fact: &environment::Fact<environment::Namespace>| match fact {
        environment::Fact::Known(namespace) if namespace.initial => "the initial one".to_owned(),
        environment::Fact::Known(namespace) => format!("{}, a container's", namespace.inode),
        environment::Fact::Unknown(reason) => format!("unknown ({reason})"),
    };
    let path = |fact: &environment::Fact<std::path::PathBuf>| match fact {
        environment::Fact::Known(path) => path.display().to_string(),
        environment::Fact::Unknown(reason) => reason.clone(),
    };
    let mut facts = vec![
        Fact { name: "ioscope", value: env!("CARGO_PKG_VERSION").to_owned() },
        Fact { name: "kernel", value: process.kernel_release.clone() },
        Fact { name: "architecture", value: process.machine.clone() },
        Fact {
            name: "BTF",
            value: match &environment.btf {
                environment::Fact::Known(bytes) => format!("{} KiB", bytes >> 10),
                environment::Fact::Unknown(reason) => format!("none ({reason})"),
            },
        },
        Fact { name: "lockdown", value: environment.lockdown.to_string() },
        Fact {
            name: "security modules",
            value: match &environment.security_modules {
                environment::Fact::Known(modules) => modules.join(", "),
                environment::Fact::Unknown(reason) => format!("unknown ({reason})"),
            },
        },
        Fact {
            name: "BPF compiler",
            value: if environment.bpf_jit_enable == environment::Fact::Known(0) {
                "off: the probes take many times longer; `sudo sysctl net.core.bpf_jit_enable=1`".to_owned()
            } else {
                "on, or not known to be off".to_owned()
            },
        },
        Fact { name: "pid namespace", value: namespace(&environment.pid_namespace) },
        Fact { name: "user namespace", value: namespace(&environment.user_namespace) },
        Fact { name: "cgroups, for --cgroup", value: path(&environment.cgroup2) },
    ];
    if !environment.container.is_empty() {
        facts.push(Fact { name: "container", value: environment.container.join(", ") });
    }
    facts
}

/// A privilege, and what it is for.
struct Privilege {
    name: &'static str,
    essential: bool,
    held: fn(&Capabilities) -> bool,
    gives: &'static str,
}

/// What older kernels than [`NO_LOCKED_MEMORY`] ask for besides.
const LOCKED_MEMORY: Privilege = Privilege {
    name: "CAP_SYS_RESOURCE",
    essential: false,
    held: |held| held.sys_resource,
    gives: "memory for the probes' maps, beyond the limit of locked memory",
};

const PRIVILEGES: [Privilege; 5] = [
    Privilege {
        name: "CAP_BPF",
        essential: true,
        held: |held| held.bpf || held.sys_admin,
        gives: "loading the probes",
    },
    Privilege {
        name: "CAP_PERFMON",
        essential: true,
        held: |held| held.perfmon || held.sys_admin,
        gives: "attaching them, and reading the kernel's memory",
    },
    Privilege {
        name: "CAP_SYS_PTRACE",
        essential: false,
        held: |held| held.sys_ptrace,
        gives: "recognising runtimes in other users' processes",
    },
    Privilege {
        name: "CAP_DAC_READ_SEARCH",
        essential: false,
        held: |held| held.dac_read_search,
        gives: "reading other users' executables, for runtimes and symbols",
    },
    Privilege { name: "CAP_SYSLOG", essential: false, held: |held| held.syslog, gives: "kernel symbols" },
];

fn privileges(environment: &Environment) -> Vec<Item> {
    let held = environment.process.capabilities.known();
    let old = environment.kernel_version.is_known_and(|version| *version < NO_LOCKED_MEMORY);
    PRIVILEGES
        .iter()
        .chain(old.then_some(&LOCKED_MEMORY))
        .map(|privilege| {
            let works = held.map(privilege.held);
            let is_missing = works == Some(false);
            let detail = if is_missing { "this process lacks it" } else { privilege.gives }.to_owned();
            Item {
                lost: is_missing.then(|| privilege.gives.to_owned()),
                how: is_missing.then(|| "sudo, or the setcap command below".to_owned()),
                ..Item::new(privilege.name, privilege.essential, works, detail)
            }
        })
        .collect()
}

fn features(environment: &Environment) -> Vec<Item> {
    let btf = match Btf::from_sys_fs() {
        Ok(btf) => btf,
        Err(error) => {
            let unknown = |feature: &crate::probe::features::Feature| {
                Item::new(feature.name, feature.essential, None, error.to_string())
            };
            return FEATURES.iter().map(unknown).collect();
        }
    };
    FEATURES
        .iter()
        .map(|feature| {
            let (works, detail, lost, how) = match feature.probe(&btf, environment) {
                Support::Yes(detail) => (true, detail, None, None),
                Support::No { why, lost, how } => (false, why, Some(lost.to_owned()), Some(how)),
            };
            let since = environment.arch.and_then(|arch| feature.since.on(arch));
            Item { lost, how, since, ..Item::new(feature.name, feature.essential, Some(works), detail) }
        })
        .collect()
}

fn hooks(attempt: Result<&[JobStatus], &ProbeError>, choice: HookChoice, arch: Option<Arch>) -> Vec<Item> {
    let since = |way: &Way| arch.and_then(|arch| way.since.on(arch));
    let refused = |status: &JobStatus| {
        let refused = status.refused.iter();
        refused.map(|(way, why)| Refused { way: way.name, since: since(way), why: why.clone() }).collect()
    };
    let item = |job: &'static Job, works: Option<bool>, detail: String| Item {
        lost: (works == Some(false)).then(|| job.gives.to_owned()),
        ..Item::new(job.name, job.required, works, detail)
    };
    match attempt {
        Ok(jobs) => jobs
            .iter()
            .map(|status| match (status.way, status.missing()) {
                (Some(way), _) => Item {
                    way: Some(way.name),
                    since: since(way),
                    refused: refused(status),
                    programs: status.programs.iter().copied().collect(),
                    ..item(status.job, Some(true), in_use(status, way.name))
                },
                (None, missing) => Item {
                    refused: refused(status),
                    ..item(status.job, Some(false), missing.unwrap_or_default())
                },
            })
            .collect(),
        Err(error) => JOBS
            .iter()
            .map(|job| match error {
                ProbeError::Hook { hook, reason }
                    if job.ways.iter().flat_map(|way| way.hooks).any(|known| known.name == *hook) =>
                {
                    let way = job.ways.iter().find(|way| choice.allows(job, way));
                    Item { since: way.and_then(since), ..item(job, Some(false), reason.clone()) }
                }
                _ => item(job, None, "not tried".to_owned()),
            })
            .collect(),
    }
}

/// How a job is done, at which cost to the verifier, and why not better.
fn in_use(status: &JobStatus, way: &str) -> String {
    let mut detail = format!("by {way}: {}", status.job.gives);
    let verified: Option<u32> = status.programs.iter().map(|(_, count)| *count).sum();
    if let Some(verified) = verified {
        let programs = match status.programs.len() {
            1 => String::new(),
            count => format!(" in {count} programs"),
        };
        let _ = write!(detail, "; {verified} instructions verified{programs}");
    }
    for (refused, reason) in &status.refused {
        let _ = write!(detail, "; not by {}: {reason}", refused.name);
    }
    detail
}
