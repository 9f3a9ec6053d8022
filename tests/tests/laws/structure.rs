//! Laws of what the tables say at the end of any epoch, whatever came before.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serviceradar_streams::{
    claim::{Namespace, UidMaker},
    normalise::{ClaimKey, claim_key, mac},
    rows::{CountRow, DeviceRow, EvidenceRow, EvidenceState, Placement, RecordRow, Uid},
};
use serviceradar_tests::worlds::{World, worlds};

use crate::{
    Checked, cases,
    groups::Groups,
    run::{Run, TENANT, epochs},
    tables::{Tables, links},
};

/// Checks the tables at the end of every epoch.
pub(crate) fn at_every_epoch(world: &World, law: impl Fn(&Tables) -> Checked) -> Checked {
    let mut run = Run::start(world, 1)?;
    for epoch in epochs(&world.events, world) {
        run.epoch(epoch)?;
        law(&run.tables)?;
    }
    Ok(())
}

fn partition(record_key: &str) -> &str {
    RecordRow::split(record_key).map_or("", |(partition, ..)| partition)
}

/// A placement says whether a record is open and what its device is; a device is where its records are.
pub(crate) fn placements(tables: &Tables) -> Checked {
    let mut members: BTreeMap<String, i32> = BTreeMap::new();
    let mut made: BTreeSet<String> = BTreeSet::new();
    for row in tables.records.values() {
        let uid = row.uid.map(|uid| uid.to_string());
        let device = uid.as_ref().and_then(|uid| tables.devices.get(uid));
        prop_assert_eq!(uid.is_some(), device.is_some(), "the device of {:?} is not there", row);
        if let Some(device) = device {
            prop_assert_eq!(&device.partition, partition(&row.record_key));
        }
        let provisional = device.map(|device| device.confidence == "provisional");
        let must = match row.placement {
            Placement::Anchored => provisional == Some(false),
            Placement::Attached => provisional == Some(false) && row.open,
            Placement::Provisional => provisional == Some(true) && row.open,
            Placement::Unplaced => provisional.is_none() && row.open,
            Placement::Closed => provisional != Some(true) && !row.open,
        };
        prop_assert!(must, "{row:?} in {device:?}");
        if row.placement == Placement::Provisional {
            let at = row.place.map(|(ip, _)| UidMaker::new(TENANT, partition(&row.record_key)).address(ip));
            prop_assert_eq!(row.uid, at);
        }
        if let (Some(uid), true) = (uid, row.placement != Placement::Closed) {
            *members.entry(uid.clone()).or_default() += 1;
            if row.placement != Placement::Attached {
                made.insert(uid);
            }
        }
    }
    for device in tables.devices.values() {
        prop_assert!(made.contains(&device.uid), "nothing makes {device:?}");
        prop_assert_eq!(members.get(&device.uid), Some(&device.records));
    }
    Ok(())
}

/// Counts are those of the devices.
pub(crate) fn counts(tables: &Tables) -> Checked {
    let mut counted: BTreeMap<(String, &str, String), CountRow> = BTreeMap::new();
    let mut count = |device: &DeviceRow, dimension: &'static str, value: Option<&String>| {
        let value = value.cloned().unwrap_or_default();
        let key = (device.partition.clone(), dimension, value.clone());
        let row = counted.entry(key).or_insert_with(|| CountRow {
            partition: device.partition.as_str().into(),
            dimension,
            value: value.into(),
            devices: 0,
            available: 0,
            unavailable: 0,
            unknown: 0,
        });
        row.devices += 1;
        *match device.is_available {
            Some(true) => &mut row.available,
            Some(false) => &mut row.unavailable,
            None => &mut row.unknown,
        } += 1;
    };
    for device in tables.devices.values() {
        count(device, "all", None);
        count(device, "type", Some(&device.r#type));
        count(device, "vendor_name", device.vendor_name.as_ref());
        count(device, "state", Some(&device.state));
        count(device, "confidence", Some(&device.confidence));
        count(device, "risk_level", device.risk_level.as_ref());
        count(device, "site", device.site.as_ref());
        for kind in &device.discovery_sources {
            count(device, "discovery_source", Some(kind));
        }
    }
    let told: Vec<&CountRow> = tables.counts.values().collect();
    let mut counted: Vec<&CountRow> = counted.values().collect();
    counted.sort();
    let mut sorted = told;
    sorted.sort();
    prop_assert_eq!(sorted, counted);
    Ok(())
}

/// The claims that operators allowed, with their partition.
pub(crate) fn allowed(tables: &Tables) -> BTreeSet<(String, ClaimKey)> {
    let in_force = tables.decisions.values().filter(|row| row.in_force && row.decision.action == "allow");
    let claims = in_force.filter_map(|row| {
        let claim = row.decision.target.claim.as_ref()?;
        Some((row.decision.partition.clone(), claim_key(&claim.namespace, &claim.value).ok()?))
    });
    claims.collect()
}

/// The claim of a row of evidence, with its partition; none of an address.
pub(crate) fn claim_of(row: &EvidenceRow) -> Option<(String, ClaimKey)> {
    if row.ip.is_some() {
        return None;
    }
    let key = match &*row.namespace {
        "mac" => ClaimKey::Mac(mac(&row.value).ok()?),
        namespace => ClaimKey::Text(namespace.into(), (&*row.value).into()),
    };
    Some((partition(&row.record_key).to_owned(), key))
}

/// Redirects are total over claims that belong, take one step, and lead to devices that are there;
/// each of these leads to itself.
pub(crate) fn redirects(tables: &Tables) -> Checked {
    let redirects = tables.redirects()?;
    let allowed = allowed(tables);
    for (from, to) in &redirects {
        prop_assert!(tables.devices.contains_key(to), "{from} leads to {to}, which is not there");
    }
    for uid in tables.devices.keys() {
        prop_assert_eq!(redirects.get(uid), Some(uid));
    }
    for row in tables.evidence.values() {
        let Some(claim) = claim_of(row) else { continue };
        let home = tables.records.get(&row.record_key).and_then(|record| record.uid);
        if claim.1.tier() == 3 && !allowed.contains(&claim) {
            prop_assert!(!row.leads, "{row:?} is of tier 3 and leads");
        } else if let (Some(_), Some(uid)) = (home, row.claim_uid) {
            prop_assert!(redirects.contains_key(&format!("sr:{uid}")), "{row:?} leads nowhere");
        }
    }
    Ok(())
}

/// The cores: records that tier 1 claims join, and claims that operators linked.
pub(crate) fn cores(tables: &Tables) -> Groups<CoreNode> {
    let mut cores = Groups::default();
    for row in tables.evidence.values() {
        let Some(claim) = claim_of(row) else { continue };
        if claim.1.tier() == 1 && links(row.state) {
            cores.join(CoreNode::Record(row.record_key.to_string()), CoreNode::Claim(claim));
        }
    }
    let in_force = tables.decisions.values().filter(|row| row.in_force && row.decision.action == "link");
    for row in in_force {
        let claims = row.decision.target.claims.iter().flatten();
        let claims: Vec<CoreNode> = claims
            .filter_map(|claim| claim_key(&claim.namespace, &claim.value).ok())
            .map(|claim| CoreNode::Claim((row.decision.partition.clone(), claim)))
            .filter(|claim| cores.contains(claim))
            .collect();
        if let [a, b] = &claims[..] {
            cores.join(a.clone(), b.clone());
        }
    }
    cores
}

/// What cores are made of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum CoreNode {
    Record(String),
    Claim((String, ClaimKey)),
}

/// No two current, usable values of an exclusive namespace are in one device, but inside one core or
/// by an allowed MAC.
pub(crate) fn exclusive(tables: &Tables) -> Checked {
    let mut cores = cores(tables);
    let allowed = allowed(tables);
    for row in tables.evidence.values() {
        let Some(claim) = claim_of(row) else { continue };
        if matches!(claim.1, ClaimKey::Mac(_)) && links(row.state) && allowed.contains(&claim) {
            cores.join(CoreNode::Record(row.record_key.to_string()), CoreNode::Claim(claim));
        }
    }
    let mut held: BTreeMap<(String, &str), (CoreNode, &EvidenceRow)> = BTreeMap::new();
    for row in tables.evidence.values() {
        let is_exclusive = row.ip.is_none() && Namespace::of(&row.namespace).is_exclusive();
        let Some(device) = tables.records.get(&row.record_key).and_then(|record| record.uid) else {
            continue;
        };
        if !is_exclusive || row.state != EvidenceState::Linking {
            continue;
        }
        let core = cores.of(&CoreNode::Record(row.record_key.to_string()));
        let (first, other) = held.entry((device.to_string(), &*row.namespace)).or_insert((core.clone(), row));
        prop_assert!(*first == core, "{row:?} and {other:?} in one device");
    }
    Ok(())
}

/// A claim that links joins: the records that it links are of one device.
fn linking(tables: &Tables) -> Checked {
    let mut of_claim: BTreeMap<(String, ClaimKey), (Uid, &EvidenceRow)> = BTreeMap::new();
    for row in tables.evidence.values().filter(|row| row.state == EvidenceState::Linking) {
        let Some(claim) = claim_of(row) else { continue };
        let device = tables.records.get(&row.record_key).and_then(|record| record.uid);
        let Some(device) = device else {
            return Err(TestCaseError::fail(format!("{row:?} links, and its record has no device")));
        };
        let (first, other) = of_claim.entry(claim).or_insert((device, row));
        prop_assert!(*first == device, "{row:?} and {other:?} link, and are of two devices");
    }
    Ok(())
}

/// Spans only grow, and no record or claim of one is forgotten.
fn spans_grow(before: &Tables, after: &Tables) -> Checked {
    for (key, old) in &before.records {
        let Some(new) = after.records.get(key) else {
            return Err(TestCaseError::fail(format!("{key} is forgotten")));
        };
        let earlier = |new: Option<i64>, old: Option<i64>| old.is_none() || (new.is_some() && new <= old);
        prop_assert!(earlier(new.first_seen, old.first_seen), "first seen of {new:?} was {old:?}");
        prop_assert!(earlier(new.first_asserted, old.first_asserted));
        prop_assert!(new.last_seen >= old.last_seen, "last seen of {new:?} was {old:?}");
        prop_assert!(new.last_assert >= old.last_assert && new.last_end >= old.last_end);
    }
    for (key, old) in before.evidence.iter().filter(|(_, old)| &*old.namespace != "detached") {
        let Some(new) = after.evidence.get(key) else {
            return Err(TestCaseError::fail(format!("{key:?} is forgotten")));
        };
        prop_assert!(new.first_seen <= old.first_seen && new.first_asserted <= old.first_asserted);
        let last = |tables: &Tables, row: &EvidenceRow| {
            row.last.or_else(|| tables.records.get(&row.record_key).and_then(|record| record.last_full))
        };
        prop_assert!(last(after, new) >= last(before, old), "{new:?} was {old:?}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn every_record_has_one_placement_and_devices_are_anchored_and_provisional(world in worlds()) {
        at_every_epoch(&world, placements)?;
    }

    #[test]
    fn what_a_claim_links_is_one_device(world in worlds()) {
        at_every_epoch(&world, linking)?;
    }

    #[test]
    fn counts_are_those_of_the_devices(world in worlds()) {
        at_every_epoch(&world, counts)?;
    }

    #[test]
    fn redirects_are_total_and_take_one_step_to_devices_that_are_there(world in worlds()) {
        at_every_epoch(&world, redirects)?;
    }

    #[test]
    fn no_device_has_two_values_of_an_exclusive_namespace_but_by_a_core_or_an_allowed_mac(world in worlds()) {
        at_every_epoch(&world, exclusive)?;
    }

    #[test]
    fn first_seen_never_rises_and_last_seen_never_falls(world in worlds()) {
        let mut run = Run::start(&world, 1)?;
        for epoch in epochs(&world.events, &world) {
            let before = run.tables.clone();
            run.epoch(epoch)?;
            spans_grow(&before, &run.tables)?;
        }
    }
}
