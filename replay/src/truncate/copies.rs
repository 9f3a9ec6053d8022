//! Copies: what is kept of the events that go is published again behind them, each with its intake time.
//!
//! Others publish meanwhile: so it is written down afterwards at which offsets the copies stand, and there alone their
//! headers count. Whoever was interrupted finds the copies that are there again, by the original's offset and bytes.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
};

use serviceradar_log::{Event, LogError, NewEvent, Publisher, Read, ReadLimit};
use serviceradar_schemas::OffsetRange;

use super::{Truncate, TruncateError, partition_of};
use crate::{
    intake::{Intake, Taking},
    intake_times::{ARCHIVE_OFFSET, INTAKE_TIME, IntakeTimes, marked},
    reader::{READ_BYTES, READ_EVENTS, READ_WAIT, schemas_of},
    recompute::RecomputeError,
    restore::{BATCH_BYTES, BATCH_EVENTS, restored},
    topics::Partition,
    witness::hash_of,
};

/// What an event is known by again: where it stood, its intake time, and its bytes.
type Known = (u64, i64, i64);

/// What publishes copies, and notes where they stand.
struct Copies {
    publisher: Publisher,
    log_partition: u32,
    /// Copies that are there already.
    there: HashMap<Known, u64>,
    batch: Vec<NewEvent>,
    bytes: usize,
    at: Vec<Range<u64>>,
}

impl Truncate {
    /// Copies what is kept of a range; returns where the copies stand. `told` hears of events that were looked at.
    pub(super) async fn copy(
        &self,
        range: &OffsetRange,
        tick: Option<i64>,
        told: &mut impl FnMut(u64),
    ) -> Result<Vec<OffsetRange>, TruncateError> {
        let partition = partition_of(range);
        let Partition { topic, log_partition } = &partition;
        let end = range.to.cast_unsigned();
        let wrong = |why: String| RecomputeError::Decoding { partition: partition.to_string(), why };
        let mut copies = Copies {
            publisher: Publisher::new(self.log.clone(), topic.clone()),
            log_partition: *log_partition,
            there: self.copies_there(&partition, end).await?,
            batch: Vec::new(),
            bytes: 0,
            at: Vec::new(),
        };
        let mut intake = Intake::of(topic, self.writers.clone());
        let mut times = IntakeTimes::new(i64::MIN);
        // An interrupted one may have emptied it already: then nothing is left to be looked at.
        let mut next = self.log.offsets(topic, *log_partition).await?.start;
        while next < end {
            let mut read = self.read(&partition, next).await?;
            next = read.next_offset;
            read.events.retain(|event| event.offset < end);
            times.learn(&*self.log, &partition, &read.events).await?;
            let learnt = self.writers.learn(&schemas_of(&read)).await;
            learnt.map_err(|error| wrong(error.to_string()))?;
            told(read.events.len() as u64);
            for event in read.events {
                let intake_time = times.of(&event);
                let taken = intake.take(&partition, event.clone(), intake_time, &mut BTreeMap::new());
                let is_kept = match taken.map_err(|error| wrong(error.to_string()))? {
                    Taking::Sighting(sighting) => self.keeps(&sighting, tick),
                    // What cannot be read is of no source that could be crawled again.
                    Taking::Decision(_) | Taking::Refused(_) => true,
                };
                if is_kept {
                    copies.push(event, intake_time).await?;
                }
            }
        }
        copies.send().await?;
        let range = |at: Range<u64>| OffsetRange {
            topic: topic.clone(),
            log_partition: range.log_partition,
            from: at.start.cast_signed(),
            to: at.end.cast_signed(),
        };
        Ok(joined(copies.at).into_iter().map(range).collect())
    }

    /// The copies that stand behind an offset, and where.
    async fn copies_there(
        &self,
        partition: &Partition,
        from: u64,
    ) -> Result<HashMap<Known, u64>, TruncateError> {
        let end = self.log.offsets(&partition.topic, partition.log_partition).await?.end;
        let (mut there, mut next) = (HashMap::new(), from);
        while next < end {
            let read = self.read(partition, next).await?;
            next = read.next_offset;
            for event in read.events {
                let marks = (marked(&event.headers, ARCHIVE_OFFSET), marked(&event.headers, INTAKE_TIME));
                if let (Some(offset), Some(intake_time)) = marks {
                    there.insert((offset, intake_time, hash_of(&event)), event.offset);
                }
            }
        }
        Ok(there)
    }

    async fn read(&self, partition: &Partition, from: u64) -> Result<Read, LogError> {
        let limit = ReadLimit { events: READ_EVENTS, bytes: READ_BYTES, wait: READ_WAIT };
        let read = self.log.read(&partition.topic, partition.log_partition, from, limit).await?;
        if read.next_offset == from {
            return Err(LogError::Unavailable(format!("{partition} has nothing at {from}")));
        }
        Ok(read)
    }
}

impl Copies {
    async fn push(&mut self, event: Event, intake_time: i64) -> Result<(), LogError> {
        if let Some(at) = self.there.get(&(event.offset, intake_time, hash_of(&event))) {
            self.at.push(*at..at + 1);
            return Ok(());
        }
        let headers = restored(event.headers, intake_time, event.offset);
        let copy = NewEvent { key: event.key, value: event.value, headers };
        self.bytes += copy.bytes();
        self.batch.push(copy);
        if self.batch.len() >= BATCH_EVENTS || self.bytes >= BATCH_BYTES {
            self.send().await?;
        }
        Ok(())
    }

    async fn send(&mut self) -> Result<(), LogError> {
        self.bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        for at in self.publisher.publish_to(self.log_partition, batch).await? {
            match self.at.last_mut() {
                Some(last) if last.end == at => last.end = at + 1,
                _ => self.at.push(at..at + 1),
            }
        }
        Ok(())
    }
}

/// Ranges in order, those that touch as one.
fn joined(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.sort_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_touch_are_one() {
        assert_eq!(joined(vec![7..8, 3..4, 0..2, 4..6, 2..3]), vec![0..6, 7..8]);
    }
}
