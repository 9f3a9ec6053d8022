//! Any events survive an archive and a restore byte for byte; and whoever has another Avro reader can read the files.

use std::sync::Arc;

use apache_avro::types::Value;
use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*};
use serviceradar_log::{Batch, BatchId, LogStore, NewEvent};
use serviceradar_replay::archive;
use serviceradar_schemas::{codec::NoRegistry, topics::Stream};
use serviceradar_tests::stand::TENANT;

use super::{
    archive_all, assert_restored, folder, in_memory, new_log, old_log, read_all_from_start, restore_all,
    wanted,
};

fn any_bytes() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn any_event() -> impl Strategy<Value = NewEvent> {
    let headers = vec((".{0,10}", any_bytes()), 0..4);
    let event = (option::of(any_bytes()), option::of(any_bytes()), headers);
    event.prop_map(|(key, value, headers)| NewEvent { key, value, headers })
}

async fn append(log: &Arc<dyn LogStore>, topic: &str, log_partition: u32, events: Vec<NewEvent>) {
    let id = BatchId { producer: rand::random(), sequence: 0 };
    log.append(topic, log_partition, Batch { id, events }).await.unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn any_events_survive_byte_for_byte(
        batches in vec((0..2_u32, any::<bool>(), vec(any_event(), 1..20)), 1..8),
        bytes_max in 1_u64..4_000,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (old, clock) = old_log();
            let (observations, decisions) =
                (Stream::Observations.topic(TENANT), Stream::Decisions.topic(TENANT));
            for topic in [&observations, &decisions] {
                old.create_topic(topic, 2).await.unwrap();
            }
            let place = in_memory();
            for (number, (log_partition, is_observation, events)) in batches.into_iter().enumerate() {
                let topic = if is_observation { &observations } else { &decisions };
                clock.set(super::THEN + number as i64);
                append(&old, topic, log_partition, events).await;
                // Bit by bit, in files of any size.
                if number % 3 == 0 {
                    let wanted = archive::Wanted { file_bytes_max: bytes_max, ..wanted(TENANT) };
                    archive::archive(&*old, &NoRegistry, &place, &wanted, |_, _| {}).await.unwrap();
                }
            }
            let archived = archive_all(&old, &place).await.unwrap();
            let new = new_log();
            restore_all(&new, &place).await.unwrap();
            assert_restored(&old, &new, &archived.manifest).await;
        });
    }
}

#[tokio::test]
async fn another_avro_reader_reads_the_files() {
    let (old, _) = old_log();
    let topic = Stream::Observations.topic(TENANT);
    super::nasty::make_topics(&old, TENANT).await;
    let value = |at: u8| (!at.is_multiple_of(5)).then(|| Bytes::from(vec![at; usize::from(at) * 50]));
    let events = (0..100).map(|at| NewEvent {
        key: Some(Bytes::from(vec![at])),
        value: value(at),
        headers: vec![("h".to_owned(), Bytes::from_static(b"\xff"))],
    });
    append(&old, &topic, 1, events.collect()).await;
    let dir = tempfile::tempdir().unwrap();
    let archived = archive_all(&old, &folder(dir.path())).await.unwrap();
    let file = &archived.manifest.files[0];
    let reader = apache_avro::Reader::new(std::fs::File::open(dir.path().join(&file.path)).unwrap()).unwrap();
    let read: Vec<_> = reader.map(Result::unwrap).collect();
    assert_eq!(read.len(), 100);
    let log = read_all_from_start(&old, &topic, 1).await;
    for (value, event) in read.into_iter().zip(log) {
        let Value::Record(fields) = value else { panic!("{value:?}") };
        let offset = Value::Long(event.offset.cast_signed());
        assert_eq!(fields[0], ("offset".to_owned(), offset));
        assert_eq!(fields[1], ("intake_time".to_owned(), Value::TimestampMicros(super::THEN)));
        let bytes = |bytes: &Option<Bytes>| match bytes {
            Some(bytes) => Value::Union(1, Box::new(Value::Bytes(bytes.to_vec()))),
            None => Value::Union(0, Box::new(Value::Null)),
        };
        assert_eq!(fields[2].1, bytes(&event.key));
        assert_eq!(fields[3].1, bytes(&event.value));
    }
}
