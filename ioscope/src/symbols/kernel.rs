//! Names of kernel functions, from `/proc/kallsyms`.
//!
//! Opened when made, read when first needed: whether a reader sees addresses is decided at the opening
//! (`kallsyms_open` in the kernel's `kernel/kallsyms.c`), so that a file opened with `CAP_SYSLOG` shows them
//! after that capability is gone. Reading takes about 0.1 s and is done once: modules loaded later have no names.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    sync::Arc,
};

use super::frame::printable;

/// Where the kernel lists its symbols.
const PATH: &str = "/proc/kallsyms";

/// An address further than this from the function before it is in none: no function is as long.
const LONGEST: u64 = 1 << 20;

/// Why kernel functions have no names.
#[derive(Debug, thiserror::Error)]
pub enum KernelSymbolsError {
    /// The file cannot be read: a kernel without `CONFIG_KALLSYMS`, or no `/proc`.
    #[error("cannot read {PATH}: {0}")]
    Read(#[from] io::Error),
    /// Every address is shown as zero (`kallsyms_show_value` in the kernel's `kernel/ksyms_common.c`).
    #[error("the kernel hides the addresses in {PATH}: CAP_SYSLOG shows them")]
    Hidden,
}

/// The kernel's functions.
#[derive(Debug)]
pub(super) struct KernelSymbols(State);

#[derive(Debug)]
enum State {
    Open(File),
    Read(Table),
    Failed(KernelSymbolsError),
}

#[derive(Debug, Default)]
struct Table {
    functions: Vec<Function>,
    names: String,
    modules: Vec<Arc<str>>,
}

/// A function: where it begins, and where in `names` its name does; it ends where the next one's begins.
#[derive(Clone, Copy, Debug)]
struct Function {
    address: u64,
    name: u32,
    length: u16,
    /// An index into `modules`, plus one.
    module: u16,
}

impl KernelSymbols {
    pub(super) fn open() -> Self {
        Self(File::open(PATH).map_or_else(|error| State::Failed(error.into()), State::Open))
    }

    /// The function with this address, and its module.
    pub(super) fn name(&mut self, address: u64) -> Option<(Arc<str>, Option<Arc<str>>)> {
        let table = self.table().ok()?;
        let after = table.functions.partition_point(|function| function.address <= address);
        let function = table.functions.get(after.checked_sub(1)?)?;
        if address - function.address > LONGEST {
            return None;
        }
        let start = function.name as usize;
        let name = table.names.get(start..start + usize::from(function.length))?;
        let module = usize::from(function.module).checked_sub(1);
        Some((printable(name), module.and_then(|module| table.modules.get(module)).cloned()))
    }

    pub(super) fn check(&mut self) -> Result<(), &KernelSymbolsError> {
        self.table().map(|_| ())
    }

    fn table(&mut self) -> Result<&Table, &KernelSymbolsError> {
        if let State::Open(file) = &self.0 {
            let read = Table::read(BufReader::with_capacity(1 << 16, file));
            self.0 = read.map_or_else(State::Failed, State::Read);
        }
        match &self.0 {
            State::Read(table) => Ok(table),
            State::Failed(error) => Err(error),
            State::Open(_) => unreachable!("it was just read"),
        }
    }
}

impl Table {
    /// Lines of `ADDRESS TYPE NAME [MODULE]`; functions only (`t`, `w`, and what is global in capitals).
    fn read(mut lines: impl BufRead) -> Result<Self, KernelSymbolsError> {
        let mut table = Self::default();
        let mut line = String::with_capacity(128);
        loop {
            line.clear();
            if lines.read_line(&mut line)? == 0 {
                break;
            }
            let mut fields = line.split_ascii_whitespace();
            let (Some(address), Some("t" | "T" | "w" | "W"), Some(name)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            let Some(address) = u64::from_str_radix(address, 16).ok().filter(|address| *address != 0) else {
                continue;
            };
            table.push(address, name, fields.next());
        }
        if table.functions.is_empty() {
            return Err(KernelSymbolsError::Hidden);
        }
        table.functions.sort_by_key(|function| function.address);
        table.functions.shrink_to_fit();
        table.names.shrink_to_fit();
        Ok(table)
    }

    fn push(&mut self, address: u64, name: &str, module: Option<&str>) {
        let module = module.map(|module| module.trim_matches(['[', ']']));
        let module = match module {
            None => 0,
            // A module's functions come one after the other.
            Some(module) if self.modules.last().is_some_and(|last| **last == *module) => self.modules.len(),
            Some(module) => {
                self.modules.push(printable(module));
                self.modules.len()
            }
        };
        let (Ok(module), Ok(length), Ok(start)) =
            (u16::try_from(module), u16::try_from(name.len()), u32::try_from(self.names.len()))
        else {
            return;
        };
        self.names.push_str(name);
        self.functions.push(Function { address, name: start, length, module });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "\
0000000000000000 A fixed_percpu_data
ffffffff81001000 T do_it
ffffffff81000000 T _text
ffffffff81002000 D some_data
ffffffff81003000 t later
not a line
ffffffffc0000000 t in_module\t[nf_tables]
ffffffffc0001000 t bpf_prog_6deef7357e7b4530_turn\t[bpf]
";

    fn symbols(listing: &str) -> KernelSymbols {
        KernelSymbols(Table::read(listing.as_bytes()).map_or_else(State::Failed, State::Read))
    }

    fn name(symbols: &mut KernelSymbols, address: u64) -> Option<String> {
        let (name, module) = symbols.name(address)?;
        Some(module.map_or_else(|| name.to_string(), |module| format!("{name} [{module}]")))
    }

    #[test]
    fn an_address_has_the_name_of_the_function_before_it() {
        let mut symbols = symbols(LISTING);
        let mut name = |address| name(&mut symbols, address);
        assert_eq!(name(0xffff_ffff_8100_0fff).as_deref(), Some("_text"));
        assert_eq!(name(0xffff_ffff_8100_1000).as_deref(), Some("do_it"));
        assert_eq!(name(0xffff_ffff_8100_2fff).as_deref(), Some("do_it"));
        assert_eq!(name(0xffff_ffff_c000_0010).as_deref(), Some("in_module [nf_tables]"));
        assert_eq!(name(0xffff_ffff_c000_1010).as_deref(), Some("bpf_prog_6deef7357e7b4530_turn [bpf]"));
        assert_eq!(name(0xffff_ffff_9000_0000), None, "too far from any");
        assert_eq!(name(0x5555_5555_0000), None, "before the first");
        assert_eq!(name(u64::MAX), None);
    }

    #[test]
    fn zeros_throughout_are_hidden_addresses() {
        let mut symbols = symbols("0000000000000000 T _text\n0000000000000000 t do_it\n");
        assert!(matches!(symbols.check(), Err(KernelSymbolsError::Hidden)));
        assert!(symbols.name(0xffff_ffff_8100_0000).is_none());
    }

    #[test]
    fn a_kernel_without_the_file_has_no_names() {
        let mut symbols = KernelSymbols(State::Failed(io::Error::from(io::ErrorKind::NotFound).into()));
        assert!(symbols.name(0xffff_ffff_8100_0000).is_none());
        assert!(symbols.check().unwrap_err().to_string().starts_with("cannot read /proc/kallsyms: "));
    }

    /// Against the file itself, read the plain way.
    #[test]
    fn the_running_kernel() {
        let mut symbols = KernelSymbols::open();
        if let Err(error) = symbols.check() {
            return eprintln!("SKIPPED: {error}");
        }
        let listing = std::fs::read_to_string(PATH).unwrap();
        let address = |wanted: &str| {
            let line = listing.lines().find(|line| line.ends_with(wanted)).unwrap();
            u64::from_str_radix(line.split(' ').next().unwrap(), 16).unwrap()
        };
        for function in ["schedule", "do_sys_poll"] {
            let address = address(&format!(" {function}"));
            // Another name of the same function would do as well; these have one only.
            assert_eq!(name(&mut symbols, address + 4).as_deref(), Some(function));
        }
    }
}
