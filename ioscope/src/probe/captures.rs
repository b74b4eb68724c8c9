//! Captures of stacks, as the probes write them and as they are read from outside.
#![expect(unsafe_code, reason = "records are read from a ring buffer")]

use std::{fs::File, os::unix::fs::FileExt as _};

use ioscope_common::{CaptureRecord, STACK_BYTES, STACK_PIECE, SleptRecord, UserRegisters, kind};

/// Where a thread was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Captured {
    /// The loop's place.
    pub slot: u32,
    /// When; of a sleep, when it began.
    pub at: u64,
    /// When the slice began.
    pub slice: u64,
    /// What it is about to sleep in; `None` when the clock found it on a CPU.
    pub asleep_in: Option<i32>,
    /// The program's registers.
    pub registers: UserRegisters,
    /// Addresses in the kernel, innermost first; none in the program's own code.
    pub kernel: Vec<u64>,
    /// Addresses in the program, innermost first, found by frame pointers.
    pub user: Vec<u64>,
    /// The program's stack, from its stack pointer upwards.
    pub stack: Vec<u8>,
}

/// A record of the captures' buffer.
#[derive(Clone, Debug)]
pub enum Capture {
    /// Where a thread was.
    Stack(Captured),
    /// How long the sleep was that an earlier one told of.
    Slept(SleptRecord),
}

impl Capture {
    pub(super) fn decode(item: &[u8]) -> Option<Self> {
        match (*item.first()?, item.len()) {
            (kind::CAPTURE, length) if length >= size_of::<CaptureRecord>() => {
                // SAFETY: the probes write whole records, of which every bit pattern is a value; the ring
                // buffer aligns them to 8 bytes, and the item lives as long as the reference.
                #[expect(clippy::cast_ptr_alignment, reason = "the ring buffer aligns records to 8 bytes")]
                let record = unsafe { &*item.as_ptr().cast::<CaptureRecord>() };
                Some(Self::Stack(Captured {
                    slot: record.slot,
                    at: record.at,
                    slice: record.slice,
                    asleep_in: (record.asleep != 0).then_some(record.syscall),
                    registers: record.registers,
                    kernel: addresses(&record.kernel, record.kernel_length),
                    user: addresses(&record.user, record.user_length),
                    stack: record.stack[..(record.stack_length as usize).min(STACK_BYTES)].to_vec(),
                }))
            }
            (kind::SLEPT, length) if length >= size_of::<SleptRecord>() => {
                // SAFETY: as above.
                Some(Self::Slept(unsafe { std::ptr::read_unaligned(item.as_ptr().cast()) }))
            }
            _ => None,
        }
    }
}

/// As many as the helper said it wrote, in bytes; a negative length is an error of it.
fn addresses(all: &[u64], bytes: i32) -> Vec<u64> {
    let count = usize::try_from(bytes).unwrap_or(0) / size_of::<u64>();
    all[..count.min(all.len())].to_vec()
}

/// A piece of a sleeping process's stack, from the stack pointer upwards: as much of it as can be read, and
/// nothing when the process is gone or may not be looked at.
pub fn read_stack(pid: u32, sp: u64) -> Vec<u8> {
    let Ok(memory) = File::open(format!("/proc/{pid}/mem")) else { return Vec::new() };
    let mut stack = vec![0; STACK_BYTES];
    let mut length = 0;
    while length < STACK_BYTES {
        let piece = &mut stack[length..length + STACK_PIECE];
        if memory.read_exact_at(piece, sp.wrapping_add(length as u64)).is_err() {
            break;
        }
        length += STACK_PIECE;
    }
    stack.truncate(length);
    stack
}
