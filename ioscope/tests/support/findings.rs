//! Findings as `ioscope stat --json` tells them, of built-in loops that misbehave.

use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ioscope::demo::{Pattern, Slice, Spec, Work};
use ioscope_common::WaitCall;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::ioscope::{IOSCOPE, Tracing, can_trace, documents, run};

pub(crate) const US: u64 = 1_000;
pub(crate) const MS: u64 = 1_000 * US;

/// One at a time: there are not many CPUs.
pub(crate) fn turn(test: &str) -> Option<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::new(());
    let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    can_trace(test).then_some(turn)
}

pub(crate) fn named(comm: &str, spec: Spec) -> Spec {
    Spec { comm: Some(comm.to_owned()), ..spec }
}

/// A loop that is woken each `period` and then does this.
pub(crate) fn ticking(call: WaitCall, period_ns: u64, work: Vec<Slice>) -> Spec {
    Spec { period_ns, work, ..Spec::new(call, Pattern::Ticker) }
}

pub(crate) fn burn(ns: u64) -> Slice {
    Slice::always(Work::Burn { ns })
}

/// What `ioscope stat` says of a process, and its exit code.
pub(crate) fn stat(pid: u32, more: &[&str]) -> (Option<i32>, Value) {
    let pid = pid.to_string();
    let mut arguments = vec!["stat", "--json", "--pid", &pid, "--duration", "1500ms"];
    arguments.extend(more);
    let output = run(arguments);
    let mut documents = documents(&output.stdout);
    assert_eq!(documents.len(), 1, "{}", String::from_utf8_lossy(&output.stderr));
    (output.status.code(), documents.remove(0))
}

/// The same, and what a second source counted while ioscope traced.
pub(crate) fn stat_beside(pid: u32, count: impl Fn() -> u64) -> (Option<i32>, Value, u64) {
    let mut command = Command::new(IOSCOPE);
    command.args(["stat", "--json", "--fail-on", "warn", "--pid", &pid.to_string()]);
    let before = count();
    let tracing = Tracing::start(command);
    let attached = count();
    std::thread::sleep(Duration::from_millis(1500));
    let traced = count() - attached;
    kill_process(Pid::from_child(&tracing.child), Signal::INT).expect("it is running");
    let (code, mut documents) = tracing.end();
    let after = count();
    assert!(before <= attached && attached <= after && documents.len() == 1);
    (code, documents.remove(0), traced)
}

pub(crate) fn loop_called<'a>(report: &'a Value, comm: &str) -> &'a Value {
    let loops = report["loops"].as_array().expect("an array");
    loops.iter().find(|entry| entry["comm"] == comm).unwrap_or_else(|| panic!("no loop {comm}: {report:#}"))
}

/// The finding with this tag that is of a loop with this name.
pub(crate) fn finding<'a>(report: &'a Value, tag: &str, comm: &str) -> Option<&'a Value> {
    let is_of = |who: &Value| who["comm"].as_str().is_some_and(|name| name.starts_with(comm));
    report["findings"].as_array().expect("an array").iter().find(|finding| {
        let others = finding["also"].as_array();
        finding["tag"] == tag && (is_of(finding) || others.is_some_and(|others| others.iter().any(is_of)))
    })
}

/// Whether a finding is as bad as that at least.
pub(crate) fn is_at_least(finding: &Value, severity: &str) -> bool {
    let order = ["info", "warn", "critical"];
    let place = |name: &str| order.iter().position(|known| *known == name);
    place(finding["severity"].as_str().expect("a text")) >= place(severity)
}
