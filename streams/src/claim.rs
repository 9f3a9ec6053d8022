//! Claims: tiers, ranks and the uid that each claim gives.

use std::net::IpAddr;

use sha2::{Digest, Sha256};

use crate::rows::Uid;

/// The kind of a namespace: what it may do, and in which order it names a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Namespace {
    /// An agent's id.
    Agent,
    /// A cloud instance's id.
    Cloud,
    /// A hardware UUID.
    HwUuid,
    /// `VENDOR:SERIAL`.
    Serial,
    /// `armis/<instance>`.
    Armis,
    /// `netbox/<instance>`.
    Netbox,
    /// `integration/<instance>`.
    Integration,
    /// A MAC: tier 2 where universally administered, else tier 3.
    Mac,
    /// The private claim of a detached record.
    Detached,
    /// Corroborates, never links: host names, fingerprints, whatever nobody knows.
    Other,
}

impl Namespace {
    /// What a namespace's name stands for.
    pub fn of(name: &str) -> Self {
        match name {
            "agent" => Self::Agent,
            "cloud" => Self::Cloud,
            "hwuuid" => Self::HwUuid,
            "serial" => Self::Serial,
            "mac" => Self::Mac,
            "detached" => Self::Detached,
            _ => match name.split_once('/') {
                Some(("armis", instance)) if is_name(instance) => Self::Armis,
                Some(("netbox", instance)) if is_name(instance) => Self::Netbox,
                Some(("integration", instance)) if is_name(instance) => Self::Integration,
                _ => Self::Other,
            },
        }
    }

    /// Whether it is of tier 1: it links.
    pub fn is_tier_1(self) -> bool {
        !matches!(self, Self::Mac | Self::Other)
    }

    /// Whether a device has one current value of it.
    pub fn is_exclusive(self) -> bool {
        matches!(self, Self::Agent | Self::Cloud | Self::HwUuid | Self::Serial | Self::Armis | Self::Netbox)
    }

    /// The order in which claims of equal tier and birth name a device.
    pub fn rank(self) -> u8 {
        match self {
            Self::Agent => 0,
            Self::Cloud => 1,
            Self::HwUuid => 2,
            Self::Serial => 3,
            Self::Armis => 4,
            Self::Netbox => 5,
            Self::Integration => 6,
            Self::Mac => 9,
            Self::Detached => 10,
            Self::Other => 11,
        }
    }
}

/// Whether a partition, kind or instance may be called so: `[A-Za-z0-9._-]{1,64}`.
pub fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// Whether a MAC (48 bits) is universally administered: the local bit is 0x02 of the first octet.
pub fn is_universal(mac: u64) -> bool {
    mac >> 40 & 0x02 == 0
}

/// A MAC as the normalised form writes it: 12 lower-case hex digits.
pub fn mac_text(mac: u64) -> String {
    mac_digits(mac, None)
}

/// A MAC as people read it: `aa:bb:cc:dd:ee:ff`.
pub fn mac_shown(mac: u64) -> String {
    mac_digits(mac, Some(':'))
}

/// Written by hand: a load writes each MAC twice, and formatting costs ten times as much.
fn mac_digits(mac: u64, between: Option<char>) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let mut text = String::with_capacity(17);
    for octet in (0..6).rev() {
        let octet = (mac >> (8 * octet)) as usize & 0xff;
        text.push(DIGITS[octet >> 4]);
        text.push(DIGITS[octet & 0xf]);
        text.extend(between.filter(|_| text.len() < 17));
    }
    text
}

/// Makes uids for one (tenant, partition).
#[derive(Clone)]
pub struct UidMaker {
    scope: Sha256,
}

impl UidMaker {
    /// For claims of this scope.
    pub fn new(tenant: &str, partition: &str) -> Self {
        let mut scope = Sha256::new();
        scope.update(b"id.v1");
        part(&mut scope, tenant.as_bytes());
        part(&mut scope, partition.as_bytes());
        Self { scope }
    }

    /// uid(claim) = UUIDv8(SHA-256("id.v1" ‖ tenant ‖ partition ‖ namespace ‖ value)), each part after
    /// the first preceded by its length as 4 big-endian bytes. Source: `identity.md`, "Name".
    pub fn claim(&self, namespace: &str, value: &str) -> Uid {
        let mut hash = self.scope.clone();
        part(&mut hash, namespace.as_bytes());
        part(&mut hash, value.as_bytes());
        let digest = hash.finalize();
        let mut bytes = [0u8; 16];
        bytes.copy_from_slice(&digest[..16]);
        Uid(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// uid(`ip`, p): names the provisional device at an address.
    pub fn address(&self, ip: IpAddr) -> Uid {
        self.claim("ip", &ip.to_string())
    }
}

fn part(hash: &mut Sha256, bytes: &[u8]) {
    // A part is far shorter than 4 GiB: events are bounded.
    hash.update((bytes.len() as u32).to_be_bytes());
    hash.update(bytes);
}

/// The first 8 bytes of the SHA-256 of an event's id: the tie-break of its order.
pub fn id_hash(id: &str) -> u64 {
    let digest = Sha256::digest(id.as_bytes());
    let mut first = [0u8; 8];
    first.copy_from_slice(&digest[..8]);
    u64::from_be_bytes(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_is_what_it_always_was() {
        let uid = UidMaker::new("default", "default").claim("armis/hq", "1002");
        assert_eq!(uid.to_string(), "sr:feac4a2b-464f-8112-91a6-d6b43cd4b713");
    }

    #[test]
    fn only_exact_namespaces_link() {
        assert_eq!(Namespace::of("armis/hq"), Namespace::Armis);
        for name in ["armis", "armis/", "armis/a/b", "Agent", "serial ", "ip"] {
            assert_eq!(Namespace::of(name), Namespace::Other, "{name}");
        }
    }

    #[test]
    fn the_local_bit_is_that_of_the_first_octet() {
        assert!(is_universal(0x001b_2100_0001));
        assert!(!is_universal(0x021b_2100_0001));
        assert_eq!(mac_shown(0x001b_2100_0001), "00:1b:21:00:00:01");
        assert_eq!(mac_text(0xf01b_2abc_0001), "f01b2abc0001");
    }
}
