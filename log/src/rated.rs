//! A log that is read no faster than so many events a second, so that whoever else reads it, and what is written from it,
//! has room beside.

use std::{
    num::NonZeroU32,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use async_trait::async_trait;

use crate::store::{
    Appended, Batch, Brokers, Event, LogError, LogStore, Offsets, Read, ReadLimit, Setting, TopicDescription,
};

/// Events of a read at most, as a share of a second's.
const READS_A_SECOND: u32 = 20;

/// Another log, read at a rate. All else is as there.
pub struct RatedLog {
    log: Arc<dyn LogStore>,
    events_per_second: NonZeroU32,
    /// When the next read may begin.
    next: Mutex<Instant>,
}

impl RatedLog {
    /// At so many events a second, of all its log partitions together.
    pub fn new(log: Arc<dyn LogStore>, events_per_second: NonZeroU32) -> Self {
        Self { log, events_per_second, next: Mutex::new(Instant::now()) }
    }

    /// How long to wait before a read of so many events, whose turn is taken.
    fn turn(&self, events: usize) -> Duration {
        let takes = Duration::from_secs_f64(events as f64 / f64::from(self.events_per_second.get()));
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = (*next).max(Instant::now());
        *next = begin + takes;
        begin.saturating_duration_since(Instant::now())
    }
}

#[async_trait]
impl LogStore for RatedLog {
    async fn create_topic(&self, topic: &str, log_partitions: u32) -> Result<(), LogError> {
        self.log.create_topic(topic, log_partitions).await
    }

    async fn describe_topic(&self, topic: &str) -> Result<TopicDescription, LogError> {
        self.log.describe_topic(topic).await
    }

    async fn delete_topic(&self, topic: &str) -> Result<(), LogError> {
        self.log.delete_topic(topic).await
    }

    async fn topics(&self, tenant: Option<&str>) -> Result<Vec<TopicDescription>, LogError> {
        self.log.topics(tenant).await
    }

    async fn append(&self, topic: &str, log_partition: u32, batch: Batch) -> Result<Appended, LogError> {
        self.log.append(topic, log_partition, batch).await
    }

    async fn read(
        &self,
        topic: &str,
        log_partition: u32,
        offset: u64,
        limit: ReadLimit,
    ) -> Result<Read, LogError> {
        let most = (self.events_per_second.get() / READS_A_SECOND).max(1) as usize;
        let limit = ReadLimit { events: limit.events.min(most), ..limit };
        let read = self.log.read(topic, log_partition, offset, limit).await?;
        // What was read is waited for afterwards: nobody waits for what never comes.
        tokio::time::sleep(self.turn(read.events.len())).await;
        Ok(read)
    }

    async fn offsets(&self, topic: &str, log_partition: u32) -> Result<Offsets, LogError> {
        self.log.offsets(topic, log_partition).await
    }

    async fn last_event(&self, topic: &str, log_partition: u32) -> Result<Option<Event>, LogError> {
        self.log.last_event(topic, log_partition).await
    }

    async fn delete_before(&self, topic: &str, log_partition: u32, offset: u64) -> Result<(), LogError> {
        self.log.delete_before(topic, log_partition, offset).await
    }

    async fn claim(&self, topic: &str) -> Result<(), LogError> {
        self.log.claim(topic).await
    }

    async fn settings(&self, topic: &str) -> Result<Vec<Setting>, LogError> {
        self.log.settings(topic).await
    }

    async fn brokers(&self) -> Result<Option<Brokers>, LogError> {
        self.log.brokers().await
    }
}
