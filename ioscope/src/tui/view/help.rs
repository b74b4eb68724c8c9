//! The help: every key, made from the table of bindings, and what the letters of the states mean.

use ioscope_common::State;
use ratatui::{
    buffer::Buffer,
    layout::Rect,
    text::{Line, Span},
    widgets::{Block, Clear, Paragraph, Widget as _},
};

use super::cells;
use crate::tui::{
    bindings::BINDINGS,
    state::App,
    theme::{letter, meaning},
};

/// Draws the help over the middle of the screen.
pub(super) fn draw(app: &App, area: Rect, buffer: &mut Buffer) {
    let lines: Vec<Line<'static>> =
        keys(app).into_iter().chain([Line::default()]).chain(states(app)).collect();
    let wanted = lines.iter().map(cells).max().unwrap_or(0) + 4;
    let height = u16::try_from(lines.len()).unwrap_or(u16::MAX - 2) + 2;
    let (width, height) = (wanted.min(area.width), height.min(area.height));
    let area =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    let block = Block::bordered().title(" ioscope: keys and states ").border_style(app.theme.secondary);
    Clear.render(area, buffer);
    Paragraph::new(lines).block(block).render(area, buffer);
}

fn keys(app: &App) -> Vec<Line<'static>> {
    BINDINGS
        .iter()
        .map(|binding| {
            let keys = binding.keys.iter().map(|key| key.label()).collect::<Vec<_>>().join(" ");
            Line::from(vec![
                Span::styled(format!(" {keys:>7}"), app.theme.accent),
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
