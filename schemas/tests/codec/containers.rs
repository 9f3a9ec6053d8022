//! Container files of observations, as other writers make them.

use apache_avro::{Codec, DeflateSettings, Schema, Writer, ZstandardSettings, from_avro_datum, types::Value};
use proptest::{collection::vec, prelude::*};
use serde_json::json;
use serviceradar_schemas::{
    Decoder, Observation,
    codec::{
        DecodeError,
        container::{ContainerDecoder, ContainerError},
    },
    encode,
};

use crate::{
    samples,
    writers::{fields, ours, written},
};

/// Events under an id, whose data are of `schema`, in a file.
fn container(schema: &serde_json::Value, events: &[Vec<u8>], codec: Codec) -> Vec<u8> {
    let schema = Schema::parse(schema).unwrap();
    let mut writer = Writer::with_codec(&schema, Vec::new(), codec);
    for event in events {
        let value = from_avro_datum(&schema, &mut &event[5..], None).unwrap();
        writer.append(value).unwrap();
    }
    writer.into_inner().unwrap()
}

fn read(file: &[u8]) -> Result<Vec<Result<Observation, DecodeError>>, ContainerError> {
    let mut decoder = ContainerDecoder::<Observation>::default();
    let mut events = Vec::new();
    for piece in file.chunks(1_000) {
        decoder.feed(piece);
        while let Some(more) = decoder.next_events()? {
            events.extend(more);
        }
    }
    decoder.finish()?;
    Ok(events)
}

proptest! {
    #[test]
    fn events_are_read_whatever_the_codec_and_the_schema(events in vec(samples::observation(), 1..8)) {
        let mut theirs = ours();
        fields(&mut theirs).insert(3, json!({"name": "rack", "type": "string"}));
        let racked = |event: &Observation| {
            written(event, &theirs, |fields| {
                fields.insert(3, ("rack".to_owned(), Value::String("7".to_owned())));
            })
        };
        let theirs_written: Vec<_> = events.iter().map(racked).collect();
        let ours_written: Vec<_> = events.iter().map(|event| written(event, &ours(), |_| {})).collect();
        let expected: Vec<Result<_, DecodeError>> = events.into_iter().map(Ok).collect();
        for codec in [
            Codec::Null,
            Codec::Deflate(DeflateSettings::default()),
            Codec::Zstandard(ZstandardSettings::default()),
        ] {
            prop_assert_eq!(&read(&container(&theirs, &theirs_written, codec)).unwrap(), &expected);
            prop_assert_eq!(&read(&container(&ours(), &ours_written, codec)).unwrap(), &expected);
        }
    }
}

fn nameless() -> Observation {
    Observation { native_key: "1".to_owned(), ..Observation::default() }
}

/// It would be another event than the one that was published.
#[test]
fn an_event_without_an_id_has_the_same_one_in_a_file_and_in_the_log() {
    let published = Decoder::<Observation>::new().decode(&encode(&nameless())).unwrap();
    let file = container(&ours(), &[written(&nameless(), &ours(), |_| {})], Codec::Null);
    let read: Vec<_> = read(&file).unwrap().into_iter().map(Result::unwrap).collect();
    assert_eq!(read, [published]);
}

#[test]
fn a_file_that_is_cut_anywhere_is_known_to_be() {
    let event = written(&nameless(), &ours(), |_| {});
    let file = container(&ours(), &[event.clone(), event], Codec::Null);
    assert_eq!(read(&file).unwrap().len(), 2);
    for cut in 0..file.len() {
        match read(&file[..cut]) {
            Err(ContainerError::Truncated) => {}
            // Behind the header: a file of no events.
            Ok(events) => assert!(events.is_empty(), "cut at {cut}"),
            Err(other) => panic!("cut at {cut}: {other}"),
        }
    }
}

#[test]
fn what_is_no_container_of_observations_says_why() {
    let event = written(&nameless(), &ours(), |_| {});
    let file = container(&ours(), &[event], Codec::Deflate(DeflateSettings::default()));
    let at = file.windows(7).position(|bytes| bytes == b"deflate").unwrap();
    let mut other = file.clone();
    other[at..at + 7].copy_from_slice(b"unknown");
    let why = read(&other).unwrap_err().to_string();
    assert!(why.contains("\"unknown\"") && why.contains("write it with null, deflate or zstandard"), "{why}");

    let schema = json!({"type": "record", "name": "Rack", "fields": [{"name": "rack", "type": "string"}]});
    let rack = [&[0, 0, 0, 0, 7], &b"\x027"[..]].concat();
    let racks = read(&container(&schema, &[rack], Codec::Null)).unwrap();
    assert!(matches!(racks[..], [Err(DecodeError::Resolution { .. })]), "{racks:?}");
    assert!(matches!(read(b"garbage"), Err(ContainerError::Header(_))));
}
