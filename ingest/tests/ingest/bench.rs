//! A faker that serves, a log in memory, and a way to read what was published.

use std::{sync::Arc, time::Duration};

use serviceradar_ingest::{
    faker::{Faker, FakerConfig, INSTANCE, SECRET, Serving},
    publish::Observations,
    sync::armis::{ArmisClient, ArmisConfig},
};
use serviceradar_log::{LogStore, MemoryLog, ReadLimit};
use serviceradar_schemas::{
    Framing, Observation,
    time::{Clock, ManualClock, SECOND},
};
use tokio_util::sync::CancellationToken;

/// Where the clock stands at first.
pub(crate) const NOW: i64 = 1_767_225_600 * SECOND;
/// The topic that is published to.
pub(crate) const TOPIC: &str = "acme.observations";
const LOG_PARTITIONS: u32 = 2;

/// A log, and what publishes to it.
pub(crate) struct Log {
    pub(crate) store: Arc<dyn LogStore>,
    pub(crate) observations: Observations,
}

impl Log {
    pub(crate) async fn new(clock: Arc<dyn Clock>) -> Self {
        let store: Arc<dyn LogStore> = Arc::new(MemoryLog::new(clock));
        store.create_topic(TOPIC, LOG_PARTITIONS).await.unwrap();
        let observations = Observations::new(store.clone(), TOPIC, Framing::default());
        Self { store, observations }
    }

    /// All that was published, per log partition in order.
    pub(crate) async fn read(&self) -> Vec<Observation> {
        let limit = ReadLimit { events: 10_000, bytes: 64 << 20, wait: Duration::ZERO };
        let mut decoder = serviceradar_schemas::Decoder::<Observation>::new();
        let mut observations = Vec::new();
        for log_partition in 0..LOG_PARTITIONS {
            let mut offset = 0;
            loop {
                let read = self.store.read(TOPIC, log_partition, offset, limit).await.unwrap();
                if read.events.is_empty() {
                    break;
                }
                offset = read.next_offset;
                for event in read.events {
                    let observation = decoder.decode(&event.value.unwrap()).unwrap();
                    assert_eq!(event.key.unwrap(), observation.record_key().as_bytes());
                    observations.push(observation);
                }
            }
        }
        observations
    }
}

/// All of it.
pub(crate) struct Bench {
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) faker: Arc<Faker>,
    pub(crate) serving: Serving,
    pub(crate) log: Log,
    pub(crate) shutdown: CancellationToken,
    /// Goes away with this.
    _dir: tempfile::TempDir,
}

impl Bench {
    /// A faker of so many devices, which shuffles only when told to.
    pub(crate) async fn new(devices: usize) -> Self {
        let clock = Arc::new(ManualClock::new(NOW));
        let dir = tempfile::tempdir().unwrap();
        let faker = Faker::open(config(&dir, devices), clock.clone()).unwrap();
        let shutdown = CancellationToken::new();
        let serving = faker.serve(shutdown.clone()).await.unwrap();
        let log = Log::new(clock.clone()).await;
        Self { clock, faker, serving, log, shutdown, _dir: dir }
    }

    /// A configuration that crawls it in pages of 100 and does not wait long.
    pub(crate) fn armis(&self) -> ArmisConfig {
        ArmisConfig {
            page_size: 100,
            request_timeout: Duration::from_secs(2),
            retry_base: Duration::from_millis(5),
            ..ArmisConfig::new(&self.serving.url(), SECRET, INSTANCE)
        }
    }

    /// A client of it.
    pub(crate) fn client(&self) -> ArmisClient {
        ArmisClient::new(self.armis(), self.clock.clone()).unwrap()
    }
}

/// A faker that shuffles only when told to.
pub(crate) fn config(dir: &tempfile::TempDir, devices: usize) -> FakerConfig {
    FakerConfig { devices, shuffle_every: None, ..FakerConfig::new(dir.path().to_owned()) }
}
