//! The events of the log: their Avro schemas, Rust types, encoding, and the catalogue of topics.
//!
//! Every time in this crate is an `i64` of microseconds since the Unix epoch, UTC.

pub mod codec;
pub mod decision;
pub mod device_change;
pub mod hex;
pub mod observation;
pub mod time;
pub mod topics;

pub use codec::{Decoder, Event, Framing, encode, encode_framed, encode_into};
pub use decision::{Decision, Target};
pub use device_change::{DeviceChange, NetworkInterface, OperatingSystem, SourceSummary};
pub use observation::{
    Action, Address, Claim, Collector, Coverage, Observation, Probe, Snapshot, Source, Text,
};
