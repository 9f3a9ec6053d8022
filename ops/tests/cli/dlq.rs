//! `dlq`: dead letters are listed, taken apart and published again, with no database.

use std::sync::Arc;

use serde_json::Value;
use serviceradar_log::{EmbeddedLog, LogStore, NewEvent, Publisher};
use serviceradar_schemas::{Observation, encode, time::SystemClock};
use tempfile::TempDir;

use super::{data, failure, run, text};

/// Letters as the pipeline writes them: three of one reason, of which an update of the program can read two now.
async fn letters(dir: &TempDir) {
    data(dir, &["topics", "create"]);
    let log: Arc<dyn LogStore> =
        Arc::new(EmbeddedLog::open(&dir.path().join("log"), Arc::new(SystemClock)).unwrap());
    let good = |key: &str| {
        encode(&Observation {
            native_key: key.to_owned(),
            ..serde_json::from_value(serde_json::json!({
                "id": key, "event_time": "2026-01-01T00:00:00Z", "action": "ASSERT",
                "source": {"kind": "armis", "instance": "hq"},
            }))
            .unwrap()
        })
    };
    let mut cut = good("third");
    cut.truncate(cut.len() - 10);
    let letter = |(offset, value, reason): (u64, Vec<u8>, &str)| NewEvent {
        key: Some(format!("k{offset}").into()),
        value: Some(value.into()),
        headers: vec![
            ("source".to_owned(), "test".into()),
            ("dead-letter-id".to_owned(), format!("default.observations/0/{offset}").into()),
            ("dead-letter-reason".to_owned(), reason.to_owned().into()),
        ],
    };
    let letters = [
        (1, good("first"), "no such schema"),
        (2, good("second"), "no such schema"),
        (3, cut, "no such schema"),
        (4, b"\x1b[31m?".to_vec(), "the event begins with byte 0x1b, which is no framing"),
    ];
    let letters = letters.map(letter).to_vec();
    Publisher::new(log, "default.dead-letters").publish(letters).await.unwrap();
}

fn column<'a>(rows: &'a [Value], name: &str) -> Vec<&'a str> {
    rows.iter().map(|row| row[name].as_str().unwrap_or("-")).collect()
}

#[tokio::test]
async fn dead_letters_are_listed_shown_and_replayed_once() {
    let dir = tempfile::tempdir().unwrap();
    letters(&dir).await;
    let id = |offset: u64| format!("default.observations/0/{offset}");

    let listed = data(&dir, &["dlq", "list"]);
    assert_eq!(listed.len(), 4);
    let first = data(&dir, &["dlq", "list", "--oldest-first", "--limit", "1", "--topic", "observations"]);
    assert_eq!((&first[0]["id"], &first[0]["key"]), (&id(1).into(), &"k1".into()));
    assert_eq!(data(&dir, &["dlq", "list", "--reason", "schema", "--since", "1h"]).len(), 3);
    assert_eq!(data(&dir, &["dlq", "list", "--topic", "decisions"]), Vec::<Value>::new());
    let summary = data(&dir, &["dlq", "list", "--summary"]);
    assert_eq!((&summary[0]["letters"], &summary[0]["reason"]), (&3.into(), &"no such schema".into()));

    let shown = data(&dir, &["dlq", "show", &id(3)]).remove(0);
    let (fault, length) = (&shown["fault"], shown["bytes"].as_u64().unwrap());
    assert_eq!((&fault["at"], &shown["readable"]), (&length.into(), &false.into()), "{shown}");
    assert!(fault["excerpt"].as_str().unwrap().contains(&format!("^^ byte {length}")));
    assert_eq!(shown["headers"][0]["name"], "source");
    assert_eq!(shown["headers"].as_array().unwrap().len(), 1);
    assert!(shown["fields"].as_array().unwrap().iter().any(|field| field["path"] == "source.kind"));
    let told = run(&dir, &["dlq", "show", &id(4)]);
    let told = text(&told.stdout);
    assert!(told.contains("wrong at byte 0") && told.contains("^^ byte 0"), "{told}");
    assert!(!told.contains('\x1b'), "a letter reaches the terminal as it is");
    let (code, why) = failure(&dir, &["dlq", "show", &id(9)]);
    assert!(code == 1 && why.contains("dlq list"), "{why}");
    assert_eq!(failure(&dir, &["dlq", "show", "nothing"]).0, 2);
    assert_eq!(failure(&dir, &["dlq", "replay"]).0, 2, "all of them must be asked for");

    let replay = |arguments: &[&str], code: i32| -> Vec<Value> {
        let output = run(&dir, &[&["dlq", "replay", "--output", "json"], arguments].concat());
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let dry = replay(&["--all", "--dry-run"], 4);
    assert_eq!(column(&dry, "outcome"), ["readable", "readable", "refused", "refused"]);
    assert_eq!(column(&replay(&[&id(1)], 0), "outcome"), ["replayed"]);
    let all = replay(&["--all"], 4);
    assert_eq!(column(&all, "outcome"), ["replayed before", "replayed", "refused", "refused"]);
    assert!(all[2]["why"].as_str().unwrap().contains("truncated"), "{all:?}");
    let forced = replay(&["--reason", "no such schema", "--even-unreadable"], 0);
    assert_eq!(column(&forced, "outcome"), ["replayed before", "replayed before", "replayed"]);
    assert_eq!(column(&replay(&[&id(1), "--again"], 0), "outcome"), ["replayed"]);
    assert!(replay(&[&id(9)], 4).is_empty());

    let topics = data(&dir, &["topics", "list"]);
    let events = |topic: &str| &topics.iter().find(|row| row["topic"] == topic).unwrap()["events"];
    assert_eq!((events("default.observations"), events("default.dead-letters")), (&4.into(), &8.into()));
    let replayed = data(&dir, &["dlq", "list"]);
    assert_eq!(replayed.len(), 4, "marks are no letters");
    assert_eq!(replayed.iter().filter(|row| row["replayed"].is_null()).count(), 1);
}
