//! What stands in a cell of the table of loops.

use ratatui::text::{Line, Span};

use super::{
    columns::Look,
    rows::{Key, Row},
    theme::letter,
};
use crate::output::{
    json::syscall_name,
    numbers::{count, duration, percent, rate},
    text::severity_mark,
};

/// `100.0%`.
pub(super) const PERCENT: u16 = 6;
/// `W 12.3ms`.
pub(super) const STATE_LETTER: u16 = 8;
/// `B! STALL 300ms`, `RUNNING 12.3ms`.
pub(super) const STATE_NAME: u16 = 15;

/// The eighths of a cell, from left to right.
const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
/// The eighths of a cell, from its foot to its head.
const STEPS: [&str; 9] = [" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"];

fn nothing(look: Look<'_>) -> Line<'static> {
    Line::styled("-", look.app.theme.secondary)
}

pub(super) fn or_nothing(text: Option<String>, look: Look<'_>) -> Line<'static> {
    text.map_or_else(|| nothing(look), Line::from)
}

pub(super) fn tid(row: &Row, look: Look<'_>) -> Line<'static> {
    match row.key {
        Key::Loop(_) => Line::from(row.identity.tid.to_string()),
        Key::Process(pid) => {
            let fold = if look.app.loops.folded.contains(&pid) { "▸" } else { "▾" };
            Line::styled(format!("{fold} {pid}"), look.app.theme.strong)
        }
    }
}

pub(super) fn name(row: &Row, look: Look<'_>) -> Line<'static> {
    let name = row.identity.comm.clone();
    if row.is_process() { Line::styled(name, look.app.theme.strong) } else { Line::from(name) }
}

/// A duration on a present state: below a millisecond it is over before anybody has read it.
pub(super) fn lasting(ns: u64) -> String {
    if ns < 1_000_000 { "<1ms".to_owned() } else { duration(ns) }
}

pub(super) fn state_key(row: &Row) -> (bool, Option<u64>, u8, u64) {
    (!row.ended, row.ongoing_stall, row.present.state as u8, row.present.for_ns)
}

pub(super) fn state(row: &Row, look: Look<'_>) -> Line<'static> {
    let theme = &look.app.theme;
    if row.ended {
        return Line::styled("ended", theme.secondary);
    }
    let state = row.present.state;
    let letter = letter(state);
    let named = look.width >= STATE_NAME;
    if let Some(ns) = row.ongoing_stall {
        let word = if named { "! STALL " } else { "!" };
        let room = usize::from(look.width).saturating_sub(1 + word.len());
        return Line::styled(format!("{letter}{word}{:>room$}", duration(ns)), theme.alarm);
    }
    if row.is_process() {
        let loops = count(row.loops as u64);
        let text = if row.loops == 1 { "1 loop".to_owned() } else { format!("{loops} loops") };
        let text = if text.len() > usize::from(look.width) { loops } else { text };
        return Line::styled(text, theme.secondary);
    }
    let word = if named { state.name().to_owned() } else { letter.to_string() };
    let room = usize::from(look.width).saturating_sub(word.len());
    Line::from(vec![
        Span::styled(word, theme.state(state)),
        Span::raw(format!("{:>room$}", lasting(row.present.for_ns))),
    ])
}

pub(super) fn sleeps_in(row: &Row) -> String {
    match row.present.syscall {
        Some(number) if !row.ended && (!row.is_process() || row.ongoing_stall.is_some()) => {
            syscall_name(number)
        }
        _ => String::new(),
    }
}

pub(super) fn utilisation(row: &Row, look: Look<'_>) -> Line<'static> {
    let theme = &look.app.theme;
    let number = percent(row.utilisation);
    let style = theme.utilisation(row.utilisation);
    if look.width <= PERCENT {
        return Line::styled(number, style);
    }
    let (filled, rest) = bar(row.utilisation, look.width - PERCENT - 1);
    Line::from(vec![
        Span::styled(filled, style),
        Span::styled(rest, theme.secondary),
        Span::styled(format!(" {number:>6}"), style),
    ])
}

/// The load of the last seconds, the newest at the right.
pub(super) fn load(row: &Row, look: Look<'_>) -> Line<'static> {
    let app = look.app;
    let width = usize::from(look.width);
    let samples = match row.key {
        Key::Loop(id) => app.history.busy(id, width),
        Key::Process(pid) => {
            let loops = app.shown.rows.iter().filter(|row| row.identity.pid == pid);
            app.history.busiest(loops.filter_map(Row::loop_id), width)
        }
    };
    let mut line = Line::from(Span::styled("·".repeat(width - samples.len()), app.theme.secondary));
    for share in samples {
        line.push_span(Span::styled(step(share), app.theme.utilisation(share)));
    }
    line
}

/// A share as a part of a cell's height: nothing at all is a line at its foot.
pub(super) fn step(share: f64) -> &'static str {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a few eighths")]
    let eighths = (share.clamp(0.0, 1.0) * 8.0).ceil() as usize;
    STEPS[eighths.max(1)]
}

/// Eighths of a cell, from its foot.
pub(super) fn eighths_high(eighths: usize) -> &'static str {
    STEPS[eighths.min(8)]
}

/// A bar of so many cells, to an eighth of a cell, and what is left of it.
pub(super) fn bar(share: f64, cells: u16) -> (String, String) {
    let cells = usize::from(cells);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to a few cells")]
    let eighths = (share.clamp(0.0, 1.0) * cells as f64 * 8.0).round() as usize;
    let (whole, part) = (eighths / 8, EIGHTHS[eighths % 8]);
    let filled = format!("{}{part}", "█".repeat(whole));
    let rest = cells - whole - usize::from(!part.is_empty());
    (filled, "·".repeat(rest))
}

pub(super) fn loop_duration(ns: Option<u64>, look: Look<'_>) -> Line<'static> {
    ns.map_or_else(
        || nothing(look),
        |ns| Line::styled(duration(ns), look.app.theme.loop_duration(ns, look.app.model.stall_threshold)),
    )
}

pub(super) fn latency(ns: Option<u64>, look: Look<'_>) -> Line<'static> {
    or_nothing(ns.map(duration), look)
}

pub(super) fn stalls(row: &Row, look: Look<'_>) -> Line<'static> {
    let theme = &look.app.theme;
    let text = count(row.stalls);
    let text = if text.len() > usize::from(look.width) { rate(row.stalls as f64) } else { text };
    if row.recent_stalls > 0 {
        Line::styled(text, theme.bad)
    } else if row.stalls > 0 {
        Line::styled(text, theme.warning)
    } else {
        Line::styled(text, theme.secondary)
    }
}

/// How many things are wrong, behind the mark of the worst.
pub(super) fn findings(row: &Row, look: Look<'_>) -> Line<'static> {
    let Some((severity, number)) = row.findings else { return nothing(look) };
    Line::styled(format!("{}{number:>2}", severity_mark(severity)), look.app.theme.severity(severity))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_fill_to_an_eighth_of_a_cell() {
        assert_eq!(bar(0.0, 4), (String::new(), "····".to_owned()));
        assert_eq!(bar(0.5, 4), ("██".to_owned(), "··".to_owned()));
        assert_eq!(bar(0.53, 4), ("██▏".to_owned(), "·".to_owned()));
        assert_eq!(bar(1.0, 4), ("████".to_owned(), String::new()));
        assert_eq!(bar(7.0, 4), ("████".to_owned(), String::new()));
    }

    #[test]
    fn a_share_fills_a_cell_from_its_foot() {
        assert_eq!([0.0, 0.1, 0.5, 0.99, 1.0, 7.0].map(step), ["▁", "▁", "▄", "█", "█", "█"]);
    }
}
