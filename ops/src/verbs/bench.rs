//! `bench`: how soon it is visible what is observed, and at which rate that begins to take longer.

use std::sync::Arc;

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};
use serviceradar_ingest::publish::Observations;
use serviceradar_schemas::topics::Stream;

use super::Context;
use crate::{
    bench::{Bench, Load, Measured},
    exit::Interrupted,
    log_store,
    output::{self, Format},
    pipeline::Pipeline,
    progress::Progress,
    registry, shutdown,
};

/// Whose topics and views are used: nobody else's.
const TENANT: &str = "bench";
/// The first rate that is tried, observations a second,
const RATE_MIN: u64 = 4_000;
/// and the last.
const RATE_MAX: u64 = 1_000_000;
/// Steps of the search between a rate that is kept up with and one that is not.
const HALVINGS: u32 = 3;
/// Of the knee, the shares at which it is measured, percent.
const SHARES: [u64; 3] = [25, 50, 80];
/// How long a rate is tried, of the seconds of a measurement: so that a backlog shows.
const TRY_SHARE: u64 = 2;

/// Measures how soon it is visible what is observed
///
/// A simulated source publishes at a steady rate, a reader waits for what changed. Without --rate, the rate is raised
/// until the pipeline falls behind (the knee), and measured at 25, 50 and 80 % of that. Uses a log and a database of
/// its own, or the Kafka and the database of the configuration, there as the tenant `bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchVerb {
    /// Observations a second, instead of a search for the knee
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=RATE_MAX))]
    rate: Option<u64>,
    /// How long each rate is measured
    #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u64).range(2..))]
    seconds: u64,
    /// Records that take turns
    #[arg(long, value_name = "N", default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=16_000_000))]
    records: u64,
    /// One observation in N changes something
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    change_every: u64,
}

impl BenchVerb {
    pub(crate) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let shutdown = shutdown::on_signal()?;
        let mut config = context.config.clone();
        config.tenant = TENANT.to_owned();
        // Its own, and gone afterwards.
        let dir = tempfile::tempdir()?;
        config.dir = dir.path().to_owned();
        if !config.listen_given {
            config.listen.set_port(0);
        }
        let log = log_store::hold(&config).await?;
        if !log.topics(Some(TENANT)).await?.is_empty() {
            bail!(
                "the log has topics of the tenant {TENANT}, from a run that broke off: delete them with `topics delete`, and its database with them"
            );
        }
        let schemas = registry::register(&config).await?;
        let framing = schemas.framings.observations;
        let topic = Stream::Observations.topic(TENANT);
        let observations = Arc::new(Observations::new(log.clone(), topic, framing));
        let fill = async || {
            observations
                .publish((0..self.records).map(|record| crate::bench::observation(record, None)))
                .await?;
            Ok(())
        };
        let pipeline = Pipeline::start(&config, log.clone(), schemas, true, fill).await?;
        let bench = Bench {
            observations: observations.clone(),
            database_url: pipeline.database_url.clone(),
            tenant: TENANT.to_owned(),
            postgres: pipeline.postgres_pid(),
            next_number: 0,
        };
        let worked = tokio::select! {
            worked = self.measure(context.format, &pipeline, bench) => worked,
            ended = pipeline.ended() => ended,
            () = shutdown.cancelled() => Err(Interrupted.into()),
        };
        let stopped = pipeline.stop().await;
        for topic in log.topics(Some(TENANT)).await? {
            log.delete_topic(&topic.name).await?;
        }
        worked.and(stopped)
    }

    async fn measure(&self, format: Format, pipeline: &Pipeline, mut bench: Bench) -> anyhow::Result<()> {
        pipeline.caught_up().await?;
        pipeline.published().await?;
        if let Some(rate) = self.rate {
            let measured = bench.measure(self.load(rate, self.seconds)).await?;
            return print(format, &[measured.row()]);
        }
        let knee = self.knee(&mut bench).await?;
        let mut rows = Vec::new();
        for share in SHARES {
            let rate = (knee * share / 100).max(1);
            let progress = Progress::begin("measure", &format!("{share} % of the knee"));
            let measured = bench.measure(self.load(rate, self.seconds)).await?;
            progress.end(rate, &format!("{rate} observations a second: measured"));
            rows.push(measured.row());
        }
        match format {
            Format::Json => output::line(&json!({ "knee": knee, "records": self.records }).to_string())?,
            Format::Table => output::line(&format!(
                "The knee: {knee} observations a second over {} records, one in {} a change.\n",
                self.records, self.change_every
            ))?,
        }
        print(format, &rows)
    }

    /// The greatest rate that the pipeline keeps up with.
    async fn knee(&self, bench: &mut Bench) -> anyhow::Result<u64> {
        let (mut kept_up, mut fell_behind) = (0, None);
        let mut rate = RATE_MIN;
        let mut halvings = 0;
        loop {
            let progress = Progress::begin("knee", &format!("{rate} observations a second"));
            let measured = bench.measure(self.load(rate, (self.seconds / TRY_SHARE).max(1))).await?;
            let word = if measured.kept_up() { "kept up" } else { "fell behind" };
            progress.end(rate, &format!("{rate} observations a second: {word}"));
            if measured.kept_up() {
                kept_up = rate;
            } else {
                fell_behind = Some(rate);
            }
            rate = match fell_behind {
                None if rate >= RATE_MAX => return Ok(kept_up),
                None => (rate * 3 / 2).min(RATE_MAX),
                Some(_) if halvings == HALVINGS => return Ok(kept_up),
                Some(above) => {
                    halvings += 1;
                    kept_up.midpoint(above).max(1)
                }
            };
        }
    }

    fn load(&self, rate: u64, seconds: u64) -> Load {
        Load { records: self.records, change_every: self.change_every, rate, seconds }
    }
}

fn print(format: Format, rows: &[Vec<Value>]) -> anyhow::Result<()> {
    let in_words = |value: &Value| match value {
        Value::Object(parts) if format == Format::Table => {
            let parts = parts.iter().map(|(part, cores)| format!("{part} {cores}"));
            Value::String(parts.collect::<Vec<_>>().join(", "))
        }
        other => other.clone(),
    };
    let rows: Vec<Vec<Value>> = rows.iter().map(|row| row.iter().map(in_words).collect()).collect();
    Ok(output::rows(format, &Measured::COLUMNS, &rows)?)
}
