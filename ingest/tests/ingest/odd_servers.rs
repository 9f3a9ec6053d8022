//! Crawls of servers that answer what no Armis should, or watch how they are asked.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use crate::bench::{Log, NOW};
use axum::{
    Json, Router,
    extract::Query,
    handler::Handler,
    routing::{get, post},
};
use serde_json::{Value, json};
use serviceradar_ingest::sync::armis::{ArmisClient, ArmisConfig, CrawlError, CrawlReport, crawl};
use serviceradar_schemas::{Action, time::ManualClock};

#[derive(serde::Deserialize)]
struct Asked {
    from: usize,
    length: usize,
}

/// Serves a token and pages.
async fn listen<T, S, X>(token: T, search: S) -> SocketAddr
where
    T: Handler<((),), ()>,
    S: Handler<X, ()>,
    X: 'static,
{
    let routes =
        Router::new().route("/api/v1/access_token/", post(token)).route("/api/v1/search/", get(search));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, routes).await });
    address
}

/// Serves what `page` makes of what was asked.
async fn serve(page: fn(Asked) -> Value) -> SocketAddr {
    let token = || async { Json(json!({"data": {"access_token": "t"}, "success": true})) };
    let search = move |Query(asked): Query<Asked>| async move { Json(json!({"data": page(asked)})) };
    listen(token, search).await
}

/// Pages fetched at once of a server that watches.
const CONCURRENCY: usize = 3;

/// What a server saw of its crawls.
#[derive(Default)]
struct Watch {
    tokens: AtomicUsize,
    searches: AtomicUsize,
    at_once: AtomicUsize,
    at_once_most: AtomicUsize,
}

/// Serves 70 devices, 10 to a page; holds each page but the first until [`CONCURRENCY`] of them are
/// asked for.
async fn serve_watching(watch: Arc<Watch>) -> SocketAddr {
    let all_there = Arc::new(tokio::sync::Barrier::new(CONCURRENCY));
    let watching = watch.clone();
    let token = move || async move {
        watching.tokens.fetch_add(1, SeqCst);
        Json(json!({"data": {"access_token": "t"}, "success": true}))
    };
    let search = move |Query(asked): Query<Asked>| async move {
        watch.searches.fetch_add(1, SeqCst);
        let at_once = watch.at_once.fetch_add(1, SeqCst) + 1;
        watch.at_once_most.fetch_max(at_once, SeqCst);
        if asked.from > 0 {
            all_there.wait().await;
        }
        watch.at_once.fetch_sub(1, SeqCst);
        Json(json!({"data": page(asked.from, asked.from + asked.length, 70)}))
    };
    listen(token, search).await
}

#[tokio::test]
async fn pages_are_fetched_at_once_up_to_the_limit_and_with_one_token() {
    let watch = Arc::new(Watch::default());
    let clock = Arc::new(ManualClock::new(NOW));
    let log = Log::new(clock.clone()).await;
    let url = format!("http://{}", serve_watching(watch.clone()).await);
    let config =
        ArmisConfig { page_size: 10, concurrency: CONCURRENCY, ..ArmisConfig::new(&url, "s", "odd") };
    let client = ArmisClient::new(config, clock.clone()).unwrap();
    for _ in 0..2 {
        crawl(&client, &log.observations, &*clock, |_| {}).await.unwrap();
    }
    let seen = [&watch.searches, &watch.at_once_most, &watch.tokens].map(|of| of.load(SeqCst));
    assert_eq!(seen, [14, CONCURRENCY, 1]);
}

/// Crawls it; whether the log has a SNAPSHOT_END, and how many asserts.
async fn crawl_of(page: fn(Asked) -> Value) -> (Result<CrawlReport, CrawlError>, bool, usize) {
    let clock = Arc::new(ManualClock::new(NOW));
    let log = Log::new(clock.clone()).await;
    let url = format!("http://{}/", serve(page).await);
    let config = ArmisConfig { page_size: 10, ..ArmisConfig::new(&url, "s", "odd") };
    let client = ArmisClient::new(config, clock.clone()).unwrap();
    let crawled = crawl(&client, &log.observations, &*clock, |_| {}).await;
    let observations = log.read().await;
    let ended = observations.iter().any(|o| o.action == Action::SnapshotEnd);
    let asserts = observations.iter().filter(|o| o.action == Action::Assert).count();
    (crawled, ended, asserts)
}

fn page(from: usize, to: usize, total: usize) -> Value {
    let results: Vec<Value> = (from..to).map(|id| json!({"id": id})).collect();
    json!({"count": results.len(), "results": results, "total": total, "next": null})
}

#[tokio::test]
async fn a_server_with_a_smaller_limit_of_its_own_is_crawled_by_it() {
    let (crawled, ended, asserts) =
        crawl_of(|asked| page(asked.from, (asked.from + asked.length.min(4)).min(33), 33)).await;
    assert_eq!(crawled.unwrap().pages, 9);
    assert!(ended);
    assert_eq!(asserts, 33);
}

#[tokio::test]
async fn an_inventory_that_changes_meanwhile_ends_nothing() {
    let (crawled, ended, asserts) = crawl_of(|asked| {
        let total = if asked.from == 0 { 30 } else { 31 };
        page(asked.from, asked.from + 10, total)
    })
    .await;
    assert!(matches!(crawled, Err(CrawlError::Incomplete { why, .. }) if why.contains("31")));
    assert!(!ended);
    assert_eq!(asserts, 30, "what came is kept");
}

#[tokio::test]
async fn a_device_without_an_id_is_named_and_the_others_are_published() {
    let (crawled, ended, asserts) = crawl_of(|asked| {
        let mut page = page(asked.from, (asked.from + 10).min(25), 25);
        if asked.from == 10 {
            page["results"][3] = json!({"name": "nobody"});
        }
        page
    })
    .await;
    assert!(matches!(crawled, Err(CrawlError::Incomplete { why, .. }) if why.contains("nobody")));
    assert!(!ended);
    assert_eq!(asserts, 24);
}

#[tokio::test]
async fn a_device_over_the_limit_of_an_event_is_named_and_the_others_are_published() {
    let (crawled, ended, asserts) = crawl_of(|_| {
        let mut page = page(0, 3, 3);
        page["results"][1]["note"] = json!("x".repeat(2 << 20));
        page
    })
    .await;
    assert!(matches!(crawled, Err(CrawlError::Incomplete { why, .. }) if why.contains("armis/odd/1")));
    assert!(!ended);
    assert_eq!(asserts, 2);
}

#[tokio::test]
async fn an_https_address_is_spoken_to_in_tls() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let clock = Arc::new(ManualClock::new(NOW));
    let log = Log::new(clock.clone()).await;
    let client = ArmisClient::new(ArmisConfig::new(&url, "s", "odd"), clock.clone()).unwrap();
    let hears = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        tokio::io::AsyncReadExt::read_u8(&mut stream).await.unwrap()
    };
    tokio::select! {
        first = hears => assert_eq!(first, 0x16, "the first byte of a TLS handshake"),
        _ = crawl(&client, &log.observations, &*clock, |_| {}) => panic!("nobody answered"),
    }
}

#[test]
fn a_configuration_that_cannot_work_is_refused() {
    let refuse = |change: fn(&mut ArmisConfig)| {
        let mut config = ArmisConfig::new("http://localhost", "s", "odd");
        change(&mut config);
        ArmisClient::new(config, Arc::new(ManualClock::new(NOW))).err().map(|e| e.to_string())
    };
    assert_eq!(refuse(|_| {}), None);
    assert!(refuse(|c| c.page_size = 0).unwrap().contains("page size"));
    assert!(refuse(|c| c.concurrency = 1_000).unwrap().contains("1 to 32"));
    assert!(refuse(|c| c.instance = "a/b".to_owned()).unwrap().contains("instance"));
    assert!(refuse(|c| c.instance = "a b".to_owned()).unwrap().contains("instance"));
    assert!(refuse(|c| c.partition = "x".repeat(65)).unwrap().contains("partition"));
    assert!(refuse(|c| c.partition.clear()).unwrap().contains("partition"));
    assert!(refuse(|c| c.url = "ftp://localhost".to_owned()).unwrap().contains("ftp"));
    assert!(refuse(|c| c.url = "localhost".to_owned()).unwrap().contains("https://"));
}
