//! The help: every key, made from the table of bindings, and what the letters of the states mean.

use ioscope_common::State;
use ratatui::{
    buffer::Buffer,
    layout::Rect,
    text::{Line, Span},
    widgets::{Block, Clear, Paragraph, Widget as _},
};

use super::cells;
use crate::{
    output::text::drop_lines,
    tui::{
        state::App,
        theme::{letter, meaning},
    },
};

/// Draws the help over the middle of the screen, from this line on.
pub(super) fn draw(app: &App, top: usize, area: Rect, buffer: &mut Buffer) {
    let lines = lines(app);
    let wanted = lines.iter().map(cells).max().unwrap_or(0) + 4;
    let height = u16::try_from(lines.len()).unwrap_or(u16::MAX - 2) + 2;
    let (width, height) = (wanted.min(area.width), height.min(area.height));
    let area =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    let room = usize::from(height.saturating_sub(2));
    let more = if lines.len() > room { " ↑↓ for the rest " } else { "" };
    let block = Block::bordered()
        .title(" ioscope: keys and states ")
        .title_bottom(more)
        .border_style(app.theme.secondary);
    Clear.render(area, buffer);
    let shown: Vec<Line<'static>> = lines.into_iter().skip(top).collect();
    Paragraph::new(shown).block(block).render(area, buffer);
}

/// The first line when the last is on the screen.
pub(in crate::tui) fn last_top(app: &App) -> usize {
    lines(app).len().saturating_sub(usize::from(app.size.height.saturating_sub(2)))
}

fn lines(app: &App) -> Vec<Line<'static>> {
    let wrong: Vec<Line<'static>> = drop_lines(&app.shown.drops)
        .chain(app.tracing.missing.iter().map(|hook| format!("without {}: no {}", hook.name, hook.lost)))
        .map(|line| Line::styled(format!(" {line}"), app.theme.bad))
        .collect();
    let gap = (!wrong.is_empty()).then(Line::default);
    let keys = in_columns(keys(app), usize::from(app.size.width.saturating_sub(4)));
    states(app).into_iter().chain(gap).chain(wrong).chain([Line::default()]).chain(keys).collect()
}

/// In two columns, where there is room for them.
fn in_columns(lines: Vec<Line<'static>>, width: usize) -> Vec<Line<'static>> {
    let widest = usize::from(lines.iter().map(cells).max().unwrap_or(0));
    if width < widest * 2 + 1 {
        return lines;
    }
    let half = lines.len().div_ceil(2);
    let (left, right) = lines.split_at(half);
    left.iter()
        .enumerate()
        .map(|(at, left)| {
            let mut line = left.clone();
            if let Some(right) = right.get(at) {
                line.push_span(Span::raw(" ".repeat(widest + 1 - usize::from(cells(left)))));
                line.extend(right.clone());
            }
            line
        })
        .collect()
}

fn keys(app: &App) -> Vec<Line<'static>> {
    app.keys
        .bindings()
        .map(|(binding, keys)| {
            let keys = keys.iter().map(|key| key.label()).collect::<Vec<_>>().join(" ");
            Line::from(vec![
                Span::styled(format!(" {keys:>8}"), app.theme.accent),
                Span::raw(format!("  {}", binding.description)),
            ])
        })
        .collect()
}

fn states(app: &App) -> Vec<Line<'static>> {
    let mut lines: Vec<Line<'static>> = State::ALL
        .into_iter()
        .map(|state| {
            let name = format!(" {} {:7}", letter(state), state.name());
            Line::from(vec![
                Span::styled(name, app.theme.state(state)),
                Span::raw(format!("  {}", meaning(state))),
            ])
        })
        .collect();
    lines.push(Line::from(vec![
        Span::raw(" "),
        Span::styled("!", app.theme.alarm),
        Span::raw(format!(
            " STALLED  on top of a state: outside its wait call for {} or longer",
            crate::output::numbers::duration(
                u64::try_from(app.model.stall_threshold.as_nanos()).unwrap_or(u64::MAX)
            )
        )),
    ]));
    lines
}
