//! Which changes of a schema are refused: what was written must be readable for ever.

#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};
use serviceradar_schemas::catalogue::{EVENTS, EventSchema, SchemaError, check};

/// The schema of an observation, changed.
fn changed(change: impl FnOnce(&mut Vec<Value>)) -> String {
    let event = EventSchema::named("Observation").unwrap();
    let mut schema: Value = serde_json::from_str(event.text).unwrap();
    change(schema["fields"].as_array_mut().unwrap());
    schema.to_string()
}

fn named<'a>(fields: &'a mut [Value], name: &str) -> &'a mut Value {
    fields.iter_mut().find(|field| field["name"] == name).unwrap()
}

#[test]
fn our_own_schemas_and_harmless_changes_pass() {
    for event in &EVENTS {
        assert_eq!(check(event.text), Ok(event));
        assert_eq!(EventSchema::named(event.name), Ok(event));
        assert!(event.fields().len() > 5, "{:?}", event.fields());
    }
    for (what, candidate) in [
        ("new docs", changed(|fields| fields[0]["doc"] = json!("other"))),
        ("a field less", changed(|fields| drop(fields.remove(9)))),
        (
            "a field more, with a default",
            changed(|fields| {
                fields.push(json!({"name": "rack", "type": ["null", "string"], "default": null}));
            }),
        ),
        (
            "a symbol more",
            changed(|fields| {
                named(fields, "action")["type"]["symbols"].as_array_mut().unwrap().push(json!("NEW"));
            }),
        ),
        ("a wider integer", changed(|fields| named(fields, "risk_score")["type"] = json!(["null", "long"]))),
    ] {
        assert!(check(&candidate).is_ok(), "{what}: {:?}", check(&candidate));
    }
}

#[test]
fn a_change_that_cannot_read_what_is_in_logs_is_refused() {
    for (what, candidate) in [
        (
            "a field more, without a default",
            changed(|fields| fields.push(json!({"name": "rack", "type": "string"}))),
        ),
        ("another type", changed(|fields| named(fields, "hostname")["type"] = json!(["null", "long"]))),
        (
            "null no more",
            changed(|fields| *named(fields, "site") = json!({"name": "site", "type": "string"})),
        ),
        (
            "milliseconds for microseconds",
            changed(|fields| named(fields, "event_time")["type"]["logicalType"] = json!("timestamp-millis")),
        ),
        (
            "a symbol less",
            changed(|fields| {
                named(fields, "action")["type"]["symbols"].as_array_mut().unwrap().remove(1);
            }),
        ),
        (
            "a field of a claim more, without a default",
            changed(|fields| {
                let claim = named(fields, "claims")["type"]["items"]["fields"].as_array_mut().unwrap();
                claim.push(json!({"name": "strength", "type": "int"}));
            }),
        ),
    ] {
        let refused = check(&candidate);
        assert!(matches!(refused, Err(SchemaError::Breaking { version: 1, .. })), "{what}: {refused:?}");
    }
}

#[test]
fn what_is_no_schema_of_ours_is_told_from_what_breaks() {
    for text in ["", "{", "\"x\"", r#"{"type": "record", "name": "no name!", "fields": []}"#, "\"string\""] {
        let refused = check(text);
        assert!(matches!(refused, Err(SchemaError::NoSchema(_))), "{text}: {refused:?}");
    }
    let other = r#"{"type": "record", "name": "Other", "fields": []}"#;
    assert_eq!(check(other), Err(SchemaError::Unknown("Other".to_owned())));
    assert!(EventSchema::named("Other").unwrap_err().to_string().contains("serviceradar.v1.Observation"));
}
