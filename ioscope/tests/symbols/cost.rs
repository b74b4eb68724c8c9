//! What it costs to unwind and to name, in CPU time, so that it matters less what else the machine does.

use std::fs;
use std::time::Duration;

use ioscope::symbols::{End, Resolver};
use rustix::time::{ClockId, clock_gettime};

use crate::programs::{Running, Workshop};
use crate::{gdb, have_gdb, runtimes};

/// What the docs of `symbols` say that it costs: `cargo test --release -p ioscope --test symbols -- --ignored --nocapture`.
#[test]
#[ignore = "it measures, and proves nothing"]
fn what_it_costs() {
    let workshop = Workshop::new();
    if !have_gdb() {
        return;
    }
    if let Some(program) = workshop.build("spin.c", &["-O2", "-g", "-fomit-frame-pointer"]) {
        cost("a small program", &Running::start(&program));
    }
    if let Some(program) = workshop.build("spin.rs", &["--edition=2024", "-O", "-g"]) {
        cost("a Rust program", &Running::start(&program));
    }
    if let Some(running) = runtimes::node(&workshop.path("stall.js")) {
        cost("node", &running);
        fs::remove_file(format!("/tmp/perf-{}.map", running.pid)).unwrap();
    }
    // A file with much debug information: that of the test.
    let (here, size) =
        (what_it_costs as *const () as u64, fs::metadata("/proc/self/exe").map_or(0, |meta| meta.len()));
    let mut resolver = Resolver::new();
    let (first, stack) = cpu(1, || resolver.resolve(std::process::id(), &[], &[here]));
    assert!(stack.frames.last().is_some_and(|frame| frame.name.ends_with("what_it_costs")), "{stack:?}");
    eprintln!("this test, {} MiB: first name {first:.1?}", size >> 20);
}

fn cost(what: &str, running: &Running) {
    const TIMES: u32 = 20_000;
    let pid = running.pid;
    let seen = gdb::snapshot(pid);
    let mut resolver = Resolver::new();

    let (prepared, ()) = cpu(1, || resolver.prepare(pid).expect("it is running"));
    let (first_unwind, found) = cpu(1, || resolver.unwind(pid, &seen.registers, &seen.stack));
    let (first_names, stack) = cpu(1, || resolver.resolve(pid, &[], &found.addresses));
    let (unwind, again) = cpu(TIMES, || resolver.unwind(pid, &seen.registers, &seen.stack));
    assert_eq!((again, found.end), (found.clone(), End::Bottom));
    let (names, again) = cpu(TIMES, || resolver.resolve(pid, &[], &found.addresses));
    assert_eq!(again, stack);
    // What to compare with: what any look at a process costs.
    let (reference, _) = cpu(TIMES / 10, || fs::read(format!("/proc/{pid}/stat")).expect("it is running"));
    eprintln!(
        "{what}: {} addresses, {} frames; opening {prepared:.1?}, first unwind {first_unwind:.1?}, then {unwind:.2?} \
         ({:.0} addresses/s); first names {first_names:.1?}, then {names:.2?}; reading /proc/PID/stat {reference:.2?}",
        found.addresses.len(),
        stack.frames.len(),
        found.addresses.len() as f64 / unwind.as_secs_f64(),
    );
}

/// The CPU time of one of so many runs, and the last result.
fn cpu<T>(times: u32, mut run: impl FnMut() -> T) -> (Duration, T) {
    let now = || {
        let now = clock_gettime(ClockId::ThreadCPUTime);
        Duration::try_from(now).expect("time is not negative")
    };
    let from = now();
    for _ in 1..times {
        run();
    }
    let last = run();
    (now().saturating_sub(from) / times, last)
}
