//! What a store says of its topics, and of those it does not have.

use serviceradar_log::{
    LogError, Offsets, TopicDescription,
    store::{LOG_PARTITIONS_MAX, TOPIC_BYTES_MAX},
};

use super::{ALL, Fixture, Producer, new_tenant, new_topic, read_all};

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
