//! Blocks: the unit of work for identity. Re-decides the blocks that an epoch's changes touch, and
//! no others; `decided` counts them.

use std::{cell::RefCell, collections::BTreeSet, rc::Rc};

use hashbrown::HashMap;

use crate::{
    by_place::ByPlace,
    components::{Components, Label, Node},
    dictionary::{ClaimId, Dictionary, RecordId},
    facts::SharedId,
    join::{Block, BlockEdge, BlockNode, join},
    macs::{Edge, Linked, MacChanges, Macs, NodeInfo, Place, sort_unique_places},
    sort_unique, sort_unique_labels,
};

/// A cluster: named by one of its nodes.
pub type Cluster = Place;

/// What an epoch changed.
#[derive(Default)]
pub struct BlockChanges {
    /// Nodes whose cluster changed, or that came or went.
    pub nodes: Vec<Place>,
    /// MACs whose cluster changed.
    pub macs: Vec<ClaimId>,
    /// Edges that became, or ceased to be, refused.
    pub refused: Vec<(Place, ClaimId)>,
    /// MAC-only records that became, or ceased to be, refused.
    pub bridging: Vec<RecordId>,
}

/// What is decided of a block that is not one cluster, but for the clusters of its nodes.
#[derive(Default)]
struct Split {
    macs: Vec<(ClaimId, Option<Cluster>)>,
    conflicts: Vec<(Place, ClaimId)>,
    bridging: Vec<RecordId>,
    /// The records of a block over the cap, by its first.
    oversized: Option<RecordId>,
}

/// The state of the operator.
pub struct Blocks {
    dictionary: Rc<RefCell<Dictionary>>,
    cap: usize,
    nodes: ByPlace<Option<Option<Cluster>>>,
    /// MACs of blocks that are not one cluster.
    macs: HashMap<ClaimId, Option<Cluster>>,
    split: HashMap<Label, Split>,
    /// Cores over the cap that share no MAC.
    lone: HashMap<Place, Split>,
    conflicts: HashMap<ClaimId, Vec<Place>>,
    bridging: BTreeSet<RecordId>,
    oversized: BTreeSet<RecordId>,
    decided: u64,
}

/// A node of the graph of blocks.
pub fn node_of(place: Place) -> Node {
    match place {
        Place::Core(label) => label << 2,
        Place::MacOnly(record) => record << 2 | 1,
    }
}

/// A MAC in the graph of blocks: several nodes have it.
pub fn mac_of(mac: SharedId) -> Node {
    mac << 2 | 2
}

fn place_of(node: Node) -> Option<Place> {
    match node & 3 {
        0 => Some(Place::Core(node >> 2)),
        1 => Some(Place::MacOnly(node >> 2)),
        _ => None,
    }
}

impl Blocks {
    /// Empty; `cap` is in records.
    pub fn new(dictionary: Rc<RefCell<Dictionary>>, cap: usize) -> Self {
        Self {
            dictionary,
            cap,
            nodes: ByPlace::default(),
            macs: HashMap::new(),
            split: HashMap::new(),
            lone: HashMap::new(),
            conflicts: HashMap::new(),
            bridging: BTreeSet::new(),
            oversized: BTreeSet::new(),
            decided: 0,
        }
    }

    /// The cluster of a node; none where it is no node, or joined nothing.
    pub fn cluster(&self, place: Place) -> Option<Cluster> {
        self.nodes[place].flatten()
    }

    /// Whether an edge was refused because it contradicts what stood.
    pub fn is_refused(&self, place: Place, mac: ClaimId) -> bool {
        self.conflicts.get(&mac).is_some_and(|places| places.contains(&place))
    }

    /// The cluster in which a MAC links, where that is not the one of every node that has an edge to it.
    pub fn split_mac(&self, mac: ClaimId) -> Option<Option<Cluster>> {
        self.macs.get(&mac).copied()
    }

    /// Whether an edge that survived step 3 joined its node and its MAC.
    pub fn joins(&self, place: Place, mac: ClaimId) -> bool {
        let cluster = self.cluster(place);
        cluster.is_some() && self.split_mac(mac).is_none_or(|of_mac| of_mac == cluster)
    }

    /// Whether a MAC has a refused edge.
    pub fn has_conflict(&self, mac: ClaimId) -> bool {
        self.conflicts.contains_key(&mac)
    }

    /// Whether a MAC-only record was refused because it bridges.
    pub fn is_bridging(&self, record: RecordId) -> bool {
        self.bridging.contains(&record)
    }

    /// The first record of each block that is over the cap.
    pub fn oversized(&self) -> &BTreeSet<RecordId> {
        &self.oversized
    }

    /// Blocks decided since the start.
    pub fn decided(&self) -> u64 {
        self.decided
    }

    /// Decides anew the blocks that an epoch touched. `moves` are those of `graph`, already applied.
    pub fn decide(
        &mut self,
        changes: &MacChanges,
        moves: &[(Node, Option<Label>, Option<Label>)],
        graph: &Components,
        macs: &Macs,
        linked: Linked<'_>,
    ) -> BlockChanges {
        let mut dirty: Vec<Label> = Vec::new();
        let mut alone: Vec<Place> = Vec::new();
        for (node, before, after) in moves {
            dirty.extend(before.iter().chain(after));
            if after.is_none() {
                alone.extend(place_of(*node));
            }
        }
        for place in &changes.nodes {
            match graph.label(node_of(*place)) {
                Some(label) => dirty.push(label),
                None => alone.push(*place),
            }
        }
        sort_unique_labels(&mut dirty);
        sort_unique_places(&mut alone);
        let mut noted = Noted::default();
        for label in &dirty {
            if let Some(split) = self.split.remove(label) {
                self.undo(&split, &mut noted);
            }
        }
        if !self.lone.is_empty() {
            let moved = moves.iter().filter_map(|(node, ..)| place_of(*node));
            for place in moved.chain(changes.nodes.iter().copied()) {
                if let Some(split) = self.lone.remove(&place) {
                    self.undo(&split, &mut noted);
                }
            }
        }
        let mut places: Vec<Place> = Vec::new();
        for label in dirty {
            places.clear();
            places.extend(graph.members(label).filter_map(place_of));
            sort_unique(&mut places);
            if let Some(split) = self.decide_block(&places, macs, linked, &mut noted) {
                self.split.insert(label, split);
            }
        }
        for place in alone {
            if graph.label(node_of(place)).is_some() {
                continue;
            }
            match macs.records_in(place, linked) {
                Some(records) if records > self.cap => {
                    if let Some(split) = self.decide_block(&[place], macs, linked, &mut noted) {
                        self.lone.insert(place, split);
                    }
                }
                // A node that shares no MAC is a cluster of its own.
                Some(_) => self.put(place, Some(Some(place)), &mut noted),
                None => self.put(place, None, &mut noted),
            }
        }
        self.difference(noted, &changes.nodes)
    }

    fn put(&mut self, place: Place, cluster: Option<Option<Cluster>>, noted: &mut Noted) {
        if self.nodes[place] != cluster {
            self.nodes[place] = cluster;
            noted.nodes.push(place);
        }
    }

    fn undo(&mut self, split: &Split, noted: &mut Noted) {
        for (mac, _) in &split.macs {
            noted.macs.push((*mac, self.macs.remove(mac)));
        }
        for (place, mac) in &split.conflicts {
            self.conflicts.remove(mac);
            noted.refused.insert((*place, *mac));
        }
        for record in &split.bridging {
            self.bridging.remove(record);
            noted.bridging.insert(*record);
        }
        if let Some(record) = &split.oversized {
            self.oversized.remove(record);
        }
    }

    fn keep(&mut self, split: &Split, noted: &mut Noted) {
        for (mac, cluster) in &split.macs {
            noted.macs.push((*mac, self.macs.insert(*mac, *cluster)));
        }
        for (place, mac) in &split.conflicts {
            noted.refused.insert((*place, *mac));
            self.conflicts.entry(*mac).or_default().push(*place);
        }
        self.bridging.extend(&split.bridging);
        noted.bridging.extend(&split.bridging);
        self.oversized.extend(split.oversized);
    }

    /// Decides a block of these nodes, which are sorted. Returns what is to be kept of one that is not one cluster.
    fn decide_block(
        &mut self,
        places: &[Place],
        macs: &Macs,
        linked: Linked<'_>,
        noted: &mut Noted,
    ) -> Option<Split> {
        let first = *places.first()?;
        self.decided += 1;
        let records: usize = places.iter().map(|place| macs.records_of(place).len()).sum();
        if records <= self.cap && hold_different(places, macs) {
            // Nobody clashes with anybody: every edge joins.
            places.iter().for_each(|place| self.put(*place, Some(Some(first)), noted));
            return None;
        }
        Some(self.split(places, macs, linked, noted))
    }

    fn split(&mut self, places: &[Place], macs: &Macs, linked: Linked<'_>, noted: &mut Noted) -> Split {
        let dictionary = self.dictionary.clone();
        let dictionary = dictionary.borrow();
        let nodes = places.iter().filter_map(|place| Some((*place, macs.node(*place, linked)?)));
        let infos: Vec<(Place, NodeInfo)> = nodes.collect();
        let mut of_macs: Vec<ClaimId> =
            infos.iter().flat_map(|(_, info)| info.edges.iter().map(|edge| edge.mac)).collect();
        of_macs.sort_unstable();
        of_macs.dedup();
        let mut block = Block { macs: of_macs.len(), ..Block::default() };
        for (index, (place, info)) in infos.iter().enumerate() {
            block.nodes.push(BlockNode {
                holds: info.holds.clone(),
                is_core: matches!(place, Place::Core(_)),
                records: info.records.len(),
            });
            let edges = info.edges.iter().map(|edge| block_edge(edge, index, &of_macs, &dictionary));
            block.edges.extend(edges.collect::<Vec<_>>());
        }
        let joined = join(&block, self.cap);
        let name = |index: usize| infos[index].0;
        for (index, cluster) in joined.nodes.iter().enumerate() {
            self.put(name(index), Some(cluster.map(name)), noted);
        }
        let mut split = Split::default();
        let mut claimant = vec![0; of_macs.len()];
        for edge in &block.edges {
            claimant[edge.mac] = edge.node;
        }
        for ((mac, cluster), node) in of_macs.iter().zip(&joined.macs).zip(claimant) {
            // A MAC that one node alone claims needs no entry where it is where its node is.
            if macs.sharers(*mac, linked.facts) > 1 || *cluster != joined.nodes[node] {
                split.macs.push((*mac, cluster.map(name)));
            }
        }
        split.conflicts = joined.conflicts.iter().map(|(node, mac)| (name(*node), of_macs[*mac])).collect();
        split.bridging = joined
            .bridging
            .iter()
            .filter_map(|node| match name(*node) {
                Place::MacOnly(record) => Some(record),
                Place::Core(_) => None,
            })
            .collect();
        if joined.oversized {
            let records = infos.iter().flat_map(|(_, info)| info.records.iter().copied());
            split.oversized = records.min_by_key(|record| dictionary.key(*record));
        }
        self.keep(&split, noted);
        split
    }

    /// What is different from what was noted.
    fn difference(&self, mut noted: Noted, touched: &[Place]) -> BlockChanges {
        noted.nodes.extend(touched);
        sort_unique_places(&mut noted.nodes);
        first_of_each(&mut noted.macs);
        let macs = noted.macs.iter().filter(|(mac, before)| self.macs.get(mac) != before.as_ref());
        let macs = macs.map(|(mac, _)| *mac).collect();
        BlockChanges {
            nodes: noted.nodes,
            macs,
            refused: noted.refused.into_iter().collect(),
            bridging: noted.bridging.into_iter().collect(),
        }
    }
}

/// Whether no two of these nodes hold one exclusive namespace.
fn hold_different(places: &[Place], macs: &Macs) -> bool {
    let mut seen: Vec<u32> = Vec::new();
    places.iter().flat_map(|place| macs.holds(*place)).all(|namespace| {
        let is_new = !seen.contains(namespace);
        seen.push(*namespace);
        is_new
    })
}

/// Sorts by what comes first, and keeps of equals the earliest.
fn first_of_each<K: Copy + Ord, V>(noted: &mut Vec<(K, V)>) {
    noted.sort_by_key(|(key, _)| *key);
    noted.dedup_by_key(|(key, _)| *key);
}

/// What deciding blocks anew touched.
#[derive(Default)]
struct Noted {
    /// Nodes whose cluster changed.
    nodes: Vec<Place>,
    /// MACs of blocks that are or were not one cluster, and what they were, the first time first.
    macs: Vec<(ClaimId, Option<Option<Cluster>>)>,
    /// Edges whose refusal came or went, or may have.
    refused: BTreeSet<(Place, ClaimId)>,
    /// Likewise records.
    bridging: BTreeSet<RecordId>,
}

fn block_edge<'a>(edge: &Edge, node: usize, macs: &[ClaimId], dictionary: &'a Dictionary) -> BlockEdge<'a> {
    BlockEdge {
        node,
        mac: macs.binary_search(&edge.mac).unwrap_or_default(),
        current: edge.current,
        allowed: edge.allowed,
        precedence: (
            edge.first_asserted,
            dictionary.key(edge.record),
            dictionary.claim_mac(edge.mac).unwrap_or_default(),
        ),
    }
}
