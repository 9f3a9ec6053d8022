//! Operations: what operators did that no event says, as the topic `system.operations` has it. An intent is written
//! before and its end after, so that what was interrupted goes on and what is missing in a log is known to be.

use std::{ops::Range, sync::Arc};

use serviceradar_log::{LogError, LogStore, NewEvent, Publisher};
use serviceradar_schemas::{
    Decoder, OffsetRange, Operation, encode,
    operation::Phase,
    topics::{SYSTEM, Stream},
};

use crate::{scan::Scan, topics::Partition};

/// The action of a restore.
pub(crate) const RESTORE: &str = "restore";
/// The action of a truncation.
pub const TRUNCATE: &str = "truncate";
/// The action that says that a clock had leapt ahead.
pub const BOUND_INTAKE: &str = "bound_intake";
/// The action of an import.
pub const IMPORT: &str = "import";
/// Actions of which the offsets hold nothing that could be read, and nothing that is missed.
const EMPTYING: [&str; 2] = [TRUNCATE, "accept_gap"];

/// Why operations could not be read or written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum OperationsError {
    /// The log refused.
    #[error(transparent)]
    Log(#[from] LogError),
    /// One is there that this program does not understand: what it allows or forbids is not known.
    #[error(
        "operation {offset} of {topic} cannot be read ({reason}): use the program that wrote it, or a newer one"
    )]
    Unreadable {
        /// The topic.
        topic: String,
        /// Its offset.
        offset: u64,
        /// Why.
        reason: String,
    },
}

impl OperationsError {
    /// Whether the same call may succeed later.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Log(error) if error.is_unavailable())
    }
}

/// What operators did, in the order of the log.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Operations(Vec<Operation>);

impl Operations {
    /// All that the log has; none where it has no such topic.
    pub async fn read(log: &dyn LogStore) -> Result<Self, OperationsError> {
        let topic = Stream::Operations.topic(SYSTEM);
        let mut scan = match Scan::begin(log, &topic).await {
            Err(LogError::UnknownTopic(_)) => return Ok(Self::default()),
            scan => scan?,
        };
        let mut decoder = Decoder::<Operation>::new();
        let mut operations = Vec::new();
        while let Some((_, read)) = scan.next(log).await? {
            for event in read.events {
                let unreadable = |reason: String| OperationsError::Unreadable {
                    topic: topic.clone(),
                    offset: event.offset,
                    reason,
                };
                let value = event.value.as_deref().ok_or_else(|| unreadable("it is empty".to_owned()))?;
                operations.push(decoder.decode(value).map_err(|error| unreadable(error.to_string()))?);
            }
        }
        Ok(Self(operations))
    }

    /// In the order of the log.
    pub fn all(&self) -> &[Operation] {
        &self.0
    }

    /// Those that were begun and have not ended.
    pub fn unfinished(&self) -> impl Iterator<Item = &Operation> {
        self.0.iter().filter(|operation| operation.phase == Phase::Intent && !self.is_done(&operation.id))
    }

    /// Whether an operation has ended.
    pub fn is_done(&self, id: &str) -> bool {
        self.0.iter().any(|operation| operation.id == id && operation.phase == Phase::Done)
    }

    /// The offsets of a log partition that restores filled, or are filling.
    pub fn restored(&self, partition: &Partition) -> Vec<Range<u64>> {
        let restores = self.0.iter().filter(|operation| operation.action == RESTORE);
        restores.flat_map(|operation| &operation.ranges).filter_map(|of| range_in(of, partition)).collect()
    }

    /// The offsets of a log partition whose append times are too late, and the latest that they can have been, microseconds
    /// since the Unix epoch.
    pub fn bounds(&self, partition: &Partition) -> Vec<(Range<u64>, i64)> {
        let bounds = self.0.iter().filter(|of| of.action == BOUND_INTAKE && of.phase == Phase::Done);
        let ranges = bounds.filter_map(|of| Some((of.intake_max?, &of.ranges)));
        ranges
            .flat_map(|(at, ranges)| ranges.iter().map(move |range| (range, at)))
            .filter_map(|(of, at)| Some((range_in(of, partition)?, at)))
            .collect()
    }

    /// Of a range of offsets, what no operation says is missing: in order, none of them empty.
    pub fn unexplained(&self, partition: &Partition, range: Range<u64>) -> Vec<Range<u64>> {
        self.without(partition, range, |operation| EMPTYING.contains(&&*operation.action))
    }

    /// Of a range of offsets, what was not truncated up to an instant: what was, had no part in what was so then.
    pub fn not_truncated(&self, partition: &Partition, range: Range<u64>, until: i64) -> Vec<Range<u64>> {
        self.without(partition, range, |operation| {
            operation.action == TRUNCATE && operation.event_time <= until
        })
    }

    fn without(
        &self,
        partition: &Partition,
        range: Range<u64>,
        is_meant: impl Fn(&Operation) -> bool,
    ) -> Vec<Range<u64>> {
        let explained = self
            .0
            .iter()
            .filter(|operation| operation.phase == Phase::Done && is_meant(operation))
            .flat_map(|operation| &operation.ranges)
            .filter_map(|of| range_in(of, partition))
            .filter(|range| !range.is_empty());
        let mut left = vec![range];
        for explained in explained {
            let without = |range: Range<u64>| {
                let before = range.start..range.end.min(explained.start);
                let behind = range.start.max(explained.end)..range.end;
                [before, behind].into_iter().filter(|range| !range.is_empty())
            };
            left = left.into_iter().flat_map(without).collect();
        }
        left.retain(|range| !range.is_empty());
        left
    }
}

/// A range of offsets, where it is of that log partition.
fn range_in(of: &OffsetRange, partition: &Partition) -> Option<Range<u64>> {
    let is_of = of.topic == partition.topic && u32::try_from(of.log_partition) == Ok(partition.log_partition);
    is_of.then(|| of.from.max(0).cast_unsigned()..of.to.max(0).cast_unsigned())
}

/// Writes one, and waits until it is durable. Makes the topic where there is none.
pub async fn write(log: &Arc<dyn LogStore>, operation: &Operation) -> Result<(), LogError> {
    let topic = Stream::Operations.topic(SYSTEM);
    log.create_topic(&topic, Stream::Operations.log_partitions()).await?;
    let event = NewEvent {
        key: Some(operation.id.clone().into_bytes().into()),
        value: Some(encode(operation).into()),
        headers: Vec::new(),
    };
    Publisher::new(log.clone(), topic).publish(vec![event]).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn operation(action: &str, phase: Phase, (from, to): (i64, i64)) -> Operation {
        let ranges = vec![OffsetRange { topic: "t.observations".into(), log_partition: 0, from, to }];
        Operation {
            id: format!("{action} {from}"),
            action: action.into(),
            phase,
            ranges,
            ..Operation::default()
        }
    }

    proptest! {
        /// An offset is unexplained where no range of an operation that is done has it.
        #[test]
        fn what_is_left_of_a_gap_is_what_no_operation_explains(
            ranges in proptest::collection::vec((0..60_i64, 0..60_i64, 0..4_usize), 0..6),
            (from, to) in (0..60_u64, 0..60_u64),
        ) {
            let kinds = [
                ("truncate", Phase::Done), ("accept_gap", Phase::Done), ("accept_gap", Phase::Intent),
                ("restore", Phase::Done),
            ];
            let of = |(from, to, kind): &(i64, i64, usize)| operation(kinds[*kind].0, kinds[*kind].1, (*from, *to));
            let operations = Operations(ranges.iter().map(of).collect());
            let partition = Partition { topic: "t.observations".into(), log_partition: 0 };
            let left = operations.unexplained(&partition, from..to);
            prop_assert!(left.windows(2).all(|pair| pair[0].end <= pair[1].start));
            for offset in 0..70 {
                let explained = ranges.iter().any(|(from, to, kind)| {
                    *kind < 2 && (*from..*to).contains(&(offset as i64))
                });
                let expected = (from..to).contains(&offset) && !explained;
                prop_assert_eq!(left.iter().any(|range| range.contains(&offset)), expected, "{}", offset);
            }
            let elsewhere = Partition { log_partition: 1, ..partition };
            prop_assert_eq!(operations.unexplained(&elsewhere, 0..9), vec![0..9]);
        }
    }
}
