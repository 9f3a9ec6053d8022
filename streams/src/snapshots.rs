//! Snapshots: the fetches of a source, how far they have come, and what the guard needs to judge them.
//! Source: `identity.md`, "Snapshots".

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use serviceradar_schemas::{Action, Source};

use crate::{
    changes::{Changes, Row},
    decisions::{Effect, Scoped},
    dictionary::{Dictionary, RecordId, SourceId},
    facts::Facts,
    fold::Fold,
    normalise::Sighting,
    record::Record,
    rows::{SnapshotMemberRow, SnapshotRow},
    rules,
};

/// A fetch: of which source, and when it began.
type Key = (SourceId, i64);

#[derive(Clone, Default, PartialEq)]
struct Fetch {
    id: String,
    counted: Option<i64>,
    ended_at: Option<i64>,
    verdict: Option<(&'static str, String)>,
    /// Whether there ever was a verdict, revoked or not.
    judged: bool,
    /// While not judged.
    members: BTreeSet<RecordId>,
    /// Members that a later fetch listed too: of the others their record tells.
    listed_later: BTreeSet<RecordId>,
}

impl Fetch {
    /// Whether there is anything to tell of it: a revoked verdict is as if it had never been.
    fn is_told(&self) -> bool {
        !self.id.is_empty() || self.counted.is_some() || self.verdict.is_some() || !self.members.is_empty()
    }
}

/// All fetches of a tenant.
pub struct Snapshots {
    dictionary: Rc<RefCell<Dictionary>>,
    fetches: BTreeMap<Key, Fetch>,
    /// Those that are not judged.
    open: BTreeSet<Key>,
    touched: BTreeMap<Key, Option<Fetch>>,
}

/// A fetch that nobody has judged yet, and what judging it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undecided {
    /// The partition.
    pub partition: String,
    /// The source.
    pub source: Source,
    /// When it began.
    pub begin: i64,
    /// How many records it says it has; absent before its SNAPSHOT_END.
    pub counted: Option<i64>,
    /// How many distinct ones came.
    pub members: u64,
    /// When its SNAPSHOT_END was taken in (intake time).
    pub ended_at: Option<i64>,
    /// Open records of the source.
    pub open: u64,
    /// How many of them accepting it would end.
    pub would_end: u64,
    /// Whether a later fetch of the source was accepted.
    pub superseded: bool,
}

/// What the guard says of a fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Believe it: what it did not list has ended.
    Accept(String),
    /// Do not: it ends nothing.
    Hold(String),
}

/// Judges a fetch, `now` being the intake time of the last TICK. None: not yet.
pub fn judge(fetch: &Undecided, now: Option<i64>, rules: &rules::Snapshots) -> Option<Verdict> {
    let (Some(counted), Some(ended_at)) = (fetch.counted, fetch.ended_at) else {
        let gone = "a later fetch was accepted before this one ended";
        return fetch.superseded.then(|| Verdict::Hold(gone.to_owned()));
    };
    let (members, open, would_end) = (fetch.members, fetch.open, fetch.would_end);
    if i64::try_from(members).ok() != Some(counted) {
        let until = ended_at.saturating_add(rules.complete_within_s.saturating_mul(1_000_000));
        let late = now.is_some_and(|now| now >= until);
        return late.then(|| Verdict::Hold(format!("incomplete: {members} of {counted} records came")));
    }
    let share = would_end.saturating_mul(100) > open.saturating_mul(u64::from(rules.mass_end_percent));
    let figures = format!("{members} records came as counted; {would_end} of {open} open records end");
    if share && would_end > rules.mass_end_floor {
        let limit = rules.mass_end_percent;
        return Some(Verdict::Hold(format!("{figures}, more than {limit} %")));
    }
    Some(Verdict::Accept(figures))
}

impl Snapshots {
    /// Empty.
    pub fn new(dictionary: Rc<RefCell<Dictionary>>) -> Self {
        Self { dictionary, fetches: BTreeMap::new(), open: BTreeSet::new(), touched: BTreeMap::new() }
    }

    fn touch(&mut self, key: Key) -> &mut Fetch {
        let fetches = &self.fetches;
        // Once an epoch: a fetch has as many members as its source has records.
        self.touched.entry(key).or_insert_with(|| fetches.get(&key).cloned());
        let open = &mut self.open;
        self.fetches.entry(key).or_insert_with(|| {
            open.insert(key);
            Fetch::default()
        })
    }

    /// Takes in an event, of the record that it asserts if it does, which the fold has taken it into.
    pub fn take(&mut self, sighting: &Sighting, record: Option<&Record>) {
        let Some(of) = &sighting.fetch else { return };
        let source = match record {
            Some(record) => record.source,
            None => {
                let mut dictionary = self.dictionary.borrow_mut();
                let scope = dictionary.scope(&sighting.partition);
                dictionary.source(scope, &sighting.source)
            }
        };
        let key = (source, of.begin);
        if sighting.action == Action::Assert {
            // The common case first: one more member of a fetch that is being counted.
            let Some(record) = record else { return };
            let known = self.fetches.get(&key).is_some_and(|fetch| {
                fetch.id >= of.id && (fetch.judged || fetch.members.contains(&record.id))
            });
            if !known {
                let id = of.id.clone();
                let fetch = self.touch(key);
                fetch.id = id.max(std::mem::take(&mut fetch.id));
                if !fetch.judged {
                    fetch.members.insert(record.id);
                }
            }
            self.list_later(source, record);
            return;
        }
        let (id, count, intake) = (of.id.clone(), of.count, sighting.intake_time);
        let ended = sighting.action == Action::SnapshotEnd;
        let fetch = self.touch(key);
        fetch.id = id.max(std::mem::take(&mut fetch.id));
        if ended {
            fetch.counted = fetch.counted.max(Some(count.unwrap_or(0)));
            fetch.ended_at = Some(fetch.ended_at.map_or(intake, |at| at.min(intake)));
        }
    }

    /// Notes of which open fetches a record is a member that a later one listed too.
    fn list_later(&mut self, source: SourceId, record: &Record) {
        let Some(last) = record.marks().last_fetch else { return };
        let earlier: Vec<Key> = self.open.range((source, i64::MIN)..(source, last)).copied().collect();
        for key in earlier {
            let is_news = self.fetches.get(&key).is_some_and(|fetch| {
                fetch.members.contains(&record.id) && !fetch.listed_later.contains(&record.id)
            });
            if is_news {
                self.touch(key).listed_later.insert(record.id);
            }
        }
    }

    /// Takes in the effect of a decision that came (+1) or went (-1).
    pub fn decide(&mut self, (partition, effect): &Scoped, diff: isize) {
        let (source, begin, verdict) = match effect {
            Effect::AcceptSnapshot(source, begin, why) => (source, begin, Some(("accepted", why.clone()))),
            Effect::HoldSnapshot(source, begin, why) => (source, begin, Some(("held", why.clone()))),
            Effect::UnjudgedSnapshot(source, begin) => (source, begin, None),
            _ => return,
        };
        let source = {
            let mut dictionary = self.dictionary.borrow_mut();
            let scope = dictionary.scope(partition);
            dictionary.source(scope, source)
        };
        let key = (source, *begin);
        let fetch = self.touch(key);
        fetch.judged = diff > 0;
        fetch.verdict = verdict.filter(|_| fetch.judged);
        if fetch.judged {
            fetch.members.clear();
            fetch.listed_later.clear();
            self.open.remove(&key);
        } else {
            self.open.insert(key);
        }
    }

    /// Closes the epoch: rows of fetches and of their members.
    pub fn settle(&mut self) -> (Changes<SnapshotRow>, Changes<SnapshotMemberRow>) {
        let (mut rows, mut members) = (Changes::default(), Changes::default());
        let dictionary = self.dictionary.borrow();
        for (key, before) in std::mem::take(&mut self.touched) {
            let Some(after) = self.fetches.get(&key) else {
                continue;
            };
            let row = |fetch: &Fetch| {
                let entry = dictionary.source_entry(key.0);
                SnapshotRow {
                    partition: dictionary.partition(entry.scope).clone(),
                    source: entry.source.clone(),
                    begin: key.1,
                    id: fetch.id.clone(),
                    counted: fetch.counted,
                    members: (!fetch.judged).then_some(fetch.members.len() as i64),
                    ended_at: fetch.ended_at,
                    verdict: fetch.verdict.as_ref().map(|(verdict, _)| *verdict),
                    detail: fetch.verdict.as_ref().map(|(_, why)| why.clone()).unwrap_or_default(),
                }
            };
            let member = |record: &RecordId| SnapshotMemberRow {
                partition: row(after).partition,
                source: row(after).source,
                begin: key.1,
                record_key: dictionary.key(*record).into(),
            };
            let none = BTreeSet::new();
            let old = before.as_ref().map_or(&none, |fetch| &fetch.listed_later);
            members.new.extend(after.listed_later.difference(old).map(member));
            members.gone.extend(old.difference(&after.listed_later).map(member));
            let told = |fetch: &&Fetch| fetch.is_told();
            match (before.as_ref().filter(told).map(row), Some(after).filter(told).map(row)) {
                (None, Some(row)) => rows.new.push(row),
                (Some(old), Some(row)) if old != row => rows.changed.push(row),
                (Some(old), None) => rows.gone.push(old.key()),
                _ => {}
            }
        }
        members.new.sort_unstable();
        (rows, members)
    }

    /// Fetches that nobody has judged yet.
    pub fn undecided(&self, fold: &Fold) -> Vec<Undecided> {
        let waiting = self.fetches.iter().filter(|(_, fetch)| !fetch.judged && fetch.is_told());
        waiting
            .map(|(key, fetch)| {
                let later = self.fetches.range((key.0, key.1.saturating_add(1))..=(key.0, i64::MAX));
                let accepted = |fetch: &Fetch| fetch.verdict.as_ref().is_some_and(|(v, _)| *v == "accepted");
                let superseded = later.into_iter().any(|(_, fetch)| accepted(fetch));
                let complete = fetch.counted == i64::try_from(fetch.members.len()).ok();
                let (open, would_end) = if complete { fold.would_end(key.0, key.1) } else { (0, 0) };
                let dictionary = self.dictionary.borrow();
                let entry = dictionary.source_entry(key.0);
                Undecided {
                    partition: dictionary.partition(entry.scope).to_string(),
                    source: entry.source.clone(),
                    begin: key.1,
                    counted: fetch.counted,
                    members: fetch.members.len() as u64,
                    ended_at: fetch.ended_at,
                    open,
                    would_end,
                    superseded,
                }
            })
            .collect()
    }

    /// Puts fetches back as they were read from the views, after the records.
    pub fn restore(&mut self, rows: &[SnapshotRow], members: &[SnapshotMemberRow], facts: &Facts) {
        let dictionary = self.dictionary.clone();
        let mut dictionary = dictionary.borrow_mut();
        for row in rows {
            let scope = dictionary.scope(&row.partition);
            let source = dictionary.source(scope, &row.source);
            let fetch = Fetch {
                id: row.id.clone(),
                counted: row.counted,
                ended_at: row.ended_at,
                verdict: row.verdict.map(|verdict| (verdict, row.detail.clone())),
                // The decisions say so again.
                judged: row.verdict.is_some(),
                members: BTreeSet::new(),
                listed_later: BTreeSet::new(),
            };
            let key = (source, row.begin);
            if !fetch.judged {
                self.open.insert(key);
            }
            self.fetches.insert(key, fetch);
        }
        for record in facts.records() {
            let last = record.marks().last_fetch;
            let fetch = last.and_then(|begin| self.fetches.get_mut(&(record.source, begin)));
            if let Some(fetch) = fetch.filter(|fetch| !fetch.judged) {
                fetch.members.insert(record.id);
            }
        }
        for member in members {
            let scope = dictionary.scope(&member.partition);
            let source = dictionary.source(scope, &member.source);
            let record = dictionary.record(scope, &member.source, &member.record_key);
            if let Some(fetch) = self.fetches.get_mut(&(source, member.begin)) {
                fetch.members.insert(record);
                fetch.listed_later.insert(record);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetch(counted: i64, members: u64, open: u64, would_end: u64) -> Undecided {
        Undecided {
            partition: "default".to_owned(),
            source: Source { kind: "armis".to_owned(), instance: "hq".to_owned() },
            begin: 0,
            counted: Some(counted),
            members,
            ended_at: Some(0),
            open,
            would_end,
            superseded: false,
        }
    }

    #[test]
    fn a_broken_fetch_is_held_after_a_while_and_not_before() {
        let rules = rules::Snapshots::default();
        let broken = fetch(500, 100, 0, 0);
        assert_eq!(judge(&broken, None, &rules), None);
        assert_eq!(judge(&broken, Some(899_999_999), &rules), None);
        assert!(matches!(judge(&broken, Some(900_000_000), &rules), Some(Verdict::Hold(_))));
    }

    #[test]
    fn a_fetch_that_would_end_a_fifth_is_believed_and_one_more_is_not() {
        let rules = rules::Snapshots::default();
        assert!(matches!(judge(&fetch(800, 800, 1000, 200), None, &rules), Some(Verdict::Accept(_))));
        assert!(matches!(judge(&fetch(799, 799, 1000, 201), None, &rules), Some(Verdict::Hold(_))));
        // A small source may always end a hundred.
        assert!(matches!(judge(&fetch(0, 0, 100, 100), None, &rules), Some(Verdict::Accept(_))));
    }
}
