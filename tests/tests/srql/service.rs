//! The service, asked over HTTP.

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{Either, join_all, select},
};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use serviceradar_schemas::{DeviceChange, time::SystemClock};
use serviceradar_srql::{
    cursor::Cursors,
    service::{
        ANSWER_BYTES_DEFAULT, Service,
        callers::{Callers, digest},
        live::Live,
        readers::{CONCURRENT_DEFAULT, COST_DEFAULT, Readers, Refused, WAITING_MAX, turns},
    },
};
use serviceradar_streams::{changes::Changes, rows::EpochOutput};
use serviceradar_tests::{database::Database, views_conformance};
use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::CancellationToken;

use super::fill;

pub(super) const DEVICES: u128 = 250;
/// Callers: their keys, their tenants, and their roles.
const CALLERS: [(&str, &str, &str); 3] =
    [("anna", "acme", "reader"), ("oscar", "acme", "operator"), ("bert", "other", "reader")];

pub(crate) struct Stand {
    client: Client,
    pub(crate) base: String,
    pub(crate) database: Database,
    pub(crate) stopping: CancellationToken,
}

/// The list of callers.
pub(super) fn keys() -> String {
    let entry = |(name, tenant, role): (&str, &str, &str)| {
        let sha256: String =
            digest(&format!("key of {name}")).iter().map(|byte| format!("{byte:02x}")).collect();
        format!(
            "[[key]]\nname = \"{name}\"\ntenant = \"{tenant}\"\nrole = \"{role}\"\nsha256 = \"{sha256}\"\n"
        )
    };
    CALLERS.map(entry).concat()
}

/// A database in which either tenant has devices.
pub(super) async fn filled() -> Database {
    let database = Database::migrated_timescale().await;
    let views = database.views().await;
    for (tenant, name) in [("acme", "=cmd"), ("other", "of others")] {
        let devices = (1..=DEVICES).map(|n| DeviceChange {
            vendor_name: Some(tenant.to_owned()),
            ..views_conformance::device(n, name)
        });
        let devices = Changes { new: devices.collect(), ..Changes::default() };
        fill(&views, tenant, EpochOutput { devices, ..EpochOutput::default() }).await;
    }
    database
}

impl Stand {
    pub(crate) async fn new(set: impl FnOnce(&mut Service)) -> Self {
        let database = filled().await;
        let stopping = CancellationToken::new();
        let mut service = Service {
            callers: Callers::read(&keys()).unwrap(),
            readers: Readers::new(database.url().to_owned(), CONCURRENT_DEFAULT, COST_DEFAULT),
            cursors: Cursors::new(b"key"),
            live: Live::new(stopping.clone()),
            clock: Arc::new(SystemClock),
            answer_bytes_max: ANSWER_BYTES_DEFAULT,
            meter: Arc::new(()),
        };
        set(&mut service);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(axum::serve(listener, service.routes()).into_future());
        // Already there where another test was first.
        _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().tls_certs_only([]).build().unwrap();
        Self { client, base, database, stopping }
    }

    pub(crate) fn request(&self, method: Method, path: &str, caller: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        request.header("authorization", format!("Bearer key of {caller}"))
    }

    pub(super) async fn post(&self, path: &str, caller: &str, body: Value) -> (StatusCode, Value) {
        let response = self.request(Method::POST, path, caller).body(body.to_string()).send().await.unwrap();
        let status = response.status();
        (status, serde_json::from_slice(&response.bytes().await.unwrap()).unwrap())
    }

    pub(crate) async fn get(&self, path: &str, caller: &str) -> (StatusCode, String) {
        let response = self.request(Method::GET, path, caller).send().await.unwrap();
        let status = response.status();
        (status, response.text().await.unwrap())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_tells_of_its_rows_what_lines_tell() {
    let stand = Stand::new(|_| {}).await;
    for query in [
        "in:devices",
        "in:devices stats:'count() as n, avg(records), max(last_seen), values(name) by type, is_available'",
    ] {
        let query = format!("{query} limit:50");
        let ask = async |format: &str| {
            let asked =
                stand.request(Method::GET, "/api/query", "anna").query(&[("q", &*query), ("format", format)]);
            asked.send().await.unwrap().error_for_status().unwrap().text().await.unwrap()
        };
        let page: Value = serde_json::from_str(&ask("json").await).unwrap();
        let lines = ask("ndjson").await;
        let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(!lines.is_empty() && page["results"] == json!(lines), "{query}: {page}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_is_paged_through_and_written_in_each_format() {
    let stand = Stand::new(|_| {}).await;
    let mut seen = 0;
    let mut cursor = Value::Null;
    let mut before;
    loop {
        let body = json!({ "query": "in:devices sort:uid count:true", "limit": 99, "cursor": cursor, "direction": "next" });
        let (status, answer) = stand.post("/api/query", "anna", body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert_eq!(answer["pagination"]["total"], json!(DEVICES as u64));
        assert_eq!(answer["meta"]["entity"], "devices");
        assert!(
            answer["meta"]["complete_to"].is_string() && answer["meta"]["epoch"] == 1,
            "{}",
            answer["meta"]
        );
        assert_eq!(answer["viz"]["columns"][0], json!({ "name": "uid", "type": "text" }));
        seen += answer["results"].as_array().unwrap().len();
        before = answer["pagination"]["prev_cursor"].clone();
        cursor = answer["pagination"]["next_cursor"].clone();
        if cursor.is_null() {
            break;
        }
    }
    assert_eq!(seen as u128, DEVICES);
    let back = |way: &str| json!({ "query": "in:devices sort:uid count:true", "limit": 5, "cursor": before, "direction": way });
    let (status, answer) = stand.post("/api/query", "anna", back("prev")).await;
    assert_eq!((status, answer["results"].as_array().map(Vec::len)), (StatusCode::OK, Some(5)), "{answer}");
    assert_eq!(stand.post("/api/query", "anna", back("next")).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(stand.post("/api/query", "oscar", back("prev")).await.0, StatusCode::BAD_REQUEST);

    let (status, csv) =
        stand.get("/api/query?q=in:devices%20fields:name,vendor_name&format=csv", "anna").await;
    assert_eq!(status, StatusCode::OK);
    // What a spreadsheet would compute is text.
    assert_eq!(csv, "name,vendor_name\n".to_owned() + &"'=cmd,acme\n".repeat(DEVICES as usize));
    let (_, lines) = stand.get("/api/query?q=in:devices+limit:3&format=ndjson", "bert").await;
    let rows: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(rows.len() == 3 && rows.iter().all(|row| row["vendor_name"] == "other"), "{lines}");
    let (_, whole) = stand.get("/api/query?q=in:devices+stats:count()&limit=5", "bert").await;
    let whole: Value = serde_json::from_str(&whole).unwrap();
    assert_eq!(whole["results"], json!([{ "count": DEVICES as u64 }]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_key_is_told_nothing_and_a_reader_sees_no_plans() {
    let stand = Stand::new(|_| {}).await;
    let body = json!({ "query": "in:devices" });
    for path in ["/api/query", "/api/srql/explain", "/translate", "/api/srql/complete"] {
        let (status, told) = stand.post(path, "eve", body.clone()).await;
        assert_eq!(
            (status, &told["error"]["code"]),
            (StatusCode::UNAUTHORIZED, &json!("unauthenticated")),
            "{path}"
        );
    }
    for path in ["/api/query?q=in:devices", "/api/srql/schema"] {
        assert_eq!(stand.get(path, "eve").await.0, StatusCode::UNAUTHORIZED, "{path}");
    }
    let bare = stand.client.get(format!("{}/api/srql/schema", stand.base)).send().await.unwrap();
    assert_eq!(
        (bare.status(), bare.headers()["www-authenticate"].to_str().unwrap()),
        (StatusCode::UNAUTHORIZED, "Bearer")
    );
    for path in ["/healthz", "/readyz"] {
        let (status, text) = stand.get(path, "eve").await;
        assert_eq!(status, StatusCode::OK, "{path}: {text}");
    }
    let (status, told) = stand.post("/api/srql/explain", "anna", body.clone()).await;
    assert_eq!((status, &told["error"]["code"]), (StatusCode::FORBIDDEN, &json!("forbidden")));
    let (status, told) = stand.post("/api/srql/explain", "oscar", body).await;
    assert_eq!(status, StatusCode::OK);
    assert!(told["cost"].as_f64().unwrap() > 0.0 && told["plan"][0][0]["Plan"].is_object(), "{told}");
    let (_, told) = stand.post("/translate", "anna", json!({ "query": "in:devices ip:10.0.0.0/8" })).await;
    assert!(told["parameters"].as_array().unwrap().contains(&json!("10.0.0.0/8")), "{told}");
    let (_, schema) = stand.get("/api/srql/schema", "anna").await;
    let schema: Value = serde_json::from_str(&schema).unwrap();
    assert_eq!(schema["entities"][0]["fields"][0]["names"], json!(["uid", "device_id"]));
    let (_, told) = stand.post("/api/srql/complete", "anna", json!({ "query": "in:devices is_av" })).await;
    assert_eq!((&told["offers"][0]["text"], &told["span"]), (&json!("is_available:"), &json!([11, 16])));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_are_told_all_at_once_and_never_bare() {
    let stand = Stand::new(|_| {}).await;
    let (status, told) =
        stand.post("/api/query", "anna", json!({ "query": "in:devices hostnme:x sort:bogus" })).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(told["error"]["code"], "unknown_field");
    assert_eq!(
        (&told["error"]["span"], &told["error"]["hint"]),
        (&json!([11, 18]), &json!("did you mean hostname?"))
    );
    assert_eq!(told["errors"].as_array().unwrap().len(), 2);
    assert!(told["error_text"].as_str().unwrap().contains("hostnme"));
    for (body, code) in [
        (json!({ "query": "in:devices", "limit": 0 }), "bad_value"),
        (json!({ "query": "in:devices", "limit": 1_001 }), "bad_value"),
        (json!({ "query": "in:devices", "cursor": "x" }), "bad_value"),
        (json!({ "query": "in:devices", "cursor": "x", "format": "csv" }), "bad_value"),
        (json!({ "query": "in:devices", "tenant": "other" }), "syntax"),
        (json!({ "query": 7 }), "syntax"),
        (json!([]), "syntax"),
        (json!({ "query": "x".repeat(20_000) }), "too_wide"),
    ] {
        let (status, told) = stand.post("/api/query", "anna", body.clone()).await;
        assert_eq!((status, &told["error"]["code"]), (StatusCode::BAD_REQUEST, &json!(code)), "{body:.200}");
    }
    let (status, told) = stand.post("/api/query", "anna", json!({ "query": "in:interfaces" })).await;
    assert_eq!((status, &told["error"]["code"]), (StatusCode::NOT_IMPLEMENTED, &json!("unavailable")));
    assert_eq!(
        stand.get("/api/query?query=in:devices&query=in:devices", "anna").await.0,
        StatusCode::BAD_REQUEST
    );
    assert_eq!(stand.get("/nowhere", "anna").await.0, StatusCode::NOT_FOUND);
    assert_eq!(stand.get("/translate", "anna").await.0, StatusCode::METHOD_NOT_ALLOWED);
    let long =
        stand.request(Method::POST, "/api/query", "anna").body("x".repeat(1 << 20)).send().await.unwrap();
    assert_eq!(long.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_hold() {
    let stand = Stand::new(|service| {
        service.readers.cost_max = 1.0;
        service.answer_bytes_max = 1;
    })
    .await;
    for format in ["json", "csv"] {
        let body = json!({ "query": "in:devices", "format": format });
        let (status, told) = stand.post("/api/query", "anna", body).await;
        assert_eq!((status, &told["error"]["code"]), (StatusCode::BAD_REQUEST, &json!("too_expensive")));
    }
    // An answer that is cut is seen to be cut.
    let stand = Stand::new(|service| service.answer_bytes_max = 1).await;
    let cut =
        stand.request(Method::GET, "/api/query?q=in:devices&format=ndjson", "anna").send().await.unwrap();
    assert!(cut.text().await.is_err());

    // One of a tenant at a time: who asks meanwhile is answered all the same, a moment later.
    let stand = Stand::new(|service| {
        service.readers = Readers::new(service.readers.url().to_owned(), 1, COST_DEFAULT);
    })
    .await;
    let ask = || stand.get("/api/query?q=in:devices", "anna");
    for (status, text) in join_all([ask(), ask(), ask(), ask()]).await {
        assert_eq!(status, StatusCode::OK, "{text}");
    }
    // Where no place becomes free, who waited for one is told to come again.
    let stand = Stand::new(|service| {
        service.readers = Readers::new(service.readers.url().to_owned(), 0, COST_DEFAULT);
    })
    .await;
    let refused = stand.request(Method::GET, "/api/query?q=in:devices", "anna").send().await.unwrap();
    assert_eq!(
        (refused.status(), refused.headers()["retry-after"].to_str().unwrap()),
        (StatusCode::TOO_MANY_REQUESTS, "1")
    );
}

/// Pages are read a few at a time; one that takes long gives its turn up, and nobody waits until it is read.
#[tokio::test]
async fn a_page_waits_for_its_turn_and_not_for_one_that_takes_long() {
    let readers = Readers::new(String::new(), CONCURRENT_DEFAULT, COST_DEFAULT);
    let begun = AtomicUsize::new(0);
    let endless = || async {
        begun.fetch_add(1, Ordering::Relaxed);
        pending::<()>().await;
    };
    let pages: Vec<_> = (0..=turns()).map(|_| Box::pin(readers.in_turn(endless()))).collect();
    let mut pages = join_all(pages);
    assert!((&mut pages).now_or_never().is_none());
    assert_eq!(begun.load(Ordering::Relaxed), turns(), "one waits");
    let next = Box::pin(readers.in_turn(async {}));
    let read = timeout(Duration::from_secs(30), select(next, pages)).await;
    assert!(matches!(read, Ok(Either::Left(_))), "it waits for pages that never end");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_finds_no_place_waits_for_one_in_turn_but_not_for_ever() {
    let database = Database::migrated_timescale().await;
    let readers = Readers::new(database.url().to_owned(), 1, COST_DEFAULT);
    let ask = || Box::pin(readers.borrow("acme"));
    let at_work = ask().await.unwrap();
    // Whose places they are not takes no notice.
    readers.give_back(readers.borrow("other").await.unwrap());

    let mut waiting: Vec<_> = (0..WAITING_MAX).map(|_| ask()).collect();
    assert!(waiting.iter_mut().all(|one| one.now_or_never().is_none()), "as many as may wait");
    let refused_at_once = || matches!(ask().now_or_never(), Some(Err(Refused::Busy)));
    assert!(refused_at_once());
    // Who goes away makes room for another to wait.
    drop(waiting.pop());
    waiting.push(ask());
    assert!(waiting.last_mut().unwrap().now_or_never().is_none());
    assert!(refused_at_once());

    readers.give_back(at_work);
    assert!(waiting.last_mut().unwrap().now_or_never().is_none(), "others came before");
    let at_work = waiting.remove(0).await.unwrap();
    for waited in join_all(waiting).await {
        assert!(matches!(waited, Err(Refused::Busy)), "the place is not free, and was waited for too long");
    }
    readers.give_back(at_work);
    assert!(ask().await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_gone_is_said() {
    let stand = Stand::new(|service| {
        service.readers = Readers::new("postgresql://u@127.0.0.1:1/d".to_owned(), 4, COST_DEFAULT);
    })
    .await;
    for (status, told) in [stand.post("/api/query", "anna", json!({ "query": "in:devices" })).await, {
        let (status, text) = stand.get("/readyz", "anna").await;
        (status, serde_json::from_str(&text).unwrap())
    }] {
        assert_eq!(
            (status, &told["error"]["code"]),
            (StatusCode::SERVICE_UNAVAILABLE, &json!("unavailable"))
        );
    }
}
