//! The events of the log: their Avro schemas, Rust types, encoding, the client of a schema registry, and the
//! catalogue of topics.
//!
//! Every time in this crate is an `i64` of microseconds since the Unix epoch, UTC.

pub mod archived_record;
pub mod catalogue;
pub mod codec;
pub mod decision;
pub mod device_change;
mod excerpt;
pub mod hex;
pub mod json;
pub mod observation;
pub mod operation;
#[cfg(feature = "registry")]
pub mod registry;
pub mod time;
pub mod topics;

pub use archived_record::ArchivedRecord;
pub use codec::{Decoder, Event, Framing, Framings, encode, encode_framed, encode_into};
pub use decision::{Decision, Target};
pub use device_change::{DeviceChange, NetworkInterface, OperatingSystem, SourceSummary};
pub use excerpt::{EXCERPT_CHARS_MAX, excerpt};
pub use observation::{
    Action, Address, Claim, Collector, Coverage, Observation, Probe, Snapshot, Source, Text,
};
pub use operation::{OffsetRange, Operation};
