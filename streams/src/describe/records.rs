//! Rows of records and evidence.

use std::sync::Arc;

use super::{Describer, Moved};
use crate::{
    changes::{Changes, Row},
    dictionary::{Dictionary, RecordId},
    evidence::{address_row, attributes_json, claim_row, state_of},
    facts::Facts,
    identity::Identity,
    list::List,
    place::Placed,
    record::Record,
    recurring::Recurring,
    rows::{EpochOutput, EvidenceRow, EvidenceState, Placement, RecordRow, RecordSeen, Uid},
    spans::Span,
    sums::{Summed, Sums, hash},
};

/// State of a claim or address of a record, and whether it leads by that record.
pub(super) type Told = (EvidenceState, bool);

/// What was last told of a record, besides what it says itself.
#[derive(Clone)]
pub(super) struct ToldRecord {
    pub(super) placement: Placement,
    uid: Option<Uid>,
    /// Of each claim, then of each address.
    pub(super) evidence: List<Told>,
}

/// A record, and what is told of it.
struct Telling<'a> {
    record: &'a Record,
    told: &'a ToldRecord,
}

impl Describer {
    pub(super) fn row_of_record(
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
        let told =
            told_of(identity, record, evidence_of(identity, facts, record, &dictionary, &mut self.evidence));
        if let Some(piece) = piece {
            let telling = Telling { record, told: &told };
            let first = piece.evidence.new.len();
            evidence_changes(None, &telling, &dictionary, piece);
            piece.evidence.new[first..]
                .sort_unstable_by(|a, b| (&a.namespace, &a.value).cmp(&(&b.namespace, &b.value)));
            let row = record_row(&telling, &dictionary);
            piece.sums.records.change(&row.record_key, 0, row.sum());
            piece.records.new.push(row);
        }
        drop(dictionary);
        self.records[id] = Some(told);
    }

    pub(super) fn describe_record(
        &mut self,
        identity: &Identity,
        facts: &Facts,
        (before, record): (Option<&Record>, &Record),
        is_touched: bool,
        moved: &mut Moved,
        out: &mut EpochOutput,
    ) {
        let told = self.records[record.id].take();
        let dictionary = self.dictionary.borrow();
        let same = before
            .is_some_and(|before| before.claims.is(&record.claims) && before.addresses.is(&record.addresses));
        let evidence = match &told {
            Some(told) if same && !is_touched => told.evidence.clone(),
            _ => evidence_of(identity, facts, record, &dictionary, &mut self.evidence),
        };
        let now = told_of(identity, record, evidence);
        let telling = Telling { record, told: &now };
        let before = before.zip(told.as_ref()).map(|(record, told)| Telling { record, told });
        evidence_changes(before.as_ref(), &telling, &dictionary, out);
        let sums = &mut out.sums.records;
        match &before {
            None => {
                let row = record_row(&telling, &dictionary);
                sums.change(&row.record_key, 0, row.sum());
                out.records.new.push(row);
            }
            Some(before) if !is_seen_again(before, &telling) => {
                let row = record_row(&telling, &dictionary);
                sums.change(&row.record_key, record_row(before, &dictionary).sum(), row.sum());
                out.records.changed.push(row);
            }
            Some(before) => {
                let (was, seen) = (record_seen(before.record, &dictionary), record_seen(record, &dictionary));
                if was != seen {
                    sums.change(&seen.record_key, hash(&was), hash(&seen));
                    out.records.seen.push(seen);
                }
            }
        }
        if let (Some(from), Some(to)) = (before.and_then(|before| before.told.uid), now.uid)
            && from != to
        {
            moved.entry((from, to)).or_default().push(record.id);
        }
        drop(dictionary);
        self.records[record.id] = Some(now);
    }
}

/// What is told of a record now.
fn told_of(identity: &Identity, record: &Record, evidence: List<Told>) -> ToldRecord {
    let Placed { placement, device } = identity.placer.placed(record.id);
    ToldRecord { placement, uid: device.and_then(|device| identity.placer.uid(device)), evidence }
}

/// State and lead of each claim of a record, then of each address.
fn evidence_of(
    identity: &Identity,
    facts: &Facts,
    record: &Record,
    dictionary: &Dictionary,
    recurring: &mut Recurring<[Told]>,
) -> List<Told> {
    let context = identity.context(facts);
    let states = record.claims.iter().map(|span| {
        let lead = identity.placer.lead(context, span.claim, dictionary);
        let leads = lead.is_some_and(|lead| lead.record == record.id);
        (state_of(record, span, identity, facts, dictionary), leads)
    });
    let scope = dictionary.source_entry(record.source).scope;
    let addresses = record.addresses.iter().map(|span| {
        let lead = identity.placer.address_lead(scope, span.ip);
        let state = if span.current { EvidenceState::Corroborating } else { EvidenceState::Lapsed };
        (state, lead.is_some_and(|lead| lead.record == record.id))
    });
    recurring.share(&states.chain(addresses).collect::<Vec<_>>()).into()
}

fn evidence_changes(
    before: Option<&Telling<'_>>,
    now: &Telling<'_>,
    dictionary: &Dictionary,
    out: &mut EpochOutput,
) {
    let unchanged = before.is_some_and(|before| {
        before.record.claims.is(&now.record.claims)
            && before.record.addresses.is(&now.record.addresses)
            && before.told.evidence == now.told.evidence
    });
    if unchanged {
        return;
    }
    let none: &[Told] = &[];
    let split = |telling: &'_ Telling<'_>| telling.record.claims.len();
    let (old_claims, old_addresses) =
        before.map_or((none, none), |before| before.told.evidence.split_at(split(before)));
    let (claims, addresses) = now.told.evidence.split_at(split(now));
    let key: Arc<str> = dictionary.key(now.record.id).into();
    let records = (before.map_or(now.record, |before| before.record), now.record);
    let old = before.map_or(&[][..], |before| &before.record.claims);
    span_changes(
        records,
        (old, old_claims),
        (&now.record.claims, claims),
        |record, span, told| claim_row((&key, record), span, told, dictionary),
        out,
    );
    let old = before.map_or(&[][..], |before| &before.record.addresses);
    span_changes(
        records,
        (old, old_addresses),
        (&now.record.addresses, addresses),
        |record, span, told| address_row((&key, record), span, told, dictionary),
        out,
    );
}

/// The rows of spans that came, went, or are told otherwise. Both lists are sorted by their keys; a row is made
/// only where there is something to tell.
fn span_changes<S: Span>(
    (before, now): (&Record, &Record),
    (old, old_told): (&[S], &[Told]),
    (new, told): (&[S], &[Told]),
    row: impl Fn(&Record, &S, Told) -> EvidenceRow,
    EpochOutput { evidence: out, sums, .. }: &mut EpochOutput,
) {
    let gone = |row: EvidenceRow, out: &mut Changes<EvidenceRow>, sums: &mut Sums| {
        sums.evidence.change(&row.key(), row.sum(), 0);
        out.gone.push(row.key());
    };
    let mut old = old.iter().zip(old_told).peekable();
    for (span, told) in new.iter().zip(told) {
        while let Some((old, was)) = old.next_if(|(old, _)| old.key() < span.key()) {
            gone(row(before, old, *was), out, sums);
        }
        match old.next_if(|(old, _)| old.key() == span.key()) {
            None => {
                let row = row(now, span, *told);
                sums.evidence.change(&row.key(), 0, row.sum());
                out.new.push(row);
            }
            Some((old, was)) if was != told || before.times(old) != now.times(span) => {
                let (old, row) = (row(before, old, *was), row(now, span, *told));
                sums.evidence.change(&row.key(), old.sum(), row.sum());
                out.changed.push(row);
            }
            Some(_) => {}
        }
    }
    for (old, was) in old {
        gone(row(before, old, *was), out, sums);
    }
}

/// Whether only sightings changed the row.
fn is_seen_again(before: &Telling<'_>, now: &Telling<'_>) -> bool {
    let (a, b) = (before.record, now.record);
    before.told.placement == now.told.placement
        && before.told.uid == now.told.uid
        && a.collector == b.collector
        && a.now().open == b.now().open
        && b.says_like(a)
}

/// What sightings change of a row.
fn record_seen(record: &Record, dictionary: &Dictionary) -> RecordSeen {
    let marks = record.marks();
    RecordSeen {
        record_key: dictionary.key(record.id).into(),
        last_seen: known(record.last_seen, i64::MIN),
        probe_at: marks.probe.map(|(at, _)| at),
        last_snapshot_begin: marks.last_fetch,
        place: marks.place.map(|(order, _)| order),
        last_assert: marks.last_assert,
        last_full: marks.last_full,
    }
}

fn known(at: i64, unknown: i64) -> Option<i64> {
    (at != unknown).then_some(at)
}

fn record_row(Telling { record, told }: &Telling<'_>, dictionary: &Dictionary) -> RecordRow {
    let marks = record.marks();
    RecordRow {
        record_key: dictionary.key(record.id).into(),
        uid: told.uid,
        placement: told.placement,
        open: record.now().open,
        first_seen: known(record.first_seen, i64::MAX),
        last_seen: known(record.last_seen, i64::MIN),
        first_asserted: known(record.first_asserted, i64::MAX),
        attributes: attributes_json(record, dictionary),
        probe: marks.probe.map(|(at, up)| (up, at)),
        collector: record.collector.clone(),
        first_snapshot_begin: marks.first_fetch,
        last_snapshot_begin: marks.last_fetch,
        place: marks.place.map(|(order, ip)| (ip, order)),
        last_assert: marks.last_assert,
        last_full: marks.last_full,
        last_end: marks.last_end,
    }
}
