//! What a log partition holds between a frontier and an offset: read and decoded, not a byte more.

use serviceradar_log::ReadLimit;
use serviceradar_materializers::views::{Frontier, ViewsError};

use crate::{
    driver::{DriverConfig, DriverError},
    reader::{Chunk, READ_BYTES, READ_EVENTS, READ_WAIT, Reading, schemas_of},
    topics::Partition,
};

/// A log partition that is read up to an offset.
pub(crate) struct Between {
    /// How far it was read.
    pub(crate) frontier: Frontier,
    /// At hand, but while it decodes.
    reading: Option<Box<Reading>>,
}

impl Between {
    /// From a frontier on.
    pub(crate) fn new(config: &DriverConfig, partition: Partition, frontier: Frontier) -> Self {
        let reading = Reading::new(partition, frontier.intake_max, config.writers.clone());
        Self { frontier, reading: Some(Box::new(reading)) }
    }

    /// The next events before an offset, which another has read before; none where there are no more.
    ///
    /// # Errors
    /// `Unavailable` where the log does not tell them now.
    pub(crate) async fn next(
        &mut self,
        config: &DriverConfig,
        end: u64,
    ) -> Result<Option<Chunk>, DriverError> {
        let Frontier { topic, log_partition, next_offset, .. } = &mut self.frontier;
        if *next_offset >= end {
            return Ok(None);
        }
        let waits = |why: String| DriverError::Views(ViewsError::Unavailable(why));
        let limit = ReadLimit { events: READ_EVENTS, bytes: READ_BYTES, wait: READ_WAIT };
        let mut read = config.log.read(topic, *log_partition, *next_offset, limit).await?;
        if read.next_offset == *next_offset {
            return Err(waits(format!("{topic}/{log_partition} has nothing at {next_offset}")));
        }
        read.events.retain(|event| event.offset < end);
        read.next_offset = read.next_offset.min(end);
        *next_offset = read.next_offset;
        config.writers.learn(&schemas_of(&read)).await.map_err(|error| waits(error.to_string()))?;
        let gone = || DriverError::Task("decoding broke off".to_owned());
        let mut reading = self.reading.take().ok_or_else(gone)?;
        reading.learn(&*config.log, &read).await?;
        let decoding = tokio::task::spawn_blocking(move || {
            // Whether it is too far ahead of the clock, the other has judged.
            let chunk = reading.decode(read, u64::MAX, i64::MAX);
            (reading, chunk)
        });
        let (reading, chunk) = decoding.await.map_err(|_| gone())?;
        self.reading = Some(reading);
        chunk.map(Some).map_err(waits)
    }
}
