//! Between the store's types and the messages.

use prost::Message;
use serviceradar_proto::log::v1::{self as message, refusal::Why, too_large::What};
use tonic::{Code, Status};

use crate::store::{Event, LogError, NewEvent, TopicDescription};

impl From<TopicDescription> for message::Topic {
    fn from(topic: TopicDescription) -> Self {
        Self { name: topic.name, log_partitions: topic.log_partitions }
    }
}

impl From<message::Topic> for TopicDescription {
    fn from(topic: message::Topic) -> Self {
        Self { name: topic.name, log_partitions: topic.log_partitions }
    }
}

impl From<NewEvent> for message::Event {
    fn from(event: NewEvent) -> Self {
        Self {
            key: event.key,
            value: event.value,
            headers: event.headers.into_iter().map(header).collect(),
            offset: 0,
            append_time: 0,
        }
    }
}

impl From<message::Event> for NewEvent {
    fn from(event: message::Event) -> Self {
        Self {
            key: event.key,
            value: event.value,
            headers: event.headers.into_iter().map(|h| (h.name, h.value)).collect(),
        }
    }
}

impl From<Event> for message::Event {
    fn from(event: Event) -> Self {
        Self {
            key: event.key,
            value: event.value,
            headers: event.headers.into_iter().map(header).collect(),
            offset: event.offset,
            append_time: event.append_time,
        }
    }
}

impl From<message::Event> for Event {
    fn from(event: message::Event) -> Self {
        Self {
            offset: event.offset,
            append_time: event.append_time,
            key: event.key,
            value: event.value,
            headers: event.headers.into_iter().map(|h| (h.name, h.value)).collect(),
        }
    }
}

fn header((name, value): (String, bytes::Bytes)) -> message::Header {
    message::Header { name, value }
}

/// The refusal as a status, for strangers; with itself as details, for ours.
pub(super) fn status(error: LogError) -> Status {
    let code = match &error {
        LogError::UnknownTopic(_) | LogError::UnknownLogPartition { .. } => Code::NotFound,
        LogError::TopicExists { .. } => Code::AlreadyExists,
        LogError::OutOfRange { .. } => Code::OutOfRange,
        LogError::OutOfSequence { .. } => Code::FailedPrecondition,
        LogError::InvalidTopic { .. } | LogError::TooLarge { .. } => Code::InvalidArgument,
        LogError::Fenced(_) | LogError::Unavailable(_) => Code::Unavailable,
        LogError::Corrupt(_) => Code::DataLoss,
    };
    let text = error.to_string();
    let refusal = message::Refusal { why: Some(why(error)) };
    Status::with_details(code, text, refusal.encode_to_vec().into())
}

/// What a status says; where it is not the store's own, that the store could not be reached.
pub(super) fn refusal(status: &Status) -> LogError {
    let unreached =
        || LogError::Unavailable(format!("{}; is the process that holds the log running?", status.message()));
    if status.details().is_empty() {
        return unreached();
    }
    let refusal = message::Refusal::decode(status.details()).ok();
    refusal.and_then(|refusal| refusal.why).and_then(error).unwrap_or_else(unreached)
}

fn why(error: LogError) -> Why {
    match error {
        LogError::InvalidTopic { topic, log_partitions } => {
            Why::InvalidTopic(message::Topic { name: topic, log_partitions })
        }
        LogError::UnknownTopic(topic) => Why::UnknownTopic(topic),
        LogError::UnknownLogPartition { topic, log_partition } => {
            Why::UnknownLogPartition(message::UnknownLogPartition { topic, log_partition })
        }
        LogError::TopicExists { topic, found, wanted } => {
            Why::TopicExists(message::TopicExists { topic, found, wanted })
        }
        LogError::OutOfRange { topic, log_partition, offset, start, end } => {
            Why::OutOfRange(message::OutOfRange { topic, log_partition, offset, start, end })
        }
        LogError::OutOfSequence { producer, expected, got } => {
            Why::OutOfSequence(message::OutOfSequence { producer, expected, got })
        }
        LogError::TooLarge { what, size, limit } => Why::TooLarge(message::TooLarge {
            what: measured(what).into(),
            size: size as u64,
            limit: limit as u64,
        }),
        LogError::Unavailable(why) => Why::Unavailable(why),
        // Nobody claims a topic over the socket.
        LogError::Fenced(_) => Why::Unavailable(error.to_string()),
        LogError::Corrupt(why) => Why::Corrupt(why),
    }
}

fn error(why: Why) -> Option<LogError> {
    Some(match why {
        Why::InvalidTopic(it) => LogError::InvalidTopic { topic: it.name, log_partitions: it.log_partitions },
        Why::UnknownTopic(topic) => LogError::UnknownTopic(topic),
        Why::UnknownLogPartition(it) => {
            LogError::UnknownLogPartition { topic: it.topic, log_partition: it.log_partition }
        }
        Why::TopicExists(it) => LogError::TopicExists { topic: it.topic, found: it.found, wanted: it.wanted },
        Why::OutOfRange(it) => LogError::OutOfRange {
            topic: it.topic,
            log_partition: it.log_partition,
            offset: it.offset,
            start: it.start,
            end: it.end,
        },
        Why::OutOfSequence(it) => {
            LogError::OutOfSequence { producer: it.producer, expected: it.expected, got: it.got }
        }
        Why::TooLarge(it) => LogError::TooLarge {
            what: MEASURED.iter().find(|(what, _)| *what == it.what()).map(|(_, text)| *text)?,
            size: usize::try_from(it.size).ok()?,
            limit: usize::try_from(it.limit).ok()?,
        },
        Why::Unavailable(why) => LogError::Unavailable(why),
        Why::Corrupt(why) => LogError::Corrupt(why),
    })
}

const MEASURED: [(What, &str); 5] = [
    (What::EventBytes, "event bytes"),
    (What::EventHeaders, "event headers"),
    (What::BatchBytes, "batch bytes"),
    (What::BatchEvents, "batch events"),
    (What::Unspecified, "size"),
];

fn measured(text: &str) -> What {
    MEASURED.iter().find(|(_, known)| *known == text).map_or(What::Unspecified, |(what, _)| *what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Batch, BatchId, EVENT_BYTES_MAX, EVENT_HEADERS_MAX};

    fn batch(events: Vec<NewEvent>) -> Batch {
        let id = BatchId { producer: 0, sequence: 0 };
        Batch { id, events }
    }

    #[test]
    fn every_refusal_crosses_as_it_is() {
        let topic = || "t.observations".to_owned();
        let refusals = [
            LogError::InvalidTopic { topic: topic(), log_partitions: 0 },
            LogError::UnknownTopic(topic()),
            LogError::UnknownLogPartition { topic: topic(), log_partition: 7 },
            LogError::TopicExists { topic: topic(), found: 6, wanted: 7 },
            LogError::OutOfRange { topic: topic(), log_partition: 1, offset: 9, start: 2, end: 4 },
            LogError::OutOfSequence { producer: u64::MAX, expected: 3, got: 5 },
            LogError::Unavailable("the disk is full".to_owned()),
            LogError::Corrupt("a block is damaged".to_owned()),
        ];
        for refused in refusals {
            assert_eq!(refusal(&status(refused.clone())), refused);
        }
    }

    /// If a limit's name were unknown to the wire, it would arrive as `size`.
    #[test]
    fn every_limit_crosses_by_its_name() {
        let large = NewEvent { value: Some(vec![0; EVENT_BYTES_MAX + 1].into()), ..NewEvent::default() };
        let headers =
            NewEvent { headers: vec![Default::default(); EVENT_HEADERS_MAX + 1], ..NewEvent::default() };
        let half = NewEvent { value: Some(vec![0; EVENT_BYTES_MAX].into()), ..NewEvent::default() };
        let batches = [
            batch(vec![large]),
            batch(vec![headers]),
            batch(vec![half; 17]),
            batch(vec![NewEvent::default(); 50_001]),
        ];
        for batch in batches {
            let refused = batch.check().unwrap_err();
            assert_eq!(refusal(&status(refused.clone())), refused);
        }
    }

    #[test]
    fn a_status_of_the_transport_means_unavailable() {
        let refused = refusal(&Status::unknown("transport error"));
        assert!(matches!(refused, LogError::Unavailable(_)), "{refused}");
    }
}
