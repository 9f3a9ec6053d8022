//! Truncate: the log of a tenant is emptied up to a place, and its views are; what cannot be crawled again is published
//! again behind that place, and devices keep their uids by pins.
//!
//! In this order, each step such that it may be done once more: the intent with its offsets, the pins, what is kept (and a
//! `restore` operation with the offsets where it stands now, which says that both are there), the views in one transaction,
//! the log, the end. Whatever stands behind the offsets when they are emptied is there as it came: nobody who publishes or
//! reads need stop.

mod copies;
mod plan;

use std::{collections::BTreeSet, sync::Arc};

use serviceradar_log::{LogError, LogStore, NewEvent, Publisher};
use serviceradar_materializers::{
    PostgresViews,
    postgres::Truncation as OfViews,
    views::{Frontier, ViewsError},
};
use serviceradar_schemas::{
    Decision, Framing, OffsetRange, Operation, Source, codec::WriterSchemas, encode_framed, operation::Phase,
    time::Clock, topics::Stream,
};
use serviceradar_streams::engine::EngineError;

pub use plan::{Fate, OfSource, Pin, Plan};

use crate::{
    archive::{
        ArchiveError,
        manifest::{Manifest, hash},
    },
    operations::{self, Operations, OperationsError, RESTORE, TRUNCATE},
    outbox,
    recompute::RecomputeError,
    topics::Partition,
};

/// Why a tenant was not truncated. The same call goes on from there.
#[derive(Debug, thiserror::Error)]
pub enum TruncateError {
    /// The views refused.
    #[error(transparent)]
    Views(#[from] ViewsError),
    /// The log refused.
    #[error(transparent)]
    Log(#[from] LogError),
    /// What operators did to the log is not known.
    #[error(transparent)]
    Operations(#[from] OperationsError),
    /// The log could not be read anew.
    #[error(transparent)]
    Recompute(#[from] RecomputeError),
    /// The archive that was made is not as it must be.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// Nothing would go.
    #[error(
        "nothing can be truncated: of the sources of tenant {tenant}, {known}, this configuration crawls none (it crawls {crawled}), and all others are kept; configure the source (`armis.url`, `armis.instance`), or give up one with --lose"
    )]
    NothingGoes {
        /// Whose.
        tenant: String,
        /// Those there are.
        known: String,
        /// Those that the configuration has.
        crawled: String,
    },
    /// Nobody knows such a source.
    #[error("tenant {tenant} has no source {source_name}: it has {known}")]
    NoSource {
        /// Whose.
        tenant: String,
        /// As it was given.
        source_name: String,
        /// Those there are.
        known: String,
    },
    /// One that was interrupted is to be finished first.
    #[error(
        "a truncation of tenant {tenant} was interrupted, and must be finished first: give the same command again ({interrupted}), and not one with other sources ({wanted})"
    )]
    Other {
        /// Whose.
        tenant: String,
        /// What that one does.
        interrupted: String,
        /// What was asked for.
        wanted: String,
    },
}

impl TruncateError {
    /// Whether the same call may succeed later.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Recompute(error) => error.is_unavailable(),
            Self::Archive(error) => error.is_unavailable(),
            Self::Views(error) => error.is_unavailable(),
            Self::Log(error) => error.is_unavailable(),
            Self::Operations(error) => error.is_unavailable(),
            _ => false,
        }
    }
}

impl From<EngineError> for TruncateError {
    fn from(error: EngineError) -> Self {
        RecomputeError::from(error).into()
    }
}

/// Whose log and views are emptied, and what goes.
pub struct Truncate {
    /// Whose.
    pub tenant: String,
    /// Workers of the dataflow.
    pub workers: usize,
    /// The log.
    pub log: Arc<dyn LogStore>,
    /// Who knows the schemas that events were written by.
    pub writers: Arc<dyn WriterSchemas>,
    /// How decisions are framed.
    pub framing: Framing,
    /// The views.
    pub views: Arc<PostgresViews>,
    /// The machine's clock.
    pub clock: Arc<dyn Clock>,
    /// Sources that are crawled again afterwards, each in its partition.
    pub crawled: BTreeSet<(String, Source)>,
    /// Sources that are given up, in all partitions.
    pub lost: BTreeSet<Source>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Truncated {
    /// The epoch that tells it.
    pub epoch: u64,
    /// Events that are gone from the log, as far as every offset held one.
    pub events: u64,
    /// Of them, events that were published again.
    pub kept: u64,
    /// Pins that were published.
    pub pins: u64,
}

impl Truncate {
    /// What goes, in words: the reason of the operation, by which one that was interrupted is known again.
    pub fn what_goes(&self) -> String {
        format!("crawled again: {}; lost: {}", self.what_is_crawled(), list(&self.lost))
    }

    fn what_is_crawled(&self) -> String {
        list(self.crawled.iter().map(|(partition, source)| format!("{partition}/{source}")))
    }

    /// Empties log and views, or goes on with that. `archived` is the archive that was made before: no event goes that it
    /// lacks. `intent` says who does it; `told` hears how many events were looked at, of how many.
    pub async fn run(
        &self,
        plan: Plan,
        archived: Option<&Manifest>,
        intent: Operation,
        mut told: impl FnMut(u64, u64),
    ) -> Result<Truncated, TruncateError> {
        let log = &self.log;
        let intent = match &plan.interrupted {
            Some(interrupted) => interrupted.clone(),
            None => {
                let intent = self.intent(archived, intent).await?;
                operations::write(log, &intent).await?;
                intent
            }
        };
        let kept_id = kept_id(&intent);
        let operations = Operations::read(&**log).await?;
        let pins = plan.pins.len() as u64;
        if !operations.is_done(&kept_id) {
            self.pin(&plan.pins, &intent).await?;
            let mut ranges = Vec::new();
            let total = intent.ranges.iter().map(length).sum();
            let mut looked = 0;
            for range in &intent.ranges {
                let mut tell = |events| {
                    looked += events;
                    told(looked, total);
                };
                ranges.extend(self.copy(range, plan.tick, &mut tell).await?);
            }
            let kept = Operation {
                id: kept_id.clone(),
                action: RESTORE.to_owned(),
                phase: Phase::Done,
                event_time: self.clock.now(),
                ranges,
                ..intent.clone()
            };
            operations::write(log, &kept).await?;
        }
        let operations = Operations::read(&**log).await?;
        let of_kept = operations.all().iter().filter(|operation| operation.id == kept_id);
        let kept = of_kept.flat_map(|operation| &operation.ranges).map(length).sum();
        let frontier = |range: &OffsetRange| Frontier {
            next_offset: range.to.cast_unsigned(),
            ..Frontier::of(&[], &range.topic, range.log_partition.cast_unsigned())
        };
        let of_views = OfViews {
            operation: intent.id.clone(),
            tenant: self.tenant.clone(),
            actor: intent.actor.clone(),
            frontiers: intent.ranges.iter().map(frontier).collect(),
            published: outbox::last_epoch(&**log, &self.tenant).await?,
            at: self.clock.now(),
        };
        let epoch = self.views.truncate(&of_views).await?;
        for OffsetRange { topic, log_partition, to, .. } in &intent.ranges {
            log.delete_before(topic, log_partition.cast_unsigned(), to.cast_unsigned()).await?;
        }
        let events = intent.ranges.iter().map(length).sum();
        operations::write(log, &Operation { phase: Phase::Done, event_time: self.clock.now(), ..intent })
            .await?;
        Ok(Truncated { epoch, events, kept, pins })
    }

    /// The operation that says what is emptied.
    async fn intent(
        &self,
        archived: Option<&Manifest>,
        intent: Operation,
    ) -> Result<Operation, TruncateError> {
        let topic = Stream::Observations.topic(&self.tenant);
        let mut ranges = Vec::new();
        for log_partition in 0..self.log.describe_topic(&topic).await?.log_partitions {
            let offsets = self.log.offsets(&topic, log_partition).await?;
            let of_archive = |manifest: &Manifest| {
                let of_topic = manifest.topics.get(&topic);
                of_topic.and_then(|of| of.log_partitions.get(log_partition as usize)).map_or(0, |of| of.end)
            };
            // What came since is in no archive.
            let to = archived.map_or(offsets.end, of_archive).min(offsets.end);
            if to > offsets.start {
                ranges.push(OffsetRange {
                    topic: topic.clone(),
                    log_partition: log_partition.cast_signed(),
                    from: offsets.start.cast_signed(),
                    to: to.cast_signed(),
                });
            }
        }
        let unreadable = |error: serde_json::Error| ArchiveError::Task(error.to_string());
        Ok(Operation {
            phase: Phase::Intent,
            action: TRUNCATE.to_owned(),
            tenant: Some(self.tenant.clone()),
            reason: self.what_goes(),
            ranges,
            manifest: archived.map(hash).transpose().map_err(unreadable)?,
            ..intent
        })
    }

    /// Publishes the pins, under ids by which a second time is the same decision.
    async fn pin(&self, pins: &[Pin], intent: &Operation) -> Result<(), LogError> {
        let decisions = pins.iter().map(|pin| pin.decision(intent));
        let event = |decision: Decision| NewEvent {
            key: Some(decision.key().into_bytes().into()),
            value: Some(encode_framed(&decision, self.framing).into()),
            headers: Vec::new(),
        };
        let topic = Stream::Decisions.topic(&self.tenant);
        let events = decisions.map(event).collect();
        Publisher::new(self.log.clone(), topic).publish(events).await.map(drop)
    }
}

/// The id of the operation that says that pins and copies are there.
fn kept_id(of: &Operation) -> String {
    format!("{}/kept", of.id)
}

/// Names, or that there are none.
fn list(names: impl IntoIterator<Item = impl ToString>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| name.to_string()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn length(range: &OffsetRange) -> u64 {
    range.to.saturating_sub(range.from).max(0).cast_unsigned()
}

fn partition_of(range: &OffsetRange) -> Partition {
    Partition { topic: range.topic.clone(), log_partition: range.log_partition.cast_unsigned() }
}
