//! Step 1, usable claims: what each record offers as links, and what of it is judged usable.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    OracleRules,
    decide::InForce,
    fold::{Record, Span},
    normalise::{self, Claim},
};

/// How a live claim stands at its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    Lapsed,
    Current,
}

/// The live claims of each record, by record key.
pub(super) type Links = BTreeMap<String, BTreeMap<Claim, Standing>>;

/// What the judgement says.
#[derive(Default)]
pub(super) struct Judged {
    /// The live, usable claims of tier 1 and 2 of each record.
    pub(super) links: Links,
    /// Claims that nobody may use: blocked, generic or quarantined.
    pub(super) unusable: BTreeSet<Claim>,
    /// (kind, namespace, value).
    pub(super) issues: BTreeSet<[String; 3]>,
}

/// The private claim of a detached record.
pub(super) fn private_claim(record: &str) -> Claim {
    ("detached".to_owned(), record.to_owned())
}

/// Judges all claims of a partition.
pub(super) fn judge(
    records: &BTreeMap<String, Record>,
    decisions: &InForce,
    rules: &OracleRules,
    watermark: i64,
) -> Judged {
    let offer = |record: &Record| (record.key.clone(), offers(record, decisions, rules, watermark));
    let offers: Links = records.values().map(offer).collect();
    let mut judged = Judged { links: offers.clone(), ..Judged::default() };
    for (key, links) in &mut judged.links {
        for namespace in namespaces_of_others(&offers[key], rules) {
            let native = records[key].native.as_ref();
            links.retain(|claim, _| {
                claim.0 != namespace || Some(claim) == native || decisions.allowed.contains(claim)
            });
            judged.issues.insert(["bridging".into(), "record".into(), key.clone()]);
        }
    }
    let claims: BTreeSet<&Claim> = records.values().flat_map(|r| r.claims.keys()).collect();
    for claim in claims {
        let verdict = if decisions.blocked.contains(claim) {
            Some("blocked")
        } else if decisions.allowed.contains(claim) || decisions.tier(claim) > 2 {
            None
        } else if is_generic(claim, &offers, records, rules) {
            Some("generic")
        } else if is_quarantined(claim, &offers, rules) {
            Some("quarantined")
        } else {
            None
        };
        let Some(verdict) = verdict else { continue };
        judged.unusable.insert(claim.clone());
        if verdict != "blocked" {
            judged.issues.insert([verdict.into(), claim.0.clone(), claim.1.clone()]);
        }
    }
    for links in judged.links.values_mut() {
        links.retain(|claim, _| !judged.unusable.contains(claim));
    }
    judged
}

/// The live claims by which a record would link. None of a detached record's own does.
fn offers(
    record: &Record,
    decisions: &InForce,
    rules: &OracleRules,
    watermark: i64,
) -> BTreeMap<Claim, Standing> {
    let live = |span: &Span| {
        if record.is_current(span) {
            Some(Standing::Current)
        } else {
            (watermark < span.last.1 + rules.evidence_ttl).then_some(Standing::Lapsed)
        }
    };
    if decisions.detached.contains(&record.key) {
        let standing = record.asserts.as_ref().and_then(live);
        return standing.map(|s| (private_claim(&record.key), s)).into_iter().collect();
    }
    let mut offers = BTreeMap::new();
    for (claim, span) in &record.claims {
        let Some(mut standing) = live(span) else {
            continue;
        };
        let corrected = record
            .claims
            .iter()
            .any(|(other, span)| other.0 == claim.0 && other.1 != claim.1 && record.is_current(span));
        if standing == Standing::Lapsed && normalise::is_exclusive(claim) && corrected {
            continue;
        }
        if record.unproven && claim.0 == "mac" {
            standing = Standing::Lapsed;
        }
        if decisions.tier(claim) <= 2 {
            offers.insert(claim.clone(), standing);
        }
    }
    offers
}

/// The exclusive namespaces of which a record currently asserts so many values that it speaks of others.
fn namespaces_of_others(offers: &BTreeMap<Claim, Standing>, rules: &OracleRules) -> BTreeSet<String> {
    too_many(current_exclusive(offers).collect(), rules)
}

fn current_exclusive(offers: &BTreeMap<Claim, Standing>) -> impl Iterator<Item = &Claim> {
    let current = offers.iter().filter(|(_, standing)| **standing == Standing::Current);
    current.map(|(claim, _)| claim).filter(|claim| normalise::is_exclusive(claim))
}

/// The namespaces of which there are more values than one device could have.
fn too_many(claims: BTreeSet<&Claim>, rules: &OracleRules) -> BTreeSet<String> {
    let mut values: BTreeMap<&str, usize> = BTreeMap::new();
    for claim in claims {
        *values.entry(&claim.0).or_default() += 1;
    }
    let many = values.into_iter().filter(|(_, count)| *count > rules.exclusive_values);
    many.map(|(namespace, _)| namespace.to_owned()).collect()
}

/// Live in too many records, or current in too many of one source.
fn is_generic(
    claim: &Claim,
    offers: &Links,
    records: &BTreeMap<String, Record>,
    rules: &OracleRules,
) -> bool {
    let live = offers.values().filter(|of_record| of_record.contains_key(claim)).count();
    let mut current: BTreeMap<_, usize> = BTreeMap::new();
    for (key, of_record) in offers {
        if of_record.get(claim) == Some(&Standing::Current) {
            *current.entry(&records[key].source).or_default() += 1;
        }
    }
    live > rules.spread_cap || current.values().any(|count| *count > rules.source_spread_cap)
}

/// Tier 1, and those that currently assert it assert too many values of one *other* exclusive namespace.
fn is_quarantined(claim: &Claim, offers: &Links, rules: &OracleRules) -> bool {
    let asserters = offers.values().filter(|of| of.get(claim) == Some(&Standing::Current));
    let others = asserters.flat_map(current_exclusive).filter(|other| other.0 != claim.0);
    normalise::tier(claim) == 1 && !too_many(others.collect(), rules).is_empty()
}
