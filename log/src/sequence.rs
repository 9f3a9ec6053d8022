//! Which batches of a producer are new: the rule that makes an append idempotent.

use std::collections::BTreeMap;

use crate::store::{Appended, BatchId, LogError};

/// Producers remembered per log partition. A process is one producer, so this covers years of
/// restarts; the one that has been silent longest is forgotten first.
pub(crate) const PRODUCERS_MAX: usize = 1_000;

/// The last batch that a producer appended to a log partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Last {
    pub(crate) sequence: u64,
    pub(crate) appended: Appended,
}

impl Last {
    /// What the producer that has been silent longest has least of.
    pub(crate) fn age(&self) -> (i64, u64) {
        (self.appended.append_time, self.appended.first_offset)
    }
}

/// Where the batch went, if it is the last one once more; `None` if it is the next one.
pub(crate) fn judge(last: Option<Last>, id: BatchId) -> Result<Option<Appended>, LogError> {
    let expected = match last {
        Some(last) if last.sequence == id.sequence => return Ok(Some(last.appended)),
        Some(last) => last.sequence.saturating_add(1),
        None => 0,
    };
    if id.sequence == expected {
        return Ok(None);
    }
    Err(LogError::OutOfSequence { producer: id.producer, expected, got: id.sequence })
}

/// Notes the last batch of a producer; the one that has been silent longest makes room for a new one.
pub(crate) fn remember(producers: &mut BTreeMap<u64, Last>, producer: u64, last: Last) {
    if producers.len() >= PRODUCERS_MAX && !producers.contains_key(&producer) {
        let silent = producers.iter().min_by_key(|(id, last)| (last.age(), **id));
        if let Some(silent) = silent.map(|(id, _)| *id) {
            producers.remove(&silent);
        }
    }
    producers.insert(producer, last);
}
