//! Epochs: which chunks make the next one, and when it closes.
//!
//! An epoch closes 10 to 50 ms after its first event; behind, with up to 500,000. All log partitions
//! advance together by intake time, to about a second, so that catching up expires nothing that the
//! others have not said yet; one with nothing unread holds no other back.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serviceradar_materializers::views::{DeadLetter, Frontier, Witness};
use serviceradar_schemas::time::SECOND;
use serviceradar_streams::engine::Batch;
use tokio::sync::mpsc::{self, error::TryRecvError};

use crate::{
    driver::{Driver, DriverError, RETRY, Running},
    goal,
    reader::{Chunk, ReaderError, Said},
    topics::Partition,
};

/// Most events of an epoch.
pub const EVENTS_MAX: u64 = 500_000;
/// Most bytes of an epoch: decoded, and as rows, they take many times as much memory, in two epochs at a time; and
/// while one is written, the next is computed, which pays only if there is a next.
pub const BYTES_MAX: u64 = 16 * 1024 * 1024;
/// An epoch closes when so long nothing more came.
const QUIET: Duration = Duration::from_millis(10);
/// An epoch closes so long after its first event at the latest, where none is being committed: what the database
/// could be writing, it should.
const OPEN_MAX: Duration = Duration::from_millis(50);
/// How far, in intake time, log partitions may be apart within an epoch, microseconds.
const APART_MAX: i64 = SECOND;
/// How long a log partition that is ahead waits for the others.
const AHEAD_WAIT: Duration = Duration::from_secs(5);

/// A log partition, as the epochs see it.
pub struct Lane {
    hears: mpsc::Receiver<Said>,
    /// Read, and not yet taken.
    next: Option<Chunk>,
    /// Intake time of the last chunk seen, while more is known to follow it.
    behind_at: Option<i64>,
    frontier: Frontier,
    /// What was there at the last look.
    witness: Option<Witness>,
}

impl Lane {
    /// A lane that goes on from a frontier.
    pub fn new(hears: mpsc::Receiver<Said>, frontier: Frontier) -> Self {
        let witness = frontier.witness.clone();
        Self { hears, next: None, behind_at: None, frontier, witness }
    }

    /// Up to where it has been taken.
    pub fn frontier(&self) -> &Frontier {
        &self.frontier
    }

    /// The frontier with the witness of the last look: that of what was read since may be of a log made anew.
    pub fn to_check(&self) -> Frontier {
        let witness = self.witness.clone().or_else(|| self.frontier.witness.clone());
        Frontier { witness, ..self.frontier.clone() }
    }

    /// It is the same log up to here.
    pub fn is_checked(&mut self) {
        self.witness = self.frontier.witness.clone();
    }

    fn fill(&mut self) -> Result<(), ReaderError> {
        if self.next.is_none() {
            match self.hears.try_recv() {
                Ok(said) => {
                    let chunk = said?;
                    self.behind_at = (!chunk.at_end).then_some(chunk.intake.1);
                    self.next = Some(chunk);
                }
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => {}
            }
        }
        Ok(())
    }
}

/// The input of an epoch, and how far it moves the frontiers.
pub struct Gathered {
    /// Most bytes of it.
    pub bytes_max: u64,
    /// What the dataflow takes.
    pub batch: Batch,
    /// What was refused.
    pub dead_letters: Vec<DeadLetter>,
    /// Events read.
    pub events: u64,
    /// Size of their values.
    pub bytes: u64,
    /// Greatest intake time.
    pub intake_max: i64,
    /// Log partitions that it moves.
    pub frontiers: BTreeMap<Partition, Frontier>,
}

impl Default for Gathered {
    fn default() -> Self {
        Self::of(BYTES_MAX)
    }
}

impl Gathered {
    /// Empty, for so many bytes at most.
    pub fn of(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            batch: Batch::default(),
            dead_letters: Vec::new(),
            events: 0,
            bytes: 0,
            intake_max: 0,
            frontiers: BTreeMap::new(),
        }
    }

    /// Whether it holds as much as an epoch may.
    pub fn is_full(&self) -> bool {
        self.events >= EVENTS_MAX || self.bytes >= self.bytes_max
    }

    /// Whether it is worth being computed while the epoch before is still being committed.
    pub fn is_half_full(&self) -> bool {
        self.bytes >= self.bytes_max / 2
    }

    /// Adds what was gathered later.
    pub fn add(&mut self, other: Self) {
        self.batch.sightings.extend(other.batch.sightings);
        self.batch.decisions.extend(other.batch.decisions);
        self.dead_letters.extend(other.dead_letters);
        self.events += other.events;
        self.bytes += other.bytes;
        self.intake_max = self.intake_max.max(other.intake_max);
        self.frontiers.extend(other.frontiers);
    }

    /// Takes what the lanes have, as far as they may go together. Returns whether any had something.
    pub fn gather(
        &mut self,
        lanes: &mut BTreeMap<Partition, Lane>,
        now: Instant,
    ) -> Result<bool, ReaderError> {
        let mut took = false;
        while !self.is_full() {
            for lane in lanes.values_mut() {
                lane.fill()?;
            }
            // The slowest of those that have more to say bounds the others.
            let behind = lanes.values().filter_map(|lane| match &lane.next {
                Some(chunk) => Some(chunk.intake.0),
                None => lane.behind_at,
            });
            let horizon = behind.min().unwrap_or(i64::MAX).saturating_add(APART_MAX);
            let mut progress = false;
            for (partition, lane) in lanes.iter_mut() {
                let may = |chunk: &mut Chunk| {
                    chunk.intake.0 <= horizon || now.duration_since(chunk.read_at) > AHEAD_WAIT
                };
                if let Some(chunk) = lane.next.take_if(may) {
                    self.take(partition, &mut lane.frontier, chunk);
                    progress = true;
                }
            }
            if !progress {
                break;
            }
            took = true;
        }
        Ok(took)
    }

    /// Takes a chunk of a log partition, and moves its frontier behind it.
    pub fn take(&mut self, partition: &Partition, frontier: &mut Frontier, chunk: Chunk) {
        self.events += chunk.events;
        self.bytes += chunk.bytes;
        self.intake_max = self.intake_max.max(chunk.intake.1);
        self.batch.sightings.extend(chunk.sightings);
        self.batch.decisions.extend(chunk.decisions);
        self.dead_letters.extend(chunk.refused);
        frontier.next_offset = chunk.next_offset;
        frontier.intake_max = frontier.intake_max.max(chunk.intake.1);
        if chunk.witness.is_some() {
            frontier.witness = chunk.witness;
        }
        self.frontiers.insert(partition.clone(), frontier.clone());
    }
}

impl Driver {
    /// Waits for something to come, at most for as long as the chores can wait. An epoch closes when it is full; when
    /// nothing more comes, or it has been open for long enough, and the one before has committed or nearly so; or when
    /// nothing more comes and it is half full.
    pub(crate) async fn gather(&mut self, running: &mut Running) -> Result<Gathered, DriverError> {
        let mut gathered = Gathered::default();
        let mut opened: Option<Instant> = None;
        let idle_until = Instant::now() + RETRY;
        loop {
            let now = Instant::now();
            let took = gathered.gather(&mut running.lanes, now)?;
            if took {
                opened.get_or_insert(now);
            }
            if gathered.is_full() || self.is_stopped() || self.is_told_to_hold() {
                return Ok(gathered);
            }
            let is_busy = running.committer.is_busy();
            let (deadline, pause) = match opened {
                // What comes while a commit lasts is computed before it ends, unless it is nothing yet.
                Some(opened) if is_busy => {
                    let nearly_done = now + running.committer.nearly_done_in();
                    (nearly_done.max(opened + OPEN_MAX), if gathered.is_half_full() { QUIET } else { RETRY })
                }
                None if is_busy => (now + RETRY, RETRY),
                Some(opened) => (opened + OPEN_MAX, QUIET),
                // What waits for the commit goes on at once.
                None if running.committer.has_ended() || running.indexes.are_made() => {
                    return Ok(gathered);
                }
                None => (idle_until, RETRY),
            };
            if now >= deadline {
                return Ok(gathered);
            }
            let wait = pause.min(deadline - now);
            let mut stop = self.stop.clone();
            tokio::select! {
                _ = running.came.notified() => {}
                _ = stop.changed() => {}
                () = goal::is_another(&mut self.config.goal) => {}
                _ = tokio::time::sleep(wait) => {
                    let is_quiet = !gathered.gather(&mut running.lanes, Instant::now())?;
                    let is_enough = gathered.is_half_full() || !running.committer.is_busy();
                    if opened.is_some() && is_quiet && is_enough {
                        return Ok(gathered);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(chunks: Vec<Chunk>) -> Lane {
        let (says, hears) = mpsc::channel(16);
        for chunk in chunks {
            says.try_send(Ok(chunk)).unwrap();
        }
        let frontier = Frontier {
            topic: "t.observations".to_owned(),
            log_partition: 0,
            next_offset: 0,
            intake_max: 0,
            witness: None,
        };
        Lane::new(hears, frontier)
    }

    fn chunk(next_offset: u64, intake: (i64, i64), at_end: bool) -> Chunk {
        Chunk {
            sightings: Vec::new(),
            decisions: Vec::new(),
            refused: Vec::new(),
            events: 1,
            bytes: 1,
            intake,
            off: BTreeMap::new(),
            next_offset,
            witness: None,
            at_end,
            read_at: Instant::now(),
        }
    }

    fn lanes(list: Vec<Lane>) -> BTreeMap<Partition, Lane> {
        let named = list.into_iter().zip(0..);
        named
            .map(|(lane, log_partition)| (Partition { topic: "t".to_owned(), log_partition }, lane))
            .collect()
    }

    #[test]
    fn a_partition_that_is_ahead_waits_for_one_that_has_more_to_say() {
        let hour = 3600 * SECOND;
        let slow = lane(vec![chunk(1, (0, 0), false), chunk(2, (10, 10), false)]);
        let ahead = lane(vec![chunk(1, (0, 0), false), chunk(2, (hour, hour), true)]);
        let mut lanes = lanes(vec![slow, ahead]);
        let mut gathered = Gathered::default();
        gathered.gather(&mut lanes, Instant::now()).unwrap();
        let offsets: Vec<u64> = lanes.values().map(|lane| lane.frontier().next_offset).collect();
        assert_eq!(offsets, [2, 1]);
        // It does not wait for ever.
        gathered.gather(&mut lanes, Instant::now() + AHEAD_WAIT + Duration::from_secs(1)).unwrap();
        let offsets: Vec<u64> = lanes.values().map(|lane| lane.frontier().next_offset).collect();
        assert_eq!(offsets, [2, 2]);
    }

    #[test]
    fn a_partition_with_nothing_unread_holds_nobody_back() {
        let quiet = lane(vec![chunk(1, (0, 0), true)]);
        let busy = lane(vec![chunk(1, (7_200 * SECOND, 7_200 * SECOND), false)]);
        let mut lanes = lanes(vec![quiet, busy]);
        let mut gathered = Gathered::default();
        assert!(gathered.gather(&mut lanes, Instant::now()).unwrap());
        assert_eq!(gathered.events, 2);
    }
}
