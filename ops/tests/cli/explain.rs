//! `explain`: by whatever somebody knows a device by, of two, and of an attribute.

use serde_json::Value;
use serviceradar_ops::postgres::PrivatePostgres;
use tokio_postgres::NoTls;

use super::{data, failure, run, text};

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
