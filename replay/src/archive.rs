//! Archives: what the log holds, as files that outlive it.
//!
//! An archive is `manifest.json`, and per log partition `<topic>/<log partition>/<first offset>.avro` (a container file
//! of [`ArchivedRecord`](serviceradar_schemas::ArchivedRecord), codec `zstandard`) with a `.json` beside it that says
//! what it holds. A file is put under its name once it is whole, what it holds after it, the manifest last: whoever is
//! killed in between leaves an archive as it was, and files with which the next run goes on.

pub(crate) mod files;
pub mod manifest;
mod place;

use std::collections::{BTreeMap, BTreeSet};

use serviceradar_log::{LogError, LogStore, ReadLimit};
use serviceradar_schemas::{
    codec::{Unavailable, WriterSchemas},
    topics::{SYSTEM, Stream, split},
};

use crate::{intake_times::IntakeTimes, operations::OperationsError, topics::Partition, witness::hash_of};
use files::{Files, Next};
use manifest::{ArchivedFile, ArchivedOffsets, ArchivedTopic, MANIFEST, Manifest, SealError, seal, unseal};
pub use place::Place;

/// A file is ended once it has come to so many bytes: 1 GiB less what one block more may bring.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024 * 1024 - 8 * 1024 * 1024;
/// The streams that are kept for ever.
const KEPT: [Stream; 2] = [Stream::Observations, Stream::Decisions];
/// Faults that are told of one by one.
const FAULTS_TOLD_MAX: usize = 20;

/// What is wrong with a file of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its name in the archive.
    pub path: String,
    /// What is wrong with it.
    pub why: String,
}

/// Why an archive was not written, or cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// There cannot be an archive there.
    #[error(
        "{place} is no place for an archive: {why}; give a folder, or s3://BUCKET/PREFIX with AWS_… variables set"
    )]
    NoPlace {
        /// As it was given.
        place: String,
        /// What is wrong with it.
        why: String,
    },
    /// The folder or the store refused, or cannot be reached.
    #[error(
        "{path} in the archive {place} cannot be read or written: {why}; the same command goes on from here"
    )]
    Place {
        /// Where the archive is.
        place: String,
        /// Which file.
        path: String,
        /// What it says.
        why: String,
    },
    /// Another process writes to it.
    #[error("another process is writing to the archive {0}: wait until it has ended")]
    Held(String),
    /// There is none.
    #[error("there is no archive at {0}: it has no {MANIFEST}; `serviceradar replay archive` writes it last")]
    NoArchive(String),
    /// Files are damaged, missing, or of another version.
    #[error("the archive {place} cannot be used:{}\nput the files back from a copy of the archive", list(.faults))]
    Faulty {
        /// Where it is.
        place: String,
        /// All that was found.
        faults: Vec<Fault>,
    },
    /// It is of another tenant.
    #[error(
        "the archive {place} is of tenant {found}, not {wanted}: give another place, or another --tenant"
    )]
    OtherTenant {
        /// Where it is.
        place: String,
        /// As its manifest says.
        found: String,
        /// As asked for.
        wanted: String,
    },
    /// It was made from another log.
    #[error(
        "the archive {place} was made from another log: {partition} {why}; archive this one to another place"
    )]
    OtherLog {
        /// Where it is.
        place: String,
        /// Which log partition tells.
        partition: String,
        /// By what.
        why: String,
    },
    /// The topic is no topic of the tenant.
    #[error("{topic} is no topic of tenant {tenant}, and is not archived with its topics")]
    OtherTopic {
        /// The topic.
        topic: String,
        /// The tenant.
        tenant: String,
    },
    /// The log refused.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The registry gives no answer.
    #[error(transparent)]
    Schemas(#[from] Unavailable),
    /// What operators did to the log is not known.
    #[error(transparent)]
    Operations(#[from] OperationsError),
    /// A defect of this program.
    #[error("{0}")]
    Task(String),
}

impl ArchiveError {
    /// Whether the same call may succeed later.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Place { .. } | Self::Schemas(_) => true,
            Self::Log(error) => error.is_unavailable(),
            Self::Operations(error) => error.is_unavailable(),
            _ => false,
        }
    }

    /// What one fault is.
    pub(crate) fn of_fault(place: &Place) -> impl Fn(Fault) -> Self {
        |fault| Self::Faulty { place: place.name().to_owned(), faults: vec![fault] }
    }
}

fn list(faults: &[Fault]) -> String {
    let told = faults.iter().take(FAULTS_TOLD_MAX);
    let mut text: String = told.map(|Fault { path, why }| format!("\n  {path}: {why}")).collect();
    if faults.len() > FAULTS_TOLD_MAX {
        text.push_str(&format!("\n  and {} files more", faults.len() - FAULTS_TOLD_MAX));
    }
    text
}

/// What is to be archived.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Whose events.
    pub tenant: String,
    /// Topics besides those that are kept for ever, and those that the archive has.
    pub topics: Vec<String>,
    /// A file is ended once it has come to so many bytes.
    pub file_bytes_max: u64,
}

/// What an archive came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Archived {
    /// As it is now.
    pub manifest: Manifest,
    /// Events that were added.
    pub records: u64,
    /// Files that were added.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
}

/// Archives what the log holds now; to a place that has an archive, what it does not have. `told` is given offsets
/// passed, and offsets to pass.
///
/// # Errors
/// Why not all of it is there. The same call goes on from there.
pub async fn archive(
    log: &dyn LogStore,
    writers: &dyn WriterSchemas,
    place: &Place,
    wanted: &Wanted,
    mut told: impl FnMut(u64, u64),
) -> Result<Archived, ArchiveError> {
    let _held = place.hold()?;
    let mut manifest = match read_manifest(place).await {
        Ok(manifest) if manifest.tenant == wanted.tenant => manifest,
        Ok(manifest) => {
            let (found, wanted) = (manifest.tenant, wanted.tenant.clone());
            return Err(ArchiveError::OtherTenant { place: place.name().to_owned(), found, wanted });
        }
        Err(ArchiveError::NoArchive(_)) => Manifest::new(&wanted.tenant),
        Err(error) => return Err(error),
    };
    let mut nexts = Vec::new();
    for topic in topics_of(log, &manifest, wanted).await? {
        nexts.extend(look_at(log, place, &mut manifest, &topic).await?);
    }
    let total = nexts.iter().map(|next| next.end.saturating_sub(next.from)).sum();
    let (mut passed, mut added) = (0, Vec::new());
    let files = Files { log, writers, place, bytes_max: wanted.file_bytes_max };
    for next in &mut nexts {
        let from = next.from;
        let mut tell = |at: u64| told(passed + (at - from), total);
        while let Some(file) = files.next(next, &mut tell).await? {
            added.push(file);
        }
        passed += next.from - from;
        told(passed, total);
    }
    let count = |of: fn(&ArchivedFile) -> u64| added.iter().map(of).sum::<u64>();
    let (records, bytes, files) = (count(|file| file.records), count(|file| file.bytes), added.len() as u64);
    manifest.files.extend(added);
    write_manifest(place, &mut manifest).await?;
    Ok(Archived { manifest, records, files, bytes })
}

/// The manifest of an archive; it does not contradict itself.
///
/// # Errors
/// There is none, or it cannot be believed.
pub async fn read_manifest(place: &Place) -> Result<Manifest, ArchiveError> {
    let json = place.get(MANIFEST).await?.ok_or_else(|| ArchiveError::NoArchive(place.name().to_owned()))?;
    let manifest: Manifest = unseal(&json).map_err(unsealed(place, MANIFEST))?;
    let faults: Vec<_> =
        manifest.contradictions().into_iter().map(|(path, why)| Fault { path, why }).collect();
    none_of(place, faults).map(|()| manifest)
}

/// Looks whether all files are there, with the size and the SHA-256 that they must have; `told` is given bytes read, and
/// bytes to read.
///
/// # Errors
/// [`ArchiveError::Faulty`] names all that are not; or the place gives no answer.
pub async fn verify(
    place: &Place,
    manifest: &Manifest,
    mut told: impl FnMut(u64, u64),
) -> Result<(), ArchiveError> {
    let mut faults = sizes(place, manifest.files.iter()).await?;
    let of_size: BTreeSet<_> = faults.iter().map(|fault| fault.path.clone()).collect();
    let sound = || manifest.files.iter().filter(|file| !of_size.contains(&file.path));
    let (mut read, total) = (0, sound().map(|file| file.bytes).sum());
    for file in sound() {
        let mut tell = |bytes| {
            read += bytes;
            told(read, total);
        };
        faults.extend(files::check_content(place, file, &mut tell).await?);
    }
    none_of(place, faults)
}

/// Looks whether all files are there, with the size that they must have.
///
/// # Errors
/// [`ArchiveError::Faulty`] names all that are not; or the place gives no answer.
pub(crate) async fn check_sizes(place: &Place, manifest: &Manifest) -> Result<(), ArchiveError> {
    none_of(place, sizes(place, manifest.files.iter()).await?)
}

async fn sizes<'a>(
    place: &Place,
    files: impl Iterator<Item = &'a ArchivedFile>,
) -> Result<Vec<Fault>, ArchiveError> {
    let mut faults = Vec::new();
    for file in files {
        faults.extend(files::check_size(place, file).await?);
    }
    Ok(faults)
}

fn none_of(place: &Place, faults: Vec<Fault>) -> Result<(), ArchiveError> {
    if faults.is_empty() {
        return Ok(());
    }
    Err(ArchiveError::Faulty { place: place.name().to_owned(), faults })
}

fn unsealed<'a>(place: &'a Place, path: &'a str) -> impl Fn(SealError) -> ArchiveError + 'a {
    |error| ArchiveError::of_fault(place)(Fault { path: path.to_owned(), why: error.to_string() })
}

/// Names of the topics to archive, in order.
async fn topics_of(
    log: &dyn LogStore,
    manifest: &Manifest,
    wanted: &Wanted,
) -> Result<BTreeSet<String>, ArchiveError> {
    let tenant = &wanted.tenant;
    let mut topics: BTreeSet<_> = KEPT.iter().map(|stream| stream.topic(tenant)).collect();
    for topic in &wanted.topics {
        if split(topic).is_none_or(|(of, _)| of != tenant) {
            return Err(ArchiveError::OtherTopic { topic: topic.clone(), tenant: tenant.clone() });
        }
        topics.insert(topic.clone());
    }
    for topic in &topics {
        log.describe_topic(topic).await?;
    }
    let operations = Stream::Operations.topic(SYSTEM);
    // What the archive has and the log no longer stays as it is.
    for topic in manifest.topics.keys().map(String::as_str).chain([&*operations]) {
        match log.describe_topic(topic).await {
            Ok(_) => {
                topics.insert(topic.to_owned());
            }
            Err(LogError::UnknownTopic(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(topics)
}

/// Looks at a topic: where its log partitions end, which of their files are there already.
async fn look_at(
    log: &dyn LogStore,
    place: &Place,
    manifest: &mut Manifest,
    topic: &str,
) -> Result<Vec<Next>, ArchiveError> {
    let (mut nexts, mut log_partitions) = (Vec::new(), Vec::new());
    for log_partition in 0..log.describe_topic(topic).await?.log_partitions {
        let partition = Partition { topic: topic.to_owned(), log_partition };
        take_entries(place, manifest, &partition).await?;
        let offsets = log.offsets(topic, log_partition).await?;
        let last = manifest.files_of(topic, log_partition).last();
        if let Some(last) = last {
            check_same(log, place, &partition, last).await?;
        }
        let from = last.map_or(0, |file| file.next_offset).max(offsets.start);
        let times = IntakeTimes::new(last.map_or(i64::MIN, |file| file.intake.to));
        log_partitions.push(ArchivedOffsets { start: offsets.start, end: offsets.end });
        nexts.push(Next { partition, from, end: offsets.end, times });
    }
    if let Some(before) = manifest.topics.get(topic)
        && before.log_partitions.len() > log_partitions.len()
    {
        let why =
            format!("is of {} log partitions, not {}", log_partitions.len(), before.log_partitions.len());
        return Err(other_log(place, topic.to_owned(), &why));
    }
    let settings = log.settings(topic).await?;
    let settings = settings.into_iter().map(|setting| (setting.name.to_owned(), setting.found)).collect();
    manifest.topics.insert(topic.to_owned(), ArchivedTopic { log_partitions, settings });
    Ok(nexts)
}

/// Takes the files into the manifest that were written after it, and looks whether all are there.
async fn take_entries(
    place: &Place,
    manifest: &mut Manifest,
    partition: &Partition,
) -> Result<(), ArchiveError> {
    let Partition { topic, log_partition } = partition;
    let known: BTreeSet<_> =
        manifest.files_of(topic, *log_partition).map(|file| files::entry_of(&file.path)).collect();
    for path in place.list(&files::folder_of(partition), ".json").await? {
        if known.contains(&path) {
            continue;
        }
        let json = place.get(&path).await?.unwrap_or_default();
        let file: ArchivedFile = unseal(&json).map_err(unsealed(place, &path))?;
        manifest.files.push(file);
    }
    none_of(place, sizes(place, manifest.files_of(topic, *log_partition)).await?)
}

/// Refuses a log that is not the one that a file was made from.
async fn check_same(
    log: &dyn LogStore,
    place: &Place,
    partition: &Partition,
    last: &ArchivedFile,
) -> Result<(), ArchiveError> {
    let Partition { topic, log_partition } = partition;
    let offsets = log.offsets(topic, *log_partition).await?;
    if offsets.end < last.next_offset {
        let why = format!("ends at {}, and was archived up to {}", offsets.end, last.next_offset);
        return Err(other_log(place, partition.to_string(), &why));
    }
    if last.last_offset < offsets.start {
        return Ok(());
    }
    let limit = ReadLimit { events: 1, bytes: 1, wait: std::time::Duration::from_secs(1) };
    let read = log.read(topic, *log_partition, last.last_offset, limit).await?;
    let is_same =
        read.events.first().is_some_and(|e| e.offset == last.last_offset && hash_of(e) == last.witness);
    if is_same {
        return Ok(());
    }
    let why = format!("has another event at offset {}", last.last_offset);
    Err(other_log(place, partition.to_string(), &why))
}

fn other_log(place: &Place, partition: String, why: &str) -> ArchiveError {
    ArchiveError::OtherLog { place: place.name().to_owned(), partition, why: why.to_owned() }
}

async fn write_manifest(place: &Place, manifest: &mut Manifest) -> Result<(), ArchiveError> {
    let order = |file: &ArchivedFile| (file.topic.clone(), file.log_partition, file.first_offset);
    manifest.files.sort_by_key(order);
    let schemas: BTreeMap<_, _> = manifest.files.iter().flat_map(|file| file.schemas.clone()).collect();
    manifest.schemas = schemas;
    let sealed = seal(&*manifest).map_err(|error| ArchiveError::Task(error.to_string()))?;
    place.put(MANIFEST, sealed).await
}
