//! Connected components, maintained incrementally under edges that come and go.
//!
//! Knows no rules: nodes are numbers. A batch settles the components that its edges touch and no
//! others; of a component that falls apart the largest part keeps the label, of two that meet the larger.
//! A node is there while it has an edge; an edge from a node to itself keeps a lone one.
//!
//! Nodes lie in pages, side by side, with their first neighbours; those of a component are a ring. So a node costs 36
//! bytes or little more, nothing is hashed on the way, and no table is ever made anew as a whole.

use hashbrown::HashMap;

use crate::{few::Few, paged::Paged};

/// A node of the graph.
pub type Node = u32;
/// A component. Not reused within the batch that freed it.
pub type Label = u32;

/// A node whose component changed: before and after, absent where it was or is not in the graph.
pub type Move = (Node, Option<Label>, Option<Label>);

/// Where a node lies.
type Slot = u32;
/// Of a node that is not there; of the label of one that has none.
const NONE: u32 = u32::MAX;

#[derive(Clone)]
struct Vertex {
    node: Node,
    label: Label,
    /// The ring of its component.
    next: Slot,
    previous: Slot,
    /// Both directions, a loop once.
    neighbours: Few,
}

const BLANK: Vertex = Vertex { node: NONE, label: NONE, next: NONE, previous: NONE, neighbours: Few::NONE };

/// The ring of a component.
#[derive(Clone, Copy)]
struct Ring {
    first: Slot,
    size: u32,
}

const NO_RING: Ring = Ring { first: NONE, size: 0 };

/// The state of the operator.
pub struct Components {
    /// By node.
    slots: Paged<Slot>,
    vertices: Paged<Vertex>,
    /// Slots that were ever taken, and of them those that are free again.
    taken: Slot,
    vacant: Vec<Slot>,
    /// By label.
    rings: Vec<Ring>,
    free: Vec<Label>,
    /// Nodes settled since the start: what a batch cost.
    visited: u64,
}

impl Default for Components {
    fn default() -> Self {
        Self {
            slots: Paged::new(NONE),
            vertices: Paged::new(BLANK),
            taken: 0,
            vacant: Vec::new(),
            rings: Vec::new(),
            free: Vec::new(),
            visited: 0,
        }
    }
}

/// What a batch does.
#[derive(Default)]
struct Batch {
    /// Where nodes were, of each the first time first.
    moved: Vec<(Node, Label)>,
    /// Free at the end.
    freed: Vec<Label>,
    /// Free once all edges are cut.
    vacated: Vec<Slot>,
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
        let (mut coming, mut going) = (Vec::new(), Vec::new());
        for run in edges.chunk_by(|(a, _), (b, _)| a == b) {
            let (edge, net) = (run[0].0, run.iter().map(|(_, diff)| diff).sum::<isize>());
            match net.signum() {
                1 => coming.push(edge),
                -1 => going.push(edge),
                _ => {}
            }
        }
        drop(edges);
        let mut batch = Batch::default();
        for label in self.cut(&going, &mut batch) {
            self.resettle(label, &mut batch);
        }
        // A loop last: the node is there already, where another edge brought it, and no component is made to be given up.
        let (loops, others): (Vec<_>, Vec<_>) = coming.into_iter().partition(|(a, b)| a == b);
        for edge in others.into_iter().chain(loops) {
            self.tie(edge, &mut batch);
        }
        self.free.append(&mut batch.freed);
        self.moves(batch.moved)
    }

    /// The component of a node.
    pub fn label(&self, node: Node) -> Option<Label> {
        let slot = self.slots[node];
        (slot != NONE).then(|| self.vertices[slot].label)
    }

    /// The nodes of a component, in no particular order.
    pub fn members(&self, label: Label) -> impl Iterator<Item = Node> {
        self.ring(label).map(|slot| self.vertices[slot].node)
    }

    /// How many nodes the largest component has.
    pub fn largest(&self) -> usize {
        self.rings.iter().map(|ring| ring.size as usize).max().unwrap_or(0)
    }

    /// Nodes visited since the start.
    pub fn visited(&self) -> u64 {
        self.visited
    }

    fn ring(&self, label: Label) -> impl Iterator<Item = Slot> {
        let Ring { first, size } = self.rings.get(label as usize).copied().unwrap_or(NO_RING);
        std::iter::successors(Some(first), |slot| Some(self.vertices[*slot].next)).take(size as usize)
    }

    /// Takes edges out, and the nodes that have none then. Returns the components that lost inner edges.
    fn cut(&mut self, edges: &[(Node, Node)], batch: &mut Batch) -> Vec<Label> {
        let mut torn: Vec<Label> = Vec::new();
        // How many neighbours are left: lists are gone through once for all edges, or a hub would cost its square.
        let mut left: HashMap<Slot, usize> = HashMap::new();
        let mut gone: Vec<(Slot, Slot)> = Vec::with_capacity(2 * edges.len());
        for (a, b) in edges {
            let (a, b) = (self.slots[*a], self.slots[*b]);
            if !self.is_edge(a, b) {
                continue;
            }
            let label = self.vertices[a].label;
            let mut stay = 0;
            for (from, to) in directions(a, b) {
                gone.push((from, to));
                let left = left.entry(from).or_insert(self.vertices[from].neighbours.len());
                *left -= 1;
                if *left > 0 {
                    stay += 1;
                } else {
                    self.leave(from, batch);
                }
            }
            // A node that lost its last edge leaves the rest as it was.
            if stay == 2 {
                torn.push(label);
            }
        }
        gone.sort_unstable();
        for run in gone.chunk_by(|(a, _), (b, _)| a == b) {
            let stays = |slot: &Slot| run.binary_search_by_key(slot, |(_, gone)| *gone).is_err();
            self.vertices[run[0].0].neighbours.retain(stays);
        }
        self.vacant.append(&mut batch.vacated);
        torn.sort_unstable();
        torn.dedup();
        torn
    }

    fn is_edge(&self, a: Slot, b: Slot) -> bool {
        if a == NONE || b == NONE {
            return false;
        }
        let (of_a, of_b) = (&self.vertices[a].neighbours, &self.vertices[b].neighbours);
        if of_a.len() <= of_b.len() { of_a.contains(&b) } else { of_b.contains(&a) }
    }

    /// Finds the parts of a component that lost inner edges.
    fn resettle(&mut self, label: Label, batch: &mut Batch) {
        let members: Vec<Slot> = self.ring(label).collect();
        self.visited += members.len() as u64;
        for slot in &members {
            self.vertices[*slot].label = NONE;
        }
        let mut parts: Vec<Vec<Slot>> = Vec::new();
        let mut stack: Vec<Slot> = Vec::new();
        for start in members {
            let mut part = Vec::new();
            stack.push(start);
            while let Some(slot) = stack.pop() {
                let vertex = &mut self.vertices[slot];
                if vertex.label == NONE {
                    vertex.label = label;
                    part.push(slot);
                    stack.extend_from_slice(&vertex.neighbours);
                }
            }
            if !part.is_empty() {
                parts.push(part);
            }
        }
        let largest = (0..parts.len()).max_by_key(|index| parts[*index].len());
        if parts.len() < 2 {
            return;
        }
        self.rings[label as usize] = NO_RING;
        for (index, part) in parts.into_iter().enumerate() {
            let to = if Some(index) == largest { label } else { self.new_label() };
            for slot in part {
                if to != label {
                    batch.moved.push((self.vertices[slot].node, label));
                }
                self.join(slot, to);
            }
        }
    }

    fn tie(&mut self, (a, b): (Node, Node), batch: &mut Batch) {
        let (mut at_a, mut at_b) = (self.slots[a], self.slots[b]);
        let label = match (at_a, at_b) {
            (NONE, NONE) => self.new_label(),
            (NONE, known) | (known, _) => self.vertices[known].label,
        };
        if at_a == NONE {
            at_a = self.enter(a, label, batch);
        }
        if at_b == NONE {
            at_b = if a == b { at_a } else { self.enter(b, label, batch) };
        }
        for (from, to) in directions(at_a, at_b) {
            self.vertices[from].neighbours.push(to);
        }
        let (of_a, of_b) = (self.vertices[at_a].label, self.vertices[at_b].label);
        if of_a != of_b {
            self.merge(of_a, of_b, batch);
        }
    }

    fn merge(&mut self, a: Label, b: Label, batch: &mut Batch) {
        let (of_a, of_b) = (self.rings[a as usize], self.rings[b as usize]);
        let (keep, give) = if of_a.size >= of_b.size { (a, b) } else { (b, a) };
        self.visited += u64::from(of_a.size.min(of_b.size));
        let mut slot = self.rings[give as usize].first;
        for _ in 0..self.rings[give as usize].size {
            let vertex = &mut self.vertices[slot];
            vertex.label = keep;
            batch.moved.push((vertex.node, give));
            slot = vertex.next;
        }
        // Two rings become one where their first members change successors.
        let (next_a, next_b) = (self.vertices[of_a.first].next, self.vertices[of_b.first].next);
        self.follow(of_a.first, next_b);
        self.follow(of_b.first, next_a);
        self.rings[keep as usize].size = of_a.size + of_b.size;
        self.rings[give as usize] = NO_RING;
        batch.freed.push(give);
    }

    /// A new node, in a component.
    fn enter(&mut self, node: Node, label: Label, batch: &mut Batch) -> Slot {
        let slot = self.vacant.pop().unwrap_or_else(|| {
            self.taken += 1;
            self.taken - 1
        });
        self.slots[node] = slot;
        self.vertices[slot].node = node;
        batch.moved.push((node, NONE));
        self.join(slot, label);
        slot
    }

    /// Takes a node out of its component and the graph. Its slot is not free yet.
    fn leave(&mut self, slot: Slot, batch: &mut Batch) {
        let Vertex { node, label, next, previous, .. } = self.vertices[slot];
        batch.moved.push((node, label));
        batch.vacated.push(slot);
        self.slots[node] = NONE;
        self.follow(previous, next);
        let ring = &mut self.rings[label as usize];
        ring.size -= 1;
        ring.first = next;
        if ring.size == 0 {
            *ring = NO_RING;
            batch.freed.push(label);
        }
    }

    /// Puts a node that is in no ring into that of a component.
    fn join(&mut self, slot: Slot, label: Label) {
        let ring = &mut self.rings[label as usize];
        ring.size += 1;
        if ring.size == 1 {
            ring.first = slot;
        }
        let first = ring.first;
        self.vertices[slot].label = label;
        let next = if first == slot { slot } else { self.vertices[first].next };
        self.follow(first, slot);
        self.follow(slot, next);
    }

    fn follow(&mut self, slot: Slot, next: Slot) {
        self.vertices[slot].next = next;
        self.vertices[next].previous = slot;
    }

    fn new_label(&mut self) -> Label {
        self.free.pop().unwrap_or_else(|| {
            self.rings.push(NO_RING);
            (self.rings.len() - 1) as Label
        })
    }

    /// Nodes that are elsewhere than they first were.
    fn moves(&self, mut moved: Vec<(Node, Label)>) -> Vec<Move> {
        moved.sort_by_key(|(node, _)| *node);
        moved.dedup_by_key(|(node, _)| *node);
        let known = |label: Label| (label != NONE).then_some(label);
        let moves = moved.into_iter().map(|(node, before)| (node, known(before), self.label(node)));
        moves.filter(|(_, before, after)| before != after).collect()
    }
}

/// An edge both ways, a loop once.
fn directions(a: Slot, b: Slot) -> impl Iterator<Item = (Slot, Slot)> {
    [(a, b)].into_iter().chain((a != b).then_some((b, a)))
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
                    let members: BTreeSet<Node> = components.members(*label).collect();
                    prop_assert_eq!(&members, group);
                }
                prop_assert_eq!(groups.into_values().collect::<BTreeSet<_>>(), plain(&edges));
            }
        }
    }
}
