//! What is remembered of the past of a record: minima and maxima.

use std::{collections::BTreeMap, net::IpAddr};

use serviceradar_schemas::{Action, Coverage, Observation, Source, time::MINUTE};
use sha2::{Digest, Sha256};

use super::{
    OracleRules,
    decide::InForce,
    normalise::{self, Claim},
};

/// The order of a record's events: time, then a hash of the id. An accepted snapshot ends its
/// records before all else of its time, hence without a hash.
pub(super) type Order = (i64, Option<u64>);

/// When something was asserted.
#[derive(Clone, Debug)]
pub(super) struct Span {
    /// Earliest event time.
    pub(super) first_seen: i64,
    /// Earliest intake time.
    pub(super) first_asserted: i64,
    /// The assertion of the greatest order, with its event time.
    pub(super) last: (Order, i64),
}

/// A record, folded.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) key: String,
    pub(super) source: Source,
    pub(super) native: Option<Claim>,
    pub(super) claims: BTreeMap<Claim, Span>,
    pub(super) addresses: BTreeMap<IpAddr, Span>,
    /// All asserts; none where only an END is known.
    pub(super) asserts: Option<Span>,
    pub(super) last_seen: Option<i64>,
    pub(super) last_full: Option<Order>,
    pub(super) last_end: Option<Order>,
    /// The first address listed by the latest assert that lists any.
    pub(super) place: Option<(Order, IpAddr)>,
    /// Whether an assert ever came outside a fetch.
    pub(super) asserted_alone: bool,
    /// The earliest begin of a fetch that listed it.
    pub(super) first_begin: Option<i64>,
    pub(super) open: bool,
    /// Whether only fetches without a verdict ever listed it: its MACs count as lapsed.
    pub(super) unproven: bool,
}

impl Record {
    /// Whether what was last asserted so stands: the record is open, and has not spoken of all it
    /// has, or ended, since.
    pub(super) fn is_current(&self, span: &Span) -> bool {
        let order = Some(span.last.0);
        self.open && order >= self.last_full && order >= self.last_end
    }

    fn assert(&mut self, observation: &Observation, intake: i64, order: Order) {
        let time = observation.event_time;
        let extend = |span: Option<&Span>| {
            let new = Span { first_seen: time, first_asserted: intake, last: (order, time) };
            span.map_or(new.clone(), |old| Span {
                first_seen: old.first_seen.min(time),
                first_asserted: old.first_asserted.min(intake),
                last: old.last.max(new.last),
            })
        };
        self.asserts = Some(extend(self.asserts.as_ref()));
        self.last_seen = self.last_seen.max(Some(time));
        if observation.coverage == Coverage::Full {
            self.last_full = self.last_full.max(Some(order));
        }
        for claim in normalise::claims(observation) {
            let span = extend(self.claims.get(&claim));
            self.claims.insert(claim, span);
        }
        let listed = normalise::addresses(observation);
        for ip in &listed {
            let span = extend(self.addresses.get(ip));
            self.addresses.insert(*ip, span);
        }
        self.place = self.place.max(listed.first().map(|ip| (order, *ip)));
        match &observation.snapshot {
            None => self.asserted_alone = true,
            Some(snapshot) => {
                let begin = self.first_begin.map_or(snapshot.begin, |b| b.min(snapshot.begin));
                self.first_begin = Some(begin);
            }
        }
    }
}

/// The watermark of each partition: the greatest of its event times and the tenant's TICKs, rounded
/// down to a minute.
pub(super) fn watermarks(observations: &[(Observation, i64)]) -> BTreeMap<String, i64> {
    let ticks = observations.iter().filter(|(o, _)| o.action == Action::Tick);
    let tick = ticks.map(|(o, _)| o.event_time).max();
    let mut marks: BTreeMap<String, i64> = BTreeMap::new();
    for (observation, _) in observations.iter().filter(|(o, _)| counts(o)) {
        let mark = marks.entry(observation.partition.clone()).or_insert(observation.event_time);
        *mark = (*mark).max(observation.event_time);
    }
    for mark in marks.values_mut() {
        *mark = tick.map_or(*mark, |tick| tick.max(*mark)).div_euclid(MINUTE) * MINUTE;
    }
    marks
}

/// Whether an observation belongs to a partition and names what it speaks of; what does not is
/// refused before identity.
fn counts(observation: &Observation) -> bool {
    let names = [&observation.partition, &observation.source.kind, &observation.source.instance];
    let speaks_of_a_record = matches!(observation.action, Action::Assert | Action::End);
    observation.action != Action::Tick
        && names.iter().all(|name| normalise::is_name(name))
        && (!speaks_of_a_record || !observation.native_key.is_empty())
}

/// The records of one partition, by record key.
pub(super) fn records(
    partition: &str,
    observations: &[(Observation, i64)],
    decisions: &InForce,
    rules: &OracleRules,
    watermark: i64,
) -> BTreeMap<String, Record> {
    let mut records: BTreeMap<String, Record> = BTreeMap::new();
    for (observation, intake) in observations {
        let speaks_of_a_record = matches!(observation.action, Action::Assert | Action::End);
        if observation.partition != partition || !counts(observation) || !speaks_of_a_record {
            continue;
        }
        let key = observation.record_key();
        let record = records.entry(key.clone()).or_insert_with(|| Record {
            key,
            source: observation.source.clone(),
            native: normalise::native_claim(observation),
            ..Record::default()
        });
        let order = order(observation);
        match observation.action {
            Action::End => record.last_end = record.last_end.max(Some(order)),
            _ => record.assert(observation, *intake, order),
        }
    }
    for record in records.values_mut() {
        let accepted = decisions.accepted.get(&record.source).and_then(|begins| begins.last());
        if let Some(begin) = accepted {
            record.last_end = record.last_end.max(Some((*begin, None)));
        }
        let proven = record.asserted_alone || accepted.copied() >= record.first_begin;
        record.unproven = !proven;
        let last_assert = record.asserts.as_ref().map(|span| span.last.0);
        let lives = rules.record_ttl_unlimited.contains(&record.source.kind)
            || record.last_seen.is_some_and(|seen| watermark < seen + rules.record_ttl);
        record.open = last_assert > record.last_end && lives;
    }
    records
}

fn order(observation: &Observation) -> Order {
    let begin = observation.snapshot.as_ref().map_or(i64::MIN, |snapshot| snapshot.begin);
    let hash = Sha256::digest(&observation.id);
    let hash = hash.iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte));
    (observation.event_time.max(begin), Some(hash))
}
