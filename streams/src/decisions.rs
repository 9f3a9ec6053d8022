//! Decisions: which are in force, and what each does. Source: `identity.md`, "Rules and decisions".

use std::collections::{BTreeMap, BTreeSet};

use serviceradar_schemas::{Decision, Source};

use crate::{
    claim::is_name,
    normalise::{ClaimKey, claim_key, clamp_time},
    rows::{Changed, Changes, DecisionRow},
};

/// What a decision in force does, in its partition.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// The claim links nothing.
    Block(ClaimKey),
    /// The claim is never generic, quarantined or ambiguous.
    Allow(ClaimKey),
    /// The two claims' cores are one.
    Link(ClaimKey, ClaimKey),
    /// None of the record's claims links.
    Detach(String),
    /// The claim names its device.
    PinUid(ClaimKey),
    /// The value shown, of a claim's device: claim, attribute, value.
    PinValue(ClaimKey, String, String),
    /// The fetch ends what it did not list: source, begin, why.
    AcceptSnapshot(Source, i64, String),
    /// The fetch ends nothing: source, begin, why.
    HoldSnapshot(Source, i64, String),
}

/// An effect and the partition it holds in.
pub type Scoped = (String, Effect);

/// Why a decision cannot be taken: a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecisionRefusal {
    /// Nobody knows such an action.
    #[error(
        "unknown action {0:?}: use block, allow, link, detach, pin_uid, pin_value, accept_snapshot, hold_snapshot or revoke"
    )]
    Action(String),
    /// The target lacks what the action needs.
    #[error("{action} needs {needs} in its target")]
    Target {
        /// The action.
        action: String,
        /// What is missing.
        needs: &'static str,
    },
    /// A claim of the target normalises to nothing.
    #[error("claim {namespace}:{value} is no usable claim: {reason}")]
    Claim {
        /// As it came.
        namespace: String,
        /// As it came.
        value: String,
        /// Why not.
        reason: &'static str,
    },
    /// The partition or the id is not well formed.
    #[error("{0} is missing or no name")]
    Field(&'static str),
}

/// The target of a decision, normalised: what two decisions must share to outweigh one another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Claim(ClaimKey),
    Claims(ClaimKey, ClaimKey),
    Record(String),
    Fetch(Source, i64),
    Value(ClaimKey, String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Block,
    Allow,
    Link,
    Detach,
    PinUid,
    PinValue,
    Accept,
    Hold,
}

impl Kind {
    fn of(action: &str) -> Option<Self> {
        Some(match action {
            "block" => Self::Block,
            "allow" => Self::Allow,
            "link" => Self::Link,
            "detach" => Self::Detach,
            "pin_uid" => Self::PinUid,
            "pin_value" => Self::PinValue,
            "accept_snapshot" => Self::Accept,
            "hold_snapshot" => Self::Hold,
            _ => return None,
        })
    }

    /// Of one family only the greatest is in force.
    fn family(self) -> u8 {
        match self {
            Self::Block | Self::Allow => 0,
            Self::Accept | Self::Hold => 1,
            Self::Link => 2,
            Self::Detach => 3,
            Self::PinUid => 4,
            Self::PinValue => 5,
        }
    }
}

/// A decision that was taken in.
#[derive(Clone, Debug)]
pub struct Taken {
    decision: Decision,
    /// Its time, clamped.
    at: i64,
    kind: Kind,
    revoked: bool,
    target: Target,
}

impl Taken {
    /// Reads a decision; `intake_time` is absent where there is none (a file).
    pub fn read(decision: Decision, intake_time: Option<i64>) -> Result<Self, DecisionRefusal> {
        if decision.id.is_empty() || decision.id.contains('\0') {
            return Err(DecisionRefusal::Field("id"));
        }
        if !is_name(&decision.partition) {
            return Err(DecisionRefusal::Field("partition"));
        }
        let revoked = decision.action == "revoke";
        let action = if revoked { decision.revokes.as_deref().unwrap_or("") } else { &decision.action };
        let kind = Kind::of(action).ok_or_else(|| DecisionRefusal::Action(decision.action.clone()))?;
        let target = target(&decision, kind, intake_time)?;
        let at = clamp_time(decision.event_time, intake_time);
        Ok(Self { decision, at, kind, revoked, target })
    }

    /// The partition it holds in.
    pub fn partition(&self) -> &str {
        &self.decision.partition
    }

    fn weight(&self) -> (i64, &str) {
        (self.at, &self.decision.id)
    }

    fn effect(&self) -> Effect {
        match (self.kind, self.target.clone()) {
            (Kind::Allow, Target::Claim(claim)) => Effect::Allow(claim),
            (Kind::PinUid, Target::Claim(claim)) => Effect::PinUid(claim),
            (_, Target::Claim(claim)) => Effect::Block(claim),
            (_, Target::Claims(a, b)) => Effect::Link(a, b),
            (_, Target::Record(record)) => Effect::Detach(record),
            (kind, Target::Fetch(source, begin)) => {
                let why = self.decision.reason.clone();
                match kind {
                    Kind::Hold => Effect::HoldSnapshot(source, begin, why),
                    _ => Effect::AcceptSnapshot(source, begin, why),
                }
            }
            (_, Target::Value(claim, attribute)) => {
                let value = self.decision.value.clone().unwrap_or_default();
                Effect::PinValue(claim, attribute, value)
            }
        }
    }
}

fn target(decision: &Decision, kind: Kind, intake_time: Option<i64>) -> Result<Target, DecisionRefusal> {
    let missing = |needs| DecisionRefusal::Target { action: decision.action.clone(), needs };
    let normal = |claim: &serviceradar_schemas::Claim| {
        claim_key(&claim.namespace, &claim.value).map_err(|reason| DecisionRefusal::Claim {
            namespace: claim.namespace.clone(),
            value: claim.value.clone(),
            reason,
        })
    };
    let target = &decision.target;
    let one_claim = || target.claim.as_ref().ok_or_else(|| missing("claim")).and_then(normal);
    Ok(match kind {
        Kind::Block | Kind::Allow | Kind::PinUid => Target::Claim(one_claim()?),
        Kind::Link => {
            let Some([a, b]) = target.claims.as_deref() else {
                return Err(missing("claims: two of them"));
            };
            let (a, b) = (normal(a)?, normal(b)?);
            if a.tier() != 1 || b.tier() != 1 {
                return Err(missing("claims of tier 1"));
            }
            if a <= b { Target::Claims(a, b) } else { Target::Claims(b, a) }
        }
        Kind::Detach => Target::Record(target.record.clone().ok_or_else(|| missing("record"))?),
        Kind::PinValue => {
            let attribute = target.attribute.clone().ok_or_else(|| missing("attribute"))?;
            Target::Value(one_claim()?, attribute)
        }
        Kind::Accept | Kind::Hold => {
            let source = target.source.clone().ok_or_else(|| missing("source"))?;
            let begin = target.begin.ok_or_else(|| missing("begin"))?;
            Target::Fetch(source, clamp_time(begin, intake_time))
        }
    })
}

/// All decisions of a tenant, and which of them are in force.
#[derive(Default)]
pub struct Decisions {
    groups: BTreeMap<(String, u8, Target), Group>,
}

#[derive(Default)]
struct Group {
    /// By id: a set, so that a duplicate changes nothing.
    taken: BTreeMap<String, Taken>,
    /// The id in force.
    in_force: Option<String>,
}

/// What taking in decisions changed.
#[derive(Default)]
pub struct DecisionChanges {
    /// Effects that came, and went.
    pub effects: Vec<(Scoped, isize)>,
    /// `decisions`.
    pub rows: Changes<DecisionRow>,
}

impl Decisions {
    /// Takes in decisions, all of them at once.
    pub fn take(&mut self, taken: Vec<Taken>) -> DecisionChanges {
        let mut changes = DecisionChanges::default();
        let mut touched: BTreeMap<_, Group> = BTreeMap::new();
        for one in taken {
            let key = (one.decision.partition.clone(), one.kind.family(), one.target.clone());
            let group = self.groups.entry(key.clone()).or_default();
            touched
                .entry(key)
                .or_insert_with(|| Group { taken: group.taken.clone(), in_force: group.in_force.clone() });
            let id = one.decision.id.clone();
            // Of two with one id the greater counts, whichever came first.
            let known = group.taken.get(&id).map(|known| format!("{:?}", known.decision));
            if known.is_none_or(|known| format!("{:?}", one.decision) > known) {
                group.taken.insert(id, one);
            }
        }
        for (key, before) in touched {
            let Some(group) = self.groups.get_mut(&key) else {
                continue;
            };
            group.in_force = in_force(&group.taken);
            for (group, diff) in [(&before, -1), (&*group, 1)] {
                let taken = group.in_force.as_ref().and_then(|id| group.taken.get(id));
                if let Some(taken) = taken {
                    changes.effects.push(((key.0.clone(), taken.effect()), diff));
                }
            }
            row_changes(&before, group, &mut changes.rows);
        }
        changes
    }
}

/// Per action the greatest (event time, id) counts, and if that is a revocation, nothing; of what is
/// left the greatest.
fn in_force(taken: &BTreeMap<String, Taken>) -> Option<String> {
    let kinds: BTreeSet<Kind> = taken.values().map(|taken| taken.kind).collect();
    let greatest = kinds.into_iter().filter_map(|kind| {
        let of_kind = taken.values().filter(|taken| taken.kind == kind);
        of_kind.max_by(|a, b| a.weight().cmp(&b.weight())).filter(|taken| !taken.revoked)
    });
    let winner = greatest.max_by(|a, b| a.weight().cmp(&b.weight()));
    winner.map(|taken| taken.decision.id.clone())
}

fn row_changes(before: &Group, after: &Group, rows: &mut Changes<DecisionRow>) {
    let row = |group: &Group, id: &str| {
        group.taken.get(id).map(|taken| DecisionRow {
            decision: taken.decision.clone(),
            at: taken.at,
            in_force: group.in_force.as_deref() == Some(id),
        })
    };
    for id in after.taken.keys() {
        match (row(before, id), row(after, id)) {
            (None, Some(row)) => rows.new.push(row),
            (Some(old), Some(row)) if old != row => rows.changed.push(Changed { row, seen_only: false }),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(id: &str, at: i64, action: &str, revokes: Option<&str>) -> Taken {
        let json = serde_json::json!({
            "id": id, "event_time": serviceradar_schemas::time::format(at), "action": action,
            "target": {"claim": {"namespace": "mac", "value": "00:1b:21:00:00:01"}},
            "revokes": revokes, "actor": "ops",
        });
        Taken::read(serde_json::from_value(json).unwrap(), None).unwrap()
    }

    #[test]
    fn a_revoked_block_lets_the_older_allow_stand() {
        let mut decisions = Decisions::default();
        decisions.take(vec![taken("a", 1, "allow", None), taken("b", 2, "block", None)]);
        let changes = decisions.take(vec![taken("c", 3, "revoke", Some("block"))]);
        let mac = ClaimKey::Mac(0x001b_2100_0001);
        let scoped = |effect| ("default".to_owned(), effect);
        assert_eq!(
            changes.effects,
            [(scoped(Effect::Block(mac.clone())), -1), (scoped(Effect::Allow(mac)), 1)]
        );
    }

    #[test]
    fn order_and_duplicates_do_not_matter() {
        let all = || {
            vec![
                taken("a", 5, "allow", None),
                taken("b", 5, "block", None),
                taken("c", 9, "revoke", Some("allow")),
                taken("d", 4, "block", None),
            ]
        };
        let net = |order: &[usize]| {
            let mut decisions = Decisions::default();
            let mut net: BTreeMap<Scoped, isize> = BTreeMap::new();
            for index in order {
                for (effect, diff) in decisions.take(vec![all()[*index].clone()]).effects {
                    *net.entry(effect).or_default() += diff;
                }
            }
            net.retain(|_, diff| *diff != 0);
            net
        };
        assert_eq!(net(&[0, 1, 2, 3]), net(&[3, 2, 1, 0, 2, 2]));
        assert_eq!(net(&[0, 1, 2, 3]).len(), 1);
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let read = |json| Taken::read(serde_json::from_value(json).unwrap(), None);
        let base = |action: &str, target: serde_json::Value| serde_json::json!({"id":"x","event_time":"2026-01-01T00:00:00Z","action":action,"target":target,"actor":"ops"});
        let bad_mac = serde_json::json!({"claim":{"namespace":"mac","value":"nonsense"}});
        assert!(matches!(read(base("block", bad_mac)), Err(DecisionRefusal::Claim { .. })));
        assert!(matches!(read(base("merge", serde_json::json!({}))), Err(DecisionRefusal::Action(_))));
        assert!(matches!(read(base("detach", serde_json::json!({}))), Err(DecisionRefusal::Target { .. })));
    }
}
