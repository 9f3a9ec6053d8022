//! Journals: what was believed of a device before an epoch and after it.

use std::collections::HashMap;

use serde_json::Value;
use serviceradar_streams::rows::{DeviceRow, EpochOutput, HistoryRow, MergeRow};

use super::{copy::CopyRows, session::Session, state::Micros, tables::RowContext};
use crate::views::ViewsError;

/// Columns of `devices` that are no belief about a device.
const BOOKKEEPING: &str = "'{tenant,uid,epoch,modified_at}'::text[]";

/// Writes down devices that are new, and notes how those that change look before.
pub(crate) async fn before(
    session: &mut Session,
    context: &RowContext<'_>,
    output: &EpochOutput,
) -> Result<(), ViewsError> {
    let new: HashMap<&str, &DeviceRow> =
        output.devices.new.iter().map(|row| (row.uid.as_str(), row)).collect();
    let texts: Vec<(String, &HistoryRow)> =
        output.history.iter().map(|row| (row.uid.to_string(), row)).collect();
    let (created, changed): (Vec<_>, Vec<_>) =
        texts.into_iter().partition(|(uid, _)| new.contains_key(uid.as_str()));
    if !created.is_empty() {
        let into = "device_history (tenant, uid, generation, epoch, at, change, cause, after)";
        let put = |(uid, row): (String, &HistoryRow), out: &mut CopyRows| {
            out.row(8)
                .text(context.tenant)
                .uuid(row.uid.0)
                .integer(context.generation)
                .bigint(context.epoch)
                .time(context.closed_at)
                .text(row.change)
                .text(&row.cause)
                .option(new.get(uid.as_str()), |out, row| out.jsonb(&shown(row)));
        };
        session.copy(into, created.into_iter(), put).await?;
    }
    if changed.is_empty() {
        return Ok(());
    }
    session.stage("staged_history", "SELECT uid, change, cause, before FROM device_history").await?;
    let put = |(_, row): (String, &HistoryRow), out: &mut CopyRows| {
        out.row(3).uuid(row.uid.0).text(row.change).text(&row.cause);
    };
    session.copy("staged_history (uid, change, cause)", changed.into_iter(), put).await?;
    let note = format!(
        "UPDATE staged_history h SET before = to_jsonb(d) - {BOOKKEEPING}
         FROM devices d WHERE d.tenant = $1 AND d.uid = h.uid"
    );
    session.execute(&note, &[&context.tenant]).await?;
    Ok(())
}

/// What a new device is known by. Not the whole row, which a load would write twice: it is in `devices`, and
/// what changes later is told field by field.
fn shown(row: &DeviceRow) -> String {
    let fields = [
        ("name", row.name.as_deref()),
        ("hostname", row.hostname.as_deref()),
        ("ip", row.ip.as_deref()),
        ("mac", row.mac.as_deref()),
        ("type", Some(&*row.r#type)),
        ("vendor_name", row.vendor_name.as_deref()),
        ("model", row.model.as_deref()),
        ("site", row.site.as_deref()),
        ("confidence", Some(&*row.confidence)),
        ("state", Some(&*row.state)),
    ];
    let known = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), Value::from(value?))));
    Value::Object(known.collect()).to_string()
}

/// Writes down devices that changed or are gone, once they are as they are now; and what was merged and split.
pub(crate) async fn after(
    session: &mut Session,
    context: &RowContext<'_>,
    output: &EpochOutput,
) -> Result<(), ViewsError> {
    if output.history.len() > output.devices.new.len() {
        let insert = format!(
            "INSERT INTO device_history (tenant, uid, generation, epoch, at, change, cause, before, after)
             SELECT $1, h.uid, $2, $3, $4::timestamptz, h.change, h.cause,
                    CASE WHEN d.after IS NULL THEN jsonb_strip_nulls(h.before)
                         ELSE serviceradar_base.changed_fields(h.before, d.after) END,
                    serviceradar_base.changed_fields(d.after, h.before)
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
