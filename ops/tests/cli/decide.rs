//! `decide` and `sync retire`: what an operator says, in the log and in the views.

use std::time::Duration;

use serde_json::Value;
use serviceradar_ops::postgres::PrivatePostgres;
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use super::{Running, data, failure, pipeline::until_ready_as, serviceradar};

#[test]
fn what_makes_no_sense_is_refused_before_it_is_published() {
    let dir = tempfile::tempdir().unwrap();
    let because = ["--reason", "a test"];
    for (arguments, word) in [
        (&["decide", "block", "mac:00:1b:21:00:00:01"][..], "--reason"),
        (&["decide", "block", "nothing"], "namespace:value"),
        (&["decide", "block", "mac:ff:ff:ff:ff:ff:ff"], "no usable claim"),
        (&["decide", "link", "armis/hq:7", "mac:00:1b:21:00:00:01"], "tier 1"),
        (&["decide", "detach", "elsewhere/armis/hq/7"], "a key of its partition"),
        (&["decide", "pin-value", "armis/hq:7", "name"], "needs a value"),
        (&["decide", "hold-snapshot", "armis/hq", "yesterday"], "instant such as"),
    ] {
        let arguments = if word == "--reason" { arguments.to_vec() } else { [arguments, &because].concat() };
        let (_, why) = failure(&dir, &arguments);
        assert!(why.contains(word), "{arguments:?}: {why}");
    }
    assert!(!dir.path().join("log").exists(), "something was published");
}

/// A value of the views, once it is what it must become.
async fn until<T>(client: &Client, sql: &str, is_right: impl Fn(&[T]) -> bool) -> Vec<T>
where
    T: for<'a> tokio_postgres::types::FromSql<'a> + std::fmt::Debug,
{
    for _ in 0..600 {
        let rows: Vec<T> = client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect();
        if is_right(&rows) {
            return rows;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{sql} never became right: {:?}", client.query(sql, &[]).await.unwrap());
}

#[tokio::test]
async fn a_decision_changes_the_views_and_its_revocation_restores_them() {
    let dir: TempDir = tempfile::tempdir().unwrap();
    let demo = data(&dir, &["demo", "--once", "--devices", "30"]);
    assert_eq!(demo[0]["devices"], 30);
    let server = PrivatePostgres::start(&dir.path().join("postgres")).await.unwrap();
    let (client, connection) = tokio_postgres::connect(server.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    let run = ["run", "--listen", "127.0.0.1:0", "--database", server.url()];
    let mut pipeline = Running::spawn(serviceradar(&dir, &run).stderr(std::process::Stdio::null()));
    until_ready_as(&dir, &mut pipeline, "writer").await;

    let decide = |arguments: &[&str]| -> Value {
        data(&dir, &[arguments, &["--reason", "a test", "--actor", "ops"]].concat()).remove(0)
    };
    let of_records = "SELECT coalesce(uid::text, '') FROM views_1.device_records ORDER BY record_key";
    let before: Vec<String> = until(&client, of_records, |rows: &[String]| rows.len() > 30).await;
    // A mapper's record that is one device with one of Armis.
    let shared = "SELECT m.record_key || ' ' || a.record_key || ' ' || e.value
        FROM views_1.device_records m JOIN views_1.device_records a USING (uid)
        JOIN views_1.device_evidence e ON e.record_key = a.record_key AND e.namespace = 'armis/faker'
        WHERE m.source_kind = 'mapper' AND a.source_kind = 'armis' ORDER BY 1 LIMIT 1";
    let shared: Vec<String> = until(&client, shared, |rows: &[String]| !rows.is_empty()).await;
    let [mapper, armis, id] = shared[0].split(' ').collect::<Vec<_>>()[..] else { panic!("{shared:?}") };
    let claim = format!("armis/faker:{id}");

    let detached = decide(&["decide", "detach", mapper]);
    assert_eq!((&detached["action"], &detached["target"]), (&"detach".into(), &mapper.into()));
    until(&client, of_records, |now: &[String]| now != before).await;
    decide(&["decide", "revoke", "detach", mapper]);
    until(&client, of_records, |now: &[String]| now == before).await;

    decide(&["decide", "pin-value", &claim, "name", "the boss's"]);
    let name = format!(
        "SELECT d.name FROM views_1.devices d JOIN views_1.device_records r USING (uid) WHERE r.record_key = '{armis}'"
    );
    until(&client, &name, |rows: &[Option<String>]| rows == [Some("the boss's".to_owned())]).await;
    decide(&["decide", "revoke", "pin-value", &claim, "name"]);
    until(&client, &name, |rows: &[Option<String>]| rows != [Some("the boss's".to_owned())]).await;

    // What an operator holds, `status` shows with the command that accepts it; and that does.
    let begun =
        "SELECT to_char(begin AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') FROM views_1.snapshots
        WHERE source_kind = 'armis'";
    let begun: Vec<String> = until(&client, begun, |rows: &[String]| rows.len() == 1).await;
    let of_fetch = ["armis/faker", &begun[0]];
    let verdict = "SELECT verdict FROM views_1.snapshots WHERE source_kind = 'armis'";
    let status = ["status", "--database", server.url()];
    let held = || data(&dir, &status)[0]["held"].as_array().unwrap().clone();
    decide(&[&["decide", "hold-snapshot"], &of_fetch[..]].concat());
    until(&client, verdict, |rows: &[String]| rows == ["held"]).await;
    let [fetch] = &held()[..] else { panic!("{:?}", held()) };
    assert_eq!((&fetch["source"], &fetch["why"]), (&"armis/faker".into(), &"a test".into()));
    let told = super::run(&dir, &status);
    let told = super::text(&told.stdout);
    let way_out = told.split("accept it: serviceradar ").nth(1).unwrap();
    let (way_out, _) = way_out.split_once(" --reason").unwrap();
    decide(&way_out.split(' ').collect::<Vec<_>>());
    until(&client, verdict, |rows: &[String]| rows == ["accepted"]).await;
    assert_eq!(held(), Vec::<Value>::new());

    let open = "SELECT count(*) FROM views_1.device_records WHERE source_kind = 'armis' AND open";
    until(&client, open, |rows: &[i64]| rows == [30]).await;
    let retired = data(&dir, &["sync", "retire", "armis/faker", "--reason", "gone"]).remove(0);
    assert_eq!((&retired["action"], &retired["target"]), (&"accept_snapshot".into(), &"armis/faker".into()));
    until(&client, open, |rows: &[i64]| rows == [0]).await;
    assert_eq!(pipeline.interrupt(), 0);
}
