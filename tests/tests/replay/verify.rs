//! Verify: what nobody touched is what the log says, and whatever cell somebody did is named, with both values.

use std::{collections::BTreeMap, sync::Arc};

use serviceradar_log::{LogStore, MemoryLog, NewEvent, Publisher};
use serviceradar_materializers::PostgresViews;
use serviceradar_replay::verify::{Verdict, Verify, VerifyError, fields};
use serviceradar_schemas::{
    Claim, Decision, Target,
    codec::NoRegistry,
    encode,
    time::{Clock, SystemClock},
    topics::Stream,
};
use serviceradar_tests::{
    database::Database,
    stand::{Network, TENANT, decisions, drive, make_topics, observation, observations},
};
use tokio_postgres::Client;

async fn verify(log: &Arc<dyn LogStore>, url: &str) -> Result<Verdict, VerifyError> {
    let views = PostgresViews::connect(url).await.unwrap();
    let verify = Verify {
        tenant: TENANT.to_owned(),
        workers: 1,
        log: log.clone(),
        writers: Arc::new(NoRegistry),
        clock: Arc::new(SystemClock),
    };
    verify.run(&views, |_| {}).await
}

/// A log with something of everything, and views that took it in over many epochs.
async fn written(devices: usize) -> (Arc<dyn LogStore>, Database) {
    let log: Arc<dyn LogStore> = Arc::new(MemoryLog::new(Arc::new(SystemClock)));
    let (network, database) = (Network::new(devices).await, Database::migrated().await);
    make_topics(&log).await;
    let driver = drive(log.clone(), database.url()).await;
    network.look(&log).await;
    driver.caught_up().await.unwrap();
    network.look(&log).await;
    driver.caught_up().await.unwrap();
    let claim = Claim { namespace: "mac".into(), value: "00:1b:21:00:00:01".into() };
    let decision = Decision {
        id: "d".to_owned(),
        event_time: SystemClock.now(),
        partition: "default".to_owned(),
        action: "block".to_owned(),
        target: Target { claim: Some(claim), ..Target::default() },
        actor: "test".to_owned(),
        ..Decision::default()
    };
    let event = |key: String, value: Vec<u8>| NewEvent {
        key: Some(key.into_bytes().into()),
        value: Some(value.into()),
        headers: Vec::new(),
    };
    decisions(&log).publish(vec![event(decision.key(), encode(&decision))]).await.unwrap();
    let publisher = Publisher::new(log.clone(), Stream::Observations.topic(TENANT));
    publisher.publish(vec![event("default/armis/hq/garbage".into(), b"garbage".to_vec())]).await.unwrap();
    // Two records that claim one thing are one device, and one that claims nothing is none.
    let mut bare = observation("3", SystemClock.now());
    bare.claims.clear();
    let seen = [observation("1", SystemClock.now()), observation("2", SystemClock.now()), bare];
    observations(&log).publish(seen).await.unwrap();
    driver.caught_up().await.unwrap();
    driver.stop().await.unwrap();
    (log, database)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_that_nobody_touched_are_what_the_log_says() {
    let (log, database) = written(300).await;
    let verdict = verify(&log, database.url()).await.unwrap();
    assert!(verdict.is_clean(), "{verdict:#?}");
    assert_eq!((verdict.differences, verdict.refused), (Vec::new(), 1));
    let client = database.client().await;
    for table in &verdict.tables {
        let from = if table.table.starts_with("pipeline") { "serviceradar_base" } else { "views_1" };
        let count = format!("SELECT count(*) FROM {from}.{}", table.table);
        let rows: i64 = client.query_one(&count, &[]).await.unwrap().get(0);
        assert_eq!(rows.cast_unsigned(), table.rows, "{}", table.table);
    }
    let events: i64 = client
        .query_one("SELECT sum(records)::bigint FROM serviceradar_base.pipeline_epochs", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!(verdict.events, events.cast_unsigned());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_committed_meanwhile_is_not_looked_at() {
    let (log, database) = written(100).await;
    let driver = drive(log.clone(), database.url()).await;
    let publishing = observations(&log);
    let publish = tokio::spawn(async move {
        for n in 0..200 {
            let seen = [observation(&format!("m{n}"), SystemClock.now())];
            publishing.publish(seen).await.unwrap();
        }
    });
    for _ in 0..5 {
        let verdict = verify(&log, database.url()).await.unwrap();
        assert!(verdict.is_clean(), "{verdict:#?}");
    }
    publish.await.unwrap();
    driver.caught_up().await.unwrap();
    driver.stop().await.unwrap();
    assert!(verify(&log, database.url()).await.unwrap().is_clean());
}

/// A value of another kind than any that is there, by the type of a column.
fn other_value(kind: &str, column: &str) -> String {
    match kind {
        "text" => "'tampered'".to_owned(),
        "integer" | "bigint" => format!("coalesce({column}, 0) + 7"),
        "boolean" => format!("NOT coalesce({column}, false)"),
        "timestamp with time zone" => format!("coalesce({column}, now()) + interval '1 hour'"),
        "inet" => "'203.0.113.77'".to_owned(),
        "uuid" => "'6b3fd1a5-0000-4000-8000-000000000001'".to_owned(),
        "jsonb" => r#"'{"tampered": "1"}'"#.to_owned(),
        "text[]" => "'{tampered}'".to_owned(),
        "uuid[]" => "'{6b3fd1a5-0000-4000-8000-000000000001}'".to_owned(),
        other => panic!("no other value of {other}"),
    }
}

/// Columns of the tables of the generation: table, column, type.
async fn columns(client: &Client) -> Vec<(String, String, String)> {
    let select = "SELECT c.relname::text, quote_ident(a.attname), format_type(a.atttypid, NULL)
        FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
        WHERE c.relnamespace = 'views_1'::regnamespace AND c.relkind = 'r' AND a.attnum > 0
          AND NOT a.attisdropped AND a.attgenerated = '' AND a.attname NOT IN ('tenant', 'epoch', 'modified_at')
        ORDER BY 1, a.attnum";
    let rows = client.query(select, &[]).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_cell_that_was_changed_by_hand_is_found() {
    let (log, database) = written(60).await;
    let client = database.client().await;
    let mut looked_at = BTreeMap::<String, usize>::new();
    for (table, column, kind) in columns(&client).await {
        let select = format!(
            "SELECT ctid::text, {column}::text FROM views_1.{table} ORDER BY ({column} IS NULL), ctid LIMIT 1"
        );
        let Some(row) = client.query_opt(&select, &[]).await.unwrap() else {
            continue;
        };
        let (place, before): (String, Option<String>) = (row.get(0), row.get(1));
        let set = |value: String, place: &str| {
            format!(
                "UPDATE views_1.{table} SET {column} = {value} WHERE ctid = '{place}' RETURNING ctid::text"
            )
        };
        let place: String =
            client.query_one(&set(other_value(&kind, &column), &place), &[]).await.unwrap().get(0);
        match verify(&log, database.url()).await {
            Ok(verdict) => {
                let differences = &verdict.differences;
                assert!(!verdict.is_clean() && !differences.is_empty(), "{table}.{column}: {verdict:#?}");
                assert!(differences.iter().all(|of| of.stored != of.recomputed), "{table}.{column}");
            }
            // A word that no epoch writes.
            Err(VerifyError::Views(error)) => {
                let told = error.to_string();
                let named = ["tampered", "the row of devices sr:", "the row of \"default/"];
                assert!(named.iter().any(|words| told.contains(words)), "{table}.{column}: {told}");
            }
            Err(error) => panic!("{table}.{column}: {error}"),
        }
        let back = before.map_or("NULL".to_owned(), |text| format!("'{}'::{kind}", text.replace('\'', "''")));
        client.query_one(&set(back, &place), &[]).await.unwrap();
        *looked_at.entry(table).or_default() += 1;
    }
    assert!(looked_at.len() >= 8 && looked_at.values().sum::<usize>() > 80, "{looked_at:?}");
    assert!(verify(&log, database.url()).await.unwrap().is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cell_is_named_with_both_values_and_so_are_rows_too_many_and_too_few() {
    let (log, database) = written(60).await;
    let client = database.client().await;
    let select = "SELECT 'sr:' || uid, vendor_name FROM views_1.device_summaries
                  WHERE vendor_name IS NOT NULL ORDER BY uid LIMIT 1";
    let row = client.query_one(select, &[]).await.unwrap();
    let (uid, vendor): (String, String) = (row.get(0), row.get(1));
    let update = "UPDATE views_1.device_summaries SET vendor_name = 'Nobody' WHERE 'sr:' || uid = $1";
    client.execute(update, &[&uid]).await.unwrap();
    let deleted: String = client
        .query_one(
            "DELETE FROM views_1.record_summaries WHERE record_key = (SELECT min(record_key)
             FROM views_1.record_summaries) RETURNING record_key",
            &[],
        )
        .await
        .unwrap()
        .get(0);
    let invented = "INSERT INTO views_1.device_counts VALUES ($1, 'default', 'type', 'Toaster', 1, 0, 0, 1)";
    client.execute(invented, &[&TENANT]).await.unwrap();
    client
        .execute(
            "UPDATE serviceradar_base.pipeline_hashes SET sums = set_byte(sums, 9, 255 - get_byte(sums, 9))
        WHERE table_name = 'device_evidence'",
            &[],
        )
        .await
        .unwrap();

    let verdict = verify(&log, database.url()).await.unwrap();
    assert!(!verdict.is_clean());
    let of = |table: &str| verdict.differences.iter().filter(|of| of.table == table).collect::<Vec<_>>();
    let devices = of("devices");
    assert_eq!(devices.len(), 1, "{devices:#?}");
    let (stored, recomputed) = (devices[0].stored.as_ref().unwrap(), devices[0].recomputed.as_ref().unwrap());
    assert_eq!(devices[0].key, uid);
    assert_eq!(fields(stored, recomputed), [("vendor_name", &"Nobody".into(), &vendor.into())]);
    // What searches go by says what the device said before.
    assert_eq!(of("device_search").len(), 1);
    let records = of("device_records");
    assert_eq!((records.len(), &records[0].key, &records[0].stored), (1, &deleted, &None));
    let counts = of("device_counts");
    assert_eq!((counts.len(), &*counts[0].key, &counts[0].recomputed), (1, "default type Toaster", &None));
    let unlike_kept = |table: &str| verdict.tables.iter().find(|of| of.table == table).unwrap().unlike_kept;
    assert_eq!(unlike_kept("devices"), Some(1));
    assert_eq!(unlike_kept("device_evidence"), Some(1), "sums that somebody changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_lacks_what_was_read_is_named() {
    let (log, database) = written(30).await;
    let topic = Stream::Observations.topic(TENANT);
    let end = log.offsets(&topic, 2).await.unwrap().end;
    log.delete_before(&topic, 2, end - 1).await.unwrap();
    let error = verify(&log, database.url()).await.unwrap_err().to_string();
    assert!(
        error.contains(&format!("{topic}/2")) && error.contains(&format!("accept-gap {topic}/2:0-")),
        "{error}"
    );
    let empty = Database::migrated().await;
    assert!(matches!(verify(&log, empty.url()).await, Err(VerifyError::Empty(_))));
}
