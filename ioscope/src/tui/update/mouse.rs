//! The mouse: the wheel goes up and down, a click chooses a screen, an order, a row, a moment, a key of the footer.

use crossterm::event::{MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::Position;

use super::{Effect, act, open, settle, show, timeline};
use crate::tui::{
    bindings::Action,
    columns::place,
    state::{App, Order, Overlay, Screen},
    view::{self, layout},
};

/// Rows that a step of the wheel is.
const WHEEL: usize = 3;

pub(super) fn update(app: &mut App, event: MouseEvent) -> Vec<Effect> {
    let effects = match event.kind {
        MouseEventKind::ScrollUp => wheel(app, Action::Up),
        MouseEventKind::ScrollDown => wheel(app, Action::Down),
        MouseEventKind::Down(MouseButton::Left) => {
            let keys_are_hidden = app.note.take().is_some();
            let at = Position::new(event.column, event.row);
            if !keys_are_hidden
                && app.overlay.is_none()
                && let Some(action) = footer_action(app, at)
            {
                act(app, action)
            } else {
                click(app, at);
                vec![Effect::Redraw]
            }
        }
        _ => return Vec::new(),
    };
    settle(app);
    effects
}

fn wheel(app: &mut App, action: Action) -> Vec<Effect> {
    match app.overlay {
        None => {
            for _ in 0..WHEEL {
                act(app, action);
            }
        }
        Some(Overlay::Help(mut top)) => {
            for _ in 0..WHEEL {
                super::scroll(&mut top, 1, action);
            }
            app.overlay = Some(Overlay::Help(top.min(view::last_help_top(app))));
        }
        Some(_) => return Vec::new(),
    }
    vec![Effect::Redraw]
}

/// What the key in the footer asks for that is here.
fn footer_action(app: &App, at: Position) -> Option<Action> {
    let footer = layout(app.size).footer;
    let keys = footer.contains(at).then(|| view::footer_keys(app, footer.width))?;
    keys.into_iter().find(|key| key.cells.contains(&at.x))?.action
}

fn click(app: &mut App, at: Position) {
    if matches!(app.overlay, Some(Overlay::Help(_) | Overlay::Columns(_))) {
        app.overlay = None;
        return;
    }
    let layout = layout(app.size);
    if layout.tabs.contains(at) {
        let hit = view::tabs(app).into_iter().find(|(_, range)| range.contains(&at.x));
        if let Some((screen, _)) = hit {
            show(app, screen);
        }
        return;
    }
    match app.screen {
        Screen::Loops if layout.headings.contains(at) => order(app, at.x),
        Screen::Loops if view::preview_area(app).is_some_and(|area| area.contains(at)) => {
            show(app, Screen::Detail);
        }
        Screen::Loops if layout.rows.contains(at) => {
            let row = app.loops.top + usize::from(at.y - layout.rows.y);
            let key = app.table().nth(row).map(|row| row.key);
            if let Some(key) = key {
                if app.loops.selected == Some(key) {
                    open(app);
                } else {
                    app.loops.selected = Some(key);
                }
            }
        }
        Screen::Timeline => {
            if let Some((column, lane)) = view::timeline_at(app, at) {
                timeline::point(app, column, usize::from(lane));
            }
        }
        Screen::Stalls => {
            let body = layout.body();
            let row = usize::from(at.y.saturating_sub(body.y + 1));
            if body.contains(at)
                && row < usize::from(view::stall_list_height(body.height))
                && let Some(shown) = app.shown.stalls.get(app.stalls.top + row)
            {
                app.stalls.selected = Some((shown.stall.loop_id, shown.stall.began_at));
            }
        }
        _ => {}
    }
}

/// Sorts by the column whose heading this is; the other way round if it is sorted by it already.
fn order(app: &mut App, x: u16) {
    let placed = place(app.size.width, &app.shown.widths, |id| !app.loops.hidden.contains(&id));
    let Some(hit) = placed.iter().find(|place| (place.x..=place.x + place.width).contains(&x)) else {
        return;
    };
    let (id, now) = (hit.column.id, app.loops.order);
    app.loops.order = Order { column: id, reversed: now.column == id && !now.reversed };
    app.arrange();
}
