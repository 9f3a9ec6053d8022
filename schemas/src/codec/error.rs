//! Why bytes are no event.

use super::{DATUM_BYTES_MAX, writer::Unavailable};

/// Why an event could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// There is no value, or one of no bytes.
    #[error("the event is empty")]
    Empty,
    /// More than anybody may send.
    #[error("the event has {0} bytes, over the limit of {DATUM_BYTES_MAX}")]
    TooLarge(usize),
    /// Neither single-object nor Confluent framing.
    #[error("the event begins with byte {0:#04x}, which is no framing")]
    Framing(u8),
    /// A fingerprint that this program does not know; a registry cannot be asked for one.
    #[error("no schema has the fingerprint {}", crate::hex::encode(.0))]
    UnknownFingerprint([u8; 8]),
    /// An id that the registry does not know, or that there is no registry for.
    #[error("no configured schema registry has a schema with the id {0}")]
    UnknownId(u32),
    /// The registry cannot be asked: the only error that time may mend.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The writer's schema is no schema.
    #[error("the writer's schema cannot be read: {0}")]
    WriterSchema(String),
    /// The writer's datum does not resolve to our schema.
    #[error("the writer's datum does not resolve to {name}: {reason}")]
    Resolution {
        /// Our schema.
        name: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The bytes end within the datum.
    #[error("the event is truncated")]
    Truncated,
    /// The bytes go on after the datum.
    #[error("{0} bytes are left over after the event")]
    LeftOver(usize),
    /// A variable-length integer that is out of range.
    #[error("an integer is out of range")]
    Integer,
    /// A length below zero, or a block whose size in bytes is not what it says.
    #[error("a length is wrong: {0}")]
    Length(i64),
    /// Text that is not UTF-8.
    #[error("a string is not UTF-8")]
    Utf8,
    /// A boolean that is neither 0 nor 1.
    #[error("a boolean is neither 0 nor 1")]
    Boolean,
    /// An enum's symbol that does not exist.
    #[error("enum {name} has no symbol {index}")]
    Symbol {
        /// The enum.
        name: String,
        /// The index read.
        index: i64,
    },
    /// A union's branch that does not exist.
    #[error("a union has no branch {0}")]
    Branch(i64),
    /// Deeper, or of more values, than any event.
    #[error("the datum nests too deeply")]
    Nesting,
}

impl DecodeError {
    /// Whether the registry was out of reach: the event must be tried again. All else is a dead letter.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}
