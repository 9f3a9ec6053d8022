//! MAC edges: each MAC judged by the cores that claim it. Source: `identity.md`, "From evidence to
//! devices", 3.
//!
//! In goes what links each record and which core it is in; out come the edges between nodes (cores and
//! MAC-only records) and MACs that survive.

use std::{cell::RefCell, collections::BTreeSet, rc::Rc};

use hashbrown::{HashMap, HashSet};

use crate::{
    components::Label,
    dictionary::{ClaimId, Dictionary, RecordId},
    facts::Facts,
    few::Few,
    fold::RecordChange,
    judge::{Judge, Link},
    paged::Paged,
    sort_unique, sort_unique_labels,
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
    /// Edges that survive, sorted.
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

#[derive(Clone, Default)]
struct CoreState {
    /// Sorted.
    records: Few,
    /// Exclusive namespaces that it holds, sorted.
    holds: Few,
    open: bool,
    /// Whether its edges fall because it is closed and nobody took its MACs over.
    dropped: bool,
}

/// A MAC that links several records.
#[derive(Clone, Default)]
struct MacState {
    /// Edges that survive the judgement of the MAC itself.
    survivors: Box<[Edge]>,
    /// Those of them that survive that of their nodes too, as told; absent where all do.
    told: Option<Box<[Edge]>>,
}

impl MacState {
    fn told(&self) -> &[Edge] {
        self.told.as_deref().unwrap_or(&self.survivors)
    }
}

/// What links which records, for looking up.
#[derive(Clone, Copy)]
pub struct Linked<'a> {
    /// Records.
    pub facts: &'a Facts,
    /// Links.
    pub judge: &'a Judge,
}

impl Linked<'_> {
    /// The MACs that link a record.
    fn macs(&self, record: RecordId) -> impl Iterator<Item = Link> {
        self.judge.links(record).filter(|link| link.is_mac)
    }

    /// The links of a claim.
    fn of_claim(&self, claim: ClaimId) -> impl Iterator<Item = Link> {
        self.facts.claimants(claim).iter().filter_map(move |record| self.judge.link(*record, claim))
    }
}

/// The state of the operator. A MAC that links one record alone has none: its edge survives as long as its
/// node's edges do.
pub struct Macs {
    dictionary: Rc<RefCell<Dictionary>>,
    /// By record: its core, or `NO_CORE`, or `NEW`.
    core_of: Vec<Label>,
    cores: Paged<CoreState>,
    /// By number of a claim that several records had.
    shared: Paged<Option<MacState>>,
    ambiguous: HashSet<ClaimId>,
    left_out: HashSet<RecordId>,
}

/// Sorts places, each once: cores, then records.
pub(crate) fn sort_unique_places(places: &mut Vec<Place>) {
    let (mut cores, mut records) = (Vec::new(), Vec::new());
    for place in places.drain(..) {
        match place {
            Place::Core(label) => cores.push(label),
            Place::MacOnly(record) => records.push(record),
        }
    }
    sort_unique_labels(&mut cores);
    sort_unique_labels(&mut records);
    places.extend(cores.into_iter().map(Place::Core));
    places.extend(records.into_iter().map(Place::MacOnly));
}

const NO_CORE: Label = Label::MAX;
/// Of a record that was no node yet.
const NEW: Label = Label::MAX - 1;

fn clash(a: &[u32], b: &[u32]) -> bool {
    a.iter().any(|namespace| b.contains(namespace))
}

/// What an epoch touches.
#[derive(Default)]
struct Dirty {
    records: Vec<RecordId>,
    cores: Vec<Label>,
    macs: Vec<ClaimId>,
    /// Nodes whose edges change.
    nodes: Vec<Place>,
}

impl Macs {
    /// Empty.
    pub fn new(dictionary: Rc<RefCell<Dictionary>>) -> Self {
        Self {
            dictionary,
            core_of: Vec::new(),
            cores: Paged::new(CoreState::default()),
            shared: Paged::new(None),
            ambiguous: HashSet::new(),
            left_out: HashSet::new(),
        }
    }

    /// Whether devices share a MAC which cannot be one.
    pub fn is_ambiguous(&self, mac: ClaimId) -> bool {
        self.ambiguous.contains(&mac)
    }

    /// Whether a MAC-only record is left out because it bridges two devices.
    pub fn is_left_out(&self, record: RecordId) -> bool {
        self.left_out.contains(&record)
    }

    /// Whether the edge of a record to a MAC that links it survived.
    pub fn survives(&self, link: Link, facts: &Facts) -> bool {
        let place = self.place(link.record);
        match self.state(link.claim, facts) {
            Some(state) => state.told().iter().any(|edge| edge.place == place),
            None => link.allowed || self.keeps_edges(place),
        }
    }

    fn state(&self, mac: ClaimId, facts: &Facts) -> Option<&MacState> {
        self.shared[facts.shared(mac)?].as_ref()
    }

    fn core(&self, record: RecordId) -> Option<Label> {
        self.core_of.get(record as usize).copied().filter(|label| *label < NEW)
    }

    fn core_state(&self, label: Label) -> Option<&CoreState> {
        Some(&self.cores[label]).filter(|core| !core.records.is_empty())
    }

    /// The node that a record is, or is in.
    pub fn place(&self, record: RecordId) -> Place {
        self.core(record).map_or(Place::MacOnly(record), Place::Core)
    }

    /// Whether the edges of a node stand, but for what each MAC says.
    fn keeps_edges(&self, place: Place) -> bool {
        match place {
            Place::Core(label) => self.core_state(label).is_some_and(|core| !core.dropped),
            Place::MacOnly(record) => !self.left_out.contains(&record),
        }
    }

    /// How many records a node has; none where it is no node.
    pub fn records_in(&self, place: Place, linked: Linked<'_>) -> Option<usize> {
        match place {
            Place::Core(label) => self.core_state(label).map(|core| core.records.len()),
            Place::MacOnly(record) if self.core(record).is_some() => None,
            Place::MacOnly(record) => {
                linked.macs(record).any(|link| self.survives(link, linked.facts)).then_some(1)
            }
        }
    }

    /// The exclusive namespaces that a node holds, sorted.
    pub fn holds(&self, place: Place) -> &[u32] {
        match place {
            Place::Core(label) => &self.cores[label].holds,
            Place::MacOnly(_) => &[],
        }
    }

    /// A node as it is; none where it is no more. Of a core, edges to MACs that nobody else ever claimed are left
    /// out: they join nothing, and nobody follows them.
    pub fn node(&self, place: Place, linked: Linked<'_>) -> Option<NodeInfo> {
        self.records_in(place, linked)?;
        let (holds, records) = (self.holds(place).to_vec(), self.records_of(&place).to_vec());
        let mut edges: Vec<Edge> = Vec::new();
        for link in records.iter().flat_map(|record| linked.macs(*record)) {
            match self.state(link.claim, linked.facts) {
                Some(state) => edges.extend(state.told().iter().filter(|edge| edge.place == place)),
                None if matches!(place, Place::Core(_)) && !linked.facts.is_shared(link.claim) => {}
                None => {
                    edges.extend(self.survives(link, linked.facts).then(|| self.edge(link, linked.facts)));
                }
            }
        }
        sort_unique(&mut edges);
        Some(NodeInfo { holds, records, edges })
    }

    /// The first node that has an edge to a MAC.
    pub fn first(&self, mac: ClaimId, linked: Linked<'_>) -> Option<Place> {
        match self.state(mac, linked.facts) {
            Some(state) => state.told().first().map(|edge| edge.place),
            None => {
                let link = linked.of_claim(mac).next()?;
                self.survives(link, linked.facts).then(|| self.place(link.record))
            }
        }
    }

    /// The records of a node.
    pub fn records_of<'a>(&'a self, place: &'a Place) -> &'a [RecordId] {
        match place {
            Place::Core(label) => &self.cores[*label].records,
            Place::MacOnly(record) => std::slice::from_ref(record),
        }
    }

    /// How many nodes have an edge to a MAC that several records claim.
    pub fn sharers(&self, mac: ClaimId, facts: &Facts) -> usize {
        self.state(mac, facts).map_or(0, |state| state.told().len())
    }

    /// Judges anew what an epoch touched.
    pub fn judge(
        &mut self,
        linked: Linked<'_>,
        changes: &[RecordChange],
        links: &[(Link, isize)],
        cores: &[(RecordId, Option<Label>)],
    ) -> MacChanges {
        let mut dirty = Dirty::default();
        for (before, after) in changes {
            let same = before.as_ref().is_some_and(|before| {
                before.claims.is(&after.claims) && before.now().open == after.now().open
            });
            if !same {
                dirty.records.push(after.id);
            }
        }
        let dictionary = self.dictionary.clone();
        let dictionary = dictionary.borrow();
        for (link, _) in links {
            dirty.records.push(link.record);
            if link.is_mac {
                self.note_mac(link.claim, linked, &mut dirty);
            }
        }
        self.recore(cores, &mut dirty);
        sort_unique_labels(&mut dirty.records);
        for record in std::mem::take(&mut dirty.records) {
            for link in linked.macs(record) {
                self.note_mac(link.claim, linked, &mut dirty);
            }
            match self.core(record) {
                Some(label) => dirty.cores.push(label),
                None => {
                    *self.core_slot(record) = NO_CORE;
                    dirty.nodes.push(Place::MacOnly(record));
                }
            }
            dirty.records.push(record);
        }
        sort_unique_labels(&mut dirty.cores);
        for label in std::mem::take(&mut dirty.cores) {
            dirty.nodes.push(Place::Core(label));
            self.settle_core(label, linked, &dictionary, &mut dirty);
            dirty.cores.push(label);
        }
        let mut out = MacChanges::default();
        sort_unique_labels(&mut dirty.macs);
        for mac in std::mem::take(&mut dirty.macs) {
            self.judge_mac(mac, linked, &mut dirty.nodes, &mut out);
            dirty.macs.push(mac);
        }
        self.judge_nodes(linked, &mut dirty, &mut out);
        sort_unique_labels(&mut dirty.macs);
        for mac in std::mem::take(&mut dirty.macs) {
            self.tell(mac, linked, &mut dirty.nodes, &mut out);
        }
        sort_unique_places(&mut dirty.nodes);
        out.nodes = dirty.nodes;
        out
    }

    /// Notes a MAC that is to be judged: one that links several records, or did.
    fn note_mac(&self, mac: ClaimId, linked: Linked<'_>, dirty: &mut Dirty) {
        if linked.facts.is_shared(mac) && dirty.macs.last() != Some(&mac) {
            dirty.macs.push(mac);
        }
    }

    fn core_slot(&mut self, record: RecordId) -> &mut Label {
        let index = record as usize;
        if self.core_of.len() <= index {
            self.core_of.resize(index + 1, NEW);
        }
        &mut self.core_of[index]
    }

    fn recore(&mut self, moves: &[(RecordId, Option<Label>)], dirty: &mut Dirty) {
        // Records leave in bulk, so that a big core is walked once.
        let mut leaving: HashMap<Label, HashSet<RecordId>> = HashMap::new();
        for (record, _) in moves {
            match std::mem::replace(self.core_slot(*record), NO_CORE) {
                NEW => {}
                NO_CORE => dirty.nodes.push(Place::MacOnly(*record)),
                label => {
                    leaving.entry(label).or_default().insert(*record);
                    dirty.cores.push(label);
                }
            }
        }
        for (label, records) in leaving {
            self.cores[label].records.retain(|record| !records.contains(record));
        }
        for (record, label) in moves {
            dirty.records.push(*record);
            if let Some(label) = label {
                *self.core_slot(*record) = *label;
                self.cores[*label].records.push(*record);
                dirty.cores.push(*label);
            }
        }
    }

    /// Works out what a core holds. Where that changes, so may every MAC that it claims.
    fn settle_core(&mut self, label: Label, linked: Linked<'_>, dictionary: &Dictionary, dirty: &mut Dirty) {
        let mut core = std::mem::take(&mut self.cores[label]);
        if core.records.is_empty() {
            return;
        }
        let links = || core.records.iter().flat_map(|record| linked.judge.links(*record));
        let current = links().filter(|link| link.current).map(|link| dictionary.class_of(link.claim));
        let mut holds = Few::NONE;
        current
            .filter(|entry| entry.kind.is_exclusive())
            .for_each(|entry| holds.insert_sorted(entry.namespace));
        let open =
            core.records.iter().any(|record| linked.facts.record(*record).is_some_and(|r| r.now().open));
        if *holds != *core.holds || open != core.open {
            for link in core.records.iter().flat_map(|record| linked.macs(*record)) {
                self.note_mac(link.claim, linked, dirty);
            }
        }
        (core.holds, core.open) = (holds, open);
        core.records.sort_unstable();
        self.cores[label] = core;
    }

    fn judge_mac(&mut self, mac: ClaimId, linked: Linked<'_>, nodes: &mut Vec<Place>, out: &mut MacChanges) {
        let edges: Vec<Edge> = linked.of_claim(mac).map(|link| self.edge(link, linked.facts)).collect();
        let Some(shared) = linked.facts.shared(mac) else {
            return;
        };
        if self.shared[shared].is_none() {
            if edges.len() < 2 {
                return;
            }
            // One of them had it to itself.
            nodes.extend(edges.iter().map(|edge| edge.place));
        }
        let edges = self.first_per_node(edges);
        let holds = |edge: &Edge| self.holds(edge.place);
        let clashes = |edge: &Edge, only_current: bool| {
            edges.iter().any(|other| {
                other.place != edge.place
                    && (other.current || !only_current)
                    && clash(holds(edge), holds(other))
            })
        };
        let exempt = edges.iter().any(|edge| edge.allowed);
        let ambiguous = !exempt && edges.iter().any(|edge| edge.current && clashes(edge, true));
        let survivors: Box<[Edge]> = match (exempt, ambiguous) {
            (true, _) => edges.into(),
            (_, true) => Box::default(),
            _ => edges.iter().filter(|edge| edge.current || !clashes(edge, false)).copied().collect(),
        };
        let changed = if ambiguous { self.ambiguous.insert(mac) } else { self.ambiguous.remove(&mac) };
        if changed {
            out.ambiguous.push(mac);
        }
        let state = self.shared[shared].get_or_insert_default();
        if state.survivors != survivors {
            // What is told goes by what was told before.
            let before = std::mem::replace(&mut state.survivors, survivors);
            state.told.get_or_insert(before);
        }
    }

    fn edge(&self, link: Link, facts: &Facts) -> Edge {
        let first_asserted = facts.times(link.record, link.claim).map(|times| times.first_asserted);
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
                let name = |edge: &Edge| dictionary.key(edge.record);
                key(a).cmp(&key(b)).then_with(|| name(a).cmp(name(b)))
            });
            edges.dedup_by_key(|edge| edge.place);
        }
        edges
    }

    /// Judges the nodes that have a dirty MAC: closed cores, and MAC-only records between two cores.
    /// Where such a verdict turns, the other MACs of the node are to be told anew.
    fn judge_nodes(&mut self, linked: Linked<'_>, dirty: &mut Dirty, out: &mut MacChanges) {
        // A core with an open record is not abandoned, and a record of a core is no bridge.
        let is_open = |label: Label| self.cores[label].open && !self.cores[label].dropped;
        let of_core = |record: RecordId| self.core(record).is_some() && !self.left_out.contains(&record);
        let mut cores: Vec<Label> = dirty.cores.iter().copied().filter(|label| !is_open(*label)).collect();
        let mut loners: Vec<RecordId> =
            dirty.records.iter().copied().filter(|record| !of_core(*record)).collect();
        for link in dirty.macs.iter().flat_map(|mac| linked.of_claim(*mac)) {
            match self.place(link.record) {
                Place::Core(label) if is_open(label) => {}
                Place::Core(label) => cores.push(label),
                Place::MacOnly(record) => loners.push(record),
            }
        }
        sort_unique_labels(&mut cores);
        sort_unique_labels(&mut loners);
        for label in cores {
            let dropped = self.is_abandoned(label, linked);
            if self.core_state(label).is_none_or(|core| core.dropped == dropped) {
                continue;
            }
            self.cores[label].dropped = dropped;
            dirty.nodes.push(Place::Core(label));
            for record in self.cores[label].records.iter() {
                linked.macs(*record).for_each(|link| self.note_mac(link.claim, linked, dirty));
            }
        }
        for record in loners {
            let left_out = self.is_bridge(record, linked);
            let changed = if left_out { self.left_out.insert(record) } else { self.left_out.remove(&record) };
            if changed {
                out.left_out.push(record);
                dirty.nodes.push(Place::MacOnly(record));
                linked.macs(record).for_each(|link| self.note_mac(link.claim, linked, dirty));
            }
        }
    }

    /// A core without an open record keeps its edges only if one other node currently claims all the
    /// MACs that are left to it (it was re-created there).
    fn is_abandoned(&self, label: Label, linked: Linked<'_>) -> bool {
        let Some(core) = self.core_state(label).filter(|core| !core.open) else {
            return false;
        };
        let place = Place::Core(label);
        let links = core.records.iter().flat_map(|record| linked.macs(*record));
        let mut macs: Vec<(ClaimId, bool)> = links.map(|link| (link.claim, link.allowed)).collect();
        sort_unique(&mut macs);
        let mut heirs: Option<BTreeSet<Place>> = None;
        for (mac, allowed) in macs {
            let is_left = match self.state(mac, linked.facts) {
                Some(state) => state.survivors.iter().any(|edge| edge.place == place && !edge.allowed),
                None => !allowed,
            };
            if !is_left {
                continue;
            }
            let current =
                linked.of_claim(mac).filter(|link| link.current).map(|link| self.place(link.record));
            let current: BTreeSet<Place> = current.filter(|other| *other != place).collect();
            heirs = Some(match heirs {
                None => current,
                Some(heirs) => heirs.intersection(&current).copied().collect(),
            });
        }
        heirs.is_some_and(|heirs| heirs.is_empty())
    }

    /// A MAC-only record that currently claims MACs of two cores that clash, which claim them currently.
    fn is_bridge(&self, record: RecordId, linked: Linked<'_>) -> bool {
        if self.core(record).is_some() {
            return false;
        }
        let mut cores: Vec<Label> = Vec::new();
        for link in linked.macs(record).filter(|link| link.current && !link.allowed) {
            let Some(mac) = self.state(link.claim, linked.facts) else {
                continue;
            };
            cores.extend(mac.survivors.iter().filter(|edge| edge.current).filter_map(
                |edge| match edge.place {
                    Place::Core(label) => Some(label),
                    Place::MacOnly(_) => None,
                },
            ));
        }
        sort_unique_labels(&mut cores);
        let mut seen: HashSet<u32> = HashSet::new();
        let holds = cores.iter().map(|label| &self.cores[*label]);
        holds.flat_map(|core| core.holds.iter()).any(|namespace| !seen.insert(*namespace))
    }

    /// Tells the edges of a MAC that survive all judgements.
    fn tell(&mut self, mac: ClaimId, linked: Linked<'_>, nodes: &mut Vec<Place>, out: &mut MacChanges) {
        let Some(shared) = linked.facts.shared(mac) else {
            return;
        };
        let Some(mut state) = self.shared[shared].take() else {
            return;
        };
        let stands = |edge: &Edge| edge.allowed || self.keeps_edges(edge.place);
        let told: Option<Box<[Edge]>> = if state.survivors.iter().all(stands) {
            None
        } else {
            Some(state.survivors.iter().filter(|edge| stands(edge)).copied().collect())
        };
        let now = told.as_deref().unwrap_or(&state.survivors);
        if *now != *state.told() {
            nodes.extend(state.told().iter().chain(now).map(|edge| edge.place));
            for (list, diff) in [(state.told(), -1), (now, 1)] {
                if list.len() > 1 {
                    out.shared.extend(list.iter().map(|edge| ((edge.place, mac), diff)));
                }
            }
        }
        state.told = told;
        // What links one record alone, or none, follows from that record.
        if linked.of_claim(mac).nth(1).is_some() {
            self.shared[shared] = Some(state);
        }
    }
}
