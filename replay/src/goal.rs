//! Goals: what a driver does while another generation is promoted: the writer of the active one stops where it is asked
//! to, and that of the other waits, goes on to exactly there, and leads. One whose generation took its place at once tells the
//! difference when it has come there.

use std::time::{Duration, Instant};

use serviceradar_materializers::views::{Frontier, StopAsked, ViewsError};
use tokio::sync::watch;

use crate::{
    between::Between,
    chores::BEAT_EVERY,
    driver::{Driver, DriverError, RETRY, Running},
    epochs::Gathered,
    status::Phase,
    topics::Partition,
};

/// How often a writer that stopped looks whether it may go on.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long it waits for whoever asked: longer than that one waits for an answer, and for its own work after.
const STOPPED_MAX: Duration = Duration::from_secs(20);

/// What the drivers of a generation are told by whoever promotes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Goal {
    /// Follow the log.
    #[default]
    Follow,
    /// Commit what is under way, and wait.
    Hold,
    /// Take in exactly what is before these frontiers, and wait.
    Reach(Vec<Frontier>),
    /// Go on as the writer of the active generation, behind an epoch that was written by whoever promoted it; until
    /// somebody stands by, who takes over.
    Lead {
        /// That epoch.
        epoch: u64,
    },
}

impl Goal {
    /// Told to no one: follow the log.
    pub fn none() -> watch::Receiver<Self> {
        watch::channel(Goal::Follow).1
    }
}

/// Returns when the goal is another; never where nobody sets goals any more.
pub(crate) async fn is_another(goal: &mut watch::Receiver<Goal>) {
    if goal.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
}

impl Running {
    /// What was read ahead goes back: it may be more than is wanted. Returns how far each log partition was taken.
    fn give_back(&mut self) -> Vec<Frontier> {
        std::mem::take(&mut self.lanes).into_values().map(|lane| lane.frontier().clone()).collect()
    }
}

impl Driver {
    /// Whether it is told to wait, or to go on from where it waits.
    pub(crate) fn is_told_to_hold(&self) -> bool {
        matches!(*self.config.goal.borrow(), Goal::Hold | Goal::Reach(_))
    }

    /// Does as it is told, with nothing under way, until it follows or leads again.
    pub(crate) async fn hold(&mut self, running: &mut Running) -> Result<(), DriverError> {
        self.finish(running).await?;
        let mut frontiers = running.give_back();
        loop {
            let goal = self.config.goal.borrow_and_update().clone();
            match goal {
                Goal::Hold => {}
                Goal::Reach(ends) => self.reach_exactly(running, &mut frontiers, &ends).await?,
                Goal::Follow => break,
                Goal::Lead { epoch } => {
                    (running.is_live, running.epoch, running.epoch_committed) = (true, epoch, epoch);
                    break;
                }
            }
            self.board.update(|status| status.phase = Phase::Holding);
            let mut stop = self.stop.clone();
            tokio::select! {
                () = is_another(&mut self.config.goal) => {}
                _ = stop.changed() => {}
                () = tokio::time::sleep(BEAT_EVERY) => {}
            }
            if self.is_stopped() {
                return Ok(());
            }
            self.keep(running.committer.writer()?.beat().await)?;
        }
        self.open_lanes(running, frontiers).await?;
        self.find_ends(running).await?;
        self.board.update(|status| {
            (status.phase, status.epoch, status.is_live) = (Phase::Running, running.epoch, running.is_live);
        });
        Ok(())
    }

    /// Takes in what is before these frontiers, and nothing else.
    async fn reach_exactly(
        &mut self,
        running: &mut Running,
        frontiers: &mut Vec<Frontier>,
        ends: &[Frontier],
    ) -> Result<(), DriverError> {
        let mut gathered = Gathered::default();
        for end in ends {
            let at = Frontier::of(frontiers, &end.topic, end.log_partition);
            let partition = Partition { topic: end.topic.clone(), log_partition: end.log_partition };
            let mut between = Between::new(&self.config, partition.clone(), at);
            while let Some(chunk) = between.next(&self.config, end.next_offset).await? {
                gathered.take(&partition, &mut between.frontier, chunk);
                if gathered.is_full() {
                    self.commit_gathered(running, std::mem::take(&mut gathered)).await?;
                }
            }
            frontiers.retain(|known| (&known.topic, known.log_partition) != (&end.topic, end.log_partition));
            frontiers.push(between.frontier);
        }
        if gathered.events > 0 {
            self.commit_gathered(running, gathered).await?;
        }
        Ok(())
    }

    async fn commit_gathered(
        &mut self,
        running: &mut Running,
        gathered: Gathered,
    ) -> Result<(), DriverError> {
        let commit = self.close(running, gathered).await?;
        running.committer.start(commit)?;
        self.finish(running).await
    }

    /// Looks whether the writer of the active generation is asked to stop.
    pub(crate) async fn look_for_stop(&self, running: &mut Running) -> Result<(), DriverError> {
        let asked = running.committer.writer()?.stop_asked().await;
        match asked {
            Ok(asked) => running.stop_asked = asked,
            Err(error) => self.keep(Err(error))?,
        }
        Ok(())
    }

    /// Ends in order where it leads for whoever stands by, and that one has followed it.
    pub(crate) async fn look_for_stand_by(&self, running: &mut Running) -> Result<(), DriverError> {
        let Goal::Lead { epoch } = *self.config.goal.borrow() else {
            return Ok(());
        };
        match running.committer.writer()?.followed_to().await {
            Ok(followed) => running.is_relieved = followed.is_some_and(|followed| followed >= epoch),
            Err(error) => self.keep(Err(error))?,
        }
        Ok(())
    }

    /// Tells the difference from the generation whose place this one took at once, when it has come to where that one stopped.
    pub(crate) async fn tell_difference(&mut self, running: &mut Running) -> Result<(), DriverError> {
        let has_passed = |end: &Frontier| {
            let partition = Partition { topic: end.topic.clone(), log_partition: end.log_partition };
            running.committed.get(&partition).copied().unwrap_or_default() >= end.next_offset
        };
        let is_there = running.untold.as_ref().is_some_and(|ends| ends.iter().all(has_passed));
        if !is_there || !running.indexes.are_there() {
            return Ok(());
        }
        self.finish(running).await?;
        let frontiers = running.give_back();
        let epoch = loop {
            let (writer, at) = (running.committer.writer()?, self.config.clock.now());
            match writer.tell_difference(running.epoch_published, at).await {
                Ok(epoch) => break epoch,
                // It may have been told although the answer was lost: nothing is committed before that is known.
                Err(ViewsError::Unavailable(why)) if !self.is_stopped() => {
                    self.board.database(Some(&why));
                    tokio::time::sleep(RETRY).await;
                }
                Err(error) => return Err(error.into()),
            }
        };
        self.board.database(None);
        (running.untold, running.is_live) = (None, true);
        (running.epoch, running.epoch_committed) = (epoch, epoch);
        self.board.update(|status| (status.epoch, status.is_live) = (epoch, true));
        self.open_lanes(running, frontiers).await?;
        self.find_ends(running).await
    }

    /// Stops where it is asked to, until it is no longer, or whoever asked was not heard of for too long. Where another
    /// generation took the place meanwhile, it is fenced.
    pub(crate) async fn stop_as_asked(&mut self, running: &mut Running) -> Result<(), DriverError> {
        let Some(StopAsked { wanted, .. }) = running.stop_asked.take() else {
            return Ok(());
        };
        self.finish(running).await?;
        let has_passed = |((topic, log_partition), offset): (&(String, u32), &u64)| {
            let partition = Partition { topic: topic.clone(), log_partition: *log_partition };
            running.committed.get(&partition).copied().unwrap_or_default() >= *offset
        };
        if !wanted.iter().all(has_passed) {
            return Ok(());
        }
        let stopped = running.committer.writer()?.stopped(running.epoch).await;
        if stopped.is_err() {
            return self.keep(stopped);
        }
        tracing::info!(
            epoch = running.epoch,
            "stopped, so that another generation can take the place of this one"
        );
        self.board.update(|status| status.phase = Phase::Holding);
        let since = Instant::now();
        while !self.is_stopped() {
            tokio::time::sleep(LOOK_EVERY).await;
            let writer = running.committer.writer()?;
            let over = match writer.stop_asked().await {
                Ok(Some(_)) if since.elapsed() >= STOPPED_MAX => {
                    tracing::warn!("whoever asked this writer to stop was not heard of any more: it goes on");
                    writer.go_on().await.map(|()| true)
                }
                Ok(Some(StopAsked { epoch: Some(_), .. })) => Ok(false),
                Ok(asked) => {
                    // Asked anew, or no more: unless another generation took the place.
                    running.stop_asked = asked;
                    writer.beat().await.map(|()| true)
                }
                Err(error) => Err(error),
            };
            match over {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => self.keep(Err(error))?,
            }
        }
        self.board.update(|status| status.phase = Phase::Running);
        Ok(())
    }
}
