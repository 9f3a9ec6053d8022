//! Bytes on a topic, in both framings, of our schemas and of another writer's.

use std::{collections::BTreeSet, fmt, sync::Arc};

use async_trait::async_trait;
use proptest::prelude::*;
use serviceradar_schemas::{
    Decision, Decoder, DeviceChange, Event, Framing, Observation, Target,
    codec::{DATUM_BYTES_MAX, DecodeError, Unavailable, WriterSchemas, dissect::dissect},
    encode, encode_framed, hex,
};
use serviceradar_tests::{
    fuzz::{Checked, changed, fuzz},
    observations::{any_observations, text},
};

use crate::assert_told;

/// The id of our own schema in the registry, and of another writer's.
const OURS: u32 = 1;
const OTHER: u32 = 2;

/// A registry with both.
struct Registry;

#[async_trait]
impl WriterSchemas for Registry {
    async fn learn(&self, _: &BTreeSet<u32>) -> Result<(), Unavailable> {
        Ok(())
    }

    fn by_id(&self, id: u32) -> Result<Option<String>, Unavailable> {
        // The other writer has two fields more at the end, one of which holds itself.
        let more = r#", {"name": "more", "default": null, "type": ["null", {"type": "record", "name": "More", "fields": [
            {"name": "next", "type": ["null", "More"]}, {"name": "list", "type": {"type": "array", "items": "null"}},
            {"name": "sizes", "type": {"type": "map", "values": "double"}}]}]},
            {"name": "sign", "type": {"type": "fixed", "name": "Sign", "size": 2}, "default": "ab"} ]}"#;
        let ours = Observation::SCHEMA.trim_end();
        let open = ours.strip_suffix('}').unwrap().trim_end().strip_suffix(']').unwrap();
        Ok(match id {
            OURS => Some(ours.to_owned()),
            OTHER => Some(format!("{open}{more}")),
            _ => None,
        })
    }
}

/// What is accepted is all of the bytes and nothing else, and is written as what it was read as.
fn check<E: Event + PartialEq + fmt::Debug>(bytes: &[u8]) -> Checked {
    let mut decoder = Decoder::<E>::with_writers(Arc::new(Registry));
    let read = decoder.decode(bytes);
    check_apart::<E>(bytes, read.as_ref().err())?;
    let event = match read {
        Ok(event) => event,
        Err(refusal) => return assert_told(refusal),
    };
    let again = Decoder::new().decode(&encode(&event));
    prop_assert_eq!(again.as_ref(), Ok(&event));
    prop_assert!(decoder.decode(&bytes[..bytes.len() - 1]).is_err(), "its last byte means nothing");
    let longer = [bytes, &[0]].concat();
    let refusal = if longer.len() > DATUM_BYTES_MAX {
        DecodeError::TooLarge(longer.len())
    } else {
        DecodeError::LeftOver(1)
    };
    prop_assert_eq!(decoder.decode(&longer), Err(refusal));
    Ok(())
}

/// Taken apart, it has the fault that the decoder finds, at a byte that it has, and that can be shown.
fn check_apart<E: Event>(bytes: &[u8], refusal: Option<&DecodeError>) -> Checked {
    let found = dissect::<E>(bytes, &Registry).unwrap();
    prop_assert_eq!(found.fault.as_ref().map(|fault| &fault.why), refusal);
    prop_assert!(found.fields.iter().all(|field| field.begins <= bytes.len()));
    let Some(fault) = found.fault else { return Ok(()) };
    let at = fault.at.unwrap_or(fault.begins);
    prop_assert!(fault.begins <= at && at <= bytes.len(), "{:?}", fault);
    prop_assert!(hex::around(bytes, at).contains("^^ byte"));
    Ok(())
}

fn events() -> impl Strategy<Value = Vec<u8>> {
    let decisions = (any_observations(), text(), text()).prop_map(|(of, action, actor)| Decision {
        id: of.id,
        event_time: of.event_time,
        partition: of.partition,
        action,
        target: Target {
            claim: of.claims.first().cloned(),
            claims: Some(of.claims),
            record: of.hostname,
            source: Some(of.source),
            begin: of.snapshot.map(|snapshot| snapshot.begin),
            attribute: of.name,
        },
        value: of.model,
        revokes: of.vendor,
        actor,
        reason: of.native_key,
    });
    let changes = any_observations().prop_map(|of| DeviceChange {
        uid: of.native_key,
        name: of.name,
        risk_score: of.risk_score,
        first_seen: of.event_time,
        discovery_sources: vec![of.source.kind, of.source.instance],
        tags: of.tags.into_iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        ..DeviceChange::default()
    });
    let other = any_observations().prop_map(|of| {
        let datum = encode_framed(&of, Framing::Confluent { id: OTHER });
        // More, and in it: nothing next, an empty list, an empty map; and the sign.
        [&datum[..], &[2, 0, 0, 0, b'x', b'y']].concat()
    });
    prop_oneof![
        4 => any_observations().prop_map(|of| encode(&of)),
        2 => any_observations().prop_map(|of| encode_framed(&of, Framing::Confluent { id: OURS })),
        2 => other,
        1 => decisions.prop_map(|of| encode(&of)),
        1 => changes.prop_map(|of| encode(&of)),
        1 => prop::collection::vec(any::<u8>(), 0..64),
    ]
}

/// Integers at their ends, lengths that lie, blocks that say their size, and heads of both framings.
const TOKENS: &[&[u8]] = &[
    &[0xFF; 9],
    &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01],
    &[0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01],
    &[0xFE, 0xFF, 0xFF, 0xFF, 0x0F],
    &[0x80, 0x00],
    &[0x01, 0x02, 0x00],
    &[0x03, 0x08, 0x02],
    &[0x00, 0x00, 0x00, 0x00, 0x02],
    &[0xC3, 0x01],
    &[0x02, 0x02, 0x02, 0x02],
    "\u{0}\u{fffd}".as_bytes(),
    &[0xED, 0xA0, 0x80],
];

#[test]
fn a_decoder_reads_all_of_the_bytes_or_says_why_not() {
    fuzz("decoder", changed(events(), TOKENS), |bytes| {
        check::<Observation>(bytes)?;
        check::<Decision>(bytes)?;
        check::<DeviceChange>(bytes)
    });
}

/// The other writer's events are read: else the target would try refusals alone.
#[test]
fn the_other_writers_events_are_read() {
    let of = Observation { id: "1".to_owned(), ..Observation::default() };
    let bytes =
        [&encode_framed(&of, Framing::Confluent { id: OTHER })[..], &[2, 0, 0, 0, b'x', b'y']].concat();
    assert_eq!(Decoder::with_writers(Arc::new(Registry)).decode(&bytes), Ok(of));
}
