//! The kernel's functions that the probes call.
//!
//! A call of one has its number in the kernel's type information, which differs from kernel to kernel. The object has a
//! placeholder in each such call ([`ioscope_common::kfunc`]), which is replaced here before the object is loaded. Where
//! a function is missing the placeholders stay: the probes do not get there, and the verifier, which knows that,
//! leaves the calls out.

use aya::Btf as ProgramBtf;
use aya_obj::btf::BtfKind;
use ioscope_common::kfunc;

/// The functions, and what stands for each.
const FUNCTIONS: [(&str, u32); 4] = [
    ("bpf_preempt_disable", kfunc::PREEMPT_DISABLE),
    ("bpf_preempt_enable", kfunc::PREEMPT_ENABLE),
    ("bpf_local_irq_save", kfunc::IRQ_SAVE),
    ("bpf_local_irq_restore", kfunc::IRQ_RESTORE),
];

/// `BPF_JMP | BPF_CALL`, `include/uapi/linux/bpf.h`.
const CALL: u8 = 0x85;
/// `BPF_PSEUDO_KFUNC_CALL`, in the upper half of the register byte: the source register.
const KFUNC_CALL: u8 = 2 << 4;
/// The size of an instruction.
const INSTRUCTION: usize = 8;

/// Puts the functions' numbers into the object's calls. `false` when this kernel lacks one, and the object is as it was.
pub(super) fn resolve(object: &mut [u8], btf: &ProgramBtf) -> bool {
    let numbers: Result<Vec<_>, _> =
        FUNCTIONS.iter().map(|(name, _)| btf.id_by_type_name_kind(name, BtfKind::Func)).collect();
    let Ok(numbers) = numbers else { return false };
    for ((_, placeholder), number) in FUNCTIONS.iter().zip(numbers) {
        replace(object, *placeholder, number);
    }
    true
}

/// Sections of code begin at multiples of the size of an instruction, in the file as in memory.
fn replace(object: &mut [u8], placeholder: u32, number: u32) -> usize {
    let [a, b, c, d] = placeholder.to_le_bytes();
    let mut replaced = 0;
    for instruction in object.chunks_exact_mut(INSTRUCTION) {
        if instruction == [CALL, 0, 0, 0, a, b, c, d] {
            instruction[1] = KFUNC_CALL;
            instruction[4..].copy_from_slice(&number.to_le_bytes());
            replaced += 1;
        }
    }
    replaced
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::session::OBJECT;

    #[test]
    fn calls_get_their_numbers_and_nothing_else_changes() {
        let mut object = OBJECT.to_vec();
        let disabled = replace(&mut object, kfunc::PREEMPT_DISABLE, 0x0001_e240);
        let enabled = replace(&mut object, kfunc::PREEMPT_ENABLE, 0x0001_e241);
        assert!(disabled > 0 && disabled == enabled, "{disabled} {enabled}");
        let changed: Vec<_> = OBJECT
            .chunks(INSTRUCTION)
            .zip(object.chunks(INSTRUCTION))
            .filter(|(before, after)| before != after)
            .map(|(_, after)| after.to_vec())
            .collect();
        assert_eq!(changed.len(), disabled + enabled);
        assert!(changed.iter().all(|call| matches!(call[..], [0x85, 0x20, 0, 0, 0x40 | 0x41, 0xe2, 1, 0])));
        assert_eq!(replace(&mut object, kfunc::PREEMPT_DISABLE, 1), 0, "all are replaced");
    }
}
