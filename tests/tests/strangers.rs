//! Strangers' programs, as docs/examples has them: a producer of observations in both framings, and a reader of
//! device-changes by its contract. On a real Kafka, a real registry and a real TimescaleDB.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use serde_json::{Value, json};
use serviceradar_log::{KafkaConfig, KafkaLog, LogStore};
use serviceradar_schemas::{
    codec::WriterSchemas,
    registry::{Registry, RegistryConfig},
};
use serviceradar_tests::{
    database::Database,
    services,
    stand::{drive_with, published},
};
use tokio::{io::AsyncWriteExt, process::Command};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Runs one of the examples; what it said on stdout.
async fn run(example: &str, arguments: &[&str], input: &str) -> String {
    let python = Command::new(root().join("ops/dev/python")).output().await.unwrap();
    assert!(python.status.success(), "{}", String::from_utf8_lossy(&python.stderr));
    let mut child = Command::new(String::from_utf8(python.stdout).unwrap().trim())
        .arg(root().join("docs/examples").join(example))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let ran = child.wait_with_output().await.unwrap();
    assert!(ran.status.success(), "{example}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

/// Observations of machines, a line each: every one is seen by two sources, which share its MAC.
fn lines(source: &str, machines: std::ops::Range<u32>) -> String {
    let line = |n: u32| {
        let mac = format!("00:1b:21:00:{:02x}:{:02x}", n / 256, n % 256);
        let observation = json!({
            "event_time": "2026-03-01T00:00:00Z",
            "source": {"kind": source, "instance": "lab"},
            "native_key": n.to_string(),
            "action": "ASSERT",
            "claims": [{"namespace": "mac", "value": mac}],
            "addresses": [{"ip": format!("10.7.{}.{}", n / 250, n % 250 + 1)}],
            "hostname": format!("machine-{n}"),
        });
        format!("{observation}\n")
    };
    machines.map(line).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strangers_observations_become_devices_and_a_stranger_reads_them() {
    let (servers, url) = (services::kafka().await, services::registry().await);
    let tenant = format!("t{:016x}", rand::random::<u64>());
    let log: Arc<dyn LogStore> =
        Arc::new(KafkaLog::new(&KafkaConfig { servers: servers.clone(), ..KafkaConfig::default() }).unwrap());
    serviceradar_replay::topics::ensure(&*log, &tenant).await.unwrap();
    let database = Database::migrated_timescale().await;
    let registry = Registry::new(RegistryConfig { url: url.clone(), login: None }).unwrap();
    let framings = registry.register(&tenant).await.unwrap();
    let writers: Arc<dyn WriterSchemas> = Arc::new(registry);
    let driver = drive_with(&tenant, log.clone(), writers, framings, database.url()).await;

    let avro = root().join("schemas/avro");
    let schema = |event: &str| avro.join(event).to_str().unwrap().to_owned();
    let observation = schema("observation.avsc");
    // 300 machines: two thirds seen by one, two thirds by the other, the middle by both.
    run("publish.py", &[&servers, &tenant, &observation], &lines("armis", 0..200)).await;
    run("publish.py", &[&servers, &tenant, &observation, &url], &lines("netbox", 100..300)).await;
    driver.caught_up().await.unwrap();
    let client = database.client().await;
    published(&client).await;
    assert_eq!(driver.status().dead_letters, 0);
    let count = async |sql: &str| client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0);
    assert_eq!(count("SELECT count(*) FROM views_1.device_records").await, 400);
    assert_eq!(count("SELECT count(*) FROM views_1.devices").await, 300);
    assert_eq!(count("SELECT count(*) FROM views_1.devices WHERE records = 2").await, 100);

    let changes =
        run("device_changes.py", &[&servers, &tenant, &schema("device_change.avsc"), &url], "").await;
    let read: BTreeSet<(String, String, i64)> = changes
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|device| {
            let text = |field: &str| device[field].as_str().unwrap().to_owned();
            (text("uid"), text("hostname"), device["records"].as_i64().unwrap())
        })
        .collect();
    let select = "SELECT 'sr:' || uid, hostname, records::bigint FROM views_1.devices";
    let rows = client.query(select, &[]).await.unwrap();
    let devices: BTreeSet<_> = rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    assert_eq!(read, devices);
    driver.stop().await.unwrap();
    for topic in log.topics(Some(&tenant)).await.unwrap() {
        log.delete_topic(&topic.name).await.unwrap();
    }
}
