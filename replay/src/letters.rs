//! Dead letters: read back from their topic, judged anew, and published again.
//!
//! What was published again has a *mark* in the same topic: an event without a value that names the letter. It is
//! written afterwards, so that a crash between the two publishes a letter twice, and never loses one. That is harmless:
//! the same bytes are the same observation, or decision, however often they come.

mod replay;
mod scan;

use std::{fmt, str::FromStr};

use bytes::Bytes;
use serviceradar_log::{Event, LogError};
use serviceradar_materializers::outbox::{
    DEAD_LETTER_ID_HEADER, DEAD_LETTER_REASON_HEADER, REPLAYED_HEADER, REPLAYED_TO_HEADER,
};
use serviceradar_schemas::codec::Unavailable;

pub use self::{
    replay::{Choice, Judge, Manner, Outcome, Replay, whole},
    scan::{Marks, Scan, find, marks},
};

/// Why dead letters could not be read, or published again.
#[derive(Debug, thiserror::Error)]
pub enum LettersError {
    /// The log refused.
    #[error("the dead letters are not all read, or not all published again")]
    Log(#[from] LogError),
    /// The registry cannot be asked whether they can be read.
    #[error("whether a dead letter can be read is for the schema registry to say")]
    Unavailable(#[from] Unavailable),
    /// More marks than are kept in memory.
    #[error("more than {0} dead letters were published again: look at fewer, with --since")]
    Marks(usize),
}

/// Where an event stands that was refused: `topic/log partition/offset`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LetterId {
    /// Its topic.
    pub topic: String,
    /// Its log partition.
    pub log_partition: u32,
    /// Its offset.
    pub offset: u64,
}

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.log_partition, self.offset)
    }
}

/// A text that is no id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("give topic/log partition/offset, as `dlq list` shows it, e.g. default.observations/0/17")]
pub struct NoLetterId;

impl FromStr for LetterId {
    type Err = NoLetterId;

    fn from_str(text: &str) -> Result<Self, NoLetterId> {
        let mut parts = text.rsplitn(3, '/');
        let (offset, log_partition, topic) = (parts.next(), parts.next(), parts.next());
        let topic = topic.filter(|topic| !topic.is_empty()).ok_or(NoLetterId)?;
        let log_partition = log_partition.and_then(|text| text.parse().ok()).ok_or(NoLetterId)?;
        let offset = offset.and_then(|text| text.parse().ok()).ok_or(NoLetterId)?;
        Ok(Self { topic: topic.to_owned(), log_partition, offset })
    }
}

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Where the event stands that was refused.
    pub id: LetterId,
    /// When the letter was written, microseconds since the Unix epoch.
    pub at: i64,
    /// Its own place in the dead letters: log partition and offset.
    pub place: (u32, u64),
    /// Why the event was refused.
    pub reason: String,
    /// The event's key.
    pub key: Option<Bytes>,
    /// The event's value.
    pub value: Option<Bytes>,
    /// The event's headers, without those that the letter has besides.
    pub headers: Vec<(String, Bytes)>,
}

impl Letter {
    /// What counts against the log's limit, bytes.
    pub fn bytes(&self) -> usize {
        let of = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        of(&self.key) + of(&self.value) + headers
    }

    /// Whether the event's key or value has one of these texts, whatever the case of ASCII letters: as a string of Avro,
    /// or not within a longer word.
    pub fn mentions(&self, texts: &[String]) -> bool {
        let of = |bytes: &Bytes| texts.iter().any(|text| has_word(bytes, text.as_bytes()));
        self.key.iter().chain(&self.value).any(of)
    }
}

fn has_word(bytes: &[u8], text: &[u8]) -> bool {
    if text.is_empty() {
        return false;
    }
    let is_of_word = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    bytes.windows(text.len()).enumerate().any(|(at, found)| {
        let before = at.checked_sub(1).and_then(|before| bytes.get(before));
        // The byte before a string of Avro is its length, which may be a letter by chance; so may be what follows.
        let is_string = before.is_some_and(|byte| usize::from(*byte) == 2 * text.len());
        let is_word = || !is_of_word(before) && !is_of_word(bytes.get(at + text.len()));
        found.eq_ignore_ascii_case(text) && (is_string || is_word())
    })
}

/// What stands in the topic of dead letters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A letter.
    Letter(Letter),
    /// The mark of one that was published again.
    Mark {
        /// Of which.
        of: LetterId,
        /// When, microseconds since the Unix epoch.
        at: i64,
    },
}

impl Entry {
    /// Reads one; `None` where others have written there. What the event itself has of these headers stands before
    /// ours.
    pub fn read(log_partition: u32, mut event: Event) -> Option<Self> {
        let (name, last) = event.headers.pop()?;
        let (of, before) = event.headers.pop()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match (&*of, &*name) {
            (DEAD_LETTER_ID_HEADER, DEAD_LETTER_REASON_HEADER) => Some(Self::Letter(Letter {
                id: text(&before).parse().ok()?,
                at: event.append_time,
                place: (log_partition, event.offset),
                reason: text(&last),
                key: event.key,
                value: event.value,
                headers: event.headers,
            })),
            (REPLAYED_HEADER, REPLAYED_TO_HEADER) => {
                Some(Self::Mark { of: text(&before).parse().ok()?, at: event.append_time })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(headers: &[(&str, &str)]) -> Event {
        let header = |(name, value): &(&str, &str)| ((*name).to_owned(), Bytes::from((*value).to_owned()));
        let headers = headers.iter().map(header).collect();
        Event { offset: 5, append_time: 9, key: None, value: Some("v".into()), headers }
    }

    #[test]
    fn an_id_is_read_as_it_is_written() {
        let id = LetterId { topic: "t.observations".to_owned(), log_partition: 3, offset: 17 };
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "t", "t/1", "/1/2", "t/x/2", "t/1/-2", "t/1/2/", "t/4294967296/1"] {
            assert_eq!(text.parse::<LetterId>(), Err(NoLetterId), "{text}");
        }
    }

    #[test]
    fn a_letter_mentions_whole_words_and_strings_of_avro() {
        let mentions = |value: &[u8], text: &str| {
            let own = [("dead-letter-id", "t.observations/0/3"), ("dead-letter-reason", "10.0.0.9")];
            let event = Event { value: Some(Bytes::copy_from_slice(value)), ..event(&own) };
            let Some(Entry::Letter(letter)) = Entry::read(0, event) else { panic!("no letter") };
            letter.mentions(&[text.to_owned()])
        };
        assert!(mentions(b"ip=10.0.0.1;", "10.0.0.1"));
        assert!(mentions(b"serial Acme:X1", "ACME:x1"));
        assert!(!mentions(b"10.0.0.12 and 110.0.0.1", "10.0.0.1"));
        // Its length, and a neighbour that is a digit by chance.
        assert!(mentions(b"\x1010.0.0.10", "10.0.0.1") && !mentions(b"\x1210.0.0.10", "10.0.0.1"));
        assert!(!mentions(b"anything", "") && !mentions(b"?", "10.0.0.9"), "the reason is not the event's");
    }

    /// A producer cannot pass its event off as another letter, or as a mark: only the last headers are the pipeline's.
    #[test]
    fn headers_of_the_event_are_taken_for_nothing_else() {
        let forged = [("dead-letter-id", "t.x/0/1"), ("dead-letter-replayed", "t.x/0/2")];
        let own = [("dead-letter-id", "t.observations/0/3"), ("dead-letter-reason", "why")];
        let Some(Entry::Letter(letter)) = Entry::read(1, event(&[forged, own].concat())) else {
            panic!("no letter");
        };
        assert_eq!((letter.id.offset, &*letter.reason, letter.place), (3, "why", (1, 5)));
        assert_eq!(letter.headers, event(&forged).headers);
        assert_eq!(Entry::read(0, event(&forged)), None);
        assert_eq!(Entry::read(0, event(&[])), None);
    }
}
