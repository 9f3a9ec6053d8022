//! Rollback at once: a generation takes the place of the active one wherever it stands, and is untold: its epochs journal and
//! publish nothing before it has come to where the other stopped, and the difference was told, once, tenant by tenant.

use super::{
    Fence, Passed, PostgresViews,
    difference::{MUCH_MEMORY, differing},
    epoch::notify,
    promotion::{self, context, flip},
    session::Session,
    state::Micros,
    writers,
};
use crate::{migrations::schema_of, views::ViewsError};

/// A tenant of the active generation that took its place at once, and has not told the difference yet.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Untold {
    /// The tenant.
    pub tenant: String,
    /// The active generation.
    pub generation: i32,
    /// The one that journals and consumers know, which stays as it is until then.
    pub told: i32,
}

impl PostgresViews {
    /// Lets a generation that is ready take the place of the active one at once: readers see it as it stands. Writers of
    /// both are fenced, whatever they do. What consumers know of a tenant stays what it was until a writer of it has told the
    /// difference.
    ///
    /// # Errors
    /// `Refused` where the first is not active, or the second not ready.
    pub async fn take_place(&self, from: i32, to: i32) -> Result<(), ViewsError> {
        let mut session = Session::connect(&self.url).await?;
        session.become_writer().await?;
        session.use_generation("serviceradar_base").await?;
        session.begin("BEGIN").await?;
        take_place(&mut session, from, to).await?;
        session.begin("COMMIT").await
    }

    /// Tenants whose difference is untold, by their names.
    pub async fn untold(&self) -> Result<Vec<Untold>, ViewsError> {
        let mut session = Session::connect(&self.url).await?;
        session.become_writer().await?;
        let select = "SELECT tenant, generation, told FROM serviceradar_base.pipeline_untold ORDER BY tenant";
        let rows = session.query(select, &[]).await?;
        let untold = |row: &tokio_postgres::Row| Untold {
            tenant: row.get(0),
            generation: row.get(1),
            told: row.get(2),
        };
        Ok(rows.iter().map(untold).collect())
    }
}

async fn take_place(session: &mut Session, from: i32, to: i32) -> Result<(), ViewsError> {
    promotion::hold(session, from, to).await?;
    // Nobody is waited for: a writer that hangs in the middle of a commit would hold its row without end.
    let held = "SELECT tenant, generation, token FROM pipeline_writers WHERE generation IN ($1, $2)
        ORDER BY tenant, generation";
    for row in session.query(held, &[&from, &to]).await? {
        let name = writers::name(row.get(0), row.get(1), row.get(2));
        writers::terminate(session, &name).await?;
    }
    let fence = "UPDATE pipeline_writers SET token = token + 1, writer = NULL, beat = 0, since = now()
        WHERE generation IN ($1, $2)";
    session.execute(fence, &[&from, &to]).await?;
    session.execute("DELETE FROM pipeline_stops WHERE generation IN ($1, $2)", &[&from, &to]).await?;
    flip(session, from, to).await?;
    // Of a tenant that was untold, consumers still know what they knew; where that is this generation, nothing is to be told.
    let insert = "INSERT INTO pipeline_untold (tenant, generation, told)
        SELECT t.tenant, $2::integer, coalesce(u.told, $1::integer)
        FROM (SELECT tenant FROM pipeline_epochs WHERE generation = $1
              UNION SELECT tenant FROM pipeline_untold WHERE generation = $1) AS t
        LEFT JOIN pipeline_untold u ON u.tenant = t.tenant AND u.generation = $1
        WHERE coalesce(u.told, $1) <> $2";
    session.execute(insert, &[&from, &to]).await?;
    session.execute("DELETE FROM pipeline_untold WHERE generation = $1", &[&from]).await?;
    // Whoever follows a query begins anew.
    let last =
        "SELECT DISTINCT ON (tenant) tenant, epoch, closed_at FROM pipeline_epochs WHERE generation = $1
        ORDER BY tenant, epoch DESC";
    for row in session.query(last, &[&to]).await? {
        let (tenant, epoch, Micros(closed_at)): (String, i64, Micros) = (row.get(0), row.get(1), row.get(2));
        notify(session, &context(&tenant, to, epoch.cast_unsigned(), closed_at)).await?;
    }
    Ok(())
}

/// The generation that journals and consumers know of a tenant; none where it is the one that is given.
pub(crate) async fn told(
    session: &mut Session,
    tenant: &str,
    generation: i32,
) -> Result<Option<i32>, ViewsError> {
    let select = "SELECT told FROM serviceradar_base.pipeline_untold WHERE tenant = $1 AND generation = $2";
    let rows = session.query(select, &[&tenant, &generation]).await?;
    Ok(rows.first().map(|row| row.get(0)))
}

/// Refuses to change a generation, or a tenant in it, that another has not told its difference to.
pub(crate) async fn check(
    session: &mut Session,
    tenant: Option<&str>,
    generation: i32,
) -> Result<(), ViewsError> {
    let select = "SELECT generation FROM serviceradar_base.pipeline_untold
        WHERE told = $1 AND tenant = coalesce($2, tenant)";
    let rows = session.query(select, &[&generation, &tenant]).await?;
    let Some(by) = rows.first().map(|row| row.get::<_, i32>(0)) else {
        return Ok(());
    };
    Err(ViewsError::Refused(format!(
        "generation {generation} stays as it is until generation {by}, which took its place at once, has caught up with it: start a pipeline, or give `serviceradar replay rollback --now` again"
    )))
}

/// Tells how a tenant differs from the generation that was told last, as one epoch. Returns that epoch; the last where it is
/// told already.
pub(crate) async fn tell_difference(
    session: &mut Session,
    fence: &Fence,
    published: u64,
    at: i64,
) -> Result<u64, ViewsError> {
    let Fence { tenant, generation, .. } = fence;
    session.begin("BEGIN").await?;
    session.begin(MUCH_MEMORY).await?;
    // Whoever empties the tenant, or flips generations, waits for the row that this holds, or closes the fence.
    let Passed { last, .. } = fence.pass(session).await?;
    let Some(told) = told(session, tenant, *generation).await? else {
        // A commit whose answer was lost: the fence says that it was ours.
        session.begin("ROLLBACK").await?;
        return Ok(last.cast_unsigned());
    };
    // What becomes of devices is told while the session means them as they were told last.
    session.use_generation(&schema_of(told)).await?;
    let differing = differing(session, told, *generation, tenant).await?;
    let (stopped, reached) = differing.epochs();
    let number = stopped.max(reached).max(published) + 1;
    let context = context(tenant, *generation, number, at);
    let changes = promotion::tell(session, told, &context, &differing).await?;
    promotion::close(session, &context, reached).await?;
    let delete = "DELETE FROM pipeline_untold WHERE tenant = $1 AND generation = $2";
    session.execute(delete, &[tenant, generation]).await?;
    fail::fail_point!("in-difference");
    session.begin("COMMIT").await?;
    fail::fail_point!("after-difference");
    tracing::info!(tenant, from = told, to = generation, epoch = number, changes, "the difference is told");
    Ok(number)
}
