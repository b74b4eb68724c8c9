//! What is selected as text, for the clipboard.

use std::{fmt::Write as _, io::Write as _};

use super::Effect;
use crate::{
    output::{
        numbers::duration,
        stalls,
        summary::{LoopSummary, Summary},
        text,
    },
    tui::{
        columns::{COLUMNS, Look},
        rows::{Key, Row},
        state::{App, Screen},
        view,
    },
};

/// Copies it, and says what cannot be said: a terminal does not tell whether it took it.
pub(super) fn copy(app: &mut App) -> Vec<Effect> {
    let Some((what, text)) = selected_text(app) else {
        app.note = Some("nothing is selected to be copied".to_owned());
        return vec![Effect::Redraw];
    };
    app.note = Some(format!(
        "{what} was sent to the terminal's clipboard (OSC 52); whether it takes it, it does not say"
    ));
    vec![Effect::Copy(text), Effect::Redraw]
}

fn selected_text(app: &App) -> Option<(String, String)> {
    match app.screen {
        Screen::Loops => {
            let row = app.selection()?;
            Some((format!("the row of {}", row.identity.comm), row_text(app, row)))
        }
        Screen::Detail => {
            let inspected = app.shown.inspected.as_ref()?;
            let entry = app.detail.0.and_then(|id| app.model.get(id));
            let stalls: Vec<_> = inspected.stalls.iter().cloned().collect();
            let summary = Summary {
                attach: app.tracing.attach.clone(),
                elapsed_ns: app.shown.elapsed_ns,
                stall_threshold: app.model.stall_threshold,
                loops: vec![LoopSummary {
                    identity: std::sync::Arc::clone(&inspected.identity),
                    stats: inspected.total.clone(),
                    ongoing_stall_ns: inspected.ongoing_stall.unwrap_or(0),
                    stalls,
                    stalls_dropped: inspected.stalls.dropped(),
                    stall_threshold: entry
                        .map_or(app.model.stall_threshold, |entry| app.model.threshold_of(entry)),
                    unpolled: entry.and_then(|entry| app.model.unpolled(entry)),
                }],
                findings: inspected.findings.clone(),
                drops: app.shown.drops,
                cost: app.model.cost(),
            };
            let mut out = Vec::new();
            text::write(&mut out, &summary, true).ok()?;
            Some((format!("all of {}", inspected.identity.comm), String::from_utf8(out).ok()?))
        }
        Screen::Timeline => {
            let (row, iteration) = view::iteration_at_cursor(app).filter(|_| app.paused)?;
            let text = view::iteration_text(app, row, iteration?);
            Some((format!("an iteration of {}", row.identity.comm), text))
        }
        Screen::Compare => {
            let lines = view::compare_lines(app);
            (!app.shown.compared.is_empty()).then(|| ("the comparison".to_owned(), lines.join("\n") + "\n"))
        }
        Screen::Stalls => {
            let shown = app.shown.stalls.get(app.selected_stall())?;
            let identity = &shown.identity;
            let mut out = Vec::new();
            writeln!(out, "{} ({}) stalled for {}", identity.comm, identity.tid, stalls::line(&shown.stall))
                .ok()?;
            stalls::write_stacks(&mut out, "  ", &shown.stall).ok()?;
            Some((format!("a stall of {}", identity.comm), String::from_utf8(out).ok()?))
        }
    }
}

/// Each column's heading and cell, a line each.
fn row_text(app: &App, row: &Row) -> String {
    let mut text = String::new();
    for column in COLUMNS.iter().filter(|column| column.key != "load") {
        let cell = match column.key {
            "tid" => row.identity.tid.to_string(),
            "state" => match (row.ended, row.ongoing_stall, row.key) {
                (true, ..) => "ended".to_owned(),
                (_, Some(ns), _) => format!("{}, stalled for {}", row.present.state.name(), duration(ns)),
                (_, None, Key::Process(_)) => format!("{} loops", row.loops),
                (_, None, Key::Loop(_)) => {
                    format!("{} for {}", row.present.state.name(), duration(row.present.for_ns))
                }
            },
            "utilisation" => crate::output::numbers::percent(row.utilisation),
            _ => (column.cell)(row, Look { app, width: 20 }).to_string(),
        };
        if !cell.is_empty() {
            // Writing to a `String` does not fail.
            let _ = writeln!(text, "{:<22}{cell}", column.name);
        }
    }
    text
}
