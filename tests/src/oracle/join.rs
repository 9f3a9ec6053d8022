//! Step 4, join: cores, MAC-only records and MACs become clusters, step by step in a fixed order,
//! each step only if it brings no two clashing clusters together.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    OracleRules, cores::Cores, edges::Edges, fold::Record, groups::Groups, judge::Standing, normalise::Claim,
};

/// What is joined. A cluster goes by its smallest node, which is a MAC only where nothing else is in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Node {
    /// A core, by its smallest record key.
    Core(String),
    /// A MAC-only record.
    Loose(String),
    /// A MAC.
    Mac(Claim),
}

/// The clusters of a partition.
pub(super) struct Clusters {
    groups: Groups<Node>,
    /// The exclusive namespaces held, by cluster; none where there is no entry.
    holds: BTreeMap<Node, BTreeSet<String>>,
    /// MAC-only records that joined a MAC.
    pub(super) joined: BTreeSet<String>,
    /// (kind, namespace, value).
    pub(super) issues: BTreeSet<[String; 3]>,
}

/// An edge with its place in the order of a step.
type Ordered<'a> = (i64, &'a String, &'a Claim);

impl Clusters {
    pub(super) fn new(
        records: &BTreeMap<String, Record>,
        cores: &Cores,
        edges: &Edges,
        blocks: &BTreeMap<String, String>,
        rules: &OracleRules,
    ) -> Self {
        let holds = cores.all().map(|core| (Node::Core(core.clone()), cores.holds(core)));
        let mut clusters = Self {
            groups: Groups::new(),
            holds: holds.collect(),
            joined: BTreeSet::new(),
            issues: BTreeSet::new(),
        };
        let big = oversized(cores, blocks, rules);
        for record in &edges.left_out {
            clusters.issue("bridging", "record", record);
        }
        for record in big.values() {
            clusters.issue("oversized", "record", record);
        }
        for (record, mac) in &edges.allowed {
            clusters.join(&[node(cores, record), Node::Mac(mac.clone())], true);
            clusters.mark_joined(cores, record);
        }
        let in_order = |standing: Standing| {
            let of_standing = edges.judged.iter().filter(move |(_, s)| **s == standing);
            let mut ordered: Vec<Ordered<'_>> = of_standing
                .map(|((record, mac), _)| (records[record].claims[mac].first_asserted, record, mac))
                .collect();
            ordered.sort();
            ordered
        };
        clusters.current_edges_of_cores(cores, in_order(Standing::Current));
        let refused = clusters.mac_only_records(cores, &big, in_order(Standing::Current));
        for (_, record, mac) in in_order(Standing::Lapsed) {
            let unit = node(cores, record);
            if refused.contains(record) || big.contains_key(&unit) {
                continue;
            }
            if clusters.join(&[unit, Node::Mac(mac.clone())], false) {
                clusters.mark_joined(cores, record);
            }
        }
        clusters
    }

    /// The cluster of a node.
    pub(super) fn of(&self, node: &Node) -> Node {
        self.groups.of(node)
    }

    /// Step b: current edges of cores.
    fn current_edges_of_cores(&mut self, cores: &Cores, edges: Vec<Ordered<'_>>) {
        for (_, record, mac) in edges {
            let unit = node(cores, record);
            let is_core = matches!(unit, Node::Core(_));
            if is_core && !self.join(&[unit, Node::Mac(mac.clone())], false) {
                self.issue("conflict", &mac.0, &mac.1);
            }
        }
    }

    /// Step c: MAC-only records with current MACs, each with all of those at once. The refused.
    fn mac_only_records(
        &mut self,
        cores: &Cores,
        big: &BTreeMap<Node, String>,
        edges: Vec<Ordered<'_>>,
    ) -> BTreeSet<String> {
        let mut order: Vec<&String> = Vec::new();
        let mut macs: BTreeMap<&String, Vec<Node>> = BTreeMap::new();
        for (_, record, mac) in edges.into_iter().filter(|(_, r, _)| !cores.of.contains_key(*r)) {
            if !macs.contains_key(record) {
                order.push(record);
            }
            macs.entry(record).or_default().push(Node::Mac(mac.clone()));
        }
        let mut refused = BTreeSet::new();
        for record in order {
            let unit = Node::Loose(record.clone());
            if big.contains_key(&unit) {
                continue;
            }
            let mut together = macs.remove(record).unwrap_or_default();
            together.push(unit);
            if self.join(&together, false) {
                self.joined.insert(record.clone());
            } else {
                self.issue("bridging", "record", record);
                refused.insert(record.clone());
            }
        }
        refused
    }

    /// Makes one cluster of those of `nodes`, unless two of them clash; whether it did.
    fn join(&mut self, nodes: &[Node], always: bool) -> bool {
        let clusters: BTreeSet<Node> = nodes.iter().map(|node| self.of(node)).collect();
        let held = || clusters.iter().filter_map(|cluster| self.holds.get(cluster)).flatten();
        let all: BTreeSet<String> = held().cloned().collect();
        if !always && held().count() > all.len() {
            return false;
        }
        for pair in nodes.windows(2) {
            self.groups.merge(&pair[0], &pair[1]);
        }
        for cluster in clusters {
            let one = self.of(&cluster);
            self.holds.insert(one, all.clone());
        }
        true
    }

    fn mark_joined(&mut self, cores: &Cores, record: &String) {
        if !cores.of.contains_key(record) {
            self.joined.insert(record.clone());
        }
    }

    fn issue(&mut self, kind: &str, namespace: &str, value: &str) {
        self.issues.insert([kind.to_owned(), namespace.to_owned(), value.to_owned()]);
    }
}

/// What joins for a record: its core, or itself.
pub(super) fn node(cores: &Cores, record: &String) -> Node {
    cores.of.get(record).map_or(Node::Loose(record.clone()), |core| Node::Core(core.clone()))
}

/// The block of each record of a core or of MAC-only ones: the smallest record key in it.
pub(super) fn blocks(cores: &Cores, edges: &Edges) -> BTreeMap<String, String> {
    let mut groups = Groups::new();
    let mut records: BTreeSet<&String> = cores.of.keys().collect();
    for (record, mac) in edges.allowed.iter().chain(edges.judged.keys()) {
        groups.merge(&node(cores, record), &Node::Mac(mac.clone()));
        records.insert(record);
    }
    let mut smallest: BTreeMap<Node, &String> = BTreeMap::new();
    let mut blocks = BTreeMap::new();
    for record in records {
        let first = smallest.entry(groups.of(&node(cores, record))).or_insert(record);
        blocks.insert(record.clone(), first.clone());
    }
    blocks
}

/// The cores and MAC-only records of blocks of too many records, each with the smallest record key
/// of its block.
fn oversized(
    cores: &Cores,
    blocks: &BTreeMap<String, String>,
    rules: &OracleRules,
) -> BTreeMap<Node, String> {
    let mut sizes: BTreeMap<&String, usize> = BTreeMap::new();
    for block in blocks.values() {
        *sizes.entry(block).or_default() += 1;
    }
    let big = blocks.iter().filter(|(_, block)| sizes[block] > rules.block_cap);
    big.map(|(record, block)| (node(cores, record), block.clone())).collect()
}
