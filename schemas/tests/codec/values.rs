//! Our path beside the crate `apache-avro`: they agree on every field, in both directions, which
//! they could not if the order of fields in the code and in the `.avsc` differed.

use apache_avro::{Schema, from_avro_datum, to_avro_datum, types::Value};
use proptest::prelude::*;
use serde::{Serialize, de::DeserializeOwned};
use serviceradar_schemas::{
    Decision, Decoder, DeviceChange, Event, Framing, Observation,
    codec::{reframe, registry_id},
    encode, encode_framed, time,
};

use crate::samples;

/// What stands before a datum in single-object framing, in bytes.
pub(crate) const HEAD: usize = 10;

/// A value in the JSON form of integrators; `times` writes an instant.
fn json(value: Value, times: fn(i64) -> serde_json::Value) -> serde_json::Value {
    match value {
        Value::Union(_, value) => json(*value, times),
        Value::Record(fields) => fields.into_iter().map(|(name, value)| (name, json(value, times))).collect(),
        Value::Map(entries) => entries.into_iter().map(|(key, value)| (key, json(value, times))).collect(),
        Value::Array(items) => items.into_iter().map(|item| json(item, times)).collect(),
        Value::TimestampMicros(micros) => times(micros),
        Value::Enum(_, symbol) => symbol.into(),
        Value::Null => serde_json::Value::Null,
        Value::String(text) => text.into(),
        Value::Int(number) => number.into(),
        Value::Long(number) => number.into(),
        Value::Boolean(truth) => truth.into(),
        other => panic!("no event has a {other:?}"),
    }
}

fn assert_agreement<E>(event: &E, times: fn(i64) -> serde_json::Value)
where
    E: Event + Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let schema = Schema::parse_str(E::SCHEMA).unwrap();
    let ours = encode(event);
    let mut datum = &ours[HEAD..];
    let value = from_avro_datum(&schema, &mut datum, None).unwrap();
    assert!(datum.is_empty(), "apache-avro leaves {} bytes", datum.len());

    let read: E = serde_json::from_value(json(value.clone(), times)).unwrap();
    assert_eq!(&read, event, "ours, read by apache-avro");

    let mut theirs = ours[..HEAD].to_vec();
    theirs.extend(to_avro_datum(&schema, value).unwrap());
    assert_eq!(&Decoder::<E>::new().decode(&theirs).unwrap(), event, "theirs, read by us");
}

proptest! {
    #[test]
    fn observations_agree_with_apache_avro(event in samples::observation()) {
        assert_agreement(&event, |micros| time::format(micros).into());
    }

    #[test]
    fn decisions_agree_with_apache_avro(event in samples::decision()) {
        assert_agreement(&event, |micros| time::format(micros).into());
    }

    #[test]
    fn operations_agree_with_apache_avro(event in samples::operation()) {
        assert_agreement(&event, |micros| time::format(micros).into());
    }

    #[test]
    fn device_changes_agree_with_apache_avro(event in samples::device_change()) {
        assert_agreement(&event, serde_json::Value::from);
    }

    #[test]
    fn what_is_written_is_read(
        mut observation in samples::observation(),
        decision in samples::decision(),
        change in samples::device_change(),
        operation in samples::operation(),
        at in samples::extreme(),
    ) {
        observation.event_time = at;
        prop_assert_eq!(Decoder::new().decode(&encode(&observation)), Ok(observation));
        prop_assert_eq!(Decoder::new().decode(&encode(&decision)), Ok(decision));
        prop_assert_eq!(Decoder::new().decode(&encode(&change)), Ok(change));
        prop_assert_eq!(Decoder::new().decode(&encode(&operation)), Ok(operation));
    }

    /// Framing decides nothing but where the schema is looked for.
    #[test]
    fn a_datum_is_the_same_in_both_framings(event in samples::decision(), id: u32) {
        let single = encode(&event);
        let confluent = encode_framed(&event, Framing::Confluent { id });
        prop_assert_eq!(&single[..2], [0xC3, 0x01]);
        prop_assert_eq!(&single[2..HEAD], Decision::FINGERPRINT);
        prop_assert_eq!(confluent[0], 0);
        prop_assert_eq!(&confluent[1..5], id.to_be_bytes());
        prop_assert_eq!(&confluent[5..], &single[HEAD..]);
        prop_assert_eq!(registry_id(&confluent), Some(id));
        prop_assert_eq!(registry_id(&single), None);
        prop_assert_eq!(reframe::<Decision>(&single, Framing::Confluent { id }), Some(confluent));
        prop_assert_eq!(reframe::<Decision>(&single, Framing::SingleObject), Some(single));
    }
}

/// It would be read by a schema that is not its own.
#[test]
fn an_event_of_another_schema_keeps_its_framing() {
    let framing = Framing::Confluent { id: 7 };
    assert_eq!(reframe::<Decision>(&encode(&DeviceChange::default()), framing), None);
    assert_eq!(reframe::<Decision>(b"", framing), None);
}

/// Logs give it offsets by its id: it may depend on nothing but the datum.
#[test]
fn an_observation_without_an_id_is_known_by_its_datum() {
    let observation = Observation { native_key: "x".to_owned(), ..Observation::default() };
    let bytes = encode(&observation);
    let read = Decoder::<Observation>::new().decode(&bytes).unwrap();
    let expected: String =
        <sha2::Sha256 as sha2::Digest>::digest(&bytes[HEAD..]).iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(read.id, expected);
    assert_eq!(Observation { id: String::new(), ..read }, observation);
}

#[test]
fn a_device_change_has_a_key_and_nothing_else_by_default() {
    let change = DeviceChange { uid: "sr:x".to_owned(), ..DeviceChange::default() };
    assert_eq!(Decoder::new().decode(&encode(&change)), Ok(change));
}
