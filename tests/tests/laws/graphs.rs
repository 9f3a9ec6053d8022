//! Cores and blocks three times: as the engine's components have them, as the oracle's sets do, and as
//! `propagate` does with the edges that the oracle found. All three partition the records alike.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
};

use serviceradar_streams::{
    decisions::Decisions, dictionary::Dictionary, fold::Fold, identity::Identity, macs::Place,
};
use serviceradar_tests::{
    oracle::{Graph, Node},
    propagate::{self, Propagate},
    worlds::{Event, World},
};

use crate::{
    Checked,
    agreement::differ,
    run::{TENANT, batch, rules},
};

/// Record → the smallest record of its group.
type Partition = BTreeMap<String, String>;

/// Partitions records by what their group goes by.
fn partition<L: Ord>(labelled: impl IntoIterator<Item = (String, L)>) -> Partition {
    let mut groups: BTreeMap<L, BTreeSet<String>> = BTreeMap::new();
    for (record, label) in labelled {
        groups.entry(label).or_default().insert(record);
    }
    let of_group = |group: BTreeSet<String>| {
        let first = group.first().cloned().unwrap_or_default();
        group.into_iter().map(move |record| (record, first.clone()))
    };
    groups.into_values().flat_map(of_group).collect()
}

/// The engine's fold and steps of identity, without the dataflow around them.
pub(crate) struct Steps {
    dictionary: Rc<RefCell<Dictionary>>,
    decisions: Decisions,
    fold: Fold,
    identity: Identity,
}

impl Steps {
    pub(crate) fn new(world: &World) -> Self {
        let dictionary = Rc::new(RefCell::new(Dictionary::new(TENANT)));
        let rules = Arc::new(rules(world));
        Self {
            decisions: Decisions::default(),
            fold: Fold::new(dictionary.clone(), rules.clone()),
            identity: Identity::new(dictionary.clone(), &rules),
            dictionary,
        }
    }

    pub(crate) fn epoch(&mut self, events: &[Event]) {
        let batch = batch(events);
        let effects = self.decisions.take(batch.decisions).effects;
        for (effect, diff) in &effects {
            self.fold.decide(effect, *diff);
        }
        for sighting in &batch.sightings {
            self.fold.take(sighting);
        }
        let changes = self.fold.settle();
        self.identity.step(self.fold.facts(), &changes, &effects);
    }

    fn keys(&self) -> Vec<(String, u32)> {
        let dictionary = self.dictionary.borrow();
        let records = self.fold.facts().records();
        records.map(|record| (dictionary.key(record.id).to_owned(), record.id)).collect()
    }

    fn cores(&self) -> Partition {
        let labelled = |(key, record)| Some((key, self.identity.core(record)?));
        partition(self.keys().into_iter().filter_map(labelled))
    }

    fn blocks(&self) -> Partition {
        let linked = self.identity.context(self.fold.facts()).linked;
        let macs = &self.identity.macs;
        let labelled = |(key, record): (String, u32)| {
            let place: Place = macs.place(record);
            macs.records_in(place, linked)?;
            // Whoever shares no MAC is a block of its own.
            let block = self.identity.block(place);
            Some((key, (block, block.is_none().then_some(place))))
        };
        partition(self.keys().into_iter().filter_map(labelled))
    }
}

/// `propagate` on two graphs, which go from epoch to epoch by what is different.
pub(crate) struct Opinion {
    cores: Labelled,
    blocks: Labelled,
}

impl Opinion {
    pub(crate) fn start() -> Self {
        Self { cores: Labelled::start(), blocks: Labelled::start() }
    }
}

struct Labelled {
    graph: Propagate,
    numbers: BTreeMap<Node, propagate::Node>,
    edges: BTreeSet<(propagate::Node, propagate::Node)>,
}

impl Labelled {
    fn start() -> Self {
        Self { graph: Propagate::start(), numbers: BTreeMap::new(), edges: BTreeSet::new() }
    }

    /// Partitions the records that have an edge.
    fn partition<'a>(&mut self, edges: impl Iterator<Item = &'a (Node, Node)>) -> Partition {
        let mut records = BTreeMap::new();
        let mut now = BTreeSet::new();
        for (a, b) in edges {
            let [a, b] = [a, b].map(|node| {
                let next = self.numbers.len() as propagate::Node;
                let number = *self.numbers.entry(node.clone()).or_insert(next);
                if let Node::Record(key) = node {
                    records.insert(key.clone(), number);
                }
                number
            });
            now.insert((a, b));
        }
        let coming = now.difference(&self.edges).map(|edge| (*edge, 1));
        let going = self.edges.difference(&now).map(|edge| (*edge, -1));
        self.graph.apply(coming.chain(going));
        self.edges = now;
        let labels = self.graph.labels();
        partition(records.into_iter().map(|(key, number)| (key, labels.get(&number))))
    }
}

/// Engine, oracle and `propagate` find the same cores, and the same blocks.
pub(crate) fn same_groups(steps: &Steps, graph: &Graph, opinion: &mut Opinion) -> Checked {
    differ("cores", &steps.cores(), &graph.cores)?;
    differ("blocks", &steps.blocks(), &graph.blocks)?;
    differ("cores of propagate", &opinion.cores.partition(graph.core_edges.iter()), &graph.cores)?;
    let edges = graph.core_edges.iter().chain(&graph.mac_edges);
    differ("blocks of propagate", &opinion.blocks.partition(edges), &graph.blocks)
}
