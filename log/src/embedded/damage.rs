//! One byte of the file is another: whoever reads is told what is damaged, or reads what was written.

use std::{
    io,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, mpsc},
    thread,
    time::Duration,
};

use redb::{Builder, StorageBackend};
use serviceradar_schemas::time::ManualClock;

use super::{EmbeddedLog, Storage};
use crate::store::{
    Batch, BatchId, Event, LogError, LogStore, NewEvent, Offsets, ReadLimit, TopicDescription,
};

/// What errors call the file.
const FILE: &str = "damaged/log.redb";
/// What the byte at a place is changed by: one of its bits, or all.
type Change = fn(usize) -> u8;
/// Longest wait for the next outcome: only what hangs takes so long.
const HANGS: Duration = Duration::from_secs(60);

/// A file in memory, and which bytes of it were read.
#[derive(Clone, Default)]
struct Image(Arc<Mutex<(Vec<u8>, Vec<bool>)>>);

impl Image {
    fn of(bytes: Vec<u8>) -> Self {
        let read = vec![false; bytes.len()];
        Self(Arc::new(Mutex::new((bytes, read))))
    }

    fn state(&self) -> MutexGuard<'_, (Vec<u8>, Vec<bool>)> {
        self.0.lock().unwrap()
    }

    fn open(&self) -> Result<EmbeddedLog, LogError> {
        let image = self.clone();
        let open = move || {
            let mut builder = Builder::new();
            builder.set_check_integrity_on_open(true).create_with_backend(image.clone())
        };
        EmbeddedLog::over(Storage::new(FILE.into(), Box::new(open))?, Arc::new(ManualClock::new(7)))
    }
}

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Image")
    }
}

fn range(offset: u64, length: usize) -> Range<usize> {
    let offset = offset as usize;
    offset..offset.saturating_add(length)
}

impl StorageBackend for Image {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().0.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let (bytes, read) = &mut *self.state();
        let range = range(offset, out.len());
        out.copy_from_slice(bytes.get(range.clone()).ok_or(io::ErrorKind::UnexpectedEof)?);
        read[range].fill(true);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let (bytes, read) = &mut *self.state();
        bytes.resize(length as usize, 0);
        // What was read before the file was cut was read.
        read.resize(read.len().max(bytes.len()), false);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, new: &[u8]) -> io::Result<()> {
        let found = &mut self.state().0;
        found.get_mut(range(offset, new.len())).ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(new);
        Ok(())
    }
}

/// All that a log holds.
type Held = Vec<(TopicDescription, Vec<(Offsets, Vec<Event>)>)>;

async fn read(log: &EmbeddedLog) -> Result<Held, LogError> {
    let mut held = Vec::new();
    for topic in log.topics(None).await? {
        let mut partitions = Vec::new();
        for log_partition in 0..topic.log_partitions {
            let offsets = log.offsets(&topic.name, log_partition).await?;
            let limit = ReadLimit { events: usize::MAX, bytes: usize::MAX, wait: Duration::ZERO };
            let read = log.read(&topic.name, log_partition, offsets.start, limit).await?;
            partitions.push((offsets, read.events));
        }
        held.push((topic, partitions));
    }
    Ok(held)
}

/// A log of three topics, one of whose log partitions has lost its beginning: as a process that died leaves it, and
/// as one that closed it does.
async fn small_log() -> [Vec<u8>; 2] {
    let image = Image::default();
    let log = image.open().unwrap();
    let event = |n: u64| NewEvent {
        key: Some(format!("key {n}").into()),
        value: (!n.is_multiple_of(3)).then(|| format!("value {n}").into()),
        headers: vec![("ce_id".to_owned(), n.to_string().into())],
    };
    for (topic, log_partitions) in [("a.observations", 2), ("a.decisions", 1), ("b.observations", 1)] {
        log.create_topic(topic, log_partitions).await.unwrap();
        for (log_partition, sequence) in (0..log_partitions).flat_map(|one| [(one, 0), (one, 1)]) {
            let events = (0..4).map(|n| event(sequence * 4 + n)).collect();
            let batch = Batch { id: BatchId { producer: 1, sequence }, events };
            log.append(topic, log_partition, batch).await.unwrap();
        }
    }
    log.delete_before("a.observations", 1, 5).await.unwrap();
    let died = image.state().0.clone();
    drop(log);
    let closed = image.state().0.clone();
    [died, closed]
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// What reading a file gives, and which of its bytes that took.
fn outcome(runtime: &tokio::runtime::Runtime, bytes: Vec<u8>) -> (Result<Held, LogError>, Vec<bool>) {
    let image = Image::of(bytes);
    let held = match image.open() {
        Ok(log) => runtime.block_on(read(&log)),
        Err(error) => Err(error),
    };
    let read = image.state().1.clone();
    (held, read)
}

#[test]
fn whichever_byte_is_damaged_it_is_named_or_harmless() {
    // The storage panics on some damage, which `guarded` catches; what it prints would be many megabytes.
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let of_storage = info.location().is_some_and(|location| location.file().contains("redb"));
        if !of_storage {
            print(info);
        }
    }));
    let [died, closed] = runtime().block_on(small_log());
    damage_each_byte(died, |at| 1 << (at % 8));
    damage_each_byte(closed, |_| 0xFF);
}

/// A byte that is not read cannot be missed: with it damaged all goes on as it did. All others are tried.
fn damage_each_byte(bytes: Vec<u8>, change: Change) {
    let (whole, read) = outcome(&runtime(), bytes.clone());
    let whole = whole.unwrap();
    let events: usize =
        whole.iter().flat_map(|(_, partitions)| partitions).map(|(_, events)| events.len()).sum();
    assert_eq!((whole.len(), events), (3, 27));
    let places: Vec<usize> = (0..bytes.len()).filter(|at| read[*at]).collect();
    let (tells, hears) = mpsc::channel();
    for worker in 0..2 {
        let (tells, bytes, places) = (tells.clone(), bytes.clone(), places.clone());
        thread::spawn(move || {
            let runtime = runtime();
            for at in places.into_iter().skip(worker).step_by(2) {
                let mut damaged = bytes.clone();
                damaged[at] ^= change(at);
                let (held, _) = outcome(&runtime, damaged);
                if tells.send((at, change(at), held)).is_err() {
                    return;
                }
            }
        });
    }
    drop(tells);
    let (mut named, mut harmless) = (0, 0);
    for _ in &places {
        let (at, change, held) =
            hears.recv_timeout(HANGS).expect("a read of a damaged file hangs, or panics");
        match held {
            Ok(held) => {
                assert!(held == whole, "byte {at} by {change:#x}: {held:?} instead of {whole:?}");
                harmless += 1;
            }
            Err(LogError::Corrupt(what)) => {
                assert!(what.contains(FILE), "byte {at} by {change:#x}: {what}");
                named += 1;
            }
            Err(other) => panic!("byte {at} by {change:#x}: {other}"),
        }
    }
    assert!(named > 1_000 && harmless > 0, "{named} named, {harmless} harmless");
    eprintln!("{} bytes of {}: {named} named, {harmless} harmless", places.len(), bytes.len());
}
