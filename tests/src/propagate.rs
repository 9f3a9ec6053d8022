//! Connected components as differential's own `propagate` maintains them: the second opinion on what
//! `streams::components` says, in results and in speed.
//!
//! It iterates minimal labels over all edges, both ways, to a fixed point; an update repairs the
//! iteration. Nothing of it is ours but the edges.

use std::{cell::RefCell, collections::HashMap, rc::Rc};

use differential_dataflow::{
    algorithms::graphs::propagate::propagate, consolidation::consolidate, input::InputSession,
};
use timely::{
    WorkerConfig,
    communication::{Allocator, allocator::thread::Thread},
    dataflow::{ProbeHandle, operators::Probe},
    worker::Worker,
};

/// A node of the graph, and as a label the smallest node of its component.
pub type Node = u32;

/// An edge, or a node with its label, that comes (+1) or goes (-1).
pub type Change = ((Node, Node), isize);

/// A dataflow of one worker, which runs in the thread that owns it.
pub struct Propagate {
    worker: Worker,
    edges: InputSession<u32, (Node, Node), isize>,
    settled: ProbeHandle<u32>,
    /// What became of labels since the last batch, with what iterating left between.
    changes: Rc<RefCell<Vec<Change>>>,
    labels: HashMap<Node, Node>,
}

impl Propagate {
    /// Without edges.
    pub fn start() -> Self {
        let mut worker = Worker::new(WorkerConfig::default(), Allocator::Thread(Thread::default()), None);
        let mut edges = InputSession::new();
        let settled = ProbeHandle::new();
        let changes = Rc::new(RefCell::new(Vec::new()));
        let told = changes.clone();
        worker.dataflow(|scope| {
            let both_ways = edges.to_collection(scope).flat_map(|(a, b)| [(a, b), (b, a)]);
            let nodes = both_ways.clone().map(|(node, _)| (node, node));
            propagate(both_ways, nodes)
                .inspect(move |(label, _, diff)| told.borrow_mut().push((*label, *diff)))
                .inner
                .probe_with(&settled);
        });
        Self { worker, edges, settled, changes, labels: HashMap::new() }
    }

    /// Applies a batch of edges, and settles. A node is there while it has an edge; an edge from a node to
    /// itself keeps a lone one.
    pub fn apply(&mut self, edges: impl IntoIterator<Item = Change>) {
        for (edge, diff) in edges {
            self.edges.update(edge, diff);
        }
        let next = self.edges.time() + 1;
        self.edges.advance_to(next);
        self.edges.flush();
        let settled = &self.settled;
        self.worker.step_while(|| settled.less_than(&next));
        let mut changes = self.changes.take();
        consolidate(&mut changes);
        for ((node, label), diff) in changes {
            if diff > 0 {
                self.labels.insert(node, label);
            } else if self.labels.get(&node) == Some(&label) {
                self.labels.remove(&node);
            }
        }
    }

    /// The label of each node.
    pub fn labels(&self) -> &HashMap<Node, Node> {
        &self.labels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(graph: &Propagate) -> Vec<(Node, Node)> {
        let mut labels: Vec<_> = graph.labels().iter().map(|(node, label)| (*node, *label)).collect();
        labels.sort_unstable();
        labels
    }

    #[test]
    fn a_chain_that_breaks_is_two_components_and_a_loop_keeps_a_lone_node() {
        let mut graph = Propagate::start();
        graph.apply([((3, 2), 1), ((2, 1), 1), ((3, 4), 1), ((7, 7), 1)]);
        assert_eq!(labels(&graph), [(1, 1), (2, 1), (3, 1), (4, 1), (7, 7)]);
        graph.apply([((2, 3), 1), ((2, 1), -1), ((3, 2), -1)]);
        assert_eq!(labels(&graph), [(2, 2), (3, 2), (4, 2), (7, 7)]);
        graph.apply([((2, 3), -1), ((7, 7), -1)]);
        assert_eq!(labels(&graph), [(3, 3), (4, 3)]);
    }
}
