//! Struct layouts and function signatures from the running kernel's BTF.
//!
//! The probes read kernel structures at offsets that differ from kernel to kernel. They are asked for here by
//! name, once at the start, and handed to the probes as constants. So are the arguments of a tracepoint, which
//! changed over the years: what is not as expected must be known before a program is loaded.
//!
//! A kernel's BTF has some 120,000 types. They are walked once, to find where each begins; names are compared
//! only for what is asked. This module knows the format and nothing of which structures matter: see
//! [`layout`](super::layout) for that.

mod error;
mod raw;
#[cfg(test)]
pub(crate) mod synth;
#[cfg(test)]
pub(crate) mod tests;

use std::path::Path;

pub use error::BtfError;
pub use raw::TypeKind;
use raw::{Named, Raw, Record};

/// Where the kernel shows its own BTF, with `CONFIG_DEBUG_INFO_BTF`.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// How many typedefs and qualifiers are followed before a chain counts as endless.
const MAX_CHAIN: usize = 64;
/// How deep anonymous structures may nest.
const MAX_DEPTH: usize = 32;
/// How many members a search may look at, however often anonymous structures refer to each other.
const MAX_MEMBERS: usize = 1 << 16;
/// Of what size a pointer is: both architectures that ioscope runs on are 64-bit.
const POINTER_SIZE: u64 = 8;

/// A member of a structure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Bytes from the start of the structure.
    pub offset: u32,
    /// Bytes that it takes; 0 for a flexible array.
    pub size: u32,
    /// What it is, typedefs and qualifiers taken off.
    pub kind: TypeKind,
    /// Its type as in C, such as `struct pid *`.
    pub type_name: String,
}

/// A parameter of a function or a tracepoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// Its name; empty where the BTF does not say.
    pub name: String,
    /// What it is, typedefs and qualifiers taken off.
    pub kind: TypeKind,
    /// Its type as in C, such as `struct task_struct *`.
    pub type_name: String,
}

/// BTF, ready to be asked.
pub struct Btf {
    raw: Raw,
}

impl Btf {
    /// Reads the running kernel's.
    pub fn from_sys_fs() -> Result<Self, BtfError> {
        Self::from_file(Path::new(VMLINUX))
    }

    /// Reads a file of raw BTF.
    pub fn from_file(path: &Path) -> Result<Self, BtfError> {
        let bytes = std::fs::read(path).map_err(|source| BtfError::Read { path: path.to_owned(), source })?;
        Self::from_bytes(bytes)
    }

    /// Takes raw BTF, in this machine's byte order.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Result<Self, BtfError> {
        Raw::parse(bytes.into()).map(|raw| Self { raw })
    }

    /// How many types there are.
    pub fn type_count(&self) -> usize {
        self.raw.len()
    }

    /// Where a member lies in a structure, in bytes.
    ///
    /// `path` is as in C: `pid`, `ns.inum`, `pids[1]`, `numbers[0].nr`. Anonymous structures and unions are
    /// looked into; pointers are not followed. A flexible array takes any index.
    pub fn offset(&self, type_name: &str, path: &str) -> Result<u32, BtfError> {
        let (offset, _) = self.resolve(type_name, path)?;
        Ok(offset)
    }

    /// Where a member lies, how large it is and of what type. `path` is that of [`Self::offset`].
    pub fn member(&self, type_name: &str, path: &str) -> Result<Member, BtfError> {
        let (offset, id) = self.resolve(type_name, path)?;
        Ok(Member {
            offset,
            size: self.size_of_id(id)?,
            kind: self.peel(id)?.1.kind,
            type_name: self.type_name(id)?,
        })
    }

    /// The size in bytes of a structure, union, enumeration, typedef or integer.
    pub fn size_of(&self, name: &str) -> Result<u32, BtfError> {
        let raw = &self.raw;
        let id = [&raw.composites, &raw.enums, &raw.typedefs, &raw.scalars]
            .into_iter()
            .find_map(|types| self.named(types, name).next())
            .ok_or_else(|| no_type("type", name))?;
        self.size_of_id(id)
    }

    /// Whether there is a structure or union of this name with its members.
    pub fn has_struct(&self, name: &str) -> bool {
        self.named(&self.raw.composites, name).next().is_some()
    }

    /// Whether there is a function of this name: one that the compiler has inlined everywhere is not there.
    pub fn has_func(&self, name: &str) -> bool {
        self.named(&self.raw.funcs, name).next().is_some()
    }

    /// The signature of a function, by the number of its type: functions of the same have the same.
    pub fn func_signature(&self, name: &str) -> Option<u32> {
        let id = self.named(&self.raw.funcs, name).next()?;
        Some(self.raw.record(id).ok()?.size_or_type)
    }

    /// Whether there is a global variable of this name; BTF has the per-CPU ones.
    pub fn has_var(&self, name: &str) -> bool {
        self.named(&self.raw.vars, name).next().is_some()
    }

    /// Where a global variable lies in its section, in bytes. `.data..percpu` is the section of per-CPU
    /// variables, and the only one that kernels put into BTF.
    pub fn var_offset(&self, section: &str, name: &str) -> Result<u32, BtfError> {
        let missing = || no_type("variable", name);
        let var = self.named(&self.raw.vars, name).next().ok_or_else(missing)?;
        for id in self.named(&self.raw.sections, section) {
            let record = self.raw.record(id)?;
            for at in (0..record.len).map(|index| record.tail + index * 12) {
                if self.raw.u32(at)? == var {
                    return self.raw.u32(at + 4);
                }
            }
        }
        Err(missing())
    }

    /// Whether there is a tracepoint of this name to attach a `tp_btf` program to.
    pub fn has_tracepoint(&self, name: &str) -> bool {
        self.named(&self.raw.typedefs, &format!("btf_trace_{name}")).next().is_some()
    }

    /// The parameters of a function.
    pub fn func_params(&self, name: &str) -> Result<Vec<Param>, BtfError> {
        let id = self.named(&self.raw.funcs, name).next().ok_or_else(|| no_type("function", name))?;
        let proto = self.raw.record(self.raw.record(id)?.size_or_type)?;
        self.params(&proto)
    }

    /// The arguments of a tracepoint as a `tp_btf` program finds them: `sched_switch` is asked as that.
    ///
    /// They are those of the typedef `btf_trace_NAME`, less the first, which is the tracepoint's own
    /// (`include/trace/bpf_probe.h`). That signature has no names; they come from `__traceiter_NAME`
    /// (Linux 5.10 and later) if the kernel kept it.
    pub fn tracepoint_params(&self, name: &str) -> Result<Vec<Param>, BtfError> {
        let missing = || no_type("tracepoint", name);
        let typedef =
            self.named(&self.raw.typedefs, &format!("btf_trace_{name}")).next().ok_or_else(missing)?;
        let (_, pointer) = self.peel(typedef)?;
        let (_, proto) = self.peel(pointer.size_or_type)?;
        if pointer.kind != TypeKind::Pointer || proto.kind != TypeKind::FuncProto {
            return Err(missing());
        }
        let mut params = self.params(&proto)?;
        if let Ok(named) = self.func_params(&format!("__traceiter_{name}"))
            && named.len() == params.len()
        {
            params = named;
        }
        if !params.is_empty() {
            params.remove(0);
        }
        Ok(params)
    }

    /// The value of an enumerator. The empty name stands for the anonymous enumerations.
    pub fn enum_value(&self, name: &str, enumerator: &str) -> Result<i64, BtfError> {
        let missing = || BtfError::NoEnumerator { name: name.to_owned(), enumerator: enumerator.to_owned() };
        for id in self.named(&self.raw.enums, name) {
            let record = self.raw.record(id)?;
            let stride = if record.kind == TypeKind::Enum64 { 12 } else { 8 };
            for index in 0..record.len {
                let at = record.tail + index * stride;
                if !self.raw.is_named(self.raw.u32(at)?, enumerator) {
                    continue;
                }
                let low = self.raw.u32(at + 4)?;
                // The flag of an enumeration says that its values are signed.
                return if record.kind == TypeKind::Enum64 {
                    let value = u64::from(self.raw.u32(at + 8)?) << 32 | u64::from(low);
                    if record.flag {
                        Ok(value.cast_signed())
                    } else {
                        value.try_into().map_err(|_| missing())
                    }
                } else if record.flag {
                    Ok(i64::from(low.cast_signed()))
                } else {
                    Ok(i64::from(low))
                };
            }
        }
        Err(missing())
    }

    /// The numbers of the types of this name, in the BTF's order.
    fn named<'a>(&'a self, types: &'a [Named], name: &'a str) -> impl Iterator<Item = u32> + 'a {
        types.iter().filter(move |(at, _)| self.raw.is_named(*at, name)).map(|&(_, id)| id)
    }

    /// Takes typedefs and qualifiers off a type.
    fn peel(&self, start: u32) -> Result<(u32, Record), BtfError> {
        let mut id = start;
        for _ in 0..MAX_CHAIN {
            let record = self.raw.record(id)?;
            if !record.kind.is_modifier() {
                return Ok((id, record));
            }
            id = record.size_or_type;
        }
        Err(BtfError::TooDeep { name: format!("type {start}") })
    }

    fn params(&self, proto: &Record) -> Result<Vec<Param>, BtfError> {
        if proto.kind != TypeKind::FuncProto {
            return Err(BtfError::Malformed { what: "a function without a signature" });
        }
        (0..proto.len)
            .map(|index| {
                let at = proto.tail + index * 8;
                let id = self.raw.u32(at + 4)?;
                Ok(Param {
                    name: self.raw.string(self.raw.u32(at)?)?.to_owned(),
                    kind: self.peel(id)?.1.kind,
                    type_name: self.type_name(id)?,
                })
            })
            .collect()
    }

    /// Follows a path from a structure, or from a typedef of one.
    fn resolve(&self, type_name: &str, path: &str) -> Result<(u32, u32), BtfError> {
        // Two structures can have one name, each private to its file: the first that has the member is meant.
        let mut first_error = None;
        let raw = &self.raw;
        for id in self.named(&raw.composites, type_name).chain(self.named(&raw.typedefs, type_name)) {
            match self.resolve_in(type_name, id, path) {
                Ok(found) => return Ok(found),
                Err(error) => first_error = first_error.or(Some(error)),
            }
        }
        Err(first_error.unwrap_or_else(|| no_type("struct", type_name)))
    }

    fn resolve_in(&self, type_name: &str, start: u32, path: &str) -> Result<(u32, u32), BtfError> {
        let owned = || (type_name.to_owned(), path.to_owned());
        let mut id = start;
        let mut bits = 0_u64;
        for step in path.split('.') {
            let (name, indexes) = parse_step(step).ok_or_else(|| BtfError::BadPath { path: path.into() })?;
            let (_, record) = self.peel(id)?;
            if !matches!(record.kind, TypeKind::Struct | TypeKind::Union) {
                let (type_name, member) = owned();
                return Err(BtfError::NotAStruct { type_name, member });
            }
            let mut budget = MAX_MEMBERS;
            let found = self.find_member(&record, name, MAX_DEPTH, &mut budget)?;
            let (type_name, member) = owned();
            let Some(found) = found else { return Err(BtfError::NoMember { type_name, member }) };
            if found.bitfield || found.bits % 8 != 0 {
                return Err(BtfError::Bitfield { type_name, member });
            }
            bits += found.bits;
            id = found.id;
            for index in indexes {
                let no_element =
                    || BtfError::NoElement { type_name: type_name.clone(), member: member.clone() };
                let (_, array) = self.peel(id)?;
                if array.kind != TypeKind::Array {
                    return Err(no_element());
                }
                id = self.raw.u32(array.tail)?;
                let count = self.raw.u32(array.tail + 8)?;
                if count != 0 && index >= count {
                    return Err(no_element());
                }
                bits += u64::from(index) * u64::from(self.size_of_id(id)?) * 8;
            }
        }
        let offset =
            u32::try_from(bits / 8).map_err(|_| BtfError::Malformed { what: "an offset over 4 GiB" })?;
        Ok((offset, id))
    }

    /// Looks for a member, also within anonymous members.
    fn find_member(
        &self,
        record: &Record,
        name: &str,
        depth: usize,
        budget: &mut usize,
    ) -> Result<Option<Found>, BtfError> {
        let too_deep = || BtfError::TooDeep { name: name.to_owned() };
        let depth = depth.checked_sub(1).ok_or_else(too_deep)?;
        for index in 0..record.len {
            *budget = budget.checked_sub(1).ok_or_else(too_deep)?;
            let at = record.tail + index * 12;
            let (name_at, id, place) = (self.raw.u32(at)?, self.raw.u32(at + 4)?, self.raw.u32(at + 8)?);
            // With the flag set, the upper eight bits are the width of a bitfield.
            let (bits, width) = if record.flag { (place & 0x00ff_ffff, place >> 24) } else { (place, 0) };
            let bits = u64::from(bits);
            if self.raw.is_named(name_at, name) {
                return Ok(Some(Found { bits, id, bitfield: width != 0 || self.is_partial_int(id)? }));
            }
            if self.raw.is_named(name_at, "") {
                let (_, inner) = self.peel(id)?;
                if matches!(inner.kind, TypeKind::Struct | TypeKind::Union)
                    && let Some(found) = self.find_member(&inner, name, depth, budget)?
                {
                    return Ok(Some(Found { bits: bits + found.bits, ..found }));
                }
            }
        }
        Ok(None)
    }

    /// Whether a type is an integer of fewer bits than its size has: a bitfield of the older encoding.
    fn is_partial_int(&self, id: u32) -> Result<bool, BtfError> {
        let (_, record) = self.peel(id)?;
        if record.kind != TypeKind::Int {
            return Ok(false);
        }
        let encoding = self.raw.u32(record.tail)?;
        let (shift, bits) = ((encoding >> 16) & 0xff, encoding & 0xff);
        Ok(shift != 0 || u64::from(bits) != u64::from(record.size_or_type) * 8)
    }

    fn size_of_id(&self, start: u32) -> Result<u32, BtfError> {
        let no_size = || BtfError::NoSize { name: self.type_name(start).unwrap_or_default() };
        let mut elements = 1_u64;
        let mut id = start;
        for _ in 0..MAX_DEPTH {
            let (_, record) = self.peel(id)?;
            let each = match record.kind {
                TypeKind::Pointer => POINTER_SIZE,
                TypeKind::Int
                | TypeKind::Float
                | TypeKind::Struct
                | TypeKind::Union
                | TypeKind::Enum
                | TypeKind::Enum64 => u64::from(record.size_or_type),
                TypeKind::Array => {
                    id = self.raw.u32(record.tail)?;
                    elements = elements
                        .checked_mul(u64::from(self.raw.u32(record.tail + 8)?))
                        .ok_or_else(no_size)?;
                    continue;
                }
                _ => return Err(no_size()),
            };
            return each.checked_mul(elements).and_then(|size| size.try_into().ok()).ok_or_else(no_size);
        }
        Err(BtfError::TooDeep { name: format!("type {start}") })
    }

    /// A type as C writes it, near enough to be read.
    fn type_name(&self, start: u32) -> Result<String, BtfError> {
        let (mut before, mut after) = (String::new(), String::new());
        let mut id = start;
        for _ in 0..MAX_CHAIN {
            let record = self.raw.record(id)?;
            let tag = match record.kind {
                TypeKind::Pointer => {
                    after.insert_str(0, if after.starts_with('*') { "*" } else { " *" });
                    id = record.size_or_type;
                    continue;
                }
                TypeKind::Array => {
                    let count = self.raw.u32(record.tail + 8)?;
                    after = format!("{after}[{count}]");
                    id = self.raw.u32(record.tail)?;
                    continue;
                }
                TypeKind::Const | TypeKind::Volatile | TypeKind::Restrict | TypeKind::TypeTag => {
                    if record.kind == TypeKind::Const && !before.starts_with("const ") {
                        before.insert_str(0, "const ");
                    }
                    id = record.size_or_type;
                    continue;
                }
                TypeKind::Void => "void",
                TypeKind::FuncProto => "function",
                TypeKind::Union => "union ",
                // The flag of a forward declaration says that it is of a union.
                TypeKind::Forward if record.flag => "union ",
                TypeKind::Struct | TypeKind::Forward => "struct ",
                TypeKind::Enum | TypeKind::Enum64 => "enum ",
                _ => "",
            };
            return Ok(format!("{before}{tag}{}{after}", self.raw.string(record.name)?));
        }
        Err(BtfError::TooDeep { name: format!("type {start}") })
    }
}

/// A member that was found: its place in bits, its type.
struct Found {
    bits: u64,
    id: u32,
    bitfield: bool,
}

fn no_type(what: &'static str, name: &str) -> BtfError {
    BtfError::NoType { what, name: name.to_owned() }
}

/// `name[1][2]` taken apart.
fn parse_step(step: &str) -> Option<(&str, Vec<u32>)> {
    let (name, mut rest) = step.split_at(step.find('[').unwrap_or(step.len()));
    let mut indexes = Vec::new();
    while !rest.is_empty() {
        let (index, after) = rest.strip_prefix('[')?.split_once(']')?;
        indexes.push(index.parse().ok()?);
        rest = after;
    }
    (!name.is_empty()).then_some((name, indexes))
}
