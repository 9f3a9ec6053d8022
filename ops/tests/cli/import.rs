//! `replay import`: files of observations become devices; one with a mistake becomes nothing.

use std::{fs, process::Stdio};

use serde_json::{Value, json};
use serviceradar_ops::postgres::PrivatePostgres;
use serviceradar_schemas::{Event, Observation, codec::container::ContainerWriter};
use tempfile::TempDir;

use super::{Running, data, failure, pipeline::until_ready_as, run, serviceradar, text};

fn observation(kind: &str, key: &str) -> Value {
    json!({"event_time": "2026-03-01T00:00:00Z", "source": {"kind": kind, "instance": "hq"}, "native_key": key,
        "action": "ASSERT", "hostname": format!("{kind}-{key}")})
}

/// Writes a file into the folder; its path.
fn file(dir: &TempDir, name: &str, content: &[u8]) -> String {
    let path = dir.path().join(name);
    fs::write(&path, content).unwrap();
    path.to_str().unwrap().to_owned()
}

fn container(observations: &[Value]) -> Vec<u8> {
    let mut writer = ContainerWriter::new(Observation::SCHEMA, [7; 16]);
    let mut file = writer.header().to_vec();
    for observation in observations {
        let observation: Observation = serde_json::from_value(observation.clone()).unwrap();
        file.extend(writer.push(&observation).unwrap().unwrap_or_default());
    }
    file.extend(writer.block().unwrap().unwrap_or_default());
    file
}

/// How many events a topic has.
fn events(dir: &TempDir, topic: &str) -> u64 {
    let topics = data(dir, &["topics", "list"]);
    topics.iter().find(|row| row["topic"] == topic).map_or(0, |row| row["events"].as_u64().unwrap())
}

#[tokio::test]
async fn observations_of_files_become_devices_and_the_same_ones_once_more_change_nothing() {
    let (dir, server) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let lines = format!("{}\n\n{}\n", observation("armis", "1"), observation("armis", "2"));
    let lines = file(&dir, "armis.jsonl", lines.as_bytes());
    let records = container(&["1", "2", "3"].map(|key| observation("netbox", key)));
    let records = file(&dir, "netbox.avro", &records);
    let import = ["replay", "import", &lines, &records];
    let (code, words) = failure(&dir, &import);
    assert!(code == 1 && words.contains("topics create"), "{words}");

    data(&dir, &["topics", "create"]);
    let planned = data(&dir, &[&import[..], &["--dry-run"]].concat());
    let expected =
        [json!({"source": "armis/hq", "observations": 2}), json!({"source": "netbox/hq", "observations": 3})];
    assert_eq!(planned, expected);
    assert_eq!(events(&dir, "default.observations"), 0, "a dry run published something");
    for times in 1..=2 {
        assert_eq!(data(&dir, &import), planned);
        assert_eq!(events(&dir, "default.observations"), 5 * times);
        assert_eq!(events(&dir, "system.operations"), 2 * times, "begun and done");
    }

    let postgres = PrivatePostgres::start(server.path()).await.unwrap();
    assert!(run(&dir, &["migrate", "--database", postgres.url()]).status.success());
    let pipeline = ["run", "--listen", "127.0.0.1:0", "--database", postgres.url()];
    let mut pipeline = Running::spawn(serviceradar(&dir, &pipeline).stderr(Stdio::null()));
    until_ready_as(&dir, &mut pipeline, "writer").await;
    let devices = [
        "query",
        "--database",
        postgres.url(),
        "in:devices include_retired:true fields:hostname",
        "--as",
        "ndjson",
    ];
    let devices = run(&dir, &devices);
    let devices: Vec<Value> =
        text(&devices.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let mut names: Vec<&str> = devices.iter().map(|row| row["hostname"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["armis-1", "armis-2", "netbox-1", "netbox-2", "netbox-3"]);
    assert_eq!(pipeline.interrupt(), 0);
}

#[test]
fn a_file_with_a_mistake_publishes_nothing_but_where_it_is_to_be_left_out() {
    let dir = tempfile::tempdir().unwrap();
    data(&dir, &["topics", "create"]);
    let good = file(&dir, "good.jsonl", observation("armis", "1").to_string().as_bytes());
    let nameless = observation("armis", "");
    let bad = format!("{}\n{nameless}\ngarbage\n", observation("armis", "2"));
    let bad = file(&dir, "bad.jsonl", bad.as_bytes());
    let import = ["replay", "import", &good, &bad];
    let (code, words) = failure(&dir, &import);
    assert_eq!(code, 4);
    for word in ["bad.jsonl", "\"line\":2", "native_key", "\"line\":3", "2 of 4", "--skip-bad"] {
        assert!(words.contains(word), "{word}: {words}");
    }
    let mut cut = container(&[observation("netbox", "1")]);
    cut.truncate(cut.len() - 1);
    let cut = file(&dir, "cut.avro", &cut);
    let (code, words) = failure(&dir, &["replay", "import", &good, &cut, "--skip-bad"]);
    assert!(code == 1 && words.contains("cut.avro behind record 0: it ends in the middle"), "{words}");
    assert_eq!(events(&dir, "default.observations"), 0);
    assert_eq!(events(&dir, "system.operations"), 0, "nothing was begun");

    let left_out = run(&dir, &[&import[..], &["--skip-bad", "--output", "json"]].concat());
    assert_eq!(left_out.status.code(), Some(4));
    assert!(text(&left_out.stderr).contains("2 observations were left out"), "{}", text(&left_out.stderr));
    let row: Value = serde_json::from_slice(&left_out.stdout).unwrap();
    assert_eq!(row, json!({"source": "armis/hq", "observations": 2}));
    assert_eq!(events(&dir, "default.observations"), 2);
}

/// It is read twice, and can be only once.
#[test]
fn standard_input_is_imported_whole() {
    let dir = tempfile::tempdir().unwrap();
    data(&dir, &["topics", "create"]);
    let lines: String = (0..3).map(|key| format!("{}\n", observation("armis", &key.to_string()))).collect();
    let lines = file(&dir, "lines", lines.as_bytes());
    let given = fs::File::open(lines).unwrap();
    let import = serviceradar(&dir, &["replay", "import", "-"]).stdin(given).output().unwrap();
    assert!(import.status.success(), "{}", text(&import.stderr));
    assert_eq!(events(&dir, "default.observations"), 3);
}
