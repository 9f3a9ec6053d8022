//! Drift: what is expected of a partition, beside what is there; with and without a pipeline, and after a restart.

use std::process::Stdio;

use serde_json::Value;
use serviceradar_ops::postgres::PrivatePostgres;
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Running, data, pipeline::until_ready_as, run, serviceradar, text};

/// What is told of the one partition there is, and the code.
fn drift(dir: &TempDir, url: &str, expected: &str) -> (Value, Value, Option<i32>) {
    let set = format!("expect.devices={expected}");
    let output = run(dir, &["status", "--output", "json", "--database", url, "--set", &set]);
    let status: Value = serde_json::from_str(text(&output.stdout)).unwrap();
    let drifts = status["drift"].as_array().unwrap();
    assert_eq!(drifts.len(), 1, "{status}");
    (drifts[0].clone(), status["scopes"].clone(), output.status.code())
}

async fn metrics(dir: &TempDir) -> String {
    let address = std::fs::read_to_string(dir.path().join("http.address")).unwrap();
    let mut connection = TcpStream::connect(&*address).await.unwrap();
    connection.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn what_is_expected_is_compared_with_what_is_there() {
    let dir = tempfile::tempdir().unwrap();
    data(&dir, &["demo", "--once", "--devices", "200"]);
    let server = PrivatePostgres::start(&dir.path().join("postgres")).await.unwrap();

    let (outside, _, code) = drift(&dir, server.url(), "");
    assert_eq!((&outside["expected"], &outside["ratio"], code), (&Value::Null, &Value::Null, Some(0)));
    let found = outside["found"].as_u64().unwrap();
    assert!(found >= 190, "{outside}");
    let of = |devices: u64| format!("default={devices}");
    let (told, _, code) = drift(&dir, server.url(), &of(found * 2));
    assert_eq!(
        (&told["devices_alarm"], &told["deviation"], code),
        (&"low".into(), &Value::from(-0.5), Some(4))
    );

    let expect = format!("expect.devices={}", of(found / 2));
    let arguments = ["run", "--listen", "127.0.0.1:0", "--database", server.url(), "--set", &expect];
    let mut before = None;
    for _ in 0..2 {
        let mut pipeline = Running::spawn(serviceradar(&dir, &arguments).stderr(Stdio::null()));
        until_ready_as(&dir, &mut pipeline, "writer").await;
        let (told, scopes, code) = drift(&dir, server.url(), &of(found));
        assert_eq!((&told["found"], &told["devices_alarm"], code), (&found.into(), &Value::Null, Some(0)));
        assert!((0.95..=1.05).contains(&told["ratio"].as_f64().unwrap()), "{told}");
        let (told, _, code) = drift(&dir, server.url(), &of(found / 2));
        assert_eq!((&told["devices_alarm"], code), (&"high".into(), Some(4)));
        let words = run(&dir, &["status", "--database", server.url(), "--set", &expect]);
        assert!(text(&words.stderr).contains(&format!("and should have {}", found / 2)));
        // The metrics follow each second.
        let is_told = |metrics: &str, name: &str, of: &str, value: u64| {
            let mut lines = metrics.lines().filter(|line| line.starts_with(&format!("{name}{{")));
            lines.any(|line| line.contains(of) && line.ends_with(&format!(" {value}")))
        };
        while !is_told(&metrics(&dir).await, "serviceradar_drift_alarm", "of=\"devices\"", 1) {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert!(is_told(&metrics(&dir).await, "serviceradar_devices", "partition=\"default\"", found));
        assert_eq!(pipeline.interrupt(), 0);
        assert_eq!(before.get_or_insert_with(|| scopes.clone()), &scopes, "a restart counts otherwise");
    }
}
