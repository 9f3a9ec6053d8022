//! A record: the minima and maxima of all that was ever said of it, and what follows from them now.
//!
//! Sightings merge in any order, and a duplicate changes nothing. Source: `identity.md`, "Time, open,
//! current, live".

use std::{net::IpAddr, sync::Arc};

use serviceradar_schemas::{Collector, Text};

use crate::{
    claim::Namespace,
    dictionary::{ClaimId, Dictionary, NameId, RecordId, SourceId, Values},
    list::List,
    marks::{Kept, Marks},
    normalise::Sighting,
    rows::Order,
    rules::Windows,
};

/// Order and event time of an assertion.
pub type Asserted = (Order, i64);

/// What a claim or address is at the present watermark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Status {
    /// Asserted, and its record open.
    Current,
    /// Asserted by a fetch that nobody has judged yet: it counts as lapsed.
    Listed,
    /// No longer asserted, not long ago.
    Lapsed,
    /// No longer asserted, long ago; or replaced.
    Expired,
}

impl Status {
    /// Whether it may link.
    pub fn is_live(self) -> bool {
        self != Status::Expired
    }

    /// Whether its record asserts it now, judged or not.
    pub fn is_asserted(self) -> bool {
        matches!(self, Status::Current | Status::Listed)
    }
}

/// A claim that the record ever had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClaimSpan {
    /// Which.
    pub claim: ClaimId,
    /// What it is now.
    pub status: Status,
    /// Earliest event time.
    pub first_seen: i64,
    /// Earliest intake time.
    pub first_asserted: i64,
    /// Its last assertion; absent where that is the record's last FULL assert.
    pub last: Option<Box<Asserted>>,
}

/// An address that the record ever had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressSpan {
    /// Which.
    pub ip: IpAddr,
    /// Whether it is current.
    pub current: bool,
    /// Earliest event time.
    pub first_seen: i64,
    /// Earliest intake time.
    pub first_asserted: i64,
    /// Its last assertion; absent where that is the record's last FULL assert.
    pub last: Option<Box<Asserted>>,
}

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
            let mac = || dictionary.claim_entry(a.claim).kind == Namespace::Mac;
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

    /// The last assertion of a claim, address or attribute of this record.
    pub fn asserted(&self, last: &Option<Box<Asserted>>) -> Asserted {
        self.asserted_at(last.as_deref().copied())
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
        values: &mut Values,
    ) {
        let at = (sighting.order, sighting.event_time);
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
        };
        marks.last_full = merge.after;
        self.set_marks(marks);
        let seen = (sighting.event_time, sighting.intake_time);
        self.claims = merge.spans(&self.claims, claims, |claim| ClaimSpan {
            claim,
            status: Status::Expired,
            first_seen: seen.0,
            first_asserted: seen.1,
            last: None,
        });
        let mut addresses = sighting.addresses.clone();
        addresses.sort_unstable();
        self.addresses = merge.spans(&self.addresses, &addresses, |ip| AddressSpan {
            ip,
            current: false,
            first_seen: seen.0,
            first_asserted: seen.1,
            last: None,
        });
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
        let values = attributes.chain(self.addresses.iter().map(|address| self.asserted(&address.last)));
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
    fn is_current(&self, last: &Option<Box<Asserted>>) -> bool {
        self.counts(self.asserted(last))
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
            let entry = dictionary.claim_entry(span.claim);
            let status = if self.is_current(&span.last) {
                if entry.kind == Namespace::Mac && !proven { Status::Listed } else { Status::Current }
            } else {
                let ttl = windows.evidence_ttl_s.saturating_mul(1_000_000);
                let until = self.asserted(&span.last).1.saturating_add(ttl);
                if deadline.before(until) { Status::Lapsed } else { Status::Expired }
            };
            statuses.push(status);
        }
        let replaced = |index: usize| {
            let entry = dictionary.claim_entry(self.claims[index].claim);
            entry.kind.is_exclusive()
                && self.claims.iter().zip(&statuses).any(|(other, status)| {
                    *status == Status::Current
                        && dictionary.claim_entry(other.claim).namespace == entry.namespace
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
            first_seen: self.first_seen,
            first_asserted: self.first_asserted,
            last: (self.kept.last_full() != Some(last)).then(|| Box::new(last)),
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
        let changed = |span: &AddressSpan| span.current != self.is_current(&span.last);
        if self.addresses.iter().any(changed) {
            let spans = self.addresses.iter();
            self.addresses = spans
                .map(|span| AddressSpan { current: self.is_current(&span.last), ..span.clone() })
                .collect();
        }
    }

    /// The address it is at now, and when it was last seen there.
    pub fn place_now(&self) -> Option<(IpAddr, i64)> {
        let ip = self.place()?;
        let index = self.addresses.binary_search_by_key(&ip, |span| span.ip).ok()?;
        let span = &self.addresses[index];
        span.current.then(|| (ip, self.asserted(&span.last).1))
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

/// How one assert merges into the lists of a record.
struct Merge {
    at: Asserted,
    full: bool,
    /// The last FULL assert without this one, and with it.
    before: Option<Asserted>,
    after: Option<Asserted>,
}

/// A claim or an address of a record.
trait Span: Clone + PartialEq {
    type Key: Ord + Copy;
    fn key(&self) -> Self::Key;
    fn firsts(&mut self) -> (&mut i64, &mut i64);
    fn last(&mut self) -> &mut Option<Box<Asserted>>;
}

impl Span for ClaimSpan {
    type Key = ClaimId;
    fn key(&self) -> ClaimId {
        self.claim
    }
    fn firsts(&mut self) -> (&mut i64, &mut i64) {
        (&mut self.first_seen, &mut self.first_asserted)
    }
    fn last(&mut self) -> &mut Option<Box<Asserted>> {
        &mut self.last
    }
}

impl Span for AddressSpan {
    type Key = IpAddr;
    fn key(&self) -> IpAddr {
        self.ip
    }
    fn firsts(&mut self) -> (&mut i64, &mut i64) {
        (&mut self.first_seen, &mut self.first_asserted)
    }
    fn last(&mut self) -> &mut Option<Box<Asserted>> {
        &mut self.last
    }
}

impl Merge {
    /// The last assertion of an item, given the one before and whether this assert lists it; in the
    /// form in which the record's last FULL assert is absent.
    fn last(&self, known: Option<Asserted>, listed: bool) -> Option<Box<Asserted>> {
        let last = if listed { known.max(Some(self.at)) } else { known };
        let same = |full: Asserted| last.is_none_or(|last| last.0 == full.0);
        match self.after {
            Some(full) if same(full) => None,
            _ => last.map(Box::new),
        }
    }

    /// Merges a list of spans; the same list comes back where nothing changed.
    fn spans<S: Span>(&self, spans: &List<S>, listed: &[S::Key], new: impl Fn(S::Key) -> S) -> List<S> {
        let mut merged: Vec<S> = Vec::with_capacity(spans.len() + listed.len());
        let mut listed = listed.iter().copied().peekable();
        let known_last = |span: &mut S| match span.last() {
            Some(last) => Some(**last),
            None => self.before,
        };
        for span in spans.iter() {
            while let Some(key) = listed.next_if(|key| *key < span.key()) {
                merged.push(self.fresh(new(key)));
            }
            let is_listed = listed.next_if(|key| *key == span.key()).is_some();
            let mut span = span.clone();
            let known = known_last(&mut span);
            *span.last() = self.last(known, is_listed);
            if is_listed {
                let mut first = self.fresh(new(span.key()));
                let (seen, asserted) = first.firsts();
                let (first_seen, first_asserted) = span.firsts();
                *first_seen = (*first_seen).min(*seen);
                *first_asserted = (*first_asserted).min(*asserted);
            }
            merged.push(span);
        }
        for key in listed {
            merged.push(self.fresh(new(key)));
        }
        if merged[..] == spans[..] { spans.clone() } else { merged.into() }
    }

    fn fresh<S: Span>(&self, mut span: S) -> S {
        *span.last() = self.last(None, true);
        span
    }

    /// Attributes keep their latest value alone; what a later FULL assert left out is gone. None where all stays as it is.
    fn attributes(
        &self,
        record: &Record,
        listed: &[(Text, Text)],
        dictionary: &mut Dictionary,
        values: &mut Values,
    ) -> Option<Vec<(Attribute, Option<Asserted>)>> {
        let after = self.after.map(|(order, _)| order);
        if self.full && Some(self.at.0) < after {
            return None;
        }
        let known = &record.attributes;
        let unchanged = self.full
            && record.attribute_times.is_none()
            && known.len() == listed.len()
            && known.iter().zip(listed).all(|(attribute, (name, value))| {
                *attribute.value == **value && **dictionary.text_of(attribute.name) == **name
            });
        if unchanged {
            return None;
        }
        let mut merged: Vec<(Asserted, Attribute)> = Vec::with_capacity(known.len() + listed.len());
        for (attribute, last) in record.attributes() {
            merged.push((last.or(self.before).unwrap_or_default(), attribute.clone()));
        }
        for (name, value) in listed {
            let name = dictionary.text(name);
            match merged.iter_mut().find(|(_, attribute)| attribute.name == name) {
                Some((last, attribute)) => {
                    let newer = self.at.0 > last.0;
                    if newer || (self.at.0 == last.0 && **value > *attribute.value) {
                        attribute.value = values.share(value);
                    }
                    *last = (*last).max(self.at);
                }
                None => {
                    let value = values.share(value);
                    merged.push((self.at, Attribute { name, value }));
                }
            }
        }
        merged.retain(|(last, _)| Some(last.0) >= after);
        merged.sort_by(|(_, a), (_, b)| dictionary.text_of(a.name).cmp(dictionary.text_of(b.name)));
        let timed =
            merged.into_iter().map(|(last, attribute)| (attribute, (Some(last.0) != after).then_some(last)));
        Some(timed.collect())
    }
}
