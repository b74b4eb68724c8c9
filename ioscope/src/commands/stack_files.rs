//! The files of `--folded` and `--flamegraph`: opened before anything is traced, while all rights are there and nobody has waited
//! in vain; written at the end.

use std::{
    fs::File,
    io::{self, BufWriter, ErrorKind, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use super::failure::Usage;
use crate::{
    cli::StatArgs,
    model::Model,
    output::flame::{self, FlameError},
    symbols::StackTree,
};

/// The files, as far as they are asked for.
pub(super) struct StackFiles {
    folded: Option<Target>,
    flamegraph: Option<Target>,
}

struct Target {
    path: PathBuf,
    /// `None` is standard output.
    file: Option<File>,
}

impl StackFiles {
    /// Makes the files, or empties those that are there.
    pub(super) fn open(args: &StatArgs) -> Result<Self> {
        let is_stdout = |path: &Option<PathBuf>| path.as_deref() == Some(Path::new("-"));
        if is_stdout(&args.folded) && is_stdout(&args.flamegraph) {
            bail!(Usage("--folded and --flamegraph cannot both be written to standard output"));
        }
        if (is_stdout(&args.folded) || is_stdout(&args.flamegraph)) && (args.json || args.interval.is_some())
        {
            bail!(Usage(
                "stacks on standard output are there instead of a summary: --json and --interval are one"
            ));
        }
        let open = |path: &Option<PathBuf>| path.as_ref().map(Target::open).transpose();
        Ok(Self { folded: open(&args.folded)?, flamegraph: open(&args.flamegraph)? })
    }

    /// Whether standard output is theirs.
    pub(super) fn take_stdout(&self) -> bool {
        [&self.folded, &self.flamegraph].into_iter().flatten().any(|target| target.file.is_none())
    }

    /// Writes all stalls that there were.
    pub(super) fn write(self, model: &Model) -> Result<()> {
        let Self { folded, flamegraph } = self;
        if folded.is_none() && flamegraph.is_none() {
            return Ok(());
        }
        let tree = flame::stalls(model);
        if tree.is_empty() {
            log::warn!("no stall was seen: there are no stacks");
        }
        if let Some(target) = folded {
            target.write(|out| flame::folded(out, &tree))?;
        }
        if let Some(target) = flamegraph {
            target.write(|out| draw(out, &tree))?;
        }
        Ok(())
    }
}

fn draw(out: &mut dyn Write, tree: &StackTree) -> io::Result<()> {
    if tree.is_empty() {
        return flame::svg_of_nothing(out, "no stall was seen");
    }
    flame::svg(out, tree, "Stalls").map_err(|error| match error {
        FlameError::Write(error) => error,
        FlameError::Empty => ErrorKind::InvalidInput.into(),
    })
}

impl Target {
    fn open(path: &PathBuf) -> Result<Self> {
        let file = if path == Path::new("-") {
            None
        } else {
            Some(File::create(path).with_context(|| format!("{} cannot be written", path.display()))?)
        };
        Ok(Self { path: path.clone(), file })
    }

    fn write(self, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
        let Some(file) = self.file else {
            let mut out = BufWriter::new(io::stdout().lock());
            return match write(&mut out).and_then(|()| out.flush()) {
                // Nobody reads any more.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
                written => written.context("standard output cannot be written"),
            };
        };
        let mut out = BufWriter::new(file);
        let written = write(&mut out).and_then(|()| out.flush());
        written.with_context(|| format!("{} cannot be written", self.path.display()))
    }
}
