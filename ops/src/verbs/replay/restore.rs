//! `replay restore`: what an archive has is published again.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::Value;
use serviceradar_log::{LogStore, NewEvent, Publisher};
use serviceradar_materializers::inventory::Inventory;
use serviceradar_replay::{
    archive::Place,
    restore::{Filling, Plan, Wanted, missing_decisions},
};
use serviceradar_schemas::{
    encode_framed,
    time::{Clock, SystemClock},
    topics::Stream,
};

use super::{super::Context, archive, operation};
use crate::{
    exit::Interrupted, lag, log_store, output, progress::Progress, registry, shutdown, verbs::topics,
};

/// Publishes again what an archive has
///
/// Every file is checked before anything is written. Topics that are missing are made; one that has events is refused.
/// The events keep their intake times, so that the views come out as they were: rebuild them afterwards, or run a
/// pipeline on an empty database. Stop the pipeline of the tenant meanwhile. It can be stopped, and goes on.
#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// Where the archive is: a folder, or s3://BUCKET/PREFIX as for `replay archive`
    #[arg(long, value_name = "PLACE", required_unless_present = "decisions_from_views")]
    from: Option<String>,
    /// Only these topics of it; may be repeated [default: all but system.operations]
    #[arg(long, value_name = "TOPIC", requires = "from")]
    topic: Vec<String>,
    /// Publishes behind the events that topics have already
    #[arg(long, requires = "from")]
    append: bool,
    /// Begins anew where a restore of the same archive was interrupted
    #[arg(long, requires = "from")]
    begin_anew: bool,
    /// Publishes the decisions that the views have and the log lacks, once the archive is restored
    #[arg(long)]
    decisions_from_views: bool,
    /// Why, for whoever asks later
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Checks the archive, says what would be published, and publishes nothing
    #[arg(long)]
    dry_run: bool,
}

impl Restore {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let log = log_store::reach(&context.config).await?;
        let shutdown = shutdown::on_signal()?;
        let working = async {
            if let Some(from) = &self.from {
                self.archive(context, &log, &Place::at(from)?).await?;
            }
            if self.decisions_from_views {
                self.decisions(context, log.clone()).await?;
            }
            Ok(())
        };
        tokio::select! {
            worked = working => worked,
            () = shutdown.cancelled() => Err(Interrupted.into()),
        }
    }

    async fn archive(&self, context: &Context, log: &Arc<dyn LogStore>, place: &Place) -> anyhow::Result<()> {
        let tenant = context.config.tenant.clone();
        let (topics, append, begin_anew) = (self.topic.clone(), self.append, self.begin_anew);
        let plan = Plan::make(&**log, place, &Wanted { tenant, topics, append, begin_anew }).await?;
        let mut progress = Progress::begin("verify", "checking the archive");
        plan.verify(place, |done, total| progress.at(done, total)).await?;
        let bytes = plan.manifest.files.iter().map(|file| file.bytes).sum();
        progress.end(bytes, &format!("{} is what was archived", place.name()));
        for (topic, log_partition, from, to) in plan.manifest.gaps() {
            tracing::warn!("{topic}/{log_partition}:{from}-{to} was lost before it was archived");
        }
        if plan.is_done() {
            tracing::info!("all of it is in the log since an earlier restore: nothing is published");
        }
        if self.dry_run || plan.is_done() {
            return rows(context, &plan.fillings);
        }
        let ids = register(context, &plan).await?;
        let (fillings, records) = (plan.fillings.clone(), plan.records());
        let intent = operation("restore", None, &self.reason);
        let mut progress = Progress::begin("restore", "restoring");
        let told = |done, total| progress.at(done, total);
        plan.run(log, place, intent, &ids, || SystemClock.now(), told).await?;
        progress.end(records, &format!("restored {records} events from {}", place.name()));
        rows(context, &fillings)
    }

    async fn decisions(&self, context: &Context, log: Arc<dyn LogStore>) -> anyhow::Result<()> {
        let config = &context.config;
        let Some(url) = lag::database_url(config) else {
            bail!("there are no views to take decisions from: give --database, or start the private one");
        };
        let there = Inventory::connect(&url, &config.tenant).await?.decisions().await?;
        if !self.dry_run {
            topics::create(&*log, config).await?;
        }
        let missing = missing_decisions(&*log, &archive::writers(context)?, &config.tenant, there).await?;
        if self.dry_run {
            return Ok(output::line(&format!("would publish {} decisions of the views", missing.len()))?);
        }
        let framing = registry::register(config).await?.framings.decisions;
        let event = |decision: &serviceradar_schemas::Decision| NewEvent {
            key: Some(decision.key().into_bytes().into()),
            value: Some(encode_framed(decision, framing).into()),
            headers: Vec::new(),
        };
        let events = missing.iter().map(event).collect();
        Publisher::new(log, Stream::Decisions.topic(&config.tenant)).publish(events).await?;
        Ok(output::line(&format!("published {} decisions of the views", missing.len()))?)
    }
}

/// Registers the schemas of other writers; their ids by those that they had.
async fn register(context: &Context, plan: &Plan) -> anyhow::Result<BTreeMap<u32, u32>> {
    let mut ids = BTreeMap::new();
    let Some(registry) = registry::client(&context.config)? else {
        // Restore says what is missing, where anything is.
        return Ok(ids);
    };
    for foreign in &plan.foreign {
        let subject = format!("{}-archived-{}", foreign.topic, foreign.id);
        let id = registry.put(&subject, &foreign.schema).await.context(registry::ADVICE)?;
        ids.insert(foreign.id, id);
    }
    Ok(ids)
}

/// What is filled of each log partition.
fn rows(context: &Context, fillings: &[Filling]) -> anyhow::Result<()> {
    let row = |filling: &Filling| {
        vec![
            Value::from(&*filling.partition.topic),
            filling.partition.log_partition.into(),
            (filling.offsets.end - filling.offsets.start).into(),
            filling.done.into(),
            filling.offsets.start.into(),
            filling.offsets.end.into(),
        ]
    };
    let rows: Vec<_> = fillings.iter().map(row).collect();
    let columns = ["topic", "log partition", "events", "there before", "from offset", "to offset"];
    Ok(output::rows(context.format, &columns, &rows)?)
}
