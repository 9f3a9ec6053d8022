//! The demo: what it ends with, what it prints, and that it goes on after whatever happened to it.

use std::{
    io::{BufRead, BufReader, Read},
    process::Stdio,
};

use serde_json::Value;
use tempfile::TempDir;

use super::{Running, failure, serviceradar, text};

/// Runs a demo to its end; returns the one line that it must print.
fn once(dir: &TempDir, devices: &str, arguments: &[&str]) -> Value {
    let arguments = [&["demo", "--once", "--devices", devices, "--output", "json"], arguments].concat();
    let output = serviceradar(dir, &arguments).output().unwrap();
    let told = text(&output.stderr);
    assert!(output.status.success(), "{told}");
    for line in told.lines() {
        assert!(serde_json::from_str::<Value>(line).unwrap().is_object(), "{line}");
    }
    assert_eq!(text(&output.stdout).lines().count(), 1, "{}", text(&output.stdout));
    serde_json::from_str(text(&output.stdout)).unwrap()
}

/// A demo that runs on its own.
fn spawn(dir: &TempDir, arguments: &[&str]) -> Running {
    let arguments = [&["demo"], arguments].concat();
    Running::spawn(serviceradar(dir, &arguments).stdout(Stdio::piped()).stderr(Stdio::piped()))
}

/// Reads what it tells on stderr until it crawls.
fn until_it_crawls(demo: &mut Running) -> BufReader<impl Read + use<>> {
    let mut told = BufReader::new(demo.0.stderr.take().unwrap());
    loop {
        let mut line = String::new();
        assert!(told.read_line(&mut line).unwrap() > 0, "it ended before it crawled");
        if line.contains(r#""step":"crawl""#) {
            return told;
        }
    }
}

#[test]
fn a_demo_finds_every_device_and_moving_addresses_changes_no_uid() {
    let dir = tempfile::tempdir().unwrap();
    let first = once(&dir, "300", &[]);
    let names: Vec<&String> = first.as_object().unwrap().keys().collect();
    assert_eq!(names, ["database_url", "devices", "records", "seconds", "uids_changed"]);
    assert_eq!((&first["devices"], &first["uids_changed"]), (&300.into(), &0.into()));
    assert!(first["records"].as_u64().unwrap() > 300, "a mapper and a sweep see some, too: {first}");
    assert!(first["seconds"].as_f64().unwrap() > 0.0);

    let again = once(&dir, "300", &["--shuffles", "2"]);
    assert_eq!((&again["devices"], &again["uids_changed"]), (&300.into(), &0.into()));
    assert_eq!(again["database_url"], first["database_url"], "a URL stays good");
}

#[test]
fn a_demo_killed_in_the_middle_of_its_crawl_goes_on_from_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut killed = spawn(&dir, &["--devices", "3000"]);
    let _told = until_it_crawls(&mut killed);
    drop(killed);
    let after = once(&dir, "3000", &[]);
    assert_eq!((&after["devices"], &after["uids_changed"]), (&3_000.into(), &0.into()));
}

#[test]
fn a_demo_that_is_interrupted_before_it_is_done_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = spawn(&dir, &["--devices", "3000"]);
    let mut told = until_it_crawls(&mut demo);
    assert_eq!(demo.interrupt(), 130);
    let mut rest = String::new();
    told.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("goes on from here"), "{rest}");
}

#[test]
fn a_demo_of_another_network_in_the_same_place_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    once(&dir, "20", &[]);
    let (code, words) = failure(&dir, &["demo", "--once", "--devices", "30"]);
    assert_eq!(code, 1);
    assert!(words.contains("of 20 devices by seed 1"), "{words}");
}

#[tokio::test]
async fn what_a_demo_prints_to_look_further_with_works_while_it_lives() {
    let dir = tempfile::tempdir().unwrap();
    let mut demo = spawn(&dir, &["--devices", "1000"]);
    let mut stderr = demo.0.stderr.take().unwrap();
    // Nobody reads it, but a full pipe would hold the demo up.
    std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::sink()));
    let mut printed = String::new();
    let mut stdout = BufReader::new(demo.0.stdout.take().unwrap());
    while !printed.contains("Armis answers at") {
        assert!(stdout.read_line(&mut printed).unwrap() > 0, "it ended: {printed}");
    }
    for title in ["Devices by type", "Devices by vendor", "What was merged", "Why", "Conflicts", "Unplaced"] {
        assert!(printed.contains(title), "{title} is missing: {printed}");
    }

    let (_, further) = printed.split_once("psql '").unwrap();
    let (url, queries) = further.split_once('\'').unwrap();
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let queries: Vec<&str> = queries.split_terminator(';').filter(|query| query.contains("SELECT")).collect();
    assert_eq!(queries.len(), 3, "{queries:?}");
    for query in queries {
        assert!(!client.query(query, &[]).await.unwrap().is_empty(), "nothing came of {query}");
    }
    assert_eq!(demo.interrupt(), 0);
}
