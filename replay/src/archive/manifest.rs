//! The manifest of an archive: which files it has, what is in each, and what they were made from. Written last, as
//! JSON with its own SHA-256: what a restore does not find in it is not there.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serviceradar_schemas::{hex, time};
use sha2::{Digest, Sha256};

/// The version of the format: of files, names and this manifest.
pub const VERSION: u32 = 1;
/// Its name in the archive.
pub const MANIFEST: &str = "manifest.json";

/// What an archive holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`VERSION`] of whoever wrote it.
    pub version: u32,
    /// Whose events they are.
    pub tenant: String,
    /// By name: what each topic was.
    pub topics: BTreeMap<String, ArchivedTopic>,
    /// By registry id, as JSON: every schema that an event in the files was written by, and the registry knew.
    pub schemas: BTreeMap<u32, String>,
    /// In order of topic, log partition and offset.
    pub files: Vec<ArchivedFile>,
}

/// A topic as it was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchivedTopic {
    /// Of each log partition, in order.
    pub log_partitions: Vec<ArchivedOffsets>,
    /// The settings that its stream depends on.
    pub settings: BTreeMap<String, String>,
}

/// Offsets of a log partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchivedOffsets {
    /// First that the log had.
    pub start: u64,
    /// The next after those that were archived.
    pub end: u64,
}

/// A file of the archive: events of one log partition, next to each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ArchivedFile {
    /// Its name in the archive.
    pub path: String,
    /// `<tenant>.<stream>`.
    pub topic: String,
    /// Which of its log partitions.
    pub log_partition: u32,
    /// Where reading began: all that the log had from here to `next_offset` is in the file.
    pub from_offset: u64,
    /// Offset of its first event.
    pub first_offset: u64,
    /// Offset of its last event.
    pub last_offset: u64,
    /// Where to go on reading: a log may have holes.
    pub next_offset: u64,
    /// Events.
    pub records: u64,
    /// Least and greatest intake time.
    pub intake: IntakeSpan,
    /// Its size.
    pub bytes: u64,
    /// Of all of it, in hex.
    pub sha256: String,
    /// [`hash_of`](crate::witness::hash_of) its last event: whether the log that it was read from is still that log.
    pub witness: i64,
    /// By registry id, as JSON: schemas that its events were written by.
    pub schemas: BTreeMap<u32, String>,
}

/// Intake times, from and to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IntakeSpan {
    /// The least, microseconds since the Unix epoch.
    #[serde(with = "time::rfc3339")]
    pub from: i64,
    /// The greatest, microseconds since the Unix epoch.
    #[serde(with = "time::rfc3339")]
    pub to: i64,
}

/// Something with its SHA-256 beside it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed<T> {
    sha256: String,
    content: T,
}

/// Why what is sealed cannot be believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It is no JSON of its kind.
    #[error("it is damaged: {0}")]
    Unreadable(String),
    /// It is not what was written.
    #[error("it is damaged: its SHA-256 is {found}, not {written}")]
    Hash {
        /// As it is.
        found: String,
        /// As it says.
        written: String,
    },
    /// It is of another release.
    #[error("it is of version {found} of the format, and this program reads version {VERSION}")]
    Version {
        /// As it says.
        found: u64,
    },
}

/// As JSON, with its SHA-256.
pub(crate) fn seal<T: Serialize>(content: T) -> Result<Vec<u8>, serde_json::Error> {
    let sha256 = hash(&content)?;
    let mut json = serde_json::to_vec_pretty(&Sealed { sha256, content })?;
    json.push(b'\n');
    Ok(json)
}

/// What [`seal`] wrote.
pub(crate) fn unseal<T: Serialize + DeserializeOwned>(json: &[u8]) -> Result<T, SealError> {
    let unreadable = |error: serde_json::Error| SealError::Unreadable(error.to_string());
    // Of another version it may look otherwise, and is not damaged.
    let loose: serde_json::Value = serde_json::from_slice(json).map_err(unreadable)?;
    if let Some(found) = loose.pointer("/content/version").and_then(serde_json::Value::as_u64)
        && found != u64::from(VERSION)
    {
        return Err(SealError::Version { found });
    }
    let Sealed { sha256: written, content } = serde_json::from_slice(json).map_err(unreadable)?;
    let found = hash(&content).map_err(unreadable)?;
    if found != written {
        return Err(SealError::Hash { found, written });
    }
    Ok(content)
}

/// The SHA-256 of what is sealed, in hex.
pub(crate) fn hash<T: Serialize>(content: &T) -> Result<String, serde_json::Error> {
    Ok(hex::encode(&Sha256::digest(serde_json::to_vec(content)?)))
}

impl Manifest {
    /// Of nothing.
    pub(crate) fn new(tenant: &str) -> Self {
        Self {
            version: VERSION,
            tenant: tenant.to_owned(),
            topics: BTreeMap::new(),
            schemas: BTreeMap::new(),
            files: Vec::new(),
        }
    }

    /// The files of a log partition, in order.
    pub fn files_of<'a>(
        &'a self,
        topic: &'a str,
        log_partition: u32,
    ) -> impl Iterator<Item = &'a ArchivedFile> {
        self.files.iter().filter(move |file| file.topic == topic && file.log_partition == log_partition)
    }

    /// Log partitions, in order.
    pub fn partitions(&self) -> impl Iterator<Item = (&str, u32)> {
        self.topics
            .iter()
            .flat_map(|(topic, of)| (0..of.log_partitions.len() as u32).map(move |at| (&**topic, at)))
    }

    /// Events of a log partition.
    pub fn records_of(&self, topic: &str, log_partition: u32) -> u64 {
        self.files_of(topic, log_partition).map(|file| file.records).sum()
    }

    /// Offsets that the log had lost before they were archived: topic, log partition, from and to.
    pub fn gaps(&self) -> Vec<(String, u32, u64, u64)> {
        let mut gaps = Vec::new();
        for (topic, log_partition) in self.partitions() {
            let mut at = 0;
            for file in self.files_of(topic, log_partition) {
                if file.from_offset > at {
                    gaps.push((topic.to_owned(), log_partition, at, file.from_offset));
                }
                at = file.next_offset;
            }
        }
        gaps
    }

    /// What contradicts itself: the file, and why.
    pub(crate) fn contradictions(&self) -> Vec<(String, String)> {
        let partitions: BTreeSet<_> = self.partitions().collect();
        let mut found = Vec::new();
        let mut at = BTreeMap::new();
        for file in &self.files {
            let of = (&*file.topic, file.log_partition);
            let at = at.entry(of).or_insert(0);
            let is_ordered = *at <= file.from_offset
                && file.from_offset <= file.first_offset
                && file.first_offset <= file.last_offset
                && file.last_offset < file.next_offset;
            if !partitions.contains(&of) {
                found.push((file.path.clone(), format!("the manifest has no topic {}/{}", of.0, of.1)));
            } else if !is_ordered {
                found.push((
                    file.path.clone(),
                    "the manifest has its offsets in another file, too".to_owned(),
                ));
            }
            *at = file.next_offset;
        }
        found
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test")]
mod tests {
    use super::*;

    /// A restore that believed it would leave events out, or look for others.
    #[test]
    fn a_manifest_with_any_digit_changed_is_refused() {
        let mut manifest = Manifest::new("t");
        let offsets = ArchivedOffsets { start: 3, end: 7 };
        let topic = ArchivedTopic { log_partitions: vec![offsets], settings: BTreeMap::new() };
        manifest.topics.insert("t.observations".to_owned(), topic);
        let json = seal(&manifest).unwrap();
        assert_eq!(unseal::<Manifest>(&json).unwrap(), manifest);
        for at in 0..json.len() {
            if json[at].is_ascii_alphanumeric() {
                let mut damaged = json.clone();
                damaged[at] ^= 1;
                assert!(unseal::<Manifest>(&damaged).is_err(), "at {at}");
            }
        }
    }

    #[test]
    fn a_manifest_of_a_later_version_is_told_from_a_damaged_one() {
        let later = br#"{"sha256": "", "content": {"version": 2, "shards": []}}"#;
        assert_eq!(unseal::<Manifest>(later), Err(SealError::Version { found: 2 }));
    }
}
