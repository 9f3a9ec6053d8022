//! Judge: which claims of which records may link, each claim and record by what touches it alone.
//! Source: `identity.md`, "From evidence to devices", 1.

use std::{cell::RefCell, collections::BTreeSet, rc::Rc};

use hashbrown::HashMap;

use crate::{
    claim::Namespace,
    decisions::{Effect, Scoped},
    dictionary::{ClaimId, Dictionary, RecordId},
    facts::Facts,
    few::Few,
    fold::RecordChange,
    normalise::native_claim,
    record::Record,
    rows::RecordRow,
    rules::Caps,
    sort_unique, sort_unique_labels,
    spans::{ClaimSpan, Status},
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
    /// Whether the claim is a MAC: else it is of tier 1.
    pub is_mac: bool,
}

impl Link {
    /// All but the record, as it is kept: in the order of claims. There is no memory for so many that three bits were
    /// missing.
    fn pack(&self) -> u32 {
        self.claim << 3 | u32::from(self.current) << 2 | u32::from(self.allowed) << 1 | u32::from(self.is_mac)
    }

    fn unpack(record: RecordId, packed: u32) -> Self {
        let bit = |at: u32| packed >> at & 1 == 1;
        Self { record, claim: packed >> 3, current: bit(2), allowed: bit(1), is_mac: bit(0) }
    }
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
}

/// A verdict, and an operator's word that it is to take in at the end of the epoch.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Judged {
    verdict: Verdict,
    /// Allowed, blocked.
    decided: (bool, bool),
}

/// The state of the judge. Claims of which there is nothing to say have none.
pub struct Judge {
    dictionary: Rc<RefCell<Dictionary>>,
    caps: Caps,
    /// By record: see `Link::pack`.
    links: Vec<Few>,
    /// Exclusive namespaces of which a record asserts too many values.
    bridging: HashMap<RecordId, Vec<u32>>,
    claims: HashMap<ClaimId, Judged>,
    ties: BTreeSet<(ClaimId, ClaimId)>,
    tied: BTreeSet<(ClaimId, ClaimId)>,
}

impl Judge {
    /// Empty.
    pub fn new(dictionary: Rc<RefCell<Dictionary>>, caps: Caps) -> Self {
        Self {
            dictionary,
            caps,
            links: Vec::new(),
            bridging: HashMap::new(),
            claims: HashMap::new(),
            ties: BTreeSet::new(),
            tied: BTreeSet::new(),
        }
    }

    /// The verdict on a claim.
    pub fn verdict(&self, claim: ClaimId) -> Verdict {
        self.claims.get(&claim).map(|judged| judged.verdict).unwrap_or_default()
    }

    /// What links a record, sorted by claim.
    pub fn links(&self, record: RecordId) -> impl Iterator<Item = Link> {
        self.packed(record).iter().map(move |packed| Link::unpack(record, *packed))
    }

    fn packed(&self, record: RecordId) -> &[u32] {
        self.links.get(record as usize).map_or(&[], |links| links)
    }

    /// The link between a record and a claim.
    pub fn link(&self, record: RecordId, claim: ClaimId) -> Option<Link> {
        let packed = self.packed(record);
        let at = packed.binary_search_by_key(&claim, |packed| packed >> 3).ok()?;
        Some(Link::unpack(record, packed[at]))
    }

    /// The `link` decisions that stand: both claims link.
    pub fn tied(&self) -> &BTreeSet<(ClaimId, ClaimId)> {
        &self.tied
    }

    /// A record that a claim links; all that it does are in one core.
    pub fn linked(&self, facts: &Facts, claim: ClaimId) -> Option<RecordId> {
        facts.claimants(claim).iter().copied().find(|record| self.is_linked(*record, claim))
    }

    /// Whether a claim links a record.
    pub fn is_linked(&self, record: RecordId, claim: ClaimId) -> bool {
        self.link(record, claim).is_some()
    }

    /// The tier of a claim; an allowed local MAC is tier 2.
    pub fn tier(&self, claim: ClaimId, dictionary: &Dictionary) -> u8 {
        let entry = dictionary.class_of(claim);
        match entry.tier {
            3 if entry.kind == Namespace::Mac && self.verdict(claim).allowed => 2,
            tier => tier,
        }
    }

    /// Whether a record asserts too many values of the namespace of some claim.
    pub fn is_bridging(&self, record: RecordId) -> bool {
        self.bridging.contains_key(&record)
    }

    /// Judges anew what an epoch touched.
    pub fn judge(
        &mut self,
        facts: &Facts,
        changes: &[RecordChange],
        effects: &[(Scoped, isize)],
    ) -> Judgements {
        let mut out = Judgements::default();
        let mut dirty_claims: Vec<ClaimId> = Vec::new();
        let mut dirty_records: Vec<RecordId> = Vec::new();
        for (effect, diff) in effects {
            self.decide(effect, *diff, &mut dirty_claims);
        }
        for (before, after) in changes {
            self.index(facts, before.as_deref(), after, &mut dirty_claims, &mut dirty_records);
        }
        sort_unique_labels(&mut dirty_claims);
        for claim in dirty_claims {
            self.rejudge(facts, claim, &mut dirty_records, &mut out);
        }
        sort_unique_labels(&mut dirty_records);
        for record in dirty_records {
            self.relink(facts, record, &mut out);
        }
        self.retie(facts);
        out
    }

    fn decide(&mut self, (partition, effect): &Scoped, diff: isize, dirty: &mut Vec<ClaimId>) {
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
                dirty.push(id);
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

    /// Finds what a record's claims may change.
    fn index(
        &self,
        facts: &Facts,
        before: Option<&Record>,
        after: &Record,
        dirty_claims: &mut Vec<ClaimId>,
        dirty_records: &mut Vec<RecordId>,
    ) {
        let same = before.is_some_and(|before| {
            before.claims.is(&after.claims) && before.now().detached == after.now().detached
        });
        if same {
            return;
        }
        dirty_records.push(after.id);
        let dictionary = self.dictionary.borrow();
        // Too few share any other claim for it to be judged.
        let is_judged = |claim: ClaimId| {
            dictionary.class_of(claim).kind.is_tier_1()
                || facts.claimants(claim).len() > self.caps.spread_of_a_source.min(self.caps.spread)
                || self.claims.contains_key(&claim)
        };
        // What a record names decides on each claim that it makes.
        let spans = before.map_or(&[][..], |before| &before.claims).iter().chain(after.claims.iter());
        dirty_claims.extend(spans.map(|span| span.claim).filter(|claim| is_judged(*claim)));
    }

    fn rejudge(&mut self, facts: &Facts, claim: ClaimId, dirty: &mut Vec<RecordId>, out: &mut Judgements) {
        let known = self.claims.get(&claim).copied().unwrap_or_default();
        let dictionary = self.dictionary.borrow();
        let verdict = Verdict {
            allowed: known.decided.0,
            blocked: known.decided.1,
            generic: self.is_generic(facts, claim, &dictionary),
            quarantined: self.is_quarantined(facts, claim, &dictionary),
        };
        let judged = Judged { verdict, ..known };
        if judged == Judged::default() {
            self.claims.remove(&claim);
        } else {
            self.claims.insert(claim, judged);
        }
        if known.verdict != verdict {
            dirty.extend(facts.claimants(claim));
            out.verdicts.push(claim);
        }
    }

    fn is_generic(&self, facts: &Facts, claim: ClaimId, dictionary: &Dictionary) -> bool {
        let claimants = facts.claimants(claim);
        // What never links proves nothing, however few share it.
        if claimants.len() <= self.caps.spread_of_a_source.min(self.caps.spread)
            || dictionary.class_of(claim).tier == 3
        {
            return false;
        }
        let mut live = 0;
        let mut per_source: HashMap<u32, usize> = HashMap::new();
        for claimant in claimants {
            let Some((record, span)) = facts.record(*claimant).and_then(|r| Some((r, r.claim(claim)?)))
            else {
                continue;
            };
            live += usize::from(is_live(record, span, dictionary));
            if span.status == Status::Current && is_live(record, span, dictionary) {
                *per_source.entry(record.source).or_default() += 1;
            }
        }
        live > self.caps.spread || per_source.values().any(|count| *count > self.caps.spread_of_a_source)
    }

    fn is_quarantined(&self, facts: &Facts, claim: ClaimId, dictionary: &Dictionary) -> bool {
        let entry = dictionary.class_of(claim);
        // The private claim of a detached record links, whatever else the record says.
        if !entry.kind.is_tier_1() || entry.kind == Namespace::Detached {
            return false;
        }
        let mut values: Vec<(u32, ClaimId)> = Vec::new();
        for record in facts.claimants(claim).iter().filter_map(|claimant| facts.record(*claimant)) {
            let asserts = record
                .claim(claim)
                .is_some_and(|span| span.status == Status::Current && is_live(record, span, dictionary));
            if !asserts {
                continue;
            }
            for span in record.claims.iter().filter(|span| span.status == Status::Current) {
                let other = dictionary.class_of(span.claim);
                if other.kind.is_exclusive() && other.namespace != entry.namespace {
                    values.push((other.namespace, span.claim));
                }
            }
        }
        sort_unique(&mut values);
        let mut of_each = values.chunk_by(|(a, _), (b, _)| a == b);
        of_each.any(|values| values.len() > self.caps.exclusive_values)
    }

    /// Works out anew the links of a record.
    fn relink(&mut self, facts: &Facts, id: RecordId, out: &mut Judgements) {
        let Some(record) = facts.record(id) else {
            return;
        };
        let mut dictionary = self.dictionary.borrow_mut();
        let bridging = bridging(record, &dictionary, self.caps.exclusive_values);
        let own = if bridging.is_empty() {
            None
        } else {
            let entry = dictionary.source_of(id);
            let (scope, source) = (entry.scope, entry.source.clone());
            let key = dictionary.key(id);
            let native = RecordRow::split(key).and_then(|(_, _, native)| native_claim(&source, native));
            native.map(|claim| dictionary.claim(scope, &claim))
        };
        let link = |span: &ClaimSpan| {
            let entry = dictionary.class_of(span.claim);
            let verdict = self.verdict(span.claim);
            let is_mac = entry.kind == Namespace::Mac;
            let linkable = !is_mac || entry.tier == 2 || verdict.allowed;
            let counts = verdict.allowed || own == Some(span.claim) || !bridging.contains(&entry.namespace);
            let links = is_live(record, span, &dictionary) && linkable && counts && verdict.is_usable();
            let current = span.status == Status::Current;
            links.then_some(Link { record: id, claim: span.claim, current, allowed: verdict.allowed, is_mac })
        };
        let mut links = Few::NONE;
        record.claims.iter().filter_map(link).for_each(|link| links.push(link.pack()));
        let before = self.packed(id);
        for (list, other, diff) in [(before, &*links, -1), (&links, before, 1)] {
            let gone = list.iter().filter(|packed| other.binary_search(packed).is_err());
            out.links.extend(gone.map(|packed| (Link::unpack(id, *packed), diff)));
        }
        if self.bridging.contains_key(&id) == bridging.is_empty() {
            out.bridging.push(id);
        }
        if bridging.is_empty() {
            self.bridging.remove(&id);
        } else {
            self.bridging.insert(id, bridging);
        }
        let index = id as usize;
        if self.links.len() <= index {
            self.links.resize(index + 1, Few::NONE);
        }
        self.links[index] = links;
    }

    /// A `link` decision ties two claims while both are live and usable.
    fn retie(&mut self, facts: &Facts) {
        let stands = |claim: &ClaimId| self.linked(facts, *claim).is_some();
        self.tied = self.ties.iter().filter(|(a, b)| stands(a) && stands(b)).copied().collect();
    }
}

/// Whether a claim of a record is live and may link at all; of a detached record its private one alone.
fn is_live(record: &Record, span: &ClaimSpan, dictionary: &Dictionary) -> bool {
    let kind = dictionary.class_of(span.claim).kind;
    span.status.is_live()
        && kind != Namespace::Other
        && (kind == Namespace::Detached) == record.now().detached
}

/// The exclusive namespaces of which a record currently asserts more values than a device has.
fn bridging(record: &Record, dictionary: &Dictionary, cap: usize) -> Vec<u32> {
    if record.now().detached {
        return Vec::new();
    }
    let mut counts: Vec<(u32, usize)> = Vec::new();
    for span in record.claims.iter().filter(|span| span.status == Status::Current) {
        let entry = dictionary.class_of(span.claim);
        if entry.kind.is_exclusive() {
            match counts.iter_mut().find(|(namespace, _)| *namespace == entry.namespace) {
                Some((_, count)) => *count += 1,
                None => counts.push((entry.namespace, 1)),
            }
        }
    }
    counts.into_iter().filter(|(_, count)| *count > cap).map(|(namespace, _)| namespace).collect()
}
