//! Stalls: those that go on, counting up, and those before.

use ratatui::{buffer::Buffer, layout::Rect, text::Line};

use crate::tui::state::App;

pub(super) fn draw(app: &App, area: Rect, buffer: &mut Buffer) {
    buffer.set_line(area.x, area.y, &Line::styled(" no stall was seen", app.theme.secondary), area.width);
}
