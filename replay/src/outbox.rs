//! The outbox: what an epoch has to publish goes out after its commit, in order, at least once, while the next commits.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use fail::fail_point;
use futures_util::future::try_join_all;
use serviceradar_log::{Event, LogError, LogStore, NewEvent, Publisher};
use serviceradar_materializers::{
    outbox::{EPOCH_HEADER, headers},
    views::{TenantOutbox, ViewsError},
};
use serviceradar_schemas::{Framing, codec::reframe, encode_framed, topics::Stream};
use serviceradar_streams::rows::{DeviceRow, Uid};
use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};

use crate::{
    driver::{DriverError, RETRY},
    status::StatusBoard,
};

/// Entries published at a time at most, and bytes of their values.
const ENTRIES: usize = 5_000;
const BYTES: u64 = 8 * 1024 * 1024;
/// Devices published at a time, where all of them are: a device has some 800 kB at most.
const DEVICES: usize = 500;

/// The greatest epoch that the last device changes of the log partitions tell; 0 where there are none. Views that were
/// restored from a backup know of fewer, and must go on above: whoever reads device changes takes no lower epoch.
pub(crate) async fn last_epoch(log: &dyn LogStore, tenant: &str) -> Result<u64, LogError> {
    let topic = Stream::DeviceChanges.topic(tenant);
    let log_partitions = 0..log.describe_topic(&topic).await?.log_partitions;
    let last = try_join_all(log_partitions.map(|at| log.last_event(&topic, at))).await?;
    Ok(last.into_iter().flatten().filter_map(|event| epoch_of(&event)).max().unwrap_or_default())
}

fn epoch_of(event: &Event) -> Option<u64> {
    let (_, epoch) = event.headers.iter().find(|(name, _)| name == EPOCH_HEADER)?;
    std::str::from_utf8(epoch).ok()?.parse().ok()
}

/// A task that empties an outbox.
pub(crate) struct Publishing {
    /// The last epoch that was committed: told to the task.
    committed: watch::Sender<u64>,
    task: JoinHandle<Result<(), ViewsError>>,
}

impl Publishing {
    /// Starts it, for an outbox filled by epochs up to `committed`. `ended` is told when it ends by itself.
    pub(crate) fn start(outbox: Outbox, committed: u64, board: StatusBoard, ended: Arc<Notify>) -> Self {
        let (committed, commits) = watch::channel(committed);
        let task = tokio::spawn(async move {
            let result = run(outbox, commits, &board).await;
            ended.notify_one();
            result
        });
        Self { committed, task }
    }

    /// Says that an epoch was committed.
    pub(crate) fn committed(&self, epoch: u64) {
        self.committed.send_replace(epoch);
    }

    /// Whether it has ended by itself: `stop` says why.
    pub(crate) fn has_ended(&self) -> bool {
        self.task.is_finished()
    }

    /// Lets it finish what is on its way to the log. What remains goes out with the next start.
    pub(crate) async fn stop(self) -> Result<(), DriverError> {
        drop(self.committed);
        Ok(self.task.await.map_err(|error| DriverError::Task(error.to_string()))??)
    }
}

/// Publishes what each commit left, until nobody commits any more. What the log or the database does not take now goes out later.
async fn run(
    mut outbox: Outbox,
    mut commits: watch::Receiver<u64>,
    board: &StatusBoard,
) -> Result<(), ViewsError> {
    loop {
        let upto = *commits.borrow_and_update();
        loop {
            if commits.has_changed().is_err() {
                return Ok(());
            }
            match outbox.publish().await {
                Ok(true) => continue,
                Ok(false) => break,
                Err(OutboxError::Log(error)) => tracing::warn!(%error, "the outbox waits"),
                Err(OutboxError::Views(ViewsError::Unavailable(why))) => {
                    tracing::warn!(why, "the outbox waits for the database");
                }
                Err(OutboxError::Views(error)) => return Err(error),
            }
            tokio::time::sleep(RETRY).await;
        }
        board.update(|status| status.published = upto);
        if commits.changed().await.is_err() {
            return Ok(());
        }
    }
}

/// Publishes a tenant's outbox.
pub(crate) struct Outbox {
    entries: Box<dyn TenantOutbox>,
    log: Arc<dyn LogStore>,
    tenant: String,
    /// Of device changes.
    framing: Framing,
    publishers: BTreeMap<String, Publisher>,
    generation: i32,
    /// Of all devices, the last that was published.
    reached: Option<Uid>,
    /// Whether the device changes are ours alone to publish.
    is_claimed: bool,
}

/// Why the outbox could not be published. It stays as it is, and goes out later.
#[derive(Debug, thiserror::Error)]
enum OutboxError {
    /// The log refused.
    #[error("the outbox cannot be published: {0}")]
    Log(#[from] LogError),
    /// The views refused.
    #[error(transparent)]
    Views(#[from] ViewsError),
}

impl Outbox {
    /// For a tenant.
    pub(crate) fn new(
        entries: Box<dyn TenantOutbox>,
        log: Arc<dyn LogStore>,
        tenant: &str,
        framing: Framing,
        generation: i32,
    ) -> Self {
        let (tenant, publishers) = (tenant.to_owned(), BTreeMap::new());
        Self { entries, log, tenant, framing, publishers, generation, reached: None, is_claimed: false }
    }

    /// Publishes the oldest entries. Returns whether there may be more.
    async fn publish(&mut self) -> Result<bool, OutboxError> {
        let published = self.publish_oldest().await;
        // Whether the tenant is another's, too, the next claim tells.
        self.is_claimed &= !matches!(published, Err(OutboxError::Log(LogError::Fenced(_))));
        published
    }

    /// Claims the device changes. A process that was stopped before the claim and goes on after another's ends the
    /// other's: so it publishes nothing before it has asked whether the tenant is still its own, and the other one
    /// claims again.
    async fn claim(&mut self) -> Result<(), OutboxError> {
        if !self.is_claimed {
            self.log.claim(&Stream::DeviceChanges.topic(&self.tenant)).await?;
            self.entries.check().await?;
            self.is_claimed = true;
        }
        Ok(())
    }

    async fn publish_oldest(&mut self) -> Result<bool, OutboxError> {
        let entries = self.entries.oldest(ENTRIES, BYTES).await?;
        if !entries.is_empty() {
            self.claim().await?;
        }
        if let Some(all) = entries.first().filter(|entry| entry.is_all_devices()) {
            return self.publish_all((all.epoch, all.sequence)).await;
        }
        // What stands for all devices is published by itself.
        let entries: Vec<_> = entries.into_iter().take_while(|entry| !entry.is_all_devices()).collect();
        let Some(last) = entries.last() else {
            return Ok(false);
        };
        let (epoch, sequence) = (last.epoch, last.sequence);
        let mut by_stream: BTreeMap<String, Vec<NewEvent>> = BTreeMap::new();
        for entry in entries {
            let value = entry.value.map(|value| match entry.stream == Stream::DeviceChanges.name() {
                true => reframe::<DeviceRow>(&value, self.framing).map_or(value, Bytes::from),
                // The bytes of a dead letter stay as they came.
                false => value,
            });
            let event = NewEvent { key: entry.key, value, headers: entry.headers };
            by_stream.entry(entry.stream).or_default().push(event);
        }
        for (stream, events) in by_stream {
            self.publisher(&stream).publish(events).await?;
        }
        fail_point!("in-outbox");
        self.entries.published(epoch, sequence).await?;
        Ok(true)
    }

    fn publisher(&mut self, stream: &str) -> &Publisher {
        let (log, topic) = (self.log.clone(), format!("{}.{stream}", self.tenant));
        self.publishers.entry(stream.to_owned()).or_insert_with(|| Publisher::new(log, topic))
    }

    /// Publishes the next of all devices; after the last of them the entry is done. A restart begins anew.
    async fn publish_all(&mut self, (epoch, sequence): (u64, i64)) -> Result<bool, OutboxError> {
        let devices = self.entries.devices(self.reached, DEVICES).await?;
        let Some((last, _)) = devices.last() else {
            self.reached = None;
            self.entries.published(epoch, sequence).await?;
            return Ok(true);
        };
        let reached = last.uid.parse().ok();
        let (generation, framing) = (self.generation, self.framing);
        let event = |(device, epoch): &(DeviceRow, u64)| NewEvent {
            key: Some(device.uid.clone().into_bytes().into()),
            value: Some(encode_framed(device, framing).into()),
            headers: headers(generation, *epoch),
        };
        let events = devices.iter().map(event).collect();
        self.publisher(Stream::DeviceChanges.name()).publish(events).await?;
        self.reached = reached;
        Ok(true)
    }
}
