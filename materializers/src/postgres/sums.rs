//! The sums of a tenant's tables: as the epochs kept them, and as its rows come to.

use std::pin::pin;

use futures_util::TryStreamExt;
use serviceradar_streams::{
    changes::Row as _,
    evidence::canonical_attributes,
    rows::{State, Uid},
    sums::{Buckets, Summed, Sums},
};
use tokio::sync::mpsc;

use super::{
    devices,
    session::{Parameter, Session, views_error},
    state,
};
use crate::views::ViewsError;

/// Devices read at once.
const DEVICES_AT_ONCE: usize = 5_000;
/// Pieces of records that wait to be summed.
const PIECES_WAIT: usize = 2;

/// The sums as the last epoch left them.
pub(crate) async fn read(session: &mut Session, tenant: &str, generation: i32) -> Result<Sums, ViewsError> {
    let select = "SELECT table_name, sums FROM serviceradar_base.pipeline_hashes
                  WHERE tenant = $1 AND generation = $2";
    let mut sums = Sums::default();
    for row in session.query(select, &[&tenant, &generation]).await? {
        let (name, bytes): (&str, &[u8]) = (row.get(0), row.get(1));
        let unreadable = || ViewsError::Refused(format!("pipeline_hashes of {name:?} cannot be read"));
        *sums.table(name).ok_or_else(unreadable)? = Buckets::from_bytes(bytes).ok_or_else(unreadable)?;
    }
    Ok(sums)
}

/// Adds what an epoch adds.
pub(crate) async fn add(
    session: &mut Session,
    tenant: &str,
    generation: i32,
    added: &Sums,
) -> Result<(), ViewsError> {
    let touched = added.tables().into_iter().filter(|(_, buckets)| !buckets.is_empty());
    let names: Vec<&str> = touched.map(|(name, _)| name).collect();
    if names.is_empty() {
        return Ok(());
    }
    let mut sums = read(session, tenant, generation).await?;
    sums.add(added);
    let now = sums.tables().into_iter().filter(|(name, _)| names.contains(name));
    let bytes: Vec<Vec<u8>> = now.map(|(_, buckets)| buckets.to_bytes()).collect();
    let upsert = "INSERT INTO serviceradar_base.pipeline_hashes (tenant, generation, table_name, sums)
        SELECT $1, $2, * FROM unnest($3::text[], $4::bytea[])
        ON CONFLICT (tenant, generation, table_name) DO UPDATE SET sums = excluded.sums";
    let parameters: [Parameter<'_>; 4] = [&tenant, &generation, &names, &bytes];
    session.execute(upsert, &parameters).await?;
    Ok(())
}

/// Forgets them, for a tenant whose tables are empty.
pub(crate) async fn forget(session: &mut Session, tenant: &str, generation: i32) -> Result<(), ViewsError> {
    let delete = "DELETE FROM serviceradar_base.pipeline_hashes WHERE tenant = $1 AND generation = $2";
    session.execute(delete, &[&tenant, &generation]).await?;
    Ok(())
}

/// What the rows come to as they are, at one moment where the session is in a transaction that sees one.
pub(crate) async fn of_rows(session: &mut Session, tenant: &str) -> Result<Sums, ViewsError> {
    let mut sums = Sums::default();
    let mut after = None;
    loop {
        let rows = devices::read(session, tenant, after, DEVICES_AT_ONCE).await?;
        for (row, _) in &rows {
            sums.devices.change(&row.uid, 0, row.sum());
        }
        let Some((last, _)) = rows.last() else { break };
        after = last.uid.parse::<Uid>().ok();
    }
    let (put, mut take) = mpsc::channel::<State>(PIECES_WAIT);
    let records = async {
        while let Some(piece) = take.recv().await {
            for mut row in piece.records {
                row.attributes = canonical_attributes(&row.attributes).unwrap_or(row.attributes);
                sums.records.change(&row.record_key, 0, row.sum());
            }
        }
    };
    let (read, ()) = tokio::join!(state::records(session, tenant, put), records);
    read?;
    evidence(session, tenant, &mut sums.evidence).await?;
    Ok(sums)
}

async fn evidence(session: &mut Session, tenant: &str, sums: &mut Buckets) -> Result<(), ViewsError> {
    let select = format!("SELECT {} FROM device_evidence WHERE tenant = $1", state::EVIDENCE_COLUMNS);
    let rows = session.client().query_raw(&select, [tenant]).await.map_err(views_error)?;
    let mut rows = pin!(rows);
    while let Some(row) = rows.try_next().await.map_err(views_error)? {
        let row = state::evidence_row(&row)?;
        sums.change(&row.key(), 0, row.sum());
    }
    Ok(())
}
