//! Restore: an archive's events are published again, each into its own log partition, in their order.
//!
//! What can be known before is looked at first, and nothing is written where it is not as it must be. Then an operation
//! says which offsets are filled, the events follow, and the operation's end. Whoever is killed in between goes on
//! behind the last event that is there: it has the header `archive-offset`. By that, too, is known what is restored already.

mod decisions;
mod framing;

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use bytes::Bytes;
use serviceradar_log::{LogError, LogStore, NewEvent, Publisher};
use serviceradar_schemas::{
    ArchivedRecord, OffsetRange, Operation,
    operation::Phase,
    topics::{SYSTEM, Stream, split},
};

use crate::{
    archive::{
        ArchiveError, Place, check_sizes,
        files::FileReader,
        manifest::{ArchivedFile, Manifest, hash},
        read_manifest, verify,
    },
    intake_times::{ARCHIVE_OFFSET, INTAKE_TIME, marked},
    operations::{self, Operations, OperationsError, RESTORE},
    topics::Partition,
};
pub use decisions::missing_decisions;
pub use framing::Foreign;
use framing::Reframing;

/// Events published at a time.
pub(crate) const BATCH_EVENTS: usize = 5_000;
/// Bytes published at a time.
pub(crate) const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// Why an archive was not restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// It cannot be read.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The log refused.
    #[error(transparent)]
    Log(#[from] LogError),
    /// What operators did to the log is not known.
    #[error(transparent)]
    Operations(#[from] OperationsError),
    /// The archive has no such topic.
    #[error("the archive has no topic {0}")]
    NoTopic(String),
    /// A topic is there with another number of log partitions.
    #[error(
        "topic {topic} has {found} log partitions, and the archive {archived}: events would come into others than \
         their keys'; delete the topic (`serviceradar topics delete {topic}`), and restore makes it anew"
    )]
    OtherLogPartitions {
        /// The topic.
        topic: String,
        /// As it is.
        found: u32,
        /// As it was.
        archived: u32,
    },
    /// There is something where the archive is to go.
    #[error(
        "{partition} has {events} events: restore into a log that has none, or give --append, and the archive's events \
         come behind them"
    )]
    NotEmpty {
        /// Where.
        partition: String,
        /// How many there may be.
        events: u64,
    },
    /// Others published where a restore was under way.
    #[error(
        "{partition} is being written by others while it is restored (offset {offset} is not of the archive): stop them \
         and the pipeline, delete the topic, and restore again"
    )]
    Disturbed {
        /// Where.
        partition: String,
        /// What was found there.
        offset: u64,
    },
    /// The log lost what an interrupted restore had begun with.
    #[error(
        "{partition} ends at {end}, and an interrupted restore began at {begun}: it was made anew since; say that this \
         restore is over with --begin-anew"
    )]
    MadeAnew {
        /// Where.
        partition: String,
        /// Where it ends.
        end: u64,
        /// Where the restore began.
        begun: u64,
    },
    /// Events were written by schemas that this program does not know.
    #[error(
        "the archive has events of {topic} that were written by schema {id} of its registry, which is not of this \
         program: a registry must have it, set schema_registry.url, and restore registers it there"
    )]
    Foreign {
        /// The topic.
        topic: String,
        /// The id that the schema had.
        id: u32,
    },
}

impl RestoreError {
    /// Whether the same call may succeed later.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Archive(error) => error.is_unavailable(),
            Self::Log(error) => error.is_unavailable(),
            Self::Operations(error) => error.is_unavailable(),
            _ => false,
        }
    }

    /// Whether the archive is damaged.
    pub fn is_damage(&self) -> bool {
        matches!(self, Self::Archive(ArchiveError::Faulty { .. }))
    }
}

/// How an archive is restored.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Whose archive it must be.
    pub tenant: String,
    /// Topics; none: all but `system.operations`, whose offsets are those of the log that was archived.
    pub topics: Vec<String>,
    /// Whether topics may have events already.
    pub append: bool,
    /// Whether an interrupted restore of this archive is over, and this one begins anew.
    pub begin_anew: bool,
}

/// What a restore fills of one log partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filling {
    /// Which.
    pub partition: Partition,
    /// The offsets that its events get.
    pub offsets: Range<u64>,
    /// How many of them are there already.
    pub done: u64,
    /// Offset in the archive of the last of those.
    after: Option<u64>,
}

/// What a restore will do.
#[derive(Debug)]
pub struct Plan {
    /// The archive's.
    pub manifest: Manifest,
    /// SHA-256 of the manifest, in hex.
    pub sha256: String,
    /// Topics that are made, with their log partitions.
    pub missing: BTreeMap<String, u32>,
    /// Log partitions with events, decisions first: a pipeline that runs meanwhile decides nothing that is decided.
    pub fillings: Vec<Filling>,
    /// Schemas that a registry must have.
    pub foreign: Vec<Foreign>,
    /// The intent of the restore that was interrupted and is gone on with.
    pub interrupted: Option<Operation>,
}

impl Plan {
    /// Looks at an archive and at the log: nothing is written.
    ///
    /// # Errors
    /// Why it cannot be restored there.
    pub async fn make(log: &dyn LogStore, place: &Place, wanted: &Wanted) -> Result<Self, RestoreError> {
        let manifest = read_manifest(place).await?;
        if manifest.tenant != wanted.tenant {
            let (found, wanted) = (manifest.tenant, wanted.tenant.clone());
            return Err(ArchiveError::OtherTenant { place: place.name().to_owned(), found, wanted }.into());
        }
        let sha256 = hash(&manifest).map_err(|error| ArchiveError::Task(error.to_string()))?;
        check_sizes(place, &manifest).await?;
        let topics = topics_of(&manifest, wanted)?;
        let missing = missing_of(log, &manifest, &topics).await?;
        let operations = Operations::read(log).await?;
        let is_same = |operation: &&Operation| {
            operation.action == RESTORE && operation.manifest.as_deref() == Some(&sha256)
        };
        let interrupted = operations.unfinished().find(is_same).filter(|_| !wanted.begin_anew).cloned();
        let finished: Vec<&Operation> =
            operations.all().iter().filter(|of| is_same(of) && of.phase == Phase::Done).collect();
        let mut fillings = Vec::new();
        for topic in &topics {
            for log_partition in 0..manifest.topics[topic].log_partitions.len() as u32 {
                let partition = Partition { topic: topic.clone(), log_partition };
                let records = manifest.records_of(topic, log_partition);
                let is_missing = missing.contains_key(topic);
                let looking = Looking { log, partition, records, is_missing };
                let filling = match &interrupted {
                    Some(interrupted) => looking.look_on(interrupted).await?,
                    None => Some(looking.look_anew(&finished, wanted).await?),
                };
                fillings.extend(filling);
            }
        }
        fillings.retain(|filling| !filling.offsets.is_empty());
        fillings.sort_by_key(|filling| !filling.partition.topic.ends_with(Stream::Decisions.name()));
        let foreign = framing::foreign(&manifest, &topics);
        Ok(Self { manifest, sha256, missing, fillings, foreign, interrupted })
    }

    /// Looks whether every file of the archive is what was written; `told` is given bytes read, and bytes to read.
    ///
    /// # Errors
    /// All that are not.
    pub async fn verify(&self, place: &Place, told: impl FnMut(u64, u64)) -> Result<(), RestoreError> {
        Ok(verify(place, &self.manifest, told).await?)
    }

    /// Whether all of it is there since an earlier restore, and nothing behind it.
    pub fn is_done(&self) -> bool {
        let is_whole = |filling: &Filling| filling.done == filling.offsets.end - filling.offsets.start;
        self.interrupted.is_none() && !self.fillings.is_empty() && self.fillings.iter().all(is_whole)
    }

    /// Events that are to be published.
    pub fn records(&self) -> u64 {
        self.fillings.iter().map(|filling| filling.offsets.end - filling.offsets.start - filling.done).sum()
    }

    /// Publishes what is missing. `intent` says who does it and why; `ids` are those that a registry gave to the foreign
    /// schemas, by those that they had; `now` is when its end is written; `told` is given events published, and events
    /// to publish.
    ///
    /// # Errors
    /// Why not all of it is there. Making a plan and running it goes on from there.
    pub async fn run(
        self,
        log: &Arc<dyn LogStore>,
        place: &Place,
        intent: Operation,
        ids: &BTreeMap<u32, u32>,
        now: impl Fn() -> i64,
        mut told: impl FnMut(u64, u64),
    ) -> Result<Operation, RestoreError> {
        if let Some(foreign) = self.foreign.iter().find(|foreign| !ids.contains_key(&foreign.id)) {
            return Err(RestoreError::Foreign { topic: foreign.topic.clone(), id: foreign.id });
        }
        for (topic, log_partitions) in &self.missing {
            log.create_topic(topic, *log_partitions).await?;
        }
        let intent = match &self.interrupted {
            Some(interrupted) => interrupted.clone(),
            None => {
                let intent = self.intent(intent);
                operations::write(log, &intent).await?;
                intent
            }
        };
        let (mut published, total) = (0, self.records());
        for filling in &self.fillings {
            let mut tell = |events| {
                published += events;
                told(published, total);
            };
            self.fill(log, place, filling, ids, &mut tell).await?;
        }
        let done = Operation { phase: Phase::Done, event_time: now(), ..intent };
        operations::write(log, &done).await?;
        Ok(done)
    }

    /// The operation that says what is filled.
    fn intent(&self, intent: Operation) -> Operation {
        let range = |filling: &Filling| OffsetRange {
            topic: filling.partition.topic.clone(),
            log_partition: filling.partition.log_partition.cast_signed(),
            from: filling.offsets.start.cast_signed(),
            to: filling.offsets.end.cast_signed(),
        };
        Operation {
            phase: Phase::Intent,
            action: RESTORE.to_owned(),
            tenant: Some(self.manifest.tenant.clone()),
            ranges: self.fillings.iter().map(range).collect(),
            manifest: Some(self.sha256.clone()),
            ..intent
        }
    }

    /// Publishes what a log partition lacks.
    async fn fill(
        &self,
        log: &Arc<dyn LogStore>,
        place: &Place,
        filling: &Filling,
        ids: &BTreeMap<u32, u32>,
        told: &mut impl FnMut(u64),
    ) -> Result<(), RestoreError> {
        let Partition { topic, log_partition } = &filling.partition;
        let mut lane = Lane {
            publisher: Publisher::new(log.clone(), topic.clone()),
            partition: &filling.partition,
            next: filling.offsets.start + filling.done,
            batch: Vec::new(),
            bytes: 0,
        };
        let is_left = |file: &&ArchivedFile| filling.after.is_none_or(|after| file.last_offset > after);
        for file in self.manifest.files_of(topic, *log_partition).filter(is_left) {
            let reframing = Reframing::of(file, ids);
            let mut reader = FileReader::new(place, file);
            while let Some(records) = reader.next().await? {
                for record in records {
                    if filling.after.is_some_and(|after| record.offset.cast_unsigned() <= after) {
                        continue;
                    }
                    if let Some(events) = lane.push(event_of(record, &reframing)).await? {
                        told(events);
                    }
                }
            }
        }
        told(lane.send().await?);
        if lane.next != filling.offsets.end {
            let why =
                format!("{} ends at {}, and not at {}", filling.partition, lane.next, filling.offsets.end);
            return Err(ArchiveError::Task(why).into());
        }
        Ok(())
    }
}

/// Names of the topics to restore, in order.
fn topics_of(manifest: &Manifest, wanted: &Wanted) -> Result<Vec<String>, RestoreError> {
    if let Some(topic) = wanted.topics.iter().find(|topic| !manifest.topics.contains_key(*topic)) {
        return Err(RestoreError::NoTopic(topic.clone()));
    }
    let is_wanted = |topic: &&String| {
        let is_operations = split(topic).is_some_and(|(tenant, _)| tenant == SYSTEM);
        !is_operations && (wanted.topics.is_empty() || wanted.topics.contains(topic))
    };
    Ok(manifest.topics.keys().filter(is_wanted).cloned().collect())
}

/// Topics that the log lacks, with the log partitions that they had; those that are there have as many.
async fn missing_of(
    log: &dyn LogStore,
    manifest: &Manifest,
    topics: &[String],
) -> Result<BTreeMap<String, u32>, RestoreError> {
    let mut missing = BTreeMap::new();
    for topic in topics {
        let archived = manifest.topics[topic].log_partitions.len() as u32;
        match log.describe_topic(topic).await {
            Ok(found) if found.log_partitions == archived => {}
            Ok(found) => {
                let (topic, found) = (topic.clone(), found.log_partitions);
                return Err(RestoreError::OtherLogPartitions { topic, found, archived });
            }
            Err(LogError::UnknownTopic(_)) => {
                missing.insert(topic.clone(), archived);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(missing)
}

/// A look at what a log partition has, and is to get.
struct Looking<'a> {
    log: &'a dyn LogStore,
    partition: Partition,
    records: u64,
    is_missing: bool,
}

impl Looking<'_> {
    /// Where no restore was interrupted. `finished` are those of this archive.
    async fn look_anew(self, finished: &[&Operation], wanted: &Wanted) -> Result<Filling, RestoreError> {
        let Partition { topic, log_partition } = &self.partition;
        let end = if self.is_missing {
            0
        } else {
            let offsets = self.log.offsets(topic, *log_partition).await?;
            let events = offsets.end - offsets.start;
            if events > 0 && !wanted.append {
                let mut filled = finished.iter().filter_map(|finished| self.filled_by(finished));
                let there = match filled.rfind(|filled| *filled == (offsets.start..offsets.end)) {
                    Some(filled) => self.there_of(filled, offsets.end).await?,
                    None => None,
                };
                let partition = self.partition.to_string();
                return there.ok_or(RestoreError::NotEmpty { partition, events });
            }
            offsets.end
        };
        let offsets = end..end + self.records;
        Ok(Filling { partition: self.partition, offsets, done: 0, after: None })
    }

    /// Where one was; none: it fills nothing of this log partition.
    async fn look_on(self, interrupted: &Operation) -> Result<Option<Filling>, RestoreError> {
        let Some(offsets) = self.filled_by(interrupted) else {
            return Ok(None);
        };
        let Partition { topic, log_partition } = &self.partition;
        let end = if self.is_missing { 0 } else { self.log.offsets(topic, *log_partition).await?.end };
        let partition = self.partition.to_string();
        if end < offsets.start {
            return Err(RestoreError::MadeAnew { partition, end, begun: offsets.start });
        }
        if end == offsets.start {
            return Ok(Some(Filling { partition: self.partition, offsets, done: 0, after: None }));
        }
        match self.there_of(offsets, end).await? {
            None => Err(RestoreError::Disturbed { partition, offset: end - 1 }),
            there => Ok(there),
        }
    }

    /// The offsets that a restore fills of it.
    fn filled_by(&self, restore: &Operation) -> Option<Range<u64>> {
        let Partition { topic, log_partition } = &self.partition;
        let is_of = |range: &&OffsetRange| {
            range.topic == *topic && range.log_partition == log_partition.cast_signed()
        };
        let range = restore.ranges.iter().find(is_of)?;
        Some(range.from.cast_unsigned()..range.to.cast_unsigned())
    }

    /// What is there of these offsets in a log partition that ends at `end`; none where its last event is not of an archive.
    async fn there_of(&self, offsets: Range<u64>, end: u64) -> Result<Option<Filling>, LogError> {
        let Partition { topic, log_partition } = &self.partition;
        let last = self.log.last_event(topic, *log_partition).await?;
        let last = last.filter(|last| last.offset + 1 == end && end <= offsets.end);
        let after = last.and_then(|last| marked(&last.headers, ARCHIVE_OFFSET));
        let partition = self.partition.clone();
        Ok(after.map(|after| Filling { partition, done: end - offsets.start, offsets, after: Some(after) }))
    }
}

/// What publishes to one log partition, and sees that nobody else does.
struct Lane<'a> {
    publisher: Publisher,
    partition: &'a Partition,
    next: u64,
    batch: Vec<NewEvent>,
    bytes: usize,
}

impl Lane<'_> {
    /// Takes an event; the number of those published with it, where it was time.
    async fn push(&mut self, event: NewEvent) -> Result<Option<u64>, RestoreError> {
        self.bytes += event.bytes();
        self.batch.push(event);
        if self.batch.len() < BATCH_EVENTS && self.bytes < BATCH_BYTES {
            return Ok(None);
        }
        self.send().await.map(Some)
    }

    async fn send(&mut self) -> Result<u64, RestoreError> {
        self.bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        let offsets = self.publisher.publish_to(self.partition.log_partition, batch).await?;
        for offset in &offsets {
            if *offset != self.next {
                return Err(RestoreError::Disturbed {
                    partition: self.partition.to_string(),
                    offset: self.next,
                });
            }
            self.next += 1;
        }
        Ok(offsets.len() as u64)
    }
}

/// An event as it is published again.
fn event_of(record: ArchivedRecord, reframing: &Reframing) -> NewEvent {
    let headers = record.headers.into_iter().map(|header| (header.name, header.value)).collect();
    let headers = restored(headers, record.intake_time, record.offset.cast_unsigned());
    NewEvent { key: record.key, value: record.value.map(|value| reframing.reframe(value)), headers }
}

/// The headers of an event that is published again: with its intake time and the offset that it had. What an earlier restore
/// added is replaced.
pub(crate) fn restored(
    mut headers: Vec<(String, Bytes)>,
    intake_time: i64,
    offset: u64,
) -> Vec<(String, Bytes)> {
    let is_restored = headers
        .last_chunk::<2>()
        .is_some_and(|[(one, _), (other, _)]| one == INTAKE_TIME && other == ARCHIVE_OFFSET);
    if is_restored {
        headers.truncate(headers.len() - 2);
    }
    headers.push((INTAKE_TIME.to_owned(), Bytes::from(intake_time.to_string())));
    headers.push((ARCHIVE_OFFSET.to_owned(), Bytes::from(offset.to_string())));
    headers
}
