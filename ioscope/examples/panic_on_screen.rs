//! Opens the screen as `ioscope` does, waits for a key, and panics: `tests/ui.rs` looks at what is left of the terminal.
//!
//! With `aside` it is another thread that panics, which the screen survives: it is drawn again, and ends with a second key.

use std::{io::Read as _, thread::Builder, time::Duration};

use ioscope::tui::{App, Config, Palette, Screen, Theme, Tracing};

fn wait_for_a_key() -> std::io::Result<()> {
    std::io::stdin().lock().read_exact(&mut [0])
}

fn main() -> anyhow::Result<()> {
    let aside = std::env::args().nth(1).is_some_and(|word| word == "aside");
    let (width, height) = crossterm::terminal::size()?;
    let tracing = Tracing { title: "nothing".to_owned(), ..Tracing::default() };
    let theme = Theme::new(&Palette::TERMINAL);
    let app = App::new(tracing, Duration::from_millis(100), theme, &Config::default(), (width, height));
    let mut screen = Screen::open(true)?;
    screen.draw(&app)?;
    wait_for_a_key()?;
    if aside {
        let thread = Builder::new().name("aside".to_owned()).spawn(|| panic!("a thread aside fell over"))?;
        let _ = thread.join();
        screen.draw(&app)?;
        wait_for_a_key()?;
        return Ok(());
    }
    panic!("what draws fell over");
}
