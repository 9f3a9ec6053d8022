//! Crawls as every verb makes them: with progress, counted.

use serviceradar_ingest::{
    publish::Observations,
    sync::armis::{self, ArmisClient, ArmisConfig, CrawlError, CrawlReport},
};
use serviceradar_ops::{
    config::{Config, ConfigError},
    metrics::Metric,
};
use serviceradar_schemas::time::SystemClock;

use crate::progress::Progress;

/// The Armis that the configuration names.
pub(crate) fn armis(config: &Config) -> Result<ArmisConfig, ConfigError> {
    let armis = &config.armis;
    let url = armis.url.as_deref().ok_or_else(|| ConfigError::unset("armis.url"))?;
    let secret = armis.secret.as_ref().ok_or_else(|| ConfigError::unset("armis.secret"))?;
    Ok(ArmisConfig {
        aql: armis.aql.clone(),
        concurrency: armis.concurrency,
        exclude: armis.exclude.clone(),
        page_size: armis.page_size,
        partition: armis.partition.clone(),
        ..ArmisConfig::new(url, secret.reveal(), &armis.instance)
    })
}

/// One crawl.
pub(crate) async fn once(
    client: &ArmisClient,
    observations: &Observations,
) -> Result<CrawlReport, CrawlError> {
    let mut progress = Progress::begin("crawl", "Crawling Armis");
    let crawled = armis::crawl(client, observations, &SystemClock, |now| {
        progress.at(now.records as u64, now.total as u64);
    });
    let crawled = crawled.await;
    count(&crawled);
    if let Ok(report) = &crawled {
        progress.end(report.records as u64, &format!("crawled {} records", report.records));
    }
    crawled
}

/// Counts a crawl that ended.
pub(crate) fn count(crawled: &Result<CrawlReport, CrawlError>) {
    match crawled {
        Ok(report) => {
            Metric::Crawls.add(Some("complete"), 1);
            Metric::CrawlRecords.add(None, report.records as u64);
            Metric::CrawlSeconds.sample(None, report.seconds);
        }
        Err(CrawlError::Stopped) => {}
        Err(_) => Metric::Crawls.add(Some("failed"), 1),
    }
}
