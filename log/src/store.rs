//! The trait every log store implements, and the plain types that cross it.

use std::time::Duration;

use bytes::Bytes;

/// Largest event that any store takes: key, value and headers together.
pub const EVENT_BYTES_MAX: usize = 1024 * 1024;
/// Most headers of one event: a dozen are in use, and each costs a few bytes of framing.
pub const EVENT_HEADERS_MAX: usize = 100;
/// What an event may have besides, bytes and headers, that a restore put back: the two headers that it adds, and a longer
/// framing.
pub const RESTORED_BYTES: usize = 128;
/// The headers that a restore adds at the end: the intake time that an event had, and its offset.
pub const RESTORED_HEADERS: [&str; 2] = ["intake-time", "archive-offset"];
/// Most events of one batch.
pub const BATCH_EVENTS_MAX: usize = 50_000;
/// Largest batch: the sum of its events.
pub const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most log partitions of a topic: each costs a row, and a reader a task.
pub const LOG_PARTITIONS_MAX: u32 = 10_000;
/// Longest name of a topic, bytes; Kafka's limit.
pub const TOPIC_BYTES_MAX: usize = 249;

/// An event to append.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewEvent {
    /// Which log partition it goes to, by [`crate::partitioner`]; and what compaction goes by.
    pub key: Option<Bytes>,
    /// The framed datum; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// CloudEvents headers and our own, in order.
    pub headers: Vec<(String, Bytes)>,
}

impl NewEvent {
    /// What counts against [`EVENT_BYTES_MAX`]: key, value, names and values of headers, bytes.
    pub fn bytes(&self) -> usize {
        event_bytes(&self.key, &self.value, &self.headers)
    }

    /// Refuses an event that no store takes.
    pub fn check(&self) -> Result<(), LogError> {
        let (headers, bytes) =
            if self.is_restored() { (RESTORED_HEADERS.len(), RESTORED_BYTES) } else { (0, 0) };
        within("event headers", self.headers.len(), EVENT_HEADERS_MAX + headers)?;
        within("event bytes", self.bytes(), EVENT_BYTES_MAX + bytes)
    }

    /// Whether its last headers are those that a restore adds.
    fn is_restored(&self) -> bool {
        let names = self.headers.iter().rev().map(|(name, _)| &**name);
        names.take(RESTORED_HEADERS.len()).eq(RESTORED_HEADERS.into_iter().rev())
    }
}

/// An event as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its place in the log partition.
    pub offset: u64,
    /// When the log took it, microseconds since the Unix epoch.
    pub append_time: i64,
    /// As appended.
    pub key: Option<Bytes>,
    /// As appended.
    pub value: Option<Bytes>,
    /// As appended.
    pub headers: Vec<(String, Bytes)>,
}

impl Event {
    /// What counts against [`ReadLimit::bytes`]: key, value, names and values of headers, bytes.
    pub fn bytes(&self) -> usize {
        event_bytes(&self.key, &self.value, &self.headers)
    }
}

fn event_bytes(key: &Option<Bytes>, value: &Option<Bytes>, headers: &[(String, Bytes)]) -> usize {
    let headers: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    key.as_ref().map_or(0, Bytes::len) + value.as_ref().map_or(0, Bytes::len) + headers
}

fn within(what: &'static str, size: usize, limit: usize) -> Result<(), LogError> {
    if size <= limit {
        return Ok(());
    }
    Err(LogError::TooLarge { what, size, limit })
}

/// Names a batch, so that appending it again changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BatchId {
    /// One number per producer and start of it, chosen at random.
    pub producer: u64,
    /// Rises by one with each batch of that producer to that log partition, from 0.
    pub sequence: u64,
}

/// Events appended as one: all or none.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Its name.
    pub id: BatchId,
    /// In order. May be empty.
    pub events: Vec<NewEvent>,
}

impl Batch {
    /// Refuses a batch that no store takes.
    pub fn check(&self) -> Result<(), LogError> {
        within("batch events", self.events.len(), BATCH_EVENTS_MAX)?;
        self.events.iter().try_for_each(NewEvent::check)?;
        let bytes = self.events.iter().map(NewEvent::bytes).sum();
        within("batch bytes", bytes, BATCH_BYTES_MAX)
    }
}

/// Where a batch went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Offset of its first event.
    pub first_offset: u64,
    /// Append time of its events, microseconds since the Unix epoch.
    pub append_time: i64,
}

/// How much a read returns at most. At least one event is returned where there is one.
#[derive(Clone, Copy, Debug)]
pub struct ReadLimit {
    /// Events.
    pub events: usize,
    /// Sum of keys, values and headers, bytes.
    pub bytes: usize,
    /// How long to wait when there is nothing to read yet.
    pub wait: Duration,
}

impl ReadLimit {
    /// Whether an event that would make it `bytes` must wait, after `events` that were taken.
    pub(crate) fn is_reached(&self, events: usize, bytes: usize) -> bool {
        events > 0 && (events >= self.events || bytes > self.bytes)
    }
}

/// What a read returned.
#[derive(Clone, Debug, Default)]
pub struct Read {
    /// In the order of their offsets.
    pub events: Vec<Event>,
    /// Where to go on reading: the reader's position, not last + 1 (a log may have holes).
    pub next_offset: u64,
}

/// The offsets of a log partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offsets {
    /// First that can be read.
    pub start: u64,
    /// The next to be given.
    pub end: u64,
}

impl Offsets {
    /// Refuses an offset that cannot be read from.
    pub(crate) fn check(self, topic: &str, log_partition: u32, offset: u64) -> Result<(), LogError> {
        if (self.start..=self.end).contains(&offset) {
            return Ok(());
        }
        Err(LogError::OutOfRange {
            topic: topic.to_owned(),
            log_partition,
            offset,
            start: self.start,
            end: self.end,
        })
    }

    /// The start once all before `offset` is deleted; `None` where that changes nothing.
    pub(crate) fn raised(
        self,
        topic: &str,
        log_partition: u32,
        offset: u64,
    ) -> Result<Option<u64>, LogError> {
        if offset <= self.start {
            return Ok(None);
        }
        self.check(topic, log_partition, offset).map(|()| Some(offset))
    }
}

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    /// `<tenant>.<stream>`.
    pub name: String,
    /// Number of log partitions.
    pub log_partitions: u32,
}

impl TopicDescription {
    /// Refuses a topic that no store makes. Names are Kafka's: `[A-Za-z0-9._-]{1,249}`.
    pub fn check(&self) -> Result<(), LogError> {
        let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        let named = (1..=TOPIC_BYTES_MAX).contains(&self.name.len())
            && self.name.bytes().all(legal)
            && self.name.bytes().any(|b| b != b'.');
        if named && (1..=LOG_PARTITIONS_MAX).contains(&self.log_partitions) {
            return Ok(());
        }
        Err(LogError::InvalidTopic { topic: self.name.clone(), log_partitions: self.log_partitions })
    }

    /// Refuses to take a topic with `found` log partitions for this one.
    pub(crate) fn check_same(&self, found: u32) -> Result<(), LogError> {
        if found == self.log_partitions {
            return Ok(());
        }
        Err(LogError::TopicExists { topic: self.name.clone(), found, wanted: self.log_partitions })
    }

    /// Whether it is a topic of `tenant`; of any, where none is named.
    pub fn is_of(&self, tenant: Option<&str>) -> bool {
        tenant.is_none_or(|tenant| {
            serviceradar_schemas::topics::split(&self.name).is_some_and(|(t, _)| t == tenant)
        })
    }
}

/// A setting that the streams depend on, as it is and as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Whose: `topic t.observations`, `broker 1`.
    pub of: String,
    /// Its name.
    pub name: &'static str,
    /// As it is; empty where it is not set.
    pub found: String,
    /// As it must be.
    pub wanted: String,
    /// What brings it there: a command, or what to do.
    pub mend: String,
}

impl Setting {
    /// Whether it is as it must be.
    pub fn is_right(&self) -> bool {
        self.found == self.wanted
    }
}

/// As a problem.
impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { of, name, found, wanted, mend } = self;
        write!(f, "{of}: {name} is {found:?}, and must be {wanted:?}; mend it: {mend}")
    }
}

/// The brokers of a log store, and what reaches them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Brokers {
    /// The cluster's own id, where it says one.
    pub cluster: Option<String>,
    /// `id at host:port` of each, in order of the ids.
    pub brokers: Vec<String>,
    /// Name and version of the client library.
    pub client: String,
    /// Settings of each broker.
    pub settings: Vec<Setting>,
}

/// Why a log store refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// No store makes such a topic.
    #[error(
        "topic {topic:?} with {log_partitions} log partitions cannot be made: a name is 1 to \
         {TOPIC_BYTES_MAX} of A-Z a-z 0-9 . _ -, and log partitions are 1 to {LOG_PARTITIONS_MAX}"
    )]
    InvalidTopic {
        /// The name asked for.
        topic: String,
        /// The number asked for.
        log_partitions: u32,
    },
    /// There is no such topic.
    #[error("topic {0} does not exist: create it with `serviceradar topics create`")]
    UnknownTopic(String),
    /// There is no such log partition.
    #[error("topic {topic} has no log partition {log_partition}")]
    UnknownLogPartition {
        /// The topic.
        topic: String,
        /// The log partition asked for.
        log_partition: u32,
    },
    /// The topic exists with another number of log partitions.
    #[error("topic {topic} exists with {found} log partitions, not {wanted}")]
    TopicExists {
        /// The topic.
        topic: String,
        /// As it is.
        found: u32,
        /// As asked for.
        wanted: u32,
    },
    /// The offset is below the log's start or above its end.
    #[error("offset {offset} of {topic}/{log_partition} is outside {start}..={end}")]
    OutOfRange {
        /// The topic.
        topic: String,
        /// The log partition.
        log_partition: u32,
        /// The offset asked for.
        offset: u64,
        /// First that can be read.
        start: u64,
        /// The next to be given.
        end: u64,
    },
    /// A batch came out of sequence: one before it is missing, or it is older than what is remembered.
    #[error("batch {got} of producer {producer} came where {expected} was expected")]
    OutOfSequence {
        /// The producer.
        producer: u64,
        /// The sequence that would be taken.
        expected: u64,
        /// The sequence that came.
        got: u64,
    },
    /// An event or a batch is over a limit.
    #[error("{what} of {size} is over the limit of {limit}")]
    TooLarge {
        /// `event bytes`, `event headers`, `batch bytes` or `batch events`.
        what: &'static str,
        /// As it came.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The topic was claimed, and is no longer this process's own: see [`LogStore::claim`].
    #[error(
        "topic {0} was claimed by another process since, or the cluster lost track of this one: nothing is appended"
    )]
    Fenced(String),
    /// The store cannot be reached for now, or the disk is full: the same call may succeed later.
    #[error("the log store is unavailable: {0}")]
    Unavailable(String),
    /// What is stored is damaged.
    #[error("the log store is damaged: {0}")]
    Corrupt(String),
}

impl LogError {
    /// Whether the same call may succeed later.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// A log store. Cheap to clone behind an `Arc`; every method may be called concurrently.
#[async_trait::async_trait]
pub trait LogStore: Send + Sync + 'static {
    /// Creates a topic. Succeeds where it exists with as many log partitions.
    async fn create_topic(&self, topic: &str, log_partitions: u32) -> Result<(), LogError>;

    /// Describes a topic.
    async fn describe_topic(&self, topic: &str) -> Result<TopicDescription, LogError>;

    /// Deletes a topic and all its events.
    async fn delete_topic(&self, topic: &str) -> Result<(), LogError>;

    /// All topics in order of their names; of one tenant where one is named.
    async fn topics(&self, tenant: Option<&str>) -> Result<Vec<TopicDescription>, LogError>;

    /// Appends a batch. Durable, all or none, when this returns; appending the same batch again
    /// (same producer and sequence) returns what it returned and changes nothing.
    async fn append(&self, topic: &str, log_partition: u32, batch: Batch) -> Result<Appended, LogError>;

    /// Reads on from `offset`. At the end it waits up to `limit.wait`, then returns nothing.
    async fn read(
        &self,
        topic: &str,
        log_partition: u32,
        offset: u64,
        limit: ReadLimit,
    ) -> Result<Read, LogError>;

    /// First and next offset of a log partition.
    async fn offsets(&self, topic: &str, log_partition: u32) -> Result<Offsets, LogError>;

    /// The last event of a log partition; none where there is none.
    async fn last_event(&self, topic: &str, log_partition: u32) -> Result<Option<Event>, LogError> {
        crate::tail::last_event(self, topic, log_partition).await
    }

    /// Deletes the events before `offset`. Never lowers the start; `offset` may be up to the end.
    async fn delete_before(&self, topic: &str, log_partition: u32, offset: u64) -> Result<(), LogError>;

    /// Has a topic for this process alone: nothing more that others append who claimed it before is ever read, and they
    /// are told [`LogError::Fenced`]; so is this one, once another has claimed it. A store that only one process holds
    /// at a time has nothing to do.
    async fn claim(&self, _topic: &str) -> Result<(), LogError> {
        Ok(())
    }

    /// The settings of a topic that its stream depends on. A store that has no settings has none.
    async fn settings(&self, _topic: &str) -> Result<Vec<Setting>, LogError> {
        Ok(Vec::new())
    }

    /// The brokers that keep the log; none where it is kept without any.
    async fn brokers(&self) -> Result<Option<Brokers>, LogError> {
        Ok(None)
    }
}
