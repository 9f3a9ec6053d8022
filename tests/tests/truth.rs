//! The views against the faker's truth, record by record, through shuffles of all addresses' holders.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::{collections::BTreeMap, sync::Arc};

use serviceradar_ingest::{
    faker::{Belongs, Faker, FakerConfig, INSTANCE, SECRET},
    publish::publish,
    sync::armis::{ArmisClient, ArmisConfig, crawl},
};
use serviceradar_log::{LogStore, MemoryLog, Publisher};
use serviceradar_replay::{Driver, DriverConfig, DriverHandle};
use serviceradar_schemas::{
    time::{Clock, SystemClock},
    topics::Stream,
};
use serviceradar_streams::rules::Rules;
use serviceradar_tests::database::Database;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const TENANT: &str = "truth";
const DEVICES: usize = 1_500;
const SHUFFLES: usize = 10;

/// Record key → (placement, uid).
type Placed = BTreeMap<String, (String, Option<Uuid>)>;

/// A network, a crawler and a pipeline into a database.
struct Stand {
    faker: Arc<Faker>,
    client: ArmisClient,
    publisher: Publisher,
    driver: DriverHandle,
    database: Client,
    _of: Database,
    _dir: tempfile::TempDir,
}

impl Stand {
    async fn new() -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let dir = tempfile::tempdir().unwrap();
        let config =
            FakerConfig { devices: DEVICES, shuffle_every: None, ..FakerConfig::new(dir.path().to_owned()) };
        let faker = Faker::open(config, clock.clone()).unwrap();
        let serving = faker.serve(CancellationToken::new()).await.unwrap();
        let client =
            ArmisClient::new(ArmisConfig::new(&serving.url(), SECRET, INSTANCE), clock.clone()).unwrap();
        let log: Arc<dyn LogStore> = Arc::new(MemoryLog::new(clock.clone()));
        let topic = Stream::Observations.topic(TENANT);
        log.create_topic(&topic, Stream::Observations.log_partitions()).await.unwrap();
        let database = Database::migrated().await;
        let driver = Driver::start(DriverConfig {
            tenant: TENANT.to_owned(),
            writer: "test".to_owned(),
            workers: 1,
            rules: Rules::default(),
            log: log.clone(),
            views: Arc::new(database.views().await),
            clock,
            ticks: false,
        });
        Self {
            faker,
            client,
            publisher: Publisher::new(log, topic),
            driver,
            database: database.client().await,
            _of: database,
            _dir: dir,
        }
    }

    /// Everything that is to be seen now, seen and in the views.
    async fn look(&self) -> Placed {
        crawl(&self.client, &self.publisher, &SystemClock, |_| {}).await.unwrap();
        publish(&self.publisher, self.faker.observations_of_others()).await.unwrap();
        self.driver.caught_up().await.unwrap();
        let select = "SELECT record_key, placement, uid FROM views_1.device_records WHERE tenant = $1";
        let rows = self.database.query(select, &[&TENANT]).await.unwrap();
        rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect()
    }

    async fn count(&self, sql: &str) -> i64 {
        self.database.query_one(sql, &[]).await.unwrap().get(0)
    }
}

/// Each record is where the truth says; devices are as many as records of Armis.
fn assert_truth(placed: &Placed, faker: &Faker, round: usize) {
    let truth = faker.truth();
    assert_eq!(truth.devices, DEVICES);
    for (key, belongs) in &truth.records {
        let (placement, uid) = placed.get(key).unwrap_or_else(|| panic!("round {round}: {key} is missing"));
        match belongs {
            Belongs::To(armis) => {
                assert!(uid.is_some(), "round {round}: {key} ({placement}) has no device");
                assert_eq!(*uid, placed[armis].1, "round {round}: {key} ({placement}) is not with {armis}");
            }
            Belongs::CannotTell => {
                assert_eq!((placement.as_str(), *uid), ("unplaced", None), "round {round}: {key}")
            }
        }
    }
    let mut uids: Vec<Option<Uuid>> =
        placed.iter().filter(|(key, _)| key.contains("/armis/")).map(|(_, (_, uid))| *uid).collect();
    uids.sort_unstable();
    uids.dedup();
    assert_eq!(uids.len(), DEVICES, "round {round}: two records of Armis share a device");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_record_is_where_the_truth_says_and_shuffles_change_no_uid() {
    let stand = Stand::new().await;
    let first = stand.look().await;
    assert_truth(&first, &stand.faker, 0);
    // Tags of Armis are words without a value.
    let tagged = stand.count("SELECT count(*) FROM views_1.devices WHERE tags ? 'Managed'").await;
    assert!(tagged > 0, "no device has a tag");

    // The same again: nothing to tell of any evidence.
    let evidence = stand.driver.status().evidence_changes;
    let again = stand.look().await;
    assert_truth(&again, &stand.faker, 0);
    assert_eq!(stand.driver.status().evidence_changes, evidence, "an unchanged crawl wrote evidence");

    for round in 1..=SHUFFLES {
        stand.faker.shuffle().unwrap();
        let placed = stand.look().await;
        assert_truth(&placed, &stand.faker, round);
        for (key, (_, uid)) in first.iter().filter(|(key, _)| key.contains("/armis/")) {
            assert_eq!(placed[key].1, *uid, "round {round}: {key} has another uid");
        }
    }
    let conflicts = stand.count("SELECT count(*) FROM views_1.identity_issues WHERE kind = 'conflict'").await;
    assert_eq!(conflicts, 0);
    stand.driver.stop().await.unwrap();
}
