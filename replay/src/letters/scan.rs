//! The topic of dead letters from its begin to its end, a piece at a time.

use std::{collections::BTreeMap, sync::Arc};

use serviceradar_log::{Event, LogError, LogStore};
use serviceradar_schemas::topics::Stream;

use super::{Entry, Letter, LetterId, LettersError};
use crate::scan;

/// Marks that are kept in memory: with their tree some 40 bytes each.
const MARKS_MAX: usize = 2_000_000;

/// Reads the dead letters of a tenant up to where they end when it begins, in the order of their log partitions.
pub struct Scan {
    log: Arc<dyn LogStore>,
    of_topic: scan::Scan,
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
        let mut of_topic = match scan::Scan::begin(&*log, &topic).await {
            Err(LogError::UnknownTopic(_)) => scan::Scan::default(),
            of_topic => of_topic?,
        };
        of_topic.may_end_in_marks = true;
        Ok(Self { log, of_topic, since })
    }

    /// How many events are left to be read, at most.
    pub fn left(&self) -> u64 {
        self.of_topic.left()
    }

    /// The next of them; `None` at the end. A piece may be empty.
    pub async fn next(&mut self) -> Result<Option<Vec<Entry>>, LettersError> {
        let Some((partition, read)) = self.of_topic.next(&*self.log).await? else {
            return Ok(None);
        };
        let is_meant = |event: &Event| self.since.is_none_or(|since| event.append_time >= since);
        let entry = |event| Entry::read(partition.log_partition, event);
        let entries = read.events.into_iter().filter(is_meant).filter_map(entry);
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
