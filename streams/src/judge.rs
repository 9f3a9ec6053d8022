//! Judge: which claims of which records may link, each claim and record by what touches it alone.
//! Source: `identity.md`, "From evidence to devices", 1.

use std::{cell::RefCell, collections::BTreeSet, rc::Rc, sync::Arc};

use hashbrown::{HashMap, HashSet};

use crate::{
    claim::Namespace,
    decisions::{Effect, Scoped},
    dictionary::{ClaimId, Dictionary, RecordId},
    fold::RecordChange,
    normalise::native_claim,
    record::{Record, Status},
    rows::RecordRow,
    rules::Caps,
};

/// A claim that links its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link {
    /// The record.
    pub record: RecordId,
    /// Its claim.
    pub claim: ClaimId,
    /// Whether the record asserts it currently; else it is lapsed.
    pub current: bool,
    /// Whether an operator allowed the claim.
    pub allowed: bool,
}

/// What a claim may do, whoever makes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// An operator allowed it: no cap and no ambiguity counts.
    pub allowed: bool,
    /// An operator blocked it.
    pub blocked: bool,
    /// Claimed by too many.
    pub generic: bool,
    /// Claimed by records that name too many others.
    pub quarantined: bool,
}

impl Verdict {
    /// Whether it may link.
    pub fn is_usable(self) -> bool {
        !self.blocked && (self.allowed || !(self.generic || self.quarantined))
    }
}

/// What the judge changed in an epoch.
#[derive(Default)]
pub struct Judgements {
    /// Links that came (+1) and went (-1).
    pub links: Vec<(Link, isize)>,
    /// Claims whose verdict changed.
    pub verdicts: Vec<ClaimId>,
    /// Records that became, or ceased to be, bridging by their own claims.
    pub bridging: Vec<RecordId>,
    /// Edges between the claims of `link` decisions that came and went.
    pub ties: Vec<((ClaimId, ClaimId), isize)>,
}

#[derive(Default)]
struct ClaimState {
    /// As last judged.
    verdict: Verdict,
    /// An operator's word, judged at the end of the epoch: allowed, blocked.
    decided: (bool, bool),
    /// Records in which it is live, sorted.
    holders: Vec<RecordId>,
}

#[derive(Default)]
struct RecordState {
    links: Vec<Link>,
    /// Exclusive namespaces of which it asserts too many values.
    bridging: Vec<u32>,
}

/// The state of the judge.
pub struct Judge {
    dictionary: Rc<RefCell<Dictionary>>,
    caps: Caps,
    records: HashMap<RecordId, Arc<Record>>,
    states: HashMap<RecordId, RecordState>,
    claims: HashMap<ClaimId, ClaimState>,
    ties: BTreeSet<(ClaimId, ClaimId)>,
    tied: BTreeSet<(ClaimId, ClaimId)>,
}

/// Whether a claim is of those that may link at all: tier 1, or a MAC.
fn may_link(dictionary: &Dictionary, claim: ClaimId) -> bool {
    dictionary.claim_entry(claim).kind != Namespace::Other
}

impl Judge {
    /// Empty.
    pub fn new(dictionary: Rc<RefCell<Dictionary>>, caps: Caps) -> Self {
        Self {
            dictionary,
            caps,
            records: HashMap::new(),
            states: HashMap::new(),
            claims: HashMap::new(),
            ties: BTreeSet::new(),
            tied: BTreeSet::new(),
        }
    }

    /// The verdict on a claim.
    pub fn verdict(&self, claim: ClaimId) -> Verdict {
        self.claims.get(&claim).map(|state| state.verdict).unwrap_or_default()
    }

    /// A record that a claim links; all that it does are in one core.
    pub fn linked(&self, claim: ClaimId) -> Option<RecordId> {
        let holders = &self.claims.get(&claim)?.holders;
        holders.iter().copied().find(|holder| self.is_linked(*holder, claim))
    }

    /// Whether a claim links a record.
    pub fn is_linked(&self, record: RecordId, claim: ClaimId) -> bool {
        self.states.get(&record).is_some_and(|state| state.links.iter().any(|link| link.claim == claim))
    }

    /// The tier of a claim; an allowed local MAC is tier 2.
    pub fn tier(&self, claim: ClaimId) -> u8 {
        let dictionary = self.dictionary.borrow();
        let entry = dictionary.claim_entry(claim);
        if entry.kind == Namespace::Mac && self.verdict(claim).allowed { 2 } else { entry.tier() }
    }

    /// Whether a record asserts too many values of the namespace of this claim.
    pub fn is_bridging(&self, record: RecordId) -> bool {
        self.states.get(&record).is_some_and(|state| !state.bridging.is_empty())
    }

    /// Whether a claim of a record is one of too many.
    pub fn is_bridged(&self, record: RecordId, claim: ClaimId) -> bool {
        let namespace = self.dictionary.borrow().claim_entry(claim).namespace;
        self.states.get(&record).is_some_and(|state| state.bridging.contains(&namespace))
    }

    /// Judges anew what an epoch touched.
    pub fn judge(&mut self, changes: &[RecordChange], effects: &[(Scoped, isize)]) -> Judgements {
        let mut out = Judgements::default();
        let mut dirty_claims: HashSet<ClaimId> = HashSet::new();
        let mut dirty_records: HashSet<RecordId> = HashSet::new();
        for (effect, diff) in effects {
            self.decide(effect, *diff, &mut dirty_claims);
        }
        for (before, after) in changes {
            self.index(before.as_deref(), after, &mut dirty_claims, &mut dirty_records);
        }
        for claim in dirty_claims.drain() {
            self.rejudge(claim, &mut dirty_records, &mut out);
        }
        let mut dirty: Vec<RecordId> = dirty_records.into_iter().collect();
        dirty.sort_unstable();
        for record in dirty {
            self.relink(record, &mut out);
        }
        self.retie(&mut out);
        out.verdicts.sort_unstable();
        out
    }

    fn decide(&mut self, (partition, effect): &Scoped, diff: isize, dirty: &mut HashSet<ClaimId>) {
        let mut dictionary = self.dictionary.borrow_mut();
        let scope = dictionary.scope(partition);
        match effect {
            Effect::Block(claim) | Effect::Allow(claim) => {
                let id = dictionary.claim(scope, claim);
                let decided = &mut self.claims.entry(id).or_default().decided;
                match effect {
                    Effect::Block(_) => decided.1 = diff > 0,
                    _ => decided.0 = diff > 0,
                }
                dirty.insert(id);
            }
            Effect::Link(a, b) => {
                let (a, b) = (dictionary.claim(scope, a), dictionary.claim(scope, b));
                if diff > 0 {
                    self.ties.insert((a.min(b), a.max(b)));
                } else {
                    self.ties.remove(&(a.min(b), a.max(b)));
                }
            }
            _ => {}
        }
    }

    /// Notes what a record claims, and what that may change.
    fn index(
        &mut self,
        before: Option<&Record>,
        after: &Arc<Record>,
        dirty_claims: &mut HashSet<ClaimId>,
        dirty_records: &mut HashSet<RecordId>,
    ) {
        let same = before.is_some_and(|before| {
            Arc::ptr_eq(&before.claims, &after.claims) && before.now.detached == after.now.detached
        });
        self.records.insert(after.id, after.clone());
        if same {
            return;
        }
        dirty_records.insert(after.id);
        let dictionary = self.dictionary.borrow();
        let old = before.map(|before| live(before, &dictionary)).unwrap_or_default();
        let new = live(after, &dictionary);
        let exclusive = |list: &[(ClaimId, bool)]| -> Vec<ClaimId> {
            let current = list.iter().filter(|(_, current)| *current).map(|(claim, _)| *claim);
            current.filter(|claim| dictionary.claim_entry(*claim).kind.is_exclusive()).collect()
        };
        // What a record names decides on each claim that it makes.
        let renamed = exclusive(&old) != exclusive(&new);
        for (list, other, came) in [(&old, &new, false), (&new, &old, true)] {
            for entry in list {
                let is_there = other.binary_search_by_key(&entry.0, |(claim, _)| *claim);
                if is_there.is_err() {
                    let holders = &mut self.claims.entry(entry.0).or_default().holders;
                    match (holders.binary_search(&after.id), came) {
                        (Err(index), true) => holders.insert(index, after.id),
                        (Ok(index), false) => {
                            holders.remove(index);
                        }
                        _ => {}
                    }
                }
                if renamed || is_there.map_or(true, |index| other[index] != *entry) {
                    dirty_claims.insert(entry.0);
                }
            }
        }
    }

    fn rejudge(&mut self, claim: ClaimId, dirty: &mut HashSet<RecordId>, out: &mut Judgements) {
        let Some(state) = self.claims.get(&claim) else {
            return;
        };
        let dictionary = self.dictionary.borrow();
        let verdict = Verdict {
            allowed: state.decided.0,
            blocked: state.decided.1,
            generic: self.is_generic(claim, &state.holders, &dictionary),
            quarantined: self.is_quarantined(claim, &state.holders, &dictionary),
        };
        drop(dictionary);
        if let Some(state) = self.claims.get_mut(&claim)
            && state.verdict != verdict
        {
            dirty.extend(state.holders.iter().copied());
            out.verdicts.push(claim);
            state.verdict = verdict;
        }
    }

    fn is_current(&self, record: RecordId, claim: ClaimId) -> bool {
        self.records.get(&record).is_some_and(|record| {
            let index = record.claims.binary_search_by_key(&claim, |span| span.claim);
            index.is_ok_and(|index| record.claims[index].status == Status::Current)
        })
    }

    fn is_generic(&self, claim: ClaimId, holders: &[RecordId], dictionary: &Dictionary) -> bool {
        // What never links proves nothing, however few share it.
        if dictionary.claim_entry(claim).tier() == 3 {
            return false;
        }
        if holders.len() > self.caps.spread {
            return true;
        }
        if holders.len() <= self.caps.spread_of_a_source {
            return false;
        }
        let mut per_source: HashMap<u32, usize> = HashMap::new();
        for holder in holders.iter().filter(|holder| self.is_current(**holder, claim)) {
            *per_source.entry(dictionary.record_entry(*holder).source).or_default() += 1;
        }
        per_source.values().any(|count| *count > self.caps.spread_of_a_source)
    }

    fn is_quarantined(&self, claim: ClaimId, holders: &[RecordId], dictionary: &Dictionary) -> bool {
        let entry = dictionary.claim_entry(claim);
        // The private claim of a detached record links, whatever else the record says.
        if !entry.kind.is_tier_1() || entry.kind == Namespace::Detached {
            return false;
        }
        let mut values: HashMap<u32, HashSet<ClaimId>> = HashMap::new();
        for holder in holders.iter().filter(|holder| self.is_current(**holder, claim)) {
            let Some(record) = self.records.get(holder) else {
                continue;
            };
            for span in record.claims.iter().filter(|span| span.status == Status::Current) {
                let other = dictionary.claim_entry(span.claim);
                if other.kind.is_exclusive() && other.namespace != entry.namespace {
                    let values = values.entry(other.namespace).or_default();
                    values.insert(span.claim);
                    if values.len() > self.caps.exclusive_values {
                        return true;
                    }
                }
            }
        }
        false
    }

    /// Works out anew the links of a record.
    fn relink(&mut self, id: RecordId, out: &mut Judgements) {
        let Some(record) = self.records.get(&id).cloned() else {
            return;
        };
        let mut dictionary = self.dictionary.borrow_mut();
        let bridging = bridging(&record, &dictionary, self.caps.exclusive_values);
        let own = if bridging.is_empty() {
            None
        } else {
            let entry = dictionary.source_of(id);
            let (scope, source) = (entry.scope, entry.source.clone());
            let key = dictionary.record_entry(id).key.clone();
            let native = RecordRow::split(&key).and_then(|(_, _, native)| native_claim(&source, native));
            native.map(|claim| dictionary.claim(scope, &claim))
        };
        let links: Vec<Link> = live(&record, &dictionary)
            .into_iter()
            .filter(|(claim, _)| {
                let entry = dictionary.claim_entry(*claim);
                let verdict = self.claims.get(claim).map(|state| state.verdict).unwrap_or_default();
                let linkable = entry.kind != Namespace::Mac || entry.tier() == 2 || verdict.allowed;
                let counts = verdict.allowed || own == Some(*claim) || !bridging.contains(&entry.namespace);
                linkable && counts && verdict.is_usable()
            })
            .map(|(claim, current)| {
                let allowed = self.claims.get(&claim).is_some_and(|state| state.verdict.allowed);
                Link { record: id, claim, current, allowed }
            })
            .collect();
        let state = self.states.entry(id).or_default();
        for (list, other, diff) in [(&state.links, &links, -1), (&links, &state.links, 1)] {
            let gone = list.iter().filter(|link| other.binary_search(link).is_err());
            out.links.extend(gone.map(|link| (*link, diff)));
        }
        if state.bridging.is_empty() != bridging.is_empty() {
            out.bridging.push(id);
        }
        state.links = links;
        state.bridging = bridging;
    }

    /// A `link` decision ties two claims while both are live and usable.
    fn retie(&mut self, out: &mut Judgements) {
        let stands = |claim: &ClaimId| {
            self.claims.get(claim).is_some_and(|state| {
                state.holders.iter().any(|holder| {
                    self.states
                        .get(holder)
                        .is_some_and(|state| state.links.iter().any(|link| link.claim == *claim))
                })
            })
        };
        let tied: BTreeSet<_> = self.ties.iter().filter(|(a, b)| stands(a) && stands(b)).copied().collect();
        out.ties.extend(self.tied.difference(&tied).map(|tie| (*tie, -1)));
        out.ties.extend(tied.difference(&self.tied).map(|tie| (*tie, 1)));
        self.tied = tied;
    }
}

/// The claims of a record that are live and may link at all, with whether they are current; of a
/// detached record its private one alone.
fn live(record: &Record, dictionary: &Dictionary) -> Vec<(ClaimId, bool)> {
    let claims = record.claims.iter().filter(|span| {
        let kind = dictionary.claim_entry(span.claim).kind;
        span.status.is_live()
            && may_link(dictionary, span.claim)
            && (kind == Namespace::Detached) == record.now.detached
    });
    claims.map(|span| (span.claim, span.status == Status::Current)).collect()
}

/// The exclusive namespaces of which a record currently asserts more values than a device has.
fn bridging(record: &Record, dictionary: &Dictionary, cap: usize) -> Vec<u32> {
    if record.now.detached {
        return Vec::new();
    }
    let mut counts: Vec<(u32, usize)> = Vec::new();
    for span in record.claims.iter().filter(|span| span.status == Status::Current) {
        let entry = dictionary.claim_entry(span.claim);
        if entry.kind.is_exclusive() {
            match counts.iter_mut().find(|(namespace, _)| *namespace == entry.namespace) {
                Some((_, count)) => *count += 1,
                None => counts.push((entry.namespace, 1)),
            }
        }
    }
    counts.into_iter().filter(|(_, count)| *count > cap).map(|(namespace, _)| namespace).collect()
}
