//! A log with a hole before each event, as the marks of transactions leave them.

use std::sync::Arc;

use async_trait::async_trait;
use serviceradar_log::{Appended, Batch, LogError, LogStore, Offsets, Read, ReadLimit, TopicDescription};

/// The log of another, in which an event is at twice its offset and one.
pub(crate) struct Sparse(pub(crate) Arc<dyn LogStore>);

#[async_trait]
impl LogStore for Sparse {
    async fn create_topic(&self, topic: &str, log_partitions: u32) -> Result<(), LogError> {
        self.0.create_topic(topic, log_partitions).await
    }
    async fn describe_topic(&self, topic: &str) -> Result<TopicDescription, LogError> {
        self.0.describe_topic(topic).await
    }
    async fn delete_topic(&self, topic: &str) -> Result<(), LogError> {
        self.0.delete_topic(topic).await
    }
    async fn topics(&self, tenant: Option<&str>) -> Result<Vec<TopicDescription>, LogError> {
        self.0.topics(tenant).await
    }
    async fn append(&self, topic: &str, log_partition: u32, batch: Batch) -> Result<Appended, LogError> {
        let appended = self.0.append(topic, log_partition, batch).await?;
        Ok(Appended { first_offset: appended.first_offset * 2 + 1, ..appended })
    }
    async fn read(
        &self,
        topic: &str,
        log_partition: u32,
        offset: u64,
        limit: ReadLimit,
    ) -> Result<Read, LogError> {
        let mut read = self.0.read(topic, log_partition, offset / 2, limit).await?;
        read.events.iter_mut().for_each(|event| event.offset = event.offset * 2 + 1);
        read.next_offset = (read.next_offset * 2).max(offset);
        Ok(read)
    }
    async fn offsets(&self, topic: &str, log_partition: u32) -> Result<Offsets, LogError> {
        let offsets = self.0.offsets(topic, log_partition).await?;
        Ok(Offsets { start: offsets.start * 2, end: offsets.end * 2 })
    }
    async fn delete_before(&self, topic: &str, log_partition: u32, offset: u64) -> Result<(), LogError> {
        self.0.delete_before(topic, log_partition, offset / 2).await
    }
}
