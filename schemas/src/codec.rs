//! Events as bytes: Avro data in one of two framings, written and read without a tree of values.
//!
//! The schemas in `avro/` are the contract; [`datum`] holds how our own schema is read and written,
//! [`Decoder`] how an event of any writer is read. The cross-check with the `apache-avro` crate in
//! the tests holds the two together.

pub mod container;
pub mod datum;
mod decoder;
pub mod dissect;
mod error;
mod events;
pub mod fingerprint;
mod shape;
mod writer;

pub use decoder::{Decoder, WriterId, registry_id};
pub use error::DecodeError;
pub(crate) use writer::guarded;
pub use writer::{NoRegistry, Unavailable, WriterSchemas, known_as};

use datum::Datum;

use crate::topics::Stream;

/// Largest event that is read, in bytes: what a log takes at most, and the longer framing that a restore may give it.
pub const DATUM_BYTES_MAX: usize = 1024 * 1024 + SINGLE_OBJECT_BYTES - CONFLUENT_BYTES;

/// First bytes of Avro's single-object encoding.
const SINGLE_OBJECT: [u8; 2] = [0xC3, 0x01];
/// First byte of Confluent framing.
const CONFLUENT: u8 = 0x00;
/// What single-object framing puts before a datum, in bytes: marker and fingerprint.
pub const SINGLE_OBJECT_BYTES: usize = 10;
/// Marker and id.
const CONFLUENT_BYTES: usize = 5;

/// Something that is published: a record with a schema of its own.
pub trait Event: Datum {
    /// Full name of the record.
    const NAME: &'static str;
    /// The schema that we write and read, as JSON.
    const SCHEMA: &'static str;
    /// CRC-64-AVRO of the schema's parsing canonical form, little-endian.
    const FINGERPRINT: [u8; 8];
    /// Schemas of earlier releases, whose data are in logs.
    const RELEASED: &'static [&'static str];
    /// The stream it is published on.
    const STREAM: Stream;

    /// Fills in what the datum it was read from decides.
    fn complete(&mut self, _datum: &[u8]) {}
}

/// What stands before a datum and tells its writer's schema.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// `C3 01` and the schema's fingerprint.
    #[default]
    SingleObject,
    /// `00` and the id that a registry gave to our schema, big-endian.
    Confluent {
        /// The registry's id.
        id: u32,
    },
}

impl Framing {
    /// What it puts before a datum, in bytes.
    pub fn bytes(self) -> usize {
        match self {
            Self::SingleObject => SINGLE_OBJECT_BYTES,
            Self::Confluent { .. } => CONFLUENT_BYTES,
        }
    }

    fn write<E: Event>(self, bytes: &mut Vec<u8>) {
        match self {
            Self::SingleObject => {
                bytes.extend_from_slice(&SINGLE_OBJECT);
                bytes.extend_from_slice(&E::FINGERPRINT);
            }
            Self::Confluent { id } => {
                bytes.push(CONFLUENT);
                bytes.extend_from_slice(&id.to_be_bytes());
            }
        }
    }
}

/// How each event of a tenant is framed. A registry gives the ids; without one all are single objects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Framings {
    /// Of `Observation`.
    pub observations: Framing,
    /// Of `Decision`.
    pub decisions: Framing,
    /// Of `DeviceChange`.
    pub device_changes: Framing,
}

/// An event in single-object framing.
pub fn encode<E: Event>(event: &E) -> Vec<u8> {
    encode_framed(event, Framing::SingleObject)
}

/// Appends an event in single-object framing.
pub fn encode_into<E: Event>(event: &E, bytes: &mut Vec<u8>) {
    frame(event, Framing::SingleObject, bytes);
}

/// An event in a given framing.
pub fn encode_framed<E: Event>(event: &E, framing: Framing) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    frame(event, framing, &mut bytes);
    bytes
}

/// What [`encode`] made, in another framing; none where it stays as it is: an event that an earlier release wrote
/// has another schema than the one whose id `framing` has.
pub fn reframe<E: Event>(single_object: &[u8], framing: Framing) -> Option<Vec<u8>> {
    let datum = single_object.strip_prefix(&SINGLE_OBJECT)?.strip_prefix(&E::FINGERPRINT)?;
    let mut bytes = Vec::with_capacity(framing.bytes() + datum.len());
    framing.write::<E>(&mut bytes);
    bytes.extend_from_slice(datum);
    Some(bytes)
}

/// The datum of an event in a registry's framing, framed as a single object of the schema with this fingerprint; none
/// where it is not in a registry's framing.
pub fn as_single_object(confluent: &[u8], fingerprint: [u8; 8]) -> Option<Vec<u8>> {
    registry_id(confluent)?;
    let datum = &confluent[CONFLUENT_BYTES..];
    Some([&SINGLE_OBJECT[..], &fingerprint, datum].concat())
}

/// The datum of an event in a registry's framing, under another id; none where it is not in a registry's framing.
pub fn under_id(confluent: &[u8], id: u32) -> Option<Vec<u8>> {
    registry_id(confluent)?;
    let datum = &confluent[CONFLUENT_BYTES..];
    Some([&[CONFLUENT][..], &id.to_be_bytes(), datum].concat())
}

fn frame<E: Event>(event: &E, framing: Framing, bytes: &mut Vec<u8>) {
    framing.write::<E>(bytes);
    event.write(bytes);
}
