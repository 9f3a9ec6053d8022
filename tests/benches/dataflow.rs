//! The dataflow alone: `cargo bench -p serviceradar-tests --bench dataflow`.
//!
//! What Armis, a mapper and a sweep say of 50,000 devices, decoded and normalised beforehand: a load in one
//! epoch, the guard's verdict, the same crawl again, and single records. One worker, no log, no database.

use std::{error::Error, sync::Arc, time::Instant};

use serviceradar_ingest::{
    faker::{Faker, FakerConfig, INSTANCE, SECRET},
    publish::Observations,
    sync::armis::{ArmisClient, ArmisConfig, crawl},
};
use serviceradar_log::{LogStore, MemoryLog, ReadLimit};
use serviceradar_schemas::{
    Decision, Decoder, Framing, Observation, Source, Target,
    time::{Clock, SystemClock},
    topics::Stream,
};
use serviceradar_streams::{
    decisions::Taken,
    engine::{Batch, Closed, Engine},
    normalise::{Sighting, normalise},
    rules::Rules,
};
use tokio_util::sync::CancellationToken;

/// As the program has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    serviceradar_ops::memory::use_small_pages();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (first, second) = runtime.block_on(crawls())?;
    let now = SystemClock.now();
    let mut engine = Engine::start("bench", &Arc::new(Rules::default()), 1)?;
    for (name, crawl) in [("load", first), ("the same again", second)] {
        let begin = crawl.iter().find_map(|o| o.snapshot.as_ref()).map(|snapshot| snapshot.begin);
        let one = crawl.iter().find(|o| o.claims.len() > 3).cloned();
        let sightings = sightings(crawl, now)?;
        epoch(&mut engine, name, Batch { sightings, decisions: Vec::new() })?;
        let decisions = vec![verdict(begin, now)?];
        epoch(&mut engine, "the guard's verdict", Batch { sightings: Vec::new(), decisions })?;
        let sightings = self::sightings(one.into_iter().collect(), now)?;
        epoch(&mut engine, "one record", Batch { sightings, decisions: Vec::new() })?;
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let memory =
        |name: &str| status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or("").trim().to_owned();
    println!("memory now {}, at most {}", memory("VmRSS:"), memory("VmHWM:"));
    Ok(())
}

fn epoch(engine: &mut Engine, name: &str, batch: Batch) -> Result<Closed> {
    let events = batch.sightings.len() + batch.decisions.len();
    let started = Instant::now();
    let closed = engine.epoch(batch)?;
    let took = started.elapsed().as_secs_f64();
    println!(
        "{name:<24} {events:>7} events {:>8.3} s {:>9.0} events/s {:>8} rows changed; {:?}",
        took,
        events as f64 / took,
        closed.output.rows(),
        closed.gauges,
    );
    Ok(closed)
}

fn verdict(begin: Option<i64>, now: i64) -> Result<Taken> {
    let source = Source { kind: "armis".to_owned(), instance: INSTANCE.to_owned() };
    let decision = Decision {
        id: format!("accept {begin:?}"),
        event_time: begin.unwrap_or(now),
        partition: "default".to_owned(),
        action: "accept_snapshot".to_owned(),
        target: Target { source: Some(source), begin, ..Target::default() },
        actor: "guard".to_owned(),
        ..Decision::default()
    };
    Ok(Taken::read(decision, Some(now))?)
}

fn sightings(observations: Vec<Observation>, now: i64) -> Result<Vec<Sighting>> {
    let normalised = observations.into_iter().map(|observation| Ok(normalise(observation, Some(now))?));
    normalised.collect()
}

/// Two crawls of the same devices, each with what the others see.
async fn crawls() -> Result<(Vec<Observation>, Vec<Observation>)> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let dir = tempfile::tempdir()?;
    let config = FakerConfig { shuffle_every: None, ..FakerConfig::new(dir.path().to_owned()) };
    let faker = Faker::open(config, clock.clone())?;
    let stop = CancellationToken::new();
    let serving = faker.serve(stop.clone()).await?;
    let client = ArmisClient::new(ArmisConfig::new(&serving.url(), SECRET, INSTANCE), clock.clone())?;
    let mut crawls = Vec::new();
    for _ in 0..2 {
        let store: Arc<dyn LogStore> = Arc::new(MemoryLog::new(clock.clone()));
        store.create_topic("bench.observations", Stream::Observations.log_partitions()).await?;
        crawl(
            &client,
            &Observations::new(store.clone(), "bench.observations", Framing::default()),
            &*clock,
            |_| {},
        )
        .await?;
        let mut observations = decoded(&*store).await?;
        observations.extend(faker.observations_of_others());
        crawls.push(observations);
    }
    stop.cancel();
    let second = crawls.pop().unwrap_or_default();
    Ok((crawls.pop().unwrap_or_default(), second))
}

async fn decoded(store: &dyn LogStore) -> Result<Vec<Observation>> {
    let mut decoder = Decoder::<Observation>::new();
    let mut observations = Vec::new();
    let limit = ReadLimit { events: 10_000, bytes: 16 << 20, wait: std::time::Duration::ZERO };
    for partition in 0..Stream::Observations.log_partitions() {
        let mut offset = 0;
        loop {
            let read = store.read("bench.observations", partition, offset, limit).await?;
            if read.events.is_empty() {
                break;
            }
            offset = read.next_offset;
            for event in read.events {
                observations.push(decoder.decode(event.value.as_deref().unwrap_or_default())?);
            }
        }
    }
    Ok(observations)
}
