//! Lag, topics and the doctor, on both logs: what is told before, while and after a pipeline runs.

use std::{path::Path, process::Stdio, sync::Arc};

use serde_json::Value;
use serviceradar_log::{EmbeddedLog, KafkaConfig, KafkaLog, LogStore, NewEvent, Publisher};
use serviceradar_ops::postgres::PrivatePostgres;
use serviceradar_schemas::time::{Clock, SystemClock};
use tempfile::TempDir;
use tokio::process::Command;

use super::{Running, data, pipeline::until_ready_as, run, serviceradar, text};

/// Events that nobody can read: they become dead letters, and count as any other.
const EVENTS: usize = 5;

/// Where the Kafka of the development services answers.
async fn kafka() -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("dev/services");
    let up = Command::new(script).args(["up", "kafka"]).output().await.unwrap();
    assert!(up.status.success(), "{}", text(&up.stderr));
    let address = text(&up.stdout).lines().find_map(|line| line.strip_prefix("kafka "));
    address.unwrap().to_owned()
}

/// A tenant that the broker has not seen.
fn new_tenant(of: &str) -> String {
    format!("{of}-{}", SystemClock.now())
}

async fn publish(log: Arc<dyn LogStore>, topic: &str) {
    let event = |n: usize| NewEvent {
        key: Some(n.to_string().into()),
        value: Some("?".into()),
        ..NewEvent::default()
    };
    Publisher::new(log, topic.to_owned()).publish((0..EVENTS).map(event).collect()).await.unwrap();
}

/// What the doctor says of each check: its state, and what mends it.
fn doctor(dir: &TempDir, arguments: &[&str], code: i32) -> Vec<Value> {
    let output = run(dir, &[&["doctor", "--output", "json"], arguments].concat());
    assert_eq!(output.status.code(), Some(code), "{}", text(&output.stdout));
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn check<'a>(checks: &'a [Value], name: &str) -> &'a Value {
    checks.iter().find(|check| check["check"] == name).unwrap_or_else(|| panic!("{name}: {checks:?}"))
}

/// Sums a column of the log partitions that have it.
fn sum(rows: &[Value], column: &str) -> u64 {
    rows.iter().filter_map(|row| row[column].as_u64()).sum()
}

async fn lag_is_told(dir: &TempDir, of: &[&str], tenant: &str, open: impl Fn() -> Arc<dyn LogStore>) {
    let server = tempfile::tempdir().unwrap();
    let postgres = PrivatePostgres::start(server.path()).await.unwrap();
    let of = [of, &["--tenant", tenant, "--database", postgres.url()]].concat();
    let with = |verb: &[&str]| data(dir, &[verb, &of].concat());
    let topic = format!("{tenant}.observations");

    with(&["topics", "create"]);
    let checks = doctor(dir, &of, 4);
    assert_eq!(
        (&check(&checks, "migrations")["state"], &check(&checks, "migrations")["mend"]),
        (&"fail".into(), &"serviceradar migrate".into())
    );
    with(&["migrate"]);
    publish(open(), &topic).await;

    let status = &with(&["status"])[0];
    assert_eq!(
        (&status["phase"], &status["epoch"], &status["lag_events"]),
        (&Value::Null, &0.into(), &EVENTS.into())
    );
    assert!(status["lag_seconds"].as_f64().unwrap() > 0.0, "{status}");
    let described = with(&["topics", "describe", &topic]);
    let ends = (sum(&described, "end"), sum(&described, "frontier"), sum(&described, "lag_events"));
    assert_eq!(ends, (EVENTS as u64, 0, EVENTS as u64));
    let listed = with(&["topics", "list"]);
    let row = listed.iter().find(|row| row["topic"] == *topic).unwrap();
    assert_eq!((&row["lag_events"], &row["setting_problems"]), (&EVENTS.into(), &0.into()));

    let arguments = [&["run", "--listen", "127.0.0.1:0"], &*of].concat();
    let mut pipeline = Running::spawn(serviceradar(dir, &arguments).stderr(Stdio::null()));
    until_ready_as(dir, &mut pipeline, "writer").await;
    let running = loop {
        let status = with(&["status"]).remove(0);
        if status["dead_letters"] == EVENTS && status["lag_events"] == 0 {
            break status;
        }
    };
    assert_eq!((&running["phase"], &running["lag_seconds"]), (&"running".into(), &0.0.into()));
    assert_eq!(pipeline.interrupt(), 0);

    let status = &with(&["status"])[0];
    assert_eq!(
        (&status["phase"], &status["lag_events"], &status["lag_seconds"]),
        (&Value::Null, &0.into(), &0.0.into())
    );
    assert!(status["epoch"].as_u64().unwrap() > 0, "{status}");
    let described = with(&["topics", "describe", &topic]);
    assert_eq!(sum(&described, "frontier"), sum(&described, "end"));

    let checks = doctor(dir, &of, 0);
    for name in
        ["log", "database", "extensions", "roles", "migrations", "fingerprint", "clock of the database"]
    {
        assert_eq!(check(&checks, name)["state"], "ok", "{checks:?}");
    }
    assert_eq!(check(&checks, &format!("topic {topic}"))["state"], "ok", "{checks:?}");
}

#[tokio::test]
async fn lag_is_told_on_the_embedded_log() {
    let dir = tempfile::tempdir().unwrap();
    let open = || Arc::new(EmbeddedLog::open(&dir.path().join("log"), Arc::new(SystemClock)).unwrap()) as _;
    lag_is_told(&dir, &[], "default", open).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lag_is_told_on_kafka() {
    let dir = tempfile::tempdir().unwrap();
    let servers = kafka().await;
    let tenant = new_tenant("lag");
    let set = format!("kafka.servers={servers}");
    let config = KafkaConfig { servers, ..KafkaConfig::default() };
    lag_is_told(&dir, &["--set", &set], &tenant, || Arc::new(KafkaLog::new(&config).unwrap()) as _).await;
}

/// The settings of a topic are told one by one, and a broker that is not there with what to do.
#[tokio::test]
async fn settings_are_told_on_kafka() {
    let dir = tempfile::tempdir().unwrap();
    let set = format!("kafka.servers={}", kafka().await);
    let tenant = new_tenant("settings");
    let of = ["--set", &set, "--tenant", &tenant];
    data(&dir, &[&["topics", "create"], &of[..]].concat());
    let described = data(&dir, &[&["topics", "describe", &format!("{tenant}.decisions")], &of[..]].concat());
    let retention = described.iter().find(|row| row["setting"] == "retention.ms").unwrap();
    assert_eq!(
        (&retention["is"], &retention["must_be"], &retention["mend_it_with"]),
        (&"-1".into(), &"-1".into(), &Value::Null)
    );
    let checks = doctor(&dir, &of, 0);
    let broker = checks.iter().find(|check| check["check"].as_str().unwrap().starts_with("broker ")).unwrap();
    assert!(broker["detail"].as_str().unwrap().contains("auto.create.topics.enable"), "{broker}");

    let nobody = doctor(&dir, &["--set", "kafka.servers=127.0.0.1:1"], 4);
    let log = check(&nobody, "log");
    assert!(log["mend"].as_str().unwrap().contains("kafka.servers"), "{log}");
}
