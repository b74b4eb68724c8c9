//! The bytes of BTF: header, sections, and where each type's record lies.
//!
//! Every read is checked against the section that it belongs to, so that truncated or mangled input is an
//! error and never a panic. What a record means is for the parent module.
//!
//! The format is the kernel's `Documentation/bpf/btf.rst` and `include/uapi/linux/btf.h`. Two extensions of
//! Linux 7.1 and later are understood: a length field of 24 bits with a kind field of 7 (bits that older
//! kernels leave zero), and the layout section, which says how long the records of a kind are that this
//! reader has never heard of.

use super::BtfError;

const MAGIC: u16 = 0xeb9f;
const VERSION: u8 = 1;
/// `struct btf_header` up to and with `str_len`; Linux 7.1 appends `layout_off` and `layout_len`.
const HEADER_LEN: usize = 24;
const HEADER_LEN_WITH_LAYOUT: usize = 32;
/// `struct btf_type`.
const TYPE_LEN: usize = 12;

/// What a type is: `BTF_KIND_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TypeKind {
    /// Type 0, which has no record.
    Void,
    /// An integer, `bool` or `char`.
    Int,
    /// A pointer.
    Pointer,
    /// An array; of zero elements where it is a flexible member.
    Array,
    /// A structure.
    Struct,
    /// A union.
    Union,
    /// An enumeration of values of up to 32 bits.
    Enum,
    /// A structure or union that is only declared.
    Forward,
    /// A typedef.
    Typedef,
    /// `volatile`.
    Volatile,
    /// `const`.
    Const,
    /// `restrict`.
    Restrict,
    /// A function.
    Func,
    /// The signature of a function.
    FuncProto,
    /// A global variable.
    Var,
    /// A section of global variables.
    DataSec,
    /// A floating-point number.
    Float,
    /// An annotation of a declaration.
    DeclTag,
    /// An annotation of a type.
    TypeTag,
    /// An enumeration of values of 64 bits, since Linux 6.0.
    Enum64,
    /// A kind that is newer than this reader; its record is skipped.
    Other(u8),
}

impl TypeKind {
    fn from_number(number: u8) -> Self {
        match number {
            1 => Self::Int,
            2 => Self::Pointer,
            3 => Self::Array,
            4 => Self::Struct,
            5 => Self::Union,
            6 => Self::Enum,
            7 => Self::Forward,
            8 => Self::Typedef,
            9 => Self::Volatile,
            10 => Self::Const,
            11 => Self::Restrict,
            12 => Self::Func,
            13 => Self::FuncProto,
            14 => Self::Var,
            15 => Self::DataSec,
            16 => Self::Float,
            17 => Self::DeclTag,
            18 => Self::TypeTag,
            19 => Self::Enum64,
            other => Self::Other(other),
        }
    }

    /// How many bytes follow the record: once, and for each of its elements. For a kind that is unknown here,
    /// only the layout section knows.
    fn tail(self) -> (usize, usize) {
        match self {
            Self::Int | Self::Var | Self::DeclTag => (4, 0),
            Self::Array => (12, 0),
            Self::Struct | Self::Union | Self::DataSec | Self::Enum64 => (0, 12),
            Self::Enum | Self::FuncProto => (0, 8),
            Self::Void
            | Self::Pointer
            | Self::Forward
            | Self::Typedef
            | Self::Volatile
            | Self::Const
            | Self::Restrict
            | Self::Func
            | Self::Float
            | Self::TypeTag
            | Self::Other(_) => (0, 0),
        }
    }

    /// Whether this only wraps another type without a change of layout.
    pub(super) fn is_modifier(self) -> bool {
        matches!(self, Self::Typedef | Self::Volatile | Self::Const | Self::Restrict | Self::TypeTag)
    }
}

/// One type's record.
#[derive(Clone, Copy)]
pub(super) struct Record {
    pub(super) kind: TypeKind,
    /// The top bit of `info`, whose meaning depends on the kind.
    pub(super) flag: bool,
    /// Where the name is in the string section.
    pub(super) name: u32,
    /// How many elements (members, enumerators, parameters) follow.
    pub(super) len: usize,
    /// `size` or `type`, depending on the kind.
    pub(super) size_or_type: u32,
    /// Where what follows the record starts in the data.
    pub(super) tail: usize,
}

/// A named type: where its name is, and its number.
pub(super) type Named = (u32, u32);

/// BTF whose sections and records have been found to lie within its bytes.
pub(super) struct Raw {
    data: Vec<u8>,
    strings: (usize, usize),
    /// Where the record of each type starts; type 0 is void and has none.
    records: Vec<usize>,
    /// Structures and unions.
    pub(super) composites: Vec<Named>,
    /// Enumerations of either width.
    pub(super) enums: Vec<Named>,
    /// Functions.
    pub(super) funcs: Vec<Named>,
    /// Typedefs.
    pub(super) typedefs: Vec<Named>,
    /// Global variables.
    pub(super) vars: Vec<Named>,
    /// Sections of global variables.
    pub(super) sections: Vec<Named>,
    /// Integers and floats.
    pub(super) scalars: Vec<Named>,
}

impl Raw {
    pub(super) fn parse(data: Vec<u8>) -> Result<Self, BtfError> {
        let header = Header::parse(&data)?;
        let (start, end) = header.types;
        // A record and what follows it take about 28 bytes on average in a kernel.
        let mut raw = Self {
            strings: header.strings,
            records: Vec::with_capacity((end - start) / 28 + 1),
            composites: Vec::new(),
            enums: Vec::new(),
            funcs: Vec::new(),
            typedefs: Vec::new(),
            vars: Vec::new(),
            sections: Vec::new(),
            scalars: Vec::new(),
            data,
        };
        raw.records.push(0);
        let mut at = start;
        while at < end {
            let record = raw.record_at(at)?;
            let id = u32::try_from(raw.records.len())
                .map_err(|_| BtfError::Malformed { what: "more than 2^32 types" })?;
            let (once, each) = match record.kind {
                TypeKind::Other(kind) => {
                    header.tail_of(&raw.data, kind).ok_or(BtfError::UnknownKind { kind, id })?
                }
                known => known.tail(),
            };
            let next = each
                .checked_mul(record.len)
                .and_then(|tail| tail.checked_add(once))
                .and_then(|tail| tail.checked_add(record.tail))
                .filter(|&next| next <= end)
                .ok_or(BtfError::Truncated { what: "a type", at })?;
            match record.kind {
                TypeKind::Struct | TypeKind::Union => raw.composites.push((record.name, id)),
                TypeKind::Enum | TypeKind::Enum64 => raw.enums.push((record.name, id)),
                TypeKind::Func => raw.funcs.push((record.name, id)),
                TypeKind::Typedef => raw.typedefs.push((record.name, id)),
                TypeKind::Var => raw.vars.push((record.name, id)),
                TypeKind::DataSec => raw.sections.push((record.name, id)),
                TypeKind::Int | TypeKind::Float => raw.scalars.push((record.name, id)),
                _ => {}
            }
            raw.records.push(at);
            at = next;
        }
        Ok(raw)
    }

    /// How many types there are, void not counted.
    pub(super) fn len(&self) -> usize {
        self.records.len() - 1
    }

    /// The record of a type.
    pub(super) fn record(&self, id: u32) -> Result<Record, BtfError> {
        if id == 0 {
            return Ok(Record {
                kind: TypeKind::Void,
                flag: false,
                name: 0,
                len: 0,
                size_or_type: 0,
                tail: 0,
            });
        }
        let at = self.records.get(id as usize).ok_or(BtfError::NoSuchId { id })?;
        self.record_at(*at)
    }

    fn record_at(&self, at: usize) -> Result<Record, BtfError> {
        let info = self.u32(at + 4)?;
        let kind = u8::try_from((info >> 24) & 0x7f).unwrap_or_default();
        if kind == 0 {
            return Err(BtfError::Malformed { what: "a type of kind 0" });
        }
        Ok(Record {
            kind: TypeKind::from_number(kind),
            flag: info >> 31 == 1,
            name: self.u32(at)?,
            len: (info & 0x00ff_ffff) as usize,
            size_or_type: self.u32(at + 8)?,
            tail: at + TYPE_LEN,
        })
    }

    /// The word at this place of the data.
    pub(super) fn u32(&self, at: usize) -> Result<u32, BtfError> {
        u32_at(&self.data, at).ok_or(BtfError::Truncated { what: "a word", at })
    }

    /// The string at this place of the string section.
    pub(super) fn string(&self, offset: u32) -> Result<&str, BtfError> {
        let (start, end) = self.strings;
        let bytes = (start.checked_add(offset as usize))
            .and_then(|at| self.data.get(at..end))
            .ok_or(BtfError::Truncated { what: "a name", at: offset as usize })?;
        let len = bytes
            .iter()
            .position(|&byte| byte == 0)
            .ok_or(BtfError::Truncated { what: "a name", at: offset as usize })?;
        std::str::from_utf8(&bytes[..len]).map_err(|_| BtfError::Malformed { what: "a name is not UTF-8" })
    }

    /// Whether the string at this place of the string section is `name`.
    pub(super) fn is_named(&self, offset: u32, name: &str) -> bool {
        let (start, end) = self.strings;
        let at = start.saturating_add(offset as usize);
        let stop = at.saturating_add(name.len());
        stop < end && self.data.get(at..stop) == Some(name.as_bytes()) && self.data.get(stop) == Some(&0)
    }
}

fn u32_at(data: &[u8], at: usize) -> Option<u32> {
    let bytes = data.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

/// Where the sections lie in the data: start and end of each.
struct Header {
    types: (usize, usize),
    strings: (usize, usize),
    layout: (usize, usize),
}

impl Header {
    fn parse(data: &[u8]) -> Result<Self, BtfError> {
        let too_short = || BtfError::Truncated { what: "the header", at: data.len() };
        let &[m0, m1, version, _flags, ..] = data else { return Err(too_short()) };
        let magic = u16::from_ne_bytes([m0, m1]);
        if magic == MAGIC.swap_bytes() {
            return Err(BtfError::ForeignEndian);
        }
        if magic != MAGIC {
            return Err(BtfError::NotBtf { magic });
        }
        if version != VERSION {
            return Err(BtfError::Version { version });
        }
        let word = |at: usize| u32_at(data, at).map(|word| word as usize).ok_or_else(too_short);
        let len = word(4)?;
        if len < HEADER_LEN || len > data.len() {
            return Err(too_short());
        }
        let section = |at: usize, what: &'static str| {
            let start = len.checked_add(word(at)?).ok_or_else(too_short)?;
            let end = start.checked_add(word(at + 4)?).ok_or_else(too_short)?;
            if end > data.len() {
                return Err(BtfError::Truncated { what, at: start });
            }
            Ok((start, end))
        };
        let types = section(8, "the type section")?;
        let strings = section(16, "the string section")?;
        let layout = if len >= HEADER_LEN_WITH_LAYOUT { section(24, "the layout section")? } else { (0, 0) };
        if data.get(strings.0..strings.1).and_then(<[u8]>::last) != Some(&0) {
            return Err(BtfError::Malformed { what: "the string section does not end in a NUL" });
        }
        Ok(Self { types, strings, layout })
    }

    /// What the layout section says of an unknown kind: an entry of four bytes a kind, of which the first is
    /// the length of what follows the record once, the second that of each element.
    fn tail_of(&self, data: &[u8], kind: u8) -> Option<(usize, usize)> {
        let (start, end) = self.layout;
        let at = start + usize::from(kind) * 4;
        let entry = data.get(at..at + 4).filter(|_| at + 4 <= end)?;
        Some((usize::from(entry[0]), usize::from(entry[1])))
    }
}
