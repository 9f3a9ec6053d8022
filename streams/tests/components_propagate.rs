//! Components against differential's own label propagation, on the same edges: a second opinion that
//! shares no code with it. It says nothing of labels, which are the operator's own, nor of what a batch costs.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use differential_dataflow::{
    algorithms::graphs::propagate::propagate,
    input::{Input, InputSession},
};
use proptest::{collection::vec, prelude::*, test_runner::RngSeed};
use serviceradar_streams::components::{Components, Label, Node};
use timely::dataflow::ProbeHandle;

type Edge = (Node, Node);
/// Disjoint sets of nodes.
type Partition = BTreeSet<BTreeSet<Node>>;

/// What happens to the graph at once: edges that come, or go where they are there; and nodes that lose
/// all they have, as the records of a source that ends.
#[derive(Clone, Debug)]
struct Batch {
    turned: Vec<Edge>,
    lost: Vec<Node>,
}

const NODES: Node = 16;

/// Edges are short, so that there are several components, of which some fall apart while others grow.
fn batches() -> impl Strategy<Value = Vec<Batch>> {
    let edge = (0..NODES, 0..3u32).prop_map(|(a, length)| (a, (a + length) % NODES));
    let turned = vec(edge, 0..12);
    let lost = prop_oneof![
        3 => Just(Vec::new()),
        1 => vec(0..NODES, 1..8),
        1 => Just((0..NODES).collect()),
    ];
    vec((turned, lost).prop_map(|(turned, lost)| Batch { turned, lost }), 1..8)
}

/// The changes of edges that a batch is.
fn changes(edges: &mut BTreeSet<Edge>, batch: &Batch) -> Vec<(Edge, isize)> {
    let before = edges.clone();
    for (a, b) in &batch.turned {
        let edge = (*a.min(b), *a.max(b));
        if !edges.remove(&edge) {
            edges.insert(edge);
        }
    }
    edges.retain(|(a, b)| !batch.lost.contains(a) && !batch.lost.contains(b));
    let went = before.difference(edges).map(|edge| (*edge, -1));
    went.chain(edges.difference(&before).map(|edge| (*edge, 1))).collect()
}

fn partition<L: Ord>(labels: impl Iterator<Item = (Node, L)>) -> Partition {
    let mut parts: BTreeMap<L, BTreeSet<Node>> = BTreeMap::new();
    for (node, label) in labels {
        parts.entry(label).or_default().insert(node);
    }
    parts.into_values().collect()
}

/// The partition after each batch, by propagating the least node of each component.
fn propagated(batches: Vec<Vec<(Edge, isize)>>) -> Vec<Partition> {
    timely::execute_directly(move |worker| {
        let labels: Rc<RefCell<BTreeMap<(Node, Node), isize>>> = Rc::default();
        let (sink, probe) = (labels.clone(), ProbeHandle::new());
        let mut input: InputSession<u64, Edge, isize> = worker.dataflow(|scope| {
            let (input, edges) = scope.new_collection();
            let both = edges.clone().flat_map(|(a, b): Edge| [(a, b), (b, a)]);
            let nodes = edges.flat_map(|(a, b)| [(a, a), (b, b)]).distinct();
            propagate(both, nodes)
                .inspect(move |(label, _, diff)| *sink.borrow_mut().entry(*label).or_default() += diff)
                .probe_with(&probe);
            input
        });
        let mut partitions = Vec::new();
        for (batch, time) in batches.into_iter().zip(1..) {
            for (edge, diff) in batch {
                input.update(edge, diff);
            }
            input.advance_to(time);
            input.flush();
            worker.step_while(|| probe.less_than(&time));
            let labels = labels.borrow();
            partitions
                .push(partition(labels.iter().filter(|(_, count)| **count > 0).map(|(label, _)| *label)));
        }
        partitions
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        rng_seed: RngSeed::Fixed(3),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn components_are_those_of_propagate(batches in batches()) {
        let mut edges = BTreeSet::new();
        let batches: Vec<_> = batches.iter().map(|batch| changes(&mut edges, batch)).collect();
        let mut components = Components::default();
        let expected = propagated(batches.clone());
        for (batch, expected) in batches.into_iter().zip(expected) {
            components.apply(batch);
            let labels = (0..NODES).filter_map(|node| Some((node, components.label(node)?)));
            let labels: Vec<(Node, Label)> = labels.collect();
            for (_, label) in &labels {
                let members: BTreeSet<Node> = components.members(*label).collect();
                prop_assert!(expected.contains(&members), "{members:?} is none of {expected:?}");
            }
            prop_assert_eq!(partition(labels.into_iter()), expected);
        }
    }
}
