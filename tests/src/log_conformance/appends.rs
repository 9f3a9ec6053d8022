//! What an append adds: all, once and for good, or nothing.

use std::sync::Arc;

use bytes::Bytes;
use serviceradar_log::{
    Appended, Batch, BatchId, Event, LogError, NewEvent, Offsets, ReadLimit,
    store::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX, EVENT_BYTES_MAX, EVENT_HEADERS_MAX},
};
use tokio::time::timeout;

use super::{
    ALL, Fixture, HANGS, Producer, event, new_tenant, new_topic, number, read_all, read_from, without_place,
};

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
            let read = read_all(store, topic, 0).await;
            let differ = read.iter().zip(&events).find(|(now, before)| now != before);
            assert_eq!((differ, read.len()), (None, events.len()), "{topic} after restart {round}");
            assert_eq!(store.append(topic, 0, batch.clone()).await, Ok(appended));
        }
    }
}
