//! Decisions that the views have and the log lacks: what is left of them where no archive has them.

use std::{collections::BTreeSet, sync::Arc};

use serviceradar_log::{LogError, LogStore, ReadLimit};
use serviceradar_schemas::{
    Decision, Decoder,
    codec::{DecodeError, WriterSchemas},
    topics::Stream,
};

use super::RestoreError;
use crate::{
    archive::ArchiveError,
    reader::{READ_BYTES, READ_EVENTS, READ_WAIT, schemas_of},
    topics::Partition,
};

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
    let topic = Stream::Decisions.topic(tenant);
    let mut ids = BTreeSet::new();
    for log_partition in 0..log.describe_topic(&topic).await?.log_partitions {
        let partition = Partition { topic: topic.clone(), log_partition };
        read_ids(log, writers, &partition, &mut ids).await?;
    }
    Ok(decisions.into_iter().filter(|decision| !ids.contains(&decision.id)).collect())
}

/// The ids of the decisions that a log partition has.
async fn read_ids(
    log: &dyn LogStore,
    writers: &Arc<dyn WriterSchemas>,
    partition: &Partition,
    ids: &mut BTreeSet<String>,
) -> Result<(), RestoreError> {
    let mut decoder = Decoder::<Decision>::with_writers(writers.clone());
    let offsets = log.offsets(&partition.topic, partition.log_partition).await?;
    let mut next = offsets.start;
    while next < offsets.end {
        let limit = ReadLimit { events: READ_EVENTS, bytes: READ_BYTES, wait: READ_WAIT };
        let read = log.read(&partition.topic, partition.log_partition, next, limit).await?;
        if read.next_offset == next {
            return Err(LogError::Unavailable(format!("{partition} has nothing at {next}")).into());
        }
        next = read.next_offset;
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
    Ok(())
}
