//! The last event of a log partition, found by reading.

use std::time::Duration;

use crate::store::{Event, LogError, LogStore, ReadLimit};

/// Offsets before the end that are looked at first. The last of them may hold nothing: marks of transactions.
const FIRST_LOOK: u64 = 16;
/// How much is read at a time.
const EVENTS: usize = 2_000;
const BYTES: usize = 1024 * 1024;
/// How long what is there may take to come.
const WAIT: Duration = Duration::from_secs(1);

/// The last event that can be read; none where there is none.
pub(crate) async fn last_event<L: LogStore + ?Sized>(
    log: &L,
    topic: &str,
    log_partition: u32,
) -> Result<Option<Event>, LogError> {
    let offsets = log.offsets(topic, log_partition).await?;
    let limit = ReadLimit { events: EVENTS, bytes: BYTES, wait: WAIT };
    let (mut from, mut back) = (offsets.end, FIRST_LOOK);
    while from > offsets.start {
        from = offsets.end.saturating_sub(back).max(offsets.start);
        back = back.saturating_mul(2);
        let (mut at, mut last) = (from, None);
        while at < offsets.end {
            let mut read = log.read(topic, log_partition, at, limit).await?;
            last = read.events.pop().or(last);
            if read.next_offset == at {
                // The rest is of a transaction under way.
                break;
            }
            at = read.next_offset;
        }
        if last.is_some() {
            return Ok(last);
        }
    }
    Ok(None)
}
