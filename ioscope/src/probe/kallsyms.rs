//! Addresses of kernel symbols, from `/proc/kallsyms`.
//!
//! The file has over 100,000 lines and the kernel makes each of them anew for every reader (65 ms on a small
//! machine): it is read once, only when BTF has no other way to a variable, and only as far as needed. A kernel
//! without `CONFIG_KALLSYMS_ALL` lists functions and no variables; one that hides its addresses lists zeros.

use std::fs::File;
use std::io::{self, BufRead, BufReader};

/// Where the kernel lists its symbols.
const PATH: &str = "/proc/kallsyms";

/// Why there are no addresses.
#[derive(Debug, thiserror::Error)]
pub enum KallsymsError {
    /// The file cannot be read: a kernel without `CONFIG_KALLSYMS`, or no `/proc`.
    #[error("cannot read {PATH}: {0}")]
    Read(#[from] io::Error),
    /// Every address is shown as zero (`kallsyms_show_value` in the kernel's `kernel/ksyms_common.c`).
    #[error("the kernel hides the addresses in {PATH}: CAP_SYSLOG shows them")]
    Hidden,
}

/// The addresses of some symbols.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Symbols {
    found: Vec<(&'static str, u64)>,
}

impl Symbols {
    /// Looks the wanted symbols up in the running kernel.
    pub fn read(wanted: &[&'static str]) -> Result<Self, KallsymsError> {
        let file = BufReader::with_capacity(1 << 16, File::open(PATH)?);
        Self::scan(file, wanted)
    }

    /// The address of a symbol; `None` if the kernel does not list it. A per-CPU variable's can be a small
    /// number: the offset from the start of its section.
    pub fn address(&self, symbol: &str) -> Option<u64> {
        self.found.iter().find_map(|&(name, address)| (name == symbol).then_some(address))
    }

    /// One pass over lines of `ADDRESS TYPE NAME`, until everything is found. A line with a fourth field is a
    /// module's symbol and passed over.
    fn scan(mut lines: impl BufRead, wanted: &[&'static str]) -> Result<Self, KallsymsError> {
        let mut symbols = Self::default();
        let mut hidden = true;
        let mut line = Vec::with_capacity(128);
        while hidden || symbols.found.len() < wanted.len() {
            line.clear();
            if lines.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            let mut fields = line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
            let (Some(address), Some(_), Some(name), None) =
                (fields.next(), fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            // Zero is also the true address of the first per-CPU variable on older x86 kernels.
            hidden &= address.iter().all(|&digit| digit == b'0');
            let Some(symbol) = wanted.iter().find(|symbol| symbol.as_bytes() == name) else { continue };
            if symbols.address(symbol).is_none()
                && let Some(address) = hexadecimal(address)
            {
                symbols.found.push((symbol, address));
            }
        }
        if hidden { Err(KallsymsError::Hidden) } else { Ok(symbols) }
    }
}

fn hexadecimal(digits: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    const LISTING: &str = "\
0000000000000000 A fixed_percpu_data
000000000001fb40 A __preempt_count
ffffffff81000000 T _text
not a line
ffffffff82a00000 D __per_cpu_offset
ffffffffc0000000 d pcpu_hot\t[module]
";

    #[test]
    fn wanted_symbols_are_found() {
        let wanted = ["__per_cpu_offset", "__preempt_count", "pcpu_hot"];
        let symbols = Symbols::scan(LISTING.as_bytes(), &wanted).unwrap();
        assert_eq!(symbols.address("__preempt_count"), Some(0x1fb40));
        assert_eq!(symbols.address("__per_cpu_offset"), Some(0xffff_ffff_82a0_0000));
        // A module's symbol is not the kernel's, and what was not asked for is not kept.
        assert_eq!(symbols.address("pcpu_hot"), None);
        assert_eq!(symbols.address("_text"), None);
    }

    #[test]
    fn reading_stops_when_everything_is_found() {
        let endless = io::Cursor::new(LISTING).chain(io::repeat(b'x'));
        let symbols = Symbols::scan(BufReader::new(endless), &["_text"]).unwrap();
        assert_eq!(symbols.address("_text"), Some(0xffff_ffff_8100_0000));
    }

    #[test]
    fn zeros_throughout_are_hidden_addresses() {
        let hidden = "0000000000000000 A __preempt_count\n0000000000000000 T _text\n";
        assert!(matches!(Symbols::scan(hidden.as_bytes(), &["__preempt_count"]), Err(KallsymsError::Hidden)));
        assert!(matches!(Symbols::scan(&b""[..], &["_text"]), Err(KallsymsError::Hidden)));
    }

    #[test]
    fn the_running_kernel() {
        match Symbols::read(&["_stext", "no_such_symbol_anywhere"]) {
            Ok(symbols) => {
                assert!(symbols.address("_stext").is_some());
                assert!(symbols.address("no_such_symbol_anywhere").is_none());
            }
            Err(error) => eprintln!("SKIPPED: {error}"),
        }
    }
}
