//! Reads from what is committed.

use redb::{ReadOnlyTable, ReadTransaction, ReadableTable};

use super::{
    block::{self, Place},
    storage::Storage,
    tables::{BLOCKS, LOG_PARTITIONS, LogPartitionId, TOPICS},
};
use crate::store::{LogError, Offsets, Read, ReadLimit, TopicDescription};

/// What is committed, as one transaction sees it.
pub(super) struct Reader<'a> {
    storage: &'a Storage,
    transaction: ReadTransaction,
}

impl<'a> Reader<'a> {
    pub(super) fn new(storage: &'a Storage) -> Result<Self, LogError> {
        Ok(Self { storage, transaction: storage.begin_read()? })
    }

    fn error(&self, error: impl Into<redb::Error>) -> LogError {
        self.storage.error(error)
    }

    /// A topic's id and log partitions.
    pub(super) fn topic(&self, topic: &str) -> Result<(u32, u32), LogError> {
        let table = self.transaction.open_table(TOPICS).map_err(|error| self.error(error))?;
        let found = table.get(topic).map_err(|error| self.error(error))?;
        found.map(|row| row.value()).ok_or_else(|| LogError::UnknownTopic(topic.to_owned()))
    }

    /// All topics of a tenant, or of all.
    pub(super) fn topics(&self, tenant: Option<&str>) -> Result<Vec<TopicDescription>, LogError> {
        let table = self.transaction.open_table(TOPICS).map_err(|error| self.error(error))?;
        let mut topics = Vec::new();
        for row in table.iter().map_err(|error| self.error(error))? {
            let (name, row) = row.map_err(|error| self.error(error))?;
            topics.push(TopicDescription { name: name.value().to_owned(), log_partitions: row.value().1 });
        }
        topics.retain(|topic| topic.is_of(tenant));
        Ok(topics)
    }

    /// A log partition's id and offsets.
    pub(super) fn log_partition(
        &self,
        topic: &str,
        log_partition: u32,
    ) -> Result<(LogPartitionId, Offsets), LogError> {
        let id = (self.topic(topic)?.0, log_partition);
        let table = self.transaction.open_table(LOG_PARTITIONS).map_err(|e| self.error(e))?;
        let found = table.get(id).map_err(|error| self.error(error))?;
        let row =
            found.ok_or_else(|| LogError::UnknownLogPartition { topic: topic.to_owned(), log_partition })?;
        let (start, end, ..) = row.value();
        Ok((id, Offsets { start, end }))
    }

    /// The events from `offset` on, and the log partition's id.
    pub(super) fn read(
        &self,
        topic: &str,
        log_partition: u32,
        offset: u64,
        limit: ReadLimit,
    ) -> Result<(LogPartitionId, Read), LogError> {
        let (id, offsets) = self.log_partition(topic, log_partition)?;
        offsets.check(topic, log_partition, offset)?;
        Ok((id, self.events(topic, id, offset, offsets.end, limit)?))
    }

    fn events(
        &self,
        topic: &str,
        id: LogPartitionId,
        offset: u64,
        end: u64,
        limit: ReadLimit,
    ) -> Result<Read, LogError> {
        let mut read = Read { events: Vec::new(), next_offset: offset };
        if offset == end {
            return Ok(read);
        }
        let table = self.transaction.open_table(BLOCKS).map_err(|error| self.error(error))?;
        let first = self.block_with(&table, (id.0, id.1, offset))?;
        let blocks = table.range(first..(id.0, id.1, end));
        let mut bytes = 0;
        for row in blocks.map_err(|error| self.error(error))? {
            let (place, block) = row.map_err(|error| self.error(error))?;
            let events = block::decode(place.value(), block.value());
            for event in events.ok_or_else(|| self.damaged(topic, place.value()))? {
                if event.offset < offset {
                    continue;
                }
                bytes += event.bytes();
                if limit.is_reached(read.events.len(), bytes) {
                    return Ok(read);
                }
                // There are no holes, so one that shows is a block gone.
                if event.offset != read.next_offset {
                    return Err(self.damaged(topic, (id.0, id.1, read.next_offset)));
                }
                read.next_offset = event.offset + 1;
                read.events.push(event);
            }
        }
        if read.next_offset == end {
            return Ok(read);
        }
        Err(self.damaged(topic, (id.0, id.1, read.next_offset)))
    }

    /// The place of the block that holds the offset of `place`.
    fn block_with(
        &self,
        table: &ReadOnlyTable<Place, &'static [u8]>,
        place: Place,
    ) -> Result<Place, LogError> {
        let mut before = table.range((place.0, place.1, 0)..=place).map_err(|error| self.error(error))?;
        let last = before.next_back().transpose().map_err(|error| self.error(error))?;
        Ok(last.map_or(place, |(place, _)| place.value()))
    }

    fn damaged(&self, topic: &str, (_, log_partition, offset): Place) -> LogError {
        self.storage.corrupt(&format!("{topic}/{log_partition} is damaged at offset {offset}"))
    }
}
