//! Processes side by side: a column each, a row for each measure, and in each row the best value marked.

use ioscope_common::State;
use ratatui::text::{Line, Span};

use super::text::cut;
use crate::{
    model::{Distribution, Stats},
    output::numbers::{count, duration, percent, rate},
    tui::{shown::Compared, state::App},
};

/// The names of the measures.
const NAMES: usize = 24;
/// A process.
const COLUMN: usize = 18;

/// What a good value is.
#[derive(Clone, Copy, PartialEq)]
enum Better {
    Lower,
    Higher,
    /// Neither: it says how much is asked of a loop, not how well it does.
    Neither,
}

/// A measure of a process.
struct Measure {
    name: &'static str,
    better: Better,
    /// None where it was not seen.
    value: fn(&Compared) -> Option<f64>,
    text: fn(f64) -> String,
}

fn quantile(distribution: &Distribution, share: f64) -> Option<f64> {
    (distribution.count() > 0).then(|| distribution.quantile(share) as f64)
}

fn per_event(stats: &Stats) -> Option<f64> {
    let events = stats.counters.ready_events;
    (events > 0).then(|| stats.iterations() as f64 / events as f64)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "nanoseconds and counts")]
fn time(ns: f64) -> String {
    duration(ns as u64)
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
fn number(value: f64) -> String {
    count(value as u64)
}

const fn measure(
    name: &'static str,
    better: Better,
    value: fn(&Compared) -> Option<f64>,
    text: fn(f64) -> String,
) -> Measure {
    Measure { name, better, value, text }
}

use Better::{Higher, Lower, Neither};

const MEASURES: &[Measure] = &[
    measure("loops", Neither, |c| Some(c.loops as f64), number),
    measure("utilisation, mean", Lower, |c| Some(c.stats.utilisation()), percent),
    measure("utilisation, busiest", Lower, |c| Some(c.busiest), percent),
    measure("iterations/s", Neither, |c| Some(c.iterations_per_s), rate),
    measure("events/s", Neither, |c| Some(c.events_per_s), rate),
    measure(
        "events per wakeup",
        Higher,
        |c| (c.stats.ready_per_wakeup.count() > 0).then(|| c.stats.ready_per_wakeup.mean()),
        rate,
    ),
    measure("wait calls per event", Lower, |c| per_event(&c.stats), rate),
    measure("loop duration p50", Lower, |c| quantile(&c.stats.loop_duration, 0.5), time),
    measure("loop duration p99", Lower, |c| quantile(&c.stats.loop_duration, 0.99), time),
    measure(
        "loop duration max",
        Lower,
        |c| quantile(&c.stats.loop_duration, 1.0).map(|_| c.stats.loop_duration.max() as f64),
        time,
    ),
    measure("wakeup latency p50", Lower, |c| quantile(&c.stats.wakeup_latency, 0.5), time),
    measure("wakeup latency p99", Lower, |c| quantile(&c.stats.wakeup_latency, 0.99), time),
    measure("run-queue delay p99", Lower, |c| quantile(&c.stats.run_queue_delay, 0.99), time),
    measure("ready delay p50", Lower, |c| quantile(&c.stats.ready_delay, 0.5), time),
    measure("ready delay p99", Lower, |c| quantile(&c.stats.ready_delay, 0.99), time),
    measure(
        "BLOCKED",
        Lower,
        |c| {
            let elapsed = c.stats.elapsed_ns().max(1) as f64;
            Some(c.stats.time_in(State::Blocked) as f64 / elapsed)
        },
        percent,
    ),
    measure("stalls", Lower, |c| Some(c.stats.counters.stalls as f64), number),
    // Without a stall there is none.
    measure(
        "longest stall",
        Lower,
        |c| Some(c.stats.counters.longest_stall_ns).filter(|ns| *ns > 0).map(|ns| ns as f64),
        time,
    ),
];

/// All lines, for a screen of this width.
pub(super) fn lines(app: &App, width: u16) -> Vec<Line<'static>> {
    let theme = &app.theme;
    let compared = &app.shown.compared;
    let room = (usize::from(width).saturating_sub(NAMES + 1) / COLUMN).max(1);
    let columns = &compared[..compared.len().min(room)];
    let mut lines = Vec::new();
    let about = match (app.marked.len(), compared.len()) {
        (_, 0) => " no loop was seen yet".to_owned(),
        (0, 1) => " one process is traced: with several, mark (m in Loops) those to compare".to_owned(),
        (0, _) => " none is marked (m in Loops): the busiest processes, since tracing began".to_owned(),
        _ => " since tracing began; ★ is the best of its row, ×2.00 twice as far".to_owned(),
    };
    lines.push(Line::styled(cut(&about, usize::from(width)), theme.secondary));
    if columns.is_empty() {
        return lines;
    }
    let cell = |text: &str, width: usize| {
        let text = cut(text, width);
        let blank = width - unicode_width::UnicodeWidthStr::width(text.as_str());
        format!("{}{text}", " ".repeat(blank))
    };
    let mut names = Line::from(" ".repeat(NAMES + 1));
    let mut pids = Line::from(" ".repeat(NAMES + 1));
    for compared in columns {
        names.push_span(Span::styled(cell(&compared.name, COLUMN - 1), theme.heading));
        names.push_span(Span::raw(" "));
        let ended = if compared.ended { "ended " } else { "" };
        pids.push_span(Span::styled(cell(&format!("{ended}{}", compared.pid), COLUMN - 1), theme.secondary));
        pids.push_span(Span::raw(" "));
    }
    lines.extend([names, pids]);
    for measure in MEASURES {
        let values: Vec<Option<f64>> = columns.iter().map(measure.value).collect();
        let known = values.iter().flatten().copied();
        let best = match measure.better {
            Better::Neither => None,
            Better::Lower => known.reduce(f64::min),
            Better::Higher => known.reduce(f64::max),
        };
        // Where all are alike there is none.
        let best = best
            .filter(|best| columns.len() > 1 && values.iter().flatten().any(|value| !same(*value, *best)));
        let mut line = Line::from(format!(" {:<NAMES$}", measure.name));
        for value in values {
            let Some(value) = value else {
                line.push_span(Span::styled(cell("-", COLUMN - 1), theme.secondary));
                line.push_span(Span::raw(" "));
                continue;
            };
            let text = (measure.text)(value);
            match best {
                Some(best) if same(value, best) => {
                    line.push_span(Span::styled(cell(&format!("★ {text}"), COLUMN - 1), theme.good));
                }
                Some(best) => {
                    let ratio = if measure.better == Better::Lower { value / best } else { best / value };
                    let ratio = if ratio.is_finite() { format!("×{} ", rate(ratio)) } else { String::new() };
                    let blank = (COLUMN - 1).saturating_sub(text.chars().count());
                    line.push_span(Span::styled(cell(&ratio, blank), theme.secondary));
                    line.push_span(Span::styled(text, theme.strong));
                }
                None => line.push_span(Span::styled(cell(&text, COLUMN - 1), theme.strong)),
            }
            line.push_span(Span::raw(" "));
        }
        lines.push(line);
    }
    if compared.len() > columns.len() {
        let more = compared.len() - columns.len();
        lines.push(Line::styled(format!(" {more} more have no room"), theme.secondary));
    }
    lines
}

/// Alike to the eye.
fn same(a: f64, b: f64) -> bool {
    (a - b).abs() <= 0.005 * a.abs().max(b.abs())
}
