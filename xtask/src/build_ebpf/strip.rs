//! Takes the debug information out of a linked object. What the loader reads stays as it is: code,
//! data, maps, license, symbols, relocations, BTF and BTF.ext.
//!
//! Nine tenths of the linker's output is DWARF, which nobody reads once BTF has been made from it.
//! cargo's own `strip` does not know this target.

use anyhow::{Context as _, Result};
use object::{
    build::elf::{Builder, SectionData},
    elf,
};

/// The object without its `.debug_*` sections and their relocations.
pub(crate) fn without_debug_information(linked: &[u8]) -> Result<Vec<u8>> {
    let mut object = Builder::read(linked).context("the linked object")?;
    for section in &mut object.sections {
        let name = section.name.as_slice();
        let of = name.strip_prefix(b".rel").unwrap_or(name);
        if of.starts_with(b".debug_") {
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
