//! How messages change the state: without a terminal, without a clock.

mod copy;
mod mouse;
mod overlay;
mod timeline;

use std::time::Duration;

use crossterm::event::{KeyEvent, KeyEventKind};

use super::{
    bindings::Action,
    columns::{ColumnId, place},
    config::REFRESH,
    message::{Effect, Message},
    rows::{Key, Row},
    state::{App, Grouping, Order, Overlay, Screen},
    view::{self, layout},
};
use crate::model::LoopId;

/// How long a loop that has ended stays on the screen while others go on, in nanoseconds.
const FAREWELL: u64 = 10_000_000_000;
/// At what the refresh stops, step by step, in milliseconds.
const REFRESH_STEPS: [u64; 7] = [100, 250, 500, 1000, 2000, 5000, 10_000];
/// A timeline that stands still for longer than this between two drawings does not look live.
const TIMELINE_REFRESH: Duration = Duration::from_millis(100);

/// Takes in a message. What comes back is for the caller to do, in this order.
pub fn update(app: &mut App, message: Message) -> Vec<Effect> {
    let mut effects = match message {
        Message::Batch(batch) => {
            app.model.apply(&batch);
            app.model.forget_ended(batch.at.saturating_sub(FAREWELL));
            app.history.advance(&app.model);
            if !app.paused {
                app.tracks.take(&batch);
            }
            // A stall is shown when it is found.
            let due = !app.paused && (batch.at >= app.refresh_at || !batch.found.is_empty());
            if due {
                // A batch that is early by a little is this one's, not the next one's.
                let every = refresh_every(app);
                app.refresh_at = batch.at + nanoseconds(every) / 8 * 7;
                app.refresh();
                settle(app);
            }
            app.window.advance(&app.model);
            if due { vec![Effect::Redraw] } else { Vec::new() }
        }
        Message::Key(event) if event.kind == KeyEventKind::Release => Vec::new(),
        Message::Key(event) => key(app, &event),
        Message::Mouse(event) => mouse::update(app, event),
        Message::Paste(text) => overlay::paste(app, &text),
        Message::Resize { width, height } => {
            (app.size.width, app.size.height) = (width, height);
            settle(app);
            vec![Effect::Redraw]
        }
        Message::TargetsEnded => {
            app.targets_ended = true;
            if !app.paused {
                app.refresh();
                settle(app);
            }
            vec![Effect::Redraw]
        }
    };
    let wanted = wanted_streams(app);
    if wanted != app.streaming {
        app.streaming.clone_from(&wanted);
        effects.push(Effect::Stream(wanted));
    }
    effects
}

/// How often the present screen is made anew.
fn refresh_every(app: &App) -> Duration {
    if app.screen == Screen::Timeline { app.refresh_every.min(TIMELINE_REFRESH) } else { app.refresh_every }
}

/// The loops whose every iteration the present screen shows.
fn wanted_streams(app: &App) -> Vec<LoopId> {
    if app.paused || app.targets_ended {
        return Vec::new();
    }
    let mut ids = match app.screen {
        Screen::Timeline => timeline::on_screen(app).filter_map(Row::loop_id).collect(),
        Screen::Detail => app.detail.0.into_iter().collect(),
        Screen::Loops | Screen::Stalls | Screen::Compare => Vec::new(),
    };
    ids.sort_unstable();
    ids
}

fn key(app: &mut App, event: &KeyEvent) -> Vec<Effect> {
    app.note = None;
    let effects = if app.overlay.is_some() {
        overlay::key(app, event)
    } else {
        match app.keys.action(event) {
            Some(action) => act(app, action),
            None => return Vec::new(),
        }
    };
    settle(app);
    effects
}

/// Does what was asked for, with nothing lying over the screen.
fn act(app: &mut App, action: Action) -> Vec<Effect> {
    match action {
        Action::Quit | Action::Leave => return vec![Effect::Quit],
        Action::Suspend => return vec![Effect::Suspend, Effect::Redraw],
        Action::Help => app.overlay = Some(Overlay::Help(0)),
        Action::Close => close(app),
        Action::Open => open(app),
        Action::Up | Action::Down | Action::PageUp | Action::PageDown | Action::First | Action::Last => {
            go(app, action);
        }
        Action::Left | Action::Right if app.screen == Screen::Timeline => {
            timeline::move_cursor(app, action == Action::Right);
        }
        Action::Left | Action::Right => fold(app, action == Action::Left),
        Action::ZoomIn | Action::ZoomOut => timeline::zoom(app, action == Action::ZoomIn),
        Action::Wakeups => timeline::next_wakeups(app),
        Action::NextScreen => show(app, app.screen.step(1)),
        Action::PreviousScreen => show(app, app.screen.step(Screen::ALL.len() - 1)),
        Action::Go(screen) => show(app, screen),
        Action::NextOrder | Action::PreviousOrder => next_order(app, action == Action::NextOrder),
        Action::Reverse => {
            app.loops.order.reversed = !app.loops.order.reversed;
            app.arrange();
        }
        Action::Filter => app.overlay = Some(Overlay::Filter(app.filter.clone())),
        Action::Columns => app.overlay = Some(Overlay::Columns(0)),
        Action::Group => {
            app.loops.grouping = if app.is_grouped() { Grouping::Never } else { Grouping::Always };
            app.arrange();
        }
        Action::Preview => app.loops.preview = !app.loops.preview,
        Action::Mark => mark(app),
        Action::Copy => return copy::copy(app),
        Action::Pause => pause(app, !app.paused),
        Action::Threshold => {
            let text = humantime::format_duration(app.model.stall_threshold).to_string();
            app.overlay = Some(Overlay::Threshold(text, None));
        }
        Action::Faster | Action::Slower => return pace(app, action == Action::Faster),
        Action::BpfTime => {
            if std::mem::take(&mut app.tracing.bpf_time) {
                app.note = Some(
                    "the probes' own time is not measured any more; the right to turn it on was given up"
                        .to_owned(),
                );
                return vec![Effect::StopBpfTime, Effect::Redraw];
            }
            app.note = Some("the probes' own time is measured only from a start on (bpf-time)".to_owned());
        }
    }
    vec![Effect::Redraw]
}

/// Shows a screen. Detail is of the selected loop; without one, of the table's first.
fn show(app: &mut App, screen: Screen) {
    app.screen = screen;
    if screen == Screen::Detail {
        let selected = app.loops.selected.and_then(|key| match key {
            Key::Loop(id) => Some(id),
            Key::Process(pid) => app.table().filter(|row| row.identity.pid == pid).find_map(Row::loop_id),
        });
        let first = || app.table().find_map(Row::loop_id);
        let id = selected.or_else(first);
        if id.is_some() && id != app.detail.0 {
            app.detail = (id, 0);
            app.loops.selected = id.map(Key::Loop);
        }
    }
    app.look_closer();
    app.refresh_at = 0;
}

fn open(app: &mut App) {
    match (app.screen, app.loops.selected) {
        (Screen::Loops, Some(Key::Process(pid))) => {
            let folded = app.loops.folded.contains(&pid);
            fold_process(app, pid, !folded);
        }
        (Screen::Loops, None) => go(app, Action::First),
        (Screen::Stalls, _) => {
            if let Some(shown) = app.shown.stalls.get(app.selected_stall()) {
                app.loops.selected = Some(Key::Loop(shown.stall.loop_id));
                show(app, Screen::Detail);
            }
        }
        (Screen::Loops | Screen::Timeline, _) => show(app, Screen::Detail),
        (Screen::Detail | Screen::Compare, _) => {}
    }
}

fn close(app: &mut App) {
    if !app.filter.is_empty() && matches!(app.screen, Screen::Loops | Screen::Timeline | Screen::Stalls) {
        app.filter.clear();
        app.arrange();
        app.look_closer();
    } else if app.screen != Screen::Loops {
        show(app, Screen::Loops);
    } else {
        app.loops.selected = None;
    }
}

/// Holds the screens still, or lets them go on.
fn pause(app: &mut App, paused: bool) {
    app.paused = paused;
    if paused {
        timeline::hold(app);
    } else {
        app.timeline.held_at = None;
        app.refresh();
    }
}

fn mark(app: &mut App) {
    let Some(pid) = app.selection().map(|row| row.identity.pid) else {
        app.note = Some("select a process or a loop first".to_owned());
        return;
    };
    if !app.marked.remove(&pid) {
        app.marked.insert(pid);
    }
    app.note = Some(match app.marked.len() {
        0 => "no process is marked".to_owned(),
        1 => "1 process is marked: mark another to compare them (5)".to_owned(),
        more => format!("{more} processes are marked: 5 compares them"),
    });
}

/// Folds the process of the selected row, or unfolds it.
fn fold(app: &mut App, folded: bool) {
    if app.screen == Screen::Loops
        && app.is_grouped()
        && let Some(pid) = app.selection().map(|row| row.identity.pid)
        // A process with one loop has no row of its own.
        && app.table().any(|row| row.key == Key::Process(pid))
    {
        fold_process(app, pid, folded);
    }
}

fn fold_process(app: &mut App, pid: u32, folded: bool) {
    if folded {
        app.loops.folded.insert(pid);
        app.loops.selected = Some(Key::Process(pid));
    } else {
        app.loops.folded.remove(&pid);
    }
    app.arrange();
}

/// More often, or less.
fn pace(app: &mut App, faster: bool) -> Vec<Effect> {
    let now = u64::try_from(app.refresh_every.as_millis()).unwrap_or(u64::MAX);
    let next = if faster {
        REFRESH_STEPS.iter().rev().find(|step| **step < now)
    } else {
        REFRESH_STEPS.iter().find(|step| **step > now)
    };
    if let Some(next) = next {
        app.refresh_every = Duration::from_millis(*next).clamp(REFRESH[0], REFRESH[1]);
        app.refresh_at = 0;
    }
    app.note = Some(format!("refreshed every {}", humantime::format_duration(app.refresh_every)));
    vec![Effect::Pace(app.refresh_every), Effect::Redraw]
}

/// Up, down and so on, of whatever the screen shows.
fn go(app: &mut App, action: Action) {
    let page = view::body_height(app);
    match app.screen {
        Screen::Loops => {
            let page = rows_on_screen(app).max(1);
            let at = app.selected_row();
            if let Some(at) = step(at, app.loops.top, app.shown.table.len(), page, action) {
                let key = app.table().nth(at).map(|row| row.key);
                app.loops.selected = key;
            }
        }
        Screen::Timeline => timeline::select(app, action),
        Screen::Detail => scroll(&mut app.detail.1, page, action),
        Screen::Compare => scroll(&mut app.compare_top, page, action),
        Screen::Stalls => {
            let room = usize::from(view::stall_list_height(page)).max(1);
            let stalls = &app.shown.stalls;
            let at = step(Some(app.selected_stall()), app.stalls.top, stalls.len(), room, action);
            app.stalls.selected = at.map(|at| (stalls[at].stall.loop_id, stalls[at].stall.began_at));
        }
    }
}

/// Where a selection goes; without one, it begins at the top of the screen.
fn step(at: Option<usize>, top: usize, count: usize, page: usize, action: Action) -> Option<usize> {
    let last = count.checked_sub(1)?;
    let at = match (at, action) {
        (_, Action::First) => 0,
        (_, Action::Last) => last,
        (None, _) => top,
        (Some(at), Action::Up) => at.saturating_sub(1),
        (Some(at), Action::Down) => at + 1,
        (Some(at), Action::PageUp) => at.saturating_sub(page),
        (Some(at), Action::PageDown) => at + page,
        (Some(at), _) => at,
    };
    Some(at.min(last))
}

/// Moves the first line on the screen; [`settle`] brings it back from beyond the end.
fn scroll(top: &mut usize, page: u16, action: Action) {
    let page = usize::from(page.max(1));
    *top = match action {
        Action::Up => top.saturating_sub(1),
        Action::Down => *top + 1,
        Action::PageUp => top.saturating_sub(page),
        Action::PageDown => *top + page,
        Action::First => 0,
        _ => usize::MAX / 2,
    };
}

/// Sorts by the next of the columns that are on the screen, or by the one before.
fn next_order(app: &mut App, forward: bool) {
    let mut placed = place(app.size.width, &app.shown.widths, |id| !app.loops.hidden.contains(&id));
    // Its order is that of the utilisation, which is on the screen wherever it is.
    placed.retain(|place| place.column.id != ColumnId::Load);
    let count = placed.len();
    if count == 0 {
        return;
    }
    let at = placed.iter().position(|place| place.column.id == app.loops.order.column);
    let next = match at {
        None => 0,
        Some(at) => (at + if forward { 1 } else { count - 1 }) % count,
    };
    app.loops.order = Order { column: placed[next].column.id, reversed: false };
    app.arrange();
}

fn rows_on_screen(app: &App) -> usize {
    usize::from(layout(app.size).rows.height)
}

/// Brings the part of each screen that is on the terminal to where the selection is, and no further down
/// than there is something.
fn settle(app: &mut App) {
    let room = rows_on_screen(app);
    let mut top = app.loops.top.min(app.shown.table.len().saturating_sub(room));
    if let Some(selected) = app.selected_row() {
        top = top.min(selected).max((selected + 1).saturating_sub(room));
    }
    app.loops.top = top;
    let previewed = app.shown.preview.as_ref().map(|preview| preview.row.key);
    if previewed != view::has_preview(app).then(|| app.previewed_row().map(|row| row.key)).flatten() {
        app.look_closer();
    }
    timeline::settle(app);
    match app.screen {
        Screen::Detail => app.detail.1 = app.detail.1.min(view::last_top(app)),
        Screen::Compare => app.compare_top = app.compare_top.min(view::last_top(app)),
        Screen::Stalls => {
            let room = usize::from(view::stall_list_height(view::body_height(app)));
            let at = app.selected_stall();
            let top = app.stalls.top.min(app.shown.stalls.len().saturating_sub(room));
            app.stalls.top = top.min(at).max((at + 1).saturating_sub(room));
        }
        Screen::Loops | Screen::Timeline => {}
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
