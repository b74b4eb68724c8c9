//! What it costs to unwind and to name.

use std::fs;
use std::time::Instant;

use ioscope::symbols::{End, Resolver};

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
}

fn cost(what: &str, running: &Running) {
    let pid = running.pid;
    let seen = gdb::snapshot(pid);
    let mut resolver = Resolver::new();
    let took = |from: Instant, times: u32| from.elapsed() / times;

    let from = Instant::now();
    resolver.prepare(pid).expect("it is running");
    let prepared = took(from, 1);
    let from = Instant::now();
    let found = resolver.unwind(pid, &seen.registers, &seen.stack);
    let first_unwind = took(from, 1);
    let from = Instant::now();
    let stack = resolver.resolve(pid, &[], &found.addresses);
    let first_names = took(from, 1);
    let times = 20_000;
    let from = Instant::now();
    for _ in 0..times {
        assert_eq!(resolver.unwind(pid, &seen.registers, &seen.stack).end, End::Bottom);
    }
    let unwind = took(from, times);
    let from = Instant::now();
    for _ in 0..times {
        assert_eq!(resolver.resolve(pid, &[], &found.addresses), stack);
    }
    let names = took(from, times);
    let per_second = found.addresses.len() as f64 / unwind.as_secs_f64();
    eprintln!(
        "{what}: {} addresses, {} frames; opening {prepared:.1?}, first unwind {first_unwind:.1?}, then {unwind:.2?} \
         ({per_second:.0} addresses/s); first names {first_names:.1?}, then {names:.2?}",
        found.addresses.len(),
        stack.frames.len(),
    );
}
