//! What messages do to the state.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ioscope_common::{Transition, WaitCall};

use super::fixture::{MS, S, START, Thread, app, batch, crowd, press, scene, steady, take};
use crate::{
    model::LoopId,
    tui::{App, Effect, Message, columns::ColumnId, rows::Row, update},
};

const SIZE: (u16, u16) = (80, 24);

fn row<'a>(app: &'a App, comm: &str) -> &'a Row {
    app.table().find(|row| row.identity.comm == comm).expect("it is in the table")
}

fn names(app: &App) -> Vec<&str> {
    app.table().map(|row| row.identity.comm.as_str()).collect()
}

fn selected(app: &App) -> Option<usize> {
    app.selected_row()
}

fn near(value: f64, expected: f64) -> bool {
    (value - expected).abs() < expected * 0.01 + 0.001
}

#[test]
fn rates_are_those_of_the_workload() {
    let mut app = app(true, SIZE);
    scene(&mut app);
    let polling = row(&app, "polling");
    assert!(near(polling.iterations_per_s, 1000.0), "{}", polling.iterations_per_s);
    assert!(near(polling.events_per_wakeup().expect("it woke"), 1.0));
    // 20 % at work, 10 µs READY and 2 µs POLLING a millisecond.
    assert!(near(polling.utilisation, 0.212), "{}", polling.utilisation);
    let duration = polling.loop_duration.p50.expect("it has turned");
    assert!(near(duration as f64, 200_000.0) || duration.abs_diff(200_000) < 13_000, "{duration}");
    let latency = polling.wakeup_latency.p99.expect("it woke");
    assert!(latency.abs_diff(11_000) < 700, "{latency}");
    let stalled = row(&app, "stalled-now");
    assert!(stalled.ongoing_stall.is_some_and(|ns| ns >= 180 * MS));
    assert_eq!(stalled.stalls, 0, "it has not ended");
    assert_eq!(row(&app, "blocked-on-disk").stalls, 1);
    assert!(near(app.shown.cost.expect("two batches").collector, 0.015));
}

#[test]
fn what_is_recent_forgets_what_is_old() {
    let mut app = app(true, SIZE);
    let mut thread = Thread::new(1, ("server", 1), "loop", None, WaitCall::EpollWait);
    for quarter in 0..=80 {
        let at = START + quarter * 250 * MS;
        thread.turns_until(at, steady(if quarter < 40 { 80 } else { 10 }));
        take(&mut app, batch(at, std::slice::from_ref(&thread)));
        if quarter == 39 {
            assert!(near(row(&app, "loop").utilisation, 0.812));
        }
    }
    assert!(near(row(&app, "loop").utilisation, 0.112), "{}", row(&app, "loop").utilisation);
    let median = row(&app, "loop").loop_duration.p50.expect("it has turned");
    assert!(median.abs_diff(100_000) < 7_000, "{median}");
}

#[test]
fn the_busiest_loop_is_first_and_the_ended_ones_are_last() {
    let mut app = app(true, SIZE);
    scene(&mut app);
    assert_eq!(names(&app)[0], "ready");
    assert_eq!(names(&app).last(), Some(&"ended"));
    press(&mut app, KeyCode::Char('r'));
    assert_eq!(names(&app).last(), Some(&"ended"));
    assert_eq!(names(&app)[0], "größe-日本");
}

#[test]
fn sorting_goes_through_the_columns_on_the_screen() {
    let mut app = app(true, SIZE);
    scene(&mut app);
    let mut seen = Vec::new();
    while !seen.contains(&app.loops.order.column) {
        seen.push(app.loops.order.column);
        press(&mut app, KeyCode::Char('s'));
        let order = app.loops.order.column().order;
        let living: Vec<&Row> = app.table().filter(|row| !row.ended).collect();
        for pair in living.windows(2) {
            let in_order = order(pair[0], pair[1]);
            assert!(if app.loops.order.is_descending() { in_order.is_ge() } else { in_order.is_le() });
        }
    }
    assert!(seen.contains(&ColumnId::Name) && seen.contains(&ColumnId::Stalls));
    assert!(!seen.contains(&ColumnId::Pid), "there is no room for it");
    update(&mut app, Message::Resize { width: 200, height: 50 });
    let column = app.loops.order.column;
    while app.loops.order.column != ColumnId::Pid {
        press(&mut app, KeyCode::Char('s'));
        assert_ne!(app.loops.order.column, column, "every column was there but one");
    }
}

#[test]
fn the_selection_stays_with_its_loop() {
    let mut app = app(true, SIZE);
    scene(&mut app);
    assert_eq!(selected(&app), None);
    press(&mut app, KeyCode::Up);
    assert_eq!(selected(&app), Some(0));
    press(&mut app, KeyCode::Char('j'));
    let chosen = app.loops.selected;
    press(&mut app, KeyCode::Char('r'));
    assert_eq!(app.loops.selected, chosen);
    assert_ne!(selected(&app), Some(1), "it is elsewhere now");
    press(&mut app, KeyCode::Esc);
    assert_eq!(selected(&app), None);
    press(&mut app, KeyCode::End);
    assert_eq!(selected(&app), Some(8));
}

#[test]
fn the_screen_follows_the_selection() {
    let mut app = app(true, SIZE);
    crowd(&mut app, 100, 1);
    press(&mut app, KeyCode::End);
    assert_eq!((selected(&app), app.loops.top), (Some(99), 82), "18 rows are on the screen");
    press(&mut app, KeyCode::PageUp);
    assert_eq!((selected(&app), app.loops.top), (Some(81), 81));
    press(&mut app, KeyCode::Home);
    assert_eq!((selected(&app), app.loops.top), (Some(0), 0));
    press(&mut app, KeyCode::PageDown);
    press(&mut app, KeyCode::PageDown);
    assert_eq!((selected(&app), app.loops.top), (Some(36), 19));
    update(&mut app, Message::Resize { width: 80, height: 10 });
    let rows = 10 - 4;
    assert_eq!(app.loops.top, 36 + 1 - rows, "it is still on the screen");
}

#[test]
fn a_paused_screen_stands_still_and_loses_nothing() {
    let mut app = app(true, SIZE);
    let mut thread = Thread::new(1, ("server", 1), "loop", None, WaitCall::EpollWait);
    let turn = |app: &mut App, thread: &mut Thread, ms: u64| {
        thread.turns_until(START + ms * MS, steady(10));
        take(app, batch(START + ms * MS, std::slice::from_ref(&*thread)))
    };
    turn(&mut app, &mut thread, 0);
    assert_eq!(turn(&mut app, &mut thread, 250), [Effect::Redraw]);
    assert_eq!(press(&mut app, KeyCode::Char(' ')), [Effect::Redraw]);
    let elapsed = app.shown.elapsed_ns;
    assert_eq!(turn(&mut app, &mut thread, 9_000), [], "nothing to draw");
    assert_eq!(app.shown.elapsed_ns, elapsed);
    press(&mut app, KeyCode::Char(' '));
    assert_eq!(app.shown.elapsed_ns, 9 * S);
    assert_eq!(app.model.get(LoopId(1)).map(|entry| entry.stats.iterations()), Some(9_000));
}

#[test]
fn a_loop_that_has_ended_leaves_after_a_while() {
    let mut app = app(true, SIZE);
    let mut threads = [1, 2].map(|number| {
        Thread::new(number, ("server", 1), &format!("loop-{number}"), None, WaitCall::EpollWait)
    });
    for thread in &mut threads {
        thread.turns_until(START + S, steady(50));
    }
    take(&mut app, batch(START, &threads));
    threads[0].step(0, Transition::End);
    let mut last = batch(START + S, &threads);
    last.ended.push(LoopId(1));
    take(&mut app, last);
    let [_, living] = threads;
    let living = [living];
    let of_ended = row(&app, "loop-1").utilisation;
    assert!(of_ended > 0.5);
    take(&mut app, batch(START + 9 * S, &living));
    assert!(row(&app, "loop-1").ended);
    assert!((row(&app, "loop-1").utilisation - of_ended).abs() < f64::EPSILON, "its last moment's");
    take(&mut app, batch(START + 12 * S, &living));
    assert_eq!(names(&app), ["loop-2"]);
}

#[test]
fn the_last_state_stays_when_the_targets_have_ended() {
    let mut app = app(true, SIZE);
    scene(&mut app);
    let before = names(&app).join(" ");
    assert_eq!(update(&mut app, Message::TargetsEnded), [Effect::Redraw]);
    assert_eq!(names(&app).join(" "), before);
    assert!(app.targets_ended);
}

#[test]
fn keys_ask_for_what_the_caller_has_to_do() {
    let mut app = app(true, SIZE);
    let control = |character| Message::Key(KeyEvent::new(KeyCode::Char(character), KeyModifiers::CONTROL));
    assert_eq!(press(&mut app, KeyCode::Char('q')), [Effect::Quit]);
    assert_eq!(update(&mut app, control('c')), [Effect::Quit]);
    assert_eq!(update(&mut app, control('z')), [Effect::Suspend, Effect::Redraw]);
    assert_eq!(press(&mut app, KeyCode::Char('x')), []);
    let mut release = KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE);
    release.kind = KeyEventKind::Release;
    assert_eq!(update(&mut app, Message::Key(release)), []);
    for close in [KeyCode::Char('?'), KeyCode::Char('q'), KeyCode::Esc] {
        press(&mut app, KeyCode::Char('?'));
        assert!(app.overlay.is_some());
        assert_eq!(press(&mut app, close), [Effect::Redraw]);
        assert!(app.overlay.is_none());
    }
    press(&mut app, KeyCode::Char('?'));
    assert_eq!(update(&mut app, control('c')), [Effect::Quit]);
}

#[test]
fn a_loop_is_judged_by_the_number_of_its_own_runtime() {
    let mut redis = Thread::new(1, ("redis", 700), "redis", Some("redis"), WaitCall::EpollWait);
    let mut node = Thread::new(2, ("node", 800), "node", Some("libuv"), WaitCall::EpollWait);
    for thread in [&mut redis, &mut node] {
        thread.turns_until(START + S, steady(10));
    }
    let mut app = app(true, SIZE);
    let mut batch = batch(redis.now.max(node.now) + 40 * MS, &[redis, node]);
    batch.thresholds = vec![(LoopId(1), std::time::Duration::from_millis(10))];
    take(&mut app, batch);
    assert!(row(&app, "redis").ongoing_stall.is_some_and(|ns| ns >= 30 * MS), "{:?}", row(&app, "redis"));
    assert_eq!(row(&app, "node").ongoing_stall, None);
}
