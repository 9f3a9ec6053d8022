//! Paths of evidence: how the records of a device hang together.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::Arc,
};

use serde::Serialize;

use super::{ClaimText, Known, claim_text, effects, text_of, tier};
use crate::{
    decisions::Effect,
    rows::{EvidenceRow, EvidenceState, Placement},
};

/// A step of a path: a record that hangs on another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The record.
    pub record_key: Arc<str>,
    /// The record it hangs on.
    pub with: Arc<str>,
    /// The claim of this record by which it does.
    pub by: ClaimText,
    /// The other record's claim, where an operator linked the two; else the same.
    pub to: ClaimText,
    /// Whether both make it now; else one of them did until lately.
    pub current: bool,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { with, by, to, current, .. } = self;
        match (by == to, current) {
            (false, _) => write!(f, "an operator linked its {by} with {to} of {with}"),
            (true, true) => write!(f, "has {by} in common with {with}"),
            (true, false) => write!(f, "has, or had until lately, {by} in common with {with}"),
        }
    }
}

/// Which records share what.
pub(super) struct Graph<'a> {
    /// Per record, its claims that may link: tier, whether it is current, claim.
    claims: BTreeMap<&'a Arc<str>, Vec<(u8, bool, ClaimText)>>,
    /// Per claim, the records that make it, and whether currently.
    records: BTreeMap<ClaimText, Vec<(&'a Arc<str>, bool)>>,
    /// Claims that an operator linked, both ways.
    linked: BTreeMap<ClaimText, Vec<ClaimText>>,
}

impl<'a> Graph<'a> {
    pub(super) fn of(known: &'a Known) -> Self {
        let mut linked: BTreeMap<ClaimText, Vec<ClaimText>> = BTreeMap::new();
        let mut allowed = Vec::new();
        for (_, effect) in effects(known) {
            match effect {
                Effect::Link(one, other) => {
                    let (one, other) = (claim_text(&one), claim_text(&other));
                    linked.entry(one.clone()).or_default().push(other.clone());
                    linked.entry(other).or_default().push(one);
                }
                Effect::Allow(claim) => allowed.push(claim_text(&claim)),
                _ => {}
            }
        }
        let anchored = known.records.iter().filter(|record| record.placement == Placement::Anchored);
        let mut claims: BTreeMap<&Arc<str>, Vec<(u8, bool, ClaimText)>> =
            anchored.map(|record| (&record.record_key, Vec::new())).collect();
        let mut records: BTreeMap<ClaimText, Vec<(&Arc<str>, bool)>> = BTreeMap::new();
        let links = |row: &&EvidenceRow| {
            row.ip.is_none() && matches!(row.state, EvidenceState::Linking | EvidenceState::Lapsed)
        };
        for row in known.evidence.iter().filter(links) {
            let Some(own) = claims.get_mut(&row.record_key) else { continue };
            let (claim, current) = (text_of(row), row.state == EvidenceState::Linking);
            let tier = tier(row, allowed.contains(&claim));
            // What corroborates links nothing, lapsed or not.
            if tier < 3 {
                own.push((tier, !current, claim.clone()));
                records.entry(claim).or_default().push((&row.record_key, current));
            }
        }
        for own in claims.values_mut() {
            own.sort_unstable();
        }
        Self { claims, records, linked }
    }

    /// How each record that hangs together with `root` does, by the shortest path: over what is current where there is
    /// such a one. The root itself hangs on none.
    pub(super) fn from(&self, root: &str) -> BTreeMap<&'a str, Option<Step>> {
        let Some((root, _)) = self.claims.iter().find(|(key, _)| ****key == *root) else {
            return BTreeMap::new();
        };
        let mut reached: BTreeMap<&str, Option<Step>> = BTreeMap::from([(&***root, None)]);
        // What no longer holds counts only for those that nothing current reaches.
        for current_only in [true, false] {
            let mut queue: VecDeque<&Arc<str>> =
                self.claims.keys().copied().filter(|key| reached.contains_key(&***key)).collect();
            while let Some(with) = queue.pop_front() {
                for (_, is_lapsed, to) in self.claims.get(with).into_iter().flatten() {
                    let linked = self.linked.get(to).into_iter().flatten();
                    for by in [to].into_iter().chain(linked) {
                        for (record, holds) in self.records.get(by).into_iter().flatten() {
                            let current = !is_lapsed && *holds;
                            if (current_only && !current) || reached.contains_key(&***record) {
                                continue;
                            }
                            let (record_key, with) = (Arc::clone(record), Arc::clone(with));
                            let step = Step { record_key, with, by: by.clone(), to: to.clone(), current };
                            reached.insert(record, Some(step));
                            queue.push_back(record);
                        }
                    }
                }
            }
        }
        reached
    }

    /// The path from one record to another, step by step; none where they do not hang together.
    pub(super) fn between(&self, from: &str, to: &str) -> Option<Vec<Step>> {
        let steps = self.from(from);
        let mut path = Vec::new();
        let mut at = to;
        while at != from {
            let step = steps.get(at)?.as_ref()?;
            at = steps.get_key_value(&*step.with)?.0;
            path.push(step.clone());
        }
        path.reverse();
        Some(path)
    }
}
