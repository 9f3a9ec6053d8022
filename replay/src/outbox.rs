//! The outbox: what an epoch has to publish goes out after its commit, in order, at least once.

use std::{collections::BTreeMap, sync::Arc};

use serviceradar_log::{LogError, LogStore, NewEvent, Publisher};
use serviceradar_materializers::views::{TenantWriter, ViewsError};

/// Entries published at a time.
const ENTRIES: usize = 5_000;

/// Publishes a tenant's outbox.
pub struct Outbox {
    log: Arc<dyn LogStore>,
    tenant: String,
    publishers: BTreeMap<String, Publisher>,
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
    pub fn new(log: Arc<dyn LogStore>, tenant: &str) -> Self {
        Self { log, tenant: tenant.to_owned(), publishers: BTreeMap::new() }
    }

    /// Publishes the oldest entries. Returns whether there may be more.
    pub async fn publish(&mut self, writer: &mut dyn TenantWriter) -> Result<bool, OutboxError> {
        let entries = writer.outbox(ENTRIES).await?;
        let Some(last) = entries.last() else {
            return Ok(false);
        };
        let (epoch, sequence, full) = (last.epoch, last.sequence, entries.len() == ENTRIES);
        let mut by_stream: BTreeMap<String, Vec<NewEvent>> = BTreeMap::new();
        for entry in entries {
            let event = NewEvent { key: entry.key, value: entry.value, headers: entry.headers };
            by_stream.entry(entry.stream).or_default().push(event);
        }
        for (stream, events) in by_stream {
            let topic = format!("{}.{stream}", self.tenant);
            let publisher =
                self.publishers.entry(stream).or_insert_with(|| Publisher::new(self.log.clone(), topic));
            publisher.publish(events).await?;
        }
        writer.outbox_published(epoch, sequence).await?;
        Ok(full)
    }
}
