//! Archives by the command line: to a folder and to a store that speaks as S3 does, killed and gone on with.

use std::{
    collections::BTreeMap,
    process::Command,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, Query, State},
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::Value;
use tempfile::TempDir;

use super::{data, failure, serviceradar, text};

/// Topics that are archived, and how many events each has.
fn events(dir: &TempDir) -> BTreeMap<String, u64> {
    let listed = data(dir, &["topics", "list"]);
    let kept = listed.iter().filter(|row| {
        row["topic"].as_str().unwrap().ends_with(".observations")
            || row["topic"].as_str().unwrap().ends_with(".decisions")
    });
    kept.map(|row| (row["topic"].as_str().unwrap().to_owned(), row["events"].as_u64().unwrap())).collect()
}

/// Objects by key, and parts of uploads by key and number.
#[derive(Default)]
struct Bucket {
    objects: BTreeMap<String, Bytes>,
    parts: BTreeMap<(String, u32), Bytes>,
    /// Requests without a signature of the key that is given.
    unsigned: usize,
}

type Shared = Arc<Mutex<Bucket>>;

/// As much of S3 as one needs to put, get, look at and list objects.
async fn answer(
    State(bucket): State<Shared>,
    method: Method,
    Path(key): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let mut bucket = bucket.lock().unwrap();
    let signed = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    if !signed.is_some_and(|by| by.starts_with("AWS4-HMAC-SHA256 Credential=the-key/")) {
        bucket.unsigned += 1;
        return StatusCode::FORBIDDEN.into_response();
    }
    let etag = [(header::ETAG, "\"e\"")];
    let part = query.get("partNumber").map(|part| part.parse().unwrap());
    match (method, part) {
        (Method::PUT, Some(part)) => {
            bucket.parts.insert((key, part), body);
            etag.into_response()
        }
        (Method::PUT, None) => {
            bucket.objects.insert(key, body);
            etag.into_response()
        }
        (Method::POST, _) if query.contains_key("uploads") => {
            format!("<InitiateMultipartUploadResult><UploadId>u</UploadId><Key>{key}</Key><Bucket>b</Bucket></InitiateMultipartUploadResult>").into_response()
        }
        (Method::POST, _) => {
            let parts = bucket.parts.iter().filter(|((of, _), _)| *of == key);
            let whole: Vec<u8> = parts.flat_map(|(_, part)| part.to_vec()).collect();
            bucket.objects.insert(key, whole.into());
            "<CompleteMultipartUploadResult><ETag>\"e\"</ETag></CompleteMultipartUploadResult>".into_response()
        }
        (Method::GET, _) if query.contains_key("list-type") => list(&bucket, &query["prefix"]),
        (Method::GET | Method::HEAD, _) => match bucket.objects.get(&key) {
            Some(object) => part_of(object, &headers),
            None => StatusCode::NOT_FOUND.into_response(),
        },
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

fn list(bucket: &Bucket, prefix: &str) -> Response {
    let content = |(key, object): (&String, &Bytes)| {
        format!(
            "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>\"e\"</ETag>\
             <Size>{}</Size></Contents>",
            object.len()
        )
    };
    let found = bucket.objects.iter().filter(|(key, _)| key.starts_with(prefix));
    let contents: String = found.map(content).collect();
    format!("<ListBucketResult><Name>b</Name><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>")
        .into_response()
}

fn part_of(object: &Bytes, headers: &HeaderMap) -> Response {
    let modified = (header::LAST_MODIFIED, "Thu, 01 Jan 2026 00:00:00 GMT".to_owned());
    let etag = (header::ETAG, "\"e\"".to_owned());
    let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
    let Some((from, to)) = range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')) else {
        return ([modified, etag], object.clone()).into_response();
    };
    let (from, to): (usize, usize) = (from.parse().unwrap(), to.parse().unwrap());
    let part = object.slice(from..(to + 1).min(object.len()));
    let told = format!("bytes {from}-{}/{}", from + part.len() - 1, object.len());
    (StatusCode::PARTIAL_CONTENT, [modified, etag, (header::CONTENT_RANGE, told)], part).into_response()
}

/// Serves a bucket of the name `b`; its address.
async fn serve(bucket: Shared) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new()
        .route(
            "/b",
            axum::routing::any(|state, method, query, headers, body| {
                answer(state, method, Path(String::new()), query, headers, body)
            }),
        )
        .route("/b/{*key}", axum::routing::any(answer))
        .layer(axum::extract::DefaultBodyLimit::disable())
        .with_state(bucket);
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

/// The data of a run with a store's variables set.
fn with_store(dir: &TempDir, endpoint: &str, arguments: &[&str]) -> Vec<Value> {
    let mut command: Command = serviceradar(dir, arguments);
    command
        .env("AWS_ACCESS_KEY_ID", "the-key")
        .env("AWS_SECRET_ACCESS_KEY", "the-secret")
        .env("AWS_REGION", "eu-central-1")
        .env("AWS_ENDPOINT_URL", endpoint);
    let output = command.args(["--output", "json"]).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_archived_and_restored_by_a_folder_and_by_a_store() {
    let dir = tempfile::tempdir().unwrap();
    data(&dir, &["demo", "--once", "--devices", "40"]);
    let before = events(&dir);
    assert!(before["default.observations"] > 40, "{before:?}");

    let folder = dir.path().join("archive");
    let folder = folder.to_str().unwrap();
    let archived = data(&dir, &["replay", "archive", "--to", folder]);
    let sum: u64 = archived.iter().map(|row| row["events"].as_u64().unwrap()).sum();
    assert_eq!(sum, before.values().sum::<u64>());
    let new = tempfile::tempdir().unwrap();
    let planned = data(&new, &["replay", "restore", "--from", folder, "--dry-run"]);
    assert!(events(&new).is_empty(), "a dry run wrote something");
    let restored = data(&new, &["replay", "restore", "--from", folder]);
    assert_eq!(restored, planned);
    assert_eq!(events(&new), before);
    let again = data(&new, &["replay", "restore", "--from", folder]);
    assert!(again.iter().all(|row| row["there_before"] == row["events"]), "{again:?}");
    assert_eq!(events(&new), before, "what was restored is left as it is");
    let (code, words) = failure(&dir, &["replay", "restore", "--from", folder]);
    assert_eq!(code, 1);
    assert!(words.contains("--append"), "{words}");

    let bucket = Shared::default();
    let endpoint = serve(bucket.clone()).await;
    let place = "s3://b/some/where";
    assert_eq!(with_store(&dir, &endpoint, &["replay", "archive", "--to", place]), archived);
    assert_eq!(
        with_store(&dir, &endpoint, &["replay", "archive", "--to", place]),
        archived,
        "nothing is new"
    );
    let new = tempfile::tempdir().unwrap();
    with_store(&new, &endpoint, &["replay", "restore", "--from", place]);
    assert_eq!(events(&new), before);
    let keys: Vec<String> = bucket.lock().unwrap().objects.keys().cloned().collect();
    assert!(keys.contains(&"some/where/manifest.json".to_owned()), "{keys:?}");
    assert_eq!(bucket.lock().unwrap().unsigned, 0);

    let file = keys.iter().find(|key| key.ends_with(".avro")).unwrap();
    bucket.lock().unwrap().objects.remove(file);
    let mut command = serviceradar(&new, &["replay", "restore", "--append", "--from", place]);
    let refused = command
        .env("AWS_ACCESS_KEY_ID", "the-key")
        .env("AWS_SECRET_ACCESS_KEY", "the-secret")
        .env("AWS_REGION", "eu-central-1")
        .env("AWS_ENDPOINT_URL", &endpoint)
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(4));
    let name = file.strip_prefix("some/where/").unwrap();
    assert!(text(&refused.stderr).contains(name), "{}", text(&refused.stderr));
}

#[test]
fn a_place_that_has_no_archive_or_cannot_be_one_is_told_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let nowhere = dir.path().join("nowhere");
    let (code, words) = failure(&dir, &["replay", "restore", "--from", nowhere.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(words.contains("replay archive"), "{words}");
    assert!(!nowhere.exists());
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    data(&dir, &["topics", "create"]);
    let (code, words) = failure(&dir, &["replay", "archive", "--to", file.to_str().unwrap()]);
    assert_eq!(code, 1);
    assert!(words.contains("give a folder"), "{words}");
    assert_eq!(failure(&dir, &["replay", "restore"]).0, 2);
}
