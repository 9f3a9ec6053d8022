//! Live queries, over server-sent events and WebSocket.

use std::{
    convert::Infallible,
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{
    extract::{
        FromRequestParts, Query as Parameters, Request, State,
        ws::{Message, WebSocket, WebSocketUpgrade},
    },
    http::{HeaderMap, StatusCode, header},
    response::{
        IntoResponse, Response,
        sse::{Event as Sent, KeepAlive, Sse},
    },
};
use futures_util::{StreamExt, future::try_join, stream::poll_fn};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, broadcast, mpsc};
use tokio_postgres::{AsyncMessage, NoTls};
use tokio_util::sync::CancellationToken;

use super::{
    Asking, Failure, Service,
    callers::Caller,
    checked_limit,
    measured::{Route, Underway},
    readers::PerTenant,
};
use crate::{
    error::{Code, QueryError},
    live::{Event, Position},
    plan::{Extent, Plan, plan},
};

/// Live queries of a tenant at a time; who asks more is told to wait.
pub const LIVE_MAX: usize = 64;
/// Events that wait to be sent: who takes them slowly is told of several epochs at once.
const EVENTS_WAITING: usize = 256;
/// Commits that wait to be looked at; who misses some looks anyway.
const COMMITS_WAITING: usize = 256;
/// How long until the database is connected to again.
const AGAIN: Duration = Duration::from_secs(1);
/// How often something is sent where nothing happens, so that nobody on the way takes the connection for dead.
const ALIVE: Duration = Duration::from_secs(15);
/// The channel that a commit notifies; its payload is an object with the tenant.
const LISTEN: &str = "LISTEN serviceradar";

/// What live queries share.
pub struct Live {
    queries: PerTenant,
    /// Tells which tenants had an epoch committed.
    commits: OnceLock<broadcast::Sender<Option<Arc<str>>>>,
    stopping: CancellationToken,
}

impl Live {
    /// They end when it is cancelled.
    pub fn new(stopping: CancellationToken) -> Self {
        Self { queries: PerTenant::new(LIVE_MAX), commits: OnceLock::new(), stopping }
    }

    /// Tells of all commits from now on: the tenant, or nothing where some may have been missed.
    fn commits(&self, url: &str) -> broadcast::Receiver<Option<Arc<str>>> {
        let start = || {
            let told = broadcast::Sender::new(COMMITS_WAITING);
            tokio::spawn(listen(url.to_owned(), told.clone()));
            told
        };
        self.commits.get_or_init(start).subscribe()
    }
}

/// Listens for as long as the program runs; a connection that ends is made again.
async fn listen(url: String, told: broadcast::Sender<Option<Arc<str>>>) {
    loop {
        if let Err(error) = listen_once(&url, &told).await {
            tracing::warn!(%error, "commits are not heard");
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn listen_once(
    url: &str,
    told: &broadcast::Sender<Option<Arc<str>>>,
) -> Result<(), tokio_postgres::Error> {
    let (client, mut connection) = tokio_postgres::connect(url, NoTls).await?;
    let mut messages = poll_fn(move |context| connection.poll_message(context));
    let listening = client.batch_execute(LISTEN);
    let hearing = async {
        while let Some(message) = messages.next().await {
            if let AsyncMessage::Notification(notification) = message? {
                let payload: Value = serde_json::from_str(notification.payload()).unwrap_or_default();
                // Nobody who listens is no error.
                _ = told.send(payload["tenant"].as_str().map(Arc::from));
            }
        }
        Ok(())
    };
    let listening = async {
        listening.await?;
        // What was committed before nobody told of.
        _ = told.send(None);
        Ok(())
    };
    try_join(hearing, listening).await.map(|_| ())
}

/// What a live query is asked by.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    #[serde(alias = "q")]
    query: String,
    #[serde(default)]
    limit: Option<i64>,
}

/// What is sent: a name, and an object as JSON.
type Told = (&'static str, String);

/// `GET /api/query/stream`: server-sent events, or a WebSocket where that is asked for.
pub(super) async fn stream(
    State(service): State<Arc<Service>>,
    Asking(caller): Asking,
    parameters: Result<Parameters<Asked>, axum::extract::rejection::QueryRejection>,
    request: Request,
) -> Result<Response, Failure> {
    let underway = Underway::new(&service.meter, Route::Stream);
    followed(service, &caller, parameters, request, &underway)
        .await
        .inspect_err(|failure| underway.refused(failure))
}

async fn followed(
    service: Arc<Service>,
    caller: &Caller,
    parameters: Result<Parameters<Asked>, axum::extract::rejection::QueryRejection>,
    request: Request,
    underway: &Arc<Underway>,
) -> Result<Response, Failure> {
    let (mut parts, _) = request.into_parts();
    let Parameters(asked) = parameters
        .map_err(|error| Failure::one(StatusCode::BAD_REQUEST, Code::Syntax, &error.body_text()))?;
    if !parts.headers.contains_key(header::UPGRADE) {
        let events = service.follow(caller, asked, underway).await?;
        let events = futures_util::stream::unfold(events, async |mut events| {
            let (name, told) = events.recv().await?;
            Some((Ok::<_, Infallible>(Sent::default().event(name).data(told)), events))
        });
        return Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(ALIVE)).into_response());
    }
    check_origin(&parts.headers)?;
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &service)
        .await
        .map_err(|error| Failure::one(StatusCode::BAD_REQUEST, Code::Syntax, &error.body_text()))?;
    let events = service.follow(caller, asked, underway).await?;
    Ok(upgrade.on_upgrade(|socket| send(socket, events)))
}

/// A page of another site may not ask with what the browser knows of this one.
fn check_origin(headers: &HeaderMap) -> Result<(), Failure> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
    let host = origin.to_str().ok().and_then(|origin| Some(origin.split_once("://")?.1));
    if host.is_some() && host == text(header::HOST) {
        return Ok(());
    }
    let said = "pages of other sites may not follow queries here";
    Err(Failure::one(StatusCode::FORBIDDEN, Code::Forbidden, said))
}

/// Sends what happens, until nobody takes it.
async fn send(mut socket: WebSocket, mut events: mpsc::Receiver<Told>) {
    let mut alive = tokio::time::interval(ALIVE);
    loop {
        let message = tokio::select! {
            told = events.recv() => match told {
                Some((_, told)) => Message::Text(told.into()),
                None => break,
            },
            _ = alive.tick() => Message::Ping(Default::default()),
            // What is said here is nothing; that it ends is.
            said = socket.recv() => match said {
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                Some(Ok(_)) => continue,
            },
        };
        if socket.send(message).await.is_err() {
            return;
        }
    }
    // Who left hears no farewell.
    _ = socket.send(Message::Close(None)).await;
}

impl Service {
    /// What a live query is told; of one that cannot be answered, why. It ends with the caller's credential.
    async fn follow(
        self: Arc<Self>,
        caller: &Caller,
        asked: Asked,
        underway: &Arc<Underway>,
    ) -> Result<mpsc::Receiver<Told>, Failure> {
        let limit = asked.limit.map(checked_limit).transpose()?;
        let plan = plan(&asked.query, self.clock.now(), Extent::Live { limit })?;
        let permit = self.live.queries.try_acquire(&caller.tenant).ok_or_else(Failure::busy)?;
        // Before the rows are read: what is committed meanwhile is heard.
        let commits = self.live.commits(self.readers.url());
        let (tenant, underway, ended) = (caller.tenant.clone(), underway.clone(), underway.clone());
        let mut query = LiveQuery { service: self, tenant, plan, at: None, underway, _permit: permit };
        let first = query.look().await?;
        let (put, events) = mpsc::channel(EVENTS_WAITING);
        let (stopping, expired) = (query.service.live.stopping.clone(), query.service.expired(caller));
        tokio::spawn(async move {
            // Whatever it is at: who takes events slowly, or not at all, holds up no end.
            tokio::select! {
                () = stopping.cancelled() => ended.answered(),
                () = expired => {
                    let failure =
                        Failure::one(StatusCode::UNAUTHORIZED, Code::Unauthenticated, "the credential has expired");
                    ended.refused(&failure);
                    // Where none more can wait the end alone tells it.
                    _ = put.try_send(failed(&failure.mistakes));
                }
                () = query.run(first, commits, &put) => {}
            }
        });
        Ok(events)
    }

    /// Until a caller's credential expires.
    fn expired(&self, caller: &Caller) -> impl Future<Output = ()> + use<> {
        let left =
            |at: i64| Duration::from_micros(at.saturating_sub(self.clock.now()).max(0).cast_unsigned());
        let left = caller.expires.map(left);
        async move {
            match left {
                Some(left) => tokio::time::sleep(left).await,
                None => std::future::pending().await,
            }
        }
    }
}

/// A live query under way.
struct LiveQuery {
    service: Arc<Service>,
    tenant: String,
    plan: Plan,
    at: Option<Position>,
    underway: Arc<Underway>,
    _permit: OwnedSemaphorePermit,
}

impl LiveQuery {
    /// What happened since the last look.
    async fn look(&mut self) -> Result<Vec<Event>, Failure> {
        let Some(follow) = &self.plan.follow else { return Ok(Vec::new()) };
        let mut borrowed = match self.at {
            None => self.service.readers.borrow(&self.tenant).await?,
            Some(_) => self.service.readers.borrow_in_turn(&self.tenant).await?,
        };
        let told = borrowed.reader.follow(&self.tenant, (&self.plan, follow), self.at).await;
        self.service.readers.give_back(borrowed);
        let (at, events) = told?;
        self.at = Some(at);
        Ok(events)
    }

    /// Puts what happened where it is sent from. Returns whether somebody takes it.
    async fn put(&self, events: Vec<Event>, put: &mpsc::Sender<Told>) -> bool {
        let Some(at) = self.at else { return false };
        for event in events {
            let (name, told) = event.told(at, &self.plan.columns);
            let told = told.to_string();
            self.underway.found(1);
            self.underway.wrote(told.len());
            if put.send((name, told)).await.is_err() {
                return false;
            }
        }
        true
    }

    async fn run(
        mut self,
        first: Vec<Event>,
        mut commits: broadcast::Receiver<Option<Arc<str>>>,
        put: &mpsc::Sender<Told>,
    ) {
        let mut looked: Result<_, Failure> = Ok(first);
        loop {
            match looked {
                Ok(events) => {
                    if !self.put(events, put).await {
                        return;
                    }
                }
                Err(failure) => {
                    self.underway.refused(&failure);
                    _ = put.send(failed(&failure.mistakes)).await;
                    return;
                }
            }
            loop {
                tokio::select! {
                    () = put.closed() => return,
                    heard = commits.recv() => match heard {
                        Ok(Some(tenant)) if *tenant != *self.tenant => {}
                        Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => break,
                        Err(broadcast::error::RecvError::Closed) => return,
                    },
                }
            }
            looked = self.look().await;
        }
    }
}

/// Why a live query ended.
fn failed(mistakes: &[QueryError]) -> Told {
    ("error", json!({ "event": "error", "error": mistakes.first(), "errors": mistakes }).to_string())
}
