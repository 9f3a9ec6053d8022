//! `topics`: what is in the log.

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::Value;
use serviceradar_log::{LogError, LogStore, Offsets, Setting, TopicDescription};
use serviceradar_materializers::views::{Frontier, Resume};
use serviceradar_ops::config::Config;
use serviceradar_replay::{PartitionStatus, lag::look, topics::READ};
use serviceradar_schemas::{
    time::{Clock, SystemClock},
    topics::{Stream, split},
};

use super::Context;
use crate::{
    ask::ask,
    lag, log_store,
    output::{self, Format},
};

/// Lists, creates, describes and deletes topics
#[derive(Debug, Args)]
pub(crate) struct Topics {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Lists the topics of all tenants: what they hold, whether they are set right, and how far the tenant's views are
    /// behind
    List,
    /// Creates the topics that a tenant needs; those that are there stay as they are
    Create,
    /// Prints a topic's log partitions with start, end, frontier and lag; and its settings, with what mends them
    Describe {
        /// `<tenant>.<stream>`
        topic: String,
    },
    /// Deletes a topic and all its events, for ever
    Delete {
        /// `<tenant>.<stream>`
        topic: String,
        /// Says what would be deleted, and deletes nothing
        #[arg(long)]
        dry_run: bool,
        /// The topic's name once more, where nobody can be asked to type it
        #[arg(long, value_name = "TOPIC")]
        confirm: Option<String>,
    },
}

impl Topics {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let log = log_store::reach(&context.config).await?;
        let log = log.as_ref();
        match self.verb {
            Verb::List => list(context, log).await,
            Verb::Create => {
                create(log, &context.config).await?;
                list(context, log).await
            }
            Verb::Describe { topic } => describe(context, log, &topic).await,
            Verb::Delete { topic, dry_run, confirm } => delete(log, &topic, dry_run, confirm).await,
        }
    }
}

/// Creates what the configured tenant lacks.
pub(crate) async fn create(log: &dyn LogStore, config: &Config) -> anyhow::Result<()> {
    let there = log.topics(Some(&config.tenant)).await?;
    for stream in Stream::ALL {
        let topic = stream.topic(&config.tenant);
        if there.iter().any(|found| found.name == topic) {
            continue;
        }
        log.create_topic(&topic, log_partitions(config, stream)).await?;
    }
    Ok(())
}

/// Log partitions of a new topic.
pub(crate) fn log_partitions(config: &Config, stream: Stream) -> u32 {
    match stream {
        Stream::Observations | Stream::DeviceChanges => config.log_partitions,
        other => other.log_partitions(),
    }
}

async fn offsets_of(log: &dyn LogStore, topic: &TopicDescription) -> Result<Vec<Offsets>, LogError> {
    let mut offsets = Vec::new();
    for log_partition in 0..topic.log_partitions {
        offsets.push(log.offsets(&topic.name, log_partition).await?);
    }
    Ok(offsets)
}

/// How far each log partition of a topic is in the views; none where they do not say, or it is not read into them.
async fn standing_of(
    log: &dyn LogStore,
    topic: &TopicDescription,
    views: Option<&Resume>,
) -> anyhow::Result<Option<Vec<PartitionStatus>>> {
    let is_read = READ.iter().any(|stream| split(&topic.name).is_some_and(|(_, name)| name == stream.name()));
    let Some(views) = views.filter(|_| is_read) else {
        return Ok(None);
    };
    let mut standing = Vec::new();
    for log_partition in 0..topic.log_partitions {
        standing.push(look(log, &Frontier::of(&views.frontiers, &topic.name, log_partition)).await?);
    }
    Ok(Some(standing))
}

/// Where the views of a tenant stand. A database that does not say so keeps nothing else from being shown.
async fn views_of(context: &Context, tenant: &str) -> Option<Resume> {
    lag::standing(&context.config, tenant).await.unwrap_or_else(|error| {
        tracing::warn!(%error, tenant, "how far the views are is not shown");
        None
    })
}

async fn list(context: &Context, log: &dyn LogStore) -> anyhow::Result<()> {
    let mut found = Vec::new();
    for topic in log.topics(None).await? {
        let told =
            async { Ok::<_, LogError>((offsets_of(log, &topic).await?, log.settings(&topic.name).await?)) };
        match told.await {
            Ok((offsets, settings)) => found.push((topic, offsets, settings)),
            // Somebody, of another tenant perhaps, has deleted it meanwhile.
            Err(LogError::UnknownTopic(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // Events are read last, and of one tenant: a broker keeps whatever is asked beside a read waiting.
    let own = &context.config.tenant;
    let views = views_of(context, own).await;
    let mut rows = Vec::new();
    for (topic, offsets, settings) in found {
        let tenant = split(&topic.name).map_or("", |(tenant, _)| tenant);
        let standing = standing_of(log, &topic, views.as_ref().filter(|_| tenant == own)).await?;
        let standing = standing.as_deref();
        rows.push(vec![
            Value::from(&*topic.name),
            tenant.into(),
            topic.log_partitions.into(),
            offsets.iter().map(|of| of.end - of.start).sum::<u64>().into(),
            offsets.iter().map(|of| of.end).sum::<u64>().into(),
            standing.map(|all| all.iter().map(PartitionStatus::lag_events).sum::<u64>()).into(),
            standing.and_then(|all| lag::longest(all.iter(), SystemClock.now())).into(),
            settings.iter().filter(|setting| !setting.is_right()).count().into(),
        ]);
    }
    let columns = [
        "topic",
        "tenant",
        "log partitions",
        "events",
        "events ever",
        "lag events",
        "lag seconds",
        "setting problems",
    ];
    Ok(output::rows(context.format, &columns, &rows)?)
}

async fn describe(context: &Context, log: &dyn LogStore, topic: &str) -> anyhow::Result<()> {
    let described = log.describe_topic(topic).await?;
    let views = match split(topic) {
        Some((tenant, _)) => views_of(context, tenant).await,
        None => None,
    };
    let offsets = offsets_of(log, &described).await?;
    let settings = log.settings(topic).await?;
    let standing = standing_of(log, &described, views.as_ref()).await?;
    let row = |(log_partition, offsets): (usize, &Offsets)| {
        let status = standing.as_deref().and_then(|all| all.get(log_partition));
        vec![
            Value::from(topic),
            log_partition.into(),
            offsets.start.into(),
            offsets.end.into(),
            status.map(|status| status.next_offset).into(),
            status.map(PartitionStatus::lag_events).into(),
            status.and_then(|status| status.lag_seconds(SystemClock.now())).into(),
            status.and_then(|status| status.stalled.clone()).into(),
        ]
    };
    let rows: Vec<_> = offsets.iter().enumerate().map(row).collect();
    let columns =
        ["topic", "log partition", "start", "end", "frontier", "lag events", "lag seconds", "stalled"];
    output::rows(context.format, &columns, &rows)?;

    if settings.is_empty() {
        return Ok(());
    }
    if context.format == Format::Table {
        output::line("")?;
    }
    let row = |setting: &Setting| {
        let mend = (!setting.is_right()).then(|| setting.mend.clone());
        vec![
            topic.into(),
            setting.name.into(),
            (&*setting.found).into(),
            (&*setting.wanted).into(),
            mend.into(),
        ]
    };
    let rows: Vec<_> = settings.iter().map(row).collect();
    Ok(output::rows(context.format, &["topic", "setting", "is", "must be", "mend it with"], &rows)?)
}

async fn delete(
    log: &dyn LogStore,
    topic: &str,
    dry_run: bool,
    confirm: Option<String>,
) -> anyhow::Result<()> {
    let mut events = 0;
    for log_partition in 0..log.describe_topic(topic).await?.log_partitions {
        let Offsets { start, end } = log.offsets(topic, log_partition).await?;
        events += end - start;
    }
    if dry_run {
        return Ok(output::line(&format!("would delete {topic} and its {events} events"))?);
    }
    let typed = match confirm {
        Some(typed) => typed,
        None => ask(&format!("This deletes {topic} and its {events} events for ever. Type its name: "))?,
    };
    if typed.trim() != topic {
        bail!("{topic} was not confirmed, and is as it was: type its name, or give `--confirm {topic}`");
    }
    log.delete_topic(topic).await?;
    Ok(output::line(&format!("deleted {topic} and its {events} events"))?)
}
