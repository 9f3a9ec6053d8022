//! What is measured of queries.

use std::sync::Arc;

use reqwest::Method;
use serde_json::json;
use serviceradar_srql::service::{
    Service,
    measured::{Ended, Meter, Route},
    readers::{COST_DEFAULT, Readers},
};
use tokio::sync::mpsc;

use super::{
    grpc::{client, of, run_request},
    service::{DEVICES, Stand},
};

struct Told(mpsc::UnboundedSender<Option<Ended>>);

impl Meter for Told {
    fn begun(&self, _: Route) {
        _ = self.0.send(None);
    }

    fn ended(&self, query: &Ended) {
        _ = self.0.send(Some(*query));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_query_is_measured_once() {
    let (put, mut told) = mpsc::unbounded_channel();
    let stand = Stand::new(|service| service.meter = Arc::new(Told(put.clone()))).await;
    let mut client = client(&stand).await;
    let mut next = async || {
        assert!(told.recv().await.unwrap().is_none(), "it begins");
        told.recv().await.unwrap().unwrap()
    };

    stand.post("/api/query", "anna", json!({ "query": "in:devices", "limit": 7 })).await;
    let ended = next().await;
    assert_eq!((ended.route, ended.outcome, ended.rows), (Route::Query, "ok", 7));
    let (_, csv) = stand.get("/api/query?q=in:devices&format=csv", "anna").await;
    let ended = next().await;
    assert_eq!((ended.outcome, u128::from(ended.rows), ended.bytes), ("ok", DEVICES, csv.len() as u64));
    for (caller, body, outcome) in [
        ("anna", json!({ "query": "in:devices hostnme:x" }), "unknown_field"),
        ("anna", json!({ "query": 7 }), "syntax"),
        ("anna", json!({ "query": "in:interfaces" }), "not_collected"),
        ("eve", json!({ "query": "in:devices" }), "unauthenticated"),
    ] {
        stand.post("/api/query", caller, body).await;
        assert_eq!(next().await.outcome, outcome);
    }
    stand.post("/api/srql/explain", "anna", json!({ "query": "in:devices" })).await;
    let ended = next().await;
    assert_eq!((ended.route, ended.outcome), (Route::Explain, "forbidden"));
    // One of rows is measured when who follows it leaves.
    let mut followed =
        stand.request(Method::GET, "/api/query/stream?q=in:devices&limit=3", "anna").send().await.unwrap();
    let mut sent = 0;
    while sent < 4 {
        sent += followed.chunk().await.unwrap().unwrap().windows(6).filter(|at| at == b"data: ").count();
    }
    drop(followed);
    let ended = next().await;
    assert_eq!((ended.route, ended.outcome), (Route::Stream, "given_up"));
    assert!(ended.rows >= 3 && ended.bytes > 0);
    for all_rows in [false, true] {
        let mut run =
            client.run(of("anna", run_request("in:devices limit:9", all_rows))).await.unwrap().into_inner();
        while run.message().await.unwrap().is_some() {}
        let ended = next().await;
        assert_eq!((ended.route, ended.outcome, ended.rows), (Route::GrpcRun, "ok", 9));
        assert!(ended.bytes > 0);
    }

    let no_readers = |service: &mut Service| {
        service.readers = Readers::new(service.readers.url().to_owned(), 0, COST_DEFAULT)
    };
    let no_cost = |service: &mut Service| service.readers.cost_max = 1.0;
    let no_bytes = |service: &mut Service| service.answer_bytes_max = 1;
    let limits: [(_, fn(&mut Service)); 3] =
        [("busy", no_readers), ("too_expensive", no_cost), ("cut", no_bytes)];
    for (outcome, set) in limits {
        let stand = Stand::new(|service| {
            set(service);
            service.meter = Arc::new(Told(put.clone()));
        })
        .await;
        let response = stand.request(reqwest::Method::GET, "/api/query?q=in:devices&format=ndjson", "anna");
        _ = response.send().await.unwrap().bytes().await;
        assert_eq!(next().await.outcome, outcome);
    }
}
