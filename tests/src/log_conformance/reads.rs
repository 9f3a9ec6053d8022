//! What comes back, where, when, and until it is deleted.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use serviceradar_log::{Batch, LogError, NewEvent, Offsets, ReadLimit};
use tokio::time::timeout;

use super::{ALL, Fixture, HANGS, Producer, event, new_topic, number, read_all, read_from, without_place};

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

/// However many there are, and whatever is deleted.
pub async fn the_last_event_is_found(fixture: &mut dyn Fixture) {
    let store = fixture.store();
    let topic = new_topic(store, 2).await;
    assert_eq!(store.last_event(&topic, 1).await, Ok(None));
    let (mut producer, mut end) = (Producer::new(), 0);
    for size in [1, 1, 40, 3_000] {
        store.append(&topic, 1, producer.numbers(end..end + size)).await.unwrap();
        end += size;
        let last = store.last_event(&topic, 1).await.unwrap().unwrap();
        assert_eq!((last.offset, number(&last)), (end - 1, end - 1));
    }
    assert_eq!(store.last_event(&topic, 0).await, Ok(None));
    store.delete_before(&topic, 1, end - 1).await.unwrap();
    assert_eq!(store.last_event(&topic, 1).await.unwrap().map(|last| last.offset), Some(end - 1));
    store.delete_before(&topic, 1, end).await.unwrap();
    assert_eq!(store.last_event(&topic, 1).await, Ok(None));
    assert!(matches!(store.last_event("acme.nothing", 0).await, Err(LogError::UnknownTopic(_))));
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
