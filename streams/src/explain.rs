//! Explain: why records are one device, why two devices are not one, and why a device shows what it shows.
//!
//! Pure functions of rows of the views: what the rules decided stands there, claim by claim; this says it in words.
//! Source: `identity.md`, "Explaining".

mod attributes;
mod between;
mod paths;

use std::{collections::BTreeMap, sync::Arc};

pub use attributes::{AttributeTold, OfferTold, attribute, names};
pub use between::{Clash, Comparison, Shared, compare};
pub use paths::Step;
use serde::Serialize;
use serviceradar_schemas::{Source, time};

use self::paths::Graph;
use crate::{
    claim::{Namespace, is_universal},
    decisions::{Effect, Taken},
    normalise::{ClaimKey, mac},
    rows::{
        DecisionRow, DeviceRow, EvidenceRow, EvidenceState, IssueRow, Placement, RecordRow, Uid, WatermarkRow,
    },
    rules::Rules,
};

/// What the views hold of a device.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Its row.
    pub device: DeviceRow,
    /// Its records.
    pub records: Vec<RecordRow>,
    /// All that these ever claimed, and their addresses.
    pub evidence: Vec<EvidenceRow>,
    /// Decisions in force in its partition; others' among them.
    pub decisions: Vec<DecisionRow>,
    /// Issues of its claims and records.
    pub issues: Vec<IssueRow>,
    /// Per source in its partition the begin of the last fetch that was accepted.
    pub accepted: Vec<(Source, i64)>,
    /// Of its partition, and the tenant's last TICK.
    pub watermarks: Vec<WatermarkRow>,
}

/// A claim as people write it: `namespace:value`.
pub type ClaimText = String;

/// Which device.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Head {
    /// `sr:<uuid>`.
    pub uid: String,
    /// Its name.
    pub name: Option<String>,
    /// Its partition.
    pub partition: String,
    /// OCSF type.
    pub r#type: String,
    /// `authoritative`, `corroborated`, `provisional`.
    pub confidence: String,
    /// `active`, `stale`, `retired`.
    pub state: String,
    /// First sighting.
    #[serde(with = "time::rfc3339")]
    pub first_seen: i64,
    /// Last sighting.
    #[serde(with = "time::rfc3339")]
    pub last_seen: i64,
    /// `cut`, `rekeyed`.
    pub flags: Vec<String>,
}

impl From<&DeviceRow> for Head {
    fn from(row: &DeviceRow) -> Self {
        Self {
            uid: row.uid.clone(),
            name: row.name.clone(),
            partition: row.partition.clone(),
            r#type: row.r#type.clone(),
            confidence: row.confidence.clone(),
            state: row.state.clone(),
            first_seen: row.first_seen,
            last_seen: row.last_seen,
            flags: row.flags.clone(),
        }
    }
}

/// Why a device is one.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Explanation {
    /// Which.
    pub device: Head,
    /// The claim whose uid it has, where it is not an address.
    pub named_by: Option<ClaimText>,
    /// Its records, the one that it is named by first.
    pub records: Vec<RecordTold>,
    /// Their claims and addresses: those that link first.
    pub claims: Vec<ClaimTold>,
    /// What it shows, where records offer more than one value or an operator pinned one.
    pub attributes: Vec<AttributeTold>,
    /// The decisions that take part.
    pub decisions: Vec<DecisionTold>,
    /// What the rules refused or flagged.
    pub issues: Vec<IssueTold>,
}

/// A record of a device, and why it is there.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RecordTold {
    /// `partition/kind/instance/native key`.
    pub record_key: Arc<str>,
    /// `anchored`, `attached`, `provisional`, `closed`.
    pub placement: &'static str,
    /// Whether it is open.
    pub open: bool,
    /// First sighting.
    #[serde(with = "time::rfc3339_option")]
    pub first_seen: Option<i64>,
    /// Last sighting.
    #[serde(with = "time::rfc3339_option")]
    pub last_seen: Option<i64>,
    /// By what it hangs on another record, where it does: the path between any two records goes over these.
    pub link: Option<Step>,
    /// In words.
    pub why: String,
}

/// A claim, or an address, and who makes it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ClaimTold {
    /// `namespace:value`; an address is `ip:…`.
    pub claim: ClaimText,
    /// 1 to 4.
    pub tier: u8,
    /// Its own uid, which leads to the device while the claim belongs there.
    pub uid: Option<String>,
    /// The records that ever made it.
    pub records: Vec<SpanTold>,
}

/// How a record makes a claim.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SpanTold {
    /// The record.
    pub record_key: Arc<str>,
    /// What the claim does there: a word of `device_evidence.state`.
    pub state: &'static str,
    /// Earliest event time.
    #[serde(with = "time::rfc3339")]
    pub first_seen: i64,
    /// Latest event time.
    #[serde(with = "time::rfc3339_option")]
    pub last_seen: Option<i64>,
    /// Earliest intake time: what stands was there first.
    #[serde(with = "time::rfc3339")]
    pub first_asserted: i64,
}

impl SpanTold {
    fn of(row: &EvidenceRow, records: &BTreeMap<&str, &RecordRow>) -> Self {
        Self {
            record_key: row.record_key.clone(),
            state: row.state.as_str(),
            first_seen: row.first_seen,
            last_seen: last_seen(row, records),
            first_asserted: row.first_asserted,
        }
    }
}

/// A decision that takes part.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct DecisionTold {
    /// Its id.
    pub id: String,
    /// Its action.
    pub action: String,
    /// What it is about.
    pub target: String,
    /// Of a pinned value, the value.
    pub value: Option<String>,
    /// Who decided.
    pub actor: String,
    /// Why.
    pub reason: String,
    /// When.
    #[serde(with = "time::rfc3339")]
    pub at: i64,
}

/// An issue.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct IssueTold {
    /// A word of `identity_issues.kind`.
    pub kind: &'static str,
    /// The claim; of a record, `record:` and its key.
    pub of: ClaimText,
    /// In words.
    pub detail: String,
}

/// Why a device is one, and shows what it shows.
///
/// # Errors
/// Names the row that cannot be read.
pub fn device(known: &Known, rules: &Rules) -> Result<Explanation, String> {
    let graph = Graph::of(known);
    let named_by = named_by(known);
    Ok(Explanation {
        device: Head::from(&known.device),
        records: records(known, &graph, named_by),
        claims: claims(known),
        attributes: attributes::told(known, rules)?,
        decisions: decisions(known),
        issues: known.issues.iter().map(IssueTold::from).collect(),
        named_by: named_by.map(text_of),
    })
}

impl From<&IssueRow> for IssueTold {
    fn from(row: &IssueRow) -> Self {
        Self { kind: row.kind, of: format!("{}:{}", row.namespace, row.value), detail: row.detail.clone() }
    }
}

/// A claim as people write it.
fn text_of(row: &EvidenceRow) -> ClaimText {
    format!("{}:{}", row.namespace, row.value)
}

fn tier(row: &EvidenceRow, allowed: bool) -> u8 {
    if row.ip.is_some() {
        return 4;
    }
    match Namespace::of(&row.namespace) {
        Namespace::Other => 3,
        Namespace::Mac if allowed || mac(&row.value).is_ok_and(is_universal) => 2,
        Namespace::Mac => 3,
        _ => 1,
    }
}

/// When a row of evidence was last asserted, as its record has it.
fn last_seen(row: &EvidenceRow, records: &BTreeMap<&str, &RecordRow>) -> Option<i64> {
    let of_record = || records.get(&*row.record_key).and_then(|record| record.last_full);
    row.last.or_else(of_record).map(|(_, at)| at)
}

fn by_key(records: &[RecordRow]) -> BTreeMap<&str, &RecordRow> {
    records.iter().map(|record| (&*record.record_key, record)).collect()
}

/// The evidence that gives the device its uid: of the records that make that claim, the one that leads.
fn named_by(known: &Known) -> Option<&EvidenceRow> {
    let uid: Uid = known.device.uid.parse().ok()?;
    let names = known.evidence.iter().filter(|row| row.claim_uid == Some(uid.0) && row.ip.is_none());
    names.max_by_key(|row| (row.leads, std::cmp::Reverse(&row.record_key)))
}

/// The record from which the others are told: the one that the device is named by, where that is anchored.
pub fn root(known: &Known) -> Option<&str> {
    let anchored = || known.records.iter().filter(|record| record.placement == Placement::Anchored);
    let names = named_by(known).filter(|row| anchored().any(|record| record.record_key == row.record_key));
    let all = || known.records.iter().map(|record| &*record.record_key);
    let first = || anchored().map(|record| &*record.record_key).min().or_else(|| all().min());
    names.map(|row| &*row.record_key).or_else(first)
}

fn records(known: &Known, graph: &Graph<'_>, named_by: Option<&EvidenceRow>) -> Vec<RecordTold> {
    let root = root(known);
    let links = root.map(|root| graph.from(root)).unwrap_or_default();
    let told = |record: &RecordRow| {
        let link = links.get(&*record.record_key).cloned().flatten();
        let is_root = root == Some(&*record.record_key);
        let why = match record.placement {
            Placement::Anchored if is_root => match named_by {
                Some(claim) => format!("its {} names the device", text_of(claim)),
                None => "the device begins with it".to_owned(),
            },
            Placement::Anchored => match &link {
                Some(step) => step.to_string(),
                None => "joined by evidence that its records no longer show".to_owned(),
            },
            Placement::Attached => attached(record, known),
            Placement::Provisional => match record.place {
                Some((ip, _)) => format!("the address {ip} is all that is known of it"),
                None => "an address is all that is known of it".to_owned(),
            },
            Placement::Closed => closed(record, known),
            Placement::Unplaced => "it has neither claims nor an address to go by".to_owned(),
        };
        RecordTold {
            record_key: record.record_key.clone(),
            placement: record.placement.as_str(),
            open: record.open,
            first_seen: record.first_seen,
            last_seen: record.last_seen,
            link,
            why,
        }
    };
    let mut told: Vec<RecordTold> = known.records.iter().map(told).collect();
    let order = |record: &RecordTold| {
        let places = ["anchored", "provisional", "attached", "closed"];
        let place = places.iter().position(|place| *place == record.placement);
        (root != Some(&*record.record_key), place, record.record_key.clone())
    };
    told.sort_by_cached_key(order);
    told
}

/// Why an attached record is with the device: who holds the address that it was last seen at.
fn attached(record: &RecordRow, known: &Known) -> String {
    let Some((ip, order)) = record.place else {
        return "attached by an address".to_owned();
    };
    let records = by_key(&known.records);
    let holds = |row: &&EvidenceRow| {
        let anchored = records.get(&*row.record_key).is_some_and(|of| of.placement == Placement::Anchored);
        row.ip == Some(ip) && row.state == EvidenceState::Corroborating && anchored
    };
    let holders = known.evidence.iter().filter(holds);
    let holder = holders.max_by_key(|row| (last_seen(row, &records), &row.record_key));
    let seen = time::format(record.last_assert.map_or(order.time, |(_, at)| at));
    match holder {
        Some(row) => {
            let at = last_seen(row, &records).map(|at| format!(", last at {}", time::format(at)));
            format!(
                "seen at {ip} at {seen}; the device has that address by {}{}",
                row.record_key,
                at.unwrap_or_default()
            )
        }
        None => format!("seen at {ip} at {seen}; the device had that address"),
    }
}

/// Why a closed record is history of the device: the first of its claims of tier 1 that links there, or its MACs.
fn closed(record: &RecordRow, known: &Known) -> String {
    let links_here = |claim: &EvidenceRow| {
        let same = |row: &&EvidenceRow| row.namespace == claim.namespace && row.value == claim.value;
        known.evidence.iter().filter(same).any(|row| row.state == EvidenceState::Linking)
    };
    let own = known.evidence.iter().filter(|row| row.record_key == record.record_key && row.ip.is_none());
    let of_tier_1 = own.filter(|row| Namespace::of(&row.namespace).is_tier_1() && links_here(row));
    let first =
        of_tier_1.min_by_key(|row| (row.first_asserted, Namespace::of(&row.namespace).rank(), &row.value));
    match first {
        Some(claim) => format!("over, and history: its {} links here", text_of(claim)),
        None => "over, and history: all MACs that it ever had are here".to_owned(),
    }
}

fn claims(known: &Known) -> Vec<ClaimTold> {
    let records = by_key(&known.records);
    let allowed: Vec<ClaimText> = effects(known)
        .filter_map(|(_, effect)| match effect {
            Effect::Allow(claim) => Some(claim_text(&claim)),
            _ => None,
        })
        .collect();
    let mut claims: BTreeMap<(u8, ClaimText), ClaimTold> = BTreeMap::new();
    for row in &known.evidence {
        let claim = text_of(row);
        let tier = tier(row, allowed.contains(&claim));
        let uid = row.claim_uid.map(|uid| Uid(uid).to_string());
        let told = claims.entry((tier, claim.clone())).or_insert_with(|| ClaimTold {
            claim,
            tier,
            uid,
            records: Vec::new(),
        });
        told.records.push(SpanTold::of(row, &records));
    }
    let mut claims: Vec<ClaimTold> = claims.into_values().collect();
    for claim in &mut claims {
        claim.records.sort_by(|a, b| a.record_key.cmp(&b.record_key));
    }
    let links = |claim: &ClaimTold| claim.records.iter().any(|span| span.state == "linking");
    claims.sort_by_key(|claim| (claim.tier, !links(claim)));
    claims
}

/// A claim of a decision as people write it.
fn claim_text(claim: &ClaimKey) -> ClaimText {
    let (namespace, value) = claim.text();
    format!("{namespace}:{value}")
}

/// What the decisions in force do.
fn effects(known: &Known) -> impl Iterator<Item = (&DecisionRow, Effect)> {
    let read = |row: &DecisionRow| Taken::read(row.decision.clone(), None).ok().map(|taken| taken.effect());
    known.decisions.iter().filter(|row| row.in_force).filter_map(move |row| Some((row, read(row)?)))
}

/// The decisions that concern a claim or a record of the device.
fn decisions(known: &Known) -> Vec<DecisionTold> {
    let concerns = |claim: &ClaimKey| {
        let text = claim_text(claim);
        known.evidence.iter().any(|row| row.ip.is_none() && text_of(row) == text)
    };
    let takes_part = |effect: &Effect| match effect {
        Effect::Block(claim) | Effect::Allow(claim) | Effect::PinUid(claim) => concerns(claim),
        Effect::PinValue(claim, ..) => concerns(claim),
        Effect::Link(one, other) => concerns(one) || concerns(other),
        Effect::Detach(key) => known.records.iter().any(|record| &*record.record_key == key),
        Effect::AcceptSnapshot(..) | Effect::HoldSnapshot(..) | Effect::UnjudgedSnapshot(..) => false,
    };
    let told = effects(known).filter(|(_, effect)| takes_part(effect)).map(|(row, _)| DecisionTold {
        id: row.decision.id.clone(),
        action: row.decision.action.clone(),
        target: row.decision.target.to_string(),
        value: row.decision.value.clone(),
        actor: row.decision.actor.clone(),
        reason: row.decision.reason.clone(),
        at: row.at,
    });
    told.collect()
}
