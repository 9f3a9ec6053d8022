//! Describe: the rows of the views for what an epoch changed, each once, and what became of devices.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    rc::Rc,
    sync::Arc,
};

use hashbrown::{HashMap, HashSet};

use crate::{
    choose::{Member, Pin, device_row},
    claim::Namespace,
    decisions::{Effect, Scoped},
    dictionary::{ClaimId, Dictionary, RecordId},
    evidence::{address_row, claim_row, state_of},
    facts::Facts,
    fold::RecordChange,
    identity::{Identity, IdentityChanges},
    macs::Place,
    place::{Device, Placed},
    record::Record,
    rows::{
        Changed, Changes, DeviceRow, EpochOutput, EvidenceRow, EvidenceState, HistoryRow, MergeRow,
        Placement, RecordRow, Row, Uid,
    },
    rules::Rules,
    sort_unique,
};

/// Most records named in a row of `device_merges`.
pub const MERGE_RECORDS_MAX: usize = 100;
/// Records, or devices, of a piece when all are told: with their evidence a few megabytes.
const PIECE_ROWS: usize = 1_000;
/// Of a cause in a row of history: the first few say enough.
const CAUSES_MAX: usize = 4;

/// What devices are counted by, in labels of the dictionary: scope, dimension, value.
pub type Counted = (u32, u32, u32);

/// What was last told of a record, besides what it says itself.
struct ToldRecord {
    placement: Placement,
    uid: Option<Uid>,
    /// State and lead of each claim, then of each address.
    evidence: Box<[(EvidenceState, bool)]>,
}

/// A record, and what is told of it.
struct Telling<'a> {
    record: &'a Record,
    told: &'a ToldRecord,
}

/// What was last told of a device.
struct ToldDevice {
    uid: Uid,
    /// Hash of the row, and of the row without its sightings.
    hashes: (u64, u64),
    is_retired: bool,
    counted: Box<[Counted]>,
    availability: Option<bool>,
}

/// What is counted, and whether the device answered.
pub type CountItem = (Counted, Option<bool>);
/// A count that came or went.
pub type CountChange = (CountItem, isize);

/// The dimensions by which devices are counted.
const DIMENSIONS: [&str; 8] =
    ["all", "confidence", "discovery_source", "risk_level", "site", "state", "type", "vendor_name"];

/// A dimension by its name.
pub fn dimension(name: &str) -> &'static str {
    DIMENSIONS.iter().find(|dimension| **dimension == name).copied().unwrap_or("all")
}

/// By claim and attribute: the value, and when it was pinned.
type Pins = BTreeMap<ClaimId, BTreeMap<String, (String, i64)>>;

/// The state of the operator.
pub struct Describer {
    dictionary: Rc<RefCell<Dictionary>>,
    rules: Arc<Rules>,
    /// By record.
    records: Vec<Option<ToldRecord>>,
    devices: HashMap<Device, ToldDevice>,
    /// Counts that changed by rows that were told outside of an epoch.
    uncounted: Vec<CountChange>,
    pins: Pins,
}

/// A device after an epoch.
struct Now {
    uid: Uid,
    row: DeviceRow,
    hashes: (u64, u64),
    is_retired: bool,
    counted: Box<[Counted]>,
}

impl Now {
    fn told(&self) -> ToldDevice {
        ToldDevice {
            uid: self.uid,
            hashes: self.hashes,
            is_retired: self.is_retired,
            counted: self.counted.clone(),
            availability: self.row.is_available,
        }
    }
}

impl Describer {
    /// Empty.
    pub fn new(dictionary: Rc<RefCell<Dictionary>>, rules: Arc<Rules>) -> Self {
        let (records, devices) = (Vec::new(), HashMap::new());
        Self { dictionary, rules, records, devices, uncounted: Vec::new(), pins: BTreeMap::new() }
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
        std::mem::take(&mut self.uncounted)
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
            members.flat_map(|members| members.records.keys().copied()).collect();
        records.extend(&touched);
        records.extend(changes.iter().map(|(_, after)| after.id));
        sort_unique(&mut records);
        let mut moved: BTreeMap<(Uid, Uid), Vec<RecordId>> = BTreeMap::new();
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
            let shows_else = before.is_none_or(|before| !before.shows_like(after, &self.dictionary.borrow()));
            // A pinned value goes where its claim leads.
            let has_pin = || after.claims.iter().any(|span| self.pins.contains_key(&span.claim));
            if shows_else || (is_touched && !self.pins.is_empty() && has_pin()) {
                devices.extend(identity.placer.placed(id).device);
            }
            self.describe_record(identity, facts, (before, after), is_touched, &mut moved, out);
        }
        sort_unique(&mut devices);
        // Neighbours in the tables' keys are written together: in any other order a load costs twice as much.
        out.records.new.sort_by(|a, b| a.record_key.cmp(&b.record_key));
        out.evidence.new.sort_by(|a, b| a.record_key.cmp(&b.record_key));
        let mut counts = self.describe_devices(identity, facts, devices, &moved, out);
        counts.append(&mut self.uncounted);
        self.describe_merges(facts, &moved, out);
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
        let mut records: Vec<(Arc<str>, RecordId)> = {
            let dictionary = self.dictionary.borrow();
            facts
                .records()
                .map(|record| (dictionary.record_entry(record.id).key.clone(), record.id))
                .collect()
        };
        records.sort_unstable();
        let mut devices: Vec<(Uid, Device)> = identity.placer.named().collect();
        devices.sort_unstable();
        let pieces = records.len().max(devices.len()).div_ceil(PIECE_ROWS).max(1);
        let (records_in_piece, devices_in_piece) =
            (records.len().div_ceil(pieces).max(1), devices.len().div_ceil(pieces).max(1));
        let mut records = records.chunks(records_in_piece);
        let mut devices = devices.chunks(devices_in_piece);
        for _ in 0..pieces {
            let mut piece = tell.is_some().then(EpochOutput::default);
            for (_, record) in records.next().unwrap_or_default() {
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

    fn row_of_record(
        &mut self,
        identity: &Identity,
        facts: &Facts,
        id: RecordId,
        piece: Option<&mut EpochOutput>,
    ) {
        let Some(record) = facts.record(id) else {
            return;
        };
        let dictionary = self.dictionary.borrow();
        let told = told_of(identity, record, evidence_of(identity, facts, record, &dictionary));
        if let Some(piece) = piece {
            let telling = Telling { record, told: &told };
            let first = piece.evidence.new.len();
            evidence_changes(None, &telling, &dictionary, &mut piece.evidence);
            piece.evidence.new[first..]
                .sort_unstable_by(|a, b| (&a.namespace, &a.value).cmp(&(&b.namespace, &b.value)));
            piece.records.new.push(record_row(&telling, true, &dictionary));
        }
        drop(dictionary);
        *self.slot(id) = Some(told);
    }

    fn rows_of_devices(
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
            let before = self.devices.insert(*device, now.told());
            count_changes(before.as_ref(), Some(&now), &mut self.uncounted);
            if let Some(piece) = &mut piece {
                piece.devices.new.push(now.row);
                piece.history.push(HistoryRow { uid: *uid, change: "created", cause: String::new() });
            }
        }
    }

    /// What was last told of a record.
    fn slot(&mut self, record: RecordId) -> &mut Option<ToldRecord> {
        let index = record as usize;
        if self.records.len() <= index {
            self.records.resize_with(index + 1, || None);
        }
        &mut self.records[index]
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

    fn describe_record(
        &mut self,
        identity: &Identity,
        facts: &Facts,
        (before, record): (Option<&Record>, &Record),
        is_touched: bool,
        moved: &mut BTreeMap<(Uid, Uid), Vec<RecordId>>,
        out: &mut EpochOutput,
    ) {
        let told = self.slot(record.id).take();
        let dictionary = self.dictionary.borrow();
        let same = before.is_some_and(|before| {
            Arc::ptr_eq(&before.claims, &record.claims) && Arc::ptr_eq(&before.addresses, &record.addresses)
        });
        let evidence = match &told {
            Some(told) if same && !is_touched => told.evidence.clone(),
            _ => evidence_of(identity, facts, record, &dictionary),
        };
        let now = told_of(identity, record, evidence);
        let telling = Telling { record, told: &now };
        let before = before.zip(told.as_ref()).map(|(record, told)| Telling { record, told });
        evidence_changes(before.as_ref(), &telling, &dictionary, &mut out.evidence);
        match &before {
            None => out.records.new.push(record_row(&telling, true, &dictionary)),
            Some(before) if !is_same(before, &telling) => {
                let seen_only = is_seen_only(before, &telling);
                let row = record_row(&telling, !seen_only, &dictionary);
                out.records.changed.push(Changed { row, seen_only });
            }
            Some(_) => {}
        }
        if let (Some(from), Some(to)) = (before.and_then(|before| before.told.uid), now.uid)
            && from != to
        {
            moved.entry((from, to)).or_default().push(record.id);
        }
        drop(dictionary);
        *self.slot(record.id) = Some(now);
    }

    fn describe_devices(
        &mut self,
        identity: &Identity,
        facts: &Facts,
        devices: Vec<Device>,
        moved: &BTreeMap<(Uid, Uid), Vec<RecordId>>,
        out: &mut EpochOutput,
    ) -> Vec<CountChange> {
        // In the order of uids, of those that are no more and of those that are.
        let mut gone: Vec<(Uid, ToldDevice)> = devices
            .iter()
            .filter_map(|device| self.devices.remove(device))
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
        let vanished = |uid: Uid, out: &mut EpochOutput| {
            told(uid, if from.contains(&uid) { "merged" } else { "forgotten" }, out);
            out.devices.gone.push(uid.to_string());
        };
        let pins = pins_of_devices(&self.pins, identity, facts, &self.dictionary.borrow());
        let mut counts = Vec::new();
        let mut gone = gone.into_iter().peekable();
        for (uid, device) in named {
            while let Some((uid, before)) = gone.next_if(|(other, _)| *other < uid) {
                count_changes(Some(&before), None, &mut counts);
                vanished(uid, out);
            }
            let pins = pins.get(&device).map_or(&[][..], Vec::as_slice);
            let Some(now) = self.device(identity, facts, (device, uid), pins) else {
                continue;
            };
            let before = gone.next_if(|(other, _)| *other == uid).map(|(_, before)| before);
            count_changes(before.as_ref(), Some(&now), &mut counts);
            let told_now = now.told();
            let Now { row, hashes, is_retired, .. } = now;
            match before {
                None => {
                    told(uid, if to.contains(&uid) { "split" } else { "created" }, out);
                    out.devices.new.push(row);
                }
                Some(before) if before.hashes != hashes => {
                    let seen_only = before.hashes.1 == hashes.1;
                    if !seen_only {
                        told(uid, if is_retired && !before.is_retired { "retired" } else { "changed" }, out);
                    }
                    out.devices.changed.push(Changed { row, seen_only });
                }
                Some(_) => {}
            }
            self.devices.insert(device, told_now);
        }
        for (uid, before) in gone {
            count_changes(Some(&before), None, &mut counts);
            vanished(uid, out);
        }
        counts
    }

    /// The row of a device, where it is one: it has a member that makes it.
    fn device(
        &self,
        identity: &Identity,
        facts: &Facts,
        (device, uid): (Device, Uid),
        pins: &[Pin<'_>],
    ) -> Option<Now> {
        let members = identity.placer.members(device)?;
        let dictionary = self.dictionary.borrow();
        let of_device = members.records.iter().filter(|(_, placement)| **placement != Placement::Closed);
        let of_device: Vec<Member<'_>> = of_device
            .filter_map(|(record, placement)| {
                Some(Member { record: facts.record(*record)?, placement: *placement })
            })
            .collect();
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
        drop(dictionary);
        let hashes = hashes(&mut row);
        let counted = counted(&row, &mut self.dictionary.borrow_mut());
        Some(Now { uid, is_retired: row.state == "retired", row, hashes, counted })
    }

    /// A merge where the device that records came from is no more, else a split.
    fn describe_merges(
        &self,
        facts: &Facts,
        moved: &BTreeMap<(Uid, Uid), Vec<RecordId>>,
        out: &mut EpochOutput,
    ) {
        let dictionary = self.dictionary.borrow();
        let gone: HashSet<&str> = out.devices.gone.iter().map(String::as_str).collect();
        for ((from, to), records) in moved {
            let mut keys: Vec<Arc<str>> =
                records.iter().map(|record| dictionary.record_entry(*record).key.clone()).collect();
            keys.sort_unstable();
            keys.truncate(MERGE_RECORDS_MAX);
            let (rule, claim) = self.rule(facts, records, *to, &dictionary);
            let kind = if gone.contains(from.to_string().as_str()) { "merge" } else { "split" };
            out.merges.push(MergeRow { from_uid: *from, to_uid: *to, kind, claim, rule, records: keys });
        }
    }

    /// The claim by which records that moved hang together with others of the device where they are now.
    fn rule(
        &self,
        facts: &Facts,
        records: &[RecordId],
        to: Uid,
        dictionary: &Dictionary,
    ) -> (&'static str, Option<String>) {
        let told =
            |record: &RecordId| Some((facts.record(*record)?, self.records[*record as usize].as_ref()?));
        if records.iter().filter_map(told).all(|(_, told)| told.placement != Placement::Anchored) {
            return ("attach", None);
        }
        let linking = records.iter().filter_map(told).flat_map(|(record, told)| {
            record
                .claims
                .iter()
                .zip(told.evidence.iter())
                .filter(|(_, (state, _))| matches!(state, EvidenceState::Linking | EvidenceState::Lapsed))
        });
        let shared = linking.map(|(span, _)| span.claim).filter(|claim| {
            dictionary.claim_entry(*claim).uid == to
                || dictionary.claim_entry(*claim).kind != Namespace::Other
        });
        match shared.min_by_key(|claim| {
            (dictionary.claim_entry(*claim).uid != to, dictionary.claim_entry(*claim).tier())
        }) {
            Some(claim) => {
                let (namespace, value) = dictionary.claim_text(claim);
                let rule = if dictionary.claim_entry(claim).tier() == 1 { "claim" } else { "mac" };
                (rule, Some(format!("{namespace}:{value}")))
            }
            None => ("claim", None),
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

/// Where the records of devices came from and went to, in words, per uid.
fn causes(moved: &BTreeMap<(Uid, Uid), Vec<RecordId>>) -> HashMap<Uid, Vec<String>> {
    let mut causes: HashMap<Uid, Vec<String>> = HashMap::new();
    let mut say = |uid: &Uid, words: String| {
        let said = causes.entry(*uid).or_default();
        if said.len() < CAUSES_MAX {
            said.push(words);
        }
    };
    for ((from, to), records) in moved {
        say(to, format!("{} records came from {from}", records.len()));
        say(from, format!("{} records went to {to}", records.len()));
    }
    causes
}

/// What is told of a record now.
fn told_of(identity: &Identity, record: &Record, evidence: Box<[(EvidenceState, bool)]>) -> ToldRecord {
    let Placed { placement, device } = identity.placer.placed(record.id);
    ToldRecord { placement, uid: device.and_then(|device| identity.placer.uid(device)), evidence }
}

/// State and lead of each claim of a record, then of each address.
fn evidence_of(
    identity: &Identity,
    facts: &Facts,
    record: &Record,
    dictionary: &Dictionary,
) -> Box<[(EvidenceState, bool)]> {
    let context = identity.context(facts);
    let states = record.claims.iter().map(|span| {
        let lead = identity.placer.lead(context, span.claim, dictionary);
        let leads = lead.is_some_and(|lead| lead.record == record.id);
        (state_of(record, span, identity, dictionary), leads)
    });
    let scope = dictionary.source_entry(record.source).scope;
    let addresses = record.addresses.iter().map(|span| {
        let lead = identity.placer.address_lead(scope, span.ip);
        let state = if span.current { EvidenceState::Corroborating } else { EvidenceState::Lapsed };
        (state, lead.is_some_and(|lead| lead.record == record.id))
    });
    states.chain(addresses).collect()
}

fn evidence_changes(
    before: Option<&Telling<'_>>,
    now: &Telling<'_>,
    dictionary: &Dictionary,
    out: &mut Changes<EvidenceRow>,
) {
    let unchanged = before.is_some_and(|before| {
        Arc::ptr_eq(&before.record.claims, &now.record.claims)
            && Arc::ptr_eq(&before.record.addresses, &now.record.addresses)
            && before.told.evidence == now.told.evidence
    });
    if unchanged {
        return;
    }
    let none: &[(EvidenceState, bool)] = &[];
    let split = |telling: &'_ Telling<'_>| telling.record.claims.len();
    let (old_claims, old_addresses) =
        before.map_or((none, none), |before| before.told.evidence.split_at(split(before)));
    let (claims, addresses) = now.told.evidence.split_at(split(now));
    let record = now.record;
    let old = before.map_or(&[][..], |before| &before.record.claims);
    span_changes(
        (old, old_claims),
        (&record.claims, claims),
        |span| span.claim,
        |a, b| (a.first_seen, a.first_asserted, &a.last) == (b.first_seen, b.first_asserted, &b.last),
        |span, (state, leads)| claim_row(record, span, state, leads, dictionary),
        out,
    );
    let old = before.map_or(&[][..], |before| &before.record.addresses);
    span_changes(
        (old, old_addresses),
        (&record.addresses, addresses),
        |span| span.ip,
        |a, b| (a.first_seen, a.first_asserted, &a.last) == (b.first_seen, b.first_asserted, &b.last),
        |span, (state, leads)| address_row(record, span, state, leads, dictionary),
        out,
    );
}

/// The rows of spans that came, went, or are told otherwise. Both lists are sorted by their keys; a row is made
/// only where there is something to tell.
fn span_changes<S, K: Ord>(
    (old, old_told): (&[S], &[(EvidenceState, bool)]),
    (new, told): (&[S], &[(EvidenceState, bool)]),
    key: impl Fn(&S) -> K,
    is_same: impl Fn(&S, &S) -> bool,
    row: impl Fn(&S, (EvidenceState, bool)) -> EvidenceRow,
    out: &mut Changes<EvidenceRow>,
) {
    let mut old = old.iter().zip(old_told).peekable();
    for (span, told) in new.iter().zip(told) {
        while let Some((gone, was)) = old.next_if(|(old, _)| key(old) < key(span)) {
            out.gone.push(row(gone, *was).key());
        }
        match old.next_if(|(old, _)| key(old) == key(span)) {
            None => out.new.push(row(span, *told)),
            Some((before, was)) if was != told || !is_same(before, span) => {
                out.changed.push(Changed { row: row(span, *told), seen_only: false });
            }
            Some(_) => {}
        }
    }
    out.gone.extend(old.map(|(gone, was)| row(gone, *was).key()));
}

/// What of a record is not a sighting.
fn is_seen_only(before: &Telling<'_>, now: &Telling<'_>) -> bool {
    let (a, b) = (before.record, now.record);
    before.told.placement == now.told.placement
        && before.told.uid == now.told.uid
        && a.now.open == b.now.open
        && a.first_seen == b.first_seen
        && a.first_asserted == b.first_asserted
        && a.attributes == b.attributes
        && a.probe.map(|(_, up)| up) == b.probe.map(|(_, up)| up)
        && a.collector == b.collector
        && (a.first_fetch, a.seen_outside) == (b.first_fetch, b.seen_outside)
        && a.place.map(|(_, ip)| ip) == b.place.map(|(_, ip)| ip)
        && a.last_end == b.last_end
}

/// Whether the row is the same.
fn is_same(before: &Telling<'_>, now: &Telling<'_>) -> bool {
    let (a, b) = (before.record, now.record);
    is_seen_only(before, now)
        && a.last_seen == b.last_seen
        && a.probe == b.probe
        && a.place == b.place
        && a.last_assert == b.last_assert
        && a.last_full == b.last_full
}

fn record_row(Telling { record, told }: &Telling<'_>, whole: bool, dictionary: &Dictionary) -> RecordRow {
    let known = |at: i64, unknown: i64| (at != unknown).then_some(at);
    RecordRow {
        record_key: dictionary.record_entry(record.id).key.clone(),
        uid: told.uid,
        placement: told.placement,
        open: record.now.open,
        first_seen: known(record.first_seen, i64::MAX),
        last_seen: known(record.last_seen, i64::MIN),
        first_asserted: known(record.first_asserted, i64::MAX),
        attributes: if whole { crate::evidence::attributes_json(record, dictionary) } else { "".into() },
        probe: record.probe.map(|(at, up)| (up, at)),
        collector: record.collector.clone(),
        first_snapshot_begin: record.first_fetch,
        place: record.place.map(|(order, ip)| (ip, order)),
        last_assert: record.last_assert,
        last_full: record.last_full,
        last_end: record.last_end,
    }
}

/// Hashes of a row: of all of it, and of what sightings alone leave as it is.
fn hashes(row: &mut DeviceRow) -> (u64, u64) {
    let seen = (
        std::mem::take(&mut row.last_seen),
        row.availability_at.take(),
        std::mem::take(&mut row.sources),
        row.agent_id.take(),
        row.gateway_id.take(),
    );
    let mut hasher = DefaultHasher::new();
    row.hash(&mut hasher);
    for source in &seen.2 {
        (&source.source, source.first_seen, source.records, source.open).hash(&mut hasher);
    }
    let stable = hasher.finish();
    seen.hash(&mut hasher);
    (row.last_seen, row.availability_at, row.sources, row.agent_id, row.gateway_id) = seen;
    (hasher.finish(), stable)
}

/// By what a device is counted.
fn counted(row: &DeviceRow, dictionary: &mut Dictionary) -> Box<[Counted]> {
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
    counted.into()
}

fn count_changes(before: Option<&ToldDevice>, now: Option<&Now>, counts: &mut Vec<CountChange>) {
    let before = before.map(|told| (&told.counted, told.availability));
    let after = now.map(|now| (&now.counted, now.row.is_available));
    if before == after {
        return;
    }
    for (side, diff) in [(before, -1), (after, 1)] {
        let Some((counted, availability)) = side else {
            continue;
        };
        counts.extend(counted.iter().map(|one| ((*one, availability), diff)));
    }
}
