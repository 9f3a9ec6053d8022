//! The outbox as a table.

use bytes::Bytes;

use super::{
    Fence,
    copy::CopyRows,
    session::{Parameter, Session},
    tables::RowContext,
};
use crate::{
    outbox::Entry,
    views::{DeadLetter, Epoch, OutboxEntry, ViewsError},
};

/// Writes entries, numbered from `next` on; of a generation that is not the active one, or untold, nothing is published.
pub(crate) async fn write(
    session: &mut Session,
    context: &RowContext<'_>,
    entries: impl Iterator<Item = Entry> + Send,
    next: &mut i64,
) -> Result<(), ViewsError> {
    let mut entries = entries.peekable();
    if entries.peek().is_none() || !context.is_live {
        return Ok(());
    }
    let into =
        "pipeline_outbox (tenant, generation, epoch, seq, stream, key, value, header_names, header_values)";
    let put = |(seq, entry): (i64, Entry), out: &mut CopyRows| {
        out.row(9)
            .text(context.tenant)
            .integer(context.generation)
            .bigint(context.epoch)
            .bigint(seq)
            .text(entry.stream.name())
            .option(entry.key.as_deref(), CopyRows::bytea)
            .option(entry.value.as_deref(), CopyRows::bytea)
            .texts(entry.headers.iter().map(|(name, _)| name.as_str()))
            .byteas(entry.headers.iter().map(|(_, value)| &**value));
    };
    let written = session.copy(into, (*next..).zip(entries), put).await?;
    *next = next.saturating_add_unsigned(written);
    Ok(())
}

/// Writes why dead letters were refused.
pub(crate) async fn refusals(
    session: &mut Session,
    context: &RowContext<'_>,
    epoch: &Epoch,
) -> Result<(), ViewsError> {
    if epoch.dead_letters.is_empty() {
        return Ok(());
    }
    let into = "pipeline_refusals (tenant, generation, topic, log_partition, log_offset, reason, epoch, at)";
    let put = |letter: &DeadLetter, out: &mut CopyRows| {
        out.row(8)
            .text(context.tenant)
            .integer(context.generation)
            .text(&letter.topic)
            .integer(letter.log_partition.cast_signed())
            .bigint(letter.offset.cast_signed())
            .text(&letter.reason)
            .bigint(context.epoch)
            .time(context.closed_at);
    };
    session.copy(into, epoch.dead_letters.iter(), put).await?;
    Ok(())
}

/// The oldest entries, in order: see [`TenantOutbox::oldest`](crate::views::TenantOutbox::oldest).
pub(crate) async fn read(
    session: &mut Session,
    fence: &Fence,
    entries: usize,
    bytes: u64,
) -> Result<Vec<OutboxEntry>, ViewsError> {
    let select = "SELECT epoch, seq, stream, key, value, header_names, header_values FROM (
            SELECT *, octet_length(value) AS size, sum(octet_length(value)) OVER (ORDER BY epoch, seq) AS upto
            FROM pipeline_outbox WHERE tenant = $1 AND generation = $2 ORDER BY epoch, seq LIMIT $3
        ) AS oldest
        WHERE upto IS NULL OR upto <= $4 OR upto = size ORDER BY epoch, seq";
    let (entries, bytes) =
        (i64::try_from(entries).unwrap_or(i64::MAX), i64::try_from(bytes).unwrap_or(i64::MAX));
    let parameters: [Parameter<'_>; 4] = [&fence.tenant, &fence.generation, &entries, &bytes];
    let rows = session.query(select, &parameters).await?;
    let bytes = |value: Option<&[u8]>| value.map(Bytes::copy_from_slice);
    let entry = |row: &tokio_postgres::Row| {
        let (names, values): (Vec<String>, Vec<&[u8]>) = (row.get(5), row.get(6));
        OutboxEntry {
            epoch: row.get::<_, i64>(0).cast_unsigned(),
            sequence: row.get(1),
            stream: row.get(2),
            key: bytes(row.get(3)),
            value: bytes(row.get(4)),
            headers: names.into_iter().zip(values.into_iter().map(Bytes::copy_from_slice)).collect(),
        }
    };
    Ok(rows.iter().map(entry).collect())
}

/// Forgets the entries up to and including one.
pub(crate) async fn forget(
    session: &mut Session,
    fence: &Fence,
    epoch: u64,
    sequence: i64,
) -> Result<(), ViewsError> {
    // Without a lock, which would wait for a commit under way. Rows that are seen where the token is still ours are not
    // a newcomer's.
    let delete = "WITH fence AS (
            SELECT FROM pipeline_writers WHERE tenant = $1 AND generation = $2 AND token = $5
        ), gone AS (
            DELETE FROM pipeline_outbox o USING fence
            WHERE tenant = $1 AND generation = $2 AND (epoch, seq) <= ($3, $4)
        ) SELECT count(*) FROM fence";
    let parameters: [Parameter<'_>; 5] =
        [&fence.tenant, &fence.generation, &epoch.cast_signed(), &sequence, &fence.token];
    let passed: i64 = session.query_one(delete, &parameters).await?.get(0);
    if passed == 0 { Err(fence.is_closed()) } else { Ok(()) }
}

/// Refuses where another has taken the tenant.
pub(crate) async fn check(session: &mut Session, fence: &Fence) -> Result<(), ViewsError> {
    let select = "SELECT FROM pipeline_writers WHERE tenant = $1 AND generation = $2 AND token = $3";
    let held = session.query(select, &[&fence.tenant, &fence.generation, &fence.token]).await?;
    if held.is_empty() { Err(fence.is_closed()) } else { Ok(()) }
}
