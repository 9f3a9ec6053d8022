//! A log is archived, restored into an empty one, and what a pipeline makes of both is the same.

use std::{collections::BTreeMap, sync::Arc};

use serviceradar_log::{EmbeddedLog, KafkaConfig, KafkaLog, LogStore, MemoryLog};
use serviceradar_materializers::PostgresViews;
use serviceradar_replay::{
    archive::{self, Place},
    operations,
    restore::{RestoreError, Wanted},
};
use serviceradar_schemas::{
    Framings, OffsetRange, Operation,
    operation::Phase,
    time::{Clock, HOUR, ManualClock, SystemClock},
    topics::Stream,
};
use serviceradar_tests::{
    database::Database,
    services,
    stand::{TENANT, Views, drive_with},
};

use super::{
    THEN, archive_in_small_files, folder, in_memory, into_empty, nasty, nasty::Knows, new_log, old_log,
    restore_all, restore_with, sparse::Sparse, wanted,
};

/// Drives a tenant until its views hold what its log holds.
async fn drive(log: Arc<dyn LogStore>, tenant: &str, writers: Knows, url: &str) {
    let driver = drive_with(tenant, log, Arc::new(writers), Framings::default(), url).await;
    driver.caught_up().await.unwrap();
    driver.stop().await.unwrap();
}

/// What is restored of an archive makes the views that the log made from which it is: row by row, and by sums.
async fn assert_same_views(
    old: Arc<dyn LogStore>,
    new: impl AsyncFnOnce() -> Arc<dyn LogStore>,
    tenant: &str,
    place: &Place,
    database: &Database,
) {
    let url = database.url();
    drive(old.clone(), tenant, Knows::before(), url).await;
    let sums = PostgresViews::connect(url).await.unwrap().sums(tenant).await.unwrap();
    assert_eq!(sums.0, sums.1, "the sums of epochs, and of the rows");
    let views = Views::new(database.client().await).await;
    views.keep_and_clear().await;

    let archived =
        archive::archive(&*old, &Knows::before(), place, &wanted(tenant), |_, _| {}).await.unwrap();
    assert!(archived.records > 1_000, "{}", archived.records);
    let new = new().await;
    let wanted = Wanted { tenant: tenant.to_owned(), ..Wanted::default() };
    let ids = BTreeMap::from([(nasty::STRANGERS, nasty::STRANGERS_NOW)]);
    restore_with(&new, place, wanted, &ids).await.unwrap();
    drive(new, tenant, Knows::now(), url).await;
    views.assert_as_kept("restored").await;
    let restored = PostgresViews::connect(url).await.unwrap().sums(tenant).await.unwrap();
    assert_eq!(restored, sums);
    assert!(views.count("SELECT count(*) FROM serviceradar_base.pipeline_refusals").await > 10);
}

/// A start above 0, which an operation explains.
async fn lose_the_start(log: &Arc<dyn LogStore>, offset: u64) {
    let topic = Stream::Observations.topic(TENANT);
    log.delete_before(&topic, 1, offset).await.unwrap();
    let to = log.offsets(&topic, 1).await.unwrap().start.cast_signed();
    assert!(to > 0);
    let gap = Operation {
        id: "lost".to_owned(),
        phase: Phase::Done,
        action: "accept_gap".to_owned(),
        ranges: vec![OffsetRange { topic, log_partition: 1, from: 0, to }],
        ..Operation::default()
    };
    operations::write(log, &gap).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nasty_log_in_memory_with_holes_and_without_its_start_makes_the_same_views_restored() {
    let clock = Arc::new(ManualClock::new(THEN));
    let memory: Arc<dyn LogStore> = Arc::new(MemoryLog::new(clock.clone()));
    let old: Arc<dyn LogStore> = Arc::new(Sparse(memory.clone()));
    nasty::make_topics(&old, TENANT).await;
    nasty::publish(&old, TENANT, &clock, THEN, 0..6).await;
    lose_the_start(&old, 40).await;
    let database = Database::migrated().await;
    assert_same_views(old, async || new_log(), TENANT, &in_memory(), &database).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nasty_embedded_log_makes_the_same_views_restored() {
    let (dir, clock) = (tempfile::tempdir().unwrap(), Arc::new(ManualClock::new(THEN)));
    let open = |name: &str, clock: Arc<dyn Clock>| -> Arc<dyn LogStore> {
        Arc::new(EmbeddedLog::open(&dir.path().join(name), clock).unwrap())
    };
    let old = open("old", clock.clone());
    nasty::make_topics(&old, TENANT).await;
    nasty::publish(&old, TENANT, &clock, THEN, 0..6).await;
    let database = Database::migrated().await;
    let place = folder(&dir.path().join("archive"));
    let new = async || open("new", Arc::new(SystemClock));
    assert_same_views(old, new, TENANT, &place, &database).await;
}

/// With the marks of transactions in it, and the append times of a broker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_nasty_log_on_kafka_makes_the_same_views_in_timescale_restored() {
    let config = KafkaConfig { servers: services::kafka().await, ..KafkaConfig::default() };
    let log: Arc<dyn LogStore> = Arc::new(KafkaLog::new(&config).unwrap());
    let (tenant, clock) = (format!("t{:016x}", rand::random::<u64>()), ManualClock::new(0));
    nasty::make_topics(&log, &tenant).await;
    log.claim(&Stream::Observations.topic(&tenant)).await.unwrap();
    nasty::publish(&log, &tenant, &clock, SystemClock.now(), 0..6).await;
    let database = Database::migrated_timescale().await;
    let dir = tempfile::tempdir().unwrap();
    let anew: Arc<dyn LogStore> = Arc::new(KafkaLog::new(&config).unwrap());
    let emptied = async || {
        for stream in Stream::ALL {
            if stream != Stream::Operations {
                anew.delete_topic(&stream.topic(&tenant)).await.unwrap();
            }
        }
        anew.clone()
    };
    assert_same_views(log, emptied, &tenant, &folder(dir.path()), &database).await;
    for stream in [Stream::Observations, Stream::Decisions] {
        anew.delete_topic(&stream.topic(&tenant)).await.unwrap();
    }
}

/// Of a restored log an archive is as good as of the first: intake times stay, and the marks of the first restore are
/// not in the way of the second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_restored_twice_makes_the_same_views() {
    let (old, clock) = old_log();
    nasty::make_topics(&old, TENANT).await;
    nasty::publish(&old, TENANT, &clock, THEN, 0..6).await;
    let (first, between) = (in_memory(), new_log());
    archive_in_small_files(&old, &Knows::before(), &first).await.unwrap();
    let ids = BTreeMap::from([(nasty::STRANGERS, nasty::STRANGERS)]);
    restore_with(&between, &first, into_empty(), &ids).await.unwrap();

    let database = Database::migrated().await;
    drive(old, TENANT, Knows::before(), database.url()).await;
    let views = Views::new(database.client().await).await;
    views.keep_and_clear().await;
    let (second, new) = (in_memory(), new_log());
    archive_in_small_files(&between, &Knows::before(), &second).await.unwrap();
    restore_with(&new, &second, into_empty(), &ids).await.unwrap();
    drive(new, TENANT, Knows::before(), database.url()).await;
    views.assert_as_kept("restored twice").await;
}

/// An archive grows by what is new, and comes to what one made at once comes to.
#[tokio::test]
async fn a_second_archive_to_the_same_place_adds_only_what_is_new() {
    let (old, clock) = old_log();
    nasty::make_topics(&old, TENANT).await;
    nasty::publish(&old, TENANT, &clock, THEN, 0..2).await;
    let place = in_memory();
    let first = archive_in_small_files(&old, &Knows::before(), &place).await.unwrap();
    let again = archive_in_small_files(&old, &Knows::before(), &place).await.unwrap();
    assert_eq!((again.records, again.files), (0, 0));
    assert_eq!(again.manifest, first.manifest);

    nasty::publish(&old, TENANT, &clock, THEN, 2..3).await;
    let more = archive_in_small_files(&old, &Knows::before(), &place).await.unwrap();
    assert_eq!(more.records * 2, first.records);
    assert!(first.manifest.files.iter().all(|file| more.manifest.files.contains(file)));
    let new = new_log();
    let ids = BTreeMap::from([(nasty::STRANGERS, nasty::STRANGERS_NOW)]);
    restore_with(&new, &place, into_empty(), &ids).await.unwrap();
    let whole = in_memory();
    let at_once = archive_in_small_files(&old, &Knows::before(), &whole).await.unwrap();
    for (topic, log_partition) in at_once.manifest.partitions() {
        let records = at_once.manifest.records_of(topic, log_partition);
        assert_eq!(more.manifest.records_of(topic, log_partition), records, "{topic}/{log_partition}");
        assert_eq!(new.offsets(topic, log_partition).await.unwrap().end, records, "{topic}/{log_partition}");
    }
}

/// Without a registry they would become dead letters in silence.
#[tokio::test]
async fn events_of_a_strange_schema_are_not_restored_where_no_registry_has_it() {
    let (old, clock) = old_log();
    nasty::make_topics(&old, TENANT).await;
    nasty::publish(&old, TENANT, &clock, THEN, 0..1).await;
    let (place, new) = (in_memory(), new_log());
    archive_in_small_files(&old, &Knows::before(), &place).await.unwrap();
    let refused = restore_all(&new, &place).await.unwrap_err();
    assert!(matches!(refused, RestoreError::Foreign { id: nasty::STRANGERS, .. }), "{refused}");
    assert!(new.topics(None).await.unwrap().is_empty(), "something was written");
}

/// A header alone makes no intake time: whoever restores says so in the operations.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_copied_by_another_program_with_our_headers_count_as_appended_now() {
    let log = new_log();
    nasty::make_topics(&log, TENANT).await;
    let observation = serviceradar_tests::stand::observation("a", THEN - HOUR);
    let event = serviceradar_log::NewEvent {
        key: Some("a".into()),
        value: Some(serviceradar_schemas::encode(&observation).into()),
        headers: vec![("intake-time".to_owned(), "1".into()), ("archive-offset".to_owned(), "0".into())],
    };
    let began = SystemClock.now();
    let publisher = serviceradar_log::Publisher::new(log.clone(), Stream::Observations.topic(TENANT));
    publisher.publish(vec![event]).await.unwrap();
    let database = Database::migrated().await;
    drive(log, TENANT, Knows::now(), database.url()).await;
    let client = database.client().await;
    let select = "SELECT (extract(epoch FROM max(intake_max)) * 1000000)::bigint
        FROM serviceradar_base.pipeline_epochs";
    let intake: i64 = client.query_one(select, &[]).await.unwrap().get(0);
    assert!(intake >= began, "{intake}");
}
