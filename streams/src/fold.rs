//! Fold: from events to records. The state is minima and maxima alone, whatever comes late.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
};

use hashbrown::HashMap;
use serviceradar_schemas::{Action, Source, time::MINUTE};

use crate::{
    decisions::{Effect, Scoped},
    dictionary::{ClaimId, Dictionary, RecordId, ScopeId, SourceId},
    facts::Facts,
    normalise::Sighting,
    paged::Paged,
    record::Record,
    recurring::Recurring,
    restore::{Piece, Restoring},
    rows::WatermarkRow,
    rules::Rules,
};

/// A record as it was and as it is; it was not there where `before` is absent.
pub type RecordChange = (Option<Arc<Record>>, Arc<Record>);

/// The state of the fold.
pub struct Fold {
    dictionary: Rc<RefCell<Dictionary>>,
    rules: Arc<Rules>,
    facts: Facts,
    values: Recurring<str>,
    restoring: Restoring,
    /// Per record, the watermark at which it is due again.
    due: Vec<i64>,
    /// Per scope, the records due at a watermark.
    timers: Vec<BTreeMap<i64, Vec<RecordId>>>,
    /// Per scope, the greatest event time.
    watermarks: Vec<Option<i64>>,
    /// The greatest TICK.
    tick: Option<i64>,
    /// Begins of accepted fetches.
    accepted: HashMap<SourceId, BTreeSet<i64>>,
    detached: HashMap<RecordId, ClaimId>,
    /// What this epoch has touched, each once: the record as it was before.
    touched: Vec<(RecordId, Option<Arc<Record>>)>,
    is_touched: Paged<bool>,
    moved: BTreeSet<Option<ScopeId>>,
    /// The key of the record that is looked up, kept for its room.
    key: String,
    /// Watermarks that the views have a row of.
    told: BTreeSet<Option<ScopeId>>,
}

/// The claims of a sighting, sorted. Mostly they are those that its record has, one after the other.
fn claims_of(
    sighting: &Sighting,
    record: &Record,
    scope: ScopeId,
    dictionary: &mut Dictionary,
) -> Vec<ClaimId> {
    let mut claims: Vec<ClaimId> = Vec::with_capacity(sighting.claims.len());
    let mut next = 0;
    for key in &sighting.claims {
        let expected = record.claims.get(next).map(|span| span.claim);
        match expected.filter(|claim| dictionary.is_claim(*claim, scope, key)) {
            Some(claim) => {
                claims.push(claim);
                next += 1;
            }
            None => {
                let claim = dictionary.claim(scope, key);
                claims.push(claim);
                let at = record.claims.binary_search_by_key(&claim, |span| span.claim);
                next = at.map_or(next, |at| at + 1);
            }
        }
    }
    claims.sort_unstable();
    claims
}

impl Fold {
    /// Empty.
    pub fn new(dictionary: Rc<RefCell<Dictionary>>, rules: Arc<Rules>) -> Self {
        Self {
            dictionary,
            rules,
            facts: Facts::default(),
            values: Recurring::default(),
            restoring: Restoring::default(),
            due: Vec::new(),
            timers: Vec::new(),
            watermarks: Vec::new(),
            tick: None,
            accepted: HashMap::new(),
            detached: HashMap::new(),
            touched: Vec::new(),
            is_touched: Paged::new(false),
            moved: BTreeSet::new(),
            key: String::new(),
            told: BTreeSet::new(),
        }
    }

    /// The records, as they are.
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The rounded watermark of a scope: the greatest of its event times and the tenant's TICKs, down to
    /// a minute.
    fn watermark(&self, scope: ScopeId) -> i64 {
        let own = self.watermarks.get(scope as usize).copied().flatten();
        own.max(self.tick).map_or(i64::MIN, |at| at.div_euclid(MINUTE) * MINUTE)
    }

    fn observe(&mut self, scope: ScopeId, at: i64) {
        let index = scope as usize;
        if self.watermarks.len() <= index {
            self.watermarks.resize(index + 1, None);
            self.timers.resize_with(index + 1, BTreeMap::new);
        }
        if self.watermarks[index] < Some(at) {
            self.watermarks[index] = Some(at);
            self.moved.insert(Some(scope));
        }
    }

    /// Takes in an event. Returns the record that it asserts or ends.
    pub fn take(&mut self, sighting: &Sighting) -> Option<RecordId> {
        if sighting.action == Action::Tick {
            if self.tick < Some(sighting.event_time) {
                self.tick = Some(sighting.event_time);
                self.moved.insert(None);
            }
            return None;
        }
        let dictionary = self.dictionary.clone();
        let mut dictionary = dictionary.borrow_mut();
        let scope = dictionary.scope(&sighting.partition);
        self.observe(scope, sighting.event_time);
        if !matches!(sighting.action, Action::Assert | Action::End) {
            return None;
        }
        let Source { kind, instance } = &sighting.source;
        self.key.clear();
        for text in [&sighting.partition, "/", kind, "/", instance, "/", &sighting.native_key] {
            self.key.push_str(text);
        }
        let id = dictionary.record(scope, &sighting.source, &self.key);
        self.touch(id);
        let source = dictionary.source_id(id);
        let record = self.facts.slot(id).get_or_insert_with(|| Arc::new(Record::new(id, source)));
        let record = Arc::make_mut(record);
        if sighting.action == Action::End {
            record.end(sighting.order);
            return Some(id);
        }
        let claims = claims_of(sighting, record, scope, &mut dictionary);
        record.assert(sighting, &claims, &mut dictionary, &mut self.values);
        Some(id)
    }

    /// Takes in the effect of a decision that came (+1) or went (-1).
    pub fn decide(&mut self, (partition, effect): &Scoped, diff: isize) {
        let dictionary = self.dictionary.clone();
        let mut dictionary = dictionary.borrow_mut();
        let scope = dictionary.scope(partition);
        match effect {
            Effect::AcceptSnapshot(source, begin, _) => {
                let source = dictionary.source(scope, source);
                let begins = self.accepted.entry(source).or_default();
                let before = begins.last().copied();
                if diff > 0 {
                    begins.insert(*begin);
                } else {
                    begins.remove(begin);
                }
                let now = begins.last().copied();
                let (from, to) = (before.min(now), before.max(now));
                for record in &dictionary.source_entry(source).records {
                    if self.facts.record(*record).is_some_and(|record| record.heeds(from, to)) {
                        self.touch(*record);
                    }
                }
            }
            Effect::Detach(key) => {
                let Some((_, source, _)) = crate::rows::RecordRow::split(key) else {
                    return;
                };
                let record = dictionary.record(scope, &source, key);
                if diff > 0 {
                    let claim = dictionary.detached_claim(record);
                    self.detached.insert(record, claim);
                } else {
                    self.detached.remove(&record);
                }
                self.touch(record);
            }
            _ => {}
        }
    }

    fn touch(&mut self, record: RecordId) {
        if !std::mem::replace(&mut self.is_touched[record], true) {
            self.touched.push((record, self.facts.record(record).cloned()));
        }
    }

    /// Closes the epoch: what changed, each record once, in the order of their labels.
    pub fn settle(&mut self) -> Vec<RecordChange> {
        let dictionary = self.dictionary.clone();
        let dictionary = dictionary.borrow();
        self.ring(&dictionary);
        let mut touched = std::mem::take(&mut self.touched);
        touched.sort_unstable_by_key(|(record, _)| *record);
        let mut changes = Vec::with_capacity(touched.len());
        for (id, before) in touched {
            self.is_touched[id] = false;
            let Some(record) = self.facts.slot(id) else {
                continue;
            };
            let scope = dictionary.source_entry(record.source).scope;
            let own = self.watermarks.get(scope as usize).copied().flatten();
            let watermark = own.max(self.tick).map_or(i64::MIN, |at| at.div_euclid(MINUTE) * MINUTE);
            let accepted = self.accepted.get(&record.source).and_then(|begins| begins.last().copied());
            let detached = self.detached.get(&id).copied();
            let settled = Arc::make_mut(record);
            if detached.is_none() && settled.now().detached {
                let own = |claim| dictionary.class_of(claim).kind == crate::claim::Namespace::Detached;
                settled.claims = settled.claims.iter().filter(|span| !own(span.claim)).cloned().collect();
            }
            let next = settled.settle(watermark, accepted, detached, &self.rules.windows, &dictionary);
            let after = record.clone();
            let index = id as usize;
            if self.due.len() <= index {
                self.due.resize(index + 1, i64::MAX);
            }
            if next < self.due[index] {
                self.due[index] = next;
                self.timers[scope as usize].entry(next).or_default().push(id);
            }
            if before.as_deref() != Some(&*after) {
                self.facts.claimed(before.as_deref(), &after);
                changes.push((before, after));
            }
        }
        changes
    }

    /// Touches every record that is due at its scope's watermark.
    fn ring(&mut self, dictionary: &Dictionary) {
        self.timers.resize_with(dictionary.scopes().max(self.timers.len()), BTreeMap::new);
        self.watermarks.resize(dictionary.scopes().max(self.watermarks.len()), None);
        for scope in 0..self.timers.len() {
            let watermark = self.watermark(scope as ScopeId);
            while let Some(entry) = self.timers[scope].first_entry() {
                if *entry.key() > watermark {
                    break;
                }
                let (at, records) = entry.remove_entry();
                for record in records {
                    if let Some(due) = self.due.get_mut(record as usize).filter(|due| **due == at) {
                        *due = i64::MAX;
                        self.touch(record);
                    }
                }
            }
        }
    }

    /// The watermarks that moved since the last call, each with whether it is new.
    pub fn moved(&mut self) -> Vec<(WatermarkRow, bool)> {
        let dictionary = self.dictionary.borrow();
        let moved = std::mem::take(&mut self.moved);
        let mut rows = Vec::with_capacity(moved.len());
        for scope in moved {
            let partition = scope.map(|scope| dictionary.partition(scope).clone());
            let at = match scope {
                None => self.tick,
                Some(scope) => self.watermarks.get(scope as usize).copied().flatten(),
            };
            if let Some(at) = at {
                rows.push((WatermarkRow { partition, at }, self.told.insert(scope)));
            }
        }
        rows
    }

    /// The tenant's last TICK.
    pub fn tick(&self) -> Option<i64> {
        self.tick
    }

    /// Of a source's open records: how many there are, and how many an END at `begin` would end.
    pub fn would_end(&self, source: SourceId, begin: i64) -> (u64, u64) {
        let dictionary = self.dictionary.borrow();
        let records = &dictionary.source_entry(source).records;
        let open = records.iter().filter_map(|record| self.facts.record(*record)).filter(|r| r.now().open);
        let mut counts = (0, 0);
        for record in open {
            counts.0 += 1;
            counts.1 += u64::from(record.last_assert().is_none_or(|(last, _)| last.time < begin));
        }
        counts
    }

    /// Takes in a piece of the records as they were read from the views.
    pub fn restore(&mut self, piece: Piece) -> Result<(), String> {
        self.restoring.take(piece, &mut self.dictionary.borrow_mut(), &mut self.values)
    }

    /// Puts back the records that were taken in.
    pub fn restored(&mut self) {
        for record in std::mem::take(&mut self.restoring).records() {
            let id = record.id;
            self.touch(id);
            *self.facts.slot(id) = Some(Arc::new(record));
        }
    }

    /// Puts a watermark back as it was read from the views.
    pub fn restore_watermark(&mut self, row: &WatermarkRow) {
        let scope = row.partition.as_ref().map(|partition| self.dictionary.borrow_mut().scope(partition));
        match scope {
            None => self.tick = Some(row.at),
            Some(scope) => self.observe(scope, row.at),
        }
        self.told.insert(scope);
        self.moved.clear();
    }
}
