//! Blocks: the unit of work for identity. Re-decides the blocks that an epoch's changes touch, and
//! no others; `decided` counts them.

use std::{cell::RefCell, collections::BTreeSet, rc::Rc};

use hashbrown::HashMap;

use crate::{
    by_place::ByPlace,
    components::{Components, Label, Node},
    dictionary::{ClaimId, ClaimValue, Dictionary, RecordId},
    join::{Block, BlockEdge, BlockNode, join},
    macs::{Edge, Linked, MacChanges, Macs, NodeInfo, Place},
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

/// What is decided of a block.
#[derive(Default, PartialEq, Clone)]
struct Decided {
    nodes: Vec<(Place, Option<Cluster>)>,
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
    macs: HashMap<ClaimId, Option<Cluster>>,
    blocks: HashMap<Label, Decided>,
    /// Cores over the cap that share no MAC.
    lone: HashMap<Place, Decided>,
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

/// A MAC in the graph of blocks.
pub fn mac_of(mac: ClaimId) -> Node {
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
            blocks: HashMap::new(),
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

    /// The cluster in which a MAC links, where that does not follow from the one node that claims it.
    pub fn shared_mac(&self, mac: ClaimId) -> Option<Option<Cluster>> {
        self.macs.get(&mac).copied()
    }

    /// Whether an edge that survived step 3 joined its node and its MAC.
    pub fn joins(&self, place: Place, mac: ClaimId) -> bool {
        let cluster = self.cluster(place);
        cluster.is_some() && self.shared_mac(mac).is_none_or(|of_mac| of_mac == cluster)
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
        sort_unique(&mut alone);
        let mut out = Undone::default();
        for label in &dirty {
            if let Some(decided) = self.blocks.remove(label) {
                self.undo(&decided, &mut out);
            }
        }
        let moved = moves.iter().filter_map(|(node, ..)| place_of(*node));
        for place in moved.chain(changes.nodes.iter().copied()) {
            if let Some(decided) = self.lone.remove(&place) {
                self.undo(&decided, &mut out);
            }
        }
        for place in &alone {
            self.undo_lone(*place, &mut out);
        }
        for label in dirty {
            let members: Vec<Node> = graph.members(label).collect();
            if !members.is_empty() {
                let decided = self.decide_block(&members, macs, linked);
                self.keep(&decided, &mut out);
                self.blocks.insert(label, decided);
            }
        }
        for place in alone {
            if graph.label(node_of(place)).is_some() {
                continue;
            }
            match macs.records_in(place, linked) {
                Some(records) if records > self.cap => {
                    let decided = self.decide_block(&[node_of(place)], macs, linked);
                    self.keep(&decided, &mut out);
                    self.lone.insert(place, decided);
                }
                Some(_) => self.keep_lone(place, &mut out),
                None => {}
            }
        }
        self.difference(out, &changes.nodes)
    }

    fn undo(&mut self, decided: &Decided, out: &mut Undone) {
        for (place, cluster) in &decided.nodes {
            self.nodes[*place] = None;
            out.nodes.push((*place, Some(*cluster)));
        }
        for (mac, cluster) in &decided.macs {
            self.macs.remove(mac);
            out.macs.push((*mac, Some(*cluster)));
        }
        for (place, mac) in &decided.conflicts {
            self.conflicts.remove(mac);
            out.refused.insert((*place, *mac));
        }
        for record in &decided.bridging {
            self.bridging.remove(record);
            out.bridging.insert(*record);
        }
        if let Some(record) = &decided.oversized {
            self.oversized.remove(record);
        }
    }

    fn undo_lone(&mut self, place: Place, out: &mut Undone) {
        if let Some(cluster) = self.nodes[place].take() {
            out.nodes.push((place, Some(cluster)));
        }
    }

    fn keep(&mut self, decided: &Decided, out: &mut Undone) {
        for (place, cluster) in &decided.nodes {
            out.nodes.push((*place, self.nodes[*place].replace(*cluster)));
        }
        for (mac, cluster) in &decided.macs {
            let before = self.macs.insert(*mac, *cluster);
            out.macs.push((*mac, before));
        }
        for (place, mac) in &decided.conflicts {
            out.refused.insert((*place, *mac));
            self.conflicts.entry(*mac).or_default().push(*place);
        }
        self.bridging.extend(&decided.bridging);
        out.bridging.extend(&decided.bridging);
        self.oversized.extend(decided.oversized);
    }

    /// A node that shares no MAC is a cluster of its own.
    fn keep_lone(&mut self, place: Place, out: &mut Undone) {
        out.nodes.push((place, self.nodes[place].replace(Some(place))));
    }

    fn decide_block(&mut self, members: &[Node], macs: &Macs, linked: Linked<'_>) -> Decided {
        self.decided += 1;
        let dictionary = self.dictionary.borrow();
        let mut places: Vec<Place> = members.iter().filter_map(|node| place_of(*node)).collect();
        places.sort_unstable();
        let infos: Vec<(Place, NodeInfo)> =
            places.into_iter().filter_map(|place| Some((place, macs.node(place, linked)?))).collect();
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
        let mut decided = Decided::default();
        for (index, cluster) in joined.nodes.iter().enumerate() {
            decided.nodes.push((name(index), cluster.map(name)));
        }
        let mut claimant = vec![0; of_macs.len()];
        for edge in &block.edges {
            claimant[edge.mac] = edge.node;
        }
        for ((mac, cluster), node) in of_macs.iter().zip(&joined.macs).zip(claimant) {
            // A MAC that one node alone claims needs no entry where it is where its node is.
            if macs.sharers(*mac) > 1 || *cluster != joined.nodes[node] {
                decided.macs.push((*mac, cluster.map(name)));
            }
        }
        decided.conflicts = joined.conflicts.iter().map(|(node, mac)| (name(*node), of_macs[*mac])).collect();
        decided.bridging = joined
            .bridging
            .iter()
            .filter_map(|node| match name(*node) {
                Place::MacOnly(record) => Some(record),
                Place::Core(_) => None,
            })
            .collect();
        if joined.oversized {
            let records = infos.iter().flat_map(|(_, info)| info.records.iter().copied());
            let key = |record: &RecordId| dictionary.record_entry(*record).key.clone();
            decided.oversized = records.min_by_key(key);
        }
        decided
    }

    /// What is different from what was undone.
    fn difference(&self, mut undone: Undone, touched: &[Place]) -> BlockChanges {
        first_of_each(&mut undone.nodes);
        first_of_each(&mut undone.macs);
        let mut nodes: Vec<Place> = touched.to_vec();
        let moved = undone.nodes.iter().filter(|(place, before)| self.nodes[*place] != *before);
        nodes.extend(moved.map(|(place, _)| *place));
        sort_unique(&mut nodes);
        let macs = undone.macs.iter().filter(|(mac, before)| self.macs.get(mac) != before.as_ref());
        let macs = macs.map(|(mac, _)| *mac).collect();
        BlockChanges {
            nodes,
            macs,
            refused: undone.refused.into_iter().collect(),
            bridging: undone.bridging.into_iter().collect(),
        }
    }
}

/// Sorts by what comes first, and keeps of equals the earliest.
fn first_of_each<K: Copy + Ord, V>(noted: &mut Vec<(K, V)>) {
    noted.sort_by_key(|(key, _)| *key);
    noted.dedup_by_key(|(key, _)| *key);
}

/// What was decided of the blocks that are being decided anew, of each the first time first: absent where nothing was.
#[derive(Default)]
struct Undone {
    nodes: Vec<(Place, Option<Option<Cluster>>)>,
    macs: Vec<(ClaimId, Option<Option<Cluster>>)>,
    /// Edges whose refusal came or went, or may have.
    refused: BTreeSet<(Place, ClaimId)>,
    /// Likewise records.
    bridging: BTreeSet<RecordId>,
}

fn block_edge(edge: &Edge, node: usize, macs: &[ClaimId], dictionary: &Dictionary) -> BlockEdge {
    let value = match dictionary.claim_entry(edge.mac).value {
        ClaimValue::Mac(mac) => mac,
        ClaimValue::Text(_) => 0,
    };
    let key = dictionary.record_entry(edge.record).key.clone();
    BlockEdge {
        node,
        mac: macs.binary_search(&edge.mac).unwrap_or_default(),
        current: edge.current,
        allowed: edge.allowed,
        precedence: (edge.first_asserted, key, value),
    }
}
