//! The log store: an ordered, durable log of events per topic and log partition.
//!
//! One trait, [`LogStore`]; every implementation passes the same conformance suite:
//! [`MemoryLog`] for tests, [`EmbeddedLog`] on disk, [`SocketLog`], which reaches the process that holds the
//! embedded one, and [`KafkaLog`] on a Kafka cluster. [`RatedLog`] reads one of them slowly. [`Publisher`] is how one writes to any of them.
//! Times are microseconds since the Unix epoch. Nothing here knows what an event means.

pub mod embedded;
pub mod kafka;
pub mod memory;
pub mod partitioner;
mod poll;
pub mod publisher;
pub mod rated;
mod sequence;
pub mod socket;
pub mod store;
mod tail;

pub use embedded::EmbeddedLog;
pub use kafka::{Identity, KafkaConfig, KafkaLog, Login, Tls};
pub use memory::MemoryLog;
pub use partitioner::log_partition_of;
pub use publisher::Publisher;
pub use rated::RatedLog;
pub use socket::SocketLog;
pub use store::{
    Appended, Batch, BatchId, Brokers, Event, LogError, LogStore, NewEvent, Offsets, Read, ReadLimit,
    Setting, TopicDescription,
};
