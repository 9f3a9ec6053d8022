//! Observations as producers write them: nearly right, nearly wrong, and hostile.

use std::collections::BTreeMap;

use proptest::{collection::vec, option, prelude::*, sample::select};
use serviceradar_schemas::{
    Action, Address, Claim, Collector, Coverage, Observation, Probe, Snapshot, Source, Text,
};
use serviceradar_streams::{
    claim::mac_text,
    normalise::{ClaimKey, Sighting},
};

use crate::worlds::{BEGINNING, source};

/// Characters that change their length with their case, or that some place cannot hold.
const ODD: &str = "[a.: ŉİΐßΣ\u{0}\u{7f}\u{fffd}\u{202e}\u{feff}🦀]";
/// Lengths at the limits of values, and beyond all of them, characters.
const LENGTHS: [usize; 9] = [60, 65, 255, 342, 512, 1_023, 1_025, 8_193, 64 * 1024];

/// What an observation may do.
const ACTIONS: [Action; 5] =
    [Action::Assert, Action::End, Action::SnapshotBegin, Action::SnapshotEnd, Action::Tick];

/// What producers write: nearly right, nearly wrong, and anything.
pub fn text() -> impl Strategy<Value = String> + Clone {
    let long = (select(&LENGTHS[..]), ODD).prop_map(|(length, character)| character.repeat(length));
    prop_oneof![
        12 => "([0-9a-fA-F]{2}[:. -]?){5,7}",
        6 => " ?(dell|ACME)? ?: ?([a-z0-9]{1,6}|0{4}|none|n/a|default string) ?",
        6 => "(localhost|unknown|[a-zA-Z0-9-]{1,8})(\\.[a-z]{1,3})?\\.{0,2} ?",
        6 => "(::ffff:)?(10|127|169|224|0)\\.(254|0)\\.[0-9]{1,3}\\.1(/24|%eth0)?",
        3 => "[0f-]{1,12}|4c4c4544-[0-9A-F]{4}",
        3 => "(fe80|2001:db8|ff02)::[0-9a-f]{1,4}(%1)?(/64)?",
        4 => "\\PC{0,12}",
        2 => vec(ODD, 0..6).prop_map(|characters| characters.concat()),
        1 => long.clone(),
        1 => (" ?(dell|)", long).prop_map(|(vendor, serial)| format!("{vendor}:{serial}")),
    ]
}

fn claims() -> impl Strategy<Value = Vec<Claim>> {
    let namespace = prop_oneof![
        9 => "mac|serial|hwuuid|hostname|agent|cloud|armis/hq|armis/|netbox/x|integration/i 1\
              |fingerprint|asset|ip|detached|Mac",
        1 => text(),
    ];
    let claim = || {
        (namespace.clone(), text()).prop_map(|(namespace, value): (String, String)| Claim {
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
    let interface = prop_oneof![4 => "[a-z0-9|]{0,4}", 1 => text()];
    let address = (text(), option::of(text()), option::of(interface));
    let some = vec(address.prop_map(|(ip, mac, interface)| Address { ip, mac, interface }), 0..4);
    let many = (250..300u32).prop_map(|n| {
        let ip = |n: u32| std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string();
        (0..n).map(|n| Address { ip: ip(n), ..Address::default() }).collect()
    });
    prop_oneof![20 => some, 1 => many]
}

fn map() -> impl Strategy<Value = BTreeMap<Text, Text>> {
    let name = prop_oneof![6 => "[a-z\\PC]{0,4}".prop_map(String::from), 1 => text()];
    let some = vec((name, text()), 0..4).prop_map(|pairs| {
        pairs.into_iter().map(|(name, value)| (name.into(), value.into())).collect::<BTreeMap<Text, Text>>()
    });
    let many = (500..600u32).prop_map(|n| {
        (0..n).map(|n| (n.to_string().into(), Text::const_new("x"))).collect::<BTreeMap<Text, Text>>()
    });
    prop_oneof![20 => some, 1 => many]
}

prop_compose! {
    fn collector()(agent in text(), gateway in text(), address in text()) -> Collector {
        Collector { agent, gateway, address }
    }
}

/// Asserts: whoever normalises them refuses some.
pub fn observations() -> impl Strategy<Value = Observation> {
    let time =
        || prop_oneof![BEGINNING..BEGINNING + 1_000_000_000, any::<i64>(), Just(i64::MIN), Just(i64::MAX)];
    let key = prop_oneof![6 => "[a-z0-9/ :]{1,6}", 1 => text()];
    let who = (0..8u8, key, prop::bool::ANY, time());
    let snapshot = (text(), time(), option::of(any::<i64>()));
    let snapshot = snapshot.prop_map(|(id, begin, count)| Snapshot { id, begin, count });
    let texts = vec(option::of(text()), 9);
    let rest = (option::of(any::<i32>()), map(), map(), option::of(collector()), option::of(snapshot));
    (who, claims(), addresses(), texts, option::of(-10..120i32), rest).prop_map(
        |((of, native_key, full, event_time), claims, addresses, texts, risk, rest)| {
            let (any_risk, tags, attributes, collector, snapshot) = rest;
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
                risk_score: risk.or(any_risk),
                probe: Probe::Up,
                tags,
                attributes,
                collector,
                snapshot,
            }
        },
    )
}

/// Observations of every action, whose names need not be names.
pub fn any_observations() -> BoxedStrategy<Observation> {
    let named = prop_oneof![Just(None), (text(), text(), text()).prop_map(Some)];
    // An empty id would be read as the hash of the datum.
    let id = text().prop_map(|id| format!("i{id}"));
    let all = (observations(), select(&ACTIONS[..]), named, id);
    all.prop_map(|(mut observation, action, named, id)| {
        if let Some((partition, kind, instance)) = named {
            observation.partition = partition;
            observation.source = Source { kind, instance };
        }
        Observation { id, action, ..observation }
    })
    // Many of them side by side are more than a stack holds.
    .boxed()
}

/// A claim as a producer would write what is normalised already.
pub fn claim_of(key: &ClaimKey) -> Claim {
    match key {
        ClaimKey::Mac(mac) => Claim { namespace: "mac".into(), value: mac_text(*mac).into() },
        ClaimKey::Text(namespace, value) => Claim { namespace: namespace.clone(), value: value.clone() },
    }
}

/// The observation that says in normal form what a sighting says.
pub fn observation_of(sighting: &Sighting) -> Observation {
    let attribute = |name: &str| {
        let found = sighting.attributes.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.to_string())
    };
    let under = |prefix: &str| {
        let named = sighting.attributes.iter();
        named.filter_map(|(name, value)| Some((name.strip_prefix(prefix)?.into(), value.clone()))).collect()
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
        claims: sighting.claims.iter().map(claim_of).collect(),
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
        probe: match sighting.probe {
            None => Probe::None,
            Some(true) => Probe::Up,
            Some(false) => Probe::Down,
        },
        tags: under("tags."),
        attributes: under("attributes."),
        collector: sighting.collector.clone(),
        snapshot: sighting.fetch.as_ref().map(|fetch| Snapshot {
            id: fetch.id.clone(),
            begin: fetch.begin,
            count: fetch.count,
        }),
    }
}

/// Without the notes on the quality of what came, and without what its id gave.
pub fn unnoted(mut sighting: Sighting) -> Sighting {
    sighting.attributes.retain(|(name, _)| name != "quality");
    sighting.order.hash = 0;
    sighting
}
