//! What two objects have in common, section by section, as a loader reads them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
};

use anyhow::{Context as _, Result};
use object::{
    Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionFlags, SymbolIndex,
    elf::{R_BPF_64_32, R_BPF_64_64},
    read::elf::ElfFile64,
};

/// What is to be the same in two objects.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Scope {
    /// All of it: they come from one compiler.
    Everything,
    /// Code, data, maps and relocations, but not type information (`.BTF`, `.BTF.ext`): they come
    /// from two compilers.
    Code,
}

/// One line that says what an object holds. An object that the loader cannot read is an error.
pub(crate) fn summary(object: &[u8]) -> Result<String> {
    let parsed = aya_obj::Object::parse(object).context("the loader does not read the object")?;
    Ok(format!(
        "{} programs, {} maps, {:.1} KiB",
        parsed.programs.len(),
        parsed.maps.len(),
        object.len() as f64 / 1024.0
    ))
}

/// What differs, a line each, for a person. Nothing: they are the same within the scope.
pub(crate) fn differences(committed: &[u8], built: &[u8], scope: Scope) -> Result<Vec<String>> {
    let committed = parts(committed, scope).context("the committed object")?;
    let built = parts(built, scope).context("the object just built")?;
    let names: BTreeSet<&String> = committed.keys().chain(built.keys()).collect();
    let mut lines = Vec::new();
    for name in names {
        match (committed.get(name), built.get(name)) {
            (Some(_), None) => lines.push(format!("{name}: only in the committed object")),
            (None, Some(_)) => lines.push(format!("{name}: only in the object just built")),
            (Some(one), Some(other)) if one != other => lines.push(format!("{name}: differs")),
            _ => {}
        }
    }
    Ok(lines)
}

/// An object's parts by name, each in a form that depends on nothing else in the file: symbols by
/// their names instead of their numbers.
fn parts(bytes: &[u8], scope: Scope) -> Result<BTreeMap<String, Vec<u8>>> {
    let file: ElfFile64<'_> = ElfFile64::parse(bytes)?;
    let mut parts = BTreeMap::new();
    for section in file.sections() {
        let name = section.name()?;
        let types = name.starts_with(".BTF");
        if name.is_empty() || (types && scope == Scope::Code) || name.starts_with(".debug_") {
            continue;
        }
        if matches!(name, ".symtab" | ".strtab" | ".shstrtab") || name.starts_with(".rel") {
            continue;
        }
        let SectionFlags::Elf { sh_flags } = section.flags() else { continue };
        let mut content = sh_flags.to_le_bytes().to_vec();
        content.extend_from_slice(section.data()?);
        parts.insert(format!("section {name}"), content);
        let relocations = relocations(&file, &section)?;
        if !relocations.is_empty() {
            parts.insert(format!("relocations of {name}"), relocations.into_bytes());
        }
    }
    parts.insert("symbols".to_owned(), symbols(&file)?.into_bytes());
    for (name, definition) in maps(bytes)? {
        parts.insert(format!("map {name}"), definition.into_bytes());
    }
    Ok(parts)
}

fn relocations(file: &ElfFile64<'_>, section: &object::read::elf::ElfSection64<'_, '_>) -> Result<String> {
    let mut text = String::new();
    for (offset, relocation) in section.relocations() {
        let object::RelocationFlags::Elf { r_type } = relocation.flags() else { continue };
        let RelocationTarget::Symbol(index) = relocation.target() else { continue };
        let kind = match r_type {
            R_BPF_64_64 => "64".to_owned(),
            R_BPF_64_32 => "32".to_owned(),
            other => other.to_string(),
        };
        writeln!(text, "{offset} {kind} {}", symbol(file, index)?)?;
    }
    Ok(text)
}

fn symbols(file: &ElfFile64<'_>) -> Result<String> {
    let mut lines = BTreeSet::new();
    for one in file.symbols().filter(|symbol| !symbol.is_local()) {
        lines.insert(format!("{} size {}\n", symbol(file, one.index())?, one.size()));
    }
    Ok(lines.into_iter().collect())
}

/// Where a symbol points, and its name if it is one that the probes' author gave: a mangled name has
/// the compiler's version in it.
fn symbol(file: &ElfFile64<'_>, index: SymbolIndex) -> Result<String> {
    let symbol = file.symbol_by_index(index)?;
    let section = match symbol.section_index() {
        Some(index) => file.section_by_index(index)?.name()?,
        None => "nowhere",
    };
    let name = symbol.name()?;
    let name = if name.starts_with("_R") || name.starts_with("_ZN") { "" } else { name };
    Ok(format!("{section}+{} {name}", symbol.address()))
}

/// The maps' definitions as the loader reads them: those of BTF-defined maps are in type
/// information, which is otherwise left out of a comparison across compilers.
fn maps(bytes: &[u8]) -> Result<BTreeMap<String, String>> {
    let parsed = aya_obj::Object::parse(bytes).context("the loader does not read the object")?;
    let describe = |map: &aya_obj::Map| {
        format!(
            "type {} key {} value {} entries {} flags {}",
            map.map_type(),
            map.key_size(),
            map.value_size(),
            map.max_entries(),
            map.map_flags()
        )
    };
    Ok(parsed.maps.iter().map(|(name, map)| (name.clone(), describe(map))).collect())
}
