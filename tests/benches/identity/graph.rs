//! The operator of components, beside `propagate` and a plain union-find, on the same edges.

use std::time::Duration;

use serviceradar_streams::components::{Components, Node};
use serviceradar_tests::propagate::Propagate;

use crate::{
    Figures,
    measure::{Times, grouped, rate, resident, timed},
    world::{self, BATCH, Edge, RECORDS},
};

/// Batches after which all three must agree, and batches that the operator is timed over.
const BATCHES_COMPARED: usize = 5;
const BATCHES: usize = 200;
/// Changes of one record.
const ONES: usize = 2_000;
/// Records of a hub.
const HUB: usize = 10_000;

/// The edges that a batch changes. A record that changes again is as it was.
fn changes(batch: usize, size: usize) -> Vec<(Edge, isize)> {
    let records =
        (batch * size..(batch + 1) * size).map(|at| (world::nth_changed(at), at / RECORDS % 2 == 1));
    let edges = records.flat_map(|(record, back)| {
        let gone = world::edges(record, back).nth(2).map(|edge| (edge, -1));
        gone.into_iter().chain(world::edges(record, !back).nth(2).map(|edge| (edge, 1)))
    });
    edges.collect()
}

/// A digest of a partition: of each node the least node of its component.
fn digest(nodes: impl Iterator<Item = (Node, u32)>) -> String {
    let mut nodes: Vec<(Node, u32)> = nodes.collect();
    nodes.sort_unstable();
    let labels = nodes.iter().map(|(_, label)| *label as usize + 1).max().unwrap_or(0);
    let mut least = vec![Node::MAX; labels];
    for (node, label) in &nodes {
        least[*label as usize] = least[*label as usize].min(*node);
    }
    // FNV-1a.
    let hash = nodes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, (node, label)| {
        let of = u64::from(*node) << 32 | u64::from(least[*label as usize]);
        (hash ^ of).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{:08x}", hash >> 32)
}

/// All nodes that there may be.
fn nodes() -> impl Iterator<Item = Node> {
    0..4 * RECORDS as Node
}

fn partition(components: &Components) -> String {
    digest(nodes().filter_map(|node| Some((node, components.label(node)?))))
}

fn per_device(bytes: f64) -> String {
    grouped((bytes / (RECORDS / 2) as f64) as u64)
}

/// The operator.
pub(crate) fn operator() -> Figures {
    let mut figures = Figures::new();
    let mut put = |name: &str, value: String| _ = figures.insert(name.to_owned(), value);
    let edges = world::all_edges(RECORDS);
    let before = resident();
    let mut components = Components::default();
    let mut times = Times::default();
    for batch in edges.chunks(BATCH * 3) {
        let batch = batch.to_vec();
        times.add(timed(|| components.apply(batch)).1);
    }
    put("load", rate(RECORDS, times.total()));
    put("memory", per_device(resident() - before));
    put("loaded", partition(&components));
    let mut times = Times::default();
    for batch in 0..BATCHES {
        let changes = changes(batch, BATCH);
        times.add(timed(|| components.apply(changes)).1);
        if batch + 1 == BATCHES_COMPARED {
            put("changed", partition(&components));
        }
    }
    put("changes", rate(BATCHES * BATCH, times.total()));
    put("batch p99", format!("{:.1}", times.percentile(99)));
    let mut times = Times::default();
    for at in BATCHES * BATCH..BATCHES * BATCH + ONES {
        let changes = changes(at, 1);
        times.add(timed(|| components.apply(changes)).1);
    }
    put("one p50", format!("{:.1}", times.percentile(50) * 1e3));
    drop(components);
    let mut components = Components::default();
    let time = timed(|| components.apply(edges)).1;
    put("load at once", rate(RECORDS, time));
    figures
}

/// Differential's `propagate`.
pub(crate) fn propagate() -> Figures {
    let mut figures = Figures::new();
    let mut put = |name: &str, value: String| _ = figures.insert(name.to_owned(), value);
    let edges = world::all_edges(RECORDS);
    let before = resident();
    let mut graph = Propagate::start();
    let mut total = Duration::ZERO;
    for batch in edges.chunks(BATCH * 3) {
        total += timed(|| graph.apply(batch.iter().copied())).1;
    }
    put("load", rate(RECORDS, total));
    put("memory", per_device(resident() - before));
    let partition = |graph: &Propagate| digest(graph.labels().iter().map(|(node, label)| (*node, *label)));
    put("loaded", partition(&graph));
    let mut times = Times::default();
    for batch in 0..BATCHES_COMPARED {
        times.add(timed(|| graph.apply(changes(batch, BATCH))).1);
    }
    put("changed", partition(&graph));
    put("changes", rate(BATCHES_COMPARED * BATCH, times.total()));
    put("batch p99", format!("{:.1}", times.percentile(99)));
    let mut times = Times::default();
    for at in BATCHES_COMPARED * BATCH..BATCHES_COMPARED * BATCH + ONES / 10 {
        times.add(timed(|| graph.apply(changes(at, 1))).1);
    }
    put("one p50", format!("{:.1}", times.percentile(50) * 1e3));
    figures
}

/// A plain union-find: by size, with halved paths. It knows no retraction: what changes is begun anew.
struct UnionFind {
    parent: Vec<Node>,
    size: Vec<u32>,
}

impl UnionFind {
    fn of(edges: impl Iterator<Item = Edge>) -> Self {
        let count = nodes().count() as Node;
        let mut sets = Self { parent: (0..count).collect(), size: vec![1; count as usize] };
        for (a, b) in edges {
            let (a, b) = (sets.find(a) as usize, sets.find(b) as usize);
            if a != b {
                let (keep, give) = if sets.size[a] >= sets.size[b] { (a, b) } else { (b, a) };
                sets.parent[give] = keep as Node;
                sets.size[keep] += sets.size[give];
            }
        }
        sets
    }

    fn find(&mut self, mut node: Node) -> Node {
        while self.parent[node as usize] != node {
            self.parent[node as usize] = self.parent[self.parent[node as usize] as usize];
            node = self.parent[node as usize];
        }
        node
    }

    /// Of the nodes that have an edge.
    fn partition(mut self) -> String {
        let of: Vec<(Node, Node)> =
            (0..self.parent.len() as Node).map(|node| (node, self.find(node))).collect();
        digest(of.into_iter().filter(|(node, of)| node != of || self.size[*of as usize] > 1))
    }
}

/// The union-find.
pub(crate) fn union_find() -> Figures {
    let mut edges: Vec<Edge> = world::all_edges(RECORDS).into_iter().map(|(edge, _)| edge).collect();
    let before = resident();
    let (sets, time) = timed(|| UnionFind::of(edges.iter().copied()));
    let memory = per_device(resident() - before);
    let loaded = sets.partition();
    for (edge, diff) in (0..BATCHES_COMPARED).flat_map(|batch| changes(batch, BATCH)) {
        if diff > 0 {
            // The third edge of its record.
            edges[(edge.0 >> 1) as usize * 3 + 2] = edge;
        }
    }
    let changed = UnionFind::of(edges.into_iter()).partition();
    let rate = rate(RECORDS, time);
    let figures = [("load at once", rate), ("memory", memory), ("loaded", loaded), ("changed", changed)];
    figures.map(|(name, value)| (name.to_owned(), value)).into()
}

/// Twice as many records, batch by batch.
pub(crate) fn pauses() -> Figures {
    let mut components = Components::default();
    let mut times = Times::default();
    for first in (0..2 * RECORDS).step_by(BATCH) {
        let edges = (first..first + BATCH).flat_map(|record| world::edges(record, false));
        let edges: Vec<(Edge, isize)> = edges.map(|edge| (edge, 1)).collect();
        times.add(timed(|| components.apply(edges)).1);
    }
    [("longest".to_owned(), format!("{:.1}", times.percentile(100)))].into()
}

/// One claim that many records have, each of another device.
pub(crate) fn hub() -> Figures {
    let mut components = Components::default();
    components.apply(world::all_edges(RECORDS));
    let claim = (4 * RECORDS as Node) << 1 | 1;
    let edges = |diff| (0..HUB).map(|at| (((4 * at as Node) << 1, claim), diff)).collect::<Vec<_>>();
    let (join, split) = (timed(|| components.apply(edges(1))).1, timed(|| components.apply(edges(-1))).1);
    let ms = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1e3);
    [("join".to_owned(), ms(join)), ("split".to_owned(), ms(split))].into()
}
