//! The given queries, and what they must find.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Map, Value, json};
use serviceradar_schemas::{
    DeviceChange,
    time::{Clock, DAY, HOUR, MINUTE, SystemClock},
};
use serviceradar_srql::written::Object;
use serviceradar_streams::{changes::Changes, rows::EpochOutput};
use serviceradar_tests::database::Database;
use uuid::Uuid;

use super::{ask, fill, reader};

#[derive(Deserialize)]
struct Given {
    fixture: Fixture,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Fixture {
    devices: Vec<Map<String, Value>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    query: String,
    ids: Option<Vec<String>>,
    #[serde(default)]
    ordered: bool,
    values: Option<Vec<Map<String, Value>>>,
    error: Option<String>,
}

/// Names in the given data stand for uids.
fn uid(name: &str) -> String {
    let hash =
        name.bytes().fold(1u128, |hash, byte| hash.wrapping_mul(0x0100_0000_01b3).wrapping_add(byte.into()));
    format!("sr:{}", Uuid::from_u128(hash))
}

/// `-14d`, from now.
fn at(relative: &str, now: i64) -> i64 {
    let (number, unit) = relative.strip_prefix('-').unwrap().split_at(relative.len() - 2);
    let unit = match unit {
        "d" => DAY,
        "h" => HOUR,
        "m" => MINUTE,
        other => panic!("{other}"),
    };
    now - number.parse::<i64>().unwrap() * unit
}

fn device(mut given: Map<String, Value>, now: i64) -> DeviceChange {
    for time in ["first_seen", "last_seen"] {
        let text = given[time].as_str().unwrap().to_owned();
        given.insert(time.to_owned(), at(&text, now).into());
    }
    let name = given["uid"].as_str().unwrap().to_owned();
    let mut whole = serde_json::to_value(DeviceChange {
        partition: "default".to_owned(),
        confidence: "authoritative".to_owned(),
        state: "active".to_owned(),
        records: 1,
        ..DeviceChange::default()
    })
    .unwrap();
    for (field, value) in given {
        assert!(whole.get(&field).is_some(), "devices have no {field}");
        whole[&field] = value;
    }
    whole["uid"] = uid(&name).into();
    whole["name"] = whole["hostname"].clone();
    serde_json::from_value(whole).unwrap()
}

#[tokio::test]
async fn the_given_queries_find_what_they_must() {
    let text = include_str!("../../data/srql_cases.json");
    let Given { fixture, cases } = serde_json::from_str(text).unwrap();
    let now = SystemClock.now();
    let names: Vec<String> =
        fixture.devices.iter().map(|of| of["uid"].as_str().unwrap().to_owned()).collect();
    let database = Database::migrated_timescale().await;
    let new = fixture.devices.into_iter().map(|of| device(of, now)).collect();
    let output = EpochOutput { devices: Changes { new, ..Changes::default() }, ..EpochOutput::default() };
    fill(&database.views().await, "acme", output).await;
    let mut reader = reader(&database).await;
    let name_of: BTreeMap<String, &String> = names.iter().map(|name| (uid(name), name)).collect();
    assert_eq!(cases.len(), 40);
    for case in cases {
        let query = names.iter().fold(case.query.clone(), |query, name| query.replace(name, &uid(name)));
        let found = ask(&mut reader, "acme", &query, now).await;
        if let Some(code) = &case.error {
            let errors = found.expect_err(&query);
            assert_eq!(errors[0].code.as_str(), code, "{query}: {errors:?}");
            continue;
        }
        let answer = found.unwrap_or_else(|errors| panic!("{query}: {errors:?}"));
        let objects: Vec<Value> = answer.rows.iter().map(|row| json!(Object(&answer.columns, row))).collect();
        if let Some(ids) = &case.ids {
            let found: Vec<&String> =
                objects.iter().map(|row| name_of[row["uid"].as_str().unwrap()]).collect();
            if case.ordered {
                assert_eq!(found, ids.iter().collect::<Vec<_>>(), "{query}");
            } else {
                assert_eq!(found.len(), ids.len(), "{query}: {found:?}");
                assert_eq!(found.into_iter().collect::<BTreeSet<_>>(), ids.iter().collect(), "{query}");
            }
        }
        if let Some(values) = case.values {
            assert_eq!(objects, values.into_iter().map(Value::Object).collect::<Vec<_>>(), "{query}");
        }
    }
}
