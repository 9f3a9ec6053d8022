//! Merges and splits: where the records of devices came from and went to.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use super::{Describer, Moved};
use crate::{
    claim::Namespace,
    dictionary::{Dictionary, RecordId},
    facts::Facts,
    rows::{EpochOutput, EvidenceState, MergeRow, Placement, Uid},
};

/// Most records named in a row of `device_merges`.
const MERGE_RECORDS_MAX: usize = 100;
/// Of a cause in a row of history: the first few say enough.
const CAUSES_MAX: usize = 4;

impl Describer {
    /// A merge where the device that records came from is no more, else a split.
    pub(super) fn describe_merges(&self, facts: &Facts, moved: &Moved, out: &mut EpochOutput) {
        let dictionary = self.dictionary.borrow();
        let gone: HashSet<&str> = out.devices.gone.iter().map(String::as_str).collect();
        for ((from, to), records) in moved {
            let mut keys: Vec<Arc<str>> =
                records.iter().map(|record| dictionary.key(*record).into()).collect();
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
        let told = |record: &RecordId| Some((facts.record(*record)?, self.records[*record].as_ref()?));
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
            dictionary.claim_uid(*claim) == to || dictionary.class_of(*claim).kind != Namespace::Other
        });
        match shared
            .min_by_key(|claim| (dictionary.claim_uid(*claim) != to, dictionary.class_of(*claim).tier))
        {
            Some(claim) => {
                let (namespace, value) = dictionary.claim_text(claim);
                let rule = if dictionary.class_of(claim).tier == 1 { "claim" } else { "mac" };
                (rule, Some(format!("{namespace}:{value}")))
            }
            None => ("claim", None),
        }
    }
}

/// Where the records of devices came from and went to, in words, per uid.
pub(super) fn causes(moved: &Moved) -> HashMap<Uid, Vec<String>> {
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
