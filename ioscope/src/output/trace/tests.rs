use ioscope_common::{NO_WAKEUP, State, TIMEOUT_NEVER, TIMEOUT_UNKNOWN};

use super::*;

const AT: Moment = Moment {
    monotonic_ns: 5_000,
    unix_ns: 1_700_000_000_123_456_789,
    time_of_day_ns: (13 * 3_600 + 5 * 60 + 7) * 1_000_000_000 + 42_999,
};

fn who() -> Identity {
    Identity {
        pid: 41,
        tid: 42,
        inner: None,
        comm: "redis-server".to_owned(),
        process: "redis-server".to_owned(),
        runtime: None,
    }
}

fn record() -> Iteration {
    Iteration {
        kind: ioscope_common::kind::ITERATION,
        call: WaitCall::EpollWait as u8,
        flags: Iteration::SLEPT,
        waker_context: WakerContext::Thread as u8,
        slot: 0,
        returned_at: AT.monotonic_ns,
        wait_ns: 1_200_000,
        loop_ns: 340_000,
        blocked_ns: 0,
        parked_ns: 0,
        wakeup_ns: 12_100,
        run_queue_ns: 3_200,
        timeout: 100_000_000,
        result: 3,
        events: 3,
        fd: 5,
        max_events: 1024,
        waker: 88,
        ready_ns: Iteration::READY_UNSEEN,
    }
}

fn text(event: Event<'_>) -> String {
    let mut out = Vec::new();
    write_text(&mut out, AT, &who(), event).unwrap();
    String::from_utf8(out).unwrap()
}

fn json(event: Event<'_>) -> serde_json::Value {
    let mut out = Vec::new();
    write_json(&mut out, AT, &who(), event).unwrap();
    assert_eq!(out.split_inclusive(|byte| *byte == b'\n').count(), 1, "one line");
    serde_json::from_slice(&out).unwrap()
}

fn turn(record: &Iteration) -> Event<'_> {
    Event::Iteration(Turn { record, waker: Some("curl"), unfinished: false, stall: false })
}

#[test]
fn an_iteration_is_a_line() {
    assert_eq!(
        text(turn(&record())),
        "13:05:07.000042 redis-server/42        epoll_wait(epfd 5, max 1024, timeout 100ms)    = 3        \
         slept 1.20ms, ran  340µs; woken by curl/88, 12.1µs late (run queue 3.20µs)\n"
    );
    assert_eq!(
        json(turn(&record())),
        serde_json::json!({
            "type": "iteration", "time": "2023-11-14T22:13:20.123456Z", "monotonic_ns": 5_000,
            "pid": 41, "tid": 42, "comm": "redis-server",
            "call": "epoll_wait", "fd": 5, "max_events": 1024, "timeout_ns": 100_000_000,
            "result": 3, "ready_events": 3, "slept": true, "wait_ns": 1_200_000,
            "wakeup_latency_ns": 12_100, "run_queue_delay_ns": 3_200,
            "waker": {"context": "thread", "tid": 88, "comm": "curl"},
            "loop_duration_ns": 340_000, "blocked_ns": 0, "parked_ns": 0,
            "stall": false, "flags": [], "unfinished": false,
        })
    );
}

#[test]
fn errors_have_names_and_absent_things_are_left_out() {
    let record = Iteration {
        flags: 0,
        waker_context: 0,
        waker: 0,
        wakeup_ns: NO_WAKEUP,
        run_queue_ns: NO_WAKEUP,
        result: -4,
        events: 0,
        timeout: TIMEOUT_NEVER,
        ..record()
    };
    let line = text(turn(&record));
    assert!(line.contains("epoll_wait(epfd 5, max 1024, no timeout)"), "{line}");
    assert!(line.contains("= -1 EINTR ") && line.trim_end().ends_with("took  1.20ms, ran  340µs"), "{line}");
    let object = json(turn(&record));
    assert_eq!((&object["errno"], &object["timeout_ns"]), (&"EINTR".into(), &(-1).into()));
    assert!(object.get("waker").is_none() && object.get("wakeup_latency_ns").is_none(), "{object}");
    let unheard_of = Iteration { result: -999, timeout: TIMEOUT_UNKNOWN, ..record };
    let line = text(turn(&unheard_of));
    assert!(line.contains("timeout ?)") && line.contains("= -1 errno 999"), "{line}");
    assert_eq!(json(turn(&unheard_of))["timeout_ns"], serde_json::Value::Null);
}

#[test]
fn a_switch_that_the_kernel_hid_leaves_the_run_queue_delay_unknown() {
    let record = Iteration { run_queue_ns: NO_WAKEUP, ..record() };
    let line = text(turn(&record));
    assert!(line.ends_with("; woken by curl/88, 12.1µs late\n"), "{line}");
    let object = json(turn(&record));
    assert_eq!(object["wakeup_latency_ns"], 12_100);
    assert!(object.get("run_queue_delay_ns").is_none(), "{object}");
}

#[test]
fn each_wait_call_shows_its_own_arguments() {
    for (call, arguments) in [
        (WaitCall::EpollPwait2, "epoll_pwait2(epfd 7, max -1, timeout 1500µs)"),
        (WaitCall::Poll, "poll(4294967295 fds, timeout 1500µs)"),
        (WaitCall::Pselect6, "pselect6(nfds 4294967295, timeout 1500µs)"),
        (WaitCall::IoUringEnter, "io_uring_enter(ring 7, timeout 1500µs)"),
        (WaitCall::IoGetevents, "io_getevents(max 4294967295, timeout 1500µs)"),
    ] {
        let record =
            Iteration { call: call as u8, fd: 7, max_events: u32::MAX, timeout: 1_500_000, ..record() };
        let line = text(turn(&record));
        assert!(line.contains(&format!(" {arguments} ")), "{line}");
    }
    for (timeout, shown) in [(0, "0"), (3_000_000_000, "3s"), (1, "1ns"), (1_001_000, "1001µs")] {
        let line = text(turn(&Iteration { timeout, ..record() }));
        assert!(line.contains(&format!("timeout {shown})")), "{line}");
    }
}

#[test]
fn what_is_remarkable_comes_last() {
    let record = Iteration {
        call: WaitCall::IoUringEnter as u8,
        flags: Iteration::SLEPT | Iteration::TIMED_OUT | Iteration::BATCH_FULL,
        waker_context: WakerContext::SoftInterrupt as u8,
        blocked_ns: 5_000,
        parked_ns: 6_000,
        ..record()
    };
    let event = Event::Iteration(Turn { record: &record, waker: None, unfinished: true, stall: true });
    let line = text(event);
    assert!(
        line.ends_with(
            "ran  340µs so far, a stall, blocked 5.00µs, parked 6.00µs besides; woken by softirq on \
             thread/88, 12.1µs late (run queue 3.20µs); 3 completions; timed out; batch full\n"
        ),
        "{line}"
    );
    let object = json(event);
    assert_eq!(object["flags"], serde_json::json!(["timed_out", "batch_full"]));
    assert_eq!(object["waker"], serde_json::json!({"context": "softirq", "tid": 88}));
    assert_eq!((&object["unfinished"], &object["stall"]), (&true.into(), &true.into()));
}

#[test]
fn other_lines() {
    let block =
        Block { since: 1, ns: 12_000_000, syscall: ioscope_common::STOPPED, state: State::Blocked as u32 };
    assert!(text(Event::Block(&block)).ends_with("  … stopped for 12.0ms\n"));
    let fault = Block { syscall: ioscope_common::NO_SYSCALL, ..block };
    assert!(text(Event::Block(&fault)).ends_with("  … blocked in no system call for 12.0ms\n"));
    assert_eq!(json(Event::Block(&block))["blocked_ns"], 12_000_000);
    let call = Call::of(&record());
    assert!(text(Event::Waiting(call, 3_000_000_000)).ends_with("= ?        slept  3.00s so far\n"));
    assert_eq!(json(Event::Waiting(call, 3))["wait_ns"], 3);
    let mut out = Vec::new();
    write_json_drops(&mut out, &Drops { ring_full: 2, ..Drops::default() }).unwrap();
    let object: serde_json::Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(object["dropped"]["ring_full"], 2);
}

#[test]
fn an_event_that_waited_for_a_busy_loop_is_told_of() {
    let busy = Iteration {
        flags: 0,
        wakeup_ns: NO_WAKEUP,
        run_queue_ns: NO_WAKEUP,
        ready_ns: 40_000_000,
        ..record()
    };
    assert!(text(turn(&busy)).contains("; ready for 40.0ms"), "{}", text(turn(&busy)));
    assert_eq!(json(turn(&busy))["ready_delay_ns"], 40_000_000);
    assert!(!text(turn(&record())).contains("ready for"));
    assert_eq!(json(turn(&record()))["ready_delay_ns"], serde_json::Value::Null);
}
