//! Every implementation of `Views` under one suite.

use serviceradar_materializers::MemoryViews;
use serviceradar_tests::{database::Database, views_conformance as laws};

/// A test of each law over memory and PostgreSQL.
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
    };
}

laws! {
    begins_empty,
    reads_back_what_was_committed,
    loads_in_pieces,
    commits_once,
    fences_the_writer_before,
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
