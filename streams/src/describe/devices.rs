//! Rows of devices, and what they are counted by.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use serviceradar_schemas::SourceSummary;

use super::{CountItem, Counted, Describer, Moved, merges::causes, pins_of_devices};
use crate::{
    changes::Seen,
    choose::{Choice, Member, Pin, choice, device_row, device_seen},
    dictionary::Dictionary,
    facts::Facts,
    identity::Identity,
    macs::Place,
    place::Device,
    recurring::Recurring,
    rows::{CountRow, DeviceRow, DeviceSeen, EpochOutput, HistoryRow, Placement, Uid},
    sort_unique,
    sources::{OfRecord, summaries},
    sums::hash,
};

/// A dimension by its name.
pub fn dimension(name: &str) -> &'static str {
    CountRow::DIMENSIONS.iter().find(|dimension| **dimension == name).copied().unwrap_or("all")
}

/// What was last told of a device.
#[derive(Clone)]
pub(super) struct ToldDevice {
    uid: Uid,
    hashes: Hashes,
    choice: Choice,
    is_retired: bool,
    counted: Arc<[Counted]>,
}

/// Hashes of a row.
#[derive(Clone, Copy, PartialEq)]
struct Hashes {
    /// Of what sightings alone leave as it is, without sources.
    row: u64,
    /// Of that, with sources.
    shown: u64,
    /// Of what sightings change.
    seen: u64,
}

impl Hashes {
    /// The hash of the row in the sums of its table.
    fn sum(self) -> u64 {
        self.row.wrapping_add(self.seen)
    }
}

/// A device after an epoch.
struct Now {
    uid: Uid,
    /// But for what sightings change.
    row: DeviceRow,
    seen: DeviceSeen,
    hashes: Hashes,
    choice: Choice,
    is_retired: bool,
    counted: Vec<Counted>,
}

impl Now {
    fn told(&self, recurring: &mut Recurring<[Counted]>) -> ToldDevice {
        ToldDevice {
            uid: self.uid,
            hashes: self.hashes,
            choice: self.choice,
            is_retired: self.is_retired,
            counted: recurring.share(&self.counted),
        }
    }

    fn whole(mut self) -> DeviceRow {
        self.seen.write(&mut self.row);
        self.row
    }
}

impl Describer {
    pub(super) fn rows_of_devices(
        &mut self,
        identity: &Identity,
        facts: &Facts,
        devices: &[(Uid, Device)],
        mut piece: Option<&mut EpochOutput>,
    ) {
        let pins = pins_of_devices(&self.pins, identity, facts, &self.dictionary.borrow());
        for (uid, device) in devices {
            let pins = pins.get(device).map_or(&[][..], Vec::as_slice);
            let Some(now) = self.device(identity, facts, (*device, *uid), pins) else {
                continue;
            };
            // Told a second time, after the views failed to take it, it is counted once.
            let before = self.devices.insert(*device, now.told(&mut self.counted));
            count_changes(before.as_ref(), Some(&now), &mut self.counts);
            if let Some(piece) = &mut piece {
                piece.sums.devices.change(&now.row.uid, 0, now.hashes.sum());
                piece.devices.new.push(now.whole());
                piece.history.push(HistoryRow { uid: *uid, change: "created", cause: String::new() });
            }
        }
    }

    /// Tells what sightings changed of devices whose records were only seen again; those that may show something else
    /// all the same are added to `devices`.
    pub(super) fn see_devices(
        &mut self,
        identity: &Identity,
        facts: &Facts,
        mut seen: Vec<Device>,
        devices: &mut Vec<Device>,
        out: &mut EpochOutput,
    ) {
        sort_unique(devices);
        sort_unique(&mut seen);
        seen.retain(|device| devices.binary_search(device).is_err());
        let dictionary = self.dictionary.borrow();
        let pins = pins_of_devices(&self.pins, identity, facts, &dictionary);
        for device in seen {
            let members = members(identity, facts, device);
            let pins = pins.get(&device).map_or(&[][..], Vec::as_slice);
            let choice = choice(&members, pins, &self.rules.authority, &dictionary);
            let Some(told) = self.devices.get_mut(device).filter(|told| told.choice == choice) else {
                devices.push(device);
                continue;
            };
            let seen = device_seen(told.uid, &members);
            let hash = hash(&seen);
            if told.hashes.seen != hash {
                out.sums.devices.change(&told.uid.to_string(), told.hashes.seen, hash);
                told.hashes.seen = hash;
                out.devices.seen.push(seen);
            }
        }
        devices.sort_unstable();
        // As neighbours in their table.
        out.devices.seen.sort_unstable_by_key(|seen| seen.uid);
    }

    pub(super) fn describe_devices(
        &mut self,
        identity: &Identity,
        facts: &Facts,
        devices: Vec<Device>,
        moved: &Moved,
        out: &mut EpochOutput,
    ) {
        // In the order of uids, of those that are no more and of those that are.
        let mut gone: Vec<(Uid, ToldDevice)> = devices
            .iter()
            .filter_map(|device| self.devices.remove(*device))
            .map(|told| (told.uid, told))
            .collect();
        gone.sort_unstable_by_key(|(uid, _)| *uid);
        let uid_of = |device: Device| Some((identity.placer.uid(device)?, device));
        let mut named: Vec<(Uid, Device)> = devices.into_iter().filter_map(uid_of).collect();
        named.sort_unstable();
        let from: HashSet<Uid> = moved.keys().map(|(from, _)| *from).collect();
        let to: HashSet<Uid> = moved.keys().map(|(_, to)| *to).collect();
        let causes = causes(moved);
        let cause = |uid: Uid| causes.get(&uid).map(|words| words.join("; ")).unwrap_or_default();
        let told = |uid, change, out: &mut EpochOutput| {
            out.history.push(HistoryRow { uid, change, cause: cause(uid) });
        };
        let vanished = |before: &ToldDevice, out: &mut EpochOutput| {
            let uid = before.uid;
            told(uid, if from.contains(&uid) { "merged" } else { "forgotten" }, out);
            out.sums.devices.change(&uid.to_string(), before.hashes.sum(), 0);
            out.devices.gone.push(uid.to_string());
        };
        let pins = pins_of_devices(&self.pins, identity, facts, &self.dictionary.borrow());
        let mut gone = gone.into_iter().peekable();
        for (uid, device) in named {
            while let Some((_, before)) = gone.next_if(|(other, _)| *other < uid) {
                count_changes(Some(&before), None, &mut self.counts);
                vanished(&before, out);
            }
            let pins = pins.get(&device).map_or(&[][..], Vec::as_slice);
            let Some(now) = self.device(identity, facts, (device, uid), pins) else {
                continue;
            };
            let before = gone.next_if(|(other, _)| *other == uid).map(|(_, before)| before);
            count_changes(before.as_ref(), Some(&now), &mut self.counts);
            let told_now = now.told(&mut self.counted);
            let shown = now.hashes.shown;
            let was = before.as_ref().map_or(0, |before| before.hashes.sum());
            if was != now.hashes.sum() {
                out.sums.devices.change(&now.row.uid, was, now.hashes.sum());
            }
            match before {
                None => {
                    told(uid, if to.contains(&uid) { "split" } else { "created" }, out);
                    out.devices.new.push(now.whole());
                }
                Some(before) if before.hashes.shown != shown => {
                    let retires = now.is_retired && !before.is_retired;
                    told(uid, if retires { "retired" } else { "changed" }, out);
                    out.devices.changed.push(now.whole());
                }
                Some(before) if before.hashes.seen != now.hashes.seen => out.devices.seen.push(now.seen),
                Some(_) => {}
            }
            self.devices.insert(device, told_now);
        }
        for (_, before) in gone {
            count_changes(Some(&before), None, &mut self.counts);
            vanished(&before, out);
        }
    }

    /// The row of a device, where it is one: it has a member that makes it.
    fn device(
        &self,
        identity: &Identity,
        facts: &Facts,
        (device, uid): (Device, Uid),
        pins: &[Pin<'_>],
    ) -> Option<Now> {
        let of_device = members(identity, facts, device);
        let dictionary = self.dictionary.borrow();
        let makes = |member: &Member<'_>| member.placement != Placement::Attached;
        if !of_device.iter().any(makes) {
            return None;
        }
        let authoritative = of_device.iter().any(|member| {
            member.placement == Placement::Anchored
                && matches!(identity.macs.place(member.record.id), Place::Core(_))
        });
        let scope = dictionary.source_entry(of_device.first()?.record.source).scope;
        let partition = dictionary.partition(scope);
        let authority = &self.rules.authority;
        let mut row = device_row(uid, partition, &of_device, pins, authoritative, authority, &dictionary);
        let sources = summaries(of_device.iter().map(|Member { record, .. }| OfRecord {
            source: dictionary.source_entry(record.source).source.to_string(),
            first_seen: record.first_seen,
            last_seen: record.last_seen,
            open: record.now().open,
        }));
        let seen = device_seen(uid, &of_device);
        let choice = choice(&of_device, pins, authority, &dictionary);
        drop(dictionary);
        let of_row = hash(&row);
        let hashes = Hashes { row: of_row, shown: hash_shown(of_row, &sources), seen: hash(&seen) };
        row.sources = sources;
        let counted = counted(&row, &mut self.dictionary.borrow_mut());
        Some(Now { uid, is_retired: row.state == "retired", row, seen, hashes, choice, counted })
    }
}

/// The records of a device that are no history alone.
fn members<'a>(identity: &Identity, facts: &'a Facts, device: Device) -> Vec<Member<'a>> {
    let members = identity.placer.members(device).into_iter().flat_map(|members| members.records.iter());
    members
        .map(|record| (record, identity.placer.placed(*record).placement))
        .filter(|(_, placement)| *placement != Placement::Closed)
        .filter_map(|(record, placement)| Some(Member { record: facts.record(*record)?, placement }))
        .collect()
}

fn hash_shown(row: u64, sources: &[SourceSummary]) -> u64 {
    let sources = sources.iter().map(|of| (&of.source, of.first_seen, of.records, of.open));
    hash(&(row, sources.collect::<Vec<_>>()))
}

/// By what a device is counted.
fn counted(row: &DeviceRow, dictionary: &mut Dictionary) -> Vec<Counted> {
    let partition = dictionary.text(&row.partition);
    let mut one = |dimension, value: Option<&str>| {
        (partition, dictionary.text(dimension), dictionary.text(value.unwrap_or_default()))
    };
    let mut counted = vec![
        one("all", None),
        one("type", Some(&row.r#type)),
        one("vendor_name", row.vendor_name.as_deref()),
        one("state", Some(&row.state)),
        one("confidence", Some(&row.confidence)),
        one("risk_level", row.risk_level.as_deref()),
        one("site", row.site.as_deref()),
    ];
    counted.extend(row.discovery_sources.iter().map(|kind| one("discovery_source", Some(kind))));
    counted
}

fn count_changes(before: Option<&ToldDevice>, now: Option<&Now>, counts: &mut HashMap<CountItem, isize>) {
    let before = before.map(|told| (&*told.counted, told.choice.is_available));
    let after = now.map(|now| (&*now.counted, now.row.is_available));
    if before == after {
        return;
    }
    for (side, diff) in [(before, -1), (after, 1)] {
        let Some((counted, availability)) = side else {
            continue;
        };
        for one in counted {
            *counts.entry((*one, availability)).or_default() += diff;
        }
    }
}
