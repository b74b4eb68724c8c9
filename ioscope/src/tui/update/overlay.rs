//! What lies over the screen: the help, the chooser of columns, and the lines to type into.

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::{Effect, act, nanoseconds, step};
use crate::{
    cli,
    tui::{
        bindings::Action,
        columns::COLUMNS,
        state::{App, Overlay},
        view,
    },
};

/// A filter or a duration is not longer.
const MOST_TYPED: usize = 60;

/// A key, while something lies over the screen.
pub(super) fn key(app: &mut App, event: &KeyEvent) -> Vec<Effect> {
    let action = app.keys.action(event);
    if action == Some(Action::Quit) {
        return vec![Effect::Quit];
    }
    match app.overlay.clone() {
        Some(Overlay::Help(top)) => help(app, top, action),
        Some(Overlay::Columns(at)) => columns(app, at, action),
        Some(Overlay::Filter(before)) => filter(app, before, event),
        Some(Overlay::Threshold(text, _)) => return threshold(app, text, event),
        None => return Vec::new(),
    }
    vec![Effect::Redraw]
}

/// Pasted text goes where text is typed.
pub(super) fn paste(app: &mut App, text: &str) -> Vec<Effect> {
    for character in text.chars().take_while(|character| !character.is_control()) {
        match &mut app.overlay {
            Some(Overlay::Filter(_)) => type_in(&mut app.filter, KeyCode::Char(character)),
            Some(Overlay::Threshold(text, _)) => type_in(text, KeyCode::Char(character)),
            _ => return Vec::new(),
        };
    }
    app.arrange();
    super::settle(app);
    vec![Effect::Redraw]
}

fn help(app: &mut App, top: usize, action: Option<Action>) {
    let Some(action) = action else { return };
    match action {
        Action::Help | Action::Leave | Action::Close | Action::Open => app.overlay = None,
        Action::Up | Action::Down | Action::PageUp | Action::PageDown | Action::First | Action::Last => {
            let mut top = top;
            super::scroll(&mut top, app.size.height, action);
            app.overlay = Some(Overlay::Help(top.min(view::last_help_top(app))));
        }
        _ => {}
    }
}

fn columns(app: &mut App, at: usize, action: Option<Action>) {
    let Some(action) = action else { return };
    match action {
        Action::Columns | Action::Leave | Action::Close => app.overlay = None,
        Action::Open | Action::Pause | Action::Mark => {
            let id = COLUMNS[at].id;
            let hidden = &mut app.loops.hidden;
            if let Some(at) = hidden.iter().position(|hidden| *hidden == id) {
                hidden.remove(at);
            } else if hidden.len() + 1 < COLUMNS.len() {
                hidden.push(id);
            }
        }
        _ => {
            if let Some(at) = step(Some(at), 0, COLUMNS.len(), COLUMNS.len(), action) {
                app.overlay = Some(Overlay::Columns(at));
            }
        }
    }
}

/// Takes a key into a text; tells whether it was one for a text.
fn type_in(text: &mut String, code: KeyCode) -> bool {
    match code {
        KeyCode::Char(character) if text.chars().count() < MOST_TYPED => text.push(character),
        KeyCode::Backspace => drop(text.pop()),
        _ => return false,
    }
    true
}

fn is_plain(event: &KeyEvent) -> bool {
    !event.modifiers.intersects(KeyModifiers::CONTROL | KeyModifiers::ALT)
}

fn filter(app: &mut App, before: String, event: &KeyEvent) {
    if event.code == KeyCode::Char('u') && event.modifiers == KeyModifiers::CONTROL {
        app.filter.clear();
    } else if event.code == KeyCode::Enter {
        app.overlay = None;
    } else if event.code == KeyCode::Esc {
        app.overlay = None;
        app.filter = before;
    } else if !(is_plain(event) && type_in(&mut app.filter, event.code)) {
        // The table can be walked meanwhile.
        if let Some(action @ (Action::Up | Action::Down | Action::PageUp | Action::PageDown)) =
            app.keys.action(event)
        {
            act(app, action);
        }
        return;
    }
    app.arrange();
    app.look_closer();
}

fn threshold(app: &mut App, mut text: String, event: &KeyEvent) -> Vec<Effect> {
    match event.code {
        KeyCode::Esc => app.overlay = None,
        KeyCode::Enter => match cli::duration(&text) {
            Ok(threshold) => {
                app.overlay = None;
                app.model.stall_threshold = threshold;
                app.note = Some(format!(
                    "from {} on it is a stall; those that were counted stay",
                    crate::output::numbers::duration(nanoseconds(threshold))
                ));
                if !app.paused {
                    app.refresh();
                }
                return vec![Effect::StallThreshold(threshold), Effect::Redraw];
            }
            Err(problem) => app.overlay = Some(Overlay::Threshold(text, Some(problem))),
        },
        code if is_plain(event) && type_in(&mut text, code) => {
            app.overlay = Some(Overlay::Threshold(text, None));
        }
        _ => {}
    }
    vec![Effect::Redraw]
}
