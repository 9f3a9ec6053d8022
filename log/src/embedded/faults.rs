//! What a disk can do to the log: fail at any write, or lose its power between any two.
//!
//! The disk is simulated, because killing a process leaves what it had written to the system, and
//! a power loss does not: of what was written since the last sync, any part may be gone.

use std::{
    fmt, io,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use redb::{Builder, StorageBackend};
use serviceradar_schemas::time::ManualClock;

use super::{EmbeddedLog, Storage};
use crate::store::{Batch, BatchId, LogError, LogStore, NewEvent, Offsets, ReadLimit};

const TOPIC: &str = "t.observations";
/// What a disk writes as one.
const SECTOR_BYTES: usize = 512;

#[derive(Clone, Default)]
struct Disk(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// What is there after a power loss for certain.
    synced: Vec<u8>,
    /// What is read.
    written: Vec<u8>,
    /// What was written since the last sync.
    unsynced: Vec<Change>,
    /// Changes and syncs that succeed from now on; `None` for all.
    left: Option<usize>,
}

enum Change {
    Length(usize),
    Bytes(usize, Vec<u8>),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Change::Length(length) => bytes.resize(*length, 0),
            Change::Bytes(offset, new) => {
                // Where the new length was lost, so is what is beyond the old one.
                let room = bytes.len().saturating_sub(*offset).min(new.len());
                bytes[*offset..][..room].copy_from_slice(&new[..room]);
            }
        }
    }
}

impl State {
    /// Counts a change or a sync, and fails it where the disk takes no more.
    fn step(&mut self, error: io::ErrorKind) -> io::Result<()> {
        if self.left == Some(0) {
            return Err(error.into());
        }
        self.left = self.left.map(|left| left - 1);
        Ok(())
    }

    fn change(&mut self, change: Change) -> io::Result<()> {
        self.step(io::ErrorKind::StorageFull)?;
        change.apply(&mut self.written);
        self.unsynced.push(change);
        Ok(())
    }
}

impl Disk {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    fn open(&self) -> Result<EmbeddedLog, LogError> {
        let disk = self.clone();
        let open = move || {
            let mut builder = Builder::new();
            builder.set_check_integrity_on_open(true).create_with_backend(disk.clone())
        };
        let storage = Storage::new("the disk".into(), Box::new(open))?;
        EmbeddedLog::over(storage, Arc::new(ManualClock::default()))
    }

    /// The disk after a power loss: of the unsynced changes some are there, whole or in part.
    fn after_power_loss(&self, chance: &mut StdRng) -> Self {
        let state = self.state();
        let mut bytes = state.synced.clone();
        for change in &state.unsynced {
            match change {
                Change::Length(_) => change.apply(&mut bytes),
                Change::Bytes(offset, new) => {
                    for (sector, new) in new.chunks(SECTOR_BYTES).enumerate() {
                        if chance.random() && offset + sector * SECTOR_BYTES < bytes.len() {
                            Change::Bytes(offset + sector * SECTOR_BYTES, new.to_vec()).apply(&mut bytes);
                        }
                    }
                }
            }
        }
        let state = State { synced: bytes.clone(), written: bytes, ..State::default() };
        Self(Arc::new(Mutex::new(state)))
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Disk")
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().written.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let found = state.written.get(offset as usize..offset as usize + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.state().change(Change::Length(length as usize))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        state.step(io::ErrorKind::Other)?;
        state.synced = state.written.clone();
        state.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.state().change(Change::Bytes(offset as usize, bytes.to_vec()))
    }
}

/// Batches of one producer; their events have numbers as values, which go on through all of them.
fn batches() -> Vec<Batch> {
    let sizes = [1, 10, 1, 3_000, 1, 100, 20_000, 1, 1];
    let mut numbers = 0_u64..;
    let batch = |(sequence, size): (u64, &usize)| Batch {
        id: BatchId { producer: 7, sequence },
        events: numbers
            .by_ref()
            .take(*size)
            .map(|n| NewEvent { value: Some(n.to_be_bytes().to_vec().into()), ..NewEvent::default() })
            .collect(),
    };
    (0..).zip(&sizes).map(batch).collect()
}

/// How many events are in the log; they must be the first ones, each once.
async fn count(log: &EmbeddedLog) -> Result<u64, LogError> {
    let limit = ReadLimit { events: usize::MAX, bytes: usize::MAX, wait: Duration::ZERO };
    let Offsets { start, end } = log.offsets(TOPIC, 0).await?;
    let events = log.read(TOPIC, 0, start, limit).await?.events;
    let found = events.iter().map(|event| event.value.as_deref().unwrap().try_into().unwrap());
    assert!(found.map(u64::from_be_bytes).eq(0..end), "{end} events, and not as they were appended");
    Ok(end)
}

/// Whichever write or sync it is that fails, and all after it: what was acknowledged is there when
/// the disk works again, and the refused batch is then taken, once, without a restart.
#[tokio::test]
async fn a_failing_disk_loses_and_doubles_nothing() {
    let mut refused = true;
    for left in 0.. {
        if !refused {
            assert!(left > 50, "only {left} writes and syncs were tried");
            return;
        }
        let disk = Disk::default();
        let log = disk.open().unwrap();
        log.create_topic(TOPIC, 1).await.unwrap();
        let mut appended = 0;
        disk.state().left = Some(left);
        refused = false;
        for batch in batches() {
            let mut taken = log.append(TOPIC, 0, batch.clone()).await;
            if let Err(error) = &taken {
                assert!(matches!(error, LogError::Unavailable(_)), "{error}, after {left} writes");
                let again = log.append(TOPIC, 0, batch.clone()).await.unwrap_err();
                assert!(matches!(again, LogError::Unavailable(_)), "{again}, after {left} writes");
                disk.state().left = None;
                refused = true;
                let size = batch.events.len() as u64;
                // The commit may have gone through before it failed.
                let held = count(&log).await.unwrap();
                assert!(held == appended || held == appended + size, "{held} events, {left} writes");
                taken = log.append(TOPIC, 0, batch.clone()).await;
            }
            assert_eq!(taken.unwrap().first_offset, appended, "after {left} writes");
            appended += batch.events.len() as u64;
        }
        disk.state().left = None;
        assert_eq!(count(&log).await, Ok(appended));
        drop(log);
        assert_eq!(count(&disk.open().unwrap()).await, Ok(appended));
    }
}

/// Whenever it goes: what was acknowledged is there, and what was not can be sent again.
#[tokio::test]
async fn a_power_loss_loses_and_doubles_nothing() {
    for seed in 0..150 {
        let mut chance = StdRng::seed_from_u64(seed);
        let mut disk = Disk::default();
        let mut log = disk.open().unwrap();
        log.create_topic(TOPIC, 1).await.unwrap();
        let mut appended = 0;
        disk.state().left = Some(chance.random_range(0..120));
        for batch in batches() {
            let size = batch.events.len() as u64;
            let mut taken = log.append(TOPIC, 0, batch.clone()).await;
            if taken.is_err() {
                disk = disk.after_power_loss(&mut chance);
                log = disk.open().unwrap();
                let held = count(&log).await.unwrap();
                assert!(held == appended || held == appended + size, "{held} events, seed {seed}");
                taken = log.append(TOPIC, 0, batch).await;
            }
            assert_eq!(taken.unwrap().first_offset, appended, "seed {seed}");
            appended += size;
        }
        assert_eq!(count(&log).await.unwrap(), appended, "seed {seed}");
    }
}
