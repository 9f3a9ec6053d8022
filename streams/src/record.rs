//! A record: the minima and maxima of all that was ever said of it, and what follows from them now.
//!
//! Sightings merge in any order, and a duplicate changes nothing. Source: `identity.md`, "Time, open,
//! current, live".

use std::{net::IpAddr, sync::Arc};

use serviceradar_schemas::Collector;

use crate::{
    claim::Namespace,
    dictionary::{ClaimId, Dictionary, NameId, RecordId, SourceId},
    list::List,
    marks::{Kept, Marks},
    merge::{self, Merge},
    normalise::Sighting,
    recurring::Recurring,
    rows::Order,
    rules::Windows,
    spans::{AddressSpan, ClaimSpan, Span, Status, Times},
};

/// Order and event time of an assertion.
pub type Asserted = (Order, i64);

/// The latest value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// Which.
    pub name: NameId,
    /// The value.
    pub value: Arc<str>,
}

/// Of each attribute of a record its last assertion; absent where that is the record's last FULL assert.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct AttributeTimes(Box<[Option<Asserted>]>);

/// A record. Cheap to clone: its lists are shared until they change.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Which.
    pub id: RecordId,
    /// Whose.
    pub source: SourceId,
    /// Earliest event time; `i64::MAX` where it was never asserted.
    pub first_seen: i64,
    /// Latest event time; `i64::MIN` where it was never asserted.
    pub last_seen: i64,
    /// Earliest intake time; `i64::MAX` where it was never asserted.
    pub first_asserted: i64,
    /// Collector of the last assert.
    pub collector: Option<Arc<Collector>>,
    /// All claims it ever had, by claim.
    pub claims: List<ClaimSpan>,
    /// All addresses it ever had, by address.
    pub addresses: List<AddressSpan>,
    /// Its attributes, by name (as text).
    pub attributes: List<Attribute>,
    /// Absent where all were in its last FULL assert.
    pub(crate) attribute_times: Option<Arc<AttributeTimes>>,
    /// At the present watermark the least event time among those of its attributes and addresses that are fresh; `i64::MAX` where none
    /// is.
    pub fresh_from: i64,
    pub(crate) kept: Kept,
}

/// What follows for a record from the watermark, the accepted fetches and the decisions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Whether it is open.
    pub open: bool,
    /// Whether an operator took it apart from all others.
    pub detached: bool,
    /// Whether it was seen within the stale window.
    pub recent: bool,
}

impl Record {
    /// A record of which nothing is known yet.
    pub fn new(id: RecordId, source: SourceId) -> Self {
        Self {
            id,
            source,
            first_seen: i64::MAX,
            last_seen: i64::MIN,
            first_asserted: i64::MAX,
            collector: None,
            claims: List::default(),
            addresses: List::default(),
            attributes: List::default(),
            attribute_times: None,
            fresh_from: i64::MAX,
            kept: Kept::default(),
        }
    }

    /// What was said of it as a whole.
    pub fn marks(&self) -> Marks {
        self.kept.marks()
    }

    /// Puts back what was said of it as a whole.
    pub fn set_marks(&mut self, marks: Marks) {
        self.kept = Kept::of(marks, self.kept.now);
    }

    /// What follows at the present watermark.
    pub fn now(&self) -> &Now {
        &self.kept.now
    }

    /// The last assert.
    pub fn last_assert(&self) -> Option<Asserted> {
        self.kept.last_assert()
    }

    /// The first address listed by the last assert that lists any.
    pub fn place(&self) -> Option<IpAddr> {
        self.kept.place()
    }

    /// A claim that it ever had.
    pub fn claim(&self, claim: ClaimId) -> Option<&ClaimSpan> {
        let index = self.claims.binary_search_by_key(&claim, |span| span.claim).ok()?;
        self.claims.get(index)
    }

    /// Whether a device shows the same of this record as of `other`: of claims only which are asserted counts,
    /// and of those that a device has one of, which are current.
    pub fn shows_like(&self, other: &Self, dictionary: &Dictionary) -> bool {
        let alike = |(a, b): (&ClaimSpan, &ClaimSpan)| {
            let mac = || dictionary.class_of(a.claim).kind == Namespace::Mac;
            let both_asserted = a.status.is_asserted() && b.status.is_asserted();
            a.claim == b.claim && (a.status == b.status || (both_asserted && mac()))
        };
        let claims = self.claims.is(&other.claims)
            || (self.claims.len() == other.claims.len()
                && self.claims.iter().zip(other.claims.iter()).all(alike));
        claims && *self == Self { claims: self.claims.clone(), ..other.clone() }
    }

    /// Whether this record says the same as `before`, later: nothing but sightings lies between them. Its collector
    /// may be another.
    pub fn says_like(&self, before: &Self) -> bool {
        let firsts = |record: &Self| (record.first_seen, record.first_asserted);
        let said = |marks: &Marks| {
            let up = marks.probe.map(|(_, up)| up);
            (marks.first_fetch, marks.seen_outside, marks.last_end, up, marks.place.map(|(_, ip)| ip))
        };
        self.attributes == before.attributes
            && self.attribute_times == before.attribute_times
            && firsts(self) == firsts(before)
            && said(&self.marks()) == said(&before.marks())
    }

    /// Whether this record says the same as `before`, later, and the same follows from it.
    pub fn is_seen_again(&self, before: &Self) -> bool {
        let follows = |record: &Self| {
            let (now, marks) = (record.now(), record.marks());
            let up = marks.probe.filter(|_| marks.probe_holds).map(|(_, up)| up);
            (now.open, now.detached, now.recent, marks.end_now, up)
        };
        self.says_like(before)
            && self.claims == before.claims
            && self.addresses == before.addresses
            && follows(self) == follows(before)
    }

    /// The earliest event time and the earliest intake time.
    fn firsts(&self) -> (i64, i64) {
        (self.first_seen, self.first_asserted)
    }

    /// The times of a claim or address of this record: where it has none of its own, those of the record.
    pub fn times(&self, span: &impl Span) -> Times {
        span.times().copied().unwrap_or_else(|| merge::of_record(self.firsts(), None))
    }

    /// Times as a claim or address of this record keeps them.
    pub fn kept_times(&self, times: Times) -> Option<Box<Times>> {
        merge::kept(times, self.firsts())
    }

    /// The last assertion of a claim or address of this record.
    pub fn asserted(&self, span: &impl Span) -> Asserted {
        self.asserted_at(span.times().and_then(|times| times.last))
    }

    fn asserted_at(&self, last: Option<Asserted>) -> Asserted {
        last.or(self.kept.last_full()).unwrap_or_default()
    }

    /// Its attributes, each with its last assertion; absent where that is the record's last FULL assert.
    pub fn attributes(&self) -> impl ExactSizeIterator<Item = (&Attribute, Option<Asserted>)> {
        let last = |at: usize| self.attribute_times.as_ref().and_then(|times| times.0[at]);
        self.attributes.iter().enumerate().map(move |(at, attribute)| (attribute, last(at)))
    }

    /// Puts attributes back, in the order of their names: each with its last assertion, as `attributes` tells it.
    pub fn set_attributes(&mut self, attributes: Vec<(Attribute, Option<Asserted>)>) {
        let times: Box<[_]> = attributes.iter().map(|(_, last)| *last).collect();
        self.attribute_times = times.iter().any(Option::is_some).then(|| Arc::new(AttributeTimes(times)));
        self.attributes = attributes.into_iter().map(|(attribute, _)| attribute).collect();
    }

    /// Takes in an END.
    pub fn end(&mut self, order: Order) {
        let marks = self.marks();
        self.set_marks(Marks { last_end: marks.last_end.max(Some(order)), ..marks });
    }

    /// Takes in an assert. `claims` are the sighting's, sorted.
    pub fn assert(
        &mut self,
        sighting: &Sighting,
        claims: &[ClaimId],
        dictionary: &mut Dictionary,
        values: &mut Recurring<str>,
    ) {
        let at = (sighting.order, sighting.event_time);
        let firsts_before = self.firsts();
        self.first_seen = self.first_seen.min(sighting.event_time);
        self.last_seen = self.last_seen.max(sighting.event_time);
        self.first_asserted = self.first_asserted.min(sighting.intake_time);
        let mut marks = self.marks();
        marks.last_fetch = marks.last_fetch.max(sighting.fetch.as_ref().map(|fetch| fetch.begin));
        match &sighting.fetch {
            None => (marks.seen_outside, marks.first_fetch) = (true, None),
            Some(_) if marks.seen_outside => {}
            Some(fetch) => {
                let first = marks.first_fetch.map_or(fetch.begin, |begin| begin.min(fetch.begin));
                marks.first_fetch = Some(first);
            }
        }
        let collector = sighting.collector.as_ref();
        let last_order = marks.last_assert.map(|(order, _)| order);
        let newer = Some(sighting.order) > last_order;
        let greater = last_order == Some(sighting.order) && collector > self.collector.as_deref();
        marks.last_assert = marks.last_assert.max(Some(at));
        if (newer || greater) && self.collector.as_deref() != collector {
            self.collector = collector.cloned().map(Arc::new);
        }
        if let Some(up) = sighting.probe {
            marks.probe = marks.probe.max(Some((sighting.event_time, up)));
        }
        if let Some(ip) = sighting.addresses.first() {
            marks.place = marks.place.max(Some((sighting.order, *ip)));
        }
        let merge = Merge {
            at,
            full: sighting.full,
            before: marks.last_full,
            after: if sighting.full { marks.last_full.max(Some(at)) } else { marks.last_full },
            seen: (sighting.event_time, sighting.intake_time),
            firsts_before,
            firsts_after: self.firsts(),
        };
        marks.last_full = merge.after;
        self.set_marks(marks);
        self.claims = merge.spans(&self.claims, claims);
        let mut addresses = sighting.addresses.clone();
        addresses.sort_unstable();
        self.addresses = merge.spans(&self.addresses, &addresses);
        let merged = merge.attributes(self, &sighting.attributes, dictionary, values);
        if let Some(merged) = merged {
            self.set_attributes(merged);
        }
    }

    /// Whether anything of it may follow from the last accepted fetch's being the one that began at `to` and not the
    /// earlier one of `from`, or the other way round: see `settle`.
    pub fn heeds(&self, from: Option<i64>, to: Option<i64>) -> bool {
        let Some(to) = to else {
            return false;
        };
        let is_before = |last: Option<(Order, i64)>| last.is_none_or(|(order, _)| order.time < to);
        let is_proven_by_it = |first: i64| first <= to && from.is_none_or(|from| first > from);
        let marks = self.marks();
        is_before(marks.last_assert)
            || is_before(marks.last_full)
            || (!marks.seen_outside && marks.first_fetch.is_some_and(is_proven_by_it))
    }

    /// Works out what follows now, and the watermark at which that changes by time alone.
    pub fn settle(
        &mut self,
        watermark: i64,
        accepted: Option<i64>,
        detached: Option<ClaimId>,
        windows: &Windows,
        dictionary: &Dictionary,
    ) -> i64 {
        let mut deadline = Deadline { watermark, next: i64::MAX };
        let kind = &dictionary.source_entry(self.source).source.kind;
        let unlimited = windows.record_ttl_unlimited.iter().any(|unlimited| unlimited == kind);
        let ended_by_fetch = accepted.map(|begin| Order { time: begin, hash: 0 });
        let mut marks = self.marks();
        let standing = marks.last_assert.is_some_and(|(last, _)| {
            Some(last) > marks.last_end && ended_by_fetch.is_none_or(|end| last.time >= end.time)
        });
        let alive = |deadline: &mut Deadline, at: i64, seconds: i64| {
            deadline.before(at.saturating_add(seconds.saturating_mul(1_000_000)))
        };
        let open = standing && (unlimited || alive(&mut deadline, self.last_seen, windows.record_ttl_s));
        // An END before the last FULL assert says nothing more: of two accepted fetches, nothing changes.
        let last_full = marks.last_full.map(|(full, _)| full);
        marks.end_now = marks.last_end.max(ended_by_fetch).filter(|end| Some(*end) > last_full);
        let recent = open && alive(&mut deadline, self.last_seen, windows.stale_after_s);
        marks.probe_holds = marks
            .probe
            .is_some_and(|(at, _)| open && alive(&mut deadline, at.saturating_add(1), windows.probe_ttl_s));
        self.set_marks(marks);
        let attributes = self.attributes().map(|(_, last)| self.asserted_at(last));
        let values = attributes.chain(self.addresses.iter().map(|address| self.asserted(address)));
        self.fresh_from = values
            .map(|(_, at)| at)
            .filter(|at| open && alive(&mut deadline, *at, windows.freshness_s))
            .min()
            .unwrap_or(i64::MAX);
        self.kept.now = Now { open, detached: detached.is_some(), recent };
        let proven = marks.seen_outside
            || marks.first_fetch.is_none_or(|first| accepted.is_some_and(|begin| begin >= first));
        self.keep_private_claim(detached);
        self.settle_claims(proven, windows, &mut deadline, dictionary);
        self.settle_addresses();
        deadline.next
    }

    /// Whether what was last asserted at `last` still is.
    fn is_current(&self, span: &impl Span) -> bool {
        self.counts(self.asserted(span))
    }

    fn counts(&self, (order, _): Asserted) -> bool {
        let order = Some(order);
        self.now().open
            && order >= self.kept.last_full().map(|(order, _)| order)
            && order >= self.kept.end_now()
    }

    fn settle_claims(
        &mut self,
        proven: bool,
        windows: &Windows,
        deadline: &mut Deadline,
        dictionary: &Dictionary,
    ) {
        let mut statuses = Vec::with_capacity(self.claims.len());
        for span in self.claims.iter() {
            let entry = dictionary.class_of(span.claim);
            let status = if self.is_current(span) {
                if entry.kind == Namespace::Mac && !proven { Status::Listed } else { Status::Current }
            } else {
                let ttl = windows.evidence_ttl_s.saturating_mul(1_000_000);
                let until = self.asserted(span).1.saturating_add(ttl);
                if deadline.before(until) { Status::Lapsed } else { Status::Expired }
            };
            statuses.push(status);
        }
        let replaced = |index: usize| {
            let entry = dictionary.class_of(self.claims[index].claim);
            entry.kind.is_exclusive()
                && self.claims.iter().zip(&statuses).any(|(other, status)| {
                    *status == Status::Current
                        && dictionary.class_of(other.claim).namespace == entry.namespace
                })
        };
        let over: Vec<usize> = (0..statuses.len())
            .filter(|index| statuses[*index] == Status::Lapsed && replaced(*index))
            .collect();
        for index in over {
            statuses[index] = Status::Expired;
        }
        if self.claims.iter().zip(&statuses).any(|(span, status)| span.status != *status) {
            let spans = self.claims.iter().zip(statuses);
            self.claims = spans.map(|(span, status)| ClaimSpan { status, ..span.clone() }).collect();
        }
    }

    /// A detached record has one private claim, made by each of its asserts.
    fn keep_private_claim(&mut self, detached: Option<ClaimId>) {
        let (Some(claim), Some(last)) = (detached, self.last_assert()) else {
            return;
        };
        let known = self.claims.iter().find(|span| span.claim == claim);
        let span = ClaimSpan {
            claim,
            status: known.map_or(Status::Expired, |span| span.status),
            times: self.kept_times(Times {
                first_seen: self.first_seen,
                first_asserted: self.first_asserted,
                last: (self.kept.last_full() != Some(last)).then_some(last),
            }),
        };
        if known == Some(&span) {
            return;
        }
        let others = self.claims.iter().filter(|other| other.claim != claim).cloned();
        let mut claims: Vec<ClaimSpan> = others.chain([span]).collect();
        claims.sort_by_key(|span| span.claim);
        self.claims = claims.into();
    }

    fn settle_addresses(&mut self) {
        let changed = |span: &AddressSpan| span.current != self.is_current(span);
        if self.addresses.iter().any(changed) {
            let spans = self.addresses.iter();
            self.addresses =
                spans.map(|span| AddressSpan { current: self.is_current(span), ..span.clone() }).collect();
        }
    }

    /// The address it is at now, and when it was last seen there.
    pub fn place_now(&self) -> Option<(IpAddr, i64)> {
        let ip = self.place()?;
        let index = self.addresses.binary_search_by_key(&ip, |span| span.ip).ok()?;
        let span = &self.addresses[index];
        span.current.then(|| (ip, self.asserted(span).1))
    }

    /// The attributes that hold now.
    pub fn current_attributes(&self) -> impl Iterator<Item = (&Attribute, Asserted)> {
        let timed = self.attributes().map(|(attribute, last)| (attribute, self.asserted_at(last)));
        timed.filter(|(_, asserted)| self.counts(*asserted))
    }
}

/// The next watermark at which something changes by time alone.
struct Deadline {
    watermark: i64,
    next: i64,
}

impl Deadline {
    /// Whether the watermark is before `until`; if so, `until` is a deadline.
    fn before(&mut self, until: i64) -> bool {
        let before = self.watermark < until;
        if before {
            self.next = self.next.min(until);
        }
        before
    }
}
