//! Facts: the records as they are, and which records ever had a claim. Kept once, read by all steps.
//!
//! Most claims are made by one record alone: for them nothing more is kept than that record. What the
//! steps after this one know of such a claim follows from the record.

use std::sync::Arc;

use crate::{
    dictionary::{ClaimId, RecordId},
    few::Few,
    record::Record,
    spans::{ClaimSpan, Times},
};

/// Of a claim that no record has. Records are less than `SEVERAL`.
const NOBODY: RecordId = RecordId::MAX;
/// Set of a claim that several records had: the rest is its number among those.
const SEVERAL: u32 = 1 << 31;

/// A claim that several records had, by its number among those. It stays one.
pub type SharedId = u32;

/// The records of a worker.
#[derive(Default)]
pub struct Facts {
    records: Vec<Option<Arc<Record>>>,
    /// By claim: the one record that ever had it, or `NOBODY`, or its number with `SEVERAL`.
    sole: Vec<RecordId>,
    several: Vec<Few>,
}

impl Facts {
    /// A record, as it is.
    pub fn record(&self, record: RecordId) -> Option<&Arc<Record>> {
        self.records.get(record as usize)?.as_ref()
    }

    /// All records.
    pub fn records(&self) -> impl Iterator<Item = &Arc<Record>> {
        self.records.iter().flatten()
    }

    /// The place of a record, to be changed. Who changes its claims tells by `claimed`.
    pub(crate) fn slot(&mut self, record: RecordId) -> &mut Option<Arc<Record>> {
        let index = record as usize;
        if self.records.len() <= index {
            self.records.resize(index + 1, None);
        }
        &mut self.records[index]
    }

    /// A claim of a record.
    pub fn span(&self, record: RecordId, claim: ClaimId) -> Option<&ClaimSpan> {
        self.record(record)?.claim(claim)
    }

    /// When a record asserted a claim.
    pub fn times(&self, record: RecordId, claim: ClaimId) -> Option<Times> {
        let record = self.record(record)?;
        Some(record.times(record.claim(claim)?))
    }

    /// The records that ever had a claim, sorted.
    pub fn claimants(&self, claim: ClaimId) -> &[RecordId] {
        match self.sole.get(claim as usize) {
            None | Some(&NOBODY) => &[],
            Some(one) if one & SEVERAL != 0 => &self.several[(one & !SEVERAL) as usize],
            Some(record) => std::slice::from_ref(record),
        }
    }

    /// Whether several records ever had a claim.
    pub fn is_shared(&self, claim: ClaimId) -> bool {
        self.shared(claim).is_some()
    }

    /// The number of a claim that several records had.
    pub fn shared(&self, claim: ClaimId) -> Option<SharedId> {
        let one = *self.sole.get(claim as usize)?;
        (one != NOBODY && one & SEVERAL != 0).then_some(one & !SEVERAL)
    }

    /// Takes in which claims a record has: `before` of it, and those it has now.
    pub(crate) fn claimed(&mut self, before: Option<&Record>, after: &Record) {
        let old = before.map_or(&[][..], |record| &record.claims);
        if std::ptr::eq(old, &*after.claims) {
            return;
        }
        let lacks = |spans: &[ClaimSpan], claim| spans.binary_search_by_key(&claim, |s| s.claim).is_err();
        for span in after.claims.iter().filter(|span| lacks(old, span.claim)) {
            self.add(span.claim, after.id);
        }
        // Only the private claim of a detached record ever goes.
        for span in old.iter().filter(|span| lacks(&after.claims, span.claim)) {
            self.remove(span.claim, after.id);
        }
    }

    fn add(&mut self, claim: ClaimId, record: RecordId) {
        let index = claim as usize;
        if self.sole.len() <= index {
            self.sole.resize(index + 1, NOBODY);
        }
        let several = match self.sole[index] {
            NOBODY => {
                self.sole[index] = record;
                return;
            }
            one if one == record => return,
            one if one & SEVERAL != 0 => &mut self.several[(one & !SEVERAL) as usize],
            one => {
                self.sole[index] = self.several.len() as SharedId | SEVERAL;
                self.several.push(Few::from(&[one.min(record), one.max(record)][..]));
                return;
            }
        };
        several.insert_sorted(record);
    }

    fn remove(&mut self, claim: ClaimId, record: RecordId) {
        let Some(sole) = self.sole.get_mut(claim as usize) else {
            return;
        };
        if *sole == record {
            *sole = NOBODY;
        } else if *sole != NOBODY && *sole & SEVERAL != 0 {
            self.several[(*sole & !SEVERAL) as usize].remove_sorted(record);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claimants_are_all_that_ever_had_a_claim() {
        let mut facts = Facts::default();
        assert!(facts.claimants(7).is_empty());
        facts.add(7, 3);
        facts.add(7, 3);
        assert_eq!((facts.claimants(7), facts.is_shared(7)), (&[3][..], false));
        facts.add(7, 1);
        facts.add(7, 3);
        assert_eq!((facts.claimants(7), facts.is_shared(7)), (&[1, 3][..], true));
        assert!(facts.claimants(6).is_empty());
        facts.remove(7, 3);
        assert_eq!(facts.claimants(7), [1]);
        facts.add(0, 9);
        facts.remove(0, 9);
        assert!(facts.claimants(0).is_empty());
    }
}
