//! Place: which claim belongs where, what each device is called, and where visitors go.
//! Source: `identity.md`, "From evidence to devices", 5 to 7.

use std::{
    cell::RefCell,
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    rc::Rc,
    sync::Arc,
};

use hashbrown::{HashMap, HashSet};

use crate::{
    blocks::{Blocks, Cluster},
    claim::Namespace,
    decisions::{Effect, Scoped},
    dictionary::{ClaimId, Dictionary, RecordId, ScopeId},
    fold::RecordChange,
    judge::Judge,
    macs::{Macs, Place},
    record::{ClaimSpan, Record},
    rows::{Placement, Uid},
    rules::Leases,
};

/// What a device is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Device {
    /// A cluster of cores and MAC-only records.
    Cluster(Cluster),
    /// The visitors of an address that nobody holds.
    Address(ScopeId, IpAddr),
}

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// How it belongs.
    pub placement: Placement,
    /// Where it belongs; a closed record may be history of a device.
    pub device: Option<Device>,
}

impl Placed {
    fn is_visit(&self) -> bool {
        matches!(self.placement, Placement::Attached | Placement::Provisional)
    }
}

const NOWHERE: Placed = Placed { placement: Placement::Closed, device: None };

/// What an epoch changed.
#[derive(Default)]
pub struct PlaceChanges {
    /// Records whose placement changed.
    pub records: BTreeSet<RecordId>,
    /// Devices that have other members, another uid, or are gone.
    pub devices: BTreeSet<Device>,
    /// Records by whose rows a claim or address leads, or no longer does.
    pub leads: BTreeSet<RecordId>,
}

/// Where a claim leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lead {
    /// The device.
    pub device: Device,
    /// The record by whose row it leads there.
    pub record: RecordId,
}

#[derive(Default)]
struct ClaimState {
    /// Records that ever had it.
    records: Vec<RecordId>,
    /// Its tier, when last placed.
    tier: u8,
    /// The cluster in which it links.
    links: Option<Cluster>,
    /// The cluster to which it belongs.
    belongs: Option<Cluster>,
    lead: Option<Lead>,
}

/// The members and the name of a device.
#[derive(Clone, Debug, Default)]
pub struct Members {
    /// Its records, by how they belong: anchored, attached, provisional or closed.
    pub records: BTreeMap<RecordId, Placement>,
    /// Its name.
    pub uid: Option<Uid>,
}

impl Members {
    fn is_anchored(&self) -> bool {
        self.records.values().any(|placement| *placement == Placement::Anchored)
    }
}

/// What other operators know, for looking up.
pub struct Context<'a> {
    /// Verdicts and links.
    pub judge: &'a Judge,
    /// Nodes and MACs.
    pub macs: &'a Macs,
    /// Clusters.
    pub blocks: &'a Blocks,
}

/// The state of the operator.
pub struct Placer {
    dictionary: Rc<RefCell<Dictionary>>,
    leases: Leases,
    facts: HashMap<RecordId, Arc<Record>>,
    placed: HashMap<RecordId, Placed>,
    claims: HashMap<ClaimId, ClaimState>,
    belongings: HashMap<Cluster, BTreeSet<ClaimId>>,
    devices: HashMap<Device, Members>,
    /// Open records by the addresses they have currently.
    at: HashMap<(ScopeId, IpAddr), Vec<RecordId>>,
    leads: HashMap<(ScopeId, IpAddr), Lead>,
    pins: HashSet<ClaimId>,
}

impl Placer {
    /// Empty.
    pub fn new(dictionary: Rc<RefCell<Dictionary>>, leases: Leases) -> Self {
        Self {
            dictionary,
            leases,
            facts: HashMap::new(),
            placed: HashMap::new(),
            claims: HashMap::new(),
            belongings: HashMap::new(),
            devices: HashMap::new(),
            at: HashMap::new(),
            leads: HashMap::new(),
            pins: HashSet::new(),
        }
    }

    /// Where a record is.
    pub fn placed(&self, record: RecordId) -> Placed {
        self.placed.get(&record).copied().unwrap_or(NOWHERE)
    }

    /// A device.
    pub fn members(&self, device: Device) -> Option<&Members> {
        self.devices.get(&device)
    }

    /// The name of a device.
    pub fn uid(&self, device: Device) -> Option<Uid> {
        self.devices.get(&device).and_then(|members| members.uid)
    }

    /// Where a claim leads.
    pub fn lead(&self, claim: ClaimId) -> Option<Lead> {
        self.claims.get(&claim).and_then(|state| state.lead)
    }

    /// Where an address leads, which somebody visits.
    pub fn address_lead(&self, scope: ScopeId, ip: IpAddr) -> Option<Lead> {
        self.leads.get(&(scope, ip)).copied()
    }

    /// Records that ever had a claim.
    pub fn claimants(&self, claim: ClaimId) -> &[RecordId] {
        self.claims.get(&claim).map_or(&[], |state| &state.records)
    }

    /// Places anew what an epoch touched: records by `changes`, nodes, MACs and claims by what the
    /// operators before have changed.
    pub fn place(
        &mut self,
        context: &Context<'_>,
        changes: &[RecordChange],
        effects: &[(Scoped, isize)],
        nodes: &[Place],
        mut claims: BTreeSet<ClaimId>,
    ) -> PlaceChanges {
        let mut out = PlaceChanges::default();
        let mut records: BTreeSet<RecordId> = BTreeSet::new();
        let mut addresses: BTreeSet<(ScopeId, IpAddr)> = BTreeSet::new();
        self.pin(effects, &mut claims);
        for (before, after) in changes {
            self.index(before.as_deref(), after, &mut records, &mut claims, &mut addresses);
        }
        records.extend(nodes.iter().flat_map(|place| context.macs.records_of(*place)));
        for record in &records {
            self.claims_of(*record, &mut claims);
        }
        let closed = self.relink(context, &claims);
        records.extend(closed);
        let homes = self.rehome(context, &records, &mut claims, &mut out);
        addresses.extend(homes);
        let clusters = self.rebelong(context, &claims, &mut out);
        self.rename(context, clusters, &mut claims, &mut out);
        for (scope, ip) in addresses {
            self.attach(scope, ip, &mut claims, &mut out);
        }
        for claim in claims {
            self.lead_anew(context, claim, &mut out);
        }
        self.sweep(&mut out);
        out
    }

    fn pin(&mut self, effects: &[(Scoped, isize)], claims: &mut BTreeSet<ClaimId>) {
        let mut dictionary = self.dictionary.borrow_mut();
        for ((partition, effect), diff) in effects {
            let Effect::PinUid(claim) = effect else {
                continue;
            };
            let scope = dictionary.scope(partition);
            let claim = dictionary.claim(scope, claim);
            if *diff > 0 {
                self.pins.insert(claim);
            } else {
                self.pins.remove(&claim);
            }
            claims.insert(claim);
        }
    }

    /// Notes a record's claims and addresses, and what that may move.
    fn index(
        &mut self,
        before: Option<&Record>,
        after: &Arc<Record>,
        records: &mut BTreeSet<RecordId>,
        claims: &mut BTreeSet<ClaimId>,
        addresses: &mut BTreeSet<(ScopeId, IpAddr)>,
    ) {
        let id = after.id;
        self.facts.insert(id, after.clone());
        let same_claims = before.is_some_and(|before| {
            Arc::ptr_eq(&before.claims, &after.claims) && before.now.open == after.now.open
        });
        if !same_claims {
            records.insert(id);
            let old = before.map_or(&[][..], |before| &before.claims);
            let lacks = |spans: &[ClaimSpan], claim| spans.binary_search_by_key(&claim, |s| s.claim).is_err();
            for span in after.claims.iter().filter(|span| lacks(old, span.claim)) {
                self.claims.entry(span.claim).or_default().records.push(id);
            }
            // The private claim of a record that is no longer detached.
            for span in old.iter().filter(|span| lacks(&after.claims, span.claim)) {
                if let Some(state) = self.claims.get_mut(&span.claim) {
                    state.records.retain(|other| *other != id);
                }
                claims.insert(span.claim);
            }
        }
        let scope = self.dictionary.borrow().source_of(id).scope;
        let current = |record: &Record| -> Vec<IpAddr> {
            record.addresses.iter().filter(|span| span.current).map(|span| span.ip).collect()
        };
        let (old, new) = (before.map(current).unwrap_or_default(), current(after));
        for ip in old.iter().filter(|ip| new.binary_search(ip).is_err()) {
            if let Some(there) = self.at.get_mut(&(scope, *ip)) {
                there.retain(|record| *record != id);
            }
        }
        for ip in new.iter().filter(|ip| old.binary_search(ip).is_err()) {
            self.at.entry((scope, *ip)).or_default().push(id);
        }
        // A sighting moves leases even where nothing else changed.
        addresses.extend(old.into_iter().chain(new).map(|ip| (scope, ip)));
        let place = |record: &Record| record.place_now().map(|(ip, _)| ip);
        if before.is_some_and(|before| place(before) != place(after)) {
            records.insert(id);
        }
    }

    fn claims_of(&self, record: RecordId, claims: &mut BTreeSet<ClaimId>) {
        if let Some(record) = self.facts.get(&record) {
            claims.extend(record.claims.iter().map(|span| span.claim));
        }
    }

    /// Finds where dirty claims link. Returns the closed records that this may move.
    fn relink(&mut self, context: &Context<'_>, claims: &BTreeSet<ClaimId>) -> BTreeSet<RecordId> {
        let mut closed = BTreeSet::new();
        for claim in claims {
            let kind = self.dictionary.borrow().claim_entry(*claim).kind;
            let place = match kind {
                Namespace::Other => None,
                Namespace::Mac => match context.blocks.shared_mac(*claim) {
                    Some(cluster) => cluster,
                    None => context.macs.sole(*claim).and_then(|place| context.blocks.cluster(place)),
                },
                _ => {
                    let linked = context.judge.linked(*claim);
                    linked.and_then(|record| context.blocks.cluster(context.macs.place(record)))
                }
            };
            let tier = context.judge.tier(*claim);
            let Some(state) = self.claims.get_mut(claim) else {
                continue;
            };
            if (state.links, state.tier) != (place, tier) {
                (state.links, state.tier) = (place, tier);
                let is_closed = |record: &&RecordId| self.facts.get(*record).is_some_and(|r| !r.now.open);
                closed.extend(state.records.iter().filter(is_closed).copied());
            }
        }
        closed
    }

    /// Finds the device of dirty records that anchor, and of closed ones that follow. Returns the
    /// addresses whose visitors or holders changed by that.
    fn rehome(
        &mut self,
        context: &Context<'_>,
        records: &BTreeSet<RecordId>,
        claims: &mut BTreeSet<ClaimId>,
        out: &mut PlaceChanges,
    ) -> Vec<(ScopeId, IpAddr)> {
        let mut addresses = Vec::new();
        for id in records {
            let Some(record) = self.facts.get(id) else {
                continue;
            };
            let cluster = context.blocks.cluster(context.macs.place(*id));
            let home = match cluster {
                Some(cluster) => {
                    Placed { placement: Placement::Anchored, device: Some(Device::Cluster(cluster)) }
                }
                None if !record.now.open => {
                    let device = self.follow(context, record).map(Device::Cluster);
                    Placed { placement: Placement::Closed, device }
                }
                // A visitor: `attach` finds its device.
                None => match self.placed.get(id) {
                    Some(placed) if record.place_now().is_some() && placed.is_visit() => *placed,
                    _ => Placed { placement: Placement::Unplaced, device: None },
                },
            };
            let before = self.placed.get(id).copied();
            if before != Some(home) {
                self.claims_of(*id, claims);
                let scope = self.dictionary.borrow().source_of(*id).scope;
                let current = self.facts.get(id).map(|record| record.addresses.clone()).unwrap_or_default();
                addresses.extend(current.iter().filter(|span| span.current).map(|span| (scope, span.ip)));
                self.put(*id, home, out);
            }
        }
        addresses
    }

    /// Moves a record to a device.
    fn put(&mut self, record: RecordId, placed: Placed, out: &mut PlaceChanges) {
        let before = self.placed.insert(record, placed);
        if before == Some(placed) {
            return;
        }
        out.records.insert(record);
        if let Some(device) = before.and_then(|before| before.device) {
            out.devices.insert(device);
            if let Some(members) = self.devices.get_mut(&device) {
                members.records.remove(&record);
            }
        }
        if let Some(device) = placed.device {
            out.devices.insert(device);
            self.devices.entry(device).or_default().records.insert(record, placed.placement);
        }
    }

    /// The device whose history a closed record is: where the first of its tier 1 claims links; or, if
    /// none does, where all MACs that it ever had link.
    fn follow(&self, context: &Context<'_>, record: &Record) -> Option<Cluster> {
        let dictionary = self.dictionary.borrow();
        let links = |span: &ClaimSpan| self.claims.get(&span.claim).and_then(|state| state.links);
        let tier_1 = record.claims.iter().filter(|span| dictionary.claim_entry(span.claim).kind.is_tier_1());
        let first = tier_1.filter_map(|span| Some((span, links(span)?))).min_by(|(a, _), (b, _)| {
            let rank =
                |span: &ClaimSpan| (span.first_asserted, dictionary.claim_entry(span.claim).kind.rank());
            rank(a).cmp(&rank(b)).then_with(|| dictionary.compare_claims(a.claim, b.claim))
        });
        if let Some((_, cluster)) = first {
            return Some(cluster);
        }
        let is_mac = |span: &&ClaimSpan| {
            dictionary.claim_entry(span.claim).kind == Namespace::Mac && context.judge.tier(span.claim) == 2
        };
        let mut macs = record.claims.iter().filter(is_mac).map(links);
        let first = macs.next()??;
        macs.all(|cluster| cluster == Some(first)).then_some(first)
    }

    /// Finds to which device dirty claims belong. Returns the clusters that may be called otherwise.
    fn rebelong(
        &mut self,
        context: &Context<'_>,
        claims: &BTreeSet<ClaimId>,
        out: &mut PlaceChanges,
    ) -> BTreeSet<Cluster> {
        let mut clusters: BTreeSet<Cluster> = BTreeSet::new();
        for device in &out.devices {
            if let Device::Cluster(cluster) = device {
                clusters.insert(*cluster);
            }
        }
        for claim in claims {
            if context.judge.tier(*claim) == 3 {
                self.set_belongs(*claim, None, &mut clusters);
                continue;
            }
            let Some(state) = self.claims.get(claim) else {
                continue;
            };
            let belongs = state.links.or_else(|| {
                self.first_asserter(*claim, |placed| match placed {
                    Placed { device: Some(Device::Cluster(_)), placement } => {
                        matches!(placement, Placement::Anchored | Placement::Closed)
                    }
                    _ => false,
                })
                .and_then(|record| match self.placed(record).device {
                    Some(Device::Cluster(cluster)) => Some(cluster),
                    _ => None,
                })
            });
            self.set_belongs(*claim, belongs, &mut clusters);
        }
        clusters
    }

    fn set_belongs(&mut self, claim: ClaimId, belongs: Option<Cluster>, clusters: &mut BTreeSet<Cluster>) {
        let Some(state) = self.claims.get_mut(&claim) else {
            return;
        };
        clusters.extend(belongs);
        if state.belongs == belongs {
            return;
        }
        if let Some(before) = state.belongs {
            clusters.insert(before);
            if let Some(claims) = self.belongings.get_mut(&before) {
                claims.remove(&claim);
            }
        }
        if let Some(cluster) = belongs {
            self.belongings.entry(cluster).or_default().insert(claim);
        }
        state.belongs = belongs;
    }

    /// Of the records of a claim that are placed so, the one that asserted it first, by (first asserted,
    /// record key).
    fn first_asserter(&self, claim: ClaimId, so: impl Fn(Placed) -> bool) -> Option<RecordId> {
        let dictionary = self.dictionary.borrow();
        let records = self.claims.get(&claim)?.records.iter();
        let placed = records.filter(|record| self.placed.get(*record).is_some_and(|placed| so(*placed)));
        let timed = placed.filter_map(|record| Some((self.span(*record, claim)?.first_asserted, *record)));
        let first = timed.min_by(|(a, x), (b, y)| {
            let key = |record: RecordId| &dictionary.record_entry(record).key;
            a.cmp(b).then_with(|| key(*x).cmp(key(*y)))
        });
        first.map(|(_, record)| record)
    }

    fn span(&self, record: RecordId, claim: ClaimId) -> Option<&ClaimSpan> {
        let record = self.facts.get(&record)?;
        let index = record.claims.binary_search_by_key(&claim, |span| span.claim).ok()?;
        record.claims.get(index)
    }

    /// Names clusters anew: the anchor is the smallest by (not pinned, tier, birth, rank, uid(claim)) of
    /// the claims that belong, are usable and not ambiguous.
    fn rename(
        &mut self,
        context: &Context<'_>,
        clusters: BTreeSet<Cluster>,
        claims: &mut BTreeSet<ClaimId>,
        out: &mut PlaceChanges,
    ) {
        for cluster in clusters {
            let device = Device::Cluster(cluster);
            let anchored = self.devices.get(&device).is_some_and(Members::is_anchored);
            let uid = if anchored { self.anchor(context, cluster) } else { None };
            let members = self.devices.entry(device).or_default();
            if members.uid != uid {
                members.uid = uid;
                out.devices.insert(device);
                claims.extend(self.belongings.get(&cluster).into_iter().flatten());
            }
        }
    }

    fn anchor(&self, context: &Context<'_>, cluster: Cluster) -> Option<Uid> {
        let dictionary = self.dictionary.borrow();
        let claims = self.belongings.get(&cluster)?.iter();
        let usable = claims.filter(|claim| {
            context.judge.verdict(**claim).is_usable() && !context.macs.is_ambiguous(**claim)
        });
        let keys = usable.map(|claim| {
            let entry = dictionary.claim_entry(*claim);
            let pinned = self.pins.contains(claim);
            (!pinned, context.judge.tier(*claim), self.birth(*claim), entry.kind.rank(), entry.uid)
        });
        keys.min().map(|(_, _, _, _, uid)| uid)
    }

    /// The earliest time that any record first asserted a claim.
    fn birth(&self, claim: ClaimId) -> i64 {
        let records = self.claims.get(&claim).map_or(&[][..], |state| &state.records);
        let seen = records.iter().filter_map(|record| Some(self.span(*record, claim)?.first_seen));
        seen.min().unwrap_or(i64::MAX)
    }

    /// Finds where the visitors of an address go.
    fn attach(&mut self, scope: ScopeId, ip: IpAddr, claims: &mut BTreeSet<ClaimId>, out: &mut PlaceChanges) {
        let there = self.at.get(&(scope, ip)).cloned().unwrap_or_default();
        let mut visitors: Vec<(i64, RecordId)> = Vec::new();
        let mut holders: Vec<(i64, RecordId, Device)> = Vec::new();
        for id in &there {
            let Some(record) = self.facts.get(id) else {
                continue;
            };
            let placed = self.placed(*id);
            match (placed.placement, placed.device, record.place_now()) {
                (Placement::Anchored, Some(device), _) => {
                    if let Some(seen) = seen_at(record, ip) {
                        holders.push((seen, *id, device));
                    }
                }
                (_, _, Some((place, seen))) if place == ip => visitors.push((seen, *id)),
                _ => {}
            }
        }
        let lead = if visitors.is_empty() {
            None
        } else {
            let seen = visitors.iter().map(|(seen, _)| *seen).max().unwrap_or(i64::MIN);
            let device = self.holder(ip, seen, &holders);
            let placed = match device {
                Some(device) => Placed { placement: Placement::Attached, device: Some(device) },
                None => {
                    Placed { placement: Placement::Provisional, device: Some(Device::Address(scope, ip)) }
                }
            };
            for (_, record) in &visitors {
                if self.placed.get(record) != Some(&placed) {
                    self.claims_of(*record, claims);
                    self.put(*record, placed, out);
                }
            }
            let dictionary = self.dictionary.borrow();
            let key = |record: &RecordId| dictionary.record_entry(*record).key.clone();
            let record = visitors.iter().map(|(_, record)| *record).min_by_key(key);
            record.zip(placed.device).map(|(record, device)| Lead { device, record })
        };
        let before = self.leads.get(&(scope, ip)).copied();
        let address = Device::Address(scope, ip);
        if let Some(lead) = lead
            && lead.device == address
        {
            let uid = self.dictionary.borrow().address_uid(scope, ip);
            self.devices.entry(address).or_default().uid = Some(uid);
        }
        if before != lead {
            out.leads.extend(before.iter().chain(&lead).map(|lead| lead.record));
            match lead {
                Some(lead) => self.leads.insert((scope, ip), lead),
                None => self.leads.remove(&(scope, ip)),
            };
        }
    }

    /// The device that has an address at a time: its last holder within the lease, else its only one
    /// within the lease of a fixed address.
    fn holder(&self, ip: IpAddr, seen: i64, holders: &[(i64, RecordId, Device)]) -> Option<Device> {
        let dictionary = self.dictionary.borrow();
        let near = |lease: i64| holders.iter().filter(move |(at, _, _)| at.abs_diff(seen) <= lease as u64);
        let latest = near(self.leases.of(ip)).max_by(|a, b| -> Ordering {
            let key = |record: RecordId| &dictionary.record_entry(record).key;
            a.0.cmp(&b.0).then_with(|| key(a.1).cmp(key(b.1)))
        });
        if let Some((_, _, device)) = latest {
            return Some(*device);
        }
        let (_, _, device) = holders.first()?;
        let sole = holders.iter().all(|(_, _, other)| other == device);
        (sole && near(self.leases.sole_holder()).next().is_some()).then_some(*device)
    }

    fn lead_anew(&mut self, context: &Context<'_>, claim: ClaimId, out: &mut PlaceChanges) {
        let Some(state) = self.claims.get(&claim) else {
            return;
        };
        let (before, belongs) = (state.lead, state.belongs.map(Device::Cluster));
        let lead = match belongs {
            _ if context.judge.tier(claim) == 3 => None,
            Some(device) => self
                .first_asserter(claim, |placed| placed.device == Some(device))
                .map(|record| Lead { device, record }),
            None => self
                .first_asserter(claim, |placed| placed.is_visit())
                .and_then(|record| Some(Lead { device: self.placed(record).device?, record })),
        };
        if before != lead {
            out.leads.extend(before.iter().chain(&lead).map(|lead| lead.record));
        }
        if let Some(state) = self.claims.get_mut(&claim) {
            state.lead = lead;
        }
    }

    /// Forgets devices that have no members.
    fn sweep(&mut self, out: &mut PlaceChanges) {
        for device in &out.devices {
            if self.devices.get(device).is_some_and(|members| members.records.is_empty()) {
                self.devices.remove(device);
            }
        }
    }
}

fn seen_at(record: &Record, ip: IpAddr) -> Option<i64> {
    let index = record.addresses.binary_search_by_key(&ip, |span| span.ip).ok()?;
    let span = record.addresses.get(index)?;
    span.current.then(|| record.asserted(&span.last).1)
}
