//! How messages change the state: without a terminal, without a clock.

use crossterm::event::{KeyEvent, KeyEventKind};

use super::{
    bindings::{self, Action},
    columns::place,
    message::{Effect, Message},
    state::{App, Order},
    view::layout,
};

/// How long a loop that has ended stays on the screen while others go on, in nanoseconds.
const FAREWELL: u64 = 10_000_000_000;

/// Takes in a message. What comes back is for the caller to do, in this order.
pub fn update(app: &mut App, message: Message) -> Vec<Effect> {
    match message {
        Message::Batch(batch) => {
            app.model.apply(&batch);
            app.model.forget_ended(batch.at.saturating_sub(FAREWELL));
            let effects = if app.paused {
                Vec::new()
            } else {
                app.refresh();
                settle(app);
                vec![Effect::Redraw]
            };
            app.window.advance(&app.model);
            effects
        }
        Message::Key(event) if event.kind == KeyEventKind::Release => Vec::new(),
        Message::Key(event) => key(app, &event),
        Message::Resize { width, height } => {
            (app.size.width, app.size.height) = (width, height);
            settle(app);
            vec![Effect::Redraw]
        }
        Message::TargetsEnded => {
            app.targets_ended = true;
            vec![Effect::Redraw]
        }
    }
}

fn key(app: &mut App, event: &KeyEvent) -> Vec<Effect> {
    let Some(action) = bindings::action(event) else { return Vec::new() };
    match action {
        Action::Quit => return vec![Effect::Quit],
        Action::Leave if !app.help => return vec![Effect::Quit],
        Action::Suspend => return vec![Effect::Suspend, Effect::Redraw],
        Action::Leave => app.help = false,
        Action::Help => app.help = !app.help,
        Action::Close if app.help => app.help = false,
        Action::Close => app.selected = None,
        Action::Up | Action::Down | Action::PageUp | Action::PageDown | Action::First | Action::Last => {
            select(app, action);
        }
        Action::NextOrder => next_order(app),
        Action::Reverse => {
            app.order.reversed = !app.order.reversed;
            app.sort();
        }
        Action::Pause => {
            app.paused = !app.paused;
            if !app.paused {
                app.refresh();
            }
        }
    }
    settle(app);
    vec![Effect::Redraw]
}

/// Moves the selection; without one, it begins at the top of the screen.
fn select(app: &mut App, action: Action) {
    let Some(last) = app.shown.rows.len().checked_sub(1) else { return };
    let page = rows_on_screen(app).max(1);
    let at = match (app.selected_row(), action) {
        (_, Action::First) => 0,
        (_, Action::Last) => last,
        (None, _) => app.top,
        (Some(at), Action::Up) => at.saturating_sub(1),
        (Some(at), Action::Down) => at + 1,
        (Some(at), Action::PageUp) => at.saturating_sub(page),
        (Some(at), Action::PageDown) => at + page,
        (Some(at), _) => at,
    };
    app.selected = Some(app.shown.rows[at.min(last)].id);
}

/// Sorts by the next of the columns that are on the screen.
fn next_order(app: &mut App) {
    let placed = place(layout(app.size).table_width(), &app.shown.widths);
    let at = placed.iter().position(|place| place.column.id == app.order.column);
    let next = at.map_or(0, |at| (at + 1) % placed.len());
    if let Some(place) = placed.get(next) {
        app.order = Order { column: place.column.id, reversed: false };
        app.sort();
    }
}

fn rows_on_screen(app: &App) -> usize {
    usize::from(layout(app.size).rows.height)
}

/// Brings the part of the table that is on the screen to where the selection is, and no further down
/// than there are rows.
fn settle(app: &mut App) {
    let room = rows_on_screen(app);
    let mut top = app.top.min(app.shown.rows.len().saturating_sub(room));
    if let Some(selected) = app.selected_row() {
        top = top.min(selected).max((selected + 1).saturating_sub(room));
    }
    app.top = top;
}
