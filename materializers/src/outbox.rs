//! The outbox: what an epoch has to publish, written with it, published after it.
//!
//! A device of which only sightings changed is not published: a crawl that found nothing new would
//! otherwise send the whole inventory to every consumer.

use std::collections::HashMap;

use bytes::Bytes;
use serviceradar_schemas::{encode, topics::Stream};
use serviceradar_streams::changes::Row;
use serviceradar_streams::rows::EpochOutput;

use crate::views::{Epoch, OutboxEntry};

/// Header of a device change: the epoch that made it.
pub const EPOCH_HEADER: &str = "epoch";
/// Header of a device change: the generation that made it.
pub const GENERATION_HEADER: &str = "generation";
/// Header of a tombstone: the uid of the device that has the records now.
pub const REDIRECT_HEADER: &str = "redirect";
/// Header of a dead letter: topic/log partition/offset where it stands.
pub const DEAD_LETTER_ID_HEADER: &str = "dead-letter-id";
/// Header of a dead letter: why it was refused.
pub const DEAD_LETTER_REASON_HEADER: &str = "dead-letter-reason";
/// Header of a mark among the dead letters: the id of one that was published again.
pub const REPLAYED_HEADER: &str = "dead-letter-replayed";
/// Header of the same mark: topic/log partition/offset where it stands now.
pub const REPLAYED_TO_HEADER: &str = "dead-letter-replayed-to";

/// An event to be published.
pub(crate) struct Entry {
    pub(crate) stream: Stream,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<(String, Bytes)>,
}

impl Entry {
    /// The entry at its place in an epoch.
    pub(crate) fn numbered(self, epoch: u64, sequence: i64) -> OutboxEntry {
        let Self { stream, key, value, headers } = self;
        OutboxEntry { epoch, sequence, stream: stream.name().to_owned(), key, value, headers }
    }
}

impl OutboxEntry {
    /// Whether it stands for all devices there are, each as it is when it is published: a load leaves one such
    /// entry, not one for each device.
    pub fn is_all_devices(&self) -> bool {
        self.stream == Stream::DeviceChanges.name() && self.key.is_none()
    }
}

/// The entry that stands for all devices.
pub(crate) fn all_devices() -> Entry {
    Entry { stream: Stream::DeviceChanges, key: None, value: None, headers: Vec::new() }
}

/// Headers of a device change.
pub fn headers(generation: i32, epoch: u64) -> Vec<(String, Bytes)> {
    vec![
        (EPOCH_HEADER.to_owned(), Bytes::from(epoch.to_string())),
        (GENERATION_HEADER.to_owned(), Bytes::from(generation.to_string())),
    ]
}

/// What an epoch has to publish of devices, in order: those that are, then tombstones.
pub(crate) fn device_changes(
    generation: i32,
    epoch: u64,
    output: &EpochOutput,
) -> impl Iterator<Item = Entry> + Send {
    let headers = headers(generation, epoch);
    let devices = &output.devices;
    let merges = output.merges.iter();
    let redirects: HashMap<String, String> =
        merges.map(|merge| (merge.from_uid.to_string(), merge.to_uid.to_string())).collect();
    let of_whole = headers.clone();
    let whole = devices.new.iter().chain(&devices.changed).map(move |row| Entry {
        stream: Stream::DeviceChanges,
        key: Some(Bytes::from(row.key())),
        value: Some(Bytes::from(encode(row))),
        headers: of_whole.clone(),
    });
    let gone = devices.gone.iter().map(move |uid| {
        let redirect = redirects.get(uid).map(|to| (REDIRECT_HEADER.to_owned(), Bytes::from(to.clone())));
        Entry {
            stream: Stream::DeviceChanges,
            key: Some(Bytes::from(uid.clone())),
            value: None,
            headers: headers.iter().cloned().chain(redirect).collect(),
        }
    });
    whole.chain(gone)
}

/// Dead letters to publish: the bytes as they came; why, and whence, in headers.
pub(crate) fn dead_letters(epoch: &Epoch) -> impl Iterator<Item = Entry> + Send {
    epoch.dead_letters.iter().map(|letter| {
        let id = format!("{}/{}/{}", letter.topic, letter.log_partition, letter.offset);
        let mut headers = letter.headers.clone();
        headers.push((DEAD_LETTER_ID_HEADER.to_owned(), Bytes::from(id)));
        headers.push((DEAD_LETTER_REASON_HEADER.to_owned(), Bytes::from(letter.reason.clone())));
        Entry { stream: Stream::DeadLetters, key: letter.key.clone(), value: letter.value.clone(), headers }
    })
}
