//! Step 7, attach: open records without a device go where their address is.

use std::{collections::BTreeMap, net::IpAddr};

use super::{OracleRules, fold::Record, join::Node};

/// Where the visitors of an address are.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// With the device that has the address.
    Device(Node),
    /// At the provisional device of the address.
    Provisional,
}

/// What attaching says.
#[derive(Default)]
pub(super) struct Attached {
    /// The address that an open record without a device goes by.
    pub(super) visitors: BTreeMap<String, IpAddr>,
    /// Where the visitors of each address are.
    pub(super) places: BTreeMap<IpAddr, Place>,
}

/// Attaches the open records that are not anchored.
pub(super) fn attach(
    records: &BTreeMap<String, Record>,
    anchored: &BTreeMap<String, Node>,
    rules: &OracleRules,
) -> Attached {
    let mut attached = Attached::default();
    let mut seen: BTreeMap<IpAddr, i64> = BTreeMap::new();
    for record in records.values().filter(|r| r.open && !anchored.contains_key(&r.key)) {
        let Some((_, ip)) = record.place else {
            continue;
        };
        let Some(sighting) = current_sighting(record, ip) else {
            continue;
        };
        attached.visitors.insert(record.key.clone(), ip);
        let latest = seen.entry(ip).or_insert(sighting);
        *latest = (*latest).max(sighting);
    }
    for (ip, at) in seen {
        let place = device_that_has(ip, at, records, anchored, rules);
        attached.places.insert(ip, place.map_or(Place::Provisional, Place::Device));
    }
    attached
}

/// The event time at which a record was last seen with an address, if it still has it.
fn current_sighting(record: &Record, ip: IpAddr) -> Option<i64> {
    let span = record.addresses.get(&ip)?;
    record.is_current(span).then_some(span.last.1)
}

/// The device that has an address at the time that its visitors were seen.
fn device_that_has(
    ip: IpAddr,
    at: i64,
    records: &BTreeMap<String, Record>,
    anchored: &BTreeMap<String, Node>,
    rules: &OracleRules,
) -> Option<Node> {
    let holders: Vec<(i64, &String, &Node)> = anchored
        .iter()
        .filter_map(|(key, device)| Some((current_sighting(&records[key], ip)?, key, device)))
        .collect();
    let within = |lease: i64| {
        let near = holders.iter().filter(move |(sighting, _, _)| (sighting - at).abs() <= lease);
        near.max().map(|(_, _, device)| (*device).clone())
    };
    let of_one_device = holders.iter().all(|(_, _, device)| *device == holders[0].2);
    let sole_holder = || within(rules.lease_of_sole_holder).filter(|_| of_one_device);
    within(rules.lease_of(ip)).or_else(sole_holder)
}
