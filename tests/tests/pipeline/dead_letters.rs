//! What cannot be read goes to the dead letters as it came, and holds up nothing.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use serviceradar_log::{Batch, BatchId, Event, LogStore, MemoryLog, NewEvent, store::EVENT_BYTES_MAX};
use serviceradar_replay::letters::{Manner, Outcome, Replay, Scan, marks};
use serviceradar_schemas::{
    Decision, Event as _, Framings, Observation,
    codec::{Framing, NoRegistry, Unavailable, WriterSchemas, encode_framed},
    encode,
    time::SystemClock,
    topics::Stream,
};
use serviceradar_tests::{
    database::Database,
    stand::{TENANT, drive, drive_with, make_topics, observation, published, read_all},
};

const NOW: i64 = 1_767_225_600_000_000;

fn decision(id: &str, action: &str) -> Vec<u8> {
    encode(&Decision {
        id: id.to_owned(),
        event_time: NOW,
        partition: "default".to_owned(),
        action: action.to_owned(),
        actor: "test".to_owned(),
        ..Decision::default()
    })
}

/// What is wrong, the event's value, and words of the reason.
fn bad_observations() -> Vec<(&'static str, Option<Vec<u8>>, &'static str)> {
    let good = encode(&observation("bad", NOW));
    let mut unknown = good.clone();
    unknown[2..10].fill(0xee);
    let left_over = [good.as_slice(), b"more"].concat();
    let name = encode(&Observation { partition: "bad/name".to_owned(), ..observation("bad", NOW) });
    let unkeyed = encode(&Observation { native_key: String::new(), ..observation("bad", NOW) });
    let confluent = encode_framed(&observation("bad", NOW), Framing::Confluent { id: 7 });
    vec![
        ("tombstone", None, "empty"),
        ("empty", Some(Vec::new()), "empty"),
        ("garbage", Some(b"garbage".to_vec()), "no framing"),
        ("truncated", Some(good[..good.len() - 3].to_vec()), "truncated"),
        ("fingerprint", Some(unknown), "fingerprint eeeeeeeeeeeeeeee"),
        ("left over", Some(left_over), "4 bytes are left over"),
        ("name", Some(name), "is not a name"),
        ("native key", Some(unkeyed), "native_key"),
        ("confluent", Some(confluent), "id 7"),
    ]
}

async fn append(log: &Arc<dyn LogStore>, topic: &str, events: Vec<NewEvent>) {
    let id = BatchId { producer: rand::random(), sequence: 0 };
    log.append(topic, 0, Batch { id, events }).await.unwrap();
}

fn new_event(key: &str, value: Option<Vec<u8>>) -> NewEvent {
    NewEvent {
        key: Some(Bytes::from(key.to_owned())),
        value: value.map(Bytes::from),
        headers: vec![("h".to_owned(), Bytes::from(format!("of {key}")))],
    }
}

fn header<'a>(event: &'a Event, name: &str) -> &'a str {
    let (_, value) = event.headers.iter().find(|(found, _)| found == name).unwrap();
    std::str::from_utf8(value).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_kept_as_it_came_and_holds_up_nothing() {
    let log: Arc<dyn LogStore> = Arc::new(MemoryLog::new(Arc::new(SystemClock)));
    make_topics(&log).await;
    let (observations, decisions) = (Stream::Observations.topic(TENANT), Stream::Decisions.topic(TENANT));
    let bad = bad_observations();
    let before = new_event("before", Some(encode(&observation("before", NOW))));
    let after = new_event("after", Some(encode(&observation("after", NOW))));
    let middle = bad.iter().map(|(key, value, _)| new_event(key, value.clone()));
    append(&log, &observations, [before].into_iter().chain(middle).chain([after]).collect()).await;
    let unknown = decision("d1", "dance");
    append(&log, &decisions, vec![new_event("action", Some(unknown.clone()))]).await;

    let database = Database::migrated().await;
    let driver = drive(log.clone(), database.url()).await;
    driver.caught_up().await.unwrap();
    let told = driver.status().dead_letters;
    let client = database.client().await;
    published(&client).await;
    driver.stop().await.unwrap();

    let select = "SELECT record_key FROM views_1.device_records WHERE uid IS NOT NULL ORDER BY 1";
    let rows = client.query(select, &[]).await.unwrap();
    let records: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(records, ["default/armis/hq/after", "default/armis/hq/before"]);

    let mut expected = bad;
    expected.push(("action", Some(unknown), "dance"));
    assert_eq!(told, expected.len() as u64);
    let mut letters = read_all(&log, &Stream::DeadLetters.topic(TENANT), 0).await;
    assert_eq!(letters.len(), expected.len());
    for (offset, (key, value, why)) in (1..).zip(&expected) {
        let at = letters.iter().position(|letter| letter.key.as_deref() == Some(key.as_bytes())).unwrap();
        let letter = letters.swap_remove(at);
        assert_eq!(letter.value.as_deref(), value.as_deref(), "{key}");
        assert_eq!(header(&letter, "h"), format!("of {key}"));
        let (topic, offset) = if *key == "action" { (&decisions, 0) } else { (&observations, offset) };
        assert_eq!(header(&letter, "dead-letter-id"), format!("{topic}/0/{offset}"));
        let reason = header(&letter, "dead-letter-reason");
        assert!(reason.contains(why), "{key}: {reason}");
        let select = "SELECT reason FROM serviceradar_base.pipeline_refusals
            WHERE tenant = $1 AND topic = $2 AND log_partition = 0 AND log_offset = $3";
        let row = client.query_one(select, &[&TENANT, topic, &i64::from(offset)]).await.unwrap();
        assert_eq!(row.get::<_, &str>(0), reason, "{key}");
    }
    let refusals = "SELECT count(*) FROM serviceradar_base.pipeline_refusals";
    let count: i64 = client.query_one(refusals, &[]).await.unwrap().get(0);
    assert_eq!(count, expected.len() as i64);
}

/// A registry that does not know its schema until it is put there.
#[derive(Default)]
struct Late(AtomicBool);

#[async_trait]
impl WriterSchemas for Late {
    async fn learn(&self, _: &BTreeSet<u32>) -> Result<(), Unavailable> {
        Ok(())
    }

    fn by_id(&self, id: u32) -> Result<Option<String>, Unavailable> {
        let is_known = id == 7 && self.0.load(Ordering::SeqCst);
        Ok(is_known.then(|| Observation::SCHEMA.to_owned()))
    }
}

/// All dead letters, and what a replay makes of them.
async fn replay(
    log: &Arc<dyn LogStore>,
    writers: Arc<dyn WriterSchemas>,
    manner: Manner,
) -> Vec<(String, Outcome)> {
    let marks = marks(log.clone(), TENANT, None).await.unwrap();
    let mut replay = Replay::new(log.clone(), Arc::new(SystemClock), TENANT, writers, marks, manner);
    let mut scan = Scan::begin(log.clone(), TENANT, None).await.unwrap();
    let mut outcomes = Vec::new();
    while let Some(letters) = scan.next_letters().await.unwrap() {
        let of_letters = replay.publish(&letters).await.unwrap();
        let keys =
            letters.iter().map(|letter| String::from_utf8(letter.key.clone().unwrap().to_vec()).unwrap());
        outcomes.extend(keys.zip(of_letters));
    }
    outcomes
}

/// What was refused for its unknown schema is read once the registry has it; nothing else is published, and nothing twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replay_publishes_what_can_be_read_now_once_and_as_it_came() {
    let log: Arc<dyn LogStore> = Arc::new(MemoryLog::new(Arc::new(SystemClock)));
    make_topics(&log).await;
    let observations = Stream::Observations.topic(TENANT);
    let of_id = |id| encode_framed(&observation("late", NOW), Framing::Confluent { id });
    let late = NewEvent {
        // As a producer may name its own headers: they are its own, before and after.
        headers: vec![("dead-letter-id".to_owned(), "forged/0/1".into()), ("h".to_owned(), "1".into())],
        ..new_event("late", Some(of_id(7)))
    };
    let never = [new_event("unknown", Some(of_id(8))), new_event("garbage", Some(b"garbage".to_vec()))];
    append(&log, &observations, [late.clone()].into_iter().chain(never).collect()).await;

    let (database, registry) = (Database::migrated().await, Arc::new(Late::default()));
    let driver = drive_with(TENANT, log.clone(), registry.clone(), Framings::default(), database.url()).await;
    driver.caught_up().await.unwrap();
    assert_eq!(driver.status().dead_letters, 3);
    let client = database.client().await;
    published(&client).await;

    let dry = Manner { dry_run: true, ..Manner::default() };
    let refused = |outcomes: &[(String, Outcome)]| {
        outcomes.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Refused(_))).count()
    };
    assert_eq!(refused(&replay(&log, registry.clone(), Manner::default()).await), 3, "nothing is known yet");
    registry.0.store(true, Ordering::SeqCst);
    let told = replay(&log, registry.clone(), dry).await;
    assert_eq!((refused(&told), told.iter().filter(|(_, o)| *o == Outcome::Readable).count()), (2, 1));
    assert_eq!(read_all(&log, &observations, 0).await.len(), 3, "a dry run publishes nothing");

    let told = replay(&log, registry.clone(), Manner::default()).await;
    let outcome = |key: &str| &told.iter().find(|(of, _)| of == key).unwrap().1;
    assert!(matches!(outcome("late"), Outcome::Replayed(_)), "{told:?}");
    assert!(matches!(outcome("unknown"), Outcome::Refused(why) if why.contains("id 8")), "{told:?}");
    let mut all = Vec::new();
    for at in 0..log.describe_topic(&observations).await.unwrap().log_partitions {
        all.extend(read_all(&log, &observations, at).await);
    }
    let again: Vec<&Event> = all.iter().filter(|event| event.key == late.key).collect();
    assert_eq!(again.len(), 2);
    for event in again {
        assert_eq!((&event.value, &event.headers), (&late.value, &late.headers), "it goes out as it came");
    }
    driver.caught_up().await.unwrap();
    let select = "SELECT record_key FROM views_1.device_records WHERE uid IS NOT NULL";
    let rows = client.query(select, &[]).await.unwrap();
    let records: Vec<&str> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(records, ["default/armis/hq/late"]);

    let told = replay(&log, registry.clone(), Manner::default()).await;
    assert!(
        told.iter().any(|(key, outcome)| key == "late" && matches!(outcome, Outcome::Before(_))),
        "{told:?}"
    );
    assert_eq!(refused(&told), 2);
    // What is forced becomes a dead letter of its own once more, with its new place.
    let force = Manner { even_unreadable: true, ..Manner::default() };
    let forced = replay(&log, registry.clone(), force).await;
    assert_eq!(forced.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Replayed(_))).count(), 2);
    driver.caught_up().await.unwrap();
    published(&client).await;
    assert_eq!(driver.status().dead_letters, 5);
    let told = replay(&log, registry, Manner::default()).await;
    assert_eq!((told.len(), refused(&told)), (5, 2), "{told:?}");
    driver.stop().await.unwrap();
}

/// A value of the log's limit has no room for the letter's headers: the letter is without it, and what is published
/// again is not.
#[tokio::test]
async fn what_a_letter_left_out_is_published_again_from_where_the_event_stands() {
    let log: Arc<dyn LogStore> = Arc::new(MemoryLog::new(Arc::new(SystemClock)));
    make_topics(&log).await;
    let observations = Stream::Observations.topic(TENANT);
    let whole = new_event("big", Some(vec![b'x'; EVENT_BYTES_MAX - 20]));
    append(&log, &observations, vec![whole.clone()]).await;
    let id = format!("{observations}/0/0");
    let letter = NewEvent {
        key: whole.key.clone(),
        value: None,
        headers: vec![
            ("dead-letter-id".to_owned(), id.into()),
            (
                "dead-letter-reason".to_owned(),
                "bad; its headers are left out here; its value of 9 bytes is left out here".into(),
            ),
        ],
    };
    append(&log, &Stream::DeadLetters.topic(TENANT), vec![letter]).await;
    let force = Manner { even_unreadable: true, ..Manner::default() };
    let told = replay(&log, Arc::new(NoRegistry), force).await;
    let [(_, Outcome::Replayed(to))] = &told[..] else { panic!("{told:?}") };
    let at = read_all(&log, &observations, to.log_partition).await;
    let event = at.iter().find(|event| event.offset == to.offset).unwrap();
    assert_eq!((&event.value, &event.headers), (&whole.value, &whole.headers));
}

/// Whoever may write dead letters may not have an operator publish on another tenant's topics.
#[tokio::test]
async fn a_letter_of_another_tenants_topic_is_not_published() {
    let log: Arc<dyn LogStore> = Arc::new(MemoryLog::new(Arc::new(SystemClock)));
    make_topics(&log).await;
    let letter = |topic: &str| NewEvent {
        headers: vec![
            ("dead-letter-id".to_owned(), format!("{topic}/0/0").into()),
            ("dead-letter-reason".to_owned(), "forged".into()),
        ],
        ..new_event("k", Some(encode(&observation("k", NOW))))
    };
    let letters = ["other.observations", &Stream::DeviceChanges.topic(TENANT)].map(letter).to_vec();
    append(&log, &Stream::DeadLetters.topic(TENANT), letters).await;
    let told = replay(&log, Arc::new(NoRegistry), Manner::default()).await;
    assert!(told.iter().all(|(_, outcome)| *outcome == Outcome::Foreign), "{told:?}");
    assert_eq!(told.len(), 2);
}
