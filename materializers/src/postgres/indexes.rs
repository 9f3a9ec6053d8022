//! Secondary indexes of a generation: an empty one is loaded without them, and gets them when it is full.
//! Writing a million rows into an index costs several times what making it afterwards does.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use futures_util::future::try_join_all;

use super::session::Session;
use crate::{layout::Layout, views::ViewsError};

/// Sessions that make indexes at the same time.
const SESSIONS: usize = 2;
/// Each sorts by itself, in memory: helpers of its own would write what they sort to files first.
const SETTINGS: &str = "SET maintenance_work_mem = '512MB'; SET max_parallel_maintenance_workers = 0";
/// Planning needs figures at once, and the server's own process may come minutes later, when there is other work.
/// Those that take longest first.
const ANALYZE: [&str; 6] = [
    "device_evidence",
    "record_summaries",
    "device_summaries",
    "device_search",
    "record_attributes",
    "device_details",
];

/// Tables that a load fills, and their keys: uniqueness is checked when all is there.
const KEYS: [(&str, &str); 6] = [
    ("device_evidence", "(tenant, record_key, namespace, value)"),
    ("record_summaries", "(tenant, record_key) INCLUDE (uid)"),
    ("record_attributes", "(tenant, record_key)"),
    ("device_summaries", "(tenant, uid)"),
    ("device_details", "(tenant, uid)"),
    ("device_search", "(tenant, uid) INCLUDE (name, state)"),
];

/// Indexes that take longest to make, the longest first.
const LONGEST: [&str; 6] = [
    "device_evidence_claim",
    "device_search_addresses",
    "device_search_words",
    "device_evidence_pkey",
    "device_evidence_leads",
    "device_search_hostname",
];

/// Name and statement of each index of a layout, those that take longest first.
fn indexes(layout: &Layout) -> Vec<(String, String)> {
    let secondary = layout.indexes.split(';').filter_map(|statement| {
        let statement = statement.get(statement.find("CREATE INDEX")?..)?;
        Some((statement.split_whitespace().nth(2)?.to_owned(), statement.to_owned()))
    });
    // To add a key at once would wait for whoever makes another index of the table.
    let key = |(table, columns): &(&str, &str)| {
        let name = format!("{table}_pkey");
        let statement = format!("CREATE UNIQUE INDEX {name} ON {table} {columns}");
        (name, statement)
    };
    let mut indexes: Vec<_> = secondary.chain(KEYS.iter().map(key)).collect();
    indexes
        .sort_by_key(|(name, _)| LONGEST.iter().position(|longest| name == longest).unwrap_or(LONGEST.len()));
    indexes
}

/// Tables of the generation of the session that have no key.
async fn without_key(session: &mut Session) -> Result<Vec<&'static str>, ViewsError> {
    let select = "SELECT c.relname FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid
        WHERE k.contype = 'p' AND k.connamespace = current_schema()::regnamespace";
    let rows = session.query(select, &[]).await?;
    let there: HashSet<&str> = rows.iter().map(|row| row.get(0)).collect();
    Ok(KEYS.into_iter().map(|(table, _)| table).filter(|table| !there.contains(table)).collect())
}

/// Those that the generation of the session lacks.
async fn missing(session: &mut Session, layout: &Layout) -> Result<Vec<(String, String)>, ViewsError> {
    let select = "SELECT c.relname FROM pg_class c WHERE c.relkind = 'i' AND c.relnamespace = current_schema()::regnamespace";
    let rows = session.query(select, &[]).await?;
    let there: HashSet<String> = rows.iter().map(|row| row.get::<_, &str>(0).to_owned()).collect();
    Ok(indexes(layout).into_iter().filter(|(name, _)| !there.contains(name)).collect())
}

/// Takes the indexes away where the generation of the session has no row of any tenant. Returns whether any
/// are missing.
pub(crate) async fn drop_if_empty(session: &mut Session, layout: &Layout) -> Result<bool, ViewsError> {
    session.begin("BEGIN").await?;
    let empty =
        "SELECT NOT EXISTS (SELECT FROM record_summaries) AND NOT EXISTS (SELECT FROM device_summaries)";
    if session.query_one(empty, &[]).await?.get(0) {
        for (table, _) in KEYS {
            session.begin(&format!("ALTER TABLE {table} DROP CONSTRAINT IF EXISTS {table}_pkey")).await?;
        }
        let names: Vec<String> = indexes(layout).into_iter().map(|(name, _)| name).collect();
        session.begin(&format!("DROP INDEX IF EXISTS {}", names.join(", "))).await?;
    }
    session.begin("COMMIT").await?;
    Ok(!missing(session, layout).await?.is_empty() || !without_key(session).await?.is_empty())
}

/// Makes the indexes that are missing, and has the planner's figures gathered if any were.
pub(crate) async fn make(url: &str, schema: &str, layout: &Layout) -> Result<(), ViewsError> {
    let mut session = Session::connect(url).await?;
    session.become_writer().await?;
    session.use_generation(schema).await?;
    // Another tenant's writer may be making them at this moment: then it waits here, and nothing is missing.
    session.execute("SELECT pg_advisory_lock(hashtextextended($1, 0))", &[&schema]).await?;
    let mut lacking = missing(&mut session, layout).await?;
    if lacking.is_empty() && without_key(&mut session).await?.is_empty() {
        return Ok(());
    }
    while let Err(error) = side_by_side(url, schema, lacking.iter().map(|(_, of)| of.clone()).collect()).await
    {
        // A session of a program that was killed may have gone on, and made one meanwhile.
        let left = missing(&mut session, layout).await?;
        if !matches!(error, ViewsError::Refused(_)) || left.len() == lacking.len() {
            return Err(error);
        }
        lacking = left;
    }
    for table in without_key(&mut session).await? {
        let key =
            format!("ALTER TABLE {table} ADD CONSTRAINT {table}_pkey PRIMARY KEY USING INDEX {table}_pkey");
        session.begin(&key).await?;
    }
    // Nobody need wait for them: without, plans are those of an empty table for another second.
    let (url, schema) = (url.to_owned(), schema.to_owned());
    tokio::spawn(async move {
        let statements = ANALYZE.iter().map(|table| format!("VACUUM (ANALYZE) {table}")).collect();
        if let Err(error) = side_by_side(&url, &schema, statements).await {
            tracing::warn!(%error, "the figures of the new tables come later, from the database itself");
        }
    });
    Ok(())
}

/// Runs statements on a few sessions, each the next that is left.
async fn side_by_side(url: &str, schema: &str, mut statements: Vec<String>) -> Result<(), ViewsError> {
    statements.reverse();
    let waiting = Mutex::new(statements);
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop();
    try_join_all((0..SESSIONS).map(|_| async {
        let mut session = Session::connect(url).await?;
        session.become_writer().await?;
        session.use_generation(schema).await?;
        session.begin(SETTINGS).await?;
        while let Some(statement) = next() {
            session.begin(&statement).await?;
        }
        Ok(())
    }))
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LAYOUT;

    #[test]
    fn every_statement_of_the_layout_is_an_index_with_a_name() {
        let indexes = indexes(&LAYOUT);
        let of_layout = indexes.iter().filter(|(_, statement)| statement.starts_with("CREATE INDEX"));
        assert_eq!(of_layout.clone().count(), LAYOUT.indexes.matches(';').count());
        assert!(of_layout.clone().all(|(name, statement)| statement.contains(&format!("INDEX {name} ON"))));
        assert_eq!(indexes.len(), of_layout.count() + KEYS.len());
    }

    #[test]
    fn a_key_is_as_the_layout_makes_it() {
        for (table, columns) in KEYS {
            let table = LAYOUT.tables.split(&format!("CREATE TABLE {table} (")).nth(1).unwrap();
            let key = table.split("PRIMARY KEY ").nth(1).unwrap().split('\n').next().unwrap();
            assert_eq!(key, columns);
        }
    }
}
