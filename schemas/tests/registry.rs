//! The client of a registry, against one that fails on purpose. `tests/tests/registry.rs` has a real one.

#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use axum::{
    Json, Router,
    extract::{Path, Request},
    http::{StatusCode, header},
    middleware::{self, Next},
    response::IntoResponse,
    routing::{any, get, post},
};
use serde_json::json;
use serviceradar_schemas::{
    Decoder, Event, Framing, Observation,
    codec::{DecodeError, WriterSchemas, encode_framed},
    registry::{ANSWER_WITHIN, Registry, RegistryConfig, RegistryError},
};
use tokio::net::TcpListener;

/// A registry whose answers are those of `routes`, and how often it was asked.
async fn serve(routes: Router) -> (Registry, Arc<AtomicUsize>) {
    let asked = Arc::<AtomicUsize>::default();
    let count = asked.clone();
    let routes = routes.layer(middleware::from_fn(move |request: Request, next: Next| {
        count.fetch_add(1, Ordering::SeqCst);
        next.run(request)
    }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (registry(url), asked)
}

fn registry(url: String) -> Registry {
    Registry::new(RegistryConfig { url, login: None }).unwrap()
}

/// The error of a registry.
fn error(status: StatusCode, code: u32) -> impl IntoResponse {
    (status, Json(json!({"error_code": code, "message": "for this test"})))
}

/// Knows our observation by the id 7, and nothing else.
fn knows_seven() -> Router {
    let answer = async |Path(id): Path<u32>| match id {
        7 => Json(json!({ "schema": Observation::SCHEMA })).into_response(),
        _ => error(StatusCode::NOT_FOUND, 40403).into_response(),
    };
    Router::new().route("/schemas/ids/{id}", get(answer))
}

fn event() -> Observation {
    serde_json::from_str(include_str!("golden/observation.json")).unwrap()
}

async fn learn(registry: &Registry, id: u32) -> Result<(), String> {
    registry.learn(&BTreeSet::from([id])).await.map_err(|error| error.to_string())
}

#[tokio::test]
async fn a_schema_is_asked_for_once_for_all_events_and_decoders() {
    let (registry, asked) = serve(knows_seven()).await;
    let registry = Arc::new(registry);
    let bytes = encode_framed(&event(), Framing::Confluent { id: 7 });
    for _ in 0..2 {
        let mut decoder = Decoder::<Observation>::with_writers(registry.clone());
        for _ in 0..3 {
            learn(&registry, 7).await.unwrap();
            assert_eq!(decoder.decode(&bytes).unwrap(), event());
        }
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

/// Otherwise a producer that makes ids up has each of its events ask.
#[tokio::test]
async fn an_id_that_it_does_not_know_is_an_answer_and_not_asked_for_again_at_once() {
    let (registry, asked) = serve(knows_seven()).await;
    let registry = Arc::new(registry);
    let mut decoder = Decoder::<Observation>::with_writers(registry.clone());
    for _ in 0..3 {
        learn(&registry, 8).await.unwrap();
        let bytes = encode_framed(&event(), Framing::Confluent { id: 8 });
        assert_eq!(decoder.decode(&bytes), Err(DecodeError::UnknownId(8)));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

/// Each of these as an answer would make dead letters of good events.
#[tokio::test]
async fn whatever_is_no_registry_gives_no_answer_and_is_asked_again() {
    for (status, code) in [
        (StatusCode::INTERNAL_SERVER_ERROR, 50001),
        (StatusCode::BAD_GATEWAY, 502),
        (StatusCode::SERVICE_UNAVAILABLE, 503),
        (StatusCode::TOO_MANY_REQUESTS, 429),
        (StatusCode::UNAUTHORIZED, 40101),
        // A path of another server.
        (StatusCode::NOT_FOUND, 404),
    ] {
        let (registry, asked) = serve(Router::new().fallback(any(async move || error(status, code)))).await;
        let registry = Arc::new(registry);
        for _ in 0..2 {
            let told = learn(&registry, 7).await.unwrap_err();
            assert!(told.contains(status.as_str()), "{told}");
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2, "{status}");
        let bytes = encode_framed(&event(), Framing::Confluent { id: 7 });
        let decoded = Decoder::<Observation>::with_writers(registry).decode(&bytes);
        assert!(decoded.unwrap_err().is_unavailable(), "{status}");
    }
    let (registry, _) = serve(Router::new().fallback(any(async || "<html>"))).await;
    learn(&registry, 7).await.unwrap_err();
}

#[tokio::test]
async fn a_registry_that_is_gone_or_slow_gives_no_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let slow = registry(format!("http://{address}"));
    let begun = Instant::now();
    let told = learn(&slow, 7).await.unwrap_err();
    let took = begun.elapsed();
    assert!(took >= ANSWER_WITHIN && took < 2 * ANSWER_WITHIN, "{took:?}: {told}");
    drop(listener);
    let told = learn(&registry(format!("http://{address}")), 7).await.unwrap_err();
    assert!(told.contains("refused"), "{told}");
}

#[tokio::test]
async fn a_registry_that_was_gone_is_asked_when_it_is_back() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let registry = registry(format!("http://{address}/"));
    learn(&registry, 7).await.unwrap_err();
    let listener = TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move { axum::serve(listener, knows_seven()).await });
    learn(&registry, 7).await.unwrap();
    assert_eq!(registry.by_id(7).unwrap().as_deref(), Some(Observation::SCHEMA));
}

#[tokio::test]
async fn a_refused_schema_is_told_with_the_reason_and_a_busy_registry_is_not_a_refusal() {
    let refuses = any(async || error(StatusCode::CONFLICT, 409));
    let (registry, _) = serve(Router::new().fallback(refuses)).await;
    let told = registry.register("acme").await.unwrap_err();
    assert!(matches!(told, RegistryError::Incompatible { .. }), "{told}");
    let told = told.to_string();
    assert!(told.contains("acme.observations-value") && told.contains("for this test"), "{told}");

    let (registry, _) = serve(Router::new().fallback(any(async || StatusCode::BAD_GATEWAY))).await;
    let told = registry.register("acme").await.unwrap_err();
    assert!(matches!(told, RegistryError::Unavailable(_)), "{told}");
}

#[tokio::test]
async fn each_event_has_the_id_of_its_subject_and_a_login_is_given() {
    let answer = async |Path(subject): Path<String>, request: Request| {
        let login = request.headers().get(header::AUTHORIZATION).unwrap();
        assert_eq!(login, "Basic dTpwdw==");
        let id = ["t.observations-value", "t.decisions-value", "t.device-changes-value"]
            .iter()
            .position(|known| *known == subject);
        Json(json!({ "id": id.unwrap(), "compatibilityLevel": "BACKWARD_TRANSITIVE" }))
    };
    let routes = Router::new()
        .route("/subjects/{subject}/versions", post(answer))
        .route("/config/{subject}", axum::routing::put(answer));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, routes).await });
    let login = Some(("u".to_owned(), "pw".to_owned()));
    let registry = Registry::new(RegistryConfig { url, login }).unwrap();
    let framings = registry.register("t").await.unwrap();
    assert_eq!(framings.observations, Framing::Confluent { id: 0 });
    assert_eq!(framings.decisions, Framing::Confluent { id: 1 });
    assert_eq!(framings.device_changes, Framing::Confluent { id: 2 });
    // Whatever becomes of the registry.
    assert_eq!(registry.by_id(0).unwrap().as_deref(), Some(Observation::SCHEMA));
}
