//! Observations as lines of JSON.

use proptest::prelude::*;
use serde_json::Value;
use serviceradar_schemas::{Decoder, Observation, encode, json};
use serviceradar_tests::{
    fuzz::{Checked, changed, fuzz},
    observations::any_observations,
};

use crate::{altered, assert_told, given_lines};

/// What is read is written as what it was read as, in JSON and in Avro, and no field of the text was passed over.
fn check(text: &[u8]) -> Checked {
    let observation: Observation = match json::read(text) {
        Ok(observation) => observation,
        Err(refusal) => return assert_told(refusal),
    };
    let written = serde_json::to_string(&observation).unwrap();
    prop_assert_eq!(&serde_json::from_str::<Observation>(&written).unwrap(), &observation);
    if let Ok(decoded) = Decoder::<Observation>::new().decode(&encode(&observation)) {
        let id = if observation.id.is_empty() { &decoded.id } else { &observation.id };
        prop_assert_eq!(&decoded, &Observation { id: id.clone(), ..observation.clone() });
    }
    let read: Value = serde_json::from_slice(text).unwrap();
    assert_within(&read, &serde_json::from_str(&written).unwrap())
}

/// All that stands in `read` stands in `written`, but for what is empty, and times, which may be written otherwise.
fn assert_within(read: &Value, written: &Value) -> Checked {
    let fields = match read {
        Value::Object(fields) => fields,
        // The fields of a record in their order, without names, are read too.
        Value::Array(_) if written.is_object() => return Ok(()),
        _ => {
            prop_assert_eq!(read, written);
            return Ok(());
        }
    };
    for (name, value) in fields {
        match value {
            Value::Null => {}
            Value::Array(list) if list.is_empty() => {}
            Value::Object(map) if map.is_empty() => {}
            _ if matches!(&**name, "event_time" | "begin") => {}
            Value::Array(list) if written[name].is_array() => {
                let others = written[name].as_array().unwrap();
                prop_assert_eq!(list.len(), others.len());
                for (one, other) in list.iter().zip(others) {
                    assert_within(one, other)?;
                }
            }
            value => assert_within(value, &written[name])?,
        }
    }
    Ok(())
}

const TOKENS: &[&[u8]] = &[
    b"\\ud800",
    b"\\u0000",
    b"\\udc00\\ud800",
    b"{\"a\":",
    b"[[[[[[[[",
    b"\"",
    b"\\",
    b"1e999",
    b"-0",
    b"null",
    b",",
    b"\"id\":\"2\",",
    b"9999-12-31T23:59:60Z",
    b"\xEF\xBB\xBF",
    b"\0",
];

#[test]
fn an_observation_in_json_is_read_whole_or_refused() {
    let given = prop::sample::select(given_lines());
    let value = |line: Vec<u8>| serde_json::from_slice::<Value>(&line).unwrap();
    let parts = altered(given.clone().prop_map(value)).prop_map(|value| value.to_string().into_bytes());
    let any = any_observations().prop_map(|of| serde_json::to_vec(&of).unwrap());
    let whole = prop_oneof![given, parts, any];
    fuzz("json", prop_oneof![1 => whole.clone(), 1 => changed(whole, TOKENS)], check);
}
