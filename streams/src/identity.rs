//! Identity: judge, cores, MAC edges, blocks, join, name and attach, one after the other, each for
//! what the one before has changed. Graph work knows no rules; rules know no dataflow.

use std::{cell::RefCell, rc::Rc, sync::Arc};

use crate::{
    blocks::{Blocks, mac_of, node_of},
    components::{Components, Label},
    cores::Cores,
    decisions::Scoped,
    dictionary::{ClaimId, Dictionary, RecordId},
    facts::Facts,
    fold::RecordChange,
    judge::Judge,
    macs::{Linked, Macs, Place},
    place::{Context, PlaceChanges, Placer},
    rules::Rules,
    sort_unique_labels,
    spans::Status,
};

/// The state of identity.
pub struct Identity {
    /// Verdicts on claims.
    pub judge: Judge,
    cores: Cores,
    /// Verdicts on MACs.
    pub macs: Macs,
    graph: Components,
    /// Clusters.
    pub blocks: Blocks,
    /// Devices.
    pub placer: Placer,
}

/// What an epoch changed; each list is sorted.
#[derive(Default)]
pub struct IdentityChanges {
    /// Placements, devices and leads.
    pub places: PlaceChanges,
    /// Records of whose evidence the state may have changed, or about which there may be another issue.
    pub evidence: Vec<RecordId>,
    /// Claims about which there may be another issue.
    pub claims: Vec<ClaimId>,
}

impl Identity {
    /// Empty.
    pub fn new(dictionary: Rc<RefCell<Dictionary>>, rules: &Arc<Rules>) -> Self {
        Self {
            judge: Judge::new(dictionary.clone(), rules.caps.clone()),
            cores: Cores::default(),
            macs: Macs::new(dictionary.clone()),
            graph: Components::default(),
            blocks: Blocks::new(dictionary.clone(), rules.caps.block),
            placer: Placer::new(dictionary, rules.leases.clone()),
        }
    }

    /// Takes an epoch's changes of records and decisions through all steps.
    pub fn step(
        &mut self,
        facts: &Facts,
        changes: &[RecordChange],
        effects: &[(Scoped, isize)],
    ) -> IdentityChanges {
        let judged = self.judge.judge(facts, changes, effects);
        let of_records = self.cores.apply(facts, &self.judge, &judged.links);
        let linked = Linked { facts, judge: &self.judge };
        let macs = self.macs.judge(linked, changes, &judged.links, &of_records);
        let shared = macs
            .shared
            .iter()
            .filter_map(|((place, mac), diff)| Some(((node_of(*place), mac_of(facts.shared(*mac)?)), *diff)));
        let moves = self.graph.apply(shared.collect());
        let blocks = self.blocks.decide(&macs, &moves, &self.graph, &self.macs, linked);

        // Claims of which more may have changed than where they lead.
        let mut told: Vec<ClaimId> = judged.verdicts.iter().chain(&macs.ambiguous).copied().collect();
        told.extend(blocks.refused.iter().map(|(_, mac)| *mac));
        sort_unique_labels(&mut told);
        let linking = judged.links.iter().map(|(link, _)| link.claim);
        let touched = told.iter().chain(&blocks.macs).copied().chain(linking).collect();
        let context = Context { linked, macs: &self.macs, blocks: &self.blocks };
        let places = self.placer.place(&context, changes, effects, &blocks.nodes, touched);

        let mut evidence: Vec<RecordId> = Vec::new();
        evidence.extend(judged.links.iter().map(|(link, _)| link.record));
        evidence.extend(judged.bridging.iter().chain(&macs.left_out).chain(&blocks.bridging));
        let nodes = blocks.nodes.iter().chain(blocks.refused.iter().map(|(place, _)| place));
        evidence.extend(nodes.flat_map(|place| self.macs.records_of(place)));
        evidence.extend(told.iter().flat_map(|claim| facts.claimants(*claim)));
        let is_listed = |record: &&RecordId, mac: ClaimId| {
            facts.span(**record, mac).is_some_and(|span| span.status == Status::Listed)
        };
        let listed = blocks
            .macs
            .iter()
            .flat_map(|mac| facts.claimants(*mac).iter().filter(move |record| is_listed(record, *mac)));
        evidence.extend(listed);
        evidence.extend(&places.leads);
        sort_unique_labels(&mut evidence);
        IdentityChanges { places, evidence, claims: told }
    }

    /// What steps 1 to 4 know, for looking up.
    pub fn context<'a>(&'a self, facts: &'a Facts) -> Context<'a> {
        let linked = Linked { facts, judge: &self.judge };
        Context { linked, macs: &self.macs, blocks: &self.blocks }
    }

    /// The core of a record.
    pub fn core(&self, record: RecordId) -> Option<Label> {
        self.cores.label(record)
    }

    /// The block of a core or MAC-only record; none where it shares no MAC, and is alone.
    pub fn block(&self, place: Place) -> Option<Label> {
        self.graph.label(node_of(place))
    }

    /// How many records the biggest core or block has, shared claims and MACs counted in.
    pub fn biggest(&self) -> usize {
        self.cores.largest().max(self.graph.largest())
    }
}
