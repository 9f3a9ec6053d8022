//! A tenant of a test's own, on a log that tests share.

use std::{sync::Arc, time::Duration};

use serviceradar_ingest::publish::Observations;
use serviceradar_log::LogStore;
use serviceradar_replay::DriverHandle;
use serviceradar_schemas::{
    Action, Framing, Observation, Source,
    time::{Clock, SystemClock},
    topics::Stream,
};

use crate::{database::Database, stand::drive_tenant};

/// Records that a new one has.
pub const RECORDS: usize = 50;
/// A driver that runs notices within a minute.
const NOTICED_WITHIN: Duration = Duration::from_secs(90);

/// A tenant whose views hold what its log held.
pub struct Tenant {
    /// Its name.
    pub name: String,
    /// Its log.
    pub log: Arc<dyn LogStore>,
    /// Its database.
    pub database: Database,
    /// Records that were published.
    pub published: usize,
}

impl Tenant {
    /// A new one.
    pub async fn new(log: Arc<dyn LogStore>) -> Self {
        let name = format!("t{:016x}", rand::random::<u64>());
        serviceradar_replay::topics::ensure(&*log, &name).await.unwrap();
        let mut tenant = Self { name, log, database: Database::migrated().await, published: 0 };
        tenant.publish(RECORDS).await;
        tenant.catches_up().await;
        tenant
    }

    /// Its `observations`.
    pub fn topic(&self) -> String {
        Stream::Observations.topic(&self.name)
    }

    /// Observations of records that nobody spoke of before.
    pub async fn publish(&mut self, records: usize) {
        let of = |number: usize| Observation {
            event_time: SystemClock.now(),
            partition: "default".to_owned(),
            source: Source { kind: "agent".to_owned(), instance: "a".to_owned() },
            native_key: format!("{number:05}"),
            action: Action::Assert,
            ..Observation::default()
        };
        let publisher = Observations::new(self.log.clone(), self.topic(), Framing::default());
        publisher.publish((self.published..self.published + records).map(of)).await.unwrap();
        self.published += records;
    }

    /// Records in its views.
    pub async fn records(&self) -> usize {
        let count = "SELECT count(*) FROM views_1.device_records";
        let count: i64 = self.database.client().await.query_one(count, &[]).await.unwrap().get(0);
        count.try_into().unwrap()
    }

    /// Starts a driver of it.
    pub async fn drive(&self) -> DriverHandle {
        drive_tenant(&self.name, self.log.clone(), self.database.url()).await
    }

    /// Takes in what its log has, all of it.
    pub async fn catches_up(&self) {
        let driver = self.drive().await;
        driver.caught_up().await.unwrap();
        driver.stop().await.unwrap();
        assert_eq!(self.records().await, self.published);
    }

    /// Starts a driver, which ends with these words and changes nothing.
    pub async fn is_refused(&self, words: &str) {
        let before = self.records().await;
        let driver = self.drive().await;
        ends_with(driver, words).await;
        assert_eq!(self.records().await, before);
    }

    /// Deletes `observations`, and makes it again.
    pub async fn make_topic_anew(&self) {
        self.log.delete_topic(&self.topic()).await.unwrap();
        self.log.create_topic(&self.topic(), Stream::Observations.log_partitions()).await.unwrap();
    }

    /// Deletes everything that the log has up to now.
    pub async fn delete_all(&self) {
        for log_partition in 0..Stream::Observations.log_partitions() {
            let end = self.log.offsets(&self.topic(), log_partition).await.unwrap().end;
            self.log.delete_before(&self.topic(), log_partition, end).await.unwrap();
        }
    }
}

/// Waits until a driver ends by itself, with these words.
pub async fn ends_with(driver: DriverHandle, words: &str) {
    let ended = async {
        while !driver.is_finished() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(NOTICED_WITHIN, ended).await.expect("the driver goes on");
    let error = driver.stop().await.expect_err("the driver ended well").to_string();
    assert!(error.contains(words), "{error}");
}
