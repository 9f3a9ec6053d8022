//! The command line, as programs and people see it.

#![allow(clippy::unwrap_used, clippy::panic)]

#[path = "../process/mod.rs"]
mod process;

mod archive;
mod as_of;
mod bench;
mod decide;
mod demo;
mod dlq;
mod drift;
mod explain;
mod import;
mod lag;
mod pipeline;
mod query;
mod reseed;
mod resolve;
mod schema;
mod shell;
mod terminal;
mod textfile;
mod tutorial;

use std::{
    io::{BufRead, BufReader},
    process::{Command, Output, Stdio},
};

use process::{Running, apart, text};
use serde_json::Value;
use tempfile::TempDir;

fn serviceradar(dir: &TempDir, arguments: &[&str]) -> Command {
    let mut command = apart(dir, env!("CARGO_BIN_EXE_serviceradar"));
    command.args(arguments).arg("--dir").arg(dir.path());
    command
}

fn run(dir: &TempDir, arguments: &[&str]) -> Output {
    serviceradar(dir, arguments).output().unwrap()
}

/// The data of a run that must succeed.
fn data(dir: &TempDir, arguments: &[&str]) -> Vec<Value> {
    let output = serviceradar(dir, arguments).args(["--output", "json"]).output().unwrap();
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Code and words of a run that must fail, and print no data.
fn failure(dir: &TempDir, arguments: &[&str]) -> (i32, String) {
    let output = run(dir, arguments);
    assert_eq!(text(&output.stdout), "", "{arguments:?}");
    (output.status.code().unwrap(), text(&output.stderr).to_owned())
}

#[test]
fn what_is_wrong_with_the_configuration_has_its_own_code_and_names_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let (code, words) = failure(&dir, &["topics", "list", "--set", "faker.sed=1"]);
    assert_eq!(code, 2);
    assert!(words.contains("did you mean faker.seed?"), "{words}");
    let (code, words) = failure(&dir, &["sync", "armis", "--once"]);
    assert_eq!(code, 2);
    assert!(words.contains("SERVICERADAR_ARMIS_URL"), "{words}");
    assert_eq!(failure(&dir, &["no-such-verb"]).0, 2);
}

#[test]
fn the_configuration_shows_where_values_came_from_and_no_secret() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("serviceradar");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("key"), "s3cret").unwrap();
    std::fs::write(folder.join("config.toml"), "tenant = \"acme\"\n[armis]\nsecret_file = \"key\"").unwrap();
    let mut command = serviceradar(&dir, &["config", "show", "--origin", "--log", "warn"]);
    let output =
        command.env("SERVICERADAR_DATABASE_URL", "postgresql://u:an-0penS3same@h/d").output().unwrap();
    let shown = text(&output.stdout);
    let line = |key: &str| shown.lines().find(|line| line.starts_with(key)).unwrap();
    assert!(line("tenant").contains("acme") && line("tenant").contains("config.toml"), "{shown}");
    assert!(line("log_level").ends_with("--log"), "{shown}");
    assert!(line("database.url").ends_with("SERVICERADAR_DATABASE_URL"), "{shown}");
    assert!(!shown.contains("s3cret") && !shown.contains("0penS3same"), "{shown}");
}

#[test]
fn doctor_fails_with_its_own_code_on_a_database_that_does_not_answer() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = ["doctor", "--database", "postgresql://u@127.0.0.1:1/d"];
    let output = run(&dir, &nobody);
    assert_eq!(output.status.code(), Some(4));
    assert!(text(&output.stdout).contains("does not answer"), "{}", text(&output.stdout));
}

#[test]
fn topics_are_deleted_only_when_their_name_is_typed() {
    let dir = tempfile::tempdir().unwrap();
    let names =
        |rows: &[Value]| rows.iter().map(|row| row["topic"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    let created = data(&dir, &["topics", "create", "--tenant", "acme"]);
    let topic = "acme.observations";
    assert!(names(&created).iter().any(|name| name == topic), "{created:?}");
    assert_eq!(data(&dir, &["topics", "describe", topic]).len(), 6);

    assert!(run(&dir, &["topics", "delete", topic, "--dry-run"]).status.success());
    assert_eq!(failure(&dir, &["topics", "delete", topic]).0, 1);
    assert_eq!(failure(&dir, &["topics", "delete", topic, "--confirm", "acme.decisions"]).0, 1);
    assert_eq!(data(&dir, &["topics", "list"]), created);

    assert!(run(&dir, &["topics", "delete", topic, "--confirm", topic]).status.success());
    assert!(!names(&data(&dir, &["topics", "list"])).iter().any(|name| name == topic));
    assert_eq!(failure(&dir, &["topics", "describe", topic]).0, 1);
}

#[test]
fn a_faker_that_serves_is_crawled_into_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["faker", "--devices", "300", "--set", "faker.listen=127.0.0.1:0", "--output", "json"];
    let mut faker = Running::spawn(serviceradar(&dir, &arguments).stdout(Stdio::piped()));
    let mut announced = String::new();
    BufReader::new(faker.0.stdout.take().unwrap()).read_line(&mut announced).unwrap();
    let announced: Value = serde_json::from_str(&announced).unwrap();
    let url = format!("armis.url={}", announced["url"].as_str().unwrap());
    let secret = format!("armis.secret={}", announced["secret"].as_str().unwrap());
    let sync = ["sync", "armis", "--once", "--set", &url, "--set", &secret, "--set", "armis.page_size=100"];

    let report = data(&dir, &sync);
    assert_eq!((&report[0]["records"], &report[0]["pages"]), (&300.into(), &3.into()));
    let topics = data(&dir, &["topics", "list"]);
    let of = topics.iter().find(|row| row["topic"] == "default.observations").unwrap();
    assert_eq!(of["events"], 302, "the devices, a begin and an end");

    assert_eq!(faker.interrupt(), 0);
    assert_eq!(failure(&dir, &sync).0, 3, "nobody answers there now");
}

#[test]
fn a_reader_of_the_data_may_leave_early() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = serviceradar(&dir, &["config", "show"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), ""));
}

#[test]
fn every_verb_has_help_and_the_codes_are_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let help = run(&dir, &["--help"]);
    assert!(text(&help.stdout).contains("Exit codes:"));
    let completions = run(&dir, &["completions", "bash"]);
    assert!(text(&completions.stdout).contains("serviceradar") && completions.status.success());
}
