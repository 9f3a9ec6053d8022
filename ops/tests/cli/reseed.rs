//! A tenant is emptied and crawled again, by the verbs.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use serde_json::Value;
use serviceradar_ops::postgres::PrivatePostgres;
use tempfile::TempDir;

use super::{Running, data, failure, pipeline::until_ready_as, run, serviceradar, text};

/// The network that the demo had: it answers as Armis until it is dropped. Returns where.
fn serve_armis(dir: &TempDir) -> (Running, String) {
    let faker = ["faker", "--devices", "60", "--set", "faker.listen=127.0.0.1:0", "--output", "json"];
    let mut command = serviceradar(dir, &faker);
    let mut faker = Running::spawn(command.stdout(Stdio::piped()).stderr(Stdio::null()));
    let mut announced = String::new();
    BufReader::new(faker.0.stdout.take().unwrap()).read_line(&mut announced).unwrap();
    let announced: Value = serde_json::from_str(&announced).unwrap();
    (faker, format!("armis.url={}", announced["url"].as_str().unwrap()))
}

#[tokio::test]
async fn a_tenant_is_emptied_and_crawled_again_and_has_the_devices_that_it_had() {
    let dir: TempDir = tempfile::tempdir().unwrap();
    let demo = data(&dir, &["demo", "--once", "--devices", "60"]);
    assert_eq!(demo[0]["devices"], 60);
    let server = PrivatePostgres::start(&dir.path().join("postgres")).await.unwrap();
    let run_it = ["run", "--listen", "127.0.0.1:0", "--database", server.url()];
    let mut pipeline = Running::spawn(serviceradar(&dir, &run_it).stderr(Stdio::null()));
    until_ready_as(&dir, &mut pipeline, "writer").await;
    let (_faker, armis) = serve_armis(&dir);
    let of_armis = [
        "--set",
        &*armis,
        "--set",
        "armis.secret=faker",
        "--set",
        "armis.instance=faker",
        "--database",
        server.url(),
    ];
    let with = |arguments: &[&str]| -> Vec<String> {
        arguments.iter().chain(&of_armis).map(|argument| (*argument).to_owned()).collect()
    };
    let refused = |arguments: &[&str]| {
        let arguments = with(arguments);
        failure(&dir, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let told = |arguments: &[&str]| -> Value {
        let arguments = with(arguments);
        data(&dir, &arguments.iter().map(String::as_str).collect::<Vec<_>>()).remove(0)
    };

    // Nothing happens by accident.
    assert_eq!(refused(&["truncate", "--yes-i-mean", "default"]).0, 2, "with no archive, and no word of it");
    let json = ["--output", "json"];
    let (code, words) = refused(&[&["truncate", "--no-archive"], &json[..]].concat());
    assert!(code == 1 && words.contains("--yes-i-mean default"), "{words}");
    let (_, words) = refused(&[&["truncate", "--no-archive", "--yes-i-mean", "acme"], &json[..]].concat());
    assert!(words.contains("all is as it was"), "{words}");
    let plan = told(&["truncate", "--dry-run"]);
    let becomes = |kind: &str| {
        let of_kind = |of: &&Value| of["source"].as_str().unwrap().contains(kind);
        plan["sources"].as_array().unwrap().iter().find(of_kind).unwrap()["fate"].clone()
    };
    assert_eq!((becomes("armis/faker"), becomes("mapper/")), ("crawled_again".into(), "kept".into()));
    let count = plan["devices"].as_u64().unwrap();
    assert!(count >= 60);
    let events = || data(&dir, &["topics", "describe", "default.observations"]);
    let before = events();

    let archive = dir.path().join("archive");
    let confirmed = ["--archive", archive.to_str().unwrap(), "--yes-i-mean", "default"];
    let expect = count.to_string();
    let reseeded = told(&[&["reseed", "--expect", &expect, "--tolerance", "2%"], &confirmed[..]].concat());
    assert_eq!(reseeded["devices"], count);
    assert_eq!((&reseeded["gained"], &reseeded["lost"]), (&Value::Array(vec![]), &Value::Array(vec![])));
    assert_ne!(events(), before, "the log was emptied");
    assert!(archive.join("manifest.json").exists());

    // More than expected, and less.
    for (expect, words) in [("10", "and only 10 expected"), ("1000", "and 1000 expected")] {
        let arguments = with(&[&["reseed", "--expect", expect], &confirmed[..]].concat());
        let output = run(&dir, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains(words), "{}", text(&output.stderr));
        assert!(text(&output.stdout).contains("0 gained and 0 lost"), "{}", text(&output.stdout));
    }
    let verify = ["replay", "verify", "--database", server.url()];
    assert!(run(&dir, &verify).status.success());

    // A source that cannot be crawled again goes only where somebody says so.
    let mapper = plan["sources"].as_array().unwrap().iter().filter_map(|of| of["source"].as_str());
    let mapper =
        mapper.filter_map(|name| name.strip_prefix("default/")).find(|name| name.starts_with("mapper/"));
    let truncated = told(&[&["truncate", "--lose", mapper.unwrap()], &confirmed[..]].concat());
    assert!(truncated["kept"].as_u64() < truncated["events"].as_u64(), "{truncated}");
    assert_eq!(pipeline.interrupt(), 0);
    // Where nobody would fill the views again, nothing is emptied.
    let (code, words) = refused(&[&["reseed"], &confirmed[..], &json[..]].concat());
    assert!(code == 1 && words.contains("serviceradar run"), "{words}");
}
