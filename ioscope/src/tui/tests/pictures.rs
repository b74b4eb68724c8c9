//! The README's pictures: the real views of fixed states, as SVG. The files in docs/pictures are golden files:
//! `cargo xtask pictures` writes them anew, and this test fails when they are not what would be written.

use std::{fmt::Write as _, path::Path};

use crossterm::event::KeyCode;
use ratatui::{
    buffer::{Buffer, Cell},
    style::{Color, Modifier},
};

use super::{
    drawings::draw,
    fixture::{app, long_scene, press, scene, servers},
};
use crate::tui::{App, Palette, Theme};

/// A cell's width and height, and the size of its characters.
const CELL: (f32, f32) = (8.4, 18.0);
const FONT: f32 = 14.0;
const MARGIN: f32 = 12.0;
/// The terminal's own colours.
const BACKGROUND: &str = "#14171f";
const FOREGROUND: &str = "#d8dce6";

fn hex(colour: Color, otherwise: &str) -> String {
    match colour {
        Color::Rgb(red, green, blue) => format!("#{red:02x}{green:02x}{blue:02x}"),
        Color::Reset => otherwise.to_owned(),
        other => panic!("{other:?} is none of the palette's colours"),
    }
}

/// Text, background and weight of a cell.
fn look(cell: &Cell) -> (String, String, bool) {
    let (text, ground) = (hex(cell.fg, FOREGROUND), hex(cell.bg, BACKGROUND));
    let bold = cell.modifier.contains(Modifier::BOLD);
    if cell.modifier.contains(Modifier::REVERSED) { (ground, text, bold) } else { (text, ground, bold) }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The part of its cell that a block is, from the left and from the foot, each in eighths.
fn block(symbol: &str) -> Option<(f32, f32)> {
    let eighths =
        |of: &str| of.chars().position(|block| symbol.chars().eq([block])).map(|at| (at + 1) as f32);
    eighths("▁▂▃▄▅▆▇█").map(|high| (8.0, high)).or_else(|| eighths("▏▎▍▌▋▊▉").map(|wide| (wide, 8.0)))
}

/// Each run of cells that look the same is one text of a fixed length, so that no font tears the lines apart; blocks
/// are areas, which leave no gaps.
fn svg(buffer: &Buffer) -> String {
    let (columns, rows) = (f32::from(buffer.area.width), f32::from(buffer.area.height));
    let (width, height) = (columns * CELL.0 + 2.0 * MARGIN, rows * CELL.1 + 2.0 * MARGIN);
    let mut svg = String::new();
    let _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width:.0}\" height=\"{height:.0}\" viewBox=\"0 0 \
         {width:.1} {height:.1}\" font-family=\"ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace\" \
         font-size=\"{FONT}\">\n<rect width=\"100%\" height=\"100%\" rx=\"8\" fill=\"{BACKGROUND}\"/>"
    );
    for y in 0..buffer.area.height {
        let cells: Vec<(u16, &Cell)> = (0..buffer.area.width).map(|x| (x, &buffer[(x, y)])).collect();
        for run in cells.chunk_by(|a, b| look(a.1) == look(b.1)) {
            let (first, cell) = run[0];
            let (text, ground, bold) = look(cell);
            let length = run.len() as f32 * CELL.0;
            let left = MARGIN + f32::from(first) * CELL.0;
            let top = MARGIN + f32::from(y) * CELL.1;
            if ground != BACKGROUND {
                let _ = writeln!(
                    svg,
                    "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{length:.1}\" height=\"{:.1}\" fill=\"{ground}\"/>",
                    CELL.1
                );
            }
            for same in run.chunk_by(|a, b| a.1.symbol() == b.1.symbol()) {
                let Some((wide, high)) = block(same[0].1.symbol()) else { continue };
                let cells = same.len() as f32;
                // What ends within its cell stands alone.
                let (width, height) = (CELL.0 * (cells - 1.0 + wide / 8.0), CELL.1 * high / 8.0);
                let _ = writeln!(
                    svg,
                    "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{text}\"/>",
                    MARGIN + f32::from(same[0].0) * CELL.0,
                    top + CELL.1 - height
                );
            }
            let is_block = |cell: &Cell| block(cell.symbol()).is_some();
            let words: String =
                run.iter().map(|(_, cell)| if is_block(cell) { " " } else { cell.symbol() }).collect();
            let shown = words.trim_end();
            if shown.trim().is_empty() {
                continue;
            }
            // A wide character is followed by an empty cell.
            let blanks = shown.len() - shown.trim_start().len();
            let left = left + blanks as f32 * CELL.0;
            let shown = shown.trim_start();
            let length = unicode_width::UnicodeWidthStr::width(shown) as f32 * CELL.0;
            let weight = if bold { " font-weight=\"bold\"" } else { "" };
            let _ = writeln!(
                svg,
                "<text x=\"{left:.1}\" y=\"{:.1}\" textLength=\"{length:.1}\" lengthAdjust=\"spacingAndGlyphs\" \
                 xml:space=\"preserve\" fill=\"{text}\"{weight}>{}</text>",
                top + CELL.1 * 0.75,
                escape(shown)
            );
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn picture(name: &str, size: (u16, u16), make: fn(&mut App), keys: &str) {
    let mut app = app(true, size);
    app.theme = Theme::new(&Palette::DARK);
    make(&mut app);
    for key in keys.chars() {
        press(&mut app, if key == '↵' { KeyCode::Enter } else { KeyCode::Char(key) });
    }
    app.note = None;
    let drawn = svg(&draw(&app, size));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/pictures").join(format!("{name}.svg"));
    if std::env::var_os("IOSCOPE_BLESS").is_some() {
        std::fs::write(&path, &drawn).expect("the picture can be written");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == drawn, "{} is stale: `cargo xtask pictures` draws it anew", path.display());
}

#[test]
fn pictures_are_what_the_screens_are() {
    picture("loops", (120, 32), long_scene, "gjj");
    picture("detail", (124, 34), scene, "/disk↵g2");
    picture("timeline", (110, 24), scene, "3ghzzzzzzzzw");
    picture("stalls", (110, 22), scene, "4");
    picture("compare", (82, 25), servers, "5");
}
