//! The views as maps: what a writer makes of the epochs' outputs, and refuses of them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
};

use proptest::{prop_assert, prop_assert_eq, test_runner::TestCaseError};
use serviceradar_streams::{
    changes::{Changes, Row, Seen},
    engine::Closed,
    rows::{
        CountRow, DecisionRow, DeviceRow, EpochOutput, EvidenceRow, EvidenceSpan, EvidenceState, IssueRow,
        RecordRow, SnapshotMemberRow, SnapshotRow, State, WatermarkRow,
    },
    snapshots::Undecided,
    sources,
    sums::{Buckets, Sums},
};

use crate::Checked;

/// A table.
pub(crate) type Table<R> = BTreeMap<<R as Row>::Key, R>;

/// All tables of a tenant, the journals left out.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Tables {
    pub(crate) devices: Table<DeviceRow>,
    pub(crate) records: Table<RecordRow>,
    pub(crate) evidence: Table<EvidenceRow>,
    pub(crate) issues: Table<IssueRow>,
    pub(crate) counts: Table<CountRow>,
    pub(crate) decisions: Table<DecisionRow>,
    pub(crate) snapshots: Table<SnapshotRow>,
    pub(crate) members: Table<SnapshotMemberRow>,
    pub(crate) watermarks: Table<WatermarkRow>,
    /// What the guard is asked to judge.
    pub(crate) undecided: Vec<Undecided>,
    /// As the epochs kept them.
    pub(crate) sums: Sums,
}

impl Tables {
    /// Takes in what an epoch changes.
    pub(crate) fn take(&mut self, closed: &Closed) -> Checked {
        let output = &closed.output;
        fold(&mut self.devices, &output.devices, |old, new| {
            new.last_seen = old.last_seen;
            new.availability_at = old.availability_at;
            (new.agent_id, new.gateway_id) = (old.agent_id.clone(), old.gateway_id.clone());
            for (new, old) in new.sources.iter_mut().zip(&old.sources) {
                new.last_seen = old.last_seen;
            }
        })?;
        fold(&mut self.records, &output.records, |old, new| {
            new.last_seen = old.last_seen;
            new.last_assert = old.last_assert;
            new.last_full = old.last_full;
            new.last_snapshot_begin = old.last_snapshot_begin;
            if let (Some((_, new)), Some((_, old))) = (&mut new.place, old.place) {
                *new = old;
            }
            if let (Some((_, new)), Some((_, old))) = (&mut new.probe, old.probe) {
                *new = old;
            }
        })?;
        self.take_sources(output)?;
        fold(&mut self.evidence, &output.evidence, |_, _| {})?;
        fold(&mut self.issues, &output.issues, |_, _| {})?;
        fold(&mut self.counts, &output.counts, |_, _| {})?;
        fold(&mut self.decisions, &output.decisions, |_, _| {})?;
        fold(&mut self.snapshots, &output.snapshots, |_, _| {})?;
        fold(&mut self.members, &output.snapshot_members, |_, _| {})?;
        fold(&mut self.watermarks, &output.watermarks, |_, _| {})?;
        self.sums.add(&output.sums);
        prop_assert_eq!(&self.sums.devices, &Buckets::of(self.devices.values()), "sums of devices");
        prop_assert_eq!(&self.sums.records, &Buckets::of(self.records.values()), "sums of records");
        prop_assert_eq!(&self.sums.evidence, &Buckets::of(self.evidence.values()), "sums of evidence");
        self.undecided = closed.undecided.clone();
        let key = |fetch: &Undecided| (fetch.partition.clone(), fetch.source.clone(), fetch.begin);
        self.undecided.sort_by_key(key);
        Ok(())
    }

    /// Makes the sources of devices of their records, as the views do; what an epoch told of them must be the same.
    fn take_sources(&mut self, output: &EpochOutput) -> Checked {
        let mut records: BTreeMap<String, Vec<&RecordRow>> = BTreeMap::new();
        for record in self.records.values() {
            let uid = record.uid.map(|uid| uid.to_string()).unwrap_or_default();
            records.entry(uid).or_default().push(record);
        }
        let told: BTreeSet<&str> =
            output.devices.new.iter().chain(&output.devices.changed).map(|row| &*row.uid).collect();
        for (uid, device) in &mut self.devices {
            let of_device = records.get(uid).into_iter().flatten().copied();
            let sources = sources::of_rows(of_device);
            if !told.contains(&**uid) {
                prop_assert_eq!(device.sources.len(), sources.len(), "sources of {} changed untold", uid);
                for (device, now) in device.sources.iter_mut().zip(&sources) {
                    device.last_seen = now.last_seen;
                }
            }
            prop_assert_eq!(&device.sources, &sources, "sources of {}", uid);
        }
        Ok(())
    }

    /// What a restart reads back.
    pub(crate) fn state(&self) -> State {
        State {
            records: self.records.values().cloned().collect(),
            evidence: self.evidence.values().map(EvidenceSpan::from).collect(),
            decisions: self.decisions.values().cloned().collect(),
            snapshots: self.snapshots.values().cloned().collect(),
            snapshot_members: self.members.values().cloned().collect(),
            watermarks: self.watermarks.values().cloned().collect(),
        }
    }

    /// Uid of a claim or address → uid of its device.
    pub(crate) fn redirects(&self) -> Checked<BTreeMap<String, String>> {
        let mut redirects = BTreeMap::new();
        for row in self.evidence.values().filter(|row| row.leads) {
            let to = self.records.get(&row.record_key).and_then(|row| row.uid);
            prop_assert!(to.is_some(), "{row:?} leads nowhere");
            prop_assert!(row.claim_uid.is_some(), "{row:?} leads, and has no uid");
            if let (Some(from), Some(to)) = (row.claim_uid, to) {
                let twice = redirects.insert(format!("sr:{from}"), to.to_string());
                prop_assert!(twice.is_none(), "{row:?} leads a second time");
            }
        }
        Ok(redirects)
    }

    /// Where they differ, in words: the first few rows of each table.
    pub(crate) fn difference(&self, other: &Self) -> String {
        let mut words = String::new();
        tell(&mut words, "devices", &self.devices, &other.devices);
        tell(&mut words, "records", &self.records, &other.records);
        tell(&mut words, "evidence", &self.evidence, &other.evidence);
        tell(&mut words, "issues", &self.issues, &other.issues);
        tell(&mut words, "counts", &self.counts, &other.counts);
        tell(&mut words, "decisions", &self.decisions, &other.decisions);
        tell(&mut words, "snapshots", &self.snapshots, &other.snapshots);
        tell(&mut words, "members", &self.members, &other.members);
        tell(&mut words, "watermarks", &self.watermarks, &other.watermarks);
        if self.undecided != other.undecided {
            words += &format!("undecided: {:?}, not {:?}", self.undecided, other.undecided);
        }
        words
    }
}

/// Fails where two sets of tables are not the same.
pub(crate) fn same(tables: &Tables, expected: &Tables, when: &str) -> Checked {
    let difference = tables.difference(expected);
    prop_assert!(difference.is_empty(), "{when}:\n{difference}");
    Ok(())
}

/// Whether a claim links its record now, or would if nothing newer spoke against it.
pub(crate) fn links(state: EvidenceState) -> bool {
    matches!(state, EvidenceState::Linking | EvidenceState::Lapsed)
}

fn tell<K: Ord + Debug, R: PartialEq + Debug>(
    words: &mut String,
    name: &str,
    table: &BTreeMap<K, R>,
    expected: &BTreeMap<K, R>,
) {
    let mut keys: Vec<&K> = table.keys().chain(expected.keys()).collect();
    keys.sort();
    keys.dedup();
    let differ = keys.into_iter().filter(|key| table.get(key) != expected.get(key));
    for key in differ.take(3) {
        let (is, must) = (table.get(key), expected.get(key));
        *words += &format!("{name} {key:?}:\n  is      {is:?}\n  must be {must:?}\n");
    }
}

/// Applies changes to a table. `unsee` puts the sightings of the old row into the new one: nothing
/// else may be new in a row of which nothing but sightings changed.
fn fold<R: Row + PartialEq + Debug>(
    table: &mut Table<R>,
    changes: &Changes<R>,
    unsee: impl Fn(&R, &mut R),
) -> Checked {
    let keys = changes.new.iter().chain(&changes.changed).map(Row::key);
    let keys = keys.chain(changes.seen.iter().map(Seen::key));
    let mut keys: Vec<R::Key> = keys.chain(changes.gone.iter().cloned()).collect();
    keys.sort();
    let twice = keys.windows(2).find(|pair| pair[0] == pair[1]);
    prop_assert!(twice.is_none(), "told twice in one epoch: {twice:?}");
    for row in &changes.new {
        let before = table.insert(row.key(), row.clone());
        prop_assert!(before.is_none(), "new, and was there: {before:?}");
    }
    for row in &changes.changed {
        let Some(before) = table.insert(row.key(), row.clone()) else {
            return Err(TestCaseError::fail(format!("changed, and was not there: {row:?}")));
        };
        let mut unseen = row.clone();
        unsee(&before, &mut unseen);
        prop_assert!(unseen != before, "no more than sightings changed: {row:?}");
    }
    for seen in &changes.seen {
        let Some(row) = table.get_mut(&seen.key()) else {
            return Err(TestCaseError::fail(format!("seen, and was not there: {seen:?}")));
        };
        let before = row.clone();
        seen.clone().write(row);
        prop_assert!(*row != before, "seen, and is the same: {row:?}");
        let mut unseen = row.clone();
        unsee(&before, &mut unseen);
        prop_assert_eq!(&unseen, &before, "more than sightings changed");
    }
    for key in &changes.gone {
        prop_assert!(table.remove(key).is_some(), "gone, and was not there: {key:?}");
    }
    Ok(())
}
