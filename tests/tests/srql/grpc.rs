//! The service, asked over gRPC.

use prost::Message;
use reqwest::StatusCode;
use serde_json::{Map, Value, json};
use serviceradar_proto::query::v1::{
    self as message, Column, Direction, End, ExplainRequest, Head, Mistakes, RunRequest, Type,
    query_client::QueryClient, run_response::Part, value::Of,
};
use serviceradar_schemas::time;
use serviceradar_srql::service::readers::{COST_DEFAULT, Readers};
use tonic::{Code, Request, Status, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};
use tonic_types::pb::RetryInfo;

use super::service::{DEVICES, Stand};

async fn channel(stand: &Stand) -> Channel {
    Channel::from_shared(stand.base.clone()).unwrap().connect().await.unwrap()
}

pub(super) async fn client(stand: &Stand) -> QueryClient<Channel> {
    QueryClient::new(channel(stand).await)
}

/// A request of a caller.
pub(super) fn of<T>(caller: &str, asked: T) -> Request<T> {
    let mut request = Request::new(asked);
    request.metadata_mut().insert("authorization", format!("Bearer key of {caller}").parse().unwrap());
    request
}

pub(super) fn run_request(query: &str, all_rows: bool) -> RunRequest {
    RunRequest { query: query.to_owned(), all_rows, ..RunRequest::default() }
}

fn json_of(column: &Column, value: message::Value) -> Value {
    match (column.r#type(), value.of) {
        (_, None) => Value::Null,
        (Type::Text, Some(Of::Text(text))) => text.into(),
        (Type::Integer, Some(Of::Integer(number))) => number.into(),
        (Type::Number, Some(Of::Number(number))) => number.into(),
        (Type::Boolean, Some(Of::Boolean(is))) => is.into(),
        (Type::Time, Some(Of::Time(at))) => time::format(at).into(),
        (Type::Texts, Some(Of::Texts(texts))) => {
            let text = Column { name: String::new(), r#type: Type::Text.into() };
            texts.texts.into_iter().map(|item| json_of(&text, item)).collect()
        }
        (Type::Json, Some(Of::Json(text))) => serde_json::from_str(&text).unwrap(),
        (of, value) => panic!("{of:?}: {value:?}"),
    }
}

/// An answer: its head, its rows as JSON has them, how many messages they came in, and its end.
async fn run(
    client: &mut QueryClient<Channel>,
    caller: &str,
    request: RunRequest,
) -> Result<(Head, Vec<Value>, usize, End), Status> {
    let mut parts = client.run(of(caller, request)).await?.into_inner();
    let Some(Part::Head(head)) = parts.message().await?.and_then(|part| part.part) else { panic!("no head") };
    let (mut rows, mut messages) = (Vec::new(), 0);
    loop {
        match parts.message().await?.and_then(|part| part.part) {
            Some(Part::Rows(some)) => {
                messages += 1;
                rows.extend(some.rows.into_iter().map(|row| {
                    assert_eq!(row.values.len(), head.columns.len());
                    let values = head.columns.iter().zip(row.values);
                    let pairs = values.map(|(column, value)| (column.name.clone(), json_of(column, value)));
                    Value::Object(pairs.collect::<Map<_, _>>())
                }));
            }
            Some(Part::End(end)) => {
                assert!(parts.message().await?.is_none());
                return Ok((head, rows, messages, end));
            }
            other => panic!("{other:?}"),
        }
    }
}

/// What a refusal tells: its code, and its mistakes.
fn told(status: &Status) -> (Code, Mistakes) {
    let details = tonic_types::Status::decode(status.details()).unwrap();
    assert_eq!((details.code, &*details.message), (status.code().into(), status.message()));
    let mistakes = &details.details[0];
    assert_eq!(mistakes.type_url, "type.googleapis.com/serviceradar.query.v1.Mistakes");
    (status.code(), Mistakes::decode(&*mistakes.value).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_are_those_of_http() {
    let stand = Stand::new(|_| {}).await;
    let mut client = client(&stand).await;
    let query = "in:devices sort:uid count:true";
    let (mut seen, mut cursor, mut http) = (0, String::new(), Value::Null);
    let back = loop {
        let body = json!({ "query": query, "limit": 99, "cursor": http });
        let (_, page) = stand.post("/api/query", "anna", body).await;
        let direction = Direction::Next.into();
        let request = RunRequest { limit: Some(99), cursor, direction, ..run_request(query, false) };
        let (head, rows, _, end) = run(&mut client, "anna", request).await.unwrap();
        assert_eq!(&Value::Array(rows.clone()), &page["results"]);
        assert_eq!((&*head.entity, head.limit), ("devices", Some(99)));
        let (meta, pages) = (&page["meta"], &page["pagination"]);
        assert_eq!(
            (json!(head.generation), json!(head.epoch)),
            (meta["generation"].clone(), meta["epoch"].clone())
        );
        assert_eq!(json!(head.complete_to.map(time::format)), meta["complete_to"]);
        assert_eq!(json!(end.total), pages["total"]);
        assert_eq!(end.next_cursor.is_empty(), pages["next_cursor"].is_null());
        assert_eq!(end.previous_cursor.is_empty(), pages["prev_cursor"].is_null());
        seen += rows.len();
        (cursor, http) = (end.next_cursor, pages["next_cursor"].clone());
        if cursor.is_empty() {
            break end.previous_cursor;
        }
    };
    assert_eq!(seen as u128, DEVICES);
    // A cursor is the same whatever is spoken.
    let body = json!({ "query": query, "limit": 5, "cursor": &back });
    let (status, page) = stand.post("/api/query", "anna", body).await;
    assert_eq!(status, StatusCode::OK, "{page}");
    let request = RunRequest { limit: Some(5), cursor: back.clone(), ..run_request(query, false) };
    let (_, rows, _, _) = run(&mut client, "anna", request.clone()).await.unwrap();
    assert_eq!(Value::Array(rows), page["results"]);
    let wrong_way = RunRequest { direction: Direction::Next.into(), ..request.clone() };
    for (caller, request) in [("anna", wrong_way), ("oscar", request.clone()), ("bert", request)] {
        let (code, mistakes) = told(&run(&mut client, caller, request).await.unwrap_err());
        assert_eq!((code, &*mistakes.mistakes[0].code), (Code::InvalidArgument, "bad_value"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_rows_of_one_tenant_come_in_several_messages() {
    let stand = Stand::new(|_| {}).await;
    let mut client = client(&stand).await;
    for (caller, tenant) in [("anna", "acme"), ("bert", "other")] {
        let (head, rows, messages, end) =
            run(&mut client, caller, run_request("in:devices sort:uid", true)).await.unwrap();
        assert_eq!((rows.len() as u128, head.limit, head.epoch), (DEVICES, None, Some(1)));
        assert!(rows.iter().all(|row| row["vendor_name"] == tenant));
        assert!(messages > 1, "{messages}");
        assert_eq!(end, End { took_ms: end.took_ms, ..End::default() });
        let (_, lines) = stand.get("/api/query?q=in:devices+sort:uid&format=ndjson", caller).await;
        let wanted: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(rows, wanted);
    }
    let (_, rows, messages, _) =
        run(&mut client, "anna", run_request("in:devices name:nobody", true)).await.unwrap();
    assert_eq!((rows.len(), messages), (0, 0));
    let (_, rows, _, _) =
        run(&mut client, "anna", run_request("in:devices stats:'count() as n, avg(risk_score) as r'", false))
            .await
            .unwrap();
    assert_eq!(rows, [json!({ "n": DEVICES as u64, "r": null })]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_key_is_told_nothing_and_a_reader_sees_no_plans() {
    let stand = Stand::new(|_| {}).await;
    let mut client = client(&stand).await;
    let (code, mistakes) =
        told(&run(&mut client, "eve", run_request("in:devices", false)).await.unwrap_err());
    assert_eq!((code, &*mistakes.mistakes[0].code), (Code::Unauthenticated, "unauthenticated"));
    assert_eq!(client.run(run_request("in:devices", false)).await.unwrap_err().code(), Code::Unauthenticated);
    let mut by_header = Request::new(run_request("in:devices", false));
    by_header.metadata_mut().insert("x-api-key", "key of anna".parse().unwrap());
    assert!(client.run(by_header).await.is_ok());

    let question = ExplainRequest { query: "in:devices ip:10.0.0.0/8".to_owned() };
    let (code, mistakes) = told(&client.explain(of("anna", question.clone())).await.unwrap_err());
    assert_eq!((code, &*mistakes.mistakes[0].code), (Code::PermissionDenied, "forbidden"));
    let explained = client.explain(of("oscar", question)).await.unwrap().into_inner();
    let (status, http) =
        stand.post("/api/srql/explain", "oscar", json!({ "query": "in:devices ip:10.0.0.0/8" })).await;
    assert_eq!(status, StatusCode::OK);
    let parameters: Vec<Value> =
        explained.parameters.iter().map(|parameter| serde_json::from_str(parameter).unwrap()).collect();
    assert_eq!((json!(explained.sql), json!(parameters)), (http["sql"].clone(), http["parameters"].clone()));
    assert_eq!(
        (json!(explained.cost), json!(explained.view)),
        (http["cost"].clone(), http["catalogue"]["view"].clone())
    );
    assert_eq!(serde_json::from_str::<Value>(&explained.plan).unwrap(), http["plan"]);
    assert_eq!(explained.columns[0], Column { name: "uid".to_owned(), r#type: Type::Text.into() });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mistakes_are_told_with_their_places() {
    let stand = Stand::new(|_| {}).await;
    let mut client = client(&stand).await;
    let query = "in:devices hostnme:x sort:bogus";
    let (code, mistakes) = told(&run(&mut client, "anna", run_request(query, false)).await.unwrap_err());
    let first = &mistakes.mistakes[0];
    assert_eq!((code, mistakes.total, mistakes.mistakes.len()), (Code::InvalidArgument, 2, 2));
    assert_eq!((&*first.code, first.from, first.to), ("unknown_field", 11, 18));
    assert_eq!(first.hint, "did you mean hostname?");

    // More than a header holds: the first, and how many there are.
    let many =
        format!("in:devices {}", (0..200).map(|n| format!("no_such_field_{n}:x ")).collect::<String>());
    let long = format!("in:{}", "ü".repeat(5_000));
    for (query, total) in [(&many, 200), (&long, 1)] {
        let (code, mistakes) = told(&run(&mut client, "anna", run_request(query, true)).await.unwrap_err());
        assert_eq!((code, mistakes.total), (Code::InvalidArgument, total));
        assert!(!mistakes.mistakes.is_empty() && mistakes.encoded_len() <= 4 * 1024);
    }
    for (request, code, word) in [
        (
            RunRequest { limit: Some(0), ..run_request("in:devices", false) },
            Code::InvalidArgument,
            "bad_value",
        ),
        (
            RunRequest { cursor: "x".to_owned(), ..run_request("in:devices", true) },
            Code::InvalidArgument,
            "bad_value",
        ),
        (run_request(&"x".repeat(20_000), false), Code::InvalidArgument, "too_wide"),
        (run_request("in:interfaces", false), Code::Unimplemented, "unavailable"),
    ] {
        let (got, mistakes) = told(&run(&mut client, "anna", request).await.unwrap_err());
        assert_eq!((got, &*mistakes.mistakes[0].code), (code, word));
    }
    let huge = run_request(&"x".repeat(1 << 20), false);
    assert_eq!(run(&mut client, "anna", huge).await.unwrap_err().code(), Code::OutOfRange);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_hold() {
    let stand = Stand::new(|service| service.readers.cost_max = 1.0).await;
    let mut expensive = client(&stand).await;
    for all_rows in [false, true] {
        let refused = run(&mut expensive, "anna", run_request("in:devices", all_rows)).await.unwrap_err();
        let (code, mistakes) = told(&refused);
        assert_eq!((code, &*mistakes.mistakes[0].code), (Code::InvalidArgument, "too_expensive"));
    }
    let stand = Stand::new(|service| service.answer_bytes_max = 10_000).await;
    let refused = run(&mut client(&stand).await, "anna", run_request("in:devices", true)).await.unwrap_err();
    assert_eq!(
        (told(&refused).0, &*told(&refused).1.mistakes[0].code),
        (Code::ResourceExhausted, "too_wide")
    );

    let stand = Stand::new(|service| {
        service.readers = Readers::new(service.readers.url().to_owned(), 0, COST_DEFAULT)
    })
    .await;
    let refused = run(&mut client(&stand).await, "anna", run_request("in:devices", false)).await.unwrap_err();
    assert_eq!(told(&refused).0, Code::ResourceExhausted);
    let details = tonic_types::Status::decode(refused.details()).unwrap();
    let retry = details.details.iter().find(|any| any.type_url.ends_with("/google.rpc.RetryInfo")).unwrap();
    assert_eq!(RetryInfo::decode(&*retry.value).unwrap().retry_delay.unwrap().seconds, 1);
    // Whether it is ready is asked by no tenant.
    let (status, told) = stand.get("/readyz", "anna").await;
    assert_eq!(status, StatusCode::OK, "{told}");
}

/// Its health, as soon as it is this.
async fn health(stand: &Stand, service: &str, wanted: ServingStatus) {
    let mut client = HealthClient::new(channel(stand).await);
    let asked = HealthCheckRequest { service: service.to_owned() };
    let mut states = client.watch(asked.clone()).await.unwrap().into_inner();
    while states.message().await.unwrap().unwrap().status() != wanted {}
    assert_eq!(client.check(asked).await.unwrap().into_inner().status(), wanted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whether_the_database_answers_is_its_health() {
    let stand = Stand::new(|_| {}).await;
    for service in ["", "serviceradar.query.v1.Query"] {
        health(&stand, service, ServingStatus::Serving).await;
    }
    let gone = "postgresql://u@127.0.0.1:1/d";
    let stand = Stand::new(|service| service.readers = Readers::new(gone.to_owned(), 4, COST_DEFAULT)).await;
    health(&stand, "", ServingStatus::NotServing).await;
    let refused = run(&mut client(&stand).await, "anna", run_request("in:devices", true)).await.unwrap_err();
    assert_eq!((told(&refused).0, &*told(&refused).1.mistakes[0].code), (Code::Unavailable, "unavailable"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reflection_lists_what_is_asked() {
    let stand = Stand::new(|_| {}).await;
    let mut client = ServerReflectionClient::new(channel(&stand).await);
    let asked = || {
        let list = MessageRequest::ListServices(String::new());
        tokio_stream::once(ServerReflectionRequest { message_request: Some(list), ..Default::default() })
    };
    let refused = client.server_reflection_info(asked()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let mut answers = client.server_reflection_info(of("anna", asked())).await.unwrap().into_inner();
    let answer = answers.message().await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = answer else { panic!("{answer:?}") };
    let names: Vec<String> = list.service.into_iter().map(|service| service.name).collect();
    for name in
        ["serviceradar.query.v1.Query", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"]
    {
        assert!(names.iter().any(|known| known == name), "{name}: {names:?}");
    }
    // What other processes of the machine ask the log is not asked here.
    assert!(!names.iter().any(|name| name.contains("LogStore")), "{names:?}");
}
