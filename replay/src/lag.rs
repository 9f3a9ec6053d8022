//! Lag: how far the views are behind a log partition, in events and in time.
//!
//! In events: from the frontier to the end of the log; none where a reader that stands at the frontier finds nothing
//! more. (What lies between may be marks of transactions, which are no events.) In time: the age of the oldest event
//! that is not in the views, by its append time.

use std::{collections::VecDeque, time::Duration};

use serviceradar_log::{LogStore, ReadLimit};
use serviceradar_materializers::views::Frontier;

use crate::{operations::OperationsError, status::PartitionStatus, topics::Partition, witness};

/// Stretches that are told apart: two epochs and what waits behind them come in about so many.
const STRETCHES_MAX: usize = 128;

/// What was read of a log partition and is not in the views: stretches of it, in order. Where there are too many the
/// last one grows: lag is then told too long for a moment, and never too short.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pending(VecDeque<Stretch>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Stretch {
    /// Intake time of its first event.
    since: i64,
    next_offset: u64,
}

impl Pending {
    /// Events were read up to an offset, the first of them taken in at `since`.
    pub(crate) fn add(&mut self, since: i64, next_offset: u64) {
        let is_full = self.0.len() >= STRETCHES_MAX;
        match self.0.back_mut() {
            Some(last) if is_full => last.next_offset = next_offset,
            _ => self.0.push_back(Stretch { since, next_offset }),
        }
    }

    /// What is before an offset is in the views.
    pub(crate) fn pass(&mut self, next_offset: u64) {
        while self.0.pop_front_if(|first| first.next_offset <= next_offset).is_some() {}
    }

    /// Intake time of the oldest event.
    pub(crate) fn since(&self) -> Option<i64> {
        self.0.front().map(|first| first.since)
    }
}

/// Looks from outside, by the frontier that the views tell and one event of the log.
pub async fn look(log: &dyn LogStore, frontier: &Frontier) -> Result<PartitionStatus, OperationsError> {
    let Frontier { topic, log_partition, next_offset, intake_max, .. } = frontier;
    let partition = Partition { topic: topic.clone(), log_partition: *log_partition };
    let checked = witness::check(log, &partition, frontier).await?;
    let (next_offset, changed) = match checked {
        Ok(next) => (next, None),
        Err(changed) => (*next_offset, Some(changed)),
    };
    let end = log.offsets(topic, *log_partition).await?.end;
    let mut status = PartitionStatus {
        end,
        stalled: changed.map(|changed| changed.to_string()),
        ..PartitionStatus::default()
    };
    status.reach(&Frontier { next_offset, ..frontier.clone() });
    if status.stalled.is_some() || end <= next_offset {
        return Ok(status);
    }
    let limit = ReadLimit { events: 1, bytes: 1, wait: Duration::ZERO };
    let read = log.read(topic, *log_partition, next_offset, limit).await?;
    match read.events.first() {
        Some(event) => status.read(event.append_time.max(*intake_max), read.next_offset),
        None => status.next_offset = read.next_offset,
    }
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_the_first_that_is_not_in_the_views() {
        let mut pending = Pending::default();
        assert_eq!(pending.since(), None);
        pending.add(100, 5);
        pending.add(200, 9);
        assert_eq!(pending.since(), Some(100));
        pending.pass(4);
        assert_eq!(pending.since(), Some(100), "a part of it is not in the views");
        pending.pass(5);
        assert_eq!(pending.since(), Some(200));
        pending.pass(9);
        assert_eq!(pending.since(), None);
    }

    #[test]
    fn too_many_stretches_make_the_lag_longer_and_never_shorter() {
        let mut pending = Pending::default();
        let all = STRETCHES_MAX as u64 + 10;
        for offset in 0..all {
            pending.add(offset as i64, offset + 1);
        }
        assert_eq!(pending.0.len(), STRETCHES_MAX);
        for offset in 0..all {
            pending.pass(offset);
            assert!(pending.since().is_some_and(|since| since <= offset as i64), "at {offset}");
        }
        pending.pass(all);
        assert_eq!(pending.since(), None);
    }
}
