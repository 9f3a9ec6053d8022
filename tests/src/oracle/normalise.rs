//! Claims in their normal form, their tiers, and the uid of a claim.

use std::net::{IpAddr, Ipv6Addr};

use serviceradar_schemas::{
    Observation,
    observation::{ADDRESSES_MAX, CLAIMS_MAX},
};
use sha2::{Digest, Sha256};

/// A claim in its normal form: (namespace, value).
pub type Claim = (String, String);

/// Serials that makers leave in by default; they tell nothing.
const SERIALS_OF_NOBODY: [&str; 7] = [
    "TO BE FILLED BY O.E.M.",
    "DEFAULT STRING",
    "SYSTEM SERIAL NUMBER",
    "NONE",
    "N/A",
    "UNKNOWN",
    "123456789",
];
/// The hardware UUID that a maker of boards ships on all of them.
const HWUUID_OF_NOBODY: &str = "03000200-0400-0500-0006-000700080009";
/// Virtual routers share these: VRRP of both families, HSRP of both versions.
const MACS_OF_ROUTER_GROUPS: [&str; 4] = ["00005e0001", "00005e0002", "00000c07ac", "00000c9ff"];

/// Longest value that claims something, as written and in its normal form, bytes.
const VALUE_BYTES_MAX: usize = 1024;
/// Longest namespace, bytes.
const NAMESPACE_BYTES_MAX: usize = 256;

/// The normal form of what a producer wrote; `None` where it claims nothing.
pub fn claim(namespace: &str, value: &str) -> Option<Claim> {
    let is_text = !namespace.is_empty() && !namespace.contains('\0') && !value.contains('\0');
    if !is_text || namespace.len() > NAMESPACE_BYTES_MAX || value.len() > VALUE_BYTES_MAX {
        return None;
    }
    let value = match namespace {
        "detached" | "ip" => None,
        "mac" => mac(value),
        "serial" => serial(value),
        "hwuuid" => hwuuid(value),
        "hostname" => hostname(value),
        _ => Some(value.trim().to_owned()).filter(|v| !v.is_empty()),
    };
    let value = value.filter(|value| value.len() <= VALUE_BYTES_MAX)?;
    Some((namespace.to_owned(), value))
}

fn mac(text: &str) -> Option<String> {
    let digits: String =
        text.chars().filter(|c| !matches!(c, ':' | '-' | '.') && !c.is_whitespace()).collect();
    let digits = digits.to_ascii_lowercase();
    let is_mac = digits.len() == 12 && digits.chars().all(|c| c.is_ascii_hexdigit());
    let of_a_group = |mac: &str| first_octet(mac) & 0x01 != 0;
    let of_nobody = |mac: &str| {
        mac == "000000000000"
            || of_a_group(mac)
            || MACS_OF_ROUTER_GROUPS.iter().any(|start| mac.starts_with(start))
    };
    Some(digits).filter(|mac| is_mac && !of_nobody(mac))
}

fn first_octet(mac: &str) -> u8 {
    mac.get(..2).and_then(|octet| u8::from_str_radix(octet, 16).ok()).unwrap_or(0)
}

fn serial(text: &str) -> Option<String> {
    let (vendor, serial) = text.split_once(':')?;
    let (vendor, serial) = (vendor.trim().to_uppercase(), serial.trim().to_uppercase());
    let one_character = serial.chars().all(|c| serial.starts_with(c));
    let told = !vendor.is_empty()
        && !serial.is_empty()
        && !one_character
        && !SERIALS_OF_NOBODY.contains(&serial.as_str());
    told.then(|| format!("{vendor}:{serial}"))
}

fn hwuuid(text: &str) -> Option<String> {
    let uuid = text.trim().to_lowercase();
    let all = |digit: char| uuid.chars().all(|c| c == digit || c == '-');
    let told = !uuid.is_empty() && !all('0') && !all('f') && uuid != HWUUID_OF_NOBODY;
    told.then_some(uuid)
}

fn hostname(text: &str) -> Option<String> {
    let name = text.trim().to_lowercase();
    let name = name.trim_end_matches(|c: char| c == '.' || c.is_whitespace());
    let told =
        !name.is_empty() && name != "localhost" && name != "unknown" && name.parse::<IpAddr>().is_err();
    told.then(|| name.to_owned())
}

/// The normal form of an address; `None` where it is no address that a device could be found at.
pub fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let text = text.split('/').next().unwrap_or(text);
    let text = text.split('%').next().unwrap_or(text);
    let ip = text.parse::<IpAddr>().ok()?.to_canonical();
    let link_local = match ip {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => is_link_local(v6),
    };
    (!ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast() && !link_local).then_some(ip)
}

fn is_link_local(ip: Ipv6Addr) -> bool {
    ip.segments()[0] & 0xffc0 == 0xfe80
}

/// The addresses of an observation that count: the first of the usable ones, as listed.
pub fn addresses(observation: &Observation) -> Vec<IpAddr> {
    let mut listed: Vec<IpAddr> = Vec::new();
    for ip in observation.addresses.iter().filter_map(|a| address(&a.ip)) {
        if !listed.contains(&ip) && listed.len() < ADDRESSES_MAX {
            listed.push(ip);
        }
    }
    listed
}

/// Whether `text` can name a partition, a kind or an instance: `[A-Za-z0-9._-]{1,64}`.
pub fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
}

/// The tier of a claim, before any decision: 1, 2 or 3.
pub fn tier(claim: &Claim) -> u8 {
    match claim.0.as_str() {
        "agent" | "cloud" | "hwuuid" | "serial" | "detached" => 1,
        "mac" if first_octet(&claim.1) & 0x02 == 0 => 2,
        namespace => match namespace.split_once('/') {
            Some(("armis" | "netbox" | "integration", instance)) if is_name(instance) => 1,
            _ => 3,
        },
    }
}

/// Whether a device has one current value of the claim's namespace.
pub fn is_exclusive(claim: &Claim) -> bool {
    tier(claim) == 1 && claim.0 != "detached" && !claim.0.starts_with("integration/")
}

/// Which namespace names a device first, among claims of one tier and birth.
pub fn rank(claim: &Claim) -> u8 {
    match claim.0.split('/').next() {
        Some("agent") => 0,
        Some("cloud") => 1,
        Some("hwuuid") => 2,
        Some("serial") => 3,
        Some("armis") => 4,
        Some("netbox") => 5,
        Some("integration") => 6,
        Some("detached") => 10,
        _ => 9,
    }
}

/// The claim that the native key is, where the source's key is a device key.
pub fn native_claim(observation: &Observation) -> Option<Claim> {
    let source = &observation.source;
    match source.kind.as_str() {
        "armis" | "netbox" | "integration" => claim(&source.to_string(), &observation.native_key),
        "agent" => claim("agent", &observation.native_key),
        _ => None,
    }
}

/// The claims of an observation that count, the native key's first if there are too many.
pub fn claims(observation: &Observation) -> Vec<Claim> {
    let native = native_claim(observation);
    let written = observation.claims.iter().filter_map(|c| claim(&c.namespace, &c.value));
    let mut all: Vec<Claim> = native.iter().cloned().chain(written).collect();
    all.sort_by_key(|c| (Some(c) != native.as_ref(), tier(c), c.clone()));
    all.dedup();
    all.truncate(CLAIMS_MAX);
    all
}

/// `"sr:" + UUIDv8(SHA-256("id.v1" ‖ tenant ‖ partition ‖ namespace ‖ value))`, each of the four
/// parts preceded by its length as 4 big-endian bytes. Source: `identity.md` of the design, step 6.
pub fn uid(tenant: &str, partition: &str, claim: &Claim) -> String {
    let mut hash = Sha256::new_with_prefix("id.v1");
    for part in [tenant, partition, &claim.0, &claim.1] {
        hash.update((part.len() as u32).to_be_bytes());
        hash.update(part);
    }
    let mut hex = String::new();
    for (i, byte) in hash.finalize().iter().take(16).enumerate() {
        let byte = match i {
            6 => byte & 0x0f | 0x80,
            8 => byte & 0x3f | 0x80,
            _ => *byte,
        };
        let dash = if matches!(i, 4 | 6 | 8 | 10) { "-" } else { "" };
        hex.push_str(&format!("{dash}{byte:02x}"));
    }
    format!("sr:{hex}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value(namespace: &str, text: &str) -> Option<String> {
        claim(namespace, text).map(|c| c.1)
    }

    #[test]
    fn macs_of_nobody_claim_nothing() {
        for mac in ["00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "00005e000105"] {
            assert_eq!(value("mac", mac), None, "{mac}");
        }
        assert_eq!(value("mac", "00:00:0c:9f:f1:23"), None);
        assert_eq!(value("mac", "00:1b:21"), None);
        assert_eq!(value("mac", " 00-1B.21 AABB01"), Some("001b21aabb01".into()));
    }

    #[test]
    fn defaults_of_makers_claim_nothing() {
        assert_eq!(value("serial", "dell: to be filled by o.e.m."), None);
        assert_eq!(value("serial", "dell:0000"), None);
        assert_eq!(value("serial", ":abc"), None);
        assert_eq!(value("serial", " dell : a:b "), Some("DELL:A:B".into()));
        assert_eq!(value("hwuuid", "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF"), None);
    }

    #[test]
    fn addresses_that_mean_nothing_elsewhere_are_dropped() {
        for ip in ["0.0.0.0", "127.0.0.1", "::1", "224.0.0.1", "169.254.1.1", "fe80::1%eth0/64", "x"] {
            assert_eq!(address(ip), None, "{ip}");
        }
        assert_eq!(address("::ffff:10.0.0.1/96"), "10.0.0.1".parse().ok());
    }

    #[test]
    fn the_published_uid_of_a_claim_never_changes() {
        let armis = ("armis/hq".to_owned(), "1000".to_owned());
        assert_eq!(uid("default", "default", &armis), "sr:fc5f698e-95b9-8590-8896-6238486b070f");
    }

    proptest! {
        #[test]
        fn normalise_is_idempotent(
            namespace in "mac|serial|hwuuid|hostname|agent|cloud|armis/hq|x",
            text in "[ 0-9a-fA-F:.\\-]{0,20}|\\PC{0,12}|[ a.:]{0,6}",
        ) {
            if let Some(once) = claim(&namespace, &text) {
                prop_assert_eq!(claim(&once.0, &once.1), Some(once));
            }
        }
    }
}
