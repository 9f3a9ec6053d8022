//! Input that nobody meant: each target takes bytes as strangers send them. How they run: `serviceradar_tests::fuzz`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod armis;
mod decoder;
mod json;
mod normaliser;
mod srql;

use std::{fmt::Display, path::Path};

use proptest::prelude::*;
use serde_json::Value;
use serviceradar_tests::fuzz::Checked;

/// Longest reason that a refusal gives, bytes: it goes into a header, a row and a line on a terminal.
const REASON_BYTES_MAX: usize = 2_000;

/// A refusal says something, and no more than somebody would read.
fn assert_told(refusal: impl Display) -> Checked {
    let told = refusal.to_string();
    prop_assert!(!told.trim().is_empty());
    prop_assert!(told.len() <= REASON_BYTES_MAX, "{} bytes: {:.200}", told.len(), told);
    Ok(())
}

/// The observations of the given logs as their lines of JSON, some of each.
fn given_lines() -> Vec<Vec<u8>> {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/data/identity_logs"));
    let logs = (1..=40).map(|log| folder.join(format!("{log:02}.observations.jsonl")));
    let texts = logs.map(|log| std::fs::read_to_string(log).unwrap());
    texts
        .flat_map(|text| text.lines().step_by(17).map(|line| line.as_bytes().to_vec()).collect::<Vec<_>>())
        .collect()
}

/// Values that no producer should send.
fn hostile_values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        serviceradar_tests::observations::text().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        Just(Value::Null),
        Just(Value::from("9999-12-31T23:59:59.999999999Z")),
        Just(Value::from("-009999-01-02T01:59:59Z")),
        Just(Value::from("2026-01-01T00:00:60+25:00")),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let name = prop_oneof![
            "[a-z]{1,3}|name|id|namespace|value|ip|begin",
            serviceradar_tests::observations::text()
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(name, inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// A value some of whose parts are others, or gone.
fn altered(values: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    let change = (any::<prop::sample::Index>(), prop::option::weighted(0.8, hostile_values()));
    (values, prop::collection::vec(change, 0..4)).prop_map(|(mut value, changes)| {
        for (at, new) in changes {
            let mut left = at.index(count(&value));
            alter(&mut value, &mut left, &new);
        }
        value
    })
}

/// How many values a value is made of, itself included.
fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(list) => list.iter().map(count).sum(),
        Value::Object(map) => map.values().map(count).sum::<usize>(),
        _ => 0,
    }
}

/// Puts `new` where the value numbered `left` is, or takes that away; says whether it was found.
fn alter(value: &mut Value, left: &mut usize, new: &Option<Value>) -> bool {
    if *left == 0 {
        *value = new.clone().unwrap_or_default();
        return true;
    }
    *left -= 1;
    match value {
        Value::Array(list) => list.iter_mut().any(|part| alter(part, left, new)),
        Value::Object(map) => {
            let mut parts = map.iter_mut();
            let found = parts.find_map(|(name, part)| alter(part, left, new).then(|| name.clone()));
            if new.is_none()
                && let Some(name) = &found
                && map[name].is_null()
            {
                map.remove(name);
            }
            found.is_some()
        }
        _ => false,
    }
}
