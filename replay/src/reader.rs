//! Readers: one task per log partition reads on from its frontier and decodes, as far as the epochs
//! take it: what waits between them is bounded.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use serviceradar_log::{LogError, LogStore, Read, ReadLimit};
use serviceradar_materializers::views::{DeadLetter, Frontier, Witness};
use serviceradar_schemas::{
    Source,
    codec::{WriterSchemas, registry_id},
    time::{Clock, DAY},
};
use serviceradar_streams::{decisions::Taken, normalise::Sighting};
use tokio::sync::mpsc::{self, error::SendError};

use crate::{
    intake::{Intake, Taking},
    intake_times::IntakeTimes,
    operations::OperationsError,
    status::StatusBoard,
    topics::Partition,
    witness::{LogChanged, witness_of},
};

/// Events of one read: some milliseconds of decoding.
pub(crate) const READ_EVENTS: usize = 2_000;
/// Bytes of one read: with the chunks below, what a log partition may have waiting.
pub(crate) const READ_BYTES: usize = 256 * 1024;
/// Chunks that wait between a reader and the epochs.
const CHUNKS_WAITING: usize = 4;
/// How long one read waits for something to come.
pub(crate) const READ_WAIT: Duration = Duration::from_secs(1);
/// First pause after a failed read; it doubles.
const RETRY: Duration = Duration::from_millis(100);
/// Longest pause after a failed read.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// An append time so far ahead of the machine's clock stalls its log partition.
pub(crate) const AHEAD_MAX: i64 = DAY;

/// Decoded events of one log partition, next to each other.
pub struct Chunk {
    /// Observations.
    pub sightings: Vec<Sighting>,
    /// Decisions.
    pub decisions: Vec<Taken>,
    /// What was refused.
    pub refused: Vec<DeadLetter>,
    /// Events read.
    pub events: u64,
    /// Size of their values.
    pub bytes: u64,
    /// Least and greatest intake time.
    pub intake: (i64, i64),
    /// Where to go on reading.
    pub next_offset: u64,
    /// Sources whose clock is off, and how far it is ahead, microseconds.
    pub off: BTreeMap<Source, i64>,
    /// The last of them.
    pub witness: Option<Witness>,
    /// Whether nothing more was there when it was read.
    pub at_end: bool,
    /// When it was read, to bound how long it waits for slower log partitions.
    pub read_at: Instant,
}

/// Why a reader stopped.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ReaderError {
    /// This is another log.
    #[error(transparent)]
    LogChanged(#[from] LogChanged),
    /// What operators did to it is not known.
    #[error(transparent)]
    Operations(#[from] OperationsError),
    /// The log refused for good.
    #[error("{partition} cannot be read: {error}")]
    Log {
        /// Which.
        partition: String,
        /// Why.
        error: LogError,
    },
    /// Decoding broke off: a defect of this program.
    #[error("{partition}: decoding broke off")]
    Decoding {
        /// Which.
        partition: String,
    },
}

/// What a reader says.
pub type Said = Result<Chunk, ReaderError>;

/// Starts the reader of a log partition at its frontier, which reads what is before `until` and then waits. It ends when the
/// receiver is dropped.
pub fn start(
    log: Arc<dyn LogStore>,
    writers: Arc<dyn WriterSchemas>,
    clock: Arc<dyn Clock>,
    partition: Partition,
    (frontier, until): (Frontier, u64),
    board: StatusBoard,
    came: Arc<tokio::sync::Notify>,
) -> mpsc::Receiver<Said> {
    let (says, hears) = mpsc::channel(CHUNKS_WAITING);
    tokio::spawn(async move {
        let reading = Some(Box::new(Reading::new(partition.clone(), frontier.intake_max, writers.clone())));
        let reader = Reader { log, writers, clock, partition, until, board, reading };
        // Whoever hears no more wants the log back at once, not when the read under way returns.
        let deaf = says.clone();
        tokio::select! {
            () = deaf.closed() => {}
            () = reader.run(frontier, says, came) => {}
        }
    });
    hears
}

struct Reader {
    log: Arc<dyn LogStore>,
    writers: Arc<dyn WriterSchemas>,
    clock: Arc<dyn Clock>,
    partition: Partition,
    /// The offset before which it reads.
    until: u64,
    board: StatusBoard,
    /// At hand, but while it decodes.
    reading: Option<Box<Reading>>,
}

impl Reader {
    async fn run(mut self, mut frontier: Frontier, says: mpsc::Sender<Said>, came: Arc<tokio::sync::Notify>) {
        let mut pause = RETRY;
        let mut check = true;
        loop {
            let next = if check { self.check(&frontier).await } else { Ok(frontier.next_offset) };
            let read = match next {
                Ok(next) => self.read(next).await,
                Err(stop) => Err(stop),
            };
            if read.is_ok() {
                self.board.stall(&self.partition, None);
            }
            match read {
                Ok(Some(chunk)) => {
                    (check, pause) = (false, RETRY);
                    frontier.next_offset = chunk.next_offset;
                    frontier.witness = chunk.witness.clone().or(frontier.witness);
                    if chunk.events > 0 {
                        // Before anybody can have committed it.
                        self.board.read(&self.partition, chunk.intake.0, chunk.next_offset);
                        // What is older is history.
                        if chunk.at_end {
                            self.board.clocks(&chunk.off);
                        }
                    }
                    let Ok(place) = self.place(&says).await else {
                        return;
                    };
                    place.send(Ok(chunk));
                    came.notify_one();
                }
                Ok(None) if says.is_closed() => return,
                Ok(None) => (check, pause) = (false, RETRY),
                Err(Stop::Wait(why)) => {
                    self.board.stall(&self.partition, Some(why));
                    tokio::time::sleep(pause).await;
                    // After a reconnect it may be another log.
                    (check, pause) = (true, (pause * 2).min(RETRY_MAX));
                    if says.is_closed() {
                        return;
                    }
                }
                Err(Stop::Ended(error)) => {
                    // Whoever hears no more needs no answer.
                    let _ = says.send(Err(error)).await;
                    came.notify_one();
                    return;
                }
            }
        }
    }

    /// A place among the chunks that wait. While the epochs take none the log grows, and so does the lag.
    async fn place<'a>(&self, says: &'a mpsc::Sender<Said>) -> Result<mpsc::Permit<'a, Said>, SendError<()>> {
        let Partition { topic, log_partition } = &self.partition;
        loop {
            tokio::select! {
                place = says.reserve() => return place,
                () = tokio::time::sleep(READ_WAIT) => {
                    if let Ok(offsets) = self.log.offsets(topic, *log_partition).await {
                        self.board.end(&self.partition, offsets.end);
                    }
                }
            }
        }
    }

    async fn check(&self, frontier: &Frontier) -> Result<u64, Stop> {
        match crate::witness::check(&*self.log, &self.partition, frontier).await {
            Ok(Ok(next)) => Ok(next),
            Ok(Err(changed)) => Err(Stop::Ended(changed.into())),
            Err(error) => Err(self.unknown(error)),
        }
    }

    fn unknown(&self, error: OperationsError) -> Stop {
        match error {
            OperationsError::Log(error) => self.stop(error),
            error => Stop::Ended(error.into()),
        }
    }

    fn stop(&self, error: LogError) -> Stop {
        match error {
            LogError::Unavailable(why) => Stop::Wait(why),
            error => Stop::Ended(ReaderError::Log { partition: self.partition.to_string(), error }),
        }
    }

    /// Reads on; none where nothing came.
    async fn read(&mut self, offset: u64) -> Result<Option<Chunk>, Stop> {
        if offset >= self.until {
            tokio::time::sleep(READ_WAIT).await;
            return Ok(None);
        }
        let limit = ReadLimit { events: READ_EVENTS, bytes: READ_BYTES, wait: READ_WAIT };
        let Partition { topic, log_partition } = &self.partition;
        let read = self.log.read(topic, *log_partition, offset, limit).await;
        let mut read = read.map_err(|error| self.stop(error))?;
        read.events.retain(|event| event.offset < self.until);
        read.next_offset = read.next_offset.min(self.until);
        if read.events.is_empty() && read.next_offset == offset {
            return Ok(None);
        }
        let end = self.log.offsets(topic, *log_partition).await.map_err(|error| self.stop(error))?.end;
        self.board.end(&self.partition, end);
        // Not while decoding: there are few threads for that, and what they all waited for would need one, too.
        self.writers.learn(&schemas_of(&read)).await.map_err(|error| Stop::Wait(error.to_string()))?;
        let (latest, end) = (self.clock.now().saturating_add(AHEAD_MAX), end.min(self.until));
        let gone = || Stop::Ended(ReaderError::Decoding { partition: self.partition.to_string() });
        let mut reading = self.reading.take().ok_or_else(gone)?;
        let learnt = reading.learn(&*self.log, &read).await;
        if let Err(error) = learnt {
            self.reading = Some(reading);
            return Err(self.unknown(error));
        }
        // Some milliseconds of work, for which the threads that talk to the database must not wait.
        let decoding = tokio::task::spawn_blocking(move || {
            let chunk = reading.decode(read, end, latest);
            (reading, chunk)
        });
        let (reading, chunk) = decoding.await.map_err(|_| gone())?;
        self.reading = Some(reading);
        chunk.map(Some).map_err(Stop::Wait)
    }
}

/// What makes chunks of events.
pub(crate) struct Reading {
    intake: Intake,
    partition: Partition,
    times: IntakeTimes,
}

impl Reading {
    /// Of a log partition, from its frontier on.
    pub(crate) fn new(partition: Partition, intake_max: i64, writers: Arc<dyn WriterSchemas>) -> Self {
        let (intake, times) = (Intake::of(&partition.topic, writers), IntakeTimes::new(intake_max));
        Self { intake, partition, times }
    }

    /// Asks what decoding needs to know of what operators did.
    ///
    /// # Errors
    /// The log does not say it.
    pub(crate) async fn learn(&mut self, log: &dyn LogStore, read: &Read) -> Result<(), OperationsError> {
        self.times.learn(log, &self.partition, &read.events).await
    }

    /// Decodes what was read, none of it appended after `latest`, from a log partition that ended at `end`.
    ///
    /// # Errors
    /// Why the same read may succeed later; then nothing of it was taken.
    pub(crate) fn decode(&mut self, read: Read, end: u64, latest: i64) -> Result<Chunk, String> {
        let mut chunk = Chunk {
            sightings: Vec::with_capacity(read.events.len()),
            decisions: Vec::new(),
            refused: Vec::new(),
            events: read.events.len() as u64,
            bytes: read.events.iter().map(|e| e.value.as_ref().map_or(0, |value| value.len()) as u64).sum(),
            intake: (i64::MAX, i64::MIN),
            off: BTreeMap::new(),
            next_offset: read.next_offset,
            witness: read.events.last().map(witness_of),
            at_end: read.next_offset >= end,
            read_at: Instant::now(),
        };
        let mut times = self.times.clone();
        for event in read.events {
            if times.append_time(&event) > latest {
                // Somebody may say so meanwhile.
                self.times.forget_bounds();
                let (partition, offset) = (&self.partition, event.offset);
                let at = serviceradar_schemas::time::format(event.append_time);
                return Err(format!(
                    "offset {offset} was appended at {at}, more than a day ahead of this machine's clock: mend that clock, or, if the broker's was wrong, say until when: `serviceradar replay bound-intake {partition}:{offset}-TO TIME`"
                ));
            }
            let intake_time = times.of(&event);
            chunk.intake = (chunk.intake.0.min(intake_time), chunk.intake.1.max(intake_time));
            let taken = self.intake.take(&self.partition, event, intake_time, &mut chunk.off);
            match taken.map_err(|error| error.to_string())? {
                Taking::Sighting(sighting) => chunk.sightings.push(*sighting),
                Taking::Decision(decision) => chunk.decisions.push(*decision),
                Taking::Refused(letter) => chunk.refused.push(*letter),
            }
        }
        self.times = times;
        Ok(chunk)
    }
}

/// The ids of schemas in what was read.
pub(crate) fn schemas_of(read: &Read) -> BTreeSet<u32> {
    read.events.iter().filter_map(|event| registry_id(event.value.as_deref()?)).collect()
}

enum Stop {
    /// The same read may succeed later.
    Wait(String),
    Ended(ReaderError),
}
