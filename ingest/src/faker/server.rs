//! The HTTP interface of Armis, as far as a crawl needs it, and a control route for faults.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    body::Body,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use serde::{Deserialize, Serialize};
use serviceradar_schemas::time;

use super::{
    Faker, SECRET,
    armis::{self, ArmisDevice},
    faults::{ArmedFault, Fault},
};

/// Results of a page when the request does not say.
const LENGTH_DEFAULT: usize = 100;
/// Most results of a page: about 5 MB of JSON.
const LENGTH_MAX: usize = 2_000;

/// All routes.
pub(super) fn routes(faker: Arc<Faker>) -> Router {
    Router::new()
        .route("/api/v1/access_token/", post(access_token))
        .route("/api/v1/search/", get(search))
        .route("/api/v1/devices", get(devices))
        .route("/api/v1/devices/", get(devices))
        .route("/control/faults", post(arm_fault))
        .route("/control/shuffle", post(shuffle))
        .with_state(faker)
}

#[derive(Serialize)]
struct Success<T> {
    data: T,
    success: bool,
}

#[derive(Serialize)]
struct Failure {
    message: String,
    success: bool,
}

fn refuse(status: StatusCode, message: impl ToString) -> Response {
    (status, Json(Failure { message: message.to_string(), success: false })).into_response()
}

#[derive(Deserialize)]
struct TokenRequest {
    secret_key: String,
}

#[derive(Serialize)]
struct Token {
    access_token: String,
    expiration_utc: String,
}

async fn access_token(State(faker): State<Arc<Faker>>, body: String) -> Response {
    // A form is written as a query is, so what reads the one reads the other.
    let form = Uri::builder().path_and_query(format!("/?{body}")).build();
    let form = form.ok().and_then(|uri| Query::<TokenRequest>::try_from_uri(&uri).ok());
    match form {
        Some(Query(form)) if form.secret_key == SECRET => {
            let (access_token, expires) = faker.tokens.give(faker.clock.now());
            let data = Token { access_token, expiration_utc: time::format(expires) };
            Json(Success { data, success: true }).into_response()
        }
        Some(_) => refuse(StatusCode::UNAUTHORIZED, "Invalid secret key."),
        None => refuse(StatusCode::BAD_REQUEST, "secret_key is missing from the form."),
    }
}

#[derive(Deserialize)]
struct SearchRequest {
    aql: String,
    length: Option<usize>,
    from: Option<usize>,
}

async fn search(
    State(faker): State<Arc<Faker>>,
    headers: HeaderMap,
    Query(request): Query<SearchRequest>,
) -> Response {
    if !request.aql.trim_start().starts_with("in:devices") {
        return refuse(StatusCode::BAD_REQUEST, "Only `in:devices` is known here.");
    }
    page(&faker, &headers, request.from, request.length, &Filter::default()).await
}

/// Which devices; all where nothing is said.
#[derive(Default, Deserialize)]
struct Filter {
    id: Option<u64>,
    ip: Option<std::net::IpAddr>,
    from: Option<usize>,
    length: Option<usize>,
}

async fn devices(
    State(faker): State<Arc<Faker>>,
    headers: HeaderMap,
    Query(filter): Query<Filter>,
) -> Response {
    page(&faker, &headers, filter.from, filter.length, &filter).await
}

#[derive(Serialize)]
struct Page {
    count: usize,
    next: Option<usize>,
    prev: Option<usize>,
    results: Vec<ArmisDevice>,
    total: usize,
}

async fn page(
    faker: &Faker,
    headers: &HeaderMap,
    from: Option<usize>,
    length: Option<usize>,
    filter: &Filter,
) -> Response {
    let fault = faker.faults.strike();
    if fault == Some(Fault::ExpiredToken) {
        faker.tokens.revoke();
    }
    let token = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if !token.is_some_and(|token| faker.tokens.is_good(token, faker.clock.now())) {
        return refuse(StatusCode::UNAUTHORIZED, "Invalid access token.");
    }
    let length = length.unwrap_or(LENGTH_DEFAULT).clamp(1, LENGTH_MAX);
    let from = if fault == Some(Fault::RepeatedPage) { 0 } else { from.unwrap_or(0) };
    match fault {
        Some(Fault::TooManyRequests { retry_after }) => {
            let wait = [(header::RETRY_AFTER, retry_after.to_string())];
            return (wait, refuse(StatusCode::TOO_MANY_REQUESTS, "Too many requests.")).into_response();
        }
        Some(Fault::ServerError) => {
            return refuse(StatusCode::INTERNAL_SERVER_ERROR, "Something went wrong.");
        }
        Some(Fault::SlowPage { millis }) => {
            tokio::time::sleep(Duration::from_millis(millis)).await;
        }
        _ => {}
    }
    let mut page = results(faker, from, length, filter);
    match fault {
        Some(Fault::LyingNext) => page.next = Some(from),
        Some(Fault::ShortPage) => {
            page.results.pop();
            page.count = page.results.len();
        }
        _ => {}
    }
    match serde_json::to_vec(&Success { data: page, success: true }) {
        Ok(mut body) => {
            if fault == Some(Fault::TruncatedBody) {
                body.truncate(body.len() / 2);
            }
            ([(header::CONTENT_TYPE, "application/json")], Body::from(body)).into_response()
        }
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error),
    }
}

fn results(faker: &Faker, from: usize, length: usize, filter: &Filter) -> Page {
    let network = faker.network();
    let population = &faker.population;
    let holds =
        |device: &usize, ip| armis::addresses(population, &network, *device).any(|address| address == ip);
    let mut chosen: Vec<usize> = (0..population.devices.len()).collect();
    if let Some(id) = filter.id {
        chosen.retain(|device| population.devices[*device].id == id);
    }
    if let Some(ip) = filter.ip {
        chosen.retain(|device| holds(device, ip));
    }
    let total = chosen.len();
    let results: Vec<ArmisDevice> = chosen
        .into_iter()
        .skip(from)
        .take(length)
        .map(|device| armis::describe(population, &network, device))
        .collect();
    let end = from.saturating_add(results.len());
    Page {
        count: results.len(),
        next: (end < total).then_some(end),
        prev: from.checked_sub(length),
        results,
        total,
    }
}

async fn arm_fault(State(faker): State<Arc<Faker>>, Json(fault): Json<ArmedFault>) -> Response {
    match faker.arm(fault) {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(error) => refuse(StatusCode::CONFLICT, error),
    }
}

async fn shuffle(State(faker): State<Arc<Faker>>) -> Response {
    match faker.shuffle_aside().await {
        Ok(shuffles) => Json(Success { data: shuffles, success: true }).into_response(),
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, error),
    }
}
