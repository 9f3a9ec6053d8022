//! The oracle of identity: which records are one device, found by plain sets and maps from nothing
//! but the rules of the design. Slow and obviously right; it imports nothing from the engine, its
//! normaliser included, so that the two agree only where both are right, or both misread the design.
//!
//! It takes the whole log at once: it catches wrong results, whatever the path, and says nothing of
//! what is shown of a device, of speed, or of memory.

mod attach;
mod cores;
mod decide;
mod edges;
mod fold;
mod groups;
mod join;
mod judge;
mod name;
pub mod normalise;
mod rules;

use std::collections::{BTreeMap, BTreeSet};

use serviceradar_schemas::{Decision, Observation};

pub use rules::OracleRules;

use self::{
    attach::{Attached, Place},
    cores::Cores,
    edges::Edges,
    fold::Record,
    join::{Clusters, Node as Cluster},
    name::{Devices, Evidence},
    normalise::Claim,
};

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Placement {
    /// Part of a device.
    Anchored,
    /// With the device that has its address.
    Attached,
    /// At an address that no device has.
    Provisional,
    /// Open, with nothing to go by.
    Unplaced,
    /// History.
    Closed,
}

impl Placement {
    /// As `resolve` prints it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Anchored => "anchored",
            Self::Attached => "attached",
            Self::Provisional => "provisional",
            Self::Unplaced => "unplaced",
            Self::Closed => "closed",
        }
    }
}

/// When a record was seen. Times in microseconds; none where only an END of it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Whether it is open.
    pub open: bool,
    /// The earliest event time of its asserts.
    pub first_seen: Option<i64>,
    /// The latest.
    pub last_seen: Option<i64>,
}

/// What a log comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Record key → placement and uid of the device, if there is one.
    pub records: BTreeMap<String, (Placement, Option<String>)>,
    /// Uid of a claim → uid of its device.
    pub redirects: BTreeMap<String, String>,
    /// (kind, partition, namespace, value).
    pub issues: BTreeSet<[String; 4]>,
    /// Uid of a device, provisional ones left out → the claim that names it.
    pub anchors: BTreeMap<String, Claim>,
    /// Partition → watermark, microseconds.
    pub watermarks: BTreeMap<String, i64>,
    /// Record key → when it was seen.
    pub seen: BTreeMap<String, Seen>,
    /// What it was made of.
    pub graph: Graph,
}

/// The graphs of steps 2 and 4; records by their keys, groups by the smallest of theirs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Graph {
    /// Record → core.
    pub cores: BTreeMap<String, String>,
    /// Record → block.
    pub blocks: BTreeMap<String, String>,
    /// Edges that make the cores.
    pub core_edges: BTreeSet<(Node, Node)>,
    /// Edges of MACs that survived, which make blocks of cores and MAC-only records.
    pub mac_edges: BTreeSet<(Node, Node)>,
}

/// A node of these graphs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    /// A record, by its key.
    Record(String),
    /// A claim of a partition.
    Claim(String, Claim),
}

/// What a tenant's log comes to: a function of the set of observations, each with its intake time,
/// and the set of decisions. Times count as they are; clamping them is the reader's work.
pub fn resolve(
    tenant: &str,
    observations: &[(Observation, i64)],
    decisions: &[Decision],
    rules: &OracleRules,
) -> Outcome {
    let mut outcome = Outcome { watermarks: fold::watermarks(observations), ..Outcome::default() };
    for (partition, watermark) in outcome.watermarks.clone() {
        let decisions = decide::in_force(&partition, decisions);
        let records = fold::records(&partition, observations, &decisions, rules, watermark);
        let judged = judge::judge(&records, &decisions, rules, watermark);
        let cores = Cores::new(&judged.links, &decisions);
        let edges = Edges::new(&records, &judged.links, &cores, &decisions);
        let blocks = join::blocks(&cores, &edges);
        let clusters = Clusters::new(&records, &cores, &edges, &blocks, rules);
        let evidence = Evidence {
            records: &records,
            decisions: &decisions,
            judged: &judged,
            cores: &cores,
            edges: &edges,
            clusters: &clusters,
        };
        let scope = Scope { tenant, partition: &partition };
        let devices = Devices::new(&evidence, |claim| scope.uid(claim));
        let attached = attach::attach(&records, &devices.anchored, rules);
        scope.report(&evidence, &devices, &attached, &mut outcome);
        scope.draw(&cores, &edges, blocks, &mut outcome.graph);
    }
    outcome
}

/// One tenant's partition, which identity never crosses.
struct Scope<'a> {
    tenant: &'a str,
    partition: &'a str,
}

impl Scope<'_> {
    fn uid(&self, claim: &Claim) -> String {
        normalise::uid(self.tenant, self.partition, claim)
    }

    fn report(&self, evidence: &Evidence<'_>, devices: &Devices, attached: &Attached, outcome: &mut Outcome) {
        for record in evidence.records.values() {
            let placed = self.placed(record, devices, attached);
            outcome.records.insert(record.key.clone(), placed);
            let first_seen = record.asserts.as_ref().map(|span| span.first_seen);
            let seen = Seen { open: record.open, first_seen, last_seen: record.last_seen };
            outcome.seen.insert(record.key.clone(), seen);
        }
        let ambiguous = evidence.edges.ambiguous.iter();
        let ambiguous = ambiguous.map(|mac| ["ambiguous".into(), mac.0.clone(), mac.1.clone()]);
        let issues = evidence.judged.issues.iter().chain(&evidence.clusters.issues).cloned();
        for [kind, namespace, value] in issues.chain(ambiguous) {
            outcome.issues.insert([kind, self.partition.to_owned(), namespace, value]);
        }
        for claim in devices.anchors.values() {
            outcome.anchors.insert(self.uid(claim), claim.clone());
        }
        self.redirect(evidence, devices, attached, outcome);
    }

    fn draw(&self, cores: &Cores, edges: &Edges, blocks: BTreeMap<String, String>, graph: &mut Graph) {
        graph.cores.extend(cores.of.clone());
        graph.blocks.extend(blocks);
        let node = |node: &cores::Node| match node {
            cores::Node::Record(key) => Node::Record(key.clone()),
            cores::Node::Claim(claim) => self.node(claim),
        };
        graph.core_edges.extend(cores.edges.iter().map(|(a, b)| (node(a), node(b))));
        let macs = edges.allowed.iter().chain(edges.judged.keys());
        graph.mac_edges.extend(macs.map(|(record, mac)| (Node::Record(record.clone()), self.node(mac))));
    }

    fn node(&self, claim: &Claim) -> Node {
        Node::Claim(self.partition.to_owned(), claim.clone())
    }

    /// The uid of a device.
    fn named(&self, device: &Cluster, devices: &Devices) -> Option<String> {
        devices.anchors.get(device).map(|claim| self.uid(claim))
    }

    fn placed(&self, record: &Record, devices: &Devices, attached: &Attached) -> (Placement, Option<String>) {
        if let Some(device) = devices.anchored.get(&record.key) {
            return (Placement::Anchored, self.named(device, devices));
        }
        if let Some(device) = devices.closed.get(&record.key) {
            let uid = device.as_ref().and_then(|device| self.named(device, devices));
            return (Placement::Closed, uid);
        }
        let Some(ip) = attached.visitors.get(&record.key) else {
            return (Placement::Unplaced, None);
        };
        match attached.places.get(ip) {
            Some(Place::Device(device)) => (Placement::Attached, self.named(device, devices)),
            _ => (Placement::Provisional, Some(self.uid(&claim_of_address(ip)))),
        }
    }

    /// Uid of a claim → uid of its device; of one that belongs nowhere, where the record that asserted
    /// it first, of those attached or provisional, is; of an address, where its visitors are.
    fn redirect(
        &self,
        evidence: &Evidence<'_>,
        devices: &Devices,
        attached: &Attached,
        outcome: &mut Outcome,
    ) {
        for (claim, asserters) in name::asserters(evidence) {
            let of_device = devices.belongs.get(&claim).and_then(|d| self.named(d, devices));
            let of_visitor = || {
                let first = asserters.iter().find(|(_, r)| attached.visitors.contains_key(r));
                first.and_then(|(_, record)| outcome.records.get(record)?.1.clone())
            };
            if let Some(to) = of_device.or_else(of_visitor) {
                outcome.redirects.insert(self.uid(&claim), to);
            }
        }
        for (ip, place) in &attached.places {
            let own = self.uid(&claim_of_address(ip));
            let to = match place {
                Place::Device(device) => self.named(device, devices),
                Place::Provisional => Some(own.clone()),
            };
            outcome.redirects.extend(to.map(|to| (own, to)));
        }
    }
}

fn claim_of_address(ip: &std::net::IpAddr) -> Claim {
    ("ip".to_owned(), ip.to_string())
}
