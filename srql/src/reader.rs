//! Answering: as `serviceradar_reader`, of one tenant, in one read-only transaction of the active generation.

use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use serde_json::{Value, json};
use serviceradar_schemas::time;
use tokio::sync::mpsc;
use tokio_postgres::{
    Client, IsolationLevel, NoTls, Row, Transaction,
    error::SqlState,
    types::{FromSql, ToSql, Type},
};

use crate::{
    error::{Code, QueryError},
    page::{Keyset, Way},
    plan::{Column, Plan, Shape},
    statement::{EPOCH_OF_POSTGRES, Statement},
};

/// Rows that wait between the database and whoever takes them.
pub(crate) const ROWS_WAITING: usize = 64;
/// How long a statement may take.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);

/// A session that answers.
pub struct Reader {
    client: Client,
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// What its rows have.
    pub columns: Vec<Column>,
    /// Rows, a value per column.
    pub rows: Vec<Vec<Value>>,
    /// Of a page, where the next begins, and the one before, where there are more rows.
    pub next: Option<Keyset>,
    /// See `next`.
    pub previous: Option<Keyset>,
    /// How many rows there are in all, where that was asked.
    pub total: Option<i64>,
    /// Where it was read from.
    pub generation: i64,
    /// The last committed epoch of the tenant there; none before the first.
    pub epoch: Option<i64>,
    /// When the input of that epoch was closed, microseconds since 1970.
    pub complete_to: Option<i64>,
    /// How long it took.
    pub took: Duration,
}

/// A time, microseconds since 1970.
struct Micros(i64);

impl<'a> FromSql<'a> for Micros {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Micros(i64::from_be_bytes(raw.try_into()?).saturating_add(EPOCH_OF_POSTGRES)))
    }

    fn accepts(of: &Type) -> bool {
        *of == Type::TIMESTAMPTZ
    }
}

impl Reader {
    /// Connects.
    pub async fn connect(url: &str) -> Result<Self, QueryError> {
        let (client, connection) =
            tokio_postgres::connect(url, NoTls).await.map_err(|error| unavailable(&error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a database connection ended");
            }
        });
        Ok(Self { client })
    }

    /// Answers a query of a tenant, with all its rows.
    pub async fn answer(&mut self, tenant: &str, plan: &Plan) -> Result<Answer, QueryError> {
        let (put, mut rows) = mpsc::channel(ROWS_WAITING);
        let page = plan.page.as_ref();
        let limit = match page {
            Some(_) => usize::try_from(plan.limit.unwrap_or(i64::MAX)).unwrap_or(usize::MAX),
            None => usize::MAX,
        };
        let taking = async move {
            let mut read: Vec<(Vec<Value>, Vec<Option<String>>)> = Vec::new();
            while read.len() <= limit
                && let Some(row) = rows.recv().await
            {
                let keys = texts(&row, plan.columns.len(), page.map_or(0, |page| page.keys));
                read.push((values(&row, &plan.columns)?, keys.map_err(|error| said(&error))?));
            }
            Ok::<_, QueryError>(read)
        };
        let (answer, read) = tokio::join!(self.rows(tenant, plan, put), taking);
        let (answer, mut read) = (answer?, read?);
        let has_more = read.len() > limit;
        read.truncate(limit);
        let way = page.and_then(|page| Some(page.from.as_ref()?.way));
        if way == Some(Way::Previous) {
            read.reverse();
        }
        let keyset = |row: Option<&(Vec<Value>, Vec<Option<String>>)>, way| {
            row.map(|(_, keys)| Keyset { way, values: keys.clone() })
        };
        // Where a page came from there are rows, or were.
        let (is_next, is_previous) = match way {
            None => (has_more && page.is_some(), false),
            Some(Way::Next) => (has_more, true),
            Some(Way::Previous) => (true, has_more),
        };
        let next = keyset(read.last(), Way::Next).filter(|_| is_next);
        let previous = keyset(read.first(), Way::Previous).filter(|_| is_previous);
        let rows = read.into_iter().map(|(row, _)| row).collect();
        Ok(Answer { rows, next, previous, ..answer })
    }

    /// Refuses a query whose cost, as the database estimates it, is higher than this.
    pub async fn check_cost(&mut self, tenant: &str, plan: &Plan, cost_max: f64) -> Result<(), QueryError> {
        let (_, cost) = self.explain(tenant, plan).await?;
        if cost <= cost_max {
            return Ok(());
        }
        let said = "this would take the database too long";
        Err(QueryError::new(Code::TooExpensive, (0, 0), said)
            .hint("ask for less: a time, a prefix, fewer groups"))
    }

    /// How the database would find the rows, and at which cost, as it estimates it.
    pub async fn explain(&mut self, tenant: &str, plan: &Plan) -> Result<(Value, f64), QueryError> {
        let (transaction, _) = self.begin(tenant).await?;
        let (mut plans, mut cost) = (Vec::new(), 0.0);
        for statement in plan.statements.iter().chain(&plan.total) {
            let explain = format!("EXPLAIN (FORMAT JSON) {}", statement.sql);
            let row = transaction.query_one(&explain, &parameters(statement)).await;
            let explained: Value = row.and_then(|row| row.try_get(0)).map_err(|error| said(&error))?;
            cost += explained[0]["Plan"]["Total Cost"].as_f64().unwrap_or_default();
            plans.push(explained);
        }
        Ok((Value::Array(plans), cost))
    }

    /// When the input of the tenant's last epoch was closed, microseconds since 1970.
    pub async fn complete_to(&mut self, tenant: &str) -> Result<Option<i64>, QueryError> {
        let (_, active) = self.begin(tenant).await?;
        Ok(active.get::<_, Option<Micros>>(3).map(|at| at.0))
    }

    /// Whether its connection has ended.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    async fn begin(&mut self, tenant: &str) -> Result<(Transaction<'_>, Row), QueryError> {
        let begun = self.client.build_transaction().isolation_level(IsolationLevel::RepeatableRead);
        let transaction = begun.read_only(true).start().await.map_err(|error| said(&error))?;
        let active = enter(&transaction, tenant).await?;
        Ok((transaction, active))
    }

    /// Answers a query of a tenant, row by row, as they come, for as long as `take` wants more. What is returned has no
    /// rows.
    pub async fn read(
        &mut self,
        tenant: &str,
        plan: &Plan,
        mut take: impl FnMut(Vec<Value>) -> bool,
    ) -> Result<Answer, QueryError> {
        let (put, mut rows) = mpsc::channel(ROWS_WAITING);
        let taking = async move {
            while let Some(row) = rows.recv().await {
                if !take(values(&row, &plan.columns)?) {
                    break;
                }
            }
            Ok::<_, QueryError>(())
        };
        let (answer, taken) = tokio::join!(self.rows(tenant, plan, put), taking);
        taken?;
        answer
    }

    /// Puts the rows of an answer into a channel, until there are no more, or nobody takes them.
    pub(crate) async fn rows(
        &mut self,
        tenant: &str,
        plan: &Plan,
        put: mpsc::Sender<Row>,
    ) -> Result<Answer, QueryError> {
        let started = Instant::now();
        let (transaction, active) = self.begin(tenant).await?;
        let total = match &plan.total {
            Some(total) => {
                let row = transaction.query_one(&total.sql, &parameters(total)).await;
                Some(row.map_err(|error| said(&error))?.get(0))
            }
            None => None,
        };
        'all: for statement in &plan.statements {
            let rows = transaction.query_raw(&statement.sql, parameters(statement)).await;
            let mut rows = std::pin::pin!(rows.map_err(|error| said(&error))?);
            while let Some(row) = rows.try_next().await.map_err(|error| said(&error))? {
                if put.send(row).await.is_err() {
                    break 'all;
                }
            }
        }
        Ok(Answer {
            columns: plan.columns.clone(),
            rows: Vec::new(),
            next: None,
            previous: None,
            total,
            generation: active.get(0),
            epoch: active.get(2),
            complete_to: active.get::<_, Option<Micros>>(3).map(|at| at.0),
            took: started.elapsed(),
        })
    }
}

/// Makes a transaction one of a tenant's reader on the active generation. Returns that: its number, its schema, its last
/// epoch, and when that was closed.
async fn enter(transaction: &Transaction<'_>, tenant: &str) -> Result<Row, QueryError> {
    let timeout = STATEMENT_TIMEOUT.as_millis().to_string();
    let set = "SELECT set_config('role', 'serviceradar_reader', true),
               set_config('serviceradar.tenant', $1, true), set_config('statement_timeout', $2, true),
               set_config('plan_cache_mode', 'force_custom_plan', true)";
    transaction.query_one(set, &[&tenant, &timeout]).await.map_err(|error| said(&error))?;
    let active = "SELECT g.id::bigint, g.schema, e.epoch, e.closed_at
                  FROM serviceradar.pipeline_generations g
                  LEFT JOIN LATERAL (
                    SELECT epoch, closed_at FROM serviceradar.pipeline_epochs e
                    WHERE e.generation = g.id ORDER BY epoch DESC LIMIT 1) e ON true
                  WHERE g.state = 'active'";
    let active = transaction.query_opt(active, &[]).await.map_err(|error| said(&error))?;
    let active = active.ok_or_else(|| {
        let none = "there are no views to read";
        QueryError::new(Code::Unavailable, (0, 0), none).hint("start a pipeline: serviceradar run")
    })?;
    let schema: String = active.get(1);
    let path = "SELECT set_config('search_path', quote_ident($1::text || '_read') || ', serviceradar, public', true)";
    transaction.query_one(path, &[&schema]).await.map_err(|error| said(&error))?;
    Ok(active)
}

fn parameters(statement: &Statement) -> Vec<&(dyn ToSql + Sync)> {
    statement.parameters.iter().map(|parameter| parameter as &(dyn ToSql + Sync)).collect()
}

/// The values of a row, of its columns.
pub(crate) fn values(row: &Row, columns: &[Column]) -> Result<Vec<Value>, QueryError> {
    try_values(row, columns).map_err(|error| said(&error))
}

fn try_values(row: &Row, columns: &[Column]) -> Result<Vec<Value>, tokio_postgres::Error> {
    let value = |(at, column): (usize, &Column)| {
        Ok(match column.shape {
            Shape::Text => json!(row.try_get::<_, Option<String>>(at)?),
            Shape::Integer => json!(row.try_get::<_, Option<i64>>(at)?),
            Shape::Number => json!(row.try_get::<_, Option<f64>>(at)?),
            Shape::Bool => json!(row.try_get::<_, Option<bool>>(at)?),
            Shape::Time => json!(row.try_get::<_, Option<Micros>>(at)?.map(|at| time::format(at.0))),
            Shape::Texts => json!(row.try_get::<_, Option<Vec<Option<String>>>>(at)?),
            Shape::Json => row.try_get::<_, Option<Value>>(at)?.unwrap_or_default(),
        })
    };
    columns.iter().enumerate().map(value).collect()
}

/// The texts behind the columns of a row.
fn texts(row: &Row, from: usize, count: usize) -> Result<Vec<Option<String>>, tokio_postgres::Error> {
    (from..from + count).map(|at| row.try_get(at)).collect()
}

fn unavailable(error: &tokio_postgres::Error) -> QueryError {
    tracing::warn!(%error, "the database does not answer");
    let hint = "see whether PostgreSQL runs: serviceradar doctor";
    QueryError::new(Code::Unavailable, (0, 0), "the database does not answer").hint(hint)
}

/// What became of a statement. The database's own words are for the log.
fn said(error: &tokio_postgres::Error) -> QueryError {
    match error.code() {
        Some(code) if *code == SqlState::QUERY_CANCELED => {
            let said = format!("the query took longer than {} s", STATEMENT_TIMEOUT.as_secs());
            QueryError::new(Code::Timeout, (0, 0), said).hint("ask for less: a time, a prefix, fewer groups")
        }
        Some(_) => {
            tracing::error!(error = ?error, "the database refused a query");
            QueryError::new(Code::Unavailable, (0, 0), "the database refused the query")
                .hint("what it said is in the log; serviceradar migrate brings views up to date")
        }
        None => unavailable(error),
    }
}
