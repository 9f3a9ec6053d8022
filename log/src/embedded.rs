//! The embedded log: a log store in a folder, held by one process.
//!
//! A file of the storage crate `redb` has five tables: numbers of the file, topics, log
//! partitions (start, end, last append time), producers (their last batches) and blocks. A batch
//! becomes blocks of up to 60 KiB, under topic, log partition and first offset. One thread writes:
//! batches that wait at the same time go into one commit, which is durable before any of them is
//! answered. Reads go to what is committed and hold nobody up. After a crash the file is as the
//! last commit left it.
//!
//! When the disk is full or the file fails, a call says [`LogError::Unavailable`], and the next one
//! opens the file anew. What is damaged says [`LogError::Corrupt`].

mod block;
#[cfg(test)]
mod damage;
mod ends;
#[cfg(test)]
mod faults;
mod reader;
mod storage;
mod tables;
mod writer;

use std::{fmt, path::Path, sync::Arc};

use serviceradar_schemas::time::Clock;
use tokio::{sync::oneshot, task::spawn_blocking};

use self::{
    ends::Ends,
    reader::Reader,
    storage::Storage,
    tables::Tables,
    writer::{Change, Writer},
};
use crate::{
    poll::read_or_wait,
    store::{Appended, Batch, LogError, LogStore, NewEvent, Offsets, Read, ReadLimit, TopicDescription},
};

/// A log store in a folder.
pub struct EmbeddedLog {
    clock: Arc<dyn Clock>,
    ends: Arc<Ends>,
    writer: Writer,
    storage: Arc<Storage>,
}

impl fmt::Debug for EmbeddedLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EmbeddedLog").finish_non_exhaustive()
    }
}

impl EmbeddedLog {
    /// Opens the log in `folder`, and makes both where they are not. Blocks: the file is checked,
    /// every page of it.
    ///
    /// [`LogError::Unavailable`] where another process holds it or the file system refuses,
    /// [`LogError::Corrupt`] where the file is damaged.
    pub fn open(folder: &Path, clock: Arc<dyn Clock>) -> Result<Self, LogError> {
        Self::over(Storage::in_folder(folder)?, clock)
    }

    fn over(storage: Storage, clock: Arc<dyn Clock>) -> Result<Self, LogError> {
        storage.guarded(|| {
            let transaction = storage.begin_write()?;
            drop(Tables::open(&storage, &transaction)?);
            transaction.commit().map_err(|error| storage.error(error))
        })?;
        let storage = Arc::new(storage);
        let ends = Arc::new(Ends::default());
        Ok(Self { writer: Writer::start(Arc::clone(&storage), Arc::clone(&ends))?, clock, ends, storage })
    }

    /// Has the writer make a change of `bytes` of events.
    async fn change<T: Send + 'static>(
        &self,
        bytes: usize,
        apply: impl FnOnce(&mut Tables<'_>) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let stopped = || LogError::Unavailable("the log's writer has stopped: restart".to_owned());
        let (reply, answer) = oneshot::channel();
        let change = Change { bytes, apply: Some(apply), outcome: None, reply };
        let queue = self.writer.queue.as_ref().ok_or_else(stopped)?;
        queue.send(Box::new(change)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// Reads, on a thread that may wait for the disk.
    async fn read_with<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader<'_>) -> Result<T, LogError> + Send + 'static,
    ) -> Result<T, LogError> {
        let storage = Arc::clone(&self.storage);
        spawn_blocking(move || storage.guarded(|| read(&Reader::new(&storage)?)))
            .await
            .map_err(|error| LogError::Unavailable(format!("the read was cut off: {error}")))?
    }
}

impl Drop for EmbeddedLog {
    /// Gives the folder free, even while a read is still under way.
    fn drop(&mut self) {
        self.writer.stop();
        self.storage.close();
    }
}

#[async_trait::async_trait]
impl LogStore for EmbeddedLog {
    async fn create_topic(&self, topic: &str, log_partitions: u32) -> Result<(), LogError> {
        let wanted = TopicDescription { name: topic.to_owned(), log_partitions };
        wanted.check()?;
        self.change(0, move |tables| tables.create_topic(&wanted)).await
    }

    async fn describe_topic(&self, topic: &str) -> Result<TopicDescription, LogError> {
        let name = topic.to_owned();
        self.read_with(move |reader| {
            let (_, log_partitions) = reader.topic(&name)?;
            Ok(TopicDescription { name, log_partitions })
        })
        .await
    }

    async fn delete_topic(&self, topic: &str) -> Result<(), LogError> {
        let topic = topic.to_owned();
        self.change(0, move |tables| tables.delete_topic(&topic)).await
    }

    async fn topics(&self, tenant: Option<&str>) -> Result<Vec<TopicDescription>, LogError> {
        let tenant = tenant.map(str::to_owned);
        self.read_with(move |reader| reader.topics(tenant.as_deref())).await
    }

    async fn append(&self, topic: &str, log_partition: u32, batch: Batch) -> Result<Appended, LogError> {
        batch.check()?;
        let topic = topic.to_owned();
        let clock = Arc::clone(&self.clock);
        let bytes = batch.events.iter().map(NewEvent::bytes).sum();
        self.change(bytes, move |tables| tables.append(&topic, log_partition, &batch, clock.now())).await
    }

    async fn read(
        &self,
        topic: &str,
        log_partition: u32,
        offset: u64,
        limit: ReadLimit,
    ) -> Result<Read, LogError> {
        let read = || {
            let topic = topic.to_owned();
            self.read_with(move |reader| reader.read(&topic, log_partition, offset, limit))
        };
        let (id, found) = read().await?;
        if !found.events.is_empty() || limit.wait.is_zero() {
            return Ok(found);
        }
        read_or_wait(self.ends.subscribe(id), limit.wait, || async { Ok(read().await?.1) }).await
    }

    async fn offsets(&self, topic: &str, log_partition: u32) -> Result<Offsets, LogError> {
        let topic = topic.to_owned();
        self.read_with(move |reader| Ok(reader.log_partition(&topic, log_partition)?.1)).await
    }

    async fn delete_before(&self, topic: &str, log_partition: u32, offset: u64) -> Result<(), LogError> {
        let topic = topic.to_owned();
        self.change(0, move |tables| tables.delete_before(&topic, log_partition, offset)).await
    }
}
