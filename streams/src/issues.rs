//! Issues: what the rules refused or flagged, each once.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
};

use crate::{
    dictionary::{ClaimId, Dictionary, RecordId},
    fold::Fold,
    identity::{Identity, IdentityChanges},
    rows::{Changed, Changes, IssueRow, Row, Uid},
};

/// Most devices named in an issue.
pub const ISSUE_UIDS_MAX: usize = 100;

/// What an issue is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Subject {
    Claim(ClaimId),
    Record(RecordId),
}

/// The issues there are.
pub struct Issues {
    dictionary: Rc<RefCell<Dictionary>>,
    told: BTreeMap<Subject, Vec<IssueRow>>,
    oversized: BTreeSet<RecordId>,
}

impl Issues {
    /// Empty.
    pub fn new(dictionary: Rc<RefCell<Dictionary>>) -> Self {
        Self { dictionary, told: BTreeMap::new(), oversized: BTreeSet::new() }
    }

    /// All issues there are, in order.
    pub fn all(&self) -> Vec<IssueRow> {
        let mut all: Vec<IssueRow> = self.told.values().flatten().cloned().collect();
        all.sort_unstable();
        all
    }

    /// Finds anew the issues that an epoch touched.
    pub fn settle(
        &mut self,
        identity: &Identity,
        fold: &Fold,
        changed: &IdentityChanges,
        records: impl Iterator<Item = RecordId>,
    ) -> Changes<IssueRow> {
        let mut subjects: BTreeSet<Subject> =
            changed.claims.iter().map(|claim| Subject::Claim(*claim)).collect();
        subjects.extend(changed.records.iter().map(|record| Subject::Record(*record)));
        let records: Vec<RecordId> = records.collect();
        subjects.extend(records.iter().map(|record| Subject::Record(*record)));
        let oversized = identity.blocks.oversized().clone();
        subjects
            .extend(oversized.symmetric_difference(&self.oversized).map(|record| Subject::Record(*record)));
        self.oversized = oversized;
        // An issue names the devices of its claimants: where one moved or claims other things, it is told anew.
        let claimants: BTreeSet<RecordId> = changed
            .places
            .devices
            .iter()
            .filter_map(|device| identity.placer.members(*device))
            .flat_map(|members| members.records.keys().copied())
            .chain(changed.places.records.iter().copied())
            .chain(records)
            .collect();
        for record in claimants.iter().filter_map(|record| fold.record(*record)) {
            let told = |claim: &ClaimId| self.told.contains_key(&Subject::Claim(*claim));
            subjects.extend(record.claims.iter().map(|span| span.claim).filter(told).map(Subject::Claim));
            subjects
                .extend(self.told.get_key_value(&Subject::Record(record.id)).map(|(subject, _)| *subject));
        }
        let mut out = Changes::default();
        for subject in subjects {
            let now = match subject {
                Subject::Claim(claim) => self.of_claim(claim, identity, fold),
                Subject::Record(record) => self.of_record(record, identity, fold),
            };
            self.tell(subject, now, &mut out);
        }
        out
    }

    fn tell(&mut self, subject: Subject, now: Vec<IssueRow>, out: &mut Changes<IssueRow>) {
        let before =
            if now.is_empty() { self.told.remove(&subject) } else { self.told.insert(subject, now.clone()) };
        let mut before: BTreeMap<_, _> =
            before.unwrap_or_default().into_iter().map(|row| (row.key(), row)).collect();
        for row in now {
            match before.remove(&row.key()) {
                None => out.new.push(row),
                Some(old) if old != row => out.changed.push(Changed { row, seen_only: false }),
                Some(_) => {}
            }
        }
        out.gone.extend(before.into_keys());
    }

    fn of_claim(&self, claim: ClaimId, identity: &Identity, fold: &Fold) -> Vec<IssueRow> {
        let verdict = identity.judge.verdict(claim);
        let mut kinds: Vec<(&'static str, &str)> = Vec::new();
        let judged = !verdict.blocked && !verdict.allowed;
        if judged && verdict.generic {
            kinds.push(("generic", "live in too many records to prove anything"));
        } else if judged && verdict.quarantined {
            kinds.push(("quarantined", "asserted by records that name too many different devices"));
        }
        if identity.macs.is_ambiguous(claim) {
            kinds.push(("ambiguous", "devices share it that cannot be one"));
        }
        if identity.blocks.has_conflict(claim) {
            kinds.push(("conflict", "it would join devices that cannot be one; the edge was refused"));
        }
        if kinds.is_empty() {
            return Vec::new();
        }
        let dictionary = self.dictionary.borrow();
        let partition = dictionary.partition(dictionary.claim_entry(claim).scope).clone();
        let (namespace, value) = dictionary.claim_text(claim);
        let live = identity.placer.claimants(claim).iter().filter(|record| {
            fold.record(**record).is_some_and(|record| {
                let index = record.claims.binary_search_by_key(&claim, |span| span.claim);
                index.is_ok_and(|index| record.claims[index].status.is_live())
            })
        });
        let uids = devices(live.copied(), identity);
        kinds
            .into_iter()
            .map(|(kind, detail)| IssueRow {
                partition: partition.clone(),
                kind,
                namespace: namespace.clone(),
                value: value.clone(),
                uids: uids.clone(),
                detail: detail.to_owned(),
            })
            .collect()
    }

    fn of_record(&self, id: RecordId, identity: &Identity, fold: &Fold) -> Vec<IssueRow> {
        let Some(record) = fold.record(id) else {
            return Vec::new();
        };
        let mut kinds: Vec<(&'static str, String)> = Vec::new();
        let bridges = identity.macs.is_left_out(id) || identity.blocks.is_bridging(id);
        if identity.judge.is_bridging(id) {
            kinds.push(("bridging", "names too many values of one exclusive namespace".to_owned()));
        } else if bridges {
            kinds.push(("bridging", "claims MACs of devices that cannot be one".to_owned()));
        }
        if self.oversized.contains(&id) {
            kinds.push(("oversized", "its block is over the cap: MAC-only records join nothing".to_owned()));
        }
        let dictionary = self.dictionary.borrow();
        let quality = record
            .current_attributes()
            .find(|(attribute, _)| &**dictionary.text_of(attribute.name) == "quality");
        if let Some((attribute, _)) = quality {
            kinds.push(("quality", attribute.value.to_string()));
        }
        if kinds.is_empty() {
            return Vec::new();
        }
        let partition = dictionary.partition(dictionary.source_of(id).scope).clone();
        let key = dictionary.record_entry(id).key.clone();
        let uids = devices([id].into_iter(), identity);
        let row = |(kind, detail): (&'static str, String)| IssueRow {
            partition: partition.clone(),
            kind,
            namespace: Arc::from("record"),
            value: key.clone(),
            uids: uids.clone(),
            detail,
        };
        kinds.into_iter().map(row).collect()
    }
}

fn devices(records: impl Iterator<Item = RecordId>, identity: &Identity) -> Vec<Uid> {
    let devices = records.filter_map(|record| identity.placer.placed(record).device);
    let uids: BTreeSet<Uid> = devices.filter_map(|device| identity.placer.uid(device)).collect();
    uids.into_iter().take(ISSUE_UIDS_MAX).collect()
}
