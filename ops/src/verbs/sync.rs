//! `sync`: fetches a source.

use std::sync::Arc;

use clap::{Args, Subcommand};
use serviceradar_ingest::{
    publish::Observations,
    sync::armis::{self, ArmisClient, CrawlError, CrawlReport},
};
use serviceradar_schemas::{
    Action, Observation, Snapshot, Source, Target,
    time::{self, Clock, SystemClock},
    topics::Stream,
};
use tokio::sync::watch;

use super::{Context, decide, topics};
use crate::{
    crawls,
    exit::Interrupted,
    http::{self, Readiness},
    log_store, output, registry, shutdown,
};

/// Fetches a source and publishes what it says
#[derive(Debug, Args)]
pub(crate) struct Sync {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Fetches an Armis, over its HTTP interface
    Armis(Armis),
    /// Ends all records of a source that is gone for good, or was renamed
    Retire(Retire),
}

#[derive(Debug, Args)]
struct Armis {
    /// Ends after one crawl; otherwise it crawls at the interval of the configuration
    #[arg(long)]
    once: bool,
}

/// Ends all records of a source that is gone for good, or was renamed
///
/// Publishes a fetch that lists nothing, and the decision that accepts it: what the source had ends, unless another
/// source has it too. `decide revoke accept-snapshot` takes it back.
#[derive(Debug, Args)]
struct Retire {
    /// kind/instance, e.g. armis/hq
    #[arg(value_parser = decide::source)]
    source: Source,
    /// Why, for whoever asks later
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// A partition in which the source had records; may be repeated
    #[arg(long, value_name = "P", default_value = "default")]
    partition: Vec<String>,
}

impl Sync {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self.verb {
            Verb::Armis(armis) => armis.run(context).await,
            Verb::Retire(retire) => retire.run(context).await,
        }
    }
}

impl Retire {
    async fn run(self, context: &Context) -> anyhow::Result<()> {
        let config = &context.config;
        let log = log_store::reach(config).await?;
        topics::create(log.as_ref(), config).await?;
        let framing = registry::register(config).await?.framings.observations;
        let observations =
            Observations::new(log.clone(), Stream::Observations.topic(&config.tenant), framing);
        let mut decided = Vec::new();
        for partition in self.partition {
            let begin = SystemClock.now();
            let mark = |action, count| Observation {
                event_time: begin,
                partition: partition.clone(),
                source: self.source.clone(),
                action,
                snapshot: Some(Snapshot { id: time::format(begin), begin, count }),
                ..Observation::default()
            };
            let marks = [mark(Action::SnapshotBegin, None), mark(Action::SnapshotEnd, Some(0))];
            observations.publish(marks).await?;
            let target =
                Target { source: Some(self.source.clone()), begin: Some(begin), ..Target::default() };
            decided.push(decide::decision(&partition, "accept_snapshot", target, None, &self.reason));
        }
        decide::publish(context, log, decided).await
    }
}

impl Armis {
    async fn run(self, context: &Context) -> anyhow::Result<()> {
        let config = &context.config;
        let client = ArmisClient::new(crawls::armis(config)?, Arc::new(SystemClock))?;
        let shutdown = shutdown::on_signal()?;
        let log = log_store::reach(config).await?;
        topics::create(log.as_ref(), config).await?;
        let framing = registry::register(config).await?.framings.observations;
        let observations = Observations::new(log, Stream::Observations.topic(&config.tenant), framing);
        if self.once {
            return tokio::select! {
                crawled = crawls::once(&client, &observations) => report(context, &crawled?),
                () = shutdown.cancelled() => Err(Interrupted.into()),
            };
        }
        let (_readiness, ready) = watch::channel(Readiness::sync());
        let listen = http::Listen { address: config.listen, given: config.listen_given };
        http::serve(http::bind(listen).await?, ready, None, shutdown.clone())?;
        let crawled = |crawled: Result<CrawlReport, CrawlError>| {
            crawls::count(&crawled);
            match crawled {
                Ok(report) => tracing::info!(records = report.records, seconds = report.seconds, "crawled"),
                Err(CrawlError::Stopped) => {}
                Err(error) => tracing::error!(%error, "the next crawl comes at its time"),
            }
        };
        armis::run_every(&client, &observations, &SystemClock, config.armis.interval, shutdown, crawled)
            .await;
        Ok(())
    }
}

fn report(context: &Context, report: &CrawlReport) -> anyhow::Result<()> {
    let row = [report.records.into(), report.excluded.into(), report.pages.into(), report.seconds.into()];
    Ok(output::rows(context.format, &["records", "excluded", "pages", "seconds"], &[row.into()])?)
}
