//! From the time when an observation should be sent to its row being visible:
//! `cargo bench -p serviceradar-tests --bench latency [-- RATE SECONDS RECORDS]`.
//!
//! An open-loop generator publishes to Kafka at a steady rate, whether or not the pipeline keeps up: records that
//! are known, seen whole again, one in ten with another name. Another connection, as `serviceradar_reader` through the
//! schema `serviceradar`, asks every few milliseconds for the names that it waits for. A database with TimescaleDB, as
//! migrated, with all indexes. Pipeline, generator, reader, Kafka and PostgreSQL share the machine.

use std::{
    collections::{BTreeMap, HashMap},
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serviceradar_ingest::publish::Observations;
use serviceradar_log::{KafkaConfig, KafkaLog, LogStore};
use serviceradar_schemas::{
    Action, Claim, Coverage, Framing, Observation, Source,
    time::{Clock, SystemClock},
    topics::Stream,
};
use serviceradar_tests::{database::Database, services, stand::drive_tenant};
use tokio::sync::mpsc;
use tokio_postgres::NoTls;
use uuid::Uuid;

const TENANT: &str = "latency";
const RATE: u64 = 10_000;
const SECONDS: u64 = 60;
const RECORDS: u64 = 20_000;
/// One event in so many changes something,
const CHANGE_EVERY: u64 = 10;
/// and one change in so many is waited for.
const WATCH_EVERY: u64 = 5;
/// How often the generator sends.
const TICK: Duration = Duration::from_millis(20);
/// How often the reader asks.
const ASK_EVERY: Duration = Duration::from_millis(25);
/// How long the last may take.
const GIVE_UP_AFTER: Duration = Duration::from_secs(120);

/// As the program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A name that is to be seen: of which record, and when it should have been sent.
struct Awaited {
    record: u64,
    name: String,
    intended: Instant,
}

fn main() -> Result<()> {
    let numbers: Vec<u64> = std::env::args().skip(1).filter_map(|argument| argument.parse().ok()).collect();
    let of = |at: usize, default| numbers.get(at).copied().unwrap_or(default);
    serviceradar_ops::memory::use_small_pages();
    serviceradar_ops::memory::runtime()?.block_on(run(of(0, RATE), of(1, SECONDS), of(2, RECORDS)))
}

async fn run(rate: u64, seconds: u64, records: u64) -> Result<()> {
    let config = KafkaConfig { servers: services::kafka().await, ..KafkaConfig::default() };
    let log: Arc<dyn LogStore> = Arc::new(KafkaLog::new(&config)?);
    for topic in log.topics(Some(TENANT)).await? {
        log.delete_topic(&topic.name).await?;
    }
    serviceradar_replay::topics::ensure(&*log, TENANT).await?;
    let publisher =
        Arc::new(Observations::new(log.clone(), Stream::Observations.topic(TENANT), Framing::default()));
    publisher.publish((0..records).map(|record| observation(record, "first".to_owned()))).await?;
    let database = Database::migrated_timescale().await;
    let driver = drive_tenant(TENANT, log.clone(), database.url()).await;
    driver.caught_up().await?;
    // What filling the views leaves to be published comes first.
    serviceradar_tests::stand::published(&database.client().await).await;

    let (put, take) = mpsc::unbounded_channel();
    let reading = tokio::spawn(read(database.url().to_owned(), take));
    let begin = Instant::now() + TICK;
    let (mut number, mut random) = (0, ChaCha8Rng::seed_from_u64(1));
    let mut names = vec!["first".to_owned(); usize::try_from(records)?];
    let mut sending = Vec::new();
    while number < rate * seconds {
        let due = begin + TICK * u32::try_from(sending.len())?;
        tokio::time::sleep_until(due.into()).await;
        let upto = (rate * (sending.len() as u64 + 1) * TICK.as_millis() as u64 / 1_000).min(rate * seconds);
        let mut events = Vec::new();
        for number in number..upto {
            // Each has its own time, within the tick that sends it.
            let intended = begin + Duration::from_secs_f64(number as f64 / rate as f64) - TICK;
            let record = random.random_range(0..records);
            let name = &mut names[usize::try_from(record)?];
            if number % CHANGE_EVERY == 0 {
                *name = format!("name-{number}");
            }
            events.push(observation(record, name.clone()));
            if number % (CHANGE_EVERY * WATCH_EVERY) == 0 {
                put.send(Awaited { record, name: name.clone(), intended })?;
            }
        }
        number = upto;
        // Whoever is slow keeps nobody waiting.
        let publisher = publisher.clone();
        sending.push(tokio::spawn(async move { publisher.publish(events).await }));
    }
    drop(put);
    println!("{:<44} {:>9.2} s", format!("{number} events sent"), begin.elapsed().as_secs_f64());
    for sent in sending {
        sent.await??;
    }
    println!("{:<44} {:>9.2} s", "all acknowledged", begin.elapsed().as_secs_f64());
    let (mut latencies, overtaken) = reading.await?.map_err(|error| error.to_string())?;
    println!("{:<44} {:>9.2} s", "all visible", begin.elapsed().as_secs_f64());
    for tenth in latencies.chunks(latencies.len().div_ceil(10)) {
        let greatest = tenth.iter().max().map_or(0.0, Duration::as_secs_f64);
        println!("{:<44} {:>9.0} ms", "  of a tenth of the time, the greatest", greatest * 1_000.0);
    }
    latencies.sort_unstable();
    let at = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize].as_secs_f64() * 1_000.0;
    println!("{:<44} {:>9}", "changes waited for", latencies.len());
    println!("{:<44} {overtaken:>9}", "of them overtaken by a later change");
    for (name, share) in [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("greatest", 1.0)] {
        println!("{name:<44} {:>9.0} ms", at(share));
    }
    driver.stop().await?;
    for topic in log.topics(Some(TENANT)).await? {
        log.delete_topic(&topic.name).await?;
    }
    Ok(())
}

/// What one source sees of a record, all of it, as an agent or an integration tells it again and again.
fn observation(record: u64, name: String) -> Observation {
    let mac =
        format!("00:1b:{:02x}:{:02x}:{:02x}:01", record >> 16 & 0xff, record >> 8 & 0xff, record & 0xff);
    Observation {
        event_time: SystemClock.now(),
        partition: "default".to_owned(),
        source: Source { kind: "netbox".to_owned(), instance: "lab".to_owned() },
        native_key: record.to_string(),
        action: Action::Assert,
        coverage: Coverage::Full,
        claims: vec![Claim { namespace: "mac".into(), value: mac.into() }],
        hostname: Some(format!("host-{record}")),
        name: Some(name),
        ..Observation::default()
    }
}

/// Asks for what is awaited until all of it was seen. A name that a later one of the same record took the place of
/// before it was asked for counts as seen then.
async fn read(
    url: String,
    mut take: mpsc::UnboundedReceiver<Awaited>,
) -> std::result::Result<(Vec<Duration>, usize), Box<dyn Error + Send + Sync>> {
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await?;
    tokio::spawn(connection);
    let become_reader = format!(
        "SET ROLE serviceradar_reader; SET search_path = serviceradar; SET serviceradar.tenant = '{TENANT}'"
    );
    client.batch_execute(&become_reader).await?;
    // Known by a MAC address each, records keep their devices.
    let mut devices = HashMap::new();
    for row in client.query("SELECT native_key, uid FROM device_records", &[]).await? {
        devices.insert(row.get::<_, String>(0).parse::<u64>()?, row.get::<_, Uuid>(1));
    }
    let records: HashMap<Uuid, u64> = devices.iter().map(|(record, uid)| (*uid, *record)).collect();
    let select = client.prepare("SELECT uid, name FROM devices WHERE uid = ANY ($1)").await?;
    let (mut awaited, mut latencies, mut overtaken) = (BTreeMap::<u64, Vec<Awaited>>::new(), Vec::new(), 0);
    let mut last = Instant::now();
    loop {
        loop {
            match take.try_recv() {
                Ok(one) => awaited.entry(one.record).or_default().push(one),
                Err(mpsc::error::TryRecvError::Disconnected) if awaited.is_empty() => {
                    return Ok((latencies, overtaken));
                }
                Err(_) => break,
            }
            last = Instant::now();
        }
        if last.elapsed() > GIVE_UP_AFTER {
            return Err(format!("{} changes were never seen", awaited.len()).into());
        }
        let uids: Vec<Uuid> = awaited.keys().filter_map(|record| devices.get(record).copied()).collect();
        let rows = client.query(&select, &[&uids]).await?;
        let seen = Instant::now();
        for row in rows {
            let (uid, name): (Uuid, Option<String>) = (row.get(0), row.get(1));
            let number = number_of(name.as_deref().unwrap_or_default());
            let Some(waiting) = records.get(&uid).and_then(|record| awaited.get_mut(record)) else {
                continue;
            };
            waiting.retain(|one| {
                let is_seen = number_of(&one.name) <= number;
                if is_seen {
                    latencies.push(seen - one.intended);
                    overtaken += usize::from(number_of(&one.name) < number);
                }
                !is_seen
            });
        }
        awaited.retain(|_, waiting| !waiting.is_empty());
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// Names are numbered in the order of their sending; the first have none.
fn number_of(name: &str) -> i64 {
    name.strip_prefix("name-").and_then(|number| number.parse().ok()).unwrap_or(-1)
}
