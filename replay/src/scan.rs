//! A topic from its begin to where it ends when that is begun, a piece at a time.

use std::{collections::VecDeque, ops::Range, time::Duration};

use serviceradar_log::{LogError, LogStore, Read, ReadLimit};

use crate::{
    reader::{READ_BYTES, READ_EVENTS, READ_WAIT},
    topics::Partition,
};

/// How long a read waits for what is surely there.
const THERE_WAIT: Duration = Duration::from_secs(5);

/// What is left to be read of a topic, in the order of its log partitions.
#[derive(Default)]
pub(crate) struct Scan {
    left: VecDeque<(Partition, Range<u64>)>,
    /// Of a topic that transactions publish to: the rest of a log partition may be their marks, which nobody can read.
    pub(crate) may_end_in_marks: bool,
}

impl Scan {
    /// Begins.
    ///
    /// # Errors
    /// `UnknownTopic` where there is none.
    pub(crate) async fn begin(log: &dyn LogStore, topic: &str) -> Result<Self, LogError> {
        let mut left = VecDeque::new();
        for log_partition in 0..log.describe_topic(topic).await?.log_partitions {
            let offsets = log.offsets(topic, log_partition).await?;
            let partition = Partition { topic: topic.to_owned(), log_partition };
            left.push_back((partition, offsets.start..offsets.end));
        }
        Ok(Self { left, may_end_in_marks: false })
    }

    /// How many events are left to be read, at most.
    pub(crate) fn left(&self) -> u64 {
        self.left.iter().map(|(_, left)| left.end.saturating_sub(left.start)).sum()
    }

    /// The next events, which may be none; `None` at the end.
    ///
    /// # Errors
    /// `Unavailable` where what is there does not come.
    pub(crate) async fn next(&mut self, log: &dyn LogStore) -> Result<Option<(Partition, Read)>, LogError> {
        let wait = if self.may_end_in_marks { READ_WAIT } else { THERE_WAIT };
        let limit = ReadLimit { events: READ_EVENTS, bytes: READ_BYTES, wait };
        while let Some((partition, left)) = self.left.front_mut() {
            if left.is_empty() {
                self.left.pop_front();
                continue;
            }
            let mut read = log.read(&partition.topic, partition.log_partition, left.start, limit).await?;
            if read.next_offset > left.start {
                read.events.retain(|event| event.offset < left.end);
                left.start = read.next_offset;
                return Ok(Some((partition.clone(), read)));
            }
            if !self.may_end_in_marks {
                return Err(LogError::Unavailable(format!("{partition} has nothing at {}", left.start)));
            }
            self.left.pop_front();
        }
        Ok(None)
    }
}
