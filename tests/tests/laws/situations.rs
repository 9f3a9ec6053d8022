//! What random worlds must bring about often enough, or agreement on them would say little.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use serviceradar_schemas::{Action, Decision, Observation, time::DAY};
use serviceradar_tests::{
    oracle::{Graph, Node, Outcome, Placement},
    worlds::World,
};

use crate::{
    agreement::Log,
    parts::{LOGS, in_parts},
    run::epochs,
};

/// In how many worlds of a run each situation is to be.
const WORLDS_MIN: u32 = 20;

/// Each situation, and whether a world has it.
type Situations = BTreeMap<String, bool>;

const ACTIONS: [&str; 8] =
    ["block", "allow", "link", "detach", "pin_uid", "pin_value", "accept_snapshot", "hold_snapshot"];

fn is_exclusive(namespace: &str) -> bool {
    matches!(namespace, "agent" | "cloud" | "hwuuid" | "serial")
        || namespace.starts_with("armis/")
        || namespace.starts_with("netbox/")
}

/// The records that each claim links.
fn linked(graph: &Graph) -> BTreeMap<&Node, Vec<&str>> {
    let mut linked: BTreeMap<&Node, Vec<&str>> = BTreeMap::new();
    for (record, claim) in graph.core_edges.iter().chain(&graph.mac_edges) {
        if let Node::Record(record) = record {
            linked.entry(claim).or_default().push(record);
        }
    }
    linked
}

/// Blocks of thirty records or more that hang together by claims of two each.
fn chains(graph: &Graph) -> BTreeSet<&str> {
    let mut sizes: BTreeMap<&str, usize> = BTreeMap::new();
    for block in graph.blocks.values() {
        *sizes.entry(block).or_default() += 1;
    }
    sizes.retain(|_, size| *size >= 30);
    for records in linked(graph).values().filter(|records| records.len() > 2) {
        records.iter().for_each(|record| _ = sizes.remove(&*graph.blocks[*record]));
    }
    sizes.into_keys().collect()
}

/// Whether one core has two values of an exclusive namespace.
fn has_rekeyed(graph: &Graph) -> bool {
    let mut values: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    graph.core_edges.iter().any(|(record, claim)| match (record, claim) {
        (Node::Record(record), Node::Claim(_, (namespace, value))) if is_exclusive(namespace) => {
            values.insert((&graph.cores[record], namespace), value).is_some_and(|other| other != value)
        }
        _ => false,
    })
}

/// Whether a record of a source has ended in a device where another of that source lives.
fn has_recreated(outcome: &Outcome) -> bool {
    let source = |key: &str| key.splitn(4, '/').take(3).collect::<String>();
    let of = |wanted: Placement| {
        let records = outcome.records.iter().filter(move |(_, (placement, _))| *placement == wanted);
        records.filter_map(|(key, (_, uid))| Some((source(key), uid.clone()?))).collect::<BTreeSet<_>>()
    };
    !of(Placement::Closed).is_disjoint(&of(Placement::Anchored))
}

fn revokes(decision: &Decision) -> Option<&str> {
    decision.revokes.as_deref()
}

/// What is the case after one epoch, `before` being how things were.
fn of_epoch(log: &Log, now: &Outcome, before: &Outcome, had: &mut Situations) {
    let has_table =
        |it: &Observation| it.claims.iter().filter(|claim| &*claim.namespace == "mac").count() > 3;
    let tables = log.observations.iter().filter(|(it, _)| has_table(it)).map(|(it, _)| it.record_key());
    let tables: BTreeSet<String> = tables.collect();
    let is_table = |[kind, _, _, record]: &[String; 4]| kind == "bridging" && tables.contains(record);
    let issue = |kind: &str, namespace: &str| {
        now.issues.iter().any(|[k, _, n, _]| k == kind && (n == namespace || namespace.is_empty()))
    };
    let is_broken = |first: &&str| {
        let block = |graph: &Graph, record: &String| graph.blocks.get(record).cloned();
        let members = before.graph.blocks.iter().filter(|(_, block)| block == first);
        members.map(|(record, _)| block(&now.graph, record)).collect::<BTreeSet<_>>().len() > 1
    };
    let goes_on = |(key, (placement, uid)): (&String, &(Placement, Option<String>))| {
        let was = before.records.get(key);
        *placement == Placement::Attached
            && was.is_some_and(|(was, from)| *was == Placement::Attached && from != uid)
    };
    let is = [
        ("a hub that joins ten", linked(&now.graph).values().any(|records| records.len() >= 10)),
        ("a hub that is generic", issue("generic", "")),
        ("a docking station", issue("ambiguous", "mac")),
        ("a chain of thirty", !chains(&now.graph).is_empty()),
        ("a chain of thirty that breaks", chains(&before.graph).iter().any(is_broken)),
        ("a cloned serial", issue("quarantined", "serial")),
        ("a poisoned agent id", issue("quarantined", "agent")),
        ("an edge that contradicts what stands", issue("conflict", "mac")),
        ("a record that speaks of others", issue("bridging", "record")),
        ("a table of others' MACs", now.issues.iter().any(is_table)),
        ("a block over the cap", issue("oversized", "record")),
        ("a device that is rekeyed", has_rekeyed(&now.graph)),
        ("a record that is re-created", has_recreated(now)),
        ("a visitor that goes to another device", now.records.iter().any(goes_on)),
        ("an address without a device", now.records.values().any(|(p, _)| *p == Placement::Provisional)),
    ];
    for (name, is) in is {
        *had.entry(name.to_owned()).or_default() |= is;
    }
}

/// What has been the case in a whole log.
fn of_log(world: &World, log: &Log, had: &mut Situations) {
    let asserts = || log.observations.iter().map(|(it, _)| it).filter(|it| it.action == Action::Assert);
    let mut last: BTreeMap<String, i64> = BTreeMap::new();
    let is_late = |it: &Observation| {
        last.insert(it.record_key(), it.event_time).is_some_and(|before| it.event_time < before)
    };
    had.insert("a late event".into(), asserts().map(is_late).filter(|late| *late).count() > 0);
    let mut ids = BTreeMap::new();
    let again: Vec<bool> =
        log.observations.iter().filter_map(|(it, _)| Some(ids.insert(&it.id, it)? == it)).collect();
    had.insert("an event that comes twice".into(), again.contains(&true));
    had.insert("two events of one id".into(), again.contains(&false));
    let mut ids = BTreeSet::new();
    let again = log.decisions.iter().any(|it| !ids.insert(&it.id));
    had.insert("a decision that comes twice".into(), again);
    let ticks = world.steps.iter().filter(|step| step.deed == Default::default());
    had.insert("months that pass by ticks".into(), ticks.map(|step| step.after).sum::<i64>() > 60 * DAY);

    let fetches = |action: Action| {
        let of_action = log.observations.iter().filter(move |(it, _)| it.action == action);
        of_action.filter_map(|(it, _)| {
            let fetch = it.snapshot.as_ref()?;
            Some(((it.partition.clone(), it.source.clone(), fetch.begin), fetch.count))
        })
    };
    let ended: BTreeMap<_, _> = fetches(Action::SnapshotEnd).collect();
    let listed = |key: &(String, _, i64)| {
        let of_fetch = asserts().filter(|it| {
            it.snapshot
                .as_ref()
                .is_some_and(|fetch| (&it.partition, &it.source, fetch.begin) == (&key.0, &key.1, key.2))
        });
        of_fetch.map(|it| it.record_key()).collect::<BTreeSet<_>>().len() as i64
    };
    let broken = fetches(Action::SnapshotBegin)
        .any(|(key, _)| ended.get(&key).is_none_or(|count| count.is_some_and(|count| count > listed(&key))));
    had.insert("a fetch that breaks off".into(), broken);
    let whole = ended.iter().any(|(key, count)| *count == Some(listed(key)) && listed(key) > 0);
    had.insert("a fetch that is whole".into(), whole);
}

/// A decision counts where the log without such ones comes to something else, and so do revocations.
/// What is pinned to be shown is no matter of identity: that it is said, and later taken back, is enough.
fn of_decisions(world: &World, log: &Log, outcome: &Outcome, had: &mut Situations) {
    for action in ACTIONS {
        let decided: Vec<&Decision> =
            log.decisions.iter().filter(|it| it.action == action || revokes(it) == Some(action)).collect();
        let without = |is_out: &dyn Fn(&Decision) -> bool| {
            decided.iter().any(|it| is_out(it))
                && (action == "pin_value" || log.resolve_without(world, is_out) != *outcome)
        };
        let said = without(&|it| it.action == action || revokes(it) == Some(action));
        let revoked = without(&|it| revokes(it) == Some(action));
        had.insert(format!("{action} that counts"), said);
        had.insert(format!("{action} that is revoked"), revoked);
    }
}

/// All situations, and which of them a world has.
fn situations(world: &World) -> Situations {
    let (mut had, mut log, mut outcome) = (Situations::new(), Log::default(), Outcome::default());
    for epoch in epochs(&world.events, world) {
        log.extend(epoch);
        let now = log.resolve(world);
        of_epoch(&log, &now, &outcome, &mut had);
        outcome = now;
    }
    of_log(world, &log, &mut had);
    of_decisions(world, &log, &outcome, &mut had);
    had
}

#[test]
fn worlds_have_what_is_hard_often_enough() {
    let counts: Mutex<BTreeMap<String, u32>> = Mutex::default();
    in_parts(LOGS, |world| {
        let situations = situations(world);
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, has) in situations {
            *counts.entry(name).or_default() += u32::from(has);
        }
        Ok(())
    });
    let counts = counts.into_inner().unwrap_or_else(PoisonError::into_inner);
    let rare: Vec<_> = counts.iter().filter(|(_, count)| **count < WORLDS_MIN).collect();
    assert!(rare.is_empty(), "too seldom: {rare:#?} of {counts:#?}");
}
