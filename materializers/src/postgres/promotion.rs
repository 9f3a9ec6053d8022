//! Promotion: another generation takes the place of the active one, in one transaction that tells the difference.

use std::{collections::BTreeMap, time::Duration};

use serviceradar_streams::rows::{EpochOutput, HistoryRow, MergeRow};
use uuid::Uuid;

use super::{
    PostgresViews,
    difference::{DEVICES_AT_A_TIME, Difference, Differing, Kind, differences, touched},
    epoch,
    session::{Parameter, Session},
    stops::offsets_json,
    tables::RowContext,
    writers,
};
use crate::{
    migrations::schema_of,
    views::{Epoch, ViewsError},
};

/// Between two looks whether a writer is alive.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The rule of merges and splits that a promotion brings.
const RULE: &str = "promotion";

/// What was asked of a writer, and what it said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// It has not answered.
    Waiting,
    /// It stopped at this epoch.
    Stopped(u64),
    /// There is no writer, and the tenant stands at this epoch.
    Absent(u64),
    /// It goes on: it was not heard of for too long by itself.
    WentOn,
}

/// What is promoted.
#[derive(Clone, Debug)]
pub struct Promotion {
    /// The active generation.
    pub from: i32,
    /// The one that takes its place, whose writers wait.
    pub to: i32,
    /// Tenants.
    pub tenants: BTreeMap<String, Standing>,
    /// When, microseconds since the Unix epoch.
    pub at: i64,
    /// Devices that may differ, of all tenants; none: any number.
    pub changes_max: Option<u64>,
}

/// Where a tenant stands when another generation is promoted.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The epoch at which the active generation's writer stopped.
    pub stopped: u64,
    /// The last epoch of the other generation.
    pub reached: u64,
    /// Who writes the other generation.
    pub writer: String,
    /// The last epoch that device changes tell of.
    pub published: u64,
    /// What may differ.
    pub differing: Differing,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Promoted {
    /// The epoch of each tenant that tells the difference, and how many devices differed.
    Done {
        /// By tenant.
        epochs: BTreeMap<String, u64>,
        /// Of all tenants.
        changes: u64,
    },
    /// More devices differ than may; nothing was changed.
    TooMany(u64),
}

impl PostgresViews {
    /// Asks the writer of a tenant in a generation to stop where it has passed these offsets.
    pub async fn ask_to_stop(
        &self,
        generation: i32,
        tenant: &str,
        wanted: &BTreeMap<(String, u32), u64>,
    ) -> Result<(), ViewsError> {
        let mut session = Session::connect(&self.url).await?;
        session.become_writer().await?;
        let upsert = "INSERT INTO serviceradar_base.pipeline_stops (tenant, generation, wanted) VALUES ($1, $2, $3)
            ON CONFLICT (tenant, generation) DO UPDATE SET wanted = excluded.wanted, asked_at = now(), epoch = NULL";
        session.execute(upsert, &[&tenant, &generation, &offsets_json(wanted)]).await.map(drop)
    }

    /// What the writer said. One that has left, or whose beat has stood still for long enough since this was asked first,
    /// stands where it stood.
    pub async fn asked(&self, generation: i32, tenant: &str) -> Result<Asked, ViewsError> {
        let mut session = Session::connect(&self.url).await?;
        session.become_writer().await?;
        session.use_generation("serviceradar_base").await?;
        let select = "SELECT s.epoch, w.writer, w.token, w.beat, s.tenant IS NOT NULL,
                (SELECT coalesce(max(e.epoch), 0) FROM pipeline_epochs e WHERE e.tenant = $1 AND e.generation = $2)
            FROM (SELECT $1::text AS tenant) t
            LEFT JOIN pipeline_stops s ON s.tenant = $1 AND s.generation = $2
            LEFT JOIN pipeline_writers w ON w.tenant = $1 AND w.generation = $2";
        let row = session.query_one(select, &[&tenant, &generation]).await?;
        let (answered, writer): (Option<i64>, Option<String>) = (row.get(0), row.get(1));
        if let Some(epoch) = answered {
            return Ok(Asked::Stopped(epoch.cast_unsigned()));
        }
        if !row.get::<_, bool>(4) {
            return Ok(Asked::WentOn);
        }
        let stands = Asked::Absent(row.get::<_, i64>(5).cast_unsigned());
        let (Some(_), Some(token), Some(beat)) = (writer, row.get(2), row.get(3)) else {
            return Ok(stands);
        };
        let progress = writers::progress(&mut session, &writers::name(tenant, generation, token)).await?;
        let is_alive = self.is_alive((tenant, generation), super::Seen { token, beat, progress });
        Ok(if is_alive { Asked::Waiting } else { stands })
    }

    /// Whether somebody writes a tenant in a generation. A writer is waited for until it moves, or was not seen to for as long
    /// as a beat may stand still: thirty seconds.
    pub async fn is_written(&self, generation: i32, tenant: &str) -> Result<bool, ViewsError> {
        let mut session = Session::connect(&self.url).await?;
        session.become_writer().await?;
        let select = "SELECT token, beat FROM serviceradar_base.pipeline_writers
            WHERE tenant = $1 AND generation = $2 AND writer IS NOT NULL";
        loop {
            let rows = session.query(select, &[&tenant, &generation]).await?;
            let Some(row) = rows.first() else {
                return Ok(false);
            };
            let (token, beat) = (row.get(0), row.get(1));
            let progress = writers::progress(&mut session, &writers::name(tenant, generation, token)).await?;
            let before = self.last_seen((tenant, generation));
            if !self.is_alive((tenant, generation), super::Seen { token, beat, progress }) {
                return Ok(false);
            }
            if before.is_some() && before != self.last_seen((tenant, generation)) {
                return Ok(true);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Takes back what the writers of a generation were asked.
    pub async fn ask_no_more(&self, generation: i32) -> Result<(), ViewsError> {
        let mut session = Session::connect(&self.url).await?;
        session.become_writer().await?;
        let delete = "DELETE FROM serviceradar_base.pipeline_stops WHERE generation = $1";
        session.execute(delete, &[&generation]).await.map(drop)
    }

    /// Lets a generation take the place of the active one, whose writers have stopped: the active row, the fence of the
    /// former writers, and the difference as one epoch in journals and outbox, all at once or not at all.
    ///
    /// # Errors
    /// `Refused` where a tenant does not stand where it was said to.
    pub async fn promote(&self, promotion: &Promotion) -> Result<Promoted, ViewsError> {
        let mut session = Session::connect(&self.url).await?;
        session.become_writer().await?;
        session.use_generation(&schema_of(promotion.from)).await?;
        session.begin("BEGIN").await?;
        let promoted = promote(&mut session, promotion).await?;
        if matches!(promoted, Promoted::TooMany(_)) {
            session.begin("ROLLBACK").await?;
            return Ok(promoted);
        }
        fail::fail_point!("in-promotion");
        session.begin("COMMIT").await?;
        fail::fail_point!("after-promotion");
        Ok(promoted)
    }
}

async fn promote(session: &mut Session, promotion: &Promotion) -> Result<Promoted, ViewsError> {
    let Promotion { from, to, tenants, at, changes_max } = promotion;
    let refuse = |why: String| Err(ViewsError::Refused(why));
    hold(session, *from, *to).await?;
    let untold = "SELECT count(*) FROM pipeline_untold WHERE generation = $1";
    if session.query_one(untold, &[from]).await?.get::<_, i64>(0) > 0 {
        return refuse(format!("generation {from} took its place at once meanwhile, and has not caught up"));
    }
    // Whoever holds a row of a writer commits; after this none does.
    let fence = "UPDATE pipeline_writers SET token = token + 1, writer = NULL, beat = 0, since = now()
        WHERE generation = $1";
    session.execute(fence, &[from]).await?;
    session.execute("SELECT FROM pipeline_writers WHERE generation = $1 FOR UPDATE", &[to]).await?;
    for (tenant, standing) in tenants {
        let select = "SELECT (SELECT s.tenant FROM pipeline_stops s WHERE s.tenant = $1 AND s.generation = $2 FOR UPDATE),
            (SELECT coalesce(max(epoch), 0) FROM pipeline_epochs WHERE tenant = $1 AND generation = $2),
            (SELECT coalesce(max(epoch), 0) FROM pipeline_epochs WHERE tenant = $1 AND generation = $3),
            (SELECT w.writer FROM pipeline_writers w WHERE w.tenant = $1 AND w.generation = $3)";
        let row = session.query_one(select, &[tenant, from, to]).await?;
        let (stop, writer): (Option<String>, Option<String>) = (row.get(0), row.get(3));
        let epochs = [row.get::<_, i64>(1), row.get::<_, i64>(2)].map(i64::cast_unsigned);
        if stop.is_none() || epochs != [standing.stopped, standing.reached] {
            return refuse(format!("tenant {tenant} went on meanwhile"));
        }
        if writer.as_ref() != Some(&standing.writer) {
            return refuse(format!("tenant {tenant} of generation {to} is written by another"));
        }
    }
    flip(session, *from, *to).await?;
    let (mut epochs, mut changes) = (BTreeMap::new(), 0);
    for (tenant, standing) in tenants {
        let number = standing.stopped.max(standing.reached).max(standing.published) + 1;
        let context = context(tenant, *to, number, *at);
        changes += tell(session, *from, &context, &standing.differing).await?;
        if changes_max.is_some_and(|most| changes > most) {
            return Ok(Promoted::TooMany(changes));
        }
        close(session, &context, standing.reached).await?;
        epochs.insert(tenant.clone(), number);
    }
    session.execute("DELETE FROM pipeline_stops WHERE generation = $1", &[from]).await?;
    Ok(Promoted::Done { epochs, changes })
}

/// Holds the rows of the two, of which none changes its state until the end of the transaction.
pub(super) async fn hold(session: &mut Session, from: i32, to: i32) -> Result<(), ViewsError> {
    let states = "SELECT count(*) FROM (SELECT FROM pipeline_generations
        WHERE id = $1 AND state = 'active' OR id = $2 AND state = 'ready' AND partial IS NULL FOR UPDATE) AS g";
    match session.query_one(states, &[&from, &to]).await?.get::<_, i64>(0) {
        2 => Ok(()),
        _ => Err(ViewsError::Refused(format!(
            "generation {from} is no longer active, or generation {to} is not ready, or of a part of the log"
        ))),
    }
}

/// Makes the second the active one.
pub(super) async fn flip(session: &mut Session, from: i32, to: i32) -> Result<(), ViewsError> {
    let flip = "UPDATE pipeline_generations SET state = CASE id WHEN $1 THEN 'ready' ELSE 'active' END,
        promoted_at = CASE id WHEN $1 THEN promoted_at ELSE now() END, shown = false WHERE id = $2";
    // One after the other: one at most is active.
    session.execute(flip, &[&from, &from]).await?;
    session.execute(flip, &[&from, &to]).await?;
    Ok(())
}

/// What an epoch of the active generation says that tells a difference.
pub(super) fn context(tenant: &str, generation: i32, epoch: u64, closed_at: i64) -> RowContext<'_> {
    RowContext { tenant, generation, epoch: epoch.cast_signed(), closed_at, is_active: true, is_live: true }
}

/// Writes the row of an epoch that tells a difference, and says that there is one.
pub(super) async fn close(
    session: &mut Session,
    context: &RowContext<'_>,
    follows: u64,
) -> Result<(), ViewsError> {
    let epoch = Epoch {
        number: context.epoch.cast_unsigned(),
        follows,
        closed_at: context.closed_at,
        events: 0,
        intake_max: i64::MIN,
        frontiers: Vec::new(),
        output: EpochOutput::default(),
        dead_letters: Vec::new(),
    };
    epoch::progress(session, context, &epoch).await?;
    epoch::notify(session, context).await
}

/// Hands what a generation left to be published of a tenant to another, before what that one publishes with an epoch.
pub(super) async fn hand_over(
    session: &mut Session,
    from: i32,
    context: &RowContext<'_>,
) -> Result<(), ViewsError> {
    // What stands for all devices is published as they are: with this epoch, since none of theirs is greater.
    let left = "UPDATE pipeline_outbox SET generation = $3, epoch = CASE WHEN key IS NULL AND stream = 'device-changes'
            THEN $4 ELSE epoch END, seq = CASE WHEN key IS NULL AND stream = 'device-changes' THEN -1 ELSE seq END
        WHERE tenant = $1 AND generation = $2";
    let parameters: [Parameter<'_>; 4] = [&context.tenant, &from, &context.generation, &context.epoch];
    session.execute(left, &parameters).await.map(drop)
}

/// Tells the difference of a tenant from another generation, whose tables the session means, behind what its former writer left
/// to be published. Returns how many devices differ.
pub(super) async fn tell(
    session: &mut Session,
    from: i32,
    context: &RowContext<'_>,
    differing: &Differing,
) -> Result<u64, ViewsError> {
    let RowContext { tenant, generation: to, .. } = *context;
    hand_over(session, from, context).await?;
    let mut uids = differing.uids.clone();
    uids.extend(touched(session, (from, to), tenant, differing.epochs).await?);
    let uids: Vec<Uuid> = uids.into_iter().collect();
    let (mut changes, mut next_of_outbox) = (0, 0);
    for uids in uids.chunks(DEVICES_AT_A_TIME) {
        let found = differences(session, from, to, tenant, uids).await?;
        changes += found.len() as u64;
        let output = output_of(found, &format!("generation {to} promoted"));
        session.clear_stages().await?;
        epoch::tell_devices(session, context, &output, &mut next_of_outbox).await?;
    }
    session.clear_stages().await?;
    Ok(changes)
}

/// A difference as an epoch that brings it.
fn output_of(differences: Vec<Difference>, cause: &str) -> EpochOutput {
    let mut output = EpochOutput::default();
    for Difference { uid, kind, before, after } in differences {
        let change = match (&kind, &before, &after) {
            (Kind::Appeared, ..) => "created",
            (Kind::Split(_), ..) => "split",
            (Kind::Vanished, ..) => "forgotten",
            (Kind::Merged(_), ..) => "merged",
            (Kind::Changed, Some(before), Some(after))
                if before.state != after.state && after.state == "retired" =>
            {
                "retired"
            }
            (Kind::Changed, ..) => "changed",
        };
        output.history.push(HistoryRow { uid, change, cause: cause.to_owned() });
        let moved = match kind {
            Kind::Merged(to) => Some((uid, to, "merge")),
            Kind::Split(from) => Some((from, uid, "split")),
            _ => None,
        };
        output.merges.extend(moved.map(|(from_uid, to_uid, kind)| MergeRow {
            from_uid,
            to_uid,
            kind,
            claim: None,
            rule: RULE,
            records: Vec::new(),
        }));
        match (before, after) {
            (None, Some(after)) => output.devices.new.push(after),
            (Some(_), Some(after)) => output.devices.changed.push(after),
            (_, None) => output.devices.gone.push(uid.to_string()),
        }
    }
    output
}
