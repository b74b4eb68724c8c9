//! The preview below the table of loops, and the past that it draws.

use crossterm::event::{KeyCode, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use ioscope_common::{State, WaitCall};

use super::{
    drawings::{draw, text},
    fixture::{MS, S, START, Thread, US, app, batch, crowd, press, scene, servers, steady, take},
};
use crate::tui::{
    App, Message,
    history::Moment,
    rows::{Key, Row},
    state::Screen,
    update, view,
};

const SIZE: (u16, u16) = (120, 40);

/// Who the preview is of.
fn previewed(app: &App) -> Option<&str> {
    app.shown.preview.as_ref().map(|preview| preview.row.identity.comm.as_str())
}

fn moments(app: &App) -> &[Moment] {
    app.shown.preview.as_ref().map_or(&[], |preview| &preview.moments)
}

/// The share of a state in percent.
#[track_caller]
fn is_about(moment: Moment, state: State, percent: f64) {
    let share = moment.share(state) * 100.0;
    assert!((share - percent).abs() < 1.0, "{share} % {state:?} of {moment:?}, not {percent}");
}

#[test]
fn it_is_of_the_selected_row_and_without_one_of_the_first() {
    let mut app = app(true, SIZE);
    scene(&mut app);
    assert_eq!((previewed(&app), app.loops.selected), (Some("ready"), None));
    press(&mut app, KeyCode::End);
    assert_eq!(previewed(&app), Some("ended"));
    press(&mut app, KeyCode::Up);
    assert_eq!(previewed(&app), Some("größe-日本"));
    // A row that the filter hides is not.
    for key in "/stalled".chars() {
        press(&mut app, KeyCode::Char(key));
    }
    press(&mut app, KeyCode::Enter);
    assert_eq!(previewed(&app), Some("stalled-now"));
    let preview = app.shown.preview.as_ref().expect("there is one");
    assert_eq!(
        preview.findings.iter().map(|finding| finding.tag).collect::<Vec<_>>(),
        ["cpu-bound-callback"]
    );
}

#[test]
fn it_leaves_the_table_its_room() {
    // 18 rows for the table: eight of the preview, and a blank one.
    let mut few = app(true, (80, 24));
    crowd(&mut few, 9, 1);
    let area = view::preview_area(&few).expect("there is room");
    assert_eq!((area.y, area.height), (15, 8));
    let mut app = app(true, (80, 24));
    crowd(&mut app, 10, 1);
    assert_eq!((view::preview_area(&app), previewed(&app)), (None, None));
    let drawn = text(&draw(&app, (80, 24)));
    assert!(
        drawn[14].contains("loop-1 ") && !drawn.iter().any(|line| line.contains("in full")),
        "{drawn:#?}"
    );
    update(&mut app, Message::Resize { width: 80, height: 25 });
    assert!(view::preview_area(&app).is_some() && previewed(&app) == Some("loop-10"));
}

#[test]
fn it_can_be_turned_off() {
    let mut app = app(true, SIZE);
    scene(&mut app);
    press(&mut app, KeyCode::Char('p'));
    assert_eq!((previewed(&app), view::preview_area(&app)), (None, None));
    assert!(!text(&draw(&app, SIZE)).iter().any(|line| line.contains("in full")));
    press(&mut app, KeyCode::Char('p'));
    assert_eq!(previewed(&app), Some("ready"));
}

#[test]
fn a_click_on_it_opens_its_loop() {
    let mut app = app(true, SIZE);
    scene(&mut app);
    let area = view::preview_area(&app).expect("there is room");
    press(&mut app, KeyCode::Down);
    press(&mut app, KeyCode::Down);
    let selected = app.loops.selected;
    let kind = MouseEventKind::Down(MouseButton::Left);
    let (column, row) = (area.x + 20, area.y + 3);
    update(&mut app, Message::Mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE }));
    assert_eq!((app.screen, app.loops.selected), (Screen::Detail, selected));
    assert_eq!(app.detail.0.map(Key::Loop), selected);
    assert_eq!(previewed(&app), None, "it is not on the screen");
}

#[test]
fn a_moment_has_the_share_of_each_state() {
    let mut app = app(true, SIZE);
    let mut thread = Thread::new(1, ("server", 1), "loop", None, WaitCall::EpollWait);
    let fsync = i32::try_from(libc::SYS_fsync).expect("small");
    for second in 0..=4 {
        let until = START + second * S;
        if second == 3 {
            // In its slice, for a quarter of the second: a stall.
            thread.sleep(0, fsync, false);
            thread.wake(240 * MS, 10 * MS);
        }
        thread.turns_until(until, steady(30));
        take(&mut app, batch(until, std::slice::from_ref(&thread)));
    }
    let [first, second, third, fourth] = moments(&app) else { panic!("{:?}", moments(&app)) };
    for moment in [*first, *second, *fourth] {
        is_about(moment, State::Running, 30.0);
        is_about(moment, State::Blocked, 0.0);
        is_about(moment, State::Waiting, 68.8);
        assert!((moment.busy() - 0.312).abs() < 0.01 && !moment.stalled, "{moment:?}");
    }
    is_about(*third, State::Blocked, 24.0);
    is_about(*third, State::Running, 0.75 * 30.0);
    assert!(third.stalled);
}

#[test]
fn a_moment_is_a_second_however_seldom_the_screen_is_made_anew() {
    let mut app = app(true, SIZE);
    let mut thread = Thread::new(1, ("server", 1), "loop", None, WaitCall::EpollWait);
    let at = [0, 10_000, 10_500, 11_000, 12_010, 400_000];
    let mut lengths = Vec::new();
    for ms in at {
        thread.turns_until(START + ms * MS, steady(50));
        take(&mut app, batch(START + ms * MS, std::slice::from_ref(&thread)));
        lengths.push(moments(&app).len());
    }
    assert_eq!(lengths, [0, 10, 10, 11, 12, 120]);
    for moment in moments(&app) {
        is_about(*moment, State::Running, 50.0);
    }
}

#[test]
fn that_of_a_process_is_the_mean_of_its_loops() {
    let mut app = app(true, SIZE);
    servers(&mut app);
    let good = app.table().position(Row::is_process).expect("two loops have a process");
    for _ in 0..=good {
        press(&mut app, KeyCode::Down);
    }
    assert_eq!(previewed(&app), Some("good"));
    let preview = app.shown.preview.as_ref().expect("there is one");
    // 12 % and 14 %, each with 10 µs READY and 2 µs POLLING a millisecond.
    for moment in &preview.moments {
        is_about(*moment, State::Running, 13.0);
    }
    assert!((preview.stats.utilisation() - 0.142).abs() < 0.002, "{}", preview.stats.utilisation());
    let each = preview.stats.loop_duration.quantile(1.0);
    assert!((130 * US..160 * US).contains(&each), "{each}");
}

#[test]
fn it_stands_still_while_the_screen_is_held() {
    let mut app = app(true, SIZE);
    let mut thread = Thread::new(1, ("server", 1), "loop", None, WaitCall::EpollWait);
    for second in 0..=8 {
        let until = START + second * S;
        thread.turns_until(until, steady(20));
        take(&mut app, batch(until, std::slice::from_ref(&thread)));
        if second == 3 {
            press(&mut app, KeyCode::Char(' '));
        }
    }
    let held = moments(&app).len();
    assert!(held <= 3, "{held}");
    press(&mut app, KeyCode::Char(' '));
    assert!(moments(&app).len() > held);
}
