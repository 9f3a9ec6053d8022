//! `reseed`: a tenant is truncated and crawled again, and what came of it is held against what was expected, and was.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::{Value, json};
use serviceradar_ingest::{
    publish::Observations,
    sync::armis::{ArmisClient, CrawlReport},
};
use serviceradar_log::LogStore;
use serviceradar_materializers::{
    PostgresViews,
    postgres::Moved,
    views::{Frontier, Views},
};
use serviceradar_ops::config;
use serviceradar_replay::{
    drift::{Expected, Side},
    operations::{self, Operations},
    topics,
};
use serviceradar_schemas::{
    Operation, Source,
    operation::Phase,
    time::{Clock, SystemClock},
    topics::Stream,
};

use super::{
    Context,
    replay::{self, operation},
    truncate::Wanted,
};
use crate::{
    crawls,
    exit::{Interrupted, Wanting},
    log_store,
    output::{self, Format},
    progress::Progress,
    registry, shutdown,
};

/// The action of its operation.
const RESEED: &str = "reseed";
/// How often is looked whether the views have what was crawled.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Truncates the tenant, crawls its sources again, and compares what came of it
///
/// As `truncate`; then what the configuration crawls is crawled once. When it was accepted and is in the views, the devices
/// gained and lost are named, and with --expect it ends with 4 where there are more or fewer devices than that. A pipeline
/// must run. Whatever it is interrupted by, the same command goes on.
#[derive(Debug, Args)]
pub(crate) struct Reseed {
    #[command(flatten)]
    wanted: Wanted,
    /// How many devices there must be, retired ones not counted
    #[arg(long, value_name = "DEVICES")]
    expect: Option<u64>,
    /// By how much more or fewer are no miss
    #[arg(long, value_name = "PERCENT", default_value = "2%", value_parser = tolerance)]
    tolerance: f64,
}

fn tolerance(text: &str) -> Result<f64, String> {
    config::share(text).ok_or_else(|| "give a percentage, e.g. 2%".to_owned())
}

impl Reseed {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let config = &context.config;
        let tenant = &config.tenant;
        let armis = crawls::armis(config)?;
        let (partition, source) = (armis.partition.clone(), armis.source());
        let client = ArmisClient::new(armis, Arc::new(SystemClock))?;
        let log = log_store::reach(config).await?;
        let views = Arc::new(replay::views(context).await?);
        let operations = Operations::read(&*log).await?;
        let is_ours = |of: &&Operation| of.action == RESEED && of.tenant.as_deref() == Some(tenant);
        let begun = operations.unfinished().find(is_ours).cloned();
        let mut reseed = begun.clone().unwrap_or_else(|| operation(RESEED, Some(tenant), ""));
        let truncation = format!("{}/truncate", reseed.id);
        if !operations.is_done(&truncation) {
            let Some(work) = self.wanted.confirmed(context, views.clone(), log.clone()).await? else {
                return Ok(());
            };
            if work.plan.interrupted.as_ref().is_some_and(|other| other.id != truncation) {
                bail!(
                    "another truncation was interrupted: finish it first, with `serviceradar truncate` and its flags"
                );
            }
            // Better now than with an inventory that is empty.
            client.probe().await.context("Armis must answer before anything is emptied")?;
            written(&views, tenant).await?;
            if begun.is_none() {
                operations::write(&log, &reseed).await?;
            }
            let intent = Operation { id: truncation.clone(), ..operation(operations::TRUNCATE, None, "") };
            work.run(context, intent).await?;
        }
        let epoch = views.truncated_by(&truncation).await?;
        let epoch = epoch.context("the database knows nothing of this truncation: is it another one?")?;
        let shutdown = shutdown::on_signal()?;
        let crawling = async {
            let framing = registry::register(config).await?.framings.observations;
            let observations = Observations::new(log.clone(), Stream::Observations.topic(tenant), framing);
            let crawled = crawls::once(&client, &observations).await?;
            complete(&views, &*log, tenant, (&partition, &source), &crawled).await
        };
        tokio::select! {
            crawled = crawling => crawled?,
            () = shutdown.cancelled() => return Err(Interrupted.into()),
        }
        (reseed.phase, reseed.event_time) = (Phase::Done, SystemClock.now());
        operations::write(&log, &reseed).await?;
        let ((found, _), moved) = (views.devices(tenant).await?, views.moved_since(tenant, epoch).await?);
        print(context, found, self.expect, &moved)?;
        let expected = self.expect.map(|devices| Expected { devices, tolerance: self.tolerance });
        let miss = |expected: Expected| match expected.miss(found)? {
            Side::Low => Some(format!("only {found} devices, and {} expected", expected.devices)),
            Side::High => Some(format!("{found} devices, and only {} expected", expected.devices)),
        };
        match expected.and_then(miss) {
            Some(miss) => {
                Err(Wanting(format!("{miss}: see `serviceradar explain` of those gained and lost")).into())
            }
            None => Ok(()),
        }
    }
}

/// Refuses where nobody would fill the views.
async fn written(views: &PostgresViews, tenant: &str) -> anyhow::Result<()> {
    let generation = views.standing(tenant, None).await?.generation;
    if !views.is_written(generation, tenant).await? {
        bail!(
            "no pipeline writes tenant {tenant}, so that nobody would fill its views again: start `serviceradar run`"
        );
    }
    Ok(())
}

/// Waits until a crawl was accepted, and all that the log has then is in the views.
async fn complete(
    views: &PostgresViews,
    log: &dyn LogStore,
    tenant: &str,
    (partition, source): (&str, &Source),
    crawled: &CrawlReport,
) -> anyhow::Result<()> {
    let mut progress = Progress::begin("views", "Making the views");
    let (mut ends, mut is_judged) = (ends(log, tenant).await?, false);
    loop {
        let frontiers = views.standing(tenant, None).await?.frontiers;
        let reached = |(topic, at, end): &(String, u32, u64)| {
            Frontier::of(&frontiers, topic, *at).next_offset.min(*end)
        };
        let (done, total) = (ends.iter().map(reached).sum(), ends.iter().map(|(.., end)| *end).sum::<u64>());
        progress.at(done, total);
        if done == total && is_judged {
            progress.end(total, "what was crawled is in the views");
            return Ok(());
        }
        if done == total {
            match views.verdict(tenant, partition, source, crawled.begin).await?.as_deref() {
                // Behind it stands what it brought about.
                Some("accepted") => (ends, is_judged) = (self::ends(log, tenant).await?, true),
                Some(_) => {
                    return Err(Wanting(format!(
                        "the fetch of {partition}/{source} was held: see why with `serviceradar status`, which names the decision that accepts it"
                    ))
                    .into());
                }
                None => {}
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Where the log partitions end that the views are made from.
async fn ends(log: &dyn LogStore, tenant: &str) -> anyhow::Result<Vec<(String, u32, u64)>> {
    let mut ends = Vec::new();
    for partition in topics::read_by(log, tenant).await? {
        let end = log.offsets(&partition.topic, partition.log_partition).await?.end;
        ends.push((partition.topic, partition.log_partition, end));
    }
    Ok(ends)
}

fn print(context: &Context, found: u64, expected: Option<u64>, moved: &[Moved]) -> anyhow::Result<()> {
    let (gained, lost): (Vec<&Moved>, Vec<&Moved>) = moved.iter().partition(|of| of.is_new);
    if context.format == Format::Json {
        let list = |of: &[&Moved]| -> Vec<Value> {
            of.iter().map(|of| json!({ "uid": of.uid, "name": of.name, "state": of.state })).collect()
        };
        let told = json!({
            "devices": found, "expected": expected, "gained": list(&gained), "lost": list(&lost),
        });
        return Ok(output::line(&told.to_string())?);
    }
    let row = |of: &Moved| {
        let word = if of.is_new { "gained" } else { "lost" };
        vec![word.into(), of.uid.to_string().into(), of.name.clone().into(), of.state.as_str().into()]
    };
    if !moved.is_empty() {
        let rows: Vec<Vec<Value>> = moved.iter().map(row).collect();
        output::rows(Format::Table, &["device", "uid", "name", "state"], &rows)?;
    }
    let wanted = expected.map(|expected| format!(", {expected} expected")).unwrap_or_default();
    Ok(output::line(&format!(
        "{found} devices{wanted}; {} gained and {} lost, all others have the uids that they had",
        gained.len(),
        lost.len()
    ))?)
}
