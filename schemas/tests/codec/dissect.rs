//! Events taken apart: what stands where, and the byte from which they cannot be read.

use proptest::{prelude::*, sample::Index};
use serde_json::json;
use serviceradar_schemas::{
    Decoder, Event, Framing, Observation,
    codec::{
        DecodeError, NoRegistry, WriterId,
        dissect::{Dissection, FIELDS_MAX, dissect},
    },
    encode, encode_framed,
};

use crate::{
    samples,
    values::HEAD,
    writers::{Registry, fields, ours, written},
};

fn apart(bytes: &[u8]) -> Dissection {
    dissect::<Observation>(bytes, &NoRegistry).unwrap()
}

/// Where a value begins, and which it is.
fn places(of: &Dissection) -> Vec<(usize, &str)> {
    of.fields.iter().map(|field| (field.begins, &*field.path)).collect()
}

fn event() -> Observation {
    serde_json::from_value(json!({
        "id": "7", "event_time": "2026-01-01T00:00:00Z", "source": {"kind": "armis", "instance": "hq"},
        "native_key": "k", "action": "ASSERT", "tags": {"site": "a\nb"}, "risk_score": 5,
        "claims": [{"namespace": "mac", "value": "00:1b:21:00:00:01"}, {"namespace": "serial", "value": "s"}],
    }))
    .unwrap()
}

#[test]
fn a_whole_event_is_told_field_by_field_with_its_places() {
    let bytes = encode(&event());
    let found = apart(&bytes);
    assert_eq!(found.fault, None);
    assert_eq!(found.writer, Some(WriterId::Fingerprint(Observation::FINGERPRINT)));
    assert_eq!(found.schema.as_deref(), Some("serviceradar.v1.Observation"));
    let value = |path: &str| &found.fields.iter().find(|field| field.path == path).unwrap().value;
    assert_eq!(value("id"), "7");
    assert_eq!(value("event_time"), "2026-01-01T00:00:00Z");
    assert_eq!(value("source.instance"), "hq");
    assert_eq!(value("action"), "ASSERT");
    assert_eq!(value("claims[1].namespace"), "serial");
    assert_eq!(value("addresses"), &json!([]));
    assert_eq!(value("tags{site}"), "a\u{fffd}b");
    assert_eq!((value("risk_score"), value("hostname")), (&5.into(), &serde_json::Value::Null));
    assert_eq!(found.fields[0].begins, HEAD);
    assert!(places(&found).is_sorted());
}

#[test]
fn each_fault_names_its_byte_and_its_field() {
    let good = encode(&event());
    let at = |path: &str| apart(&good).fields.iter().find(|field| field.path == path).unwrap().begins;
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        apart(&bytes).fault.map(|fault| (fault.at.unwrap(), fault.path, fault.why.to_string())).unwrap()
    };
    let (place, path, why) = with(at("action"), 20);
    assert_eq!((place, &*path, &*why), (at("action"), "action", "enum Action has no symbol 10"));
    // The third letter of the second claim's namespace: the first byte that is no text.
    let namespace = at("claims[1].namespace");
    let (place, path, why) = with(namespace + 3, 0xFF);
    assert_eq!((place, &*path), (namespace + 3, "claims[1].namespace"), "{why}");
    let (place, path, why) = with(namespace, 1);
    assert_eq!((place, &*path, &*why), (namespace, "claims[1].namespace", "a length is wrong: -1"));
    let (place, path, why) = with(at("hostname"), 6);
    assert_eq!((place, &*path), (at("hostname"), "hostname"), "{why}");

    let fault = apart(&[&good[..], b"more"].concat()).fault.unwrap();
    assert_eq!((fault.at, fault.why), (Some(good.len()), DecodeError::LeftOver(4)));
    let fault = apart(b"{}").fault.unwrap();
    assert_eq!((fault.at, fault.why), (Some(0), DecodeError::Framing(b'{')));
    let fault = apart(&[0xC3, 2, 0]).fault.unwrap();
    assert_eq!((fault.at, fault.why), (Some(1), DecodeError::Framing(0xC3)));
    let fault = apart(&encode_framed(&event(), Framing::Confluent { id: 9 })).fault.unwrap();
    assert_eq!((fault.at, fault.why), (Some(1), DecodeError::UnknownId(9)));
}

/// By the writer's schema, not by ours; where each byte is right and it is no event of ours, no byte is blamed.
#[test]
fn another_writers_event_is_told_by_its_own_schema() {
    let mut schema = ours();
    fields(&mut schema).push(json!({"name": "colour", "type": "string"}));
    let bytes = written(&event(), &schema, |fields| {
        fields.push(("colour".to_owned(), apache_avro::types::Value::String("red".to_owned())));
    });
    let registry = Registry::with(&schema);
    let found = dissect::<Observation>(&bytes, &*registry).unwrap();
    assert_eq!((found.writer, found.fault), (Some(WriterId::Registry(7)), None));
    let last = found.fields.last().unwrap();
    assert_eq!((&*last.path, &last.value), ("colour", &json!("red")));
    let found = dissect::<Observation>(&bytes[..bytes.len() - 1], &*registry).unwrap();
    let fault = found.fault.unwrap();
    assert_eq!((fault.at, &*fault.path), (Some(bytes.len() - 1), "colour"));
    assert_eq!(fault.begins, last.begins);

    let less =
        Registry::with(&json!({"type": "record", "name": "Observation", "namespace": "serviceradar.v1",
        "fields": [{"name": "id", "type": "string"}]}));
    let found = dissect::<Observation>(&[0, 0, 0, 0, 7, 2, b'a'], &*less).unwrap();
    let fault = found.fault.unwrap();
    assert_eq!(found.fields[0].value, "a");
    assert_eq!(fault.at, None);
    assert!(matches!(fault.why, DecodeError::Resolution { .. }), "{}", fault.why);
}

#[test]
fn what_is_told_has_an_end() {
    let many = Observation { claims: vec![event().claims[0].clone(); 5_000], ..event() };
    let found = apart(&encode(&many));
    assert_eq!((found.fields.len(), found.fault), (FIELDS_MAX, None));
    assert!(found.left_out > 9_000, "{}", found.left_out);
}

proptest! {
    #[test]
    fn a_cut_event_is_wrong_exactly_where_it_ends(event in samples::observation(), cut: Index) {
        let bytes = encode(&event);
        let end = cut.index(bytes.len());
        let fault = apart(&bytes[..end]).fault.unwrap();
        prop_assert_eq!(fault.at, Some(end));
        prop_assert!(fault.begins <= end);
        // Up to there all is told as of the whole.
        let (part, whole) = (apart(&bytes[..end]), apart(&bytes));
        prop_assert_eq!(&part.fields[..], &whole.fields[..part.fields.len()]);
    }

    #[test]
    fn no_byte_is_blamed_before_the_value_that_was_changed(
        event in samples::observation(), place: Index, byte: u8
    ) {
        let mut bytes = encode(&event);
        let whole = apart(&bytes);
        let place = place.index(bytes.len());
        bytes[place] = byte;
        let found = apart(&bytes);
        let read = Decoder::<Observation>::new().decode(&bytes);
        prop_assert_eq!(found.fault.as_ref().map(|fault| &fault.why), read.as_ref().err());
        let Some(fault) = found.fault else { return Ok(()) };
        let changed = whole.fields.iter().rev().find(|field| field.begins <= place);
        let at = fault.at.unwrap();
        prop_assert!(at <= bytes.len());
        prop_assert!(at >= changed.map_or(0, |field| field.begins), "{} before {:?}", at, changed);
    }
}
