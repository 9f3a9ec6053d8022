//! Journals: what was believed of a device before an epoch and after it.

use std::collections::HashMap;

use serde_json::Value;
use serviceradar_streams::rows::{DeviceRow, EpochOutput, HistoryRow, MergeRow};

use super::{
    copy::CopyRows,
    session::{Parameter, Session},
    state::Micros,
    tables::{DetailsRow, RowContext, TableRow},
};
use crate::views::ViewsError;

/// All of them.
pub(crate) const JOURNALS: [&str; 2] = ["device_history", "device_merges"];
/// Columns of `devices` that are no belief about a device.
pub(crate) const BOOKKEEPING: [&str; 3] = ["last_seen_period", "modified_at", "epoch"];

/// Writes down what becomes of devices, while they are as they were and are staged as they will be.
pub(crate) async fn history(
    session: &mut Session,
    context: &RowContext<'_>,
    output: &EpochOutput,
) -> Result<(), ViewsError> {
    created(session, context, output).await?;
    changed(session, context, output).await
}

/// Writes down devices that are new, and stages what is to be written down of others.
async fn created(
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
    session.stage("staged_history", "SELECT uid, change, cause FROM device_history").await?;
    let put = |(_, row): (String, &HistoryRow), out: &mut CopyRows| {
        out.row(3).uuid(row.uid.0).text(row.change).text(&row.cause);
    };
    session.copy("staged_history (uid, change, cause)", changed.into_iter(), put).await?;
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

/// Writes down devices that change or go: of the former the fields that differ, of the latter all.
async fn changed(
    session: &mut Session,
    context: &RowContext<'_>,
    output: &EpochOutput,
) -> Result<(), ViewsError> {
    if output.history.len() == output.devices.new.len() {
        return Ok(());
    }
    let at = Micros(context.closed_at);
    let parameters: [Parameter<'_>; 4] = [&context.tenant, &context.generation, &context.epoch, &at];
    let into = "INSERT INTO device_history (tenant, uid, generation, epoch, at, change, cause, before, after)
        SELECT $1, h.uid, $2, $3, $4::timestamptz, h.change, h.cause,";
    if !output.devices.gone.is_empty() {
        let rest: Vec<String> =
            ["tenant", "uid"].iter().chain(&BOOKKEEPING).map(|column| format!("'{column}'")).collect();
        let gone = format!(
            "{into} jsonb_strip_nulls(to_jsonb(d) - ARRAY[{}]), NULL
             FROM staged_history h JOIN devices d ON d.tenant = $1 AND d.uid = h.uid
             WHERE h.change IN ('merged', 'forgotten')",
            rest.join(", ")
        );
        session.execute(&gone, &parameters).await?;
    }
    if output.devices.changed.is_empty() {
        return Ok(());
    }
    let of_summary = DeviceRow::REST.iter().filter(|column| !BOOKKEEPING.contains(column));
    let columns = of_summary.map(|column| ("s", column)).chain(DetailsRow::REST.iter().map(|c| ("t", c)));
    let columns: Vec<(&str, &&str)> = columns.collect();
    // As text, which takes a column that is as it was only to compare: a jsonb object of all of them is three times
    // the work.
    let differing = |before: bool| {
        let of_each = columns.iter().map(|(staged, c)| {
            let side = if before { "d" } else { staged };
            format!(
                "CASE WHEN d.{c} IS DISTINCT FROM {staged}.{c}
                 THEN '\"{c}\": ' || coalesce(to_jsonb({side}.{c})::text, 'null') END"
            )
        });
        format!("('{{' || concat_ws(', ', {}) || '}}')::jsonb", of_each.collect::<Vec<_>>().join(", "))
    };
    let changed = format!(
        "{into} {}, {}
         FROM staged_history h
         JOIN changed_device_summaries s ON s.uid = h.uid
         JOIN changed_device_details t ON t.uid = h.uid
         JOIN devices d ON d.tenant = $1 AND d.uid = h.uid",
        differing(true),
        differing(false)
    );
    session.execute(&changed, &parameters).await?;
    Ok(())
}

/// Writes down what was merged and split.
pub(crate) async fn merges(
    session: &mut Session,
    context: &RowContext<'_>,
    merges: &[MergeRow],
) -> Result<(), ViewsError> {
    if merges.is_empty() {
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
    session.copy(into, merges.iter(), put).await?;
    Ok(())
}
