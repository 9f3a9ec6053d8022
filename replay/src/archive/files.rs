//! The files of an archive: made of what a log partition holds, and read again.

use std::{collections::BTreeMap, time::Duration};

use serviceradar_log::{Event, LogError, LogStore, Read, ReadLimit};
use serviceradar_schemas::{
    ArchivedRecord,
    archived_record::{Header, SCHEMA},
    codec::{
        WriterSchemas,
        container::{Block, Blocks, ContainerError, ContainerWriter},
        registry_id,
    },
    hex,
};
use sha2::{Digest, Sha256};

use super::{
    ArchiveError, Fault,
    manifest::{ArchivedFile, IntakeSpan, seal},
    place::{PIECE_BYTES, Place, Upload},
};
use crate::{intake_times::IntakeTimes, reader::schemas_of, topics::Partition, witness::hash_of};

/// How much of the log is read at a time.
const READ: ReadLimit = ReadLimit { events: 5_000, bytes: 1024 * 1024, wait: Duration::from_secs(1) };
/// Reads that bring nothing before the end is reached: more than a transaction can stay open.
const EMPTY_READS_MAX: u32 = 60;

/// Where the next file of a log partition begins.
pub(super) struct Next {
    pub(super) partition: Partition,
    /// First offset that is not archived.
    pub(super) from: u64,
    /// Up to which offset is archived.
    pub(super) end: u64,
    pub(super) times: IntakeTimes,
}

/// What makes files of log partitions.
pub(super) struct Files<'a> {
    pub(super) log: &'a dyn LogStore,
    pub(super) writers: &'a dyn WriterSchemas,
    pub(super) place: &'a Place,
    /// A file is ended once it has come to so many bytes.
    pub(super) bytes_max: u64,
}

impl Files<'_> {
    /// Writes the next file, and then what it holds; none where the rest of the log partition has no event. Says after
    /// each read how far it has come.
    pub(super) async fn next(
        &self,
        next: &mut Next,
        told: &mut impl FnMut(u64),
    ) -> Result<Option<ArchivedFile>, ArchiveError> {
        let Some(mut read) = self.first(next).await? else {
            return Ok(None);
        };
        let Some(first_offset) = read.events.first().map(|event| event.offset) else {
            return Ok(None);
        };
        let path = path_of(&next.partition, first_offset);
        let mut making = Making::begin(self.place, &path, next.from, &next.partition).await?;
        loop {
            self.writers.learn(&schemas_of(&read)).await?;
            next.times.learn(self.log, &next.partition, &read.events).await?;
            for event in &read.events {
                making.take(event, next.times.of(event), self.writers).await?;
            }
            next.from = read.next_offset;
            told(next.from);
            if next.from >= next.end || making.bytes >= self.bytes_max {
                break;
            }
            match self.first(next).await? {
                Some(more) => read = more,
                None => break,
            }
        }
        let file = making.finish(next).await?;
        let sealed = seal(&file).map_err(|error| ArchiveError::Task(error.to_string()))?;
        self.place.put(&entry_of(&file.path), sealed).await?;
        Ok(Some(file))
    }

    /// The next events up to the end; none where there are no more.
    async fn first(&self, next: &mut Next) -> Result<Option<Read>, ArchiveError> {
        let Partition { topic, log_partition } = &next.partition;
        let mut empty = 0;
        while next.from < next.end {
            let mut read = self.log.read(topic, *log_partition, next.from, READ).await?;
            read.events.retain(|event| event.offset < next.end);
            if !read.events.is_empty() {
                read.next_offset = read.next_offset.min(next.end);
                return Ok(Some(read));
            }
            empty = if read.next_offset == next.from { empty + 1 } else { 0 };
            if empty >= EMPTY_READS_MAX {
                let why = format!("{} gives nothing from offset {} on", next.partition, next.from);
                return Err(LogError::Unavailable(why).into());
            }
            next.from = read.next_offset.min(next.end);
        }
        Ok(None)
    }
}

/// A file under way.
struct Making<'a> {
    upload: Upload<'a>,
    container: ContainerWriter,
    hash: Sha256,
    path: &'a str,
    from_offset: u64,
    bytes: u64,
    records: u64,
    offsets: (u64, u64),
    intake: (i64, i64),
    witness: i64,
    schemas: BTreeMap<u32, String>,
    /// Events by schemas that no registry knows.
    unknown: u64,
}

impl<'a> Making<'a> {
    async fn begin(
        place: &'a Place,
        path: &'a str,
        from_offset: u64,
        partition: &Partition,
    ) -> Result<Self, ArchiveError> {
        // The same events make the same bytes.
        let name = Sha256::digest(format!("{partition}/{from_offset}"));
        let mut sync = [0; 16];
        sync.copy_from_slice(&name[..16]);
        let container = ContainerWriter::new(SCHEMA, sync);
        let mut making = Self {
            upload: place.upload(path),
            hash: Sha256::new(),
            path,
            from_offset,
            bytes: 0,
            records: 0,
            offsets: (u64::MAX, 0),
            intake: (i64::MAX, i64::MIN),
            witness: 0,
            schemas: BTreeMap::new(),
            unknown: 0,
            container,
        };
        let header = making.container.header();
        making.put(header).await?;
        Ok(making)
    }

    async fn put(&mut self, bytes: bytes::Bytes) -> Result<(), ArchiveError> {
        self.bytes += bytes.len() as u64;
        self.hash.update(&bytes);
        self.upload.put(bytes).await
    }

    async fn take(
        &mut self,
        event: &Event,
        intake_time: i64,
        writers: &dyn WriterSchemas,
    ) -> Result<(), ArchiveError> {
        if let Some(id) = event.value.as_deref().and_then(registry_id)
            && !self.schemas.contains_key(&id)
        {
            match writers.by_id(id)? {
                Some(text) => drop(self.schemas.insert(id, text)),
                None => self.unknown += 1,
            }
        }
        self.records += 1;
        self.offsets = (self.offsets.0.min(event.offset), event.offset);
        self.intake = (self.intake.0.min(intake_time), self.intake.1.max(intake_time));
        self.witness = hash_of(event);
        let block = self.container.push(&record_of(event, intake_time)).map_err(compressing)?;
        match block {
            Some(block) => self.put(block).await,
            None => Ok(()),
        }
    }

    async fn finish(mut self, next: &Next) -> Result<ArchivedFile, ArchiveError> {
        if let Some(block) = self.container.block().map_err(compressing)? {
            self.put(block).await?;
        }
        self.upload.finish().await?;
        if self.unknown > 0 {
            let (file, events) = (self.path, self.unknown);
            tracing::warn!(
                file,
                events,
                "events are by schemas that no registry knows, and can be read by none"
            );
        }
        Ok(ArchivedFile {
            path: self.path.to_owned(),
            topic: next.partition.topic.clone(),
            log_partition: next.partition.log_partition,
            from_offset: self.from_offset,
            first_offset: self.offsets.0,
            last_offset: self.offsets.1,
            next_offset: next.from,
            records: self.records,
            intake: IntakeSpan { from: self.intake.0, to: self.intake.1 },
            bytes: self.bytes,
            sha256: hex::encode(&self.hash.finalize()),
            witness: self.witness,
            schemas: self.schemas,
        })
    }
}

fn compressing(error: std::io::Error) -> ArchiveError {
    ArchiveError::Task(format!("a block cannot be compressed: {error}"))
}

/// The folder of a log partition's files.
pub(super) fn folder_of(partition: &Partition) -> String {
    format!("{}/{:05}", partition.topic, partition.log_partition)
}

fn path_of(partition: &Partition, first_offset: u64) -> String {
    format!("{}/{first_offset:020}.avro", folder_of(partition))
}

/// The name of what is kept beside a file: what it holds, written once it is whole.
pub(super) fn entry_of(path: &str) -> String {
    format!("{}.json", path.trim_end_matches(".avro"))
}

/// An event as it is archived.
pub(crate) fn record_of(event: &Event, intake_time: i64) -> ArchivedRecord {
    let headers = event.headers.iter();
    ArchivedRecord {
        // A log of more offsets than that would take ages to fill.
        offset: event.offset.cast_signed(),
        intake_time,
        key: event.key.clone(),
        value: event.value.clone(),
        headers: headers.map(|(name, value)| Header { name: name.clone(), value: value.clone() }).collect(),
    }
}

/// Reads a file of an archive by the block.
pub(crate) struct FileReader<'a> {
    place: &'a Place,
    file: &'a ArchivedFile,
    at: u64,
    records: u64,
    hash: Sha256,
    blocks: Blocks,
}

impl<'a> FileReader<'a> {
    /// From its start.
    pub(crate) fn new(place: &'a Place, file: &'a ArchivedFile) -> Self {
        Self { place, file, at: 0, records: 0, hash: Sha256::new(), blocks: Blocks::default() }
    }

    /// The next records; none at the end, where all of it has been found to be as it was written.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<ArchivedRecord>>, ArchiveError> {
        loop {
            let block = self.blocks.next_block().map_err(|error| self.fault(&error.to_string()))?;
            if let Some(block) = block {
                let records = self.records_of(&block).map_err(|error| self.fault(&error.to_string()))?;
                self.records += records.len() as u64;
                return Ok(Some(records));
            }
            if !self.feed().await? {
                break;
            }
        }
        self.blocks.finish().map_err(|error| self.fault(&error.to_string()))?;
        check_hash(self.file, std::mem::take(&mut self.hash)).map_err(ArchiveError::of_fault(self.place))?;
        if self.records != self.file.records {
            let why = format!("it has {} records, and must have {}", self.records, self.file.records);
            return Err(self.fault(&why));
        }
        Ok(None)
    }

    fn records_of(&self, block: &Block) -> Result<Vec<ArchivedRecord>, ContainerError> {
        if self.blocks.schema() != Some(SCHEMA) {
            return Err(ContainerError::Header("its data are no archived records".to_owned()));
        }
        block.read()
    }

    async fn feed(&mut self) -> Result<bool, ArchiveError> {
        let Some(piece) = next_piece(self.place, self.file, &mut self.at).await? else {
            return Ok(false);
        };
        self.hash.update(&piece);
        self.blocks.feed(&piece);
        Ok(true)
    }

    fn fault(&self, why: &str) -> ArchiveError {
        ArchiveError::of_fault(self.place)(Fault { path: self.file.path.clone(), why: why.to_owned() })
    }
}

/// The next piece of a file, and moves `at` behind it; none at its end.
async fn next_piece(
    place: &Place,
    file: &ArchivedFile,
    at: &mut u64,
) -> Result<Option<bytes::Bytes>, ArchiveError> {
    if *at >= file.bytes {
        return Ok(None);
    }
    let to = file.bytes.min(*at + PIECE_BYTES);
    let fault =
        |why: &str| ArchiveError::of_fault(place)(Fault { path: file.path.clone(), why: why.to_owned() });
    let piece = place.piece(&file.path, *at, to).await?.ok_or_else(|| fault("it is missing"))?;
    if piece.len() as u64 != to - *at {
        return Err(fault("it is cut off"));
    }
    *at = to;
    Ok(Some(piece))
}

/// Looks whether a file has the size that it must have.
pub(super) async fn check_size(place: &Place, file: &ArchivedFile) -> Result<Option<Fault>, ArchiveError> {
    let why = match place.size(&file.path).await? {
        Some(bytes) if bytes == file.bytes => return Ok(None),
        Some(bytes) => format!("it has {bytes} bytes, and must have {}", file.bytes),
        None => "it is missing".to_owned(),
    };
    Ok(Some(Fault { path: file.path.clone(), why }))
}

/// Looks whether a file has the SHA-256 that it must have.
pub(super) async fn check_content(
    place: &Place,
    file: &ArchivedFile,
    told: &mut impl FnMut(u64),
) -> Result<Option<Fault>, ArchiveError> {
    let (mut at, mut hash) = (0, Sha256::new());
    while let Some(piece) = next_piece(place, file, &mut at).await? {
        hash.update(&piece);
        told(piece.len() as u64);
    }
    Ok(check_hash(file, hash).err())
}

fn check_hash(file: &ArchivedFile, hash: Sha256) -> Result<(), Fault> {
    let found = hex::encode(&hash.finalize());
    if found == file.sha256 {
        return Ok(());
    }
    let why = format!("it is damaged: its SHA-256 is {found}, and must be {}", file.sha256);
    Err(Fault { path: file.path.clone(), why })
}
