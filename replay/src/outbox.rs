//! The outbox: what an epoch has to publish goes out after its commit, in order, at least once.

use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use fail::fail_point;
use serviceradar_log::{LogError, LogStore, NewEvent, Publisher};
use serviceradar_materializers::{
    outbox::headers,
    views::{TenantWriter, ViewsError},
};
use serviceradar_schemas::{Framing, codec::reframe, encode_framed, topics::Stream};
use serviceradar_streams::rows::{DeviceRow, Uid};

/// Entries published at a time.
const ENTRIES: usize = 5_000;

/// Publishes a tenant's outbox.
pub struct Outbox {
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
pub enum OutboxError {
    /// The log refused.
    #[error("the outbox cannot be published: {0}")]
    Log(#[from] LogError),
    /// The views refused.
    #[error(transparent)]
    Views(#[from] ViewsError),
}

impl Outbox {
    /// For a tenant.
    pub fn new(log: Arc<dyn LogStore>, tenant: &str, framing: Framing, generation: i32) -> Self {
        let (tenant, publishers) = (tenant.to_owned(), BTreeMap::new());
        Self { log, tenant, framing, publishers, generation, reached: None, is_claimed: false }
    }

    /// Publishes the oldest entries. Returns whether there may be more.
    pub async fn publish(&mut self, writer: &mut dyn TenantWriter) -> Result<bool, OutboxError> {
        let published = self.publish_oldest(writer).await;
        // Whether the tenant is another's, too, the next claim tells.
        self.is_claimed &= !matches!(published, Err(OutboxError::Log(LogError::Fenced(_))));
        published
    }

    /// Claims the device changes. A process that was stopped before the claim and goes on after another's ends the
    /// other's: so it publishes nothing before it has passed the fence, and the other one claims again.
    async fn claim(&mut self, writer: &mut dyn TenantWriter) -> Result<(), OutboxError> {
        if !self.is_claimed {
            self.log.claim(&Stream::DeviceChanges.topic(&self.tenant)).await?;
            writer.beat().await?;
            self.is_claimed = true;
        }
        Ok(())
    }

    async fn publish_oldest(&mut self, writer: &mut dyn TenantWriter) -> Result<bool, OutboxError> {
        let entries = writer.outbox(ENTRIES).await?;
        if !entries.is_empty() {
            self.claim(writer).await?;
        }
        if let Some(all) = entries.first().filter(|entry| entry.is_all_devices()) {
            return self.publish_all(writer, (all.epoch, all.sequence)).await;
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
        writer.outbox_published(epoch, sequence).await?;
        Ok(true)
    }

    fn publisher(&mut self, stream: &str) -> &Publisher {
        let (log, topic) = (self.log.clone(), format!("{}.{stream}", self.tenant));
        self.publishers.entry(stream.to_owned()).or_insert_with(|| Publisher::new(log, topic))
    }

    /// Publishes the next of all devices; after the last of them the entry is done. A restart begins anew.
    async fn publish_all(
        &mut self,
        writer: &mut dyn TenantWriter,
        (epoch, sequence): (u64, i64),
    ) -> Result<bool, OutboxError> {
        let devices = writer.devices(self.reached, ENTRIES).await?;
        let Some((last, _)) = devices.last() else {
            self.reached = None;
            writer.outbox_published(epoch, sequence).await?;
            return Ok(true);
        };
        let reached = last.uid.strip_prefix("sr:").and_then(|uuid| uuid.parse().ok()).map(Uid);
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
