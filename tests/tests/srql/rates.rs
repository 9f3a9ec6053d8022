//! Rates of counters, against one computed by hand.

use std::collections::BTreeMap;

use proptest::{collection::vec, prelude::Strategy, strategy::ValueTree, test_runner::TestRunner};
use serde_json::{Value, json};
use serviceradar_schemas::time::{self, SECOND};
use serviceradar_srql::reader::Reader;
use serviceradar_streams::rows::EpochOutput;
use serviceradar_tests::{database::Database, views_conformance};
use uuid::Uuid;

use super::{ask, fill, reader};

const START: i64 = 1_767_225_600_000_000;

/// By device, seconds since the start and a count.
type Counters = BTreeMap<u128, Vec<(i64, i64)>>;

/// What grew, per second, by rows in order; nothing of fewer than two, or of one moment.
fn rate(rows: &[(i64, i64)]) -> Option<f64> {
    let (first, last) = (rows.first()?.0, rows.last()?.0);
    let grown = rows.windows(2).map(|pair| {
        let (before, after) = (pair[0].1, pair[1].1);
        if after < before { after } else { after - before }
    });
    (last > first).then(|| grown.sum::<i64>() as f64 / (last - first) as f64)
}

async fn counting(counters: &Counters) -> Database {
    let database = Database::migrated_timescale().await;
    fill(&database.views().await, "acme", EpochOutput::default()).await;
    let client = database.client().await;
    for (device, rows) in counters {
        for (at, count) in rows {
            let (uid, at) = (Uuid::from_u128(*device), time::format(START + at * SECOND));
            let insert = format!(
                "INSERT INTO serviceradar_base.device_history (tenant, uid, at, generation, epoch, change, cause)
                 VALUES ('acme', '{uid}', '{at}', 1, {count}, 'changed', '')"
            );
            client.batch_execute(&insert).await.unwrap();
        }
    }
    database
}

async fn rows(reader: &mut Reader, query: &str) -> Vec<Vec<Value>> {
    let answer = ask(reader, "acme", query, START + 3_600 * SECOND).await;
    answer.unwrap_or_else(|errors| panic!("{query}: {errors:?}")).rows
}

#[tokio::test]
async fn rates_are_those_computed_by_hand() {
    let mut runner = TestRunner::deterministic();
    let counts = vec((0..180i64, 0..9i64), 1..7);
    let mut counters: Counters = (1..=40u128)
        .map(|device| {
            let mut rows = counts.new_tree(&mut runner).unwrap().current();
            // In the order of time, and of the key in which counts of one time differ.
            rows.sort_unstable();
            rows.dedup();
            (device, rows)
        })
        .collect();
    counters.insert(41, vec![(0, 5), (10, 25), (20, 3), (30, 9)]);
    counters.insert(42, vec![(7, 1), (7, 8)]);
    counters.insert(43, vec![(7, i64::MAX), (8, i64::MIN + 1), (9, i64::MAX)]);
    let database = counting(&counters).await;
    let mut reader = reader(&database).await;
    let found =
        rows(&mut reader, "in:device_history stats:'rate(epoch) as r by uid' sort:uid limit:1000").await;
    assert_eq!(found.len(), counters.len());
    let mut above = 0;
    for (row, (device, counts)) in found.iter().zip(&counters) {
        assert_eq!(row[0], format!("sr:{}", Uuid::from_u128(*device)));
        let by_hand = if *device == 43 { Some(i64::MAX as f64 / 2.0) } else { rate(counts) };
        let is_near = match (row[1].as_f64(), by_hand) {
            (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * b.abs(),
            (a, b) => a == b,
        };
        assert!(*device == 43 || is_near, "{counts:?}: {row:?}, by hand {by_hand:?}");
        above += usize::from(row[1].as_f64().is_some_and(|rate| rate > 0.05));
    }
    // 20, then from 0 to 3, then 6, in 30 s.
    assert_eq!(found[40][1], json!(29.0 / 30.0));
    assert_eq!(found[41][1], Value::Null);
    let many =
        rows(&mut reader, "in:device_history stats:'rate(epoch) as r by uid' having:r>0.05 limit:1000").await;
    assert_eq!(many.len(), above);
    // Of a length of time, what is within it.
    let by_minute =
        rows(&mut reader, "in:device_history bucket:1m agg:rate value_field:epoch series:uid limit:1000")
            .await;
    let grouped = rows(
        &mut reader,
        "in:device_history bucket:1m stats:'rate(epoch) by uid' sort:timestamp:asc,uid limit:1000",
    )
    .await;
    assert_eq!(by_minute, grouped);
    let mut minutes = 0;
    for (device, counts) in counters.iter().filter(|(device, _)| **device != 43) {
        let uid = format!("sr:{}", Uuid::from_u128(*device));
        let mut within: BTreeMap<i64, Vec<(i64, i64)>> = BTreeMap::new();
        for row in counts {
            within.entry(row.0 / 60).or_default().push(*row);
        }
        for (minute, counts) in within {
            let at = time::format(START + minute * 60 * SECOND);
            let row = by_minute.iter().find(|row| row[0] == at && row[1] == uid).unwrap();
            assert_eq!(row[2].as_f64().is_some(), rate(&counts).is_some(), "{counts:?}: {row:?}");
            let (a, b) = (row[2].as_f64().unwrap_or_default(), rate(&counts).unwrap_or_default());
            assert!((a - b).abs() <= 1e-9 * b.abs(), "{counts:?}: {row:?}");
            minutes += 1;
        }
    }
    assert!(minutes > 60, "{minutes}");
    assert_eq!(rows(&mut reader, "in:device_history change:none stats:rate(epoch)").await, [[Value::Null]]);
}

#[tokio::test]
async fn rates_are_of_any_entity_that_has_a_time() {
    let database = Database::migrated_timescale().await;
    fill(&database.views().await, "acme", views_conformance::first_epoch().output).await;
    let mut reader = reader(&database).await;
    for query in [
        "in:devices stats:'rate(records) by type' having:rate_records>0",
        "in:device_records stats:'rate(device.risk_score), rate(device.records) by source_kind'",
        "in:snapshots stats:rate(counted) bucket:1d",
        "in:device_history latest:true stats:rate(epoch)",
    ] {
        rows(&mut reader, query).await;
    }
}
