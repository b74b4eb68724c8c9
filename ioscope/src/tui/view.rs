//! Draws the state. It is given `&App` and a frame, and changes nothing else.

mod header;
mod help;
mod table;

use ratatui::{
    Frame,
    buffer::Buffer,
    layout::{Rect, Size},
    text::{Line, Span},
};
use unicode_width::UnicodeWidthStr as _;

use super::{bindings::BINDINGS, state::App};

/// From these sizes on there is room for everything; below, what matters least goes first.
const FULL_HEIGHT: u16 = 20;
const FULL_WIDTH: u16 = 60;

/// Where what stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Target and totals: two rows, or one.
    pub(super) header: Rect,
    /// A row for what is wrong now.
    pub(super) notice: Rect,
    /// The table's headings: two rows, one or none.
    pub(super) headings: Rect,
    /// The table's rows.
    pub(super) rows: Rect,
    /// The keys.
    pub(super) footer: Rect,
}

impl Layout {
    /// How many cells a table's row has.
    pub(super) const fn table_width(&self) -> u16 {
        self.rows.width
    }
}

/// The screen's parts at this size. All of them lie on it; some may be empty.
pub(super) fn layout(size: Size) -> Layout {
    let small = size.height < FULL_HEIGHT || size.width < FULL_WIDTH;
    // What a small screen has, until there are but rows of the table and a line above.
    let heights = match size.height {
        0..=2 => [1, 0, 0, 0],
        3..=5 => [1, 0, 1, 0],
        6..=9 => [1, 0, 1, 1],
        _ if small => [1, 1, 1, 1],
        _ => [2, 1, 2, 1],
    };
    let mut y = 0;
    let mut part = |height: u16| {
        let height = height.min(size.height - y);
        let part = Rect::new(0, y, size.width, height);
        y += height;
        part
    };
    let [header, notice, headings, footer] = heights;
    let (header, notice, headings) = (part(header), part(notice), part(headings));
    let rows = part(size.height.saturating_sub(header.height + notice.height + headings.height + footer));
    Layout { header, notice, headings, rows, footer: part(footer) }
}

/// Draws.
pub fn view(app: &App, frame: &mut Frame<'_>) {
    let area = frame.area();
    let layout = layout(area.as_size());
    let buffer = frame.buffer_mut();
    header::draw(app, &layout, buffer);
    table::draw(app, &layout, buffer);
    if layout.footer.height > 0 {
        // The headings tell the order, too: it goes first.
        spread(buffer, layout.footer, &keys(app), &position(app));
    }
    if app.help {
        help::draw(app, area, buffer);
    }
}

/// The keys that the footer has room for.
fn keys(app: &App) -> Line<'static> {
    let mut line = Line::default();
    for group in BINDINGS.chunk_by(|a, b| a.footer == b.footer) {
        let Some(word) = group[0].footer else { continue };
        let labels = group.iter().filter_map(|binding| binding.keys.first()).map(|key| key.label());
        line.push_span(Span::raw(" "));
        line.push_span(Span::styled(labels.collect::<String>(), app.theme.accent));
        line.push_span(Span::raw(format!(" {word} ")));
    }
    line
}

/// How the table is sorted and where in it the selection is; and the latter only.
fn position(app: &App) -> [Line<'static>; 2] {
    let direction = if app.order.is_descending() { "▼" } else { "▲" };
    let order = format!("by {} {direction} ", app.order.column().name);
    let place =
        app.selected_row().map_or(String::new(), |at| format!("{}/{} ", at + 1, app.shown.rows.len()));
    let gap = if place.is_empty() { "" } else { " " };
    [order + gap + &place, place].map(|text| Line::styled(text, app.theme.secondary))
}

/// Draws a line at the left of an area, and at its right the first of some that has room.
fn spread(buffer: &mut Buffer, area: Rect, left: &Line<'_>, rights: &[Line<'_>]) {
    buffer.set_line(area.x, area.y, left, area.width);
    let room = area.width.saturating_sub(cells(left));
    if let Some(right) = rights.iter().find(|right| cells(right) < room) {
        buffer.set_line(area.x + area.width - cells(right), area.y, right, cells(right));
    }
}

fn cells(line: &Line<'_>) -> u16 {
    u16::try_from(line.iter().map(|span| span.content.width()).sum::<usize>()).unwrap_or(u16::MAX / 2)
}
