//! The catalogue of schemas: every event there is, and whether another version of its schema would break readers.

use apache_avro::{Schema, schema_compatibility::SchemaCompatibility};

use crate::{Decision, DeviceChange, Event, Observation, Operation, codec::guarded, topics::Stream};

/// The schema of an event.
#[derive(Debug, PartialEq, Eq)]
pub struct EventSchema {
    /// Full name of the record.
    pub name: &'static str,
    /// Name of its file.
    pub file: &'static str,
    /// The stream it is published on.
    pub stream: Stream,
    /// The schema as JSON, with its docs.
    pub text: &'static str,
    /// CRC-64-AVRO of its parsing canonical form, little-endian.
    pub fingerprint: [u8; 8],
    /// Schemas of earlier releases, as JSON.
    released: &'static [&'static str],
}

/// All events, in order of their files.
pub const EVENTS: [EventSchema; 4] = [
    EventSchema::of::<Decision>("decision.avsc"),
    EventSchema::of::<DeviceChange>("device_change.avsc"),
    EventSchema::of::<Observation>("observation.avsc"),
    EventSchema::of::<Operation>("operation.avsc"),
];

/// Why a schema cannot take the place of the one that we have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// It is none.
    #[error("it is no Avro schema: {0}")]
    NoSchema(String),
    /// It is of something that we have not.
    #[error("{0} is no event of this program: give one of {names}", names = names())]
    Unknown(String),
    /// It cannot read what is in logs.
    #[error("it cannot read data of version {version}: {reason}")]
    Breaking {
        /// Which of the versions, the oldest being 1.
        version: usize,
        /// Why not.
        reason: String,
    },
}

impl EventSchema {
    const fn of<E: Event>(file: &'static str) -> Self {
        Self {
            name: E::NAME,
            file,
            stream: E::STREAM,
            text: E::SCHEMA,
            fingerprint: E::FINGERPRINT,
            released: E::RELEASED,
        }
    }

    /// The event of a full name, or of its last part.
    ///
    /// # Errors
    /// [`SchemaError::Unknown`].
    pub fn named(name: &str) -> Result<&'static Self, SchemaError> {
        let is_named = |event: &&Self| event.name == name || event.name.rsplit('.').next() == Some(name);
        EVENTS.iter().find(is_named).ok_or_else(|| SchemaError::Unknown(name.to_owned()))
    }

    /// The subject of a registry that it is registered under: TopicNameStrategy, the value.
    pub fn subject(&self, tenant: &str) -> String {
        format!("{}-value", self.stream.topic(tenant))
    }

    /// Names of its fields, in order.
    pub fn fields(&self) -> Vec<String> {
        match parse(self.text) {
            Ok(Schema::Record(record)) => record.fields.into_iter().map(|field| field.name).collect(),
            _ => Vec::new(),
        }
    }

    /// All its versions as JSON, the oldest first, ours last.
    fn versions(&self) -> impl Iterator<Item = &'static str> {
        self.released.iter().copied().chain([self.text])
    }
}

/// Whether `candidate`, as JSON, can read data of every version of its event: BACKWARD_TRANSITIVE. Returns the event.
///
/// # Errors
/// Why it cannot take the place of our version.
pub fn check(candidate: &str) -> Result<&'static EventSchema, SchemaError> {
    let reader = parse(candidate)?;
    let name = reader.name().map(|name| name.fullname(None));
    let name = name.ok_or_else(|| SchemaError::NoSchema("it has no name".to_owned()))?;
    let event = EVENTS.iter().find(|event| event.name == name).ok_or(SchemaError::Unknown(name))?;
    for (version, text) in (1..).zip(event.versions()) {
        let writer = parse(text)?;
        guarded(|| SchemaCompatibility::can_read(&writer, &reader))
            .map_err(|reason| SchemaError::Breaking { version, reason })?;
    }
    Ok(event)
}

fn parse(text: &str) -> Result<Schema, SchemaError> {
    guarded(|| Schema::parse_str(text)).map_err(SchemaError::NoSchema)
}

fn names() -> String {
    EVENTS.map(|event| event.name).join(", ")
}
