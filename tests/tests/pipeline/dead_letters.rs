//! What cannot be read goes to the dead letters as it came, and holds up nothing.

use std::sync::Arc;

use bytes::Bytes;
use serviceradar_log::{Batch, BatchId, Event, LogStore, MemoryLog, NewEvent};
use serviceradar_schemas::{
    Decision, Observation,
    codec::{Framing, encode_framed},
    encode,
    time::SystemClock,
    topics::Stream,
};
use serviceradar_tests::{
    database::Database,
    stand::{TENANT, drive, make_topics, observation, published, read_all},
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
