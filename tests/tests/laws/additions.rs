//! Laws of one thing more: what a newcomer, a record without claims that link, or a decision that is
//! taken back leaves as it was.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{prelude::*, sample::subsequence};
use serviceradar_schemas::{Address, Claim, Coverage, Decision, Observation};
use serviceradar_streams::{
    normalise::{ClaimKey, claim_key, clamp_time},
    rows::{EvidenceState, Uid},
};
use serviceradar_tests::worlds::{
    ADDRESSES, CLAIMS, Deed, Event, PARTITIONS, Ruling, Step, World, rulings, source, worlds,
};

use crate::{
    Checked, cases,
    groups::Groups,
    run::{Run, at_once, epochs},
    structure::{CoreNode, allowed, claim_of, cores},
    tables::{Tables, same},
};

/// An assertion in the first partition of a record that no world knows, after everything else and at
/// its watermark; none where nothing has happened there.
fn newcomer(world: &World, tables: &Tables, of: u8, claims: &[(&str, &str)], ips: &[&str]) -> Option<Event> {
    let at = |partition: Option<&str>| tables.watermarks.get(&partition.map(Into::into)).map(|row| row.at);
    let watermark = at(Some(PARTITIONS[0]))?.max(at(None).unwrap_or(i64::MIN));
    let claim =
        |(namespace, value): &(&str, &str)| Claim { namespace: (*namespace).into(), value: (*value).into() };
    let address = |ip: &&str| Address { ip: (*ip).into(), ..Address::default() };
    let observation = Observation {
        id: "newcomer".into(),
        event_time: watermark,
        partition: PARTITIONS[0].into(),
        source: source(of),
        native_key: "newcomer".into(),
        coverage: Coverage::Full,
        claims: claims.iter().map(claim).collect(),
        addresses: ips.iter().map(address).collect(),
        ..Observation::default()
    };
    Some(Event::Observation(observation, world.now().max(watermark) + 1))
}

/// The tables before and after one event more, in an epoch of its own.
fn one_more(world: &World, event: Event) -> Checked<(Tables, Tables)> {
    let mut run = Run::start(world, 1)?;
    run.epoch(&world.events)?;
    let before = run.tables.clone();
    run.epoch(&[event])?;
    Ok((before, run.tables))
}

/// Anchored records, by what current claims join; whoever is in one core, stays so.
fn joined_by_current_claims(tables: &Tables) -> BTreeMap<CoreNode, Vec<(String, Uid)>> {
    let mut joined: Groups<CoreNode> = cores(tables);
    for row in tables.evidence.values() {
        let Some(claim) = claim_of(row) else { continue };
        // MACs of a record that only undecided fetches list count as lapsed.
        let record = tables.records.get(&row.record_key);
        let proven = record.is_some_and(|record| record.first_snapshot_begin.is_none());
        if proven && matches!(claim.1, ClaimKey::Mac(_)) && row.state == EvidenceState::Linking {
            joined.join(CoreNode::Record(row.record_key.to_string()), CoreNode::Claim(claim));
        }
    }
    let mut groups: BTreeMap<CoreNode, Vec<(String, Uid)>> = BTreeMap::new();
    for row in tables.records.values() {
        let node = CoreNode::Record(row.record_key.to_string());
        if let (true, Some(uid)) = (joined.contains(&node), row.uid) {
            groups.entry(joined.of(&node)).or_default().push((row.record_key.to_string(), uid));
        }
    }
    groups
}

fn is_allowed((namespace, value): &(&str, &str), allowed: &BTreeSet<(String, ClaimKey)>) -> bool {
    let claim = claim_key(namespace, value).map(|claim| (PARTITIONS[0].to_owned(), claim));
    claim.is_ok_and(|claim| allowed.contains(&claim))
}

/// A newcomer that claims MACs alone, none allowed, separates no two records that current claims join.
pub(crate) fn newcomer_separates_nobody(world: &World, macs: &[(&str, &str)]) -> Checked {
    let tables = at_once(world, &world.events)?;
    let allowed = allowed(&tables);
    let macs = macs.iter().filter(|mac| !is_allowed(mac, &allowed));
    let macs: Vec<(&str, &str)> = macs.copied().collect();
    let Some(event) = newcomer(world, &tables, 1, &macs, &[]) else { return Ok(()) };
    let (before, after) = one_more(world, event)?;
    for group in joined_by_current_claims(&before).values() {
        let uids: Vec<Option<Uid>> =
            group.iter().map(|(key, _)| after.records.get(&**key).and_then(|row| row.uid)).collect();
        let together = |uids: &[Option<Uid>]| uids.windows(2).all(|pair| pair[0] == pair[1]);
        let were: Vec<Option<Uid>> = group.iter().map(|(_, uid)| Some(*uid)).collect();
        prop_assert!(together(&were), "current claims join {group:?}, which are not one device");
        prop_assert!(together(&uids), "{group:?} came apart: {uids:?}");
    }
    Ok(())
}

/// A record without claims of tier 1 and 2 changes no anchored record's device.
pub(crate) fn without_links_changes_no_device(
    world: &World,
    claims: &[(&str, &str)],
    ips: &[&str],
) -> Checked {
    let tables = at_once(world, &world.events)?;
    let allowed = allowed(&tables);
    prop_assume!(!claims.iter().any(|claim| is_allowed(claim, &allowed)));
    let Some(event) = newcomer(world, &tables, 4, claims, ips) else { return Ok(()) };
    let (before, after) = one_more(world, event)?;
    for (key, row) in &before.records {
        let is = |tables: &Tables| tables.records.get(key).map(|row| (row.placement, row.uid));
        if row.placement.as_str() == "anchored" {
            prop_assert_eq!(is(&after), is(&before), "of {}", key);
        }
    }
    Ok(())
}

/// The action that a decision is about, and its target, however it is written.
fn about(decision: &Decision, intake: i64) -> (String, String, String) {
    let normal = |claim: &Claim| claim_key(&claim.namespace, &claim.value);
    let target = &decision.target;
    let mut claims: Vec<_> = target.claims.iter().flatten().chain(&target.claim).map(normal).collect();
    claims.sort();
    let begin = target.begin.map(|begin| clamp_time(begin, Some(intake)));
    let target = (claims, &target.record, &target.source, begin, &target.attribute);
    let action = decision.revokes.as_ref().unwrap_or(&decision.action);
    (decision.partition.clone(), action.clone(), format!("{target:?}"))
}

/// A decision that is taken back is as if it had never been, where it was the only one of its kind.
pub(crate) fn revoke_restores(world: &World, ruling: Ruling) -> Checked {
    let decide =
        |revoke| Step { cut: true, deed: Deed::Decide { ruling: ruling.clone(), revoke }, ..Step::default() };
    let steps = [&world.steps[..], &[decide(false), decide(true)]].concat();
    let longer = World::of(steps, world.small_caps);
    let (known, new) = longer.events.split_at(world.events.len());
    let decision = |event: &Event| match event {
        Event::Decision(decision, intake) => Some(about(decision, *intake)),
        Event::Observation(..) => None,
    };
    prop_assume!(!known.iter().filter_map(decision).any(|one| Some(one) == decision(&new[0])));
    let mut run = Run::start(world, 1)?;
    for epoch in epochs(&longer.events, &longer) {
        run.epoch(epoch)?;
    }
    let mut expected = at_once(world, &world.events)?;
    // The decisions are told, and a fetch that ever had a verdict keeps no members.
    expected.decisions = run.tables.decisions.clone();
    if matches!(ruling, Ruling::Accept { .. } | Ruling::Hold { .. }) {
        let tables = &mut run.tables;
        tables.members = expected.members.clone();
        tables.undecided = expected.undecided.clone();
        for (key, row) in &mut tables.snapshots {
            row.members = expected.snapshots.get(key).and_then(|row| row.members);
        }
    }
    same(&run.tables, &expected, "taken back")
}

/// Claims that link nothing: local MACs, host names, and what nobody knows.
fn corroborating() -> Vec<(&'static str, &'static str)> {
    let links =
        |(namespace, value): &&(&str, &str)| claim_key(namespace, value).is_ok_and(|claim| claim.tier() == 3);
    CLAIMS.iter().filter(links).copied().collect()
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_newcomer_with_macs_alone_separates_no_two_records_that_current_claims_join(
        world in worlds(),
        macs in subsequence(CLAIMS[..9].to_vec(), 1..5),
    ) {
        newcomer_separates_nobody(&World::of(world.steps, false), &macs)?;
    }

    #[test]
    fn a_record_without_links_changes_no_anchored_records_device(
        world in worlds(),
        claims in subsequence(corroborating(), 0..4),
        ips in subsequence(ADDRESSES.to_vec(), 0..3),
    ) {
        without_links_changes_no_device(&world, &claims, &ips)?;
    }

    #[test]
    fn revoke_restores_what_was(world in worlds(), ruling in rulings()) {
        revoke_restores(&world, ruling)?;
    }
}
