//! The sessions of a writer: how a newcomer tells one that is at work from one that was stopped, and takes what it holds.
//!
//! A transaction under way holds the row of the fence, and nobody sees its beat. A process that was stopped in the
//! middle would hold it for as long as it is: the server waits for the rest of a COPY without end.

use super::session::Session;
use crate::views::ViewsError;

/// What the sessions of a writer are called: fits PostgreSQL's 63 bytes with any tenant.
pub(crate) fn name(tenant: &str, generation: i32, token: i64) -> String {
    format!("writer {tenant} {generation}.{token}")
}

/// What moves while the sessions of that name get on with their transactions; another at each look while the server
/// works for one, however long that takes.
pub(crate) async fn progress(session: &mut Session, name: &str) -> Result<String, ViewsError> {
    let select = "SELECT coalesce(string_agg(concat_ws(' ', a.pid, a.state_change, c.bytes_processed,
            CASE WHEN a.state = 'active' AND a.wait_event_type IS DISTINCT FROM 'Client'
                 THEN clock_timestamp() END), ', ' ORDER BY a.pid), '')
        FROM pg_stat_activity a LEFT JOIN pg_stat_progress_copy c ON c.pid = a.pid
        WHERE a.application_name = $1 AND a.datname = current_database() AND a.state <> 'idle'";
    session.as_login().await?;
    let progress = session.query_one(select, &[&name]).await?.get(0);
    session.as_writer().await?;
    Ok(progress)
}

/// Ends the sessions of that name that are in a transaction. Those of another login are left to end by themselves.
pub(crate) async fn terminate(session: &mut Session, name: &str) -> Result<(), ViewsError> {
    let select = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
        WHERE application_name = $1 AND datname = current_database() AND state <> 'idle'
          AND usename = session_user";
    session.as_login().await?;
    let ended: i64 = session.query_one(select, &[&name]).await?.get(0);
    session.as_writer().await?;
    if ended > 0 {
        tracing::warn!(name, ended, "ended the sessions of the writer before");
    }
    Ok(())
}
