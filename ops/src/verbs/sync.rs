//! `sync`: fetches a source.

use std::sync::Arc;

use clap::{Args, ValueEnum};
use serviceradar_ingest::{
    publish::Observations,
    sync::armis::{self, ArmisClient, CrawlError, CrawlReport},
};
use serviceradar_schemas::{time::SystemClock, topics::Stream};
use tokio::sync::watch;

use super::{Context, topics};
use crate::{
    crawls,
    exit::Interrupted,
    http::{self, Readiness},
    log_store, output, registry, shutdown,
};

/// Fetches a source and publishes what it says
#[derive(Debug, Args)]
pub(crate) struct Sync {
    /// The kind of source
    #[arg(value_enum)]
    source: Source,
    /// Ends after one crawl; otherwise it crawls at the interval of the configuration
    #[arg(long)]
    once: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Source {
    /// Armis, over its HTTP interface
    Armis,
}

impl Sync {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let Source::Armis = self.source;
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
