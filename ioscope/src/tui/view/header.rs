//! The top of the screen: what is traced, all loops together, and what is wrong now.

use ioscope_common::Drops;
use ratatui::{
    buffer::Buffer,
    layout::Rect,
    text::{Line, Span},
};

use unicode_width::UnicodeWidthStr as _;

use super::{Layout, cells, spread, text::cut};
use crate::{
    output::{
        json::syscall_name,
        numbers::{count, duration, percent, rate},
        text::{drop_lines, severity_mark},
    },
    tui::state::{App, Screen},
};

/// A title needs so many cells.
const LEAST_TITLE: u16 = 32;

/// Draws the header, the names of the screens and the notice.
pub(super) fn draw(app: &App, layout: &Layout, buffer: &mut Buffer) {
    let header = layout.header;
    match header.height {
        0 => {}
        1 => {
            // One row for both: the title goes if it must, a badge does not.
            let (title, badges) = (title(app, header.width), badges(app));
            let line = if cells(&badges) > 0 { badges } else { title };
            spread(buffer, header, &line, &[totals(app, true)]);
        }
        _ => {
            let first = Rect { height: 1, ..header };
            let facts = facts(app);
            // How it is traced has room before all of a long title.
            let beside = |facts: &Line<'_>| first.width.saturating_sub(cells(facts) + 2);
            let rooms = facts.each_ref().map(beside);
            let room = *rooms.iter().find(|room| **room >= LEAST_TITLE).unwrap_or(&rooms[1]);
            let title = title(app, room);
            buffer.set_line(first.x, first.y, &title, room);
            spread(buffer, first, &Line::raw(" ".repeat(usize::from(cells(&title).min(room)))), &facts);
            buffer.set_line(first.x, first.y, &title, room);
            let badges = badges(app);
            let second = Rect { y: header.y + 1, ..first };
            let room = second.width.saturating_sub(cells(&badges));
            let long = totals(app, false);
            let line = if cells(&long) <= room { long } else { totals(app, true) };
            buffer.set_line(second.x, second.y, &line, room);
            let x = second.x + second.width.saturating_sub(cells(&badges));
            buffer.set_line(x, second.y, &badges, second.width);
        }
    }
    if layout.tabs.height > 0 {
        tabs(app, layout.tabs, buffer);
    }
}

/// The screens, and behind them what is wrong now.
fn tabs(app: &App, area: Rect, buffer: &mut Buffer) {
    let theme = &app.theme;
    let mut end = area.x;
    for (screen, range) in super::tabs(app) {
        let number = Screen::ALL.iter().position(|other| *other == screen).unwrap_or(0) + 1;
        let shown = app.screen == screen;
        let style = if shown { theme.tab } else { theme.accent };
        let name = if range.len() > 3 { screen.name() } else { "" };
        let text = format!(" {number} ");
        buffer.set_stringn(
            range.start,
            area.y,
            &text,
            usize::from(area.width.saturating_sub(range.start)),
            style,
        );
        if !name.is_empty() {
            let x = range.start + 3;
            let style = if shown { style } else { ratatui::style::Style::new() };
            let room = usize::from(area.width.saturating_sub(x));
            buffer.set_stringn(x, area.y, format!("{name} "), room, style);
        }
        end = range.end;
    }
    let x = end + 1;
    let room = area.width.saturating_sub(x);
    if room > 8 {
        buffer.set_line(x, area.y, &notice(app, usize::from(room)), room);
    }
}

fn title(app: &App, room: u16) -> Line<'static> {
    const NAME: &str = " ioscope ";
    let target = cut(&app.tracing.title, usize::from(room).saturating_sub(NAME.len()));
    Line::from(vec![Span::styled(NAME, app.theme.accent), Span::styled(target, app.theme.strong)])
}

/// How it is traced, and since when; and the latter only.
fn facts(app: &App) -> [Line<'static>; 2] {
    let missing = match app.tracing.missing.len() {
        0 => Span::raw(""),
        1 => Span::styled(", 1 hook missing", app.theme.warning),
        more => Span::styled(format!(", {more} hooks missing"), app.theme.warning),
    };
    let elapsed = clock(app.shown.elapsed_ns);
    let attach = Span::styled(app.tracing.attach.clone(), app.theme.secondary);
    [Line::from(vec![attach, missing, Span::raw(format!("  {elapsed} "))]), Line::from(format!("{elapsed} "))]
}

fn badges(app: &App) -> Line<'static> {
    let mut line = Line::default();
    if app.paused {
        line.push_span(Span::styled(" PAUSED ", app.theme.badge));
    }
    if app.targets_ended {
        line.push_span(Span::styled(" TARGET ENDED ", app.theme.badge));
    }
    line
}

/// All loops together, and what tracing them costs.
fn totals(app: &App, short: bool) -> Line<'static> {
    let shown = &app.shown;
    let dropped = total(&shown.drops);
    let dropped_style = if dropped > 0 { app.theme.bad } else { app.theme.strong };
    let probes = shown.cost.and_then(|cost| cost.probes).filter(|_| app.tracing.bpf_time);
    let words = if short {
        ["loops", "iter/s", "ev/s", "drops", "own", "BPF"]
    } else {
        ["loops", "iterations/s", "events/s", "dropped", "own CPU", "BPF"]
    };
    let loops = if shown.loops == 1 { "loop" } else { words[0] };
    let strong = app.theme.strong;
    let numbers = [
        Some((count(shown.loops as u64), strong, loops)),
        Some((rate(shown.iterations_per_s), strong, words[1])),
        Some((rate(shown.events_per_s), strong, words[2])),
        Some((count(dropped), dropped_style, words[3])),
        shown.cost.map(|cost| (percent(cost.collector), strong, words[4])),
        probes.map(|probes| (percent(probes), strong, words[5])),
    ];
    let gap = if short { " " } else { "  " };
    let mut line = Line::default();
    for (number, style, word) in numbers.into_iter().flatten() {
        line.push_span(Span::raw(if line.spans.is_empty() { " " } else { gap }));
        line.push_span(Span::styled(number, style));
        line.push_span(Span::raw(format!(" {word}")));
    }
    line
}

fn total(drops: &Drops) -> u64 {
    let Drops {
        ring_full,
        loops_full,
        targets_full,
        out_of_directory,
        compat_calls,
        skipped_runs,
        captures_full,
        sleepers_full,
    } = drops;
    let no_room = ring_full + loops_full + sleepers_full + targets_full + out_of_directory + captures_full;
    no_room + compat_calls + skipped_runs
}

/// What is wrong now, the worst first: a stall that goes on, what was dropped, what was found to be wrong since tracing
/// began, what cannot be seen. Of its forms the longest that has room.
fn notice(app: &App, room: usize) -> Line<'static> {
    if let Some(row) = app.worst_stall() {
        let others = app.stalled().count() - 1;
        let name = &row.identity.comm;
        let lasts = duration(row.ongoing_stall.unwrap_or(0));
        let syscall = row.present.syscall.map(syscall_name);
        let state = row.present.state.name();
        let doing = syscall.map_or_else(|| state.to_owned(), |syscall| format!("{state} in {syscall}"));
        let more = if others > 0 { format!("; {others} more") } else { String::new() };
        let forms = [
            format!(" {name} ({}) for {lasts}, {doing}{more}", row.identity.tid),
            format!(" {name} {lasts}, {doing}{more}"),
            format!(" {name} {lasts} {state}{more}"),
            format!(" {name} {lasts}{more}"),
            // A part of the name is better than none.
            format!(" {} {lasts}{more}", cut(name, room.saturating_sub(11 + lasts.width() + more.width()))),
            format!(" {lasts}{more}"),
        ];
        let room = room.saturating_sub(9);
        let form = forms.iter().find(|form| form.width() <= room).or(forms.last());
        return Line::from(vec![
            Span::styled(" STALLED ", app.theme.alarm),
            Span::styled(form.cloned().unwrap_or_default(), app.theme.bad),
        ]);
    }
    // A stack that was not captured makes no number wrong: what is wrong with a loop is worse.
    let drops = &app.shown.drops;
    let is_short = total(drops) > drops.captures_full || app.shown.findings.is_empty();
    if let Some(line) = drop_lines(drops).next().filter(|_| is_short) {
        return Line::styled(cut(&line, room), app.theme.bad);
    }
    if let Some(finding) = app.shown.findings.first() {
        let name = finding.loops.first().map_or("", |identity| identity.comm.as_str());
        let more = match app.shown.findings.len() - 1 {
            0 => String::new(),
            others => format!(" (and {others} more)"),
        };
        let mark = severity_mark(finding.severity);
        let forms = [
            format!("{mark} {name} {}: {}{more}", finding.tag, finding.summary),
            format!("{mark} {name} {}: {}", finding.tag, finding.summary),
            format!("{mark} {name}: {}{more}", finding.tag),
            format!("{mark} {name}: {}", finding.tag),
        ];
        let form = forms.iter().find(|form| form.width() <= room).or(forms.last());
        let text = cut(form.map_or("", String::as_str), room);
        return Line::styled(text, app.theme.severity(finding.severity));
    }
    let missing: Vec<String> =
        app.tracing.missing.iter().map(|hook| format!("without {}: no {}", hook.name, hook.lost)).collect();
    Line::styled(cut(&missing.join("; "), room), app.theme.warning)
}

/// `0:07`, `12:34`, `1:02:03`.
fn clock(ns: u64) -> String {
    let seconds = ns / 1_000_000_000;
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elapsed_time_reads_as_a_clock() {
        for (seconds, text) in [(0, "0:00"), (67, "1:07"), (3723, "1:02:03"), (90_000, "25:00:00")] {
            assert_eq!(clock(seconds * 1_000_000_000), text);
        }
    }
}
