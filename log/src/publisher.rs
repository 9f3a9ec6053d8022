//! Keyed publishing to one topic.
//!
//! Events of one key go to one log partition and stay in the order of the calls: each log
//! partition is a *lane* that one batch at a time goes through. A batch whose fate is unknown is
//! sent again under its own name, so it is in the log once; a call that gave up or was dropped
//! half-way leaves the lane without a name, and the next batch starts a new producer, so that no
//! batch is ever taken for another.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use tokio::sync::{Mutex, OnceCell};

use crate::{
    partitioner::log_partition_of,
    store::{Appended, BATCH_BYTES_MAX, BATCH_EVENTS_MAX, Batch, BatchId, LogError, LogStore, NewEvent},
};

/// Times a batch is sent: with the delays below some 16 s, which a restart of the log's holder takes.
pub const ATTEMPTS_MAX: u32 = 10;
/// Longest delay before the second attempt; it doubles with each. Half of it is chance, so that
/// many publishers do not come back at once.
pub const RETRY_DELAY: Duration = Duration::from_millis(50);
/// Longest delay before any attempt.
pub const RETRY_DELAY_MAX: Duration = Duration::from_secs(5);

/// Publishes to one topic. Every method may be called concurrently.
pub struct Publisher {
    store: Arc<dyn LogStore>,
    topic: String,
    lanes: OnceCell<Vec<Lane>>,
    keyless: AtomicU32,
}

/// The name that the next batch of a log partition takes; `None` where the fate of the last one
/// is unknown.
type Lane = Mutex<Option<BatchId>>;

impl Publisher {
    /// A publisher to `topic`, which must exist at the first [`Publisher::publish`].
    pub fn new(store: Arc<dyn LogStore>, topic: impl Into<String>) -> Self {
        Self { store, topic: topic.into(), lanes: OnceCell::new(), keyless: AtomicU32::new(0) }
    }

    /// The topic's name.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// Publishes `events`, and returns where each went: log partition and offset, in their order.
    ///
    /// Durable when it returns. Events without a key go, all of one call, to one log partition,
    /// another each time. What is over a limit refuses the whole call before anything is sent;
    /// any other error may leave some of the events in the log.
    pub async fn publish(&self, events: Vec<NewEvent>) -> Result<Vec<(u32, u64)>, LogError> {
        events.iter().try_for_each(NewEvent::check)?;
        let lanes = self.lanes.get_or_try_init(|| self.lanes()).await?;
        let count = events.len();
        let mut shares: Vec<Share> = lanes.iter().map(|_| Share::default()).collect();
        let keyless = self.keyless.fetch_add(1, Ordering::Relaxed) % lanes.len().max(1) as u32;
        for (place, event) in events.into_iter().enumerate() {
            let lane = match &event.key {
                Some(key) => log_partition_of(key, lanes.len() as u32),
                None => keyless,
            };
            shares[lane as usize].push(place, event);
        }
        let sent = shares
            .into_iter()
            .zip(lanes)
            .zip(0..)
            .map(|((share, lane), log_partition)| self.send(log_partition, lane, share));
        let mut places = vec![(0, 0); count];
        // All lanes finish what they can, whichever fails.
        for sent in join_all(sent).await {
            for (place, at) in sent? {
                places[place] = at;
            }
        }
        Ok(places)
    }

    /// Publishes `events` to one log partition, whatever their keys, and returns their offsets, in their order.
    ///
    /// As [`Publisher::publish`] otherwise.
    pub async fn publish_to(&self, log_partition: u32, events: Vec<NewEvent>) -> Result<Vec<u64>, LogError> {
        events.iter().try_for_each(NewEvent::check)?;
        let lanes = self.lanes.get_or_try_init(|| self.lanes()).await?;
        let lane = usize::try_from(log_partition).ok().and_then(|at| lanes.get(at));
        let lane =
            lane.ok_or_else(|| LogError::UnknownLogPartition { topic: self.topic.clone(), log_partition })?;
        let mut share = Share::default();
        for (place, event) in events.into_iter().enumerate() {
            share.push(place, event);
        }
        let sent = self.send(log_partition, lane, share).await?;
        Ok(sent.into_iter().map(|(_, (_, offset))| offset).collect())
    }

    async fn lanes(&self) -> Result<Vec<Lane>, LogError> {
        let topic = self.store.describe_topic(&self.topic).await?;
        Ok((0..topic.log_partitions).map(|_| Lane::default()).collect())
    }

    /// Sends the batches of one log partition, with nobody else's between them.
    async fn send(
        &self,
        log_partition: u32,
        lane: &Lane,
        share: Share,
    ) -> Result<Vec<(usize, (u32, u64))>, LogError> {
        if share.places.is_empty() {
            return Ok(Vec::new());
        }
        let mut lane = lane.lock().await;
        let mut offsets = Vec::with_capacity(share.places.len());
        for events in share.batches {
            let count = events.len() as u64;
            // Taken out, so that a call dropped half-way leaves no name behind.
            let id = lane.take().unwrap_or_else(new_producer);
            let (appended, next) = self.append(log_partition, Batch { id, events }).await?;
            *lane = Some(next);
            offsets.extend(appended.first_offset..appended.first_offset + count);
        }
        let at = offsets.into_iter().map(|offset| (log_partition, offset));
        Ok(share.places.into_iter().zip(at).collect())
    }

    /// Appends a batch, however often it takes; returns the name of the next one as well.
    async fn append(&self, log_partition: u32, mut batch: Batch) -> Result<(Appended, BatchId), LogError> {
        let mut attempt = 1;
        loop {
            match self.store.append(&self.topic, log_partition, batch.clone()).await {
                Ok(appended) => {
                    let next = BatchId { sequence: batch.id.sequence + 1, ..batch.id };
                    return Ok((appended, next));
                }
                // The log has forgotten this producer. At the first attempt it cannot have taken
                // the batch, so another name doubles nothing.
                Err(LogError::OutOfSequence { .. }) if attempt == 1 && batch.id.sequence > 0 => {
                    batch.id = new_producer();
                }
                Err(LogError::Unavailable(why)) if attempt < ATTEMPTS_MAX => {
                    let delay = delay_after(attempt);
                    tracing::warn!(topic = self.topic, log_partition, attempt, ?delay, why, "append again");
                    tokio::time::sleep(delay).await;
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

impl std::fmt::Debug for Publisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publisher").field("topic", &self.topic).finish_non_exhaustive()
    }
}

/// The events of one call that go to one log partition, and their places in the call.
#[derive(Default)]
struct Share {
    places: Vec<usize>,
    batches: Vec<Vec<NewEvent>>,
    bytes: usize,
}

impl Share {
    fn push(&mut self, place: usize, event: NewEvent) {
        self.places.push(place);
        let bytes = event.bytes();
        match self.batches.last_mut() {
            Some(last) if last.len() < BATCH_EVENTS_MAX && self.bytes + bytes <= BATCH_BYTES_MAX => {
                self.bytes += bytes;
                last.push(event);
            }
            _ => {
                self.bytes = bytes;
                self.batches.push(vec![event]);
            }
        }
    }
}

fn new_producer() -> BatchId {
    BatchId { producer: rand::random(), sequence: 0 }
}

fn delay_after(attempt: u32) -> Duration {
    let longest = RETRY_DELAY.saturating_mul(1 << (attempt - 1).min(16)).min(RETRY_DELAY_MAX);
    longest.mul_f64(rand::random_range(0.5..=1.0))
}
