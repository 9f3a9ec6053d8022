//! Crawls of the faker, on good days and bad ones.

use std::{collections::BTreeSet, time::Duration};

use crate::bench::{Bench, NOW};
use serviceradar_ingest::{
    faker::{ArmedFault, Fault},
    sync::armis::{
        ArmisClient, ArmisConfig, CrawlError, CrawlReport, FAILURES_MAX, FetchError, crawl, run_every,
    },
};
use serviceradar_schemas::{
    Action, Observation,
    time::{Clock, HOUR, MINUTE},
};

const DEVICES: usize = 1_000;

async fn crawl_with(bench: &Bench, client: &ArmisClient) -> Result<CrawlReport, CrawlError> {
    crawl(client, &bench.log.observations, &*bench.clock, |_| {}).await
}

fn of(observations: &[Observation], action: Action) -> Vec<&Observation> {
    observations.iter().filter(|o| o.action == action).collect()
}

fn keys(observations: &[Observation]) -> BTreeSet<String> {
    of(observations, Action::Assert).iter().map(|o| o.record_key()).collect()
}

/// The log holds one complete snapshot of all devices.
async fn assert_complete(bench: &Bench) {
    let observations = bench.log.read().await;
    let asserts = of(&observations, Action::Assert);
    assert_eq!(asserts.len(), DEVICES);
    let truth = bench.faker.truth();
    let armis: BTreeSet<String> =
        truth.records.into_keys().filter(|key| key.starts_with("default/armis/faker/")).collect();
    assert_eq!(keys(&observations), armis);
    let [begin] = of(&observations, Action::SnapshotBegin)[..] else { panic!("no begin, or many") };
    let [end] = of(&observations, Action::SnapshotEnd)[..] else { panic!("no end, or many") };
    let (begin, end) = (begin.snapshot.clone().unwrap(), end.snapshot.clone().unwrap());
    assert_eq!(begin.begin, NOW);
    assert_eq!((begin.begin, &begin.id), (end.begin, &end.id));
    assert_eq!(end.count, Some(DEVICES as i64));
    assert!(asserts.iter().all(|o| o.snapshot.as_ref() == Some(&begin)));
}

#[tokio::test]
async fn a_crawl_publishes_every_device_as_one_snapshot() {
    let bench = Bench::new(DEVICES).await;
    let mut pages = Vec::new();
    let report = crawl(&bench.client(), &bench.log.observations, &*bench.clock, |progress| {
        pages.push((progress.pages, progress.records, progress.total));
    })
    .await
    .unwrap();
    assert_eq!((report.records, report.pages, report.excluded), (DEVICES, 10, 0));
    let expected: Vec<_> = (1..=10).map(|page| (page, 100 * page, DEVICES)).collect();
    assert_eq!(pages, expected);
    assert_complete(&bench).await;
}

#[tokio::test]
async fn an_empty_inventory_is_a_snapshot_too() {
    let bench = Bench::new(0).await;
    assert_eq!(crawl_with(&bench, &bench.client()).await.unwrap().records, 0);
    let observations = bench.log.read().await;
    assert_eq!(of(&observations, Action::SnapshotEnd)[0].snapshot.as_ref().unwrap().count, Some(0));
}

#[tokio::test]
async fn what_did_not_change_is_asserted_again_with_the_next_fetch() {
    let bench = Bench::new(DEVICES).await;
    let client = bench.client();
    crawl_with(&bench, &client).await.unwrap();
    bench.clock.set(NOW + MINUTE);
    crawl_with(&bench, &client).await.unwrap();
    let mut observations = bench.log.read().await;
    assert_eq!(of(&observations, Action::SnapshotEnd).len(), 2);
    observations.retain(|o| o.action == Action::Assert);
    let begin = |o: &Observation| o.snapshot.as_ref().map(|s| s.begin);
    let (mut first, mut second): (Vec<_>, Vec<_>) =
        observations.into_iter().partition(|o| begin(o) == Some(NOW));
    let ids = |of: &[Observation]| of.iter().map(|o| o.id.clone()).collect::<BTreeSet<_>>();
    assert_eq!(ids(&first).intersection(&ids(&second)).count(), 0, "another sighting, another event");
    for o in first.iter_mut().chain(&mut second) {
        (o.snapshot, o.id) = (None, String::new());
    }
    first.sort_by_key(Observation::record_key);
    second.sort_by_key(Observation::record_key);
    assert_eq!(first, second);
}

#[tokio::test]
async fn a_fault_that_passes_is_borne() {
    for fault in [
        Fault::ExpiredToken,
        Fault::TooManyRequests { retry_after: 1 },
        Fault::ServerError,
        Fault::SlowPage { millis: 600 },
        Fault::TruncatedBody,
        Fault::ShortPage,
        Fault::LyingNext,
    ] {
        let bench = Bench::new(DEVICES).await;
        bench.faker.arm(ArmedFault { fault, after: 3, times: 3 }).unwrap();
        let config = ArmisConfig { request_timeout: Duration::from_millis(500), ..bench.armis() };
        let client = ArmisClient::new(config, bench.clock.clone()).unwrap();
        let crawled = crawl_with(&bench, &client).await;
        assert!(crawled.is_ok(), "{fault:?}: {crawled:?}");
        assert_complete(&bench).await;
    }
}

#[tokio::test]
async fn a_next_that_always_lies_leads_nowhere() {
    let bench = Bench::new(DEVICES).await;
    bench.faker.arm(ArmedFault::now(Fault::LyingNext, u32::MAX)).unwrap();
    crawl_with(&bench, &bench.client()).await.unwrap();
    assert_complete(&bench).await;
}

#[tokio::test]
async fn a_fault_that_stays_ends_the_crawl_without_an_end() {
    for fault in [
        Fault::ExpiredToken,
        Fault::TooManyRequests { retry_after: 0 },
        Fault::TooManyRequests { retry_after: 3_600 },
        Fault::ServerError,
        Fault::SlowPage { millis: 5_000 },
        Fault::TruncatedBody,
        Fault::ShortPage,
        Fault::RepeatedPage,
    ] {
        let bench = Bench::new(DEVICES).await;
        bench.faker.arm(ArmedFault { fault, after: 4, times: u32::MAX }).unwrap();
        let config = ArmisConfig { request_timeout: Duration::from_millis(300), ..bench.armis() };
        let client = ArmisClient::new(config, bench.clock.clone()).unwrap();
        let error = crawl_with(&bench, &client).await.unwrap_err();
        let observations = bench.log.read().await;
        assert_eq!(of(&observations, Action::SnapshotBegin).len(), 1, "{fault:?}");
        assert_eq!(of(&observations, Action::SnapshotEnd).len(), 0, "{fault:?}");
        match error {
            CrawlError::Fetch { progress, .. } => {
                assert_eq!(progress.records, of(&observations, Action::Assert).len());
                assert!((100..DEVICES).contains(&progress.records), "{fault:?}");
            }
            CrawlError::Incomplete { progress, why } => {
                assert_eq!(fault, Fault::RepeatedPage);
                assert!(progress.records < DEVICES && why.contains("came twice"), "{why}");
            }
            other => panic!("{fault:?}: {other}"),
        }
    }
}

#[tokio::test]
async fn an_armis_that_is_down_leaves_no_trace_and_then_is_left_alone() {
    let bench = Bench::new(DEVICES).await;
    bench.faker.arm(ArmedFault::now(Fault::ServerError, FAILURES_MAX)).unwrap();
    let client = bench.client();
    loop {
        match crawl_with(&bench, &client).await.unwrap_err() {
            CrawlError::Fetch { error: FetchError::Exhausted { last }, .. } => {
                assert!(last.contains("500"), "{last}");
            }
            CrawlError::Fetch { error, .. } => {
                assert!(matches!(error, FetchError::CircuitOpen { .. }), "{error}");
                break;
            }
            other => panic!("{other}"),
        }
    }
    // The faults are over, and still nothing is asked.
    let error = crawl_with(&bench, &client).await.unwrap_err();
    assert!(matches!(error, CrawlError::Fetch { error: FetchError::CircuitOpen { .. }, .. }));
    assert_eq!(bench.log.read().await, []);
}

#[tokio::test]
async fn a_wrong_secret_is_said_at_once() {
    let bench = Bench::new(DEVICES).await;
    let config = ArmisConfig {
        page_size: 100,
        ..ArmisConfig::new(&bench.serving.url(), "wrong & odd = secret", "faker")
    };
    let client = ArmisClient::new(config, bench.clock.clone()).unwrap();
    let error = crawl_with(&bench, &client).await.unwrap_err();
    let CrawlError::Fetch { error: FetchError::SecretRefused { status: 401, .. }, .. } = &error else {
        panic!("{error}")
    };
    assert!(!format!("{error} {error:?} {:?}", client.config()).contains("odd"));
}

#[tokio::test]
async fn a_query_that_armis_does_not_know_is_not_asked_again() {
    let bench = Bench::new(DEVICES).await;
    let config = ArmisConfig { aql: "in:nothing".to_owned(), ..bench.armis() };
    let client = ArmisClient::new(config, bench.clock.clone()).unwrap();
    let error = crawl_with(&bench, &client).await.unwrap_err();
    assert!(
        matches!(error, CrawlError::Fetch { error: FetchError::Refused { status: 400, .. }, .. }),
        "{error}"
    );
}

#[tokio::test]
async fn a_token_that_has_expired_since_the_last_crawl_is_renewed() {
    let bench = Bench::new(DEVICES).await;
    let client = bench.client();
    for hour in 0..3 {
        bench.clock.set(NOW + hour * HOUR);
        crawl_with(&bench, &client).await.unwrap();
    }
}

#[tokio::test]
async fn excluded_networks_are_in_no_record_and_the_count_says_so() {
    let bench = Bench::new(DEVICES).await;
    // The first 254 addresses of the pool.
    let config = ArmisConfig { exclude: vec!["10.0.0.0/24".parse().unwrap()], ..bench.armis() };
    let client = ArmisClient::new(config, bench.clock.clone()).unwrap();
    let report = crawl_with(&bench, &client).await.unwrap();
    assert_eq!(report.records + report.excluded, DEVICES);
    assert!((150..=254).contains(&report.excluded), "some of them have other addresses too");
    let observations = bench.log.read().await;
    assert_eq!(keys(&observations).len(), report.records);
    let end = of(&observations, Action::SnapshotEnd)[0].snapshot.clone().unwrap();
    assert_eq!(end.count, Some(report.records as i64));
    assert!(observations.iter().flat_map(|o| &o.addresses).all(|a| !a.ip.starts_with("10.0.0.")));
}

#[tokio::test]
async fn a_log_without_the_topic_is_an_error_of_the_log() {
    let bench = Bench::new(DEVICES).await;
    bench.log.store.delete_topic(crate::bench::TOPIC).await.unwrap();
    let error = crawl_with(&bench, &bench.client()).await.unwrap_err();
    assert!(matches!(error, CrawlError::Publish { .. }), "{error}");
}

#[tokio::test]
async fn crawls_follow_each_other_until_the_shutdown() {
    let bench = Bench::new(DEVICES).await;
    let shutdown = bench.shutdown.clone();
    let mut complete = 0;
    run_every(
        &bench.client(),
        &bench.log.observations,
        &*bench.clock,
        Duration::from_millis(20),
        shutdown.clone(),
        |result| match result {
            Ok(_) => {
                complete += 1;
                bench.clock.set(bench.clock.now() + MINUTE);
                if complete == 3 {
                    shutdown.cancel();
                }
            }
            Err(error) => panic!("{error}"),
        },
    )
    .await;
    assert_eq!(of(&bench.log.read().await, Action::SnapshotEnd).len(), 3);
}
