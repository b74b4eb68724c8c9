//! Walking up a stack by the unwind tables of the code, or by frame pointers where code has no tables.

use std::ops::Range;

#[cfg(any(target_arch = "aarch64", test))]
use framehop::aarch64::{CacheAarch64, PtrAuthMask, UnwindRegsAarch64, UnwinderAarch64};
#[cfg(any(target_arch = "x86_64", test))]
use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{ExplicitModuleSectionInfo, FrameAddress, Module as Unwindable, Unwinder};

use super::{End, Registers, Unwound, module::Bytes};

/// No stack is followed further.
pub(super) const MOST_FRAMES: usize = 512;

/// What differs between processors.
pub(super) trait Machine {
    type Unwinder: Unwinder<Module = Unwindable<Bytes>, Cache = Self::Cache, UnwindRegs = Self::Registers>
        + Default;
    type Cache: Default;
    type Registers;

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

    fn registers(registers: &Registers, _: u64) -> Self::Registers {
        UnwindRegsX86_64::new(registers.ip, registers.sp, registers.fp)
    }
}

#[cfg(any(target_arch = "aarch64", test))]
impl Machine for Aarch64 {
    type Unwinder = UnwinderAarch64<Bytes>;
    type Cache = CacheAarch64;
    type Registers = UnwindRegsAarch64;

    /// Return addresses may be signed in bits that no address of user space uses.
    fn registers(registers: &Registers, highest: u64) -> Self::Registers {
        let mask = PtrAuthMask::from_max_known_address(highest);
        UnwindRegsAarch64::new_with_ptr_auth_mask(mask, registers.lr, registers.sp, registers.fp)
    }
}

/// Code that a stack may go through.
pub(super) struct Code<'a> {
    /// Where it is mapped.
    pub(super) range: Range<u64>,
    /// Its tables, and the address, as the linker numbered it, of the start of `range`. Without tables, frame
    /// pointers are followed.
    pub(super) tables: Option<(&'a ExplicitModuleSectionInfo<Bytes>, u64)>,
}

/// Unwinds stacks of one process.
pub(super) struct Walker<M: Machine = Native> {
    unwinder: M::Unwinder,
    cache: M::Cache,
    /// The starts of the ranges whose tables the unwinder has.
    known: Vec<u64>,
}

impl<M: Machine> Default for Walker<M> {
    fn default() -> Self {
        Self { unwinder: M::Unwinder::default(), cache: M::Cache::default(), known: Vec::new() }
    }
}

impl<M: Machine> Walker<M> {
    /// Walks up. `stack` are the bytes from the stack pointer on, `code` says what is at an address: a stack
    /// that leads to where no code is was misread, and is cut there.
    pub(super) fn walk<C>(
        &mut self,
        registers: &Registers,
        highest: u64,
        stack: &[u8],
        mut code: C,
    ) -> Unwound
    where
        C: FnMut(u64, &mut dyn FnMut(&Code<'_>)) -> bool,
    {
        let mut read = |address: u64| word(stack, address.checked_sub(registers.sp).ok_or(())?);
        let mut state = M::registers(registers, highest);
        let mut addresses = vec![registers.ip];
        let mut at = FrameAddress::from_instruction_pointer(registers.ip);
        code(registers.ip, &mut |code| self.learn(code));
        let end = loop {
            let caller = match self.unwinder.unwind_frame(at, &mut state, &mut self.cache, &mut read) {
                Ok(Some(caller)) => caller,
                Ok(None) => break End::Bottom,
                Err(_) => break End::Cut,
            };
            let Some(next) = FrameAddress::from_return_address(caller) else { break End::Bottom };
            if addresses.len() == MOST_FRAMES
                || !code(next.address_for_lookup(), &mut |code| self.learn(code))
            {
                break End::Cut;
            }
            addresses.push(caller);
            at = next;
        };
        Unwound { addresses, end }
    }

    fn learn(&mut self, code: &Code<'_>) {
        let Err(place) = self.known.binary_search(&code.range.start) else { return };
        self.known.insert(place, code.range.start);
        let Some((tables, start)) = &code.tables else { return };
        let base = code.range.start.wrapping_sub(start.wrapping_sub(tables.base_svma));
        let name = String::new();
        self.unwinder.add_module(Unwindable::new(name, code.range.clone(), base, (*tables).clone()));
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
        Walker::<M>::default().walk(registers, 1 << 47, &stack(words), |address, learn| {
            learn(&Code { range: CODE, tables: None });
            CODE.contains(&address)
        })
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
