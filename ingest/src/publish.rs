//! From observations to events of the log: framing, key and headers.

use std::sync::Arc;

use bytes::Bytes;
use serviceradar_log::{LogError, LogStore, NewEvent, Publisher, store::EVENT_BYTES_MAX};
use serviceradar_schemas::{Framing, Observation, encode_framed, hex, time};
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

/// Where observations are published, and how they are framed there.
pub struct Observations {
    pub(crate) publisher: Publisher,
    pub(crate) framing: Framing,
}

impl Observations {
    /// On a topic of a log.
    pub fn new(log: Arc<dyn LogStore>, topic: impl Into<String>, framing: Framing) -> Self {
        Self { publisher: Publisher::new(log, topic), framing }
    }

    /// Publishes them in bounded chunks; returns how many. Durable when it returns.
    pub async fn publish(
        &self,
        observations: impl IntoIterator<Item = Observation>,
    ) -> Result<usize, PublishError> {
        let mut observations = observations.into_iter().peekable();
        let mut published = 0;
        while observations.peek().is_some() {
            let chunk: Vec<NewEvent> = observations
                .by_ref()
                .take(CHUNK_EVENTS)
                .map(|observation| event(&observation, self.framing))
                .collect::<Result<_, _>>()?;
            published += chunk.len();
            self.publisher.publish(chunk).await?;
        }
        Ok(published)
    }
}

/// The event of an observation: keyed by its record, so that what is said of a record stays in order.
pub fn event(observation: &Observation, framing: Framing) -> Result<NewEvent, EventTooLarge> {
    let key = observation.record_key();
    let value = encode_framed(observation, framing);
    let headers = headers(observation, &value[framing.bytes()..]);
    let header_bytes: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    let bytes = key.len() + value.len() + header_bytes;
    if bytes > EVENT_BYTES_MAX {
        return Err(EventTooLarge { record_key: key, bytes });
    }
    Ok(NewEvent { key: Some(key.into()), value: Some(value.into()), headers })
}

/// The headers of CloudEvents' Kafka binding, binary mode.
fn headers(observation: &Observation, datum: &[u8]) -> Vec<(String, Bytes)> {
    let id = match observation.id.as_str() {
        "" => hex::encode(&Sha256::digest(datum)),
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What is published once more after a registry came is known as the same event.
    #[test]
    fn an_event_has_the_same_key_and_headers_in_both_framings() {
        let observation = Observation { native_key: "1".to_owned(), ..Observation::default() };
        let single = event(&observation, Framing::SingleObject).unwrap();
        let confluent = event(&observation, Framing::Confluent { id: 0x0102_0304 }).unwrap();
        assert_eq!((single.key, &single.headers), (confluent.key, &confluent.headers));
        assert!(single.headers.iter().any(|(name, id)| name == "ce_id" && id.len() == 64));
        let (single, confluent) = (single.value.unwrap(), confluent.value.unwrap());
        assert_eq!(&confluent[..5], [0, 1, 2, 3, 4]);
        assert_eq!(&confluent[5..], &single[10..]);
    }
}
