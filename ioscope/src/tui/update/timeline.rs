//! How Timeline is moved about in.

use crate::tui::{
    bindings::Action,
    rows::{Key, Row},
    state::{App, Wakeups},
    view,
};

/// What the zoom stops at, in microseconds: from a few system calls to as long as is kept.
const SPANS: [u64; 19] = [
    100,
    200,
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    20_000_000,
    60_000_000,
    120_000_000,
];

/// The lanes that are on the screen.
pub(super) fn on_screen(app: &App) -> impl Iterator<Item = &Row> {
    let room = usize::from(view::timeline_lanes(app.size));
    app.shown.lanes.iter().skip(app.timeline.top).take(room).map(|at| &app.shown.rows[*at])
}

/// The lane of the selected loop.
fn selected_lane(app: &App) -> Option<usize> {
    let selected = app.loops.selected?;
    app.shown.lanes.iter().position(|at| app.shown.rows[*at].key == selected)
}

pub(super) fn select(app: &mut App, action: Action) {
    let page = usize::from(view::timeline_lanes(app.size)).max(1);
    let lanes = &app.shown.lanes;
    if let Some(at) = super::step(selected_lane(app), app.timeline.top, lanes.len(), page, action) {
        app.loops.selected = Some(app.shown.rows[lanes[at]].key);
    }
}

/// Holds the present on the screen, with the cursor in the middle.
pub(super) fn hold(app: &mut App) {
    if app.timeline.held_at.is_none() {
        app.timeline.held_at = Some(app.shown.at);
        app.timeline.cursor = app.shown.at.saturating_sub(app.timeline.span / 2);
    }
}

/// Moves the cursor by a cell, and what is on the screen if it would leave it. A live screen is held.
pub(super) fn move_cursor(app: &mut App, forward: bool) {
    if !app.paused {
        super::pause(app, true);
        app.note = Some("held: the cursor tells what is under it; Space goes on".to_owned());
    }
    let cells = u64::from(view::timeline_width(app.size).max(1));
    let timeline = &mut app.timeline;
    let step = (timeline.span / cells).max(1);
    timeline.cursor =
        if forward { timeline.cursor + step } else { timeline.cursor.saturating_sub(step) }.min(app.shown.at);
    let end = timeline.held_at.unwrap_or(app.shown.at);
    if timeline.cursor > end {
        timeline.held_at = Some((end + timeline.span / 4).min(app.shown.at));
    } else if timeline.cursor < end.saturating_sub(timeline.span) {
        timeline.held_at = Some(end.saturating_sub(timeline.span / 4));
    }
}

/// Shows less time or more: about the cursor where there is one, else up to the present.
pub(super) fn zoom(app: &mut App, closer: bool) {
    let now = app.timeline.span / 1_000;
    let next = if closer {
        SPANS.iter().rev().find(|span| **span < now)
    } else {
        SPANS.iter().find(|span| **span > now)
    };
    let Some(next) = next.map(|span| span * 1_000) else { return };
    let timeline = &mut app.timeline;
    if let Some(end) = timeline.held_at {
        // The cursor stays in its column.
        let behind = u128::from(end.saturating_sub(timeline.cursor));
        let behind = behind * u128::from(next) / u128::from(timeline.span.max(1));
        let end = timeline.cursor.saturating_add(u64::try_from(behind).unwrap_or(0));
        timeline.held_at = Some(end.min(app.shown.at));
    }
    timeline.span = next;
}

pub(super) fn next_wakeups(app: &mut App) {
    let (next, note) = match app.timeline.wakeups {
        Wakeups::OfSelected => (Wakeups::All, "all wakeups between the loops on the screen"),
        Wakeups::All => (Wakeups::None, "no wakeups"),
        Wakeups::None => (Wakeups::OfSelected, "the wakeups of and by the selected loop"),
    };
    app.timeline.wakeups = next;
    app.note = Some(note.to_owned());
}

/// Puts the cursor on a column and selects a lane.
pub(super) fn point(app: &mut App, column: u16, lane: usize) {
    if !app.paused {
        super::pause(app, true);
    }
    let cells = u64::from(view::timeline_width(app.size).max(1));
    let timeline = &mut app.timeline;
    let end = timeline.held_at.unwrap_or(app.shown.at);
    let begin = end.saturating_sub(timeline.span);
    timeline.cursor = begin + (timeline.span / cells) * u64::from(column) + timeline.span / cells / 2;
    if let Some(at) = app.shown.lanes.get(timeline.top + lane) {
        app.loops.selected = Some(app.shown.rows[*at].key);
    }
}

pub(super) fn settle(app: &mut App) {
    let room = usize::from(view::timeline_lanes(app.size));
    let mut top = app.timeline.top.min(app.shown.lanes.len().saturating_sub(room));
    if let Some(selected) = selected_lane(app) {
        top = top.min(selected).max((selected + 1).saturating_sub(room));
    }
    app.timeline.top = top;
    if app.screen == crate::tui::state::Screen::Timeline
        && let Some(Key::Process(pid)) = app.loops.selected
    {
        // A process has no lane: its first loop stands for it.
        let first = app.shown.lanes.iter().find(|at| app.shown.rows[**at].identity.pid == pid);
        app.loops.selected = first.map(|at| app.shown.rows[*at].key);
    }
}
