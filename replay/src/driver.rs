//! The driver of one tenant: takes it for writing, reads it back, and runs epochs until it is told to
//! stop, is fenced, or finds that the log is another.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use serviceradar_log::{LogError, LogStore};
use serviceradar_materializers::views::{
    Epoch, Frontier, Resume, StopAsked, TenantWriter, Views, ViewsError,
};
use serviceradar_schemas::{Framings, Source, codec::WriterSchemas, time::Clock};
use serviceradar_streams::{
    engine::{Closed, Engine, EngineError},
    rules::Rules,
};
use tokio::sync::{Notify, watch};

use crate::{
    chores::Chores,
    commit::{Commit, Committer},
    epochs::{Gathered, Lane},
    goal::Goal,
    guard::Guard,
    handle::DriverHandle,
    load::Indexes,
    operations::OperationsError,
    outbox::{Outbox, Publishing},
    reader::ReaderError,
    stand_by::Follower,
    status::{Phase, ScopeStatus, StatusBoard, Waiting},
    topics::{self, Partition},
    witness::LogChanged,
};

/// How long a stand-by waits before it tries again.
const STAND_BY: Duration = Duration::from_secs(1);
/// How long a failed step waits before it is tried again.
pub(crate) const RETRY: Duration = Duration::from_secs(1);

/// What a driver needs.
pub struct DriverConfig {
    /// Whose.
    pub tenant: String,
    /// Unique name of this process, shown to stand-bys.
    pub writer: String,
    /// Workers of the dataflow.
    pub workers: usize,
    /// The rules of the generation; none: those that it was built with, or, of one that nobody has written yet, the
    /// program's own.
    pub rules: Option<Rules>,
    /// Where events come from.
    pub log: Arc<dyn LogStore>,
    /// Who knows the schemas that events were written by.
    pub writers: Arc<dyn WriterSchemas>,
    /// How what is published is framed.
    pub framings: Framings,
    /// Where rows go.
    pub views: Arc<dyn Views>,
    /// The machine's clock: stamps epochs and TICKs, decides nothing.
    pub clock: Arc<dyn Clock>,
    /// Whether it publishes TICKs.
    pub ticks: bool,
    /// How long journals are kept; none: for ever.
    pub journals_kept: Option<Duration>,
    /// What it is told by whoever promotes its generation.
    pub goal: watch::Receiver<Goal>,
}

/// Why a driver stopped.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// The views refused.
    #[error(transparent)]
    Views(#[from] ViewsError),
    /// The log refused.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A log partition cannot be read on.
    #[error(transparent)]
    Reader(#[from] ReaderError),
    /// The log is another.
    #[error(transparent)]
    LogChanged(#[from] LogChanged),
    /// What operators did to the log is not known.
    #[error(transparent)]
    Operations(#[from] OperationsError),
    /// The dataflow ended.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A task was lost.
    #[error("a task of the pipeline ended unexpectedly: {0}")]
    Task(String),
}

/// The driver of one tenant.
pub struct Driver {
    pub(crate) config: DriverConfig,
    /// The rules of the generation that it writes.
    pub(crate) rules: Arc<Rules>,
    pub(crate) board: StatusBoard,
    pub(crate) stop: watch::Receiver<bool>,
}

/// What a driver has while it runs.
pub(crate) struct Running {
    pub(crate) committer: Committer,
    pub(crate) engine: Option<Engine>,
    pub(crate) lanes: BTreeMap<Partition, Lane>,
    pub(crate) came: Arc<Notify>,
    pub(crate) guard: Guard,
    /// Not before the views have all that they need.
    pub(crate) publishing: Option<Publishing>,
    /// What views that are being filled still lack.
    pub(crate) indexes: Indexes,
    pub(crate) generation: i32,
    /// Whether it is the active generation, and told. Of another nothing is published, and nothing judged.
    pub(crate) is_live: bool,
    /// Up to where it reads before it tells the difference from the generation whose place it took at once.
    pub(crate) untold: Option<Vec<Frontier>>,
    /// Where it is asked to stop, for the promotion of another generation.
    pub(crate) stop_asked: Option<StopAsked>,
    /// Whether somebody who stands by has followed this one, which leads until then.
    pub(crate) is_relieved: bool,
    /// The last epoch that was closed, and the last that was committed.
    pub(crate) epoch: u64,
    pub(crate) epoch_committed: u64,
    /// The last that was published before.
    pub(crate) epoch_published: u64,
    /// Next offsets of what is committed.
    pub(crate) committed: BTreeMap<Partition, u64>,
    /// Ends of the log as found at the start: before them the guard says nothing.
    pub(crate) ends: BTreeMap<Partition, u64>,
    pub(crate) undecided: Vec<serviceradar_streams::snapshots::Undecided>,
    pub(crate) tick: Option<i64>,
}

impl Driver {
    /// Starts the driver on a task of its own.
    pub fn start(config: DriverConfig) -> DriverHandle {
        let (board, status) = StatusBoard::new(own_source(&config.writer));
        let (stop, stopped) = watch::channel(false);
        let (log, tenant) = (config.log.clone(), config.tenant.clone());
        let driver = Driver { config, rules: Arc::default(), board: board.clone(), stop: stopped };
        let task = tokio::spawn(async move {
            let result = driver.run().await;
            board.update(|status| {
                status.phase = match &result {
                    Ok(()) => Phase::Stopped,
                    Err(error) => Phase::Failed(error.to_string()),
                }
            });
            if let Err(error) = &result {
                tracing::error!(%error, "the pipeline has stopped");
            }
            result
        });
        DriverHandle { status, stop, task, log, tenant }
    }

    async fn run(mut self) -> Result<(), DriverError> {
        self.until_available(|| topics::ensure(&*self.config.log, &self.config.tenant)).await?;
        loop {
            let ended = self.write().await;
            let is_fenced = matches!(ended, Err(DriverError::Views(ViewsError::Fenced { .. })));
            let (generation, epoch) = self.board.written();
            match self.config.views.standing(&self.config.tenant, None).await {
                Ok(standing) if is_fenced && standing.generation != generation => {
                    tracing::info!(
                        from = generation,
                        to = standing.generation,
                        "another generation was promoted"
                    );
                }
                Ok(standing) if is_fenced && standing.truncated > epoch => {
                    tracing::info!(epoch = standing.truncated, "the views were emptied: filling them anew");
                }
                _ => return ended,
            }
        }
    }

    /// Takes the tenant in the generation that is meant, and writes it until the end.
    async fn write(&mut self) -> Result<(), DriverError> {
        let mut follower = Follower::default();
        let Some((writer, resume)) = self.take(&mut follower).await? else {
            return Ok(());
        };
        let is_empty = resume.is_empty();
        let Some(mut running) = self.resume(writer, resume, follower).await? else {
            return Ok(());
        };
        let result = self.epochs(&mut running, is_empty).await;
        // The epoch under way is finished, whatever ended the others.
        let finished = self.finish(&mut running).await;
        let published = match running.publishing.take() {
            Some(publishing) => publishing.stop().await,
            None => Ok(()),
        };
        let result = result.and(finished).and(published);
        if !matches!(result, Err(DriverError::Views(ViewsError::Fenced { .. }))) {
            // Leaving spares a newcomer the wait; where it fails, the beat stands still.
            if let Ok(writer) = running.committer.writer()
                && let Err(error) = writer.leave().await
            {
                tracing::warn!(%error, "could not leave the tenant");
            }
        }
        result
    }

    pub(crate) fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }

    pub(crate) async fn until_available<T, E, F>(&self, call: impl Fn() -> F) -> Result<T, DriverError>
    where
        E: Into<OperationsError>,
        F: Future<Output = Result<T, E>>,
    {
        loop {
            match call().await.map_err(E::into) {
                Err(OperationsError::Log(LogError::Unavailable(why))) if !self.is_stopped() => {
                    tracing::warn!(why, "waiting for the log");
                    tokio::time::sleep(RETRY).await;
                }
                Err(OperationsError::Log(error)) => return Err(error.into()),
                other => return Ok(other?),
            }
        }
    }

    /// Takes the tenant; while another writer holds it, stands by and follows. None: told to stop.
    async fn take(
        &mut self,
        follower: &mut Follower,
    ) -> Result<Option<(Box<dyn TenantWriter>, Resume)>, DriverError> {
        loop {
            if self.is_stopped() {
                return Ok(None);
            }
            match self.try_to_take().await {
                Ok(taken) => {
                    self.board.database(None);
                    return Ok(Some(taken));
                }
                Err(ViewsError::Held { writer, .. }) => {
                    self.board.update(|status| {
                        if status.phase != Phase::StandBy {
                            tracing::info!(writer, "standing by");
                        }
                        status.phase = Phase::StandBy;
                    });
                    self.follow_standing(follower).await;
                    let followed = follower.epoch();
                    self.keep(self.tell_standing(followed).await)?;
                }
                Err(ViewsError::Unavailable(why)) => {
                    self.board.database(Some(&why));
                }
                // Another generation may have been promoted since its rules were read.
                Err(ViewsError::Fingerprint { .. }) if self.are_rules_others().await => {}
                Err(error) => return Err(error.into()),
            }
            tokio::time::sleep(STAND_BY).await;
        }
    }

    /// Whether the generation has other rules now than those by which it was to be taken.
    async fn are_rules_others(&self) -> bool {
        let Self { config, rules, .. } = self;
        let now = config.views.rules().await;
        config.rules.is_none()
            && now.is_ok_and(|now| now.unwrap_or_default().canonical() != rules.canonical())
    }

    /// By the rules of the generation, which may be another than the last time.
    async fn try_to_take(&mut self) -> Result<(Box<dyn TenantWriter>, Resume), ViewsError> {
        let config = &self.config;
        let rules = match &config.rules {
            Some(rules) => rules.clone(),
            None => config.views.rules().await?.unwrap_or_default(),
        };
        let (fingerprint, canonical) = (rules.fingerprint(config.views.layout_version()), rules.canonical());
        self.rules = Arc::new(rules);
        config.views.take(&config.tenant, &config.writer, &fingerprint, &canonical).await
    }

    /// Runs epochs until told to stop: gathers and computes one while the one before is being committed.
    async fn epochs(&mut self, running: &mut Running, is_empty: bool) -> Result<(), DriverError> {
        let mut chores = Chores::new();
        if is_empty && !running.indexes.are_there() {
            self.load(running).await?;
        }
        while !self.is_stopped() && !running.is_relieved {
            if self.is_told_to_hold() {
                self.hold(running).await?;
                continue;
            }
            self.stop_as_asked(running).await?;
            self.tell_difference(running).await?;
            let gathered = self.gather(running).await?;
            // Marks of transactions alone are nothing to write.
            let (commit, passed) = match gathered.events {
                0 => (None, gathered.frontiers),
                _ => (Some(self.close(running, gathered).await?), BTreeMap::new()),
            };
            self.finish(running).await?;
            self.reach(running, passed.into_values());
            self.judge(running).await;
            self.make_indexes(running, commit.is_some()).await?;
            self.tell_loaded(running);
            self.publish(running).await?;
            self.do_chores(running, &mut chores).await?;
            if let Some(commit) = commit {
                running.committer.start(commit)?;
            }
        }
        Ok(())
    }

    /// Computes an epoch.
    pub(crate) async fn close(
        &mut self,
        running: &mut Running,
        mut gathered: Gathered,
    ) -> Result<Box<Commit>, DriverError> {
        let closed_at = self.config.clock.now();
        let started = Instant::now();
        let batch = std::mem::take(&mut gathered.batch);
        let closed = with_engine(running, move |engine| engine.epoch(batch)).await?;
        Ok(self.commit_of(running, gathered, closed, closed_at, started))
    }

    pub(crate) fn commit_of(
        &self,
        running: &mut Running,
        gathered: Gathered,
        mut closed: Closed,
        closed_at: i64,
        started: Instant,
    ) -> Box<Commit> {
        let follows = running.epoch;
        running.epoch = follows.max(running.epoch_published) + 1;
        let epoch = Epoch {
            number: running.epoch,
            follows,
            closed_at,
            events: gathered.events,
            intake_max: gathered.intake_max,
            frontiers: gathered.frontiers.into_values().collect(),
            output: std::mem::take(&mut closed.output),
            dead_letters: gathered.dead_letters,
        };
        Box::new(Commit { epoch, closed, started, computed: started.elapsed() })
    }

    /// Waits for the commit under way, and says what it brought.
    pub(crate) async fn finish(&mut self, running: &mut Running) -> Result<(), DriverError> {
        if let Some(commit) = running.committer.finish().await? {
            self.tell(running, commit);
        }
        Ok(())
    }

    /// Says what a commit brought.
    pub(crate) fn tell(&self, running: &mut Running, commit: Box<Commit>) {
        let Commit { epoch, closed, started, computed } = *commit;
        let (changes, evidence) = (epoch.output.rows() as u64, epoch.output.evidence.len() as u64);
        self.board.update(|status| {
            status.epoch = epoch.number;
            status.events += epoch.events;
            status.dead_letters += epoch.dead_letters.len() as u64;
            status.changes += changes;
            status.evidence_changes += evidence;
            status.dataflow_ms = computed.as_millis() as u64;
            status.epoch_ms = started.elapsed().as_millis() as u64;
        });
        self.know(running, closed);
        running.epoch_committed = epoch.number;
        if let Some(publishing) = &running.publishing {
            publishing.committed(epoch.number);
        }
        self.reach(running, epoch.frontiers);
    }

    /// Notes what the dataflow says of itself, besides rows.
    pub(crate) fn know(&self, running: &mut Running, closed: Closed) {
        (running.undecided, running.tick) = (closed.undecided, closed.tick);
        self.board.update(|status| {
            status.records = closed.gauges.records;
            status.blocks_decided = closed.gauges.blocks_decided;
            status.biggest_block = closed.gauges.biggest_block;
            let scopes = closed.gauges.scopes.iter();
            status.scopes = scopes.map(|(name, of)| (name.to_string(), ScopeStatus::of(of))).collect();
            status.undecided = running.undecided.iter().map(waiting).collect();
        });
    }

    /// Notes that what is before these frontiers is in the views.
    pub(crate) fn reach(&self, running: &mut Running, frontiers: impl IntoIterator<Item = Frontier>) {
        self.board.update(|status| {
            for frontier in frontiers {
                let partition =
                    Partition { topic: frontier.topic.clone(), log_partition: frontier.log_partition };
                status.partitions.entry(partition.to_string()).or_default().reach(&frontier);
                running.committed.insert(partition, frontier.next_offset);
            }
        });
    }

    /// Lets the guard judge, once the pipeline has reached the ends that it found at its start.
    async fn judge(&self, running: &mut Running) {
        if !self.has_caught_up(running) || !running.is_live {
            return;
        }
        if let Err(error) = running.guard.judge(&running.undecided, running.tick).await {
            tracing::warn!(%error, "the guard could not write its verdict; it will try again");
        }
    }

    /// Sees to it that what epochs leave is published. Views that are being filled come first.
    async fn publish(&self, running: &mut Running) -> Result<(), DriverError> {
        if let Some(ended) = running.publishing.take_if(|publishing| publishing.has_ended()) {
            return ended.stop().await;
        }
        if running.publishing.is_none() && running.indexes.are_there() && running.is_live {
            let (config, outbox) = (&self.config, running.committer.writer()?.outbox());
            let framing = config.framings.device_changes;
            let outbox = Outbox::new(outbox, config.log.clone(), &config.tenant, framing, running.generation);
            let (board, came) = (self.board.clone(), running.came.clone());
            running.publishing = Some(Publishing::start(outbox, running.epoch_committed, board, came));
        }
        Ok(())
    }

    /// A database that cannot be reached now is no reason to stop.
    pub(crate) fn keep(&self, result: Result<(), ViewsError>) -> Result<(), DriverError> {
        match result {
            Err(ViewsError::Unavailable(why)) => {
                self.board.database(Some(&why));
                Ok(())
            }
            other => {
                self.board.database(None);
                Ok(other?)
            }
        }
    }
}

impl Running {
    pub(crate) fn take_engine(&mut self) -> Result<Engine, DriverError> {
        self.engine.take().ok_or_else(|| DriverError::Task("the dataflow is gone".to_owned()))
    }
}

/// Runs the dataflow off the runtime's threads.
pub(crate) async fn with_engine<T: Send + 'static>(
    running: &mut Running,
    work: impl FnOnce(&mut Engine) -> Result<T, EngineError> + Send + 'static,
) -> Result<T, DriverError> {
    let mut engine = running.take_engine()?;
    let worked = tokio::task::spawn_blocking(move || {
        let result = work(&mut engine);
        (engine, result)
    });
    let (engine, result) = worked.await.map_err(|error| DriverError::Task(error.to_string()))?;
    running.engine = Some(engine);
    Ok(result?)
}

/// The source of a writer's TICKs.
pub(crate) fn own_source(writer: &str) -> Source {
    Source { kind: "serviceradar".to_owned(), instance: writer.to_owned() }
}

fn waiting(fetch: &serviceradar_streams::snapshots::Undecided) -> Waiting {
    Waiting {
        source: format!("{}/{}", fetch.partition, fetch.source),
        begin: fetch.begin,
        counted: fetch.counted,
        members: fetch.members,
    }
}
