//! Rows by lengths of time, and the newest row of each thing.

use serde_json::{Value, json};
use serviceradar_schemas::{DeviceChange, time};
use serviceradar_srql::{error::Code, reader::Reader};
use serviceradar_streams::{changes::Changes, rows::EpochOutput};
use serviceradar_tests::{database::Database, views_conformance};

use super::{ask, fill, reader};

fn at(text: &str) -> i64 {
    time::parse(text).unwrap()
}

/// Devices, each seen at a time, with a vendor and a score.
async fn seen(times: &[(&str, &str, i32)]) -> Database {
    let database = Database::migrated_timescale().await;
    let devices = (1..).zip(times).map(|(n, (seen, vendor, risk))| DeviceChange {
        last_seen: at(seen),
        vendor_name: Some((*vendor).to_owned()),
        risk_score: Some(*risk),
        ..views_conformance::device(n, "one")
    });
    let devices = Changes { new: devices.collect(), ..Changes::default() };
    fill(&database.views().await, "acme", EpochOutput { devices, ..EpochOutput::default() }).await;
    database
}

async fn rows(reader: &mut Reader, query: &str) -> Value {
    let answer = ask(reader, "acme", query, at("2026-04-01T00:00:00Z")).await;
    json!(answer.unwrap_or_else(|errors| panic!("{query}: {errors:?}")).rows)
}

#[tokio::test]
async fn buckets_are_of_the_zone_where_they_are_days() {
    // In Berlin the night to the 29th has no hour from two to three.
    let database = seen(&[
        ("2026-03-28T22:59:59Z", "A", 10),
        ("2026-03-28T23:00:00Z", "A", 20),
        ("2026-03-29T21:59:59Z", "B", 40),
        ("2026-03-29T22:00:00Z", "B", 80),
        ("2026-03-31T12:00:00Z", "A", 50),
    ])
    .await;
    let mut reader = reader(&database).await;
    let berlin = "in:devices tz:Europe/Berlin bucket:1d";
    assert_eq!(
        rows(&mut reader, berlin).await,
        json!([
            ["2026-03-27T23:00:00Z", null, 1],
            ["2026-03-28T23:00:00Z", null, 2],
            ["2026-03-29T22:00:00Z", null, 1],
            ["2026-03-30T22:00:00Z", null, 1],
        ])
    );
    assert_eq!(
        rows(&mut reader, "in:devices bucket:1d series:vendor value-field:risk_score agg:max").await,
        json!([
            ["2026-03-28T00:00:00Z", "A", 20],
            ["2026-03-29T00:00:00Z", "B", 80],
            ["2026-03-31T00:00:00Z", "A", 50],
        ])
    );
    assert_eq!(
        rows(&mut reader, "in:devices bucket:1d fill:null value_field:risk_score").await,
        json!([
            ["2026-03-28T00:00:00Z", null, 15.0],
            ["2026-03-29T00:00:00Z", null, 60.0],
            ["2026-03-30T00:00:00Z", null, null],
            ["2026-03-31T00:00:00Z", null, 50.0],
        ])
    );
    // A week begins on Monday, a quarter in January.
    for (query, first) in [
        ("in:devices bucket:1w", "2026-03-23T00:00:00Z"),
        ("in:devices bucket:3mo", "2026-01-01T00:00:00Z"),
        ("in:devices bucket:1y tz:Asia/Tokyo", "2025-12-31T15:00:00Z"),
        ("in:devices bucket:90m", "2026-03-28T22:30:00Z"),
    ] {
        assert_eq!(rows(&mut reader, query).await[0][0], first, "{query}");
    }
    // Of more rows than are wanted, the newest buckets that are whole.
    for (limit, kept) in [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5)] {
        let query = format!("in:devices bucket:1d series:risk_score limit:{limit}");
        let found = rows(&mut reader, &query).await;
        assert_eq!(found.as_array().unwrap().len(), kept, "{query}: {found}");
        assert_eq!(found[kept - 1][0], "2026-03-31T00:00:00Z", "{query}");
    }
    assert_eq!(
        rows(&mut reader, "in:devices bucket:1d stats:'count() as n by vendor_name' having:n>1").await,
        json!([["2026-03-28T00:00:00Z", "A", 2], ["2026-03-29T00:00:00Z", "B", 2]])
    );
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused() {
    let database = seen(&[("2026-03-28T22:59:59Z", "A", 10)]).await;
    let mut reader = reader(&database).await;
    for (query, code) in [
        ("in:devices bucket:0m", Code::BadValue),
        ("in:devices bucket:often", Code::BadValue),
        ("in:devices bucket:99999y", Code::BadValue),
        ("in:devices bucket:1d agg:avg", Code::BadValue),
        ("in:devices bucket:1d agg:middle value_field:risk_score", Code::BadValue),
        ("in:devices bucket:1d value_field:name", Code::BadOperator),
        ("in:devices bucket:1d value_field:nothing", Code::UnknownField),
        ("in:devices bucket:1d series:tags", Code::NotGroupable),
        ("in:devices bucket:1d fill:zero", Code::BadValue),
        ("in:devices bucket:1d sort:name", Code::BadValue),
        ("in:devices series:name", Code::BadValue),
        ("in:devices fill:null", Code::BadValue),
        ("in:devices agg:avg", Code::BadValue),
        ("in:identity_issues bucket:1d", Code::BadOperator),
        ("in:identity_issues bucket:1d stats:count()", Code::BadOperator),
        ("in:identity_issues latest:true", Code::BadOperator),
        ("in:devices latest:perhaps", Code::BadValue),
    ] {
        let errors = ask(&mut reader, "acme", query, 0).await.expect_err(query);
        assert_eq!(errors[0].code, code, "{query}: {errors:?}");
    }
}

#[tokio::test]
async fn latest_is_the_newest_row_within_the_time_before_anything_else_is_asked() {
    let database = seen(&[("2026-03-28T22:59:59Z", "A", 10)]).await;
    let client = database.client().await;
    for (epoch, seen, change) in
        [(1, "2026-03-01", "created"), (2, "2026-03-02", "retired"), (3, "2026-03-03", "changed")]
    {
        let insert = format!(
            "INSERT INTO serviceradar_base.device_history (tenant, uid, at, generation, epoch, change, cause)
             VALUES ('acme', '00000000-0000-0000-0000-000000000001', '{seen}', 1, {epoch}, '{change}', '')"
        );
        client.batch_execute(&insert).await.unwrap();
    }
    let mut reader = reader(&database).await;
    let base = "in:device_history latest:true fields:change";
    assert_eq!(rows(&mut reader, base).await, json!([["changed"]]));
    assert_eq!(rows(&mut reader, &format!("{base} change:retired")).await, json!([]));
    assert_eq!(
        rows(&mut reader, &format!("{base} change:retired time:[2026-03-01,2026-03-02]")).await,
        json!([["retired"]])
    );
    assert_eq!(rows(&mut reader, "in:device_history latest:true stats:count()").await, json!([[1]]));
}
