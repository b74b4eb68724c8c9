//! What lies over the screen: the help, the chooser of columns, the lines to type into.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    text::{Line, Span},
    widgets::{Block, Clear, Paragraph, Widget as _},
};

use super::{Layout, cells, help};
use crate::tui::{
    columns::COLUMNS,
    state::{App, Overlay},
};

pub(super) fn draw(app: &App, area: Rect, layout: &Layout, buffer: &mut Buffer) {
    match &app.overlay {
        None => {}
        Some(Overlay::Help(top)) => help::draw(app, *top, area, buffer),
        Some(Overlay::Columns(at)) => columns(app, *at, area, buffer),
        Some(Overlay::Filter(_)) => {
            let found = format!("  {} of {} loops", app.shown.matching, app.shown.loops);
            prompt(app, ("filter: ", &app.filter), &found, "Enter keeps it, Esc drops it", layout, buffer);
        }
        Some(Overlay::Threshold(text, problem)) => {
            let problem = problem.as_ref().map(|problem| format!("  {problem}")).unwrap_or_default();
            let keys = "Enter sets it, Esc drops it";
            prompt(app, ("a stall from: ", text), &problem, keys, layout, buffer);
        }
    }
}

/// A line to type into, where the footer is, or on the last row.
fn prompt(
    app: &App,
    (what, text): (&str, &str),
    aside: &str,
    keys: &str,
    layout: &Layout,
    buffer: &mut Buffer,
) {
    let whole = buffer.area;
    let area = if layout.footer.height > 0 {
        layout.footer
    } else {
        Rect { y: whole.bottom().saturating_sub(1), height: 1.min(whole.height), ..whole }
    };
    if area.is_empty() {
        return;
    }
    Clear.render(area, buffer);
    let line = Line::from(vec![
        Span::styled(format!(" {what}"), app.theme.accent),
        Span::styled(text.to_owned(), app.theme.strong),
        Span::styled(" ", app.theme.tab),
        Span::raw(aside.to_owned()),
    ]);
    super::spread(buffer, area, &line, &[Line::styled(format!("{keys} "), app.theme.secondary)]);
}

fn columns(app: &App, at: usize, area: Rect, buffer: &mut Buffer) {
    let lines: Vec<Line<'static>> = COLUMNS
        .iter()
        .enumerate()
        .map(|(index, column)| {
            let hidden = app.loops.hidden.contains(&column.id);
            let mark = if hidden { "[ ]" } else { "[x]" };
            let heading = column.heading.join(" ");
            let name = if column.key == "load" { "load of the last seconds" } else { column.name };
            let text = format!(" {mark} {:<11} {name:<26} ", heading.trim());
            let style = if index == at { app.theme.selected } else { ratatui::style::Style::new() };
            Line::styled(text, style)
        })
        .collect();
    let width = (lines.iter().map(cells).max().unwrap_or(0) + 2).min(area.width);
    let height = u16::try_from(lines.len() + 2).unwrap_or(u16::MAX).min(area.height);
    let top = (at + 1).saturating_sub(usize::from(height.saturating_sub(2)));
    let place =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    let block = Block::bordered()
        .title(" columns, as far as there is room ")
        .title_bottom(" ↵ or Space chooses, Esc closes ")
        .border_style(app.theme.secondary);
    Clear.render(place, buffer);
    Paragraph::new(lines.into_iter().skip(top).collect::<Vec<_>>()).block(block).render(place, buffer);
}
