//! Whether a datum is what its writer's schema says, to its last byte.
//!
//! The crate `apache-avro` takes a missing string or union for null, makes room for as many items
//! as a count promises, and descends as deep as it is led. So nothing comes to it unchecked.

use apache_avro::{
    Schema,
    schema::{DecimalSchema, FixedSchema, NamesRef, Namespace, ResolvedSchema},
};

use super::{
    DATUM_BYTES_MAX, DecodeError,
    datum::{Datum, Reader},
};

/// Levels of a datum: JSON, and so a schema without recursion, has at most 128.
const DEPTH_MAX: u32 = 128;
/// Values in a datum: one takes a byte or more, but for nulls and records of nothing.
const VALUES_MAX: usize = DATUM_BYTES_MAX;

/// Refuses a datum that is not one of `schema`, or has bytes left over.
pub(super) fn check(schema: &Schema, datum: &[u8]) -> Result<(), DecodeError> {
    let names =
        ResolvedSchema::try_from(schema).map_err(|error| DecodeError::WriterSchema(error.to_string()))?;
    let mut walk = Walk { names: names.get_names(), values: 0 };
    let mut reader = Reader::new(datum);
    walk.skip(schema, &None, &mut reader, 0)?;
    reader.finish()
}

struct Walk<'a> {
    names: &'a NamesRef<'a>,
    values: usize,
}

impl Walk<'_> {
    fn skip(
        &mut self,
        schema: &Schema,
        namespace: &Namespace,
        reader: &mut Reader<'_>,
        depth: u32,
    ) -> Result<(), DecodeError> {
        self.values += 1;
        if depth > DEPTH_MAX || self.values > VALUES_MAX {
            return Err(DecodeError::Nesting);
        }
        let depth = depth + 1;
        match schema {
            Schema::Null => {}
            Schema::Boolean => drop(bool::read(reader)?),
            Schema::Float => drop(reader.take(4)?),
            Schema::Double => drop(reader.take(8)?),
            Schema::Duration => drop(reader.take(12)?),
            Schema::Fixed(FixedSchema { size, .. }) => drop(reader.take(*size)?),
            Schema::String => drop(reader.text()?),
            Schema::Bytes | Schema::BigDecimal | Schema::Uuid => drop(reader.sized()?),
            Schema::Decimal(DecimalSchema { inner, .. }) => {
                self.skip(inner, namespace, reader, depth)?;
            }
            Schema::Array(array) => reader.blocks(|reader, count| {
                (0..count).try_for_each(|_| self.skip(&array.items, namespace, reader, depth))
            })?,
            Schema::Map(map) => reader.blocks(|reader, count| {
                (0..count).try_for_each(|_| {
                    reader.text()?;
                    self.skip(&map.types, namespace, reader, depth)
                })
            })?,
            Schema::Union(union) => {
                let branch = reader.long()?;
                let variant = usize::try_from(branch)
                    .ok()
                    .and_then(|branch| union.variants().get(branch))
                    .ok_or(DecodeError::Branch(branch))?;
                self.skip(variant, namespace, reader, depth)?;
            }
            Schema::Record(record) => {
                let name = record.name.fully_qualified_name(namespace);
                for field in &record.fields {
                    self.skip(&field.schema, &name.namespace, reader, depth)?;
                }
            }
            Schema::Ref { name } => {
                let name = name.fully_qualified_name(namespace);
                let named = *self
                    .names
                    .get(&name)
                    .ok_or_else(|| DecodeError::WriterSchema(format!("{name} is not defined")))?;
                self.skip(named, &name.namespace, reader, depth)?;
            }
            // Enums, and all the logical types of int and long.
            _ => drop(reader.long()?),
        }
        Ok(())
    }
}
