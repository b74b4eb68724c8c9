//! One loop in full. It is made as lines, in one column or two, of which the screen shows as many as it has
//! room for.

use ioscope_common::{Iteration, NO_WAKEUP, State, WaitCall};
use ratatui::text::{Line, Span};

use super::{
    cells, diagram,
    histogram::{self, Picture},
    text::{joined, numbers_line, wrapped},
};
use crate::{
    model::{
        Distribution, Stats,
        findings::{Finding, Severity},
    },
    output::{
        json::syscall_name,
        numbers::{count, duration, percent, rate},
        text::severity_mark,
    },
    tui::{
        cells::{bar, lasting},
        shown::Inspected,
        state::App,
        theme::letter,
    },
};

/// From this width on there are two columns.
const TWO_COLUMNS: u16 = 110;
/// The left one, and a gap.
const LEFT: u16 = 72;
const GAP: u16 = 3;
/// How many of the last iterations are shown.
const RECENT: usize = 12;

/// All lines, for a screen of this width.
pub(super) fn lines(app: &App, width: u16) -> Vec<Line<'static>> {
    let Some(inspected) = &app.shown.inspected else {
        return vec![Line::styled(" no loop is selected: choose one in Loops (1)", app.theme.secondary)];
    };
    let mut all = title(app, inspected);
    all.extend(findings(app, inspected, width, |severity| severity > Severity::Info));
    if width >= TWO_COLUMNS {
        let right_width = usize::from(width - LEFT - GAP - 2);
        let mut left = shares(app, &inspected.recent, usize::from(LEFT));
        left.extend(diagram::lines(&inspected.recent, now(inspected), &app.theme));
        left.extend(recent(app, inspected, usize::from(LEFT)));
        let mut right = distributions(app, &inspected.total, right_width);
        right.extend(lists(app, &inspected.total));
        for at in 0..left.len().max(right.len()) {
            let mut line = Line::from(" ");
            let left = left.get(at).cloned().unwrap_or_default();
            let blank = usize::from((LEFT + GAP).saturating_sub(cells(&left)));
            line.extend(left);
            line.push_span(Span::raw(" ".repeat(blank)));
            line.extend(right.get(at).cloned().unwrap_or_default());
            all.push(line);
        }
        all.extend(notes(app, inspected, width));
    } else {
        let inner = usize::from(width.saturating_sub(2));
        let mut rest = shares(app, &inspected.recent, inner);
        if inner >= diagram::WIDTH {
            rest.extend(diagram::lines(&inspected.recent, now(inspected), &app.theme));
        }
        rest.push(Line::default());
        rest.extend(distributions(app, &inspected.total, inner));
        rest.extend(lists(app, &inspected.total));
        rest.extend(recent(app, inspected, inner));
        all.extend(rest.into_iter().map(|line| {
            let mut indented = Line::from(" ");
            indented.extend(line);
            indented
        }));
        all.extend(notes(app, inspected, width));
    }
    all
}

/// What may be as it should be, at the end.
fn notes(app: &App, inspected: &Inspected, width: u16) -> Vec<Line<'static>> {
    let mut lines = findings(app, inspected, width, |severity| severity == Severity::Info);
    if !lines.is_empty() {
        lines.insert(0, heading(app, " Worth knowing"));
    }
    lines
}

/// Those of the severities that are wanted, the worst first.
fn findings(
    app: &App,
    inspected: &Inspected,
    width: u16,
    wanted: impl Fn(Severity) -> bool,
) -> Vec<Line<'static>> {
    let findings = inspected.findings.iter().filter(|finding| wanted(finding.severity));
    findings.flat_map(|one| finding(app, one, usize::from(width), usize::MAX)).collect()
}

fn now(inspected: &Inspected) -> Option<State> {
    (!inspected.ended).then_some(inspected.present.state)
}

/// Who it is, and what it does now.
fn title(app: &App, inspected: &Inspected) -> Vec<Line<'static>> {
    let identity = &inspected.identity;
    let theme = &app.theme;
    let mut who = Line::from(vec![
        Span::raw(" "),
        Span::styled(identity.comm.clone(), theme.accent),
        Span::raw(format!("  thread {} of {} ({})", identity.tid, identity.process, identity.pid)),
    ]);
    if let Some(runtime) = identity.runtime {
        who.push_span(Span::raw(format!("  {runtime}")));
    }
    let mut does = Line::from(" ");
    if inspected.ended {
        does.push_span(Span::styled("it has ended", theme.secondary));
        return vec![who, does];
    }
    let state = inspected.present.state;
    does.push_span(Span::styled(format!("{} {}", letter(state), state.name()), theme.state(state)));
    does.push_span(Span::raw(format!(" for {}", lasting(inspected.present.for_ns))));
    if let Some(syscall) = inspected.present.syscall {
        does.push_span(Span::raw(format!(" in {}", syscall_name(syscall))));
    }
    if let Some(ns) = inspected.ongoing_stall {
        does.push_span(Span::raw("  "));
        does.push_span(Span::styled(format!(" STALLED for {} ", duration(ns)), theme.alarm));
    }
    let recent = &inspected.recent;
    let stalls = inspected.total.counters.stalls;
    let numbers = [
        (percent(recent.utilisation()), "busy"),
        (rate(recent.per_second(recent.iterations())), "iterations/s"),
        (rate(recent.per_second(recent.counters.ready_events)), "events/s"),
        (count(stalls), if stalls == 1 { "stall" } else { "stalls" }),
    ];
    does.extend(numbers_line(&numbers, theme));
    vec![who, does]
}

/// What is wrong with it since tracing began and what to do about it, with so many functions of where at most.
pub(super) fn finding(app: &App, finding: &Finding, width: usize, functions: usize) -> Vec<Line<'static>> {
    let style = app.theme.severity(finding.severity);
    let mut text = format!("{}: {}", finding.tag, finding.summary);
    if !finding.place.is_empty() {
        let place: Vec<&str> = finding.place.iter().take(functions).map(|function| &**function).collect();
        let more = if finding.place.len() > functions { " ← …" } else { "" };
        text = format!("{text}, in {}{more}", place.join(" ← "));
    }
    let mark = severity_mark(finding.severity);
    let summary = wrapped(&text, width.saturating_sub(4)).into_iter().enumerate();
    let mut lines: Vec<Line<'static>> = summary
        .map(|(at, text)| Line::styled(format!(" {:>2} {text}", if at == 0 { mark } else { "" }), style))
        .collect();
    let advice = wrapped(&format!("→ {}", finding.advice), width.saturating_sub(4)).into_iter();
    lines.extend(advice.map(|text| Line::styled(format!("    {text}"), app.theme.secondary)));
    lines
}

/// A bar of the time per state, and its legend.
pub(super) fn shares(app: &App, recent: &Stats, width: usize) -> Vec<Line<'static>> {
    let elapsed = recent.elapsed_ns().max(1) as f64;
    let parts: Vec<(State, f64)> =
        State::ALL.into_iter().map(|state| (state, recent.time_in(state) as f64 / elapsed)).collect();
    let mut legend = Line::default();
    for (state, share) in &parts {
        let text = format!("{} {} {}", letter(*state), state.name(), percent(*share));
        legend.push_span(Span::styled(text, app.theme.state(*state)));
        legend.push_span(Span::raw(" "));
    }
    if usize::from(cells(&legend)) > width {
        legend = Line::default();
        for (state, share) in &parts {
            let text = format!("{} {}", letter(*state), percent(*share));
            legend.push_span(Span::styled(text, app.theme.state(*state)));
            legend.push_span(Span::raw("  "));
        }
    }
    let bar = super::text::stacked(
        &parts
            .iter()
            .map(|(state, share)| (letter(*state), *share, app.theme.state(*state)))
            .collect::<Vec<_>>(),
        width,
    );
    vec![bar, legend]
}

fn heading(app: &App, text: &str) -> Line<'static> {
    Line::styled(text.to_owned(), app.theme.heading)
}

/// The distributions, since tracing began.
fn distributions(app: &App, total: &Stats, width: usize) -> Vec<Line<'static>> {
    let theme = &app.theme;
    let mut lines = Vec::new();
    let mut add = |name: &str, distribution: &Distribution, format: fn(u64) -> String, style| {
        let values = distribution.count();
        lines.push(Line::from(vec![
            Span::styled(name.to_owned(), theme.heading),
            Span::styled(format!("  {} since tracing began", count(values)), theme.secondary),
        ]));
        if values > 0 {
            let picture = Picture { distribution, format, style, width };
            lines.push(histogram::quantiles(&picture, theme));
            lines.extend(histogram::lines(&picture, theme));
        }
    };
    add("Loop duration", &total.loop_duration, duration, theme.state(State::Running));
    add("Wakeup latency", &total.wakeup_latency, duration, theme.state(State::Ready));
    let split = (total.wakeup_latency.sum() > 0).then(|| latency_split(app, total, width));
    lines.extend(split);
    if total.ready_delay.count() > 0 {
        let distribution = &total.ready_delay;
        let picture = Picture { distribution, format: duration, style: theme.state(State::Polling), width };
        lines.push(Line::from(vec![
            Span::styled("Ready delay", theme.heading),
            Span::styled(format!("  {} since tracing began", count(distribution.count())), theme.secondary),
        ]));
        lines.push(histogram::quantiles(&picture, theme));
        lines.extend(histogram::lines(&picture, theme));
    }
    lines
}

/// Which part of the wakeup latency is the run queue's, by the sums; nothing where some of these delays are unknown (a
/// context switch was not seen), since the sums are not of the same wakeups then.
fn latency_split(app: &App, total: &Stats, width: usize) -> Line<'static> {
    let (latency, delay) = (&total.wakeup_latency, &total.run_queue_delay);
    let known = delay.count();
    let (short, p99) = (width < 60, duration(delay.quantile(0.99)));
    if known < latency.count() {
        let text = if known == 0 {
            " run-queue delays unknown".to_owned()
        } else {
            format!(" run-queue delay p99 {p99} ({} known)", count(known))
        };
        return Line::styled(text, app.theme.secondary);
    }
    let whole = latency.sum();
    let share = delay.sum().min(whole) as f64 / whole as f64;
    let p99 = if short { String::new() } else { format!(" (p99 {p99})") };
    let text = format!(" {} run queue{p99}, {} from there", percent(share), percent(1.0 - share));
    let cells = u16::try_from(width.saturating_sub(text.len()).clamp(4, 24)).unwrap_or(4);
    let (filled, rest) = bar(share, cells);
    Line::from(vec![
        Span::styled(filled, app.theme.state(State::Ready)),
        Span::styled(rest, app.theme.secondary),
        Span::raw(text),
    ])
}

/// Ready events, pollers, system calls that it slept in, and what is rare.
fn lists(app: &App, total: &Stats) -> Vec<Line<'static>> {
    let theme = &app.theme;
    let mut lines = Vec::new();
    let ready = &total.ready_per_wakeup;
    if ready.count() > 0 {
        lines.push(heading(app, "Ready events per wakeup"));
        let groups = [(0, 0), (1, 1), (2, 3), (4, 7), (8, 15), (16, 63), (64, 255), (256, u64::MAX)];
        for (low, high) in groups {
            let inside = ready.buckets().filter(|(from, ..)| (low..=high).contains(from));
            let number: u64 = inside.map(|(.., number)| number).sum();
            if number > 0 {
                let share = number as f64 / ready.count() as f64;
                let (filled, rest) = bar(share, 16);
                let name = match (low, high) {
                    (low, high) if low == high => low.to_string(),
                    (low, u64::MAX) => format!("{low}…"),
                    (low, high) => format!("{low}–{high}"),
                };
                lines.push(Line::from(vec![
                    Span::raw(format!("{name:>7} ")),
                    Span::styled(filled, theme.state(State::Polling)),
                    Span::styled(rest, theme.secondary),
                    Span::raw(format!(" {:>6}  {}", percent(share), count(number))),
                ]));
            }
        }
    }
    if !total.pollers.is_empty() {
        lines.push(heading(app, "Waits on"));
        for poller in &total.pollers {
            let name = match poller.fd {
                fd if fd < 0 => poller.kind.name().to_owned(),
                fd => format!("{} {fd}", poller.kind.name()),
            };
            lines.push(Line::raw(format!("  {name:<14} {} iterations", count(poller.iterations))));
        }
    }
    if !total.blockers.is_empty() {
        lines.push(heading(app, "Slept outside its wait call, in"));
        for blocker in total.blockers.iter().chain(&total.other_blockers) {
            let is_other = total.other_blockers.is_some_and(|other| other == *blocker);
            let name = if is_other { "others".to_owned() } else { syscall_name(blocker.syscall) };
            lines.push(Line::raw(format!(
                "  {name:<18} {:>7} in all  {:>7} at most  {} times",
                duration(blocker.total_ns),
                duration(blocker.max_ns),
                count(blocker.count)
            )));
        }
    }
    let counters = &total.counters;
    let rare: Vec<(String, &str)> = [
        (counters.empty_wakeups, "empty wakeups"),
        (counters.timeouts, "timeouts"),
        (counters.check_ins, "check-ins"),
        (counters.batch_full, "batch full"),
        (counters.submissions, "submissions"),
        (counters.interrupted, "interrupted"),
        (counters.restarts, "restarted"),
        (counters.errors, "errors"),
        (counters.impossible, "missed"),
        (counters.unseen, "unseen"),
    ]
    .into_iter()
    .filter(|(number, _)| *number > 0)
    .map(|(number, name)| (count(number), name))
    .collect();
    if !rare.is_empty() {
        lines.push(heading(app, "Counted"));
        lines.extend(rare.chunks(3).map(|chunk| numbers_line(chunk, theme)));
    }
    lines
}

/// The last iterations, as far as they streamed.
fn recent(app: &App, inspected: &Inspected, width: usize) -> Vec<Line<'static>> {
    let mut lines = vec![Line::from(vec![
        Span::styled("Recent iterations", app.theme.heading),
        Span::styled("  ago, result, wait, wakeup, slice", app.theme.secondary),
    ])];
    if inspected.iterations.is_empty() {
        let why = if app.targets_ended || inspected.ended { "none was streamed" } else { "none yet" };
        lines.push(Line::styled(format!("  {why}"), app.theme.secondary));
    }
    for iteration in inspected.iterations.iter().take(RECENT) {
        let ago = duration(app.shown.at.saturating_sub(iteration.returned_at));
        let mut line = Line::from(Span::styled(format!("{ago:>7}"), app.theme.secondary));
        line.push_span(Span::raw(format!("  {}", describe(iteration))));
        let room = width.saturating_sub(usize::from(cells(&line)));
        let slice = slice(iteration);
        if slice.chars().count() < room {
            let style = match iteration.loop_ns {
                Iteration::UNFINISHED => app.theme.secondary,
                ns => app.theme.loop_duration(ns, app.model.stall_threshold),
            };
            line.push_span(Span::styled(format!("; {slice}"), style));
        }
        lines.push(line);
    }
    lines
}

/// A wait call: `epoll_wait = 1, slept 1.2ms, woken 10µs late`.
pub(super) fn describe(iteration: &Iteration) -> String {
    let call = WaitCall::from_number(iteration.call).map_or("?", WaitCall::name);
    let mut parts = vec![format!("{call} = {}", iteration.result)];
    let slept = iteration.flags & Iteration::SLEPT != 0;
    parts.push(format!("{} {}", if slept { "slept" } else { "took" }, duration(iteration.wait_ns)));
    if iteration.wakeup_ns != NO_WAKEUP {
        parts.push(format!("woken {} late", duration(iteration.wakeup_ns)));
    }
    if iteration.flags & Iteration::TIMED_OUT != 0 {
        parts.push("timed out".to_owned());
    }
    joined(&parts)
}

/// Its slice: `ran 40µs, blocked 10µs`.
pub(super) fn slice(iteration: &Iteration) -> String {
    if iteration.loop_ns == Iteration::UNFINISHED {
        return "goes on".to_owned();
    }
    let mut parts = vec![format!("ran {}", duration(iteration.loop_ns.saturating_sub(iteration.blocked_ns)))];
    if iteration.blocked_ns > 0 {
        parts.push(format!("blocked {}", duration(iteration.blocked_ns)));
    }
    if iteration.parked_ns > 0 {
        parts.push(format!("parked {}", duration(iteration.parked_ns)));
    }
    joined(&parts)
}
