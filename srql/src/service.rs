//! The service: queries over HTTP and gRPC, for callers that are each of one tenant.

pub mod callers;
pub mod connections;
mod grpc;
pub mod live;
pub mod measured;
mod pieces;
pub mod readers;
pub mod tls;

use std::{
    io::{self, Write},
    sync::Arc,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, FromRequestParts, Query as Parameters, State},
    http::{Extensions, HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};
use callers::{Caller, Callers, Refusal, Role};
use live::Live;
use measured::{Meter, Route, Underway};
use pieces::Writer;
use readers::{Readers, Refused};
use serde::Deserialize;
use serde_json::{Value, json};
use serviceradar_schemas::time::Clock;
use tokio_postgres::Row;

use crate::{
    catalogue::{self, Field, Standing},
    complete::complete,
    cursor::{Asker, Cursors},
    error::{Code, QueryError},
    page::Way,
    plan::{Column, Extent, Plan, plan},
    reader::{Answer, object},
    written::{RowFormat, RowWriter, told_as, type_of},
};

/// Bytes of a request: a query, as JSON may write it, and a cursor.
const REQUEST_BYTES_MAX: usize = 256 * 1024;
/// Bytes of an answer that is written row by row, unless said.
pub const ANSWER_BYTES_DEFAULT: usize = 256 * 1024 * 1024;
/// When to ask again who asked too much, seconds.
const RETRY_AFTER_S: u16 = 1;
/// What each route takes and gives, for programs.
const OPENAPI: &str = include_str!("service/openapi.json");

/// What the service needs.
pub struct Service {
    /// Who may ask.
    pub callers: Callers,
    /// Who answers.
    pub readers: Readers,
    /// Writes cursors.
    pub cursors: Cursors,
    /// Live queries.
    pub live: Live,
    /// What time it is.
    pub clock: Arc<dyn Clock>,
    /// Bytes of an answer that is written row by row.
    pub answer_bytes_max: usize,
    /// Takes measures of queries.
    pub meter: Arc<dyn Meter>,
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

impl From<Direction> for Way {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Next => Way::Next,
            Direction::Prev => Way::Previous,
        }
    }
}

/// How an answer is written.
#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Format {
    #[default]
    Json,
    Ndjson,
    Csv,
    Arrow,
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
#[derive(Debug, thiserror::Error)]
#[error("{}", self.text())]
struct Failure {
    status: StatusCode,
    mistakes: Vec<QueryError>,
}

impl Failure {
    fn one(status: StatusCode, code: Code, message: &str) -> Self {
        Self { status, mistakes: vec![QueryError::new(code, (0, 0), message)] }
    }

    fn busy() -> Self {
        let said = "too many queries of this tenant are being answered: ask again in a second";
        Self::one(StatusCode::TOO_MANY_REQUESTS, Code::Unavailable, said)
    }

    fn over_bytes(limit: usize) -> Self {
        let said = format!("the answer is over {limit} bytes: ask for fewer rows, or columns");
        Self::one(StatusCode::PAYLOAD_TOO_LARGE, Code::TooWide, &said)
    }

    fn unwritten(error: &io::Error) -> Self {
        tracing::error!(%error, "an answer could not be written");
        Self::one(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, "the answer could not be written")
    }

    /// All mistakes in words.
    fn text(&self) -> String {
        self.mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    }

    /// The word in metrics.
    fn outcome(&self) -> &'static str {
        match self.status {
            StatusCode::TOO_MANY_REQUESTS => "busy",
            StatusCode::PAYLOAD_TOO_LARGE => "cut",
            StatusCode::NOT_IMPLEMENTED => "not_collected",
            _ => self.mistakes.first().map_or("unavailable", |mistake| mistake.code.as_str()),
        }
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
            Refused::Busy => Failure::busy(),
            Refused::Unavailable(mistake) => mistake.into(),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let told =
            json!({ "error": self.mistakes.first(), "errors": self.mistakes, "error_text": self.text() });
        let mut response = (self.status, json_of(&told)).into_response();
        let headers = response.headers_mut();
        match self.status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(header::RETRY_AFTER, RETRY_AFTER_S.into());
            }
            _ => {}
        }
        response
    }
}

fn json_of(value: &Value) -> impl IntoResponse + use<> {
    json_text(value.to_string())
}

fn json_text(text: String) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")], text)
}

type Answered = Result<Response, Failure>;

/// What is asked over HTTP, and where.
fn api() -> [(&'static str, MethodRouter<Arc<Service>>); 9] {
    [
        ("/api/query", post(query_by_body).get(query_by_link)),
        ("/api/query/stream", get(live::stream)),
        ("/api/srql/explain", post(explain)),
        ("/translate", post(translate)),
        ("/api/srql/schema", get(schema)),
        ("/api/srql/complete", post(completions)),
        ("/api/openapi.json", get(openapi)),
        ("/healthz", get(async || "ok\n")),
        ("/readyz", get(ready)),
    ]
}

/// The paths that are asked over HTTP.
pub fn paths() -> impl Iterator<Item = &'static str> {
    api().into_iter().map(|(path, _)| path)
}

/// Who asks, found before what it asks is read.
struct Asking(Caller);

impl FromRequestParts<Arc<Service>> for Asking {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, service: &Arc<Service>) -> Result<Self, Failure> {
        let asking = service.caller(&parts.headers, &parts.extensions).map_err(Failure::from);
        if let (Err(failure), Some(route)) = (&asking, Route::of_path(parts.uri.path())) {
            Underway::new(&service.meter, route).refused(failure);
        }
        asking.map(Self)
    }
}

impl Service {
    /// Its routes. Asked for from within a runtime, where it looks after its health.
    pub fn routes(self) -> Router {
        let nowhere = async || Failure::one(StatusCode::NOT_FOUND, Code::Syntax, "there is nothing here");
        let wrong_way = async || {
            Failure::one(StatusCode::METHOD_NOT_ALLOWED, Code::Syntax, "this is asked by another method")
        };
        let service = Arc::new(self);
        let routes = api().into_iter().fold(Router::new(), |routes, (path, of)| routes.route(path, of));
        routes
            .fallback(nowhere)
            .method_not_allowed_fallback(wrong_way)
            .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
            .with_state(service.clone())
            .merge(grpc::routes(&service))
    }

    /// Who sent a request of these headers and extensions, HTTP or gRPC alike.
    pub fn caller(&self, headers: &HeaderMap, extensions: &Extensions) -> Result<Caller, Refusal> {
        self.callers.of(headers, connections::certificate(extensions), self.clock.now())
    }

    /// What a caller asks for in full, not by pages.
    fn plan_all(&self, request: &Request) -> Result<Plan, Failure> {
        let limit = request.limit.map(checked_limit).transpose()?;
        if request.cursor.as_deref().is_some_and(|cursor| !cursor.is_empty()) {
            let said = "rows that are written one by one have no pages: ask without a cursor";
            return Err(Failure::one(StatusCode::BAD_REQUEST, Code::BadValue, said));
        }
        Ok(plan(&request.query, self.clock.now(), Extent::All { limit })?)
    }

    /// A page of what a caller asks for, of rows as what `take` makes of them, with its plan, and what the query takes for
    /// now.
    async fn page<R>(
        &self,
        caller: &Caller,
        request: &Request,
        take: impl Fn(&Row, &[Column]) -> Result<R, QueryError>,
    ) -> Result<(Plan, i64, Answer<R>), Failure> {
        let limit = request.limit.map(checked_limit).transpose()?;
        let cursor = request.cursor.as_deref().filter(|cursor| !cursor.is_empty());
        let (plan, now) =
            self.cursors.plan(asker(caller), &request.query, self.clock.now(), limit, cursor)?;
        let from = plan.page.as_ref().and_then(|page| page.from.as_ref());
        if let (Some(direction), Some(from)) = (request.direction, from)
            && Way::from(direction) != from.way
        {
            let said = "this cursor goes the other way";
            return Err(Failure::one(StatusCode::BAD_REQUEST, Code::BadValue, said));
        }
        let mut borrowed = self.readers.borrow(&caller.tenant).await?;
        let answer = self.readers.in_turn(borrowed.reader.answer_as(&caller.tenant, &plan, take)).await;
        self.readers.give_back(borrowed);
        Ok((plan, now, answer?))
    }

    /// How the database would answer what an operator asks, and at which cost.
    async fn explained(&self, caller: &Caller, query: &str) -> Result<(Plan, Value, f64), Failure> {
        if caller.role != Role::Operator {
            let said = "plans are told to operators: their estimates tell of other tenants";
            return Err(Failure::one(StatusCode::FORBIDDEN, Code::Forbidden, said));
        }
        let plan = plan(query, self.clock.now(), Extent::first())?;
        let mut borrowed = self.readers.borrow(&caller.tenant).await?;
        let explained = borrowed.reader.explain(&caller.tenant, &plan).await;
        self.readers.give_back(borrowed);
        let (database, cost) = explained?;
        Ok((plan, database, cost))
    }

    async fn answer(
        self: Arc<Self>,
        caller: &Caller,
        request: Request,
        underway: &Arc<Underway>,
    ) -> Answered {
        let format = match request.format {
            Format::Json => {
                let (plan, now, answer) = self.page(caller, &request, object).await?;
                let write = |from| self.cursors.write(asker(caller), &plan, now, from);
                let told = told_as(&plan, &answer, write, |row, out| out.write_all(row));
                let told = told.map_err(|error| Failure::unwritten(&error))?;
                underway.found(answer.rows.len());
                underway.wrote(told.len());
                underway.answered();
                return Ok(json_text(told).into_response());
            }
            Format::Ndjson => RowFormat::Ndjson,
            Format::Csv => RowFormat::Csv,
            Format::Arrow => RowFormat::Arrow,
        };
        let plan = self.plan_all(&request)?;
        let writer = Lines { format, rows: None, out: Vec::new() };
        let pieces = self.stream(caller, plan, writer, underway.clone()).await?;
        let headers = [(header::CONTENT_TYPE, format.media_type()), (header::CACHE_CONTROL, "no-store")];
        Ok((headers, Body::from_stream(pieces)).into_response())
    }

    /// Whether the database answers, and how old what it tells is: of the tenant that is furthest behind, seconds.
    async fn oldest(&self) -> Result<Option<f64>, Failure> {
        let mut oldest: Option<f64> = None;
        for tenant in self.callers.tenants() {
            let mut borrowed = self.readers.borrow_own().await?;
            let complete_to = borrowed.reader.complete_to(tenant).await;
            self.readers.give_back(borrowed);
            let age = complete_to?.map(|at| self.clock.now().saturating_sub(at) as f64 / 1e6);
            oldest = age.into_iter().chain(oldest).reduce(f64::max);
        }
        Ok(oldest)
    }
}

fn asker(caller: &Caller) -> Asker<'_> {
    Asker { tenant: &caller.tenant, principal: &caller.name }
}

/// Rows as they are written over HTTP.
struct Lines {
    format: RowFormat,
    rows: Option<RowWriter>,
    out: Vec<u8>,
}

impl Writer for Lines {
    type Piece = Bytes;

    fn begin(&mut self, answer: &Answer) -> io::Result<()> {
        self.rows = Some(RowWriter::begin(self.format, &answer.columns, &mut self.out)?);
        Ok(())
    }

    fn row(&mut self, row: Vec<Value>) -> io::Result<()> {
        self.rows.as_mut().map_or(Ok(()), |rows| rows.row(&row, &mut self.out))
    }

    fn end(&mut self, _: &Answer) -> io::Result<()> {
        self.rows.as_mut().map_or(Ok(()), |rows| rows.end(&mut self.out))
    }

    fn waiting(&self) -> usize {
        self.out.len()
    }

    fn take(&mut self) -> Bytes {
        std::mem::take(&mut self.out).into()
    }
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
    query(service, caller, || read(&body)).await
}

async fn query_by_link(
    State(service): State<Arc<Service>>,
    Asking(caller): Asking,
    parameters: Result<Parameters<Request>, axum::extract::rejection::QueryRejection>,
) -> Answered {
    let wrong = |error: axum::extract::rejection::QueryRejection| {
        Failure::one(StatusCode::BAD_REQUEST, Code::Syntax, &error.body_text())
    };
    query(service, caller, || parameters.map(|Parameters(request)| request).map_err(wrong)).await
}

async fn query(
    service: Arc<Service>,
    caller: Caller,
    request: impl FnOnce() -> Result<Request, Failure>,
) -> Answered {
    let underway = Underway::new(&service.meter, Route::Query);
    let answering = async { service.answer(&caller, request()?, &underway).await };
    answering.await.inspect_err(|failure| underway.refused(failure))
}

async fn translate(State(service): State<Arc<Service>>, _: Asking, body: Bytes) -> Answered {
    let request: Request = read(&body)?;
    let limit = request.limit.map(checked_limit).transpose()?;
    let plan = plan(&request.query, service.clock.now(), Extent::Page { limit, from: None })?;
    let (sql, parameters) = statement_told(&plan);
    Ok(json_of(&json!({ "sql": sql, "parameters": parameters })).into_response())
}

async fn explain(State(service): State<Arc<Service>>, Asking(caller): Asking, body: Bytes) -> Answered {
    let underway = Underway::new(&service.meter, Route::Explain);
    let explaining = async {
        let request: Request = read(&body)?;
        service.explained(&caller, &request.query).await
    };
    let (plan, database, cost) = explaining.await.inspect_err(|failure| underway.refused(failure))?;
    underway.answered();
    let (sql, parameters) = statement_told(&plan);
    let columns: Vec<Value> =
        plan.columns.iter().map(|column| json!({ "name": column.name, "type": type_of(column) })).collect();
    let told = json!({
        "sql": sql,
        "parameters": parameters,
        "cost": cost,
        "cost_max": service.readers.cost_max,
        "plan": database,
        "catalogue": { "entity": plan.entity.name(), "view": plan.entity.view, "columns": columns },
    });
    Ok(json_of(&told).into_response())
}

fn field_told(field: &Field) -> Value {
    let mut told = json!({
        "name": field.names[0],
        "names": field.names,
        "type": field.kind.as_str(),
        "operators": field.kind.operators(),
        "groupable": field.kind.is_groupable(),
        "label": field.label,
    });
    if !field.nested.is_empty() {
        told["nested"] = field.nested.iter().map(field_told).collect();
    }
    told
}

async fn openapi(_: Asking) -> Answered {
    Ok(json_text(OPENAPI.to_owned()).into_response())
}

async fn schema(_: Asking) -> Answered {
    let entities: Vec<Value> = catalogue::entities()
        .map(|entity| {
            let fields: Vec<Value> = entity.fields.iter().map(field_told).collect();
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

async fn ready(State(service): State<Arc<Service>>) -> Answered {
    let oldest = service.oldest().await?;
    Ok(json_of(&json!({ "ready": true, "role": "service", "age_s": oldest })).into_response())
}

/// The statement of a plan, and its parameters.
fn statement_told(plan: &Plan) -> (&str, Vec<Value>) {
    plan.statements.first().map_or(("", Vec::new()), |statement| {
        (&statement.sql, statement.parameters.iter().map(|parameter| parameter.told()).collect())
    })
}
