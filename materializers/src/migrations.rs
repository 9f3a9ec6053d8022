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

const MIGRATIONS: [Migration; 12] = [
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
    Migration {
        version: 12,
        name: "layouts_of_generations",
        sql: include_str!("../migrations/0012_layouts_of_generations.sql"),
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

/// Applies what is missing, and makes generation 1 of a layout where there is none; one that nobody has written is made anew
/// where its layout is another. Returns the names of what it applied. Other migrations of the same database wait, and find
/// nothing left to do.
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
    client.batch_execute("SET LOCAL ROLE serviceradar_writer").await.map_err(views_error)?;
    let count = "SELECT count(*) FROM serviceradar_base.pipeline_generations";
    let generations: i64 = client.query_one(count, &[]).await.map_err(views_error)?.get(0);
    if generations == 0 {
        create_generation(client, layout, FIRST_GENERATION).await?;
        show_generation(client, FIRST_GENERATION).await?;
        let update =
            "UPDATE serviceradar_base.pipeline_generations SET state = 'active', promoted_at = now()";
        client.execute(update, &[]).await.map_err(views_error)?;
    }
    make_unwritten_anew(client, layout).await?;
    Ok(names)
}

/// Makes the tables anew of a generation that has another layout and that nobody has written: there is nothing in them.
async fn make_unwritten_anew(client: &Client, layout: &Layout) -> Result<(), ViewsError> {
    // Whoever takes it at this moment waits for the row, or is waited for, and then it is no longer one of these.
    let update = "UPDATE serviceradar_base.pipeline_generations AS g SET layout = $1, started_at = now()
        WHERE state <> 'retired' AND fingerprint IS NULL AND layout IS DISTINCT FROM $1
          AND NOT EXISTS (SELECT FROM serviceradar_base.pipeline_epochs WHERE generation = g.id AND records > 0)
        RETURNING id, state = 'active'";
    for row in client.query(update, &[&layout.version.cast_signed()]).await.map_err(views_error)? {
        let (id, is_active): (i32, bool) = (row.get(0), row.get(1));
        let schema = schema_of(id);
        // Beside, until what people read is of the new ones: what they made over views whose columns stay, or granted, stays.
        let before = format!("{schema}_before");
        let rename = format!(
            "ALTER SCHEMA {schema} RENAME TO {before}; ALTER SCHEMA {schema}_read RENAME TO {before}_read"
        );
        client.batch_execute(&rename).await.map_err(views_error)?;
        create_tables(client, layout, id).await?;
        if is_active {
            show_generation(client, id).await?;
        }
        drop_tables(client, &before).await?;
        tracing::info!(generation = id, layout = layout.version, "made anew: nobody had written it");
    }
    Ok(())
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

/// Makes a generation that is being built.
pub(crate) async fn create_generation(client: &Client, layout: &Layout, id: i32) -> Result<(), ViewsError> {
    create_tables(client, layout, id).await?;
    let insert = "INSERT INTO serviceradar_base.pipeline_generations (id, schema, state, layout)
        VALUES ($1, $2, 'building', $3)";
    let (schema, layout) = (schema_of(id), layout.version.cast_signed());
    client.execute(insert, &[&id, &schema, &layout]).await.map_err(views_error)?;
    Ok(())
}

/// Makes the schema of a generation, with tables, indexes and views.
async fn create_tables(client: &Client, layout: &Layout, id: i32) -> Result<(), ViewsError> {
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
    client.batch_execute(&sql.join("\n")).await.map_err(views_error)
}

/// Drops the tables in the schema of a generation, where they are there.
pub(crate) async fn drop_tables(client: &Client, schema: &str) -> Result<(), ViewsError> {
    let drop = format!(
        "SET LOCAL client_min_messages = warning; DROP SCHEMA IF EXISTS {schema}_read, {schema} CASCADE"
    );
    client.batch_execute(&drop).await.map_err(views_error)
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

/// Refuses a generation that nobody has written, by its number, where its tables are of another layout than this.
pub(crate) fn check_layout(id: i32, found: Option<i32>, layout: &Layout) -> Result<(), ViewsError> {
    let wanted = layout.version.cast_signed();
    if found == Some(wanted) {
        return Ok(());
    }
    let (found, or_else) = match found {
        Some(found) => (found.to_string(), ", or use the program that made it"),
        None => ("one that is not known".to_owned(), ""),
    };
    Err(ViewsError::Schema(format!(
        "nobody has written generation {id} yet, and the layout of its tables is {found}, not {wanted}; run `serviceradar migrate`, which makes it anew{or_else}"
    )))
}
