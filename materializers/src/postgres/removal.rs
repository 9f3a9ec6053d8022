//! Removal: all that the database has of a tenant goes, journals too, at once or not at all.

use super::{PostgresViews, session::Session};
use crate::{migrations, views::ViewsError};

/// The tables that have rows of tenants: those of all generations, journals, and progress. What operators did stays.
const TABLES: &str = "SELECT format('%I.%I', n.nspname, c.relname)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND c.relname <> 'pipeline_operations'
      AND (n.nspname = 'serviceradar_base' OR n.nspname IN (
          SELECT schema FROM serviceradar_base.pipeline_generations WHERE state IN ('building', 'ready', 'active')))
      AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'tenant' AND NOT a.attisdropped)
    ORDER BY 1";

impl PostgresViews {
    /// Deletes all rows of a tenant, of all generations that follow the log; returns how many there were. Its generations of
    /// the past are dropped. Whoever writes the tenant is fenced, so that nothing is written afterwards.
    pub async fn remove_tenant(&self, tenant: &str) -> Result<u64, ViewsError> {
        let mut session = Session::connect(&self.url).await?;
        session.become_writer().await?;
        session.begin("BEGIN").await?;
        // No generation comes or goes meanwhile, and whoever holds the row of a writer commits first.
        let hold = "SELECT id FROM serviceradar_base.pipeline_generations ORDER BY id FOR SHARE";
        session.query(hold, &[]).await?;
        let fence = "UPDATE serviceradar_base.pipeline_writers SET token = token + 1 WHERE tenant = $1";
        session.execute(fence, &[&tenant]).await?;
        let past = "UPDATE serviceradar_base.pipeline_generations
            SET state = 'retired', of_tenant = NULL, moment = NULL WHERE of_tenant = $1 RETURNING schema";
        for row in session.query(past, &[&tenant]).await? {
            migrations::drop_tables(session.client(), row.get(0)).await?;
        }
        let mut rows = 0;
        for table in session.query(TABLES, &[]).await? {
            let delete = format!("DELETE FROM {} WHERE tenant = $1", table.get::<_, String>(0));
            rows += session.execute(&delete, &[&tenant]).await?;
        }
        session.begin("COMMIT").await?;
        Ok(rows)
    }
}
