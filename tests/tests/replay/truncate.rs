//! Truncation: what is crawled again has the uids that it had, what cannot be crawled again stays as it was, and whoever is
//! interrupted goes on.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serviceradar_ingest::{faker::INSTANCE, publish::Observations};
use serviceradar_log::{LogError, LogStore, Offsets};
use serviceradar_materializers::views::{Views, ViewsError};
use serviceradar_replay::{
    Phase,
    archive::{self, FILE_BYTES_MAX, Place},
    operations::{Operations, TRUNCATE},
    truncate::{Fate, Truncate, TruncateError, Truncated},
};
use serviceradar_schemas::{
    Claim, Framing, Observation, Operation, Source,
    codec::NoRegistry,
    time::{Clock, SECOND, SystemClock},
    topics::Stream,
};
use serviceradar_streams::rules::Rules;
use serviceradar_tests::stand::{Between, TENANT, drive_tenant, observation, observations};

use super::promotion::{OTHER_TENANT, Stand};

fn armis() -> Source {
    Source { kind: "armis".to_owned(), instance: INSTANCE.to_owned() }
}

async fn truncate(stand: &Stand, log: &Arc<dyn LogStore>) -> Truncate {
    Truncate {
        tenant: TENANT.to_owned(),
        workers: 1,
        log: log.clone(),
        writers: Arc::new(NoRegistry),
        framing: Framing::default(),
        views: stand.views().await,
        clock: Arc::new(SystemClock),
        crawled: BTreeSet::from([("default".to_owned(), armis())]),
        lost: BTreeSet::new(),
    }
}

fn intent(id: &str) -> Operation {
    Operation {
        id: id.to_owned(),
        actor: "ops".to_owned(),
        event_time: SystemClock.now(),
        ..Operation::default()
    }
}

async fn run(of: &Truncate, id: &str) -> Result<Truncated, TruncateError> {
    let plan = of.plan(|_, _| {}).await?;
    of.run(plan, None, intent(id), |_, _| {}).await
}

/// Open records: their devices, and when they were first taken in.
async fn records(stand: &Stand) -> BTreeMap<String, (Option<String>, String)> {
    let select = "SELECT record_key, uid::text, first_asserted::text FROM views_1.record_summaries
        WHERE tenant = 'stand' AND open";
    let rows = stand.database.client().await.query(select, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), (row.get(1), row.get(2)))).collect()
}

fn uids(records: &BTreeMap<String, (Option<String>, String)>) -> BTreeMap<&str, &Option<String>> {
    records.iter().map(|(key, (uid, _))| (key.as_str(), uid)).collect()
}

async fn offsets(log: &Arc<dyn LogStore>, tenant: &str) -> Vec<Offsets> {
    let topic = Stream::Observations.topic(tenant);
    let mut offsets = Vec::new();
    for log_partition in 0..log.describe_topic(&topic).await.unwrap().log_partitions {
        offsets.push(log.offsets(&topic, log_partition).await.unwrap());
    }
    offsets
}

/// Waits until the pipeline, which nobody told, has started over and holds what the log holds.
async fn settled(stand: &Stand, epoch: u64) {
    while stand.live().status().epoch < epoch || stand.live().status().phase != Phase::Running {
        assert!(!stand.live().is_finished(), "{:?}", stand.live().status().phase);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stand.live().caught_up().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_crawled_again_has_its_uids_and_nothing_else_has_changed() {
    let mut stand = Stand::new(200).await;
    stand.network.faker.shuffle().unwrap();
    stand.network.look(&stand.log).await;
    stand.live().caught_up().await.unwrap();
    serviceradar_replay::topics::ensure(&*stand.log, OTHER_TENANT).await.unwrap();
    let topic = Stream::Observations.topic(OTHER_TENANT);
    let of_other = Observations::new(stand.log.clone(), topic, Framing::default());
    let some: Vec<_> = (0..30).map(|n| observation(&n.to_string(), SystemClock.now())).collect();
    of_other.publish(some).await.unwrap();
    let other = drive_tenant(OTHER_TENANT, stand.log.clone(), stand.database.url()).await;
    other.caught_up().await.unwrap();
    let rows_of_other = "SELECT md5(string_agg(r::text, ',' ORDER BY r::text))
        FROM views_1.record_summaries r WHERE tenant = 'other'";
    let text = async |sql: &str| -> String {
        stand.database.client().await.query_one(sql, &[]).await.unwrap().get(0)
    };
    let (other_before, other_offsets) = (text(rows_of_other).await, offsets(&stand.log, OTHER_TENANT).await);

    let (before, ends) = (records(&stand).await, offsets(&stand.log, TENANT).await);
    let devices = stand.count("SELECT count(*) FROM views_1.device_summaries WHERE tenant = 'stand'").await;
    let of = truncate(&stand, &stand.log).await;
    let plan = of.plan(|_, _| {}).await.unwrap();
    let fate = |kind: &str| {
        let of_kind = plan.sources.iter().filter(|of| of.source.starts_with(&format!("default/{kind}/")));
        of_kind.map(|of| of.fate).collect::<BTreeSet<_>>()
    };
    assert_eq!(fate("armis"), BTreeSet::from([Fate::CrawledAgain]));
    assert_eq!((fate("mapper"), fate("sweep")), (BTreeSet::from([Fate::Kept]), BTreeSet::from([Fate::Kept])));
    assert_eq!(plan.devices, devices.cast_unsigned());
    let kept: u64 = plan.sources.iter().filter(|of| of.fate == Fate::Kept).map(|of| of.events).sum();

    let dir = tempfile::tempdir().unwrap();
    let place = Place::at(dir.path().to_str().unwrap()).unwrap();
    let wanted =
        archive::Wanted { tenant: TENANT.to_owned(), topics: Vec::new(), file_bytes_max: FILE_BYTES_MAX };
    let archived = archive::archive(&*stand.log, &NoRegistry, &place, &wanted, |_, _| {}).await.unwrap();
    // What came since is in no archive, and stays.
    observations(&stand.log).publish([observation("late", SystemClock.now())]).await.unwrap();
    stand.live().caught_up().await.unwrap();
    let truncated = of.run(plan, Some(&archived.manifest), intent("t1"), |_, _| {}).await.unwrap();
    assert_eq!(truncated.kept, kept);
    let starts: Vec<u64> = offsets(&stand.log, TENANT).await.iter().map(|of| of.start).collect();
    assert_eq!(starts, ends.iter().map(|of| of.end).collect::<Vec<_>>());

    settled(&stand, truncated.epoch).await;
    let left = records(&stand).await;
    assert!(left.keys().all(|key| !key.starts_with(&format!("default/armis/{INSTANCE}/"))));
    assert!(left.contains_key("default/armis/hq/late"));
    for (key, (_, first_asserted)) in left.iter().filter(|(key, _)| !key.ends_with("late")) {
        assert_eq!(before[key].1, *first_asserted, "{key} keeps its intake time");
    }
    stand.network.crawl(&stand.log).await.unwrap();
    stand.live().caught_up().await.unwrap();
    let mut after = records(&stand).await;
    after.remove("default/armis/hq/late").unwrap();
    assert_eq!(uids(&after), uids(&before));
    let moved = stand.views().await.moved_since(TENANT, truncated.epoch).await.unwrap();
    assert_eq!(moved, []);
    stand.assert_verified().await;
    stand.assert_consumers_know_all().await;
    let told = "SELECT count(*) FROM serviceradar_base.device_history
        WHERE change = 'forgotten' AND cause = 'truncated' AND before IS NOT NULL";
    assert_eq!(stand.count(told).await, devices + 1, "the journal has all that were there, and the late one");

    assert_eq!(text(rows_of_other).await, other_before);
    assert_eq!(offsets(&stand.log, OTHER_TENANT).await, other_offsets);
    assert!(!other.is_finished());
    other.stop().await.unwrap();
    stand.stop_live().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_truncation_that_is_interrupted_after_any_step_goes_on() {
    let mut stand = Stand::new(40).await;
    let before = records(&stand).await;
    let mut interrupted = 0;
    let truncated = loop {
        let changes = AtomicUsize::new(0);
        let most = interrupted;
        // As if it had been killed there: nothing of what follows is done.
        let log = Between::before_append(stand.log.clone(), move |_| {
            let is_over = changes.fetch_add(1, Ordering::SeqCst) >= most;
            if is_over { Err(LogError::Corrupt("killed".to_owned())) } else { Ok(()) }
        });
        match run(&truncate(&stand, &log).await, "t1").await {
            Ok(truncated) => break truncated,
            Err(TruncateError::Log(LogError::Corrupt(_))) => interrupted += 1,
            Err(error) => panic!("{error}"),
        }
        // Others go on meanwhile.
        let late = observation(&format!("late {interrupted}"), SystemClock.now());
        observations(&stand.log).publish([late]).await.unwrap();
        assert!(!stand.live().is_finished(), "{:?}", stand.live().status().phase);
    };
    assert!(interrupted > 5, "{interrupted}");
    let operations = Operations::read(&*stand.log).await.unwrap();
    assert_eq!(operations.unfinished().count(), 0);
    assert_eq!(operations.all().iter().filter(|of| of.action == TRUNCATE).count(), 2, "one, begun and ended");
    settled(&stand, truncated.epoch).await;
    // Nothing is there of what was crawled, and nobody says that it is another source.
    truncate(&stand, &stand.log).await.plan(|_, _| {}).await.unwrap();
    stand.network.crawl(&stand.log).await.unwrap();
    stand.live().caught_up().await.unwrap();
    let mut after = records(&stand).await;
    after.retain(|key, _| !key.contains("/late"));
    assert_eq!(uids(&after), uids(&before));
    let kept = |of: &BTreeMap<String, (Option<String>, String)>| {
        let of_others = of.iter().filter(|(key, _)| !key.starts_with("default/armis/"));
        of_others.map(|(key, (_, first))| (key.clone(), first.clone())).collect::<BTreeMap<_, _>>()
    };
    assert_eq!(kept(&after), kept(&before), "no copy was taken for a new event");
    let epochs =
        "SELECT count(DISTINCT epoch) FROM serviceradar_base.device_history WHERE cause = 'truncated'";
    assert_eq!(stand.count(epochs).await, 1, "the views were emptied once");
    stand.assert_verified().await;
    stand.assert_consumers_know_all().await;
    stand.stop_live().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_killed_load_left_is_gone_and_a_tenant_that_was_removed_was_never_emptied() {
    let mut stand = Stand::new(40).await;
    // As if a load had been killed between its two commits, and somebody else had made the indexes.
    for table in ["views_1.device_summaries", "views_1.device_details", "serviceradar_base.device_history"] {
        let left = format!(
            "INSERT INTO {table} SELECT (jsonb_populate_record(t, '{{\"tenant\": \"other\"}}')).* FROM {table} t"
        );
        assert!(stand.database.client().await.execute(&left, &[]).await.unwrap() > 0);
    }
    serviceradar_replay::topics::ensure(&*stand.log, OTHER_TENANT).await.unwrap();
    let topic = Stream::Observations.topic(OTHER_TENANT);
    let of_other = Observations::new(stand.log.clone(), topic, Framing::default());
    of_other.publish([observation("one", SystemClock.now())]).await.unwrap();
    let other = drive_tenant(OTHER_TENANT, stand.log.clone(), stand.database.url()).await;
    other.caught_up().await.unwrap();
    for table in ["views_1.device_summaries", "views_1.device_details", "serviceradar_base.device_history"] {
        let rows = stand.count(&format!("SELECT count(*) FROM {table} WHERE tenant = 'other'")).await;
        assert_eq!(rows, 1, "{table}");
    }
    other.stop().await.unwrap();

    let truncated = run(&truncate(&stand, &stand.log).await, "t1").await.unwrap();
    settled(&stand, truncated.epoch).await;
    let views = stand.views().await;
    assert_eq!(views.standing(TENANT, None).await.unwrap().truncated, truncated.epoch);
    stand.stop_live().await;
    views.remove_tenant(TENANT).await.unwrap();
    let standing = views.standing(TENANT, None).await.unwrap();
    assert!(standing.is_empty() && standing.truncated == 0, "{standing:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_present_asserts_would_name_otherwise_keeps_its_uid_by_a_pin() {
    let mut stand = Stand::new(20).await;
    let claim = |namespace: &str, value: &str| Claim { namespace: namespace.into(), value: value.into() };
    let says = |id: &str, at: i64, claims: Vec<Claim>| Observation {
        id: id.to_owned(),
        source: armis(),
        claims,
        ..observation("renamed", at)
    };
    // It was known by the id that Armis gave it before anybody knew its serial number, which would come first.
    let now = SystemClock.now();
    let serial = || vec![claim("serial", "acme:s-1")];
    observations(&stand.log).publish([says("r1", now, Vec::new())]).await.unwrap();
    stand.live().caught_up().await.unwrap();
    observations(&stand.log).publish([says("r2", now + SECOND, serial())]).await.unwrap();
    stand.live().caught_up().await.unwrap();
    let key = format!("default/armis/{INSTANCE}/renamed");
    let before = records(&stand).await;
    let of = truncate(&stand, &stand.log).await;
    let plan = of.plan(|_, _| {}).await.unwrap();
    let pinned: Vec<_> = plan.pins.iter().map(|pin| pin.uid.0.to_string()).collect();
    assert!(pinned.contains(before[&key].0.as_ref().unwrap()), "{:?}", plan.pins);
    assert_eq!(plan.becomes, []);
    let truncated = of.run(plan, None, intent("t1"), |_, _| {}).await.unwrap();
    settled(&stand, truncated.epoch).await;
    stand.network.crawl(&stand.log).await.unwrap();
    stand.live().caught_up().await.unwrap();
    observations(&stand.log).publish([says("r3", SystemClock.now(), serial())]).await.unwrap();
    stand.live().caught_up().await.unwrap();
    assert_eq!(uids(&records(&stand).await), uids(&before));
    stand.assert_verified().await;

    // Another time nothing is to be pinned: what is pinned stays so.
    let of = truncate(&stand, &stand.log).await;
    let again = of.plan(|_, _| {}).await.unwrap();
    assert_eq!((again.pins, again.becomes), (Vec::new(), Vec::new()));
    stand.stop_live().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_is_lost_only_where_somebody_says_so() {
    let mut stand = Stand::new(40).await;
    let mut of = truncate(&stand, &stand.log).await;
    of.crawled.clear();
    let refused = async |of: &Truncate| of.plan(|_, _| {}).await.map(drop).unwrap_err();
    assert!(matches!(refused(&of).await, TruncateError::NothingGoes { .. }));
    // Under another name it is another source, which nothing was heard of.
    let renamed = Source { kind: "armis".to_owned(), instance: "main".to_owned() };
    of.crawled.insert(("default".to_owned(), renamed));
    let why = refused(&of).await.to_string();
    assert!(
        why.contains(&format!("default/armis/{INSTANCE}")) && why.contains("crawls default/armis/main"),
        "{why}"
    );
    of.crawled.clear();
    of.lost.insert(Source { kind: "netbox".to_owned(), instance: "none".to_owned() });
    let refused = refused(&of).await.to_string();
    assert!(refused.contains("no source netbox/none") && refused.contains("default/armis/"), "{refused}");
    let of_kind = |kind: &str| {
        format!(
            "SELECT count(*) FROM views_1.record_summaries WHERE source_kind = '{kind}' AND tenant = 'stand'"
        )
    };
    let mapper: String = {
        let select =
            "SELECT source_instance FROM views_1.record_summaries WHERE source_kind = 'mapper' LIMIT 1";
        stand.database.client().await.query_one(select, &[]).await.unwrap().get(0)
    };
    let (of_armis, of_sweep) = (stand.count(&of_kind("armis")).await, stand.count(&of_kind("sweep")).await);
    assert!(of_armis > 0 && of_sweep > 0);
    of.lost = BTreeSet::from([Source { kind: "mapper".to_owned(), instance: mapper }]);
    let beside = stand.candidate(&Rules::default()).await;
    let truncated = run(&of, "t1").await.unwrap();
    settled(&stand, truncated.epoch).await;
    // What is built beside is emptied, too, and follows again.
    while beside.status()[TENANT].epoch < truncated.epoch {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    beside.caught_up(|_| {}).await.unwrap();
    let tell = |of| panic!("{of:?}") as Result<(), ViewsError>;
    assert_eq!(stand.views().await.diff(1, 2, TENANT, tell).await.unwrap(), 0);
    beside.stop().await.unwrap();
    let found = [stand.count(&of_kind("armis")).await, stand.count(&of_kind("sweep")).await];
    assert_eq!((found, stand.count(&of_kind("mapper")).await), ([of_armis, of_sweep], 0));
    stand.assert_verified().await;
    stand.assert_consumers_know_all().await;
    // One that was begun is finished before another is.
    let log = Between::before_append(stand.log.clone(), {
        let changes = AtomicUsize::new(0);
        move |_| match changes.fetch_add(1, Ordering::SeqCst) {
            0 => Ok(()),
            _ => Err(LogError::Corrupt("killed".to_owned())),
        }
    });
    run(&truncate(&stand, &log).await, "t2").await.unwrap_err();
    let mut other = truncate(&stand, &stand.log).await;
    other.lost.insert(armis());
    assert!(matches!(other.plan(|_, _| {}).await, Err(TruncateError::Other { .. })));
    run(&truncate(&stand, &stand.log).await, "t3").await.unwrap();
    assert!(Operations::read(&*stand.log).await.unwrap().is_done("t2"));
    stand.stop_live().await;
}
