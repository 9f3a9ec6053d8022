//! Answers of an Armis: a page of devices, an access token.

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use serviceradar_ingest::{
    publish::event,
    sync::armis::{AccessToken, Mapped, Mapping, Page, PageRequest, map},
};
use serviceradar_schemas::{Decoder, Framing, Observation, Snapshot, Source};
use serviceradar_streams::normalise::normalise;
use serviceradar_tests::{
    fuzz::{Checked, changed, fuzz},
    worlds::BEGINNING,
};

use crate::{altered, assert_told, hostile_values};

/// Devices asked for.
const ASKED: usize = 20;

fn mapping() -> Mapping {
    Mapping {
        source: Source { kind: "armis".to_owned(), instance: "hq".to_owned() },
        partition: "default".to_owned(),
        exclude: vec!["10.1.2.4/32".parse().unwrap(), "fd00::/8".parse().unwrap()],
        snapshot: Snapshot { id: "s".to_owned(), begin: BEGINNING, count: None },
    }
}

fn check(body: &[u8]) -> Checked {
    if let Err(refusal) = AccessToken::read(body) {
        assert_told(refusal)?;
    }
    let page = match Page::read(body, PageRequest { from: 0, length: ASKED, expected: None }) {
        Ok(page) => page,
        Err(refusal) => return assert_told(refusal),
    };
    prop_assert!(page.results.len() <= ASKED);
    for device in page.results {
        check_device(device)?;
    }
    Ok(())
}

/// A device is refused and says why, or left out, or is an event that the pipeline takes in as that record.
fn check_device(device: Map<String, Value>) -> Checked {
    let observation = match map(device, &mapping()) {
        Ok(Mapped::Record(observation)) => *observation,
        Ok(Mapped::Excluded { native_key }) => {
            prop_assert!(!native_key.is_empty());
            return Ok(());
        }
        Err(refusal) => return assert_told(refusal),
    };
    let event = match event(&observation, Framing::SingleObject) {
        Ok(event) => event,
        Err(refusal) => return assert_told(refusal),
    };
    let decoded = Decoder::<Observation>::new().decode(event.value.as_deref().unwrap_or_default());
    let decoded = decoded.map(|decoded| Observation { id: String::new(), ..decoded });
    prop_assert_eq!(decoded.as_ref(), Ok(&observation));
    prop_assert_eq!(event.key, Some(observation.record_key().into()));
    let sighting = normalise(observation, Some(BEGINNING));
    prop_assert!(sighting.is_ok(), "{:?}", sighting);
    Ok(())
}

fn device() -> Value {
    serde_json::from_str(include_str!("../../../ingest/fixtures/armis_device.json")).unwrap()
}

/// Pages whose figures are right, of devices whose fields need not be.
fn pages() -> impl Strategy<Value = Vec<u8>> {
    let odd = prop::collection::btree_map(
        prop_oneof!["[a-z]{1,4}", "id|name|names|macAddress|ipAddress|ipv6|tags|site"],
        hostile_values(),
        0..6,
    );
    let odd = odd.prop_map(|fields| Value::Object(fields.into_iter().collect()));
    let devices = prop_oneof![3 => altered(Just(device())), 1 => odd];
    let page = prop::collection::vec(devices, 0..4).prop_map(|devices| {
        let count = devices.len();
        json!({"success": true, "data": {"count": count, "next": null, "results": devices, "total": count}})
    });
    let token = Just(json!({"data": {"access_token": "t", "expiration_utc": "2026-01-01T00:00:00+00:00"}}));
    let altered = prop_oneof![5 => page.clone(), 1 => altered(page), 1 => altered(token)];
    altered.prop_map(|value| value.to_string().into_bytes())
}

const TOKENS: &[&[u8]] = &[
    b"\\ud800",
    b"\\u0000",
    b"\\n",
    b"[[[[[[[[",
    b"{\"id\":",
    b"\"id\":\"\",",
    b"1e999",
    b"-1",
    b"99999999999999999999",
    b"null",
    b",",
    b"\"",
    b"\xff",
];

#[test]
fn an_answer_of_armis_becomes_records_or_says_why_not() {
    fuzz("armis", prop_oneof![2 => pages(), 1 => changed(pages(), TOKENS)], check);
}
