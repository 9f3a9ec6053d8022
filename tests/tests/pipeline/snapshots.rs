//! Fetches that fail, shrink and shrink too much: what ends, and what the guard says.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serviceradar_ingest::faker::{ArmedFault, Fault};
use serviceradar_log::{LogError, LogStore, MemoryLog};
use serviceradar_materializers::inventory::Inventory;
use serviceradar_replay::{DriverHandle, DriverStatus};
use serviceradar_schemas::{
    Action, Observation, Snapshot, Source,
    time::{Clock, SystemClock},
    topics::Stream,
};
use serviceradar_tests::{
    database::Database,
    stand::{Between, Network, TENANT, drive, make_topics, observations},
};
use tokio_postgres::Client;

const OPEN: &str = "SELECT count(*) FROM views_1.device_records WHERE open";
const VERDICTS: &str = "SELECT count(*) FROM views_1.decisions";

struct Pipeline {
    log: Arc<dyn LogStore>,
    driver: DriverHandle,
    client: Client,
    database: Database,
}

impl Pipeline {
    async fn new() -> Self {
        let log: Arc<dyn LogStore> = Arc::new(MemoryLog::new(Arc::new(SystemClock)));
        make_topics(&log).await;
        let database = Database::migrated().await;
        let driver = drive(log.clone(), database.url()).await;
        Self { log, driver, client: database.client().await, database }
    }

    /// The same, of a guard that cannot write while it is told so.
    async fn of_a_mute_guard(is_mute: Arc<AtomicBool>) -> Self {
        let log: Arc<dyn LogStore> = Arc::new(MemoryLog::new(Arc::new(SystemClock)));
        make_topics(&log).await;
        let mute = Between::before_append(log.clone(), move |topic| {
            if topic.ends_with(Stream::Decisions.name()) && is_mute.load(Ordering::SeqCst) {
                // Not tried again by whoever appends.
                return Err(LogError::UnknownTopic(topic.to_owned()));
            }
            Ok(())
        });
        let database = Database::migrated().await;
        let driver = drive(mute, database.url()).await;
        Self { log, driver, client: database.client().await, database }
    }

    /// Waits until a complete fetch of the network is in the views, and waits for the guard.
    async fn unjudged_fetch(&self) {
        Network::new(40).await.crawl(&self.log).await.unwrap();
        let mut status = self.driver.watch();
        let waits = |status: &DriverStatus| {
            status.undecided.iter().any(|fetch| fetch.counted == Some(40) && fetch.members == 40)
        };
        status.wait_for(waits).await.unwrap();
        assert_eq!(self.count(VERDICTS).await, 0);
    }

    async fn count(&self, sql: &str) -> i64 {
        self.client.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// The fetches that are held: their source, and why.
    async fn held(&self) -> Vec<(String, String)> {
        let mut inventory = Inventory::connect(self.database.url(), TENANT).await.unwrap();
        inventory.held().await.unwrap().into_iter().map(|held| (held.source, held.why)).collect()
    }

    /// A complete fetch of the records `0..records`; returns the guard's verdict and its reason.
    async fn fetch(&self, id: &str, records: i64) -> (String, String) {
        let begin = SystemClock.now();
        let event = |action, native_key: String, count| Observation {
            id: format!("{id}/{action:?}/{native_key}"),
            event_time: begin,
            partition: "default".to_owned(),
            source: Source { kind: "netbox".to_owned(), instance: "hq".to_owned() },
            native_key,
            action,
            snapshot: Some(Snapshot { id: id.to_owned(), begin, count }),
            ..Observation::default()
        };
        let first = event(Action::SnapshotBegin, String::new(), None);
        let members = (0..records).map(|n| event(Action::Assert, n.to_string(), None));
        let last = event(Action::SnapshotEnd, String::new(), Some(records));
        let events = [first].into_iter().chain(members).chain([last]);
        observations(&self.log).publish(events).await.unwrap();
        self.driver.caught_up().await.unwrap();
        // The verdict is written after the epoch: caught up means that it is in the views, too.
        let select = "SELECT d.action, d.reason FROM views_1.decisions d
            JOIN views_1.snapshots s ON (d.target ->> 'begin')::timestamptz = s.begin WHERE s.id = $1";
        let row = self.client.query_one(select, &[&id]).await.unwrap();
        (row.get(0), row.get(1))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crawl_that_fails_half_way_ends_nothing() {
    let pipeline = Pipeline::new().await;
    let network = Network::new(40).await;
    network.crawl(&pipeline.log).await.unwrap();
    pipeline.driver.caught_up().await.unwrap();
    assert_eq!((pipeline.count(OPEN).await, pipeline.count(VERDICTS).await), (40, 1));

    let fault = ArmedFault { fault: Fault::TruncatedBody, after: 1, times: 1_000 };
    network.crawl_in_vain(&pipeline.log, fault).await;
    pipeline.driver.caught_up().await.unwrap();
    assert_eq!((pipeline.count(OPEN).await, pipeline.count(VERDICTS).await), (40, 1));
    let unfinished = "SELECT count(*) FROM views_1.snapshots WHERE ended_at IS NULL AND verdict IS NULL";
    assert_eq!(pipeline.count(unfinished).await, 1);
    pipeline.driver.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_that_would_end_too_much_is_held_and_one_that_ends_less_is_believed() {
    let pipeline = Pipeline::new().await;
    assert_eq!(pipeline.fetch("all", 1_000).await.0, "accept_snapshot");
    // 10 %: believed.
    let (verdict, figures) = pipeline.fetch("tenth", 900).await;
    assert_eq!(verdict, "accept_snapshot");
    assert_eq!(figures, "900 records came as counted; 100 of 1000 open records end");
    assert_eq!(pipeline.count(OPEN).await, 900);
    // A third, and over 100: held.
    let (verdict, figures) = pipeline.fetch("third", 600).await;
    assert_eq!(verdict, "hold_snapshot");
    assert_eq!(figures, "600 records came as counted; 300 of 900 open records end, more than 20 %");
    assert_eq!(pipeline.count(OPEN).await, 900);
    assert_eq!(pipeline.held().await, [("netbox/hq".to_owned(), figures)]);
    // 20 % exactly: not more than 20 %. It is the later word.
    assert_eq!(pipeline.fetch("fifth", 720).await.0, "accept_snapshot");
    assert_eq!(pipeline.count(OPEN).await, 720);
    assert_eq!(pipeline.held().await, []);
    pipeline.driver.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_source_may_end_a_hundred_records_whatever_their_share() {
    let pipeline = Pipeline::new().await;
    pipeline.fetch("all", 150).await;
    assert_eq!(pipeline.fetch("a third", 50).await.0, "accept_snapshot");
    assert_eq!(pipeline.count(OPEN).await, 50);
    pipeline.driver.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_that_was_left_unjudged_is_judged_after_a_start_though_nothing_more_comes() {
    let pipeline = Pipeline::of_a_mute_guard(Arc::new(AtomicBool::new(true))).await;
    pipeline.unjudged_fetch().await;
    let Pipeline { log, driver, client, database } = pipeline;
    driver.stop().await.unwrap();

    let driver = drive(log.clone(), database.url()).await;
    let pipeline = Pipeline { log, driver, client, database };
    pipeline.driver.caught_up().await.unwrap();
    assert_eq!(pipeline.count(VERDICTS).await, 1);
    pipeline.driver.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_verdict_that_could_not_be_written_is_written_later() {
    let is_mute = Arc::new(AtomicBool::new(true));
    let pipeline = Pipeline::of_a_mute_guard(is_mute.clone()).await;
    pipeline.unjudged_fetch().await;
    // It has tried, and failed.
    tokio::time::sleep(Duration::from_secs(2)).await;
    is_mute.store(false, Ordering::SeqCst);
    pipeline.driver.caught_up().await.unwrap();
    assert_eq!(pipeline.count(VERDICTS).await, 1);
    pipeline.driver.stop().await.unwrap();
}
