//! Takes out of a linked object what the kernel does not need: DWARF, and type and line information
//! (BTF), which would make up two thirds of the rest. The maps are defined without BTF, and the kernel's
//! own types are looked up when ioscope starts. Code, data, maps, license, symbols and relocations
//! stay as they are. `--lines` keeps BTF: the verifier then names source lines when it refuses.
//!
//! cargo's own `strip` does not know this target.

use anyhow::{Context as _, Result};
use object::{
    build::elf::{Builder, SectionData},
    elf,
};

/// The object without its `.debug_*` sections and, unless `lines` are wanted, `.BTF*`; and without their
/// relocations.
pub(crate) fn without_debug_information(linked: &[u8], lines: bool) -> Result<Vec<u8>> {
    let mut object = Builder::read(linked).context("the linked object")?;
    for section in &mut object.sections {
        let name = section.name.as_slice();
        let of = name.strip_prefix(b".rel").unwrap_or(name);
        if of.starts_with(b".debug_") || (of.starts_with(b".BTF") && !lines) {
            section.delete = true;
        }
    }
    // The linker keeps section names and symbol names in one table; the writer wants two.
    if !object.sections.iter().any(|section| matches!(section.data, SectionData::SectionString)) {
        let names = object.sections.add();
        names.name = b".shstrtab"[..].into();
        names.sh_type = elf::SHT_STRTAB;
        names.sh_addralign = 1;
        names.data = SectionData::SectionString;
    }
    object.delete_orphans();
    let mut stripped = Vec::new();
    object.write(&mut stripped).context("writing the stripped object")?;
    Ok(stripped)
}
