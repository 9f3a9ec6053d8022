//! Journals: what was believed of a device before an epoch and after it.

use serviceradar_streams::rows::{EpochOutput, HistoryRow, MergeRow};

use super::{copy::CopyRows, session::Session, state::Micros, tables::RowContext};
use crate::views::ViewsError;

/// Columns of `devices` that are no belief about a device.
const BOOKKEEPING: &str = "'{tenant,uid,epoch,modified_at}'::text[]";

/// Notes which devices change, and how those that are there look before.
pub(crate) async fn before(
    session: &mut Session,
    context: &RowContext<'_>,
    output: &EpochOutput,
) -> Result<(), ViewsError> {
    if output.history.is_empty() {
        return Ok(());
    }
    session.stage("staged_history", "SELECT uid, change, cause, before FROM device_history").await?;
    let put = |row: &HistoryRow, out: &mut CopyRows| {
        out.row(3).uuid(row.uid.0).text(row.change).text(&row.cause);
    };
    session.copy("staged_history (uid, change, cause)", output.history.iter(), put).await?;
    if !output.devices.changed.is_empty() || !output.devices.gone.is_empty() {
        let note = format!(
            "UPDATE staged_history h SET before = to_jsonb(d) - {BOOKKEEPING}
             FROM devices d WHERE d.tenant = $1 AND d.uid = h.uid"
        );
        session.execute(&note, &[&context.tenant]).await?;
    }
    Ok(())
}

/// Writes the journals, once the devices are as they are now.
pub(crate) async fn after(
    session: &mut Session,
    context: &RowContext<'_>,
    output: &EpochOutput,
) -> Result<(), ViewsError> {
    if !output.history.is_empty() {
        let insert = format!(
            "INSERT INTO device_history (tenant, uid, generation, epoch, at, change, cause, before, after)
             SELECT $1, h.uid, $2, $3, $4::timestamptz, h.change, h.cause,
                    CASE WHEN d.after IS NULL THEN jsonb_strip_nulls(h.before)
                         ELSE serviceradar_base.changed_fields(h.before, d.after) END,
                    CASE WHEN h.before IS NULL THEN jsonb_strip_nulls(d.after)
                         ELSE serviceradar_base.changed_fields(d.after, h.before) END
             FROM staged_history h LEFT JOIN LATERAL (
                 SELECT to_jsonb(d) - {BOOKKEEPING} AS after FROM devices d WHERE d.tenant = $1 AND d.uid = h.uid
             ) d ON true"
        );
        let at = Micros(context.closed_at);
        session.execute(&insert, &[&context.tenant, &context.generation, &context.epoch, &at]).await?;
    }
    if output.merges.is_empty() {
        return Ok(());
    }
    let into = "device_merges (tenant, generation, epoch, from_uid, to_uid, at, kind, claim, rule, records)";
    let put = |row: &MergeRow, out: &mut CopyRows| {
        out.row(10)
            .text(context.tenant)
            .integer(context.generation)
            .bigint(context.epoch)
            .uuid(row.from_uid.0)
            .uuid(row.to_uid.0)
            .time(context.closed_at)
            .text(row.kind)
            .option(row.claim.as_deref(), CopyRows::text)
            .text(row.rule)
            .texts(row.records.iter().map(|record| &**record));
    };
    session.copy(into, output.merges.iter(), put).await?;
    Ok(())
}
