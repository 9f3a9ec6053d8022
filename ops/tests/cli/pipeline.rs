//! The pipeline: the database that it takes, and what it answers to whoever asks.

use std::{path::Path, process::Stdio, time::Duration};

use serde_json::Value;
use serviceradar_ops::postgres::PrivatePostgres;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Running, data, failure, run, serviceradar};

fn spawn(dir: &TempDir, database: &str) -> Running {
    let arguments = ["run", "--listen", "127.0.0.1:0", "--database", database];
    Running::spawn(serviceradar(dir, &arguments).stderr(Stdio::null()))
}

/// What a pipeline answers, status line and all; `None` while it does not.
async fn ask(dir: &Path, path: &str) -> Option<String> {
    let address = std::fs::read_to_string(dir.join("http.address")).ok()?;
    let mut connection = TcpStream::connect(&*address).await.ok()?;
    connection.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

/// Asks whether it is ready until it says that it has the role.
pub(super) async fn until_ready_as(dir: &TempDir, run: &mut Running, role: &str) {
    loop {
        assert!(run.0.try_wait().unwrap().is_none(), "it ended before it was a {role}");
        let answer = ask(dir.path(), "/readyz").await.unwrap_or_default();
        if answer.contains(role) {
            assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_database_that_was_not_migrated_is_refused_with_the_way_out() {
    let (dir, server) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let postgres = PrivatePostgres::start(server.path()).await.unwrap();
    let (code, words) = failure(&dir, &["run", "--listen", "127.0.0.1:0", "--database", postgres.url()]);
    assert_eq!(code, 1);
    assert!(words.contains("serviceradar migrate"), "{words}");

    let migrate = ["migrate", "--database", postgres.url()];
    assert!(!data(&dir, &migrate).is_empty());
    assert_eq!(data(&dir, &migrate), Vec::<Value>::new(), "nothing is left to do");
    let mut pipeline = spawn(&dir, postgres.url());
    until_ready_as(&dir, &mut pipeline, "writer").await;

    let status = data(&dir, &["status"]);
    assert_eq!(status[0]["phase"], "running", "{status:?}");
    let metrics = ask(dir.path(), "/metrics").await.unwrap();
    assert!(metrics.contains("# TYPE serviceradar_epoch gauge"), "{metrics}");
    assert!(ask(dir.path(), "/healthz").await.unwrap().ends_with("ok\n"));
    assert_eq!(pipeline.interrupt(), 0);
    assert_eq!(failure(&dir, &["status"]).0, 3, "nobody runs there now");
}

#[tokio::test]
async fn a_second_pipeline_of_a_tenant_stands_by_and_is_ready() {
    let server = tempfile::tempdir().unwrap();
    let postgres = PrivatePostgres::start(server.path()).await.unwrap();
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert!(run(&one, &["migrate", "--database", postgres.url()]).status.success());
    let mut writer = spawn(&one, postgres.url());
    until_ready_as(&one, &mut writer, "writer").await;
    let mut newcomer = spawn(&other, postgres.url());
    until_ready_as(&other, &mut newcomer, "stand-by").await;
    assert_eq!(writer.interrupt(), 0);
    until_ready_as(&other, &mut newcomer, "writer").await;
    assert_eq!(newcomer.interrupt(), 0);
}

#[tokio::test]
async fn an_address_that_was_asked_for_and_is_taken_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, words) = failure(&dir, &["run", "--listen", &address]);
    assert_eq!(code, 1);
    assert!(words.contains("--listen"), "{words}");
}

#[test]
fn a_database_that_does_not_answer_has_its_own_code() {
    let dir = tempfile::tempdir().unwrap();
    let run = ["run", "--listen", "127.0.0.1:0", "--database", "postgresql://u@127.0.0.1:1/d"];
    assert_eq!(failure(&dir, &run).0, 3);
    assert_eq!(failure(&dir, &["run", "--database", "host=localhost"]).0, 2, "no URL");
}
