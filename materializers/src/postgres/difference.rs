//! The difference between two generations: the devices of a tenant that one has otherwise than the other.

use std::collections::{BTreeMap, BTreeSet};

use serviceradar_streams::rows::{DeviceRow, Uid};
use uuid::Uuid;

use super::{
    PostgresViews, devices,
    journals::BOOKKEEPING,
    session::{Parameter, Session},
    state,
    tables::{DetailsRow, TableRow},
};
use crate::{
    migrations::schema_of,
    views::{Resume, ViewsError},
};

/// Devices of both generations that are in memory at a time.
pub(super) const DEVICES_AT_A_TIME: usize = 2_000;
/// Where the two stand at different places of the log, what an epoch of so long ago or less changed is not compared.
const CHANGED_LATELY: &str = "1 minute";
/// For what compares whole generations.
pub(super) const MUCH_MEMORY: &str = "SET LOCAL work_mem = '256MB'";

/// How a device differs between two generations, from the first to the second.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Only the second has it.
    Appeared,
    /// Only the first has it.
    Vanished,
    /// Only the first has it; in the second what it was is part of another.
    Merged(Uid),
    /// Only the second has it; in the first what it is was part of another.
    Split(Uid),
    /// Both have it, otherwise.
    Changed,
}

/// A device that differs between two generations.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// The device.
    pub uid: Uid,
    /// How it differs.
    pub kind: Kind,
    /// As the first has it.
    pub before: Option<DeviceRow>,
    /// As the second has it.
    pub after: Option<DeviceRow>,
}

/// The devices of a tenant that may differ between two generations, found at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differing {
    /// All that differed then.
    pub uids: BTreeSet<Uuid>,
    /// Of them, those that changed within the last minute, while the two stood at different places of the log: nobody can
    /// say whether they differ.
    pub unsure: BTreeSet<Uuid>,
    /// The last epochs of the two.
    pub(super) epochs: (i64, i64),
}

impl Differing {
    /// The last epochs of the two.
    pub(super) fn epochs(&self) -> (u64, u64) {
        (self.epochs.0.cast_unsigned(), self.epochs.1.cast_unsigned())
    }
}

impl PostgresViews {
    /// The devices of a tenant that differ between two generations.
    pub async fn differing(&self, from: i32, to: i32, tenant: &str) -> Result<Differing, ViewsError> {
        let mut session = self.snapshot().await?;
        differing(&mut session, from, to, tenant).await
    }

    /// Looks again at the devices that changed in either of the two since they were compared, and notes those that differ now.
    /// Returns how many it looked at.
    pub async fn compare_again(
        &self,
        from: i32,
        to: i32,
        tenant: &str,
        differing: &mut Differing,
    ) -> Result<usize, ViewsError> {
        let mut session = self.snapshot().await?;
        let touched = touched(&mut session, (from, to), tenant, differing.epochs).await?;
        let touched: Vec<Uuid> = touched.difference(&differing.uids).copied().collect();
        for uids in touched.chunks(DEVICES_AT_A_TIME) {
            let found = differences(&mut session, from, to, tenant, uids).await?;
            differing.uids.extend(found.iter().map(|difference| difference.uid.0));
        }
        differing.epochs = last_epochs(&mut session, (from, to), tenant).await?;
        Ok(touched.len())
    }

    /// The difference between two generations of a tenant, in the order of uids, at one moment; `tell` hears of each device.
    /// Returns how many were left out because they changed lately.
    pub async fn diff<E: From<ViewsError>>(
        &self,
        from: i32,
        to: i32,
        tenant: &str,
        mut tell: impl FnMut(Difference) -> Result<(), E>,
    ) -> Result<u64, E> {
        let mut session = self.snapshot().await?;
        let Differing { uids, unsure, .. } = differing(&mut session, from, to, tenant).await?;
        let sure: Vec<Uuid> = uids.difference(&unsure).copied().collect();
        for uids in sure.chunks(DEVICES_AT_A_TIME) {
            for difference in differences(&mut session, from, to, tenant, uids).await? {
                tell(difference)?;
            }
        }
        Ok(unsure.len() as u64)
    }

    async fn snapshot(&self) -> Result<Session, ViewsError> {
        let mut session = Session::connect(&self.url).await?;
        session.become_writer().await?;
        session.use_generation("serviceradar_base").await?;
        session.begin("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        session.begin(MUCH_MEMORY).await?;
        Ok(session)
    }
}

/// How some devices differ, those that do.
pub(super) async fn differences(
    session: &mut Session,
    from: i32,
    to: i32,
    tenant: &str,
    uids: &[Uuid],
) -> Result<Vec<Difference>, ViewsError> {
    let mut before = devices::some(session, &schema_of(from), tenant, uids).await?;
    let mut after = devices::some(session, &schema_of(to), tenant, uids).await?;
    let only = |one: &BTreeMap<Uuid, DeviceRow>, other: &BTreeMap<Uuid, DeviceRow>| {
        one.keys().filter(|uid| !other.contains_key(*uid)).copied().collect::<Vec<Uuid>>()
    };
    let into = redirects(session, to, tenant, &only(&before, &after)).await?;
    let out_of = redirects(session, from, tenant, &only(&after, &before)).await?;
    let mut found = Vec::new();
    for uid in uids {
        let (before, after) = (before.remove(uid), after.remove(uid));
        let kind = match (&before, &after) {
            (before, after) if before == after => continue,
            (None, _) => out_of.get(uid).map_or(Kind::Appeared, |other| Kind::Split(Uid(*other))),
            (_, None) => into.get(uid).map_or(Kind::Vanished, |other| Kind::Merged(Uid(*other))),
            _ => Kind::Changed,
        };
        found.push(Difference { uid: Uid(*uid), kind, before, after });
    }
    Ok(found)
}

/// Where uids lead to in a generation, those that lead elsewhere.
async fn redirects(
    session: &mut Session,
    generation: i32,
    tenant: &str,
    uids: &[Uuid],
) -> Result<BTreeMap<Uuid, Uuid>, ViewsError> {
    if uids.is_empty() {
        return Ok(BTreeMap::new());
    }
    let select = format!(
        "SELECT claim_uid, uid FROM {}.device_redirects
         WHERE tenant = $1 AND claim_uid = ANY ($2) AND uid IS NOT NULL AND uid <> claim_uid",
        schema_of(generation)
    );
    let rows = session.query(&select, &[&tenant, &uids]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
}

pub(super) async fn differing(
    session: &mut Session,
    from: i32,
    to: i32,
    tenant: &str,
) -> Result<Differing, ViewsError> {
    let [one, other] =
        [state::resume(session, tenant, from).await?, state::resume(session, tenant, to).await?];
    let epochs = (one.epoch.cast_signed(), other.epoch.cast_signed());
    let offsets = |of: &Resume| {
        let each = of.frontiers.iter().filter(|frontier| frontier.next_offset > 0);
        each.map(|f| ((f.topic.clone(), f.log_partition), f.next_offset)).collect::<BTreeMap<_, _>>()
    };
    let stand_alike = offsets(&one) == offsets(&other);
    let sums = "SELECT count(*) FROM pipeline_hashes a FULL JOIN pipeline_hashes b
            ON b.tenant = a.tenant AND b.table_name = a.table_name AND b.generation = $3
        WHERE a.tenant = $1 AND a.generation = $2 AND a.sums IS DISTINCT FROM b.sums";
    if stand_alike && session.query_one(sums, &[&tenant, &from, &to]).await?.get::<_, i64>(0) == 0 {
        return Ok(Differing { epochs, ..Differing::default() });
    }
    let uids = differing_uids(session, from, to, tenant).await?;
    // One of the past stands still: what the other has at this moment is compared with it.
    let past = "SELECT count(*) FROM pipeline_generations WHERE id IN ($1, $2) AND moment IS NOT NULL";
    let is_past = session.query_one(past, &[&from, &to]).await?.get::<_, i64>(0) > 0;
    let mut unsure = BTreeSet::new();
    if !stand_alike && !is_past && !uids.is_empty() {
        let select = "SELECT least(
            (SELECT coalesce(max(epoch), 0) FROM pipeline_epochs WHERE tenant = $1 AND generation = $2
             AND committed_at < now() - $3::text::interval), $4)";
        let mut since = Vec::new();
        for (generation, last) in [(from, epochs.0), (to, epochs.1)] {
            let row = session.query_one(select, &[&tenant, &generation, &CHANGED_LATELY, &last]).await?;
            since.push(row.get::<_, i64>(0));
        }
        let touched = touched(session, (from, to), tenant, (since[0], since[1])).await?;
        unsure = uids.intersection(&touched).copied().collect();
    }
    Ok(Differing { uids, unsure, epochs })
}

/// The last epochs of a tenant in two generations.
async fn last_epochs(
    session: &mut Session,
    (from, to): (i32, i32),
    tenant: &str,
) -> Result<(i64, i64), ViewsError> {
    let select = "SELECT coalesce(max(epoch) FILTER (WHERE generation = $2), 0),
            coalesce(max(epoch) FILTER (WHERE generation = $3), 0)
        FROM pipeline_epochs WHERE tenant = $1";
    let row = session.query_one(select, &[&tenant, &from, &to]).await?;
    Ok((row.get(0), row.get(1)))
}

/// The devices whose rows differ, and those whose records do.
async fn differing_uids(
    session: &mut Session,
    from: i32,
    to: i32,
    tenant: &str,
) -> Result<BTreeSet<Uuid>, ViewsError> {
    let (from, to) = (schema_of(from), schema_of(to));
    let differ = |table: &str, key: &str, columns: &[&&str], uids: &str| {
        let side = |side: &str| columns.iter().map(|c| format!("{side}.{c}")).collect::<Vec<_>>().join(", ");
        format!(
            "SELECT {uids} AS uid FROM (SELECT * FROM {from}.{table} WHERE tenant = $1) a
             FULL JOIN (SELECT * FROM {to}.{table} WHERE tenant = $1) b USING ({key})
             WHERE ({}) IS DISTINCT FROM ({})",
            side("a"),
            side("b")
        )
    };
    let summary: Vec<&&str> = DeviceRow::REST.iter().filter(|column| !BOOKKEEPING.contains(column)).collect();
    let details: Vec<&&str> = DetailsRow::REST.iter().collect();
    // What the sources of a device come from.
    let of_sources = [&"uid", &"placement", &"open", &"first_seen", &"last_seen"];
    let select = format!(
        "SELECT DISTINCT uid FROM ({} UNION ALL {} UNION ALL {}) AS differing WHERE uid IS NOT NULL",
        differ(DeviceRow::TABLE, "uid", &summary, "uid"),
        differ(DetailsRow::TABLE, "uid", &details, "uid"),
        differ("record_summaries", "record_key", &of_sources, "unnest(ARRAY[a.uid, b.uid])"),
    );
    Ok(session.query(&select, &[&tenant]).await?.iter().map(|row| row.get(0)).collect())
}

/// The devices that epochs of two generations changed since.
pub(super) async fn touched(
    session: &mut Session,
    (from, to): (i32, i32),
    tenant: &str,
    since: (i64, i64),
) -> Result<BTreeSet<Uuid>, ViewsError> {
    let mut uids = BTreeSet::new();
    let (a, b) = (schema_of(from), schema_of(to));
    let select = format!(
        "WITH keys AS (
            SELECT c.entity, k.key FROM view_changes c CROSS JOIN LATERAL unnest(c.keys) AS k (key)
            WHERE c.tenant = $1 AND c.generation = $2 AND c.epoch > $3 AND c.entity IN ('devices', 'device_records'))
         SELECT substr(key, 4)::uuid FROM keys WHERE entity = 'devices'
         UNION SELECT r.uid FROM keys JOIN {a}.record_summaries r ON r.tenant = $1 AND r.record_key = key
               WHERE entity = 'device_records' AND r.uid IS NOT NULL
         UNION SELECT r.uid FROM keys JOIN {b}.record_summaries r ON r.tenant = $1 AND r.record_key = key
               WHERE entity = 'device_records' AND r.uid IS NOT NULL"
    );
    for (generation, since) in [(from, since.0), (to, since.1)] {
        let parameters: [Parameter<'_>; 3] = [&tenant, &generation, &since];
        uids.extend(session.query(&select, &parameters).await?.iter().map(|row| row.get::<_, Uuid>(0)));
    }
    Ok(uids)
}
