//! A driver as whoever started it sees it: watched, waited for, and stopped.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serviceradar_log::{LogError, LogStore};
use tokio::{sync::watch, task::JoinHandle};

use crate::{
    driver::DriverError,
    status::{DriverStatus, Phase, Waiting},
    topics,
};

/// How often a caller that waits for something looks again.
const POLL: Duration = Duration::from_millis(20);

/// A running driver.
pub struct DriverHandle {
    pub(crate) status: watch::Receiver<DriverStatus>,
    pub(crate) stop: watch::Sender<bool>,
    pub(crate) task: JoinHandle<Result<(), DriverError>>,
    pub(crate) log: Arc<dyn LogStore>,
    pub(crate) tenant: String,
}

impl DriverHandle {
    /// What it is doing.
    pub fn status(&self) -> DriverStatus {
        self.status.borrow().clone()
    }

    /// A receiver of every change of the status.
    pub fn watch(&self) -> watch::Receiver<DriverStatus> {
        self.status.clone()
    }

    /// Whether it has ended by itself.
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }

    /// Waits until the views hold everything that the log holds, and no complete fetch waits for the
    /// guard; or until the driver ends.
    pub async fn caught_up(&self) -> Result<(), LogError> {
        while !self.is_finished() {
            if self.status().phase == Phase::Running && self.has_reached_the_ends().await? {
                break;
            }
            tokio::time::sleep(POLL).await;
        }
        Ok(())
    }

    /// Waits until the views hold, with all their indexes, what the log holds now, whatever comes meanwhile; or until the
    /// driver ends.
    pub async fn passed(&self) -> Result<(), LogError> {
        let ends = self.ends().await?;
        loop {
            let is_there = self.status().phase == Phase::Running && self.has_passed(&ends);
            if is_there || self.is_finished() {
                return Ok(());
            }
            tokio::time::sleep(POLL).await;
        }
    }

    async fn ends(&self) -> Result<BTreeMap<String, u64>, LogError> {
        let mut ends = BTreeMap::new();
        for partition in topics::read_by(&*self.log, &self.tenant).await? {
            let offsets = self.log.offsets(&partition.topic, partition.log_partition).await?;
            ends.insert(partition.to_string(), offsets.end);
        }
        Ok(ends)
    }

    fn has_passed(&self, ends: &BTreeMap<String, u64>) -> bool {
        let status = self.status();
        let reached =
            |name: &String| status.partitions.get(name).map_or(0, |partition| partition.next_offset);
        ends.iter().all(|(name, end)| reached(name) >= *end)
    }

    async fn has_reached_the_ends(&self) -> Result<bool, LogError> {
        let ends = self.ends().await?;
        let complete = |w: &Waiting| w.counted.is_some_and(|c| u64::try_from(c) == Ok(w.members));
        Ok(self.has_passed(&ends) && !self.status().undecided.iter().any(complete))
    }

    /// Finishes the epoch under way, leaves the tenant and ends.
    pub async fn stop(self) -> Result<(), DriverError> {
        self.stop.send_replace(true);
        self.task.await.map_err(|error| DriverError::Task(error.to_string()))?
    }
}
