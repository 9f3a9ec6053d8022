//! The log store: an ordered, durable log of events per topic and log partition.
//!
//! One trait, [`LogStore`]; every implementation passes the same conformance suite.
//! Times are microseconds since the Unix epoch. Nothing here knows what an event means.

pub mod store;

pub use store::{
    Appended, Batch, BatchId, Event, LogError, LogStore, NewEvent, Offsets, Read, ReadLimit,
    TopicDescription,
};
