//! What a device shows is what wins: worked out anew from the rows of its records.
//! Source: `identity.md` of the design, "Survivorship".

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::Value;
use serviceradar_schemas::time::{DAY, HOUR, MINUTE};
use serviceradar_streams::{
    claim::{UidMaker, id_hash},
    normalise::{ClaimKey, claim_key},
    rows::{DeviceRow, EvidenceState, Order, Placement, RecordRow},
};
use serviceradar_tests::worlds::worlds;

use crate::{Checked, cases, run::TENANT, structure::at_every_epoch, tables::Tables};

/// (pinned, fresh, authority, event time, whether its sighting listed it first, hash).
type Weight = (bool, bool, u8, i64, bool, u64);

/// Weights and values on offer, by attribute; the greatest wins.
type Offers = BTreeMap<String, BTreeMap<Weight, String>>;

fn authority(kind: &str) -> u8 {
    match kind {
        "mapper" | "agent" => 8,
        "armis" | "netbox" | "integration" => 7,
        "sweep" => 5,
        _ => 1,
    }
}

/// A record of a device, as its offers need it.
struct Speaker<'a> {
    row: &'a RecordRow,
    authority: u8,
    /// What was asserted before it is not current.
    since: Option<Order>,
    watermark: i64,
}

impl<'a> Speaker<'a> {
    fn new(tables: &Tables, row: &'a RecordRow) -> Checked<Self> {
        let Some((partition, source, _)) = RecordRow::split(&row.record_key) else {
            return Err(TestCaseError::fail(format!("{row:?} has no record key")));
        };
        let accepted = tables.snapshots.values().filter(|fetch| {
            fetch.verdict == Some("accepted") && fetch.source == source && *fetch.partition == *partition
        });
        let accepted = accepted.map(|fetch| Order { time: fetch.begin, hash: 0 }).max();
        let since = row.last_end.max(accepted).max(row.last_full.map(|(order, _)| order));
        Ok(Self { row, authority: authority(&source.kind), since, watermark: watermark(tables, partition) })
    }

    fn weight(&self, at: i64, first_listed: bool, hash: u64) -> Weight {
        (false, self.watermark < at + 7 * DAY, self.authority, at, first_listed, hash)
    }

    /// Its current attributes, with their event times.
    fn attributes(&self) -> Checked<Vec<(String, String, i64)>> {
        let map: BTreeMap<String, Value> = serde_json::from_str(&self.row.attributes)?;
        let mut attributes = Vec::new();
        for (name, value) in map {
            let last = match &value[3] {
                Value::Null => self.row.last_full,
                at => {
                    let hash = value[2].as_str().and_then(|hash| hash.parse().ok());
                    let order = value[1].as_i64().zip(hash).map(|(time, hash)| Order { time, hash });
                    order.zip(at.as_i64())
                }
            };
            let text = value.as_str().or(value[0].as_str()).unwrap_or_default().to_owned();
            if let Some((order, at)) = last
                && Some(order) >= self.since
            {
                attributes.push((name, text, at));
            }
        }
        Ok(attributes)
    }
}

fn watermark(tables: &Tables, partition: &str) -> i64 {
    let at = |partition: Option<&str>| tables.watermarks.get(&partition.map(Into::into)).map(|row| row.at);
    at(Some(partition)).max(at(None)).unwrap_or_default().div_euclid(MINUTE) * MINUTE
}

/// What the anchored, open records of a device offer, or the provisional ones; and what is pinned.
fn offers(tables: &Tables, device: &DeviceRow) -> Checked<Offers> {
    let mut offers = Offers::new();
    let speaks = |row: &&RecordRow| {
        row.uid.is_some_and(|uid| uid.to_string() == device.uid)
            && matches!(row.placement, Placement::Anchored | Placement::Provisional)
            && row.open
    };
    for row in tables.records.values().filter(speaks) {
        let speaker = Speaker::new(tables, row)?;
        for (name, value, at) in speaker.attributes()? {
            let weight = speaker.weight(at, false, id_hash(&value));
            offers.entry(name).or_default().insert(weight, value);
        }
        let evidence = tables.evidence.values().filter(|span| span.record_key == row.record_key);
        for span in evidence.filter(|span| span.state == EvidenceState::Corroborating) {
            let Some(ip) = span.ip else { continue };
            let at = span.last.or(row.last_full).map_or(0, |(_, at)| at);
            let first = row.place.is_some_and(|(first, _)| first == ip);
            // Of equal weight the greater address, IPv6 last.
            let rank =
                tables.evidence.values().filter(|other| other.ip.is_some_and(|other| other < ip)).count();
            offers
                .entry("ip".into())
                .or_default()
                .insert(speaker.weight(at, first, rank as u64), ip.to_string());
        }
    }
    let redirects = tables.redirects()?;
    for row in tables.decisions.values().filter(|row| row.in_force && row.decision.action == "pin_value") {
        let target = &row.decision.target;
        let uids = UidMaker::new(TENANT, &row.decision.partition);
        let claim = target.claim.as_ref().and_then(|claim| claim_key(&claim.namespace, &claim.value).ok());
        let uid = claim.map(|claim| match claim {
            ClaimKey::Mac(mac) => uids.claim("mac", &serviceradar_streams::claim::mac_text(mac)),
            ClaimKey::Text(namespace, value) => uids.claim(&namespace, &value),
        });
        let leads_here = uid.is_some_and(|uid| redirects.get(&uid.to_string()) == Some(&device.uid));
        if let (true, Some(name), Some(value)) = (leads_here, &target.attribute, &row.decision.value) {
            let weight = (true, true, u8::MAX, row.at, false, id_hash(value));
            offers.entry(name.clone()).or_default().insert(weight, value.clone());
        }
    }
    Ok(offers)
}

/// What each device shows is what wins.
pub(crate) fn shown(tables: &Tables) -> Checked {
    for device in tables.devices.values() {
        let offers = offers(tables, device)?;
        let wins = |name: &str| Some(offers.get(name)?.last_key_value()?.1.clone());
        prop_assert_eq!(&device.hostname, &wins("hostname"), "host name of {:?} of {:?}", device, offers);
        prop_assert_eq!(
            &device.name,
            &wins("name").or(wins("hostname")),
            "name of {:?} of {:?}",
            device,
            offers
        );
        prop_assert_eq!(&device.vendor_name, &wins("vendor"), "vendor of {:?} of {:?}", device, offers);
        prop_assert_eq!(&device.ip, &wins("ip"), "address of {:?} of {:?}", device, offers);
        let risk = device.risk_score.map(|score| score.to_string());
        prop_assert_eq!(risk, wins("risk_score"), "risk of {:?} of {:?}", device, offers);
        let owner = device.tags.get("owner").cloned();
        prop_assert_eq!(owner, wins("tags.owner"), "tag of {:?} of {:?}", device, offers);
    }
    Ok(())
}

/// Spans, availability and state are those of the records.
pub(crate) fn seen(tables: &Tables) -> Checked {
    for device in tables.devices.values() {
        let of_device = |row: &&RecordRow| {
            row.uid.is_some_and(|uid| uid.to_string() == device.uid) && row.placement != Placement::Closed
        };
        let records: Vec<&RecordRow> = tables.records.values().filter(of_device).collect();
        let speak = records.iter().filter(|row| row.placement != Placement::Attached);
        prop_assert_eq!(
            speak.filter_map(|row| row.first_seen).min(),
            Some(device.first_seen),
            "{:?}",
            device
        );
        prop_assert_eq!(records.iter().filter_map(|row| row.last_seen).max(), Some(device.last_seen));
        let now = watermark(tables, &device.partition);
        let probes = records.iter().filter(|row| row.open).filter_map(|row| row.probe);
        let probes = probes.filter(|(_, at)| now - at <= 15 * MINUTE);
        let latest = probes.max_by_key(|(up, at)| (*at, *up));
        prop_assert_eq!(latest.map(|(up, _)| up), device.is_available, "{:?}", device);
        let open = records.iter().filter(|row| row.open);
        let state = match open.filter_map(|row| row.last_seen).max() {
            None => "retired",
            Some(last) if now < last + 24 * HOUR => "active",
            Some(_) => "stale",
        };
        prop_assert_eq!(state, &device.state, "{:?}", device);
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn what_a_device_shows_is_what_wins(world in worlds()) {
        at_every_epoch(&world, shown)?;
    }

    #[test]
    fn spans_availability_and_state_are_those_of_the_records(world in worlds()) {
        at_every_epoch(&world, seen)?;
    }
}
