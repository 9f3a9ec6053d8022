//! How long a crawl of 50,000 devices takes, from the HTTP interface to the log: faker, client,
//! mapping, encoding and a log in memory, in one process on two threads.

use std::{error::Error, sync::Arc, time::Instant};

use serviceradar_ingest::{
    faker::{Faker, FakerConfig, INSTANCE, SECRET},
    publish::Observations,
    sync::armis::{ArmisClient, ArmisConfig, crawl},
};
use serviceradar_log::{LogStore, MemoryLog};
use serviceradar_schemas::{
    Framing,
    time::{Clock, SystemClock},
    topics::Stream,
};
use tokio_util::sync::CancellationToken;

const ROUNDS: usize = 5;

fn main() -> Result<(), Box<dyn Error>> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(run())
}

async fn run() -> Result<(), Box<dyn Error>> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let dir = tempfile::tempdir()?;
    let started = Instant::now();
    let config = FakerConfig { shuffle_every: None, ..FakerConfig::new(dir.path().to_owned()) };
    let faker = Faker::open(config, clock.clone())?;
    println!("{:<12} {:>7.2} s", "open", started.elapsed().as_secs_f64());
    let serving = faker.serve(CancellationToken::new()).await?;

    let store: Arc<dyn LogStore> = Arc::new(MemoryLog::new(clock.clone()));
    let topic = Stream::Observations.topic("bench");
    store.create_topic(&topic, Stream::Observations.log_partitions()).await?;
    let observations = Observations::new(store, topic, Framing::default());
    let client = ArmisClient::new(ArmisConfig::new(&serving.url(), SECRET, INSTANCE), clock.clone())?;
    for _ in 0..ROUNDS {
        let report = crawl(&client, &observations, &*clock, |_| {}).await?;
        println!("{:<12} {:>7.2} s {:>7} records", "crawl", report.seconds, report.records);
        let started = Instant::now();
        faker.shuffle()?;
        println!("{:<12} {:>7.2} s", "shuffle", started.elapsed().as_secs_f64());
        let started = Instant::now();
        let others = observations.publish(faker.observations_of_others()).await?;
        println!("{:<12} {:>7.2} s {others:>7} records", "others", started.elapsed().as_secs_f64());
    }
    Ok(())
}
