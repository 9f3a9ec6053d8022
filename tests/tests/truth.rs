//! The views against the faker's truth, record by record, through shuffles of all addresses' holders.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::{collections::BTreeMap, sync::Arc};

use serviceradar_ingest::faker::{Belongs, Faker};
use serviceradar_log::{LogStore, MemoryLog};
use serviceradar_replay::DriverHandle;
use serviceradar_schemas::time::SystemClock;
use serviceradar_tests::{
    database::Database,
    stand::{Network, TENANT, drive, make_topics},
};
use tokio_postgres::Client;
use uuid::Uuid;

/// As many as the demo shows.
const DEVICES: usize = 50_000;
const SHUFFLES: usize = 10;

/// Record key → (placement, uid).
type Placed = BTreeMap<String, (String, Option<Uuid>)>;

/// A network and a pipeline into a database.
struct Stand {
    network: Network,
    log: Arc<dyn LogStore>,
    driver: DriverHandle,
    database: Client,
    _of: Database,
}

impl Stand {
    async fn new() -> Self {
        let log: Arc<dyn LogStore> = Arc::new(MemoryLog::new(Arc::new(SystemClock)));
        make_topics(&log).await;
        let database = Database::migrated().await;
        let driver = drive(log.clone(), database.url()).await;
        let network = Network::new(DEVICES).await;
        Self { network, log, driver, database: database.client().await, _of: database }
    }

    /// Everything that is to be seen now, seen and in the views.
    async fn look(&self) -> Placed {
        self.network.look(&self.log).await;
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
    assert_truth(&first, &stand.network.faker, 0);
    // Tags of Armis are words without a value.
    let tagged = stand.count("SELECT count(*) FROM views_1.devices WHERE tags ? 'Managed'").await;
    assert!(tagged > 0, "no device has a tag");

    // The same again: nothing to tell of any evidence.
    let evidence = stand.driver.status().evidence_changes;
    let again = stand.look().await;
    assert_truth(&again, &stand.network.faker, 0);
    assert_eq!(stand.driver.status().evidence_changes, evidence, "an unchanged crawl wrote evidence");

    for round in 1..=SHUFFLES {
        stand.network.faker.shuffle().unwrap();
        let placed = stand.look().await;
        assert_truth(&placed, &stand.network.faker, round);
        for (key, (_, uid)) in first.iter().filter(|(key, _)| key.contains("/armis/")) {
            assert_eq!(placed[key].1, *uid, "round {round}: {key} has another uid");
        }
    }
    let conflicts = stand.count("SELECT count(*) FROM views_1.identity_issues WHERE kind = 'conflict'").await;
    assert_eq!(conflicts, 0);
    stand.driver.stop().await.unwrap();
}
