//! Who waits for the end of which log partition to move.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use tokio::sync::watch;

use super::tables::LogPartitionId;

/// The ends that someone has waited for.
#[derive(Default)]
pub(super) struct Ends(Mutex<BTreeMap<LogPartitionId, watch::Sender<u64>>>);

impl Ends {
    /// Tells of every move after this call.
    pub(super) fn subscribe(&self, id: LogPartitionId) -> watch::Receiver<u64> {
        let mut ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ends.entry(id).or_default().subscribe()
    }

    /// Wakes whoever waits for these; with `None`, for the last time.
    pub(super) fn advance(&self, moved: Vec<(LogPartitionId, Option<u64>)>) {
        let mut ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, end) in moved {
            match end {
                Some(end) => drop(ends.get(&id).map(|sender| sender.send_replace(end))),
                None => drop(ends.remove(&id)),
            }
        }
    }
}
