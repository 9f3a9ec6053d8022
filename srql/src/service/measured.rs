//! What is measured of queries, for whoever runs the service.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::Failure;

/// Where a query is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/api/query`
    Query,
    /// `/api/query/stream`
    Stream,
    /// `/api/srql/explain`
    Explain,
    /// `Query.Run` of gRPC
    GrpcRun,
    /// `Query.Explain` of gRPC
    GrpcExplain,
}

impl Route {
    /// What is measured at a path over HTTP, if anything.
    pub(super) fn of_path(path: &str) -> Option<Self> {
        match path {
            "/api/query" => Some(Route::Query),
            "/api/query/stream" => Some(Route::Stream),
            "/api/srql/explain" => Some(Route::Explain),
            _ => None,
        }
    }

    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Route::Query => "query",
            Route::Stream => "stream",
            Route::Explain => "explain",
            Route::GrpcRun => "grpc_run",
            Route::GrpcExplain => "grpc_explain",
        }
    }
}

/// A query that is over.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// Where it was asked.
    pub route: Route,
    /// `ok`; the code of what was wrong, or `busy`, `cut` or `not_collected`; or `given_up` where nobody waited for the answer.
    pub outcome: &'static str,
    /// From the question to the last byte.
    pub took: Duration,
    /// Rows of the answer.
    pub rows: u64,
    /// Bytes of the answer, before they are packed.
    pub bytes: u64,
}

/// Takes measures.
pub trait Meter: Send + Sync {
    /// A query is asked.
    fn begun(&self, route: Route);
    /// It is over.
    fn ended(&self, query: &Ended);
}

/// Takes none.
impl Meter for () {
    fn begun(&self, _: Route) {}
    fn ended(&self, _: &Ended) {}
}

/// A query under way, until the last who answers it lets go.
pub(super) struct Underway {
    meter: Arc<dyn Meter>,
    route: Route,
    started: Instant,
    outcome: OnceLock<&'static str>,
    rows: AtomicU64,
    bytes: AtomicU64,
}

impl Underway {
    pub(super) fn new(meter: &Arc<dyn Meter>, route: Route) -> Arc<Self> {
        meter.begun(route);
        Arc::new(Self {
            meter: meter.clone(),
            route,
            started: Instant::now(),
            outcome: OnceLock::new(),
            rows: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
        })
    }

    pub(super) fn found(&self, rows: usize) {
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
    }

    pub(super) fn wrote(&self, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn answered(&self) {
        self.outcome.get_or_init(|| "ok");
    }

    pub(super) fn refused(&self, failure: &Failure) {
        self.outcome.get_or_init(|| failure.outcome());
    }
}

impl Drop for Underway {
    fn drop(&mut self) {
        self.meter.ended(&Ended {
            route: self.route,
            outcome: self.outcome.get().copied().unwrap_or("given_up"),
            took: self.started.elapsed(),
            rows: self.rows.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
        });
    }
}
