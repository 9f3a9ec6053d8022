//! Truncation: a tenant's rows go from all generations that follow the log, its writers are fenced, and one epoch tells it:
//! all at once, or not at all. Journals stay, and generations of the past: what was so then was so.

use serde_json::json;
use serviceradar_streams::rows::{EpochOutput, HistoryRow, Uid};
use uuid::Uuid;

use super::{
    PostgresViews, epoch,
    promotion::{context, hand_over},
    session::{Parameter, Session},
    state::Micros,
    tables::RowContext,
    untold,
};
use crate::{
    migrations::schema_of,
    views::{Epoch, Frontier, ViewsError},
};

/// Devices that are told at a time.
const DEVICES_AT_A_TIME: usize = 2_000;
/// Why devices are forgotten, as the journal has it.
const CAUSE: &str = "truncated";
/// What belongs to no generation's schema, and goes with the rows.
const PROGRESS: [&str; 7] = ["watermarks", "hashes", "refusals", "frontiers", "stops", "stand_bys", "untold"];
/// Views that `view_changes` tell of: their table, and the key of a row.
const ENTITIES: [(&str, &str, &str); 7] = [
    ("devices", "device_summaries", "'sr:' || uid"),
    ("device_records", "record_summaries", "record_key"),
    ("device_evidence", "device_evidence", "record_key"),
    ("identity_issues", "identity_issues", "concat_ws(' ', partition, kind, namespace, value)"),
    ("device_counts", "device_counts", "concat_ws(' ', partition, dimension, value)"),
    ("decisions", "decisions", "id"),
    (
        "snapshots",
        "snapshots",
        "concat_ws(' ', partition, source_kind || '/' || source_instance, (extract(epoch FROM begin) * 1000000)::bigint)",
    ),
];

/// What empties a tenant's views.
#[derive(Clone, Debug)]
pub struct Truncation {
    /// The operation: what it emptied once, it does not empty again.
    pub operation: String,
    /// Whose.
    pub tenant: String,
    /// Who does it.
    pub actor: String,
    /// Where the log is read on; log partitions that are not named are read from their start.
    pub frontiers: Vec<Frontier>,
    /// The last epoch that device changes tell of.
    pub published: u64,
    /// When, microseconds since the Unix epoch.
    pub at: i64,
}

/// A device that is there on one side of a truncation only.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moved {
    /// The device.
    pub uid: Uid,
    /// What it is called.
    pub name: Option<String>,
    /// `active`, `stale` or `retired`.
    pub state: String,
    /// Whether it is there now, and was not; else it was, and is not.
    pub is_new: bool,
}

impl PostgresViews {
    /// Empties a tenant's views; returns the epoch that tells it. Whoever writes the tenant is fenced, and starts over.
    pub async fn truncate(&self, truncation: &Truncation) -> Result<u64, ViewsError> {
        let mut session = Session::connect(&self.url).await?;
        session.become_writer().await?;
        if let Some(epoch) = truncated_by(&mut session, &truncation.operation).await? {
            return Ok(epoch);
        }
        session.begin("BEGIN").await?;
        let epoch = truncate(&mut session, truncation).await?;
        fail::fail_point!("in-truncation");
        session.begin("COMMIT").await?;
        fail::fail_point!("after-truncation");
        Ok(epoch)
    }

    /// The epoch at which an operation emptied a tenant's views; none where it has not.
    pub async fn truncated_by(&self, operation: &str) -> Result<Option<u64>, ViewsError> {
        let mut session = Session::connect(&self.url).await?;
        session.become_writer().await?;
        truncated_by(&mut session, operation).await
    }

    /// How many devices of a tenant this generation has that are not retired, and how many that are.
    pub async fn devices(&self, tenant: &str) -> Result<(u64, u64), ViewsError> {
        let mut session = Session::connect(&self.url).await?;
        session.become_writer().await?;
        super::use_target(&mut session, self.target).await?;
        let count =
            "SELECT count(*) FILTER (WHERE state <> 'retired'), count(*) FILTER (WHERE state = 'retired')
            FROM device_summaries WHERE tenant = $1";
        let row = session.query_one(count, &[&tenant]).await?;
        Ok((row.get::<_, i64>(0).cast_unsigned(), row.get::<_, i64>(1).cast_unsigned()))
    }

    /// The devices that a tenant has now and had not before it was truncated at an epoch, and the other way round; in order.
    pub async fn moved_since(&self, tenant: &str, epoch: u64) -> Result<Vec<Moved>, ViewsError> {
        let mut session = Session::connect(&self.url).await?;
        session.become_writer().await?;
        super::use_target(&mut session, super::Target::Active).await?;
        let select = "SELECT uid, coalesce(now.name, was.name), coalesce(now.state, was.state), was.state IS NULL
            FROM (SELECT uid, name, state FROM device_summaries WHERE tenant = $1) AS now
            FULL JOIN (SELECT uid, before ->> 'name' AS name, before ->> 'state' AS state FROM device_history
                       WHERE tenant = $1 AND epoch = $2 AND change = 'forgotten' AND cause = $3) AS was USING (uid)
            WHERE now.state IS NULL OR was.state IS NULL ORDER BY uid";
        let rows = session.query(select, &[&tenant, &epoch.cast_signed(), &CAUSE]).await?;
        let moved = |row: &tokio_postgres::Row| Moved {
            uid: Uid(row.get(0)),
            name: row.get(1),
            state: row.get(2),
            is_new: row.get(3),
        };
        Ok(rows.iter().map(moved).collect())
    }

    /// What became of a fetch: `accepted`, `held`, or nothing yet.
    pub async fn verdict(
        &self,
        tenant: &str,
        partition: &str,
        source: &serviceradar_schemas::Source,
        begin: i64,
    ) -> Result<Option<String>, ViewsError> {
        let mut session = Session::connect(&self.url).await?;
        session.become_writer().await?;
        super::use_target(&mut session, super::Target::Active).await?;
        let select = "SELECT verdict FROM snapshots WHERE tenant = $1 AND partition = $2 AND source_kind = $3
            AND source_instance = $4 AND begin = $5";
        let begin = Micros(begin);
        let parameters: [Parameter<'_>; 5] = [&tenant, &partition, &source.kind, &source.instance, &begin];
        Ok(session.query(select, &parameters).await?.first().and_then(|row| row.get(0)))
    }
}

async fn truncated_by(session: &mut Session, operation: &str) -> Result<Option<u64>, ViewsError> {
    let select = "SELECT (detail ->> 'epoch')::bigint FROM serviceradar_base.pipeline_operations
        WHERE id = $1 AND action = 'truncate'";
    let rows = session.query(select, &[&operation]).await?;
    Ok(rows.first().map(|row| row.get::<_, i64>(0).cast_unsigned()))
}

/// The epoch that emptied a tenant in a generation last; 0 where none did, or the tenant was removed since.
pub(crate) async fn last(session: &mut Session, tenant: &str, generation: i32) -> Result<u64, ViewsError> {
    let select = "SELECT coalesce(max(emptied), 0)
        FROM (SELECT (detail ->> 'epoch')::bigint AS emptied FROM serviceradar_base.pipeline_operations
              WHERE tenant = $1 AND action = 'truncate' AND detail -> 'generations' @> to_jsonb($2::integer)) AS o
        WHERE emptied <= (SELECT max(epoch) FROM serviceradar_base.pipeline_epochs
                          WHERE tenant = $1 AND generation = $2)";
    Ok(session.query_one(select, &[&tenant, &generation]).await?.get::<_, i64>(0).cast_unsigned())
}

async fn truncate(session: &mut Session, truncation: &Truncation) -> Result<u64, ViewsError> {
    let Truncation { operation, tenant, actor, frontiers, published, at } = truncation;
    let generations = "SELECT id, schema, state = 'active' FROM serviceradar_base.pipeline_generations
        WHERE state IN ('building', 'ready', 'active') ORDER BY id FOR SHARE";
    let generations: Vec<(i32, String, bool)> = session
        .query(generations, &[])
        .await?
        .iter()
        .map(|row| (row.get(0), row.get(1), row.get(2)))
        .collect();
    // Whoever holds a row of a writer commits; after this none does.
    let fence = "UPDATE serviceradar_base.pipeline_writers SET token = token + 1, writer = NULL, beat = 0, since = now()
        WHERE tenant = $1";
    session.execute(fence, &[tenant]).await?;
    let last = "SELECT coalesce(max(epoch), 0) FROM serviceradar_base.pipeline_epochs WHERE tenant = $1";
    let last: i64 = session.query_one(last, &[tenant]).await?.get(0);
    let number = last.cast_unsigned().max(*published) + 1;
    let ids: Vec<i32> = generations.iter().map(|(id, ..)| *id).collect();
    let detail = json!({ "epoch": number, "generations": ids });
    let insert =
        "INSERT INTO serviceradar_base.pipeline_operations (id, phase, action, tenant, actor, detail, at)
        VALUES ($1, 'intent', 'truncate', $2, $3, $4, $5)";
    session.execute(insert, &[operation, tenant, actor, &detail, &Micros(*at)]).await?;
    if let Some((id, schema, _)) = generations.iter().find(|(.., is_live)| *is_live) {
        let context = context(tenant, *id, number, *at);
        let told = untold::told(session, tenant, *id).await?.unwrap_or(*id);
        session.use_generation(&schema_of(told)).await?;
        if told != *id {
            hand_over(session, told, &context).await?;
        }
        tell(session, &context).await?;
        session.use_generation(schema).await?;
        tell_keys(session, &context).await?;
    }
    for (_, schema, _) in &generations {
        let tables = "SELECT tablename::text FROM pg_tables WHERE schemaname = $1";
        for table in session.query(tables, &[schema]).await? {
            let delete = format!("DELETE FROM {schema}.{} WHERE tenant = $1", table.get::<_, String>(0));
            session.execute(&delete, &[tenant]).await?;
        }
    }
    for table in PROGRESS {
        let delete = format!(
            "DELETE FROM serviceradar_base.pipeline_{table} WHERE tenant = $1 AND generation NOT IN (
                SELECT id FROM serviceradar_base.pipeline_generations WHERE state IN ('filling', 'past'))"
        );
        session.execute(&delete, &[tenant]).await?;
    }
    let epoch = Epoch {
        number,
        follows: last.cast_unsigned(),
        closed_at: *at,
        events: 0,
        intake_max: i64::MIN,
        frontiers: frontiers.clone(),
        output: EpochOutput::default(),
        dead_letters: Vec::new(),
    };
    for (id, _, is_live) in &generations {
        let context =
            RowContext { is_active: *is_live, is_live: *is_live, ..context(tenant, *id, number, *at) };
        epoch::progress(session, &context, &epoch).await?;
        if *is_live {
            epoch::notify(session, &context).await?;
        }
    }
    Ok(number)
}

/// Tells that all devices go, while they are there: in the journal, and to be published.
async fn tell(session: &mut Session, context: &RowContext<'_>) -> Result<(), ViewsError> {
    let (mut reached, mut next_of_outbox) = (Uuid::nil(), 0);
    let next = "SELECT uid FROM device_summaries WHERE tenant = $1 AND uid > $2 ORDER BY uid LIMIT $3";
    loop {
        let rows = session.query(next, &[&context.tenant, &reached, &(DEVICES_AT_A_TIME as i64)]).await?;
        let uids: Vec<Uid> = rows.iter().map(|row| Uid(row.get(0))).collect();
        let Some(last) = uids.last() else {
            break;
        };
        reached = last.0;
        let mut output = EpochOutput::default();
        output.devices.gone = uids.iter().map(Uid::to_string).collect();
        let forgotten = |uid| HistoryRow { uid, change: "forgotten", cause: CAUSE.to_owned() };
        output.history = uids.into_iter().map(forgotten).collect();
        session.clear_stages().await?;
        epoch::tell_devices(session, context, &output, &mut next_of_outbox).await?;
    }
    session.clear_stages().await
}

/// Tells whoever follows the views that all goes, while it is there.
async fn tell_keys(session: &mut Session, context: &RowContext<'_>) -> Result<(), ViewsError> {
    let mut next = 0;
    for (entity, table, key) in ENTITIES {
        let insert = format!(
            "INSERT INTO view_changes (tenant, generation, epoch, seq, entity, seen_only, keys, at)
             SELECT $1, $2, $3, ($4 + part)::integer, $5, false, array_agg(key), $6 FROM (
                 SELECT key, (row_number() OVER (ORDER BY key) - 1) / $7 AS part
                 FROM (SELECT DISTINCT {key} AS key FROM {table} WHERE tenant = $1) AS keys) AS parts
             GROUP BY part"
        );
        let RowContext { tenant, generation, epoch, closed_at, .. } = context;
        let (at, in_row) = (Micros(*closed_at), epoch::KEYS_IN_ROW as i64);
        let parameters: [Parameter<'_>; 7] = [tenant, generation, epoch, &next, &entity, &at, &in_row];
        next += session.execute(&insert, &parameters).await?.cast_signed();
    }
    Ok(())
}
