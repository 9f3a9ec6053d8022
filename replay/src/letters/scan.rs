//! The topic of dead letters from its begin to its end, a piece at a time.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use serviceradar_log::{LogError, LogStore, ReadLimit};
use serviceradar_schemas::topics::Stream;

use super::{Entry, Letter, LetterId, LettersError};
use crate::reader::{READ_BYTES, READ_EVENTS, READ_WAIT};

/// Marks that are kept in memory: with their tree some 40 bytes each.
const MARKS_MAX: usize = 2_000_000;

/// Reads the dead letters of a tenant up to where they end when it begins, in the order of their log partitions.
pub struct Scan {
    log: Arc<dyn LogStore>,
    topic: String,
    /// Log partitions with the offset to go on from, and where to stop.
    left: VecDeque<(u32, u64, u64)>,
    /// What is older is passed over, microseconds since the Unix epoch.
    since: Option<i64>,
}

impl Scan {
    /// Begins. A tenant without the topic has no dead letters.
    pub async fn begin(
        log: Arc<dyn LogStore>,
        tenant: &str,
        since: Option<i64>,
    ) -> Result<Self, LettersError> {
        let topic = Stream::DeadLetters.topic(tenant);
        let log_partitions = match log.describe_topic(&topic).await {
            Ok(topic) => topic.log_partitions,
            Err(LogError::UnknownTopic(_)) => 0,
            Err(error) => return Err(error.into()),
        };
        let mut left = VecDeque::new();
        for log_partition in 0..log_partitions {
            let offsets = log.offsets(&topic, log_partition).await?;
            left.push_back((log_partition, offsets.start, offsets.end));
        }
        Ok(Self { log, topic, left, since })
    }

    /// How many events are left to be read, at most.
    pub fn left(&self) -> u64 {
        self.left.iter().map(|(_, next, end)| end.saturating_sub(*next)).sum()
    }

    /// The next of them; `None` at the end. A piece may be empty.
    pub async fn next(&mut self) -> Result<Option<Vec<Entry>>, LettersError> {
        let limit = ReadLimit { events: READ_EVENTS, bytes: READ_BYTES, wait: READ_WAIT };
        let Some((log_partition, next, end)) = self.left.front_mut() else {
            return Ok(None);
        };
        if *next >= *end {
            self.left.pop_front();
            return Ok(Some(Vec::new()));
        }
        let read = self.log.read(&self.topic, *log_partition, *next, limit).await?;
        let log_partition = *log_partition;
        let is_stuck = read.next_offset == *next;
        let end = *end;
        *next = read.next_offset;
        if is_stuck {
            // The rest holds nothing that can be read: marks of transactions.
            self.left.pop_front();
        }
        let entries = read
            .events
            .into_iter()
            .filter(|event| event.offset < end && self.since.is_none_or(|since| event.append_time >= since))
            .filter_map(|event| Entry::read(log_partition, event));
        Ok(Some(entries.collect()))
    }

    /// The same, of letters alone.
    pub async fn next_letters(&mut self) -> Result<Option<Vec<Letter>>, LettersError> {
        let letter = |entry| match entry {
            Entry::Letter(letter) => Some(letter),
            Entry::Mark { .. } => None,
        };
        Ok(self.next().await?.map(|entries| entries.into_iter().filter_map(letter).collect()))
    }
}

/// Which letters were published again, and when.
#[derive(Debug, Default)]
pub struct Marks {
    /// By topic and log partition, then by offset: when, microseconds since the Unix epoch.
    of: BTreeMap<(String, u32), BTreeMap<u64, i64>>,
    count: usize,
}

impl Marks {
    /// When a letter was published again. A mark older than the letter is of another: the topic was made anew since.
    pub fn of(&self, letter: &Letter) -> Option<i64> {
        let LetterId { topic, log_partition, offset } = &letter.id;
        let at = *self.of.get(&(topic.clone(), *log_partition))?.get(offset)?;
        (at >= letter.at).then_some(at)
    }

    /// Takes in a mark; the last counts.
    pub(super) fn put(&mut self, of: LetterId, at: i64) -> Result<(), LettersError> {
        let LetterId { topic, log_partition, offset } = of;
        let before = self.of.entry((topic, log_partition)).or_default().insert(offset, at);
        self.count += usize::from(before.is_none());
        if self.count > MARKS_MAX { Err(LettersError::Marks(MARKS_MAX)) } else { Ok(()) }
    }
}

/// The marks of letters written since then.
pub async fn marks(log: Arc<dyn LogStore>, tenant: &str, since: Option<i64>) -> Result<Marks, LettersError> {
    let mut scan = Scan::begin(log, tenant, since).await?;
    let mut marks = Marks::default();
    while let Some(entries) = scan.next().await? {
        for entry in entries {
            if let Entry::Mark { of, at } = entry {
                marks.put(of, at)?;
            }
        }
    }
    Ok(marks)
}

/// The letter of that id, the last where there are several, and when it was published again.
pub async fn find(
    log: Arc<dyn LogStore>,
    tenant: &str,
    id: &LetterId,
) -> Result<Option<(Letter, Option<i64>)>, LettersError> {
    let mut scan = Scan::begin(log, tenant, None).await?;
    let (mut found, mut marks): (Option<Letter>, Marks) = Default::default();
    while let Some(entries) = scan.next().await? {
        for entry in entries {
            match entry {
                Entry::Letter(letter) if letter.id == *id => found = Some(letter),
                Entry::Mark { of, at } if of == *id => marks.put(of, at)?,
                _ => {}
            }
        }
    }
    Ok(found.map(|letter| {
        let replayed = marks.of(&letter);
        (letter, replayed)
    }))
}
