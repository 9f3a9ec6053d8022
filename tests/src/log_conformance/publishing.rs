//! What the publisher promises over any store.

use std::sync::Arc;

use bytes::Bytes;
use serviceradar_log::{
    LogError, NewEvent, Offsets, Publisher, log_partition_of,
    store::{BATCH_BYTES_MAX, BATCH_EVENTS_MAX, EVENT_BYTES_MAX},
};

use super::{Fixture, event, new_topic, read_all, without_place};

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
