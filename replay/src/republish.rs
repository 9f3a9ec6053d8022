//! Republish: all of a tenant's device changes again, for consumers that lost theirs, or never had them.

use std::{collections::BTreeSet, sync::Arc};

use serviceradar_log::{Event, LogError, LogStore, ReadLimit};
use serviceradar_materializers::{PostgresViews, postgres::Republished, views::ViewsError};
use serviceradar_schemas::{Operation, operation::Phase, time::Clock, topics::Stream};
use serviceradar_streams::rows::Uid;

use crate::{
    operations,
    reader::{READ_BYTES, READ_EVENTS, READ_WAIT},
};

/// Why device changes are not published again.
#[derive(Debug, thiserror::Error)]
pub enum RepublishError {
    /// The views refused.
    #[error(transparent)]
    Views(#[from] ViewsError),
    /// The log refused.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl RepublishError {
    /// Whether the same call may succeed later.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, Self::Views(ViewsError::Unavailable(_)) | Self::Log(LogError::Unavailable(_)))
    }
}

/// Has the pipeline publish every device again, and a tombstone for each of which the topic has a row and the views none. With no
/// `intent` it is only counted. `told` hears how many events were looked at, of how many.
pub async fn republish(
    log: &Arc<dyn LogStore>,
    views: &PostgresViews,
    tenant: &str,
    intent: Option<Operation>,
    clock: &dyn Clock,
    told: impl FnMut(u64, u64),
) -> Result<Republished, RepublishError> {
    let known = known(&**log, tenant, told).await?;
    let Some(intent) = intent else {
        return Ok(views.republish(tenant, &known, true).await?);
    };
    operations::write(log, &intent).await?;
    let republished = views.republish(tenant, &known, false).await?;
    operations::write(log, &Operation { phase: Phase::Done, event_time: clock.now(), ..intent }).await?;
    Ok(republished)
}

/// The devices that the topic has a row of, in order.
async fn known(
    log: &dyn LogStore,
    tenant: &str,
    mut told: impl FnMut(u64, u64),
) -> Result<Vec<Uid>, LogError> {
    let topic = Stream::DeviceChanges.topic(tenant);
    let log_partitions = log.describe_topic(&topic).await?.log_partitions;
    let mut left = Vec::new();
    for log_partition in 0..log_partitions {
        left.push((log_partition, log.offsets(&topic, log_partition).await?));
    }
    let total = left.iter().map(|(_, offsets)| offsets.end.saturating_sub(offsets.start)).sum();
    let (mut known, mut looked) = (BTreeSet::new(), 0);
    for (log_partition, offsets) in left {
        let mut next = offsets.start;
        while next < offsets.end {
            let limit = ReadLimit { events: READ_EVENTS, bytes: READ_BYTES, wait: READ_WAIT };
            let read = log.read(&topic, log_partition, next, limit).await?;
            if read.next_offset == next {
                // The rest holds nothing that can be read: marks of transactions.
                break;
            }
            looked += read.next_offset - next;
            next = read.next_offset;
            for (uid, is_there) in read.events.iter().filter_map(device_of) {
                match is_there {
                    true => known.insert(uid),
                    false => known.remove(&uid),
                };
            }
            told(looked.min(total), total);
        }
    }
    Ok(known.into_iter().collect())
}

/// The device that a change is of, and whether it is there after it. What is no device's is not ours.
fn device_of(event: &Event) -> Option<(Uid, bool)> {
    let uid = std::str::from_utf8(event.key.as_deref()?).ok()?.parse().ok()?;
    Some((uid, event.value.is_some()))
}
