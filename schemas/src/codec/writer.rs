//! Schemas of writers: known to this program, or asked of a registry.

use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
};

use apache_avro::{
    Schema,
    schema_equality::{SchemataEq, StructFieldEq},
};
use async_trait::async_trait;

use super::{
    DATUM_BYTES_MAX, DecodeError, Event,
    datum::Reader,
    fingerprint::{canonical_form, fingerprint},
    shape,
};

/// The registry cannot be asked now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the schema registry gives no answer: {0}")]
pub struct Unavailable(pub String);

/// Whoever knows the schemas of writers.
#[async_trait]
pub trait WriterSchemas: Send + Sync {
    /// Asks for schemas before events are decoded by them, so that decoding waits for no network.
    async fn learn(&self, ids: &BTreeSet<u32>) -> Result<(), Unavailable>;
    /// The schema with this id of a registry, as JSON, as far as it was learnt. `None`, there is none, makes a
    /// dead letter.
    fn by_id(&self, id: u32) -> Result<Option<String>, Unavailable>;
}

/// No registry: only the schemas of this program are known.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoRegistry;

#[async_trait]
impl WriterSchemas for NoRegistry {
    async fn learn(&self, _: &BTreeSet<u32>) -> Result<(), Unavailable> {
        Ok(())
    }

    fn by_id(&self, _: u32) -> Result<Option<String>, Unavailable> {
        Ok(None)
    }
}

/// The fingerprint by which this program knows a schema, given as JSON, of an event; none where it is of another
/// writer: then only a registry tells what it is.
pub fn known_as<E: Event>(text: &str) -> Option<[u8; 8]> {
    let theirs = guarded(|| Schema::parse_str(text)).ok()?;
    [E::SCHEMA].iter().chain(E::RELEASED).find_map(|ours| {
        let ours = guarded(|| Schema::parse_str(ours)).ok()?;
        are_same(&theirs, &ours).then(|| fingerprint(&ours))
    })
}

/// The canonical form leaves out logical types, and milliseconds are no microseconds.
fn are_same(one: &Schema, other: &Schema) -> bool {
    let fields = StructFieldEq { include_attributes: false };
    canonical_form(one) == canonical_form(other) && fields.compare(one, other)
}

/// A writer's schema, beside ours.
pub(super) enum Writer {
    /// The same: read by the fast path.
    Ours,
    /// Another: resolved value by value.
    Other {
        /// Theirs, and ours.
        schemas: Box<(Schema, Schema)>,
    },
}

impl Writer {
    /// Of a schema's JSON, for events of type `E`.
    pub(super) fn parse<E: Event>(text: &str) -> Result<Self, DecodeError> {
        let parse = |text| guarded(|| Schema::parse_str(text)).map_err(DecodeError::WriterSchema);
        let (theirs, ours) = (parse(text)?, parse(E::SCHEMA)?);
        if are_same(&theirs, &ours) {
            return Ok(Self::Ours);
        }
        Ok(Self::Other { schemas: Box::new((theirs, ours)) })
    }

    /// Reads a datum of this writer, to its end.
    pub(super) fn read<E: Event>(&self, datum: &[u8]) -> Result<E, DecodeError> {
        match self {
            Self::Ours => read(datum),
            Self::Other { schemas } => {
                let (theirs, ours) = schemas.as_ref();
                shape::check(theirs, datum)?;
                // A guard against lengths that are wrong; `shape` lets none pass.
                apache_avro::util::max_allocation_bytes(DATUM_BYTES_MAX);
                let resolved = guarded(|| {
                    let value = apache_avro::from_avro_datum(theirs, &mut &*datum, Some(ours))?;
                    apache_avro::to_avro_datum(ours, value)
                })
                .map_err(|reason| DecodeError::Resolution { name: E::NAME, reason })?;
                read(&resolved)
            }
        }
    }
}

/// Reads a datum of our schema, to its end.
pub(super) fn read<E: Event>(datum: &[u8]) -> Result<E, DecodeError> {
    let mut reader = Reader::new(datum);
    let event = E::read(&mut reader)?;
    reader.finish()?;
    Ok(event)
}

/// Runs the crate `apache-avro` on what others wrote: it panics on some of it (a bad name, say).
pub(crate) fn guarded<T, E: ToString>(run: impl FnOnce() -> Result<T, E>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(_) => Err("it makes no sense".to_owned()),
    }
}
