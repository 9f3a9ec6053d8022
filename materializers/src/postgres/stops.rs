//! Stops and stand-bys: a writer is asked to stop so that another generation takes the place of its own, and knows who
//! would take over from it.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;

use super::{Fence, session::Session};
use crate::views::{StopAsked, ViewsError};

/// Who stands by says so every second: one that was not heard of for longer has gone.
const STAND_BY_HEARD: Duration = Duration::from_secs(5);

/// Where the fence's writer is asked to stop.
pub(crate) async fn asked(session: &mut Session, fence: &Fence) -> Result<Option<StopAsked>, ViewsError> {
    let select = "SELECT wanted, epoch FROM pipeline_stops WHERE tenant = $1 AND generation = $2";
    let rows = session.query(select, &[&fence.tenant, &fence.generation]).await?;
    rows.first()
        .map(|row| {
            let epoch = row.get::<_, Option<i64>>(1).map(i64::cast_unsigned);
            Ok(StopAsked { wanted: offsets_of(row.get(0))?, epoch })
        })
        .transpose()
}

/// Says that the fence's writer stopped at an epoch.
pub(crate) async fn answer(session: &mut Session, fence: &Fence, epoch: u64) -> Result<(), ViewsError> {
    session.begin("BEGIN").await?;
    fence.pass(session).await?;
    let update = "UPDATE pipeline_stops SET epoch = $3 WHERE tenant = $1 AND generation = $2";
    session.execute(update, &[&fence.tenant, &fence.generation, &epoch.cast_signed()]).await?;
    session.begin("COMMIT").await
}

/// Takes back what it was asked. Whoever promotes holds the row: then this waits, and the fence is closed.
pub(crate) async fn go_on(session: &mut Session, fence: &Fence) -> Result<(), ViewsError> {
    let delete = "DELETE FROM pipeline_stops WHERE tenant = $1 AND generation = $2";
    session.execute(delete, &[&fence.tenant, &fence.generation]).await?;
    fence.pass(session).await.map(drop)
}

/// Notes that somebody stands by, and how far it has followed.
pub(crate) async fn stand_by(
    session: &mut Session,
    tenant: &str,
    generation: i32,
    writer: &str,
    epoch: u64,
) -> Result<(), ViewsError> {
    let upsert = "INSERT INTO pipeline_stand_bys (tenant, generation, writer, epoch) VALUES ($1, $2, $3, $4)
        ON CONFLICT (tenant, generation, writer) DO UPDATE SET epoch = excluded.epoch, seen_at = now()";
    session.execute(upsert, &[&tenant, &generation, &writer, &epoch.cast_signed()]).await.map(drop)
}

/// Forgets that it stood by, and who has gone.
pub(crate) async fn is_no_stand_by(
    session: &mut Session,
    tenant: &str,
    generation: i32,
    writer: &str,
) -> Result<(), ViewsError> {
    let delete = "DELETE FROM serviceradar_base.pipeline_stand_bys WHERE tenant = $1
        AND (generation = $2 AND writer = $3 OR seen_at < now() - make_interval(secs => $4))";
    let heard = STAND_BY_HEARD.as_secs_f64();
    session.execute(delete, &[&tenant, &generation, &writer, &heard]).await.map(drop)
}

/// How far the one of those who stand by has followed that is ahead.
pub(crate) async fn followed_to(session: &mut Session, fence: &Fence) -> Result<Option<u64>, ViewsError> {
    let select = "SELECT max(epoch) FROM pipeline_stand_bys
        WHERE tenant = $1 AND generation = $2 AND seen_at > now() - make_interval(secs => $3)";
    let heard = STAND_BY_HEARD.as_secs_f64();
    let row = session.query_one(select, &[&fence.tenant, &fence.generation, &heard]).await?;
    Ok(row.get::<_, Option<i64>>(0).map(i64::cast_unsigned))
}

/// Next offsets as JSON: {topic/log partition: next offset}.
pub(crate) fn offsets_json(offsets: &BTreeMap<(String, u32), u64>) -> Value {
    let entry = |((topic, at), next): (&(String, u32), &u64)| (format!("{topic}/{at}"), Value::from(*next));
    Value::Object(offsets.iter().map(entry).collect())
}

fn offsets_of(json: Value) -> Result<BTreeMap<(String, u32), u64>, ViewsError> {
    let unreadable = || ViewsError::Refused(format!("a row of pipeline_stops cannot be read: {json}"));
    let entry = |(name, next): (&String, &Value)| {
        let (topic, at) = name.rsplit_once('/')?;
        Some(((topic.to_owned(), at.parse().ok()?), next.as_u64()?))
    };
    let offsets = json.as_object().ok_or_else(unreadable)?;
    offsets.iter().map(|each| entry(each).ok_or_else(unreadable)).collect()
}
