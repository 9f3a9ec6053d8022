//! Resuming: the dataflow is put back where the views are, and readers go on from there.

use std::{collections::BTreeMap, sync::Arc};

use futures_util::future::join_all;
use serviceradar_materializers::views::{Frontier, Resume, TenantWriter, ViewsError};
use serviceradar_streams::{
    engine::{Batch, Engine, EngineError},
    rows::State,
};
use tokio::sync::{Notify, mpsc};

use crate::{
    commit::Committer,
    driver::{Driver, DriverError, RETRY, Running, with_engine},
    epochs::Lane,
    guard::Guard,
    load::Indexes,
    outbox, reader,
    stand_by::Follower,
    status::Phase,
    topics::{self, Partition},
    witness,
};

/// Pieces of the state that wait between the views and the dataflow.
const PIECES_WAITING: usize = 2;

impl Driver {
    /// Puts the dataflow back where the views are, and starts the readers there.
    pub(crate) async fn resume(
        &mut self,
        mut writer: Box<dyn TenantWriter>,
        resume: Resume,
        mut follower: Follower,
    ) -> Result<Option<Running>, DriverError> {
        let config = &self.config;
        self.board.update(|status| {
            (status.phase, status.generation, status.epoch) =
                (Phase::Restoring, resume.generation, resume.epoch);
            status.is_live = resume.is_live;
        });
        let engine = loop {
            if let Some(engine) = self.arrive(&mut follower, &resume).await {
                break engine;
            }
            match self.restore(async |put| writer.state(put).await).await {
                Ok((engine, ())) => break engine,
                Err(DriverError::Views(ViewsError::Unavailable(why))) => {
                    self.board.database(Some(&why));
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => return Err(error),
            }
            if self.is_stopped() {
                return Ok(None);
            }
        };
        let (log, tenant) = (&*config.log, &config.tenant);
        let epoch_published = self.until_available(|| outbox::last_epoch(log, tenant)).await?;
        let came = Arc::new(Notify::new());
        let mut running = Running {
            committer: Committer::new(writer, came.clone(), self.board.clone(), self.stop.clone()),
            engine: Some(engine),
            lanes: BTreeMap::new(),
            came,
            guard: Guard::new(
                config.log.clone(),
                &config.tenant,
                config.framings.decisions,
                self.rules.snapshots.clone(),
            ),
            publishing: None,
            indexes: if resume.is_bare { Indexes::Missing } else { Indexes::There },
            generation: resume.generation,
            is_live: resume.is_live,
            untold: resume.untold,
            stop_asked: None,
            is_relieved: false,
            epoch: resume.epoch,
            epoch_committed: resume.epoch,
            epoch_published,
            committed: BTreeMap::new(),
            ends: BTreeMap::new(),
            undecided: Vec::new(),
            tick: None,
        };
        // What waits for the guard is known before anything comes: it may be that nothing does.
        let waiting = with_engine(&mut running, |engine| engine.epoch(Batch::default())).await?;
        self.know(&mut running, waiting);
        self.open_lanes(&mut running, resume.frontiers).await?;
        self.find_ends(&mut running).await?;
        let phase = if resume.is_bare { Phase::Loading } else { Phase::Running };
        self.board.update(|status| status.phase = phase);
        Ok(Some(running))
    }

    /// A dataflow with the state that the views tell, and what else they do: read and taken in at the same time.
    pub(crate) async fn restore<T>(
        &self,
        read: impl AsyncFnOnce(mpsc::Sender<State>) -> Result<T, ViewsError>,
    ) -> Result<(Engine, T), DriverError> {
        let config = &self.config;
        let (tenant, rules, workers) = (config.tenant.clone(), self.rules.clone(), config.workers);
        let (put, mut pieces) = mpsc::channel(PIECES_WAITING);
        let restoring = tokio::task::spawn_blocking(move || {
            let mut engine = Engine::start(&tenant, &rules, workers)?;
            engine.restore(std::iter::from_fn(|| pieces.blocking_recv()))?;
            Ok::<_, EngineError>(engine)
        });
        // Where reading failed, that is why there is not all.
        let told = read(put).await?;
        let restored = restoring.await.map_err(|error| DriverError::Task(error.to_string()))?;
        Ok((restored?, told))
    }

    /// Notes where the log ends now, or where it is to be read to.
    pub(crate) async fn find_ends(&self, running: &mut Running) -> Result<(), DriverError> {
        for partition in running.lanes.keys() {
            let log = &self.config.log;
            let offsets =
                self.until_available(|| log.offsets(&partition.topic, partition.log_partition)).await?;
            let end = offsets.end.min(running.until(partition));
            running.ends.insert(partition.clone(), end);
            self.board.end(partition, offsets.end);
        }
        Ok(())
    }

    /// Starts readers of the log partitions that have none: from their frontier, or from offset 0.
    pub(crate) async fn open_lanes(
        &self,
        running: &mut Running,
        frontiers: Vec<Frontier>,
    ) -> Result<(), DriverError> {
        let config = &self.config;
        let log = &*config.log;
        let mut partitions = self.until_available(|| topics::read_by(log, &config.tenant)).await?;
        partitions.retain(|partition| !running.lanes.contains_key(partition));
        let mut starts: Vec<_> = partitions
            .into_iter()
            .map(|partition| {
                let frontier = Frontier::of(&frontiers, &partition.topic, partition.log_partition);
                (partition, frontier)
            })
            .collect();
        // All at a time, and before any is read: a broker lets a question wait for a fetch.
        let checks = starts.iter().map(|(partition, frontier)| {
            self.until_available(move || witness::check(log, partition, frontier))
        });
        let checked = join_all(checks).await;
        for ((partition, frontier), next) in starts.iter_mut().zip(checked) {
            let next = next??;
            if next > frontier.next_offset {
                tracing::warn!(%partition, from = frontier.next_offset, to = next, "passes what operators said is missing");
            }
            frontier.next_offset = next;
        }
        for (partition, frontier) in starts {
            self.reach(running, [frontier.clone()]);
            let hears = reader::start(
                config.log.clone(),
                config.writers.clone(),
                config.clock.clone(),
                partition.clone(),
                (frontier.clone(), running.until(&partition)),
                self.board.clone(),
                running.came.clone(),
            );
            running.lanes.insert(partition, Lane::new(hears, frontier));
        }
        Ok(())
    }
}

impl Running {
    /// The offset up to which a log partition is read: behind what is untold comes nothing else before it is told.
    fn until(&self, Partition { topic, log_partition }: &Partition) -> u64 {
        self.untold.as_ref().map_or(u64::MAX, |ends| Frontier::of(ends, topic, *log_partition).next_offset)
    }
}
