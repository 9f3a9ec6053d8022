//! As of: what is told of an instant is what a pipeline made of the log that was there then, or of what counts by then.

use std::{collections::BTreeMap, sync::Arc};

use serviceradar_log::{LogStore, MemoryLog, NewEvent, Publisher};
use serviceradar_materializers::PostgresViews;
use serviceradar_replay::{
    as_of::{AsOf, AsOfError, Moment, Then},
    operations,
};
use serviceradar_schemas::{
    Action, Address, Claim, Decoder, Observation, OffsetRange, Operation, Source,
    codec::NoRegistry,
    operation::Phase,
    time::{Clock, DAY, HOUR, SystemClock},
    topics::Stream,
};
use serviceradar_streams::{rows::DeviceRow, rules::Rules};
use serviceradar_tests::{
    database::Database,
    stand::{Network, TENANT, drive, make_topics, observation, observations, read_all},
};
use tokio::sync::mpsc;

pub(super) type Devices = BTreeMap<String, DeviceRow>;

pub(super) async fn inventory(
    log: &Arc<dyn LogStore>,
    moment: Moment,
    partial: bool,
) -> Result<Then, AsOfError> {
    let inventory = AsOf {
        tenant: TENANT.to_owned(),
        rules: Rules::default(),
        workers: 1,
        log: log.clone(),
        writers: Arc::new(NoRegistry),
        clock: Arc::new(SystemClock),
        moment,
        partial,
    };
    inventory.run(|_, _| {}).await
}

pub(super) async fn as_of(
    log: &Arc<dyn LogStore>,
    moment: Moment,
    partial: bool,
) -> Result<Devices, AsOfError> {
    let mut then = inventory(log, moment, partial).await?;
    let told = tokio::task::spawn_blocking(move || {
        let (mut devices, mut order) = (Devices::new(), Vec::new());
        then.tell(|mut device| {
            device.sources.clear();
            order.push(device.uid.clone());
            devices.insert(device.uid.clone(), device);
            anyhow::Ok(())
        })
        .unwrap();
        assert!(order.is_sorted() && order.len() == devices.len() && then.devices() == order.len());
        devices
    });
    Ok(told.await.unwrap())
}

/// What the views hold now, and at which epoch.
pub(super) async fn stored(views: &PostgresViews) -> (Devices, u64) {
    let mut stored = views.stored(TENANT).await.unwrap();
    let (put, mut take) = mpsc::channel(1);
    let reading = tokio::spawn(async move {
        let epoch = stored.resume().await.unwrap().epoch;
        assert_eq!(stored.rows(&put).await.unwrap().count, 0, "rows that contradict each other");
        epoch
    });
    let mut devices = Devices::new();
    while let Some(piece) = take.recv().await {
        devices.extend(piece.devices.new.into_iter().map(|device| (device.uid.clone(), device)));
    }
    (devices, reading.await.unwrap())
}

pub(super) async fn new_log() -> Arc<dyn LogStore> {
    let log: Arc<dyn LogStore> = Arc::new(MemoryLog::new(Arc::new(SystemClock)));
    make_topics(&log).await;
    log
}

/// Sightings over days: things come, move, change their names, and are over.
pub(super) fn seen(day: i64, thing: i64) -> Observation {
    let now = SystemClock.now();
    let mut seen = observation(&format!("{thing}"), now - 40 * DAY + day * DAY + thing);
    seen.id = format!("{day}/{thing}");
    seen.source = Source { kind: "armis".to_owned(), instance: "hq".to_owned() };
    seen.hostname = Some(format!("host-{}-{thing}", day / 3));
    seen.claims
        .push(Claim { namespace: "mac".into(), value: format!("00:1b:21:00:00:{:02x}", thing % 7).into() });
    seen.addresses = vec![Address { ip: format!("10.0.{}.{thing}", day % 2), ..Address::default() }];
    if (day + thing) % 11 == 0 {
        seen.action = Action::End;
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_known_at_an_epoch_is_what_the_views_held_then() {
    let (log, database) = (new_log().await, Database::migrated().await);
    let network = Network::new(60).await;
    let driver = drive(log.clone(), database.url()).await;
    let mut then = Vec::new();
    for day in 0..4 {
        network.crawl(&log).await.unwrap();
        observations(&log).publish((0..20).map(|thing| seen(day * 5, thing))).await.unwrap();
        driver.caught_up().await.unwrap();
        then.push(stored(&database.views().await).await);
    }
    driver.stop().await.unwrap();
    let views = PostgresViews::connect(database.url()).await.unwrap();
    assert!(then.windows(2).all(|two| two[0].0 != two[1].0), "nothing changed");
    for (devices, epoch) in then {
        let known = views.intake_max(TENANT, epoch).await.unwrap().unwrap();
        assert_eq!(as_of(&log, Moment::Known(known), false).await.unwrap(), devices, "epoch {epoch}");
    }
    assert_eq!(as_of(&log, Moment::Known(0), false).await.unwrap(), Devices::new());
    assert_eq!(views.intake_max(TENANT, 1_000_000).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_so_at_an_instant_is_what_a_pipeline_makes_of_the_events_up_to_it() {
    let log = new_log().await;
    // In no order of time.
    let days = (0..30).rev().chain(0..3);
    observations(&log)
        .publish(days.flat_map(|day| (0..20).map(move |thing| seen(day, thing))))
        .await
        .unwrap();
    let topic = Stream::Observations.topic(TENANT);
    for days in [3, 17, 29] {
        let instant = SystemClock.now() - 40 * DAY + days * DAY + 5 * HOUR;
        let until = new_log().await;
        let mut events = Vec::new();
        for log_partition in 0..Stream::Observations.log_partitions() {
            for event in read_all(&log, &topic, log_partition).await {
                let seen: Observation = Decoder::new().decode(event.value.as_deref().unwrap()).unwrap();
                if seen.event_time <= instant {
                    events.push(NewEvent { key: event.key, value: event.value, headers: event.headers });
                }
            }
        }
        assert!(!events.is_empty());
        Publisher::new(until.clone(), topic.clone()).publish(events).await.unwrap();
        let tick = Observation { action: Action::Tick, ..observation("tick", instant) };
        observations(&until).publish([tick]).await.unwrap();
        let database = Database::migrated().await;
        let driver = drive(until, database.url()).await;
        driver.caught_up().await.unwrap();
        driver.stop().await.unwrap();
        let (devices, _) = stored(&database.views().await).await;
        assert_eq!(as_of(&log, Moment::Event(instant), false).await.unwrap(), devices, "day {days}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_log_no_longer_has_is_said_and_what_was_truncated_before_is_not_missed() {
    let log = new_log().await;
    observations(&log).publish((0..20).map(|thing| seen(1, thing))).await.unwrap();
    let topic = Stream::Observations.topic(TENANT);
    let mut ranges = Vec::new();
    for log_partition in 0..Stream::Observations.log_partitions() {
        let end = log.offsets(&topic, log_partition).await.unwrap().end;
        log.delete_before(&topic, log_partition, end).await.unwrap();
        let (log_partition, to) = (log_partition.cast_signed(), end.cast_signed());
        ranges.push(OffsetRange { topic: topic.clone(), log_partition, from: 0, to });
    }
    ranges.retain(|range| range.to > 0);
    let truncated = SystemClock.now() - 20 * DAY;
    let operation = Operation {
        id: "t".to_owned(),
        phase: Phase::Done,
        action: "truncate".to_owned(),
        actor: "test".to_owned(),
        event_time: truncated,
        ranges,
        ..Operation::default()
    };
    operations::write(&log, &operation).await.unwrap();
    observations(&log).publish((0..7).map(|thing| seen(30, thing))).await.unwrap();
    let before = Moment::Event(truncated - HOUR);
    let refused = as_of(&log, before, false).await.unwrap_err();
    assert!(matches!(&refused, AsOfError::Partial { range, .. } if range.start == 0), "{refused}");
    assert_eq!(as_of(&log, before, true).await.unwrap(), Devices::new());
    assert!(as_of(&log, Moment::Event(SystemClock.now()), false).await.unwrap().len() > 3);
}
