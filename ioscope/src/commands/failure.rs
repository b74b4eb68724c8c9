//! What a failure says, and the exit code that it gives.

use std::{io::ErrorKind, process::ExitCode};

use crate::{probe::launch::LaunchError, tui::ConfigFileError};

/// The command line asks for something that makes no sense, in a way that clap cannot tell.
#[derive(Debug, thiserror::Error)]
#[error("{0} (`ioscope --help` says more)")]
pub(super) struct Usage(pub(super) &'static str);

/// As clap exits.
const USAGE: u8 = 2;
/// As env(1), nohup(1) and shells exit when the command is there and cannot be run,
const CANNOT_RUN: u8 = 126;
/// and when it is not there.
const NOT_FOUND: u8 = 127;

/// The exit code.
pub(super) fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<Usage>() || error.is::<ConfigFileError>() {
        return ExitCode::from(USAGE);
    }
    match error.downcast_ref::<LaunchError>() {
        Some(LaunchError::Run { source, .. }) if source.kind() == ErrorKind::NotFound => {
            ExitCode::from(NOT_FOUND)
        }
        Some(LaunchError::Run { .. }) => ExitCode::from(CANNOT_RUN),
        _ => ExitCode::FAILURE,
    }
}

/// The error and its causes in a line; a cause that has been told already is not told again.
pub(super) fn message(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cannot_run(kind: ErrorKind) -> anyhow::Error {
        LaunchError::Run { program: "server".to_owned(), source: kind.into() }.into()
    }

    #[test]
    fn exit_codes_are_those_of_other_tools() {
        for (error, code) in [
            (anyhow::anyhow!("whatever"), 1),
            (Usage("nothing to trace").into(), 2),
            (cannot_run(ErrorKind::PermissionDenied), 126),
            (cannot_run(ErrorKind::NotFound), 127),
        ] {
            // It is comparable by its debug form only.
            assert_eq!(format!("{:?}", exit_code(&error)), format!("{:?}", ExitCode::from(code)));
        }
    }

    #[test]
    fn causes_are_told_once() {
        assert_eq!(message(&cannot_run(ErrorKind::NotFound)), "server cannot be run: entity not found");
        let error = anyhow::anyhow!("the disk is full").context("standard output cannot be written");
        assert_eq!(message(&error), "standard output cannot be written: the disk is full");
    }
}
