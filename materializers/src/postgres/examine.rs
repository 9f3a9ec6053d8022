//! What a database is like, for whoever asks whether it will do.

use serviceradar_schemas::time::Clock;
use tokio_postgres::Client;

use super::{session::views_error, state::Micros};
use crate::{layout::Layout, migrations, views::ViewsError};

/// Extensions that the views need; all are among PostgreSQL's own.
pub const EXTENSIONS: [&str; 3] = ["pg_trgm", "btree_gin", "btree_gist"];
/// Of further use where it is there.
const TIMESCALE: &str = "timescaledb";
/// The roles that migrations make. The last is for people; as the others the role of the URL writes and reads.
const ROLES: [&str; 3] = ["serviceradar_writer", "serviceradar_reader", "serviceradar_analyst"];

/// What a database is like.
#[derive(Debug)]
pub struct Condition {
    /// Its version, as it says it: `17.5`.
    pub version: String,
    /// The first part of it.
    pub major: u32,
    /// How far its clock is ahead of this machine's, microseconds; negative where it is behind.
    pub ahead: i64,
    /// Memory that its sessions share for pages of tables and indexes, bytes.
    pub shared_bytes: u64,
    /// Huge pages that all that it shares would take; none where it has them, or does not say.
    pub huge_pages_lacking: Option<u64>,
    /// Extensions that are there, as `name version`.
    pub extensions: Vec<String>,
    /// Of [`EXTENSIONS`], those that are not there and that it could make; migrating does.
    pub extensions_to_make: Vec<String>,
    /// Of [`EXTENSIONS`], those that its server has not got.
    pub extensions_missing: Vec<String>,
    /// Roles that are missing, or that the role of the URL may not become though it must.
    pub roles_missing: Vec<String>,
    /// Fingerprint of the active generation, none before somebody wrote it; or why the schema does not fit, or the layout of
    /// one that nobody wrote.
    pub fingerprint: Result<Option<String>, ViewsError>,
}

pub(super) async fn examine(
    client: &Client,
    layout: &Layout,
    clock: &dyn Clock,
) -> Result<Condition, ViewsError> {
    let select =
        "SELECT current_setting('server_version_num')::integer / 10000, current_setting('server_version'),
        pg_size_bytes(current_setting('shared_buffers')), CASE current_setting('huge_pages_status', true)
          WHEN 'off' THEN nullif(current_setting('shared_memory_size_in_huge_pages'), '-1')::bigint END";
    let row = client.query_one(select, &[]).await.map_err(views_error)?;
    let (major, version): (i32, String) = (row.get(0), row.get(1));
    let (shared, lacking): (i64, Option<i64>) = (row.get(2), row.get(3));
    let before = clock.now();
    let row = client.query_one("SELECT clock_timestamp()", &[]).await.map_err(views_error)?;
    // It was asked halfway between.
    let ahead = row.get::<_, Micros>(0).0.saturating_sub(before.midpoint(clock.now()));
    let mut condition = Condition {
        version: version.split(' ').next().unwrap_or_default().to_owned(),
        major: major.unsigned_abs(),
        ahead,
        shared_bytes: shared.unsigned_abs(),
        huge_pages_lacking: lacking.map(i64::unsigned_abs),
        extensions: Vec::new(),
        extensions_to_make: Vec::new(),
        extensions_missing: Vec::new(),
        roles_missing: roles_missing(client).await?,
        fingerprint: fingerprint(client, layout).await,
    };
    let names = [&EXTENSIONS[..], &[TIMESCALE]].concat();
    let select = "SELECT wanted, default_version, installed_version FROM unnest($1::text[]) AS e (wanted)
                  LEFT JOIN pg_available_extensions ON name = wanted ORDER BY wanted";
    for row in client.query(select, &[&names]).await.map_err(views_error)? {
        let name: String = row.get(0);
        match (row.get::<_, Option<String>>(1), row.get::<_, Option<String>>(2)) {
            (_, Some(version)) => condition.extensions.push(format!("{name} {version}")),
            _ if name == TIMESCALE => {}
            (Some(_), None) => condition.extensions_to_make.push(name),
            (None, None) => condition.extensions_missing.push(name),
        }
    }
    Ok(condition)
}

async fn roles_missing(client: &Client) -> Result<Vec<String>, ViewsError> {
    let select = "SELECT wanted FROM unnest($1::text[]) AS r (wanted) LEFT JOIN pg_roles ON rolname = wanted
                  WHERE oid IS NULL OR wanted <> $2 AND NOT pg_has_role(current_user, oid, 'MEMBER')
                  ORDER BY wanted";
    let rows = client.query(select, &[&&ROLES[..], &ROLES[2]]).await.map_err(views_error)?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

async fn fingerprint(client: &Client, layout: &Layout) -> Result<Option<String>, ViewsError> {
    migrations::check(client).await?;
    client.batch_execute("SET ROLE serviceradar_reader").await.map_err(views_error)?;
    let select =
        "SELECT fingerprint, id, layout FROM serviceradar.pipeline_generations WHERE state = 'active'";
    let active = client.query_opt(select, &[]).await.map_err(views_error)?;
    client.batch_execute("RESET ROLE").await.map_err(views_error)?;
    let Some(row) = active else {
        return Ok(None);
    };
    let fingerprint = row.get::<_, Option<String>>(0);
    if fingerprint.is_none() {
        migrations::check_layout(row.get(1), row.get(2), layout)?;
    }
    Ok(fingerprint)
}
