//! Whether a datum is what its writer's schema says, to its last byte, and what stands where in it.
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
pub(super) const VALUES_MAX: usize = DATUM_BYTES_MAX;

/// A step from a value to a part of it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step<'a> {
    /// Of a record.
    Field(&'a str),
    /// Of an array, from 0.
    Item(usize),
    /// Of a map.
    Key(&'a str),
}

/// A value that has no parts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Leaf<'a> {
    Null,
    Boolean(bool),
    Float(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
    /// Of an enum.
    Symbol(&'a str),
    /// An int, a long, or one of their logical types, which the schema tells.
    Integer(i64, &'a Schema),
    /// An array of nothing.
    NoItems,
    /// A map of nothing.
    NoKeys,
}

/// Who is told of a datum, part by part. Of what is wrong, the last call of each told where it is: nothing is left
/// behind an error.
pub(super) trait Visit<'a> {
    /// Bytes that are left where a value, a count or a key begins.
    fn begin(&mut self, _left: usize) {}
    /// The same where the value of a union's branch begins, behind the branch.
    fn branch(&mut self, _left: usize) {}
    /// Goes into a part.
    fn enter(&mut self, _step: Step<'a>) {}
    /// Goes out of it.
    fn leave(&mut self) {}
    /// The value that began last.
    fn leaf(&mut self, _leaf: Leaf<'a>) {}
}

/// Nobody.
impl Visit<'_> for () {}

/// Refuses a datum that is not one of `schema`, or has bytes left over.
pub(super) fn check(schema: &Schema, datum: &[u8]) -> Result<(), DecodeError> {
    walk(schema, datum, VALUES_MAX, &mut ())
}

/// The same, and tells what stands where. A datum of more than `values_max` values is refused.
pub(super) fn walk<'a>(
    schema: &'a Schema,
    datum: &'a [u8],
    values_max: usize,
    visit: &mut impl Visit<'a>,
) -> Result<(), DecodeError> {
    match walk_one(schema, datum, values_max, visit)? {
        0 => Ok(()),
        left => Err(DecodeError::LeftOver(left)),
    }
}

/// The same of the datum that `bytes` begin with: returns how many are left behind it.
pub(super) fn walk_one<'a>(
    schema: &'a Schema,
    bytes: &'a [u8],
    values_max: usize,
    visit: &mut impl Visit<'a>,
) -> Result<usize, DecodeError> {
    let names =
        ResolvedSchema::try_from(schema).map_err(|error| DecodeError::WriterSchema(error.to_string()))?;
    let mut walk = Walk { names: names.get_names(), values_left: values_max, visit };
    let mut reader = Reader::new(bytes);
    walk.value(schema, &None, &mut reader, 0)?;
    Ok(reader.left())
}

struct Walk<'w, 'a, V> {
    names: &'w NamesRef<'a>,
    values_left: usize,
    visit: &'w mut V,
}

impl<'a, V: Visit<'a>> Walk<'_, 'a, V> {
    fn value(
        &mut self,
        schema: &'a Schema,
        namespace: &Namespace,
        reader: &mut Reader<'a>,
        depth: u32,
    ) -> Result<(), DecodeError> {
        self.visit.begin(reader.left());
        self.begun(schema, namespace, reader, depth)
    }

    /// A value whose begin was told.
    fn begun(
        &mut self,
        schema: &'a Schema,
        namespace: &Namespace,
        reader: &mut Reader<'a>,
        depth: u32,
    ) -> Result<(), DecodeError> {
        if depth > DEPTH_MAX || self.values_left == 0 {
            return Err(DecodeError::Nesting);
        }
        self.values_left -= 1;
        let depth = depth + 1;
        let leaf = match schema {
            Schema::Null => Leaf::Null,
            Schema::Boolean => Leaf::Boolean(bool::read(reader)?),
            Schema::Float => Leaf::Float(single(reader.take(4)?)),
            Schema::Double => Leaf::Float(double(reader.take(8)?)),
            Schema::Duration => Leaf::Bytes(reader.take(12)?),
            Schema::Fixed(FixedSchema { size, .. }) => Leaf::Bytes(reader.take(*size)?),
            Schema::String => Leaf::Text(reader.text()?),
            Schema::Bytes | Schema::BigDecimal | Schema::Uuid => Leaf::Bytes(reader.sized()?),
            Schema::Enum(of) => Leaf::Symbol(symbol(&of.name.name, &of.symbols, reader.long()?)?),
            Schema::Int | Schema::Date | Schema::TimeMillis => {
                Leaf::Integer(i64::from(i32::read(reader)?), schema)
            }
            Schema::Decimal(DecimalSchema { inner, .. }) => {
                return self.begun(inner, namespace, reader, depth);
            }
            Schema::Array(array) => match self.items(&array.items, namespace, reader, depth)? {
                0 => Leaf::NoItems,
                _ => return Ok(()),
            },
            Schema::Map(map) => match self.entries(&map.types, namespace, reader, depth)? {
                0 => Leaf::NoKeys,
                _ => return Ok(()),
            },
            Schema::Union(union) => {
                let branch = reader.long()?;
                let variant = usize::try_from(branch)
                    .ok()
                    .and_then(|branch| union.variants().get(branch))
                    .ok_or(DecodeError::Branch(branch))?;
                self.visit.branch(reader.left());
                return self.begun(variant, namespace, reader, depth);
            }
            Schema::Record(record) => {
                let name = record.name.fully_qualified_name(namespace);
                for field in &record.fields {
                    self.visit.enter(Step::Field(&field.name));
                    self.value(&field.schema, &name.namespace, reader, depth)?;
                    self.visit.leave();
                }
                return Ok(());
            }
            Schema::Ref { name } => {
                let name = name.fully_qualified_name(namespace);
                let named = *self
                    .names
                    .get(&name)
                    .ok_or_else(|| DecodeError::WriterSchema(format!("{name} is not defined")))?;
                return self.begun(named, &name.namespace, reader, depth);
            }
            // Long, and its logical types.
            _ => Leaf::Integer(reader.long()?, schema),
        };
        self.visit.leaf(leaf);
        Ok(())
    }

    /// The items of an array; returns how many there are.
    fn items(
        &mut self,
        schema: &'a Schema,
        namespace: &Namespace,
        reader: &mut Reader<'a>,
        depth: u32,
    ) -> Result<usize, DecodeError> {
        let mut index = 0;
        reader.blocks(|reader, count| {
            for _ in 0..count {
                self.visit.enter(Step::Item(index));
                self.value(schema, namespace, reader, depth)?;
                self.visit.leave();
                index += 1;
            }
            self.visit.begin(reader.left());
            Ok(())
        })?;
        Ok(index)
    }

    /// The entries of a map; returns how many there are.
    fn entries(
        &mut self,
        schema: &'a Schema,
        namespace: &Namespace,
        reader: &mut Reader<'a>,
        depth: u32,
    ) -> Result<usize, DecodeError> {
        let mut entries = 0;
        reader.blocks(|reader, count| {
            for _ in 0..count {
                self.visit.begin(reader.left());
                let key = reader.text()?;
                self.visit.enter(Step::Key(key));
                self.value(schema, namespace, reader, depth)?;
                self.visit.leave();
            }
            entries += count;
            self.visit.begin(reader.left());
            Ok(())
        })?;
        Ok(entries)
    }
}

fn symbol<'a>(name: &str, symbols: &'a [String], index: i64) -> Result<&'a str, DecodeError> {
    let found = usize::try_from(index).ok().and_then(|index| symbols.get(index));
    found.map(String::as_str).ok_or_else(|| DecodeError::Symbol { name: name.to_owned(), index })
}

fn single(bytes: &[u8]) -> f64 {
    bytes.try_into().map_or(f64::NAN, |bytes| f64::from(f32::from_le_bytes(bytes)))
}

fn double(bytes: &[u8]) -> f64 {
    bytes.try_into().map_or(f64::NAN, f64::from_le_bytes)
}
