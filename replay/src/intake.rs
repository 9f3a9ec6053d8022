//! Intake: from an event of the log to what the dataflow takes, or to a dead letter with its reason.

use std::{collections::BTreeMap, sync::Arc};

use serviceradar_log::{
    Event,
    store::{EVENT_BYTES_MAX, EVENT_HEADERS_MAX},
};
use serviceradar_materializers::views::DeadLetter;
use serviceradar_schemas::{
    Decision, Decoder, Observation, Source,
    codec::{DecodeError, Unavailable, WriterSchemas},
    topics::Stream,
};
use serviceradar_streams::{
    decisions::Taken,
    normalise::{Sighting, normalise},
};

use crate::{clocks, topics::Partition};

/// Headers that a dead letter has besides the event's.
const LETTER_HEADERS: usize = 2;
/// What they take at most, bytes: the name of a topic, and a reason.
const LETTER_BYTES_MAX: usize = 8 * 1024;
/// Longest reason, characters: somebody is to read it.
const REASON_CHARS_MAX: usize = 1_000;

/// How a reason ends where the letter has not all of the event.
pub(crate) const LEFT_OUT: &str = "left out here";

/// What an event is to the dataflow.
pub enum Taking {
    /// An observation.
    Sighting(Box<Sighting>),
    /// A decision.
    Decision(Box<Taken>),
    /// It could not be read, or makes no sense.
    Refused(Box<DeadLetter>),
}

/// The reader of one log partition's events.
pub enum Intake {
    /// Of `observations`.
    Observations(Box<Decoder<Observation>>),
    /// Of `decisions`.
    Decisions(Box<Decoder<Decision>>),
}

impl Intake {
    /// For the events of a topic, whose schemas `writers` knows.
    pub fn of(topic: &str, writers: Arc<dyn WriterSchemas>) -> Self {
        let decisions = topic.ends_with(&format!(".{}", Stream::Decisions.name()));
        if decisions {
            Self::Decisions(Box::new(Decoder::with_writers(writers)))
        } else {
            Self::Observations(Box::new(Decoder::with_writers(writers)))
        }
    }

    /// Reads an event; `intake_time` is the running maximum of its log partition's append times. A source whose clock is
    /// off is put into `off`, with how far it is ahead, microseconds.
    ///
    /// # Errors
    /// Its schema is not known yet: the same event can be read later.
    pub fn take(
        &mut self,
        partition: &Partition,
        event: Event,
        intake_time: i64,
        off: &mut BTreeMap<Source, i64>,
    ) -> Result<Taking, Unavailable> {
        let value = event.value.as_deref().unwrap_or_default();
        let taken = match self {
            Self::Observations(decoder) => match decoder.decode(value) {
                Ok(observation) => {
                    if let Some(ahead) = clocks::off(&observation, intake_time) {
                        off.insert(observation.source.clone(), ahead);
                    }
                    normalise(observation, Some(intake_time))
                        .map(|sighting| Taking::Sighting(Box::new(sighting)))
                        .map_err(|refusal| refusal.to_string())
                }
                Err(error) => Err(unreadable(error)?),
            },
            Self::Decisions(decoder) => match decoder.decode(value) {
                Ok(decision) => Taken::read(decision, Some(intake_time))
                    .map(|taken| Taking::Decision(Box::new(taken)))
                    .map_err(|refusal| refusal.to_string()),
                Err(error) => Err(unreadable(error)?),
            },
        };
        Ok(taken.unwrap_or_else(|reason| Taking::Refused(Box::new(letter(partition, event, &reason)))))
    }
}

/// The dead letter of an event. Where it would be over the limit of the log, which would hold up all that is published
/// after it, the event's headers are left out, and then its value: it is in the log where the letter says.
fn letter(partition: &Partition, event: Event, reason: &str) -> DeadLetter {
    let mut letter = DeadLetter {
        topic: partition.topic.clone(),
        log_partition: partition.log_partition,
        offset: event.offset,
        key: event.key,
        value: event.value,
        headers: event.headers,
        reason: reason.chars().take(REASON_CHARS_MAX).collect(),
    };
    let length = |bytes: &Option<bytes::Bytes>| bytes.as_ref().map_or(0, |bytes| bytes.len());
    let of_headers: usize = letter.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    let (key, value) = (length(&letter.key), length(&letter.value));
    let room = EVENT_BYTES_MAX - LETTER_BYTES_MAX;
    if key + value + of_headers > room || letter.headers.len() + LETTER_HEADERS > EVENT_HEADERS_MAX {
        letter.headers.clear();
        letter.reason.push_str(&format!("; its headers are {LEFT_OUT}"));
    }
    if key + value > room {
        letter.value = None;
        letter.reason.push_str(&format!("; its value of {value} bytes is {LEFT_OUT}"));
    }
    if key > room {
        letter.key = None;
    }
    letter
}

/// The reason of a dead letter; or that the event must wait.
fn unreadable(error: DecodeError) -> Result<String, Unavailable> {
    match error {
        DecodeError::Unavailable(why) => Err(why),
        error => Ok(error.to_string()),
    }
}
