//! Generations: builds of the views beside each other, of which one is active.

use std::{collections::BTreeMap, sync::Mutex, time::Duration};

use serviceradar_streams::rules::Rules;

use super::{
    PostgresViews, Target,
    session::{Parameter, Session},
    state::Micros,
    untold,
};
use crate::{
    migrations,
    views::{Frontier, Views, ViewsError},
};

/// Only one makes a generation at a time; the key is this program's own.
const ADVISORY_LOCK: i64 = 0x7365_7276_6765_6e31;
/// How long what people read is waited for, each time: behind whoever waits for a lock, all others queue up.
const SHOW_LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '500ms'";
/// How often that is tried again, and the pause before.
const SHOW_TRIES: u32 = 60;
const SHOW_PAUSE: Duration = Duration::from_millis(500);

/// A build of the views.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Generation {
    /// Its number.
    pub id: i32,
    /// `building`, `ready`, `active`, `retired` or `failed`; of one of the past `filling`, `past` or `retired`.
    pub state: String,
    /// Of layout and rules; none until a writer takes it first.
    pub fingerprint: Option<String>,
    /// When it was made, microseconds since the Unix epoch.
    pub started_at: i64,
    /// When it became the active one.
    pub promoted_at: Option<i64>,
    /// What its tables and indexes take on disk, bytes.
    pub bytes: u64,
    /// Of one of the past, what it shows.
    pub past: Option<Past>,
    /// Of which part of the log it is, where it is not of all: such a one is never promoted.
    pub partial: Option<String>,
}

/// What a generation of the past shows: it is filled once, follows no log, and never takes the active one's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// Whose inventory.
    pub tenant: String,
    /// At which moment, in words, by which it is known again.
    pub moment: String,
}

impl PostgresViews {
    /// The same database, for one of its generations.
    pub fn of_generation(&self, id: i32) -> Self {
        self.of(Target::Generation(id))
    }

    /// The same database, for one of its generations of the past, `filling` or `past`.
    pub fn of_past(&self, id: i32) -> Self {
        self.of(Target::Past(id))
    }

    fn of(&self, target: Target) -> Self {
        Self { url: self.url.clone(), layout: self.layout, target, beats: Mutex::default() }
    }

    /// All generations there are or were, by their numbers.
    pub async fn generations(&self) -> Result<Vec<Generation>, ViewsError> {
        let mut session = Session::connect(&self.url).await?;
        migrations::check(session.client()).await?;
        session.become_writer().await?;
        let select = "SELECT g.id, g.state, g.fingerprint, g.started_at, g.promoted_at,
                (SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c
                 WHERE c.relnamespace = to_regnamespace(g.schema) AND c.relkind = 'r'),
                g.of_tenant, g.moment, g.partial
            FROM serviceradar_base.pipeline_generations g ORDER BY g.id";
        let rows = session.query(select, &[]).await?;
        let generation = |row: &tokio_postgres::Row| Generation {
            id: row.get(0),
            state: row.get(1),
            fingerprint: row.get(2),
            started_at: row.get::<_, Micros>(3).0,
            promoted_at: row.get::<_, Option<Micros>>(4).map(|at| at.0),
            bytes: row.get::<_, i64>(5).cast_unsigned(),
            past: row
                .get::<_, Option<String>>(6)
                .zip(row.get::<_, Option<String>>(7))
                .map(|(tenant, moment)| Past { tenant, moment }),
            partial: row.get(8),
        };
        Ok(rows.iter().map(generation).collect())
    }

    /// The rules of a generation.
    pub async fn rules_of(&self, id: i32) -> Result<Option<Rules>, ViewsError> {
        self.of_generation(id).rules().await
    }

    /// Tenants that the active generation has anything of, or will have once it has caught up, by their names.
    pub async fn tenants(&self) -> Result<Vec<String>, ViewsError> {
        let mut session = Session::connect(&self.url).await?;
        session.become_writer().await?;
        let select = "SELECT e.tenant FROM serviceradar_base.pipeline_epochs e
            JOIN serviceradar_base.pipeline_generations g ON g.id = e.generation AND g.state = 'active'
            UNION SELECT tenant FROM serviceradar_base.pipeline_untold ORDER BY 1";
        Ok(session.query(select, &[]).await?.iter().map(|row| row.get(0)).collect())
    }

    /// A generation that is being built by these rules: one whose build was interrupted, or a new one.
    pub async fn building(&self, rules: &Rules) -> Result<i32, ViewsError> {
        let (mut session, fingerprint) = (self.making().await?, rules.fingerprint(self.layout.version));
        let interrupted = "SELECT max(id) FROM serviceradar_base.pipeline_generations
            WHERE state = 'building' AND fingerprint = $1 AND partial IS NULL";
        let id = match session.query_one(interrupted, &[&fingerprint]).await?.get::<_, Option<i32>>(0) {
            Some(id) => id,
            None => self.make(&mut session, rules).await?,
        };
        session.begin("COMMIT").await?;
        Ok(id)
    }

    /// A generation of the past that is being filled by these rules: one whose filling was interrupted, or a new one.
    pub async fn filling(&self, Past { tenant, moment }: &Past, rules: &Rules) -> Result<i32, ViewsError> {
        let (mut session, fingerprint) = (self.making().await?, rules.fingerprint(self.layout.version));
        let interrupted = "SELECT max(id) FROM serviceradar_base.pipeline_generations
            WHERE state = 'filling' AND fingerprint = $1 AND of_tenant = $2 AND moment = $3";
        let found = session.query_one(interrupted, &[&fingerprint, tenant, moment]).await?;
        let id = match found.get::<_, Option<i32>>(0) {
            Some(id) => id,
            None => {
                let id = self.make(&mut session, rules).await?;
                let update = "UPDATE serviceradar_base.pipeline_generations
                    SET state = 'filling', of_tenant = $2, moment = $3 WHERE id = $1";
                session.execute(update, &[&id, tenant, moment]).await?;
                id
            }
        };
        session.begin("COMMIT").await?;
        Ok(id)
    }

    /// A new generation of a part of the log, in words: each tenant's log partitions are read from these frontiers on. It is
    /// never promoted, and a build that was interrupted is not gone on with.
    pub async fn part(
        &self,
        rules: &Rules,
        partial: &str,
        frontiers: &BTreeMap<String, Vec<Frontier>>,
    ) -> Result<i32, ViewsError> {
        let mut session = self.making().await?;
        let id = self.make(&mut session, rules).await?;
        let mark = "UPDATE serviceradar_base.pipeline_generations SET partial = $2 WHERE id = $1";
        session.execute(mark, &[&id, &partial]).await?;
        let insert = "INSERT INTO serviceradar_base.pipeline_frontiers
            (tenant, generation, topic, log_partition, next_offset, epoch) VALUES ($1, $2, $3, $4, $5, 0)";
        for (tenant, of_tenant) in frontiers {
            for Frontier { topic, log_partition, next_offset, .. } in of_tenant {
                let (log_partition, next_offset) = (log_partition.cast_signed(), next_offset.cast_signed());
                let parameters: [Parameter<'_>; 5] = [tenant, &id, topic, &log_partition, &next_offset];
                session.execute(insert, &parameters).await?;
            }
        }
        session.begin("COMMIT").await?;
        Ok(id)
    }

    /// A transaction that alone makes generations.
    async fn making(&self) -> Result<Session, ViewsError> {
        let mut session = Session::connect(&self.url).await?;
        migrations::check(session.client()).await?;
        session.become_writer().await?;
        session.begin("BEGIN").await?;
        session.execute("SELECT pg_advisory_xact_lock($1)", &[&ADVISORY_LOCK]).await?;
        Ok(session)
    }

    /// Makes a generation that is built by these rules.
    async fn make(&self, session: &mut Session, rules: &Rules) -> Result<i32, ViewsError> {
        let last = "SELECT max(id) FROM serviceradar_base.pipeline_generations";
        let id = session.query_one(last, &[]).await?.get::<_, Option<i32>>(0).unwrap_or_default() + 1;
        migrations::create_generation(session.client(), &self.layout, id).await?;
        let update =
            "UPDATE serviceradar_base.pipeline_generations SET fingerprint = $2, rules = $3 WHERE id = $1";
        let (fingerprint, rules) = (rules.fingerprint(self.layout.version), rules.canonical());
        session.execute(update, &[&id, &fingerprint, &rules]).await?;
        Ok(id)
    }

    /// Says that a generation has what the log has.
    pub async fn set_ready(&self, id: i32) -> Result<(), ViewsError> {
        let mut session = Session::connect(&self.url).await?;
        session.become_writer().await?;
        let update = "UPDATE serviceradar_base.pipeline_generations SET state = 'ready'
            WHERE id = $1 AND state = 'building'";
        session.execute(update, &[&id]).await.map(drop)
    }

    /// Says that a generation of the past has all of its moment. Nobody follows it: which keys it has is forgotten.
    ///
    /// # Errors
    /// `Refused` where it was dropped meanwhile.
    pub async fn set_past(&self, id: i32) -> Result<(), ViewsError> {
        let mut session = Session::connect(&self.url).await?;
        session.become_writer().await?;
        session.begin("BEGIN").await?;
        let update = "UPDATE serviceradar_base.pipeline_generations SET state = 'past'
            WHERE id = $1 AND state IN ('filling', 'past')";
        if session.execute(update, &[&id]).await? == 0 {
            return Err(ViewsError::Refused(format!("generation {id} was dropped while it was filled")));
        }
        session.execute("DELETE FROM serviceradar_base.view_changes WHERE generation = $1", &[&id]).await?;
        session.begin("COMMIT").await
    }

    /// Drops the tables of a generation that is not the active one; its row stays, `retired`.
    pub async fn retire(&self, id: i32) -> Result<(), ViewsError> {
        let mut session = Session::connect(&self.url).await?;
        session.become_writer().await?;
        session.begin("BEGIN").await?;
        let update = "UPDATE serviceradar_base.pipeline_generations SET state = 'retired', shown = false
            WHERE id = $1 AND state IN ('building', 'ready', 'failed', 'filling', 'past') RETURNING schema";
        let rows = session.query(update, &[&id]).await?;
        let Some(row) = rows.first() else {
            return Err(ViewsError::Refused(format!(
                "generation {id} is the active one, retired already, or was never there"
            )));
        };
        untold::check(&mut session, None, id).await?;
        migrations::drop_tables(session.client(), row.get(0)).await?;
        for table in ["writers", "frontiers", "watermarks", "hashes", "outbox", "stops", "stand_bys"] {
            let delete = format!("DELETE FROM serviceradar_base.pipeline_{table} WHERE generation = $1");
            session.execute(&delete, &[&id]).await?;
        }
        session.execute("DELETE FROM serviceradar_base.view_changes WHERE generation = $1", &[&id]).await?;
        session.begin("COMMIT").await
    }

    /// Makes what people read that of the active generation. Whoever reads at the moment is waited for, but never so long
    /// that others queue up behind.
    pub async fn show_active(&self) -> Result<(), ViewsError> {
        let mut tries = 0;
        loop {
            match self.try_to_show().await {
                Err(ViewsError::Unavailable(why)) if tries < SHOW_TRIES => {
                    tracing::debug!(why, "the views that people read are in use");
                    tries += 1;
                    tokio::time::sleep(SHOW_PAUSE).await;
                }
                shown => return shown,
            }
        }
    }

    async fn try_to_show(&self) -> Result<(), ViewsError> {
        let mut session = Session::connect(&self.url).await?;
        session.become_writer().await?;
        session.begin("BEGIN").await?;
        let select = "SELECT id, shown FROM serviceradar_base.pipeline_generations
            WHERE state = 'active' FOR NO KEY UPDATE";
        let row = session.query_one(select, &[]).await?;
        if !row.get::<_, bool>(1) {
            session.begin(SHOW_LOCK_TIMEOUT).await?;
            migrations::show_generation(session.client(), row.get(0)).await?;
        }
        session.begin("COMMIT").await
    }
}
