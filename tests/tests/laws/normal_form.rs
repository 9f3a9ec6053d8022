//! Normalising is total, idempotent, and the same in engine and oracle.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{collection::vec, option, prelude::*};
use serviceradar_schemas::{Action, Address, Claim, Coverage, Observation, Probe, Snapshot, Text};
use serviceradar_streams::{
    claim::mac_text,
    normalise::{ClaimKey, Sighting, normalise},
};
use serviceradar_tests::{
    oracle,
    worlds::{BEGINNING, source},
};

use crate::cases;

/// What producers write: nearly right, nearly wrong, and anything.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "([0-9a-fA-F]{2}[:. -]?){5,7}",
        2 => " ?(dell|ACME)? ?: ?([a-z0-9]{1,6}|0{4}|none|n/a|default string) ?",
        2 => "(localhost|unknown|[a-zA-Z0-9-]{1,8})(\\.[a-z]{1,3})?\\.{0,2} ?",
        2 => "(::ffff:)?(10|127|169|224|0)\\.(254|0)\\.[0-9]{1,3}\\.1(/24|%eth0)?",
        1 => "[0f-]{1,12}|4c4c4544-[0-9A-F]{4}",
        1 => "(fe80|2001:db8|ff02)::[0-9a-f]{1,4}(%1)?(/64)?",
        2 => "\\PC{0,12}",
    ]
}

fn claims() -> impl Strategy<Value = Vec<Claim>> {
    let namespace = "mac|serial|hwuuid|hostname|agent|cloud|armis/hq|armis/|netbox/x|integration/i 1\
                     |fingerprint|asset|ip|detached|Mac";
    let claim = || {
        (namespace, text()).prop_map(|(namespace, value): (String, String)| Claim {
            namespace: namespace.into(),
            value: value.into(),
        })
    };
    // Too many, now and then.
    let many = (0..400u32).prop_map(|n| {
        let claim = |n: u32| Claim { namespace: "mac".into(), value: format!("001b21{n:06x}").into() };
        (0..n).map(claim).collect::<Vec<Claim>>()
    });
    prop_oneof![
        8 => vec(claim(), 0..6),
        1 => (many, vec(claim(), 0..6)).prop_map(|(many, some)| [many, some].concat()),
    ]
}

fn addresses() -> impl Strategy<Value = Vec<Address>> {
    let address = (text(), option::of(text()), option::of("[a-z0-9|]{0,4}"));
    vec(address.prop_map(|(ip, mac, interface)| Address { ip, mac, interface }), 0..4)
}

fn observations() -> impl Strategy<Value = Observation> {
    let time = prop_oneof![BEGINNING..BEGINNING + 1_000_000_000, any::<i64>()];
    let who = (0..8u8, "[a-z0-9/ :]{1,6}", prop::bool::ANY, time.clone(), option::of(time));
    let texts = vec(option::of(text()), 9);
    let map = || vec(("[a-z\\PC]{0,4}", text()), 0..4);
    (who, claims(), addresses(), texts, option::of(-10..120i32), map(), map()).prop_map(
        |((of, native_key, full, event_time, begin), claims, addresses, texts, risk_score, tags, more)| {
            let mut texts = texts.into_iter();
            let mut next = || texts.next().flatten();
            Observation {
                id: "x".into(),
                event_time,
                partition: "default".into(),
                source: source(of),
                native_key,
                action: Action::Assert,
                coverage: if full { Coverage::Full } else { Coverage::Partial },
                claims,
                addresses,
                hostname: next(),
                name: next(),
                vendor: next(),
                model: next(),
                serial: next(),
                device_type: next(),
                os_name: next(),
                os_version: next(),
                site: next(),
                risk_score,
                probe: Probe::Up,
                tags: map_of(tags),
                attributes: map_of(more),
                collector: None,
                snapshot: begin.map(|begin| Snapshot { id: "f".into(), begin, count: None }),
            }
        },
    )
}

fn map_of(pairs: Vec<(String, String)>) -> BTreeMap<Text, Text> {
    pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect()
}

/// The observation that says in normal form what a sighting says.
fn observation_of(sighting: &Sighting) -> Observation {
    let attribute = |name: &str| {
        let found = sighting.attributes.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.to_string())
    };
    let under = |prefix: &str| {
        let named = sighting.attributes.iter();
        named.filter_map(|(name, value)| Some((name.strip_prefix(prefix)?.into(), value.clone()))).collect()
    };
    let claim = |key: &ClaimKey| match key {
        ClaimKey::Mac(mac) => Claim { namespace: "mac".into(), value: mac_text(*mac).into() },
        ClaimKey::Text(namespace, value) => Claim { namespace: namespace.clone(), value: value.clone() },
    };
    let address = |ip: &std::net::IpAddr| {
        let interface = attribute(&format!("interface.{ip}")).unwrap_or_default();
        let (mac, interface) = interface.split_once('|').unwrap_or_default();
        Address { ip: ip.to_string(), mac: Some(mac.into()), interface: Some(interface.into()) }
    };
    Observation {
        id: "x".into(),
        event_time: sighting.event_time,
        partition: sighting.partition.clone(),
        source: sighting.source.clone(),
        native_key: sighting.native_key.clone(),
        action: sighting.action,
        coverage: if sighting.full { Coverage::Full } else { Coverage::Partial },
        claims: sighting.claims.iter().map(claim).collect(),
        addresses: sighting.addresses.iter().map(address).collect(),
        hostname: attribute("hostname"),
        name: attribute("name"),
        vendor: attribute("vendor"),
        model: attribute("model"),
        serial: attribute("serial"),
        device_type: attribute("device_type"),
        os_name: attribute("os_name"),
        os_version: attribute("os_version"),
        site: attribute("site"),
        risk_score: attribute("risk_score").and_then(|score| score.parse().ok()),
        probe: if sighting.probe == Some(true) { Probe::Up } else { Probe::None },
        tags: under("tags."),
        attributes: under("attributes."),
        collector: None,
        snapshot: sighting.fetch.as_ref().map(|fetch| Snapshot {
            id: fetch.id.clone(),
            begin: fetch.begin,
            count: fetch.count,
        }),
    }
}

/// Without the notes on the quality of what came.
fn unnoted(mut sighting: Sighting) -> Sighting {
    sighting.attributes.retain(|(name, _)| name != "quality");
    sighting
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn normalise_is_idempotent(observation in observations()) {
        let once = normalise(observation, Some(BEGINNING)).map_err(|refusal| TestCaseError::reject(refusal.to_string()))?;
        let twice = normalise(observation_of(&once), Some(BEGINNING))?;
        prop_assert_eq!(unnoted(twice), unnoted(once));
    }

    #[test]
    fn engine_and_oracle_read_the_same_claims_and_addresses(observation in observations()) {
        let claims: BTreeSet<(String, String)> = oracle::normalise::claims(&observation).into_iter().collect();
        let addresses = oracle::normalise::addresses(&observation);
        let sighting = normalise(observation, Some(BEGINNING)).map_err(|refusal| TestCaseError::reject(refusal.to_string()))?;
        let read = sighting.claims.iter().map(|claim| match claim {
            ClaimKey::Mac(mac) => ("mac".to_owned(), mac_text(*mac)),
            ClaimKey::Text(namespace, value) => (namespace.to_string(), value.to_string()),
        });
        prop_assert_eq!(read.collect::<BTreeSet<_>>(), claims);
        prop_assert_eq!(sighting.addresses, addresses);
    }
}
