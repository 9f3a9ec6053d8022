//! The oracle against the given scenarios and random logs, so that what later agrees with the oracle
//! agrees with them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde::{Deserialize, de::DeserializeOwned};
use serviceradar_schemas::{Decision, Observation, Source};
use serviceradar_tests::oracle::{OracleRules, Outcome, Placement, normalise, resolve};

/// A line of what `resolve` prints.
#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Line {
    Record { record_key: String, placement: String, uid: Option<String> },
    Redirects { redirects: BTreeMap<String, String> },
    Issues { issues: BTreeSet<[String; 4]> },
}

#[derive(Deserialize)]
struct Scenario {
    name: String,
    observations: Vec<Observation>,
    decisions: Vec<Decision>,
    expect: Expect,
}

/// What a scenario must come to; only `devices` and `issues` are complete.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expect {
    /// The anchored records, grouped.
    devices: BTreeSet<BTreeSet<String>>,
    issues: BTreeSet<[String; 4]>,
    /// Record → a record of the device it is attached to, or null: provisional.
    attached: BTreeMap<String, Option<String>>,
    /// Record → unplaced or closed, without a device.
    placed: BTreeMap<String, String>,
    /// Closed record → a record of the device whose history it is.
    follows: BTreeMap<String, String>,
    /// Record → the claim that names its device.
    named: BTreeMap<String, (String, String)>,
}

/// Observations with their intake times.
type Timed = Vec<(Observation, i64)>;

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(name)
}

fn json_lines<T: DeserializeOwned>(path: PathBuf) -> Result<Vec<T>> {
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let read = |line| serde_json::from_str(line).with_context(|| format!("{path:?}: {line}"));
    text.lines().map(read).collect()
}

/// Without intake times, event times stand for them.
fn timed(observations: Vec<Observation>) -> Timed {
    observations
        .into_iter()
        .map(|o| {
            let time = o.event_time;
            (o, time)
        })
        .collect()
}

fn of(observations: &[(Observation, i64)], decisions: &[Decision]) -> Outcome {
    resolve("default", observations, decisions, &OracleRules::default())
}

/// The numbers of the given logs.
fn logs() -> impl Iterator<Item = String> {
    (1..=40).map(|n| format!("{n:02}"))
}

fn log(number: &str) -> Result<(Timed, Vec<Decision>)> {
    let file = |kind: &str| data(&format!("identity_logs/{number}.{kind}.jsonl"));
    Ok((timed(json_lines(file("observations"))?), json_lines(file("decisions"))?))
}

#[test]
fn every_log_comes_to_what_is_expected() -> Result<()> {
    for number in logs() {
        let (observations, decisions) = log(&number)?;
        let outcome = of(&observations, &decisions);
        let mut records = BTreeMap::new();
        for line in json_lines(data(&format!("identity_logs/{number}.expected.jsonl")))? {
            match line {
                Line::Record { record_key, placement, uid } => {
                    records.insert(record_key, (placement, uid));
                }
                Line::Redirects { redirects } => {
                    assert_eq!(outcome.redirects, redirects, "redirects of log {number}");
                }
                Line::Issues { issues } => {
                    assert_eq!(outcome.issues, issues, "issues of log {number}");
                }
            }
        }
        let placed = outcome.records.into_iter();
        let placed: BTreeMap<_, _> =
            placed.map(|(key, (placement, uid))| (key, (placement.name().to_owned(), uid))).collect();
        assert_eq!(placed, records, "records of log {number}");
    }
    Ok(())
}

#[test]
fn every_scenario_comes_to_what_is_expected() -> Result<()> {
    let scenarios: Vec<Scenario> = json_lines(data("identity_scenarios.jsonl"))?;
    assert_eq!(scenarios.len(), 30);
    for Scenario { name, observations, decisions, expect } in scenarios {
        let outcome = of(&timed(observations), &decisions);
        let uid_of = |record: &str| outcome.records[record].1.clone();
        let mut devices: BTreeMap<Option<String>, BTreeSet<String>> = BTreeMap::new();
        for (record, (placement, uid)) in &outcome.records {
            if *placement == Placement::Anchored {
                devices.entry(uid.clone()).or_default().insert(record.clone());
            }
        }
        let devices: BTreeSet<_> = devices.into_values().collect();
        assert_eq!(devices, expect.devices, "devices of {name}");
        assert_eq!(outcome.issues, expect.issues, "issues of {name}");
        for (record, to) in &expect.attached {
            let (placement, uid) = &outcome.records[record];
            match to {
                Some(to) => {
                    assert_eq!((*placement, uid), (Placement::Attached, &uid_of(to)), "{name}: {record}");
                }
                None => assert_eq!(*placement, Placement::Provisional, "{name}: {record}"),
            }
        }
        for (record, placement) in &expect.placed {
            let (placed, uid) = &outcome.records[record];
            assert_eq!((placed.name(), uid), (placement.as_str(), &None), "{name}: {record}");
        }
        for (record, followed) in &expect.follows {
            let place = (Placement::Closed, uid_of(followed));
            assert_eq!(outcome.records[record], place, "{name}: {record}");
        }
        for (record, claim) in &expect.named {
            let partition = record.split('/').next().unwrap();
            let uid = normalise::uid("default", partition, claim);
            assert_eq!(uid_of(record), Some(uid), "{name}: {record}");
        }
    }
    Ok(())
}

/// A dependence on the order or the number of deliveries would make the oracle no judge of either.
#[test]
fn order_and_duplicates_change_nothing() -> Result<()> {
    for number in logs() {
        let (observations, decisions) = log(&number)?;
        let outcome = of(&observations, &decisions);
        let mut shuffled: Vec<_> = observations.iter().rev().cloned().collect();
        shuffled.rotate_left(observations.len() / 3);
        shuffled.extend(observations.into_iter().step_by(2));
        let decisions: Vec<_> = decisions.iter().rev().chain(&decisions).cloned().collect();
        assert_eq!(of(&shuffled, &decisions), outcome, "log {number}");
    }
    Ok(())
}

fn assert_of(key: &str, minute: i64, claims: &[(&str, &str)], ips: &[&str]) -> (Observation, i64) {
    let parts: Vec<&str> = key.splitn(4, '/').collect();
    let time = 1_772_323_200_000_000 + minute * 60_000_000;
    let claims = claims.iter().map(|(namespace, value)| serviceradar_schemas::Claim {
        namespace: (*namespace).into(),
        value: (*value).into(),
    });
    let addresses =
        ips.iter().map(|ip| serviceradar_schemas::Address { ip: (*ip).into(), ..Default::default() });
    let observation = Observation {
        id: format!("{key}@{minute}"),
        event_time: time,
        partition: parts[0].into(),
        source: Source { kind: parts[1].into(), instance: parts[2].into() },
        native_key: parts[3].into(),
        coverage: serviceradar_schemas::Coverage::Full,
        claims: claims.collect(),
        addresses: addresses.collect(),
        ..Observation::default()
    };
    (observation, time)
}

/// What stands was there first, however old the times that a newly connected source brings.
#[test]
fn first_asserted_goes_by_intake_time() {
    let mac_1 = [("mac", "001b21000001")];
    let mac_2 = [("mac", "001b21000002")];
    let both = [mac_1[0], mac_2[0]];
    let agent = assert_of("default/agent/self/a", 10, &both, &[]);
    let armis = assert_of("default/armis/hq/1", 11, &mac_1, &[]);
    let mut late = assert_of("default/armis/hq/2", 0, &mac_2, &[]);
    let by_event_time = of(&[agent.clone(), armis.clone(), late.clone()], &[]);
    late.1 = armis.1 + 60_000_000;
    let by_intake = of(&[agent, armis, late], &[]);
    let device = |outcome: &Outcome, key: &str| outcome.records[key].1.clone();
    let with_agent =
        |outcome: &Outcome, key: &str| device(outcome, key) == device(outcome, "default/agent/self/a");
    assert!(with_agent(&by_event_time, "default/armis/hq/2"));
    assert!(!with_agent(&by_event_time, "default/armis/hq/1"));
    assert!(with_agent(&by_intake, "default/armis/hq/1"));
    assert!(!with_agent(&by_intake, "default/armis/hq/2"));
}

#[test]
fn a_claim_that_many_share_is_generic() {
    let serial = [("serial", "acme:shared-1")];
    let mapped = |n: i64| assert_of(&format!("default/mapper/m1/{n}"), n, &serial, &[]);
    let generic = ["generic", "default", "serial", "ACME:SHARED-1"].map(String::from);
    let at_the_cap: Vec<_> = (0..16).map(mapped).collect();
    assert!(of(&at_the_cap, &[]).issues.is_empty());
    let over_it: Vec<_> = (0..17).map(mapped).collect();
    let outcome = of(&over_it, &[]);
    assert_eq!(outcome.issues, BTreeSet::from([generic]));
    assert!(outcome.records.values().all(|(placement, _)| *placement == Placement::Unplaced));
}

#[test]
fn a_block_over_its_cap_joins_no_mac_only_record() {
    let mac = [("mac", "001b21000001")];
    let observations = [
        assert_of("default/armis/hq/1", 0, &mac, &[]),
        assert_of("default/mapper/m1/a", 1, &mac, &["10.0.0.1"]),
        assert_of("default/mapper/m1/b", 2, &mac, &[]),
    ];
    let rules = OracleRules { block_cap: 2, ..OracleRules::default() };
    let outcome = resolve("default", &observations, &[], &rules);
    assert_eq!(outcome.records["default/armis/hq/1"].0, Placement::Anchored);
    assert_eq!(outcome.records["default/mapper/m1/a"].0, Placement::Provisional);
    assert_eq!(outcome.records["default/mapper/m1/b"].0, Placement::Unplaced);
    let issue = ["oversized", "default", "record", "default/armis/hq/1"].map(String::from);
    assert_eq!(outcome.issues, BTreeSet::from([issue]));
}
