//! Removal: a tenant's topics go, and all rows of it, journals too. What operators did to it stays.

use std::sync::Arc;

use serviceradar_log::{LogError, LogStore};
use serviceradar_materializers::{PostgresViews, views::ViewsError};
use serviceradar_schemas::{Operation, operation::Phase, time::Clock};

use crate::operations::{self, Operations, OperationsError};

/// The action of a removal.
const REMOVE: &str = "remove_tenant";

/// Why a tenant was not removed. The same call goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    /// The views refused.
    #[error(transparent)]
    Views(#[from] ViewsError),
    /// The log refused.
    #[error(transparent)]
    Log(#[from] LogError),
    /// What operators did to the log is not known.
    #[error(transparent)]
    Operations(#[from] OperationsError),
    /// Nobody knows it.
    #[error("there is no tenant {0}: it has no topic and no row (`serviceradar tenants list` has all)")]
    Unknown(String),
    /// It would come back at once.
    #[error(
        "tenant {tenant} is written in generation {generation}: stop its pipeline and its producers first, which would bring it back"
    )]
    Written {
        /// Whose.
        tenant: String,
        /// The generation.
        generation: i32,
    },
}

/// What there is of a tenant, and goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holding {
    /// Its topics, in order.
    pub topics: Vec<String>,
    /// Events in them, as far as every offset holds one.
    pub events: u64,
    /// Whether there are views of it.
    pub has_views: bool,
}

/// Looks what there is of a tenant.
pub async fn look(log: &dyn LogStore, views: &PostgresViews, tenant: &str) -> Result<Holding, RemoveError> {
    let mut holding = Holding::default();
    for topic in log.topics(Some(tenant)).await? {
        for log_partition in 0..topic.log_partitions {
            let offsets = log.offsets(&topic.name, log_partition).await?;
            holding.events += offsets.end.saturating_sub(offsets.start);
        }
        holding.topics.push(topic.name);
    }
    holding.has_views = views.tenants().await?.iter().any(|known| known == tenant);
    Ok(holding)
}

/// Removes a tenant that nobody writes, or goes on with that; returns how many rows went. `intent` says who does it; `told`
/// hears how many topics are gone, of how many.
pub async fn remove(
    log: &Arc<dyn LogStore>,
    views: &PostgresViews,
    tenant: &str,
    intent: Operation,
    clock: &dyn Clock,
    mut told: impl FnMut(u64, u64),
) -> Result<u64, RemoveError> {
    let operations = Operations::read(&**log).await?;
    let is_this = |of: &&Operation| of.action == REMOVE && of.tenant.as_deref() == Some(tenant);
    let interrupted = operations.unfinished().find(is_this).cloned();
    let holding = look(&**log, views, tenant).await?;
    if interrupted.is_none() && holding.topics.is_empty() && !holding.has_views {
        return Err(RemoveError::Unknown(tenant.to_owned()));
    }
    check_unwritten(views, tenant).await?;
    let intent = match interrupted {
        Some(interrupted) => interrupted,
        None => {
            let (action, tenant) = (REMOVE.to_owned(), Some(tenant.to_owned()));
            let intent = Operation { phase: Phase::Intent, action, tenant, ..intent };
            operations::write(log, &intent).await?;
            intent
        }
    };
    for (gone, topic) in holding.topics.iter().enumerate() {
        told(gone as u64, holding.topics.len() as u64);
        log.delete_topic(topic).await?;
    }
    let rows = views.remove_tenant(tenant).await?;
    // What else was begun with it, nobody can go on with.
    let is_of = |of: &&Operation| of.tenant.as_deref() == Some(tenant) && of.id != intent.id;
    for begun in operations.unfinished().filter(is_of) {
        let reason = format!("{}, not done: the tenant was removed", begun.reason);
        let over = Operation { phase: Phase::Done, event_time: clock.now(), reason, ..begun.clone() };
        operations::write(log, &over).await?;
    }
    operations::write(log, &Operation { phase: Phase::Done, event_time: clock.now(), ..intent }).await?;
    Ok(rows)
}

/// Refuses where somebody writes it.
async fn check_unwritten(views: &PostgresViews, tenant: &str) -> Result<(), RemoveError> {
    for generation in views.generations().await?.iter().filter(|of| of.state != "retired") {
        if views.is_written(generation.id, tenant).await? {
            let (tenant, generation) = (tenant.to_owned(), generation.id);
            return Err(RemoveError::Written { tenant, generation });
        }
    }
    Ok(())
}

impl RemoveError {
    /// Whether the same call may succeed later.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Views(error) => error.is_unavailable(),
            Self::Log(error) => error.is_unavailable(),
            Self::Operations(error) => error.is_unavailable(),
            _ => false,
        }
    }
}
