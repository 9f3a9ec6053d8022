//! MAC edges: each MAC judged by the cores that claim it. Source: `identity.md`, "From evidence to
//! devices", 3.
//!
//! In goes what links each record and which core it is in; out come the edges between nodes (cores and
//! MAC-only records) and MACs that survive.

use std::{cell::RefCell, collections::BTreeSet, rc::Rc, sync::Arc};

use hashbrown::{HashMap, HashSet};

use crate::{
    claim::Namespace,
    components::Label,
    dictionary::{ClaimId, Dictionary, RecordId},
    fold::RecordChange,
    judge::Link,
    record::Record,
};

/// A core, or a record that is in none and claims MACs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The component of tier 1 claims.
    Core(Label),
    /// The record.
    MacOnly(RecordId),
}

/// An edge between a node and a MAC; of several records of a core the one that comes first in step 4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Edge {
    /// The node.
    pub place: Place,
    /// The MAC.
    pub mac: ClaimId,
    /// Whether the node claims it currently.
    pub current: bool,
    /// Whether the MAC is allowed: exempt from all judgement.
    pub allowed: bool,
    /// Earliest intake time at which a record of the node asserted it (currently, if one does).
    pub first_asserted: i64,
    /// That record.
    pub record: RecordId,
}

/// A node, as steps 4 and 5 need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Exclusive namespaces that it holds, sorted.
    pub holds: Vec<u32>,
    /// Its records.
    pub records: Vec<RecordId>,
    /// Edges that survive.
    pub edges: Vec<Edge>,
}

/// What an epoch changed.
#[derive(Default)]
pub struct MacChanges {
    /// Nodes that changed in any way; those that are no more have no info.
    pub nodes: Vec<Place>,
    /// MACs that became, or ceased to be, ambiguous.
    pub ambiguous: Vec<ClaimId>,
    /// MAC-only records that became, or ceased to be, left out.
    pub left_out: Vec<RecordId>,
    /// Edges to MACs that several nodes share: came (+1) and went (-1).
    pub shared: Vec<((Place, ClaimId), isize)>,
}

#[derive(Default)]
struct RecordState {
    core: Option<Label>,
    macs: Vec<Link>,
    /// Exclusive namespaces it holds.
    holds: Vec<u32>,
}

#[derive(Default)]
struct CoreState {
    records: Vec<RecordId>,
    holds: Vec<u32>,
    open: bool,
    /// Whether its edges fall because it is closed and nobody took its MACs over.
    dropped: bool,
}

#[derive(Default)]
struct MacState {
    claimants: Vec<RecordId>,
    ambiguous: bool,
    /// Edges that survive the judgement of the MAC itself.
    survivors: Vec<Edge>,
    /// Those of them that survive that of their nodes too, as told.
    told: Vec<Edge>,
}

/// The state of the operator.
pub struct Macs {
    dictionary: Rc<RefCell<Dictionary>>,
    facts: HashMap<RecordId, Arc<Record>>,
    records: HashMap<RecordId, RecordState>,
    cores: HashMap<Label, CoreState>,
    macs: HashMap<ClaimId, MacState>,
    left_out: HashSet<RecordId>,
}

fn clash(a: &[u32], b: &[u32]) -> bool {
    a.iter().any(|namespace| b.contains(namespace))
}

impl Macs {
    /// Empty.
    pub fn new(dictionary: Rc<RefCell<Dictionary>>) -> Self {
        Self {
            dictionary,
            facts: HashMap::new(),
            records: HashMap::new(),
            cores: HashMap::new(),
            macs: HashMap::new(),
            left_out: HashSet::new(),
        }
    }

    /// Whether devices share a MAC which cannot be one.
    pub fn is_ambiguous(&self, mac: ClaimId) -> bool {
        self.macs.get(&mac).is_some_and(|state| state.ambiguous)
    }

    /// Whether a MAC-only record is left out because it bridges two devices.
    pub fn is_left_out(&self, record: RecordId) -> bool {
        self.left_out.contains(&record)
    }

    /// Whether an edge of a record to a MAC survived.
    pub fn survives(&self, record: RecordId, mac: ClaimId) -> bool {
        let place = self.place(record);
        self.macs.get(&mac).is_some_and(|state| state.told.iter().any(|edge| edge.place == place))
    }

    /// The node that a record is, or is in.
    pub fn place(&self, record: RecordId) -> Place {
        let core = self.records.get(&record).and_then(|state| state.core);
        core.map_or(Place::MacOnly(record), Place::Core)
    }

    /// A node as it is; none where it is no more.
    pub fn node(&self, place: Place) -> Option<NodeInfo> {
        let (holds, records) = match place {
            Place::Core(label) => {
                let core = self.cores.get(&label)?;
                (core.holds.clone(), core.records.clone())
            }
            Place::MacOnly(record) => {
                let state = self.records.get(&record)?;
                if state.core.is_some() {
                    return None;
                }
                (Vec::new(), vec![record])
            }
        };
        let mut macs: Vec<ClaimId> = records
            .iter()
            .filter_map(|record| self.records.get(record))
            .flat_map(|state| state.macs.iter().map(|link| link.claim))
            .collect();
        macs.sort_unstable();
        macs.dedup();
        let edges: Vec<Edge> = macs
            .iter()
            .filter_map(|mac| self.macs.get(mac))
            .flat_map(|state| state.told.iter().filter(|edge| edge.place == place).copied())
            .collect();
        let alone = matches!(place, Place::MacOnly(_)) && edges.is_empty();
        (!alone).then_some(NodeInfo { holds, records, edges })
    }

    /// The node that alone has an edge to a MAC.
    pub fn sole(&self, mac: ClaimId) -> Option<Place> {
        match self.macs.get(&mac)?.told[..] {
            [edge] => Some(edge.place),
            _ => None,
        }
    }

    /// The records of a core.
    pub fn records_of(&self, place: Place) -> Vec<RecordId> {
        match place {
            Place::Core(label) => self.cores.get(&label).map(|core| core.records.clone()).unwrap_or_default(),
            Place::MacOnly(record) => vec![record],
        }
    }

    /// How many nodes have an edge to a MAC.
    pub fn sharers(&self, mac: ClaimId) -> usize {
        self.macs.get(&mac).map_or(0, |state| state.told.len())
    }

    /// Judges anew what an epoch touched.
    pub fn judge(
        &mut self,
        facts: &[RecordChange],
        links: &[(Link, isize)],
        cores: &[(RecordId, Option<Label>)],
    ) -> MacChanges {
        let mut dirty_records: BTreeSet<RecordId> = BTreeSet::new();
        let mut dirty_cores: BTreeSet<Label> = BTreeSet::new();
        let mut dirty_macs: BTreeSet<ClaimId> = BTreeSet::new();
        for (before, after) in facts {
            let same = before.as_ref().is_some_and(|before| {
                Arc::ptr_eq(&before.claims, &after.claims) && before.now.open == after.now.open
            });
            self.facts.insert(after.id, after.clone());
            if !same {
                dirty_records.insert(after.id);
            }
        }
        self.relink(links, &mut dirty_records, &mut dirty_macs);
        self.recore(cores, &mut dirty_records, &mut dirty_cores);
        for record in &dirty_records {
            let Some(state) = self.records.get(record) else {
                continue;
            };
            dirty_macs.extend(state.macs.iter().map(|link| link.claim));
            dirty_cores.extend(state.core);
        }
        let mut nodes: BTreeSet<Place> = dirty_records.iter().map(|record| Place::MacOnly(*record)).collect();
        for label in &dirty_cores {
            nodes.insert(Place::Core(*label));
            self.settle_core(*label, &mut dirty_macs);
        }
        let mut out = MacChanges::default();
        for mac in &dirty_macs {
            self.judge_mac(*mac, &mut out);
        }
        self.judge_nodes(&mut dirty_macs, &dirty_cores, &dirty_records, &mut out);
        for mac in &dirty_macs {
            self.tell(*mac, &mut nodes, &mut out);
        }
        out.nodes = nodes.into_iter().collect();
        out
    }

    fn relink(
        &mut self,
        links: &[(Link, isize)],
        dirty_records: &mut BTreeSet<RecordId>,
        dirty_macs: &mut BTreeSet<ClaimId>,
    ) {
        let dictionary = self.dictionary.borrow();
        // What goes goes first, so that a link that only changed its colour stays.
        let goes = links.iter().filter(|(_, diff)| *diff < 0);
        for (link, diff) in goes.chain(links.iter().filter(|(_, diff)| *diff > 0)) {
            let entry = dictionary.claim_entry(link.claim);
            let state = self.records.entry(link.record).or_default();
            dirty_records.insert(link.record);
            if entry.kind != Namespace::Mac {
                if link.current && entry.kind.is_exclusive() {
                    if *diff > 0 {
                        state.holds.push(entry.namespace);
                    } else if let Some(index) =
                        state.holds.iter().position(|namespace| *namespace == entry.namespace)
                    {
                        state.holds.swap_remove(index);
                    }
                }
                continue;
            }
            dirty_macs.insert(link.claim);
            let mac = self.macs.entry(link.claim).or_default();
            if *diff > 0 {
                state.macs.push(*link);
                mac.claimants.push(link.record);
            } else {
                state.macs.retain(|other| other != link);
                mac.claimants.retain(|record| *record != link.record);
            }
        }
    }

    fn recore(
        &mut self,
        moves: &[(RecordId, Option<Label>)],
        dirty_records: &mut BTreeSet<RecordId>,
        dirty_cores: &mut BTreeSet<Label>,
    ) {
        // Records leave in bulk, so that a big core is walked once.
        let mut leaving: HashMap<Label, HashSet<RecordId>> = HashMap::new();
        for (record, _) in moves {
            let state = self.records.entry(*record).or_default();
            if let Some(label) = state.core.take() {
                leaving.entry(label).or_default().insert(*record);
                dirty_cores.insert(label);
            }
        }
        for (label, records) in leaving {
            if let Some(core) = self.cores.get_mut(&label) {
                core.records.retain(|record| !records.contains(record));
            }
        }
        for (record, label) in moves {
            dirty_records.insert(*record);
            if let Some(label) = label {
                self.records.entry(*record).or_default().core = Some(*label);
                self.cores.entry(*label).or_default().records.push(*record);
                dirty_cores.insert(*label);
            }
        }
    }

    /// Works out what a core holds. Where that changes, so may every MAC that it claims.
    fn settle_core(&mut self, label: Label, dirty_macs: &mut BTreeSet<ClaimId>) {
        let Some(core) = self.cores.get_mut(&label) else {
            return;
        };
        if core.records.is_empty() {
            self.cores.remove(&label);
            return;
        }
        let states = || core.records.iter().filter_map(|record| self.records.get(record));
        let mut holds: Vec<u32> = states().flat_map(|state| state.holds.iter().copied()).collect();
        holds.sort_unstable();
        holds.dedup();
        let open = core.records.iter().any(|record| self.facts.get(record).is_some_and(|r| r.now.open));
        if holds != core.holds || open != core.open {
            dirty_macs.extend(states().flat_map(|state| state.macs.iter().map(|link| link.claim)));
        }
        (core.holds, core.open) = (holds, open);
        core.records.sort_unstable();
    }

    fn judge_mac(&mut self, mac: ClaimId, out: &mut MacChanges) {
        let Some(state) = self.macs.get(&mac) else {
            return;
        };
        let mut edges: Vec<Edge> = Vec::with_capacity(state.claimants.len());
        for record in &state.claimants {
            let Some(link) =
                self.records.get(record).and_then(|state| state.macs.iter().find(|l| l.claim == mac))
            else {
                continue;
            };
            edges.push(self.edge(link));
        }
        let edges = self.first_per_node(edges);
        let holds = |edge: &Edge| match edge.place {
            Place::Core(label) => self.cores.get(&label).map_or(&[][..], |core| &core.holds),
            Place::MacOnly(_) => &[],
        };
        let clashes = |edge: &Edge, only_current: bool| {
            edges.iter().any(|other| {
                other.place != edge.place
                    && (other.current || !only_current)
                    && clash(holds(edge), holds(other))
            })
        };
        let exempt = edges.iter().any(|edge| edge.allowed);
        let ambiguous = !exempt && edges.iter().any(|edge| edge.current && clashes(edge, true));
        let survivors: Vec<Edge> = match (exempt, ambiguous) {
            (true, _) => edges.clone(),
            (_, true) => Vec::new(),
            _ => edges.iter().filter(|edge| edge.current || !clashes(edge, false)).copied().collect(),
        };
        let Some(state) = self.macs.get_mut(&mac) else {
            return;
        };
        if state.ambiguous != ambiguous {
            out.ambiguous.push(mac);
        }
        (state.ambiguous, state.survivors) = (ambiguous, survivors);
    }

    fn edge(&self, link: &Link) -> Edge {
        let first_asserted = self.facts.get(&link.record).and_then(|record| {
            let index = record.claims.binary_search_by_key(&link.claim, |span| span.claim).ok()?;
            Some(record.claims[index].first_asserted)
        });
        Edge {
            place: self.place(link.record),
            mac: link.claim,
            current: link.current,
            allowed: link.allowed,
            first_asserted: first_asserted.unwrap_or(i64::MAX),
            record: link.record,
        }
    }

    /// Of the edges of one node to one MAC, the one that step 4 would take first: current before
    /// lapsed, then by (first asserted, record key).
    fn first_per_node(&self, mut edges: Vec<Edge>) -> Vec<Edge> {
        if edges.len() > 1 {
            let dictionary = self.dictionary.borrow();
            edges.sort_by(|a, b| {
                let key = |edge: &Edge| (edge.place, !edge.current, edge.first_asserted);
                key(a).cmp(&key(b)).then_with(|| {
                    let name = |edge: &Edge| dictionary.record_entry(edge.record).key.clone();
                    name(a).cmp(&name(b))
                })
            });
            edges.dedup_by_key(|edge| edge.place);
        }
        edges
    }

    /// Judges the nodes that have a dirty MAC: closed cores, and MAC-only records between two cores.
    /// Where such a verdict turns, the other MACs of the node are to be told anew.
    fn judge_nodes(
        &mut self,
        dirty_macs: &mut BTreeSet<ClaimId>,
        dirty_cores: &BTreeSet<Label>,
        dirty_records: &BTreeSet<RecordId>,
        out: &mut MacChanges,
    ) {
        let mut cores: BTreeSet<Label> = dirty_cores.clone();
        let mut loners: BTreeSet<RecordId> = dirty_records.clone();
        for mac in dirty_macs.iter() {
            for record in self.macs.get(mac).map_or(&[][..], |state| &state.claimants) {
                match self.place(*record) {
                    Place::Core(label) => {
                        cores.insert(label);
                    }
                    Place::MacOnly(record) => {
                        loners.insert(record);
                    }
                }
            }
        }
        for label in cores {
            let dropped = self.is_abandoned(label);
            let Some(core) = self.cores.get_mut(&label) else {
                continue;
            };
            if core.dropped != dropped {
                core.dropped = dropped;
                let states = core.records.iter().filter_map(|record| self.records.get(record));
                dirty_macs.extend(states.flat_map(|state| state.macs.iter().map(|link| link.claim)));
            }
        }
        for record in loners {
            let left_out = self.is_bridge(record);
            if self.left_out.contains(&record) != left_out {
                if left_out {
                    self.left_out.insert(record);
                } else {
                    self.left_out.remove(&record);
                }
                out.left_out.push(record);
                let macs = self.records.get(&record).map_or(&[][..], |state| &state.macs);
                dirty_macs.extend(macs.iter().map(|link| link.claim));
            }
        }
    }

    /// A core without an open record keeps its edges only if one other node currently claims all the
    /// MACs that are left to it (it was re-created there).
    fn is_abandoned(&self, label: Label) -> bool {
        let Some(core) = self.cores.get(&label) else {
            return false;
        };
        if core.open {
            return false;
        }
        let place = Place::Core(label);
        let mut macs: Vec<ClaimId> = core
            .records
            .iter()
            .filter_map(|record| self.records.get(record))
            .flat_map(|state| state.macs.iter().map(|link| link.claim))
            .collect();
        macs.sort_unstable();
        macs.dedup();
        let mut heirs: Option<BTreeSet<Place>> = None;
        for mac in macs {
            let Some(state) = self.macs.get(&mac) else {
                continue;
            };
            if !state.survivors.iter().any(|edge| edge.place == place && !edge.allowed) {
                continue;
            }
            let current: BTreeSet<Place> = state
                .claimants
                .iter()
                .filter(|record| {
                    self.records
                        .get(*record)
                        .is_some_and(|state| state.macs.iter().any(|link| link.claim == mac && link.current))
                })
                .map(|record| self.place(*record))
                .filter(|other| *other != place)
                .collect();
            heirs = Some(match heirs {
                None => current,
                Some(heirs) => heirs.intersection(&current).copied().collect(),
            });
        }
        heirs.is_some_and(|heirs| heirs.is_empty())
    }

    /// A MAC-only record that currently claims MACs of two cores that clash, which claim them currently.
    fn is_bridge(&self, record: RecordId) -> bool {
        let Some(state) = self.records.get(&record) else {
            return false;
        };
        if state.core.is_some() {
            return false;
        }
        let mut cores: BTreeSet<Label> = BTreeSet::new();
        for link in state.macs.iter().filter(|link| link.current && !link.allowed) {
            let Some(mac) = self.macs.get(&link.claim) else {
                continue;
            };
            if mac.ambiguous {
                continue;
            }
            cores.extend(mac.survivors.iter().filter(|edge| edge.current).filter_map(
                |edge| match edge.place {
                    Place::Core(label) => Some(label),
                    Place::MacOnly(_) => None,
                },
            ));
        }
        let mut seen: HashSet<u32> = HashSet::new();
        let holds = cores.iter().filter_map(|label| self.cores.get(label));
        holds.flat_map(|core| core.holds.iter()).any(|namespace| !seen.insert(*namespace))
    }

    /// Tells the edges of a MAC that survive all judgements.
    fn tell(&mut self, mac: ClaimId, nodes: &mut BTreeSet<Place>, out: &mut MacChanges) {
        let Some(state) = self.macs.get_mut(&mac) else {
            return;
        };
        let stands = |edge: &&Edge| {
            edge.allowed
                || match edge.place {
                    Place::Core(label) => self.cores.get(&label).is_some_and(|core| !core.dropped),
                    Place::MacOnly(record) => !self.left_out.contains(&record),
                }
        };
        let told: Vec<Edge> = state.survivors.iter().filter(stands).copied().collect();
        if told != state.told {
            nodes.extend(state.told.iter().chain(&told).map(|edge| edge.place));
            for (list, diff) in [(&state.told, -1), (&told, 1)] {
                if list.len() > 1 {
                    out.shared.extend(list.iter().map(|edge| ((edge.place, mac), diff)));
                }
            }
            state.told = told;
        }
        if state.claimants.is_empty() && state.told.is_empty() {
            self.macs.remove(&mac);
        }
    }
}
