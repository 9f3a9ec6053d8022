//! The engine agrees with the oracle, which shares nothing with it but the words of the design, and
//! both with `propagate`, after each epoch of many logs.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serviceradar_schemas::{
    Decision, Observation,
    time::{HOUR, MINUTE},
};
use serviceradar_tests::{
    oracle::{OracleRules, Outcome, Seen, resolve},
    worlds::{Event, World},
};

use crate::{
    Checked,
    graphs::{Opinion, Steps, same_groups},
    parts::{in_parts, logs},
    run::{Run, TENANT, epochs},
    tables::Tables,
};

/// An event time before it is a clock that was never set: 2000-01-01, microseconds.
const EARLIEST: i64 = 946_684_800_000_000;

/// Source: `events.md` of the design, `event_time`.
fn clamped(time: i64, intake: i64) -> i64 {
    if time < EARLIEST { intake } else { time.min(intake + 5 * MINUTE) }
}

/// The events so far, as the oracle takes them: times as they are, so that clamping them is done here.
#[derive(Default)]
pub(crate) struct Log {
    pub(crate) observations: Vec<(Observation, i64)>,
    pub(crate) decisions: Vec<Decision>,
}

impl Log {
    pub(crate) fn extend(&mut self, events: &[Event]) {
        for event in events.iter().cloned() {
            match event {
                Event::Observation(mut observation, intake) => {
                    observation.event_time = clamped(observation.event_time, intake);
                    if let Some(snapshot) = &mut observation.snapshot {
                        snapshot.begin = clamped(snapshot.begin, intake);
                    }
                    self.observations.push((observation, intake));
                }
                Event::Decision(mut decision, intake) => {
                    decision.event_time = clamped(decision.event_time, intake);
                    decision.target.begin = decision.target.begin.map(|begin| clamped(begin, intake));
                    self.decisions.push(decision);
                }
            }
        }
    }

    /// What the oracle says of them.
    pub(crate) fn resolve(&self, world: &World) -> Outcome {
        resolve(TENANT, &self.observations, &self.decisions, &rules(world))
    }

    /// What it would say without some of the decisions.
    pub(crate) fn resolve_without(&self, world: &World, is_out: &dyn Fn(&Decision) -> bool) -> Outcome {
        let decisions: Vec<Decision> = self.decisions.iter().filter(|it| !is_out(it)).cloned().collect();
        resolve(TENANT, &self.observations, &decisions, &rules(world))
    }
}

/// The rules of a world, as the oracle takes them.
fn rules(world: &World) -> OracleRules {
    let network = |first: [u8; 4]| std::net::IpAddr::from(first);
    let rules = OracleRules {
        subnets: vec![(network([10, 8, 0, 0]), 16, 72 * HOUR), (network([10, 9, 0, 0]), 16, HOUR)],
        ..OracleRules::default()
    };
    if !world.small_caps {
        return rules;
    }
    OracleRules { spread_cap: 4, source_spread_cap: 2, exclusive_values: 1, block_cap: 3, ..rules }
}

/// What the tables say of what the oracle knows.
fn told(tables: &Tables) -> Checked<Outcome> {
    let mut told = Outcome { redirects: tables.redirects()?, ..Outcome::default() };
    let tick = tables.watermarks.get(&None).map(|row| row.at);
    for row in tables.watermarks.values() {
        if let Some(partition) = &row.partition {
            let at = tick.map_or(row.at, |tick| tick.max(row.at));
            told.watermarks.insert(partition.to_string(), at.div_euclid(MINUTE) * MINUTE);
        }
    }
    for row in tables.records.values() {
        let seen = Seen { open: row.open, first_seen: row.first_seen, last_seen: row.last_seen };
        told.seen.insert(row.record_key.to_string(), seen);
    }
    // The engine tells the quality of what came too.
    let issues = tables.issues.values().filter(|row| row.kind != "quality");
    told.issues = issues
        .map(|row| {
            [row.kind.into(), row.partition.to_string(), row.namespace.to_string(), row.value.to_string()]
        })
        .collect();
    Ok(told)
}

/// After each epoch engine and oracle say the same, and of cores and blocks `propagate` too.
pub(crate) fn agrees(world: &World) -> Checked {
    let (mut run, mut log) = (Run::start(world, 1)?, Log::default());
    let (mut steps, mut opinion) = (Steps::new(world), Opinion::start());
    for epoch in epochs(&world.events, world) {
        run.epoch(epoch)?;
        steps.epoch(epoch);
        log.extend(epoch);
        let oracle = log.resolve(world);
        same_identity(&run.tables, &oracle)?;
        same_groups(&steps, &oracle.graph, &mut opinion)?;
    }
    Ok(())
}

/// Same placements, uids, redirects, issues, watermarks and spans.
fn same_identity(tables: &Tables, oracle: &Outcome) -> Checked {
    let told = told(tables)?;
    let records: BTreeMap<&str, (&str, Option<String>)> = tables
        .records
        .values()
        .map(|row| (&*row.record_key, (row.placement.as_str(), row.uid.map(|uid| uid.to_string()))))
        .collect();
    let expected: BTreeMap<&str, (&str, Option<String>)> = oracle
        .records
        .iter()
        .map(|(key, (placement, uid))| (&**key, (placement.name(), uid.clone())))
        .collect();
    differ("records", &records, &expected)?;
    differ("redirects", &told.redirects, &oracle.redirects)?;
    differ("watermarks", &told.watermarks, &oracle.watermarks)?;
    differ("seen", &told.seen, &oracle.seen)?;
    let (more, less) = (&told.issues - &oracle.issues, &oracle.issues - &told.issues);
    prop_assert!(more.is_empty() && less.is_empty(), "issues: the engine has {more:?}, the oracle {less:?}");
    let names: BTreeSet<&String> = oracle.anchors.keys().collect();
    let devices: BTreeSet<&String> =
        tables.devices.values().filter(|row| row.confidence != "provisional").map(|row| &row.uid).collect();
    prop_assert_eq!(devices, names);
    Ok(())
}

/// Fails at the first key of which engine and oracle do not say the same.
pub(crate) fn differ<K: Ord + std::fmt::Debug, V: PartialEq + std::fmt::Debug>(
    name: &str,
    told: &BTreeMap<K, V>,
    expected: &BTreeMap<K, V>,
) -> Checked {
    for key in told.keys().chain(expected.keys()) {
        let (engine, oracle) = (told.get(key), expected.get(key));
        prop_assert!(
            engine == oracle,
            "{name} {key:?}:\n  engine {engine:?}\n  oracle {oracle:?}\n  all: engine {told:#?}\n  oracle {expected:#?}"
        );
    }
    Ok(())
}

#[test]
fn engine_oracle_and_propagate_agree_at_every_epoch() {
    in_parts(logs(), agrees);
}
