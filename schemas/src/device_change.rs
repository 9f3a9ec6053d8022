//! `DeviceChange`: a device, whole, as the view `devices` shows it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A network interface or address of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NetworkInterface {
    /// Address, as text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip: Option<String>,
    /// MAC, `aa:bb:cc:dd:ee:ff`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// The interface's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// The operating system of a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct OperatingSystem {
    /// E.g. `IOS-XE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// E.g. `17.9.3`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// What one source contributes to a device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SourceSummary {
    /// `kind/instance`.
    pub source: String,
    /// First sighting, microseconds since the Unix epoch.
    pub first_seen: i64,
    /// Last sighting, microseconds since the Unix epoch.
    pub last_seen: i64,
    /// Records of that source.
    pub records: i32,
    /// How many of them are open.
    pub open: i32,
}

/// A device, whole: a row of the view `devices`, and the value of the topic `device-changes`.
/// Times are microseconds since the Unix epoch; arrays and maps are sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DeviceChange {
    /// `sr:<uuid>`.
    pub uid: String,
    /// The network in which its addresses mean one thing.
    pub partition: String,
    /// Name shown.
    pub name: Option<String>,
    /// Host name, normalised.
    pub hostname: Option<String>,
    /// The winner among the current addresses.
    pub ip: Option<String>,
    /// The first of its current MACs, `aa:bb:cc:dd:ee:ff`.
    pub mac: Option<String>,
    /// OCSF device type, e.g. `Router`.
    pub r#type: String,
    /// OCSF device type id.
    pub type_id: i32,
    /// Manufacturer.
    pub vendor_name: Option<String>,
    /// Model.
    pub model: Option<String>,
    /// Operating system.
    pub os: Option<OperatingSystem>,
    /// Hardware: `serial_number` and the like.
    pub hw_info: BTreeMap<String, String>,
    /// 0 to 100.
    pub risk_score: Option<i32>,
    /// `Info`, `Low`, `Medium`, `High`, `Critical`.
    pub risk_level: Option<String>,
    /// 0 to 4.
    pub risk_level_id: Option<i32>,
    /// Whether it answered; absent is unknown.
    pub is_available: Option<bool>,
    /// When that was found.
    pub availability_at: Option<i64>,
    /// Kinds of its sources.
    pub discovery_sources: Vec<String>,
    /// Per source: first, last, records, open.
    pub sources: Vec<SourceSummary>,
    /// `authoritative`, `corroborated`, `provisional`.
    pub confidence: String,
    /// `active`, `stale`, `retired`.
    pub state: String,
    /// Earliest sighting.
    pub first_seen: i64,
    /// Latest sighting.
    pub last_seen: i64,
    /// Agent of the latest sighting.
    pub agent_id: Option<String>,
    /// Gateway of the latest sighting.
    pub gateway_id: Option<String>,
    /// Current addresses and MACs.
    pub network_interfaces: Vec<NetworkInterface>,
    /// Site.
    pub site: Option<String>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// All other attributes.
    pub metadata: BTreeMap<String, String>,
    /// Records that make it up.
    pub records: i32,
    /// `rekeyed` and the like.
    pub flags: Vec<String>,
}
