//! The rules that the oracle takes, times in microseconds.

use std::net::IpAddr;

use serviceradar_schemas::time::{DAY, HOUR};

/// Caps, windows and leases. The defaults are those of `identity.md` of the design.
#[derive(Clone, Debug)]
pub struct OracleRules {
    /// A claim live in more records is generic.
    pub spread_cap: usize,
    /// A claim current in more records of one source is generic.
    pub source_spread_cap: usize,
    /// More current values of one exclusive namespace speak of others.
    pub exclusive_values: usize,
    /// A block of more records takes no step c and d.
    pub block_cap: usize,
    /// How long a record stays open unseen, microseconds.
    pub record_ttl: i64,
    /// The kinds of source whose records stay open until they are ended.
    pub record_ttl_unlimited: Vec<String>,
    /// How long a lapsed claim links, microseconds.
    pub evidence_ttl: i64,
    /// The lease where no subnet says otherwise, microseconds.
    pub lease: i64,
    /// The lease of an address that one device alone holds, microseconds.
    pub lease_of_sole_holder: i64,
    /// (network, prefix length, lease in microseconds); the longest prefix counts.
    pub subnets: Vec<(IpAddr, u8, i64)>,
}

impl Default for OracleRules {
    fn default() -> Self {
        Self {
            spread_cap: 1_000,
            source_spread_cap: 16,
            exclusive_values: 3,
            block_cap: 100_000,
            record_ttl: 30 * DAY,
            record_ttl_unlimited: ["armis", "netbox", "integration", "manual"].map(String::from).into(),
            evidence_ttl: 30 * DAY,
            lease: 6 * HOUR,
            lease_of_sole_holder: 72 * HOUR,
            subnets: Vec::new(),
        }
    }
}

impl OracleRules {
    /// The lease of an address, microseconds.
    pub fn lease_of(&self, ip: IpAddr) -> i64 {
        let covering = self.subnets.iter().filter(|(network, length, _)| covers(*network, *length, ip));
        covering.max_by_key(|(_, length, _)| *length).map_or(self.lease, |(_, _, lease)| *lease)
    }
}

fn covers(network: IpAddr, length: u8, ip: IpAddr) -> bool {
    let (network, ip, width) = match (network, ip) {
        (IpAddr::V4(n), IpAddr::V4(i)) => (u128::from(n.to_bits()), u128::from(i.to_bits()), 32),
        (IpAddr::V6(n), IpAddr::V6(i)) => (n.to_bits(), i.to_bits(), 128),
        _ => return false,
    };
    let host_bits = width - u32::from(length).min(width);
    let prefix = |bits: u128| bits.checked_shr(host_bits).unwrap_or(0);
    prefix(network) == prefix(ip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_prefix_says_the_lease() {
        let net = |text: &str| text.parse::<IpAddr>().unwrap();
        let subnets =
            vec![(net("10.0.0.0"), 8, HOUR), (net("10.1.0.0"), 16, 72 * HOUR), (net("::"), 0, 2 * HOUR)];
        let rules = OracleRules { subnets, ..OracleRules::default() };
        assert_eq!(rules.lease_of(net("10.1.2.3")), 72 * HOUR);
        assert_eq!(rules.lease_of(net("10.2.2.3")), HOUR);
        assert_eq!(rules.lease_of(net("192.0.2.1")), 6 * HOUR);
        assert_eq!(rules.lease_of(net("2001:db8::1")), 2 * HOUR);
    }
}
