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
