//! Stalls: those that go on, counting up, and those before; below them the selected one in full: where its
//! time went, and in which functions.

use std::sync::Arc;

use ioscope_common::State;
use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::Style,
    text::{Line, Span},
};

use super::{
    cells,
    text::{cut, stacked},
};
use crate::{
    model::stalls::{Account, Cause, Stall, WeightedStack},
    output::{
        numbers::{duration, percent},
        stalls::cause_text,
    },
    symbols::{Frame, Origin, Stack, StackTree, TreeNode},
    tui::{cells::bar, shown::ShownStall, state::App, theme::Theme},
};

/// The columns before the account.
const COLUMNS: usize = 48;

/// How many stalls the list has room for, in a part of the screen of this height.
pub(in crate::tui) fn list_height(body: u16) -> u16 {
    match body {
        0..=1 => body,
        2..10 => body - 1,
        _ => (body / 3).max(4),
    }
}

pub(super) fn draw(app: &App, area: Rect, buffer: &mut Buffer) {
    let theme = &app.theme;
    let stalls = &app.shown.stalls;
    if area.is_empty() {
        return;
    }
    if stalls.is_empty() {
        let threshold = duration(u64::try_from(app.model.stall_threshold.as_nanos()).unwrap_or(u64::MAX));
        let text = if app.filter.is_empty() {
            format!(" no loop was outside its wait call for {threshold} or longer since tracing began")
        } else {
            " no stall has this text in it: Esc clears the filter".to_owned()
        };
        buffer.set_line(area.x, area.y, &Line::styled(text, theme.secondary), area.width);
        return;
    }
    let room = list_height(area.height);
    let mut y = area.y;
    if area.height > room {
        let heading =
            format!(" {:>8} {:>8} {:>8} {:<15}   WHERE ITS TIME WENT", "BEGAN", "LASTED", "TID", "NAME");
        buffer.set_line(area.x, y, &Line::styled(heading, theme.heading), area.width);
        y += 1;
    }
    for (at, shown) in stalls.iter().enumerate().skip(app.stalls.top).take(usize::from(room)) {
        let row = Rect { y, height: 1, ..area };
        buffer.set_line(row.x, row.y, &line(app, shown, usize::from(area.width)), area.width);
        if at == app.selected_stall() {
            buffer.set_style(row, theme.selected);
        }
        y += 1;
    }
    // The list keeps its room, so that nothing below it jumps when a stall comes.
    let top = area.y + (area.height - area.height.min(area.height - room)) + u16::from(area.height > room);
    let below = Rect { y: top.min(area.bottom()), height: area.bottom().saturating_sub(top), ..area };
    if let Some(shown) = stalls.get(app.selected_stall())
        && below.height > 0
    {
        let lines = details(app, shown, usize::from(area.width), usize::from(below.height));
        super::draw_lines(&lines, 0, below, buffer);
    }
}

/// A stall in the list.
fn line(app: &App, shown: &ShownStall, width: usize) -> Line<'static> {
    let theme = &app.theme;
    let ShownStall { identity, stall } = shown;
    let ago = app.shown.at.saturating_sub(stall.began_at);
    let mut line =
        Line::from(Span::styled(format!(" {:>8}", format!("−{}", duration(ago))), theme.secondary));
    let lasted = format!(" {:>8}", duration(stall.duration_ns()));
    line.push_span(Span::styled(lasted, if stall.is_ongoing() { theme.alarm } else { theme.strong }));
    let name = cut(&identity.comm, 15);
    let blank = 15_usize.saturating_sub(unicode_width::UnicodeWidthStr::width(name.as_str()));
    line.push_span(Span::raw(format!(" {:>8} {name}{}", identity.tid, " ".repeat(blank))));
    line.push_span(if stall.is_ongoing() { Span::styled(" ! ", theme.bad) } else { Span::raw("   ") });
    let room = width.saturating_sub(COLUMNS + 1);
    let bar_room = if room >= 60 { 24 } else { 0 };
    if bar_room > 0 {
        line.extend(account_bar(&stall.account, bar_room, theme));
        line.push_span(Span::raw(" "));
    }
    if let Some((cause, ns)) = stall.account.main_cause() {
        let share = ns as f64 / stall.account.duration_ns.max(1) as f64;
        // The number first: a narrow screen cuts the end.
        let text = format!("{} {:>6} {}", letter(cause), percent(share), cause_text(cause));
        line.push_span(Span::styled(cut(&text, room - bar_room), look(cause, theme)));
    }
    line
}

fn account_bar(account: &Account, width: usize, theme: &Theme) -> Line<'static> {
    let whole = account.duration_ns.max(1) as f64;
    let parts: Vec<(char, f64, Style)> = account
        .parts()
        .into_iter()
        .map(|(cause, ns)| (letter(cause), ns as f64 / whole, look(cause, theme)))
        .collect();
    stacked(&parts, width)
}

/// A letter of its own for what time went to.
const fn letter(cause: Cause) -> char {
    match cause {
        Cause::User => 'U',
        Cause::Kernel => 'N',
        Cause::OnCpu => 'R',
        Cause::Preempted => 'Y',
        Cause::Throttled => 'T',
        Cause::Blocked(_) => 'B',
        Cause::PageFault => 'F',
        Cause::Stopped => 'S',
    }
}

fn look(cause: Cause, theme: &Theme) -> Style {
    match cause {
        Cause::User | Cause::OnCpu => theme.state(State::Running),
        Cause::Kernel => theme.state(State::Polling),
        Cause::Preempted => theme.state(State::Ready),
        Cause::Throttled => theme.bad,
        Cause::Blocked(_) => theme.state(State::Blocked),
        Cause::PageFault => theme.warning,
        Cause::Stopped => theme.secondary,
    }
}

/// A stall in full.
fn details(app: &App, shown: &ShownStall, width: usize, height: usize) -> Vec<Line<'static>> {
    let theme = &app.theme;
    let ShownStall { identity, stall } = shown;
    let inner = width.saturating_sub(2);
    let (word, style) =
        if stall.is_ongoing() { ("goes on", theme.bad) } else { ("is over", theme.secondary) };
    let mut lines = vec![
        Line::styled("─".repeat(width), theme.secondary),
        Line::from(vec![
            Span::raw(" "),
            Span::styled(identity.comm.clone(), theme.accent),
            Span::raw(format!(" ({}) of {} ({})  ", identity.tid, identity.process, identity.pid)),
            Span::styled(duration(stall.duration_ns()), theme.strong),
            Span::styled(format!("  it {word}"), style),
        ]),
    ];
    let mut whole = Line::from(" ");
    whole.extend(account_bar(&stall.account, inner, theme));
    lines.push(whole);
    let duration_ns = stall.account.duration_ns.max(1) as f64;
    for (cause, ns) in stall.account.parts().into_iter().filter(|(_, ns)| *ns as f64 / duration_ns >= 0.001) {
        let share = ns as f64 / duration_ns;
        let mut text = format!(" {} {}", letter(cause), cause_text(cause));
        let blocked = stall.account.blocked.iter().find(|blocked| Cause::of_sleep(blocked.syscall) == cause);
        if let Some(blocked) = blocked {
            if blocked.count > 1 {
                text = format!("{text}, {} times, {} at most", blocked.count, duration(blocked.max_ns));
            }
            if let Some(resolved) = &blocked.resolved {
                text = format!("{text}: {resolved}");
            }
        }
        let mut line = Line::from(format!(" {:>6} {:>8}", percent(share), duration(ns)));
        line.push_span(Span::styled(cut(&text, width.saturating_sub(17)), look(cause, theme)));
        lines.push(line);
    }
    if stall.stacks.is_empty() {
        let text = if stall.is_ongoing() { "no stack yet" } else { "no stack was taken" };
        lines.push(Line::styled(format!(" {text}"), theme.secondary));
    } else if height > lines.len() {
        lines.extend(tree(stall, theme, width, height - lines.len()));
    }
    lines
}

/// The frames of a stack, or what stands for them where nothing has named them.
fn frames(weighted: &WeightedStack) -> Stack {
    let stack = &weighted.stack;
    if !stack.frames.is_empty() {
        return Stack { frames: stack.frames.clone() };
    }
    let bare = |address: &u64, origin| Frame {
        name: Arc::from(format!("{address:#x}")),
        module: None,
        location: None,
        inlined: false,
        origin,
    };
    let kernel = stack.kernel.iter().map(|address| bare(address, Origin::Kernel));
    let user = stack.user.iter().map(|address| bare(address, Origin::User));
    Stack { frames: kernel.chain(user).collect() }
}

/// All stacks of a stall in one tree, from the outermost caller inwards, so many lines of it: the culprits are
/// at its end, so that callers which all have in common go first.
fn tree(stall: &Stall, theme: &Theme, width: usize, height: usize) -> Vec<Line<'static>> {
    let mut merged = StackTree::new();
    for weighted in stall.stacks.iter() {
        merged.add(&frames(weighted), weighted.weight_ns);
    }
    let total = merged.total_ns().max(1) as f64;
    let mut flat = Vec::new();
    for root in merged.roots() {
        flatten(root, 0, &mut flat);
    }
    // The chain that begins at a single root.
    let common = flat.iter().take_while(|(node, _)| node.total_ns() == merged.total_ns()).count();
    let hidden =
        if flat.len() > height { (flat.len() - height + 1).min(common.saturating_sub(1)) } else { 0 };
    let mut lines = Vec::new();
    if hidden > 0 {
        lines.push(Line::styled(format!(" … {hidden} callers"), theme.secondary));
    }
    let shift = flat.get(hidden).map_or(0, |(_, depth)| *depth);
    for (node, depth) in flat.into_iter().skip(hidden) {
        if lines.len() == height {
            break;
        }
        let share = node.total_ns() as f64 / total;
        let (filled, rest) = bar(share, 10);
        let frame = node.frame();
        let own = node.own_ns() as f64 / total;
        let style = match frame.origin {
            _ if own >= 0.1 => theme.strong,
            Origin::Kernel => theme.state(State::Polling),
            Origin::User | Origin::Jit => Style::new(),
        };
        let mut line = Line::from(vec![
            Span::raw(" "),
            Span::styled(filled, theme.state(State::Running)),
            Span::styled(rest, theme.secondary),
            Span::raw(format!(" {:>6} {}", percent(share), "  ".repeat((depth - shift).min(12)))),
        ]);
        let mut name = frame.name.to_string();
        if frame.origin == Origin::Kernel {
            name.push_str(" [kernel]");
        }
        let room = width.saturating_sub(usize::from(cells(&line)) + 1);
        line.push_span(Span::styled(cut(&name, room), style));
        if let Some(location) = &frame.location {
            let room = width.saturating_sub(usize::from(cells(&line)) + 3);
            if room > 12 {
                line.push_span(Span::styled(
                    format!("  {}", tail(&location.to_string(), room)),
                    theme.secondary,
                ));
            }
        }
        lines.push(line);
    }
    lines
}

/// The nodes in the order of their drawing. Who calls one function only stands above it, not before it.
fn flatten<'a>(node: TreeNode<'a>, depth: usize, into: &mut Vec<(TreeNode<'a>, usize)>) {
    into.push((node, depth));
    let children = node.children();
    let deeper = usize::from(children.len() > 1);
    for child in children {
        flatten(child, depth + deeper, into);
    }
}

/// The end of a path, which tells more than its beginning.
fn tail(text: &str, width: usize) -> String {
    let length = text.chars().count();
    if length <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().skip(length + 1 - width).collect();
    format!("…{kept}")
}
