//! `demo`: all of it on one machine, with nothing installed.

use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::json;
use serviceradar_ingest::{
    faker::{Faker, INSTANCE, SECRET, Serving},
    publish::Observations,
    sync::armis::{ArmisClient, ArmisConfig},
};
use serviceradar_materializers::inventory::{Inventory, Totals};
use serviceradar_replay::DriverStatus;
use serviceradar_schemas::{time::SystemClock, topics::Stream};
use tokio_util::sync::CancellationToken;

use super::{Context, faker};
use crate::{
    cli::Population,
    crawls,
    exit::Interrupted,
    found, log_store,
    output::{self, Format},
    pipeline::Pipeline,
    progress::Progress,
    registry, shutdown,
};

/// How often the progress of the views is shown anew.
const SHOW_EVERY: Duration = Duration::from_millis(100);
/// The kind of source whose devices are counted and followed.
const KIND: &str = "armis";

/// Shows all of it: a simulated network, crawled into a log, made into views in SQL
///
/// Lives on until Ctrl-C, so that you can look around; the same command goes on from there.
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Ends when all crawls are in the views
    #[arg(long)]
    once: bool,
    /// Moves addresses among the devices and crawls again, N times
    #[arg(long, value_name = "N", default_value_t = 0)]
    shuffles: u32,
    #[command(flatten)]
    pub(crate) population: Population,
}

/// What is on the way from the simulated network to the views.
struct Shown {
    faker: Arc<Faker>,
    serving: Serving,
    client: ArmisClient,
    observations: Observations,
    pipeline: Pipeline,
    /// When the first look began, where the log was empty.
    begun: Option<Instant>,
}

/// What the rounds came to.
struct Outcome {
    totals: Totals,
    /// From the begin of the first crawl until all of it was in the views.
    seconds: f64,
    uids_changed: usize,
}

impl Demo {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let shutdown = shutdown::on_signal()?;
        let shown = tokio::select! {
            shown = Shown::start(context, &shutdown) => shown?,
            () = shutdown.cancelled() => return Err(Interrupted.into()),
        };
        let worked = tokio::select! {
            biased;
            worked = self.show(context, &shown, &shutdown) => worked,
            ended = shown.pipeline.ended() => ended,
            () = shutdown.cancelled() => Err(Interrupted.into()),
        };
        shutdown.cancel();
        let stopped = shown.pipeline.stop().await;
        worked.and(stopped)
    }

    async fn show(
        &self,
        context: &Context,
        shown: &Shown,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<()> {
        let tenant = &context.config.tenant;
        let mut inventory = Inventory::connect(&shown.pipeline.database_url, tenant).await?;
        let outcome = self.crawl(shown, &mut inventory).await?;
        let Outcome { totals, seconds, uids_changed } = outcome;
        let private = context.config.database_url.is_none();
        let url = found::url(&shown.pipeline.database_url, tenant, private);
        match context.format {
            Format::Json => output::line(
                &json!({
                    "devices": totals.devices_of_kind,
                    "records": totals.records,
                    "seconds": (seconds * 1_000.0).round() / 1_000.0,
                    "uids_changed": uids_changed,
                    "database_url": url,
                })
                .to_string(),
            )?,
            Format::Table => {
                found::print(&mut inventory, totals).await?;
                output::line(&format!(
                    "\nThe first crawl was in the views after {seconds:.1} s. Devices of Armis whose uid changed: {uids_changed}."
                ))?;
                if !self.once {
                    found::print_further(&url)?;
                    output::line(&format!("\nArmis answers at {} until Ctrl-C.", shown.serving.url()))?;
                }
            }
        }
        if !self.once {
            shutdown.cancelled().await;
        }
        Ok(())
    }

    /// Crawls, then shuffles and crawls again as often as asked.
    async fn crawl(&self, shown: &Shown, inventory: &mut Inventory) -> anyhow::Result<Outcome> {
        let mut uids = Uids::default();
        let mut first = None;
        match shown.begun {
            Some(begun) => {
                shown.until_in_views().await?;
                first = Some(begun.elapsed().as_secs_f64());
            }
            // What an earlier run left.
            None => {
                shown.caught_up("start", "Starting").await?;
            }
        }
        uids.look(inventory).await?;
        for round in u32::from(shown.begun.is_some())..=self.shuffles {
            if round > 0 {
                let faker = shown.faker.clone();
                tokio::task::spawn_blocking(move || faker.shuffle()).await??;
            }
            let begun = Instant::now();
            shown.round().await?;
            first.get_or_insert(begun.elapsed().as_secs_f64());
            uids.look(inventory).await?;
        }
        let totals = inventory.totals(KIND).await?;
        Ok(Outcome { totals, seconds: first.unwrap_or_default(), uids_changed: uids.changed() })
    }
}

impl Shown {
    async fn start(context: &Context, shutdown: &CancellationToken) -> anyhow::Result<Self> {
        let config = &context.config;
        let log = log_store::hold(config).await?;
        // It moves addresses when it is told to, and not by itself.
        let faker = faker::open(config, (Ipv4Addr::LOCALHOST, 0).into(), None)?;
        let serving = faker.serve(shutdown.clone()).await?;
        let armis = ArmisConfig::new(&serving.url(), SECRET, INSTANCE);
        let client = ArmisClient::new(armis, Arc::new(SystemClock))?;
        let topic = Stream::Observations.topic(&config.tenant);
        let schemas = registry::register(config).await?;
        let observations = Observations::new(log.clone(), &*topic, schemas.framings.observations);
        let mut begun = None;
        let first = async || {
            let mut end = 0;
            for log_partition in 0..log.describe_topic(&topic).await?.log_partitions {
                end += log.offsets(&topic, log_partition).await?.end;
            }
            if end == 0 {
                begun = Some(Instant::now());
                look(&client, &observations, &faker).await?;
            }
            Ok(())
        };
        let pipeline = Pipeline::start(config, log.clone(), schemas, true, first).await?;
        Ok(Self { faker, serving, client, observations, pipeline, begun })
    }

    /// Publishes what all sources see now, and waits until it is in the views.
    async fn round(&self) -> anyhow::Result<()> {
        look(&self.client, &self.observations, &self.faker).await?;
        self.until_in_views().await
    }

    async fn until_in_views(&self) -> anyhow::Result<()> {
        let (progress, in_views) = self.caught_up("views", "Making the views").await?;
        progress.end(in_views, &format!("{in_views} events are in the views"));
        Ok(())
    }

    /// Waits until everything in the log is in the views; returns how many events that is.
    async fn caught_up(&self, step: &'static str, what: &str) -> anyhow::Result<(Progress, u64)> {
        let mut progress = Progress::begin(step, what);
        let caught_up = self.pipeline.caught_up();
        let mut caught_up = std::pin::pin!(caught_up);
        loop {
            tokio::select! {
                biased;
                done = &mut caught_up => {
                    done?;
                    return Ok((progress, in_views(&self.pipeline.status())));
                }
                () = tokio::time::sleep(SHOW_EVERY) => {
                    let status = self.pipeline.status();
                    progress.at(in_views(&status) + status.loading, in_views(&status) + status.lag_events());
                }
            }
        }
    }
}

/// Publishes what all sources see now.
async fn look(client: &ArmisClient, observations: &Observations, faker: &Faker) -> anyhow::Result<()> {
    crawls::once(client, observations).await?;
    // After Armis: what they see then belongs to devices that are there, and moves once.
    observations.publish(faker.observations_of_others()).await?;
    Ok(())
}

/// Events below the frontier.
fn in_views(status: &DriverStatus) -> u64 {
    status.partitions.values().map(|of| of.next_offset).sum()
}

/// The uids of the records of Armis, followed from look to look.
#[derive(Default)]
struct Uids {
    first: BTreeMap<String, uuid::Uuid>,
    last: BTreeMap<String, Option<uuid::Uuid>>,
}

impl Uids {
    async fn look(&mut self, inventory: &mut Inventory) -> anyhow::Result<()> {
        self.last = inventory.uids(KIND).await?;
        for (record, uid) in &self.last {
            if let Some(uid) = uid {
                self.first.entry(record.clone()).or_insert(*uid);
            }
        }
        Ok(())
    }

    /// How many records have another uid than at the first look, or none.
    fn changed(&self) -> usize {
        self.first.iter().filter(|(record, uid)| self.last.get(*record) != Some(&Some(**uid))).count()
    }
}
