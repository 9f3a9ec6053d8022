//! Place: which claim belongs where, what each device is called, and where visitors go.
//! Source: `identity.md`, "From evidence to devices", 5 to 7.

mod attach;
mod name;

pub use self::attach::AddressId;

use std::{cell::RefCell, net::IpAddr, rc::Rc, sync::Arc};

use hashbrown::{HashMap, HashSet};

use self::attach::Addresses;
use crate::{
    blocks::{Blocks, Cluster},
    by_device::ByDevice,
    claim::Namespace,
    decisions::{Effect, Scoped},
    dictionary::{ClaimId, Dictionary, RecordId, ScopeId},
    facts::Facts,
    few::Few,
    fold::RecordChange,
    macs::{Linked, Macs, Place, sort_unique_places},
    paged::Paged,
    record::Record,
    resolve::Redirect,
    rows::{Placement, Uid},
    rules::Leases,
    sort_unique, sort_unique_labels,
    spans::ClaimSpan,
};

/// What a device is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Device {
    /// A cluster of cores and MAC-only records.
    Cluster(Cluster),
    /// The visitors of an address that nobody holds.
    Address(AddressId),
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

    /// The cluster that it makes, or whose history it is.
    fn cluster(&self) -> Option<Cluster> {
        match self.device {
            Some(Device::Cluster(cluster)) if owns(self.placement) => Some(cluster),
            _ => None,
        }
    }
}

const NOWHERE: Placed = Placed { placement: Placement::Closed, device: None };

/// What an epoch changed; each list is sorted.
#[derive(Default)]
pub struct PlaceChanges {
    /// Records whose placement changed.
    pub records: Vec<RecordId>,
    /// Devices that have other members, another uid, or are gone.
    pub devices: Vec<Device>,
    /// Records by whose rows a claim or address leads, or no longer does.
    pub leads: Vec<RecordId>,
}

/// Where a claim leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lead {
    /// The device.
    pub device: Device,
    /// The record by whose row it leads there.
    pub record: RecordId,
}

/// A claim that several records had. Of any other all this follows from its one record.
#[derive(Clone, Default)]
struct ClaimState {
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
    /// Its records, sorted: anchored, attached, provisional or closed.
    pub records: Few,
    /// Its name.
    pub uid: Option<Uid>,
}

/// What the steps before know, for looking up.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// Records and links.
    pub linked: Linked<'a>,
    /// Nodes and MACs.
    pub macs: &'a Macs,
    /// Clusters.
    pub blocks: &'a Blocks,
}

impl Context<'_> {
    fn facts(&self) -> &Facts {
        self.linked.facts
    }

    fn tier(&self, claim: ClaimId, dictionary: &Dictionary) -> u8 {
        self.linked.judge.tier(claim, dictionary)
    }

    /// The cluster in which a claim links.
    fn links(&self, claim: ClaimId, dictionary: &Dictionary) -> Option<Cluster> {
        match dictionary.class_of(claim).kind {
            Namespace::Other => None,
            Namespace::Mac => match self.blocks.split_mac(claim) {
                Some(cluster) => cluster,
                None => self.macs.first(claim, self.linked).and_then(|place| self.blocks.cluster(place)),
            },
            _ => {
                let record = self.linked.judge.linked(self.facts(), claim)?;
                self.blocks.cluster(self.macs.place(record))
            }
        }
    }
}

/// What an epoch touches.
#[derive(Default)]
struct Dirty {
    /// To be placed anew.
    records: Vec<RecordId>,
    /// Whose device may be called otherwise.
    named: Vec<RecordId>,
    /// That several records had.
    claims: Vec<ClaimId>,
    addresses: Vec<AddressId>,
}

/// The state of the operator.
pub struct Placer {
    dictionary: Rc<RefCell<Dictionary>>,
    leases: Leases,
    /// By record.
    placed: Vec<Placed>,
    claims: Paged<Option<ClaimState>>,
    devices: ByDevice<Members>,
    addresses: Addresses,
    leads: HashMap<AddressId, Lead>,
    pins: HashSet<ClaimId>,
}

impl Placer {
    /// Empty.
    pub fn new(dictionary: Rc<RefCell<Dictionary>>, leases: Leases) -> Self {
        Self {
            dictionary,
            leases,
            placed: Vec::new(),
            claims: Paged::new(None),
            devices: ByDevice::default(),
            addresses: Addresses::default(),
            leads: HashMap::new(),
            pins: HashSet::new(),
        }
    }

    /// Where a record is.
    pub fn placed(&self, record: RecordId) -> Placed {
        self.placed.get(record as usize).copied().unwrap_or(NOWHERE)
    }

    /// A device.
    pub fn members(&self, device: Device) -> Option<&Members> {
        self.devices.get(device)
    }

    /// All devices that have a name, in no particular order.
    pub fn named(&self) -> impl Iterator<Item = (Uid, Device)> {
        self.devices.iter().filter_map(|(device, members)| Some((members.uid?, device)))
    }

    /// The name of a device.
    pub fn uid(&self, device: Device) -> Option<Uid> {
        self.devices.get(device).and_then(|members| members.uid)
    }

    /// What is known of a claim that several records had.
    fn state(&self, context: &Context<'_>, claim: ClaimId) -> Option<&ClaimState> {
        self.claims[context.facts().shared(claim)?].as_ref()
    }

    /// Where a claim leads.
    pub fn lead(&self, context: Context<'_>, claim: ClaimId, dictionary: &Dictionary) -> Option<Lead> {
        match context.facts().claimants(claim) {
            _ if context.facts().is_shared(claim) => self.state(&context, claim)?.lead,
            [record] if context.tier(claim, dictionary) < 3 => {
                let placed = self.placed(*record);
                let leads = placed.cluster().is_some() || placed.is_visit();
                placed.device.filter(|_| leads).map(|device| Lead { device, record: *record })
            }
            _ => None,
        }
    }

    /// Where an address leads, which somebody visits.
    pub fn address_lead(&self, scope: ScopeId, ip: IpAddr) -> Option<Lead> {
        self.leads.get(&self.addresses.find(scope, ip)?).copied()
    }

    /// Where all claims and addresses lead: from uid to uid, sorted.
    pub fn redirects(&self, context: &Context<'_>) -> Vec<Redirect> {
        let dictionary = self.dictionary.borrow();
        let claims = (0..dictionary.claims() as ClaimId).filter_map(|claim| {
            let lead = self.lead(*context, claim, &dictionary)?;
            Some((dictionary.claim_uid(claim), self.uid(lead.device)?))
        });
        let addresses = self.leads.iter().filter_map(|(address, lead)| {
            let (scope, ip) = self.addresses.place(*address);
            Some((dictionary.address_uid(scope, ip), self.uid(lead.device)?))
        });
        let mut redirects: Vec<Redirect> = claims.chain(addresses).collect();
        redirects.sort_unstable();
        redirects
    }

    /// Places anew what an epoch touched: records by `changes`, nodes, MACs and claims by what the
    /// operators before have changed.
    pub fn place(
        &mut self,
        context: &Context<'_>,
        changes: &[RecordChange],
        effects: &[(Scoped, isize)],
        nodes: &[Place],
        mut touched: Vec<ClaimId>,
    ) -> PlaceChanges {
        let mut out = PlaceChanges::default();
        let mut dirty = Dirty::default();
        self.pin(effects, &mut touched);
        for (before, after) in changes {
            self.index(context, before.as_deref(), after, &mut dirty, &mut out);
        }
        dirty.records.extend(nodes.iter().flat_map(|place| context.macs.records_of(place)));
        self.touch(context, touched, &mut dirty, &mut out);
        sort_unique_labels(&mut dirty.records);
        for record in &dirty.records {
            claims_of(context, *record, &mut dirty.claims);
        }
        sort_unique_labels(&mut dirty.claims);
        self.relink(context, &mut dirty);
        self.rehome(context, &mut dirty, &mut out);
        let clusters = self.rebelong(context, &mut dirty, &mut out);
        self.rename(context, clusters, &mut out);
        sort_unique_labels(&mut dirty.addresses);
        for address in std::mem::take(&mut dirty.addresses) {
            self.attach(context, address, &mut dirty.claims, &mut out);
        }
        sort_unique_labels(&mut dirty.claims);
        for claim in dirty.claims {
            self.lead_anew(context, claim, &mut out);
        }
        sort_unique_labels(&mut out.records);
        sort_unique(&mut out.devices);
        sort_unique_labels(&mut out.leads);
        self.sweep(&out);
        out
    }

    fn pin(&mut self, effects: &[(Scoped, isize)], touched: &mut Vec<ClaimId>) {
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
            touched.push(claim);
        }
    }

    /// Notes a record's claims and addresses, and what that may move.
    fn index(
        &mut self,
        context: &Context<'_>,
        before: Option<&Record>,
        after: &Arc<Record>,
        dirty: &mut Dirty,
        out: &mut PlaceChanges,
    ) {
        let id = after.id;
        let same_claims = before
            .is_some_and(|before| before.claims.is(&after.claims) && before.now().open == after.now().open);
        if !same_claims {
            dirty.records.push(id);
            for claim in after.claims.iter().map(|span| span.claim) {
                let Some(shared) = context.facts().shared(claim) else {
                    continue;
                };
                // Until now one of them had it to itself, and it led by that one's row.
                if self.claims[shared].is_none() {
                    self.claims[shared] = Some(ClaimState::default());
                    dirty.named.extend(context.facts().claimants(claim));
                    out.leads.extend(context.facts().claimants(claim));
                }
            }
        }
        let scope = self.dictionary.borrow().source_entry(after.source).scope;
        let old = before.map_or(&[][..], |record| &record.addresses);
        self.addresses.take(scope, id, old, &after.addresses, &mut dirty.addresses);
        let place = |record: &Record| record.place_now().map(|(ip, _)| ip);
        if before.is_some_and(|before| place(before) != place(after)) {
            dirty.records.push(id);
        }
    }

    /// Notes what claims may move that link otherwise, or count otherwise.
    fn touch(&self, context: &Context<'_>, touched: Vec<ClaimId>, dirty: &mut Dirty, out: &mut PlaceChanges) {
        let mut last = None;
        for claim in touched {
            if context.facts().is_shared(claim) {
                dirty.claims.push(claim);
                continue;
            }
            for record in context.facts().claimants(claim) {
                if last.replace(*record) == Some(*record) {
                    continue;
                }
                dirty.named.push(*record);
                out.leads.push(*record);
                if context.facts().record(*record).is_some_and(|record| !record.now().open) {
                    dirty.records.push(*record);
                }
            }
        }
    }

    /// Finds where dirty claims link, and the closed records that this may move.
    fn relink(&mut self, context: &Context<'_>, dirty: &mut Dirty) {
        let dictionary = self.dictionary.borrow();
        let before = dirty.records.len();
        for claim in &dirty.claims {
            let (links, tier) = (context.links(*claim, &dictionary), context.tier(*claim, &dictionary));
            let shared = context.facts().shared(*claim);
            let Some(state) = shared.and_then(|shared| self.claims[shared].as_mut()) else {
                continue;
            };
            if (state.links, state.tier) != (links, tier) {
                (state.links, state.tier) = (links, tier);
                let is_closed =
                    |id: &&RecordId| context.facts().record(**id).is_some_and(|record| !record.now().open);
                dirty.records.extend(context.facts().claimants(*claim).iter().filter(is_closed));
            }
        }
        if dirty.records.len() > before {
            sort_unique_labels(&mut dirty.records);
        }
    }

    /// Finds the device of dirty records that anchor, and of closed ones that follow; and the addresses
    /// whose visitors or holders changed by that.
    fn rehome(&mut self, context: &Context<'_>, dirty: &mut Dirty, out: &mut PlaceChanges) {
        let mut homes: Vec<(RecordId, Placed)> = Vec::new();
        for id in &dirty.records {
            let Some(record) = context.facts().record(*id) else {
                continue;
            };
            let before = self.placed(*id);
            let cluster = context.blocks.cluster(context.macs.place(*id));
            let home = match cluster {
                Some(cluster) => {
                    Placed { placement: Placement::Anchored, device: Some(Device::Cluster(cluster)) }
                }
                None if !record.now().open => {
                    let device = self.follow(context, record).map(Device::Cluster);
                    Placed { placement: Placement::Closed, device }
                }
                // A visitor: `attach` finds its device.
                None if record.place_now().is_some() && before.is_visit() => before,
                None => Placed { placement: Placement::Unplaced, device: None },
            };
            if before != home {
                claims_of(context, *id, &mut dirty.claims);
                let scope = self.dictionary.borrow().source_entry(record.source).scope;
                let current = record.addresses.iter().filter(|span| span.current);
                dirty.addresses.extend(current.filter_map(|span| self.addresses.find(scope, span.ip)));
                homes.push((*id, home));
            }
        }
        self.put(&homes, out);
    }

    /// Moves records, which are sorted, each to another place. Those of a big device leave it from its end, and enter it
    /// there: elsewhere each would move all that come after it.
    fn put(&mut self, moves: &[(RecordId, Placed)], out: &mut PlaceChanges) {
        let last = moves.last().map_or(0, |(record, _)| *record as usize + 1);
        self.placed.resize(last.max(self.placed.len()), NOWHERE);
        for (record, placed) in moves.iter().rev() {
            out.records.push(*record);
            let before = std::mem::replace(&mut self.placed[*record as usize], *placed);
            if let Some(device) = before.device {
                out.devices.push(device);
                self.devices.slot(device).records.remove_sorted(*record);
            }
        }
        for (record, placed) in moves {
            if let Some(device) = placed.device {
                out.devices.push(device);
                self.devices.slot(device).records.insert_sorted(*record);
            }
        }
    }

    /// The device whose history a closed record is: where the first of its tier 1 claims links; or, if
    /// none does, where all MACs that it ever had link. A claim that nobody else had links nothing then.
    fn follow(&self, context: &Context<'_>, record: &Record) -> Option<Cluster> {
        let dictionary = self.dictionary.borrow();
        let links = |span: &ClaimSpan| self.state(context, span.claim).and_then(|state| state.links);
        let tier_1 = record.claims.iter().filter(|span| dictionary.class_of(span.claim).kind.is_tier_1());
        let first = tier_1.filter_map(|span| Some((span, links(span)?))).min_by(|(a, _), (b, _)| {
            let rank = |span: &ClaimSpan| {
                (record.times(span).first_asserted, dictionary.class_of(span.claim).kind.rank())
            };
            rank(a).cmp(&rank(b)).then_with(|| dictionary.compare_claims(a.claim, b.claim))
        });
        if let Some((_, cluster)) = first {
            return Some(cluster);
        }
        let is_mac = |span: &&ClaimSpan| {
            dictionary.class_of(span.claim).kind == Namespace::Mac
                && context.tier(span.claim, &dictionary) == 2
        };
        let mut macs = record.claims.iter().filter(is_mac).map(links);
        let first = macs.next()??;
        macs.all(|cluster| cluster == Some(first)).then_some(first)
    }

    /// Finds to which device dirty claims belong. Returns the clusters that may be called otherwise.
    fn rebelong(&mut self, context: &Context<'_>, dirty: &mut Dirty, out: &mut PlaceChanges) -> Vec<Cluster> {
        let mut clusters: Vec<Cluster> = Vec::new();
        let of = |device: &Device| match device {
            Device::Cluster(cluster) => Some(*cluster),
            Device::Address(..) => None,
        };
        clusters.extend(out.devices.iter().filter_map(of));
        let named = dirty.named.iter().chain(&dirty.records);
        clusters.extend(named.filter_map(|record| self.placed(*record).cluster()));
        let dictionary = self.dictionary.clone();
        let dictionary = dictionary.borrow();
        sort_unique_labels(&mut dirty.claims);
        for claim in &dirty.claims {
            let links = self.state(context, *claim).and_then(|state| state.links);
            let belongs = if context.tier(*claim, &dictionary) == 3 {
                None
            } else {
                links.or_else(|| {
                    let first = self.first_asserter(context, *claim, |placed| placed.cluster().is_some());
                    first.and_then(|record| self.placed(record).cluster())
                })
            };
            let shared = context.facts().shared(*claim);
            if let Some(state) = shared.and_then(|shared| self.claims[shared].as_mut()) {
                // Even where it stays: its birth may be another.
                clusters.extend(state.belongs.iter().chain(&belongs));
                state.belongs = belongs;
            }
        }
        sort_unique_places(&mut clusters);
        clusters
    }

    /// Of the records of a claim that are placed so, the one that asserted it first, by (first asserted,
    /// record key).
    fn first_asserter(
        &self,
        context: &Context<'_>,
        claim: ClaimId,
        so: impl Fn(Placed) -> bool,
    ) -> Option<RecordId> {
        let dictionary = self.dictionary.borrow();
        let records = context.facts().claimants(claim).iter().copied();
        let placed = records.filter(|record| so(self.placed(*record)));
        let timed =
            placed.filter_map(|record| Some((context.facts().times(record, claim)?.first_asserted, record)));
        let first = timed.min_by(|(a, x), (b, y)| {
            let key = |record: RecordId| dictionary.key(record);
            a.cmp(b).then_with(|| key(*x).cmp(key(*y)))
        });
        first.map(|(_, record)| record)
    }

    fn lead_anew(&mut self, context: &Context<'_>, claim: ClaimId, out: &mut PlaceChanges) {
        let Some(state) = self.state(context, claim) else {
            return;
        };
        let (before, belongs) = (state.lead, state.belongs.map(Device::Cluster));
        let tier = context.tier(claim, &self.dictionary.borrow());
        let lead = match belongs {
            _ if tier == 3 => None,
            Some(device) => self
                .first_asserter(context, claim, |placed| placed.device == Some(device))
                .map(|record| Lead { device, record }),
            None => self
                .first_asserter(context, claim, |placed| placed.is_visit())
                .and_then(|record| Some(Lead { device: self.placed(record).device?, record })),
        };
        if before != lead {
            out.leads.extend(before.iter().chain(&lead).map(|lead| lead.record));
        }
        let shared = context.facts().shared(claim);
        if let Some(state) = shared.and_then(|shared| self.claims[shared].as_mut()) {
            state.lead = lead;
        }
    }

    /// Forgets devices that have no members.
    fn sweep(&mut self, out: &PlaceChanges) {
        for device in &out.devices {
            self.forget_empty(*device);
        }
    }

    /// Forgets a device that has no members.
    fn forget_empty(&mut self, device: Device) {
        if self.devices.get(device).is_some_and(|members| members.records.is_empty()) {
            self.devices.remove(device);
        }
    }
}

/// Notes the claims of a record that others had too.
fn claims_of(context: &Context<'_>, record: RecordId, claims: &mut Vec<ClaimId>) {
    if let Some(record) = context.facts().record(record) {
        let shared = record.claims.iter().filter(|span| context.facts().is_shared(span.claim));
        claims.extend(shared.map(|span| span.claim));
    }
}

/// Whether the claims of a record that is placed so may belong to its device.
fn owns(placement: Placement) -> bool {
    matches!(placement, Placement::Anchored | Placement::Closed)
}
