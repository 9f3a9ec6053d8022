//! Reading is isolated: a reader sees one tenant's rows through views, an analyst its login's; nobody a base table.

#![allow(clippy::unwrap_used, reason = "a test")]

use serde_json::json;
use serviceradar_materializers::views::{Views, ViewsError};
use serviceradar_tests::{
    database::Database,
    views_conformance::{first_epoch, second_epoch},
};
use tokio_postgres::{Client, error::SqlState};

/// Two tenants with something in every table; without TimescaleDB and with it.
async fn two_tenants() -> [Database; 2] {
    let databases = [Database::migrated().await, Database::migrated_timescale().await];
    for database in &databases {
        let views = database.views().await;
        for tenant in ["acme", "other"] {
            let (mut writer, _) = views.take(tenant, "w", "f1", &json!({})).await.unwrap();
            writer.commit(&first_epoch()).await.unwrap();
            writer.commit(&second_epoch()).await.unwrap();
        }
    }
    databases
}

async fn names(client: &Client, sql: &str) -> Vec<String> {
    client.query(sql, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

const READING_VIEWS: &str = "SELECT c.relnamespace::regnamespace || '.' || c.relname FROM pg_class c
    WHERE c.relnamespace IN ('serviceradar'::regnamespace, 'views_1_read'::regnamespace) AND c.relkind = 'v'
      AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant') ORDER BY 1";
const BASE_RELATIONS: &str = "SELECT c.relnamespace::regnamespace || '.' || c.relname FROM pg_class c
    WHERE c.relkind IN ('r', 'v') AND (c.relnamespace IN ('serviceradar_base'::regnamespace, 'views_1'::regnamespace)
      OR c.relnamespace = to_regnamespace('_timescaledb_internal') AND c.relowner = 'serviceradar_writer'::regrole)
    ORDER BY 1";

async fn refusal(client: &Client, sql: &str) -> Option<SqlState> {
    client.batch_execute(sql).await.err().and_then(|error| error.code().cloned())
}

#[tokio::test]
async fn a_reader_sees_the_rows_of_its_tenant_and_nothing_without_one() {
    for database in two_tenants().await {
        let reader = database.client().await;
        let views = names(&reader, READING_VIEWS).await;
        assert!(views.len() >= 30, "{views:?}");
        let mut filled = 0;
        for view in &views {
            let all: i64 = {
                reader.batch_execute("RESET ROLE; SET serviceradar.tenant = 'acme'").await.unwrap();
                reader.query_one(&format!("SELECT count(*) FROM {view}"), &[]).await.unwrap().get(0)
            };
            filled += u32::from(all > 0);
            reader.batch_execute("SET ROLE serviceradar_reader").await.unwrap();
            let select = format!("SELECT count(*) FROM {view} WHERE tenant <> 'acme'");
            let others: i64 = reader.query_one(&select, &[]).await.unwrap().get(0);
            assert_eq!(others, 0, "{view}");
            if all == 0 {
                continue;
            }
            for none in ["RESET serviceradar.tenant", "SET serviceradar.tenant = ''"] {
                reader.batch_execute(none).await.unwrap();
                let refused = refusal(&reader, &format!("SELECT * FROM {view}")).await;
                assert_eq!(refused, Some(SqlState::INSUFFICIENT_PRIVILEGE), "{view} after {none}");
            }
        }
        assert!(filled >= 25, "only {filled} views have rows: this test would prove little");
    }
}

#[tokio::test]
async fn a_reader_can_read_no_base_relation_and_make_nothing() {
    for database in two_tenants().await {
        let reader = database.client().await;
        let bases = names(&reader, BASE_RELATIONS).await;
        assert!(bases.len() >= 20, "{bases:?}");
        reader.batch_execute("SET ROLE serviceradar_reader; SET serviceradar.tenant = 'acme'").await.unwrap();
        for base in &bases {
            let refused = refusal(&reader, &format!("SELECT * FROM {base}")).await;
            assert_eq!(refused, Some(SqlState::INSUFFICIENT_PRIVILEGE), "{base}");
        }
        for making in [
            "CREATE TABLE serviceradar.t (a int)",
            "CREATE TABLE public.t (a int)",
            "CREATE TEMP TABLE t (a int)",
            "CREATE SCHEMA s",
            "CREATE FUNCTION serviceradar.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "DELETE FROM serviceradar.device_search",
            "UPDATE serviceradar.decisions SET actor = 'x'",
            "INSERT INTO serviceradar.device_counts SELECT * FROM serviceradar.device_counts",
            "CALL serviceradar_base.isolate('serviceradar.devices', 'serviceradar', false)",
        ] {
            assert_eq!(refusal(&reader, making).await, Some(SqlState::INSUFFICIENT_PRIVILEGE), "{making}");
        }
        // A whole made of parts cannot be written at all.
        for writing in
            ["DELETE FROM serviceradar.devices", "UPDATE serviceradar.device_records SET open = false"]
        {
            let refused = refusal(&reader, writing).await;
            assert_eq!(refused, Some(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE), "{writing}");
        }
    }
}

#[tokio::test]
async fn an_analyst_sees_the_tenant_of_its_login_whatever_it_sets() {
    for database in two_tenants().await {
        let admin = database.client().await;
        // Roles are the cluster's: named after this database alone.
        let login: String =
            admin.query_one("SELECT 'analyst_of_' || current_database()", &[]).await.unwrap().get(0);
        let make = format!(
            "DROP ROLE IF EXISTS {login};
         CREATE ROLE {login} LOGIN PASSWORD 'analyst' IN ROLE serviceradar_analyst;
             INSERT INTO serviceradar_base.analysts VALUES ('{login}', 'other')"
        );
        admin.batch_execute(&make).await.unwrap();
        let (_, at) = database.url().split_once('@').unwrap();
        let url = format!("postgresql://{login}:analyst@{at}");
        let (analyst, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
        tokio::spawn(connection);
        analyst.batch_execute("SET serviceradar.tenant = 'acme'").await.unwrap();
        let select = "SELECT DISTINCT tenant FROM serviceradar_analyst.devices";
        assert_eq!(names(&analyst, select).await, ["other"]);
        for denied in [
            "SELECT * FROM serviceradar.devices",
            "SELECT * FROM views_1.devices",
            "SET ROLE serviceradar_reader",
        ] {
            assert_eq!(refusal(&analyst, denied).await, Some(SqlState::INSUFFICIENT_PRIVILEGE), "{denied}");
        }
        let leaky =
            "SELECT c.relname::text FROM pg_class c WHERE c.relnamespace = 'serviceradar_analyst'::regnamespace
            AND c.relkind = 'v' AND NOT coalesce(c.reloptions::text LIKE '%security_barrier%', false)";
        assert_eq!(names(&admin, leaky).await, [""; 0]);
    }
}

#[tokio::test]
async fn every_base_table_and_column_says_what_it_is() {
    let database = Database::migrated().await;
    let client = database.client().await;
    let silent = "SELECT c.oid::regclass::text || coalesce('.' || a.attname, '')
        FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
        WHERE c.relnamespace IN ('serviceradar_base'::regnamespace, 'views_1'::regnamespace) AND c.relkind = 'r'
          AND (col_description(c.oid, a.attnum) IS NULL OR obj_description(c.oid, 'pg_class') IS NULL)";
    assert_eq!(names(&client, silent).await, [""; 0]);
}

#[tokio::test]
async fn a_database_is_migrated_once_whoever_does_it() {
    let database = Database::empty().await;
    let views = database.views().await;
    let taken = views.take("acme", "w", "f1", &json!({})).await;
    assert!(matches!(taken, Err(ViewsError::Schema(why)) if why.contains("serviceradar migrate")));
    let (one, other) = (database.views().await, database.views().await);
    let (one, other) = tokio::join!(one.migrate(), other.migrate());
    let mut applied = [one.unwrap().len(), other.unwrap().len()];
    applied.sort_unstable();
    assert!(applied[0] == 0 && applied[1] > 0, "{applied:?}");
    assert_eq!(views.migrate().await.unwrap(), [""; 0]);
    views.check().await.unwrap();
    let client = database.client().await;
    let change = "UPDATE serviceradar_base.migrations SET checksum = 'x' WHERE version = 2";
    client.batch_execute(change).await.unwrap();
    assert!(matches!(views.migrate().await, Err(ViewsError::Schema(_))));
    assert!(matches!(views.check().await, Err(ViewsError::Schema(_))));
}
