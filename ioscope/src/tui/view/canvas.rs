//! A small area of characters, drawn on at will, for what is no list of lines.

use ratatui::{
    style::Style,
    text::{Line, Span},
};

pub(super) struct Canvas {
    width: usize,
    cells: Vec<(char, Style)>,
}

impl Canvas {
    pub(super) fn new(width: usize, height: usize) -> Self {
        Self { width, cells: vec![(' ', Style::new()); width * height] }
    }

    /// Writes a text whose characters are a cell wide each; what lies outside is left out.
    pub(super) fn put(&mut self, x: usize, y: usize, text: &str, style: Style) {
        for (at, character) in text.chars().enumerate() {
            let x = x + at;
            if x < self.width
                && let Some(cell) = self.cells.get_mut(y * self.width + x)
            {
                *cell = (character, style);
            }
        }
    }

    /// The lines, each in as few pieces as there are changes of style.
    pub(super) fn lines(&self) -> Vec<Line<'static>> {
        self.cells
            .chunks(self.width.max(1))
            .map(|row| {
                let spans = row.chunk_by(|a, b| a.1 == b.1).map(|same| {
                    Span::styled(same.iter().map(|(character, _)| *character).collect::<String>(), same[0].1)
                });
                Line::from(spans.collect::<Vec<_>>())
            })
            .collect()
    }
}
