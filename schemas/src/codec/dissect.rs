//! An event taken apart: what names its writer's schema, what stands where in it, and from which byte on it cannot be
//! read.

use apache_avro::Schema;
use serde_json::Value;

use super::{
    DATUM_BYTES_MAX, DecodeError, Event, Unavailable, WriterId, WriterSchemas,
    datum::Reader,
    decoder::{find, unframe},
    shape::{self, Leaf, Step, Visit},
    writer::Writer,
};
use crate::{excerpt, hex, time};

/// Fields that are told: somebody is to read them.
pub const FIELDS_MAX: usize = 1_000;
/// Of bytes, as many are told.
const BYTES_TOLD: usize = 32;
/// Values in a datum of our own schema, which is read without counting them: an item of a list has at most three for
/// each of its bytes.
const OUR_VALUES_MAX: usize = 4 * DATUM_BYTES_MAX;

/// An event, as far as it can be read. All places are bytes from the begin of the event, framing included.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Dissection {
    /// What names its writer's schema, where its framing can be read.
    pub writer: Option<WriterId>,
    /// Full name of the writer's schema, where it is known.
    pub schema: Option<String>,
    /// Its fields in their order, as far as they can be read, and [`FIELDS_MAX`] at most.
    pub fields: Vec<Field>,
    /// Fields that were read, and are not among those.
    pub left_out: usize,
    /// Why it is no event; none where it is one.
    pub fault: Option<Fault>,
}

/// A field that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    /// Which, as `claims[1].namespace` or `tags{site}`.
    pub path: String,
    /// Where it begins.
    pub begins: usize,
    /// What it says: a text is cut to what somebody would read, bytes are hex, an instant is RFC 3339.
    pub value: Value,
}

/// What is wrong with an event, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong.
    pub why: DecodeError,
    /// The byte from which it is wrong; the number of bytes where it ends too early. None where each byte is right, and
    /// what they say is not.
    pub at: Option<usize>,
    /// Where the value begins that has this byte.
    pub begins: usize,
    /// Which value that is; empty before the first.
    pub path: String,
}

/// Takes an event apart. What is no event of type `E` has a [`Fault`], the same that [`Decoder`](super::Decoder) finds.
///
/// # Errors
/// The registry cannot be asked for the writer's schema.
pub fn dissect<E: Event>(bytes: &[u8], registry: &dyn WriterSchemas) -> Result<Dissection, Unavailable> {
    let mut found = Dissection::default();
    let (id, datum) = match unframe(bytes) {
        Ok(parts) => parts,
        Err(why) => return Ok(found.with_fault(in_framing(why, bytes))),
    };
    found.writer = Some(id);
    let own = id == WriterId::Fingerprint(E::FINGERPRINT);
    let writer = match if own { Ok(Writer::Ours) } else { find::<E>(registry, id) } {
        Ok(writer) => writer,
        Err(DecodeError::Unavailable(why)) => return Err(why),
        Err(why) => return Ok(found.with_fault(of_name(why, id))),
    };
    let (schema, values_max) = match &writer {
        Writer::Ours => match Schema::parse_str(E::SCHEMA) {
            Ok(schema) => (schema, OUR_VALUES_MAX),
            Err(error) => {
                return Ok(found.with_fault(of_name(DecodeError::WriterSchema(error.to_string()), id)));
            }
        },
        Writer::Other { schemas } => (schemas.0.clone(), shape::VALUES_MAX),
    };
    found.schema = schema.name().map(|name| name.fullname(None));
    let begins = bytes.len() - datum.len();
    let mut notes = Notes { bytes, begins, inner: begins, ..Notes::default() };
    let walked = shape::walk(&schema, datum, values_max, &mut notes);
    found.fault = match walked {
        Err(why) => Some(notes.fault(why)),
        // Each byte is right; whether it is an event of ours is another matter.
        Ok(()) => {
            writer.read::<E>(datum).err().map(|why| Fault { why, at: None, begins, path: String::new() })
        }
    };
    (found.fields, found.left_out) = (notes.fields, notes.left_out);
    Ok(found)
}

impl Dissection {
    fn with_fault(self, fault: Fault) -> Self {
        Self { fault: Some(fault), ..self }
    }
}

/// Where a framing is wrong.
fn in_framing(why: DecodeError, bytes: &[u8]) -> Fault {
    let at = match why {
        DecodeError::TooLarge(_) => DATUM_BYTES_MAX,
        DecodeError::Truncated => bytes.len(),
        // The first of the two bytes of a marker may be right.
        DecodeError::Framing(first) => usize::from(first == super::SINGLE_OBJECT[0]),
        _ => 0,
    };
    Fault { why, at: Some(at), begins: 0, path: String::new() }
}

/// Of a name by which no schema is found, or none that can be read.
fn of_name(why: DecodeError, id: WriterId) -> Fault {
    let at = match id {
        WriterId::Fingerprint(_) => super::SINGLE_OBJECT.len(),
        WriterId::Registry(_) => 1,
    };
    Fault { why, at: Some(at), begins: 0, path: String::new() }
}

/// What a walk told.
#[derive(Default)]
struct Notes<'a> {
    bytes: &'a [u8],
    begins: usize,
    /// The same, or behind the branch of a union.
    inner: usize,
    path: Vec<Step<'a>>,
    fields: Vec<Field>,
    left_out: usize,
}

impl<'a> Visit<'a> for Notes<'a> {
    fn begin(&mut self, left: usize) {
        self.begins = self.bytes.len() - left;
        self.inner = self.begins;
    }

    fn branch(&mut self, left: usize) {
        self.inner = self.bytes.len() - left;
    }

    fn enter(&mut self, step: Step<'a>) {
        self.path.push(step);
    }

    fn leave(&mut self) {
        self.path.pop();
    }

    fn leaf(&mut self, leaf: Leaf<'a>) {
        if self.fields.len() < FIELDS_MAX {
            let field = Field { path: path(&self.path), begins: self.begins, value: told(leaf) };
            self.fields.push(field);
        } else {
            self.left_out += 1;
        }
    }
}

impl Notes<'_> {
    fn fault(&self, why: DecodeError) -> Fault {
        let at = match why {
            DecodeError::Truncated => self.bytes.len(),
            DecodeError::LeftOver(left) => self.bytes.len() - left,
            DecodeError::Utf8 => self.first_no_text().unwrap_or(self.inner),
            _ => self.inner,
        };
        Fault { why, at: Some(at), begins: self.begins.min(at), path: path(&self.path) }
    }

    /// The first byte of the text that began last which is no UTF-8.
    fn first_no_text(&self) -> Option<usize> {
        let mut reader = Reader::new(self.bytes.get(self.inner..)?);
        let text = reader.sized().ok()?;
        let right = std::str::from_utf8(text).err()?.valid_up_to();
        Some(self.bytes.len() - reader.left() - text.len() + right)
    }
}

fn path(steps: &[Step<'_>]) -> String {
    let mut path = String::new();
    for step in steps {
        match step {
            Step::Field(name) if path.is_empty() => path.push_str(name),
            Step::Field(name) => path.extend([".", name]),
            Step::Item(index) => path.push_str(&format!("[{index}]")),
            Step::Key(key) => path.push_str(&format!("{{{}}}", excerpt(key))),
        }
    }
    path
}

fn told(leaf: Leaf<'_>) -> Value {
    match leaf {
        Leaf::Null => Value::Null,
        Leaf::Boolean(truth) => truth.into(),
        Leaf::Float(number) => number.into(),
        Leaf::Text(text) => excerpt(text).into(),
        Leaf::Symbol(symbol) => symbol.into(),
        Leaf::Bytes(bytes) => match bytes.get(..BYTES_TOLD) {
            Some(first) if bytes.len() > BYTES_TOLD => {
                format!("{}… ({} bytes)", hex::encode(first), bytes.len()).into()
            }
            _ => hex::encode(bytes).into(),
        },
        Leaf::Integer(micros, Schema::TimestampMicros) => time::format(micros).into(),
        Leaf::Integer(millis, Schema::TimestampMillis) => time::format(millis.saturating_mul(1_000)).into(),
        Leaf::Integer(number, _) => number.into(),
        Leaf::NoItems => Value::Array(Vec::new()),
        Leaf::NoKeys => Value::Object(serde_json::Map::new()),
    }
}
