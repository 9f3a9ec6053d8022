//! Decisions that the views have and the log lacks: what is left of them where no archive has them.

use std::{collections::BTreeSet, sync::Arc};

use serviceradar_log::LogStore;
use serviceradar_schemas::{
    Decision, Decoder,
    codec::{DecodeError, WriterSchemas},
    topics::Stream,
};

use super::RestoreError;
use crate::{archive::ArchiveError, reader::schemas_of, scan::Scan};

/// Of decisions as the views have them, those whose ids no event of the tenant's topic has, in their order.
///
/// # Errors
/// The topic cannot be read to its end.
pub async fn missing_decisions(
    log: &dyn LogStore,
    writers: &Arc<dyn WriterSchemas>,
    tenant: &str,
    decisions: Vec<Decision>,
) -> Result<Vec<Decision>, RestoreError> {
    let mut decoder = Decoder::<Decision>::with_writers(writers.clone());
    let mut ids = BTreeSet::new();
    let mut scan = Scan::begin(log, &Stream::Decisions.topic(tenant)).await?;
    while let Some((_, read)) = scan.next(log).await? {
        writers.learn(&schemas_of(&read)).await.map_err(ArchiveError::from)?;
        for event in read.events {
            match decoder.decode(event.value.as_deref().unwrap_or_default()) {
                Ok(decision) => {
                    ids.insert(decision.id);
                }
                Err(DecodeError::Unavailable(why)) => return Err(ArchiveError::from(why).into()),
                // It is no decision.
                Err(_) => {}
            }
        }
    }
    Ok(decisions.into_iter().filter(|decision| !ids.contains(&decision.id)).collect())
}
