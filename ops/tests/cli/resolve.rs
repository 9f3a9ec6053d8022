//! `resolve` and `rules`.

use std::{fs, path::PathBuf};

use serde_json::{Value, json};

use super::{TempDir, data, failure, run, text};

fn given(name: &str) -> String {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/data/identity_logs");
    folder.join(name).to_str().unwrap().to_owned()
}

#[test]
fn given_logs_print_what_they_must_line_by_line() {
    let dir = tempfile::tempdir().unwrap();
    for log in 1..=40 {
        let [observations, decisions, expected] =
            ["observations", "decisions", "expected"].map(|what| given(&format!("{log:02}.{what}.jsonl")));
        let printed = data(&dir, &["resolve", &observations, "--decisions", &decisions]);
        let expected = fs::read_to_string(expected).unwrap();
        let expected: Vec<Value> = expected.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(printed, expected, "log {log}");
    }
}

#[test]
fn a_line_that_is_no_observation_is_named_and_nothing_is_printed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("observations.jsonl");
    let good = json!({"event_time": "2026-03-01T00:00:00Z", "source": {"kind": "armis", "instance": "hq"},
        "native_key": "1", "action": "ASSERT"});
    for (bad, word) in [(r#"{"event_time": "yesterday"}"#, "yesterday"), ("garbage", "no event in JSON")] {
        fs::write(&file, format!("{good}\n\n{good}\n{bad}\n{good}\n")).unwrap();
        let (code, why) = failure(&dir, &["resolve", file.to_str().unwrap()]);
        assert!(code == 1 && why.contains("line 4") && why.contains(word), "{why}");
    }
    // What the pipeline would refuse is told, and keeps nothing back.
    let nameless = json!({"event_time": "2026-03-01T00:00:00Z", "source": {"kind": "armis", "instance": "hq"},
        "action": "ASSERT"});
    fs::write(&file, format!("{nameless}\n{good}\n")).unwrap();
    let output = run(&dir, &["resolve", file.to_str().unwrap(), "--output", "json"]);
    let told = text(&output.stderr);
    assert!(output.status.success() && told.contains("native_key") && told.contains("\"line\":1"), "{told}");
    assert_eq!(text(&output.stdout).lines().count(), 3);
    let (_, why) = failure(&dir, &["resolve", "nowhere.jsonl"]);
    assert!(why.contains("cannot open nowhere.jsonl"), "{why}");
}

/// A file is read in pieces, by several threads, and lines are written so.
#[test]
fn a_long_file_is_read_whole_and_its_lines_are_counted_through() {
    const LINES: usize = 45_000;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("observations.jsonl");
    let padding = "x".repeat(100);
    let line = |at: usize| {
        let key = if [20_000, 44_000].contains(&at) { String::new() } else { format!("{at:06}") };
        json!({"event_time": "2026-03-01T00:00:00Z", "source": {"kind": "armis", "instance": "hq"},
            "native_key": key, "action": "ASSERT", "hostname": padding})
        .to_string()
    };
    let mut lines: Vec<String> = (1..=LINES).map(line).collect();
    // No end of line after the last.
    fs::write(&file, lines.join("\n")).unwrap();
    let output = run(&dir, &["resolve", file.to_str().unwrap(), "--output", "json"]);
    let told = text(&output.stderr);
    let refused: Vec<usize> = told.match_indices("\"line\":").map(|(at, _)| at).collect();
    assert!(refused.len() == 2 && told[refused[0]..].starts_with("\"line\":20000"), "{told}");
    assert!(told[refused[1]..].starts_with("\"line\":44000"), "{told}");
    let printed = text(&output.stdout);
    let keys = printed.lines().filter_map(|line| line.split("default/armis/hq/").nth(1)?.get(..6));
    assert!(keys.eq((1..=LINES).filter(|at| ![20_000, 44_000].contains(at)).map(|at| format!("{at:06}"))));

    lines[44_998] = "x".repeat(9 << 20);
    fs::write(&file, lines.join("\n")).unwrap();
    let (code, why) = failure(&dir, &["resolve", file.to_str().unwrap()]);
    assert!(code == 1 && why.contains("line 44999: longer than 8388608 bytes"), "{why}");
}

#[test]
fn other_rules_give_other_devices_and_are_compared() {
    let dir: TempDir = tempfile::tempdir().unwrap();
    let rules = dir.path().join("rules.toml");
    let rules_file = rules.to_str().unwrap();
    fs::write(&rules, "[caps]\nspread_of_a_source = 1\n").unwrap();
    let observations = dir.path().join("observations.jsonl");
    let observation = |key: &str| {
        json!({"event_time": "2026-03-01T00:00:00Z", "source": {"kind": "mapper", "instance": "m"},
            "native_key": key, "action": "ASSERT", "claims": [{"namespace": "mac", "value": "00:1b:21:00:00:01"}]})
    };
    fs::write(&observations, format!("{}\n{}\n", observation("1"), observation("2"))).unwrap();
    let file = observations.to_str().unwrap();
    let by_default = data(&dir, &["resolve", file]);
    assert_eq!(by_default[0]["placement"], "anchored");
    assert_eq!(by_default[0]["uid"], by_default[1]["uid"]);
    let by_these = data(&dir, &["resolve", file, "--rules", rules_file]);
    assert_eq!(by_these[0]["placement"], "unplaced");
    assert_eq!(by_these[3]["issues"][0][0], "generic");

    let shown = run(&dir, &["rules", "show"]);
    let all = dir.path().join("all.toml");
    fs::write(&all, &shown.stdout).unwrap();
    let checked = data(&dir, &["rules", "check", all.to_str().unwrap()]);
    let other = data(&dir, &["rules", "check", rules_file]);
    assert_ne!(checked[0]["fingerprint"], other[0]["fingerprint"]);
    assert_eq!(text(&run(&dir, &["rules", "diff", all.to_str().unwrap(), "--output", "json"]).stdout), "");
    let differs = data(&dir, &["rules", "diff", all.to_str().unwrap(), rules_file]);
    assert_eq!(differs, [json!({"key": "caps.spread_of_a_source", "before": 16, "after": 1})]);
    fs::write(&rules, "[caps]\nspreed = 1\n").unwrap();
    let (code, why) = failure(&dir, &["rules", "check", rules_file]);
    assert!(code == 1 && why.contains("spreed"), "{why}");
}
