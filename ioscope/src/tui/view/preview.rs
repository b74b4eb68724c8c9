//! The preview: below the table of loops, where it leaves room, what the selected row did in the last two minutes,
//! second by second, and what is wrong with it.

use ioscope_common::State;
use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::Style,
    text::{Line, Span},
};
use unicode_width::UnicodeWidthStr as _;

use super::{canvas::Canvas, detail, layout, text::cut, timeline::symbol};
use crate::{
    output::numbers::duration,
    tui::{
        bindings::Action,
        cells::step,
        history::{MOMENTS, Moment},
        shown::Preview,
        state::{App, Screen},
    },
};

/// Rows that it takes: with less it says nothing that the table does not, with more nothing new.
const HEIGHT: std::ops::RangeInclusive<u16> = 8..=16;
const LEAST_WIDTH: u16 = 50;
/// From this width on the numbers stand beside the chart, else above it.
const SIDE_BY_SIDE: u16 = 110;
/// Columns of the numbers, there.
const NUMBERS: u16 = 54;
const GAP: u16 = 2;
/// What stands before the chart: `100% │`.
const SCALE: usize = 6;
/// Rows below it: the axis, and its moments.
const AXIS: usize = 2;
/// A chart of fewer rows is no chart; from a height of the whole on, it has more.
const LEAST_CHART: usize = 3;
const GOOD_CHART: (usize, usize) = (10, 5);
/// So much of what is wrong has room before the distributions have.
const LEAST_WRONG: usize = 2;
/// So many functions tell where something is.
const FUNCTIONS: usize = 2;
/// Seconds between two moments that are named.
const TICK: usize = 30;
/// What the columns of the chart are made of, from the foot.
const STACK: [State; 4] = [State::Running, State::Blocked, State::Ready, State::Polling];

/// Where it is, if there is room: at the foot of the table, with a blank row above it.
pub(in crate::tui) fn area(app: &App) -> Option<Rect> {
    let rows = layout(app.size).rows;
    let count = u16::try_from(app.shown.table.len()).unwrap_or(u16::MAX);
    let height = rows.height.saturating_sub(count + 1).min(*HEIGHT.end());
    let has_room = count > 0 && height >= *HEIGHT.start() && rows.width >= LEAST_WIDTH;
    (app.loops.preview && has_room).then(|| Rect { y: rows.bottom() - height, height, ..rows })
}

pub(super) fn draw(app: &App, buffer: &mut Buffer) {
    let (Some(area), Some(preview)) = (area(app), &app.shown.preview) else { return };
    // The frame may be ahead of the message that tells its size.
    let area = area.intersection(buffer.area);
    if area.height < *HEIGHT.start() || area.width < LEAST_WIDTH {
        return;
    }
    title(app, preview, Rect { height: 1, ..area }, buffer);
    let body = Rect { x: area.x + 1, y: area.y + 1, width: area.width - 2, height: area.height - 1 };
    if area.width >= SIDE_BY_SIDE {
        let most = u16::try_from(MOMENTS + SCALE).unwrap_or(u16::MAX);
        let left = Rect { width: most.min(body.width - NUMBERS - GAP), ..body };
        let x = left.right() + GAP;
        let right = Rect { x, width: body.right() - x, ..body };
        put(&chart(app, &preview.moments, left), left, buffer);
        put(&numbers(app, preview, usize::from(right.width), usize::from(right.height)), right, buffer);
    } else {
        let height = usize::from(body.height);
        let of_chart = if height < GOOD_CHART.0 { LEAST_CHART } else { GOOD_CHART.1 };
        let room = height.saturating_sub(of_chart + AXIS);
        let lines = numbers(app, preview, usize::from(body.width), room);
        let above = u16::try_from(lines.len()).unwrap_or(0);
        let below = Rect { y: body.y + above, height: body.height - above, ..body };
        put(&lines, body, buffer);
        put(&chart(app, &preview.moments, below), below, buffer);
    }
}

fn put(lines: &[Line<'_>], area: Rect, buffer: &mut Buffer) {
    for (line, y) in lines.iter().zip(area.top()..area.bottom()) {
        buffer.set_line(area.x, y, line, area.width);
    }
}

/// Whose it is, in a rule across the screen, and how to see more.
fn title(app: &App, preview: &Preview, area: Rect, buffer: &mut Buffer) {
    let theme = &app.theme;
    let identity = &preview.row.identity;
    let mut about = vec![identity.tid.to_string()];
    about.extend(identity.runtime.map(str::to_owned));
    if preview.row.is_process() {
        about.push(format!("mean of {} loops", preview.row.loops));
    } else {
        about.extend(preview.row.wait_call.map(|call| call.name().to_owned()));
    }
    if preview.row.ended {
        about.push("ended".to_owned());
    }
    let keys = app.keys.bindings().find(|(binding, _)| binding.action == Action::Go(Screen::Detail));
    let more = keys.and_then(|(_, keys)| keys.first().map(|key| format!(" {} in full ─", key.label())));
    let more = more.unwrap_or_default();
    let room = usize::from(area.width).saturating_sub(more.width() + 4);
    let name = cut(&identity.comm, room);
    let about = cut(&format!(" {} ", about.join(" · ")), room - name.width().min(room));
    let used = 2 + 1 + name.width() + about.width() + more.width();
    let rule = "─".repeat(usize::from(area.width).saturating_sub(used));
    let line = Line::from(vec![
        Span::styled("── ", theme.secondary),
        Span::styled(name, theme.accent),
        Span::raw(about),
        Span::styled(rule, theme.secondary),
        Span::styled(more, theme.secondary),
    ]);
    buffer.set_line(area.x, area.y, &line, area.width);
}

/// A column a second, as high as the loop was busy, in the colours of its states, the newest at the right.
fn chart(app: &App, moments: &[Moment], area: Rect) -> Vec<Line<'static>> {
    let theme = &app.theme;
    let (width, height) = (usize::from(area.width), usize::from(area.height));
    let (rows, columns) = (height.saturating_sub(AXIS), width.saturating_sub(SCALE));
    let mut canvas = Canvas::new(width, height);
    for (row, label) in [(0, "100%"), (rows / 2, " 50%"), (rows, "  0%")] {
        if row != rows / 2 || rows >= 6 {
            canvas.put(0, row, label, theme.secondary);
        }
    }
    for row in 0..rows {
        canvas.put(SCALE - 1, row, if row == 0 { "┤" } else { "│" }, theme.secondary);
    }
    canvas.put(SCALE - 1, rows, "└", theme.secondary);
    canvas.put(SCALE, rows, &"─".repeat(columns), theme.secondary);
    let now = width - 1;
    for ago in (TICK..columns).step_by(TICK) {
        canvas.put(now - ago, rows, "┴", theme.secondary);
        canvas.put((now - ago).saturating_sub(1), rows + 1, &format!("−{ago}s"), theme.secondary);
    }
    canvas.put(width - "now".len(), rows + 1, "now", theme.secondary);
    for (moment, x) in moments.iter().rev().zip((SCALE..width).rev()) {
        for row in 0..rows {
            if let Some((text, style)) = cell(app, *moment, rows - 1 - row, rows) {
                canvas.put(x, row, text, style);
            }
        }
        if moment.stalled {
            canvas.put(x, rows, "!", theme.bad);
        }
    }
    canvas.lines()
}

/// The cell so high above the foot, of so many; none above what was done. That it was idle is a line at the foot.
fn cell(app: &App, moment: Moment, at: usize, of: usize) -> Option<(&'static str, Style)> {
    let band = 1.0 / of as f64;
    let (low, high) = (at as f64 * band, (at + 1) as f64 * band);
    let mut foot = 0.0;
    let parts = STACK.map(|state| {
        let head = foot + moment.share(state);
        let inside = (head.min(high) - f64::max(foot, low)).max(0.0) / band;
        foot = head;
        (state, inside)
    });
    let filled: f64 = parts.iter().map(|(_, part)| part).sum();
    if at == 0 && filled <= 0.0 {
        let idle = [State::Waiting, State::Parked].map(|state| (state, moment.share(state)));
        let (most, _) = idle.into_iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
        return Some((step(0.0), app.theme.state(most)));
    }
    // Less than a sixteenth of a cell above others is but a rounding.
    if at > 0 && filled < 1.0 / 16.0 {
        return None;
    }
    let (most, _) = parts.into_iter().max_by(|a, b| a.1.total_cmp(&b.1))?;
    Some(symbol(&app.theme, most, filled, app.theme.state(most)))
}

/// The share of each state, the distributions and what is wrong, in so many rows at most.
fn numbers(app: &App, preview: &Preview, width: usize, room: usize) -> Vec<Line<'static>> {
    let mut lines = detail::shares(app, &preview.stats, width);
    if room <= lines.len() {
        // The chart is made of bars already.
        lines.remove(0);
    }
    let findings = preview.findings.iter();
    let mut wrong: Vec<Line<'static>> =
        findings.flat_map(|finding| detail::finding(app, finding, width, FUNCTIONS)).collect();
    if wrong.is_empty() {
        wrong.push(Line::styled("no findings", app.theme.secondary));
    }
    let mut table = quantiles(app, preview);
    // What is wrong is told before what can be read in the table of loops.
    let left = room.saturating_sub(lines.len());
    table.truncate(left.saturating_sub(wrong.len().min(LEAST_WRONG)));
    if table.len() == 1 {
        table.clear();
    }
    let left = left - table.len();
    let is_airy = left >= wrong.len() + 2;
    wrong.truncate(left);
    for part in [table, wrong].into_iter().filter(|part| !part.is_empty()) {
        lines.extend(is_airy.then(Line::default));
        lines.extend(part);
    }
    lines.truncate(room);
    lines
}

/// The distributions' quantiles, below their names.
fn quantiles(app: &App, preview: &Preview) -> Vec<Line<'static>> {
    let theme = &app.theme;
    let stats = &preview.stats;
    let when = if preview.row.ended { "since it began" } else { "lately" };
    let heading = format!("{when:<16}{:>8}{:>8}{:>8}{:>8}", "p50", "p90", "p99", "max");
    let mut lines = vec![Line::styled(heading, theme.heading)];
    for (name, distribution) in [
        ("loop duration", &stats.loop_duration),
        ("wakeup latency", &stats.wakeup_latency),
        ("run-queue delay", &stats.run_queue_delay),
        ("ready delay", &stats.ready_delay),
    ] {
        if distribution.count() == 0 {
            continue;
        }
        let mut line = Line::from(format!("{name:<16}"));
        let quantile = |share| distribution.quantile(share);
        for ns in [quantile(0.5), quantile(0.9), quantile(0.99), distribution.max()] {
            let style = match name {
                "loop duration" => theme.loop_duration(ns, app.model.stall_threshold),
                _ => Style::new(),
            };
            line.push_span(Span::styled(format!("{:>8}", duration(ns)), style));
        }
        lines.push(line);
    }
    lines
}
