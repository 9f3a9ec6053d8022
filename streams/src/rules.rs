//! The rules: caps, windows, leases and authorities, as a document (TOML) and a parameter of a generation.

use std::{collections::BTreeMap, net::IpAddr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::normalise::NORMALISER_VERSION;

/// Version of the way devices are found and named; part of the fingerprint.
pub const IDENTITY_VERSION: u32 = 1;

/// The rules of a generation. They apply to the whole history. Source: `identity.md` of the design.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rules {
    /// How many may share before sharing proves nothing.
    pub caps: Caps,
    /// How long what was seen holds.
    pub windows: Windows,
    /// How long an address stays with who had it.
    pub leases: Leases,
    /// Which source is believed, 1 to 10.
    pub authority: Authority,
    /// When a fetch is too empty to be believed.
    pub snapshots: Snapshots,
}

/// How many may share before sharing proves nothing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Caps {
    /// Records in which a claim may be live; above it is generic.
    pub spread: usize,
    /// Records of one source in which a claim may be current; above it is generic.
    pub spread_of_a_source: usize,
    /// Values of one exclusive namespace that a record, or the records of a claim, may assert.
    pub exclusive_values: usize,
    /// Records of a block; above it the block takes only the steps that cannot go wrong.
    pub block: usize,
}

impl Default for Caps {
    fn default() -> Self {
        Self { spread: 1_000, spread_of_a_source: 16, exclusive_values: 3, block: 100_000 }
    }
}

/// How long what was seen holds, in seconds of event time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Windows {
    /// A record stays open for so long after it was last seen.
    pub record_ttl_s: i64,
    /// Kinds of source whose records stay open until their source ends them.
    pub record_ttl_unlimited: Vec<String>,
    /// A lapsed claim links for so long after its last assertion.
    pub evidence_ttl_s: i64,
    /// A verdict on reachability holds for so long.
    pub probe_ttl_s: i64,
    /// A value is fresh for so long.
    pub freshness_s: i64,
    /// A device unseen for so long is stale.
    pub stale_after_s: i64,
}

const DAY_S: i64 = 24 * 3600;

impl Default for Windows {
    fn default() -> Self {
        Self {
            record_ttl_s: 30 * DAY_S,
            record_ttl_unlimited: ["armis", "integration", "manual", "netbox"].map(String::from).to_vec(),
            evidence_ttl_s: 30 * DAY_S,
            probe_ttl_s: 15 * 60,
            freshness_s: 7 * DAY_S,
            stale_after_s: DAY_S,
        }
    }
}

/// The kind of lease of a subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lease {
    /// Visitors.
    Guest,
    /// DHCP.
    Dynamic,
    /// Fixed addresses.
    Static,
}

/// How long an address stays with who had it, in seconds of event time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Leases {
    /// Of guest networks.
    pub guest_s: i64,
    /// Of networks with DHCP.
    pub dynamic_s: i64,
    /// Of networks with fixed addresses; and of an address that one device alone holds.
    pub static_s: i64,
    /// The lease where no subnet says otherwise.
    pub default: Lease,
    /// Subnets with another lease; the longest prefix counts.
    pub subnets: Vec<Subnet>,
}

impl Default for Leases {
    fn default() -> Self {
        Self {
            guest_s: 3600,
            dynamic_s: 6 * 3600,
            static_s: 72 * 3600,
            default: Lease::Dynamic,
            subnets: Vec::new(),
        }
    }
}

impl Leases {
    /// Microseconds for which an address may be followed to its holder.
    pub fn of(&self, ip: IpAddr) -> i64 {
        let subnet = self
            .subnets
            .iter()
            .filter_map(|subnet| subnet.prefix(ip).map(|prefix| (prefix, subnet.lease)))
            .max_by_key(|(prefix, _)| *prefix);
        let seconds = match subnet.map_or(self.default, |(_, lease)| lease) {
            Lease::Guest => self.guest_s,
            Lease::Dynamic => self.dynamic_s,
            Lease::Static => self.static_s,
        };
        seconds.saturating_mul(1_000_000)
    }

    /// Microseconds for which an address that one device alone holds may be followed to it.
    pub fn sole_holder(&self) -> i64 {
        self.static_s.saturating_mul(1_000_000)
    }
}

/// A subnet and its lease.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subnet {
    /// `address/prefix length`.
    pub cidr: String,
    /// Its lease.
    pub lease: Lease,
}

impl Subnet {
    /// The length of the prefix where the subnet holds `ip`.
    fn prefix(&self, ip: IpAddr) -> Option<u32> {
        let (network, length) = parse_cidr(&self.cidr)?;
        let (network, ip, width) = match (network, ip) {
            (IpAddr::V4(n), IpAddr::V4(i)) => (u128::from(n.to_bits()), u128::from(i.to_bits()), 32),
            (IpAddr::V6(n), IpAddr::V6(i)) => (n.to_bits(), i.to_bits(), 128),
            _ => return None,
        };
        let shift = width - length;
        let same = shift >= 128 || network >> shift == ip >> shift;
        same.then_some(length)
    }
}

fn parse_cidr(text: &str) -> Option<(IpAddr, u32)> {
    let (address, length) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let length: u32 = length.parse().ok()?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    (length <= width).then_some((address, length))
}

/// Which source is believed, 1 (least) to 10.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Authority {
    /// By kind of source.
    pub sources: BTreeMap<String, u8>,
    /// Of kinds not named.
    pub other: u8,
    /// By attribute, then kind of source: overrides the above.
    pub attributes: BTreeMap<String, BTreeMap<String, u8>>,
}

impl Default for Authority {
    fn default() -> Self {
        let sources = [
            ("manual", 10),
            ("snmp", 9),
            ("mapper", 8),
            ("agent", 8),
            ("serviceradar", 8),
            ("armis", 7),
            ("netbox", 7),
            ("integration", 7),
            ("netflow", 6),
            ("sysmon", 6),
            ("sweep", 5),
        ];
        Self {
            sources: sources.into_iter().map(|(kind, rank)| (kind.to_owned(), rank)).collect(),
            other: 1,
            attributes: BTreeMap::new(),
        }
    }
}

impl Authority {
    /// How far a kind of source is believed on an attribute.
    pub fn of(&self, kind: &str, attribute: &str) -> u8 {
        let special = self.attributes.get(attribute).and_then(|kinds| kinds.get(kind));
        special.or_else(|| self.sources.get(kind)).copied().unwrap_or(self.other)
    }
}

/// When a fetch is too empty to be believed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Snapshots {
    /// Per cent of the source's open records that a fetch may end.
    pub mass_end_percent: u32,
    /// So many it may always end.
    pub mass_end_floor: u64,
    /// A fetch that is not complete after so long (intake time) is held.
    pub complete_within_s: i64,
}

impl Default for Snapshots {
    fn default() -> Self {
        Self { mass_end_percent: 20, mass_end_floor: 100, complete_within_s: 15 * 60 }
    }
}

/// Why a rules document was refused.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// It is no TOML, or has unknown or ill-typed keys.
    #[error("the rules cannot be read: {0}")]
    Unreadable(#[from] toml::de::Error),
    /// A value makes no sense.
    #[error("the rules make no sense: {0}")]
    Senseless(String),
}

impl Rules {
    /// Reads a TOML document; what it leaves out has its default.
    pub fn from_toml(text: &str) -> Result<Self, RulesError> {
        let rules: Rules = toml::from_str(text)?;
        rules.check()?;
        Ok(rules)
    }

    fn check(&self) -> Result<(), RulesError> {
        if let Some(subnet) = self.leases.subnets.iter().find(|s| parse_cidr(&s.cidr).is_none()) {
            return Err(RulesError::Senseless(format!(
                "leases.subnets: {:?} is no subnet; write address/prefix length",
                subnet.cidr
            )));
        }
        let ranks = self.authority.attributes.values().flatten().chain(&self.authority.sources);
        if let Some((kind, rank)) = ranks.into_iter().find(|(_, rank)| !(1..=10).contains(*rank)) {
            return Err(RulesError::Senseless(format!("authority of {kind} is {rank}, not 1 to 10")));
        }
        let windows = &self.windows;
        let all = [
            windows.record_ttl_s,
            windows.evidence_ttl_s,
            windows.probe_ttl_s,
            windows.freshness_s,
            windows.stale_after_s,
            self.leases.guest_s,
            self.leases.dynamic_s,
            self.leases.static_s,
        ];
        if all.iter().any(|seconds| *seconds < 0) {
            return Err(RulesError::Senseless("a window or lease is negative".to_owned()));
        }
        Ok(())
    }

    /// The rules as canonical JSON, every default filled in.
    pub fn canonical(&self) -> serde_json::Value {
        serde_json::to_value(self).unwrap_or_default()
    }

    /// SHA-256, in hex, of what decides the result: view layout, identity and normaliser version, rules.
    pub fn fingerprint(&self, layout_version: u32) -> String {
        let document = serde_json::json!({
            "identity": IDENTITY_VERSION,
            "layout": layout_version,
            "normaliser": NORMALISER_VERSION,
            "rules": self.canonical(),
        });
        let digest = Sha256::digest(document.to_string().as_bytes());
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_and_nonsense_are_refused() {
        assert!(Rules::from_toml("[caps]\nspreed = 3").is_err());
        assert!(Rules::from_toml("[[leases.subnets]]\ncidr = \"10.0.0.0/40\"\nlease = \"guest\"").is_err());
        assert!(Rules::from_toml("[authority.sources]\narmis = 11").is_err());
    }

    #[test]
    fn the_longest_prefix_gives_the_lease() {
        let rules = Rules::from_toml(
            "[[leases.subnets]]\ncidr = \"10.0.0.0/8\"\nlease = \"static\"\n[[leases.subnets]]\ncidr = \"10.1.0.0/16\"\nlease = \"guest\"",
        )
        .unwrap();
        assert_eq!(rules.leases.of("10.2.0.1".parse().unwrap()), 72 * 3600 * 1_000_000);
        assert_eq!(rules.leases.of("10.1.0.1".parse().unwrap()), 3600 * 1_000_000);
        assert_eq!(rules.leases.of("192.168.0.1".parse().unwrap()), 6 * 3600 * 1_000_000);
    }

    #[test]
    fn a_default_written_out_is_the_same_rules() {
        let written = Rules::from_toml("[caps]\nspread = 1000").unwrap();
        assert_eq!(written.fingerprint(1), Rules::default().fingerprint(1));
        let other = Rules::from_toml("[caps]\nspread = 999").unwrap();
        assert_ne!(other.fingerprint(1), Rules::default().fingerprint(1));
    }
}
