//! The loops of `ioscope demo`: one of each kind worth seeing, running until stopped.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use ioscope_common::WaitCall;

use super::DemoError;
use super::fleet::Fleet;
use super::report::Report;
use super::spec::{Pattern, Slice, Spec, Work};

const US: u64 = 1_000;
const MS: u64 = 1_000 * US;

/// A loop that is woken each `period_ns`, and burns `burn_ns` of CPU each time.
fn ticking(comm: &str, call: WaitCall, period_ns: u64, burn_ns: u64) -> Spec {
    Spec {
        comm: Some(comm.to_owned()),
        period_ns,
        work: vec![Slice::always(Work::Burn { ns: burn_ns })],
        ..Spec::new(call, Pattern::Ticker)
    }
}

/// The loops of `ioscope demo`. None ends by itself.
pub fn scenarios() -> Vec<Spec> {
    let overloaded = Spec {
        fds: 64,
        // Sleeps for what 9.5 of 10 ms leave.
        ..ticking("epoll-overload", WaitCall::EpollPwait, 10 * MS, 9_500 * US)
    };
    let mut computing = ticking("stall-compute", WaitCall::EpollWait, 5 * MS, 20 * US);
    computing.work.push(Slice::each(2_000 * MS, Work::ParseJson { ns: 250 * MS }));
    let mut sleeping = ticking("stall-blocking", WaitCall::EpollPwait2, 5 * MS, 20 * US);
    sleeping.work.push(Slice::each(3_000 * MS, Work::SleepInHandler { ns: 300 * MS }));
    let turns = Spec {
        pattern: Pattern::TakeTurns,
        threads: 2,
        ..ticking("shared-worker", WaitCall::EpollWait, MS, 100 * US)
    };
    vec![
        ticking("epoll-healthy", WaitCall::EpollWait, MS, 30 * US),
        ticking("poll-healthy", WaitCall::Poll, 2 * MS, 50 * US),
        ticking("uring-healthy", WaitCall::IoUringEnter, MS, 30 * US),
        overloaded,
        computing,
        sleeping,
        turns,
    ]
    .into_iter()
    .map(portable)
    .collect()
}

/// The same loop with a call that this architecture has.
fn portable(spec: Spec) -> Spec {
    let call = match (super::sys::number(spec.call), spec.call) {
        (None, WaitCall::EpollWait) => WaitCall::EpollPwait,
        (None, WaitCall::Poll) => WaitCall::Ppoll,
        (None, WaitCall::Select) => WaitCall::Pselect6,
        (_, call) => call,
    };
    Spec { call, ..spec }
}

/// Runs [`scenarios`] in this process until `stop` is set.
pub fn run_scenarios(stop: &AtomicBool) -> Result<Report, DemoError> {
    let mut fleet = Fleet::prepare(&scenarios())?;
    fleet.go()?;
    while !stop.load(Ordering::Relaxed) {
        thread::sleep(Duration::from_millis(20));
    }
    fleet.stop();
    fleet.join()
}
