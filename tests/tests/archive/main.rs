//! Archives: what was archived comes back as it was, and what is damaged does not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod bytes_kept;
mod damage;
mod interrupted;
mod nasty;
mod round_trip;
mod sparse;

use std::{collections::BTreeMap, path::Path, sync::Arc};

use object_store::memory::InMemory;
use serviceradar_log::{Event, LogStore, MemoryLog};
use serviceradar_replay::{
    archive::{self, ArchiveError, Archived, Place, manifest::Manifest},
    restore::{self, Plan, RestoreError},
};
use serviceradar_schemas::{
    Operation,
    codec::{NoRegistry, WriterSchemas},
    time::{Clock, ManualClock, SystemClock},
};
use serviceradar_tests::stand::{TENANT, read_all};

/// When what is archived was appended.
const THEN: i64 = 1_700_000_000_000_000;

/// An empty log in memory, whose events are appended now.
fn new_log() -> Arc<dyn LogStore> {
    Arc::new(MemoryLog::new(Arc::new(SystemClock)))
}

/// An empty log in memory, and its clock.
fn old_log() -> (Arc<dyn LogStore>, Arc<ManualClock>) {
    let clock = Arc::new(ManualClock::new(THEN));
    (Arc::new(MemoryLog::new(clock.clone())), clock)
}

fn folder(dir: &Path) -> Place {
    Place::at(dir.to_str().unwrap()).unwrap()
}

fn in_memory() -> Place {
    Place::of(Arc::new(InMemory::new()), "some/where", "memory").unwrap()
}

fn wanted(tenant: &str) -> archive::Wanted {
    archive::Wanted { tenant: tenant.to_owned(), topics: Vec::new(), file_bytes_max: archive::FILE_BYTES_MAX }
}

/// Archives the tenant's topics.
async fn archive_all(log: &Arc<dyn LogStore>, place: &Place) -> Result<Archived, ArchiveError> {
    archive::archive(&**log, &NoRegistry, place, &wanted(TENANT), |_, _| {}).await
}

/// Archives them in files of a few events each.
async fn archive_in_small_files(
    log: &Arc<dyn LogStore>,
    writers: &dyn WriterSchemas,
    place: &Place,
) -> Result<Archived, ArchiveError> {
    let wanted = archive::Wanted { file_bytes_max: 1, ..wanted(TENANT) };
    archive::archive(&**log, writers, place, &wanted, |_, _| {}).await
}

/// Restores into a log, as `restore` does.
async fn restore_with(
    log: &Arc<dyn LogStore>,
    place: &Place,
    wanted: restore::Wanted,
    ids: &BTreeMap<u32, u32>,
) -> Result<Operation, RestoreError> {
    let plan = Plan::make(&**log, place, &wanted).await?;
    plan.verify(place, |_, _| {}).await?;
    let intent = Operation { id: format!("{:x}", rand::random::<u128>()), ..Operation::default() };
    plan.run(log, place, intent, ids, || SystemClock.now(), |_, _| {}).await
}

fn into_empty() -> restore::Wanted {
    restore::Wanted { tenant: TENANT.to_owned(), ..restore::Wanted::default() }
}

async fn restore_all(log: &Arc<dyn LogStore>, place: &Place) -> Result<Operation, RestoreError> {
    restore_with(log, place, into_empty(), &BTreeMap::new()).await
}

/// An event without what a restore changes: offset, append time, and the headers that it adds.
type Kept = (Option<bytes::Bytes>, Option<bytes::Bytes>, Vec<(String, bytes::Bytes)>);

fn kept(event: Event, is_restored: bool) -> Kept {
    let mut headers = event.headers;
    if is_restored {
        headers.truncate(headers.len() - 2);
    }
    (event.key, event.value, headers)
}

/// The restored log has the events that the archive has of the old one, in their order, each once.
async fn assert_restored(old: &Arc<dyn LogStore>, new: &Arc<dyn LogStore>, manifest: &Manifest) {
    let mut events = 0;
    for (topic, log_partition) in manifest.partitions().filter(|(topic, _)| !topic.starts_with("system.")) {
        let before = read_all_from_start(old, topic, log_partition).await;
        let after = read_all(new, topic, log_partition).await;
        events += before.len();
        let offsets = after.iter().map(|event| {
            let (name, value) = event.headers.last().unwrap();
            assert_eq!(name, "archive-offset");
            std::str::from_utf8(value).unwrap().parse::<u64>().unwrap()
        });
        assert!(offsets.eq(before.iter().map(|event| event.offset)), "{topic}/{log_partition}");
        let before = before.into_iter().map(|event| kept(event, false));
        assert!(before.eq(after.into_iter().map(|event| kept(event, true))), "{topic}/{log_partition}");
    }
    assert!(events > 0, "nothing was restored");
}

async fn read_all_from_start(log: &Arc<dyn LogStore>, topic: &str, log_partition: u32) -> Vec<Event> {
    let offsets = log.offsets(topic, log_partition).await.unwrap();
    let limit = serviceradar_log::ReadLimit {
        events: 10_000,
        bytes: 16 << 20,
        wait: std::time::Duration::from_secs(1),
    };
    let (mut events, mut at) = (Vec::new(), offsets.start);
    while at < offsets.end {
        let read = log.read(topic, log_partition, at, limit).await.unwrap();
        assert!(read.next_offset > at, "a read stands still");
        at = read.next_offset;
        events.extend(read.events);
    }
    events
}
