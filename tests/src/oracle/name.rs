//! Steps 5 and 6: devices, the history that belongs to them, and their names.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    cores::Cores,
    decide::InForce,
    edges::Edges,
    fold::Record,
    join::{Clusters, Node, node},
    judge::{Judged, private_claim},
    normalise::{self, Claim},
};

/// The devices of a partition; a device goes by its cluster.
pub(super) struct Devices {
    /// The device of each anchored record.
    pub(super) anchored: BTreeMap<String, Node>,
    /// Each closed record, with the device whose history it is.
    pub(super) closed: BTreeMap<String, Option<Node>>,
    /// The device of each claim that belongs to one.
    pub(super) belongs: BTreeMap<Claim, Node>,
    /// The claim that names each device.
    pub(super) anchors: BTreeMap<Node, Claim>,
}

/// Everything decided before the devices are named.
pub(super) struct Evidence<'a> {
    pub(super) records: &'a BTreeMap<String, Record>,
    pub(super) decisions: &'a InForce,
    pub(super) judged: &'a Judged,
    pub(super) cores: &'a Cores,
    pub(super) edges: &'a Edges,
    pub(super) clusters: &'a Clusters,
}

impl Devices {
    pub(super) fn new(evidence: &Evidence<'_>, uid: impl Fn(&Claim) -> String) -> Self {
        let anchored = anchored(evidence);
        let linked = linked(evidence, &anchored);
        let mut closed = BTreeMap::new();
        for record in evidence.records.values() {
            if !record.open && !anchored.contains_key(&record.key) {
                let device = history_of(record, evidence.decisions, &linked);
                closed.insert(record.key.clone(), device);
            }
        }
        let mut belongs = linked;
        for (claim, asserters) in asserters(evidence) {
            if belongs.contains_key(&claim) {
                continue;
            }
            let home = |record| anchored.get(record).or_else(|| closed.get(record)?.as_ref());
            let first = asserters.iter().find_map(|(_, record)| home(record));
            if let Some(device) = first {
                belongs.insert(claim, device.clone());
            }
        }
        let anchors = anchors(evidence, &belongs, uid);
        Self { anchored, closed, belongs, anchors }
    }
}

/// A cluster with a core or a MAC-only record is one device; its records are anchored.
fn anchored(evidence: &Evidence<'_>) -> BTreeMap<String, Node> {
    let in_cores = evidence.cores.of.keys();
    let records = in_cores.chain(&evidence.clusters.joined);
    records.map(|r| (r.clone(), evidence.clusters.of(&node(evidence.cores, r)))).collect()
}

/// The device in which a claim links.
fn linked(evidence: &Evidence<'_>, anchored: &BTreeMap<String, Node>) -> BTreeMap<Claim, Node> {
    let mut linked = BTreeMap::new();
    for (record, claims) in &evidence.judged.links {
        for claim in claims.keys().filter(|claim| normalise::tier(claim) == 1) {
            if let Some(device) = anchored.get(record) {
                linked.insert(claim.clone(), device.clone());
            }
        }
    }
    let edges = evidence.edges.allowed.iter().chain(evidence.edges.judged.keys());
    for (_, mac) in edges {
        let device = evidence.clusters.of(&Node::Mac(mac.clone()));
        if !matches!(device, Node::Mac(_)) {
            linked.insert(mac.clone(), device);
        }
    }
    linked
}

/// The device whose history a closed record is: where the first of its tier 1 claims links, or else
/// all MACs that it ever had.
fn history_of(record: &Record, decisions: &InForce, linked: &BTreeMap<Claim, Node>) -> Option<Node> {
    let of_tier = |tier| record.claims.iter().filter(move |(c, _)| decisions.tier(c) == tier);
    let mut first: Vec<_> =
        of_tier(1).map(|(c, span)| (span.first_asserted, normalise::rank(c), c)).collect();
    first.sort();
    if let Some(device) = first.iter().find_map(|(_, _, claim)| linked.get(*claim)) {
        return Some(device.clone());
    }
    let places: BTreeSet<Option<&Node>> = of_tier(2).map(|(mac, _)| linked.get(mac)).collect();
    if places.len() == 1 { places.first().copied().flatten().cloned() } else { None }
}

/// Per claim of tier 1 or 2, those that ever asserted it, by (first asserted, record key).
pub(super) fn asserters(evidence: &Evidence<'_>) -> BTreeMap<Claim, BTreeSet<(i64, String)>> {
    let mut asserters: BTreeMap<Claim, BTreeSet<(i64, String)>> = BTreeMap::new();
    for record in evidence.records.values() {
        let own = record.claims.iter().map(|(claim, span)| (claim.clone(), span));
        let detached = evidence.decisions.detached.contains(&record.key);
        let private = record.asserts.as_ref().filter(|_| detached);
        let private = private.map(|span| (private_claim(&record.key), span));
        for (claim, span) in own.chain(private) {
            if evidence.decisions.tier(&claim) <= 2 {
                let by = asserters.entry(claim).or_default();
                by.insert((span.first_asserted, record.key.clone()));
            }
        }
    }
    asserters
}

/// The claim that names each device: the smallest of those that belong and are usable and not ambiguous.
fn anchors(
    evidence: &Evidence<'_>,
    belongs: &BTreeMap<Claim, Node>,
    uid: impl Fn(&Claim) -> String,
) -> BTreeMap<Node, Claim> {
    let mut candidates: BTreeMap<&Node, BTreeSet<_>> = BTreeMap::new();
    for (claim, device) in belongs {
        if evidence.judged.unusable.contains(claim) || evidence.edges.ambiguous.contains(claim) {
            continue;
        }
        let pinned = evidence.decisions.pinned.contains(claim);
        let tier = evidence.decisions.tier(claim);
        let order = (!pinned, tier, birth(claim, evidence), normalise::rank(claim), uid(claim));
        candidates.entry(device).or_default().insert((order, claim));
    }
    let smallest = candidates.into_iter().filter_map(|(device, candidates)| {
        let (_, claim) = candidates.into_iter().next()?;
        Some((device.clone(), claim.clone()))
    });
    smallest.collect()
}

/// The earliest time that any record first asserted a claim.
fn birth(claim: &Claim, evidence: &Evidence<'_>) -> Option<i64> {
    let spans = evidence.records.values().filter_map(|record| {
        let private = claim.0 == "detached" && claim.1 == record.key;
        if private { record.asserts.as_ref() } else { record.claims.get(claim) }
    });
    spans.map(|span| span.first_seen).min()
}
