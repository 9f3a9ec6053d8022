//! Between two devices: why they are not one. Between two records of one: why they are.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::Serialize;

use super::{
    ClaimText, DecisionTold, Head, IssueTold, Known, SpanTold, by_key, decisions,
    paths::{Graph, Step},
};
use crate::{
    claim::Namespace,
    rows::{EvidenceRow, EvidenceState},
};

/// Two things side by side.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Comparison {
    /// Whether they are one device.
    pub one_device: bool,
    /// The device, or the two.
    pub devices: Vec<Head>,
    /// In words.
    pub why: String,
    /// Of one device, the path of evidence between the two records.
    pub path: Vec<Step>,
    /// Of two, what both claim, the nearest to a link first.
    pub shared: Vec<Shared>,
    /// What keeps two apart: namespaces of which a device has one value, and both have one.
    pub clashes: Vec<Clash>,
    /// The decisions that take part.
    pub decisions: Vec<DecisionTold>,
    /// What the rules refused or flagged of what both claim.
    pub issues: Vec<IssueTold>,
}

/// A claim, or an address, that two devices make.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Shared {
    /// Which.
    pub claim: ClaimText,
    /// Why it does not join them: a word of `device_evidence.state`.
    pub state: &'static str,
    /// In words.
    pub why: &'static str,
    /// The records of the first that make it.
    pub one: Vec<SpanTold>,
    /// Those of the other.
    pub other: Vec<SpanTold>,
}

/// A namespace that both hold.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Clash {
    /// Which.
    pub namespace: Arc<str>,
    /// The values of the first.
    pub one: Vec<Arc<str>>,
    /// Those of the other.
    pub other: Vec<Arc<str>>,
}

/// States, the nearest to a link first, and why a claim in one joins nothing.
const REASONS: [(EvidenceState, &str); 9] = [
    (
        EvidenceState::Refused,
        "it would have put two values into one device of which a device has one; or, where a record makes it that \
         has MACs alone, more hangs together than the rules take for one",
    ),
    (EvidenceState::Bridging, "the record that makes it speaks of several devices"),
    (EvidenceState::Ambiguous, "devices share it that cannot be one: a docking station, a cloned machine"),
    (EvidenceState::Quarantined, "the records that make it name too many devices"),
    (EvidenceState::Generic, "too many records make it"),
    (EvidenceState::Blocked, "an operator said so"),
    (
        EvidenceState::Lapsed,
        "it is no longer asserted, and joins only where nothing current speaks against it",
    ),
    (EvidenceState::Expired, "it was over long ago, or another value took its place"),
    (EvidenceState::Corroborating, "it is of a kind that joins nothing"),
];

/// Why two things are one device, or are not. Each is a record, with what is known of its device.
pub fn compare((one, of_one): (&str, &Known), (other, of_other): (&str, &Known)) -> Comparison {
    if of_one.device.uid == of_other.device.uid {
        return same((one, other), of_one);
    }
    let devices = vec![Head::from(&of_one.device), Head::from(&of_other.device)];
    if of_one.device.partition != of_other.device.partition {
        let (here, there) = (&of_one.device.partition, &of_other.device.partition);
        let why = format!(
            "they are in the partitions {here} and {there}, and what is claimed in one means nothing in the other"
        );
        return Comparison { devices, why, ..Comparison::default() };
    }
    let shared = shared(of_one, of_other);
    let clashes = clashes(of_one, of_other);
    let mut decisions = decisions(of_one);
    decisions.extend(
        self::decisions(of_other).into_iter().filter(|told| !decisions.contains(told)).collect::<Vec<_>>(),
    );
    let both: BTreeSet<&str> = shared.iter().map(|of| &*of.claim).collect();
    let told = of_one.issues.iter().chain(&of_other.issues).map(IssueTold::from);
    let mut issues: Vec<IssueTold> = Vec::new();
    for issue in told {
        let concerns = both.contains(&*issue.of) || issue.kind == "bridging";
        if concerns && !issues.contains(&issue) {
            issues.push(issue);
        }
    }
    let joins = |of: &&Shared| of.state != EvidenceState::Corroborating.as_str();
    let why = match (shared.iter().find(joins), shared.first()) {
        (Some(nearest), _) => format!("both claim {}, and it joins nothing: {}", nearest.claim, nearest.why),
        (None, Some(_)) => "what both have is of a kind that joins nothing".to_owned(),
        (None, None) => "they have nothing in common: no claim, and no address".to_owned(),
    };
    Comparison { one_device: false, devices, why, path: Vec::new(), shared, clashes, decisions, issues }
}

fn same((one, other): (&str, &str), known: &Known) -> Comparison {
    let graph = Graph::of(known);
    let path = graph.between(one, other);
    let why = match &path {
        Some(steps) if steps.is_empty() => "they are the same record".to_owned(),
        Some(steps) if steps.len() == 1 => "they have a claim in common".to_owned(),
        Some(_) => "they hang together over other records".to_owned(),
        None => "one of them is with the device by its address or its history".to_owned(),
    };
    Comparison {
        one_device: true,
        devices: vec![Head::from(&known.device)],
        why,
        path: path.unwrap_or_default(),
        decisions: decisions(known),
        ..Comparison::default()
    }
}

fn shared(one: &Known, other: &Known) -> Vec<Shared> {
    let (mine, theirs) = (by_claim(one), by_claim(other));
    let both = mine.into_iter().filter_map(|(claim, mine)| Some((claim, mine, theirs.get(&claim)?)));
    let nearness = |state: EvidenceState| REASONS.iter().position(|(of, _)| *of == state);
    let mut shared: Vec<(Option<usize>, Shared)> = both
        .map(|((namespace, value), mine, theirs)| {
            let states = mine.iter().chain(theirs).map(|row| row.state);
            // What links on one side and not on the other joins for that other's reason.
            let state = states
                .filter(|state| *state != EvidenceState::Linking)
                .min_by_key(|state| nearness(*state))
                .unwrap_or(EvidenceState::Linking);
            let at = nearness(state);
            let why = at.map_or("", |at| REASONS[at].1);
            let spans = |rows: &[&EvidenceRow], known| spans(rows, known);
            let claim = format!("{namespace}:{value}");
            let (one, other) = (spans(&mine, one), spans(theirs, other));
            (at, Shared { claim, state: state.as_str(), why, one, other })
        })
        .collect();
    shared.sort_by(|(a, of_a), (b, of_b)| (a, &of_a.claim).cmp(&(b, &of_b.claim)));
    shared.into_iter().map(|(_, shared)| shared).collect()
}

type ByClaim<'a> = BTreeMap<(&'a Arc<str>, &'a Arc<str>), Vec<&'a EvidenceRow>>;

fn by_claim(known: &Known) -> ByClaim<'_> {
    let mut claims = ByClaim::new();
    for row in &known.evidence {
        claims.entry((&row.namespace, &row.value)).or_default().push(row);
    }
    claims
}

fn spans(rows: &[&EvidenceRow], known: &Known) -> Vec<SpanTold> {
    let records = by_key(&known.records);
    rows.iter().map(|row| SpanTold::of(row, &records)).collect()
}

/// The exclusive namespaces that both hold. Source: `identity.md`, "From evidence to devices", 2.
fn clashes(one: &Known, other: &Known) -> Vec<Clash> {
    let (mine, mut theirs) = (held(one), held(other));
    let both =
        mine.into_iter().filter_map(|(namespace, one)| Some((theirs.remove(&namespace)?, namespace, one)));
    both.map(|(other, namespace, one)| Clash {
        namespace,
        one: one.into_iter().collect(),
        other: other.into_iter().collect(),
    })
    .collect()
}

fn held(known: &Known) -> BTreeMap<Arc<str>, BTreeSet<Arc<str>>> {
    let mut held: BTreeMap<Arc<str>, BTreeSet<Arc<str>>> = BTreeMap::new();
    for row in known.evidence.iter().filter(|row| row.state == EvidenceState::Linking) {
        if Namespace::of(&row.namespace).is_exclusive() {
            held.entry(row.namespace.clone()).or_default().insert(row.value.clone());
        }
    }
    held
}
