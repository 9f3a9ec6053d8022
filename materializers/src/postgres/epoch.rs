//! The epoch transaction: everything that an epoch changes, between its fence and its commit.

use std::sync::Arc;

use fail::fail_point;
use serde_json::{Map, Value};
use serviceradar_schemas::{
    Source,
    time::{DAY, HOUR, MINUTE},
};
use serviceradar_streams::changes::{Changes, Row, Seen};
use serviceradar_streams::rows::EpochOutput;

use super::{
    Fence, Passed,
    copy::CopyRows,
    journals, outbox,
    session::{Parameter, Session},
    state::Micros,
    sums,
    tables::{AttributesRow, DetailsRow, RowContext, SearchRow, TableRow},
};
use crate::{
    outbox::{dead_letters, device_changes},
    views::{Epoch, Frontier, ViewsError},
};

/// Of a stage: rows of which only sightings changed, and the others.
const SEEN: &str = "seen";
const CHANGED: &str = "changed";
/// The channel on which a commit says (tenant, generation, epoch).
const CHANNEL: &str = "serviceradar";
/// Keys in one row of `view_changes`.
pub(crate) const KEYS_IN_ROW: usize = 1_000;
/// How long `view_changes` are kept, microseconds.
const VIEW_CHANGES_KEPT: i64 = HOUR;
/// How often old rows are deleted, microseconds of the epochs' times.
const CLEAN_EVERY: i64 = MINUTE;
/// Epochs that are kept one by one; before them one a minute.
const EPOCHS_KEPT: i64 = 10_000;
/// Epochs between two thinnings.
const THIN_EVERY: i64 = 1_000;
/// How long one epoch a minute is kept, microseconds; before that one an hour.
const MINUTES_KEPT: i64 = 30 * DAY;

/// Writes an epoch inside the transaction that has passed the fence.
pub(crate) async fn write(
    session: &mut Session,
    context: RowContext<'_>,
    epoch: &Epoch,
    cleaned_at: &mut i64,
) -> Result<(), ViewsError> {
    let mut next = Next::default();
    of_devices(session, &context, &epoch.output, &mut next.of_changes).await?;
    let entries = device_changes(context.generation, epoch.number, &epoch.output);
    outbox::write(session, &context, entries, &mut next.of_outbox).await?;
    of_records(session, &context, &epoch.output, &mut next.of_changes).await?;
    attributes(session, &context, &epoch.output).await?;
    sums::add(session, context.tenant, context.generation, &epoch.output.sums).await?;
    rest(session, &context, epoch, next.of_outbox, cleaned_at).await
}

/// What its rows need to know of an epoch.
pub(super) fn context<'a>(fence: &'a Fence, epoch: &Epoch, passed: &Passed) -> RowContext<'a> {
    RowContext {
        tenant: &fence.tenant,
        generation: fence.generation,
        epoch: epoch.number.cast_signed(),
        closed_at: epoch.closed_at,
        is_active: passed.is_active,
        is_live: passed.is_live,
    }
}

/// Writes what an epoch has besides rows.
pub(super) async fn rest(
    session: &mut Session,
    context: &RowContext<'_>,
    epoch: &Epoch,
    mut next_of_outbox: i64,
    cleaned_at: &mut i64,
) -> Result<(), ViewsError> {
    outbox::write(session, context, dead_letters(epoch), &mut next_of_outbox).await?;
    outbox::refusals(session, context, epoch).await?;
    progress(session, context, epoch).await?;
    if context.is_active {
        notify(session, context).await?;
    }
    // A clock that leapt ahead and came back would stop it for as long otherwise.
    if epoch.closed_at.abs_diff(*cleaned_at) >= CLEAN_EVERY.unsigned_abs() {
        clean(session, context).await?;
        *cleaned_at = epoch.closed_at;
    }
    Ok(())
}

/// Numbers of the next rows of an epoch in tables that number them.
#[derive(Default)]
struct Next {
    of_outbox: i64,
    of_changes: i32,
}

/// Writes rows of devices, and what they give to publish and to tell.
pub(super) async fn of_devices(
    session: &mut Session,
    context: &RowContext<'_>,
    output: &EpochOutput,
    next: &mut i32,
) -> Result<(), ViewsError> {
    devices(session, context, output).await?;
    if context.is_live {
        journals::merges(session, context, &output.merges).await?;
    }
    let mut told = Vec::new();
    tell(&output.devices, |uid| uid, &mut told);
    view_changes(session, context, told, next).await
}

/// Writes rows of all else, and what they give to tell.
pub(super) async fn of_records(
    session: &mut Session,
    context: &RowContext<'_>,
    output: &EpochOutput,
    next: &mut i32,
) -> Result<(), ViewsError> {
    changes(session, context, &output.records).await?;
    changes(session, context, &output.evidence).await?;
    changes(session, context, &output.issues).await?;
    changes(session, context, &output.counts).await?;
    changes(session, context, &output.decisions).await?;
    changes(session, context, &output.snapshots).await?;
    changes(session, context, &output.snapshot_members).await?;
    changes(session, context, &output.watermarks).await?;
    let mut told = Vec::new();
    tell(&output.records, |key| key.to_string(), &mut told);
    // Of evidence, the records.
    tell(&output.evidence, |(record_key, ..)| record_key.to_string(), &mut told);
    tell(&output.issues, |(a, b, c, d)| format!("{a} {b} {c} {d}"), &mut told);
    tell(&output.counts, |(a, b, c)| format!("{a} {b} {c}"), &mut told);
    tell(&output.decisions, |id| id, &mut told);
    let fetch = |(partition, source, begin): (Arc<str>, Source, i64)| format!("{partition} {source} {begin}");
    tell(&output.snapshots, fetch, &mut told);
    view_changes(session, context, told, next).await
}

pub(super) async fn attributes(
    session: &mut Session,
    context: &RowContext<'_>,
    output: &EpochOutput,
) -> Result<(), ViewsError> {
    changes(session, context, &part(&output.records, AttributesRow)).await
}

/// Writes the changes of devices, and before that how they looked.
async fn devices(
    session: &mut Session,
    context: &RowContext<'_>,
    output: &EpochOutput,
) -> Result<(), ViewsError> {
    let details = part(&output.devices, DetailsRow);
    stage_changed(session, context, &output.devices).await?;
    stage_changed(session, context, &details).await?;
    if context.is_live {
        journals::history(session, context, output).await?;
    }
    write_staged(session, context, &output.devices).await?;
    write_staged(session, context, &details).await?;
    changes(session, context, &part(&output.devices, SearchRow)).await
}

/// Writes down how the devices that the session means differ from what they become: in the journals, and to be
/// published. The devices stay as they are.
pub(crate) async fn tell_devices(
    session: &mut Session,
    context: &RowContext<'_>,
    output: &EpochOutput,
    next_of_outbox: &mut i64,
) -> Result<(), ViewsError> {
    stage_changed(session, context, &output.devices).await?;
    stage_changed(session, context, &part(&output.devices, DetailsRow)).await?;
    journals::history(session, context, output).await?;
    journals::merges(session, context, &output.merges).await?;
    let entries = device_changes(context.generation, context.epoch.cast_unsigned(), output);
    outbox::write(session, context, entries, next_of_outbox).await
}

/// Writes the changes of one table: what is gone, what is otherwise, what is new.
async fn changes<R: TableRow>(
    session: &mut Session,
    context: &RowContext<'_>,
    changes: &Changes<R>,
) -> Result<(), ViewsError> {
    stage_changed(session, context, changes).await?;
    write_staged(session, context, changes).await
}

/// Stages the rows that changed by more than sightings.
async fn stage_changed<R: TableRow>(
    session: &mut Session,
    context: &RowContext<'_>,
    changes: &Changes<R>,
) -> Result<(), ViewsError> {
    if changes.changed.is_empty() {
        return Ok(());
    }
    let put = |row: &R, rows: &mut CopyRows| {
        R::put_key(&row.key(), rows);
        row.put_rest(context, rows);
    };
    stage_rows::<R, R>(session, CHANGED, R::REST, &changes.changed, put).await
}

/// Writes the changes of one table whose changed rows are staged.
async fn write_staged<R: TableRow>(
    session: &mut Session,
    context: &RowContext<'_>,
    changes: &Changes<R>,
) -> Result<(), ViewsError> {
    gone::<R>(session, context, &changes.gone).await?;
    if !changes.seen.is_empty() {
        let put = |seen: &R::Seen, rows: &mut CopyRows| {
            R::put_key(&seen.key(), rows);
            R::put_seen(seen, context, rows);
        };
        stage_rows::<R, R::Seen>(session, SEEN, R::SEEN, &changes.seen, put).await?;
        update::<R>(session, context, SEEN, R::SEEN, changes.seen.len()).await?;
    }
    if !changes.changed.is_empty() {
        update::<R>(session, context, CHANGED, R::REST, changes.changed.len()).await?;
    }
    insert(session, context, changes.new.iter()).await
}

/// `tenant` or `tenant, generation`: what stands before the key.
fn scope_columns<R: TableRow>() -> &'static [&'static str] {
    if R::IS_PROGRESS { &["tenant", "generation"] } else { &["tenant"] }
}

async fn insert<'r, R: TableRow + 'r>(
    session: &mut Session,
    context: &RowContext<'_>,
    rows: impl ExactSizeIterator<Item = &'r R> + Send,
) -> Result<(), ViewsError> {
    if rows.len() == 0 {
        return Ok(());
    }
    fail_point!("between-statements");
    let columns = [scope_columns::<R>(), R::KEY, R::REST].concat();
    let into = format!("{} ({})", R::TABLE, columns.join(", "));
    let put = |row: &R, out: &mut CopyRows| {
        out.row(columns.len()).text(context.tenant);
        if R::IS_PROGRESS {
            out.integer(context.generation);
        }
        R::put_key(&row.key(), out);
        row.put_rest(context, out);
    };
    session.copy(&into, rows, put).await?;
    Ok(())
}

async fn stage_rows<R: TableRow, T: Sync>(
    session: &mut Session,
    kind: &str,
    columns: &[&str],
    rows: &[T],
    put: impl Fn(&T, &mut CopyRows) + Send + Sync,
) -> Result<(), ViewsError> {
    let staged = [R::KEY, columns].concat();
    let stage = stage::<R>(session, kind, &staged).await?;
    let put = |row: &T, out: &mut CopyRows| put(row, out.row(staged.len()));
    session.copy(&format!("{stage} ({})", staged.join(", ")), rows.iter(), put).await?;
    Ok(())
}

/// Writes staged rows over those that are there.
async fn update<R: TableRow>(
    session: &mut Session,
    context: &RowContext<'_>,
    kind: &str,
    columns: &[&str],
    rows: usize,
) -> Result<(), ViewsError> {
    fail_point!("between-statements");
    let set: Vec<String> = columns.iter().map(|column| format!("{column} = s.{column}")).collect();
    let differs = if R::MAY_BE_EQUAL {
        let side = |side: &str| columns.iter().map(|c| format!("{side}.{c}")).collect::<Vec<_>>().join(", ");
        format!(" AND ({}) IS DISTINCT FROM ({})", side("t"), side("s"))
    } else {
        String::new()
    };
    let sql = format!(
        "UPDATE {} t SET {} FROM {} s WHERE {}{differs}",
        R::TABLE,
        set.join(", "),
        staged::<R>(&stage_name::<R>(kind)),
        same_key::<R>()
    );
    session.execute(&sql, &scope::<R>(context, &rows_staged(rows))).await?;
    Ok(())
}

async fn gone<R: TableRow>(
    session: &mut Session,
    context: &RowContext<'_>,
    keys: &[R::Key],
) -> Result<(), ViewsError> {
    if keys.is_empty() {
        return Ok(());
    }
    let stage = stage::<R>(session, "gone", R::KEY).await?;
    let put = |key: &R::Key, out: &mut CopyRows| R::put_key(key, out.row(R::KEY.len()));
    session.copy(&format!("{stage} ({})", R::KEY.join(", ")), keys.iter(), put).await?;
    let sql = format!("DELETE FROM {} t USING {} s WHERE {}", R::TABLE, staged::<R>(&stage), same_key::<R>());
    session.execute(&sql, &scope::<R>(context, &rows_staged(keys.len()))).await?;
    Ok(())
}

fn stage_name<R: TableRow>(kind: &str) -> String {
    format!("{kind}_{}", R::TABLE)
}

async fn stage<R: TableRow>(
    session: &mut Session,
    kind: &str,
    columns: &[&str],
) -> Result<String, ViewsError> {
    let stage = stage_name::<R>(kind);
    session.stage(&stage, &format!("SELECT {} FROM {}", columns.join(", "), R::TABLE)).await?;
    Ok(stage)
}

/// That a row of the table is that of the stage, and the writer's own.
fn same_key<R: TableRow>() -> String {
    let scope = scope_columns::<R>().iter().zip(1..).map(|(column, at)| format!("t.{column} = ${at}"));
    let key = R::KEY.iter().map(|column| format!("t.{column} = s.{column}"));
    scope.chain(key).collect::<Vec<_>>().join(" AND ")
}

/// All of a stage. The limit, the last parameter, is how many rows it has: the planner takes a table that was just
/// filled for one of ten pages at least, and would rather read the whole of the other than look a few rows up.
fn staged<R: TableRow>(stage: &str) -> String {
    format!("(SELECT * FROM {stage} LIMIT ${})", scope_columns::<R>().len() + 1)
}

fn rows_staged(rows: usize) -> i64 {
    rows.try_into().unwrap_or(i64::MAX)
}

fn scope<'a, R: TableRow>(context: &'a RowContext<'_>, rows: &'a i64) -> Vec<Parameter<'a>> {
    if R::IS_PROGRESS {
        vec![&context.tenant, &context.generation, rows]
    } else {
        vec![&context.tenant, rows]
    }
}

/// The changes of a table that has a part of each row, none of it touched by sightings.
fn part<'a, R: Row, P: Row<Key = R::Key>>(changes: &'a Changes<R>, part: impl Fn(&'a R) -> P) -> Changes<P> {
    Changes {
        new: changes.new.iter().map(&part).collect(),
        changed: changes.changed.iter().map(&part).collect(),
        seen: Vec::new(),
        gone: changes.gone.clone(),
    }
}

/// Writes the row of an epoch, and the frontiers that it moved.
pub(crate) async fn progress(
    session: &mut Session,
    context: &RowContext<'_>,
    epoch: &Epoch,
) -> Result<(), ViewsError> {
    let upsert =
        "INSERT INTO pipeline_frontiers (tenant, generation, epoch, topic, log_partition, next_offset,
            intake_max, witness_offset, witness_time, witness_hash)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
        ON CONFLICT (tenant, generation, topic, log_partition) DO UPDATE SET epoch = excluded.epoch,
            next_offset = excluded.next_offset, intake_max = excluded.intake_max,
            witness_offset = excluded.witness_offset, witness_time = excluded.witness_time,
            witness_hash = excluded.witness_hash";
    for frontier in &epoch.frontiers {
        let witness = frontier.witness.as_ref();
        let (log_partition, next_offset) =
            (frontier.log_partition.cast_signed(), frontier.next_offset.cast_signed());
        let intake_max = (frontier.intake_max != i64::MIN).then_some(Micros(frontier.intake_max));
        let parameters: [Parameter<'_>; 10] = [
            &context.tenant,
            &context.generation,
            &context.epoch,
            &frontier.topic,
            &log_partition,
            &next_offset,
            &intake_max,
            &witness.map(|witness| witness.offset.cast_signed()),
            &witness.map(|witness| Micros(witness.append_time)),
            &witness.map(|witness| witness.hash),
        ];
        session.execute(upsert, &parameters).await?;
    }
    let insert = "INSERT INTO pipeline_epochs
            (tenant, generation, epoch, closed_at, frontiers, intake_max, records, changes)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8)";
    let parameters: [Parameter<'_>; 8] = [
        &context.tenant,
        &context.generation,
        &context.epoch,
        &Micros(context.closed_at),
        &frontiers_json(&epoch.frontiers),
        &(epoch.intake_max != i64::MIN).then_some(Micros(epoch.intake_max)),
        &epoch.events.cast_signed(),
        &(epoch.output.rows() as i64),
    ];
    session.execute(insert, &parameters).await?;
    Ok(())
}

fn frontiers_json(frontiers: &[Frontier]) -> Value {
    let entry = |frontier: &Frontier| {
        (format!("{}/{}", frontier.topic, frontier.log_partition), Value::from(frontier.next_offset))
    };
    Value::Object(frontiers.iter().map(entry).collect::<Map<_, _>>())
}

/// Tells which keys changed.
async fn view_changes(
    session: &mut Session,
    context: &RowContext<'_>,
    rows: Vec<Told>,
    next: &mut i32,
) -> Result<(), ViewsError> {
    let into = "view_changes (tenant, generation, epoch, seq, entity, seen_only, keys, at)";
    let put = |(seq, (entity, seen_only, keys)): (i32, (&str, bool, Vec<String>)), out: &mut CopyRows| {
        out.row(8)
            .text(context.tenant)
            .integer(context.generation)
            .bigint(context.epoch)
            .integer(seq)
            .text(entity)
            .boolean(seen_only)
            .texts(keys.iter().map(String::as_str))
            .time(context.closed_at);
    };
    if !rows.is_empty() {
        let first = *next;
        *next += rows.len() as i32;
        session.copy(into, (first..).zip(rows), put).await?;
    }
    Ok(())
}

/// Tells that an epoch was committed.
pub(crate) async fn notify(session: &mut Session, context: &RowContext<'_>) -> Result<(), ViewsError> {
    let told = serde_json::json!({
        "tenant": context.tenant, "generation": context.generation, "epoch": context.epoch,
    });
    session.execute("SELECT pg_notify($1, $2)", &[&CHANNEL, &told.to_string()]).await?;
    Ok(())
}

/// A row of `view_changes`: entity, whether only sightings changed, keys.
type Told = (&'static str, bool, Vec<String>);

/// Notes the keys of rows that changed.
fn tell<R: TableRow>(changes: &Changes<R>, text: impl Fn(R::Key) -> String, told: &mut Vec<Told>) {
    let whole = changes.new.iter().chain(&changes.changed).map(Row::key).chain(changes.gone.iter().cloned());
    let seen = changes.seen.iter().map(Seen::key);
    for (seen_only, keys) in [(false, whole.collect::<Vec<_>>()), (true, seen.collect())] {
        let mut keys: Vec<String> = keys.into_iter().map(&text).collect();
        keys.sort_unstable();
        keys.dedup();
        told.extend(keys.chunks(KEYS_IN_ROW).map(|keys| (R::ENTITY, seen_only, keys.to_vec())));
    }
}

/// Deletes what is no longer kept.
async fn clean(session: &mut Session, context: &RowContext<'_>) -> Result<(), ViewsError> {
    let old = "DELETE FROM view_changes WHERE tenant = $1 AND generation = $2 AND at < $3";
    let before = Micros(context.closed_at.saturating_sub(VIEW_CHANGES_KEPT));
    session.execute(old, &[&context.tenant, &context.generation, &before]).await?;
    if context.epoch % THIN_EVERY != 0 {
        return Ok(());
    }
    // The first of each minute, or hour, stays.
    let thin = "DELETE FROM pipeline_epochs WHERE tenant = $1 AND generation = $2 AND epoch IN (
        SELECT epoch FROM (
            SELECT epoch, row_number() OVER (PARTITION BY date_trunc($4, closed_at, 'UTC') ORDER BY epoch) AS place
            FROM pipeline_epochs
            WHERE tenant = $1 AND generation = $2 AND epoch < $3 AND closed_at >= $5 AND closed_at < $6
        ) AS placed WHERE place > 1)";
    let kept = context.epoch - EPOCHS_KEPT;
    let minutes_from = context.closed_at.saturating_sub(MINUTES_KEPT);
    for (unit, from, to) in [("minute", minutes_from, context.closed_at), ("hour", 0, minutes_from)] {
        let parameters: [Parameter<'_>; 6] =
            [&context.tenant, &context.generation, &kept, &unit, &Micros(from), &Micros(to)];
        session.execute(thin, &parameters).await?;
    }
    Ok(())
}
