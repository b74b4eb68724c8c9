//! What messages do to the screens: keys, the mouse, and what the caller is asked to do.

use std::time::Duration;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};

use ioscope_common::{Drops, WaitCall};

use super::{
    drawings::{draw, text},
    fixture::{MS, S, START, Thread, US, app, batch, crowd, press, scene, servers, steady, take},
};
use crate::{
    model::{Batch, LoopId, findings::Severity},
    tui::{
        App, Effect, Message,
        bindings::Action,
        columns::ColumnId,
        rows::Key,
        state::{Overlay, Screen},
        update, view,
    },
};

const SIZE: (u16, u16) = (120, 40);

fn the_scene() -> App {
    let mut app = app(true, SIZE);
    scene(&mut app);
    app
}

fn keys(app: &mut App, text: &str) -> Vec<Effect> {
    text.chars().flat_map(|key| press(app, KeyCode::Char(key))).collect()
}

fn mouse(app: &mut App, kind: MouseEventKind, (column, row): (u16, u16)) -> Vec<Effect> {
    update(app, Message::Mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE }))
}

fn click(app: &mut App, at: (u16, u16)) {
    mouse(app, MouseEventKind::Down(MouseButton::Left), at);
}

fn names(app: &App) -> Vec<String> {
    app.table().map(|row| row.identity.comm.clone()).collect()
}

/// What was last asked to stream.
fn streamed(effects: &[Effect]) -> Option<Vec<LoopId>> {
    effects.iter().rev().find_map(|effect| match effect {
        Effect::Stream(loops) => Some(loops.clone()),
        _ => None,
    })
}

fn copied(effects: &[Effect]) -> Option<String> {
    effects.iter().find_map(|effect| match effect {
        Effect::Copy(text) => Some(text.clone()),
        _ => None,
    })
}

#[test]
fn screens_are_chosen_by_number_and_by_tab() {
    let mut app = the_scene();
    for (key, screen) in "12345".chars().zip(Screen::ALL) {
        press(&mut app, KeyCode::Char(key));
        assert_eq!(app.screen, screen);
    }
    press(&mut app, KeyCode::Tab);
    assert_eq!(app.screen, Screen::Loops);
    press(&mut app, KeyCode::BackTab);
    assert_eq!(app.screen, Screen::Compare);
    press(&mut app, KeyCode::Esc);
    assert_eq!(app.screen, Screen::Loops);
    // By the mouse, too.
    click(&mut app, (24, 2));
    assert_eq!(app.screen, Screen::Timeline);
}

#[test]
fn only_what_is_on_the_screen_streams() {
    let mut app = the_scene();
    let effects = keys(&mut app, "3");
    let all: Vec<LoopId> = (1..=9).map(LoopId).collect();
    assert_eq!(streamed(&effects), Some(all));
    // Held, nothing has to.
    assert_eq!(streamed(&press(&mut app, KeyCode::Left)), Some(Vec::new()));
    assert_eq!(streamed(&keys(&mut app, " ")).map(|ids| ids.len()), Some(9));
    // Room for four lanes.
    let effects = update(&mut app, Message::Resize { width: 120, height: 10 });
    let lanes = streamed(&effects).expect("other loops stream");
    assert!(lanes.len() < 9 && !lanes.is_empty(), "{lanes:?}");
    let further = streamed(&press(&mut app, KeyCode::End)).expect("other loops stream");
    assert_eq!(further.len(), lanes.len());
    assert!(further.contains(&LoopId(9)) && !lanes.contains(&LoopId(9)));
    // Detail is of one loop.
    assert_eq!(streamed(&keys(&mut app, "2")), Some(vec![LoopId(9)]));
    assert_eq!(streamed(&keys(&mut app, "1")), Some(Vec::new()));
    keys(&mut app, "3");
    assert_eq!(streamed(&update(&mut app, Message::TargetsEnded)), Some(Vec::new()));
}

#[test]
fn processes_fold_and_unfold() {
    let mut app = app(true, SIZE);
    servers(&mut app);
    // A process with one loop has no row beside its loop's, and is not folded.
    assert_eq!(names(&app), ["slow", "blocking", "good", "good-1", "good-0"]);
    press(&mut app, KeyCode::Home);
    let slow = app.loops.selected;
    press(&mut app, KeyCode::Left);
    assert_eq!((names(&app).len(), app.loops.selected), (5, slow));
    press(&mut app, KeyCode::End);
    press(&mut app, KeyCode::Left);
    assert_eq!(names(&app), ["slow", "blocking", "good"]);
    assert_eq!(app.loops.selected, Some(Key::Process(2000)));
    let good = app.selection().expect("selected").clone();
    assert_eq!(good.loops, 2);
    assert!((good.iterations_per_s - 2000.0).abs() < 20.0, "the sum: {}", good.iterations_per_s);
    assert!((good.utilisation - 0.152).abs() < 0.001, "the busiest: {}", good.utilisation);
    press(&mut app, KeyCode::Right);
    press(&mut app, KeyCode::Enter);
    press(&mut app, KeyCode::Enter);
    assert_eq!(names(&app).len(), 5);
    keys(&mut app, "v");
    assert_eq!(names(&app), ["slow", "blocking", "good-1", "good-0"]);
    keys(&mut app, "v");
    assert_eq!(names(&app).len(), 5);
}

#[test]
fn a_filter_is_typed_kept_and_dropped() {
    let mut app = the_scene();
    keys(&mut app, "/ED");
    assert_eq!(names(&app), ["stalled-now", "parked", "blocked-on-disk", "ended"]);
    press(&mut app, KeyCode::Backspace);
    update(&mut app, Message::Paste("nd\nignored".to_owned()));
    assert_eq!(names(&app), ["ended"]);
    press(&mut app, KeyCode::Enter);
    assert_eq!((app.overlay.clone(), app.filter.as_str()), (None, "End"));
    // A second one, dropped: the first is there again.
    keys(&mut app, "/q");
    assert_eq!(names(&app), [""; 0]);
    press(&mut app, KeyCode::Esc);
    assert_eq!(names(&app), ["ended"]);
    press(&mut app, KeyCode::Esc);
    assert_eq!(names(&app).len(), 9);
    for (text, found) in
        [("libuv", 2), ("blocked", 1), ("io_uring", 1), ("1203", 1), ("stalled", 1), ("120", 9)]
    {
        keys(&mut app, "/");
        keys(&mut app, text);
        assert_eq!(names(&app).len(), found, "{text}");
        press(&mut app, KeyCode::Esc);
    }
    keys(&mut app, "/");
    let control = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(update(&mut app, Message::Key(control)), [Effect::Quit]);
}

#[test]
fn columns_are_chosen() {
    let mut app = the_scene();
    keys(&mut app, "cj");
    press(&mut app, KeyCode::Enter);
    assert_eq!(app.loops.hidden, [ColumnId::Tid]);
    press(&mut app, KeyCode::Enter);
    assert_eq!(app.loops.hidden, []);
    for _ in 0..30 {
        press(&mut app, KeyCode::Enter);
        press(&mut app, KeyCode::Down);
    }
    assert!(app.loops.hidden.len() < super::super::columns::COLUMNS.len(), "one stays");
    press(&mut app, KeyCode::Esc);
    assert_eq!(app.overlay, None);
}

#[test]
fn a_threshold_is_typed_and_set() {
    let mut app = the_scene();
    keys(&mut app, "t");
    assert_eq!(app.overlay, Some(Overlay::Threshold("100ms".to_owned(), None)));
    keys(&mut app, "x");
    press(&mut app, KeyCode::Enter);
    assert!(matches!(&app.overlay, Some(Overlay::Threshold(_, Some(problem))) if problem.contains("msx")));
    for _ in 0.."100msx".len() {
        press(&mut app, KeyCode::Backspace);
    }
    keys(&mut app, "50ms");
    let threshold = Duration::from_millis(50);
    assert_eq!(press(&mut app, KeyCode::Enter), [Effect::StallThreshold(threshold), Effect::Redraw]);
    assert_eq!((app.model.stall_threshold, app.overlay.clone()), (threshold, None));
    assert!(app.note.is_some());
}

#[test]
fn the_pace_goes_up_and_down_and_stops() {
    let mut app = the_scene();
    assert_eq!(keys(&mut app, "+")[0], Effect::Pace(Duration::from_millis(100)));
    assert_eq!(keys(&mut app, "+")[0], Effect::Pace(Duration::from_millis(100)));
    let slowest = keys(&mut app, "----------");
    assert_eq!(slowest[slowest.len() - 2], Effect::Pace(Duration::from_secs(10)));
}

#[test]
fn marked_processes_are_compared() {
    let mut app = app(true, SIZE);
    servers(&mut app);
    keys(&mut app, "5");
    let pids = |app: &App| app.shown.compared.iter().map(|c| c.pid).collect::<Vec<_>>();
    assert_eq!(pids(&app), [3000, 4000, 2000], "none is marked: the busiest first");
    keys(&mut app, "1gmGm5");
    assert_eq!(pids(&app), [2000, 3000]);
    let good = &app.shown.compared[0];
    assert_eq!((good.loops, good.stats.counters.stalls), (2, 0));
    assert!((good.stats.utilisation() - 0.142).abs() < 0.001, "{}", good.stats.utilisation());
    assert_eq!(
        good.stats.loop_duration.count(),
        good.stats.iterations() - 2,
        "but the two slices that go on"
    );
    keys(&mut app, "1Gm5");
    assert_eq!(pids(&app), [3000]);
}

#[test]
fn stalls_are_listed_the_ongoing_one_first() {
    let mut app = the_scene();
    keys(&mut app, "4");
    let stalls: Vec<(&str, bool)> = app
        .shown
        .stalls
        .iter()
        .map(|shown| (shown.identity.comm.as_str(), shown.stall.is_ongoing()))
        .collect();
    assert_eq!(stalls, [("stalled-now", true), ("blocked-on-disk", false)]);
    for shown in &app.shown.stalls {
        let whole: u64 = shown.stall.account.parts().iter().map(|(_, ns)| ns).sum();
        assert_eq!(whole, shown.stall.duration_ns());
    }
    press(&mut app, KeyCode::Down);
    assert_eq!(app.selected_stall(), 1);
    press(&mut app, KeyCode::Enter);
    assert_eq!((app.screen, app.detail.0), (Screen::Detail, Some(LoopId(5))));
}

#[test]
fn the_timeline_is_held_moved_and_zoomed() {
    let mut app = the_scene();
    keys(&mut app, "3");
    let (span, now) = (app.timeline.span, app.shown.at);
    press(&mut app, KeyCode::Left);
    assert!(app.paused);
    let cursor = app.timeline.cursor;
    assert!(now - span < cursor && cursor < now);
    press(&mut app, KeyCode::Left);
    let cell = cursor - app.timeline.cursor;
    assert!(cell > 0 && cell < span / 50);
    // Closer, and the cursor stays where it is on the screen.
    let share = |app: &App| {
        let end = app.timeline.held_at.expect("held");
        (end - app.timeline.cursor) as f64 / app.timeline.span as f64
    };
    let before = share(&app);
    keys(&mut app, "zzz");
    assert!(app.timeline.span < span && (share(&app) - before).abs() < 0.01);
    // Beyond the left edge the screen follows.
    let end = app.timeline.held_at;
    for _ in 0..120 {
        press(&mut app, KeyCode::Left);
    }
    assert!(app.timeline.held_at < end);
    let left = app.timeline.held_at.expect("held") - app.timeline.span;
    assert!(left <= app.timeline.cursor);
    for _ in 0..40 {
        keys(&mut app, "z");
    }
    assert_eq!(app.timeline.span, 100_000, "it stops");
    keys(&mut app, " ");
    assert!(!app.paused && app.timeline.held_at.is_none());
}

#[test]
fn the_mouse_selects_sorts_and_scrolls() {
    let mut app = the_scene();
    // The third row, then the same again: it opens.
    click(&mut app, (20, 7));
    assert_eq!(app.selected_row(), Some(2));
    click(&mut app, (20, 7));
    assert_eq!(app.screen, Screen::Detail);
    mouse(&mut app, MouseEventKind::ScrollDown, (20, 20));
    keys(&mut app, "1");
    // The heading of the thread numbers, twice.
    click(&mut app, (3, 4));
    assert_eq!((app.loops.order.column, app.loops.order.reversed), (ColumnId::Tid, false));
    click(&mut app, (3, 4));
    assert!(app.loops.order.reversed);
    let mut many = super::fixture::app(true, SIZE);
    crowd(&mut many, 100, 1);
    press(&mut many, KeyCode::Home);
    mouse(&mut many, MouseEventKind::ScrollDown, (20, 20));
    assert_eq!(many.selected_row(), Some(3));
    mouse(&mut many, MouseEventKind::ScrollUp, (20, 20));
    assert_eq!(many.selected_row(), Some(0));
    assert_eq!(mouse(&mut many, MouseEventKind::Moved, (20, 20)), []);
    // A moment and a lane.
    keys(&mut app, "3");
    click(&mut app, (60, 8));
    assert!(app.paused);
    assert!(matches!(app.loops.selected, Some(Key::Loop(_))));
}

#[test]
fn keys_in_the_footer_are_buttons() {
    let mut app = the_scene();
    let bottom = SIZE.1 - 1;
    let button = |app: &App, action| {
        let keys = view::footer_keys(app, SIZE.0);
        let key = keys.into_iter().find(|key| key.action == Some(action)).expect("it is in the footer");
        // Its word.
        (key.cells.end - 1, bottom)
    };
    let at = button(&app, Action::Pause);
    click(&mut app, at);
    assert!(app.paused);
    click(&mut app, at);
    assert!(!app.paused);
    let at = button(&app, Action::Help);
    click(&mut app, at);
    assert_eq!(app.overlay, Some(Overlay::Help(0)));
    let quit = button(&app, Action::Leave);
    let press_quit = |app: &mut App| mouse(app, MouseEventKind::Down(MouseButton::Left), quit);
    assert_eq!(press_quit(&mut app), [Effect::Redraw], "the help is in between");
    assert_eq!(app.overlay, None);
    keys(&mut app, "m");
    assert!(app.note.is_some());
    assert_eq!(press_quit(&mut app), [Effect::Redraw], "the note is in between");
    assert_eq!(press_quit(&mut app), [Effect::Quit]);
    let end = SIZE.0 - 1;
    assert_eq!(mouse(&mut app, MouseEventKind::Down(MouseButton::Left), (end, bottom)), [Effect::Redraw]);
    keys(&mut app, "3");
    let at = button(&app, Action::Close);
    click(&mut app, at);
    assert_eq!(app.screen, Screen::Loops);
}

#[test]
fn what_is_wrong_with_a_loop_is_told_with_what_to_do() {
    let mut app = app(true, SIZE);
    let mut threads = [
        Thread::new(1, ("server", 1200), "steady", None, WaitCall::EpollWait),
        Thread::new(2, ("server", 1200), "syncing", None, WaitCall::EpollWait),
    ];
    for second in 0..=3 {
        threads[0].turns_until(START + second * S, steady(10));
        threads[1].turns_until(START + second * S - 200 * MS, steady(10));
        if second > 0 {
            threads[1].sleep(0, i32::try_from(libc::SYS_fsync).expect("small"), false);
            threads[1].wake(150 * MS, 20 * US);
            threads[1].turn(steady(10));
        }
        take(&mut app, batch(START + second * S, &threads));
    }
    let tags: Vec<&str> = app.shown.findings.iter().map(|finding| finding.tag).collect();
    assert_eq!(tags, ["blocking-call"]);
    let screen = |app: &App| text(&draw(app, SIZE)).join("\n");
    assert!(screen(&app).contains("!! syncing blocking-call: "), "{}", screen(&app));
    let told: Vec<_> = app.table().map(|row| (row.identity.comm.as_str(), row.findings)).collect();
    let critical = Some((Severity::Critical, 1));
    assert_eq!(told, [("syncing", critical), ("steady", None)]);
    // A stack that is missing does not hide it, a record that is missing does.
    let drops = Drops { captures_full: 3, ..Drops::default() };
    take(&mut app, Batch { at: START + 4 * S, drops, ..Batch::default() });
    assert!(screen(&app).contains("!! syncing blocking-call: ") && screen(&app).contains("3 dropped"));
    let drops = Drops { ring_full: 2, captures_full: 3, ..Drops::default() };
    take(&mut app, Batch { at: START + 5 * S, drops, ..Batch::default() });
    assert!(screen(&app).contains("2 records dropped"), "{}", screen(&app));
    keys(&mut app, "/syncing");
    press(&mut app, KeyCode::Enter);
    keys(&mut app, "g2");
    let detail = screen(&app);
    let advice = app.shown.findings[0].advice;
    assert!(detail.contains("!! blocking-call: ") && detail.contains(&advice[..40]), "{detail}");
    // The other loop is well.
    press(&mut app, KeyCode::Esc);
    press(&mut app, KeyCode::Esc);
    keys(&mut app, "/steady");
    press(&mut app, KeyCode::Enter);
    keys(&mut app, "g2");
    assert!(!screen(&app).contains(&advice[..40]), "{}", screen(&app));
}

#[test]
fn what_is_selected_is_copied_as_text() {
    let mut app = the_scene();
    assert_eq!(copied(&keys(&mut app, "y")), None, "nothing is selected");
    press(&mut app, KeyCode::Home);
    let row = copied(&keys(&mut app, "y")).expect("a row");
    for text in ["thread                1203", "state                 READY for 5.00ms", "97.2%"] {
        assert!(row.contains(text), "{row}");
    }
    assert!(app.note.as_ref().is_some_and(|note| note.contains("does not say")));
    let all = copied(&keys(&mut app, "2y")).expect("all of it");
    assert!(all.contains("loop duration") && all.contains("READY"), "{all}");
    assert_eq!(copied(&keys(&mut app, "3y")), None, "it is not held");
    let iteration = copied(&keys(&mut app, "3hy")).expect("an iteration");
    assert!(iteration.contains("epoll_wait = 1"), "{iteration}");
    let stall = copied(&keys(&mut app, "4y")).expect("a stall");
    assert!(stall.contains("stalled-now") && stall.contains("json::parse"), "{stall}");
    let compared = copied(&keys(&mut app, "5y")).expect("the comparison");
    assert!(compared.contains("wait calls per event"), "{compared}");
}

#[test]
fn the_probes_time_is_measured_until_it_is_not_wanted() {
    let mut app = the_scene();
    assert_eq!(keys(&mut app, "b"), [Effect::StopBpfTime, Effect::Redraw]);
    assert!(!app.tracing.bpf_time);
    assert_eq!(keys(&mut app, "b"), [Effect::Redraw], "the right to it was given up");
}
