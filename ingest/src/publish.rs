//! From observations to events of the log: framing, key and headers.

use bytes::Bytes;
use serviceradar_log::{LogError, NewEvent, Publisher, store::EVENT_BYTES_MAX};
use serviceradar_schemas::{Observation, codec::SINGLE_OBJECT_BYTES, encode, hex, time};
use sha2::{Digest, Sha256};

/// Events appended at once where a source has no pages of its own: some 500 kB.
const CHUNK_EVENTS: usize = 2_000;

/// An observation that no log takes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record {record_key} makes an event of {bytes} bytes, over the limit of {EVENT_BYTES_MAX}")]
pub struct EventTooLarge {
    /// Whose it is.
    pub record_key: String,
    /// How long it is.
    pub bytes: usize,
}

/// Why a sequence of observations was not published to its end.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// One of them is over the limit.
    #[error(transparent)]
    TooLarge(#[from] EventTooLarge),
    /// The log refused.
    #[error(transparent)]
    Log(#[from] LogError),
}

/// The event of an observation: keyed by its record, so that what is said of a record stays in order.
pub fn event(observation: &Observation) -> Result<NewEvent, EventTooLarge> {
    let key = observation.record_key();
    let value = encode(observation);
    let headers = headers(observation, &value);
    let header_bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    let bytes = key.len() + value.len() + header_bytes;
    if bytes > EVENT_BYTES_MAX {
        return Err(EventTooLarge { record_key: key, bytes });
    }
    Ok(NewEvent { key: Some(key.into()), value: Some(value.into()), headers })
}

/// The headers of CloudEvents' Kafka binding, binary mode.
fn headers(observation: &Observation, value: &[u8]) -> Vec<(String, Bytes)> {
    let id = match observation.id.as_str() {
        "" => hex::encode(&Sha256::digest(&value[SINGLE_OBJECT_BYTES..])),
        id => id.to_owned(),
    };
    let header = |name: &str, value: String| (name.to_owned(), Bytes::from(value));
    let fixed = |name: &str, value| (name.to_owned(), Bytes::from_static(value));
    vec![
        header("ce_id", id),
        fixed("ce_type", b"serviceradar.v1.Observation"),
        header("ce_source", observation.source.to_string()),
        header("ce_time", time::format(observation.event_time)),
        fixed("ce_specversion", b"1.0"),
        fixed("content-type", b"application/avro"),
    ]
}

/// Publishes observations in bounded chunks; returns how many. Durable when it returns.
pub async fn publish(
    publisher: &Publisher,
    observations: impl IntoIterator<Item = Observation>,
) -> Result<usize, PublishError> {
    let mut observations = observations.into_iter().peekable();
    let mut published = 0;
    while observations.peek().is_some() {
        let chunk: Vec<NewEvent> = observations
            .by_ref()
            .take(CHUNK_EVENTS)
            .map(|observation| event(&observation))
            .collect::<Result<_, _>>()?;
        published += chunk.len();
        publisher.publish(chunk).await?;
    }
    Ok(published)
}
