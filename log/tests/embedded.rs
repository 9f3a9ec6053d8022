//! What the embedded log adds to the laws of every store: one process at a time, and files that
//! are not what it wrote.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use serviceradar_log::{
    Batch, BatchId, EmbeddedLog, LogError, LogStore, MemoryLog, NewEvent, Publisher, ReadLimit,
};
use serviceradar_schemas::time::SystemClock;
use tokio::time::timeout;

const TOPIC: &str = "t.observations";
/// A page of the log's file.
const PAGE_BYTES: usize = 4096;
/// Longest wait for what must come: only what hangs takes so long.
const HANGS: Duration = Duration::from_secs(120);

fn open(folder: &Path) -> Result<EmbeddedLog, LogError> {
    EmbeddedLog::open(folder, Arc::new(SystemClock))
}

fn file(folder: &Path) -> PathBuf {
    folder.join("log.redb")
}

fn batch(producer: u64, sequence: u64) -> Batch {
    Batch { id: BatchId { producer, sequence }, events: vec![NewEvent::default()] }
}

#[tokio::test]
async fn one_process_holds_a_log_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).unwrap();
    log.create_topic(TOPIC, 1).await.unwrap();
    let refused = open(folder.path()).unwrap_err();
    let LogError::Unavailable(why) = &refused else { panic!("{refused}") };
    assert!(why.contains("open in another process"), "{why}");
    log.append(TOPIC, 0, batch(1, 0)).await.unwrap();
    drop(log);
    assert_eq!(open(folder.path()).unwrap().offsets(TOPIC, 0).await.unwrap().end, 1);
}

/// A file that is no log, or no more, is not taken for a new one.
#[test]
fn what_is_no_log_is_corrupt_and_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()).unwrap());
    let whole = fs::read(file(folder.path())).unwrap();
    let noise: Vec<u8> = (0..100_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let head = [&whole[..4096], &noise[4096..]].concat();
    let no_logs: [&[u8]; 7] =
        [&[], b"some text", &[0; 80_000], &noise, &whole[..9], &whole[..whole.len() / 2], &head];
    for bytes in no_logs {
        fs::write(file(folder.path()), bytes).unwrap();
        let refused = open(folder.path()).map(drop).unwrap_err();
        assert!(matches!(refused, LogError::Corrupt(_)), "{refused}, of {} bytes", bytes.len());
        assert!(fs::read(file(folder.path())).unwrap() == bytes, "{} bytes were changed", bytes.len());
    }
    fs::write(file(folder.path()), &whole).unwrap();
    drop(open(folder.path()).unwrap());
}

/// After a crash the storage looks for the last commit that is whole. One that was acknowledged and
/// damaged later must not pass for one that was never finished, or its events would be gone unseen.
#[tokio::test]
async fn damage_to_the_last_commit_is_not_taken_for_an_unfinished_one() {
    let folder = tempfile::tempdir().unwrap();
    let log = open(folder.path()).unwrap();
    log.create_topic(TOPIC, 1).await.unwrap();
    let mut images = Vec::new();
    for sequence in 0..3 {
        log.append(TOPIC, 0, batch(1, sequence)).await.unwrap();
        // What a crash at this moment would leave.
        images.push(fs::read(file(folder.path())).unwrap());
    }
    let [before, last] = &images[1..] else { unreachable!() };
    let page =
        |image: &[u8], at: usize| image.get(at * PAGE_BYTES..(at + 1) * PAGE_BYTES).map(<[u8]>::to_vec);
    let written = (1..last.len() / PAGE_BYTES).filter(|at| page(before, *at) != page(last, *at));
    let mut damaged = 0;
    for at in written {
        let crashed = tempfile::tempdir().unwrap();
        let mut image = last.clone();
        image[at * PAGE_BYTES..(at + 1) * PAGE_BYTES].reverse();
        fs::write(file(crashed.path()), image).unwrap();
        let end = match open(crashed.path()) {
            Ok(log) => log.offsets(TOPIC, 0).await.map(|offsets| offsets.end),
            Err(error) => Err(error),
        };
        match end {
            Err(LogError::Corrupt(_)) => damaged += 1,
            end => assert_eq!(end, Ok(3), "with page {at} damaged"),
        }
    }
    assert!(damaged > 0, "no page of the last commit was hit");
}

/// Such a process leaves a file of its own, and none that looks like a log.
#[tokio::test]
async fn a_process_that_died_making_the_log_is_not_in_the_way() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(format!("log.redb.{}", std::process::id())), [0; 70_000]).unwrap();
    open(folder.path()).unwrap().create_topic(TOPIC, 1).await.unwrap();
    open(folder.path()).unwrap().describe_topic(TOPIC).await.unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "only the log is left");
}

#[test]
fn where_the_folder_cannot_be_made_the_log_is_unavailable() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("taken"), "by a file").unwrap();
    let refused = open(&folder.path().join("taken/log")).map(drop).unwrap_err();
    assert!(matches!(refused, LogError::Unavailable(_)), "{refused}");
}

fn stores() -> (tempfile::TempDir, [Arc<dyn LogStore>; 2]) {
    let folder = tempfile::tempdir().unwrap();
    let embedded = Arc::new(open(folder.path()).unwrap());
    (folder, [Arc::new(MemoryLog::new(Arc::new(SystemClock))), embedded])
}

/// The log remembers a thousand producers; the one that it forgot must not be taken for a new one,
/// and a publisher goes on under another name.
#[tokio::test]
async fn the_producer_that_was_silent_longest_is_forgotten() {
    let (_folder, stores) = stores();
    for store in stores {
        store.create_topic(TOPIC, 1).await.unwrap();
        let publisher = Publisher::new(Arc::clone(&store), TOPIC);
        publisher.publish(vec![NewEvent::default()]).await.unwrap();
        store.append(TOPIC, 0, batch(0, 0)).await.unwrap();
        let appends = (1..=1_000).map(|producer| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.append(TOPIC, 0, batch(producer, 0)).await })
        });
        for append in appends.collect::<Vec<_>>() {
            append.await.unwrap().unwrap();
        }
        let forgotten = LogError::OutOfSequence { producer: 0, expected: 0, got: 1 };
        assert_eq!(store.append(TOPIC, 0, batch(0, 1)).await, Err(forgotten));
        store.append(TOPIC, 0, batch(1_000, 1)).await.unwrap();
        assert_eq!(publisher.publish(vec![NewEvent::default()]).await, Ok(vec![(0, 1_003)]));
    }
}

#[tokio::test]
async fn who_waits_for_a_topic_learns_that_it_is_deleted() {
    let (_folder, stores) = stores();
    for store in stores {
        store.create_topic(TOPIC, 1).await.unwrap();
        let reader = Arc::clone(&store);
        let limit = ReadLimit { events: 1, bytes: 1, wait: HANGS * 10 };
        let reading = tokio::spawn(async move { reader.read(TOPIC, 0, 0, limit).await });
        tokio::time::sleep(Duration::from_millis(50)).await;
        store.delete_topic(TOPIC).await.unwrap();
        let told = timeout(HANGS, reading).await.expect("it waits on").unwrap().unwrap_err();
        assert_eq!(told, LogError::UnknownTopic(TOPIC.to_owned()));
    }
}
