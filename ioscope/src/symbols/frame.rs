//! What an address is called: frames and stacks of them.

use std::{fmt, sync::Arc};

/// Whose code a frame is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// The kernel's.
    Kernel,
    /// The program's, or a library's: code from a file.
    User,
    /// Made at run time: by a just-in-time compiler that lists its functions in a perf map.
    Jit,
}

/// A place in source code.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Location {
    /// The file, as the compiler names it: absolute, or relative to where it was compiled.
    pub file: Arc<str>,
    /// The line, from 1; `None` where only the file is known.
    pub line: Option<u32>,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.file),
            None => f.write_str(&self.file),
        }
    }
}

/// One function of a stack.
///
/// Its texts come from files that belong to the traced program: control characters in them are replaced, so
/// that they can be written to a terminal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Frame {
    /// The function's name, demangled; where there is none `MODULE+0xOFFSET`, the offset being the one in the
    /// file as the linker numbers it; where there is no module either, the address: `0x7f12…`.
    pub name: Arc<str>,
    /// The file that the code is from, as the program's own mount namespace names it; `[vdso]`; the name of a
    /// kernel module.
    pub module: Option<Arc<str>>,
    /// Where in the source, if debug information or a perf map says so. Of a caller, the line of the call.
    pub location: Option<Location>,
    /// Compiled into the next frame (its caller), which has the same address.
    pub inlined: bool,
    /// Whose code it is.
    pub origin: Origin,
}

/// A stack, innermost frame first: kernel frames before those of the program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Stack {
    /// The frames.
    pub frames: Vec<Frame>,
}

/// A text from a traced program's file, fit for a terminal: control characters are replaced.
pub(super) fn printable(text: &str) -> Arc<str> {
    if text.contains(char::is_control) {
        text.replace(char::is_control, "\u{fffd}").into()
    } else {
        text.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(&*printable("spin\x1b[2J(\n)"), "spin\u{fffd}[2J(\u{fffd})");
        assert_eq!(&*printable("grüße<T>"), "grüße<T>");
    }

    #[test]
    fn a_location_reads_as_compilers_write_it() {
        let mut location = Location { file: "src/a.c".into(), line: Some(7) };
        assert_eq!(location.to_string(), "src/a.c:7");
        location.line = None;
        assert_eq!(location.to_string(), "src/a.c");
    }
}
