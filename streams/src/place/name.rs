//! Name: what each device is called. Source: `identity.md`, 6.

use super::{Context, Device, Members, PlaceChanges, Placer, owns};
use crate::{
    blocks::Cluster,
    dictionary::ClaimId,
    rows::{Placement, Uid},
    sort_unique,
};

impl Placer {
    /// Names clusters anew: the anchor is the smallest by (not pinned, tier, birth, rank, uid(claim)) of
    /// the claims that belong, are usable and not ambiguous.
    pub(super) fn rename(&mut self, context: &Context<'_>, clusters: Vec<Cluster>, out: &mut PlaceChanges) {
        for cluster in clusters {
            let device = Device::Cluster(cluster);
            let uid = self.devices.get(device).filter(|members| self.is_anchored(members));
            let uid = uid.and_then(|members| self.anchor(context, cluster, members));
            let members = self.devices.slot(device);
            if members.uid != uid {
                members.uid = uid;
                out.devices.push(device);
            } else {
                self.forget_empty(device);
            }
        }
    }

    fn is_anchored(&self, members: &Members) -> bool {
        members.records.iter().any(|record| self.placed(*record).placement == Placement::Anchored)
    }

    fn anchor(&self, context: &Context<'_>, cluster: Cluster, members: &Members) -> Option<Uid> {
        let dictionary = self.dictionary.borrow();
        let mut best: Option<((bool, u8, i64, u8), ClaimId)> = None;
        let mut consider = |claim: ClaimId, birth: &dyn Fn() -> i64| {
            let (pinned, tier) = (self.pins.contains(&claim), context.tier(claim, &dictionary));
            if tier == 3 || best.is_some_and(|((unpinned, t, ..), _)| (unpinned, t) < (!pinned, tier)) {
                return;
            }
            if !context.linked.judge.verdict(claim).is_usable() || context.macs.is_ambiguous(claim) {
                return;
            }
            let rank = dictionary.class_of(claim).kind.rank();
            let key = (!pinned, tier, birth(), rank);
            let uid = |claim| dictionary.claim_uid(claim);
            if best.is_none_or(|(least, known)| {
                key.cmp(&least).then_with(|| uid(claim).cmp(&uid(known))).is_lt()
            }) {
                best = Some((key, claim));
            }
        };
        // What belongs to a cluster is claimed by a record of it. Each claim once: thousands of its records may share one.
        let records = members.records.iter().filter(|record| owns(self.placed(**record).placement));
        let records = records.filter_map(|record| context.facts().record(*record));
        let mut shared: Vec<ClaimId> = Vec::new();
        for (record, span) in records.flat_map(|record| record.claims.iter().map(move |span| (record, span)))
        {
            if context.facts().is_shared(span.claim) {
                shared.push(span.claim);
            } else {
                consider(span.claim, &|| record.times(span).first_seen);
            }
        }
        sort_unique(&mut shared);
        for claim in shared {
            if self.state(context, claim).and_then(|state| state.belongs) == Some(cluster) {
                consider(claim, &|| birth(context, claim));
            }
        }
        best.map(|(_, claim)| dictionary.claim_uid(claim))
    }
}

/// The earliest time that any record first asserted a claim.
fn birth(context: &Context<'_>, claim: ClaimId) -> i64 {
    let records = context.facts().claimants(claim).iter();
    let seen = records.filter_map(|record| Some(context.facts().times(*record, claim)?.first_seen));
    seen.min().unwrap_or(i64::MAX)
}
