//! `demo`: all of it on one machine, with nothing installed.

use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc, time::Instant};

use anyhow::bail;
use clap::Args;
use serde_json::json;
use serviceradar_ingest::{
    faker::{Faker, INSTANCE, SECRET, Serving},
    publish::publish,
    sync::armis::{ArmisClient, ArmisConfig},
};
use serviceradar_log::Publisher;
use serviceradar_materializers::inventory::Inventory;
use serviceradar_schemas::topics::Stream;
use tokio_util::sync::CancellationToken;

use super::{Context, faker};
use crate::{
    cli::Population, crawls, exit::Interrupted, found, output::{self, Format}, pipeline::Pipeline, progress::Progress,
    shutdown,
};

/// Shows all of it: a simulated network, crawled into an embedded log, made into views in SQL
#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// Ends when the crawl is in the views
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
    pipeline: Pipeline,
    faker: Arc<Faker>,
    client: ArmisClient,
    publisher: Publisher,
    inventory: Inventory,
}

/// What the rounds came to.
struct Outcome {
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
            worked = self.show(context, &shown, &shutdown) => worked,
            ended = shown.pipeline.ended() => ended,
            () = shutdown.cancelled() => Err(Interrupted.into()),
        };
        shutdown.cancel();
        let stopped = shown.pipeline.stop().await;
        worked.and(stopped)
    }
}
