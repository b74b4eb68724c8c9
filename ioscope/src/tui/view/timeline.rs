//! Timeline: a lane per loop, time from left to right, coloured by state.
//!
//! A cell is a span of time. What a loop did in it for longest gives the colour, and how much of it the loop
//! was at work gives the height; where it was only READY or BLOCKED stands its letter.

use std::collections::HashMap;

use ioscope_common::{Iteration, State, WakerContext};
use ratatui::{
    buffer::Buffer,
    layout::{Position, Rect, Size},
    style::{Modifier, Style},
    text::{Line, Span},
};

use super::{detail, layout, text::cut, within};
use crate::{
    output::numbers::duration,
    tui::{
        cells::step,
        rows::{Key, Row},
        state::{App, Screen, Wakeups},
        theme::{Theme, letter},
        tracks::{Segment, present, woken},
    },
};

/// The parts of the screen's own part.
struct Parts {
    axis: Rect,
    labels: Rect,
    lanes: Rect,
    foot: Rect,
}

fn parts(size: Size) -> Parts {
    let body = layout(size).body();
    let axis = u16::from(body.height >= 4);
    let foot = match body.height {
        0..8 => 0,
        8..12 => 1,
        _ => 3,
    };
    let labels = match body.width {
        0..50 => body.width / 4,
        50..120 => 19,
        _ => 28,
    };
    let width = body.width - labels;
    let height = body.height - axis - foot;
    let y = body.y + axis;
    Parts {
        axis: Rect { x: body.x + labels, y: body.y, width, height: axis },
        labels: Rect { x: body.x, y, width: labels, height },
        lanes: Rect { x: body.x + labels, y, width, height },
        foot: Rect { x: body.x, y: y + height, width: body.width, height: foot },
    }
}

/// How many lanes there is room for.
pub(in crate::tui) fn lanes(size: Size) -> u16 {
    parts(size).lanes.height
}

/// How many cells a lane has.
pub(in crate::tui) fn width(size: Size) -> u16 {
    parts(size).lanes.width
}

/// The column and the lane, counted from the first on the screen, that a position is in.
pub(in crate::tui) fn at(app: &App, at: Position) -> Option<(u16, u16)> {
    within(parts(app.size).lanes, at).map(|(column, row)| (column, row / pitch(app)))
}

/// Rows from one lane to the next: two where there is room, for the wakeups between them.
fn pitch(app: &App) -> u16 {
    let room = usize::from(lanes(app.size));
    if app.shown.lanes.len() * 2 <= room { 2 } else { 1 }
}

/// What is on the screen of time.
struct Window {
    from: u64,
    to: u64,
    cells: u16,
}

impl Window {
    fn of(app: &App, cells: u16) -> Self {
        let to = app.timeline.held_at.unwrap_or(app.shown.at);
        Self { from: to.saturating_sub(app.timeline.span), to, cells }
    }

    fn length(&self) -> u64 {
        (self.to - self.from).max(1)
    }

    /// The cell of a moment that is on the screen.
    fn column(&self, at: u64) -> Option<u16> {
        if at < self.from || at > self.to {
            return None;
        }
        // No more than two minutes, times the cells of a line: far from an overflow.
        let column = (at - self.from).saturating_mul(u64::from(self.cells)) / self.length();
        u16::try_from(column).ok().map(|column| column.min(self.cells.saturating_sub(1)))
    }

    /// When a cell begins.
    fn begin(&self, column: u16) -> u64 {
        self.from + u64::from(column).saturating_mul(self.length()) / u64::from(self.cells.max(1))
    }
}

/// What a loop did in a cell.
#[derive(Clone, Copy, Default)]
struct Cell {
    ns: [u64; State::COUNT],
    stall: bool,
}

pub(super) fn draw(app: &App, buffer: &mut Buffer, size: Size) {
    let parts = parts(size);
    let span = Window::of(app, parts.lanes.width);
    if app.shown.lanes.is_empty() {
        let text =
            if app.filter.is_empty() { " no loop was seen yet" } else { " no loop has this text in it" };
        if !parts.labels.is_empty() {
            buffer.set_line(
                parts.labels.x,
                parts.labels.y,
                &Line::styled(text, app.theme.secondary),
                size.width,
            );
        }
        return;
    }
    axis(app, &span, parts.axis, buffer);
    let pitch = pitch(app);
    let visible: Vec<&Row> = app
        .shown
        .lanes
        .iter()
        .skip(app.timeline.top)
        .take(usize::from(parts.lanes.height / pitch))
        .map(|at| &app.shown.rows[*at])
        .collect();
    for (row, at) in visible.iter().zip(0u16..) {
        let y = parts.lanes.y + at * pitch;
        label(app, row, Rect { y, height: 1, ..parts.labels }, buffer);
        lane(app, row, &span, Rect { y, height: 1, ..parts.lanes }, buffer);
    }
    wakeups(app, &visible, &span, (parts.lanes, pitch), buffer);
    let rows = u16::try_from(visible.len()).unwrap_or(0) * pitch;
    if app.timeline.held_at.is_some()
        && let Some(column) = span.column(app.timeline.cursor)
    {
        let x = parts.lanes.x + column;
        let under = Rect { x, width: 1, height: rows.min(parts.lanes.height), ..parts.lanes };
        buffer.set_style(under, Style::new().add_modifier(Modifier::REVERSED));
        if parts.axis.height > 0 {
            buffer.set_string(x, parts.axis.y, "▼", app.theme.accent);
        }
    }
    foot(app, parts.foot, buffer);
}

/// Moments, as seen from the present.
fn axis(app: &App, span: &Window, area: Rect, buffer: &mut Buffer) {
    /// Cells from one to the next, at least.
    const APART: u64 = 14;
    if area.is_empty() {
        return;
    }
    buffer.set_string(area.x, area.y, "─".repeat(usize::from(area.width)), app.theme.secondary);
    let step = round_step(span.length().saturating_mul(APART) / u64::from(span.cells.max(1)));
    let present = app.shown.at;
    let mut tick = |at: u64, text: String| {
        let Some(column) = span.column(at) else { return };
        let room = usize::from(area.width - column);
        if text.chars().count() + 7 < room {
            buffer.set_stringn(area.x + column, area.y, format!("┬{text} "), room, app.theme.secondary);
        }
    };
    if present.saturating_sub(span.to) > span.length() * 4 {
        // Long ago and close up, what is seen from the present would read the same everywhere.
        tick(span.from, format!("−{}", duration(present.saturating_sub(span.from))));
        for after in (1..=span.length() / step).map(|count| count * step) {
            tick(span.from + after, format!("+{}", round(after)));
        }
    } else {
        let nearest = present.saturating_sub(span.to).div_ceil(step).max(1);
        for before in (nearest..=present.saturating_sub(span.from) / step).map(|count| count * step) {
            tick(present - before, format!("−{}", round(before)));
        }
    }
    let ago = present.saturating_sub(span.to);
    let end = if ago == 0 { " now".to_owned() } else { format!(" −{}", duration(ago)) };
    let length = u16::try_from(end.chars().count()).unwrap_or(0);
    if length <= area.width {
        buffer.set_string(area.right() - length, area.y, end, app.theme.secondary);
    }
}

/// The next of 1, 2, 5, 10, 20, … nanoseconds.
fn round_step(least: u64) -> u64 {
    let mut decade = 1_u64;
    loop {
        if let Some(step) = [1, 2, 5].into_iter().map(|digit| decade * digit).find(|step| *step >= least) {
            return step;
        }
        if decade > u64::MAX / 50 {
            return u64::MAX;
        }
        decade *= 10;
    }
}

/// A duration of few digits, without zeros that say nothing: `4s`, `1.5ms`.
fn round(ns: u64) -> String {
    let text = duration(ns);
    let unit = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(unit);
    let number =
        if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number };
    format!("{number}{unit}")
}

fn label(app: &App, row: &Row, area: Rect, buffer: &mut Buffer) {
    let width = usize::from(area.width);
    let (mark, style) = if row.ended {
        ("·".to_owned(), app.theme.secondary)
    } else if row.ongoing_stall.is_some() {
        ("!".to_owned(), app.theme.alarm)
    } else {
        (letter(row.present.state).to_string(), app.theme.state(row.present.state))
    };
    let name = &row.identity.comm;
    let text = if width >= 26 {
        let tid = row.identity.tid.to_string();
        let room = width.saturating_sub(tid.len() + 5);
        let name = cut(name, room);
        let blank = room.saturating_sub(unicode_width::UnicodeWidthStr::width(name.as_str()));
        format!("{name}{} {tid}", " ".repeat(blank))
    } else {
        cut(name, width.saturating_sub(4))
    };
    buffer.set_line(
        area.x,
        area.y,
        &Line::from(vec![Span::raw(" "), Span::styled(mark, style), Span::raw(format!(" {text}"))]),
        area.width.saturating_sub(1),
    );
    if app.loops.selected == Some(row.key) {
        buffer.set_style(Rect { width: area.width.saturating_sub(1), ..area }, app.theme.selected);
    }
}

fn lane(app: &App, row: &Row, span: &Window, area: Rect, buffer: &mut Buffer) {
    let Key::Loop(id) = row.key else { return };
    let threshold =
        app.model.get(id).map_or(app.model.stall_threshold, |entry| app.model.threshold_of(entry));
    let threshold = u64::try_from(threshold.as_nanos()).unwrap_or(u64::MAX);
    let mut cells = vec![Cell::default(); usize::from(area.width)];
    let mut add = |segment: Segment| {
        let (from, to) = (segment.from.max(span.from), segment.to.min(span.to));
        let (Some(first), Some(last)) = (span.column(from), span.column(to)) else { return };
        if from >= to {
            return;
        }
        if first == last {
            // Most are as short as that.
            if let Some(cell) = cells.get_mut(usize::from(first)) {
                cell.ns[segment.state as usize] += to - from;
                cell.stall |= segment.stall;
            }
            return;
        }
        for column in first..=last {
            let begin = span.begin(column).max(from);
            let end = if column == last { to } else { span.begin(column + 1).min(to) };
            if let Some(cell) = cells.get_mut(usize::from(column)) {
                cell.ns[segment.state as usize] += end.saturating_sub(begin);
                cell.stall |= segment.stall && end > begin;
            }
        }
    };
    if let Some(track) = app.tracks.of(id) {
        track.segments(span.from, span.to, threshold, &mut add);
    }
    if !row.ended {
        present(&row.present, app.shown.at, threshold).into_iter().flatten().for_each(&mut add);
    }
    for (cell, x) in cells.iter().zip(area.x..) {
        let (symbol, style) = look(app, cell);
        buffer.set_string(x, area.y, symbol, style);
    }
}

/// A cell's character and colour.
fn look(app: &App, cell: &Cell) -> (&'static str, Style) {
    let theme = &app.theme;
    let total: u64 = cell.ns.iter().sum();
    if total == 0 {
        return (" ", Style::new());
    }
    let at = |state: State| cell.ns[state as usize];
    let busy = total - at(State::Waiting) - at(State::Parked);
    let share = busy as f64 / total as f64;
    if share < 0.01 {
        let idle = if at(State::Parked) > at(State::Waiting) { State::Parked } else { State::Waiting };
        let symbol = if idle == State::Parked { "╌" } else { "─" };
        return (symbol, theme.state(idle));
    }
    let states = [State::Running, State::Blocked, State::Ready, State::Polling];
    let most = states.into_iter().max_by_key(|state| at(*state)).unwrap_or(State::Running);
    let style = if cell.stall { theme.bad } else { theme.state(most) };
    if cell.stall && (theme.colourless || most == State::Running && share >= 0.5) {
        return ("!", style.add_modifier(Modifier::REVERSED));
    }
    symbol(theme, most, share, style)
}

/// How a cell shows that a loop was in this state for that part of it.
pub(super) fn symbol(theme: &Theme, state: State, share: f64, style: Style) -> (&'static str, Style) {
    // The height says less than what it was; without colours nothing else says that.
    let has_letter = share >= 0.5 || theme.colourless;
    match state {
        State::Ready if has_letter => ("Y", style.add_modifier(Modifier::REVERSED)),
        State::Blocked if has_letter => ("B", style.add_modifier(Modifier::REVERSED)),
        State::Polling if share >= 0.95 => ("▒", style),
        _ => (step(share), style),
    }
}

/// Draws wakeups from waker to woken where both are on the screen, one in a column.
fn wakeups(app: &App, visible: &[&Row], span: &Window, (area, pitch): (Rect, u16), buffer: &mut Buffer) {
    if app.timeline.wakeups == Wakeups::None {
        return;
    }
    let all = app.timeline.wakeups == Wakeups::All;
    let selected = app.loops.selected;
    let selected_tid = visible.iter().find(|row| selected == Some(row.key)).map(|row| row.identity.tid);
    let lanes: HashMap<u32, usize> =
        visible.iter().enumerate().map(|(at, row)| (row.identity.tid, at)).collect();
    let mut taken = vec![false; usize::from(area.width)];
    for (woken_lane, row) in visible.iter().enumerate() {
        let Some(track) = row.loop_id().and_then(|id| app.tracks.of(id)) else { continue };
        let of_all_wakers = all || selected == Some(row.key);
        for iteration in track.iterations(span.from, span.to) {
            // There are many, and few are wanted: the cheap questions first.
            if !of_all_wakers && Some(iteration.waker) != selected_tid
                || WakerContext::from_number(iteration.waker_context) != WakerContext::Thread
            {
                continue;
            }
            let Some(waker_lane) = lanes.get(&iteration.waker).copied() else { continue };
            let Some(column) = woken(iteration).and_then(|at| span.column(at)) else { continue };
            if waker_lane == woken_lane || std::mem::replace(&mut taken[usize::from(column)], true) {
                continue;
            }
            let row_of = |lane: usize| area.y + u16::try_from(lane).unwrap_or(0) * pitch;
            let (from, to) = (row_of(waker_lane), row_of(woken_lane));
            let down = to > from;
            let between = if down { from + 1..to } else { to + 1..from };
            let head = match (pitch, down) {
                (1, _) => to,
                (_, true) => to - 1,
                (_, false) => to + 1,
            };
            let x = area.x + column;
            for y in between {
                buffer.set_string(x, y, "│", app.theme.accent);
            }
            buffer.set_string(x, head, if down { "▼" } else { "▲" }, app.theme.accent);
        }
    }
}

/// What is under the cursor, and what the signs mean.
fn foot(app: &App, area: Rect, buffer: &mut Buffer) {
    let lines = if app.timeline.held_at.is_some() { under_cursor(app) } else { Vec::new() };
    let hint = "← → hold the screen and move a cursor over it, z Z zoom, Space goes on";
    let mut lines =
        if lines.is_empty() { vec![Line::styled(format!(" {hint}"), app.theme.secondary)] } else { lines };
    if area.height >= 3 {
        lines.resize(2, Line::default());
        lines.push(legend(app));
    }
    for (line, y) in lines.iter().zip(area.top()..area.bottom()) {
        buffer.set_line(area.x, y, line, area.width);
    }
}

/// The iteration at the cursor, of the selected loop, or of the first on the screen.
pub(in crate::tui) fn iteration_at_cursor(app: &App) -> Option<(&Row, Option<&Iteration>)> {
    let selected = app.loops.selected.and_then(|key| app.shown.rows.iter().find(|row| row.key == key));
    let first = || app.shown.lanes.get(app.timeline.top).map(|at| &app.shown.rows[*at]);
    let row = selected.filter(|row| !row.is_process()).or_else(first)?;
    let track = row.loop_id().and_then(|id| app.tracks.of(id));
    Some((row, track.and_then(|track| track.at(app.timeline.cursor))))
}

fn under_cursor(app: &App) -> Vec<Line<'static>> {
    let Some((row, iteration)) = iteration_at_cursor(app) else { return Vec::new() };
    let theme = &app.theme;
    let ago = duration(app.shown.at.saturating_sub(app.timeline.cursor));
    let mut first = Line::from(vec![
        Span::styled(format!(" −{ago} "), theme.accent),
        Span::styled(row.identity.comm.clone(), theme.strong),
        Span::raw(" "),
    ]);
    let Some(iteration) = iteration else {
        first.push_span(Span::styled("no complete iteration here", theme.secondary));
        return vec![first];
    };
    first.push_span(Span::raw(detail::describe(iteration)));
    let mut second = Line::from(format!("   {}", detail::slice(iteration)));
    if let Some(waker) = waker(app, iteration) {
        second.push_span(Span::raw(format!("; {waker}")));
    }
    vec![first, second]
}

/// Who woke it.
pub(super) fn waker(app: &App, iteration: &Iteration) -> Option<String> {
    woken(iteration)?;
    let name = app.shown.rows.iter().find(|row| row.identity.tid == iteration.waker && !row.is_process());
    let thread = match name {
        Some(row) => format!("{} ({})", row.identity.comm, iteration.waker),
        None if iteration.waker == 0 => "an idle CPU".to_owned(),
        None => format!("thread {}", iteration.waker),
    };
    Some(match WakerContext::from_number(iteration.waker_context) {
        WakerContext::None => return None,
        WakerContext::Thread => format!("woken by {thread}"),
        WakerContext::SoftInterrupt => format!("woken by a soft interrupt over {thread}"),
        WakerContext::Interrupt => "woken by an interrupt".to_owned(),
    })
}

fn legend(app: &App) -> Line<'static> {
    let theme = &app.theme;
    let mut line = Line::from(" ");
    for (symbol, state, word) in [
        ("─", State::Waiting, "waiting"),
        ("▒", State::Polling, "polling"),
        ("Y", State::Ready, "ready"),
        ("█", State::Running, "running"),
        ("B", State::Blocked, "blocked"),
        ("╌", State::Parked, "parked"),
    ] {
        line.push_span(Span::styled(symbol, theme.state(state)));
        line.push_span(Span::raw(format!(" {word}  ")));
    }
    line.push_span(Span::styled("!", theme.bad));
    line.push_span(Span::raw(" stall"));
    if app.size.width >= 100 {
        line.push_span(Span::styled("  blank: not seen", theme.secondary));
    }
    line
}

/// How much time is on the screen, and whether it moves.
pub(super) fn position(app: &App) -> Vec<Line<'static>> {
    debug_assert!(app.screen == Screen::Timeline);
    let span = duration(app.timeline.span);
    let word = if app.paused { "held" } else { "live" };
    let filter = if app.filter.is_empty() { String::new() } else { format!("/{} ", app.filter) };
    vec![Line::from(vec![
        Span::styled(filter, app.theme.accent),
        Span::styled(format!("{span} {word} "), app.theme.secondary),
    ])]
}
