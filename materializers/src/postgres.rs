//! Views in PostgreSQL: who may write a tenant, and where it stands.

mod copy;
pub(crate) mod devices;
mod difference;
mod epoch;
mod examine;
mod generations;
mod indexes;
mod journals;
mod load;
mod outbox;
mod promotion;
mod removal;
mod republishing;
pub(crate) mod session;
pub(crate) mod state;
mod stops;
mod stored;
mod sums;
mod tables;
mod truncation;
mod untold;
mod writers;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

pub use difference::{Difference, Differing, Kind};
pub use examine::{Condition, EXTENSIONS};
use fail::fail_point;
pub use generations::{Generation, Past};
pub use promotion::{Asked, Promoted, Promotion, Standing};
pub use republishing::Republished;
use serviceradar_schemas::time::Clock;
use serviceradar_streams::{
    rows::{DeviceRow, State, Uid},
    rules::Rules,
    sums::Sums,
};
pub use stored::{Contradiction, Contradictions, Stored};
use tokio::sync::mpsc;
pub use truncation::{Moved, Truncation};
pub use untold::Untold;

use crate::{
    layout::{LAYOUT, Layout},
    migrations,
    views::{
        BEAT_STANDS_STILL, Epoch, OutboxEntry, Pieces, Resume, StopAsked, TenantOutbox, TenantWriter, Views,
        ViewsError,
    },
};
use session::{Parameter, Session};
use state::Micros;

/// Which generation is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    /// Whichever is active.
    Active,
    /// That one, which follows the log.
    Generation(i32),
    /// That one, which does not: it is of the past.
    Past(i32),
}

impl Target {
    /// Which row of `pipeline_generations` it is.
    fn condition(self) -> String {
        match self {
            Target::Active => "state = 'active'".to_owned(),
            Target::Generation(id) => format!("id = {id} AND state IN ('building', 'ready', 'active')"),
            Target::Past(id) => format!("id = {id} AND state IN ('filling', 'past')"),
        }
    }

    fn missing(self) -> ViewsError {
        ViewsError::Schema(match self {
            Target::Active => "no generation is active".to_owned(),
            Target::Generation(id) => format!("generation {id} is not there any more, or is of the past"),
            Target::Past(id) => format!("generation {id} is not there any more, or is not of the past"),
        })
    }
}

/// Views in a PostgreSQL database: of the active generation, or of a given one. What it makes and writes has one layout.
pub struct PostgresViews {
    url: String,
    layout: Layout,
    target: Target,
    beats: Mutex<HashMap<(String, i32), Beat>>,
}

/// A writer's beat as last seen, and since when it stands there.
struct Beat {
    seen: Seen,
    since: Instant,
}

/// What moves while a writer is alive.
#[derive(PartialEq, Eq)]
struct Seen {
    token: i64,
    beat: i64,
    /// Of a transaction under way, whose beat nobody sees before its commit.
    progress: String,
}

impl PostgresViews {
    /// The views of the database at `postgresql://…`, once it has answered, by this program's layout.
    pub async fn connect(url: &str) -> Result<Self, ViewsError> {
        Session::connect(url).await?;
        Ok(Self { url: url.to_owned(), layout: LAYOUT, target: Target::Active, beats: Mutex::default() })
    }

    /// The same, by another layout: as a program that has that one.
    pub fn of_layout(self, layout: Layout) -> Self {
        Self { layout, ..self }
    }

    /// Brings the database up to date; returns the names of what was missing. A generation that nobody has written is made
    /// anew where its layout is another. The role of the URL must be allowed to make roles and extensions where they are
    /// missing.
    pub async fn migrate(&self) -> Result<Vec<&'static str>, ViewsError> {
        migrations::migrate(Session::connect(&self.url).await?.client(), &self.layout).await
    }

    /// Refuses a database that is not the one that this program's migrations make.
    pub async fn check(&self) -> Result<(), ViewsError> {
        migrations::check(Session::connect(&self.url).await?.client()).await
    }

    /// The greatest intake time up to an epoch of a tenant, microseconds since the Unix epoch; none where it is not known
    /// (any more).
    pub async fn intake_max(&self, tenant: &str, epoch: u64) -> Result<Option<i64>, ViewsError> {
        let mut session = Session::connect(&self.url).await?;
        session.become_writer().await?;
        let select = "SELECT (SELECT max(intake_max) FROM serviceradar_base.pipeline_epochs
                              WHERE tenant = $1 AND generation = g.id AND epoch <= $2)
                      FROM serviceradar_base.pipeline_generations g JOIN serviceradar_base.pipeline_epochs e
                        ON e.generation = g.id AND e.tenant = $1 AND e.epoch = $2
                      WHERE g.state = 'active'";
        let rows = session.query(select, &[&tenant, &epoch.cast_signed()]).await?;
        Ok(rows.first().and_then(|row| row.get::<_, Option<Micros>>(0)).map(|at| at.0))
    }

    /// What a tenant's tables come to: as the epochs kept it, and as the rows of the active generation are, at one
    /// moment. Where the two differ, somebody else wrote.
    pub async fn sums(&self, tenant: &str) -> Result<(Sums, Sums), ViewsError> {
        let mut stored = self.stored(tenant).await?;
        let kept = stored.kept_sums().await?;
        let (put, mut take) = mpsc::channel(1);
        let summing = async {
            let mut of_rows = Sums::default();
            while let Some(piece) = take.recv().await {
                of_rows.add(&Sums::of(&piece));
            }
            of_rows
        };
        let reading = async {
            let read = stored.rows(&put).await;
            drop(put);
            read
        };
        let (read, of_rows) = tokio::join!(reading, summing);
        read.map(|_| (kept, of_rows))
    }

    /// What the database is like, asked as the role of the URL. `clock` is this machine's.
    ///
    /// # Errors
    /// Where it does not answer. What it lacks is no error.
    pub async fn examine(&self, clock: &dyn Clock) -> Result<Condition, ViewsError> {
        examine::examine(Session::connect(&self.url).await?.client(), &self.layout, clock).await
    }

    /// Whether a writer that has neither left nor been seen to move for too long holds the tenant.
    fn is_alive(&self, (tenant, generation): (&str, i32), seen: Seen) -> bool {
        let key = (tenant.to_owned(), generation);
        let mut beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        match beats.get(&key).filter(|last| last.seen == seen) {
            Some(last) => now.duration_since(last.since) < BEAT_STANDS_STILL,
            None => {
                beats.insert(key, Beat { seen, since: now });
                true
            }
        }
    }

    /// When a tenant's writer was last seen to move; none before it was looked at.
    fn last_seen(&self, (tenant, generation): (&str, i32)) -> Option<Instant> {
        let beats = self.beats.lock().unwrap_or_else(PoisonError::into_inner);
        beats.get(&(tenant.to_owned(), generation)).map(|beat| beat.since)
    }

    async fn take_in_transaction(
        &self,
        session: &mut Session,
        tenant: &str,
        writer: &str,
        generation: i32,
    ) -> Result<i64, ViewsError> {
        // Without a lock: whoever holds the tenant has the row for as long as a commit of its takes. Even an insert that
        // meets it would wait.
        let select = "SELECT writer, token, beat FROM serviceradar_base.pipeline_writers
                      WHERE tenant = $1 AND generation = $2";
        if session.query(select, &[&tenant, &generation]).await?.is_empty() {
            let insert = "INSERT INTO serviceradar_base.pipeline_writers (tenant, generation, token, beat)
                          VALUES ($1, $2, 0, 0) ON CONFLICT DO NOTHING";
            session.execute(insert, &[&tenant, &generation]).await?;
        }
        let row = session.query_one(select, &[&tenant, &generation]).await?;
        let (holder, token, beat): (Option<String>, i64, i64) = (row.get(0), row.get(1), row.get(2));
        let name = writers::name(tenant, generation, token);
        if holder.as_ref().is_some_and(|holder| holder != writer) {
            let progress = writers::progress(session, &name).await?;
            if self.is_alive((tenant, generation), Seen { token, beat, progress }) {
                return Err(held(tenant, holder));
            }
        }
        writers::terminate(session, &name).await?;
        let update = "UPDATE serviceradar_base.pipeline_writers
                      SET writer = $3, token = token + 1, beat = 0, since = now()
                      WHERE tenant = $1 AND generation = $2 AND token = $4 AND beat = $5
                        AND writer IS NOT DISTINCT FROM $6 RETURNING token";
        let parameters: [Parameter<'_>; 6] = [&tenant, &generation, &writer, &token, &beat, &holder];
        // It has moved after all, or another newcomer was faster.
        let rows = session.query(update, &parameters).await?;
        rows.first().map(|row| row.get(0)).ok_or_else(|| held(tenant, holder))
    }
}

fn held(tenant: &str, holder: Option<String>) -> ViewsError {
    ViewsError::Held { tenant: tenant.to_owned(), writer: holder.unwrap_or_else(|| "a newcomer".to_owned()) }
}

/// The rules in the first column of the first row, where there are any.
pub(crate) async fn rules_of(session: &mut Session, select: &str) -> Result<Option<Rules>, ViewsError> {
    let rows = session.query(select, &[]).await?;
    let rules: Option<serde_json::Value> = rows.first().and_then(|row| row.get(0));
    let unreadable =
        |error| ViewsError::Refused(format!("the rules of the generation cannot be read: {error}"));
    rules.map(serde_json::from_value).transpose().map_err(unreadable)
}

/// Makes the tables of a generation those that the session means. Returns its number.
async fn use_target(session: &mut Session, target: Target) -> Result<i32, ViewsError> {
    let select =
        format!("SELECT id, schema FROM serviceradar_base.pipeline_generations WHERE {}", target.condition());
    let rows = session.query(&select, &[]).await?;
    let row = rows.first().ok_or_else(|| target.missing())?;
    session.use_generation(row.get(1)).await?;
    Ok(row.get(0))
}

/// A generation that is taken for writing.
struct Taken {
    generation: i32,
    schema: String,
    is_active: bool,
    is_shown: bool,
}

/// The generation that is meant; its fingerprint is set by whoever takes it first, if its tables have this layout.
async fn take_generation(
    session: &mut Session,
    target: Target,
    layout: &Layout,
    fingerprint: &str,
    rules: &serde_json::Value,
) -> Result<Taken, ViewsError> {
    let condition = target.condition();
    let claim = format!(
        "UPDATE serviceradar_base.pipeline_generations SET fingerprint = $1, rules = $2
         WHERE {condition} AND fingerprint IS NULL RETURNING id, layout"
    );
    for row in session.query(&claim, &[&fingerprint, rules]).await? {
        migrations::check_layout(row.get(0), row.get(1), layout)?;
    }
    let select = format!(
        "SELECT id, schema, fingerprint, state = 'active', shown FROM serviceradar_base.pipeline_generations
         WHERE {condition} FOR SHARE"
    );
    let mut rows = session.query(&select, &[]).await?;
    if rows.is_empty() {
        // What was waited for made another the active one: only a new look sees it.
        rows = session.query(&select, &[]).await?;
    }
    let row = rows.first().ok_or_else(|| target.missing())?;
    let found: String = row.get(2);
    if found != fingerprint {
        return Err(ViewsError::Fingerprint { found, wanted: fingerprint.to_owned() });
    }
    Ok(Taken { generation: row.get(0), schema: row.get(1), is_active: row.get(3), is_shown: row.get(4) })
}

#[async_trait::async_trait]
impl Views for PostgresViews {
    fn layout_version(&self) -> u32 {
        self.layout.version
    }

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
        let Taken { generation, schema, is_active, is_shown } =
            take_generation(&mut session, self.target, &self.layout, fingerprint, rules).await?;
        untold::check(&mut session, Some(tenant), generation).await?;
        let told = untold::told(&mut session, tenant, generation).await?;
        let token = self.take_in_transaction(&mut session, tenant, writer, generation).await?;
        stops::is_no_stand_by(&mut session, tenant, generation, writer).await?;
        session.begin("COMMIT").await?;
        if is_active && !is_shown {
            // Whoever promoted it was interrupted.
            self.show_active().await?;
        }
        session.use_generation(&schema).await?;
        session.call_it(&writers::name(tenant, generation, token)).await?;
        let is_bare = indexes::drop_if_empty(&mut session, &self.layout).await?;
        let resume = state::resume(&mut session, tenant, generation).await?;
        let truncated = truncation::last(&mut session, tenant, generation).await?;
        let untold = match told {
            Some(told) => Some(state::resume(&mut session, tenant, told).await?.frontiers),
            None => None,
        };
        let is_live = is_active && untold.is_none();
        let resume = Resume { is_bare, is_live, untold, truncated, ..resume };
        if resume.is_empty() {
            load::forget(&mut session, tenant, generation, resume.epoch).await?;
        }
        let fence = Arc::new(Fence { tenant: tenant.to_owned(), generation, schema, token });
        let sessions = Sessions { url: self.url.clone(), fence, idle: Some(session) };
        Ok((Box::new(PostgresWriter { sessions, cleaned_at: 0 }), resume))
    }

    async fn standing(&self, tenant: &str, put: Option<mpsc::Sender<State>>) -> Result<Resume, ViewsError> {
        let mut session = Session::connect(&self.url).await?;
        session.become_writer().await?;
        session.begin("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
        let generation = use_target(&mut session, self.target).await?;
        let resume = state::resume(&mut session, tenant, generation).await?;
        let resume =
            Resume { truncated: truncation::last(&mut session, tenant, generation).await?, ..resume };
        if let Some(put) = put {
            state::read(&mut session, tenant, generation, &put).await?;
        }
        session.begin("COMMIT").await?;
        Ok(resume)
    }

    async fn rules(&self) -> Result<Option<Rules>, ViewsError> {
        let mut session = Session::connect(&self.url).await?;
        session.become_writer().await?;
        let condition = self.target.condition();
        let select = format!("SELECT rules FROM serviceradar_base.pipeline_generations WHERE {condition}");
        rules_of(&mut session, &select).await
    }

    async fn stand_by(&self, tenant: &str, writer: &str, epoch: u64) -> Result<(), ViewsError> {
        let mut session = Session::connect(&self.url).await?;
        session.become_writer().await?;
        let generation = use_target(&mut session, self.target).await?;
        stops::stand_by(&mut session, tenant, generation, writer, epoch).await
    }

    async fn make_indexes(&self, generation: i32) -> Result<(), ViewsError> {
        let mut session = Session::connect(&self.url).await?;
        session.become_writer().await?;
        let select = "SELECT schema FROM serviceradar_base.pipeline_generations WHERE id = $1";
        let schema: String = session.query_one(select, &[&generation]).await?.get(0);
        indexes::make(&self.url, &schema, &self.layout).await
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

/// What is beyond the fence.
struct Passed {
    /// The last committed epoch.
    last: i64,
    /// Whether the generation is the active one.
    is_active: bool,
    /// Whether what its epochs change is told, in journals and to be published.
    is_live: bool,
}

/// What a writer shows at the beginning of each transaction.
pub(crate) struct Fence {
    pub(crate) tenant: String,
    pub(crate) generation: i32,
    schema: String,
    token: i64,
}

impl Fence {
    /// Moves the beat; refuses where another has the tenant.
    async fn pass(&self, session: &mut Session) -> Result<Passed, ViewsError> {
        let update = "UPDATE serviceradar_base.pipeline_writers SET beat = beat + 1
             WHERE tenant = $1 AND generation = $2 AND token = $3
             RETURNING (SELECT coalesce(max(epoch), 0) FROM serviceradar_base.pipeline_epochs
                        WHERE tenant = $1 AND generation = $2),
                       (SELECT state = 'active' FROM serviceradar_base.pipeline_generations WHERE id = $2),
                       NOT EXISTS (SELECT FROM serviceradar_base.pipeline_untold
                                   WHERE tenant = $1 AND generation = $2)";
        let rows = session.query(update, &[&self.tenant, &self.generation, &self.token]).await?;
        let row = rows.first().ok_or_else(|| self.is_closed())?;
        let (is_active, is_told): (bool, bool) = (row.get(1), row.get(2));
        Ok(Passed { last: row.get(0), is_active, is_live: is_active && is_told })
    }

    /// Where another has the tenant.
    fn is_closed(&self) -> ViewsError {
        ViewsError::Fenced { tenant: self.tenant.clone() }
    }
}

/// The sessions of one who works for a tenant, one at a time: after an error a new one.
struct Sessions {
    url: String,
    fence: Arc<Fence>,
    idle: Option<Session>,
}

impl Sessions {
    /// The session, taken out: only from what went well it is given back.
    async fn take(&mut self) -> Result<Session, ViewsError> {
        if let Some(session) = self.idle.take().filter(|session| !session.client().is_closed()) {
            return Ok(session);
        }
        self.connect().await
    }

    fn give_back(&mut self, session: Session) {
        self.idle = Some(session);
    }

    async fn connect(&self) -> Result<Session, ViewsError> {
        let mut session = Session::connect(&self.url).await?;
        session.become_writer().await?;
        session.use_generation(&self.fence.schema).await?;
        let Fence { tenant, generation, token, .. } = &*self.fence;
        session.call_it(&writers::name(tenant, *generation, *token)).await?;
        Ok(session)
    }
}

/// The writer of a tenant.
struct PostgresWriter {
    sessions: Sessions,
    /// When old rows were last deleted, by the times of epochs.
    cleaned_at: i64,
}

impl PostgresWriter {
    /// Begins the transaction of an epoch, with the fence; tells what is beyond. None: it was committed already.
    async fn begin(&mut self, epoch: &Epoch) -> Result<Option<(Session, Passed)>, ViewsError> {
        let mut session = self.sessions.take().await?;
        fail_point!("before-begin");
        session.begin("BEGIN").await?;
        let passed = self.sessions.fence.pass(&mut session).await?;
        let (last, number) = (passed.last, epoch.number.cast_signed());
        if last == number {
            // A commit whose answer was lost: the fence says that it was ours.
            session.begin("ROLLBACK").await?;
            self.sessions.give_back(session);
            return Ok(None);
        }
        if last != epoch.follows.cast_signed() || last > number {
            return Err(ViewsError::Refused(format!("epoch {number} cannot follow epoch {last}")));
        }
        Ok(Some((session, passed)))
    }
}

#[async_trait::async_trait]
impl TenantWriter for PostgresWriter {
    async fn state(&mut self, put: mpsc::Sender<State>) -> Result<(), ViewsError> {
        let mut session = self.sessions.take().await?;
        let mut beside = self.sessions.connect().await?;
        let fence = &self.sessions.fence;
        let read = async {
            session.begin("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
            state::read(&mut session, &fence.tenant, fence.generation, &put).await?;
            session.begin("COMMIT").await
        };
        // A great state takes longer to be read than a beat may stand still.
        let beat = async {
            loop {
                tokio::time::sleep(BEAT_STANDS_STILL / 3).await;
                if let Err(error) = fence.pass(&mut beside).await {
                    return error;
                }
            }
        };
        tokio::select! {
            read = read => read?,
            error = beat => return Err(error),
        }
        self.sessions.give_back(session);
        Ok(())
    }

    async fn commit(&mut self, epoch: &Epoch) -> Result<(), ViewsError> {
        let Some((mut session, passed)) = self.begin(epoch).await? else {
            return Ok(());
        };
        let context = epoch::context(&self.sessions.fence, epoch, &passed);
        epoch::write(&mut session, context, epoch, &mut self.cleaned_at).await?;
        fail_point!("in-commit");
        session.begin("COMMIT").await?;
        fail_point!("after-commit");
        self.sessions.give_back(session);
        Ok(())
    }

    async fn load(&mut self, epoch: &Epoch, pieces: Pieces) -> Result<(), ViewsError> {
        let Some((mut session, passed)) = self.begin(epoch).await? else {
            return Ok(());
        };
        let Self { sessions, cleaned_at } = self;
        let mut of_devices = sessions.connect().await?;
        load::forget(&mut of_devices, &sessions.fence.tenant, sessions.fence.generation, epoch.follows)
            .await?;
        of_devices.begin("BEGIN").await?;
        let context = epoch::context(&sessions.fence, epoch, &passed);
        load::write(&mut session, &mut of_devices, context, epoch, pieces, cleaned_at).await?;
        fail_point!("in-commit");
        session.begin("COMMIT").await?;
        fail_point!("after-commit");
        sessions.give_back(session);
        Ok(())
    }

    async fn beat(&mut self) -> Result<(), ViewsError> {
        let mut session = self.sessions.take().await?;
        self.sessions.fence.pass(&mut session).await?;
        self.sessions.give_back(session);
        Ok(())
    }

    async fn stop_asked(&mut self) -> Result<Option<StopAsked>, ViewsError> {
        let mut session = self.sessions.take().await?;
        let asked = stops::asked(&mut session, &self.sessions.fence).await?;
        self.sessions.give_back(session);
        Ok(asked)
    }

    async fn stopped(&mut self, epoch: u64) -> Result<(), ViewsError> {
        let mut session = self.sessions.take().await?;
        stops::answer(&mut session, &self.sessions.fence, epoch).await?;
        self.sessions.give_back(session);
        Ok(())
    }

    async fn go_on(&mut self) -> Result<(), ViewsError> {
        let mut session = self.sessions.take().await?;
        stops::go_on(&mut session, &self.sessions.fence).await?;
        self.sessions.give_back(session);
        Ok(())
    }

    async fn tell_difference(&mut self, published: u64, at: i64) -> Result<u64, ViewsError> {
        // Of its own: the tables that it means are those of the generation that was told last.
        let mut session = self.sessions.connect().await?;
        untold::tell_difference(&mut session, &self.sessions.fence, published, at).await
    }

    async fn followed_to(&mut self) -> Result<Option<u64>, ViewsError> {
        let mut session = self.sessions.take().await?;
        let epoch = stops::followed_to(&mut session, &self.sessions.fence).await?;
        self.sessions.give_back(session);
        Ok(epoch)
    }

    fn outbox(&self) -> Box<dyn TenantOutbox> {
        let Sessions { url, fence, .. } = &self.sessions;
        Box::new(PostgresOutbox(Sessions { url: url.clone(), fence: fence.clone(), idle: None }))
    }

    async fn leave(&mut self) -> Result<(), ViewsError> {
        let mut session = self.sessions.take().await?;
        let update = "UPDATE serviceradar_base.pipeline_writers SET writer = NULL
                      WHERE tenant = $1 AND generation = $2 AND token = $3";
        let Fence { tenant, generation, token, .. } = &*self.sessions.fence;
        session.execute(update, &[tenant, generation, token]).await?;
        self.sessions.give_back(session);
        Ok(())
    }
}

/// The outbox of a tenant, in sessions beside the writer's.
struct PostgresOutbox(Sessions);

#[async_trait::async_trait]
impl TenantOutbox for PostgresOutbox {
    async fn oldest(&mut self, entries: usize, bytes: u64) -> Result<Vec<OutboxEntry>, ViewsError> {
        let mut session = self.0.take().await?;
        let entries = outbox::read(&mut session, &self.0.fence, entries, bytes).await?;
        self.0.give_back(session);
        Ok(entries)
    }

    async fn published(&mut self, epoch: u64, sequence: i64) -> Result<(), ViewsError> {
        let mut session = self.0.take().await?;
        outbox::forget(&mut session, &self.0.fence, epoch, sequence).await?;
        self.0.give_back(session);
        Ok(())
    }

    async fn check(&mut self) -> Result<(), ViewsError> {
        let mut session = self.0.take().await?;
        outbox::check(&mut session, &self.0.fence).await?;
        self.0.give_back(session);
        Ok(())
    }

    async fn devices(
        &mut self,
        after: Option<Uid>,
        limit: usize,
    ) -> Result<Vec<(DeviceRow, u64)>, ViewsError> {
        let mut session = self.0.take().await?;
        let devices = devices::read(&mut session, &self.0.fence.tenant, after, limit).await?;
        self.0.give_back(session);
        Ok(devices)
    }
}
