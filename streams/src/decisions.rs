//! Decisions: which are in force, and what each does. Source: `identity.md`, "Rules and decisions".

use std::collections::{BTreeMap, BTreeSet};

use serviceradar_schemas::{
    Decision, Source, excerpt,
    observation::{NATIVE_KEY_BYTES_MAX, is_native_key},
};

use crate::{
    changes::Changes,
    claim::is_name,
    normalise::{ATTRIBUTE_NAME_BYTES_MAX, ClaimKey, FIELD_BYTES_MAX, claim_key, clamp_time},
    rows::{DecisionRow, RecordRow},
};

/// Longest id of a decision, bytes: it is a key of an index.
pub const ID_BYTES_MAX: usize = 256;
/// Longest actor or reason, bytes: somebody is to read it.
pub const REASON_BYTES_MAX: usize = 8 * 1024;
/// Longest record key, bytes: three names, the native key, and what divides them.
const RECORD_KEY_BYTES_MAX: usize = 3 * 65 + NATIVE_KEY_BYTES_MAX;

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
    /// The value shown, of a claim's device: claim, attribute, value, when it was pinned.
    PinValue(ClaimKey, String, String, i64),
    /// The fetch ends what it did not list: source, begin, why.
    AcceptSnapshot(Source, i64, String),
    /// The fetch ends nothing: source, begin, why.
    HoldSnapshot(Source, i64, String),
    /// The fetch had verdicts, and all were revoked: source, begin. The guard gives no other.
    UnjudgedSnapshot(Source, i64),
}

/// An effect and the partition it holds in.
pub type Scoped = (String, Effect);

/// Why a decision cannot be taken: a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecisionRefusal {
    /// Nobody knows such an action.
    #[error(
        "unknown action {0}: use block, allow, link, detach, pin_uid, pin_value, accept_snapshot, hold_snapshot or revoke"
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
    /// The partition or a part of the target is not well formed.
    #[error("{0} is missing or no name")]
    Field(&'static str),
    /// A text is too long, or of characters that no view can hold.
    #[error("{field} must have at most {longest} bytes and no NUL")]
    Text {
        /// Which.
        field: &'static str,
        /// Bytes.
        longest: usize,
    },
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

/// A decision that was taken in, its times clamped.
#[derive(Clone, Debug)]
pub struct Taken {
    decision: Decision,
    kind: Kind,
    revoked: bool,
    target: Target,
}

impl Taken {
    /// When it was decided, clamped.
    pub fn event_time(&self) -> i64 {
        self.decision.event_time
    }

    /// Reads a decision; `intake_time` is absent where there is none (a file).
    pub fn read(mut decision: Decision, intake_time: Option<i64>) -> Result<Self, DecisionRefusal> {
        if decision.id.is_empty() {
            return Err(DecisionRefusal::Field("id"));
        }
        check(&decision)?;
        if !is_name(&decision.partition) {
            return Err(DecisionRefusal::Field("partition"));
        }
        decision.event_time = clamp_time(decision.event_time, intake_time);
        if let Some(begin) = &mut decision.target.begin {
            *begin = clamp_time(*begin, intake_time);
        }
        let revoked = decision.action == "revoke";
        let action = if revoked { decision.revokes.as_deref().unwrap_or("") } else { &decision.action };
        let kind = Kind::of(action).ok_or_else(|| DecisionRefusal::Action(excerpt(action)))?;
        let target = target(&decision, kind)?;
        Ok(Self { decision, kind, revoked, target })
    }

    fn weight(&self) -> (i64, &str) {
        (self.decision.event_time, &self.decision.id)
    }

    /// Of two with one id the lesser counts: of two deliveries of one decision that is the earlier, by
    /// whose intake time the times are clamped.
    fn precedence(&self) -> (i64, Option<i64>, String) {
        (self.decision.event_time, self.decision.target.begin, format!("{:?}", self.decision))
    }

    fn group(&self) -> GroupKey {
        (self.decision.partition.clone(), self.kind.family(), self.target.clone())
    }

    /// What it does while it is in force.
    pub fn effect(&self) -> Effect {
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
                Effect::PinValue(claim, attribute, value, self.decision.event_time)
            }
        }
    }
}

/// Refuses texts that a view could not hold, or not twice: what differs in a NUL alone would be one row.
fn check(decision: &Decision) -> Result<(), DecisionRefusal> {
    let target = &decision.target;
    let texts = [
        ("id", Some(&decision.id), ID_BYTES_MAX),
        ("target.attribute", target.attribute.as_ref(), ATTRIBUTE_NAME_BYTES_MAX),
        ("target.record", target.record.as_ref(), RECORD_KEY_BYTES_MAX),
        ("value", decision.value.as_ref(), FIELD_BYTES_MAX),
        ("revokes", decision.revokes.as_ref(), ID_BYTES_MAX),
        ("actor", Some(&decision.actor), REASON_BYTES_MAX),
        ("reason", Some(&decision.reason), REASON_BYTES_MAX),
    ];
    for (field, text, longest) in texts {
        if text.is_some_and(|text| text.len() > longest || text.contains('\0')) {
            return Err(DecisionRefusal::Text { field, longest });
        }
    }
    Ok(())
}

fn target(decision: &Decision, kind: Kind) -> Result<Target, DecisionRefusal> {
    let missing = |needs| DecisionRefusal::Target { action: decision.action.clone(), needs };
    let normal = |claim: &serviceradar_schemas::Claim| {
        claim_key(&claim.namespace, &claim.value).map_err(|reason| DecisionRefusal::Claim {
            namespace: excerpt(&claim.namespace),
            value: excerpt(&claim.value),
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
        Kind::Detach => {
            let key = target.record.as_deref().unwrap_or("");
            let of_partition = RecordRow::split(key)
                .filter(|(of, _, native_key)| *of == decision.partition && is_native_key(native_key));
            of_partition.ok_or_else(|| missing("record: a key of its partition"))?;
            Target::Record(key.to_owned())
        }
        Kind::PinValue => {
            let attribute = target.attribute.clone().ok_or_else(|| missing("attribute"))?;
            Target::Value(one_claim()?, attribute)
        }
        Kind::Accept | Kind::Hold => {
            let source = target.source.clone().ok_or_else(|| missing("source"))?;
            if !is_name(&source.kind) || !is_name(&source.instance) {
                return Err(DecisionRefusal::Field("target.source"));
            }
            let begin = target.begin.ok_or_else(|| missing("begin"))?;
            Target::Fetch(source, begin)
        }
    })
}

/// What decisions must share to outweigh one another: partition, family and target.
type GroupKey = (String, u8, Target);

/// All decisions of a tenant, and which of them are in force.
#[derive(Default)]
pub struct Decisions {
    /// By id: a set, so that a duplicate changes nothing.
    taken: BTreeMap<String, Taken>,
    groups: BTreeMap<GroupKey, Group>,
}

#[derive(Clone, Default)]
struct Group {
    ids: BTreeSet<String>,
    /// The id in force.
    in_force: Option<String>,
}

/// What taking in decisions changed.
#[derive(Default)]
pub struct DecisionChanges {
    /// Effects that went (-1), and came (+1).
    pub effects: Vec<(Scoped, isize)>,
    /// `decisions`.
    pub rows: Changes<DecisionRow>,
}

impl Decisions {
    /// Takes in decisions, all of them at once.
    pub fn take(&mut self, taken: Vec<Taken>) -> DecisionChanges {
        let mut rows: BTreeMap<String, Option<DecisionRow>> = BTreeMap::new();
        let mut effects: BTreeMap<GroupKey, Option<Scoped>> = BTreeMap::new();
        for one in taken {
            let id = one.decision.id.clone();
            let known = self.taken.get(&id);
            if known.is_some_and(|known| known.precedence() <= one.precedence()) {
                continue;
            }
            let leaves = known.map(Taken::group);
            for group in leaves.iter().chain([&one.group()]) {
                let ids = self.groups.get(group).map(|group| group.ids.clone()).unwrap_or_default();
                for id in ids.into_iter().chain([id.clone()]) {
                    let row = self.row(&id);
                    rows.entry(id).or_insert(row);
                }
                let effect = self.effect(group);
                effects.entry(group.clone()).or_insert(effect);
            }
            if let Some(group) = leaves.and_then(|group| self.groups.get_mut(&group)) {
                group.ids.remove(&id);
            }
            self.groups.entry(one.group()).or_default().ids.insert(id.clone());
            self.taken.insert(id, one);
        }
        self.changes(rows, effects)
    }

    /// What is different from rows and effects as they were.
    fn changes(
        &mut self,
        rows: BTreeMap<String, Option<DecisionRow>>,
        effects: BTreeMap<GroupKey, Option<Scoped>>,
    ) -> DecisionChanges {
        let mut changes = DecisionChanges::default();
        for (key, before) in effects {
            let in_force = self.in_force(&key);
            self.groups.entry(key.clone()).or_default().in_force = in_force;
            let after = self.effect(&key);
            if before != after {
                changes.effects.extend(before.map(|effect| (effect, -1)));
                changes.effects.extend(after.map(|effect| (effect, 1)));
            }
        }
        for (id, before) in rows {
            match (before, self.row(&id)) {
                (None, Some(row)) => changes.rows.new.push(row),
                (Some(old), Some(row)) if old != row => {
                    changes.rows.changed.push(row);
                }
                _ => {}
            }
        }
        changes
    }

    /// Per action the greatest (event time, id) counts, and if that is a revocation, nothing; of what is
    /// left the greatest.
    fn in_force(&self, group: &GroupKey) -> Option<String> {
        let ids = self.groups.get(group).map(|group| &group.ids).into_iter().flatten();
        let mut greatest: BTreeMap<Kind, &Taken> = BTreeMap::new();
        for taken in ids.filter_map(|id| self.taken.get(id)) {
            let held = greatest.entry(taken.kind).or_insert(taken);
            if held.weight() < taken.weight() {
                *held = taken;
            }
        }
        let standing = greatest.into_values().filter(|taken| !taken.revoked);
        let winner = standing.max_by(|a, b| a.weight().cmp(&b.weight()));
        winner.map(|taken| taken.decision.id.clone())
    }

    /// What the decision of a group that is in force does, or that there was one.
    fn effect(&self, group: &GroupKey) -> Option<Scoped> {
        let Group { ids, in_force } = self.groups.get(group)?;
        let effect = match (in_force, &group.2) {
            (Some(id), _) => self.taken.get(id)?.effect(),
            (None, Target::Fetch(source, begin)) => {
                ids.iter().find(|id| self.taken.get(*id).is_some_and(|taken| !taken.revoked))?;
                Effect::UnjudgedSnapshot(source.clone(), *begin)
            }
            _ => return None,
        };
        Some((group.0.clone(), effect))
    }

    fn row(&self, id: &str) -> Option<DecisionRow> {
        let taken = self.taken.get(id)?;
        let group = self.groups.get(&taken.group());
        Some(DecisionRow {
            decision: taken.decision.clone(),
            at: taken.decision.event_time,
            in_force: group.is_some_and(|group| group.in_force.as_deref() == Some(id)),
        })
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
