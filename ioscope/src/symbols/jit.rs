//! Names of functions that were made at run time, from the perf map that their runtime writes
//! (`tools/perf/Documentation/jit-interface.txt` in the kernel's source): node with `--perf-basic-prof`, Python from
//! 3.12 on with `-X perf`, Java with an agent.
//!
//! The file grows while the program runs: only what was added is read, and a line that is not finished waits for its end.
//! A runtime that moves functions, or reuses the memory of one, writes another line: the later one counts.
//! It belongs to the traced program, which may write anything into it.

use std::{
    collections::BTreeMap,
    fs::File,
    os::unix::fs::{FileExt, MetadataExt},
    sync::Arc,
};

use super::{Location, frame::printable};

/// No more than this is read of one file.
const MOST_BYTES: u64 = 256 << 20;

/// One read.
const CHUNK: usize = 1 << 20;

/// A longer line is no function's.
const LONGEST_LINE: usize = 64 << 10;

/// What a perf map says, as far as it was read.
#[derive(Debug, Default)]
pub(super) struct PerfMap {
    /// Which file it was read from: another one is read from its start.
    file: Option<(u64, u64)>,
    /// How much of it was read.
    read: u64,
    /// The start of a line whose end is not there yet.
    unfinished: Vec<u8>,
    functions: BTreeMap<u64, Function>,
}

#[derive(Debug)]
struct Function {
    end: u64,
    name: Box<str>,
}

/// A function, as its runtime calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct JitFunction {
    pub(super) name: Arc<str>,
    pub(super) location: Option<Location>,
}

impl PerfMap {
    /// Reads what was added to the file since.
    pub(super) fn update(&mut self, file: &File) -> std::io::Result<()> {
        let meta = file.metadata()?;
        let this = Some((meta.dev(), meta.ino()));
        if self.file != this || meta.len() < self.read {
            *self = Self { file: this, ..Self::default() };
        }
        let end = meta.len().min(MOST_BYTES);
        let mut chunk = vec![0; CHUNK.min(usize::try_from(end - self.read.min(end)).unwrap_or(CHUNK))];
        while self.read < end {
            let count = file.read_at(&mut chunk, self.read)?;
            if count == 0 {
                break;
            }
            self.read += count as u64;
            self.add(&chunk[..count]);
        }
        Ok(())
    }

    /// The function that has this address.
    pub(super) fn find(&self, address: u64) -> Option<JitFunction> {
        let (_, function) = self.functions.range(..=address).next_back()?;
        (address < function.end).then(|| split(&function.name))
    }

    fn add(&mut self, bytes: &[u8]) {
        let mut unfinished = std::mem::take(&mut self.unfinished);
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            if line.last() != Some(&b'\n') {
                if unfinished.len() < LONGEST_LINE {
                    unfinished.extend_from_slice(line);
                }
            } else if unfinished.is_empty() {
                self.add_line(line);
            } else {
                unfinished.extend_from_slice(line);
                self.add_line(&unfinished);
                unfinished.clear();
            }
        }
        self.unfinished = unfinished;
    }

    /// `START SIZE NAME`, numbers in hexadecimal. Anything else is passed over.
    fn add_line(&mut self, line: &[u8]) {
        let line = String::from_utf8_lossy(line.trim_ascii());
        let mut fields = line.splitn(3, ' ');
        let mut number = || {
            let digits = fields.next()?;
            u64::from_str_radix(digits.strip_prefix("0x").unwrap_or(digits), 16).ok()
        };
        let (Some(start), Some(size)) = (number(), number()) else { return };
        let (Some(name), Some(end)) = (fields.next(), start.checked_add(size)) else { return };
        if size == 0 || name.is_empty() {
            return;
        }
        // What lay there before is gone.
        while let Some((&before, function)) = self.functions.range(..end).next_back() {
            if function.end <= start {
                break;
            }
            self.functions.remove(&before);
        }
        self.functions.insert(start, Function { end, name: name.into() });
    }
}

/// Takes the place in the source off a name, where its runtime is known to put one.
///
/// V8 writes `JS:*turn file:///srv/app.js:12:3` (older ones `LazyCompile:*turn /srv/app.js:12:3`), Python
/// `py::turn:/srv/app.py`.
fn split(text: &str) -> JitFunction {
    let (name, location) = javascript(text).or_else(|| python(text)).unwrap_or((text, None));
    JitFunction { name: printable(name), location }
}

fn javascript(text: &str) -> Option<(&str, Option<Location>)> {
    let (kind, _) = text.split_once(':')?;
    if !["JS", "LazyCompile", "Function", "Eval", "Script", "Interpreter"].contains(&kind) {
        return None;
    }
    let (name, place) = text.split_once(' ')?;
    let (place, column) = place.rsplit_once(':')?;
    let (file, line) = place.rsplit_once(':')?;
    column.parse::<u32>().ok()?;
    let line = Some(line.parse().ok()?);
    let file = file.strip_prefix("file://").unwrap_or(file);
    Some((name, Some(Location { file: printable(file), line })))
}

fn python(text: &str) -> Option<(&str, Option<Location>)> {
    let (name, file) = text.strip_prefix("py::")?.split_once(':')?;
    Some((&text[.."py::".len() + name.len()], Some(Location { file: printable(file), line: None })))
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, Write};

    use super::*;

    fn map(text: &str) -> PerfMap {
        let mut map = PerfMap::default();
        map.add(text.as_bytes());
        map
    }

    fn name(map: &PerfMap, address: u64) -> Option<String> {
        map.find(address).map(|function| function.name.to_string())
    }

    #[test]
    fn functions_are_found_by_address() {
        let map = map("1000 10 first\n0x1010 8 second one\n2000 100 third\n");
        assert_eq!(name(&map, 0xfff), None);
        assert_eq!(name(&map, 0x1000).as_deref(), Some("first"));
        assert_eq!(name(&map, 0x100f).as_deref(), Some("first"));
        assert_eq!(name(&map, 0x1010).as_deref(), Some("second one"));
        assert_eq!(name(&map, 0x1018), None);
        assert_eq!(name(&map, 0x20ff).as_deref(), Some("third"));
    }

    #[test]
    fn what_was_written_later_counts() {
        let map = map("1000 10 a\n1010 10 b\n1020 10 c\n1040 10 d\n1008 20 moved\n");
        assert_eq!(name(&map, 0x1000), None, "partly overwritten: it is gone");
        assert_eq!(name(&map, 0x1008).as_deref(), Some("moved"));
        assert_eq!(name(&map, 0x1027).as_deref(), Some("moved"));
        assert_eq!(name(&map, 0x1028), None);
        assert_eq!(name(&map, 0x1040).as_deref(), Some("d"));
    }

    #[test]
    fn lines_that_are_no_functions_are_passed_over() {
        let text = "\n1000\nzz 10 x\n1000 zz x\n1000 0 empty\n1000 10\n1000 10 \nffffffffffffffff 10 over\n\u{0}\n\
                    3000 10 good\n";
        let map = map(text);
        assert_eq!(map.functions.len(), 1);
        assert_eq!(name(&map, 0x3000).as_deref(), Some("good"));
    }

    #[test]
    fn a_name_is_printable_whatever_the_program_wrote() {
        let mut map = PerfMap::default();
        map.add(b"1000 10 a\xff\x1b[31m\n");
        assert_eq!(name(&map, 0x1000).as_deref(), Some("a\u{fffd}\u{fffd}[31m"));
    }

    #[test]
    fn a_file_is_read_as_it_grows_and_anew_when_it_is_another() {
        let mut file = tempfile::tempfile().unwrap();
        let mut map = PerfMap::default();
        file.write_all(b"1000 10 first\n2000 1").unwrap();
        map.update(&file).unwrap();
        assert_eq!(name(&map, 0x1000).as_deref(), Some("first"));
        assert_eq!(name(&map, 0x2000), None);
        file.write_all(b"0 second").unwrap();
        map.update(&file).unwrap();
        assert_eq!(name(&map, 0x2000), None, "its name may go on");
        file.write_all(b" part\n").unwrap();
        map.update(&file).unwrap();
        assert_eq!(name(&map, 0x2000).as_deref(), Some("second part"));
        assert_eq!(name(&map, 0x1000).as_deref(), Some("first"));

        file.set_len(0).unwrap();
        file.rewind().unwrap();
        file.write_all(b"1000 10 new\n").unwrap();
        map.update(&file).unwrap();
        assert_eq!((name(&map, 0x1000).as_deref(), name(&map, 0x2000)), (Some("new"), None));

        let mut other = tempfile::tempfile().unwrap();
        other.write_all(b"5000 10 other, and longer than the one before\n").unwrap();
        map.update(&other).unwrap();
        assert_eq!(name(&map, 0x1000), None);
        assert!(name(&map, 0x5000).is_some());
    }

    #[test]
    fn lines_across_chunks_are_whole() {
        let mut file = tempfile::tempfile().unwrap();
        let count = 100_000;
        let line = |i: u64| format!("{:x} 10 function_{i}\n", 0x1000 + i * 16).into_bytes();
        let text: Vec<u8> = (0..count).flat_map(line).collect();
        assert!(text.len() > 2 * CHUNK);
        file.write_all(&text).unwrap();
        let mut map = PerfMap::default();
        map.update(&file).unwrap();
        for i in (0..count).step_by(7) {
            assert_eq!(name(&map, 0x1000 + i * 16 + 15), Some(format!("function_{i}")));
        }
    }

    #[test]
    fn places_in_the_source_are_taken_off_the_names() {
        let of = |text: &str| {
            let JitFunction { name, location } = split(text);
            format!("{name} @ {}", location.map_or_else(|| "-".to_owned(), |at| at.to_string()))
        };
        assert_eq!(of("JS:*turn file:///srv/app.js:12:3"), "JS:*turn @ /srv/app.js:12");
        assert_eq!(of("LazyCompile:~turn /srv/a b.js:1:30"), "LazyCompile:~turn @ /srv/a b.js:1");
        assert_eq!(of("JS:^ node:internal/main:7:1"), "JS:^ @ node:internal/main:7");
        assert_eq!(of("JS:*turn"), "JS:*turn @ -");
        assert_eq!(of("JS:*turn x:y"), "JS:*turn x:y @ -");
        assert_eq!(of("Builtin:CEntry a:1:2"), "Builtin:CEntry a:1:2 @ -");
        assert_eq!(of("py::turn:/srv/app.py"), "py::turn @ /srv/app.py");
        assert_eq!(of("Lcom/App;::turn(I)V"), "Lcom/App;::turn(I)V @ -");
    }
}
