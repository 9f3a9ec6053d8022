//! Reading events, whoever wrote them and in whichever framing.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    marker::PhantomData,
    sync::Arc,
};

use apache_avro::{Schema, rabin::Rabin};

use super::{
    CONFLUENT, CONFLUENT_BYTES, DATUM_BYTES_MAX, DecodeError, Event, NoRegistry, SINGLE_OBJECT,
    SINGLE_OBJECT_BYTES, WriterSchemas,
    fingerprint::fingerprint,
    writer::{self, Writer},
};

/// Writers' schemas that a decoder keeps: a topic has a few; past this, all are asked for again.
const WRITERS_MAX: usize = 64;

/// How an event names its writer's schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WriterId {
    /// CRC-64-AVRO of the schema's parsing canonical form, little-endian.
    Fingerprint([u8; 8]),
    /// The id that a registry gave it.
    Registry(u32),
}

/// Reads events of one type, in both framings, each by its writer's schema.
pub struct Decoder<E> {
    registry: Arc<dyn WriterSchemas>,
    writers: BTreeMap<WriterId, Writer>,
    event: PhantomData<fn() -> E>,
}

impl<E: Event> Default for Decoder<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E: Event> Decoder<E> {
    /// Without a registry: knows the schemas of this program.
    pub fn new() -> Self {
        Self::with_writers(Arc::new(NoRegistry))
    }

    /// Knows the schemas of this program, and those of `registry`.
    pub fn with_writers(registry: Arc<dyn WriterSchemas>) -> Self {
        Self { registry, writers: BTreeMap::new(), event: PhantomData }
    }

    /// Reads an event. The same bytes give the same event at any hour, once the registry answers.
    pub fn decode(&mut self, bytes: &[u8]) -> Result<E, DecodeError> {
        let (id, datum) = unframe(bytes)?;
        let mut event: E = if id == WriterId::Fingerprint(E::FINGERPRINT) {
            writer::read(datum)?
        } else {
            self.writer(id)?.read(datum)?
        };
        event.complete(datum);
        Ok(event)
    }

    fn writer(&mut self, id: WriterId) -> Result<&Writer, DecodeError> {
        if self.writers.len() >= WRITERS_MAX && !self.writers.contains_key(&id) {
            self.writers.clear();
        }
        match self.writers.entry(id) {
            Entry::Occupied(known) => Ok(known.into_mut()),
            Entry::Vacant(place) => Ok(place.insert(find::<E>(&*self.registry, id)?)),
        }
    }
}

/// The writer's schema of that name.
pub(super) fn find<E: Event>(registry: &dyn WriterSchemas, id: WriterId) -> Result<Writer, DecodeError> {
    let text = match id {
        WriterId::Fingerprint(fingerprint) => match known::<E>(fingerprint) {
            Some(text) => text.to_owned(),
            None => return Err(DecodeError::UnknownFingerprint(fingerprint)),
        },
        WriterId::Registry(id) => registry.by_id(id)?.ok_or(DecodeError::UnknownId(id))?,
    };
    Writer::parse::<E>(&text)
}

/// The schema of this program with this fingerprint: the one of the specification, or the one
/// that the crate `apache-avro` gives to a schema with logical types.
fn known<E: Event>(id: [u8; 8]) -> Option<&'static str> {
    [E::SCHEMA].iter().chain(E::RELEASED).copied().find(|text| {
        Schema::parse_str(text)
            .is_ok_and(|schema| fingerprint(&schema) == id || schema.fingerprint::<Rabin>().bytes == id)
    })
}

/// The id of a registry that an event names its writer's schema by; none where it does so in another way, or in none.
pub fn registry_id(bytes: &[u8]) -> Option<u32> {
    match unframe(bytes) {
        Ok((WriterId::Registry(id), _)) => Some(id),
        _ => None,
    }
}

/// Splits an event into the name of its writer's schema and the datum.
pub(super) fn unframe(bytes: &[u8]) -> Result<(WriterId, &[u8]), DecodeError> {
    let first = *bytes.first().ok_or(DecodeError::Empty)?;
    if bytes.len() > DATUM_BYTES_MAX {
        return Err(DecodeError::TooLarge(bytes.len()));
    }
    if first == CONFLUENT {
        let (head, datum) = bytes.split_first_chunk::<CONFLUENT_BYTES>().ok_or(DecodeError::Truncated)?;
        let [_, id @ ..] = *head;
        return Ok((WriterId::Registry(u32::from_be_bytes(id)), datum));
    }
    if !bytes.starts_with(&SINGLE_OBJECT[..bytes.len().min(2)]) {
        return Err(DecodeError::Framing(first));
    }
    let (head, datum) = bytes.split_first_chunk::<SINGLE_OBJECT_BYTES>().ok_or(DecodeError::Truncated)?;
    let [_, _, fingerprint @ ..] = *head;
    Ok((WriterId::Fingerprint(fingerprint), datum))
}
