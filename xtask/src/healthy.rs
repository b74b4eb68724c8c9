//! `cargo xtask healthy`: real programs under moderate load for long, and no stall that is their own.

use std::{process::Command, time::Duration};

use anyhow::{Result, bail};

use crate::{
    packages,
    workspace::{cargo, root, run},
};

/// Trace the real programs that are here at moderate load for long, and print their stalls
///
/// Takes root, and a machine without other work: what others keep off the CPU stalls indeed. Fails if a stall was the
/// program's own. Programs that are missing are named and left out.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long: `90s`, `10m`
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = duration)]
    duration: Duration,
}

pub(crate) fn run_command(args: &Args) -> Result<()> {
    if !packages::is_root() {
        bail!("loading probes takes root: `sudo -E cargo xtask healthy`");
    }
    run(Command::new(cargo())
        .args(["test", "--locked", "--package", "ioscope", "--test", "healthy_for_long"])
        .args(["--", "--ignored", "--nocapture"])
        .env("IOSCOPE_HEALTHY_SECONDS", args.duration.as_secs().to_string())
        .current_dir(root()))
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "s" | "" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return Err("write for example 90s or 10m".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "it has no number".to_owned())?;
    match number.checked_mul(seconds) {
        Some(seconds) if seconds > 0 => Ok(Duration::from_secs(seconds)),
        _ => Err("it must be longer than nothing".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(duration("90"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("10m"), Ok(Duration::from_mins(10)));
        for bad in ["", "m", "0m", "1d", "-1s", "1.5m"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
