//! Two programs that do nothing, at every system call's entry and exit: what no tracer of system
//! calls can go below. `cargo xtask bench` measures everything else against it. And two that only read
//! the clock: what no tracer can go below that tells how long something took.

use aya::{Btf as ProgramBtf, Ebpf, EbpfLoader, programs::BtfTracePoint};

use super::{error::ProbeError, session::OBJECT};

/// Where the empty ones are attached, and what they are called in the object.
const EMPTY: [(&str, &str); 2] = [("sys_exit", "empty_exit"), ("sys_enter", "empty_enter")];
/// Likewise those that read the clock.
const CLOCK: [(&str, &str); 2] = [("sys_exit", "clock_exit"), ("sys_enter", "clock_enter")];

/// The two programs, attached until this is dropped.
pub struct Floor {
    _ebpf: Ebpf,
}

impl Floor {
    /// Loads and attaches the empty ones or, for `clock`, the others; and nothing else.
    ///
    /// # Errors
    /// As [`Session::start`](super::Session::start).
    pub fn attach(clock: bool) -> Result<Self, ProbeError> {
        let btf = ProgramBtf::from_sys_fs().map_err(ProbeError::ProgramBtf)?;
        let mut ebpf = EbpfLoader::new().btf(Some(&btf)).load(OBJECT).map_err(ProbeError::from_load)?;
        for (hook, name) in if clock { CLOCK } else { EMPTY } {
            let program = ebpf.program_mut(name).ok_or(ProbeError::Object(name))?;
            let mut attach = || {
                let program: &mut BtfTracePoint = program.try_into()?;
                program.load(hook, &btf)?;
                program.attach().map(|_| ())
            };
            attach().map_err(|error| ProbeError::from_attach(hook, &error))?;
        }
        Ok(Self { _ebpf: ebpf })
    }
}
