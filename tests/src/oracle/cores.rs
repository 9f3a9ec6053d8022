//! Step 2, cores: components of records over usable tier 1 claims, plus `link` decisions.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    decide::InForce,
    groups::Groups,
    judge::{Links, Standing},
    normalise::{self, Claim},
};

/// The cores of a partition; a core goes by its smallest record key.
pub(super) struct Cores {
    /// The core of each record that is in one.
    pub(super) of: BTreeMap<String, String>,
    /// What makes them: each record with each claim that links it, and the claims of `link` decisions.
    pub(super) edges: BTreeSet<(Node, Node)>,
    /// The exclusive namespaces that a core holds.
    holds: BTreeMap<String, BTreeSet<String>>,
}

/// What cores are made of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Node {
    Record(String),
    Claim(Claim),
}

impl Cores {
    pub(super) fn new(links: &Links, decisions: &InForce) -> Self {
        let mut edges = BTreeSet::new();
        let mut linking = BTreeSet::new();
        for (record, claims) in links {
            for claim in claims.keys().filter(|claim| normalise::tier(claim) == 1) {
                edges.insert((Node::Record(record.clone()), Node::Claim(claim.clone())));
                linking.insert(claim);
            }
        }
        for (a, b) in &decisions.links {
            if linking.contains(a) && linking.contains(b) {
                edges.insert((Node::Claim(a.clone()), Node::Claim(b.clone())));
            }
        }
        let mut groups = Groups::new();
        for (a, b) in &edges {
            groups.merge(a, b);
        }
        let mut cores = Self { of: BTreeMap::new(), edges, holds: BTreeMap::new() };
        for (record, claims) in links {
            if !claims.keys().any(|claim| normalise::tier(claim) == 1) {
                continue;
            }
            let Node::Record(core) = groups.of(&Node::Record(record.clone())) else {
                continue;
            };
            let current = claims.iter().filter(|(_, standing)| **standing == Standing::Current);
            let exclusive = current.filter(|(claim, _)| normalise::is_exclusive(claim));
            let held = cores.holds.entry(core.clone()).or_default();
            held.extend(exclusive.map(|(claim, _)| claim.0.clone()));
            cores.of.insert(record.clone(), core);
        }
        cores
    }

    /// The cores.
    pub(super) fn all(&self) -> impl Iterator<Item = &String> {
        self.holds.keys()
    }

    /// The records of a core.
    pub(super) fn members<'a>(&'a self, core: &'a str) -> impl Iterator<Item = &'a String> {
        self.of.iter().filter(move |(_, of)| *of == core).map(|(record, _)| record)
    }

    /// The exclusive namespaces that a core holds.
    pub(super) fn holds(&self, core: &str) -> BTreeSet<String> {
        self.holds.get(core).cloned().unwrap_or_default()
    }

    /// Whether two cores both hold the same exclusive namespace.
    pub(super) fn clash(&self, a: &str, b: &str) -> bool {
        a != b && !self.holds(a).is_disjoint(&self.holds(b))
    }
}
