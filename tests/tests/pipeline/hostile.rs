//! Values that nobody should send: each ends as a quality row of its record or as a dead letter, and what comes after
//! it is taken in. Two times: while empty views are filled, and epoch by epoch.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use bytes::Bytes;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serviceradar_log::{Batch, BatchId, LogStore, MemoryLog, NewEvent, store::EVENT_BYTES_MAX};
use serviceradar_schemas::{
    Action, Address, Claim, Collector, Decision, Observation, Snapshot, Source, Target, Text, encode,
    time::{Clock, SystemClock},
    topics::Stream,
};
use serviceradar_tests::{
    database::Database,
    stand::{drive_tenant, published, read_all},
};
use tokio::time::timeout;
use tokio_postgres::Client;

/// A tick moves the watermark to the present, by which older records would have expired.
static NOW: LazyLock<i64> = LazyLock::new(|| SystemClock.now());
/// Its last second.
const YEAR_9999: i64 = 253_402_300_799_000_000;
/// As long as a tenant may be called: it is part of every key.
const HOSTILE: &str = "hostile-0123456789-0123456789-0123456789";
/// Longest wait: only what hangs takes so long.
const HANGS: Duration = Duration::from_secs(120);
const KB: usize = 1024;

/// How a hostile event ends.
enum End {
    /// Its record is there, and a quality row says this of it.
    Quality(&'static str),
    /// Its record is there, and nothing is wrong with it.
    Taken,
    /// A dead letter with this reason.
    Refused(&'static str),
    /// It speaks of no record, and is no dead letter.
    Passed,
}
use End::{Passed, Quality, Refused, Taken};

/// Text that does not compress: what PostgreSQL can make smaller fits where other text does not.
fn noise(length: usize) -> String {
    let mut random = StdRng::seed_from_u64(length as u64);
    (0..length).map(|_| char::from(random.random_range(b'!'..=b'~'))).collect()
}

fn claim(namespace: &str, value: &str) -> Claim {
    Claim { namespace: namespace.into(), value: value.into() }
}

fn base(key: &str) -> Observation {
    Observation {
        id: key.to_owned(),
        event_time: *NOW,
        partition: "default".to_owned(),
        // Whose key is a claim: so there is a device whatever else is wrong.
        source: Source { kind: "armis".to_owned(), instance: "hq".to_owned() },
        native_key: key.to_owned(),
        claims: vec![claim("serial", &format!("acme:{key}"))],
        ..Observation::default()
    }
}

/// Every text that says something of the record.
fn texts(key: &str, text: &str) -> Observation {
    let some = || Some(text.to_owned());
    Observation {
        hostname: some(),
        name: some(),
        vendor: some(),
        model: some(),
        serial: some(),
        device_type: some(),
        os_name: some(),
        os_version: some(),
        site: some(),
        ..base(key)
    }
}

fn map(entries: impl Iterator<Item = (String, String)>) -> std::collections::BTreeMap<Text, Text> {
    entries.map(|(name, value)| (name.into(), value.into())).collect()
}

fn snapshot(id: &str, begin: i64, count: Option<i64>) -> Option<Snapshot> {
    Some(Snapshot { id: id.to_owned(), begin, count })
}

/// What is sent, under the key that its record, or its dead letter, is found by; `round` keeps the rounds apart.
fn observations(round: usize) -> Vec<(Observation, End)> {
    let key = |name: &str| format!("{name}-{round}");
    let of = |name: &str| base(&key(name));
    let long = noise(64 * KB);
    let nul = "a\0b";
    let name = "n".repeat(64);
    let address = |ip: String| Address { ip, ..Address::default() };
    let ended =
        |action, name: &str, snapshot| Observation { action, claims: Vec::new(), snapshot, ..of(name) };
    vec![
        (texts(&key("long"), &long), Quality("too long")),
        (texts(&key("longest"), &noise(KB)), Taken),
        (texts(&key("nul"), nul), Taken),
        (texts(&key("nuls"), &"\0".repeat(KB)), Quality("too long")),
        (texts(&key("surrogate"), "\u{fffd}\u{202e}\u{feff}"), Taken),
        (Observation { claims: vec![claim("asset", &long)], ..of("long claim") }, Quality("too long")),
        (Observation { claims: vec![claim(&long, "1")], ..of("long namespace") }, Quality("too long")),
        (Observation { claims: vec![claim("asset", nul)], ..of("nul claim") }, Quality("not a text")),
        (Observation { claims: vec![claim(nul, "1")], ..of("nul namespace") }, Quality("not a text")),
        // İ takes two bytes, and three in lower case.
        (
            Observation { claims: vec![claim("hwuuid", &"\u{130}".repeat(KB / 2))], ..of("growing claim") },
            Quality("too long"),
        ),
        // All parts of a key of the evidence as long as they may be.
        (
            Observation {
                partition: name.clone(),
                source: Source { kind: name.clone(), instance: name.clone() },
                native_key: format!("{}{round}", noise(KB - 1)),
                claims: vec![claim(&noise(256), &noise(KB)), claim("hwuuid", &noise(KB))],
                ..of("longest keys")
            },
            Quality("unknown namespace"),
        ),
        (
            Observation {
                claims: (0..10_000).map(|n| claim("mac", &format!("001b21{n:06x}"))).collect(),
                ..of("claims")
            },
            Quality("over the limit of claims"),
        ),
        (
            Observation {
                addresses: (0..10_000_u32)
                    .map(|n| address(std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string()))
                    .collect(),
                ..of("addresses")
            },
            Quality("over the limit of addresses"),
        ),
        (
            Observation { addresses: vec![address(long.clone()), address(nul.to_owned())], ..of("ip") },
            Quality("no usable address"),
        ),
        (
            Observation {
                addresses: vec![Address {
                    ip: "10.0.0.1".to_owned(),
                    mac: Some(long.clone()),
                    interface: Some(long.clone()),
                }],
                ..of("interface")
            },
            Quality("too long"),
        ),
        (
            Observation {
                tags: map((0..10_000).map(|n| (n.to_string(), String::new()))),
                attributes: map((0..10_000).map(|n| (n.to_string(), "x".to_owned()))),
                ..of("maps")
            },
            Quality("over the limit of attributes"),
        ),
        (
            Observation {
                tags: map([(long.clone(), long.clone()), (nul.to_owned(), nul.to_owned())].into_iter()),
                attributes: map([("a".to_owned(), long.clone()), (String::new(), nul.to_owned())].into_iter()),
                ..of("long entries")
            },
            Quality("too long"),
        ),
        (
            Observation {
                collector: Some(Collector {
                    agent: long.clone(),
                    gateway: nul.to_owned(),
                    address: long.clone(),
                }),
                ..of("collector")
            },
            Quality("too long"),
        ),
        (Observation { risk_score: Some(i32::MIN), ..of("risk") }, Quality("not 0 to 100")),
        (Observation { id: long.clone(), ..of("id") }, Taken),
        (Observation { event_time: i64::MAX, ..of("max") }, Quality("ahead of its intake")),
        (Observation { event_time: i64::MIN, ..of("min") }, Quality("before the year 2000")),
        (Observation { event_time: -1, ..of("negative") }, Quality("before the year 2000")),
        (Observation { event_time: YEAR_9999, ..of("9999") }, Quality("ahead of its intake")),
        (
            Observation { snapshot: snapshot("s", i64::MAX, None), ..of("begin") },
            Quality("ahead of its intake"),
        ),
        (
            Observation { snapshot: snapshot("s", i64::MIN, None), ..of("begins") },
            Quality("before the year 2000"),
        ),
        (Observation { snapshot: snapshot(nul, *NOW, Some(i64::MIN)), ..of("nul snapshot") }, Taken),
        (
            Observation { snapshot: snapshot(&long, *NOW, None), ..of("long snapshot") },
            Refused("snapshot.id"),
        ),
        (ended(Action::SnapshotEnd, "most", snapshot("s", i64::MAX, Some(i64::MAX))), Passed),
        (ended(Action::SnapshotEnd, "least", snapshot("s", *NOW, Some(i64::MIN))), Passed),
        (ended(Action::SnapshotBegin, "none", None), Refused("a snapshot event needs")),
        (Observation { native_key: long.clone(), ..ended(Action::Tick, "tick", None) }, Passed),
        (Observation { event_time: i64::MAX, ..ended(Action::Tick, "late tick", None) }, Passed),
        (Observation { native_key: format!("a/b//{round}/"), ..of("slashes") }, Taken),
        (Observation { native_key: String::new(), ..of("empty key") }, Refused("native_key must have")),
        (Observation { native_key: long.clone(), ..of("long key") }, Refused("native_key must have")),
        (Observation { native_key: nul.to_owned(), ..of("nul key") }, Refused("native_key must have")),
        (Observation { partition: nul.to_owned(), ..of("nul partition") }, Refused("is not a name")),
        (Observation { partition: long.clone(), ..of("long partition") }, Refused("is not a name")),
        (
            Observation { source: Source { kind: "a/b".to_owned(), instance: long }, ..of("source") },
            Refused("is not a name"),
        ),
        // One device, of more than an event holds.
        (wide(&key("wide"), &key("wide")), Taken),
        (wide(&key("wider"), &key("wide")), Taken),
    ]
}

/// A record with 800 kB of attributes of its own, of the device with this serial.
fn wide(key: &str, serial: &str) -> Observation {
    Observation {
        claims: vec![claim("serial", &format!("acme:{serial}"))],
        attributes: map((0..100).map(|n| (format!("{key} {n}"), noise(8_000 + n)))),
        ..base(key)
    }
}

fn decisions(round: usize) -> Vec<(Decision, End)> {
    let long = noise(64 * KB);
    let of = |name: &str| Decision {
        id: format!("{name}-{round}"),
        event_time: *NOW,
        partition: "default".to_owned(),
        action: "block".to_owned(),
        target: Target { claim: Some(claim("asset", "1")), ..Target::default() },
        actor: "ops".to_owned(),
        ..Decision::default()
    };
    let source = |source: Source| Target { source: Some(source), begin: Some(*NOW), ..Target::default() };
    let pin = |value: String| Decision {
        action: "pin_value".to_owned(),
        target: Target {
            claim: Some(claim("serial", &format!("acme:longest-{round}"))),
            attribute: Some("vendor".to_owned()),
            ..Target::default()
        },
        value: Some(value),
        ..of("pin")
    };
    vec![
        (Decision { id: long.clone(), ..of("long id") }, Refused("id must have at most")),
        (Decision { id: "a\0".to_owned(), ..of("nul id") }, Refused("id must have at most")),
        (Decision { id: String::new(), ..of("no id") }, Refused("id is missing")),
        (Decision { reason: long.clone(), ..of("long reason") }, Refused("reason must have at most")),
        (Decision { actor: "\0".to_owned(), ..of("nul actor") }, Refused("actor must have at most")),
        (Decision { action: long.clone(), ..of("long action") }, Refused("unknown action")),
        (Decision { event_time: i64::MAX, ..of("late") }, Passed),
        (Decision { event_time: i64::MIN, ..of("early") }, Passed),
        (
            Decision {
                target: Target { claim: Some(claim("asset", &long)), ..Target::default() },
                ..of("long claim")
            },
            Refused("is no usable claim"),
        ),
        (
            Decision {
                action: "hold_snapshot".to_owned(),
                target: source(Source { kind: long.clone(), instance: "\0".to_owned() }),
                ..of("source")
            },
            Refused("target.source"),
        ),
        (
            Decision {
                action: "detach".to_owned(),
                target: Target { record: Some("default/a/b/\0".to_owned()), ..Target::default() },
                ..of("record")
            },
            Refused("target.record must have"),
        ),
        (Decision { id: format!("long pin-{round}"), ..pin(long) }, Refused("value must have at most")),
        (pin(noise(KB)), Passed),
    ]
}

/// Bytes and headers that leave a dead letter no room.
fn letters(round: usize) -> Vec<(NewEvent, End)> {
    let event = |key: &str, value: usize, headers: usize| NewEvent {
        key: Some(format!("{key}-{round}").into()),
        value: Some(vec![7; value].into()),
        headers: vec![("h".to_owned(), Bytes::from_static(b"\0")); headers],
    };
    let least = event("value", 0, 0).bytes();
    vec![
        (event("value", EVENT_BYTES_MAX - least, 0), Refused("its value of 1048569 bytes is left out")),
        (event("headers", 10, 100), Refused("its headers are left out")),
    ]
}

async fn append(log: &Arc<dyn LogStore>, topic: &str, events: Vec<NewEvent>) {
    for events in events.chunks(8) {
        let id = BatchId { producer: rand::random(), sequence: 0 };
        log.append(topic, 0, Batch { id, events: events.to_vec() }).await.unwrap();
    }
}

fn new_event(key: &str, value: Vec<u8>) -> NewEvent {
    NewEvent { key: Some(key.to_owned().into()), value: Some(value.into()), headers: Vec::new() }
}

/// What was sent in a round, and how it has to end: the key of its dead letter, its record, and the end.
type Sent = Vec<(String, Option<String>, End)>;

async fn send(log: &Arc<dyn LogStore>, round: usize) -> Sent {
    let mut sent = Sent::new();
    let mut events = Vec::new();
    for (observation, end) in observations(round) {
        let key = format!("{round}: {:.40}", observation.id);
        events.push(new_event(&key, encode(&observation)));
        let keyed = observation.action == Action::Assert;
        sent.push((key, keyed.then(|| observation.record_key()), end));
    }
    for (event, end) in letters(round) {
        sent.push((String::from_utf8(event.key.as_deref().unwrap().to_vec()).unwrap(), None, end));
        events.push(event);
    }
    let after = base(&format!("after-{round}"));
    events.push(new_event("after", encode(&after)));
    sent.push(("after".to_owned(), Some(after.record_key()), Taken));
    append(log, &Stream::Observations.topic(HOSTILE), events).await;
    let mut events = Vec::new();
    for (place, (decision, end)) in decisions(round).into_iter().enumerate() {
        let key = format!("decision {place} of round {round}");
        events.push(new_event(&key, encode(&decision)));
        sent.push((key, None, end));
    }
    append(log, &Stream::Decisions.topic(HOSTILE), events).await;
    sent
}

/// Every event of the rounds ended as it has to.
async fn assert_ended(client: &Client, log: &Arc<dyn LogStore>, sent: &Sent) {
    let letters = read_all(log, &Stream::DeadLetters.topic(HOSTILE), 0).await;
    let reason_of = |key: &str| {
        let letter = letters.iter().find(|letter| letter.key.as_deref() == Some(key.as_bytes()))?;
        let (_, reason) = letter.headers.iter().find(|(name, _)| name == "dead-letter-reason")?;
        Some(String::from_utf8(reason.to_vec()).unwrap())
    };
    let quality = "SELECT detail FROM views_1.identity_issues WHERE kind = 'quality' AND value = $1";
    let placed = "SELECT uid IS NOT NULL FROM views_1.device_records WHERE record_key = $1";
    for (key, record, end) in sent {
        let reason = reason_of(key);
        let mut told = None;
        if let (Some(record), Quality(_) | Taken) = (record, end) {
            let placed = client.query_opt(placed, &[record]).await.unwrap();
            assert!(placed.is_some_and(|row| row.get(0)), "{key} has no device");
            told = client.query_opt(quality, &[record]).await.unwrap().map(|row| row.get::<_, String>(0));
        }
        let (expected, found) = match end {
            Quality(why) => (Some(why), &told),
            Refused(why) => (Some(why), &reason),
            Taken | Passed => (None, &told),
        };
        assert_eq!(reason.is_some(), matches!(end, Refused(_)), "{key}: {reason:?}");
        match expected {
            Some(why) => assert!(found.as_ref().is_some_and(|found| found.contains(why)), "{key}: {found:?}"),
            None => assert_eq!(found, &None, "{key}"),
        }
    }
    let refused = sent.iter().filter(|(.., end)| matches!(end, Refused(_))).count();
    assert_eq!(letters.len(), refused);
    let taken = sent.iter().filter(|(.., end)| matches!(end, Quality(_) | Taken)).count();
    let records = "SELECT count(*) FROM views_1.device_records";
    assert_eq!(client.query_one(records, &[]).await.unwrap().get::<_, i64>(0), taken as i64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_values_end_as_quality_rows_or_dead_letters_and_hold_up_nothing() {
    let log: Arc<dyn LogStore> = Arc::new(MemoryLog::new(Arc::new(SystemClock)));
    serviceradar_replay::topics::ensure(&*log, HOSTILE).await.unwrap();
    let database = Database::migrated().await;
    let client = database.client().await;
    let mut sent = Sent::new();
    // Into empty views, into a pipeline that runs, and into one that has read its state back.
    for round in 0..3 {
        if round != 1 {
            sent.extend(send(&log, round).await);
        }
        let driver = drive_tenant(HOSTILE, log.clone(), database.url()).await;
        timeout(HANGS, driver.caught_up()).await.expect("the pipeline hangs").unwrap();
        if round == 1 {
            sent.extend(send(&log, round).await);
            timeout(HANGS, driver.caught_up()).await.expect("the pipeline hangs").unwrap();
        }
        timeout(HANGS, published(&client)).await.expect("the outbox hangs");
        driver.stop().await.unwrap();
        assert_ended(&client, &log, &sent).await;
    }
    let cut = "SELECT count(*) FROM views_1.devices WHERE 'cut' = ANY (flags)";
    assert_eq!(
        client.query_one(cut, &[]).await.unwrap().get::<_, i64>(0),
        3,
        "the wide device of each round"
    );
}
