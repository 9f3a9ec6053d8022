//! Live queries: rows as they are, and as epochs change them, over server-sent events and WebSocket.

use futures_util::StreamExt;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};
use serviceradar_materializers::views::{Epoch, TenantWriter, Views};
use serviceradar_schemas::DeviceChange;
use serviceradar_streams::{
    changes::Changes,
    rows::{CountRow, DeviceSeen, EpochOutput, HistoryRow},
};
use serviceradar_tests::views_conformance::{self, T0};
use tokio_tungstenite::tungstenite::{
    self, Message,
    client::IntoClientRequest,
    http::{HeaderValue, StatusCode as WebSocketStatus},
};

use super::service::Stand;

const QUERY: &str = "/api/query/stream?q=in:devices+vendor_name:acme+fields:uid,name&limit=";
/// Microseconds.
const MINUTE: i64 = 60_000_000;

fn device(n: u128, name: &str, vendor: &str) -> DeviceChange {
    DeviceChange { vendor_name: Some(vendor.to_owned()), ..views_conformance::device(n, name) }
}

fn key(n: u128) -> String {
    views_conformance::device(n, "").uid
}

/// Events as they are sent.
struct Events {
    response: Response,
    read: String,
}

impl Events {
    async fn of(stand: &Stand, path: &str, caller: &str) -> Self {
        let response = stand.request(Method::GET, path, caller).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Self { response, read: String::new() }
    }

    /// The next event, without where it is of.
    async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some((event, rest)) = self.read.split_once("\n\n") {
                let data = event.lines().find_map(|line| line.strip_prefix("data: "));
                let name = event.lines().find_map(|line| line.strip_prefix("event: ")).map(str::to_owned);
                let told: Option<Value> = data.map(|data| serde_json::from_str(data).unwrap());
                self.read = rest.to_owned();
                match told {
                    Some(told) => {
                        assert_eq!(told["event"].as_str(), name.as_deref());
                        return Some(told);
                    }
                    None => continue,
                }
            }
            let piece = self.response.chunk().await.unwrap()?;
            self.read.push_str(std::str::from_utf8(&piece).unwrap());
        }
    }

    /// Events up to the one that says that all was told.
    async fn present(&mut self) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            let event = self.next().await.unwrap();
            if event["event"] == "current" {
                return events;
            }
            events.push(event);
        }
    }
}

fn upsert(epoch: i64, n: u128, name: &str) -> Value {
    let row = json!({ "uid": key(n), "name": name });
    json!({ "event": "upsert", "generation": 1, "epoch": epoch, "key": key(n), "row": row })
}

fn gone(epoch: i64, n: u128) -> Value {
    json!({ "event": "gone", "generation": 1, "epoch": epoch, "key": key(n) })
}

/// Commits epochs of a tenant.
struct Commits {
    writer: Box<dyn TenantWriter>,
    number: u64,
}

impl Commits {
    async fn of(stand: &Stand, tenant: &str) -> Self {
        let views = stand.database.views().await;
        let (writer, _) = views.take(tenant, "w", "f1", &Value::Null).await.unwrap();
        Self { writer, number: 1 }
    }

    async fn commit(&mut self, closed_at: i64, output: EpochOutput) {
        let follows = self.number;
        self.number += 1;
        let base = views_conformance::first_epoch();
        let frontiers = base.frontiers.clone();
        let epoch = Epoch { number: self.number, follows, closed_at, frontiers, output, ..base };
        self.writer.commit(&epoch).await.unwrap();
    }

    async fn devices(&mut self, devices: Changes<DeviceChange>) {
        self.devices_at(T0 + MINUTE, devices).await;
    }

    async fn devices_at(&mut self, closed_at: i64, devices: Changes<DeviceChange>) {
        let entry =
            |uid: &str, change| HistoryRow { uid: uid.parse().unwrap(), change, cause: String::new() };
        let history = devices.new.iter().map(|device| entry(&device.uid, "created"));
        let history = history.chain(devices.changed.iter().map(|device| entry(&device.uid, "changed")));
        let history = history.chain(devices.gone.iter().map(|uid| entry(uid, "forgotten"))).collect();
        self.commit(closed_at, EpochOutput { devices, history, ..EpochOutput::default() }).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_told_and_then_what_epochs_make_of_them() {
    let stand = Stand::new(|_| {}).await;
    let mut events = Events::of(&stand, &format!("{QUERY}3"), "anna").await;
    let mut by_bert = Events::of(&stand, &format!("{QUERY}3"), "bert").await;
    let present = events.present().await;
    assert_eq!(present, [upsert(1, 1, "=cmd"), upsert(1, 2, "=cmd"), upsert(1, 3, "=cmd")]);
    assert!(by_bert.present().await.is_empty());

    let mut commits = Commits::of(&stand, "acme").await;
    commits
        .devices(Changes {
            new: vec![device(900, "new", "acme"), device(901, "new", "other")],
            changed: vec![device(2, "two", "acme"), device(200, "left", "other")],
            gone: vec![key(3)],
            ..Changes::default()
        })
        .await;
    let mut told = Vec::new();
    for _ in 0..5 {
        told.push(events.next().await.unwrap());
    }
    told.sort_by_key(|event| event["key"].as_str().map(str::to_owned));
    let mut wanted = [upsert(2, 2, "two"), gone(2, 3), gone(2, 200), upsert(2, 900, "new"), gone(2, 901)];
    wanted.sort_by_key(|event| event["key"].as_str().map(str::to_owned));
    assert_eq!(told, wanted);

    // Who does not name when a device was seen is not told of sightings.
    let named = "/api/query/stream?q=in:devices+vendor_name:acme+fields:uid,name,last_seen&limit=1";
    let mut named = Events::of(&stand, named, "anna").await;
    assert_eq!(named.present().await.len(), 1);
    let seen = DeviceSeen {
        uid: key(4).parse().unwrap(),
        last_seen: T0 + 5 * MINUTE,
        availability_at: None,
        agent_id: None,
        gateway_id: None,
    };
    commits.devices(Changes { seen: vec![seen], ..Changes::default() }).await;
    commits.devices(Changes { changed: vec![device(5, "five", "acme")], ..Changes::default() }).await;
    assert_eq!(events.next().await.unwrap(), upsert(4, 5, "five"));
    let sighting = named.next().await.unwrap();
    assert_eq!((sighting["event"].as_str(), sighting["key"].as_str()), (Some("upsert"), Some(&*key(4))));
    assert!(sighting["row"]["last_seen"].is_string(), "{sighting}");

    // What was pruned since cannot be told: all is told anew.
    let one = Changes { changed: vec![device(1, "one", "acme")], ..Changes::default() };
    commits.devices_at(T0 + 120 * MINUTE, one).await;
    let reset = json!({ "event": "reset", "generation": 1, "epoch": 5 });
    assert_eq!(events.next().await.unwrap(), reset);
    assert_eq!(events.present().await.len(), 3);

    // Another tenant's epochs are its own.
    let mut of_other = Commits::of(&stand, "other").await;
    of_other.devices(Changes { new: vec![device(950, "theirs", "acme")], ..Changes::default() }).await;
    assert_eq!(by_bert.next().await.unwrap(), upsert(2, 950, "theirs"));
    let six = Changes { changed: vec![device(6, "six", "acme")], ..Changes::default() };
    commits.devices_at(T0 + 121 * MINUTE, six).await;
    assert_eq!(events.next().await.unwrap(), upsert(6, 6, "six"));

    // The service waits for no live query when it ends.
    stand.stopping.cancel();
    assert_eq!((events.next().await, by_bert.next().await), (None, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_keys_of_several_columns_is_followed() {
    let stand = Stand::new(|_| {}).await;
    let mut events = Events::of(
        &stand,
        "/api/query/stream?q=in:device_counts+dimension:type+fields:value,devices",
        "anna",
    )
    .await;
    assert!(events.present().await.is_empty());
    let mut commits = Commits::of(&stand, "acme").await;
    let count = |dimension: &'static str, devices| CountRow {
        partition: "default".into(),
        dimension,
        value: "Server of two words".into(),
        devices,
        available: 0,
        unavailable: 0,
        unknown: devices,
    };
    let new = vec![count("type", 7), count("site", 7)];
    let counts = Changes { new, ..Changes::default() };
    commits.commit(T0 + MINUTE, EpochOutput { counts, ..EpochOutput::default() }).await;
    let (mut told, mut keys) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        let event = events.next().await.unwrap();
        keys.push(event["key"].as_str().unwrap().to_owned());
        told.push((event["event"].as_str().unwrap().to_owned(), event["row"].clone()));
    }
    assert_eq!(keys, ["default site Server of two words", "default type Server of two words"]);
    let row = json!({ "value": "Server of two words", "devices": 7 });
    assert_eq!(told, [("gone".to_owned(), Value::Null), ("upsert".to_owned(), row)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_query_goes_over_a_websocket_but_not_to_pages_of_others() {
    let stand = Stand::new(|_| {}).await;
    let address = stand.base.replace("http://", "ws://");
    let request = |origin: Option<&str>| {
        let mut request = format!("{address}{QUERY}1").into_client_request().unwrap();
        request.headers_mut().insert("authorization", HeaderValue::from_static("Bearer key of anna"));
        if let Some(origin) = origin {
            request.headers_mut().insert("origin", HeaderValue::from_str(origin).unwrap());
        }
        request
    };
    let refused = tokio_tungstenite::connect_async(request(Some("https://elsewhere.example"))).await;
    match refused.unwrap_err() {
        tungstenite::Error::Http(response) => assert_eq!(response.status(), WebSocketStatus::FORBIDDEN),
        other => panic!("{other}"),
    }
    let (_, _) = tokio_tungstenite::connect_async(request(Some(&stand.base))).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::connect_async(request(None)).await.unwrap();
    let mut next = async || loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Text(text) => return serde_json::from_str::<Value>(&text).unwrap(),
            Message::Ping(_) => {}
            other => panic!("{other}"),
        }
    };
    assert_eq!(next().await, upsert(1, 1, "=cmd"));
    assert_eq!(next().await["event"], "current");
    let mut commits = Commits::of(&stand, "acme").await;
    commits.devices(Changes { changed: vec![device(7, "seven", "acme")], ..Changes::default() }).await;
    assert_eq!(next().await, upsert(2, 7, "seven"));
    stand.stopping.cancel();
    match socket.next().await.unwrap().unwrap() {
        Message::Close(_) => {}
        other => panic!("{other}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_followed_is_refused() {
    let stand = Stand::new(|_| {}).await;
    for (query, part) in [
        ("in:devices stats:count()", "stats: does not go with a live query"),
        ("in:devices bucket:1d", "bucket: does not go with a live query"),
        ("in:devices latest:true", "latest: does not go with a live query"),
        ("in:devices count:true", "count: does not go with a live query"),
        ("in:device_records device.site:dfw", "takes no fields of their devices"),
        ("in:address_conflicts", "cannot be followed"),
        ("in:devices hostnme:x", "no field 'hostnme'"),
    ] {
        let path = format!("/api/query/stream?q={}", query.replace(' ', "+"));
        let (status, told) = stand.get(&path, "anna").await;
        assert!(status == StatusCode::BAD_REQUEST && told.contains(part), "{query}: {status} {told}");
    }
    let (status, told) = stand.get("/api/query?q=in:devices+stream:true", "anna").await;
    assert!(status == StatusCode::BAD_REQUEST && told.contains("/api/query/stream"), "{told}");
    let (status, _) = stand.get("/api/query/stream?q=in:devices", "nobody").await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
}
