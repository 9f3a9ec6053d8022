//! Witness: is this still the log that the views were built from?

use std::{ops::Range, time::Duration};

use serviceradar_log::{Event, LogStore, ReadLimit};
use serviceradar_materializers::views::{Frontier, Witness};
use sha2::{Digest, Sha256};

use crate::{
    operations::{Operations, OperationsError},
    topics::Partition,
};

/// Why a log is not the one that the views were built from.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LogChanged {
    /// What was not read yet is gone.
    #[error(
        "{partition}: the log starts at {start}, the views end at {frontier}: events {from}-{to} are missing, and no operation says why; restore them (`serviceradar replay restore`) and rebuild, or say that they are lost: `serviceradar replay accept-gap {partition}:{from}-{to}`"
    )]
    Gap {
        /// Where.
        partition: String,
        /// Next offset not yet in the views.
        frontier: u64,
        /// First offset of the log.
        start: u64,
        /// The first of the offsets between them that no operation explains.
        from: u64,
        /// The one behind the last of those that follow it without a hole.
        to: u64,
    },
    /// What was read is gone.
    #[error(
        "{partition}: the log ends at {end}, the views have read up to {frontier}: the log was cut or made anew; restore what is missing and rebuild, or rebuild from the log as it is"
    )]
    Cut {
        /// Where.
        partition: String,
        /// Next offset not yet in the views.
        frontier: u64,
        /// Next offset of the log.
        end: u64,
    },
    /// The last record read is another now.
    #[error(
        "{partition}: the record at offset {offset} is not the one that the views were built from: the log was made anew, or another broker leads; restore what is missing and rebuild, or rebuild from the log as it is"
    )]
    Other {
        /// Where.
        partition: String,
        /// Its offset.
        offset: u64,
    },
}

/// The first 8 bytes of the SHA-256 of key and value, each preceded by its length.
pub fn hash_of(event: &Event) -> i64 {
    let mut hash = Sha256::new();
    for part in [&event.key, &event.value] {
        let bytes = part.as_deref().unwrap_or_default();
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    }
    let digest = hash.finalize();
    let mut first = [0u8; 8];
    first.copy_from_slice(&digest[..8]);
    i64::from_be_bytes(first)
}

/// The witness that an event is.
pub fn witness_of(event: &Event) -> Witness {
    Witness { offset: event.offset, append_time: event.append_time, hash: hash_of(event) }
}

/// Looks whether a log partition still holds what its frontier says was read, and what comes behind: `Ok(Err(_))` where
/// not. Returns where to read on: at the frontier, or behind what operators said is missing.
pub async fn check(
    log: &dyn LogStore,
    partition: &Partition,
    frontier: &Frontier,
) -> Result<Result<u64, LogChanged>, OperationsError> {
    let offsets = log.offsets(&partition.topic, partition.log_partition).await?;
    let name = || partition.to_string();
    if offsets.start > frontier.next_offset {
        let (frontier, start) = (frontier.next_offset, offsets.start);
        let missing = Operations::read(log).await?.unexplained(partition, frontier..start);
        let Some(Range { start: from, end: to }) = missing.into_iter().next() else {
            return Ok(Ok(start));
        };
        return Ok(Err(LogChanged::Gap { partition: name(), frontier, start, from, to }));
    }
    let next = frontier.next_offset;
    if offsets.end < frontier.next_offset {
        let (frontier, end) = (frontier.next_offset, offsets.end);
        return Ok(Err(LogChanged::Cut { partition: name(), frontier, end }));
    }
    let Some(witness) = &frontier.witness else {
        return Ok(Ok(next));
    };
    if witness.offset < offsets.start {
        // Deleted below the frontier, by retention: nothing that is needed.
        return Ok(Ok(next));
    }
    let limit = ReadLimit { events: 1, bytes: 1, wait: Duration::ZERO };
    let read = log.read(&partition.topic, partition.log_partition, witness.offset, limit).await?;
    let same = read.events.first().is_some_and(|event| witness_of(event) == *witness);
    let offset = witness.offset;
    Ok(if same { Ok(next) } else { Err(LogChanged::Other { partition: name(), offset }) })
}
