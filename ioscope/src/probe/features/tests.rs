use super::super::arch::Arch;
use super::super::btf::synth::Synth;
use super::super::environment::tests::healthy;
use super::super::environment::{Capabilities, Fact};
use super::*;

fn probe(name: &str, synth: &Synth, change: impl FnOnce(&mut Environment)) -> Support {
    let btf = Btf::from_bytes(synth.bytes()).unwrap();
    let mut environment = healthy();
    change(&mut environment);
    feature(name).unwrap().probe(&btf, &environment)
}

/// What a kernel would need for the scheduler's tracepoints: `extra` arguments of `sched_switch` after `next`.
fn scheduler(extra: usize) -> Synth {
    let mut synth = Synth::new();
    let (bool, int) = (synth.int("bool", 1), synth.int("unsigned int", 4));
    let task = synth.structure("task_struct", 8, &[]);
    let task = synth.pointer(task);
    let mut arguments = vec![bool, task, task];
    arguments.extend(std::iter::repeat_n(int, extra));
    synth.tracepoint("sched_switch", &arguments);
    synth
}

fn detail(support: Support) -> String {
    match support {
        Support::Yes(detail) => detail,
        Support::No { why, .. } => panic!("{why}"),
    }
}

fn why(support: Support) -> String {
    match support {
        Support::Yes(detail) => panic!("{detail}"),
        Support::No { why, lost, how } => {
            assert!(!lost.is_empty() && !how.is_empty());
            why
        }
    }
}

#[test]
fn sched_switch_has_three_arguments_or_four() {
    assert!(detail(probe("context switches", &scheduler(0), |_| ())).starts_with("3 arguments"));
    assert!(detail(probe("context switches", &scheduler(1), |_| ())).starts_with("4 arguments"));
    let mut other = Synth::new();
    let int = other.int("int", 4);
    other.tracepoint("sched_switch", &[int, int, int]);
    assert_eq!(
        why(probe("context switches", &other, |_| ())),
        "the arguments of sched_switch are (int, int, int) here"
    );
    assert_eq!(why(probe("wakeups", &other, |_| ())), "this kernel has no tracepoint sched_waking");
}

#[test]
fn statistics_need_a_capability_unless_they_are_on() {
    let mut synth = Synth::new();
    synth.enumeration(false, "bpf_cmd", &[("BPF_MAP_CREATE", 0), ("BPF_ENABLE_STATS", 32)]);
    let unprivileged = |environment: &mut Environment| {
        environment.process.capabilities =
            Fact::Known(Capabilities { bpf: true, perfmon: true, ..Capabilities::default() });
    };
    assert!(probe("own overhead", &synth, |_| ()).is_yes());
    assert!(why(probe("own overhead", &synth, unprivileged)).contains("CAP_SYS_ADMIN"));
    let on = probe("own overhead", &Synth::new(), |environment| {
        unprivileged(environment);
        environment.bpf_stats_enabled = Fact::Known(1);
    });
    assert!(on.is_yes());
    assert!(!probe("own overhead", &Synth::new(), |_| ()).is_yes());
}

#[test]
fn a_hidden_symbol_costs_the_waker_context() {
    let synth = Synth::new();
    assert!(detail(probe("waker context", &synth, |_| ())).contains("kallsyms"));
    let hidden = probe("waker context", &synth, |environment| {
        environment.process.capabilities = Fact::Known(Capabilities::default());
    });
    assert_eq!(why(hidden), "the address of __preempt_count is hidden");
    let arm = probe("waker context", &synth, |environment| environment.arch = Some(Arch::Aarch64));
    assert!(!arm.is_yes());
}

#[test]
fn io_uring_can_be_switched_off() {
    let off = probe("io_uring completions", &Synth::new(), |environment| {
        environment.io_uring_disabled = Fact::Known(2);
    });
    assert!(why(off).contains("kernel.io_uring_disabled=2"));
    assert_eq!(why(probe("io_uring completions", &Synth::new(), |_| ())), "the kernel has no io_uring");
}

#[test]
fn an_empty_kernel_supports_nothing_and_says_so() {
    let synth = Synth::new();
    for feature in FEATURES {
        let of = |environment: &mut Environment| {
            environment.arch = None;
            environment.preempts = Fact::Known(true);
        };
        match probe(feature.name, &synth, of) {
            Support::Yes(detail) => panic!("{}: {detail}", feature.name),
            Support::No { why, lost, how } => {
                assert!(!why.is_empty() && lost == feature.lost && !how.is_empty(), "{}", feature.name);
            }
        }
    }
}

#[test]
fn names_are_unique() {
    for (index, row) in FEATURES.iter().enumerate() {
        assert!(!row.needs.is_empty());
        assert!(std::ptr::eq(feature(row.name).unwrap(), &raw const FEATURES[index]), "{}", row.name);
    }
    assert!(feature("nothing").is_none());
}

fn print(name: &str, btf: &Btf, environment: &Environment) {
    println!("{name}");
    for feature in FEATURES {
        println!("  {}: {:?}", feature.name, feature.probe(btf, environment));
    }
}

#[test]
fn the_running_kernel() {
    let Some(btf) = super::super::btf::tests::running_kernel() else { return };
    let environment = Environment::read();
    print("the running kernel", &btf, &environment);
    for feature in FEATURES.iter().filter(|feature| feature.essential) {
        assert!(feature.probe(&btf, &environment).is_yes(), "{}", feature.name);
    }
}

#[test]
fn other_kernels() {
    for (name, arch, btf) in super::super::layout::tests::other_kernels() {
        let mut environment = healthy();
        environment.arch = Some(arch);
        print(&name, &btf, &environment);
        for feature in FEATURES.iter().filter(|feature| feature.essential) {
            assert!(feature.probe(&btf, &environment).is_yes(), "{name}: {}", feature.name);
        }
    }
}
