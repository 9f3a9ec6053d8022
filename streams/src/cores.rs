//! Cores: components of records over the tier 1 claims that link them, and `link` decisions.
//! Source: `identity.md`, "From evidence to devices", 2.
//!
//! Most claims link one record alone and join nothing: they are no nodes. A record that any links has an edge to
//! itself; a claim has edges to its records from when it first links several, or is in a decision.

use std::collections::BTreeSet;

use crate::{
    components::{Components, Label, Node},
    dictionary::{ClaimId, RecordId},
    facts::Facts,
    judge::{Judge, Link},
    paged::Paged,
};

/// An edge, and whether it came (+1) or went (-1).
type EdgeChange = ((Node, Node), isize);

/// Whether a claim is a node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ClaimNode {
    /// It links one record at most.
    No,
    /// Since this epoch: it has the edges that it is to have.
    New,
    Yes,
}

/// What an epoch does.
#[derive(Default)]
struct Epoch {
    edges: Vec<EdgeChange>,
    new: Vec<ClaimId>,
}

/// The state of the operator.
pub struct Cores {
    graph: Components,
    nodes: Paged<ClaimNode>,
    tied: BTreeSet<(ClaimId, ClaimId)>,
}

impl Default for Cores {
    fn default() -> Self {
        Self { graph: Components::default(), nodes: Paged::new(ClaimNode::No), tied: BTreeSet::new() }
    }
}

fn record_node(record: RecordId) -> Node {
    record << 1
}

fn claim_node(claim: ClaimId) -> Node {
    claim << 1 | 1
}

impl Cores {
    /// The core of a record.
    pub fn label(&self, record: RecordId) -> Option<Label> {
        self.graph.label(record_node(record))
    }

    /// How many records the biggest core has, shared claims counted in.
    pub fn largest(&self) -> usize {
        self.graph.largest()
    }

    /// Takes in which links came and went, those of a record side by side. Returns the records whose core changed.
    pub fn apply(
        &mut self,
        facts: &Facts,
        judge: &Judge,
        links: &[(Link, isize)],
    ) -> Vec<(RecordId, Option<Label>)> {
        let mut epoch = Epoch::default();
        self.tie(facts, judge, &mut epoch);
        for of_record in links.chunk_by(|(a, _), (b, _)| a.record == b.record) {
            let tier_1 = of_record.iter().filter(|(link, _)| !link.is_mac);
            let (mut came, mut any) = (0, None);
            for (link, diff) in tier_1 {
                came += diff;
                any = Some(link.record);
                match self.nodes[link.claim] {
                    ClaimNode::Yes => {
                        epoch.edges.push(((record_node(link.record), claim_node(link.claim)), *diff));
                    }
                    ClaimNode::No if *diff > 0 && facts.is_shared(link.claim) => {
                        self.enter(link.claim, facts, judge, &mut epoch);
                    }
                    ClaimNode::No | ClaimNode::New => {}
                }
            }
            let Some(record) = any else { continue };
            let now = judge.links(record).filter(|link| !link.is_mac).count() as isize;
            let edge = (record_node(record), record_node(record));
            match (now - came > 0, now > 0) {
                (false, true) => epoch.edges.push((edge, 1)),
                (true, false) => epoch.edges.push((edge, -1)),
                _ => {}
            }
        }
        for claim in epoch.new {
            self.nodes[claim] = ClaimNode::Yes;
        }
        let moves = self.graph.apply(epoch.edges);
        let records = moves.into_iter().filter(|(node, _, _)| node & 1 == 0);
        records.map(|(node, _, after)| (node >> 1, after)).collect()
    }

    /// Makes a claim a node, with edges to all records that it links now.
    fn enter(&mut self, claim: ClaimId, facts: &Facts, judge: &Judge, epoch: &mut Epoch) {
        if self.nodes[claim] == ClaimNode::No {
            self.nodes[claim] = ClaimNode::New;
            epoch.new.push(claim);
            let linked = facts.claimants(claim).iter().filter(|record| judge.is_linked(**record, claim));
            epoch.edges.extend(linked.map(|record| ((record_node(*record), claim_node(claim)), 1)));
        }
    }

    /// Takes in the decisions that stand.
    fn tie(&mut self, facts: &Facts, judge: &Judge, epoch: &mut Epoch) {
        if self.tied == *judge.tied() {
            return;
        }
        let before = std::mem::replace(&mut self.tied, judge.tied().clone());
        for claim in self.tied.clone().into_iter().flat_map(|(a, b)| [a, b]) {
            self.enter(claim, facts, judge, epoch);
        }
        let edge = |(a, b): &(ClaimId, ClaimId)| (claim_node(*a), claim_node(*b));
        epoch.edges.extend(before.difference(&self.tied).map(|tie| (edge(tie), -1)));
        epoch.edges.extend(self.tied.difference(&before).map(|tie| (edge(tie), 1)));
    }
}
