//! Republish: all of a tenant's device changes again, for consumers that lost theirs, or never had them.

use std::{collections::BTreeSet, sync::Arc};

use serviceradar_log::{Event, LogError, LogStore};
use serviceradar_materializers::{PostgresViews, postgres::Republished, views::ViewsError};
use serviceradar_schemas::{Operation, operation::Phase, time::Clock, topics::Stream};
use serviceradar_streams::rows::Uid;

use crate::{operations, scan::Scan};

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
        match self {
            Self::Views(error) => error.is_unavailable(),
            Self::Log(error) => error.is_unavailable(),
        }
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
    let mut scan = Scan::begin(log, &Stream::DeviceChanges.topic(tenant)).await?;
    scan.may_end_in_marks = true;
    let (mut known, total) = (BTreeSet::new(), scan.left());
    while let Some((_, read)) = scan.next(log).await? {
        for (uid, is_there) in read.events.iter().filter_map(device_of) {
            match is_there {
                true => known.insert(uid),
                false => known.remove(&uid),
            };
        }
        told(total - scan.left(), total);
    }
    Ok(known.into_iter().collect())
}

/// The device that a change is of, and whether it is there after it. What is no device's is not ours.
fn device_of(event: &Event) -> Option<(Uid, bool)> {
    let uid = std::str::from_utf8(event.key.as_deref()?).ok()?.parse().ok()?;
    Some((uid, event.value.is_some()))
}
