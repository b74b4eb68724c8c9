//! The top of the screen: what is traced, all loops together, and what is wrong now.

use ioscope_common::Drops;
use ratatui::{
    buffer::Buffer,
    layout::Rect,
    text::{Line, Span},
};

use super::{Layout, cells, spread};
use crate::{
    output::{
        json::syscall_name,
        numbers::{count, duration, percent, rate},
        text::drop_lines,
    },
    tui::state::App,
};

/// Draws the header and the notice.
pub(super) fn draw(app: &App, layout: &Layout, buffer: &mut Buffer) {
    let header = layout.header;
    match header.height {
        0 => {}
        1 => {
            // One row for both: the title goes if it must, a badge does not.
            let (title, badges) = (title(app), badges(app));
            let line = if cells(&badges) > 0 { badges } else { title };
            spread(buffer, header, &line, &[totals(app, true)]);
        }
        _ => {
            let first = Rect { height: 1, ..header };
            spread(buffer, first, &title(app), &facts(app));
            let badges = badges(app);
            let second = Rect { y: header.y + 1, ..first };
            let room = second.width.saturating_sub(cells(&badges) + 1);
            let long = totals(app, false);
            let line = if cells(&long) <= room { long } else { totals(app, true) };
            buffer.set_line(second.x, second.y, &line, room);
            let x = second.x + second.width.saturating_sub(cells(&badges));
            buffer.set_line(x, second.y, &badges, second.width);
        }
    }
    if layout.notice.height > 0 {
        let notice = notice(app);
        buffer.set_line(layout.notice.x, layout.notice.y, &notice, layout.notice.width);
    }
}

fn title(app: &App) -> Line<'static> {
    Line::from(vec![
        Span::styled(" ioscope ", app.theme.accent),
        Span::styled(app.tracing.title.clone(), app.theme.strong),
    ])
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
    let cost = shown.cost.map(|cost| match cost.probes {
        Some(probes) => format!("{}+{}", percent(cost.collector), percent(probes)),
        None => percent(cost.collector),
    });
    let words = if short {
        ["loops", "iter/s", "ev/s", "drops", "own"]
    } else {
        ["loops", "iterations/s", "events/s", "dropped", "own CPU"]
    };
    let words = if shown.loops == 1 { ["loop", words[1], words[2], words[3], words[4]] } else { words };
    let strong = app.theme.strong;
    let numbers = [
        Some((count(shown.loops as u64), strong)),
        Some((rate(shown.iterations_per_s), strong)),
        Some((rate(shown.events_per_s), strong)),
        Some((count(dropped), dropped_style)),
        cost.map(|cost| (cost, strong)),
    ];
    let gap = if short { " " } else { "   " };
    let mut line = Line::default();
    for (number, word) in numbers.into_iter().zip(words) {
        let Some((number, style)) = number else { continue };
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
    } = drops;
    ring_full + loops_full + targets_full + out_of_directory + compat_calls + skipped_runs + captures_full
}

/// What is wrong now, the worst first: a stall that goes on, what was dropped, what cannot be seen.
fn notice(app: &App) -> Line<'static> {
    if let Some(row) = app.worst_stall() {
        let others = app.shown.rows.iter().filter(|row| row.ongoing_stall.is_some()).count() - 1;
        let mut text = format!(
            " {} ({}) for {}, {}",
            row.identity.comm,
            row.identity.tid,
            duration(row.ongoing_stall.unwrap_or(0)),
            row.present.state.name()
        );
        if let Some(syscall) = row.present.syscall {
            text.push_str(" in ");
            text.push_str(&syscall_name(syscall));
        }
        if others > 0 {
            text = format!("{text}; {others} more");
        }
        return Line::from(vec![
            Span::raw(" "),
            Span::styled(" STALLED ", app.theme.alarm),
            Span::styled(text, app.theme.bad),
        ]);
    }
    if let Some(line) = drop_lines(&app.shown.drops).next() {
        return Line::styled(format!(" {line}"), app.theme.bad);
    }
    let missing: Vec<String> =
        app.tracing.missing.iter().map(|hook| format!("without {}: no {}", hook.name, hook.lost)).collect();
    if missing.is_empty() {
        Line::default()
    } else {
        Line::styled(format!(" {}", missing.join("; ")), app.theme.warning)
    }
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
