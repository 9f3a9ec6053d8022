//! From a device as Armis describes it to an observation: a pure function that loses no field.
//!
//! | Armis | observation |
//! |---|---|
//! | `id` | `native_key`, and so the claim `armis/<instance>` |
//! | `macAddress` (one, or many joined with commas, or a list) | a claim `mac` each |
//! | `ipAddress`, `ipv6` (likewise) | `addresses`, less what is excluded |
//! | `name`, `manufacturer`, `model`, `type`, `serialNumber` | `name`, `vendor`, `model`, `device_type`, `serial` |
//! | `operatingSystem`, `operatingSystemVersion` | `os_name`, `os_version` |
//! | `hostname`, else the first of `name` and `names` that has the form of one | `hostname` |
//! | `site` | `site` (its name); the rest as attributes `site.…` |
//! | `riskLevel`, 0 to 10 | `risk_score`, ten times as much |
//! | `tags` | `tags`, each a key without a value |
//! | `lastSeen` | `event_time`; where it cannot be read, the time the fetch began |
//! | anything else, and what has not the form said above | `attributes`, under its own name |
//!
//! A part of an object is the attribute `object.part`; a list is kept as JSON; null is absent.
//! Values are passed on as Armis wrote them: they are normalised where they are read.

use std::{collections::BTreeMap, net::IpAddr};

use cidr::IpCidr;
use serde_json::{Map, Value};
use serviceradar_schemas::{
    Action, Address, Claim, Coverage, Observation, Snapshot, Source, Text,
    codec::DATUM_BYTES_MAX,
    excerpt,
    observation::{NATIVE_KEY_BYTES_MAX, is_native_key},
    time,
};

/// What all devices of a fetch have in common.
#[derive(Clone, Debug)]
pub struct Mapping {
    /// `armis/<instance>`.
    pub source: Source,
    /// The partition the addresses are of.
    pub partition: String,
    /// Addresses that are left out.
    pub exclude: Vec<IpCidr>,
    /// The fetch.
    pub snapshot: Snapshot,
}

/// What a device became.
#[derive(Clone, Debug, PartialEq)]
pub enum Mapped {
    /// An observation that asserts it.
    Record(Box<Observation>),
    /// Nothing: it has addresses, and all of them are excluded.
    Excluded {
        /// Its id.
        native_key: String,
    },
}

/// Why a device cannot be a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    /// It has no id that says which record it is.
    #[error("a device has no id that is a number or a text: {0}")]
    NoId(String),
    /// No record can be called by its id.
    #[error("a device has an id that is over {NATIVE_KEY_BYTES_MAX} bytes or has control characters: {0}")]
    Id(String),
    /// Names of parts, each with the names of what it is a part of, are more than an event holds.
    #[error("record {0} has attributes of more than {DATUM_BYTES_MAX} bytes, over the limit of an event")]
    TooLarge(String),
}

/// Maps one device.
pub fn map(mut device: Map<String, Value>, mapping: &Mapping) -> Result<Mapped, MapError> {
    let Some(native_key) = text(&mut device, "id").filter(|id| !id.trim().is_empty()) else {
        return Err(MapError::NoId(excerpt(&Value::Object(device).to_string())));
    };
    if !is_native_key(&native_key) {
        return Err(MapError::Id(excerpt(&native_key)));
    }
    let listed = addresses(&mut device);
    let any = !listed.is_empty();
    let addresses: Vec<Address> =
        listed.into_iter().filter(|address| !is_excluded(&address.ip, &mapping.exclude)).collect();
    if any && addresses.is_empty() {
        return Ok(Mapped::Excluded { native_key });
    }
    let name = text(&mut device, "name");
    let hostname = text(&mut device, "hostname").or_else(|| hostname(name.as_deref(), device.get("names")));
    let observation = Observation {
        id: String::new(),
        event_time: seen_at(&mut device).unwrap_or(mapping.snapshot.begin),
        partition: mapping.partition.clone(),
        source: mapping.source.clone(),
        action: Action::Assert,
        coverage: Coverage::Full,
        claims: macs(&mut device),
        addresses,
        hostname,
        name,
        vendor: text(&mut device, "manufacturer"),
        model: text(&mut device, "model"),
        serial: text(&mut device, "serialNumber"),
        device_type: text(&mut device, "type"),
        os_name: text(&mut device, "operatingSystem"),
        os_version: text(&mut device, "operatingSystemVersion"),
        site: site(&mut device),
        risk_score: risk_score(&mut device),
        tags: tags(&mut device),
        snapshot: Some(mapping.snapshot.clone()),
        // Last, for all the others have taken theirs.
        attributes: attributes(device)
            .ok_or_else(|| MapError::TooLarge(excerpt(&format!("{}/{native_key}", mapping.source))))?,
        native_key,
        ..Observation::default()
    };
    Ok(Mapped::Record(Box::new(observation)))
}

/// Takes a field that is one value, as text; what is none stays.
fn text(device: &mut Map<String, Value>, field: &str) -> Option<String> {
    let text = scalar(device.get(field)?)?;
    device.remove(field);
    Some(text)
}

fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Takes a field that is a text, of parts joined with commas, or a list of such texts; each part
/// once, in order. What is neither stays.
fn parts(device: &mut Map<String, Value>, field: &str) -> Vec<String> {
    let parts = device.get(field).and_then(split);
    if parts.is_some() {
        device.remove(field);
    }
    parts.unwrap_or_default()
}

fn split(value: &Value) -> Option<Vec<String>> {
    let texts: Vec<&str> = match value {
        Value::String(text) => vec![text],
        Value::Array(list) => list.iter().map(Value::as_str).collect::<Option<_>>()?,
        _ => return None,
    };
    let mut seen = std::collections::HashSet::new();
    let parts = texts.into_iter().flat_map(|text| text.split(',')).map(str::trim);
    Some(parts.filter(|part| !part.is_empty() && seen.insert(*part)).map(str::to_owned).collect())
}

fn macs(device: &mut Map<String, Value>) -> Vec<Claim> {
    let claim = |value: String| Claim { namespace: "mac".into(), value: value.into() };
    parts(device, "macAddress").into_iter().map(claim).collect()
}

fn addresses(device: &mut Map<String, Value>) -> Vec<Address> {
    let mut seen = std::collections::HashSet::new();
    let ips = parts(device, "ipAddress").into_iter().chain(parts(device, "ipv6"));
    ips.filter(|ip| seen.insert(ip.clone())).map(|ip| Address { ip, ..Address::default() }).collect()
}

/// Whether an address is in one of the networks. What is no address is in none.
fn is_excluded(ip: &str, exclude: &[IpCidr]) -> bool {
    let Ok(ip) = ip.parse::<IpAddr>() else {
        return false;
    };
    let ip = ip.to_canonical();
    exclude.iter().any(|network| network.contains(&ip))
}

fn hostname(name: Option<&str>, names: Option<&Value>) -> Option<String> {
    let names = names.and_then(split).unwrap_or_default();
    name.into_iter().chain(names.iter().map(String::as_str)).find(|n| is_hostname(n)).map(str::to_owned)
}

/// Labels of letters, digits, `-` and `_`, with a letter somewhere (RFC 1123, and what networks do).
fn is_hostname(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    name.len() <= 253
        && name.strip_suffix('.').unwrap_or(name).split('.').all(is_label)
        && name.bytes().any(|b| b.is_ascii_alphabetic())
}

fn seen_at(device: &mut Map<String, Value>) -> Option<i64> {
    let seen = device.get("lastSeen").and_then(Value::as_str).and_then(time::parse)?;
    device.remove("lastSeen");
    Some(seen)
}

/// Takes the name of the site; what else is said of it stays.
fn site(device: &mut Map<String, Value>) -> Option<String> {
    match device.get_mut("site")? {
        Value::Object(site) => text(site, "name"),
        _ => text(device, "site"),
    }
}

fn risk_score(device: &mut Map<String, Value>) -> Option<i32> {
    let level = device.get("riskLevel").and_then(Value::as_i64).filter(|level| (0..=10).contains(level))?;
    device.remove("riskLevel");
    i32::try_from(level * 10).ok()
}

fn tags(device: &mut Map<String, Value>) -> BTreeMap<Text, Text> {
    parts(device, "tags").into_iter().map(|tag| (tag.into(), Text::default())).collect()
}

/// What is left of a device; none where it is more than an event holds.
fn attributes(device: Map<String, Value>) -> Option<BTreeMap<Text, Text>> {
    let (mut attributes, mut room) = (BTreeMap::new(), DATUM_BYTES_MAX);
    for (name, value) in device {
        flatten(name, value, &mut attributes, &mut room)?;
    }
    Some(attributes)
}

/// A long name with many parts is as long in each of them: so the room is reckoned before a name is made.
fn flatten(name: String, value: Value, into: &mut BTreeMap<Text, Text>, room: &mut usize) -> Option<()> {
    match value {
        Value::Null => {}
        Value::Object(parts) if !parts.is_empty() => {
            for (part, value) in parts {
                *room = room.checked_sub(name.len() + part.len())?;
                flatten(format!("{name}.{part}"), value, into, room)?;
            }
        }
        value => {
            let text = scalar(&value).unwrap_or_else(|| value.to_string());
            *room = room.checked_sub(text.len())?;
            into.insert(name.into(), text.into());
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn mapping(exclude: &[&str]) -> Mapping {
        Mapping {
            source: Source { kind: "armis".to_owned(), instance: "hq".to_owned() },
            partition: "default".to_owned(),
            exclude: exclude.iter().map(|network| network.parse().unwrap()).collect(),
            snapshot: Snapshot { id: "s".to_owned(), begin: 1_000, count: None },
        }
    }

    fn record(device: Value) -> Observation {
        let Value::Object(device) = device else { panic!("no object") };
        match map(device, &mapping(&[])).unwrap() {
            Mapped::Record(observation) => *observation,
            Mapped::Excluded { native_key } => panic!("{native_key} was excluded"),
        }
    }

    fn fixture() -> Value {
        serde_json::from_str(include_str!("../../../fixtures/armis_device.json")).unwrap()
    }

    fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<Text, Text> {
        pairs.iter().map(|(k, v)| (Text::from(*k), Text::from(*v))).collect()
    }

    #[test]
    fn every_field_has_its_place() {
        let text = |text: &str| Some(text.to_owned());
        let mac =
            |last: u8| Claim { namespace: "mac".into(), value: format!("00:1B:54:00:00:0{last}").into() };
        let address = |ip: &str| Address { ip: ip.to_owned(), ..Address::default() };
        let expected = Observation {
            event_time: time::parse("2026-01-01T12:30:00.25Z").unwrap(),
            partition: "default".to_owned(),
            source: Source { kind: "armis".to_owned(), instance: "hq".to_owned() },
            native_key: "1234".to_owned(),
            action: Action::Assert,
            coverage: Coverage::Full,
            claims: vec![mac(1), mac(2), mac(3)],
            addresses: vec![address("10.1.2.3"), address("10.1.2.4"), address("fd00::17")],
            hostname: text("sw-core-4.example.net"),
            name: text("Core switch 4"),
            vendor: text("Cisco"),
            model: text("Catalyst 9300"),
            device_type: text("Switches"),
            os_name: text("IOS-XE"),
            os_version: text("17.9.3"),
            site: text("Leipzig Plant"),
            risk_score: Some(70),
            tags: pairs(&[("Managed", ""), ("PCI", "")]),
            attributes: pairs(&[
                ("aFieldOfNextYear", "true"),
                ("accessSwitch", "sw-0042/Gi1/0/7"),
                ("boundaries", "Corporate, Guest"),
                ("businessImpact", "High"),
                ("category", "Network Equipment"),
                ("customProperties.Cost center", "4017"),
                ("customProperties.Owner.team", "network"),
                ("dataSources", r#"[{"firstSeen":"2024-01-02T03:04:05Z","name":"SNMP","types":["Switch"]}]"#),
                ("displayTitle", "Core switch of building 4"),
                ("firstSeen", "2024-01-02T03:04:05+00:00"),
                ("names", "Core switch 4,sw-core-4.example.net"),
                ("protections", "[]"),
                ("purdueLevel", "4.0"),
                ("sensor.name", "collector-3"),
                ("sensor.type", "Network"),
                ("site.lat", "51.34"),
                ("site.location", "Leipzig, Germany"),
                ("typeEnum", "SWITCHES"),
                ("user", "ada"),
                ("userIds", "[17,18]"),
                ("visibility", "Full"),
            ]),
            snapshot: Some(mapping(&[]).snapshot),
            ..Observation::default()
        };
        assert_eq!(record(fixture()), expected);
    }

    #[test]
    fn what_has_an_odd_form_is_kept_as_an_attribute() {
        let odd = record(json!({
            "id": " x7 ", "macAddress": ["00:1B:54:00:00:01"], "ipAddress": 7, "riskLevel": 11,
            "lastSeen": "yesterday", "name": ["a", "b"], "tags": [1, 2], "site": "Leipzig", "type": {}
        }));
        assert_eq!(odd.native_key, " x7 ");
        assert_eq!(odd.event_time, 1_000, "the begin of the fetch");
        assert_eq!(odd.claims.len(), 1);
        assert_eq!((odd.site.as_deref(), odd.name, odd.risk_score), (Some("Leipzig"), None, None));
        let attributes = pairs(&[
            ("ipAddress", "7"),
            ("lastSeen", "yesterday"),
            ("name", r#"["a","b"]"#),
            ("riskLevel", "11"),
            ("tags", "[1,2]"),
            ("type", "{}"),
        ]);
        assert_eq!(odd.attributes, attributes);
    }

    #[test]
    fn a_device_without_an_id_is_refused() {
        for device in [json!({"name": "a"}), json!({"id": null}), json!({"id": " "}), json!({"id": [1]})] {
            let Value::Object(device) = device else { panic!("no object") };
            assert!(matches!(map(device, &mapping(&[])), Err(MapError::NoId(_))));
        }
    }

    /// The pipeline would make a dead letter of it, and the fetch would count it all the same.
    #[test]
    fn a_device_that_no_record_can_be_called_by_is_refused() {
        for id in ["a\nb".to_owned(), "\0".to_owned(), "x".repeat(NATIVE_KEY_BYTES_MAX + 1)] {
            let Value::Object(device) = json!({ "id": id }) else { panic!("no object") };
            assert!(matches!(map(device, &mapping(&[])), Err(MapError::Id(_))));
        }
        assert_eq!(record(json!({"id": "a/b c"})).native_key, "a/b c");
    }

    /// 1 MB of page would be as many times that in memory as the part has parts.
    #[test]
    fn a_long_name_with_many_parts_is_refused_before_it_is_written_out() {
        let parts: Map<String, Value> = (0..100_000).map(|n| (n.to_string(), n.into())).collect();
        let Value::Object(device) = json!({"id": 1, ("x".repeat(900_000)): parts}) else {
            panic!("no object")
        };
        assert_eq!(map(device, &mapping(&[])), Err(MapError::TooLarge("armis/hq/1".to_owned())));
    }

    #[test]
    fn excluded_addresses_are_left_out_and_a_device_that_has_no_others() {
        let map = |ips: &str, exclude: &[&str]| {
            let Value::Object(device) = json!({"id": 1, "ipAddress": ips}) else { panic!("no object") };
            match map(device, &mapping(exclude)).unwrap() {
                Mapped::Excluded { .. } => None,
                Mapped::Record(of) => Some(of.addresses.into_iter().map(|a| a.ip).collect::<Vec<_>>()),
            }
        };
        let exclude = ["10.9.0.0/16", "fd00::/8", "192.168.7.7"];
        assert_eq!(map("10.9.1.1,10.8.1.1", &exclude), Some(vec!["10.8.1.1".to_owned()]));
        assert_eq!(map("10.9.1.1,fd00::1,192.168.7.7,::ffff:10.9.2.2", &exclude), None);
        assert_eq!(map("", &exclude), Some(vec![]), "without addresses none is excluded");
        assert_eq!(map("no address", &exclude), Some(vec!["no address".to_owned()]));
    }

    #[test]
    fn a_hostname_has_the_form_of_one() {
        for (name, names, expected) in [
            ("lt-1", json!(null), Some("lt-1")),
            ("Ada's laptop", json!("Ada's laptop, lt-2.example.net"), Some("lt-2.example.net")),
            ("10.0.0.1", json!(["10.0.0.1", "lt-3."]), Some("lt-3.")),
            ("", json!([]), None),
        ] {
            let record = record(json!({"id": 1, "name": name, "names": names}));
            assert_eq!(record.hostname.as_deref(), expected);
        }
        assert_eq!(record(json!({"id": 1, "name": "a", "hostname": "b"})).hostname.as_deref(), Some("b"));
    }

    /// Fields that have a place of their own, and some that have none.
    const FIELDS: &[&str] = &[
        "macAddress",
        "ipAddress",
        "ipv6",
        "name",
        "names",
        "hostname",
        "manufacturer",
        "model",
        "serialNumber",
        "type",
        "operatingSystem",
        "operatingSystemVersion",
        "site",
        "riskLevel",
        "tags",
        "lastSeen",
        "firstSeen",
        "other",
        "another",
    ];

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            "[a-z]{6}".prop_map(Value::from),
            (100_000..999_999i64).prop_map(Value::from),
            Just(Value::Null),
        ];
        leaf.prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-z]{4}|name", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn leaves(value: &Value, into: &mut Vec<String>) {
        match value {
            Value::Array(list) => list.iter().for_each(|value| leaves(value, into)),
            Value::Object(map) => map.values().for_each(|value| leaves(value, into)),
            value => into.extend(scalar(value)),
        }
    }

    proptest! {
        #[test]
        fn no_value_is_lost(
            device in prop::collection::btree_map(prop::sample::select(FIELDS), value(), 0..12)
        ) {
            let mut device: Map<String, Value> =
                device.into_iter().map(|(field, value)| (field.to_owned(), value)).collect();
            let mut expected = Vec::new();
            device.values().for_each(|value| leaves(value, &mut expected));
            device.insert("id".to_owned(), 1.into());
            let mapped = serde_json::to_string(&record(Value::Object(device))).unwrap();
            for leaf in expected {
                prop_assert!(mapped.contains(&leaf), "{leaf} is not in {mapped}");
            }
        }
    }
}
