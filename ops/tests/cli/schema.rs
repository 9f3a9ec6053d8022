//! The schemas of events, for whoever wants to publish or read them.

use serde_json::{Value, json};

use super::{data, failure, run, serviceradar, text};

const NOBODY: &str = "schema_registry.url=http://127.0.0.1:1";

#[test]
fn schemas_are_listed_shown_and_exported_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let listed = data(&dir, &["schema", "list", "--tenant", "acme"]);
    let named = |name: &str| listed.iter().find(|row| row["event"] == name).unwrap();
    let observation = named("serviceradar.v1.Observation");
    assert_eq!(observation["subject"], "acme.observations-value");
    assert_eq!(observation["fingerprint"], "fb7a81ca041d9466");

    let shown = run(&dir, &["schema", "show", "Observation"]);
    let schema: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(observation["fields"], schema["fields"].as_array().unwrap().len());
    let (code, words) = failure(&dir, &["schema", "show", "Telegram"]);
    assert_eq!(code, 2);
    assert!(words.contains("serviceradar.v1.DeviceChange"), "{words}");

    let folder = dir.path().join("schemas");
    let export = ["schema", "export", folder.to_str().unwrap()];
    assert_eq!(data(&dir, &export).iter().filter(|row| row["state"] == "written").count(), listed.len());
    assert!(data(&dir, &export).iter().all(|row| row["state"] == "unchanged"));
    let file = folder.join("observation.avsc");
    assert_eq!(std::fs::read(&file).unwrap(), shown.stdout);
    // Somebody's own work is in it, and nothing else is touched either.
    std::fs::write(&file, "{}").unwrap();
    std::fs::remove_file(folder.join("decision.avsc")).unwrap();
    let (code, words) = failure(&dir, &export);
    assert_eq!(code, 1);
    assert!(words.contains("observation.avsc") && words.contains("another folder"), "{words}");
    assert_eq!(std::fs::read(&file).unwrap(), b"{}");
    assert!(!folder.join("decision.avsc").exists());
}

#[test]
fn a_breaking_change_is_found_before_a_registry_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    assert!(data(&dir, &["schema", "check"]).iter().all(|row| row["state"] == "fine"));

    let shown = run(&dir, &["schema", "show", "serviceradar.v1.Decision"]);
    let candidate = |name: &str, field: Value| {
        let mut schema: Value = serde_json::from_slice(&shown.stdout).unwrap();
        schema["fields"].as_array_mut().unwrap().push(field);
        let file = dir.path().join(name);
        std::fs::write(&file, schema.to_string()).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let fine = candidate("fine.avsc", json!({"name": "ticket", "type": "string", "default": ""}));
    let breaking = candidate("breaking.avsc", json!({"name": "ticket", "type": "string"}));
    assert_eq!(data(&dir, &["schema", "check", &fine])[0]["state"], "fine");

    let mut check = serviceradar(&dir, &["schema", "check", &fine, &breaking, "--output", "json"]);
    let output = check.args(["--set", "schema_registry.url="]).output().unwrap();
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    let rows: Vec<Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&rows[0]["state"], &rows[1]["state"]), (&json!("fine"), &json!("wrong")));
    assert!(rows[1]["detail"].as_str().unwrap().contains("ticket"), "{rows:?}");

    assert_eq!(failure(&dir, &["schema", "check", "no-such-file"]).0, 1);
}

/// Publishing without the ids that were asked for would be another contract.
#[test]
fn a_registry_that_is_gone_has_the_code_of_what_cannot_be_reached() {
    let dir = tempfile::tempdir().unwrap();
    for verb in [&["schema", "check"][..], &["run", "--listen", "127.0.0.1:0"]] {
        let (code, words) = failure(&dir, &[verb, &["--set", NOBODY]].concat());
        assert_eq!(code, 3, "{verb:?}: {words}");
        assert!(words.contains("schema_registry.url"), "{words}");
    }
    let doctor = run(&dir, &["doctor", "--set", NOBODY]);
    assert_eq!(doctor.status.code(), Some(4));
    assert!(text(&doctor.stdout).contains("gives no answer"), "{}", text(&doctor.stdout));
}
