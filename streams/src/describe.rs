//! Describe: the rows of the views for what an epoch changed, each once, and what became of devices.

mod devices;
mod merges;
mod records;

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc};

use hashbrown::HashMap;

pub use self::devices::dimension;
use self::{
    devices::ToldDevice,
    records::{Told, ToldRecord},
};
use crate::{
    by_device::ByDevice,
    choose::Pin,
    decisions::{Effect, Scoped},
    dictionary::{ClaimId, Dictionary, RecordId},
    facts::Facts,
    fold::RecordChange,
    identity::{Identity, IdentityChanges},
    paged::Paged,
    place::Device,
    recurring::Recurring,
    rows::{EpochOutput, Uid},
    rules::Rules,
    sort_unique,
};

/// Records, or devices, of a piece when all are told: with their evidence a few megabytes.
const PIECE_ROWS: usize = 700;
/// What devices are counted by, in labels of the dictionary: scope, dimension, value.
pub type Counted = (u32, u32, u32);

/// What is counted, and whether the device answered.
pub type CountItem = (Counted, Option<bool>);
/// A count that came or went.
pub type CountChange = (CountItem, isize);

/// Records that were of one device and are of another: by the uids of both.
type Moved = BTreeMap<(Uid, Uid), Vec<RecordId>>;
/// By claim and attribute: the value, and when it was pinned.
type Pins = BTreeMap<ClaimId, BTreeMap<String, (String, i64)>>;

/// The state of the operator.
pub struct Describer {
    dictionary: Rc<RefCell<Dictionary>>,
    rules: Arc<Rules>,
    /// By record.
    records: Paged<Option<ToldRecord>>,
    devices: ByDevice<ToldDevice>,
    evidence: Recurring<[Told]>,
    counted: Recurring<[Counted]>,
    /// By how much counts changed since they were last returned.
    counts: HashMap<CountItem, isize>,
    pins: Pins,
}

impl Describer {
    /// Empty.
    pub fn new(dictionary: Rc<RefCell<Dictionary>>, rules: Arc<Rules>) -> Self {
        Self {
            dictionary,
            rules,
            records: Paged::new(None),
            devices: ByDevice::default(),
            evidence: Recurring::default(),
            counted: Recurring::default(),
            counts: HashMap::new(),
            pins: BTreeMap::new(),
        }
    }

    /// Takes in an epoch of which no rows are told: `rows` tells them, or remembers them. Returns the counts that
    /// changed by what was told since.
    pub fn keep_quiet(
        &mut self,
        identity: &Identity,
        facts: &Facts,
        effects: &[(Scoped, isize)],
    ) -> Vec<CountChange> {
        self.pin(identity, facts, effects, &mut Vec::new());
        self.changed_counts()
    }

    /// Writes the rows of an epoch into `out`; returns the counts that changed.
    pub fn describe(
        &mut self,
        identity: &Identity,
        facts: &Facts,
        changes: &[RecordChange],
        effects: &[(Scoped, isize)],
        changed: &IdentityChanges,
        out: &mut EpochOutput,
    ) -> Vec<CountChange> {
        let mut devices: Vec<Device> = changed.places.devices.clone();
        self.pin(identity, facts, effects, &mut devices);
        // Whose evidence may do something else than before.
        let mut touched: Vec<RecordId> = changed.places.records.clone();
        touched.extend(changed.evidence.iter().chain(&changed.places.leads));
        sort_unique(&mut touched);
        let members = changed.places.devices.iter().filter_map(|device| identity.placer.members(*device));
        let mut records: Vec<RecordId> =
            members.flat_map(|members| members.records.iter().copied()).collect();
        records.extend(&touched);
        records.extend(changes.iter().map(|(_, after)| after.id));
        sort_unique(&mut records);
        let mut moved = Moved::new();
        let mut seen: Vec<Device> = Vec::new();
        // Changes are in the order of their records too.
        let mut changes = changes.iter().peekable();
        let mut touched = touched.into_iter().peekable();
        for id in records {
            let change = changes.next_if(|(_, after)| after.id == id);
            let is_touched = touched.next_if_eq(&id).is_some();
            let Some(after) = facts.record(id) else {
                continue;
            };
            let before = change.map_or(Some(after), |(before, _)| before.as_ref()).map(|before| &**before);
            let device = identity.placer.placed(id).device;
            // A pinned value goes where its claim leads.
            let has_pin = || after.claims.iter().any(|span| self.pins.contains_key(&span.claim));
            if is_touched && !self.pins.is_empty() && has_pin() {
                devices.extend(device);
            }
            match before {
                Some(before) if before.shows_like(after, &self.dictionary.borrow()) => {}
                Some(before) if after.is_seen_again(before) => seen.extend(device),
                _ => devices.extend(device),
            }
            self.describe_record(identity, facts, (before, after), is_touched, &mut moved, out);
        }
        // Neighbours in the tables' keys are written together: in any other order a load costs twice as much.
        out.records.new.sort_by(|a, b| a.record_key.cmp(&b.record_key));
        out.records.changed.sort_by(|a, b| a.record_key.cmp(&b.record_key));
        out.records.seen.sort_by(|a, b| a.record_key.cmp(&b.record_key));
        out.evidence.new.sort_by(|a, b| a.record_key.cmp(&b.record_key));
        self.see_devices(identity, facts, seen, &mut devices, out);
        self.describe_devices(identity, facts, devices, &moved, out);
        self.describe_merges(facts, &moved, out);
        self.changed_counts()
    }

    fn changed_counts(&mut self) -> Vec<CountChange> {
        let mut counts: Vec<CountChange> = self.counts.drain().filter(|(_, by)| *by != 0).collect();
        counts.sort_unstable();
        counts
    }

    /// Tells all rows of records, evidence and devices, and of each device that it was created, piece by piece,
    /// in the order of their keys, until told that it is enough; pieces have their share of each table. Without
    /// `tell` the views hold these rows already, and they are only remembered.
    pub fn rows(
        &mut self,
        identity: &Identity,
        facts: &Facts,
        mut tell: Option<&mut dyn FnMut(EpochOutput) -> bool>,
    ) {
        let mut records: Vec<RecordId> = facts.records().map(|record| record.id).collect();
        {
            let dictionary = self.dictionary.borrow();
            records.sort_unstable_by(|a, b| dictionary.key(*a).cmp(dictionary.key(*b)));
        }
        let mut devices: Vec<(Uid, Device)> = identity.placer.named().collect();
        devices.sort_unstable();
        let pieces = records.len().max(devices.len()).div_ceil(PIECE_ROWS).max(1);
        let (records_in_piece, devices_in_piece) =
            (records.len().div_ceil(pieces).max(1), devices.len().div_ceil(pieces).max(1));
        let mut records = records.chunks(records_in_piece);
        let mut devices = devices.chunks(devices_in_piece);
        for _ in 0..pieces {
            let mut piece = tell.is_some().then(EpochOutput::default);
            for record in records.next().unwrap_or_default() {
                self.row_of_record(identity, facts, *record, piece.as_mut());
            }
            self.rows_of_devices(identity, facts, devices.next().unwrap_or_default(), piece.as_mut());
            if let Some((tell, piece)) = tell.as_mut().zip(piece)
                && !tell(piece)
            {
                return;
            }
        }
    }

    fn pin(
        &mut self,
        identity: &Identity,
        facts: &Facts,
        effects: &[(Scoped, isize)],
        devices: &mut Vec<Device>,
    ) {
        let mut dictionary = self.dictionary.borrow_mut();
        for ((partition, effect), diff) in effects {
            let Effect::PinValue(claim, attribute, value, at) = effect else {
                continue;
            };
            let scope = dictionary.scope(partition);
            let claim = dictionary.claim(scope, claim);
            let pins = self.pins.entry(claim).or_default();
            if *diff > 0 {
                pins.insert(attribute.clone(), (value.clone(), *at));
            } else {
                pins.remove(attribute);
            }
            let lead = identity.placer.lead(identity.context(facts), claim, &dictionary);
            devices.extend(lead.map(|lead| lead.device));
        }
    }
}

/// The values pinned to each device, by the claims that lead there.
fn pins_of_devices<'a>(
    pins: &'a Pins,
    identity: &Identity,
    facts: &Facts,
    dictionary: &Dictionary,
) -> HashMap<Device, Vec<Pin<'a>>> {
    let mut pinned: HashMap<Device, Vec<Pin<'a>>> = HashMap::new();
    for (claim, pins) in pins {
        let Some(lead) = identity.placer.lead(identity.context(facts), *claim, dictionary) else { continue };
        let pins = pins.iter().map(|(attribute, (value, at))| Pin { attribute, value, at: *at });
        pinned.entry(lead.device).or_default().extend(pins);
    }
    pinned
}
