//! The service: queries over HTTP, for callers that are each of one tenant.

pub mod callers;
pub mod connections;
pub mod readers;
pub mod tls;

use std::{io::Write, sync::Arc};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, FromRequestParts, Query as Parameters, State},
    http::{Extensions, HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use callers::{Caller, Callers, Refusal, Role};
use readers::{Readers, Refused};
use serde::Deserialize;
use serde_json::{Value, json};
use serviceradar_schemas::time::{self, Clock};
use tokio::sync::mpsc;
use tokio_postgres::Row;

use crate::{
    catalogue::{self, Standing},
    complete::complete,
    cursor::{Asker, Cursors},
    error::{Code, QueryError},
    plan::{Column, Extent, Plan, Shape, plan},
    reader::{Answer, ROWS_WAITING, values},
    written::{csv_header, csv_row, object},
};

/// Bytes of a request: a query, as JSON may write it, and a cursor.
const REQUEST_BYTES_MAX: usize = 256 * 1024;
/// Bytes of an answer that is written row by row, unless said.
pub const ANSWER_BYTES_DEFAULT: usize = 256 * 1024 * 1024;
/// The cost, as PostgreSQL estimates it, up to which a query is run, unless said.
pub const COST_DEFAULT: f64 = 100_000_000.0;
/// Bytes that are sent at a time, and pieces that wait to be sent.
const PIECE_BYTES: usize = 64 * 1024;
const PIECES_WAITING: usize = 4;
/// When to ask again who asked too much.
const RETRY_AFTER_S: &str = "1";

/// What the service needs.
pub struct Service {
    /// Who may ask.
    pub callers: Callers,
    /// Who answers.
    pub readers: Readers,
    /// Writes cursors.
    pub cursors: Cursors,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// The cost up to which a query is run.
    pub cost_max: f64,
    /// Bytes of an answer that is written row by row.
    pub answer_bytes_max: usize,
}

/// What a request asks.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    #[serde(alias = "q")]
    query: String,
    #[serde(default)]
    limit: Option<i64>,
    #[serde(default)]
    cursor: Option<String>,
    /// Cursors say which way; what is said here must be one.
    #[serde(default)]
    direction: Option<Direction>,
    /// Taken from clients of before; it says nothing.
    #[serde(default, rename = "mode")]
    _mode: Option<String>,
    #[serde(default)]
    format: Format,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Direction {
    Next,
    Prev,
}

/// How an answer is written.
#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Format {
    #[default]
    Json,
    Ndjson,
    Csv,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Completing {
    query: String,
    /// Bytes of the query before the cursor; none: all of it.
    #[serde(default)]
    at: Option<usize>,
}

/// An answer that is a mistake.
struct Failure {
    status: StatusCode,
    mistakes: Vec<QueryError>,
}

impl Failure {
    fn one(status: StatusCode, code: Code, message: &str) -> Self {
        Self { status, mistakes: vec![QueryError::new(code, (0, 0), message)] }
    }
}

impl From<Vec<QueryError>> for Failure {
    fn from(mistakes: Vec<QueryError>) -> Self {
        let status = match mistakes.first() {
            Some(QueryError { code: Code::Timeout, .. }) => StatusCode::GATEWAY_TIMEOUT,
            // Of an entity that nothing collects: to ask again does not help.
            Some(QueryError { code: Code::Unavailable, span, .. }) if span.1 > 0 => {
                StatusCode::NOT_IMPLEMENTED
            }
            Some(QueryError { code: Code::Unavailable, .. }) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        };
        Self { status, mistakes }
    }
}

impl From<QueryError> for Failure {
    fn from(mistake: QueryError) -> Self {
        vec![mistake].into()
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Failure::one(StatusCode::UNAUTHORIZED, Code::Unauthenticated, &refusal.to_string())
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Busy => Failure::one(
                StatusCode::TOO_MANY_REQUESTS,
                Code::Unavailable,
                "too many queries of this tenant are being answered: ask again in a second",
            ),
            Refused::Unavailable(mistake) => mistake.into(),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let text = self.mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let told = json!({ "error": self.mistakes.first(), "errors": self.mistakes, "error_text": text });
        let mut response = (self.status, json_of(&told)).into_response();
        let headers = response.headers_mut();
        match self.status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
            }
            _ => {}
        }
        response
    }
}

fn json_of(value: &Value) -> impl IntoResponse + use<> {
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], value.to_string())
}

type Answered = Result<Response, Failure>;

/// Who asks, found before what it asks is read.
struct Asking(Caller);

impl FromRequestParts<Arc<Service>> for Asking {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, Failure> {
        Ok(Self(service.caller(&parts.headers, &parts.extensions)?))
    }
}

impl Service {
    /// Its routes.
    pub fn routes(self) -> Router {
        let nowhere = async || Failure::one(StatusCode::NOT_FOUND, Code::Syntax, "there is nothing here");
        let wrong_way = async || {
            Failure::one(StatusCode::METHOD_NOT_ALLOWED, Code::Syntax, "this is asked by another method")
        };
        Router::new()
            .route("/api/query", post(query_by_body).get(query_by_link))
            .route("/api/srql/explain", post(explain))
            .route("/translate", post(translate))
            .route("/api/srql/schema", get(schema))
            .route("/api/srql/complete", post(completions))
            .route("/healthz", get(async || "ok\n"))
            .route("/readyz", get(ready))
            .fallback(nowhere)
            .method_not_allowed_fallback(wrong_way)
            .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
            .with_state(Arc::new(self))
    }

    /// Who sent a request of these headers and extensions, HTTP or gRPC alike.
    pub fn caller(&self, headers: &HeaderMap, extensions: &Extensions) -> Result<Caller, Refusal> {
        self.callers.of(headers, connections::certificate(extensions), self.clock.now())
    }

    async fn answer(self: Arc<Self>, caller: &Caller, request: Request) -> Answered {
        let asker = Asker { tenant: &caller.tenant, principal: &caller.name };
        let limit = request.limit.map(checked_limit).transpose()?;
        let now = self.clock.now();
        let cursor = request.cursor.as_deref().filter(|cursor| !cursor.is_empty());
        if request.format != Format::Json {
            if cursor.is_some() {
                let said = "rows that are written one by one have no pages: ask without a cursor";
                return Err(Failure::one(StatusCode::BAD_REQUEST, Code::BadValue, said));
            }
            let plan = plan(&request.query, now, Extent::All { limit })?;
            return self.stream(caller, plan, request.format).await;
        }
        let (plan, now) = self.cursors.plan(asker, &request.query, now, limit, cursor)?;
        if let (Some(way), Some(from)) =
            (request.direction, plan.page.as_ref().and_then(|page| page.from.as_ref()))
            && (way == Direction::Prev) != (from.way == crate::page::Way::Previous)
        {
            let said = "this cursor goes the other way";
            return Err(Failure::one(StatusCode::BAD_REQUEST, Code::BadValue, said));
        }
        let mut borrowed = self.readers.borrow(&caller.tenant).await?;
        let answer = match borrowed.reader.check_cost(&caller.tenant, &plan, self.cost_max).await {
            Ok(()) => borrowed.reader.answer(&caller.tenant, &plan).await,
            Err(refused) => Err(refused),
        };
        self.readers.give_back(borrowed);
        let answer = answer?;
        let write = |from| self.cursors.write(asker, &plan, now, from);
        Ok(json_of(&told(&plan, &answer, write)).into_response())
    }

    /// Writes rows as they come, up to the limit of bytes: an answer that is cut has no end, so that nobody takes it for
    /// whole.
    async fn stream(self: Arc<Self>, caller: &Caller, plan: Plan, format: Format) -> Answered {
        let mut borrowed = self.readers.borrow(&caller.tenant).await?;
        let checked = borrowed.reader.check_cost(&caller.tenant, &plan, self.cost_max).await;
        if let Err(refused) = checked {
            self.readers.give_back(borrowed);
            return Err(refused.into());
        }
        let (put, pieces) = mpsc::channel::<Result<Bytes, std::io::Error>>(PIECES_WAITING);
        let tenant = caller.tenant.clone();
        let media = match format {
            Format::Csv => "text/csv; charset=utf-8",
            _ => "application/x-ndjson",
        };
        tokio::spawn(async move {
            let (row_put, rows) = mpsc::channel(ROWS_WAITING);
            let limit = self.answer_bytes_max;
            let writing = write(rows, plan.columns.clone(), format, limit, put.clone());
            let (read, is_whole) = tokio::join!(borrowed.reader.rows(&tenant, &plan, row_put), writing);
            match read {
                // What is still being answered is given up with its connection.
                Ok(_) if is_whole => self.readers.give_back(borrowed),
                Ok(_) => {}
                Err(error) => _ = put.send(Err(std::io::Error::other(error))).await,
            }
        });
        let body = Body::from_stream(futures_util::stream::unfold(pieces, async |mut pieces| {
            Some((pieces.recv().await?, pieces))
        }));
        Ok(([(header::CONTENT_TYPE, media), (header::CACHE_CONTROL, "no-store")], body).into_response())
    }
}

/// Writes rows in pieces, until there are no more, or they are over the limit of bytes, or nobody takes them. Returns whether
/// all were written.
async fn write(
    mut rows: mpsc::Receiver<Row>,
    columns: Vec<Column>,
    format: Format,
    limit: usize,
    put: mpsc::Sender<Result<Bytes, std::io::Error>>,
) -> bool {
    let (mut out, mut written) = (Vec::new(), 0);
    let mut is_well = format != Format::Csv || csv_header(&columns, &mut out).is_ok();
    while is_well && let Some(row) = rows.recv().await {
        let line = values(&row, &columns).map_err(std::io::Error::other).and_then(|row| match format {
            Format::Csv => csv_row(&row, &mut out),
            Format::Json | Format::Ndjson => {
                serde_json::to_writer(&mut out, &object(&columns, &row))?;
                out.write_all(b"\n")
            }
        });
        is_well = line.is_ok();
        if out.len() >= PIECE_BYTES {
            written += out.len();
            if written > limit {
                let cut = std::io::Error::other("the answer is over the limit of bytes");
                _ = put.send(Err(cut)).await;
                return false;
            }
            is_well = is_well && put.send(Ok(std::mem::take(&mut out).into())).await.is_ok();
        }
    }
    is_well && put.send(Ok(out.into())).await.is_ok()
}

fn checked_limit(limit: i64) -> Result<i64, Failure> {
    match limit {
        1..=crate::plan::LIMIT_MAX => Ok(limit),
        _ => {
            let said = format!("limit is {limit}: give 1 to {}", crate::plan::LIMIT_MAX);
            Err(Failure::one(StatusCode::BAD_REQUEST, Code::BadValue, &said))
        }
    }
}

fn read<T: for<'a> Deserialize<'a>>(body: &Bytes) -> Result<T, Failure> {
    serde_json::from_slice(body).map_err(|error| {
        let said = format!("the request is not as it should be: {error}");
        Failure::one(StatusCode::BAD_REQUEST, Code::Syntax, &said)
    })
}

async fn query_by_body(State(service): State<Arc<Service>>, Asking(caller): Asking, body: Bytes) -> Answered {
    service.answer(&caller, read(&body)?).await
}

async fn query_by_link(
    State(service): State<Arc<Service>>,
    Asking(caller): Asking,
    parameters: Result<Parameters<Request>, axum::extract::rejection::QueryRejection>,
) -> Answered {
    let Parameters(request) = parameters
        .map_err(|error| Failure::one(StatusCode::BAD_REQUEST, Code::Syntax, &error.body_text()))?;
    service.answer(&caller, request).await
}

async fn translate(State(service): State<Arc<Service>>, _: Asking, body: Bytes) -> Answered {
    let request: Request = read(&body)?;
    let limit = request.limit.map(checked_limit).transpose()?;
    let plan = plan(&request.query, service.clock.now(), Extent::Page { limit, from: None })?;
    Ok(json_of(&statement_told(&plan)).into_response())
}

async fn explain(State(service): State<Arc<Service>>, Asking(caller): Asking, body: Bytes) -> Answered {
    if caller.role != Role::Operator {
        let said = "plans are told to operators: their estimates tell of other tenants";
        return Err(Failure::one(StatusCode::FORBIDDEN, Code::Forbidden, said));
    }
    let request: Request = read(&body)?;
    let plan = plan(&request.query, service.clock.now(), Extent::first())?;
    let mut borrowed = service.readers.borrow(&caller.tenant).await?;
    let explained = borrowed.reader.explain(&caller.tenant, &plan).await;
    service.readers.give_back(borrowed);
    let (database, cost) = explained?;
    let mut told = statement_told(&plan);
    told["cost"] = json!(cost);
    told["cost_max"] = json!(service.cost_max);
    told["plan"] = database;
    let fields: Vec<Value> =
        plan.columns.iter().map(|column| json!({ "name": column.name, "type": type_of(column) })).collect();
    told["catalogue"] = json!({ "entity": plan.entity.name(), "view": plan.entity.view, "columns": fields });
    Ok(json_of(&told).into_response())
}

async fn schema(_: Asking) -> Answered {
    let entities: Vec<Value> = catalogue::entities()
        .map(|entity| {
            let fields: Vec<Value> = entity
                .fields
                .iter()
                .map(|field| {
                    json!({
                        "name": field.names[0],
                        "names": field.names,
                        "type": field.kind.as_str(),
                        "operators": field.kind.operators(),
                        "groupable": field.kind.is_groupable(),
                        "label": field.label,
                    })
                })
                .collect();
            let standing = match entity.standing {
                Standing::Inventory => "inventory",
                Standing::Journal => "journal",
                Standing::Awaited => "awaited",
            };
            json!({
                "name": entity.name(),
                "names": entity.names,
                "kind": standing,
                "label": entity.label,
                "time": entity.time,
                "key": entity.key,
                "fields": fields,
            })
        })
        .collect();
    Ok(json_of(&json!({ "entities": entities })).into_response())
}

async fn completions(_: Asking, body: Bytes) -> Answered {
    let Completing { query, at } = read(&body)?;
    let (span, offers) = complete(&query, at.unwrap_or(query.len()));
    Ok(json_of(&json!({ "span": span, "offers": offers })).into_response())
}

/// Whether the database answers, and how old what it tells is: of the tenant that is furthest behind, seconds.
async fn ready(State(service): State<Arc<Service>>) -> Answered {
    let mut oldest: Option<f64> = None;
    for tenant in service.callers.tenants() {
        let mut borrowed = service.readers.borrow(tenant).await?;
        let complete_to = borrowed.reader.complete_to(tenant).await;
        service.readers.give_back(borrowed);
        let age = complete_to?.map(|at| service.clock.now().saturating_sub(at) as f64 / 1e6);
        oldest = age.into_iter().chain(oldest).reduce(f64::max);
    }
    Ok(json_of(&json!({ "ready": true, "role": "service", "age_s": oldest })).into_response())
}

/// The statements of a plan, with their parameters.
fn statement_told(plan: &Plan) -> Value {
    let first = plan.statements.first();
    let parameters: Vec<Value> = first
        .into_iter()
        .flat_map(|statement| &statement.parameters)
        .map(|parameter| parameter.told())
        .collect();
    json!({ "sql": first.map(|statement| &statement.sql), "parameters": parameters })
}

fn type_of(column: &Column) -> &'static str {
    match column.shape {
        Shape::Text => "text",
        Shape::Integer => "integer",
        Shape::Number => "number",
        Shape::Bool => "boolean",
        Shape::Time => "time",
        Shape::Texts => "texts",
        Shape::Json => "json",
    }
}

/// An answer as one object; cursors are written by `write`.
pub fn told(plan: &Plan, answer: &Answer, write: impl Fn(crate::page::Keyset) -> String) -> Value {
    let results: Vec<Value> = answer.rows.iter().map(|row| object(&plan.columns, row)).collect();
    let columns: Vec<Value> =
        plan.columns.iter().map(|column| json!({ "name": column.name, "type": type_of(column) })).collect();
    let is = |shape: Shape| plan.columns.iter().any(|column| column.shape == shape);
    let has_time = plan.columns.first().is_some_and(|column| column.name == "timestamp");
    let suggestion = if has_time && (is(Shape::Number) || is(Shape::Integer)) {
        "line"
    } else if plan.columns.len() == 2 && plan.columns.get(1).is_some_and(|c| c.shape == Shape::Integer) {
        "bar"
    } else {
        "table"
    };
    let time =
        plan.time.map(|(from, to)| json!({ "from": from.map(time::format), "to": to.map(time::format) }));
    json!({
        "results": results,
        "pagination": {
            "next_cursor": answer.next.clone().map(&write),
            "prev_cursor": answer.previous.clone().map(&write),
            "limit": plan.limit,
            "total": answer.total,
        },
        "viz": { "columns": columns, "suggestions": [suggestion] },
        "meta": {
            "entity": plan.entity.name(),
            "time": time,
            "took_ms": answer.took.as_millis() as u64,
            "generation": answer.generation,
            "epoch": answer.epoch,
            "complete_to": answer.complete_to.map(time::format),
        },
    })
}
