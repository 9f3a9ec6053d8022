//! Recomputing: what the log comes to, up to given offsets, with no views: read, decoded and folded anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serviceradar_log::{LogError, LogStore, ReadLimit};
use serviceradar_materializers::views::Frontier;
use serviceradar_schemas::{codec::WriterSchemas, time::Clock};
use serviceradar_streams::{
    decisions::Taken,
    engine::{Engine, EngineError},
    normalise::Sighting,
    rows::EpochOutput,
    rules::Rules,
};
use tokio::sync::mpsc;

use crate::{
    intake::{Intake, Taking},
    intake_times::IntakeTimes,
    operations::OperationsError,
    reader::{AHEAD_MAX, READ_BYTES, READ_EVENTS, READ_WAIT, Reading, schemas_of},
    topics::Partition,
    witness::{self, LogChanged},
};

/// Decoded pieces of a log partition that wait for the dataflow.
const PIECES_WAITING: usize = 2;

/// Why the log could not be recomputed.
#[derive(Debug, thiserror::Error)]
pub enum RecomputeError {
    /// The log refused.
    #[error(transparent)]
    Log(#[from] LogError),
    /// What operators did to the log is not known.
    #[error(transparent)]
    Operations(#[from] OperationsError),
    /// It does not hold all that the views were made from.
    #[error(transparent)]
    LogChanged(#[from] LogChanged),
    /// It ends before the place that was asked for.
    #[error("{partition} ends at offset {end}, and was read up to {wanted}: the log was cut or made anew")]
    Short {
        /// The log partition.
        partition: String,
        /// Where it ends.
        end: u64,
        /// Up to where it was asked for.
        wanted: u64,
    },
    /// What was read cannot be decoded for now.
    #[error("{partition} cannot be decoded for now: {why}")]
    Decoding {
        /// The log partition.
        partition: String,
        /// Why.
        why: String,
    },
    /// The dataflow ended.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A task was lost.
    #[error("a task ended unexpectedly: {0}")]
    Task(String),
}

impl RecomputeError {
    /// Whether the same call may succeed later.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Decoding { .. } => true,
            Self::Log(error) => error.is_unavailable(),
            Self::Operations(error) => error.is_unavailable(),
            _ => false,
        }
    }
}

/// What is recomputed, and from what.
pub struct Recompute {
    /// Whose.
    pub tenant: String,
    /// By which rules.
    pub rules: Rules,
    /// Workers of the dataflow.
    pub workers: usize,
    /// The log.
    pub log: Arc<dyn LogStore>,
    /// Who knows the schemas that events were written by.
    pub writers: Arc<dyn WriterSchemas>,
    /// The machine's clock: of what was appended a day ahead of it nothing is believed.
    pub clock: Arc<dyn Clock>,
    /// Log partitions, and the offset behind the last event of each that is taken.
    pub ends: BTreeMap<Partition, u64>,
    /// Of each log partition, what was taken in later is not taken; microseconds since the Unix epoch.
    pub known_until: Option<i64>,
    /// Topic, log partition and offset of events that are taken for refused, whether they could be read now or not.
    pub refusals: BTreeSet<(String, u32, u64)>,
}

/// What the log came to.
pub struct Recomputed {
    /// The dataflow, which has the rows of devices, records and evidence.
    pub engine: Engine,
    /// All other rows, as new ones.
    pub rest: EpochOutput,
    /// Events that were read.
    pub events: u64,
    /// Events that were refused.
    pub refused: u64,
    /// Of those that are taken for refused, those that could be read now.
    pub readable: Vec<(String, u32, u64)>,
}

/// A piece of a log partition.
#[derive(Default)]
struct Piece {
    sightings: Vec<Sighting>,
    decisions: Vec<Taken>,
    events: u64,
    refused: u64,
    readable: Vec<(String, u32, u64)>,
}

impl Recompute {
    /// Events that are to be read, where every offset holds one.
    pub async fn events(&self) -> Result<u64, RecomputeError> {
        let mut events = 0;
        for (partition, end) in &self.ends {
            let start = self.log.offsets(&partition.topic, partition.log_partition).await?.start;
            events += end.saturating_sub(start);
        }
        Ok(events)
    }

    /// Reads, decodes and folds. What `take` and `keep_decision` refuse is as if it had never been, and what `take` changes as
    /// if it had been so; `last` comes behind all else. `told` hears how many events were read so far, and is dropped when
    /// all are.
    ///
    /// # Errors
    /// A gap that no operation explains among them.
    pub async fn run(
        self,
        mut take: impl FnMut(Sighting) -> Option<Sighting>,
        keep_decision: impl Fn(&Taken) -> bool,
        last: Option<Sighting>,
        mut told: impl FnMut(u64),
    ) -> Result<Recomputed, RecomputeError> {
        let this = Arc::new(self);
        let mut engine = Engine::start(&this.tenant, &Arc::new(this.rules.clone()), this.workers)?;
        let (put, mut pieces) = mpsc::channel::<Result<Piece, RecomputeError>>(PIECES_WAITING);
        let partitions: Vec<(Partition, u64)> =
            this.ends.iter().map(|(partition, end)| (partition.clone(), *end)).collect();
        for (partition, end) in partitions {
            let (this, put) = (this.clone(), put.clone());
            tokio::spawn(async move {
                if let Err(error) = this.read(&partition, end, &put).await {
                    // Whoever has gone needs no reason.
                    let _ = put.send(Err(error)).await;
                }
            });
        }
        drop(put);
        let mut decisions = Vec::new();
        let (mut events, mut refused, mut readable) = (0, 0, Vec::new());
        while let Some(piece) = pieces.recv().await {
            let mut piece = piece?;
            (events, refused) = (events + piece.events, refused + piece.refused);
            readable.append(&mut piece.readable);
            let sightings: Vec<Sighting> = piece.sightings.into_iter().filter_map(&mut take).collect();
            decisions.extend(piece.decisions.into_iter().filter(&keep_decision));
            let (back, fed) = tokio::task::spawn_blocking(move || {
                let fed = engine.feed(sightings);
                (engine, fed)
            })
            .await
            .map_err(|error| RecomputeError::Task(error.to_string()))?;
            engine = back;
            fed?;
            told(events);
        }
        drop(told);
        readable.sort_unstable();
        let (engine, closed) = tokio::task::spawn_blocking(move || {
            let closed = engine.feed(last.into_iter().collect()).and_then(|()| engine.load(decisions));
            (engine, closed)
        })
        .await
        .map_err(|error| RecomputeError::Task(error.to_string()))?;
        Ok(Recomputed { engine, rest: closed?.output, events, refused, readable })
    }

    /// Reads a log partition from its start.
    async fn read(
        &self,
        partition: &Partition,
        end: u64,
        put: &mpsc::Sender<Result<Piece, RecomputeError>>,
    ) -> Result<(), RecomputeError> {
        let Partition { topic, log_partition } = partition;
        let begin = Frontier::of(&[], topic, *log_partition);
        let mut next = witness::check(&*self.log, partition, &begin).await??;
        let offsets = self.log.offsets(topic, *log_partition).await?;
        if offsets.end < end {
            let (partition, end, wanted) = (partition.to_string(), offsets.end, end);
            return Err(RecomputeError::Short { partition, end, wanted });
        }
        let wrong = |why: String| RecomputeError::Decoding { partition: partition.to_string(), why };
        let latest = self.clock.now().saturating_add(AHEAD_MAX);
        let mut reading = Reading::new(partition.clone(), i64::MIN, self.writers.clone());
        let mut intake = Intake::of(topic, self.writers.clone());
        let mut times = IntakeTimes::new(i64::MIN);
        while next < end {
            let limit = ReadLimit { events: READ_EVENTS, bytes: READ_BYTES, wait: READ_WAIT };
            let mut read = self.log.read(topic, *log_partition, next, limit).await?;
            if read.next_offset == next {
                return Err(LogError::Unavailable(format!("{partition} has nothing at {next}")).into());
            }
            next = read.next_offset;
            read.events.retain(|event| event.offset < end);
            times.learn(&*self.log, partition, &read.events).await?;
            reading.learn(&*self.log, &read).await?;
            // What is refused has an intake time all the same, below which none after it falls.
            for event in &mut read.events {
                event.append_time = times.of(event);
            }
            // To its end: a restore may have put older events behind newer ones.
            if let Some(until) = self.known_until {
                read.events.retain(|event| event.append_time <= until);
            }
            self.writers.learn(&schemas_of(&read)).await.map_err(|error| wrong(error.to_string()))?;
            let mut piece = Piece { events: read.events.len() as u64, ..Piece::default() };
            let place = |offset| (topic.clone(), *log_partition, offset);
            if !self.refusals.is_empty() {
                let is_refused = |offset| self.refusals.contains(&place(offset));
                let refused = read.events.extract_if(.., |event| is_refused(event.offset));
                for event in refused.collect::<Vec<_>>() {
                    let (offset, at) = (event.offset, event.append_time);
                    let taking = intake.take(partition, event, at, &mut BTreeMap::new());
                    if !matches!(taking.map_err(|error| wrong(error.to_string()))?, Taking::Refused(_)) {
                        piece.readable.push(place(offset));
                    }
                    piece.refused += 1;
                }
            }
            // Some milliseconds of work, for which whoever talks to a server must not wait.
            let decoding = tokio::task::spawn_blocking(move || {
                let chunk = reading.decode(read, end, latest);
                (reading, chunk)
            });
            let (back, chunk) = decoding.await.map_err(|error| RecomputeError::Task(error.to_string()))?;
            reading = back;
            let chunk = chunk.map_err(wrong)?;
            (piece.sightings, piece.decisions) = (chunk.sightings, chunk.decisions);
            piece.refused += chunk.refused.len() as u64;
            if put.send(Ok(piece)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

impl Recomputed {
    /// Tells all rows as new ones, piece by piece, until told that it is enough: those of devices, records and evidence
    /// first, the rest last. Blocks.
    pub fn rows(&mut self, tell: &mut dyn FnMut(EpochOutput) -> bool) -> Result<(), EngineError> {
        let mut more = true;
        self.engine.rows(&mut |piece| {
            more = tell(piece);
            more
        })?;
        // Counts follow from the rows, once these were told.
        if self.rest.counts.is_empty() {
            self.rest.counts = self.engine.load(Vec::new())?.output.counts;
        }
        if more {
            tell(self.rest.clone());
        }
        Ok(())
    }
}
