//! Appending: one batch of a log partition at a time, so that its events follow each other and a batch that is sent
//! again is known.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fail::fail_point;
use rdkafka::{
    ClientConfig,
    error::{KafkaError, RDKafkaErrorCode},
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord, Producer as _},
};
use tokio::sync::Mutex as Turn;

use super::{Context, broke_off, unavailable};
use crate::{
    sequence::{self, Last},
    store::{Appended, Batch, LogError, NewEvent},
};

/// How long a caller waits; the batch itself goes on.
pub(super) const APPEND_WITHIN: Duration = Duration::from_secs(30);
/// Pause where librdkafka's queue is full.
const FULL_PAUSE: Duration = Duration::from_millis(20);

type Producers = BTreeMap<u64, Last>;
type Lanes = BTreeMap<(String, u32), Arc<Turn<Producers>>>;

pub(super) struct Appends {
    producer: Arc<Producer>,
    lanes: Mutex<Lanes>,
}

/// The producer. Where the cluster lost what it knew of it, it is of no more use, and the next takes its place.
struct Producer {
    config: ClientConfig,
    context: Context,
    current: Mutex<FutureProducer<Context>>,
}

impl Producer {
    fn current(&self) -> MutexGuard<'_, FutureProducer<Context>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send(&self, place: &(String, u32), events: &[NewEvent]) -> Result<Option<Appended>, LogError> {
        let producer = self.current().clone();
        let sent = send(&producer, place, events).await;
        if sent.is_err() && producer.client().fatal_error().is_some() {
            let mut current = self.current();
            // Unless another batch has seen to it.
            if current.client().fatal_error().is_some() {
                *current = self.config.create_with_context(self.context.clone()).map_err(unavailable)?;
            }
        }
        sent
    }
}

impl Appends {
    pub(super) fn new(config: ClientConfig, context: Context) -> Result<Self, KafkaError> {
        let current = Mutex::new(config.create_with_context(context.clone())?);
        let producer = Arc::new(Producer { config, context, current });
        Ok(Self { producer, lanes: Mutex::default() })
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it has appended there before.
    pub(super) fn knows(&self, topic: &str, log_partition: u32) -> bool {
        self.lanes().contains_key(&(topic.to_owned(), log_partition))
    }

    pub(super) fn forget(&self, topic: &str) {
        self.lanes().retain(|(of, _), _| of != topic);
    }

    /// Appends a batch; `end` is where an empty one goes.
    pub(super) async fn append(
        &self,
        topic: &str,
        log_partition: u32,
        batch: Batch,
        end: u64,
    ) -> Result<Appended, LogError> {
        let place = (topic.to_owned(), log_partition);
        let lane = self.lanes().entry(place.clone()).or_default().clone();
        let producer = self.producer.clone();
        // Whoever gives up leaves it to finish: sent again, it finds where it went.
        let appending = tokio::spawn(async move {
            let mut producers = lane.lock_owned().await;
            if let Some(appended) = sequence::judge(producers.get(&batch.id.producer).copied(), batch.id)? {
                return Ok(appended);
            }
            let appended = match producer.send(&place, &batch.events).await? {
                Some(appended) => appended,
                None => Appended { first_offset: end, append_time: newest(&producers) },
            };
            let last = Last { sequence: batch.id.sequence, appended };
            sequence::remember(&mut producers, batch.id.producer, last);
            Ok(appended)
        });
        match tokio::time::timeout(APPEND_WITHIN, appending).await {
            Ok(appended) => appended.map_err(broke_off)?,
            Err(_) => Err(LogError::Unavailable(format!(
                "the cluster did not take a batch for {topic}/{log_partition}"
            ))),
        }
    }
}

fn newest(producers: &Producers) -> i64 {
    producers.values().map(|last| last.appended.append_time).max().unwrap_or_default()
}

/// Sends events in order and waits until all are durable; none where there are none.
pub(super) async fn send(
    producer: &FutureProducer<Context>,
    (topic, log_partition): &(String, u32),
    events: &[NewEvent],
) -> Result<Option<Appended>, LogError> {
    let mut deliveries = Vec::with_capacity(events.len());
    for event in events {
        let mut record = record(topic, *log_partition, event);
        let delivery = loop {
            match producer.send_result(record) {
                Ok(delivery) => break delivery,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    tokio::time::sleep(FULL_PAUSE).await;
                }
                Err((error, _)) => return Err(of_topic(error, topic)),
            }
        };
        deliveries.push(delivery);
    }
    fail_point!("in-append");
    let mut appended: Option<Appended> = None;
    for delivery in deliveries {
        let gone = |_| LogError::Unavailable("the producer is gone".to_owned());
        let delivered = delivery.await.map_err(gone)?.map_err(|(error, _)| of_topic(error, topic))?;
        // The broker's, in milliseconds.
        let append_time = delivered.timestamp.to_millis().unwrap_or_default() * 1_000;
        appended = Some(Appended {
            first_offset: appended.map_or(delivered.offset.cast_unsigned(), |first| first.first_offset),
            append_time,
        });
    }
    Ok(appended)
}

fn of_topic(error: KafkaError, topic: &str) -> LogError {
    match error {
        KafkaError::MessageProduction(
            RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition,
        ) => LogError::UnknownTopic(topic.to_owned()),
        error => unavailable(error),
    }
}

fn record<'a>(topic: &'a str, log_partition: u32, event: &'a NewEvent) -> FutureRecord<'a, [u8], [u8]> {
    let mut record = FutureRecord::to(topic).partition(log_partition.cast_signed());
    record.key = event.key.as_deref();
    record.payload = event.value.as_deref();
    if !event.headers.is_empty() {
        let headers = OwnedHeaders::new_with_capacity(event.headers.len());
        record.headers = Some(event.headers.iter().fold(headers, |headers, (name, value)| {
            headers.insert(Header { key: name, value: Some(&value[..]) })
        }));
    }
    record
}
