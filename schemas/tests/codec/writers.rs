//! Events of writers with other schemas than ours.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use apache_avro::{Schema, from_avro_datum, to_avro_datum, types::Value};
use async_trait::async_trait;
use proptest::prelude::*;
use serde_json::json;
use serviceradar_schemas::{
    Decoder, Event, Framing, Observation,
    codec::{DecodeError, Unavailable, WriterSchemas},
    encode, encode_framed,
};
use sha2::{Digest, Sha256};

use crate::samples;

/// A registry that answers, counts how often, and can be cut off.
#[derive(Default)]
pub(crate) struct Registry {
    schemas: BTreeMap<u32, String>,
    asked: Mutex<usize>,
    cut_off: bool,
}

impl Registry {
    /// With one schema, of id 7.
    pub(crate) fn with(schema: &serde_json::Value) -> Arc<Self> {
        Arc::new(Self { schemas: BTreeMap::from([(7, schema.to_string())]), ..Self::default() })
    }
}

#[async_trait]
impl WriterSchemas for Registry {
    async fn learn(&self, _: &BTreeSet<u32>) -> Result<(), Unavailable> {
        Ok(())
    }

    fn by_id(&self, id: u32) -> Result<Option<String>, Unavailable> {
        *self.asked.lock().unwrap() += 1;
        if self.cut_off {
            return Err(Unavailable("connection refused".to_owned()));
        }
        Ok(self.schemas.get(&id).cloned())
    }
}

/// Our schema as JSON, to be changed.
pub(crate) fn ours() -> serde_json::Value {
    serde_json::from_str(Observation::SCHEMA).unwrap()
}

pub(crate) fn fields(schema: &mut serde_json::Value) -> &mut Vec<serde_json::Value> {
    schema["fields"].as_array_mut().unwrap()
}

/// An event under id 7 whose datum is ours, its fields changed by `change`, in `schema`.
pub(crate) fn written(
    event: &Observation,
    schema: &serde_json::Value,
    change: impl FnOnce(&mut Vec<(String, Value)>),
) -> Vec<u8> {
    let ours = Schema::parse_str(Observation::SCHEMA).unwrap();
    let bytes = encode(event);
    let Value::Record(mut fields) = from_avro_datum(&ours, &mut &bytes[10..], None).unwrap() else {
        panic!("an event is a record");
    };
    change(&mut fields);
    let theirs = Schema::parse(schema).unwrap();
    let datum = to_avro_datum(&theirs, Value::Record(fields)).unwrap();
    [&[0, 0, 0, 0, 7], datum.as_slice()].concat()
}

fn decoder(schema: &serde_json::Value) -> Decoder<Observation> {
    Decoder::with_writers(Registry::with(schema))
}

proptest! {
    #[test]
    fn a_field_that_we_do_not_know_is_passed_over(event in samples::observation()) {
        let mut theirs = ours();
        let extra = json!({"name": "rack", "type": {"type": "array", "items": ["null", "double"]}});
        fields(&mut theirs).insert(3, extra);
        let bytes = written(&event, &theirs, |fields| {
            let some = Value::Union(1, Box::new(Value::Double(1.5)));
            fields.insert(3, ("rack".to_owned(), Value::Array(vec![some])));
        });
        prop_assert_eq!(decoder(&theirs).decode(&bytes).unwrap(), event);
    }

    #[test]
    fn a_field_that_they_do_not_know_has_its_default(event in samples::observation()) {
        let gone = ["coverage", "claims", "hostname", "probe", "tags", "collector", "partition"];
        let mut theirs = ours();
        fields(&mut theirs).retain(|field| !gone.contains(&field["name"].as_str().unwrap()));
        let bytes = written(&event, &theirs, |fields| {
            fields.retain(|(name, _)| !gone.contains(&name.as_str()));
        });
        let expected = Observation {
            partition: "default".to_owned(),
            coverage: Default::default(),
            claims: vec![],
            hostname: None,
            probe: Default::default(),
            tags: BTreeMap::new(),
            collector: None,
            ..event
        };
        prop_assert_eq!(decoder(&theirs).decode(&bytes).unwrap(), expected);
    }
}

fn event() -> Observation {
    serde_json::from_str(include_str!("../golden/observation.json")).unwrap()
}

#[test]
fn our_own_schema_is_read_in_either_framing() {
    let mut decoder = decoder(&ours());
    let confluent = encode_framed(&event(), Framing::Confluent { id: 7 });
    for bytes in [encode(&event()), confluent.clone(), encode(&event()), confluent] {
        assert_eq!(decoder.decode(&bytes).unwrap(), event());
    }
}

#[test]
fn a_registry_is_asked_once_for_a_schema() {
    let mut theirs = ours();
    fields(&mut theirs).push(json!({"name": "rack", "type": "string"}));
    let confluent = written(&event(), &theirs, |fields| {
        fields.push(("rack".to_owned(), Value::String("r1".to_owned())));
    });
    let registry = Registry::with(&theirs);
    let mut decoder = Decoder::<Observation>::with_writers(registry.clone());
    for _ in 0..3 {
        assert_eq!(decoder.decode(&confluent).unwrap(), event());
    }
    assert_eq!(*registry.asked.lock().unwrap(), 1);
}

#[test]
fn a_schema_that_nobody_knows_is_an_answer() {
    let mut unknown = encode(&event());
    unknown[2] ^= 1;
    let confluent = encode_framed(&event(), Framing::Confluent { id: 8 });
    for mut decoder in [Decoder::new(), decoder(&ours())] {
        let error = decoder.decode(&unknown).unwrap_err();
        assert!(matches!(error, DecodeError::UnknownFingerprint(_)), "{error}");
        assert!(!error.is_unavailable());
        assert_eq!(decoder.decode(&confluent), Err(DecodeError::UnknownId(8)));
    }
}

/// Otherwise an outage would fill the dead letters.
#[test]
fn a_registry_out_of_reach_is_no_answer() {
    let registry = Registry { cut_off: true, ..Registry::default() };
    let mut decoder = Decoder::<Observation>::with_writers(Arc::new(registry));
    let confluent = encode_framed(&event(), Framing::Confluent { id: 7 });
    let error = decoder.decode(&confluent).unwrap_err();
    assert!(error.is_unavailable(), "{error}");
    assert_eq!(decoder.decode(&encode(&event())).unwrap(), event(), "ours needs no registry");
}

/// The crate `apache-avro` gives schemas with logical types a fingerprint of its own.
#[test]
fn a_writer_that_uses_apache_avro_is_known() {
    let schema = Schema::parse_str(Observation::SCHEMA).unwrap();
    let theirs = schema.fingerprint::<apache_avro::rabin::Rabin>().bytes;
    assert_ne!(theirs, Observation::FINGERPRINT, "mended upstream: drop our canonical form");
    let mut bytes = encode(&event());
    bytes[2..10].copy_from_slice(&theirs);
    assert_eq!(Decoder::new().decode(&bytes), Ok(event()));
}

/// Milliseconds have the same canonical form, and would put every event into 1970.
#[test]
fn milliseconds_are_not_taken_for_microseconds() {
    let mut theirs = ours();
    fields(&mut theirs)[1]["type"]["logicalType"] = json!("timestamp-millis");
    let bytes = encode_framed(&event(), Framing::Confluent { id: 7 });
    let error = decoder(&theirs).decode(&bytes).unwrap_err();
    assert!(matches!(error, DecodeError::Resolution { .. }), "{error}");
}

/// An ASSERT in its place would bring back what was taken away.
#[test]
fn an_action_that_we_do_not_know_is_refused_and_a_coverage_is_partial() {
    let mut theirs = ours();
    let symbols = |field: usize, theirs: &mut serde_json::Value| {
        fields(theirs)[field]["type"]["symbols"].as_array_mut().unwrap().push(json!("NEW"));
    };
    symbols(5, &mut theirs);
    symbols(6, &mut theirs);
    let set = |field: usize, index| {
        written(&event(), &theirs, |fields| {
            fields[field].1 = Value::Enum(index, "NEW".to_owned());
        })
    };
    let error = decoder(&theirs).decode(&set(5, 5)).unwrap_err();
    assert!(matches!(error, DecodeError::Resolution { .. }), "{error}");
    let read = decoder(&theirs).decode(&set(6, 2)).unwrap();
    assert_eq!(read, Observation { coverage: Default::default(), ..event() });
}

#[test]
fn an_id_left_out_is_the_hash_of_the_writers_datum() {
    let mut theirs = ours();
    fields(&mut theirs).remove(0);
    let bytes = written(&event(), &theirs, |fields| drop(fields.remove(0)));
    let expected: String = Sha256::digest(&bytes[5..]).iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(decoder(&theirs).decode(&bytes).unwrap().id, expected);
}

#[test]
fn a_schema_that_is_none_is_refused() {
    let bytes = encode_framed(&event(), Framing::Confluent { id: 7 });
    for schema in [json!("x"), json!({}), json!({"type": "record", "name": "no name!", "fields": []})] {
        let error = decoder(&schema).decode(&bytes).unwrap_err();
        assert!(matches!(error, DecodeError::WriterSchema(_)), "{error}");
    }
}

/// The cache is bounded: what it drops is asked for again.
#[test]
fn more_schemas_than_the_cache_holds_are_still_read() {
    let registry = Arc::new(Registry {
        schemas: (0..200).map(|id| (id, ours().to_string())).collect(),
        ..Registry::default()
    });
    let mut decoder = Decoder::<Observation>::with_writers(registry);
    for id in (0..200).chain(0..200) {
        let bytes = encode_framed(&event(), Framing::Confluent { id });
        assert_eq!(decoder.decode(&bytes).unwrap(), event());
    }
}
