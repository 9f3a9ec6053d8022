//! Queries over gRPC: what HTTP answers, with typed values.

use std::{
    io,
    sync::{Arc, Weak},
    time::Duration,
};

use axum::{Router, http::StatusCode};
use futures_util::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use prost::Message;
use prost_types::Any;
use serde_json::Value;
use serviceradar_proto::query::v1::{
    self as message, Direction, FILE_DESCRIPTOR_SET, query_server, run_response::Part, value::Of,
};
use serviceradar_schemas::time;
use tonic::{
    Code, Request, Response, Status,
    server::NamedService,
    service::{Routes, interceptor::InterceptedService},
};
use tonic_health::{
    ServingStatus,
    server::{HealthReporter, health_reporter},
};
use tonic_types::pb::RetryInfo;

use super::{
    Failure, Format, REQUEST_BYTES_MAX, RETRY_AFTER_S, Request as Question, Service, asker,
    measured::{Route, Underway},
    pieces::{Writer, pieces_of},
    statement_told,
};
use crate::{
    error::QueryError,
    plan::{Column, Plan, Shape},
    reader::{Answer, values},
};

/// How often it is seen whether the database answers.
const HEALTH_EVERY: Duration = Duration::from_secs(5);
/// Bytes of a text of a refusal, and of all its mistakes: they are headers, of which clients take 8 KiB.
const REFUSAL_TEXT_BYTES_MAX: usize = 256;
const MISTAKES_BYTES_MAX: usize = 4 * 1024;

type Server = query_server::QueryServer<Queries>;

/// What is asked over gRPC: queries, which services there are, and whether they answer.
pub(super) fn routes(service: &Arc<Service>) -> Router {
    let (reporter, health) = health_reporter();
    tokio::spawn(look_after(Arc::downgrade(service), reporter));
    let queries = Server::new(Queries(service.clone())).max_decoding_message_size(REQUEST_BYTES_MAX);
    let mut routes = Routes::new(queries).add_service(health);
    let known = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let asked_by_a_caller = {
        let service = service.clone();
        move |request: Request<()>| match service
            .caller(request.metadata().as_ref(), request.extensions())
            .map_err(Failure::from)
        {
            Ok(_) => Ok(request),
            Err(failure) => Err(failure.into()),
        }
    };
    // Of descriptors that were compiled with this crate there are no errors.
    if let (Ok(v1), Ok(v1alpha)) = (known().build_v1(), known().build_v1alpha()) {
        routes = routes
            .add_service(InterceptedService::new(v1, asked_by_a_caller.clone()))
            .add_service(InterceptedService::new(v1alpha, asked_by_a_caller));
    }
    // What is nowhere is told so by the routes of HTTP.
    routes.into_axum_router().reset_fallback()
}

/// Says whether the database answers, for as long as there is the service.
async fn look_after(service: Weak<Service>, reporter: HealthReporter) {
    let mut said = ServingStatus::NotServing;
    say(&reporter, said).await;
    while let Some(service) = service.upgrade() {
        let status = match service.oldest().await {
            Err(_) => ServingStatus::NotServing,
            Ok(_) => ServingStatus::Serving,
        };
        drop(service);
        if status != said {
            say(&reporter, status).await;
            said = status;
        }
        tokio::time::sleep(HEALTH_EVERY).await;
    }
}

async fn say(reporter: &HealthReporter, status: ServingStatus) {
    for name in ["", Server::NAME] {
        reporter.set_service_status(name, status).await;
    }
}

struct Queries(Arc<Service>);

#[tonic::async_trait]
impl query_server::Query for Queries {
    type RunStream = BoxStream<'static, Result<message::RunResponse, Status>>;

    async fn run(&self, request: Request<message::RunRequest>) -> Result<Response<Self::RunStream>, Status> {
        let service = self.0.clone();
        let underway = Underway::new(&service.meter, Route::GrpcRun);
        let running = async {
            let caller = service.caller(request.metadata().as_ref(), request.extensions())?;
            let request = request.into_inner();
            let all_rows = request.all_rows;
            let question = Question::from(request);
            if all_rows {
                let plan = service.plan_all(&question)?;
                let parts = Parts::new(&plan, [String::new(), String::new()]);
                let pieces = service.clone().stream(&caller, plan, parts, underway.clone()).await?;
                return Ok(pieces.map_err(Status::from).boxed());
            }
            let (plan, now, answer) = service.page(&caller, &question, values).await?;
            let cursors = [&answer.next, &answer.previous].map(|from| {
                let write = |from| service.cursors.write(asker(&caller), &plan, now, from);
                from.clone().map(write).unwrap_or_default()
            });
            let pieces = pieces_of(Parts::new(&plan, cursors), answer, &underway)?;
            underway.answered();
            Ok(stream::iter(pieces.into_iter().map(Ok)).boxed())
        };
        let run: Result<_, Failure> = running.await;
        Ok(Response::new(run.inspect_err(|failure| underway.refused(failure))?))
    }

    async fn explain(
        &self,
        request: Request<message::ExplainRequest>,
    ) -> Result<Response<message::ExplainResponse>, Status> {
        let service = &self.0;
        let underway = Underway::new(&service.meter, Route::GrpcExplain);
        let explaining = async {
            let caller = service.caller(request.metadata().as_ref(), request.extensions())?;
            service.explained(&caller, &request.get_ref().query).await
        };
        let (plan, database, cost) = explaining.await.inspect_err(|failure| underway.refused(failure))?;
        underway.answered();
        let (sql, parameters) = statement_told(&plan);
        Ok(Response::new(message::ExplainResponse {
            sql: sql.to_owned(),
            parameters: parameters.iter().map(ToString::to_string).collect(),
            plan: database.to_string(),
            cost,
            cost_max: service.readers.cost_max,
            entity: plan.entity.name().to_owned(),
            view: plan.entity.view.to_owned(),
            columns: plan.columns.iter().map(column).collect(),
        }))
    }
}

impl From<message::RunRequest> for Question {
    fn from(request: message::RunRequest) -> Self {
        let direction = match request.direction() {
            Direction::Unspecified => None,
            Direction::Next => Some(super::Direction::Next),
            Direction::Previous => Some(super::Direction::Prev),
        };
        let message::RunRequest { query, limit, cursor, .. } = request;
        Question { query, limit, cursor: Some(cursor), direction, _mode: None, format: Format::Json }
    }
}

/// An answer as messages.
struct Parts {
    entity: &'static str,
    limit: Option<i64>,
    /// To the next page, and to the one before.
    cursors: [String; 2],
    columns: Vec<Column>,
    /// What goes alone.
    part: Option<Part>,
    rows: Vec<message::Row>,
    bytes: usize,
}

impl Parts {
    fn new(plan: &Plan, cursors: [String; 2]) -> Self {
        let columns = plan.columns.clone();
        let (entity, limit) = (plan.entity.name(), plan.limit);
        Self { entity, limit, cursors, columns, part: None, rows: Vec::new(), bytes: 0 }
    }

    fn put(&mut self, part: Part) {
        self.bytes = part.encoded_len();
        self.part = Some(part);
    }
}

impl Writer for Parts {
    type Piece = message::RunResponse;

    fn begin(&mut self, answer: &Answer) -> io::Result<()> {
        self.put(Part::Head(message::Head {
            columns: self.columns.iter().map(column).collect(),
            entity: self.entity.to_owned(),
            limit: self.limit,
            generation: answer.generation,
            epoch: answer.epoch,
            complete_to: answer.complete_to,
        }));
        Ok(())
    }

    fn row(&mut self, row: Vec<Value>) -> io::Result<()> {
        let values = self.columns.iter().zip(row).map(|(column, value)| typed(column.shape, value));
        let row = message::Row { values: values.collect() };
        self.bytes += row.encoded_len();
        self.rows.push(row);
        Ok(())
    }

    fn end(&mut self, answer: &Answer) -> io::Result<()> {
        let [next_cursor, previous_cursor] = std::mem::take(&mut self.cursors);
        let took_ms = answer.took.as_millis() as u64;
        self.put(Part::End(message::End { next_cursor, previous_cursor, total: answer.total, took_ms }));
        Ok(())
    }

    fn waiting(&self) -> usize {
        self.bytes
    }

    fn take(&mut self) -> message::RunResponse {
        self.bytes = 0;
        let rows = || Part::Rows(message::Rows { rows: std::mem::take(&mut self.rows) });
        message::RunResponse { part: Some(self.part.take().unwrap_or_else(rows)) }
    }
}

fn column(column: &Column) -> message::Column {
    let of = match column.shape {
        Shape::Text => message::Type::Text,
        Shape::Integer => message::Type::Integer,
        Shape::Number => message::Type::Number,
        Shape::Bool => message::Type::Boolean,
        Shape::Time => message::Type::Time,
        Shape::Texts => message::Type::Texts,
        Shape::Json => message::Type::Json,
    };
    message::Column { name: column.name.clone(), r#type: of.into() }
}

fn typed(shape: Shape, value: Value) -> message::Value {
    let of = match (shape, value) {
        (_, Value::Null) => None,
        (Shape::Time, Value::String(text)) => time::parse(&text).map(Of::Time),
        (Shape::Text, Value::String(text)) => Some(Of::Text(text)),
        (Shape::Integer, value) => value.as_i64().map(Of::Integer),
        (Shape::Number, value) => value.as_f64().map(Of::Number),
        (Shape::Bool, value) => value.as_bool().map(Of::Boolean),
        (Shape::Texts, Value::Array(texts)) => {
            let texts = texts.into_iter().map(|text| typed(Shape::Text, text)).collect();
            Some(Of::Texts(message::Texts { texts }))
        }
        (_, value) => Some(Of::Json(value.to_string())),
    };
    message::Value { of }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Self {
        let code = match failure.status {
            StatusCode::UNAUTHORIZED => Code::Unauthenticated,
            StatusCode::FORBIDDEN => Code::PermissionDenied,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::PAYLOAD_TOO_LARGE => Code::ResourceExhausted,
            StatusCode::NOT_IMPLEMENTED => Code::Unimplemented,
            StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
            StatusCode::GATEWAY_TIMEOUT => Code::DeadlineExceeded,
            _ => Code::InvalidArgument,
        };
        let text = cut(&failure.text());
        let mut details = vec![any("serviceradar.query.v1.Mistakes", &told(&failure.mistakes))];
        if failure.status == StatusCode::TOO_MANY_REQUESTS {
            let retry_delay = Some(prost_types::Duration { seconds: RETRY_AFTER_S.into(), nanos: 0 });
            details.push(any("google.rpc.RetryInfo", &RetryInfo { retry_delay }));
        }
        let status = tonic_types::Status { code: code.into(), message: text.clone(), details };
        Status::with_details(code, text, status.encode_to_vec().into())
    }
}

fn any(name: &str, message: &impl Message) -> Any {
    Any { type_url: format!("type.googleapis.com/{name}"), value: message.encode_to_vec() }
}

/// As many mistakes as a header holds.
fn told(mistakes: &[QueryError]) -> message::Mistakes {
    let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    let mut told = message::Mistakes { mistakes: Vec::new(), total: place(mistakes.len()) };
    for mistake in mistakes {
        let one = message::Mistake {
            code: mistake.code.as_str().to_owned(),
            message: cut(&mistake.message),
            hint: mistake.hint.as_deref().map(cut).unwrap_or_default(),
            from: place(mistake.span.0),
            to: place(mistake.span.1),
        };
        if told.encoded_len() + one.encoded_len() > MISTAKES_BYTES_MAX {
            break;
        }
        told.mistakes.push(one);
    }
    told
}

/// The text up to its limit.
fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(REFUSAL_TEXT_BYTES_MAX)].to_owned()
}
