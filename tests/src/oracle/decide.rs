//! Which decisions are in force.

use std::collections::{BTreeMap, BTreeSet};

use serviceradar_schemas::{Decision, Source};

use super::normalise::{self, Claim};

/// What a decision is about, in its normal form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Claim(Claim),
    Link(Claim, Claim),
    Record(String),
    Snapshot(Source, i64),
}

/// The decisions in force in one partition.
#[derive(Default)]
pub(super) struct InForce {
    pub(super) blocked: BTreeSet<Claim>,
    pub(super) allowed: BTreeSet<Claim>,
    pub(super) pinned: BTreeSet<Claim>,
    pub(super) links: BTreeSet<(Claim, Claim)>,
    pub(super) detached: BTreeSet<String>,
    /// Begins of the fetches that were accepted, by source.
    pub(super) accepted: BTreeMap<Source, BTreeSet<i64>>,
}

impl InForce {
    /// A local MAC that is allowed is tier 2.
    pub(super) fn tier(&self, claim: &Claim) -> u8 {
        if claim.0 == "mac" && self.allowed.contains(claim) { 2 } else { normalise::tier(claim) }
    }
}

/// Per action and target the greatest (time, id) counts, and if that is a revocation, nothing;
/// then per family and target the greatest.
pub(super) fn in_force(partition: &str, decisions: &[Decision]) -> InForce {
    let mut latest: BTreeMap<(&str, Target), &Decision> = BTreeMap::new();
    for decision in decisions.iter().filter(|d| d.partition == partition) {
        let revoked = decision.revokes.as_deref().unwrap_or_default();
        let action = if decision.action == "revoke" { revoked } else { &decision.action };
        let Some(target) = target(action, decision) else {
            continue;
        };
        let held = latest.entry((action, target)).or_insert(decision);
        if time_and_id(held) < time_and_id(decision) {
            *held = decision;
        }
    }
    let mut winner: BTreeMap<(&str, Target), &Decision> = BTreeMap::new();
    for ((action, target), decision) in latest {
        if decision.action == "revoke" {
            continue;
        }
        let held = winner.entry((family(action), target)).or_insert(decision);
        if time_and_id(held) < time_and_id(decision) {
            *held = decision;
        }
    }
    let mut in_force = InForce::default();
    for ((_, target), decision) in winner {
        put(&mut in_force, &decision.action, target);
    }
    in_force
}

fn time_and_id(decision: &Decision) -> (i64, &str) {
    (decision.event_time, &decision.id)
}

fn family(action: &str) -> &str {
    match action {
        "block" | "allow" => "block or allow",
        "accept_snapshot" | "hold_snapshot" => "accept or hold",
        other => other,
    }
}

fn put(in_force: &mut InForce, action: &str, target: Target) {
    match (action, target) {
        ("block", Target::Claim(claim)) => _ = in_force.blocked.insert(claim),
        ("allow", Target::Claim(claim)) => _ = in_force.allowed.insert(claim),
        ("pin_uid", Target::Claim(claim)) => _ = in_force.pinned.insert(claim),
        ("link", Target::Link(a, b)) => _ = in_force.links.insert((a, b)),
        ("detach", Target::Record(record)) => _ = in_force.detached.insert(record),
        ("accept_snapshot", Target::Snapshot(source, begin)) => {
            in_force.accepted.entry(source).or_default().insert(begin);
        }
        _ => (),
    }
}

/// What the decision is about; `None` where it is refused, or is no matter of identity.
fn target(action: &str, decision: &Decision) -> Option<Target> {
    let normal = |c: &serviceradar_schemas::Claim| normalise::claim(&c.namespace, &c.value);
    let target = &decision.target;
    match action {
        "block" | "allow" | "pin_uid" => target.claim.as_ref().and_then(normal).map(Target::Claim),
        "link" => match target.claims.as_deref() {
            Some([a, b]) => {
                let (a, b) = (normal(a)?, normal(b)?);
                Some(Target::Link(a.clone().min(b.clone()), a.max(b)))
            }
            _ => None,
        },
        "detach" => target.record.clone().map(Target::Record),
        "accept_snapshot" | "hold_snapshot" => Some(Target::Snapshot(target.source.clone()?, target.begin?)),
        _ => None,
    }
}
