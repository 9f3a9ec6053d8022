//! Issues: what the rules refused or flagged, each once.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
};

use crate::{
    changes::{Changes, Row},
    dictionary::{ClaimId, Dictionary, NameId, RecordId},
    facts::Facts,
    fold::RecordChange,
    identity::{Identity, IdentityChanges},
    rows::{IssueRow, Uid},
    sort_unique,
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
    /// The attribute that says what was refused of a record's claims.
    quality: NameId,
    told: BTreeMap<Subject, Vec<IssueRow>>,
    oversized: BTreeSet<RecordId>,
}

impl Issues {
    /// Empty.
    pub fn new(dictionary: Rc<RefCell<Dictionary>>) -> Self {
        let quality = dictionary.borrow_mut().text("quality");
        Self { dictionary, quality, told: BTreeMap::new(), oversized: BTreeSet::new() }
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
        facts: &Facts,
        changed: &IdentityChanges,
        changes: &[RecordChange],
    ) -> Changes<IssueRow> {
        // Of a record that says what it said, nothing is told anew but what `changed` names.
        let says_else = |(before, after): &&RecordChange| {
            before.as_ref().is_none_or(|before| !after.is_seen_again(before))
        };
        let mut records: Vec<RecordId> =
            changes.iter().filter(says_else).map(|(_, after)| after.id).collect();
        // An issue names the devices of its claimants: where one moved or claims other things, it is told anew.
        let members = changed.places.devices.iter().filter_map(|device| identity.placer.members(*device));
        let mut claimants: Vec<RecordId> =
            members.flat_map(|members| members.records.iter().copied()).collect();
        claimants.extend(changed.places.records.iter().chain(&records));
        sort_unique(&mut claimants);
        let mut subjects: Vec<Subject> = changed.claims.iter().map(|claim| Subject::Claim(*claim)).collect();
        let told = |subject: &Subject| self.told.contains_key(subject);
        if !self.told.is_empty() {
            for record in claimants.iter().filter_map(|record| facts.record(*record)) {
                let claims = record.claims.iter().map(|span| Subject::Claim(span.claim));
                subjects.extend(claims.chain([Subject::Record(record.id)]).filter(told));
            }
        }
        records.extend(&changed.evidence);
        let oversized = identity.blocks.oversized().clone();
        records.extend(oversized.symmetric_difference(&self.oversized));
        self.oversized = oversized;
        subjects.extend(records.into_iter().map(Subject::Record));
        sort_unique(&mut subjects);
        let mut out = Changes::default();
        for subject in subjects {
            let now = match subject {
                Subject::Claim(claim) => self.of_claim(claim, identity, facts),
                Subject::Record(record) => self.of_record(record, identity, facts),
            };
            if !now.is_empty() || self.told.contains_key(&subject) {
                self.tell(subject, now, &mut out);
            }
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
                Some(old) if old != row => out.changed.push(row),
                Some(_) => {}
            }
        }
        out.gone.extend(before.into_keys());
    }

    fn of_claim(&self, claim: ClaimId, identity: &Identity, facts: &Facts) -> Vec<IssueRow> {
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
        let partition = dictionary.partition(dictionary.class_of(claim).scope).clone();
        let (namespace, value) = dictionary.claim_text(claim);
        let live = facts
            .claimants(claim)
            .iter()
            .filter(|record| facts.span(**record, claim).is_some_and(|span| span.status.is_live()));
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

    fn of_record(&self, id: RecordId, identity: &Identity, facts: &Facts) -> Vec<IssueRow> {
        let Some(record) = facts.record(id) else {
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
        let quality = record.current_attributes().find(|(attribute, _)| attribute.name == self.quality);
        if let Some((attribute, _)) = quality {
            kinds.push(("quality", attribute.value.to_string()));
        }
        if kinds.is_empty() {
            return Vec::new();
        }
        let partition = dictionary.partition(dictionary.source_of(id).scope).clone();
        let key = Arc::<str>::from(dictionary.key(id));
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
