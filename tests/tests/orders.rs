//! The same log in a hundred orders, within what a log allows: any interleaving of log partitions, any batching.
//! The tables in PostgreSQL must be equal, compared by EXCEPT both ways.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{collections::VecDeque, sync::Arc};

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};
use serde_json::json;
use serviceradar_ingest::{
    faker::{Faker, FakerConfig, INSTANCE, SECRET},
    publish::Observations,
    sync::armis::{ArmisClient, ArmisConfig, crawl},
};
use serviceradar_log::{LogStore, MemoryLog, ReadLimit, log_partition_of};
use serviceradar_materializers::views::{Epoch, Views};
use serviceradar_schemas::{
    Decision, Decoder, Framing, Observation, Source, Target,
    time::{ManualClock, SECOND},
    topics::Stream,
};
use serviceradar_streams::{
    decisions::Taken,
    engine::{Batch, Engine},
    normalise::{Sighting, normalise},
    rules::Rules,
};
use serviceradar_tests::database::Database;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

const TENANT: &str = "orders";
const ORDERS: u64 = 100;
const LOG_PARTITIONS: u32 = 6;
const T0: i64 = 1_767_225_600 * SECOND;
/// Bookkeeping, which is no part of what is compared.
const BOOKKEEPING: [&str; 2] = ["modified_at", "epoch"];

#[derive(Clone)]
enum Event {
    Sighting(Box<Sighting>),
    Decision(Box<Taken>),
}

/// A log: per log partition its events, each with its intake time taken in.
type Log = Vec<VecDeque<Event>>;

/// Three looks at a small network, addresses shuffled between them, each crawl accepted.
async fn log() -> Log {
    let clock = Arc::new(ManualClock::new(T0));
    let dir = tempfile::tempdir().unwrap();
    let config = FakerConfig { devices: 60, shuffle_every: None, ..FakerConfig::new(dir.path().to_owned()) };
    let faker = Faker::open(config, clock.clone()).unwrap();
    let serving = faker.serve(CancellationToken::new()).await.unwrap();
    let client = ArmisClient::new(ArmisConfig::new(&serving.url(), SECRET, INSTANCE), clock.clone()).unwrap();
    let mut log: Log = vec![VecDeque::new(); LOG_PARTITIONS as usize + 1];
    for look in 0..3 {
        let now = T0 + look * 600 * SECOND;
        clock.set(now);
        let store: Arc<dyn LogStore> = Arc::new(MemoryLog::new(clock.clone()));
        let topic = Stream::Observations.topic(TENANT);
        store.create_topic(&topic, 1).await.unwrap();
        crawl(&client, &Observations::new(store.clone(), &*topic, Framing::default()), &*clock, |_| {})
            .await
            .unwrap();
        let mut observations = read(&*store, &topic).await;
        observations.extend(faker.observations_of_others());
        for (observation, nth) in observations.into_iter().zip(0..) {
            if observation.snapshot.as_ref().is_some_and(|snapshot| snapshot.count.is_some()) {
                let begin = observation.snapshot.as_ref().map(|snapshot| snapshot.begin);
                let taken = Taken::read(accept(begin), Some(now + SECOND)).unwrap();
                log[LOG_PARTITIONS as usize].push_back(Event::Decision(Box::new(taken)));
            }
            let at = log_partition_of(observation.record_key().as_bytes(), LOG_PARTITIONS);
            // Intake times differ, and rise in each log partition.
            let sighting = normalise(observation, Some(now + nth)).unwrap();
            log[at as usize].push_back(Event::Sighting(Box::new(sighting)));
        }
        faker.shuffle().unwrap();
    }
    log
}

fn accept(begin: Option<i64>) -> Decision {
    let source = Source { kind: "armis".to_owned(), instance: INSTANCE.to_owned() };
    Decision {
        id: format!("accept {begin:?}"),
        event_time: begin.unwrap(),
        partition: "default".to_owned(),
        action: "accept_snapshot".to_owned(),
        target: Target { source: Some(source), begin, ..Target::default() },
        actor: "guard".to_owned(),
        ..Decision::default()
    }
}

async fn read(store: &dyn LogStore, topic: &str) -> Vec<Observation> {
    let limit = ReadLimit { events: 100_000, bytes: 64 << 20, wait: std::time::Duration::ZERO };
    let mut decoder = Decoder::<Observation>::new();
    let events = store.read(topic, 0, 0, limit).await.unwrap().events;
    events.iter().map(|event| decoder.decode(event.value.as_deref().unwrap()).unwrap()).collect()
}

/// Cuts a log into epochs: of a random log partition the next few events, again and again.
fn epochs(mut log: Log, random: &mut StdRng) -> Vec<Batch> {
    let mut epochs = Vec::new();
    let mean = random.random_range(30..300usize);
    while log.iter().any(|partition| !partition.is_empty()) {
        let mut batch = Batch::default();
        for _ in 0..random.random_range(1..=mean) {
            let partition = &mut log[random.next_u32() as usize % (LOG_PARTITIONS as usize + 1)];
            match partition.pop_front() {
                Some(Event::Sighting(sighting)) => batch.sightings.push(*sighting),
                Some(Event::Decision(decision)) => batch.decisions.push(*decision),
                None => {}
            }
        }
        epochs.push(batch);
    }
    epochs
}

/// Commits epochs into an empty database.
async fn load(database: &Database, epochs: Vec<Batch>, workers: usize) {
    let (mut writer, resume) = database.views().await.take(TENANT, "w", "f1", &json!({})).await.unwrap();
    assert_eq!(resume.epoch, 0);
    let mut engine = Engine::start(TENANT, &Arc::new(Rules::default()), workers).unwrap();
    for (batch, number) in epochs.into_iter().zip(1..) {
        let events = (batch.sightings.len() + batch.decisions.len()) as u64;
        let output = engine.epoch(batch).unwrap().output;
        let epoch = Epoch {
            number,
            follows: number - 1,
            closed_at: T0 + number.cast_signed(),
            events,
            intake_max: T0,
            frontiers: Vec::new(),
            output,
            dead_letters: Vec::new(),
        };
        writer.commit(&epoch).await.unwrap();
    }
}

/// The tables compared, each with its columns.
async fn tables(client: &Client) -> Vec<(String, String)> {
    let select = "SELECT c.relnamespace::regnamespace || '.' || c.relname,
               string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FILTER (WHERE a.attname <> ALL ($1))
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE c.relkind = 'r' AND (c.relnamespace = 'views_1'::regnamespace
              OR c.oid IN ('serviceradar_base.pipeline_watermarks'::regclass,
                        'serviceradar_base.pipeline_hashes'::regclass))
        GROUP BY 1 ORDER BY 1";
    let rows = client.query(select, &[&&BOOKKEEPING[..]]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn reference(table: &str) -> String {
    format!("reference.{}", table.rsplit('.').next().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_orders_of_one_log_give_equal_tables() {
    let log = log().await;
    let database = Database::migrated().await;
    let client = database.client().await;
    let tables = tables(&client).await;
    assert!(tables.len() >= 10, "{tables:?}");
    for seed in 0..ORDERS {
        let mut random = StdRng::seed_from_u64(seed);
        load(&database, epochs(log.clone(), &mut random), 1 + seed as usize % 2).await;
        if seed == 0 {
            client.batch_execute("CREATE SCHEMA reference").await.unwrap();
            for (table, columns) in &tables {
                let copy = format!("CREATE TABLE {} AS SELECT {columns} FROM {table}", reference(table));
                client.batch_execute(&copy).await.unwrap();
            }
            let devices: i64 = client
                .query_one("SELECT count(*) FROM reference.device_summaries", &[])
                .await
                .unwrap()
                .get(0);
            assert!(devices >= 60, "{devices}");
        }
        for (table, columns) in &tables {
            let (here, there) = (format!("SELECT {columns} FROM {table}"), reference(table));
            for (one, other) in [(&*here, &*format!("TABLE {there}")), (&*format!("TABLE {there}"), &*here)] {
                let except = format!("SELECT to_jsonb(x)::text FROM ({one} EXCEPT ALL {other}) x LIMIT 3");
                let rows = client.query(&except, &[]).await.unwrap();
                let rows: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
                assert_eq!(rows, [""; 0], "order {seed}: {table} differs: {one} EXCEPT {other}");
            }
        }
        empty(&client, &tables).await;
    }
}

/// Empties all that a load wrote.
async fn empty(client: &Client, tables: &[(String, String)]) {
    let names: Vec<&str> = tables.iter().map(|(table, _)| table.as_str()).collect();
    let truncate = format!(
        "TRUNCATE {}, serviceradar_base.pipeline_epochs, serviceradar_base.pipeline_outbox,
         serviceradar_base.view_changes, serviceradar_base.device_history, serviceradar_base.device_merges",
        names.join(", ")
    );
    client.batch_execute(&truncate).await.unwrap();
}
