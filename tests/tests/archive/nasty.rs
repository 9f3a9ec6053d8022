//! A log with all that is nasty, and a registry that knows some of its ids.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use async_trait::async_trait;
use bytes::Bytes;
use serviceradar_log::{
    LogStore, NewEvent, Publisher,
    store::{EVENT_BYTES_MAX, EVENT_HEADERS_MAX},
};
use serviceradar_replay::topics;
use serviceradar_schemas::{
    Claim, Decision, Event, Framing, Observation, Target,
    codec::{Unavailable, WriterSchemas},
    encode, encode_framed,
    time::{HOUR, MINUTE, ManualClock},
    topics::Stream,
};
use serviceradar_tests::stand::observation;

/// The id that the old registry gave to our schema of an observation, and the new one to something else.
pub(crate) const OURS: u32 = 7;
/// The id that the old registry gave to a schema of another writer.
pub(crate) const STRANGERS: u32 = 8;
/// The id that the new one gives to it.
pub(crate) const STRANGERS_NOW: u32 = 21;
/// An id that none gave.
const NOBODYS: u32 = 1 << 30;
/// Log partitions of `observations`.
pub(crate) const LOG_PARTITIONS: u32 = 3;
/// Observations of records, besides what cannot be read.
const RECORDS: usize = 200;

/// A registry that knows these.
pub(crate) struct Knows(pub(crate) BTreeMap<u32, String>);

impl Knows {
    pub(crate) fn before() -> Self {
        Self(BTreeMap::from([(OURS, Observation::SCHEMA.to_owned()), (STRANGERS, strangers())]))
    }

    pub(crate) fn now() -> Self {
        Self(BTreeMap::from([(OURS, Decision::SCHEMA.to_owned()), (STRANGERS_NOW, strangers())]))
    }
}

#[async_trait]
impl WriterSchemas for Knows {
    async fn learn(&self, _: &BTreeSet<u32>) -> Result<(), Unavailable> {
        Ok(())
    }
    fn by_id(&self, id: u32) -> Result<Option<String>, Unavailable> {
        Ok(self.0.get(&id).cloned())
    }
}

/// Our schema with a field more at its end.
fn strangers() -> String {
    let mut schema: serde_json::Value = serde_json::from_str(Observation::SCHEMA).unwrap();
    let rack = serde_json::json!({"name": "rack", "type": "string", "default": ""});
    schema["fields"].as_array_mut().unwrap().push(rack);
    schema.to_string()
}

fn event(key: &str, value: Option<Vec<u8>>) -> NewEvent {
    NewEvent {
        key: Some(key.to_owned().into()),
        value: value.map(Bytes::from),
        headers: vec![("ce_id".to_owned(), Bytes::copy_from_slice(key.as_bytes()))],
    }
}

/// An observation whose time only the intake time bounds, so that what comes of it depends on that.
fn ahead(native_key: &str, time: i64) -> Observation {
    Observation { hostname: Some(native_key.to_uppercase()), ..observation(native_key, time + 2 * HOUR) }
}

fn framed(observation: &Observation, id: u32) -> Vec<u8> {
    encode_framed(observation, Framing::Confluent { id })
}

/// Bytes that nobody can read, each with the key that it has.
fn unreadable() -> Vec<NewEvent> {
    let mut events = vec![
        event("tombstone", None),
        event("empty", Some(Vec::new())),
        event("garbage", Some(b"garbage".to_vec())),
        event("cut", Some(framed(&observation("cut", 0), OURS)[..20].to_vec())),
        event("nobodys", Some(framed(&observation("nobodys", 0), NOBODYS))),
        event("foreign fingerprint", Some([&[0xC3, 0x01][..], &[9; 30]].concat())),
        NewEvent { key: None, value: Some(Bytes::from_static(b"without a key")), headers: Vec::new() },
        NewEvent::default(),
    ];
    let header = |at| (format!("h{}", at % 7), Bytes::from(vec![at as u8; at]));
    events.push(NewEvent { headers: (0..EVENT_HEADERS_MAX).map(header).collect(), ..event("headers", None) });
    let mut largest = event("largest", None);
    largest.value = Some(vec![b'x'; EVENT_BYTES_MAX - largest.bytes()].into());
    events.push(largest);
    events
}

/// Observations in all framings, some of which say of themselves that they were restored.
fn readable(round: usize, time: i64) -> Vec<NewEvent> {
    let of = |number: usize| {
        let key = format!("{:03}", (number * 7 + round) % RECORDS);
        let mut observation = ahead(&key, time);
        // Of an event without an id, the datum is.
        observation.id = if number.is_multiple_of(3) { String::new() } else { format!("{round}/{number}") };
        let linked = format!("00:1b:21:aa:{:02x}:{:02x}", number % 50, round);
        observation.claims.push(Claim { namespace: "mac".into(), value: linked.into() });
        let value = match number % 4 {
            0 => encode(&observation),
            1 => framed(&observation, OURS),
            2 => [framed(&observation, STRANGERS), vec![4, b'r', b'1']].concat(),
            _ => encode(&observation),
        };
        let mut event = event(&key, Some(value));
        if number.is_multiple_of(10) {
            event.headers.push(("intake-time".to_owned(), Bytes::from_static(b"1")));
            event.headers.push(("archive-offset".to_owned(), Bytes::from_static(b"99")));
            event.headers.push(("after".to_owned(), Bytes::from_static(b"")));
        }
        event
    };
    (0..RECORDS).map(of).collect()
}

fn decisions(round: usize, time: i64) -> Vec<NewEvent> {
    let decision = Decision {
        id: format!("d{round}"),
        event_time: time + 3 * HOUR,
        partition: "default".to_owned(),
        action: "block".to_owned(),
        target: Target {
            claim: Some(Claim { namespace: "serial".into(), value: format!("SN-{round:03}").into() }),
            ..Target::default()
        },
        actor: "test".to_owned(),
        reason: "why not".to_owned(),
        ..Decision::default()
    };
    vec![event(&decision.key(), Some(encode(&decision))), event("none", Some(b"no decision".to_vec()))]
}

/// Makes the topics of a tenant.
pub(crate) async fn make_topics(log: &Arc<dyn LogStore>, tenant: &str) {
    let observations = Stream::Observations.topic(tenant);
    log.create_topic(&observations, LOG_PARTITIONS).await.unwrap();
    topics::ensure(&**log, tenant).await.unwrap();
}

/// Appends more of it; the clock goes on, and back.
pub(crate) async fn publish(
    log: &Arc<dyn LogStore>,
    tenant: &str,
    clock: &ManualClock,
    from: i64,
    rounds: std::ops::Range<usize>,
) {
    let observations = Publisher::new(log.clone(), Stream::Observations.topic(tenant));
    let decided = Publisher::new(log.clone(), Stream::Decisions.topic(tenant));
    for round in rounds {
        let time = from + round as i64 * 10 * MINUTE;
        for (part, events) in [readable(round, time), unreadable()].into_iter().enumerate() {
            clock.set(time + if part == 0 { 5 * MINUTE } else { -MINUTE });
            observations.publish(events).await.unwrap();
        }
        decided.publish(decisions(round, time)).await.unwrap();
    }
}
