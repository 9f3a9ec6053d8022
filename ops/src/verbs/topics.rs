//! `topics`: what is in the log.

use std::io::{self, BufRead, IsTerminal, Write};

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::Value;
use serviceradar_log::{LogStore, Offsets};
use serviceradar_ops::config::Config;
use serviceradar_schemas::topics::{Stream, split};

use super::Context;
use crate::{log_store, output};

/// Lists, creates, describes and deletes topics
#[derive(Debug, Args)]
pub(crate) struct Topics {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Lists the topics of all tenants
    List,
    /// Creates the topics that a tenant needs; those that are there stay as they are
    Create,
    /// Prints the offsets of each log partition of a topic
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
        let log_partitions = match stream {
            Stream::Observations | Stream::DeviceChanges => config.log_partitions,
            other => other.log_partitions(),
        };
        log.create_topic(&topic, log_partitions).await?;
    }
    Ok(())
}

async fn list(context: &Context, log: &dyn LogStore) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for topic in log.topics(None).await? {
        let (mut kept, mut ever) = (0, 0);
        for log_partition in 0..topic.log_partitions {
            let Offsets { start, end } = log.offsets(&topic.name, log_partition).await?;
            kept += end - start;
            ever += end;
        }
        let tenant = split(&topic.name).map_or("", |(tenant, _)| tenant);
        rows.push(vec![
            Value::from(&*topic.name),
            tenant.into(),
            topic.log_partitions.into(),
            kept.into(),
            ever.into(),
        ]);
    }
    let columns = ["topic", "tenant", "log partitions", "events", "events ever"];
    Ok(output::rows(context.format, &columns, &rows)?)
}

async fn describe(context: &Context, log: &dyn LogStore, topic: &str) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for log_partition in 0..log.describe_topic(topic).await?.log_partitions {
        let Offsets { start, end } = log.offsets(topic, log_partition).await?;
        rows.push(vec![Value::from(topic), log_partition.into(), start.into(), end.into()]);
    }
    Ok(output::rows(context.format, &["topic", "log partition", "start", "end"], &rows)?)
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

/// What a person answers; nothing where there is nobody to ask.
fn ask(question: &str) -> io::Result<String> {
    let mut answer = String::new();
    if io::stdin().is_terminal() {
        write!(io::stderr(), "{question}")?;
        io::stdin().lock().read_line(&mut answer)?;
    }
    Ok(answer)
}
