//! Commits: one epoch is written while the next is gathered and computed. More than one never waits, so
//! that a slow database costs latency and no memory.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serviceradar_materializers::views::{Epoch, TenantWriter, ViewsError};
use serviceradar_streams::engine::Closed;
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};

use crate::{driver::DriverError, status::StatusBoard};

/// How long a failed commit waits before it is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Share of a commit after which the next epoch is computed, so that it is ready when the commit ends.
const NEARLY_DONE: f64 = 0.75;

/// An epoch and what the driver wants back once it is committed.
pub(crate) struct Commit {
    /// What is written.
    pub(crate) epoch: Epoch,
    /// What the dataflow said besides rows.
    pub(crate) closed: Closed,
    /// When it was closed.
    pub(crate) started: Instant,
    /// How long the dataflow took.
    pub(crate) computed: Duration,
}

type Ended = (Box<dyn TenantWriter>, Result<Box<Commit>, ViewsError>);

/// The writer: at hand, or away with an epoch.
pub(crate) struct Committer {
    here: Option<Box<dyn TenantWriter>>,
    away: Option<JoinHandle<(Ended, Duration)>>,
    /// When it went, and how long it was away the last time.
    went: Instant,
    took: Duration,
    /// Told when a commit has ended.
    came: Arc<Notify>,
    board: StatusBoard,
    stop: watch::Receiver<bool>,
}

impl Committer {
    /// With a writer at hand.
    pub(crate) fn new(
        writer: Box<dyn TenantWriter>,
        came: Arc<Notify>,
        board: StatusBoard,
        stop: watch::Receiver<bool>,
    ) -> Self {
        Self { here: Some(writer), away: None, went: Instant::now(), took: Duration::ZERO, came, board, stop }
    }

    /// Whether an epoch is being committed at this moment.
    pub(crate) fn is_busy(&self) -> bool {
        self.away.as_ref().is_some_and(|away| !away.is_finished())
    }

    /// How long the commit under way will probably take before it is nearly done: as long as the last did.
    pub(crate) fn nearly_done_in(&self) -> Duration {
        self.took.mul_f64(NEARLY_DONE).saturating_sub(self.went.elapsed())
    }

    /// Whether a commit has ended that nobody has asked about.
    pub(crate) fn has_ended(&self) -> bool {
        self.away.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// The writer, while it is at hand.
    pub(crate) fn writer(&mut self) -> Result<&mut (dyn TenantWriter + 'static), DriverError> {
        self.here.as_deref_mut().ok_or_else(|| DriverError::Task("the writer is away".to_owned()))
    }

    /// Sends the writer away with an epoch. The one before must have been finished.
    pub(crate) fn start(&mut self, commit: Box<Commit>) -> Result<(), DriverError> {
        let writer = self.here.take().ok_or_else(|| DriverError::Task("the writer is away".to_owned()))?;
        let (came, board, stop) = (self.came.clone(), self.board.clone(), self.stop.clone());
        let went = Instant::now();
        self.went = went;
        self.away = Some(tokio::spawn(async move {
            let ended = run(writer, commit, &board, stop).await;
            came.notify_one();
            (ended, went.elapsed())
        }));
        Ok(())
    }

    /// Waits for the commit under way. None: there was none.
    pub(crate) async fn finish(&mut self) -> Result<Option<Box<Commit>>, DriverError> {
        let Some(away) = self.away.take() else {
            return Ok(None);
        };
        let ended = away.await.map_err(|error| DriverError::Task(error.to_string()))?;
        let ((writer, result), took) = ended;
        (self.here, self.took) = (Some(writer), took);
        Ok(Some(result?))
    }
}

/// Commits, and again while the database cannot be reached, until told to stop.
async fn run(
    mut writer: Box<dyn TenantWriter>,
    commit: Box<Commit>,
    board: &StatusBoard,
    mut stop: watch::Receiver<bool>,
) -> Ended {
    loop {
        match writer.commit(&commit.epoch).await {
            Ok(()) => {
                board.database(None);
                return (writer, Ok(commit));
            }
            Err(ViewsError::Unavailable(why)) if !*stop.borrow() => {
                board.database(Some(&why));
                tokio::select! {
                    _ = tokio::time::sleep(RETRY) => {}
                    _ = stop.changed() => {}
                }
            }
            Err(error) => return (writer, Err(error)),
        }
    }
}
