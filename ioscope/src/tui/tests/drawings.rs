//! The drawings against golden files: what stands where, and below it the same with each character's
//! look. `IOSCOPE_BLESS=1` writes the files anew.

use std::path::Path;

use crossterm::event::KeyCode;
use proptest::prelude::*;
use ratatui::{
    Terminal,
    backend::TestBackend,
    buffer::{Buffer, Cell},
    style::{Color, Modifier},
};

use super::fixture::{app, crowd, drop_some, miss_a_hook, press, scene, servers, two_minutes};
use crate::tui::{App, Message, Palette, Theme, update, view};

pub(super) fn draw(app: &App, (width, height): (u16, u16)) -> Buffer {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a test's terminal");
    terminal.draw(|frame| view(app, frame)).expect("it is drawn");
    terminal.backend().buffer().clone()
}

fn lines(buffer: &Buffer, of: impl Fn(&Cell) -> String) -> Vec<String> {
    (0..buffer.area.height)
        .map(|y| {
            let mut line = String::new();
            let mut x = 0;
            while x < buffer.area.width {
                let cell = &buffer[(x, y)];
                line.push_str(&of(cell));
                x += u16::try_from(unicode_width::UnicodeWidthStr::width(cell.symbol())).unwrap_or(1).max(1);
            }
            line.trim_end().to_owned()
        })
        .collect()
}

pub(super) fn text(buffer: &Buffer) -> Vec<String> {
    lines(buffer, |cell| cell.symbol().to_owned())
}

/// A letter a colour, in capitals where it is reversed.
fn look(cell: &Cell) -> String {
    let letter = match cell.fg {
        Color::Red => 'r',
        Color::Green => 'g',
        Color::Yellow => 'y',
        Color::LightBlue => 'b',
        Color::Magenta => 'm',
        Color::Cyan => 'c',
        Color::Reset if cell.modifier.contains(Modifier::REVERSED) => '#',
        Color::Reset if cell.symbol() == " " => ' ',
        Color::Reset if cell.modifier.contains(Modifier::BOLD) => '+',
        Color::Reset if cell.modifier.contains(Modifier::DIM) => '-',
        Color::Reset => '.',
        other => panic!("{other:?} is none of the theme's colours"),
    };
    let letter =
        if cell.modifier.contains(Modifier::REVERSED) { letter.to_ascii_uppercase() } else { letter };
    letter.to_string().repeat(unicode_width::UnicodeWidthStr::width(cell.symbol()).max(1))
}

#[track_caller]
fn expect(name: &str, app: &App, size: (u16, u16)) {
    let buffer = draw(app, size);
    let parts = [text(&buffer), vec!["=".repeat(usize::from(size.0))], lines(&buffer, look)];
    let drawn = parts.concat().join("\n") + "\n";
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("src/tui/tests/snapshots")
        .join(format!("{name}-{}x{}.txt", size.0, size.1));
    if std::env::var_os("IOSCOPE_BLESS").is_some() {
        std::fs::write(&path, &drawn).expect("the golden file can be written");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == drawn, "{} differs (IOSCOPE_BLESS=1 accepts it):\n{drawn}", path.display());
}

const SIZES: [(u16, u16); 3] = [(80, 24), (120, 40), (200, 50)];

#[test]
fn home_at_three_sizes() {
    for size in SIZES {
        let mut app = app(true, size);
        scene(&mut app);
        expect("home", &app, size);
    }
}

#[test]
fn a_preview_at_three_sizes() {
    for size in SIZES {
        let mut app = app(true, size);
        two_minutes(&mut app);
        expect("preview", &app, size);
    }
}

/// The scene, after these keys.
fn after(size: (u16, u16), keys: &[KeyCode]) -> App {
    let mut app = app(true, size);
    scene(&mut app);
    for key in keys {
        press(&mut app, *key);
    }
    app
}

const fn key(character: char) -> KeyCode {
    KeyCode::Char(character)
}

/// These characters.
fn keys(text: &str) -> Vec<KeyCode> {
    text.chars().map(key).collect()
}

#[test]
fn detail_at_three_sizes() {
    // The loop that has stalled on the disk.
    let disk = [keys("/disk"), vec![KeyCode::Enter], keys("g2")].concat();
    for size in SIZES {
        expect("detail", &after(size, &disk), size);
    }
    let below = [&disk[..], &[KeyCode::PageDown; 2]].concat();
    expect("detail-below", &after(SIZES[0], &below), SIZES[0]);
}

#[test]
fn timeline_at_three_sizes() {
    for size in SIZES {
        expect("timeline", &after(size, &keys("3")), size);
        // Held, closer, with a cursor on a loop that another wakes.
        expect("timeline-held", &after(size, &keys("3ghzzzzzzzzw")), size);
    }
}

#[test]
fn stalls_at_three_sizes() {
    for size in SIZES {
        expect("stalls", &after(size, &keys("4")), size);
    }
    expect("stalls-past", &after(SIZES[0], &keys("4j")), SIZES[0]);
}

#[test]
fn compare_at_three_sizes() {
    for size in SIZES {
        let mut app = app(true, size);
        servers(&mut app);
        for key in keys("5") {
            press(&mut app, key);
        }
        expect("compare-all", &app, size);
        // The first process of the table and the last.
        for key in keys("1gmGm5") {
            press(&mut app, key);
        }
        expect("compare", &app, size);
    }
}

#[test]
fn processes_group_their_loops() {
    for size in SIZES {
        let mut app = app(true, size);
        servers(&mut app);
        for key in keys("gjm") {
            press(&mut app, key);
        }
        expect("groups", &app, size);
    }
    let mut app = app(true, SIZES[0]);
    servers(&mut app);
    // The process with two loops.
    for key in [KeyCode::End, KeyCode::Left] {
        press(&mut app, key);
    }
    expect("folded", &app, SIZES[0]);
}

#[test]
fn what_lies_over_the_screen() {
    let size = SIZES[0];
    expect("columns", &after(size, &[key('c'), KeyCode::Down, KeyCode::Enter]), size);
    expect("filter", &after(size, &keys("/ed")), size);
    expect("threshold", &after(size, &[key('t'), key('x'), KeyCode::Enter]), size);
}

#[test]
fn palettes_change_the_colours_and_nothing_else() {
    for (_, palette) in Palette::NAMED {
        for screen in '1'..='5' {
            let mut app = after(SIZES[1], &[key(screen)]);
            let reference = text(&draw(&app, SIZES[1]));
            app.theme = Theme::new(&palette);
            let drawn = draw(&app, SIZES[1]);
            if !(palette == Palette::NONE && screen == '3') {
                assert_eq!(text(&drawn), reference);
            }
            let true_colour = drawn.content().iter().any(|cell| matches!(cell.fg, Color::Rgb(..)));
            assert_eq!(true_colour, matches!(palette, Palette::DARK | Palette::LIGHT));
        }
    }
}

#[test]
fn home_with_a_selection_paused_and_ended() {
    let size = (80, 24);
    let mut app = app(true, size);
    scene(&mut app);
    for key in [KeyCode::Down, KeyCode::Down, KeyCode::Char('s'), KeyCode::Char('r'), KeyCode::Char(' ')] {
        press(&mut app, key);
    }
    update(&mut app, Message::TargetsEnded);
    expect("paused", &app, size);
}

#[test]
fn what_is_wrong_is_on_top() {
    let size = (80, 24);
    let mut app = app(true, size);
    crowd(&mut app, 3, 1);
    miss_a_hook(&mut app);
    expect("missing", &app, size);
    drop_some(&mut app);
    expect("dropped", &app, size);
}

#[test]
fn before_the_first_loop() {
    let size = (80, 24);
    expect("empty", &app(true, size), size);
}

#[test]
fn help_at_three_sizes() {
    for size in SIZES {
        let mut app = app(true, size);
        scene(&mut app);
        press(&mut app, KeyCode::Char('?'));
        expect("help", &app, size);
    }
}

#[test]
fn many_loops_scroll() {
    let size = (80, 24);
    let mut app = app(true, size);
    crowd(&mut app, 100, 1);
    press(&mut app, KeyCode::End);
    expect("crowd", &app, size);
}

#[test]
fn small_terminals_keep_what_matters() {
    for size in [(60, 20), (59, 19), (40, 10), (30, 5), (12, 3)] {
        let mut app = app(true, size);
        scene(&mut app);
        expect("small", &app, size);
    }
}

#[test]
fn without_colour_every_word_is_still_there() {
    for (size, screen) in SIZES.into_iter().flat_map(|size| ('1'..='5').map(move |screen| (size, screen))) {
        let drawn = [true, false].map(|colour| {
            let mut app = app(colour, size);
            scene(&mut app);
            press(&mut app, KeyCode::Down);
            press(&mut app, key(screen));
            draw(&app, size)
        });
        let [coloured, plain] = drawn.each_ref().map(text);
        if screen == '3' {
            // Letters for what a colour says, in the lanes.
            let letters = |text: &[String]| {
                text.iter().flat_map(|line| line.chars()).filter(|c| "YB!".contains(*c)).count()
            };
            assert!(letters(&plain) > letters(&coloured), "{plain:?}");
            let without_lanes = |text: &[String]| -> Vec<String> {
                text.iter()
                    .map(|line| line.chars().filter(|c| !"▁▂▃▄▅▆▇█YB!".contains(*c)).collect())
                    .collect()
            };
            assert_eq!(without_lanes(&plain), without_lanes(&coloured));
        } else {
            assert_eq!(plain, coloured);
        }
        for cell in drawn[1].content() {
            assert_eq!((cell.fg, cell.bg), (Color::Reset, Color::Reset));
        }
    }
}

/// A letter a state, and a mark for the stall: read back from the narrow column.
#[test]
fn every_state_has_its_letter() {
    let size = (80, 24);
    let mut app = app(false, size);
    scene(&mut app);
    let screen = text(&draw(&app, size));
    for (name, state) in [
        ("waiting", "W  250ms"),
        ("polling", "P   <1ms"),
        ("ready", "Y 5"),
        ("running", "R   <1ms"),
        ("blocked-on-disk", "B 4"),
        ("parked", "K "),
        ("stalled-now", "R! 18"),
        ("ended", "ended"),
    ] {
        let row = screen.iter().find(|line| line.get(6..).is_some_and(|rest| rest.starts_with(name)));
        let row = row.unwrap_or_else(|| panic!("{name} is missing: {screen:#?}"));
        assert!(row.contains(&format!(" {state}")), "{row}");
    }
}

#[test]
fn no_size_panics() {
    let [mut few, mut many, mut none] = [app(true, (80, 24)), app(true, (80, 24)), app(true, (80, 24))];
    scene(&mut few);
    scene(&mut none);
    none.filter = "no loop has this".to_owned();
    none.arrange();
    crowd(&mut many, 40, 1);
    press(&mut many, KeyCode::Down);
    let sizes = [1_u16, 2, 3, 5, 8, 13, 21, 34];
    for (width, height) in sizes.into_iter().flat_map(|width| sizes.map(|height| (width, height))) {
        for mut app in [few.clone(), many.clone(), none.clone()] {
            // The frame may be ahead of the message that tells its size.
            draw(&app, (width, height));
            update(&mut app, Message::Resize { width, height });
            for screen in '1'..='5' {
                press(&mut app, key(screen));
                draw(&app, (width, height));
            }
            for keys in [[key('c'), KeyCode::Esc], [key('t'), KeyCode::Esc], [key('?'), KeyCode::Esc]] {
                for key in keys {
                    press(&mut app, key);
                    draw(&app, (width, height));
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn no_key_at_no_size_panics(
        width in 1u16..250, height in 1u16..80,
        keys in prop::collection::vec(0usize..30, 0..30),
    ) {
        let mut app = app(true, (width, height));
        scene(&mut app);
        let codes = [
            KeyCode::Up, KeyCode::Down, KeyCode::PageUp, KeyCode::PageDown, KeyCode::Home, KeyCode::End,
            KeyCode::Esc, KeyCode::Char('s'), KeyCode::Char('r'), KeyCode::Char(' '), KeyCode::Char('?'),
            KeyCode::Enter, KeyCode::Tab, KeyCode::Left, KeyCode::Right, key('1'), key('2'), key('3'), key('4'),
            key('5'), key('m'), key('y'), key('z'), key('Z'), key('w'), key('/'), key('c'), key('t'), key('v'),
            key('G'),
        ];
        for key in keys {
            press(&mut app, codes[key]);
            draw(&app, (width, height));
        }
    }
}
