//! Reading: one consumer for all, with the log partitions that are read assigned by hand, a queue for each, and a
//! thread that polls what belongs to none.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use bytes::Bytes;
use rdkafka::{
    Message, Offset, TopicPartitionList,
    admin::AdminClient,
    consumer::{BaseConsumer, Consumer, base_consumer::PartitionQueue},
    error::{KafkaError, RDKafkaErrorCode},
    message::{BorrowedMessage, Headers},
};
use tokio::{
    sync::{Mutex as Turn, Notify},
    task::spawn_blocking,
    time::timeout,
};

use super::{Context, broke_off, offsets_of, unavailable};
use crate::store::{Event, LogError, Offsets, Read, ReadLimit};

/// How long the thread of the consumer waits for something that belongs to no log partition.
const POLL: Duration = Duration::from_millis(200);
/// How long events that are there may take to come.
const COME_WITHIN: Duration = Duration::from_secs(30);
/// After so long without any, the log partition is fetched anew from where the reader stands.
const FETCH_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// How long a change of where to read may take.
const SEEK_WITHIN: Duration = Duration::from_secs(10);
/// How long the leaders of a topic are asked for before it is read without.
const LEADERS_WITHIN: Duration = Duration::from_secs(1);

type Place = (String, u32);

pub(super) struct Reads {
    consumer: Arc<BaseConsumer<Context>>,
    /// Asks what a fetch must not keep waiting.
    admin: Arc<AdminClient<Context>>,
    cursors: Mutex<BTreeMap<Place, Arc<Turn<Option<Cursor>>>>>,
}

impl Reads {
    /// # Errors
    /// Where the machine gives no more threads.
    pub(super) fn new(
        consumer: Arc<BaseConsumer<Context>>,
        admin: Arc<AdminClient<Context>>,
    ) -> Result<Self, LogError> {
        let polled = Arc::downgrade(&consumer);
        let polling = std::thread::Builder::new().name("kafka-poll".to_owned()).spawn(move || poll(&polled));
        polling.map_err(|error| LogError::Unavailable(error.to_string()))?;
        Ok(Self { consumer, admin, cursors: Mutex::default() })
    }

    fn cursors(&self) -> MutexGuard<'_, BTreeMap<Place, Arc<Turn<Option<Cursor>>>>> {
        self.cursors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it has read there before.
    pub(super) fn knows(&self, topic: &str, log_partition: u32) -> bool {
        self.cursors().contains_key(&(topic.to_owned(), log_partition))
    }

    /// Reads no more of a topic, or of one of its log partitions.
    pub(super) fn forget(&self, topic: &str, log_partition: Option<u32>) {
        let mut cursors = self.cursors();
        let is_gone = |(of, at): &Place| of == topic && log_partition.is_none_or(|gone| gone == *at);
        let gone: Vec<Place> = cursors.keys().filter(|place| is_gone(place)).cloned().collect();
        cursors.retain(|place, _| !is_gone(place));
        drop(cursors);
        for place in &gone {
            self.leave(place);
        }
    }

    pub(super) async fn read(
        &self,
        topic: &str,
        log_partition: u32,
        offset: u64,
        limit: ReadLimit,
    ) -> Result<Read, LogError> {
        let place = (topic.to_owned(), log_partition);
        let cursor = self.cursors().entry(place.clone()).or_default().clone();
        // Two readers of one log partition take turns, each from where it stands.
        let mut turn = cursor.lock_owned().await;
        let read = self.read_at(&mut turn, &place, offset, limit).await;
        if read.is_err() {
            // Whatever it was, the next read begins afresh.
            *turn = None;
            self.leave(&place);
        }
        read
    }

    fn leave(&self, place: &Place) {
        let left = list(place, Offset::Invalid)
            .and_then(|list| self.consumer.incremental_unassign(&list).map_err(unavailable));
        if let Err(error) = left {
            tracing::debug!(%error, "was not assigned");
        }
    }

    async fn read_at(
        &self,
        turn: &mut Option<Cursor>,
        place: &Place,
        offset: u64,
        limit: ReadLimit,
    ) -> Result<Read, LogError> {
        let deadline = Instant::now() + limit.wait;
        if turn.as_ref().is_none_or(|cursor| cursor.position != offset) {
            let offsets = self.offsets(place).await?;
            offsets.check(&place.0, place.1, offset)?;
            *turn = Some(self.go(turn.take(), place, offset, offsets.end).await?);
        }
        let Some(cursor) = turn else {
            return Err(LogError::Unavailable("nothing is assigned".to_owned()));
        };
        let read = cursor.take(place, limit)?;
        if !read.events.is_empty() {
            return Ok(read);
        }
        if let Some(end) = cursor.passed_marks() {
            return Ok(Read { events: Vec::new(), next_offset: end });
        }
        // Nothing is here. Whether nothing is there, the cluster knows.
        let offsets = self.offsets(place).await?;
        offsets.check(&place.0, place.1, offset)?;
        let given_up = Instant::now() + COME_WITHIN;
        let mut fetch_again = Instant::now() + FETCH_AGAIN_AFTER;
        let mut is_fetched_again = false;
        loop {
            let is_there = offsets.end > offset;
            let until = if is_there { fetch_again.min(given_up) } else { deadline };
            let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
            else {
                if !is_there {
                    return Ok(Read { events: Vec::new(), next_offset: offset });
                }
                if Instant::now() >= given_up {
                    let why = format!("{}/{}: nothing came from offset {offset}", place.0, place.1);
                    return Err(LogError::Unavailable(why));
                }
                cursor.is_at_end = false;
                self.seek(place, offset).await?;
                is_fetched_again = true;
                fetch_again = given_up;
                continue;
            };
            let came = cursor.came.clone();
            // Something, or nothing within that time: what is there tells.
            let _ = timeout(left, came.notified()).await;
            let read = cursor.take(place, limit)?;
            if !read.events.is_empty() {
                return Ok(read);
            }
            if is_fetched_again {
                cursor.end_before = cursor.end_before.max(offsets.end);
            }
            if let Some(end) = cursor.passed_marks() {
                return Ok(Read { events: Vec::new(), next_offset: end });
            }
        }
    }

    async fn offsets(&self, place: &Place) -> Result<Offsets, LogError> {
        let (admin, (topic, log_partition)) = (self.admin.clone(), place.clone());
        let asked = spawn_blocking(move || offsets_of(admin.inner(), &topic, log_partition));
        asked.await.map_err(broke_off)?
    }

    /// A cursor at an offset, of a log partition that ended at `end_before` a moment ago.
    async fn go(
        &self,
        cursor: Option<Cursor>,
        place: &Place,
        offset: u64,
        end_before: u64,
    ) -> Result<Cursor, LogError> {
        if let Some(mut cursor) = cursor {
            self.seek(place, offset).await?;
            (cursor.position, cursor.held, cursor.is_at_end) = (offset, None, false);
            cursor.end_before = end_before;
            return Ok(cursor);
        }
        self.find_leaders(&place.0).await;
        // Before it is assigned: what came without a queue of its own would be lost to the thread that polls.
        let queue = self.consumer.split_partition_queue(&place.0, place.1.cast_signed());
        let mut queue = queue.ok_or_else(|| LogError::Unavailable("librdkafka gives no queue".to_owned()))?;
        let came = Arc::new(Notify::new());
        let tell = came.clone();
        queue.set_nonempty_callback(move || tell.notify_one());
        let assigned = list(place, Offset::Offset(offset.cast_signed()))?;
        self.consumer.incremental_assign(&assigned).map_err(unavailable)?;
        Ok(Cursor { queue, came, position: offset, held: None, is_at_end: false, end_before })
    }

    /// Lets the consumer know who leads a topic's log partitions. Of one that is new to it, it would ask by itself, but
    /// only when it next looks, once a second.
    async fn find_leaders(&self, topic: &str) {
        let (consumer, asked) = (self.consumer.clone(), topic.to_owned());
        let found = spawn_blocking(move || consumer.fetch_metadata(Some(&asked), LEADERS_WITHIN).map(|_| ()));
        if let Ok(Err(error)) = found.await {
            tracing::debug!(topic, %error, "does not know the leaders yet");
        }
    }

    async fn seek(&self, place: &Place, offset: u64) -> Result<(), LogError> {
        let (consumer, (topic, log_partition)) = (self.consumer.clone(), place.clone());
        let sought = spawn_blocking(move || {
            let to = Offset::Offset(offset.cast_signed());
            consumer.seek(&topic, log_partition.cast_signed(), to, SEEK_WITHIN).map_err(unavailable)
        });
        sought.await.map_err(broke_off)?
    }
}

/// Polls until the consumer is gone.
fn poll(consumer: &Weak<BaseConsumer<Context>>) {
    while let Some(consumer) = consumer.upgrade() {
        match consumer.poll(POLL) {
            None => {}
            Some(Err(error)) => tracing::debug!(%error, "kafka"),
            Some(Ok(event)) => tracing::error!(
                topic = event.topic(),
                log_partition = event.partition(),
                offset = event.offset(),
                "an event came that no queue takes: it is lost to its reader"
            ),
        }
    }
}

fn list((topic, log_partition): &Place, offset: Offset) -> Result<TopicPartitionList, LogError> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, log_partition.cast_signed(), offset).map_err(unavailable)?;
    Ok(list)
}

/// Where the reader of a log partition stands.
struct Cursor {
    queue: PartitionQueue<Context>,
    came: Arc<Notify>,
    position: u64,
    /// Taken off the queue, and over the limit of the read that did.
    held: Option<Event>,
    /// Whether the cluster said that nothing more is there.
    is_at_end: bool,
    /// Where the log partition ended before it was fetched from here.
    end_before: u64,
}

impl Cursor {
    /// The end, where all that is between here and there are marks of transactions: the cluster says that nothing more is
    /// there, of what it was asked for later than for its end.
    fn passed_marks(&mut self) -> Option<u64> {
        let is_passed = self.is_at_end && self.held.is_none() && self.end_before > self.position;
        is_passed.then(|| {
            self.position = self.end_before;
            self.position
        })
    }

    /// What has come.
    fn take(&mut self, place: &Place, limit: ReadLimit) -> Result<Read, LogError> {
        let mut read = Read { events: Vec::new(), next_offset: self.position };
        let mut bytes = 0;
        while let Some(event) = self.next(place)? {
            bytes += event.bytes();
            if limit.is_reached(read.events.len(), bytes) {
                self.held = Some(event);
                break;
            }
            read.next_offset = event.offset + 1;
            read.events.push(event);
        }
        self.position = read.next_offset;
        Ok(read)
    }

    fn next(&mut self, place: &Place) -> Result<Option<Event>, LogError> {
        if let Some(event) = self.held.take() {
            return Ok(Some(event));
        }
        loop {
            match self.queue.poll(Duration::ZERO) {
                None => return Ok(None),
                Some(Ok(message)) => {
                    self.is_at_end = false;
                    let event = event(&message);
                    // What was fetched before a change of place.
                    if event.offset >= self.position {
                        return Ok(Some(event));
                    }
                }
                Some(Err(KafkaError::PartitionEOF(_))) => self.is_at_end = true,
                Some(Err(KafkaError::MessageConsumption(
                    RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition,
                ))) => return Err(LogError::UnknownTopic(place.0.clone())),
                Some(Err(error)) => return Err(unavailable(error)),
            }
        }
    }
}

fn event(message: &BorrowedMessage<'_>) -> Event {
    let headers = message.headers().map(|headers| {
        let header = |header: rdkafka::message::Header<'_, &[u8]>| {
            (header.key.to_owned(), header.value.map(Bytes::copy_from_slice).unwrap_or_default())
        };
        headers.iter().map(header).collect()
    });
    Event {
        offset: message.offset().cast_unsigned(),
        append_time: message.timestamp().to_millis().unwrap_or_default() * 1_000,
        key: message.key().map(Bytes::copy_from_slice),
        value: message.payload().map(Bytes::copy_from_slice),
        headers: headers.unwrap_or_default(),
    }
}
