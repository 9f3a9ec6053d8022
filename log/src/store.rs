//! The trait every log store implements, and the plain types that cross it.

use std::time::Duration;

use bytes::Bytes;

/// Largest event that any store takes: key, value and headers together.
pub const EVENT_BYTES_MAX: usize = 1024 * 1024;
/// Most events of one batch.
pub const BATCH_EVENTS_MAX: usize = 50_000;
/// Largest batch: the sum of its events.
pub const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;

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

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    /// `<tenant>.<stream>`.
    pub name: String,
    /// Number of log partitions.
    pub log_partitions: u32,
}

/// Why a log store refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogError {
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
        /// `event bytes`, `batch bytes` or `batch events`.
        what: &'static str,
        /// As it came.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The store cannot be reached for now, or the disk is full: the same call may succeed later.
    #[error("the log store is unavailable: {0}")]
    Unavailable(String),
    /// What is stored is damaged.
    #[error("the log store is damaged: {0}")]
    Corrupt(String),
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
    async fn append(
        &self,
        topic: &str,
        log_partition: u32,
        batch: Batch,
    ) -> Result<Appended, LogError>;

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

    /// Deletes the events before `offset`. Never lowers the start; `offset` may be up to the end.
    async fn delete_before(
        &self,
        topic: &str,
        log_partition: u32,
        offset: u64,
    ) -> Result<(), LogError>;
}
