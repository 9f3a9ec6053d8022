//! `/metrics`, `/healthz`, `/readyz` and `/status`.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use anyhow::Context;
use axum::{Json, Router, extract::State, http::StatusCode, response::IntoResponse, routing::get};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use serde::Serialize;
use serviceradar_ops::metrics::{self, Metric};
use serviceradar_replay::{DriverStatus, Phase};
use serviceradar_schemas::time::{Clock, SystemClock};
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

use crate::lag;

/// In the data folder: where the pipeline answers.
pub(crate) const ADDRESS_FILE: &str = "http.address";

/// Seconds that crawls take: from a small network to a large one at a slow source.
const BUCKETS: [f64; 9] = [0.5, 1.0, 3.0, 10.0, 30.0, 60.0, 300.0, 1_800.0, 7_200.0];
/// Seconds that queries take: from a look-up to what the time-out allows.
const QUERY_BUCKETS: [f64; 9] = [0.002, 0.005, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0];
/// How often the recorder folds what was sampled, asked or not, so that it does not pile up.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Where to answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listen {
    /// The address and port.
    pub(crate) address: SocketAddr,
    /// Whether somebody asked for it; if not, and it is taken, a free port will do.
    pub(crate) given: bool,
}

/// Whether the program does what it is for.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Readiness {
    ready: bool,
    role: &'static str,
    detail: String,
}

impl Readiness {
    /// Before anything runs.
    pub(crate) fn starting() -> Self {
        Self { ready: false, role: "starting", detail: String::new() }
    }

    /// Of a program that crawls.
    pub(crate) fn sync() -> Self {
        Self { ready: true, role: "sync", detail: String::new() }
    }

    /// Of a service that answers queries.
    pub(crate) fn service() -> Self {
        Self { ready: true, role: "service", detail: String::new() }
    }

    /// Of a pipeline.
    pub(crate) fn of(phase: &Phase) -> Self {
        let (ready, role, detail) = match phase {
            Phase::Starting => return Self::starting(),
            Phase::Restoring => (false, "starting", "reading the views back"),
            Phase::Loading => (false, "loading", "filling empty views with what the log holds"),
            Phase::Running => (true, "writer", ""),
            Phase::Holding => (true, "writer", "waiting while a generation is promoted"),
            Phase::StandBy => (true, "stand-by", "another process writes the views"),
            Phase::Stopped => (false, "stopped", ""),
            Phase::Failed(why) => (false, "stopped", &**why),
        };
        Self { ready, role, detail: detail.to_owned() }
    }
}

/// Whose status is told: it says of which data folder it is, since whoever reads a port that a stopped process left behind
/// may meet another.
#[derive(Clone)]
pub(crate) struct Told {
    pub(crate) status: watch::Receiver<DriverStatus>,
    pub(crate) dir: PathBuf,
}

/// Answers until the shutdown, and returns where.
pub(crate) fn serve(
    listener: TcpListener,
    readiness: watch::Receiver<Readiness>,
    told: Option<Told>,
    shutdown: CancellationToken,
) -> anyhow::Result<SocketAddr> {
    let prometheus = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &BUCKETS)?
        .set_buckets_for_metric(Matcher::Full(Metric::QuerySeconds.row().name.to_owned()), &QUERY_BUCKETS)?
        .install_recorder()?;
    metrics::describe();
    let address = listener.local_addr()?;
    let upkeep = prometheus.clone();
    let mut routes = Router::new()
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(readyz).with_state(readiness))
        .route("/metrics", get(render).with_state(prometheus));
    if let Some(told) = told {
        let tell = async |State(Told { status, dir }): State<Told>| {
            let mut told = lag::told(&status.borrow(), SystemClock.now());
            told["dir"] = dir.to_string_lossy().into();
            Json(told)
        };
        routes = routes.route("/status", get(tell).with_state(told));
    }
    let keep_up = async move {
        loop {
            tokio::time::sleep(UPKEEP_EVERY).await;
            upkeep.run_upkeep();
        }
    };
    let serving = axum::serve(listener, routes).with_graceful_shutdown(shutdown.cancelled_owned());
    tokio::spawn(async move {
        tokio::select! {
            served = serving.into_future() => {
                if let Err(error) = served {
                    tracing::error!(%error, "/metrics is no longer answered");
                }
            }
            () = keep_up => {}
        }
    });
    Ok(address)
}

/// Takes the address.
pub(crate) async fn bind(listen: Listen) -> anyhow::Result<TcpListener> {
    let Listen { address, given } = listen;
    let bound = match TcpListener::bind(address).await {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && !given => {
            tracing::warn!(%address, "taken by another program: answering on a free port instead");
            TcpListener::bind((address.ip(), 0)).await
        }
        bound => bound,
    };
    bound.with_context(|| format!("cannot answer on {address}: give another --listen"))
}

async fn render(State(prometheus): State<PrometheusHandle>) -> String {
    prometheus.render()
}

async fn readyz(State(readiness): State<watch::Receiver<Readiness>>) -> impl IntoResponse {
    let now = readiness.borrow().clone();
    let status = if now.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(now))
}
