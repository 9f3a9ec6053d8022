//! Bytes that are no event: an error with its reason, and never a panic or a great allocation.

use proptest::prelude::*;
use serde_json::json;
use serviceradar_schemas::{
    Decision, Decoder, DeviceChange, Event, Observation,
    codec::{DATUM_BYTES_MAX, DecodeError, datum::Datum, datum::Reader},
    encode,
};

use crate::{
    samples,
    values::HEAD,
    writers::{Registry, fields, ours, written},
};

/// A schema of a writer that has whatever Avro has.
fn everything() -> serde_json::Value {
    let mut schema = ours();
    fields(&mut schema).push(json!({"name": "more", "type": ["null", {
    "type": "record", "name": "Everything", "fields": [
        {"name": "next", "type": ["null", "Everything"]},
        {"name": "nothing", "type": {"type": "array", "items": "null"}},
        {"name": "bytes", "type": "bytes"},
        {"name": "truth", "type": "boolean"},
        {"name": "single", "type": "float"},
        {"name": "double", "type": "double"},
        {"name": "fixed", "type": {"type": "fixed", "name": "Four", "size": 4}},
        {"name": "again", "type": "Four"},
        {"name": "decimal", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9}},
        {"name": "uuid", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "date", "type": {"type": "int", "logicalType": "date"}},
        {"name": "maps", "type": {"type": "map", "values": {"type": "map", "values": "int"}}},
        {"name": "arrays", "type": {"type": "array", "items": {"type": "array", "items": "long"}}}
    ]}]}));
    schema
}

fn strange() -> Decoder<Observation> {
    Decoder::with_writers(Registry::with(&everything()))
}

/// An `Everything`, but for what stands before and after its array of nothing.
fn everything_with_nothing(count: &[u8]) -> Vec<u8> {
    let rest = [
        &[2, 0xAA][..], // bytes
        &[1],
        &[0; 4],
        &[0; 8],
        &[1, 2, 3, 4],
        &[5, 6, 7, 8],
        &[2, 1], // decimal
        &[72],
        b"01890a5d-ac96-774b-bcce-b302099a8057",
        &[2],
        &[2, 2, b'a', 1, 6, 2, b'b', 2, 0, 0], // maps: one block with a size within
        &[2, 2, 2, 0, 0],
    ];
    [&[0][..], count, &rest.concat()].concat()
}

fn event() -> Observation {
    serde_json::from_str(include_str!("../golden/observation.json")).unwrap()
}

/// An event of the strange writer, with `more` as the encoding of its last field.
fn strange_event(more: &[u8]) -> Vec<u8> {
    let mut bytes = written(&event(), &everything(), |fields| {
        let null = apache_avro::types::Value::Null;
        fields.push(("more".to_owned(), apache_avro::types::Value::Union(0, Box::new(null))));
    });
    assert_eq!(bytes.pop(), Some(0));
    bytes.extend_from_slice(more);
    bytes
}

fn assert_truncations<E: Event + std::fmt::Debug>(bytes: &[u8], decoder: &mut Decoder<E>) {
    for end in 0..bytes.len() {
        let error = decoder.decode(&bytes[..end]).unwrap_err();
        let expected = if end == 0 { DecodeError::Empty } else { DecodeError::Truncated };
        assert_eq!(error, expected, "the first {end} of {} bytes", bytes.len());
    }
    let longer = [bytes, &[0]].concat();
    assert_eq!(decoder.decode(&longer).unwrap_err(), DecodeError::LeftOver(1));
}

proptest! {
    #[test]
    fn bytes_missing_or_left_over_are_errors(
        observation in samples::observation(),
        decision in samples::decision(),
        change in samples::device_change(),
    ) {
        assert_truncations::<Observation>(&encode(&observation), &mut Decoder::new());
        assert_truncations::<Decision>(&encode(&decision), &mut Decoder::new());
        assert_truncations::<DeviceChange>(&encode(&change), &mut Decoder::new());
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Decoder::<Observation>::new().decode(&bytes);
        let framed = |head: &[u8]| [head, &bytes].concat();
        let single = |fingerprint: [u8; 8]| framed(&[&[0xC3, 0x01], &fingerprint[..]].concat());
        let _ = Decoder::<Observation>::new().decode(&single(Observation::FINGERPRINT));
        let _ = Decoder::<Decision>::new().decode(&single(Decision::FINGERPRINT));
        let _ = Decoder::<DeviceChange>::new().decode(&single(DeviceChange::FINGERPRINT));
        let _ = strange().decode(&framed(&[0, 0, 0, 0, 7]));
        let _ = strange().decode(&strange_event(&framed(&[2])));
    }

    #[test]
    fn a_changed_byte_is_read_or_refused(
        at in any::<prop::sample::Index>(),
        byte: u8,
        event in samples::observation(),
    ) {
        let mut bytes = encode(&event);
        let at_ours = HEAD + at.index(bytes.len() - HEAD);
        bytes[at_ours] = byte;
        // What is read is an event like any other.
        if let Ok(read) = Decoder::<Observation>::new().decode(&bytes) {
            prop_assert_eq!(Decoder::new().decode(&encode(&read)), Ok(read));
        }
        let mut bytes = strange_event(&[&[2], &everything_with_nothing(&[0])[..]].concat());
        let at_theirs = 5 + at.index(bytes.len() - 5);
        bytes[at_theirs] = byte;
        if let Ok(read) = strange().decode(&bytes) {
            prop_assert_eq!(Decoder::new().decode(&encode(&read)), Ok(read));
        }
    }
}

#[test]
fn a_strange_writers_bytes_missing_or_left_over_are_errors() {
    let bytes = strange_event(&[&[2], &everything_with_nothing(&[0])[..]].concat());
    assert_eq!(strange().decode(&bytes).unwrap(), event());
    assert_truncations(&bytes, &mut strange());
}

/// Each level is one byte; a stack has room for fewer than an event has bytes.
#[test]
fn a_datum_cannot_nest_without_end() {
    let deep = [vec![2; 1_000_000], vec![0]].concat();
    assert_eq!(strange().decode(&strange_event(&deep)), Err(DecodeError::Nesting));
}

/// A few bytes that say "so many times nothing" would be as many values in memory.
#[test]
fn nothing_cannot_be_repeated_without_end() {
    let many = everything_with_nothing(&[0x0A, 0]);
    let error = strange().decode(&strange_event(&[&[2], &many[..]].concat())).unwrap_err();
    assert_eq!(error, DecodeError::Length(5));
}

#[test]
fn each_fault_has_its_reason() {
    let good = encode(&event());
    let read = |bytes: &[u8]| Decoder::<Observation>::new().decode(bytes).unwrap_err();
    assert_eq!(read(&[]), DecodeError::Empty);
    assert_eq!(read(b"{}"), DecodeError::Framing(b'{'));
    assert_eq!(read(&[0xC3, 0x02, 0]), DecodeError::Framing(0xC3));
    assert_eq!(read(&vec![0xC3; DATUM_BYTES_MAX + 1]), DecodeError::TooLarge(DATUM_BYTES_MAX + 1));

    let datum = |bytes: &[u8]| [&good[..HEAD], bytes].concat();
    assert_eq!(read(&datum(&[4, 0xFF, 0xFF])), DecodeError::Utf8);
    assert_eq!(read(&datum(&[1])), DecodeError::Length(-1));
    assert_eq!(read(&datum(&[0xFE, 0xFF, 0xFF, 0xFF, 0x0F])), DecodeError::Truncated);
    assert_eq!(read(&datum(&[&[0, 0xFF][..], &[0xFF; 9]].concat())), DecodeError::Integer);

    // id, event_time, partition, source.kind, source.instance, native_key: all empty.
    let action = |index| datum(&[0, 0, 0, 0, 0, 0, index]);
    let symbol = |index| DecodeError::Symbol { name: "Action".to_owned(), index };
    assert_eq!(read(&action(10)), symbol(5));
    assert_eq!(read(&action(1)), symbol(-1));
    // Then action, coverage, claims, addresses; a union has branches 0 and 1.
    assert_eq!(read(&datum(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4])), DecodeError::Branch(2));
}

fn read<T: Datum>(bytes: &[u8]) -> Result<T, DecodeError> {
    let mut reader = Reader::new(bytes);
    let value = T::read(&mut reader)?;
    reader.finish().map(|()| value)
}

/// Java's writers give blocks their size; others cut a long array into blocks.
#[test]
fn blocks_may_be_many_and_say_their_size() {
    let blocks = [3, 8, 2, b'a', 2, b'b', 2, 2, b'c', 0];
    assert_eq!(read::<Vec<String>>(&blocks).unwrap(), ["a", "b", "c"]);
    let map = [1, 8, 2, b'k', 2, b'v', 2, 2, b'l', 0, 0];
    let map: std::collections::BTreeMap<String, String> = read(&map).unwrap();
    assert_eq!(map.into_iter().collect::<Vec<_>>(), [("k".into(), "v".into()), ("l".into(), "".into())]);
}

#[test]
fn blocks_that_lie_are_refused() {
    assert_eq!(read::<Vec<String>>(&[3, 10, 2, b'a', 2, b'b', 0]), Err(DecodeError::Length(-2)));
    assert_eq!(read::<Vec<String>>(&[3, 20, 2, b'a', 2, b'b', 0]), Err(DecodeError::Truncated));
    assert_eq!(read::<Vec<String>>(&[3, 1, 2, b'a', 2, b'b', 0]), Err(DecodeError::Length(-1)));
    let most = [0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01];
    assert_eq!(read::<Vec<String>>(&most), Err(DecodeError::Truncated), "2^63 - 1 items");
    let least = [&[0xFF; 9][..], &[0x01, 0x02, 0, 0]].concat();
    assert_eq!(read::<Vec<String>>(&least), Err(DecodeError::Truncated), "-2^63 items");
}
