//! Join: one block into clusters, step by step, so that an edge that contradicts what stands is
//! refused alone and tears nothing apart. A pure function. Source: `identity.md`, step 4.

use std::collections::BTreeMap;

/// A node of a block: a core, or a MAC-only record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockNode {
    /// Exclusive namespaces that it holds.
    pub holds: Vec<u32>,
    /// Whether it is a core.
    pub is_core: bool,
    /// Records in it.
    pub records: usize,
}

/// What step 4 orders edges by: (first asserted, record key, MAC).
pub type Precedence<'a> = (i64, &'a str, u64);

/// An edge of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockEdge<'a> {
    /// Index of its node.
    pub node: usize,
    /// Index of its MAC.
    pub mac: usize,
    /// Whether the node claims the MAC currently.
    pub current: bool,
    /// Whether the MAC is allowed.
    pub allowed: bool,
    /// Its place in the order of the step.
    pub precedence: Precedence<'a>,
}

/// A block, whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block<'a> {
    /// Cores and MAC-only records.
    pub nodes: Vec<BlockNode>,
    /// How many MACs it has.
    pub macs: usize,
    /// The edges that survived step 3.
    pub edges: Vec<BlockEdge<'a>>,
}

/// A block, decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Joined {
    /// Cluster of each node, by the least index of its nodes; a MAC-only record that joined nothing has none.
    pub nodes: Vec<Option<usize>>,
    /// Cluster of each MAC; none where nothing joined it.
    pub macs: Vec<Option<usize>>,
    /// Edges of cores refused in step b: (node, MAC).
    pub conflicts: Vec<(usize, usize)>,
    /// MAC-only records refused in step c.
    pub bridging: Vec<usize>,
    /// Whether the block took neither step c nor d.
    pub oversized: bool,
}

/// Joins a block. `block_cap` is in records.
pub fn join(block: &Block<'_>, block_cap: usize) -> Joined {
    let records: usize = block.nodes.iter().map(|node| node.records).sum();
    let mut joined = Joined { oversized: records > block_cap, ..Joined::default() };
    let mut clusters = Clusters::of(block);
    let mut anchored: Vec<bool> = block.nodes.iter().map(|node| node.is_core).collect();
    for edge in block.edges.iter().filter(|edge| edge.allowed) {
        clusters.unite(edge.node, clusters.mac(edge.mac));
        anchored[edge.node] = true;
    }
    let of_cores = block.edges.iter().filter(|edge| block.nodes[edge.node].is_core && edge.current);
    for edge in in_order(of_cores) {
        let mac = clusters.mac(edge.mac);
        if clusters.clash(edge.node, mac) {
            joined.conflicts.push((edge.node, edge.mac));
        } else {
            clusters.unite(edge.node, mac);
        }
    }
    let mut refused = vec![false; block.nodes.len()];
    if !joined.oversized {
        for (node, macs) in loners(block) {
            let parts: Vec<usize> =
                [node].into_iter().chain(macs.iter().map(|mac| clusters.mac(*mac))).collect();
            if clusters.any_clash(&parts) {
                refused[node] = true;
                joined.bridging.push(node);
                continue;
            }
            anchored[node] = true;
            for mac in macs {
                clusters.unite(node, clusters.mac(mac));
            }
        }
        let lapsed = block.edges.iter().filter(|edge| !edge.current && !edge.allowed && !refused[edge.node]);
        for edge in in_order(lapsed) {
            let mac = clusters.mac(edge.mac);
            if !clusters.clash(edge.node, mac) {
                clusters.unite(edge.node, mac);
                anchored[edge.node] = true;
            }
        }
    }
    let mut first: BTreeMap<usize, usize> = BTreeMap::new();
    for node in (0..block.nodes.len()).filter(|node| anchored[*node]) {
        first.entry(clusters.find(node)).or_insert(node);
    }
    joined.nodes = (0..block.nodes.len())
        .map(|node| if anchored[node] { first.get(&clusters.find(node)).copied() } else { None })
        .collect();
    joined.macs = (0..block.macs).map(|mac| first.get(&clusters.find(clusters.mac(mac))).copied()).collect();
    joined
}

fn in_order<'a, 'b: 'a>(edges: impl Iterator<Item = &'a BlockEdge<'b>>) -> Vec<&'a BlockEdge<'b>> {
    let mut edges: Vec<&BlockEdge<'_>> = edges.collect();
    edges.sort_by(|a, b| a.precedence.cmp(&b.precedence));
    edges
}

/// MAC-only records with current MACs, by (earliest first asserted of them, record key), each with its MACs.
fn loners(block: &Block<'_>) -> Vec<(usize, Vec<usize>)> {
    let mut loners: BTreeMap<usize, (&Precedence<'_>, Vec<usize>)> = BTreeMap::new();
    for edge in &block.edges {
        if block.nodes[edge.node].is_core || !edge.current || edge.allowed {
            continue;
        }
        let (first, macs) = loners.entry(edge.node).or_insert((&edge.precedence, Vec::new()));
        *first = (*first).min(&edge.precedence);
        macs.push(edge.mac);
    }
    let mut loners: Vec<_> = loners.into_iter().collect();
    loners.sort_by(|(_, (a, _)), (_, (b, _))| (a.0, a.1).cmp(&(b.0, b.1)));
    loners.into_iter().map(|(node, (_, macs))| (node, macs)).collect()
}

/// Union-find over nodes, then MACs, with what each cluster holds.
struct Clusters {
    parent: Vec<usize>,
    holds: Vec<Vec<u32>>,
    nodes: usize,
}

impl Clusters {
    fn of(block: &Block<'_>) -> Self {
        let size = block.nodes.len() + block.macs;
        let mut holds: Vec<Vec<u32>> = block.nodes.iter().map(|node| node.holds.clone()).collect();
        holds.resize(size, Vec::new());
        Self { parent: (0..size).collect(), holds, nodes: block.nodes.len() }
    }

    fn mac(&self, mac: usize) -> usize {
        self.nodes + mac
    }

    fn find(&self, mut at: usize) -> usize {
        while self.parent[at] != at {
            at = self.parent[at];
        }
        at
    }

    fn clash(&self, a: usize, b: usize) -> bool {
        let (a, b) = (self.find(a), self.find(b));
        a != b && self.holds[a].iter().any(|namespace| self.holds[b].contains(namespace))
    }

    /// Whether two of these, in different clusters, clash.
    fn any_clash(&self, parts: &[usize]) -> bool {
        let mut roots: Vec<usize> = parts.iter().map(|part| self.find(*part)).collect();
        roots.sort_unstable();
        roots.dedup();
        let mut seen: Vec<u32> = Vec::new();
        for namespace in roots.iter().flat_map(|root| &self.holds[*root]) {
            if seen.contains(namespace) {
                return true;
            }
            seen.push(*namespace);
        }
        false
    }

    fn unite(&mut self, a: usize, b: usize) {
        let (a, b) = (self.find(a), self.find(b));
        if a == b {
            return;
        }
        // By what is held: paths stay short, and lists move rarely.
        let (keep, give) = if self.holds[a].len() >= self.holds[b].len() { (a, b) } else { (b, a) };
        let given = std::mem::take(&mut self.holds[give]);
        for namespace in given {
            if !self.holds[keep].contains(&namespace) {
                self.holds[keep].push(namespace);
            }
        }
        self.parent[give] = keep;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn core(holds: &[u32]) -> BlockNode {
        BlockNode { holds: holds.to_vec(), is_core: true, records: 1 }
    }

    fn edge(node: usize, mac: usize, current: bool, first_asserted: i64) -> BlockEdge<'static> {
        let precedence = (first_asserted, ["r0", "r1", "r2"][node], mac as u64);
        BlockEdge { node, mac, current, allowed: false, precedence }
    }

    #[test]
    fn what_stood_first_stands_and_the_rest_is_refused_alone() {
        // Two cores of one namespace meet through a third that holds another, over two MACs.
        let block = Block {
            nodes: vec![core(&[1]), core(&[1]), core(&[2])],
            macs: 2,
            edges: vec![edge(0, 0, true, 1), edge(2, 0, true, 2), edge(2, 1, true, 3), edge(1, 1, true, 4)],
        };
        let joined = join(&block, 100);
        assert_eq!(joined.nodes, [Some(0), Some(1), Some(0)]);
        assert_eq!(joined.macs, [Some(0), Some(0)]);
        assert_eq!(joined.conflicts, [(1, 1)]);
    }

    #[test]
    fn an_oversized_block_joins_its_cores_alone() {
        let mut block = Block {
            nodes: vec![core(&[1]), core(&[2]), BlockNode { holds: vec![], is_core: false, records: 1 }],
            macs: 1,
            edges: vec![edge(0, 0, true, 1), edge(1, 0, true, 2), edge(2, 0, true, 3)],
        };
        assert_eq!(join(&block, 3).nodes, [Some(0), Some(0), Some(0)]);
        let joined = join(&block, 2);
        assert_eq!((joined.nodes, joined.oversized), (vec![Some(0), Some(0), None], true));
        block.edges[2].allowed = true;
        assert_eq!(join(&block, 2).nodes, [Some(0), Some(0), Some(0)]);
    }
}
