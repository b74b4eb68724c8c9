//! From addresses to names, and from registers and a piece of stack to addresses.
//!
//! Pure user space: it reads files and /proc, and knows nothing of probes, the model or screens. It needs nothing that may not be
//! there: no program, no service, no network. What is missing costs names: a stack is never refused.
//!
//! | of an address | comes from |
//! | --- | --- |
//! | kernel function | `/proc/kallsyms` |
//! | function, inlined functions, source line | the ELF file's debug information, or that of its separate debug file (by build-id or `.gnu_debuglink`); else its symbol table; else `MODULE+0xOFFSET` |
//! | function made at run time | the perf map that the runtime writes to `/tmp` |
//!
//! Files are opened as the process sees them: through `/proc/PID/map_files` where that is allowed (it takes
//! `CAP_SYS_ADMIN` or `CAP_CHECKPOINT_RESTORE`, and reaches deleted libraries too), else below `/proc/PID/root`.
//!
//! What it costs, in CPU time, where reading `/proc/PID/stat` costs 3.6 µs (release build, AMD EPYC, 2026-11-24; `tests/symbols/cost.rs`
//! measures it again):
//!
//! | | a small C program, 11 addresses | node, 19 addresses |
//! | --- | --- | --- |
//! | opening all that is mapped | 0.7 ms | 2.2 ms |
//! | first unwind | 0.2 ms | 4.4 ms |
//! | every other | 0.44 µs | 0.84 µs: 23 million addresses a second |
//! | first names, in a libc with debug information | 30 ms | 33 ms |
//! | every other time | 0.6 µs | 1.4 µs |

mod debug_file;
mod frame;
mod jit;
mod kernel;
mod maps;
mod module;
mod process;
mod root;
mod tree;
mod unwind;

use std::{collections::HashMap, fmt};

use kernel::KernelSymbols;
use process::{Modules, Process, unnamed};

pub use frame::{Frame, Location, Origin, Stack};
pub use kernel::KernelSymbolsError;
pub use process::ProcessError;
pub use tree::{StackTree, TreeNode};

/// The registers of a thread in user code that unwinding starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// The instruction pointer.
    pub ip: u64,
    /// The stack pointer.
    pub sp: u64,
    /// The frame pointer: `rbp`, `x29`.
    pub fp: u64,
    /// The link register: `x30`. Not used on `x86_64`.
    pub lr: u64,
}

/// Where a walk up a stack ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// At the outermost function: the stack is whole.
    Bottom,
    /// Before: the copy of the stack ended, or the way to the caller was not found.
    Cut,
}

/// What unwinding found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unwound {
    /// The instruction pointer, then the return addresses, innermost first: what [`Resolver::resolve`] takes as
    /// `user`. Where a signal interrupted, and not a call, the address is the one behind it, too.
    pub addresses: Vec<u64>,
    /// Where it ended.
    pub end: End,
}

/// So many processes are known at once; the one that was not asked about for longest makes room.
const MOST_PROCESSES: usize = 128;

/// Names addresses and unwinds stacks, of any number of processes.
///
/// What was read is kept for as long as a process runs the same program, and when it has ended until
/// [`Self::forget`] or until many others were asked about. It is not `Send`: make it in the thread that uses it, and not in one that must not
/// wait, since the symbols of a big program take their time when they are first needed. Make it before privileges are given
/// up: `/proc/kallsyms` is opened here.
pub struct Resolver {
    kernel: KernelSymbols,
    processes: HashMap<u32, Process>,
    modules: Modules,
    /// Counts questions, to tell what was not asked about for longest.
    now: u64,
}

impl Resolver {
    /// Nothing is read yet.
    pub fn new() -> Self {
        Self { kernel: KernelSymbols::open(), processes: HashMap::new(), modules: Modules::default(), now: 0 }
    }

    /// Whether kernel functions have names.
    ///
    /// # Errors
    /// When the kernel does not list them, or not to us.
    pub fn kernel_symbols(&mut self) -> Result<(), &KernelSymbolsError> {
        self.kernel.check()
    }

    /// Opens all that the process has mapped, so that its addresses can still be named when it has ended. `pid` is
    /// the process (thread group), here as in all that follows.
    ///
    /// # Errors
    /// When the process has ended, or what it has mapped cannot be read: its addresses will have no
    /// names. Single files that cannot be opened are no error.
    pub fn prepare(&mut self, pid: u32) -> Result<(), ProcessError> {
        let (process, modules) = self.process(pid)?;
        process.prepare(modules);
        Ok(())
    }

    /// Walks up a stack from a thread's registers in user code and a copy of its stack, of which the first byte
    /// is the one that the stack pointer points to. At most 512 frames are found.
    ///
    /// Of a process that cannot be read, the first address is all that is found.
    pub fn unwind(&mut self, pid: u32, registers: &Registers, stack: &[u8]) -> Unwound {
        match self.process(pid) {
            Ok((process, modules)) => process.unwind(registers, stack, modules),
            Err(_) => Unwound { addresses: vec![registers.ip], end: End::Cut },
        }
    }

    /// Names a stack: its kernel and user addresses, innermost first; in each, the first is where the
    /// thread is, the others are return addresses. Never fails: what cannot be named is shown as an address.
    pub fn resolve(&mut self, pid: u32, kernel: &[u64], user: &[u64]) -> Stack {
        let mut frames = Vec::with_capacity(kernel.len() + user.len());
        for (depth, address) in kernel.iter().enumerate() {
            frames.push(self.kernel_frame(*address, depth > 0));
        }
        match self.process(pid) {
            Ok((process, modules)) => {
                for (depth, address) in user.iter().enumerate() {
                    process.name(*address, depth > 0, modules, &mut frames);
                }
            }
            Err(_) => frames.extend(user.iter().map(|address| unnamed(*address, Origin::User))),
        }
        Stack { frames }
    }

    /// Lets go of all that is kept of a process.
    pub fn forget(&mut self, pid: u32) {
        self.processes.remove(&pid);
    }

    fn kernel_frame(&mut self, address: u64, is_return: bool) -> Frame {
        match self.kernel.name(if is_return { address.saturating_sub(1) } else { address }) {
            Some((name, module)) => {
                Frame { name, module, location: None, inlined: false, origin: Origin::Kernel }
            }
            None => unnamed(address, Origin::Kernel),
        }
    }

    /// The process as it is now, or as it was when it ended.
    fn process(&mut self, pid: u32) -> Result<(&mut Process, &mut Modules), ProcessError> {
        self.now += 1;
        if !self.processes.contains_key(&pid) {
            let opened = Process::open(pid)?;
            if self.processes.len() >= MOST_PROCESSES
                && let Some((&oldest, _)) = self.processes.iter().min_by_key(|(_, process)| process.used)
            {
                self.processes.remove(&oldest);
            }
            self.processes.insert(pid, opened);
        }
        let process = self.processes.get_mut(&pid).ok_or(ProcessError::Gone(pid))?;
        process.used = self.now;
        process.refresh();
        Ok((process, &mut self.modules))
    }
}

impl Default for Resolver {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Resolver").field("processes", &self.processes.len()).finish_non_exhaustive()
    }
}
