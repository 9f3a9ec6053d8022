//! `explain`: by whatever somebody knows a device by, of two, and of an attribute; why something is missing, and why there
//! are as many as there are.

use std::{process::Stdio, sync::Arc, time::Duration};

use serde_json::{Value, json};
use serviceradar_log::{EmbeddedLog, LogStore, NewEvent, Publisher};
use serviceradar_ops::postgres::PrivatePostgres;
use serviceradar_schemas::{
    Observation, encode,
    time::{self, Clock, DAY, SystemClock},
};
use tempfile::TempDir;
use tokio_postgres::{Client, NoTls};

use super::{Running, data, failure, pipeline::until_ready_as, run, serviceradar, text};

#[tokio::test]
async fn a_device_is_explained_by_whatever_is_known_of_it() {
    let dir = tempfile::tempdir().unwrap();
    data(&dir, &["demo", "--once", "--devices", "60"]);
    let server = PrivatePostgres::start(&dir.path().join("postgres")).await.unwrap();
    let (client, connection) = tokio_postgres::connect(server.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    let with = |arguments: &[&str]| -> Vec<String> {
        let database = ["--database", server.url()];
        let all = ["explain"].iter().chain(arguments).chain(&database);
        all.map(|argument| (*argument).to_owned()).collect()
    };
    let explain = |arguments: &[&str]| -> Value {
        let arguments = with(arguments);
        data(&dir, &arguments.iter().map(String::as_str).collect::<Vec<_>>()).remove(0)
    };
    // A mapper's record that is one device with one of Armis, and that one's MAC, name and address.
    let pair = "SELECT 'sr:' || a.uid, a.record_key, m.record_key, e.value
        FROM views_1.device_records m JOIN views_1.device_records a USING (tenant, uid)
        JOIN views_1.device_evidence e ON e.tenant = a.tenant AND e.record_key = a.record_key
        JOIN views_1.device_evidence o ON o.tenant = a.tenant AND o.record_key = m.record_key
            AND o.namespace = e.namespace AND o.value = e.value
        WHERE m.source_kind = 'mapper' AND a.source_kind = 'armis' AND m.placement = 'anchored'
            AND e.namespace = 'mac' AND e.state = 'linking' AND o.state = 'linking' ORDER BY 2, 3, 4 LIMIT 1";
    let row = client.query_one(pair, &[]).await.unwrap();
    let [uid, armis, mapper, mac] = [0, 1, 2, 3].map(|at| row.get::<_, String>(at));
    for known_by in [&uid, &armis, &mapper, &mac, &format!("mac:{mac}")] {
        let told = explain(&[known_by]);
        assert_eq!(told["device"]["uid"], *uid, "{known_by}");
    }
    let told = explain(&[&uid]);
    let records = told["records"].as_array().unwrap();
    let of = |key: &str| records.iter().find(|record| record["record_key"] == key).unwrap();
    assert_eq!(records[0]["why"], format!("its {} names the device", told["named_by"].as_str().unwrap()));
    let hangs = [of(&armis), of(&mapper)].into_iter().filter(|record| !record["link"].is_null()).count();
    assert!(hangs >= 1, "{records:?}");
    let attached = records.iter().filter(|record| record["placement"] == "attached");
    for record in attached {
        assert!(record["why"].as_str().unwrap().contains("the device has that address"), "{record}");
    }
    let claims = told["claims"].as_array().unwrap();
    let shared = claims.iter().find(|claim| claim["claim"] == format!("mac:{mac}")).unwrap();
    assert!(shared["records"].as_array().unwrap().len() >= 2, "{shared}");
    assert_eq!(told["timeline"][0]["change"], "created");

    let one = explain(&[&armis, &mapper]);
    assert_eq!(one["one_device"], true);
    let last = one["path"].as_array().unwrap().last().unwrap().clone();
    assert_eq!(last["record_key"], *mapper, "{one}");

    let other = "SELECT 'sr:' || uid FROM views_1.device_records WHERE source_kind = 'armis' AND uid <> $1::text::uuid
        ORDER BY record_key LIMIT 1";
    let bare = uid.trim_start_matches("sr:");
    let other: String = client.query_one(other, &[&bare]).await.unwrap().get(0);
    let two = explain(&[&uid, &other]);
    assert_eq!(two["one_device"], false);
    assert_eq!(two["clashes"][0]["namespace"], "armis/faker", "{two}");

    let told = explain(&[&uid, "--attribute", "ip"]);
    let offers = told["attribute"]["offers"].as_array().unwrap();
    assert!(offers[0]["lost_by"].is_null() && offers[0]["record_key"].is_string(), "{told}");
    let output = run(&dir, &with(&[&uid]).iter().map(String::as_str).collect::<Vec<_>>());
    let text = text(&output.stdout);
    for part in ["named by ", "Records, and why they are here", "Claims and addresses", "What became of it"] {
        assert!(text.contains(part), "{part}: {text}");
    }

    for (wrong, word) in [
        (&["nothing-like-it"][..], "nothing in the inventory"),
        (&["sr:00000000-0000-8000-8000-000000000000"], "nothing in the inventory"),
        (&[&*uid, "--attribute", "colour"], "nobody offers"),
    ] {
        let arguments = with(wrong);
        let (_, why) = failure(&dir, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(why.contains(word), "{wrong:?}: {why}");
    }
}

/// Publishes events, with nobody else at the log.
async fn publish(dir: &TempDir, values: Vec<Vec<u8>>) {
    let log: Arc<dyn LogStore> =
        Arc::new(EmbeddedLog::open(&dir.path().join("log"), Arc::new(SystemClock)).unwrap());
    let event = |value: Vec<u8>| NewEvent { value: Some(value.into()), ..NewEvent::default() };
    let events = values.into_iter().map(event).collect();
    Publisher::new(log, "default.observations").publish(events).await.unwrap();
}

/// An observation of the source instance `made`: `partition/kind/native key`, days ago, and the rest of it.
fn made(record: &str, days_ago: i64, rest: Value) -> Vec<u8> {
    let [partition, kind, native_key] = record.split('/').collect::<Vec<_>>()[..] else { panic!("{record}") };
    let at = time::format(SystemClock.now() - days_ago * DAY);
    let mut observation = json!({
        "id": format!("{record} {at} {rest}"), "event_time": at, "action": "ASSERT", "partition": partition,
        "source": {"kind": kind, "instance": "made"}, "native_key": native_key,
    });
    for (name, value) in rest.as_object().unwrap() {
        observation[name] = value.clone();
    }
    encode(&serde_json::from_value::<Observation>(observation).unwrap())
}

fn claiming(namespace: &str, value: &str) -> Value {
    json!({"claims": [{"namespace": namespace, "value": value}]})
}

/// Asks until a count is what it must become.
async fn until(client: &Client, sql: &str, wanted: i64) {
    for _ in 0..600 {
        if client.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{sql} never came to {wanted}: {:?}", client.query_one(sql, &[]).await.unwrap());
}

/// The reasons why a claim is missing, but for events that wait: the pipeline's own ticks may.
fn reasons(told: &Value) -> Vec<&str> {
    assert_eq!(told["there"], told["reasons"].as_array().unwrap().is_empty(), "{told}");
    let words = told["reasons"].as_array().unwrap().iter().map(|of| of["reason"].as_str().unwrap());
    words.filter(|word| *word != "behind").collect()
}

#[tokio::test]
async fn what_is_missing_is_told_with_every_reason() {
    let dir = tempfile::tempdir().unwrap();
    data(&dir, &["demo", "--once", "--devices", "60"]);
    let server = PrivatePostgres::start(&dir.path().join("postgres")).await.unwrap();
    let (client, connection) = tokio_postgres::connect(server.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    // An address that one device alone has, and had a moment ago.
    let held = "SELECT host(a.ip), 'sr:' || min(a.uid::text) FROM views_1.device_addresses a
        JOIN views_1.device_records r USING (tenant, record_key)
        WHERE a.is_current AND a.placement = 'anchored' AND r.open
        GROUP BY a.ip HAVING count(DISTINCT a.uid) = 1 AND max(a.last_seen) > now() - interval '3 hours'
        ORDER BY max(a.last_seen) DESC, a.ip LIMIT 1";
    let row = client.query_one(held, &[]).await.unwrap();
    let [address, holder] = [0, 1].map(|at| row.get::<_, String>(at));

    let mut visitor = claiming("hostname", "visitor.example");
    visitor["addresses"] = json!([{ "ip": address }]);
    let mut events = vec![
        made("default/mapper/old", 60, claiming("serial", "acme:old")),
        made("default/mapper/gone", 60, claiming("serial", "acme:gone")),
        made("default/mapper/gone", 50, json!({"action": "END"})),
        made("default/mapper/lonely", 0, claiming("hostname", "lonely.example")),
        made("default/sweep/visitor", 0, visitor),
        made("plant/mapper/pump", 0, claiming("serial", "acme:pump")),
        made("default/mapper/one", 0, claiming("serial", "acme:one")),
        made("default/mapper/two", 0, claiming("serial", "acme:two")),
        b"?acme:dead?".to_vec(),
    ];
    // An agent's id that was pasted on every host.
    let pasted = |n: i32| made(&format!("default/netbox/{n}"), 0, claiming("agent", "pasted"));
    events.extend((1..=5).map(pasted));
    publish(&dir, events).await;
    let run = ["run", "--listen", "127.0.0.1:0", "--database", server.url()];
    let mut pipeline = Running::spawn(serviceradar(&dir, &run).stderr(Stdio::null()));
    until_ready_as(&dir, &mut pipeline, "writer").await;
    until(&client, "SELECT count(*) FROM views_1.device_records WHERE source_instance = 'made'", 12).await;
    until(&client, "SELECT count(*) FROM serviceradar_base.pipeline_refusals", 1).await;
    until(&client, "SELECT count(*) FROM serviceradar_base.pipeline_outbox", 0).await;
    // Two devices become one, so that the journal has it.
    let before = time::format(SystemClock.now());
    let link =
        ["decide", "link", "serial:acme:one", "serial:acme:two", "--reason", "a test", "--actor", "ops"];
    data(&dir, &link);
    let linked = "SELECT count(DISTINCT uid) FROM views_1.device_records
        WHERE record_key IN ('default/mapper/made/one', 'default/mapper/made/two')";
    until(&client, linked, 1).await;
    assert_eq!(pipeline.interrupt(), 0);

    let ask = |arguments: &[&str]| -> Value {
        data(&dir, &[&["explain"][..], arguments, &["--database", server.url()]].concat()).remove(0)
    };
    let missing = |claim: &str| ask(&["missing", claim]);
    let told = missing("serial:acme:one");
    let [there] = &told["devices"].as_array().unwrap()[..] else { panic!("{told}") };
    let there = there.clone();
    assert_eq!(
        (&there["record_key"], &there["state"]),
        (&"default/mapper/made/one".into(), &"linking".into())
    );
    assert_eq!(missing(&address)["there"], true, "{address}");

    let told = missing("serial:acme:old");
    assert_eq!(reasons(&told), ["ended"]);
    assert_eq!(told["reasons"][0]["of"]["over"]["by"], "unseen", "{told}");
    let told = missing("serial:ACME:gone");
    assert_eq!(reasons(&told), ["ended"]);
    let over = &told["reasons"][0]["of"]["over"];
    let ended: i64 = time::parse(over["at"].as_str().unwrap()).unwrap();
    let days = (SystemClock.now() - ended) / DAY;
    assert_eq!((&over["by"], days), (&"ended".into(), 50), "{told}");

    let told = missing("hostname:lonely.example");
    assert_eq!(reasons(&told), ["unplaced"]);
    assert!(told["reasons"][0]["why"].as_str().unwrap().contains("the claim never links"), "{told}");
    let told = missing("hostname:visitor.example");
    assert_eq!(reasons(&told), ["attached"]);
    assert_eq!(told["reasons"][0]["of"]["uid"], *holder, "{told}");
    let told = missing("agent:pasted");
    assert_eq!(reasons(&told), ["refused"; 6], "each record, and the issue: {told}");
    assert!(told["reasons"][0]["why"].as_str().unwrap().contains("is quarantined"), "{told}");
    assert_eq!(told["reasons"][5]["of"]["kind"], "quarantined");
    assert_eq!(reasons(&missing("mac:ff:ff:ff:ff:ff:ff")), ["refused"]);

    let told = missing("serial:acme:pump");
    assert_eq!(reasons(&told), ["other_partition"]);
    assert_eq!(told["reasons"][0]["of"]["partition"], "plant");
    assert_eq!(ask(&["missing", "serial:acme:pump", "--partition", "plant"])["there"], true);
    let told = missing("serial:acme:dead");
    assert_eq!((reasons(&told), &told["reasons"][0]["of"]["letters"]), (vec!["dead_lettered"], &1.into()));
    assert_eq!(reasons(&missing("serial:acme:dea")), ["never_seen"], "a part of a word");

    let status = data(&dir, &["status", "--database", server.url()]).remove(0);
    let waiting = status["lag_events"].as_u64().unwrap();
    let late = ["a", "b", "c"]
        .map(|n| made(&format!("default/mapper/late-{n}"), 0, claiming("serial", "acme:late")));
    publish(&dir, late.to_vec()).await;
    let told = missing("serial:acme:late");
    assert_eq!(reasons(&told), ["never_seen"]);
    let behind = &told["reasons"][0];
    assert_eq!((&behind["reason"], &behind["of"]["events"]), (&"behind".into(), &(waiting + 3).into()));

    // What came and went is told with what did it, and adds up.
    let told = ask(&["count", "--since", &before]);
    assert_eq!(told["faults"], json!([]), "{told}");
    let merged =
        told["since"]["causes"].as_array().unwrap().iter().find(|of| of["change"] == "merged").unwrap();
    assert_eq!((&merged["cause"], &merged["devices"]), (&"claim".into(), &1.into()), "{merged}");
    let device = &merged["told"][0];
    assert_eq!((&device["other"], &told["since"]["lost"]), (&there["uid"], &1.into()), "{merged}");
    let unplaced = told["sum"].as_array().unwrap().iter().find(|of| of["of"] == "unplaced/corroborating");
    assert!(unplaced.unwrap()["records"].as_i64().unwrap() >= 1, "{told}");

    // Another tenant's is told nobody.
    let to_other = ["device_evidence WHERE record_key LIKE", "record_summaries WHERE record_key LIKE"];
    for of in to_other {
        let (table, rest) = of.split_once(' ').unwrap();
        let update = format!("UPDATE views_1.{table} SET tenant = 'other' {rest} 'plant/%'");
        assert!(client.execute(&update, &[]).await.unwrap() > 0, "{update}");
    }
    assert_eq!(reasons(&missing("serial:acme:pump")), ["never_seen"]);

    let text_of =
        run_text(&dir, &["explain", "missing", "hostname:lonely.example", "--database", server.url()]);
    assert!(text_of.contains("is not there") && text_of.contains("unplaced  the record"), "{text_of}");
    for (wrong, word) in [
        (&["explain", "missing", "lonely"][..], "is no claim"),
        (&["explain", "something", "count"], "are asked of no device"),
        (&["explain"], "required"),
    ] {
        let (code, why) = failure(&dir, wrong);
        assert!(code == 2 && why.contains(word), "{wrong:?}: {code} {why}");
    }
}

fn run_text(dir: &TempDir, arguments: &[&str]) -> String {
    text(&run(dir, arguments).stdout).to_owned()
}

#[tokio::test]
async fn the_number_of_devices_is_told_as_sums_that_close() {
    let dir = tempfile::tempdir().unwrap();
    data(&dir, &["demo", "--once", "--devices", "60"]);
    let server = PrivatePostgres::start(&dir.path().join("postgres")).await.unwrap();
    let (client, connection) = tokio_postgres::connect(server.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    let count = |since: &str, code: i32| -> (Value, String) {
        let arguments =
            ["explain", "count", "--since", since, "--output", "json", "--database", server.url()];
        let output = run(&dir, &arguments);
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        (serde_json::from_str(text(&output.stdout)).unwrap(), text(&output.stderr).to_owned())
    };
    let sql = async |count: &str| -> i64 { client.query_one(count, &[]).await.unwrap().get(0) };

    let (told, _) = count("2000-01-01T00:00:00Z", 0);
    let devices = sql("SELECT count(*) FROM views_1.devices").await;
    assert_eq!((&told["devices"], &told["faults"]), (&devices.into(), &json!([])));
    let lines = told["sum"].as_array().unwrap();
    let of = |word: &str| lines.iter().find(|line| line["of"] == word).unwrap()["records"].as_i64().unwrap();
    let all: i64 = lines.iter().map(|line| line["records"].as_i64().unwrap()).sum();
    assert_eq!(all, sql("SELECT count(*) FROM views_1.device_records").await, "{told}");
    assert_eq!(of("first"), devices);
    let further = "SELECT count(*) - count(DISTINCT uid) FROM views_1.device_records
        WHERE placement IN ('anchored', 'provisional')";
    assert_eq!(of("further"), sql(further).await);
    let attached = sql("SELECT count(*) FROM views_1.device_records WHERE placement = 'attached'").await;
    assert_eq!(lines.iter().find(|line| line["of"] == "attached").map_or(0, |_| of("attached")), attached);

    let since = &told["since"];
    let balance = since["gained"].as_i64().unwrap() - since["lost"].as_i64().unwrap();
    assert_eq!((&since["then"], balance), (&0.into(), devices), "{since}");
    let causes = since["causes"].as_array().unwrap();
    let observed = |of: &&Value| of["cause"].as_str().unwrap().starts_with("observed by ");
    let of_source = causes.iter().find(observed).unwrap();
    let shown = of_source["told"].as_array().unwrap();
    assert_eq!(shown.len() as i64, of_source["devices"].as_i64().unwrap().min(20));
    let (uid, record) = (shown[0]["uid"].as_str().unwrap(), shown[0]["records"][0].as_str().unwrap());
    let of_record = format!(
        "SELECT count(*) FROM views_1.device_records WHERE record_key = '{record}' AND 'sr:' || uid = '{uid}'
         AND 'observed by ' || source_kind || '/' || source_instance = '{}'",
        of_source["cause"].as_str().unwrap()
    );
    assert_eq!(sql(&of_record).await, 1, "{of_source}");

    let (now, _) = count("0s", 0);
    assert_eq!((&now["since"]["then"], &now["since"]["causes"]), (&devices.into(), &json!([])));
    let shown = run_text(&dir, &["explain", "count", "--database", server.url()]);
    assert!(shown.contains(&format!("{all} records = {devices} + ")), "{shown}");
    assert!(shown.starts_with("epoch "), "{shown}");

    // What does not add up is said.
    let forget = "DELETE FROM serviceradar_base.device_history WHERE change = 'created'
        AND uid = (SELECT min(uid::text)::uuid FROM serviceradar_base.device_history h
                   JOIN views_1.devices d USING (tenant, uid) WHERE h.change = 'created')";
    assert_eq!(client.execute(forget, &[]).await.unwrap(), 1);
    let (told, why) = count("0s", 4);
    assert_eq!(told["since"]["then"], devices - 1);
    assert!(why.contains(&format!("by the journal there would be {} devices", devices - 1)), "{why}");
    let lose =
        "DELETE FROM views_1.device_summaries WHERE uid = (SELECT max(uid::text)::uuid FROM views_1.devices)";
    assert_eq!(client.execute(lose, &[]).await.unwrap(), 1);
    let (told, _) = count("0s", 4);
    let fault = format!("the devices that records make come to {devices}, and there are {}", devices - 1);
    assert_eq!(told["faults"][0], *fault, "{told}");
}
