//! The tables of the file, and the changes to them.

use redb::{ReadableTable, Table, TableDefinition, WriteTransaction};

use super::{
    block::{self, Place},
    storage::Storage,
};
use crate::{
    sequence::{self, Last, PRODUCERS_MAX},
    store::{Appended, Batch, LogError, Offsets, TopicDescription},
};

/// Numbers of the file as a whole.
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
/// Topic name → topic id, log partitions.
pub(super) const TOPICS: TableDefinition<'_, &str, (u32, u32)> = TableDefinition::new("topics");
/// Topic id, log partition → start, end, last append time, remembered producers.
pub(super) const LOG_PARTITIONS: TableDefinition<'_, (u32, u32), LogPartitionRow> =
    TableDefinition::new("log_partitions");
/// Topic id, log partition, producer → sequence, first offset, append time of its last batch.
const PRODUCERS: TableDefinition<'_, Place, (u64, u64, i64)> = TableDefinition::new("producers");
/// Topic id, log partition, first offset → block.
pub(super) const BLOCKS: TableDefinition<'_, Place, &[u8]> = TableDefinition::new("blocks");

/// Start, end, last append time, remembered producers.
type LogPartitionRow = (u64, u64, i64, u32);

const FORMAT: &str = "format";
const FORMAT_NOW: u64 = 1;
const NEXT_TOPIC: &str = "next_topic";

/// A log partition of the file: topic id, log partition.
pub(super) type LogPartitionId = (u32, u32);

/// The tables in a transaction that writes.
pub(super) struct Tables<'a> {
    storage: &'a Storage,
    numbers: Table<'a, &'static str, u64>,
    topics: Table<'a, &'static str, (u32, u32)>,
    log_partitions: Table<'a, LogPartitionId, LogPartitionRow>,
    producers: Table<'a, Place, (u64, u64, i64)>,
    blocks: Table<'a, Place, &'static [u8]>,
    /// Ends that moved, in order; `None` where the log partition is gone.
    pub(super) moved: Vec<(LogPartitionId, Option<u64>)>,
}

impl<'a> Tables<'a> {
    /// Opens the tables, and makes them in a new file.
    pub(super) fn open(storage: &'a Storage, transaction: &'a WriteTransaction) -> Result<Self, LogError> {
        let error = |error| storage.error(error);
        let mut tables = Self {
            storage,
            numbers: transaction.open_table(NUMBERS).map_err(error)?,
            topics: transaction.open_table(TOPICS).map_err(error)?,
            log_partitions: transaction.open_table(LOG_PARTITIONS).map_err(error)?,
            producers: transaction.open_table(PRODUCERS).map_err(error)?,
            blocks: transaction.open_table(BLOCKS).map_err(error)?,
            moved: Vec::new(),
        };
        match tables.number(FORMAT)? {
            Some(FORMAT_NOW) => {}
            Some(other) => {
                return Err(
                    storage.corrupt(&format!("it has format {other}, and this program reads {FORMAT_NOW}"))
                );
            }
            None => tables.set_number(FORMAT, FORMAT_NOW)?,
        }
        Ok(tables)
    }

    fn number(&self, name: &str) -> Result<Option<u64>, LogError> {
        let found = self.numbers.get(name).map_err(|error| self.storage.error(error))?;
        Ok(found.map(|found| found.value()))
    }

    fn set_number(&mut self, name: &str, number: u64) -> Result<(), LogError> {
        self.numbers.insert(name, number).map_err(|error| self.storage.error(error))?;
        Ok(())
    }

    fn topic(&self, topic: &str) -> Result<Option<(u32, u32)>, LogError> {
        let found = self.topics.get(topic).map_err(|error| self.storage.error(error))?;
        Ok(found.map(|found| found.value()))
    }

    fn log_partition(
        &self,
        topic: &str,
        log_partition: u32,
    ) -> Result<(LogPartitionId, LogPartitionRow), LogError> {
        let (id, _) = self.topic(topic)?.ok_or_else(|| LogError::UnknownTopic(topic.to_owned()))?;
        let id = (id, log_partition);
        let found = self.log_partitions.get(id).map_err(|error| self.storage.error(error))?;
        let row =
            found.ok_or_else(|| LogError::UnknownLogPartition { topic: topic.to_owned(), log_partition })?;
        Ok((id, row.value()))
    }

    /// Makes a topic, or finds it as it should be.
    pub(super) fn create_topic(&mut self, wanted: &TopicDescription) -> Result<(), LogError> {
        if let Some((_, found)) = self.topic(&wanted.name)? {
            return wanted.check_same(found);
        }
        let next = self.number(NEXT_TOPIC)?.unwrap_or(0);
        let id = u32::try_from(next).map_err(|_| self.storage.corrupt("topic ids ran out"))?;
        self.set_number(NEXT_TOPIC, next + 1)?;
        let row = (id, wanted.log_partitions);
        self.topics.insert(&*wanted.name, row).map_err(|error| self.storage.error(error))?;
        for log_partition in 0..wanted.log_partitions {
            self.log_partitions
                .insert((id, log_partition), (0, 0, i64::MIN, 0))
                .map_err(|error| self.storage.error(error))?;
        }
        Ok(())
    }

    /// Deletes a topic and what is in it.
    pub(super) fn delete_topic(&mut self, topic: &str) -> Result<(), LogError> {
        let error = |error| self.storage.error(error);
        let removed = self.topics.remove(topic).map_err(error)?.map(|row| row.value());
        let (id, log_partitions) = removed.ok_or_else(|| LogError::UnknownTopic(topic.to_owned()))?;
        let all = (id, 0, 0)..=(id, u32::MAX, u64::MAX);
        self.blocks.retain_in(all.clone(), |_, _| false).map_err(error)?;
        self.producers.retain_in(all, |_, _| false).map_err(error)?;
        self.log_partitions.retain_in((id, 0)..=(id, u32::MAX), |_, _| false).map_err(error)?;
        self.moved.extend((0..log_partitions).map(|log_partition| ((id, log_partition), None)));
        Ok(())
    }

    /// Appends a batch at `now`, or finds it as it was appended.
    pub(super) fn append(
        &mut self,
        topic: &str,
        log_partition: u32,
        batch: &Batch,
        now: i64,
    ) -> Result<Appended, LogError> {
        let (id, (start, end, append_time, producers)) = self.log_partition(topic, log_partition)?;
        let place = (id.0, id.1, batch.id.producer);
        let last = self.producers.get(place).map_err(|error| self.storage.error(error))?;
        let last = last.map(|row| last_of(row.value()));
        if let Some(appended) = sequence::judge(last, batch.id)? {
            return Ok(appended);
        }
        let appended = Appended { first_offset: end, append_time: now.max(append_time) };
        block::encode((id.0, id.1, end), appended.append_time, &batch.events, |place, block| {
            self.blocks.insert(place, block).map(drop).map_err(|error| self.storage.error(error))
        })?;
        let producers = match last {
            Some(_) => producers,
            None => self.forget_silent(id, producers)? + 1,
        };
        let error = |error| self.storage.error(error);
        let row = (batch.id.sequence, appended.first_offset, appended.append_time);
        self.producers.insert(place, row).map_err(error)?;
        let end = end + batch.events.len() as u64;
        let row = (start, end, appended.append_time, producers);
        self.log_partitions.insert(id, row).map_err(error)?;
        self.moved.push((id, Some(end)));
        Ok(appended)
    }

    /// Makes room for one more producer; returns how many are left.
    fn forget_silent(&mut self, id: LogPartitionId, producers: u32) -> Result<u32, LogError> {
        if (producers as usize) < PRODUCERS_MAX {
            return Ok(producers);
        }
        let error = |error| self.storage.error(error);
        let all = (id.0, id.1, 0)..=(id.0, id.1, u64::MAX);
        let mut silent: Option<((i64, u64), Place)> = None;
        for row in self.producers.range(all).map_err(error)? {
            let (place, row) = row.map_err(error)?;
            let found = (last_of(row.value()).age(), place.value());
            silent = Some(silent.map_or(found, |silent| silent.min(found)));
        }
        let Some((_, place)) = silent else {
            return Ok(0);
        };
        self.producers.remove(place).map_err(error)?;
        Ok(producers - 1)
    }

    /// Deletes the events before `offset`. The block that holds it stays whole.
    pub(super) fn delete_before(
        &mut self,
        topic: &str,
        log_partition: u32,
        offset: u64,
    ) -> Result<(), LogError> {
        let (id, (start, end, append_time, producers)) = self.log_partition(topic, log_partition)?;
        let offsets = Offsets { start, end };
        let Some(start) = offsets.raised(topic, log_partition, offset)? else {
            return Ok(());
        };
        let before = (id.0, id.1, 0)..(id.0, id.1, start);
        let error = |error| self.storage.error(error);
        // A damaged block stays: reading it says so.
        self.blocks
            .retain_in(before, |place, block| block::end(place, block).is_none_or(|end| end > start))
            .map_err(error)?;
        let row = (start, end, append_time, producers);
        self.log_partitions.insert(id, row).map_err(error)?;
        Ok(())
    }
}

fn last_of((sequence, first_offset, append_time): (u64, u64, i64)) -> Last {
    Last { sequence, appended: Appended { first_offset, append_time } }
}
