//! A session with PostgreSQL: its statements, its staging tables, and what its errors mean.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use bytes::Bytes;
use futures_util::SinkExt;
use tokio_postgres::{Client, Config, NoTls, Row, Statement, error::SqlState, types::ToSql};

use super::copy::CopyRows;
use crate::views::ViewsError;

/// Settings of a writer's session. Plans are made for what is staged at the moment, not for what was staged
/// first. A lock that is held for longer belongs to somebody who is stuck: better to try again.
const SETTINGS: &str = "SET ROLE serviceradar_writer;
    SET plan_cache_mode = force_custom_plan;
    SET random_page_cost = 1.1;
    SET work_mem = '64MB';
    SET lock_timeout = '10s';
    SET idle_in_transaction_session_timeout = '60s'";

/// How long a connection may take to come about, to each of a host's addresses.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// How long what was sent may stay without a sign that it was received: after that the host is gone, not slow. A
/// database that takes its time gives that sign.
const SILENT_MAX: Duration = Duration::from_secs(30);
/// A host that has said nothing for so long is asked whether it is there, so often, so many times.
const PROBE_AFTER: Duration = Duration::from_secs(15);
const PROBE_EVERY: Duration = Duration::from_secs(5);
const PROBES: u32 = 3;

/// What a parameter of a statement is.
pub(crate) type Parameter<'a> = &'a (dyn ToSql + Sync);

/// One connection. After an error it is of no more use: whoever has it drops it and takes a new one.
pub(crate) struct Session {
    client: Client,
    statements: HashMap<String, Statement>,
    staged: HashSet<String>,
}

impl Session {
    /// Connects.
    pub(crate) async fn connect(url: &str) -> Result<Self, ViewsError> {
        let (client, connection) = config(url)?.connect(NoTls).await.map_err(views_error)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                // Whoever uses the session hears of it.
                tracing::debug!(%error, "a database connection ended");
            }
        });
        Ok(Self { client, statements: HashMap::new(), staged: HashSet::new() })
    }

    /// The client.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Takes on the role that writes.
    pub(crate) async fn become_writer(&mut self) -> Result<(), ViewsError> {
        self.client.batch_execute(SETTINGS).await.map_err(views_error)
    }

    /// Is for the moment who connected: who may see, and end, sessions of its own.
    pub(crate) async fn as_login(&mut self) -> Result<(), ViewsError> {
        self.begin("RESET ROLE").await
    }

    /// Is the role that writes again.
    pub(crate) async fn as_writer(&mut self) -> Result<(), ViewsError> {
        self.begin("SET ROLE serviceradar_writer").await
    }

    /// Gives the session a name that others see.
    pub(crate) async fn call_it(&mut self, name: &str) -> Result<(), ViewsError> {
        self.execute("SELECT set_config('application_name', $1, false)", &[&name]).await.map(drop)
    }

    /// Lets names without a schema be those of a generation.
    pub(crate) async fn use_generation(&mut self, schema: &str) -> Result<(), ViewsError> {
        let set = format!("SET search_path = {schema}, serviceradar_base, public");
        self.client.batch_execute(&set).await.map_err(views_error)
    }

    /// Runs a command without rows or parameters: BEGIN, COMMIT, ROLLBACK.
    pub(crate) async fn begin(&mut self, command: &str) -> Result<(), ViewsError> {
        self.client.batch_execute(command).await.map_err(views_error)
    }

    /// Runs a statement; returns how many rows it touched.
    pub(crate) async fn execute(
        &mut self,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<u64, ViewsError> {
        let statement = self.prepared(sql).await?;
        self.client.execute(&statement, parameters).await.map_err(views_error)
    }

    /// Runs a query.
    pub(crate) async fn query(
        &mut self,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Vec<Row>, ViewsError> {
        let statement = self.prepared(sql).await?;
        self.client.query(&statement, parameters).await.map_err(views_error)
    }

    /// Runs a query of one row.
    pub(crate) async fn query_one(
        &mut self,
        sql: &str,
        parameters: &[Parameter<'_>],
    ) -> Result<Row, ViewsError> {
        let statement = self.prepared(sql).await?;
        self.client.query_one(&statement, parameters).await.map_err(views_error)
    }

    async fn prepared(&mut self, sql: &str) -> Result<Statement, ViewsError> {
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.client.prepare(sql).await.map_err(views_error)?;
        self.statements.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }

    /// Makes a temporary table that each commit empties, once in a session, from a query for its columns.
    pub(crate) async fn stage(&mut self, name: &str, columns_of: &str) -> Result<(), ViewsError> {
        if self.staged.contains(name) {
            return Ok(());
        }
        let create = format!("CREATE TEMP TABLE {name} ON COMMIT DELETE ROWS AS {columns_of} WITH NO DATA");
        self.client.batch_execute(&create).await.map_err(views_error)?;
        self.staged.insert(name.to_owned());
        Ok(())
    }

    /// Empties what was staged, within a transaction.
    pub(crate) async fn clear_stages(&mut self) -> Result<(), ViewsError> {
        if self.staged.is_empty() {
            return Ok(());
        }
        let names: Vec<&str> = self.staged.iter().map(String::as_str).collect();
        self.begin(&format!("TRUNCATE {}", names.join(", "))).await
    }

    /// Copies items into a table, each written by `put`; `into` names table and columns.
    pub(crate) async fn copy<T>(
        &mut self,
        into: &str,
        items: impl Iterator<Item = T> + Send,
        put: impl Fn(T, &mut CopyRows) + Send,
    ) -> Result<u64, ViewsError> {
        let statement = self.prepared(&format!("COPY {into} FROM STDIN BINARY")).await?;
        let sink = self.client.copy_in::<_, Bytes>(&statement).await.map_err(views_error)?;
        let mut sink = std::pin::pin!(sink);
        let mut rows = CopyRows::new();
        for item in items {
            put(item, &mut rows);
            if let Some(chunk) = rows.full_chunk() {
                sink.send(chunk).await.map_err(views_error)?;
            }
        }
        sink.send(rows.finish()).await.map_err(views_error)?;
        sink.finish().await.map_err(views_error)
    }
}

/// How to connect; what the URL says counts.
fn config(url: &str) -> Result<Config, ViewsError> {
    let mut config: Config = url.parse().map_err(views_error)?;
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(CONNECT_WITHIN);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(SILENT_MAX);
    }
    if config.get_keepalives_idle() == Config::new().get_keepalives_idle() {
        config.keepalives_idle(PROBE_AFTER).keepalives_interval(PROBE_EVERY).keepalives_retries(PROBES);
    }
    Ok(config)
}

/// What an error of PostgreSQL means for whoever writes views: gone for now, or refused.
pub(crate) fn views_error(error: tokio_postgres::Error) -> ViewsError {
    let Some(said) = error.as_db_error() else {
        // The crate has no other way to tell it: what came is not what the column should hold.
        if error.to_string().starts_with("error deserializing column") {
            return ViewsError::Refused(format!("a row cannot be read: {}", with_causes(&error)));
        }
        // No answer at all: the connection was lost, or never came to be.
        return ViewsError::Unavailable(with_causes(&error));
    };
    let code = said.code();
    let passes = [
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::QUERY_CANCELED,
    ];
    // Classes: 08 connection, 53 resources (a full disk among them), 57 the operator, 58 the system.
    let class = code.code().get(..2).unwrap_or_default();
    if passes.contains(code)
        || ["08", "53", "57", "58"].contains(&class)
        || *code == SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT
    {
        return ViewsError::Unavailable(format!("{} ({})", said.message(), code.code()));
    }
    let detail = said.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
    let place = said.where_().map(|place| format!(" [{place}]")).unwrap_or_default();
    ViewsError::Refused(format!("{}{detail} ({}){place}", said.message(), code.code()))
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
