//! Every implementation of `Views` under one suite.

use serviceradar_materializers::{MemoryViews, views::Views};
use serviceradar_schemas::time::DAY;
use serviceradar_tests::{database::Database, views_conformance as laws};

/// A test of each law over memory, PostgreSQL, and PostgreSQL with TimescaleDB.
macro_rules! laws {
    ($($law:ident),* $(,)?) => {
        mod memory {
            use super::*;
            $(#[tokio::test] async fn $law() { laws::$law(&MemoryViews::default()).await; })*
        }
        mod postgres {
            use super::*;
            $(#[tokio::test] async fn $law() {
                let database = Database::migrated().await;
                laws::$law(&database.views().await).await;
            })*
        }
        mod timescale {
            use super::*;
            $(#[tokio::test] async fn $law() {
                let database = Database::migrated_timescale().await;
                laws::$law(&database.views().await).await;
            })*
        }
    };
}

laws! {
    begins_empty,
    reads_back_what_was_committed,
    loads_in_pieces,
    commits_once,
    fences_the_writer_before,
    tells_where_a_tenant_stands,
    lets_a_writer_follow_itself,
    refuses_another_fingerprint,
    keeps_tenants_apart,
    publishes_in_order_what_changed,
}

/// A load that broke off between its two commits left rows of devices and no epoch: the next one begins anew,
/// whether or not another tenant has rows.
#[tokio::test]
async fn a_load_forgets_what_one_left_that_broke_off() {
    for other_tenant in [false, true] {
        let database = Database::migrated().await;
        let (views, client) = (database.views().await, database.client().await);
        if other_tenant {
            laws::load(&views, "other").await;
        }
        laws::load(&views, "acme").await;
        let tables = "serviceradar_base.pipeline_epochs serviceradar_base.pipeline_frontiers
            serviceradar_base.pipeline_watermarks serviceradar_base.pipeline_outbox views_1.record_summaries
            views_1.device_evidence views_1.identity_issues views_1.device_counts views_1.decisions
            views_1.snapshots views_1.snapshot_members";
        for table in tables.split_whitespace() {
            client.execute(&format!("DELETE FROM {table} WHERE tenant = 'acme'"), &[]).await.unwrap();
        }
        let of_records =
            "DELETE FROM serviceradar_base.view_changes WHERE tenant = 'acme' AND entity <> 'devices'";
        client.execute(of_records, &[]).await.unwrap();
        let counts = async || {
            let select = "SELECT (SELECT count(*) FROM views_1.device_summaries),
                (SELECT count(*) FROM views_1.device_details), (SELECT count(*) FROM views_1.device_search),
                (SELECT count(*) FROM views_1.record_attributes),
                (SELECT count(*) FROM serviceradar_base.device_history),
                (SELECT count(*) FROM serviceradar_base.view_changes WHERE entity = 'devices')";
            let row = client.query_one(select, &[]).await.unwrap();
            [0, 1, 2, 3, 4, 5].map(|at| row.get::<_, i64>(at))
        };
        let left = counts().await;
        assert!(left.iter().all(|count| *count > 0), "{left:?}");
        laws::load(&views, "acme").await;
        assert_eq!(counts().await, left, "with another tenant: {other_tenant}");
    }
}

/// The sums that epochs kept are those of the rows, in memory and in PostgreSQL, and show a row that no epoch wrote.
#[tokio::test]
async fn sums_of_epochs_are_those_of_the_rows() {
    let memory = MemoryViews::default();
    laws::reads_back_what_was_committed(&memory).await;
    let tables = memory.tables("acme");
    assert_eq!(tables.sums, tables.sums_of_rows());
    let database = Database::migrated().await;
    let (views, client) = (database.views().await, database.client().await);
    laws::load(&views, "other").await;
    laws::loads_in_pieces(&views).await;
    let (kept, of_rows) = views.sums("acme").await.unwrap();
    assert_eq!((&kept, &of_rows), (&tables.sums, &tables.sums));
    for wrong in [
        "UPDATE views_1.device_summaries SET site = 'x' WHERE tenant = 'acme' AND name = 'three'",
        "UPDATE views_1.record_attributes SET attributes = '{\"name\": \"y\"}' WHERE tenant = 'acme'
            AND record_key = 'default/armis/hq/1'",
        "DELETE FROM views_1.device_evidence WHERE tenant = 'acme' AND value = '10.0.0.1'",
    ] {
        assert_eq!(client.execute(wrong, &[]).await.unwrap(), 1, "{wrong}");
    }
    let (kept, of_rows) = views.sums("acme").await.unwrap();
    assert_eq!(kept, tables.sums);
    for ((table, kept), (_, of_rows)) in kept.tables().into_iter().zip(of_rows.tables()) {
        assert_eq!(kept.difference(of_rows).len(), 1, "{table}");
    }
    let (kept, of_rows) = views.sums("other").await.unwrap();
    assert_eq!(kept, of_rows);
}

/// What indexes sightings: the ten seconds that a device was last seen in, and sorts by last_seen can go by them.
#[tokio::test]
async fn the_period_of_a_sighting_is_its_ten_seconds() {
    let database = Database::migrated().await;
    let (views, client) = (database.views().await, database.client().await);
    laws::reads_back_what_was_committed(&views).await;
    let differ = "SELECT count(*) FILTER (WHERE last_seen_period
            IS DISTINCT FROM date_bin('10 seconds', last_seen, 'epoch')), count(*) FROM views_1.device_summaries";
    let row = client.query_one(differ, &[]).await.unwrap();
    let (differ, devices): (i64, i64) = (row.get(0), row.get(1));
    assert!(differ == 0 && devices > 0, "{differ} of {devices}");
    views.make_indexes(1).await.unwrap();
    client.batch_execute("SET enable_seqscan = off; SET enable_sort = off").await.unwrap();
    let explain = "EXPLAIN SELECT uid FROM views_1.device_summaries WHERE tenant = 'acme'
        ORDER BY last_seen_period DESC NULLS LAST, last_seen DESC NULLS LAST, uid LIMIT 10";
    let plan: Vec<String> =
        client.query(explain, &[]).await.unwrap().iter().map(|row| row.get::<_, String>(0)).collect();
    assert!(plan.iter().any(|line| line.contains("device_summaries_last_seen")), "{plan:?}");
}

/// A program may be killed when it has the index of a key, and has not made it a key.
#[tokio::test]
async fn an_index_that_was_to_be_a_key_becomes_one() {
    let database = Database::migrated().await;
    let (views, client) = (database.views().await, database.client().await);
    laws::load(&views, "acme").await;
    views.make_indexes(1).await.unwrap();
    let halfway = "ALTER TABLE views_1.device_search DROP CONSTRAINT device_search_pkey;
        CREATE UNIQUE INDEX device_search_pkey ON views_1.device_search (tenant, uid) INCLUDE (name, state)";
    client.batch_execute(halfway).await.unwrap();
    let is_bare = async || views.take("acme", "w", "f1", &serde_json::json!({})).await.unwrap().1.is_bare;
    assert!(is_bare().await);
    views.make_indexes(1).await.unwrap();
    assert!(!is_bare().await);
    let keys = "SELECT count(*) FROM pg_constraint
        WHERE contype = 'p' AND conrelid = 'views_1.device_search'::regclass";
    assert_eq!(client.query_one(keys, &[]).await.unwrap().get::<_, i64>(0), 1);
}

/// Journals are hypertables where TimescaleDB is, and old rows go on both kinds of server.
#[tokio::test]
async fn journals_forget_what_is_old() {
    for (database, hypertables) in
        [(Database::migrated().await, 0), (Database::migrated_timescale().await, 2)]
    {
        let (views, client) = (database.views().await, database.client().await);
        laws::load(&views, "acme").await;
        let extension = "SELECT count(*) FROM pg_extension WHERE extname = 'timescaledb'";
        let has_timescale: i64 = client.query_one(extension, &[]).await.unwrap().get(0);
        assert_eq!(has_timescale > 0, hypertables > 0, "{}", database.url());
        if has_timescale > 0 {
            let select = "SELECT count(*) FROM timescaledb_information.hypertables
                WHERE hypertable_name IN ('device_history', 'device_merges')";
            assert_eq!(client.query_one(select, &[]).await.unwrap().get::<_, i64>(0), hypertables);
        }
        let old = "INSERT INTO serviceradar_base.device_history
                SELECT tenant, uid, generation, epoch, at - interval '40 days', change, before, after, cause
                FROM serviceradar_base.device_history";
        let copied = client.execute(old, &[]).await.unwrap();
        assert!(copied > 0, "nothing to forget");
        let count = async || {
            let select = "SELECT count(*)::bigint, (extract(epoch FROM max(at)) * 1000000)::bigint
                FROM serviceradar_base.device_history";
            let row = client.query_one(select, &[]).await.unwrap();
            (row.get::<_, i64>(0) as u64, row.get::<_, i64>(1))
        };
        let (all, newest) = count().await;
        assert_eq!(all, 2 * copied);
        views.forget_journals(newest - 20 * DAY).await.unwrap();
        assert_eq!(count().await, (copied, newest), "{}", database.url());
        // Once more there is nothing to do.
        views.forget_journals(newest - 20 * DAY).await.unwrap();
        assert_eq!(count().await.0, copied);
    }
}
