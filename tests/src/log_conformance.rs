//! What every log store does, whatever it is made of: a law each.
//!
//! [`log_conformance!`](crate::log_conformance!) makes a test of each law for a [`Fixture`]. Laws
//! know the trait alone, and name their own topics, so that they can share a server.

#![expect(clippy::unwrap_used, reason = "a law is a test: it fails by panicking")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use serviceradar_log::{
    Appended, Batch, BatchId, Event, LogError, LogStore, NewEvent, Offsets, Publisher, ReadLimit,
    TopicDescription, log_partition_of,
    store::{
        BATCH_BYTES_MAX, BATCH_EVENTS_MAX, EVENT_BYTES_MAX, EVENT_HEADERS_MAX, LOG_PARTITIONS_MAX,
        TOPIC_BYTES_MAX,
    },
};
use serviceradar_schemas::time::ManualClock;
use tokio::time::timeout;

/// A log store under test.
#[async_trait]
pub trait Fixture: Send {
    /// A store that is ready, with nothing of this fixture in it.
    async fn start() -> Self
    where
        Self: Sized;

    /// The store.
    fn store(&self) -> &Arc<dyn LogStore>;

    /// The clock of the append times; `None` where a test cannot set it.
    fn clock(&self) -> Option<&ManualClock>;

    /// Ends whatever holds the events and starts it again; [`Fixture::store`] is ready again
    /// afterwards. A store that ends with its process says here that it has nothing to restart.
    async fn restart(&mut self);
}

/// Makes a test of every law for a [`Fixture`].
#[macro_export]
macro_rules! log_conformance {
    ($fixture:ty) => {
        $crate::log_conformance! { $fixture:
            a_topic_is_there_until_it_is_deleted
            topics_are_found_by_tenant_in_order
            names_and_numbers_that_no_store_takes_are_refused
            what_does_not_exist_is_refused
            events_come_back_as_they_went
            offsets_are_contiguous
            a_read_keeps_its_limits
            offsets_out_of_range_are_refused
            append_times_never_fall
            what_is_deleted_is_gone_and_the_rest_stays
            a_batch_appended_again_changes_nothing
            a_batch_sent_many_times_at_once_is_there_once
            a_batch_out_of_sequence_is_refused
            an_empty_batch_takes_its_place_in_the_sequence
            batches_at_every_limit_are_taken
            batches_over_a_limit_leave_no_trace
            concurrent_appends_lose_nothing
            a_waiting_read_wakes_up_on_an_append
            a_read_that_waits_in_vain_returns_nothing
            a_restart_changes_nothing
            a_publisher_keeps_the_events_of_a_key_in_order
            a_publisher_splits_what_is_over_the_limits_of_a_batch
        }
    };
    ($fixture:ty: $($law:ident)+) => { $(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $law() {
            let mut fixture = <$fixture as $crate::log_conformance::Fixture>::start().await;
            $crate::log_conformance::$law(&mut fixture).await;
        }
    )+ };
}

/// Longest wait for what must come: only a store that hangs takes so long.
const HANGS: Duration = Duration::from_secs(120);
/// A read that takes all there is, in some pieces, and does not wait.
const ALL: ReadLimit = ReadLimit { events: 10_000, bytes: 4 * 1024 * 1024, wait: Duration::ZERO };

fn new_tenant() -> String {
    format!("t{:016x}", rand::random::<u64>())
}

async fn new_topic(store: &Arc<dyn LogStore>, log_partitions: u32) -> String {
    let topic = format!("{}.observations", new_tenant());
    store.create_topic(&topic, log_partitions).await.unwrap();
    topic
}

fn event(value: impl Into<Bytes>) -> NewEvent {
    NewEvent { value: Some(value.into()), ..NewEvent::default() }
}

/// Names the batches of one producer.
struct Producer(BatchId);

impl Producer {
    fn new() -> Self {
        Self(BatchId { producer: rand::random(), sequence: 0 })
    }

    fn batch(&mut self, events: Vec<NewEvent>) -> Batch {
        let batch = Batch { id: self.0, events };
        self.0.sequence += 1;
        batch
    }

    /// The next batch, of events `from..to`, each with its number as value.
    fn numbers(&mut self, numbers: std::ops::Range<u64>) -> Batch {
        self.batch(numbers.map(|n| event(n.to_string())).collect())
    }
}

async fn read_from(store: &Arc<dyn LogStore>, topic: &str, log_partition: u32, offset: u64) -> Vec<Event> {
    let end = store.offsets(topic, log_partition).await.unwrap().end;
    let mut events = Vec::new();
    let mut offset = offset;
    while offset < end {
        let read = store.read(topic, log_partition, offset, ALL).await.unwrap();
        assert!(read.next_offset > offset, "a read stands still at {offset} of {end}");
        offset = read.next_offset;
        events.extend(read.events);
    }
    events
}

async fn read_all(store: &Arc<dyn LogStore>, topic: &str, log_partition: u32) -> Vec<Event> {
    let start = store.offsets(topic, log_partition).await.unwrap().start;
    read_from(store, topic, log_partition, start).await
}

fn number(event: &Event) -> u64 {
    std::str::from_utf8(event.value.as_deref().unwrap()).unwrap().parse().unwrap()
}

fn without_place(event: &Event) -> NewEvent {
    NewEvent { key: event.key.clone(), value: event.value.clone(), headers: event.headers.clone() }
}

/// Created twice it is one; with another number of log partitions it is refused; deleted, its
/// events and what it remembered of producers go with it.
pub async fn a_topic_is_there_until_it_is_deleted(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let topic = format!("{}.observations", new_tenant());
    let unknown = LogError::UnknownTopic(topic.clone());
    assert_eq!(store.describe_topic(&topic).await, Err(unknown.clone()));
    store.create_topic(&topic, 3).await.unwrap();
    store.create_topic(&topic, 3).await.unwrap();
    let described = TopicDescription { name: topic.clone(), log_partitions: 3 };
    assert_eq!(store.describe_topic(&topic).await, Ok(described));
    let exists = LogError::TopicExists { topic: topic.clone(), found: 3, wanted: 4 };
    assert_eq!(store.create_topic(&topic, 4).await, Err(exists));

    let batch = Producer::new().numbers(0..10);
    store.append(&topic, 1, batch.clone()).await.unwrap();
    store.delete_topic(&topic).await.unwrap();
    assert_eq!(store.describe_topic(&topic).await, Err(unknown.clone()));
    assert_eq!(store.delete_topic(&topic).await, Err(unknown));

    store.create_topic(&topic, 2).await.unwrap();
    assert_eq!(store.offsets(&topic, 1).await, Ok(Offsets { start: 0, end: 0 }));
    assert_eq!(store.append(&topic, 1, batch).await.unwrap().first_offset, 0);
    assert_eq!(read_all(store, &topic, 1).await.len(), 10);
}

/// A tenant whose name begins with another's shares nothing with it.
pub async fn topics_are_found_by_tenant_in_order(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let (tenant, longer) = (new_tenant(), new_tenant());
    let longer = format!("{tenant}{longer}");
    let of = |tenant: &str, stream: &str, log_partitions| TopicDescription {
        name: format!("{tenant}.{stream}"),
        log_partitions,
    };
    let expected =
        [of(&tenant, "decisions", 1), of(&tenant, "observations", 6), of(&longer, "observations", 2)];
    for topic in expected.iter().rev() {
        store.create_topic(&topic.name, topic.log_partitions).await.unwrap();
    }
    assert_eq!(store.topics(Some(&tenant)).await.unwrap(), expected[..2]);
    assert_eq!(store.topics(Some(&longer)).await.unwrap(), expected[2..]);
    assert_eq!(store.topics(Some(&new_tenant())).await.unwrap(), []);
    let mut all = store.topics(None).await.unwrap();
    assert!(all.is_sorted_by_key(|topic| topic.name.clone()), "{all:?}");
    all.retain(|topic| topic.name.starts_with(&tenant));
    assert_eq!(all, expected);
}

/// The names are Kafka's.
pub async fn names_and_numbers_that_no_store_takes_are_refused(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let long = |bytes: usize| new_tenant() + &"x".repeat(bytes - new_tenant().len());
    let refused = [
        (String::new(), 1),
        (".".to_owned(), 1),
        ("..".to_owned(), 1),
        ("a/b".to_owned(), 1),
        ("a b".to_owned(), 1),
        ("ü.observations".to_owned(), 1),
        (long(TOPIC_BYTES_MAX + 1), 1),
        (new_tenant(), 0),
        (new_tenant(), LOG_PARTITIONS_MAX + 1),
    ];
    for (topic, log_partitions) in refused {
        let invalid = LogError::InvalidTopic { topic: topic.clone(), log_partitions };
        assert_eq!(store.create_topic(&topic, log_partitions).await, Err(invalid));
    }
    store.create_topic(&long(TOPIC_BYTES_MAX), 1).await.unwrap();
}

/// By its own error, whatever is asked of it.
pub async fn what_does_not_exist_is_refused(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let unknown = format!("{}.observations", new_tenant());
    let known = new_topic(store, 2).await;
    let no_topic = LogError::UnknownTopic(unknown.clone());
    let no_log_partition = LogError::UnknownLogPartition { topic: known.clone(), log_partition: 2 };
    for (topic, error) in [(&unknown, no_topic), (&known, no_log_partition)] {
        let batch = Producer::new().numbers(0..1);
        assert_eq!(store.append(topic, 2, batch).await, Err(error.clone()));
        assert_eq!(store.read(topic, 2, 0, ALL).await.unwrap_err(), error);
        assert_eq!(store.offsets(topic, 2).await, Err(error.clone()));
        assert_eq!(store.delete_before(topic, 2, 0).await, Err(error));
    }
}

/// Absent is not empty, and headers keep their order and their doubles.
pub async fn events_come_back_as_they_went(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let topic = new_topic(store, 1).await;
    let header = |name: &str, value: &'static [u8]| (name.to_owned(), Bytes::from_static(value));
    let every_byte: Vec<u8> = (0..=u8::MAX).collect();
    let mut events = Vec::new();
    for key in [None, Some(Bytes::new()), Some(Bytes::from(every_byte.clone()))] {
        for value in [None, Some(Bytes::new()), Some(Bytes::from(every_byte.repeat(300)))] {
            let (key, value) = (key.clone(), value);
            let headers =
                vec![header("z", b"\x00\xff"), header("a", b""), header("z", b"2"), header("ü", b"3")];
            events.push(NewEvent { key: key.clone(), value: value.clone(), headers: Vec::new() });
            events.push(NewEvent { key, value, headers });
        }
    }
    store.append(&topic, 0, Producer::new().batch(events.clone())).await.unwrap();
    let read: Vec<NewEvent> = read_all(store, &topic, 0).await.iter().map(without_place).collect();
    assert_eq!(read, events);
}

/// From 0, in the order of the appends, in each log partition by itself; a read may begin anywhere.
pub async fn offsets_are_contiguous(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let topic = new_topic(store, 2).await;
    let mut producers = [Producer::new(), Producer::new()];
    let mut ends = [0; 2];
    for size in [1, 3, 700, 1, 5_000] {
        for (at, producer) in (0..2).zip(&mut producers) {
            let end = &mut ends[at as usize];
            let appended = store.append(&topic, at, producer.numbers(*end..*end + size)).await.unwrap();
            assert_eq!(appended.first_offset, *end);
            *end += size;
            assert_eq!(store.offsets(&topic, at).await, Ok(Offsets { start: 0, end: *end }));
        }
    }
    for from in [0, 2, 350, 704, 5_704] {
        let read = read_from(store, &topic, 1, from).await;
        assert!(read.iter().map(|event| event.offset).eq(from..ends[1]), "offsets from {from}");
        assert!(read.iter().map(number).eq(from..ends[1]), "events from {from}");
    }
}

/// In events and in bytes; but one event comes at least, or a reader would stand still for ever.
pub async fn a_read_keeps_its_limits(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let topic = new_topic(store, 1).await;
    let events = vec![event(vec![b'x'; 100]); 1_000];
    store.append(&topic, 0, Producer::new().batch(events)).await.unwrap();
    for (limit_events, limit_bytes, expected) in
        [(7, 1_000_000, 7), (0, 0, 1), (1_000, 99, 1), (1_000, 1_050, 10), (5_000, 1_000_000, 500)]
    {
        let limit = ReadLimit { events: limit_events, bytes: limit_bytes, wait: Duration::ZERO };
        let read = store.read(&topic, 0, 500, limit).await.unwrap();
        assert_eq!(read.events.len(), expected, "{limit:?}");
        assert_eq!(read.next_offset, 500 + expected as u64, "{limit:?}");
    }
}

/// Below the start and above the end; the end itself is where the next event will be.
pub async fn offsets_out_of_range_are_refused(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let topic = new_topic(store, 1).await;
    store.append(&topic, 0, Producer::new().numbers(0..10)).await.unwrap();
    store.delete_before(&topic, 0, 4).await.unwrap();
    let out =
        |offset| LogError::OutOfRange { topic: topic.clone(), log_partition: 0, offset, start: 4, end: 10 };
    for offset in [0, 3, 11, u64::MAX] {
        assert_eq!(store.read(&topic, 0, offset, ALL).await.unwrap_err(), out(offset));
    }
    assert_eq!(store.delete_before(&topic, 0, 11).await, Err(out(11)));
    let end = store.read(&topic, 0, 10, ALL).await.unwrap();
    assert_eq!((end.events, end.next_offset), (Vec::new(), 10));
    assert_eq!(read_from(store, &topic, 0, 4).await.len(), 6);
}

/// Each event has its batch's, and a clock that is put back does not put them back.
pub async fn append_times_never_fall(fixture: &mut dyn Fixture) {
    let topic = new_topic(fixture.store(), 2).await;
    let mut producer = Producer::new();
    let mut told: Vec<i64> = Vec::new();
    for (clock, expected) in [(1_000, 1_000), (3_000, 3_000), (2_000, 3_000), (4_000, 4_000), (10, 4_000)] {
        if let Some(clocked) = fixture.clock() {
            clocked.set(clock);
        }
        if told.len() == 4 {
            fixture.restart().await;
        }
        let appended = fixture.store().append(&topic, 0, producer.numbers(0..3)).await.unwrap();
        if fixture.clock().is_some() {
            assert_eq!(appended.append_time, expected);
        }
        told.push(appended.append_time);
    }
    assert!(told.is_sorted(), "{told:?}");
    let read = read_all(fixture.store(), &topic, 0).await;
    let told = told.iter().flat_map(|time| [*time; 3]);
    assert!(read.iter().map(|event| event.append_time).eq(told), "{read:?}");
    let other = fixture.store().append(&topic, 1, Producer::new().numbers(0..1)).await.unwrap();
    if fixture.clock().is_some() {
        assert_eq!(other.append_time, 10, "log partitions do not share their times");
    }
}

/// Inside a batch too, never backwards, and up to all of it; offsets are never given again.
pub async fn what_is_deleted_is_gone_and_the_rest_stays(fixture: &mut dyn Fixture) {
    let topic = new_topic(fixture.store(), 2).await;
    let mut producer = Producer::new();
    for at in 0..5 {
        for log_partition in 0..2 {
            let batch = Batch { id: producer.0, ..Producer::new().numbers(at * 1_000..(at + 1) * 1_000) };
            fixture.store().append(&topic, log_partition, batch).await.unwrap();
        }
        producer.0.sequence += 1;
    }
    for (before, start) in [(0, 0), (1, 1), (2_500, 2_500), (1_000, 2_500), (4_999, 4_999), (5_000, 5_000)] {
        fixture.store().delete_before(&topic, 0, before).await.unwrap();
        let offsets = fixture.store().offsets(&topic, 0).await;
        assert_eq!(offsets, Ok(Offsets { start, end: 5_000 }));
        let read = read_all(fixture.store(), &topic, 0).await;
        assert!(read.iter().map(number).eq(start..5_000), "from {start}");
    }
    fixture.restart().await;
    let store = fixture.store();
    assert_eq!(store.offsets(&topic, 0).await, Ok(Offsets { start: 5_000, end: 5_000 }));
    let appended = store.append(&topic, 0, producer.numbers(5_000..5_001)).await.unwrap();
    assert_eq!(appended.first_offset, 5_000);
    assert!(read_all(store, &topic, 0).await.iter().map(number).eq([5_000]));
    assert!(read_all(store, &topic, 1).await.iter().map(number).eq(0..5_000), "the other log partition");
}

/// The same answer, and nothing new, even after others have appended and after a restart.
pub async fn a_batch_appended_again_changes_nothing(fixture: &mut dyn Fixture) {
    let topic = new_topic(fixture.store(), 2).await;
    let mut producer = Producer::new();
    fixture.store().append(&topic, 0, producer.numbers(0..5)).await.unwrap();
    let batch = producer.numbers(5..10);
    let appended = fixture.store().append(&topic, 0, batch.clone()).await.unwrap();
    fixture.store().append(&topic, 0, Producer::new().numbers(10..20)).await.unwrap();
    if let Some(clock) = fixture.clock() {
        clock.set(appended.append_time + 1_000);
    }
    assert_eq!(fixture.store().append(&topic, 0, batch.clone()).await, Ok(appended));
    fixture.restart().await;
    let store = fixture.store();
    assert_eq!(store.append(&topic, 0, batch).await, Ok(appended));
    store.append(&topic, 0, producer.numbers(20..25)).await.unwrap();
    assert!(read_all(store, &topic, 0).await.iter().map(number).eq(0..25));
    assert_eq!(store.offsets(&topic, 1).await, Ok(Offsets { start: 0, end: 0 }));
}

/// As when a caller gives up waiting, and asks again while the first call is under way.
pub async fn a_batch_sent_many_times_at_once_is_there_once(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let topic = Arc::new(new_topic(store, 1).await);
    let mut producer = Producer::new();
    for round in 0..20_u64 {
        let batch = producer.numbers(round * 10..(round + 1) * 10);
        let sent: Vec<_> = (0..8)
            .map(|_| {
                let (store, topic, batch) = (Arc::clone(store), Arc::clone(&topic), batch.clone());
                tokio::spawn(async move { store.append(&topic, 0, batch).await })
            })
            .collect();
        for sent in sent {
            assert_eq!(sent.await.unwrap().unwrap().first_offset, round * 10);
        }
    }
    assert!(read_all(store, &topic, 0).await.iter().map(number).eq(0..200));
}

/// A batch after a missing one would hide the loss, and one before the last is in the log already.
pub async fn a_batch_out_of_sequence_is_refused(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let topic = new_topic(store, 2).await;
    let producer = rand::random();
    let append = async |log_partition, sequence| {
        let batch = Batch { id: BatchId { producer, sequence }, events: vec![event("x")] };
        store.append(&topic, log_partition, batch).await
    };
    let refused = |expected, got| Err(LogError::OutOfSequence { producer, expected, got });
    assert_eq!(append(0, 5).await, refused(0, 5));
    append(0, 0).await.unwrap();
    assert_eq!(append(0, 2).await, refused(1, 2));
    append(0, 1).await.unwrap();
    append(0, 2).await.unwrap();
    assert_eq!(append(0, 1).await, refused(3, 1));
    assert_eq!(append(0, u64::MAX).await, refused(3, u64::MAX));
    assert_eq!(append(1, 3).await, refused(0, 3), "each log partition has its own sequence");
    append(0, 3).await.unwrap();
    assert_eq!(store.offsets(&topic, 0).await, Ok(Offsets { start: 0, end: 4 }));
    assert_eq!(store.offsets(&topic, 1).await, Ok(Offsets { start: 0, end: 0 }));
}

/// It is acknowledged at the end, and adds nothing.
pub async fn an_empty_batch_takes_its_place_in_the_sequence(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let topic = new_topic(store, 1).await;
    let mut producer = Producer::new();
    let empty = producer.batch(Vec::new());
    let appended = store.append(&topic, 0, empty.clone()).await.unwrap();
    assert_eq!(appended.first_offset, 0);
    assert_eq!(store.offsets(&topic, 0).await, Ok(Offsets { start: 0, end: 0 }));
    assert_eq!(store.append(&topic, 0, empty).await, Ok(appended));
    store.append(&topic, 0, producer.numbers(0..3)).await.unwrap();
    let empty = producer.batch(Vec::new());
    assert_eq!(store.append(&topic, 0, empty).await.unwrap().first_offset, 3);
    store.append(&topic, 0, producer.numbers(3..6)).await.unwrap();
    assert!(read_all(store, &topic, 0).await.iter().map(number).eq(0..6));
}

/// The most events, the most bytes, the largest event, the most headers.
pub async fn batches_at_every_limit_are_taken(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let topic = new_topic(store, 1).await;
    let mut producer = Producer::new();
    let largest = event(vec![b'x'; EVENT_BYTES_MAX]);
    let headers: Vec<(String, Bytes)> = (0..EVENT_HEADERS_MAX).map(|_| Default::default()).collect();
    let batches = [
        vec![NewEvent::default(); BATCH_EVENTS_MAX],
        vec![event(vec![b'y'; BATCH_BYTES_MAX / BATCH_EVENTS_MAX]); BATCH_EVENTS_MAX],
        vec![largest; BATCH_BYTES_MAX / EVENT_BYTES_MAX],
        vec![NewEvent { headers, ..NewEvent::default() }; 1_000],
    ];
    for events in batches {
        let count = events.len();
        let appended = store.append(&topic, 0, producer.batch(events.clone())).await.unwrap();
        let read = read_from(store, &topic, 0, appended.first_offset).await;
        assert_eq!(read.len(), count);
        assert!(read.iter().map(without_place).eq(events), "a batch of {count} came back as another");
    }
}

/// The refusal names the limit; nothing is in the log, and the batch's name is free.
pub async fn batches_over_a_limit_leave_no_trace(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let topic = new_topic(store, 1).await;
    let mut producer = Producer::new();
    let large = event(vec![b'x'; EVENT_BYTES_MAX]);
    let larger = NewEvent { key: Some("k".into()), ..large.clone() };
    let mut heavy = vec![large; BATCH_BYTES_MAX / EVENT_BYTES_MAX];
    heavy.push(event("x"));
    let headers = vec![Default::default(); EVENT_HEADERS_MAX + 1];
    let batches = [
        ("batch events", BATCH_EVENTS_MAX, vec![NewEvent::default(); BATCH_EVENTS_MAX + 1]),
        ("batch bytes", BATCH_BYTES_MAX, heavy),
        ("event bytes", EVENT_BYTES_MAX, vec![event("x"), larger]),
        ("event headers", EVENT_HEADERS_MAX, vec![NewEvent { headers, ..NewEvent::default() }]),
    ];
    for (what, limit, events) in batches {
        let batch = Batch { id: producer.0, events };
        let refused = LogError::TooLarge { what, size: limit + 1, limit };
        assert_eq!(store.append(&topic, 0, batch).await, Err(refused));
    }
    assert_eq!(store.offsets(&topic, 0).await, Ok(Offsets { start: 0, end: 0 }));
    store.append(&topic, 0, producer.numbers(0..1)).await.unwrap();
}

/// Many producers and a reader that follows them: each event once, those of a producer in order.
pub async fn concurrent_appends_lose_nothing(fixture: &mut dyn Fixture) {
    const PRODUCERS: u64 = 8;
    const BATCHES: u64 = 40;
    const EVENTS: u64 = 25;
    const COUNT: usize = (PRODUCERS * BATCHES * EVENTS) as usize;
    let store = fixture.store();
    let topic = Arc::new(new_topic(store, 2).await);
    let followers: Vec<_> = (0..2)
        .map(|at| {
            let (store, topic) = (Arc::clone(store), Arc::clone(&topic));
            tokio::spawn(async move {
                let limit = ReadLimit { wait: HANGS, ..ALL };
                let (mut events, mut offset) = (Vec::new(), 0);
                while events.len() < COUNT {
                    let read = store.read(&topic, at, offset, limit).await.unwrap();
                    offset = read.next_offset;
                    events.extend(read.events);
                }
                events
            })
        })
        .collect();
    let appends = (0..PRODUCERS).flat_map(|n| [(n, 0), (n, 1)]).map(|(n, at)| {
        let (store, topic) = (Arc::clone(store), Arc::clone(&topic));
        tokio::spawn(async move {
            let mut producer = Producer::new();
            for batch in 0..BATCHES {
                let first = (n * BATCHES + batch) * EVENTS;
                store.append(&topic, at, producer.numbers(first..first + EVENTS)).await.unwrap();
            }
        })
    });
    for append in appends.collect::<Vec<_>>() {
        append.await.unwrap();
    }
    for (at, follower) in (0..2).zip(followers) {
        let read = read_all(store, &topic, at).await;
        let followed = timeout(HANGS, follower).await.unwrap().unwrap();
        assert!(followed == read, "who follows reads something else than who comes later");
        assert!(read.iter().map(|event| event.offset).eq(0..COUNT as u64));
        let mut numbers: Vec<u64> = read.iter().map(number).collect();
        numbers.sort_by_key(|n| n / (BATCHES * EVENTS));
        assert!(numbers.into_iter().eq(0..COUNT as u64), "lost, doubled or out of order");
    }
}

/// Well before its wait is over: within a time that only a store that slept through it exceeds.
pub async fn a_waiting_read_wakes_up_on_an_append(fixture: &mut dyn Fixture) {
    let topic = Arc::new(new_topic(fixture.store(), 1).await);
    let mut producer = Producer::new();
    for n in 0..10 {
        let (store, followed) = (Arc::clone(fixture.store()), Arc::clone(&topic));
        let reading = tokio::spawn(async move {
            let limit = ReadLimit { wait: HANGS * 10, ..ALL };
            store.read(&followed, 0, n, limit).await
        });
        // Half of the appends come when the reader waits already.
        tokio::time::sleep(Duration::from_millis(n % 2 * 50)).await;
        fixture.store().append(&topic, 0, producer.numbers(n..n + 1)).await.unwrap();
        let read = timeout(HANGS, reading).await.expect("the read slept on").unwrap().unwrap();
        assert!(read.events.iter().map(number).eq([n]));
        assert_eq!(read.next_offset, n + 1);
    }
}

/// And stays where it was.
pub async fn a_read_that_waits_in_vain_returns_nothing(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let topic = new_topic(store, 1).await;
    store.append(&topic, 0, Producer::new().numbers(0..3)).await.unwrap();
    let wait = Duration::from_millis(50);
    let started = Instant::now();
    let read = store.read(&topic, 0, 3, ReadLimit { wait, ..ALL }).await.unwrap();
    assert!(started.elapsed() >= wait, "it did not wait");
    assert_eq!((read.events, read.next_offset), (Vec::new(), 3));
}

/// Topics, events and their times, offsets: all is as it was, and goes on from there.
pub async fn a_restart_changes_nothing(fixture: &mut dyn Fixture) {
    let tenant = new_tenant();
    let topics: Vec<String> = ["decisions", "observations"].map(|stream| format!("{tenant}.{stream}")).into();
    let mut producer = Producer::new();
    let mut before: Vec<(Appended, Vec<Event>)> = Vec::new();
    for topic in &topics {
        fixture.store().create_topic(topic, 1).await.unwrap();
    }
    for round in 0..3_u64 {
        let (first, next) = (round * 2_000, (round + 1) * 2_000);
        let batch = producer.numbers(first..next);
        for topic in &topics {
            let appended = fixture.store().append(topic, 0, batch.clone()).await.unwrap();
            assert_eq!(appended.first_offset, first);
            before.push((appended, read_all(fixture.store(), topic, 0).await));
        }
        let described = fixture.store().topics(Some(&tenant)).await.unwrap();
        fixture.restart().await;
        assert_eq!(fixture.store().topics(Some(&tenant)).await.unwrap(), described);
        for (topic, (appended, events)) in topics.iter().zip(before.drain(..)) {
            let store = fixture.store();
            assert_eq!(store.offsets(topic, 0).await, Ok(Offsets { start: 0, end: next }));
            assert!(read_all(store, topic, 0).await == events, "{topic} after restart {round}");
            assert_eq!(store.append(topic, 0, batch.clone()).await, Ok(appended));
        }
    }
}

/// In one log partition, that of Kafka's partitioner, whoever else publishes at the same time.
pub async fn a_publisher_keeps_the_events_of_a_key_in_order(fixture: &mut dyn Fixture) {
    const LOG_PARTITIONS: u32 = 3;
    const CALLS: u64 = 30;
    let store = fixture.store();
    let topic = new_topic(store, LOG_PARTITIONS).await;
    let publisher = Arc::new(Publisher::new(Arc::clone(store), topic.clone()));
    let calls: Vec<_> = (0..4)
        .map(|caller| {
            let publisher = Arc::clone(&publisher);
            tokio::spawn(async move {
                let mut published = Vec::new();
                for call in 0..CALLS {
                    let keys = (0..10).map(|key| Bytes::from(format!("{caller}/{key}")));
                    let events = keys.map(|key| NewEvent { key: Some(key), ..event(call.to_string()) });
                    let events: Vec<NewEvent> = events.collect();
                    let places = publisher.publish(events.clone()).await.unwrap();
                    published.extend(places.into_iter().zip(events));
                }
                published
            })
        })
        .collect();
    let mut published = Vec::new();
    for call in calls {
        published.extend(call.await.unwrap());
    }
    published.sort_by_key(|(place, _)| *place);
    let mut read = Vec::new();
    for at in 0..LOG_PARTITIONS {
        let events = read_all(store, &topic, at).await;
        read.extend(events.into_iter().map(|event| ((at, event.offset), without_place(&event))));
    }
    assert!(read == published, "what is in the log is not what the publisher said");
    // Sorted by key, and within a key as in the log: each key counts its calls.
    read.sort_by_key(|(_, event)| event.key.clone());
    for events in read.chunks(CALLS as usize) {
        let key = events[0].1.key.clone().unwrap();
        for (call, ((at, _), event)) in (0..CALLS).zip(events) {
            assert_eq!(*at, log_partition_of(&key, LOG_PARTITIONS));
            assert_eq!(event.value, Some(call.to_string().into()), "{key:?}");
        }
    }
}

/// Without a key the events of one call stay together; what no batch can hold refuses the call.
pub async fn a_publisher_splits_what_is_over_the_limits_of_a_batch(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let topic = new_topic(store, 2).await;
    let publisher = Publisher::new(Arc::clone(store), topic.clone());
    let large = event(vec![b'x'; EVENT_BYTES_MAX]);
    let larger = NewEvent { key: Some("k".into()), ..large.clone() };
    let refused = publisher.publish(vec![event("x"), larger]).await.unwrap_err();
    assert!(matches!(refused, LogError::TooLarge { what: "event bytes", .. }), "{refused}");
    for at in 0..2 {
        assert_eq!(store.offsets(&topic, at).await, Ok(Offsets { start: 0, end: 0 }));
    }
    let calls = [
        vec![NewEvent::default(); BATCH_EVENTS_MAX + 10],
        vec![large; BATCH_BYTES_MAX / EVENT_BYTES_MAX + 1],
    ];
    let mut log_partitions = Vec::new();
    for events in calls {
        let count = events.len() as u64;
        let places = publisher.publish(events).await.unwrap();
        let (at, _) = places[0];
        assert!(places.into_iter().eq((0..count).map(|offset| (at, offset))));
        assert_eq!(read_all(store, &topic, at).await.len() as u64, count);
        log_partitions.push(at);
    }
    log_partitions.sort();
    assert_eq!(log_partitions, [0, 1], "calls without keys take turns");
    assert_eq!(publisher.publish(Vec::new()).await, Ok(Vec::new()));
}
