//! The pipeline of this machine: log, database and driver, started and stopped in order.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::bail;
use serviceradar_log::{LogStore, socket};
use serviceradar_materializers::PostgresViews;
use serviceradar_ops::{config::Config, metrics::Metric, postgres::PrivatePostgres};
use serviceradar_replay::{
    Driver, DriverConfig, DriverHandle, DriverStatus, Phase,
    drift::{Expectations, Side, drifts},
    goal::Goal,
};
use serviceradar_schemas::time::{Clock, SystemClock};
use tokio::{sync::watch, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use crate::{
    http::{self, Readiness},
    log_store,
    registry::Schemas,
    verbs::topics,
};

/// How often the metrics follow the status.
const MEASURE_EVERY: Duration = Duration::from_secs(1);
/// Partitions hardly ever come in numbers, and a second worker on two cores costs latency.
pub(crate) const WORKERS: usize = 1;

/// Of a source's instance.
const WRITER_CHARS_MAX: usize = 64;

/// A running pipeline. Ends in order only by [`Pipeline::stop`].
pub(crate) struct Pipeline {
    /// The log it reads.
    pub(crate) log: Arc<dyn LogStore>,
    /// The database it writes.
    pub(crate) database_url: String,
    driver: DriverHandle,
    socket: JoinHandle<()>,
    stopping: CancellationToken,
    postgres: Option<PrivatePostgres>,
    address_file: PathBuf,
}

impl Pipeline {
    /// Starts it on a log that is held, with registered schemas. `migrate`: whether a database that is not ours is brought up to
    /// date, too. `first` is done before anything is read from the log: empty views are filled with all it holds.
    pub(crate) async fn start(
        config: &Config,
        log: Arc<dyn LogStore>,
        schemas: Schemas,
        migrate: bool,
        first: impl AsyncFnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let stopping = CancellationToken::new();
        let listen = http::Listen { address: config.listen, given: config.listen_given };
        let listener = http::bind(listen).await?;
        topics::create(log.as_ref(), config).await?;
        log_store::check(config, log.as_ref()).await?;
        let socket = serve_log(config, log.clone(), stopping.clone());
        let (postgres, database_url) = database(config).await?;
        let views = PostgresViews::connect(&database_url).await?;
        if migrate || postgres.is_some() {
            views.migrate().await?;
        } else {
            views.check().await?;
        }
        first().await?;
        let driver = Driver::start(DriverConfig {
            tenant: config.tenant.clone(),
            writer: writer(config)?,
            workers: WORKERS,
            rules: config.rules.clone(),
            log: log.clone(),
            writers: schemas.writers,
            framings: schemas.framings,
            views: Arc::new(views),
            clock: Arc::new(SystemClock),
            ticks: true,
            journals_kept: config.journals_kept,
            goal: Goal::none(),
        });
        let (readiness, ready) = watch::channel(Readiness::starting());
        let dir = config.dir.canonicalize()?;
        let address_file = dir.join(http::ADDRESS_FILE);
        let told = http::Told { status: driver.watch(), dir };
        let address = http::serve(listener, ready, Some(told), stopping.clone())?;
        // So that `status` finds it, whatever the port.
        std::fs::write(&address_file, address.to_string())?;
        tracing::info!(%address, "answering /metrics, /healthz, /readyz and /status");
        let expect = config.expect.clone();
        tokio::spawn(measure(driver.watch(), readiness, expect, stopping.clone()));
        Ok(Self { log, database_url, driver, socket, stopping, postgres, address_file })
    }

    /// What it is doing.
    pub(crate) fn status(&self) -> DriverStatus {
        self.driver.status()
    }

    /// Waits until everything in the log is in the views.
    pub(crate) async fn caught_up(&self) -> anyhow::Result<()> {
        self.driver.caught_up().await?;
        self.check()
    }

    /// Waits until what waits in the outbox is published.
    pub(crate) async fn published(&self) -> anyhow::Result<()> {
        let mut status = self.driver.watch();
        let is_done = |status: &DriverStatus| {
            matches!(status.phase, Phase::Failed(_) | Phase::Stopped)
                || status.phase == Phase::Running && !status.is_publishing()
        };
        // Whoever tells is gone when it has ended.
        let _ = status.wait_for(is_done).await;
        self.check()
    }

    /// Process id of the private server.
    pub(crate) fn postgres_pid(&self) -> Option<u32> {
        self.postgres.as_ref().map(PrivatePostgres::pid)
    }

    /// Fails if it has ended by itself.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        match self.status().phase {
            Phase::Failed(why) => bail!("the pipeline has stopped: {why}"),
            Phase::Stopped => bail!("the pipeline has stopped"),
            _ => Ok(()),
        }
    }

    /// Waits until it ends by itself, which it does only when it cannot go on.
    pub(crate) async fn ended(&self) -> anyhow::Result<()> {
        let mut status = self.driver.watch();
        let over = |status: &DriverStatus| matches!(status.phase, Phase::Failed(_) | Phase::Stopped);
        // Whoever tells is gone when it has ended.
        let _ = status.wait_for(over).await;
        self.check()
    }

    /// Commits the epoch under way, leaves the tenant, and stops everything that was started.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        let stopped = self.driver.stop().await;
        // Where it stays, what answers there says that it is another.
        std::fs::remove_file(&self.address_file).ok();
        self.stopping.cancel();
        let served = self.socket.await;
        drop(self.log);
        if let Some(postgres) = self.postgres {
            postgres.stop().await;
        }
        stopped?;
        Ok(served?)
    }
}

fn serve_log(config: &Config, log: Arc<dyn LogStore>, stopping: CancellationToken) -> JoinHandle<()> {
    let path = log_store::socket(config);
    tokio::spawn(async move {
        if let Some(path) = path
            && let Err(error) = socket::serve(log, &path, stopping.cancelled_owned()).await
        {
            tracing::error!(%error, "other programs of this machine cannot reach the log");
        }
    })
}

/// The database of the configuration, or a private one.
pub(crate) async fn database(config: &Config) -> anyhow::Result<(Option<PrivatePostgres>, String)> {
    match &config.database_url {
        Some(url) => Ok((None, url.reveal().to_owned())),
        None => {
            let postgres = PrivatePostgres::start(&config.dir.join("postgres")).await?;
            let url = postgres.url().to_owned();
            Ok((Some(postgres), url))
        }
    }
}

/// One name for whoever holds the log of this folder: its lock says that the former one is gone, so the
/// next need not wait until the database has noticed. A log that nobody holds says nothing of the kind: there, one
/// name for each process, also where two containers have one host name and number their processes alike. Has the form
/// of a source's instance: TICKs carry it.
pub(crate) fn writer(config: &Config) -> anyhow::Result<String> {
    let host = nix::unistd::gethostname()?;
    let of_host = match &config.kafka {
        None => config.dir.canonicalize()?.display().to_string(),
        Some(_) => format!("-{}-{:x}", std::process::id(), SystemClock.now()),
    };
    let place = format!("{}{of_host}", host.to_string_lossy());
    let name = place.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' });
    Ok(name.skip(place.chars().count().saturating_sub(WRITER_CHARS_MAX)).collect())
}

/// Lets metrics and readiness follow the status.
async fn measure(
    mut status: watch::Receiver<DriverStatus>,
    readiness: watch::Sender<Readiness>,
    expect: Expectations,
    stopping: CancellationToken,
) {
    loop {
        let now = status.borrow_and_update().clone();
        readiness.send_replace(Readiness::of(&now.phase));
        gauge(&now);
        gauge_drift(&now, &expect);
        tokio::select! {
            () = stopping.cancelled() => return,
            () = tokio::time::sleep(MEASURE_EVERY) => {}
        }
    }
}

fn gauge(status: &DriverStatus) {
    let truth = |truth: bool| f64::from(u8::from(truth));
    let running = matches!(status.phase, Phase::Loading | Phase::Running | Phase::Holding);
    Metric::Running.set(None, truth(running));
    Metric::CaughtUp.set(None, truth(running && status.lag_events() == 0));
    Metric::Epoch.set(None, status.epoch as f64);
    Metric::EpochMilliseconds.set(None, status.epoch_ms as f64);
    Metric::Records.set(None, status.records as f64);
    Metric::BiggestBlock.set(None, status.biggest_block as f64);
    Metric::ClocksOff.set(None, status.clocks_off.len() as f64);
    Metric::SettingProblems.set(None, status.setting_problems.len() as f64);
    Metric::Events.raise_to(status.events);
    Metric::Changes.raise_to(status.changes);
    Metric::BlocksDecided.raise_to(status.blocks_decided);
    Metric::Refusals.raise_to(status.dead_letters);
    for (partition, found) in &status.partitions {
        Metric::LagEvents.set(Some(&**partition), found.lag_events() as f64);
        Metric::LagSeconds.set(Some(&**partition), found.lag_seconds(SystemClock.now()).unwrap_or(f64::NAN));
        Metric::NextOffset.set(Some(&**partition), found.next_offset as f64);
        Metric::Stalled.set(Some(&**partition), truth(found.stalled.is_some()));
    }
}

/// Of views that are being filled, or read back, nothing is known yet.
fn gauge_drift(status: &DriverStatus, expect: &Expectations) {
    if status.phase != Phase::Running {
        return;
    }
    let side = |alarm: Option<Side>| match alarm {
        None => 0.0,
        Some(Side::Low) => -1.0,
        Some(Side::High) => 1.0,
    };
    for drift in drifts(&status.scopes, expect) {
        let of = &*drift.partition;
        Metric::Devices.set(Some(of), drift.found as f64);
        if let Some(expected) = drift.expected {
            Metric::DevicesExpected.set(Some(of), expected as f64);
        }
        let claims = status.scopes.get(of).and_then(|scope| scope.exclusive_claims).unwrap_or_default();
        Metric::ExclusiveClaims.set(Some(of), claims as f64);
        Metric::ExclusiveRatio.set(Some(of), drift.ratio.unwrap_or(f64::NAN));
        Metric::DriftAlarm.set([of, "devices"], side(drift.devices_alarm));
        Metric::DriftAlarm.set([of, "ratio"], side(drift.ratio_alarm));
    }
}
