//! Connected components, maintained incrementally under edges that come and go.
//!
//! Knows no rules: nodes are numbers. A batch settles the components that its edges touch and no
//! others; of a component that falls apart the largest part keeps the label, of two that meet the larger.
//! A node is there while it has an edge; an edge from a node to itself keeps a lone one.

use hashbrown::HashMap;

/// A node of the graph.
pub type Node = u32;
/// A component. Not reused within the batch that freed it.
pub type Label = u32;

/// A node whose component changed: before and after, absent where it was or is not in the graph.
pub type Move = (Node, Option<Label>, Option<Label>);

struct Vertex {
    label: Label,
    /// Both directions, a loop once.
    neighbours: Vec<Node>,
}

/// The state of the operator.
#[derive(Default)]
pub struct Components {
    vertices: HashMap<Node, Vertex>,
    members: Vec<Vec<Node>>,
    free: Vec<Label>,
    /// Nodes settled since the start: what a batch cost.
    visited: u64,
}

impl Components {
    /// Applies a batch of edges, each with +1 (it comes) or -1 (it goes), and settles.
    pub fn apply(&mut self, mut edges: Vec<((Node, Node), isize)>) -> Vec<Move> {
        for ((a, b), _) in &mut edges {
            if a > b {
                std::mem::swap(a, b);
            }
        }
        edges.sort_unstable();
        let mut moves = Moves::default();
        let mut freed = Vec::new();
        let mut coming = Vec::new();
        let mut torn: Vec<Label> = Vec::new();
        for run in edges.chunk_by(|(a, _), (b, _)| a == b) {
            let (edge, net) = (run[0].0, run.iter().map(|(_, diff)| diff).sum::<isize>());
            match net.signum() {
                1 => coming.push(edge),
                -1 => self.cut(edge, &mut torn, &mut moves, &mut freed),
                _ => {}
            }
        }
        torn.sort_unstable();
        torn.dedup();
        for label in torn {
            self.resettle(label, &mut moves);
        }
        for edge in coming {
            self.tie(edge, &mut moves, &mut freed);
        }
        self.free.append(&mut freed);
        moves.finish(|node| self.vertices.get(&node).map(|vertex| vertex.label))
    }

    /// The component of a node.
    pub fn label(&self, node: Node) -> Option<Label> {
        self.vertices.get(&node).map(|vertex| vertex.label)
    }

    /// The nodes of a component, in no particular order.
    pub fn members(&self, label: Label) -> &[Node] {
        self.members.get(label as usize).map_or(&[], Vec::as_slice)
    }

    /// How many nodes the largest component has.
    pub fn largest(&self) -> usize {
        self.members.iter().map(Vec::len).max().unwrap_or(0)
    }

    /// Nodes visited since the start.
    pub fn visited(&self) -> u64 {
        self.visited
    }

    fn cut(
        &mut self,
        (a, b): (Node, Node),
        torn: &mut Vec<Label>,
        moves: &mut Moves,
        freed: &mut Vec<Label>,
    ) {
        let Some(vertex) = self.vertices.get_mut(&a) else {
            return;
        };
        let label = vertex.label;
        vertex.neighbours.retain(|neighbour| *neighbour != b);
        if let Some(vertex) = self.vertices.get_mut(&b) {
            vertex.neighbours.retain(|neighbour| *neighbour != a);
        }
        let mut left = 0;
        for node in if a == b { vec![a] } else { vec![a, b] } {
            if self.vertices.get(&node).is_some_and(|vertex| vertex.neighbours.is_empty()) {
                self.vertices.remove(&node);
                moves.note(node, Some(label));
                let members = &mut self.members[label as usize];
                members.retain(|member| *member != node);
                if members.is_empty() {
                    freed.push(label);
                }
            } else {
                left += 1;
            }
        }
        // A node that lost its last edge leaves the rest as it was.
        if left == 2 {
            torn.push(label);
        }
    }

    /// Finds the parts of a component that lost inner edges.
    fn resettle(&mut self, label: Label, moves: &mut Moves) {
        let mut rest = std::mem::take(&mut self.members[label as usize]);
        // Nothing is left of it: `cut` has freed the label, and twice would be once too often.
        if rest.is_empty() {
            return;
        }
        self.visited += rest.len() as u64;
        const UNSEEN: Label = Label::MAX;
        for node in &rest {
            if let Some(vertex) = self.vertices.get_mut(node) {
                vertex.label = UNSEEN;
            }
        }
        let mut parts: Vec<Vec<Node>> = Vec::new();
        for start in rest.drain(..) {
            let mut part = Vec::new();
            let mut stack = vec![start];
            while let Some(node) = stack.pop() {
                let Some(vertex) = self.vertices.get_mut(&node) else {
                    continue;
                };
                if vertex.label != UNSEEN {
                    continue;
                }
                vertex.label = label;
                part.push(node);
                stack.extend_from_slice(&vertex.neighbours);
            }
            if !part.is_empty() {
                parts.push(part);
            }
        }
        let largest = (0..parts.len()).max_by_key(|index| parts[*index].len());
        for (index, part) in parts.into_iter().enumerate() {
            if Some(index) == largest {
                self.members[label as usize] = part;
                continue;
            }
            let new = self.new_label();
            for node in &part {
                moves.note(*node, Some(label));
                if let Some(vertex) = self.vertices.get_mut(node) {
                    vertex.label = new;
                }
            }
            self.members[new as usize] = part;
        }
    }

    fn tie(&mut self, (a, b): (Node, Node), moves: &mut Moves, freed: &mut Vec<Label>) {
        let (of_a, of_b) = (self.enter(a, moves), self.enter(b, moves));
        for (from, to) in if a == b { vec![(a, a)] } else { vec![(a, b), (b, a)] } {
            if let Some(vertex) = self.vertices.get_mut(&from) {
                vertex.neighbours.push(to);
            }
        }
        if of_a == of_b {
            return;
        }
        let size = |label: Label| self.members[label as usize].len();
        let (keep, give) = if size(of_a) >= size(of_b) { (of_a, of_b) } else { (of_b, of_a) };
        let mut moved = std::mem::take(&mut self.members[give as usize]);
        self.visited += moved.len() as u64;
        for node in &moved {
            moves.note(*node, Some(give));
            if let Some(vertex) = self.vertices.get_mut(node) {
                vertex.label = keep;
            }
        }
        self.members[keep as usize].append(&mut moved);
        freed.push(give);
    }

    /// The label of a node, which enters the graph alone where it is new.
    fn enter(&mut self, node: Node, moves: &mut Moves) -> Label {
        if let Some(vertex) = self.vertices.get(&node) {
            return vertex.label;
        }
        moves.note(node, None);
        let label = self.new_label();
        self.vertices.insert(node, Vertex { label, neighbours: Vec::new() });
        self.members[label as usize].push(node);
        label
    }

    fn new_label(&mut self) -> Label {
        self.free.pop().unwrap_or_else(|| {
            self.members.push(Vec::new());
            (self.members.len() - 1) as Label
        })
    }
}

/// Where nodes were before the batch.
#[derive(Default)]
struct Moves(HashMap<Node, Option<Label>>);

impl Moves {
    fn note(&mut self, node: Node, before: Option<Label>) {
        self.0.entry(node).or_insert(before);
    }

    fn finish(self, now: impl Fn(Node) -> Option<Label>) -> Vec<Move> {
        let moves = self.0.into_iter().map(|(node, before)| (node, before, now(node)));
        let mut moves: Vec<Move> = moves.filter(|(_, before, after)| before != after).collect();
        moves.sort_unstable();
        moves
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    /// Partition of the nodes by plain search, as sorted sets.
    fn plain(edges: &BTreeSet<(Node, Node)>) -> BTreeSet<BTreeSet<Node>> {
        let mut parts: Vec<BTreeSet<Node>> = Vec::new();
        for (a, b) in edges {
            let (touching, mut rest): (Vec<_>, Vec<_>) =
                parts.into_iter().partition(|part| part.contains(a) || part.contains(b));
            let mut part: BTreeSet<Node> = touching.into_iter().flatten().collect();
            part.extend([*a, *b]);
            rest.push(part);
            parts = rest;
        }
        parts.into_iter().collect()
    }

    proptest! {
        /// Whatever comes and goes, the labels partition the nodes as a search from scratch does, and
        /// the moves told add up to the labels.
        #[test]
        fn incremental_equals_from_scratch(
            batches in prop::collection::vec(
                prop::collection::vec((0u32..12, 0u32..12, any::<bool>()), 0..10), 1..12)
        ) {
            let mut components = Components::default();
            let mut edges: BTreeSet<(Node, Node)> = BTreeSet::new();
            let mut told: BTreeMap<Node, Label> = BTreeMap::new();
            for batch in batches {
                let mut changes = Vec::new();
                for (a, b, come) in batch {
                    let edge = (a.min(b), a.max(b));
                    if come && edges.insert(edge) {
                        changes.push((edge, 1));
                    } else if !come && edges.remove(&edge) {
                        changes.push((edge, -1));
                    }
                }
                for (node, before, after) in components.apply(changes) {
                    prop_assert_eq!(told.get(&node).copied(), before);
                    match after {
                        Some(label) => told.insert(node, label),
                        None => told.remove(&node),
                    };
                }
                let mut groups: BTreeMap<Label, BTreeSet<Node>> = BTreeMap::new();
                for (node, label) in &told {
                    groups.entry(*label).or_default().insert(*node);
                }
                for (label, group) in &groups {
                    let members: BTreeSet<Node> = components.members(*label).iter().copied().collect();
                    prop_assert_eq!(&members, group);
                }
                prop_assert_eq!(groups.into_values().collect::<BTreeSet<_>>(), plain(&edges));
            }
        }
    }
}
