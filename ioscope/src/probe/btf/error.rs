//! What can be wrong with BTF.

use std::io;
use std::path::PathBuf;

/// What can be wrong with BTF, or with what was asked of it.
#[derive(Debug, thiserror::Error)]
pub enum BtfError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The magic number is not BTF's.
    #[error("not BTF: it starts with {magic:#06x}")]
    NotBtf {
        /// What stands in its place.
        magic: u16,
    },
    /// The BTF is of a machine with the other byte order.
    #[error("BTF of the other byte order")]
    ForeignEndian,
    /// A version of the format that this reader does not know.
    #[error("BTF of version {version}, which is unknown")]
    Version {
        /// That version.
        version: u8,
    },
    /// Something ends before it should.
    #[error("BTF is cut short: {what} at byte {at}")]
    Truncated {
        /// What is incomplete.
        what: &'static str,
        /// Where.
        at: usize,
    },
    /// Something contradicts the format.
    #[error("BTF is damaged: {what}")]
    Malformed {
        /// What.
        what: &'static str,
    },
    /// A kind of type that is newer than this reader, in BTF that does not say how to skip it.
    #[error("type {id} is of kind {kind}, which is unknown")]
    UnknownKind {
        /// The kind.
        kind: u8,
        /// The type's number.
        id: u32,
    },
    /// A type refers to a type that does not exist.
    #[error("BTF has no type {id}")]
    NoSuchId {
        /// The number referred to.
        id: u32,
    },
    /// A chain of types is endless, or nested deeper than any compiler makes it.
    #[error("types nest too deep in {name}")]
    TooDeep {
        /// The type from which it started.
        name: String,
    },
    /// There is no such type, function or tracepoint.
    #[error("this kernel has no {what} {name}")]
    NoType {
        /// Of what sort.
        what: &'static str,
        /// What was asked for.
        name: String,
    },
    /// The structure has no such member.
    #[error("this kernel's {type_name} has no member {member}")]
    NoMember {
        /// The structure.
        type_name: String,
        /// The member, as far as the path was followed.
        member: String,
    },
    /// The member is a bitfield: it has no offset in bytes.
    #[error("{type_name}.{member} is a bitfield")]
    Bitfield {
        /// The structure.
        type_name: String,
        /// The member.
        member: String,
    },
    /// A path asks for a member of what has none: a pointer, a number.
    #[error("{type_name}.{member} is inside of what is no struct or union")]
    NotAStruct {
        /// The structure from which the path starts.
        type_name: String,
        /// The path.
        member: String,
    },
    /// A path has an index where there is no array, or one past the array's end.
    #[error("{type_name}.{member}: no array with that element")]
    NoElement {
        /// The structure from which the path starts.
        type_name: String,
        /// The path.
        member: String,
    },
    /// A path that does not parse.
    #[error("not a member path: {path:?}")]
    BadPath {
        /// The path.
        path: String,
    },
    /// The type has no size: a function, `void`, or a structure that is only declared.
    #[error("{name} has no size")]
    NoSize {
        /// The type.
        name: String,
    },
    /// The enumeration has no such enumerator, or one that does not fit an `i64`.
    #[error("this kernel's enum {name} has no value {enumerator}")]
    NoEnumerator {
        /// The enumeration.
        name: String,
        /// What was asked for.
        enumerator: String,
    },
}
