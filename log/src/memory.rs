//! A log store in memory: for tests, and gone with the process.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serviceradar_schemas::time::Clock;
use tokio::sync::watch;

use crate::{
    poll::read_or_wait,
    sequence::{self, Last},
    store::{Appended, Batch, Event, LogError, LogStore, Offsets, Read, ReadLimit, TopicDescription},
};

/// A log store in memory.
pub struct MemoryLog {
    clock: Arc<dyn Clock>,
    topics: Mutex<BTreeMap<String, Vec<LogPartition>>>,
}

#[derive(Default)]
struct LogPartition {
    start: u64,
    events: VecDeque<Event>,
    append_time: i64,
    producers: BTreeMap<u64, Last>,
    end: watch::Sender<u64>,
}

impl fmt::Debug for MemoryLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.topics().keys()).finish()
    }
}

impl MemoryLog {
    /// An empty log, whose append times are `clock`'s.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock, topics: Mutex::default() }
    }

    /// No change of the map is left half done by a panic, so a poisoned lock is as good as new.
    fn topics(&self) -> MutexGuard<'_, BTreeMap<String, Vec<LogPartition>>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(
        &self,
        topic: &str,
        log_partition: u32,
        act: impl FnOnce(&mut LogPartition) -> Result<T, LogError>,
    ) -> Result<T, LogError> {
        let mut topics = self.topics();
        let log_partitions = topics.get_mut(topic).ok_or_else(|| LogError::UnknownTopic(topic.to_owned()))?;
        let found = usize::try_from(log_partition).ok().and_then(|at| log_partitions.get_mut(at));
        act(found.ok_or_else(|| LogError::UnknownLogPartition { topic: topic.to_owned(), log_partition })?)
    }

    fn read_now(
        &self,
        topic: &str,
        log_partition: u32,
        offset: u64,
        limit: ReadLimit,
    ) -> Result<Read, LogError> {
        self.with(topic, log_partition, |found| {
            found.offsets().check(topic, log_partition, offset)?;
            Ok(found.read(offset, limit))
        })
    }
}

impl LogPartition {
    fn offsets(&self) -> Offsets {
        Offsets { start: self.start, end: self.start + self.events.len() as u64 }
    }

    fn append(&mut self, batch: Batch, now: i64) -> Result<Appended, LogError> {
        let last = self.producers.get(&batch.id.producer).copied();
        if let Some(appended) = sequence::judge(last, batch.id)? {
            return Ok(appended);
        }
        let appended = Appended { first_offset: self.offsets().end, append_time: now.max(self.append_time) };
        self.append_time = appended.append_time;
        self.events.extend((appended.first_offset..).zip(batch.events).map(|(offset, event)| Event {
            offset,
            append_time: appended.append_time,
            key: event.key,
            value: event.value,
            headers: event.headers,
        }));
        let last = Last { sequence: batch.id.sequence, appended };
        sequence::remember(&mut self.producers, batch.id.producer, last);
        self.end.send_replace(self.offsets().end);
        Ok(appended)
    }

    fn read(&self, offset: u64, limit: ReadLimit) -> Read {
        let mut read = Read { events: Vec::new(), next_offset: offset };
        let skip = usize::try_from(offset - self.start).unwrap_or(usize::MAX);
        let mut bytes = 0;
        for event in self.events.iter().skip(skip) {
            bytes += event.bytes();
            if limit.is_reached(read.events.len(), bytes) {
                break;
            }
            read.next_offset = event.offset + 1;
            read.events.push(event.clone());
        }
        read
    }
}

#[async_trait::async_trait]
impl LogStore for MemoryLog {
    async fn create_topic(&self, topic: &str, log_partitions: u32) -> Result<(), LogError> {
        let wanted = TopicDescription { name: topic.to_owned(), log_partitions };
        wanted.check()?;
        let mut topics = self.topics();
        if let Some(found) = topics.get(topic) {
            return wanted.check_same(found.len() as u32);
        }
        let empty = (0..log_partitions).map(|_| LogPartition::default()).collect();
        topics.insert(wanted.name, empty);
        Ok(())
    }

    async fn describe_topic(&self, topic: &str) -> Result<TopicDescription, LogError> {
        let topics = self.topics();
        let found = topics.get(topic).ok_or_else(|| LogError::UnknownTopic(topic.to_owned()))?;
        Ok(TopicDescription { name: topic.to_owned(), log_partitions: found.len() as u32 })
    }

    async fn delete_topic(&self, topic: &str) -> Result<(), LogError> {
        let removed = self.topics().remove(topic);
        removed.map(drop).ok_or_else(|| LogError::UnknownTopic(topic.to_owned()))
    }

    async fn topics(&self, tenant: Option<&str>) -> Result<Vec<TopicDescription>, LogError> {
        let topics = self.topics();
        let all = topics
            .iter()
            .map(|(name, found)| TopicDescription { name: name.clone(), log_partitions: found.len() as u32 });
        Ok(all.filter(|topic| topic.is_of(tenant)).collect())
    }

    async fn append(&self, topic: &str, log_partition: u32, batch: Batch) -> Result<Appended, LogError> {
        batch.check()?;
        self.with(topic, log_partition, |found| found.append(batch, self.clock.now()))
    }

    async fn read(
        &self,
        topic: &str,
        log_partition: u32,
        offset: u64,
        limit: ReadLimit,
    ) -> Result<Read, LogError> {
        let end = self.with(topic, log_partition, |found| Ok(found.end.subscribe()))?;
        read_or_wait(end, limit.wait, || async { self.read_now(topic, log_partition, offset, limit) }).await
    }

    async fn offsets(&self, topic: &str, log_partition: u32) -> Result<Offsets, LogError> {
        self.with(topic, log_partition, |found| Ok(found.offsets()))
    }

    async fn delete_before(&self, topic: &str, log_partition: u32, offset: u64) -> Result<(), LogError> {
        self.with(topic, log_partition, |found| {
            let Some(start) = found.offsets().raised(topic, log_partition, offset)? else {
                return Ok(());
            };
            let gone = usize::try_from(start - found.start).unwrap_or(usize::MAX);
            found.events.drain(..gone.min(found.events.len()));
            found.start = start;
            Ok(())
        })
    }
}
