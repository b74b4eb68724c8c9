//! Walking up a stack by the unwind tables of the code, or by frame pointers where code has no tables.
//!
//! What tables framehop takes, it takes: `.eh_frame`, with or without its index, else `.debug_frame`. What it does not
//! know is how to get from a signal handler to what was interrupted; that is done here.
//!
//! A walk is bounded by [`MOST_FRAMES`]. A table can hold a small program (a DWARF expression), which framehop runs
//! without a bound: a traced program that wants to can keep its tracer's resolver busy with one that never ends.

use std::{collections::HashMap, ops::Range, rc::Rc};

#[cfg(any(target_arch = "aarch64", test))]
use framehop::aarch64::{CacheAarch64, PtrAuthMask, UnwindRegsAarch64, UnwinderAarch64};
#[cfg(any(target_arch = "x86_64", test))]
use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{FrameAddress, Module as Unwindable, Unwinder};

use super::{
    End, Registers, Unwound,
    module::{Bytes, Module, contained},
};

/// No stack is followed further.
pub(super) const MOST_FRAMES: usize = 512;

/// So many bytes of instructions are looked at.
const LEAVING: usize = 5;

/// So many addresses are remembered; then it starts anew.
const MOST_REMEMBERED: usize = 4096;

/// What differs between processors.
pub(super) trait Machine {
    type Unwinder: Unwinder<Module = Unwindable<Bytes>, Cache = Self::Cache, UnwindRegs = Self::Registers>
        + Default;
    type Cache: Default;
    type Registers;

    /// The instructions that a signal handler returns to: they make the call `rt_sigreturn`.
    const RETURN_FROM_SIGNAL: &[u8];
    /// Where from the stack pointer, at these instructions, the interrupted code's registers are: instruction pointer, stack
    /// pointer, frame pointer, link register.
    const INTERRUPTED: [u64; 4];

    /// The stack pointer and the frame pointer.
    fn pointers(registers: &Self::Registers) -> (u64, u64);

    /// How far up from the stack pointer the return address is, if these instructions leave the function with no more ado.
    fn to_return_address(instructions: [u8; LEAVING]) -> Option<u64>;

    /// The registers to begin with; `highest` is an address that no code of the process is above.
    fn registers(registers: &Registers, highest: u64) -> Self::Registers;
}

/// AMD64.
#[cfg(any(target_arch = "x86_64", test))]
pub(super) struct X86_64;

/// ARM, 64 bit.
#[cfg(any(target_arch = "aarch64", test))]
pub(super) struct Aarch64;

/// What this is compiled for.
#[cfg(target_arch = "x86_64")]
pub(super) type Native = X86_64;
/// What this is compiled for.
#[cfg(target_arch = "aarch64")]
pub(super) type Native = Aarch64;

#[cfg(any(target_arch = "x86_64", test))]
impl Machine for X86_64 {
    type Unwinder = UnwinderX86_64<Bytes>;
    type Cache = CacheX86_64;
    type Registers = UnwindRegsX86_64;

    /// `mov $15, %rax; syscall`.
    const RETURN_FROM_SIGNAL: &[u8] = &[0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];
    /// `struct ucontext` with `struct sigcontext_64` (`arch/x86/include/uapi/asm/sigcontext.h`). There is no
    /// link register.
    const INTERRUPTED: [u64; 4] = [168, 160, 120, 120];

    fn pointers(registers: &Self::Registers) -> (u64, u64) {
        (registers.sp(), registers.bp())
    }

    /// `add $N, %rsp; ret`.
    fn to_return_address(instructions: [u8; LEAVING]) -> Option<u64> {
        match instructions {
            [0x48, 0x83, 0xc4, pushed @ 0..0x80, 0xc3] => Some(u64::from(pushed)),
            _ => None,
        }
    }

    fn registers(registers: &Registers, _: u64) -> Self::Registers {
        UnwindRegsX86_64::new(registers.ip, registers.sp, registers.fp)
    }
}

#[cfg(any(target_arch = "aarch64", test))]
impl Machine for Aarch64 {
    type Unwinder = UnwinderAarch64<Bytes>;
    type Cache = CacheAarch64;
    type Registers = UnwindRegsAarch64;

    /// `mov x8, #139; svc #0`.
    const RETURN_FROM_SIGNAL: &[u8] = &[0x68, 0x11, 0x80, 0xd2, 0x01, 0, 0, 0xd4];
    /// `struct rt_sigframe` (`arch/arm64/kernel/signal.c`): a `siginfo` of 128 bytes, then a `ucontext`, in which
    /// `struct sigcontext` is behind room for 1,024 signals.
    const INTERRUPTED: [u64; 4] = [568, 560, 544, 552];

    fn pointers(registers: &Self::Registers) -> (u64, u64) {
        (registers.sp(), registers.fp())
    }

    /// Frame pointers are kept by everybody there.
    fn to_return_address(_: [u8; LEAVING]) -> Option<u64> {
        None
    }

    /// Return addresses may be signed in bits that no address of user space uses.
    fn registers(registers: &Registers, highest: u64) -> Self::Registers {
        let mask = PtrAuthMask::from_max_known_address(highest);
        UnwindRegsAarch64::new_with_ptr_auth_mask(mask, registers.lr, registers.sp, registers.fp)
    }
}

/// Code that a stack may go through.
pub(super) struct Code {
    /// Where it is mapped.
    pub(super) range: Range<u64>,
    /// The file, and the address of the start of `range` in it. Without a file, frame pointers are followed.
    pub(super) module: Option<(Rc<Module>, u64)>,
}

/// What a stack goes through: the code of a process.
pub(super) trait Space {
    /// What is at an address; `None` if no code is.
    fn code(&mut self, address: u64) -> Option<Code>;

    /// Reads instructions; `false` if they cannot be read.
    fn instructions(&mut self, address: u64, bytes: &mut [u8]) -> bool;
}

/// Unwinds stacks of one process.
pub(super) struct Walker<M: Machine = Native> {
    unwinder: M::Unwinder,
    cache: M::Cache,
    /// The starts of the ranges whose tables the unwinder has.
    known: Vec<u64>,
    /// Addresses in files that return from signal handlers somewhere: whether they do it here.
    from_signal: HashMap<u64, bool>,
    /// Return addresses in code without a file: what [`Machine::to_return_address`] says of them.
    leaving: HashMap<u64, Option<u64>>,
}

impl<M: Machine> Default for Walker<M> {
    fn default() -> Self {
        Self {
            unwinder: M::Unwinder::default(),
            cache: M::Cache::default(),
            known: Vec::new(),
            from_signal: HashMap::new(),
            leaving: HashMap::new(),
        }
    }
}

impl<M: Machine> Walker<M> {
    /// Walks up. `stack` are the bytes from the stack pointer on, `highest` an address that no code is above. A stack
    /// that leads to where no code is was misread, and is cut there.
    pub(super) fn walk(
        &mut self,
        registers: &Registers,
        highest: u64,
        stack: &[u8],
        space: &mut impl Space,
    ) -> Unwound {
        let mut read = |address: u64| word(stack, address.checked_sub(registers.sp).ok_or(())?);
        let mut state = M::registers(registers, highest);
        let mut addresses = vec![registers.ip];
        let mut at = FrameAddress::from_instruction_pointer(registers.ip);
        let mut code = space.code(registers.ip);
        let end = loop {
            if let Some(code) = &code {
                self.learn(code);
            }
            let caller = match self.caller(at, &mut state, code.as_ref(), &mut read, space) {
                Ok(caller) => caller,
                Err(end) => break end,
            };
            let Some(next) = FrameAddress::from_return_address(caller) else { break End::Bottom };
            // What returns from a signal handler is the first instruction of its function.
            let Some(found) = space.code(next.address_for_lookup()).or_else(|| space.code(caller)) else {
                break End::Cut;
            };
            if addresses.len() >= MOST_FRAMES {
                break End::Cut;
            }
            at = next;
            if !self.is_from_signal(caller, &found) {
                addresses.push(caller);
                code = Some(found);
                continue;
            }
            // Neither this nor what was interrupted comes behind a call: it is taken for one that does.
            addresses.push(caller.wrapping_add(1));
            let (sp, _) = M::pointers(&state);
            let [ip, sp, fp, lr] = M::INTERRUPTED.map(|offset| read(sp.wrapping_add(offset)));
            let (Ok(ip), Ok(sp), Ok(fp), Ok(lr)) = (ip, sp, fp, lr) else { break End::Cut };
            let Some(found) = space.code(ip) else { break End::Cut };
            addresses.push(ip.wrapping_add(1));
            code = Some(found);
            state = M::registers(&Registers { ip, sp, fp, lr }, highest);
            at = FrameAddress::from_instruction_pointer(ip);
        };
        Unwound { addresses, end }
    }

    /// The return address of the function that `at` is in; the registers are then those of its caller.
    fn caller(
        &mut self,
        at: FrameAddress,
        state: &mut M::Registers,
        code: Option<&Code>,
        read: &mut impl FnMut(u64) -> Result<u64, ()>,
        space: &mut impl Space,
    ) -> Result<u64, End> {
        let made = code.is_some_and(|code| code.module.is_none()) && at.is_return_address();
        if let Some(up) = self.leave(made.then(|| at.address()), space) {
            let (sp, fp) = M::pointers(state);
            let sp = sp.wrapping_add(up);
            let ip = read(sp).map_err(|()| End::Cut)?;
            *state = M::registers(&Registers { ip, sp: sp.wrapping_add(8), fp, lr: 0 }, u64::MAX);
            return Ok(ip);
        }
        match contained(|| self.unwinder.unwind_frame(at, state, &mut self.cache, read)) {
            Some(Ok(Some(caller))) => Ok(caller),
            Some(Ok(None)) => Err(End::Bottom),
            Some(Err(_)) => Err(End::Cut),
            None => {
                // These tables have come to no good; without them there are frame pointers.
                if let Some(code) = code {
                    self.unwinder.remove_module(code.range.start);
                }
                Err(End::Cut)
            }
        }
    }

    /// Code that was made at run time has no tables, and does not always keep the frame pointer: the piece that
    /// Python 3.12 puts around each of its functions on `x86_64` does not. From how it goes on after the
    /// call it can be seen where its return address is.
    fn leave(&mut self, made: Option<u64>, space: &mut impl Space) -> Option<u64> {
        let address = made?;
        if self.leaving.len() >= MOST_REMEMBERED {
            self.leaving.clear();
        }
        *self.leaving.entry(address).or_insert_with(|| {
            let mut instructions = [0; LEAVING];
            space.instructions(address, &mut instructions).then(|| M::to_return_address(instructions))?
        })
    }

    fn learn(&mut self, code: &Code) {
        let Err(place) = self.known.binary_search(&code.range.start) else { return };
        self.known.insert(place, code.range.start);
        let Some((module, start)) = &code.module else { return };
        let Some(tables) = module.tables() else { return };
        let base = code.range.start.wrapping_sub(start.wrapping_sub(tables.sections.base_svma));
        let (name, sections) = (String::new(), tables.sections.clone());
        if let Some(tables) = contained(|| Unwindable::new(name, code.range.clone(), base, sections)) {
            self.unwinder.add_module(tables);
        }
    }

    fn is_from_signal(&mut self, address: u64, code: &Code) -> bool {
        let Some((module, start)) = &code.module else { return false };
        if !module.tables().is_some_and(|tables| tables.has_signal_frames) {
            return false;
        }
        *self.from_signal.entry(address).or_insert_with(|| {
            let in_module = start.wrapping_add(address.wrapping_sub(code.range.start));
            module.has_instructions(in_module, M::RETURN_FROM_SIGNAL)
        })
    }
}

/// Eight bytes of the stack, in the order of both processors.
fn word(stack: &[u8], offset: u64) -> Result<u64, ()> {
    let offset = usize::try_from(offset).map_err(|_| ())?;
    let bytes = stack.get(offset..).and_then(<[u8]>::first_chunk).ok_or(())?;
    Ok(u64::from_le_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the made-up code is.
    const CODE: Range<u64> = 0x10_0000..0x20_0000;

    fn stack(words: &[u64]) -> Vec<u8> {
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// Walks through code without tables.
    fn walk<M: Machine>(registers: &Registers, words: &[u64]) -> Unwound {
        Walker::<M>::default().walk(registers, 1 << 47, &stack(words), &mut MadeUp)
    }

    /// Code without tables, which says nothing by its instructions but at one place.
    struct MadeUp;

    const LEAVES: u64 = CODE.end - 0x100;

    impl Space for MadeUp {
        fn code(&mut self, address: u64) -> Option<Code> {
            CODE.contains(&address).then_some(Code { range: CODE, module: None })
        }

        fn instructions(&mut self, address: u64, bytes: &mut [u8]) -> bool {
            bytes.fill(0x90);
            if address == LEAVES {
                bytes.copy_from_slice(&[0x48, 0x83, 0xc4, 0x18, 0xc3]);
            }
            true
        }
    }

    #[test]
    fn instructions_show_the_way_where_there_is_no_frame_pointer() {
        let registers = Registers { ip: AT, sp: SP, fp: SP + 8, lr: 0 };
        // The frame at LEAVES has three words of its own, and leaves the frame pointer alone.
        let words = [1, SP + 72, LEAVES, 2, 2, 2, AT + 0x22, 3, 3, 0, AT + 0x33, 0, 0];
        let found = walk::<X86_64>(&registers, &words);
        assert_eq!(found.addresses, [AT, LEAVES, AT + 0x22, AT + 0x33]);
        let found = walk::<X86_64>(&registers, &words[..6]);
        assert_eq!((found.addresses, found.end), (vec![AT, LEAVES], End::Cut));
    }

    const AT: u64 = CODE.start;
    const SP: u64 = 0x7fff_0000;

    /// Frame pointers are followed on both in the same way: each points to the one before, the return
    /// address behind it.
    fn frame_pointers<M: Machine>(lr: u64) {
        let registers = Registers { ip: AT, sp: SP, fp: SP + 16, lr };
        let chain = [1, 2, SP + 40, AT + 0x11, 3, SP + 56, AT + 0x22, 0, 0];
        let found = walk::<M>(&registers, &chain);
        assert_eq!(found.addresses, [AT, AT + 0x11, AT + 0x22]);
        assert_eq!(found.end, End::Bottom);

        let found = walk::<M>(&registers, &chain[..5]);
        assert_eq!(found.addresses, [AT, AT + 0x11]);
        assert_eq!(found.end, End::Cut, "the copy of the stack ends");

        let elsewhere = [1, 2, SP + 40, CODE.end + 0x11, 3, 0, 0];
        let found = walk::<M>(&registers, &elsewhere);
        assert_eq!(found.addresses, [AT]);
        assert_eq!(found.end, End::Cut, "no code is there");
    }

    #[test]
    fn frame_pointers_are_followed_on_amd64() {
        frame_pointers::<X86_64>(0);
    }

    /// The link register is not asked: without tables nobody knows whether it still holds a return address.
    #[test]
    fn frame_pointers_are_followed_on_arm() {
        frame_pointers::<Aarch64>(AT + 0x5);
    }

    #[test]
    fn signatures_of_return_addresses_are_taken_off_on_arm() {
        let signed = 0x0035_0000_0000_0000 | (AT + 0x11);
        let registers = Registers { ip: AT, sp: SP, fp: SP, lr: 0 };
        let found = walk::<Aarch64>(&registers, &[SP + 32, signed, 1, 1, 0, 0]);
        assert_eq!(found.addresses[..2], [AT, AT + 0x11]);
    }

    #[test]
    fn a_stack_without_an_end_is_cut() {
        let count = 2 * MOST_FRAMES as u64;
        let words: Vec<u64> = (0..count).flat_map(|at| [SP + (at + 1) * 16, AT + 1 + at]).collect();
        let found = walk::<X86_64>(&Registers { ip: AT, sp: SP, fp: SP, lr: 0 }, &words);
        assert_eq!(found.addresses.len(), MOST_FRAMES);
        assert_eq!(found.end, End::Cut);
    }

    #[test]
    fn registers_that_make_no_sense_end_the_walk() {
        for (sp, fp) in [(SP, 1), (SP, SP - 64), (u64::MAX, u64::MAX - 8), (0, u64::MAX), (SP, SP + 3)] {
            let found = walk::<X86_64>(&Registers { ip: AT, sp, fp, lr: 0 }, &[7; 4]);
            assert_eq!((found.addresses, found.end), (vec![AT], End::Cut), "sp {sp:#x} fp {fp:#x}");
        }
    }
}
