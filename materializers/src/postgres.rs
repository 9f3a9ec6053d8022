//! Views in PostgreSQL: who may write a tenant, and where it stands.

mod copy;
mod devices;
mod epoch;
mod examine;
mod indexes;
mod journals;
mod outbox;
pub(crate) mod session;
pub(crate) mod state;
mod tables;

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Instant,
};

pub use examine::{Condition, EXTENSIONS};
use fail::fail_point;
use serviceradar_schemas::time::Clock;
use serviceradar_streams::rows::{DeviceRow, State, Uid};
use tokio::sync::mpsc;

use crate::{
    migrations,
    views::{BEAT_STANDS_STILL, Epoch, OutboxEntry, Pieces, Resume, TenantWriter, Views, ViewsError},
};
use session::Session;
use state::Micros;

/// Views in a PostgreSQL database.
pub struct PostgresViews {
    url: String,
    beats: Mutex<HashMap<String, Beat>>,
}

/// A writer's beat as last seen, and since when it stands there.
struct Beat {
    token: i64,
    beat: i64,
    since: Instant,
}

impl PostgresViews {
    /// The views of the database at `postgresql://…`, once it has answered.
    pub async fn connect(url: &str) -> Result<Self, ViewsError> {
        Session::connect(url).await?;
        Ok(Self { url: url.to_owned(), beats: Mutex::default() })
    }

    /// Brings the database up to date; returns the names of what was missing. The role of the URL must
    /// be allowed to make roles and extensions where they are missing.
    pub async fn migrate(&self) -> Result<Vec<&'static str>, ViewsError> {
        migrations::migrate(Session::connect(&self.url).await?.client()).await
    }

    /// Refuses a database that is not the one that this program's migrations make.
    pub async fn check(&self) -> Result<(), ViewsError> {
        migrations::check(Session::connect(&self.url).await?.client()).await
    }

    /// What the database is like, asked as the role of the URL. `clock` is this machine's.
    ///
    /// # Errors
    /// Where it does not answer. What it lacks is no error.
    pub async fn examine(&self, clock: &dyn Clock) -> Result<Condition, ViewsError> {
        examine::examine(Session::connect(&self.url).await?.client(), clock).await
    }

    /// Whether a writer that has neither left nor been seen to beat for too long holds the tenant.
    fn is_alive(&self, tenant: &str, token: i64, beat: i64) -> bool {
        let mut beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let seen = beats.entry(tenant.to_owned()).or_insert(Beat { token, beat, since: now });
        if (seen.token, seen.beat) != (token, beat) {
            *seen = Beat { token, beat, since: now };
        }
        now.duration_since(seen.since) < BEAT_STANDS_STILL
    }

    async fn take_in_transaction(
        &self,
        session: &mut Session,
        tenant: &str,
        writer: &str,
        generation: i32,
    ) -> Result<i64, ViewsError> {
        let insert = "INSERT INTO serviceradar_base.pipeline_writers (tenant, generation, token, beat)
                      VALUES ($1, $2, 0, 0) ON CONFLICT DO NOTHING";
        session.execute(insert, &[&tenant, &generation]).await?;
        let select = "SELECT writer, token, beat FROM serviceradar_base.pipeline_writers
                      WHERE tenant = $1 AND generation = $2 FOR UPDATE";
        let row = session.query_one(select, &[&tenant, &generation]).await?;
        let (holder, token, beat): (Option<String>, i64, i64) = (row.get(0), row.get(1), row.get(2));
        if let Some(holder) = holder.filter(|holder| holder != writer)
            && self.is_alive(tenant, token, beat)
        {
            return Err(ViewsError::Held { tenant: tenant.to_owned(), writer: holder });
        }
        let update = "UPDATE serviceradar_base.pipeline_writers
                      SET writer = $3, token = token + 1, beat = 0, since = now()
                      WHERE tenant = $1 AND generation = $2 RETURNING token";
        Ok(session.query_one(update, &[&tenant, &generation, &writer]).await?.get(0))
    }
}

/// The active generation; its fingerprint is set by whoever takes it first.
async fn active_generation(
    session: &mut Session,
    fingerprint: &str,
    rules: &serde_json::Value,
) -> Result<(i32, String), ViewsError> {
    let claim = "UPDATE serviceradar_base.pipeline_generations SET fingerprint = $1, rules = $2
                 WHERE state = 'active' AND fingerprint IS NULL";
    session.execute(claim, &[&fingerprint, rules]).await?;
    let select = "SELECT id, schema, fingerprint FROM serviceradar_base.pipeline_generations
                  WHERE state = 'active' FOR SHARE";
    let rows = session.query(select, &[]).await?;
    let Some(row) = rows.first() else {
        return Err(ViewsError::Schema("no generation is active".to_owned()));
    };
    let found: String = row.get(2);
    if found != fingerprint {
        return Err(ViewsError::Fingerprint { found, wanted: fingerprint.to_owned() });
    }
    Ok((row.get(0), row.get(1)))
}

#[async_trait::async_trait]
impl Views for PostgresViews {
    async fn take(
        &self,
        tenant: &str,
        writer: &str,
        fingerprint: &str,
        rules: &serde_json::Value,
    ) -> Result<(Box<dyn TenantWriter>, Resume), ViewsError> {
        let mut session = Session::connect(&self.url).await?;
        migrations::check(session.client()).await?;
        session.become_writer().await?;
        session.begin("BEGIN").await?;
        let (generation, schema) = active_generation(&mut session, fingerprint, rules).await?;
        let token = self.take_in_transaction(&mut session, tenant, writer, generation).await?;
        session.begin("COMMIT").await?;
        session.use_generation(&schema).await?;
        let is_bare = indexes::drop_if_empty(&mut session).await?;
        let resume = Resume { is_bare, ..state::resume(&mut session, tenant, generation).await? };
        let fence = Fence { tenant: tenant.to_owned(), generation, schema, token };
        Ok((
            Box::new(PostgresWriter { url: self.url.clone(), fence, session: Some(session), cleaned_at: 0 }),
            resume,
        ))
    }

    async fn make_indexes(&self, generation: i32) -> Result<(), ViewsError> {
        let mut session = Session::connect(&self.url).await?;
        session.become_writer().await?;
        let select = "SELECT schema FROM serviceradar_base.pipeline_generations WHERE id = $1";
        let schema: String = session.query_one(select, &[&generation]).await?.get(0);
        indexes::make(&self.url, &schema).await
    }

    async fn forget_journals(&self, before: i64) -> Result<(), ViewsError> {
        let mut session = Session::connect(&self.url).await?;
        session.become_writer().await?;
        for journal in journals::JOURNALS {
            let drop = format!("CALL serviceradar_base.drop_before('serviceradar_base.{journal}', 'at', $1)");
            session.execute(&drop, &[&Micros(before)]).await?;
        }
        Ok(())
    }
}

/// What a writer shows at the beginning of each transaction.
pub(crate) struct Fence {
    pub(crate) tenant: String,
    pub(crate) generation: i32,
    schema: String,
    token: i64,
}

impl Fence {
    /// Moves the beat; refuses where another has the tenant. Returns the last committed epoch.
    async fn pass(&self, session: &mut Session) -> Result<i64, ViewsError> {
        let update = "UPDATE serviceradar_base.pipeline_writers SET beat = beat + 1
             WHERE tenant = $1 AND generation = $2 AND token = $3
             RETURNING (SELECT coalesce(max(epoch), 0) FROM serviceradar_base.pipeline_epochs
                        WHERE tenant = $1 AND generation = $2)";
        let rows = session.query(update, &[&self.tenant, &self.generation, &self.token]).await?;
        let row = rows.first().ok_or_else(|| ViewsError::Fenced { tenant: self.tenant.clone() })?;
        Ok(row.get(0))
    }
}

/// The writer of a tenant, by one session at a time: after an error a new one.
struct PostgresWriter {
    url: String,
    fence: Fence,
    session: Option<Session>,
    /// When old rows were last deleted, by the times of epochs.
    cleaned_at: i64,
}

impl PostgresWriter {
    /// The session, taken out: it comes back only from what went well.
    async fn session(&mut self) -> Result<Session, ViewsError> {
        if let Some(session) = self.session.take().filter(|session| !session.client().is_closed()) {
            return Ok(session);
        }
        self.connect().await
    }

    async fn connect(&self) -> Result<Session, ViewsError> {
        let mut session = Session::connect(&self.url).await?;
        session.become_writer().await?;
        session.use_generation(&self.fence.schema).await?;
        Ok(session)
    }

    /// Begins the transaction of an epoch, with the fence. None: it was committed already.
    async fn begin(&mut self, epoch: &Epoch) -> Result<Option<Session>, ViewsError> {
        let mut session = self.session().await?;
        fail_point!("before-begin");
        session.begin("BEGIN").await?;
        let last = self.fence.pass(&mut session).await?;
        let number = epoch.number.cast_signed();
        if last == number {
            // A commit whose answer was lost: the fence says that it was ours.
            session.begin("ROLLBACK").await?;
            self.session = Some(session);
            return Ok(None);
        }
        if last + 1 != number {
            return Err(ViewsError::Refused(format!("epoch {number} cannot follow epoch {last}")));
        }
        Ok(Some(session))
    }
}

#[async_trait::async_trait]
impl TenantWriter for PostgresWriter {
    async fn state(&mut self, put: mpsc::Sender<State>) -> Result<(), ViewsError> {
        let mut session = self.session().await?;
        session.begin("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        state::read(&mut session, &self.fence.tenant, self.fence.generation, &put).await?;
        session.begin("COMMIT").await?;
        self.session = Some(session);
        Ok(())
    }

    async fn commit(&mut self, epoch: &Epoch) -> Result<(), ViewsError> {
        let Some(mut session) = self.begin(epoch).await? else {
            return Ok(());
        };
        epoch::write(&mut session, &self.fence, epoch, &mut self.cleaned_at).await?;
        fail_point!("in-commit");
        session.begin("COMMIT").await?;
        fail_point!("after-commit");
        self.session = Some(session);
        Ok(())
    }

    async fn load(&mut self, epoch: &Epoch, pieces: Pieces) -> Result<(), ViewsError> {
        let Some(mut session) = self.begin(epoch).await? else {
            return Ok(());
        };
        let mut of_devices = self.connect().await?;
        of_devices.begin("BEGIN").await?;
        let Self { fence, cleaned_at, .. } = self;
        epoch::load(&mut session, &mut of_devices, fence, epoch, pieces, cleaned_at).await?;
        fail_point!("in-commit");
        session.begin("COMMIT").await?;
        fail_point!("after-commit");
        self.session = Some(session);
        Ok(())
    }

    async fn beat(&mut self) -> Result<(), ViewsError> {
        let mut session = self.session().await?;
        self.fence.pass(&mut session).await?;
        self.session = Some(session);
        Ok(())
    }

    async fn devices(
        &mut self,
        after: Option<Uid>,
        limit: usize,
    ) -> Result<Vec<(DeviceRow, u64)>, ViewsError> {
        let mut session = self.session().await?;
        let devices = devices::read(&mut session, &self.fence, after, limit).await?;
        self.session = Some(session);
        Ok(devices)
    }

    async fn outbox(&mut self, limit: usize) -> Result<Vec<OutboxEntry>, ViewsError> {
        let mut session = self.session().await?;
        let entries = outbox::read(&mut session, &self.fence, limit).await?;
        self.session = Some(session);
        Ok(entries)
    }

    async fn outbox_published(&mut self, epoch: u64, sequence: i64) -> Result<(), ViewsError> {
        let mut session = self.session().await?;
        outbox::forget(&mut session, &self.fence, epoch, sequence).await?;
        self.session = Some(session);
        Ok(())
    }

    async fn leave(&mut self) -> Result<(), ViewsError> {
        let mut session = self.session().await?;
        let update = "UPDATE serviceradar_base.pipeline_writers SET writer = NULL
                      WHERE tenant = $1 AND generation = $2 AND token = $3";
        let Fence { tenant, generation, token, .. } = &self.fence;
        session.execute(update, &[tenant, generation, token]).await?;
        self.session = Some(session);
        Ok(())
    }
}
