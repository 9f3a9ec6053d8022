//! A candidate: a generation beside the active one, with a driver for each tenant that the active one has, which publishes
//! nothing. It is filled, follows the log, is compared, and takes the active one's place.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use serviceradar_log::{LogError, LogStore};
use serviceradar_materializers::{
    PostgresViews,
    postgres::{Asked, Promoted, Promotion, Standing, Untold},
    views::{Frontier, Views, ViewsError},
};
use serviceradar_schemas::{Framings, Operation, codec::WriterSchemas, time::Clock};
use serviceradar_streams::rules::Rules;
use tokio::sync::watch;

use crate::{
    driver::{Driver, DriverConfig, DriverError},
    goal::Goal,
    handle::DriverHandle,
    operations::{Operations, OperationsError, TRUNCATE},
    outbox,
    status::{DriverStatus, Phase},
};

/// How long the writers of the active generation have to stop, after which all go on and nothing has changed.
pub const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
/// How long the candidate's drivers have to do what they are told.
const DOES_WITHIN: Duration = Duration::from_secs(10);
/// How often what changed while two generations were compared is compared again before the writers stop, and how many devices
/// are too few for that.
const COMPARED_AGAIN_MAX: u32 = 5;
const DEVICES_FEW: usize = 500;
/// How often is looked again.
const POLL: Duration = Duration::from_millis(20);
const LOOK_AT_WRITERS: Duration = Duration::from_millis(500);
/// Whoever stands by and has followed to any epoch follows.
const FIRST_EPOCH: u64 = 1;

/// Why a generation was not promoted. Unless it says otherwise, nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum CandidateError {
    /// The views refused.
    #[error(transparent)]
    Views(#[from] ViewsError),
    /// The log refused.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A driver of the candidate ended.
    #[error("the driver of tenant {tenant} in generation {generation} has ended: {error}")]
    Driver {
        /// Whose.
        tenant: String,
        /// The candidate.
        generation: i32,
        /// Why.
        error: String,
    },
    /// A tenant that is live has no topics.
    #[error(
        "tenant {0} is in the active generation and has no topics in this log: another log is configured, or they were deleted; restore them, or remove the tenant"
    )]
    NoTopics(String),
    /// The log of a tenant is being emptied.
    #[error(
        "tenant {0} is being truncated, or that was interrupted: give the same command again, until it is done"
    )]
    Truncating(String),
    /// What operators did to the log is not known.
    #[error(transparent)]
    Operations(#[from] OperationsError),
    /// The active generation took its place at once, and has not caught up yet.
    #[error(
        "generation {active} has not told yet how tenant {tenant} differs from what it was in generation {told}: start a pipeline, or give `serviceradar replay rollback --now` again, and promote when that is done"
    )]
    Untold {
        /// Whose.
        tenant: String,
        /// The active generation.
        active: i32,
        /// The one that journals and consumers know.
        told: i32,
    },
    /// A writer of the active generation did not stop in time.
    #[error(
        "the writer of tenant {tenant} did not stop within {} s: all go on, and generation {generation} stays as it is; see what keeps it (`serviceradar status`), and promote again",
        ANSWERS_WITHIN.as_secs()
    )]
    NoAnswer {
        /// Whose.
        tenant: String,
        /// The candidate.
        generation: i32,
    },
    /// The candidate did not come to where the active generation stopped in time.
    #[error(
        "tenant {tenant} of generation {generation} did not reach the place where the active one stopped within {} s: all go on; promote again when it has caught up",
        DOES_WITHIN.as_secs()
    )]
    Behind {
        /// Whose.
        tenant: String,
        /// The candidate.
        generation: i32,
    },
    /// More devices differ than may.
    #[error(
        "more than {most} devices would change (at least {found}): generation {generation} stays ready beside the active one; look at them with `serviceradar replay diff`, and promote it if they are right"
    )]
    TooMany {
        /// The candidate.
        generation: i32,
        /// How many may.
        most: u64,
        /// How many do, at least.
        found: u64,
    },
}

impl CandidateError {
    /// Whether the same call may succeed later.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Views(error) => error.is_unavailable(),
            Self::Log(error) => error.is_unavailable(),
            Self::Operations(error) => error.is_unavailable(),
            _ => false,
        }
    }
}

/// What a candidate's drivers need.
#[derive(Clone)]
pub struct CandidateConfig {
    /// Unique name of this process.
    pub writer: String,
    /// Workers of a dataflow.
    pub workers: usize,
    /// The log.
    pub log: Arc<dyn LogStore>,
    /// Who knows the schemas that events were written by.
    pub writers: Arc<dyn WriterSchemas>,
    /// How what is published is framed, once it leads.
    pub framings: Framings,
    /// The database.
    pub views: Arc<PostgresViews>,
    /// The machine's clock.
    pub clock: Arc<dyn Clock>,
    /// Whether it publishes TICKs, once it leads.
    pub ticks: bool,
    /// How long journals are kept, once it leads.
    pub journals_kept: Option<Duration>,
}

/// A generation beside the active one, with its drivers.
pub struct Candidate {
    config: CandidateConfig,
    generation: i32,
    drivers: BTreeMap<String, Driven>,
}

struct Driven {
    driver: DriverHandle,
    goal: watch::Sender<Goal>,
}

/// What a promotion brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The generation before.
    pub from: i32,
    /// The epoch of each tenant that tells the difference.
    pub epochs: BTreeMap<String, u64>,
    /// Devices that differed.
    pub changes: u64,
    /// For how long nobody wrote: from the first writer's stop until the new ones could.
    pub paused: Duration,
}

impl Candidate {
    /// Starts the drivers of a generation, for each tenant that the active one has.
    pub async fn start(
        config: CandidateConfig,
        generation: i32,
        rules: Rules,
    ) -> Result<Self, CandidateError> {
        let operations = Operations::read(&*config.log).await?;
        let tenants = config.views.tenants().await?;
        // Those of other databases, whose events are in the same log, are no matter.
        let mut truncated = operations.unfinished().filter(|operation| operation.action == TRUNCATE);
        let is_ours =
            |operation: &Operation| operation.tenant.clone().filter(|tenant| tenants.contains(tenant));
        if let Some(tenant) = truncated.find_map(is_ours) {
            return Err(CandidateError::Truncating(tenant));
        }
        for tenant in &tenants {
            match crate::topics::read_by(&*config.log, tenant).await {
                Err(LogError::UnknownTopic(_)) => return Err(CandidateError::NoTopics(tenant.clone())),
                read => read?,
            };
        }
        let views: Arc<dyn Views> = Arc::new(config.views.of_generation(generation));
        let drivers = tenants.into_iter().map(|tenant| {
            let (goal, told) = watch::channel(Goal::Follow);
            let driver = Driver::start(DriverConfig {
                tenant: tenant.clone(),
                writer: config.writer.clone(),
                workers: config.workers,
                rules: Some(rules.clone()),
                log: config.log.clone(),
                writers: config.writers.clone(),
                framings: config.framings,
                views: views.clone(),
                clock: config.clock.clone(),
                ticks: config.ticks,
                journals_kept: config.journals_kept,
                goal: told,
            });
            (tenant, Driven { driver, goal })
        });
        let drivers = drivers.collect();
        Ok(Self { config, generation, drivers })
    }

    /// Its number.
    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// What its drivers are doing, by tenant.
    pub fn status(&self) -> BTreeMap<&str, DriverStatus> {
        self.drivers.iter().map(|(tenant, driven)| (tenant.as_str(), driven.driver.status())).collect()
    }

    /// Waits until it holds what the log holds, with all indexes, and then what came while that was taken in; `told` hears of
    /// what it does meanwhile.
    pub async fn caught_up(
        &self,
        mut told: impl FnMut(BTreeMap<&str, DriverStatus>),
    ) -> Result<(), CandidateError> {
        for (tenant, Driven { driver, .. }) in &self.drivers {
            let caught_up = async {
                driver.passed().await?;
                driver.passed().await
            };
            tokio::pin!(caught_up);
            loop {
                tokio::select! {
                    done = &mut caught_up => break done?,
                    () = tokio::time::sleep(LOOK_AT_WRITERS) => told(self.status()),
                }
            }
            self.check(tenant)?;
        }
        told(self.status());
        self.config.views.set_ready(self.generation).await?;
        Ok(())
    }

    fn check(&self, tenant: &str) -> Result<(), CandidateError> {
        let ended = match self.drivers.get(tenant).map(|driven| driven.driver.status().phase) {
            Some(Phase::Failed(why)) => why,
            Some(Phase::Stopped) => "it was stopped".to_owned(),
            _ => return Ok(()),
        };
        Err(CandidateError::Driver { tenant: tenant.to_owned(), generation: self.generation, error: ended })
    }

    /// Lets it take the place of the active generation, unless more devices would change than given. Its drivers are the
    /// writers then.
    pub async fn promote(&self, changes_max: Option<u64>) -> Result<Outcome, CandidateError> {
        if let Some(Untold { tenant, generation, told }) = self.config.views.untold().await?.pop() {
            return Err(CandidateError::Untold { tenant, active: generation, told });
        }
        let from =
            self.config.views.standing(self.drivers.keys().next().map_or("", |t| t), None).await?.generation;
        let mut differing = BTreeMap::new();
        for tenant in self.drivers.keys() {
            let found = self.config.views.differing(from, self.generation, tenant).await?;
            differing.insert(tenant.clone(), found);
        }
        self.look_at_writers(from).await?;
        for (tenant, differing) in &mut differing {
            // Each time there is less that changed meanwhile, until it is no matter while nobody writes.
            for _ in 0..COMPARED_AGAIN_MAX {
                let looked_at =
                    self.config.views.compare_again(from, self.generation, tenant, differing).await?;
                if looked_at <= DEVICES_FEW {
                    break;
                }
            }
        }
        let done = self.try_to_promote(from, differing, changes_max).await;
        if done.is_err() {
            // Where this fails, too, they go on by themselves.
            self.config.views.ask_no_more(from).await.ok();
            self.tell(|_| Goal::Follow);
        } else if let Err(error) = self.config.views.show_active().await {
            tracing::warn!(%error, "what people read is of the former generation until a writer starts");
        }
        done
    }

    /// Waits until it is known of each tenant whether somebody writes it.
    async fn look_at_writers(&self, from: i32) -> Result<(), CandidateError> {
        for tenant in self.drivers.keys() {
            self.config.views.is_written(from, tenant).await?;
            self.check(tenant)?;
        }
        Ok(())
    }

    async fn try_to_promote(
        &self,
        from: i32,
        mut differing: BTreeMap<String, serviceradar_materializers::postgres::Differing>,
        changes_max: Option<u64>,
    ) -> Result<Outcome, CandidateError> {
        let views = &self.config.views;
        self.tell(|_| Goal::Hold);
        for tenant in self.drivers.keys() {
            self.holds(tenant, &[]).await?;
        }
        for (tenant, driven) in &self.drivers {
            let mut wanted = BTreeMap::new();
            for (name, partition) in driven.driver.status().partitions {
                if let Some((topic, at)) =
                    name.rsplit_once('/').and_then(|(topic, at)| Some((topic, at.parse().ok()?)))
                {
                    wanted.insert((topic.to_owned(), at), partition.next_offset);
                }
            }
            views.ask_to_stop(from, tenant, &wanted).await?;
        }
        let asked = Instant::now();
        let (mut stopped, mut paused, mut ends) = (BTreeMap::new(), None, BTreeMap::new());
        while stopped.len() < self.drivers.len() {
            for tenant in self
                .drivers
                .keys()
                .filter(|tenant| !stopped.contains_key(*tenant))
                .cloned()
                .collect::<Vec<_>>()
            {
                match views.asked(from, &tenant).await? {
                    Asked::Stopped(epoch) => {
                        paused.get_or_insert_with(Instant::now);
                        stopped.insert(tenant, epoch);
                    }
                    // It holds what the log holds: there is no other place to go to.
                    Asked::Absent(epoch) => {
                        ends.insert(tenant.clone(), Vec::new());
                        stopped.insert(tenant, epoch);
                    }
                    Asked::Waiting if asked.elapsed() < ANSWERS_WITHIN => {}
                    Asked::Waiting | Asked::WentOn => {
                        return Err(CandidateError::NoAnswer { tenant, generation: self.generation });
                    }
                }
            }
            tokio::time::sleep(POLL).await;
        }
        for (tenant, driven) in
            self.drivers.iter().filter(|(tenant, _)| !ends.contains_key(*tenant)).collect::<Vec<_>>()
        {
            let frontiers = views.of_generation(from).standing(tenant, None).await?.frontiers;
            driven.goal.send_replace(Goal::Reach(frontiers.clone()));
            ends.insert(tenant.clone(), frontiers);
        }
        let mut tenants = BTreeMap::new();
        for (tenant, ends) in ends {
            self.holds(&tenant, &ends).await?;
            let standing = Standing {
                stopped: stopped.get(&tenant).copied().unwrap_or_default(),
                reached: views.of_generation(self.generation).standing(&tenant, None).await?.epoch,
                writer: self.config.writer.clone(),
                published: outbox::last_epoch(&*self.config.log, &tenant).await?,
                differing: differing.remove(&tenant).unwrap_or_default(),
            };
            tenants.insert(tenant, standing);
        }
        let (to, at) = (self.generation, self.config.clock.now());
        match views.promote(&Promotion { from, to, tenants, at, changes_max }).await? {
            Promoted::TooMany(found) => {
                Err(CandidateError::TooMany { generation: to, most: changes_max.unwrap_or_default(), found })
            }
            Promoted::Done { epochs, changes } => {
                self.tell(|tenant| Goal::Lead { epoch: epochs.get(tenant).copied().unwrap_or_default() });
                let paused = paused.map_or(Duration::ZERO, |paused: Instant| paused.elapsed());
                Ok(Outcome { from, epochs, changes, paused })
            }
        }
    }

    fn tell(&self, goal: impl Fn(&str) -> Goal) {
        for (tenant, driven) in &self.drivers {
            driven.goal.send_replace(goal(tenant));
        }
    }

    /// Waits until a driver holds, with what is before these frontiers in its views.
    async fn holds(&self, tenant: &str, ends: &[Frontier]) -> Result<(), CandidateError> {
        let since = Instant::now();
        loop {
            let Some(driven) = self.drivers.get(tenant) else {
                return Ok(());
            };
            let status = driven.driver.status();
            let has_reached = ends.iter().all(|end| {
                let at = status.partitions.get(&format!("{}/{}", end.topic, end.log_partition));
                at.map_or(0, |partition| partition.next_offset) >= end.next_offset
            });
            if status.phase == Phase::Holding && has_reached {
                return Ok(());
            }
            self.check(tenant)?;
            if since.elapsed() > DOES_WITHIN {
                return Err(CandidateError::Behind {
                    tenant: tenant.to_owned(),
                    generation: self.generation,
                });
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Lets its drivers lead, where it took the place of the active generation at once: they catch up, and tell the difference.
    /// Waits until that is done for all tenants, by them or by others.
    pub async fn tell_difference(
        &self,
        mut told: impl FnMut(BTreeMap<&str, DriverStatus>),
    ) -> Result<(), CandidateError> {
        self.tell(|_| Goal::Lead { epoch: FIRST_EPOCH });
        loop {
            let untold = self.config.views.untold().await?;
            if untold.is_empty() {
                return Ok(());
            }
            for Untold { tenant, .. } in &untold {
                self.has_not_failed(tenant)?;
            }
            told(self.status());
            tokio::time::sleep(LOOK_AT_WRITERS).await;
        }
    }

    /// Waits until none of its drivers writes: after a promotion, when others stand by and have followed them, or write.
    pub async fn relieved(&self) -> Result<(), CandidateError> {
        for (tenant, driven) in &self.drivers {
            while !driven.driver.is_finished() && driven.driver.status().phase != Phase::StandBy {
                tokio::time::sleep(LOOK_AT_WRITERS).await;
            }
            self.has_not_failed(tenant)?;
        }
        Ok(())
    }

    fn has_not_failed(&self, tenant: &str) -> Result<(), CandidateError> {
        match self.drivers.get(tenant).map(|driven| driven.driver.status().phase) {
            Some(Phase::Failed(error)) => {
                Err(CandidateError::Driver { tenant: tenant.to_owned(), generation: self.generation, error })
            }
            _ => Ok(()),
        }
    }

    /// Ends its drivers in order.
    pub async fn stop(self) -> Result<(), DriverError> {
        for Driven { driver, .. } in self.drivers.into_values() {
            driver.stop().await?;
        }
        Ok(())
    }
}
