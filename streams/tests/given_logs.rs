//! The engine against given cases: random logs with the placements, redirects and issues that they
//! must have, and scenarios with a reason each.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{collections::BTreeMap, fs, path::PathBuf};

use serde_json::{Value, json};
use serviceradar_schemas::{Decision, Observation};
use serviceradar_streams::{
    decisions::Taken,
    resolve::{Outcome, Placed, Resolver},
    rules::Rules,
};

fn data() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/data")
}

fn lines<T: serde::de::DeserializeOwned>(name: &str) -> Vec<T> {
    let text = fs::read_to_string(data().join("identity_logs").join(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn run(observations: Vec<Observation>, decisions: Vec<Decision>) -> (Vec<Placed>, Outcome) {
    let mut resolver = Resolver::start("default", Rules::default()).unwrap();
    let ready = observations.into_iter().map(|observation| Resolver::prepare(observation).unwrap());
    resolver.observe(ready.collect()).unwrap();
    // Some are to be refused.
    let ready = decisions.into_iter().filter_map(|decision| Taken::read(decision, None).ok());
    resolver.decide(ready.collect());
    resolver.outcome(|records| records).unwrap()
}

/// The issues that the given data knows: quality notes are no part of it.
fn issues(outcome: &Outcome) -> Value {
    let told = outcome.issues.iter().filter(|issue| issue.kind != "quality");
    let mut told: Vec<[String; 4]> = told
        .map(|issue| {
            [
                issue.kind.into(),
                issue.partition.to_string(),
                issue.namespace.to_string(),
                issue.value.to_string(),
            ]
        })
        .collect();
    told.sort();
    json!(told)
}

fn json_lines((records, outcome): &(Vec<Placed>, Outcome)) -> Vec<Value> {
    let mut lines: Vec<Value> = records
        .iter()
        .map(|row| {
            let uid = row.uid.map(|uid| uid.to_string());
            json!({"record_key": *row.record_key, "placement": row.placement.as_str(), "uid": uid})
        })
        .collect();
    let redirects: BTreeMap<String, String> =
        outcome.redirects.iter().map(|(from, to)| (from.to_string(), to.to_string())).collect();
    lines.push(json!({"redirects": redirects}));
    lines.push(json!({"issues": issues(outcome)}));
    lines
}

/// What differs: of two maps of redirects the entries alone.
fn difference(got: &Value, expected: &Value) -> String {
    let entries = |value: &Value| value["redirects"].as_object().cloned().unwrap_or_default();
    let (got_entries, expected_entries) = (entries(got), entries(expected));
    if expected_entries.is_empty() {
        return format!("got {got}, not {expected}");
    }
    let mut keys: Vec<&String> = got_entries.keys().chain(expected_entries.keys()).collect();
    keys.sort();
    keys.dedup();
    let differs = keys.into_iter().filter(|key| got_entries.get(*key) != expected_entries.get(*key));
    let told =
        |key: &String| format!("{key}: {:?}, not {:?}", got_entries.get(key), expected_entries.get(key));
    differs.map(told).collect::<Vec<_>>().join("; ")
}

#[test]
fn random_logs_become_what_they_must() {
    let mut wrong = Vec::new();
    for log in 1..=40 {
        let observations = lines(&format!("{log:02}.observations.jsonl"));
        let decisions = lines(&format!("{log:02}.decisions.jsonl"));
        let expected: Vec<Value> = lines(&format!("{log:02}.expected.jsonl"));
        let got = json_lines(&run(observations, decisions));
        for (got, expected) in got.iter().zip(&expected) {
            if got != expected {
                wrong.push(format!("log {log:02}: {}", difference(got, expected)));
            }
        }
        assert_eq!(got.len(), expected.len(), "log {log}");
    }
    assert!(wrong.is_empty(), "{} lines differ\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn scenarios_end_as_they_must() {
    let text = fs::read_to_string(data().join("identity_scenarios.jsonl")).unwrap();
    for line in text.lines() {
        let case: Value = serde_json::from_str(line).unwrap();
        let name = case["name"].as_str().unwrap();
        let read = |key: &str| case[key].clone();
        let (records, outcome) = run(
            serde_json::from_value(read("observations")).unwrap(),
            serde_json::from_value(read("decisions")).unwrap(),
        );
        let record = |key: &str| records.iter().find(|row| &*row.record_key == key).unwrap();
        let expect = &case["expect"];
        let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for row in records.iter().filter(|row| row.placement.as_str() == "anchored") {
            groups.entry(row.uid.unwrap().to_string()).or_default().push(row.record_key.to_string());
        }
        let sorted = |groups: Vec<Vec<String>>| {
            let mut groups: Vec<Vec<String>> = groups
                .into_iter()
                .map(|mut g| {
                    g.sort();
                    g
                })
                .collect();
            groups.sort();
            groups
        };
        let expected: Vec<Vec<String>> = serde_json::from_value(expect["devices"].clone()).unwrap();
        assert_eq!(sorted(groups.into_values().collect()), sorted(expected), "{name}: devices");
        assert_eq!(issues(&outcome), expect["issues"], "{name}: issues");
        for (key, to) in expect["attached"].as_object().unwrap() {
            match to.as_str() {
                Some(to) => {
                    assert_eq!(record(key).placement.as_str(), "attached", "{name}: {key}");
                    assert_eq!(record(key).uid, record(to).uid, "{name}: {key}");
                }
                None => assert_eq!(record(key).placement.as_str(), "provisional", "{name}: {key}"),
            }
        }
        for (key, placement) in expect["placed"].as_object().unwrap() {
            assert_eq!(record(key).placement.as_str(), placement, "{name}: {key}");
            assert_eq!(record(key).uid, None, "{name}: {key}");
        }
        for (key, to) in expect["follows"].as_object().unwrap() {
            assert_eq!(record(key).placement.as_str(), "closed", "{name}: {key}");
            assert_eq!(record(key).uid, record(to.as_str().unwrap()).uid, "{name}: {key}");
        }
        for (key, claim) in expect["named"].as_object().unwrap() {
            let claim: (String, String) = serde_json::from_value(claim.clone()).unwrap();
            let uid =
                serviceradar_streams::claim::UidMaker::new("default", "default").claim(&claim.0, &claim.1);
            assert_eq!(record(key).uid, Some(uid), "{name}: {key}");
        }
    }
}
