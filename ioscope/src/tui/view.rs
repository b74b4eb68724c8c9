//! Draws the state. It is given `&App` and a frame, and changes nothing else.

mod canvas;
mod compare;
mod detail;
mod diagram;
mod header;
mod help;
mod histogram;
mod overlay;
mod preview;
mod stalls;
mod table;
pub(super) mod text;
mod timeline;

use std::ops::Range;

use ratatui::{
    Frame,
    buffer::Buffer,
    layout::{Position, Rect, Size},
    text::{Line, Span},
};
use unicode_width::UnicodeWidthStr as _;

use ioscope_common::Iteration;

use super::{
    bindings::{Action, Footer},
    rows::Row,
    state::{App, Screen},
};

/// From these sizes on there is room for everything; below, what matters least goes first.
const FULL_HEIGHT: u16 = 20;
const FULL_WIDTH: u16 = 60;

/// Where what stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Target and totals: two rows, or one.
    pub(super) header: Rect,
    /// The screens, and what is wrong now.
    pub(super) tabs: Rect,
    /// The table's headings: two rows, one or none.
    pub(super) headings: Rect,
    /// The table's rows.
    pub(super) rows: Rect,
    /// The keys.
    pub(super) footer: Rect,
}

impl Layout {
    /// Headings and rows: all that is the screen's own.
    pub(super) const fn body(&self) -> Rect {
        Rect { height: self.headings.height + self.rows.height, ..self.headings }
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
    let [header, tabs, headings, footer] = heights;
    let (header, tabs, headings) = (part(header), part(tabs), part(headings));
    let rows = part(size.height.saturating_sub(header.height + tabs.height + headings.height + footer));
    Layout { header, tabs, headings, rows, footer: part(footer) }
}

/// Rows that the screen's own part has.
pub(super) fn body_height(app: &App) -> u16 {
    layout(app.size).body().height
}

/// The first line on the screen when the last one is on it, of a screen that is scrolled.
pub(super) fn last_top(app: &App) -> usize {
    let lines = match app.screen {
        Screen::Detail => detail::lines(app, app.size.width).len(),
        Screen::Compare => compare::lines(app, app.size.width).len(),
        Screen::Loops | Screen::Timeline | Screen::Stalls => 0,
    };
    lines.saturating_sub(usize::from(body_height(app)))
}

/// An iteration as a text of its own.
pub(super) fn iteration_text(app: &App, row: &Row, iteration: &Iteration) -> String {
    let mut text = format!(
        "{} ({}): {}; {}",
        row.identity.comm,
        row.identity.tid,
        detail::describe(iteration),
        detail::slice(iteration)
    );
    if let Some(waker) = timeline::waker(app, iteration) {
        text = format!("{text}; {waker}");
    }
    text + "\n"
}

/// Whether Loops is on the screen, and has a preview.
pub(super) fn has_preview(app: &App) -> bool {
    app.screen == Screen::Loops && preview_area(app).is_some()
}

/// Compare as text.
pub(super) fn compare_lines(app: &App) -> Vec<String> {
    compare::lines(app, u16::MAX).iter().map(|line| line.to_string().trim_end().to_owned()).collect()
}

pub(super) use help::last_top as last_help_top;
pub(super) use preview::area as preview_area;
pub(super) use stalls::list_height as stall_list_height;
pub(super) use timeline::{
    at as timeline_at, iteration_at_cursor, lanes as timeline_lanes, width as timeline_width,
};

/// The screens' names in their places.
pub(super) fn tabs(app: &App) -> Vec<(Screen, Range<u16>)> {
    // Where what is wrong would have no room, the others than the present one have only their numbers.
    const NOTICE: u16 = 26;
    let width = |screen: Screen| u16::try_from(screen.name().len() + 4).unwrap_or(0);
    let whole: u16 = Screen::ALL.into_iter().map(width).sum();
    let names = whole + NOTICE <= app.size.width;
    let mut x = 0;
    Screen::ALL
        .into_iter()
        .map(|screen| {
            let from = x;
            x += if names || screen == app.screen { width(screen) } else { 3 };
            (screen, from..x)
        })
        .collect()
}

/// Draws.
pub fn view(app: &App, frame: &mut Frame<'_>) {
    let area = frame.area();
    let layout = layout(area.as_size());
    let buffer = frame.buffer_mut();
    header::draw(app, &layout, buffer);
    match app.screen {
        Screen::Loops => {
            table::draw(app, &layout, buffer);
            preview::draw(app, buffer);
        }
        Screen::Detail => {
            draw_lines(&detail::lines(app, area.width), app.detail.1, layout.body(), buffer);
        }
        Screen::Timeline => timeline::draw(app, buffer, area.as_size()),
        Screen::Stalls => stalls::draw(app, layout.body(), buffer),
        Screen::Compare => {
            draw_lines(&compare::lines(app, area.width), app.compare_top, layout.body(), buffer);
        }
    }
    if layout.footer.height > 0 {
        footer(app, layout.footer, buffer);
    }
    overlay::draw(app, area, &layout, buffer);
}

/// Draws lines from one on, and says at the edges that there are more.
fn draw_lines(lines: &[Line<'_>], top: usize, area: Rect, buffer: &mut Buffer) {
    let top = top.min(lines.len().saturating_sub(1));
    for (line, y) in lines.iter().skip(top).zip(area.top()..area.bottom()) {
        buffer.set_line(area.x, y, line, area.width);
    }
    if area.width > 0 && area.height > 0 {
        let right = area.right() - 1;
        if top > 0 {
            buffer.set_string(right, area.top(), "▲", ratatui::style::Style::new());
        }
        if lines.len() > top + usize::from(area.height) {
            buffer.set_string(right, area.bottom() - 1, "▼", ratatui::style::Style::new());
        }
    }
}

/// The keys that there is room for, or what there is to say.
fn footer(app: &App, area: Rect, buffer: &mut Buffer) {
    if let Some(note) = &app.note {
        buffer.set_line(area.x, area.y, &Line::styled(format!(" {note}"), app.theme.accent), area.width);
        return;
    }
    let mut keys = Line::default();
    for key in footer_keys(app, area.width) {
        let gap = usize::from(key.cells.start.saturating_sub(cells(&keys)));
        keys.push_span(Span::raw(" ".repeat(gap)));
        keys.push_span(Span::styled(key.label, app.theme.accent));
        keys.push_span(Span::raw(key.word));
    }
    keys.push_span(Span::raw(" "));
    spread(buffer, area, &keys, &position(app));
}

/// Where in the screen's content one is; the shortest form last.
fn position(app: &App) -> Vec<Line<'static>> {
    match app.screen {
        Screen::Loops => table::position(app),
        Screen::Timeline => timeline::position(app),
        _ => Vec::new(),
    }
}

/// A key in the footer.
pub(super) struct FooterKey {
    /// What it does; none where it stands for several.
    pub(super) action: Option<Action>,
    /// Where it stands, with the word behind it.
    pub(super) cells: Range<u16>,
    label: String,
    /// With a blank before it; empty where the next key shares it.
    word: String,
}

/// The keys that a footer of this width has room for, whole words only.
pub(super) fn footer_keys(app: &App, width: u16) -> Vec<FooterKey> {
    // What says where one is has room first, in its shortest form.
    let least = position(app).last().map_or(0, cells);
    let room = width.saturating_sub(least + 1);
    let of_screen = app.keys.bindings().filter_map(|(binding, keys)| match binding.footer {
        Footer::On(screens, word) if screens.contains(&app.screen) => {
            Some((word, keys.first().map(|key| key.label())?, Some(binding.action)))
        }
        _ => None,
    });
    let all: Vec<_> = of_screen.chain([("screens", "1-5".to_owned(), None)]).collect();
    let mut footer: Vec<FooterKey> = Vec::new();
    let mut x = 0;
    for group in all.chunk_by(|a, b| a.0 == b.0) {
        let length = |text: &str| u16::try_from(text.width()).unwrap_or(u16::MAX / 2);
        let labels: u16 = group.iter().map(|(_, label, _)| length(label)).sum();
        let word = format!(" {}", group[0].0);
        // A blank before, and one behind.
        if x + labels + length(&word) + 2 > room {
            break;
        }
        x += 1;
        for (at, (_, label, action)) in group.iter().enumerate() {
            let word = if at + 1 == group.len() { word.clone() } else { String::new() };
            let from = x;
            x += length(label) + length(&word);
            footer.push(FooterKey { action: *action, cells: from..x, label: label.clone(), word });
        }
        x += 1;
    }
    footer
}

/// Draws a line at the left of an area, and at its right the first of some that has room.
fn spread(buffer: &mut Buffer, area: Rect, left: &Line<'_>, rights: &[Line<'_>]) {
    buffer.set_line(area.x, area.y, left, area.width);
    let room = area.width.saturating_sub(cells(left));
    if let Some(right) = rights.iter().find(|right| cells(right) < room) {
        buffer.set_line(area.x + area.width - cells(right), area.y, right, cells(right));
    }
}

pub(super) fn cells(line: &Line<'_>) -> u16 {
    u16::try_from(line.iter().map(|span| span.content.width()).sum::<usize>()).unwrap_or(u16::MAX / 2)
}

/// Whether a position is in an area, and where in it.
fn within(area: Rect, at: Position) -> Option<(u16, u16)> {
    area.contains(at).then(|| (at.x - area.x, at.y - area.y))
}
