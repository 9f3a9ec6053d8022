//! Metrics of verbs that end: a file for whoever gathers them, and nothing that keeps the verb from its work.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use serde_json::json;
use serviceradar_schemas::time::{Clock, SECOND, SystemClock};
use tempfile::TempDir;

use super::{data, failure, run, text};

/// A file of two observations; its path.
fn observations(dir: &TempDir) -> String {
    let observation = |key: &str| {
        json!({"event_time": "2026-03-01T00:00:00Z", "source": {"kind": "armis", "instance": "hq"},
            "native_key": key, "action": "ASSERT", "hostname": format!("host-{key}")})
    };
    let path = dir.path().join("armis.jsonl");
    fs::write(&path, format!("{}\n{}\n", observation("1"), observation("2"))).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A value of `replay import`, of a step or of all of it.
fn value(file: &Path, metric: &str, step: Option<&str>) -> f64 {
    let step = step.map_or_else(String::new, |step| format!(",step=\"{step}\""));
    let series = format!("serviceradar_{metric}{{tenant=\"default\",verb=\"replay import\"{step}}} ");
    let content = fs::read_to_string(file).unwrap();
    let found = content.lines().find_map(|line| line.strip_prefix(&*series));
    found.unwrap_or_else(|| panic!("{series}: {content}")).parse().unwrap()
}

#[test]
fn a_file_says_how_far_each_step_came_and_whether_the_last_run_failed() {
    let (dir, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let lines = observations(&dir);
    let set = format!("metrics.textfile_dir={}", folder.path().display());
    data(&dir, &["topics", "create", "--set", &set]);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "a verb without steps is not told of");

    let begin = SystemClock.now() / SECOND;
    data(&dir, &["replay", "import", &lines, "--set", &set]);
    let file = folder.path().join("serviceradar_default_replay_import.prom");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing else is left");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o644);
    let bytes = fs::metadata(&lines).unwrap().len() as f64;
    for (step, size) in [("check", bytes), ("import", 2.0)] {
        assert_eq!(value(&file, "step_done", Some(step)), size);
        assert_eq!(value(&file, "step_size", Some(step)), size);
        assert!(value(&file, "step_per_second", Some(step)) > 0.0);
        assert!(value(&file, "verb_seconds", None) >= value(&file, "step_seconds", Some(step)));
    }
    assert_eq!((value(&file, "verb_running", None), value(&file, "verb_failed", None)), (0.0, 0.0));
    let succeeded = value(&file, "verb_last_success_timestamp_seconds", None);
    assert!(succeeded >= begin as f64);
    let content = fs::read_to_string(&file).unwrap();
    assert!(content.contains("# TYPE serviceradar_verb_failed gauge\n"), "{content}");
    assert!(content.contains("# HELP serviceradar_verb_failed 1 if "), "{content}");

    // It ends before its first step.
    failure(&dir, &["replay", "import", "no-such-file", "--set", &set]);
    assert_eq!((value(&file, "verb_running", None), value(&file, "verb_failed", None)), (0.0, 1.0));
    assert_eq!(value(&file, "verb_last_success_timestamp_seconds", None), succeeded);
}

#[test]
fn where_no_file_can_be_written_one_warning_says_so_and_the_work_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let lines = observations(&dir);
    data(&dir, &["topics", "create"]);
    let nowhere = dir.path().join("nowhere");
    let set = format!("metrics.textfile_dir={}", nowhere.display());
    let import = run(&dir, &["replay", "import", &lines, "--set", &set]);
    let words = text(&import.stderr);
    assert!(import.status.success(), "{words}");
    assert_eq!(words.matches("is not written").count(), 1, "{words}");
    assert!(words.contains("metrics.textfile_dir") && !nowhere.exists(), "{words}");
    let topics = data(&dir, &["topics", "list"]);
    let of = topics.iter().find(|row| row["topic"] == "default.observations").unwrap();
    assert_eq!(of["events"], 2);
}
