//! ioscope's probes: thin glue from a kernel hook's arguments to a step of the loop's state machine.
//!
//! Built for the BPF target by `cargo xtask build-ebpf`. On the host this compiles to an empty
//! program, so that the workspace builds everywhere and clippy reads the probes too.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![cfg_attr(not(target_arch = "bpf"), expect(dead_code, reason = "the host only checks this code"))]
#![expect(unsafe_code, reason = "a probe reads the kernel's memory")]
#![expect(clippy::inline_always, reason = "a probe is one function: calls between BPF functions cost")]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "registers are 64 bits wide, whatever the argument in them is"
)]
#![expect(clippy::needless_pass_by_value, reason = "the macros hand a context over by value")]

mod diagnostics;
mod files;
mod functions;
mod kernel;
mod loops;
mod maps;
mod pollers;
mod process;
mod profile;
mod ready;
mod rings;
mod sched;
mod seed;
mod stalls;
mod syscalls;
mod targets;
mod undisturbed;

/// The helpers that the probes call need it.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[cfg(not(target_arch = "bpf"))]
fn main() {}
