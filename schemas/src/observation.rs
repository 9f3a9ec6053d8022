//! `Observation`: one event about one record, by which a source asserts or ends it.

use std::collections::BTreeMap;

/// A text that is short mostly, and is many: one of up to 24 bytes takes no memory besides.
pub use compact_str::CompactString as Text;
use serde::{Deserialize, Serialize};

/// Most claims of one observation that count; the rest is dropped with a quality row.
pub const CLAIMS_MAX: usize = 256;
/// Most addresses of one observation that count.
pub const ADDRESSES_MAX: usize = 256;
/// Longest native key, bytes: with a claim and the other parts of a record key it must fit a key of an index.
pub const NATIVE_KEY_BYTES_MAX: usize = 1024;

/// What an observation does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Action {
    /// The record is there, and this is what its source says of it.
    #[default]
    Assert,
    /// The record is no more.
    End,
    /// A complete fetch of the source begins.
    SnapshotBegin,
    /// The fetch is over; `snapshot.count` says how many records it had.
    SnapshotEnd,
    /// Time passes: moves the watermark of the tenant's scopes and nothing else.
    Tick,
}

/// Whether an observation says all there is to say of its record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Coverage {
    /// Claims, addresses and attributes that are not listed have lapsed.
    Full,
    /// What is not listed stays as it was.
    #[default]
    Partial,
}

/// A verdict on reachability.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Probe {
    /// Did not look.
    #[default]
    None,
    /// Looked, and got no answer.
    Down,
    /// Looked, and got an answer.
    Up,
}

/// Kind and instance of a producer, e.g. `armis/hq`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// What sort of producer: `armis`, `netbox`, `agent`, `sweep`, ...
    pub kind: String,
    /// Which one of them.
    pub instance: String,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.kind, self.instance)
    }
}

/// A (namespace, value) by which an observation says who the record is.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claim {
    /// E.g. `mac`, `serial`, `armis/hq`.
    pub namespace: Text,
    /// The value as the producer wrote it; normalised on reading.
    pub value: Text,
}

/// An address of the record.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// IPv4 or IPv6, as text.
    pub ip: String,
    /// The MAC it was seen with: shown, claims nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// The interface it is on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
}

/// Who made the observation. Never evidence of identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Collector {
    /// The agent's id.
    pub agent: String,
    /// The gateway's id.
    pub gateway: String,
    /// The address it spoke from.
    pub address: String,
}

/// The complete fetch that an observation belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// The producer's id of the fetch.
    pub id: String,
    /// When the fetch began, microseconds since the Unix epoch.
    #[serde(with = "crate::time::rfc3339")]
    pub begin: i64,
    /// In a SNAPSHOT_END, how many records the fetch had.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<i64>,
}

fn default_partition() -> String {
    "default".to_owned()
}

/// One event about one record. Field meanings: `events.md` of the design and `avro/observation.avsc`.
///
/// The serde form is the JSON form of integrators: times as RFC 3339, fields with defaults left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs)]
pub struct Observation {
    /// The producer's id of this event. Empty in a datum means: the SHA-256 of the datum, in hex.
    #[serde(default)]
    pub id: String,
    /// When the source saw it, microseconds since the Unix epoch.
    #[serde(with = "crate::time::rfc3339")]
    pub event_time: i64,
    #[serde(default = "default_partition")]
    pub partition: String,
    pub source: Source,
    #[serde(default)]
    pub native_key: String,
    pub action: Action,
    #[serde(default)]
    pub coverage: Coverage,
    #[serde(default)]
    pub claims: Vec<Claim>,
    #[serde(default)]
    pub addresses: Vec<Address>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_type: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub site: Option<String>,
    /// 0 to 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub risk_score: Option<i32>,
    #[serde(default)]
    pub probe: Probe,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<Text, Text>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub attributes: BTreeMap<Text, Text>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collector: Option<Collector>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Snapshot>,
}

impl Observation {
    /// The readable key of the record it speaks of: `partition/kind/instance/native key`.
    pub fn record_key(&self) -> String {
        format!("{}/{}/{}", self.partition, self.source, self.native_key)
    }
}

/// Whether a record may be called so at its source: 1 to [`NATIVE_KEY_BYTES_MAX`] bytes, no control characters.
pub fn is_native_key(text: &str) -> bool {
    (1..=NATIVE_KEY_BYTES_MAX).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// Whether a partition, or the kind or instance of a source, may be called so: `[A-Za-z0-9._-]{1,64}`.
/// They are parts of the record key, which `/` divides.
pub fn is_key_part(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}
