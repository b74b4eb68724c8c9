//! `ioscope config`, and where the configuration of the terminal UI is.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;

use crate::{cli::ConfigArgs, tui::Config};

/// Runs the command: prints the default, or checks what is there.
pub(super) fn run(args: &ConfigArgs) -> Result<ExitCode> {
    let mut out = std::io::stdout();
    if args.print_default {
        out.write_all(Config::default_text().as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    load(args.config.as_deref())?;
    if let Some(file) = args.config.clone().or_else(|| default_file().filter(|file| file.exists())) {
        writeln!(out, "{} is right", file.display())?;
        return Ok(ExitCode::SUCCESS);
    }
    let place = default_file().map_or_else(
        || "--config FILE (without $HOME there is no other place)".to_owned(),
        |file| file.display().to_string(),
    );
    writeln!(
        out,
        "there is no configuration, so the default holds: `ioscope config --print-default` prints it, for {place}"
    )?;
    Ok(ExitCode::SUCCESS)
}

/// Reads the configuration that was named, else the one in its usual place, if there is one.
pub(super) fn load(named: Option<&Path>) -> Result<Config> {
    let file = match named {
        Some(file) => file.to_owned(),
        None => match default_file().filter(|file| file.exists()) {
            Some(file) => file,
            None => return Ok(Config::default()),
        },
    };
    Ok(Config::read(&file)?)
}

/// As the XDG base directory specification has it; a relative path there is to be ignored.
fn default_file() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")))?;
    Some(base.join("ioscope/config.toml"))
}
