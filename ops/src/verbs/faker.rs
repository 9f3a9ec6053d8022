//! `faker`: an Armis to crawl, without one.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use clap::Args;
use serviceradar_ingest::{
    faker::{FakerConfig, SECRET, Serving},
    publish::Observations,
};
use serviceradar_ops::config::Config;
use serviceradar_schemas::{time::SystemClock, topics::Stream};
use tokio_util::sync::CancellationToken;

use super::{Context, topics};
use crate::{cli::Population, log_store, output, registry, shutdown};

/// Answers as an Armis with a simulated network behind it
#[derive(Debug, Args)]
pub(crate) struct Faker {
    #[command(flatten)]
    population: Population,
    /// Publishes what a mapper and a sweep see of the same machines, too: now and after each shuffle
    #[arg(long)]
    publish: bool,
}

impl Faker {
    /// The keys that its flags set.
    pub(crate) fn keys(&self) -> Vec<(&str, &str, String)> {
        self.population.keys()
    }

    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let config = &context.config;
        let shutdown = shutdown::on_signal()?;
        // Whoever publishes after each shuffle must be the one who shuffles.
        let by_itself = config.faker.shuffle_every.filter(|_| !self.publish);
        let faker = open(config, config.faker.listen, by_itself)?;
        let serving = faker.serve(shutdown.clone()).await?;
        announce(context, &serving)?;
        if self.publish {
            let log = log_store::reach(config).await?;
            topics::create(log.as_ref(), config).await?;
            let framing = registry::register(config).await?.framings.observations;
            let observations = Observations::new(log, Stream::Observations.topic(&config.tenant), framing);
            keep_publishing(&faker, &observations, config.faker.shuffle_every, &shutdown).await?;
        }
        shutdown.cancelled().await;
        Ok(serving.task.await?)
    }
}

/// Opens the faker whose state is in the data folder.
pub(crate) fn open(
    config: &Config,
    listen: SocketAddr,
    shuffle_every: Option<Duration>,
) -> anyhow::Result<Arc<serviceradar_ingest::faker::Faker>> {
    let asked = FakerConfig {
        devices: config.faker.devices,
        seed: config.faker.seed,
        listen,
        dir: config.dir.join("faker"),
        shuffle_every,
    };
    Ok(serviceradar_ingest::faker::Faker::open(asked, Arc::new(SystemClock))?)
}

fn announce(context: &Context, serving: &Serving) -> anyhow::Result<()> {
    let faker = &context.config.faker;
    let row = [serving.url().into(), SECRET.into(), faker.devices.into(), faker.seed.into()];
    Ok(output::rows(context.format, &["url", "secret", "devices", "seed"], &[row.into()])?)
}

async fn keep_publishing(
    faker: &Arc<serviceradar_ingest::faker::Faker>,
    observations: &Observations,
    every: Option<Duration>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    loop {
        let published = observations.publish(faker.observations_of_others()).await?;
        tracing::info!(published, "published what the mapper and the sweep see");
        let Some(every) = every else { return Ok(()) };
        tokio::select! {
            () = shutdown.cancelled() => return Ok(()),
            () = tokio::time::sleep(every) => {}
        }
        let faker = faker.clone();
        tokio::task::spawn_blocking(move || faker.shuffle()).await??;
    }
}
