//! A load: the epoch by which empty views are filled, whose rows come in pieces.

use std::sync::Arc;

use serviceradar_streams::rows::EpochOutput;
use tokio::sync::mpsc;

use super::{
    epoch::{attributes, of_devices, of_records, rest},
    outbox,
    session::Session,
    sums,
    tables::RowContext,
};
use crate::{
    outbox::all_devices,
    views::{Epoch, Pieces, ViewsError},
};

/// Tables that are filled in a session of their own.
const APART: [&str; 4] = ["device_summaries", "device_details", "device_search", "record_attributes"];
/// Tables that are filled in the session of the epoch.
const TOGETHER: [&str; 2] = ["record_summaries", "device_evidence"];
/// The number of the first row of `view_changes` that is not about devices.
const RECORDS_CHANGES_FROM: i32 = i32::MAX / 2;

/// Writes an epoch whose rows come in pieces: those of devices, and attributes, in a session of their own, whose
/// transaction commits before that of the others, so that an epoch that is told to be there is there.
pub(super) async fn write(
    session: &mut Session,
    of_its_own: &mut Session,
    context: RowContext<'_>,
    epoch: &Epoch,
    mut pieces: Pieces,
    cleaned_at: &mut i64,
) -> Result<(), ViewsError> {
    // One after the other: two tenants that fill the same tables would wait for each other.
    empty(of_its_own, &context, epoch, &APART).await?;
    empty(session, &context, epoch, &TOGETHER).await?;
    let (put, mut take) = mpsc::channel::<Arc<EpochOutput>>(1);
    let (apart, in_context) = (&mut *of_its_own, &context);
    // It owns where it takes pieces from: where it fails, nobody waits until it takes one more.
    let devices = async move {
        let mut next = 0;
        while let Some(piece) = take.recv().await {
            of_devices(apart, in_context, &piece, &mut next).await?;
            attributes(apart, in_context, &piece).await?;
        }
        Ok(())
    };
    let records = async {
        let mut next = RECORDS_CHANGES_FROM;
        let mut sums = epoch.output.sums.clone();
        while let Some(piece) = pieces.next().await? {
            sums.add(&piece.sums);
            let piece = Arc::new(piece);
            // Where nobody takes it any more, that one says why.
            if put.send(piece.clone()).await.is_err() {
                break;
            }
            of_records(session, &context, &piece, &mut next).await?;
        }
        drop(put);
        Ok(sums)
    };
    let (devices, records) = tokio::join!(devices, records);
    let () = devices?;
    let sums = records?;
    sums::forget(session, context.tenant, context.generation).await?;
    sums::add(session, context.tenant, context.generation, &sums).await?;
    let mut next = 0;
    outbox::write(session, &context, std::iter::once(all_devices()), &mut next).await?;
    rest(session, &context, epoch, next, cleaned_at).await?;
    of_its_own.begin("COMMIT").await
}

/// Makes tables anew that no tenant has a row in: what is then written into them need not go through the
/// database's journal, where its settings allow that. Readers of the empty tables wait until the commit; those of a tenant
/// that was there, and was truncated, must not.
async fn empty(
    session: &mut Session,
    context: &RowContext<'_>,
    epoch: &Epoch,
    tables: &[&str],
) -> Result<(), ViewsError> {
    if epoch.follows > 0 {
        return Ok(());
    }
    let names = tables.join(", ");
    session.begin(&format!("SAVEPOINT unlocked; LOCK TABLE {names} IN ACCESS EXCLUSIVE MODE")).await?;
    for table in tables {
        let others = format!("SELECT EXISTS (SELECT FROM {table} WHERE tenant <> $1)");
        if session.query_one(&others, &[&context.tenant]).await?.get(0) {
            return session.begin("ROLLBACK TO unlocked").await;
        }
    }
    session.begin(&format!("TRUNCATE {names}")).await
}

/// Deletes what a load wrote in its own session that broke off between its two commits: all there is behind an epoch after
/// which the tenant had no row.
pub(super) async fn forget(
    session: &mut Session,
    tenant: &str,
    generation: i32,
    epoch: u64,
) -> Result<(), ViewsError> {
    session.begin("BEGIN").await?;
    let mut rows = 0;
    for table in APART {
        rows += session.execute(&format!("DELETE FROM {table} WHERE tenant = $1"), &[&tenant]).await?;
    }
    // Much may have been told of the tenant before: only where there were rows is it looked through.
    if rows > 0 {
        for table in ["device_history", "view_changes"] {
            let delete = format!("DELETE FROM {table} WHERE tenant = $1 AND generation = $2 AND epoch > $3");
            session.execute(&delete, &[&tenant, &generation, &epoch.cast_signed()]).await?;
        }
    }
    session.begin("COMMIT").await
}
