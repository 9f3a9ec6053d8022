//! Migrations: what makes a database ours, each applied once, in order, all or none.
//!
//! A migration that was released never changes: its checksum is kept where it was applied.

use sha2::{Digest, Sha256};
use tokio_postgres::Client;

use crate::{layout::Layout, postgres::session::views_error, views::ViewsError};

/// A step of the database, as released.
struct Migration {
    version: i32,
    name: &'static str,
    sql: &'static str,
}

const MIGRATIONS: [Migration; 11] = [
    Migration {
        version: 1,
        name: "roles_and_isolation",
        sql: include_str!("../migrations/0001_roles_and_isolation.sql"),
    },
    Migration { version: 2, name: "progress", sql: include_str!("../migrations/0002_progress.sql") },
    Migration { version: 3, name: "journals", sql: include_str!("../migrations/0003_journals.sql") },
    Migration {
        version: 4,
        name: "history_by_columns",
        sql: include_str!("../migrations/0004_history_by_columns.sql"),
    },
    Migration {
        version: 5,
        name: "keys_uncompressed",
        sql: include_str!("../migrations/0005_keys_uncompressed.sql"),
    },
    Migration { version: 6, name: "retention", sql: include_str!("../migrations/0006_retention.sql") },
    Migration {
        version: 7,
        name: "sums_and_operations",
        sql: include_str!("../migrations/0007_sums_and_operations.sql"),
    },
    Migration {
        version: 8,
        name: "generations_beside",
        sql: include_str!("../migrations/0008_generations_beside.sql"),
    },
    Migration {
        version: 9,
        name: "generations_of_the_past",
        sql: include_str!("../migrations/0009_generations_of_the_past.sql"),
    },
    Migration {
        version: 10,
        name: "rollback_at_once",
        sql: include_str!("../migrations/0010_rollback_at_once.sql"),
    },
    Migration {
        version: 11,
        name: "partial_generations",
        sql: include_str!("../migrations/0011_partial_generations.sql"),
    },
];

/// Only one migrates at a time; the key is this program's own.
const ADVISORY_LOCK: i64 = 0x7365_7276_7261_6461;
/// The first generation.
const FIRST_GENERATION: i32 = 1;

impl Migration {
    fn checksum(&self) -> String {
        Sha256::digest(self.sql).iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Applies what is missing, and makes generation 1 of a layout where there is none. Returns the names of what it
/// applied. Other migrations of the same database wait, and find nothing left to do.
pub(crate) async fn migrate(client: &Client, layout: &Layout) -> Result<Vec<&'static str>, ViewsError> {
    client.batch_execute("BEGIN").await.map_err(views_error)?;
    let applied = migrate_in_transaction(client, layout).await;
    let end = if applied.is_ok() { "COMMIT" } else { "ROLLBACK" };
    client.batch_execute(end).await.map_err(views_error)?;
    applied
}

async fn migrate_in_transaction(client: &Client, layout: &Layout) -> Result<Vec<&'static str>, ViewsError> {
    let lock = "SELECT pg_advisory_xact_lock($1)";
    client.execute(lock, &[&ADVISORY_LOCK]).await.map_err(views_error)?;
    let known = applied(client).await?;
    let mut names = Vec::new();
    for migration in &MIGRATIONS[known..] {
        client.batch_execute(migration.sql).await.map_err(views_error)?;
        client.batch_execute("SET LOCAL ROLE serviceradar_writer").await.map_err(views_error)?;
        if migration.version == 1 {
            client.batch_execute(HISTORY).await.map_err(views_error)?;
        }
        let insert = "INSERT INTO serviceradar_base.migrations (version, name, checksum) VALUES ($1, $2, $3)";
        let checksum = migration.checksum();
        client
            .execute(insert, &[&migration.version, &migration.name, &checksum])
            .await
            .map_err(views_error)?;
        names.push(migration.name);
    }
    if !names.is_empty() {
        let count = "SELECT count(*) FROM serviceradar_base.pipeline_generations";
        let generations: i64 = client.query_one(count, &[]).await.map_err(views_error)?.get(0);
        if generations == 0 {
            create_generation(client, layout, FIRST_GENERATION).await?;
            show_generation(client, FIRST_GENERATION).await?;
            let update =
                "UPDATE serviceradar_base.pipeline_generations SET state = 'active', promoted_at = now()";
            client.execute(update, &[]).await.map_err(views_error)?;
        }
    }
    Ok(names)
}

const HISTORY: &str = "
    CREATE TABLE serviceradar_base.migrations (
      version integer PRIMARY KEY,
      name text NOT NULL,
      checksum text NOT NULL,
      applied_at timestamptz NOT NULL DEFAULT now()
    );
    COMMENT ON TABLE serviceradar_base.migrations IS 'What was applied to this database';
    COMMENT ON COLUMN serviceradar_base.migrations.version IS 'Its number';
    COMMENT ON COLUMN serviceradar_base.migrations.name IS 'Its name';
    COMMENT ON COLUMN serviceradar_base.migrations.checksum IS 'SHA-256 of its text, in hex';
    COMMENT ON COLUMN serviceradar_base.migrations.applied_at IS 'When it was applied';";

/// The schema of a generation.
pub(crate) fn schema_of(id: i32) -> String {
    format!("views_{id}")
}

fn of_generation(sql: &str, id: i32) -> String {
    sql.replace("{schema}", &schema_of(id)).replace("{id}", &id.to_string())
}

/// Makes a generation that is being built: its schema with tables, indexes and views.
pub(crate) async fn create_generation(client: &Client, layout: &Layout, id: i32) -> Result<(), ViewsError> {
    let schema = schema_of(id);
    let sql = [
        format!("CREATE SCHEMA {schema}; SET LOCAL search_path = {schema}, public;"),
        format!(
            "COMMENT ON SCHEMA {schema} IS 'Generation {id}: base tables; readers have no right on them';"
        ),
        layout.tables.to_owned(),
        layout.indexes.to_owned(),
        layout.views.to_owned(),
        of_generation(include_str!("../layout/reading.sql"), id),
        "RESET search_path".to_owned(),
    ];
    client.batch_execute(&sql.join("\n")).await.map_err(views_error)?;
    let insert =
        "INSERT INTO serviceradar_base.pipeline_generations (id, schema, state) VALUES ($1, $2, 'building')";
    client.execute(insert, &[&id, &schema]).await.map_err(views_error)?;
    Ok(())
}

/// Makes the views that people read those of a generation.
pub(crate) async fn show_generation(client: &Client, id: i32) -> Result<(), ViewsError> {
    let sql = of_generation(include_str!("../layout/showing.sql"), id);
    client.batch_execute(&sql).await.map_err(views_error)
}

/// How many migrations the database has; refuses one that is not ours or newer than this program.
async fn applied(client: &Client) -> Result<usize, ViewsError> {
    let exists = "SELECT to_regclass('serviceradar_base.migrations') IS NOT NULL";
    if !client.query_one(exists, &[]).await.map_err(views_error)?.get::<_, bool>(0) {
        return Ok(0);
    }
    let select = "SELECT version, checksum FROM serviceradar_base.migrations ORDER BY version";
    let rows = client.query(select, &[]).await.map_err(views_error)?;
    for (at, row) in rows.iter().enumerate() {
        let (version, checksum): (i32, String) = (row.get(0), row.get(1));
        let Some(migration) = MIGRATIONS.get(at) else {
            return Err(ViewsError::Schema(format!(
                "it has migration {version}, which a newer program made: use that one"
            )));
        };
        if migration.version != version || migration.checksum() != checksum {
            return Err(ViewsError::Schema(format!(
                "migration {version} ({}) is another than the one that was applied",
                migration.name
            )));
        }
    }
    Ok(rows.len())
}

/// Refuses a database that lacks a migration.
pub(crate) async fn check(client: &Client) -> Result<(), ViewsError> {
    let known = applied(client).await?;
    match MIGRATIONS.get(known) {
        None => Ok(()),
        Some(missing) => Err(ViewsError::Schema(format!(
            "migration {} ({}) is missing; run `serviceradar migrate`",
            missing.version, missing.name
        ))),
    }
}
