//! The table of loops.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    text::{Line, Span},
};

use super::{Layout, cells};
use crate::tui::{
    columns::{Look, Placed, place},
    state::App,
};

/// Draws the headings and the rows that are on the screen.
pub(super) fn draw(app: &App, layout: &Layout, buffer: &mut Buffer) {
    let placed = place(layout.rows.width, &app.shown.widths, |id| !app.loops.hidden.contains(&id));
    for place in &placed {
        heading(app, place, layout.headings, buffer);
    }
    let area = layout.rows;
    if app.shown.table.is_empty() && area.height > 0 {
        let text = if !app.filter.is_empty() {
            " no loop has this text in it: Esc clears the filter"
        } else if app.targets_ended {
            " no wait call was seen"
        } else {
            " waiting for the first wait call: a thread is a loop once it makes one"
        };
        buffer.set_line(area.x, area.y, &Line::styled(text, app.theme.secondary), area.width);
    }
    for (row, y) in app.table().skip(app.loops.top).zip(area.top()..area.bottom()) {
        if app.marked.contains(&row.identity.pid) {
            buffer.set_stringn(area.x, y, "●", usize::from(area.width), app.theme.accent);
        }
        for place in &placed {
            let look = Look { app, width: place.width };
            cell(&(place.column.cell)(row, look), place, y, buffer);
        }
        let whole = Rect { y, height: 1, ..area };
        if row.ended {
            buffer.set_style(whole, app.theme.secondary);
        }
        if app.loops.selected == Some(row.key) {
            buffer.set_style(whole, app.theme.selected);
        }
    }
}

/// How the table is sorted, what of it is shown and where in it the selection is; and less of it.
pub(super) fn position(app: &App) -> Vec<Line<'static>> {
    let order = app.loops.order;
    let direction = if order.is_descending() { "▼" } else { "▲" };
    let order = format!("by {} {direction} ", order.column().name);
    let place = match (app.selected_row(), app.filter.is_empty()) {
        (Some(at), _) => format!("{}/{} ", at + 1, app.shown.table.len()),
        (None, true) => String::new(),
        (None, false) => format!("{} of {} ", app.shown.matching, app.shown.loops),
    };
    let filter = if app.filter.is_empty() { String::new() } else { format!("/{} ", app.filter) };
    let style = app.theme.secondary;
    let active = app.theme.accent;
    let filter = || Span::styled(filter.clone(), active);
    vec![
        Line::from(vec![filter(), Span::styled(format!("{order} {place}"), style)]),
        Line::from(vec![filter(), Span::styled(place.clone(), style)]),
    ]
}

/// A cell, on the side of its column where it belongs.
fn cell(line: &Line<'_>, place: &Placed, y: u16, buffer: &mut Buffer) {
    let blank = if place.column.left { 0 } else { place.width.saturating_sub(cells(line)) };
    buffer.set_line(place.x + blank, y, line, place.width - blank);
}

/// A heading, on two rows or one, with the arrow of the order that the table is in.
fn heading(app: &App, place: &Placed, area: Rect, buffer: &mut Buffer) {
    let sorted = app.loops.order.column == place.column.id;
    let style = if sorted { app.theme.sorted_heading } else { app.theme.heading };
    let words: &[&str] = match area.height {
        0 => return,
        1 => &[place.column.short_heading],
        _ => &place.column.heading,
    };
    for (word, y) in words.iter().zip(area.top()..) {
        cell(&Line::from(Span::styled(*word, style)), place, y, buffer);
    }
    if sorted {
        // The arrow stands in the blank before a number's heading, and behind a name's.
        let word = words.last().map_or(0, |word| word.len());
        let word = u16::try_from(word).unwrap_or(0);
        let arrow = if app.loops.order.is_descending() { "▼" } else { "▲" };
        let x = if place.column.left { place.x + word } else { place.x + place.width - word - 1 };
        buffer.set_stringn(x, area.bottom() - 1, arrow, 1, style);
    }
}
