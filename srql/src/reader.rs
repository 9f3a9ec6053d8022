//! Answering: as `serviceradar_reader`, of one tenant, in one read-only transaction of the active generation.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::{Duration, Instant},
};

use futures_util::{TryStreamExt, future::try_join};
use serde::Serialize;
use serde_json::{Value, json};
use serviceradar_schemas::time;
use tokio::sync::mpsc;
use tokio_postgres::{
    Client, IsolationLevel, NoTls, Row, Statement as Prepared, Transaction,
    error::SqlState,
    types::{FromSql, ToSql, Type},
};

use crate::{
    catalogue::Live,
    error::{Code, QueryError},
    live::{CHANGED_MAX, Event, Follow, Position},
    page::{Keyset, Way},
    plan::{Column, Plan, Shape},
    statement::{EPOCH_OF_POSTGRES, Statement},
};

/// Rows that wait between the database and whoever takes them.
pub(crate) const ROWS_WAITING: usize = 64;
/// Bytes that a row has as an object, about.
const OBJECT_BYTES: usize = 1024;
/// How long a statement may take.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(10);
/// Statements that a session keeps prepared.
const PREPARED_MAX: usize = 128;
/// A statement that was found this many times cheaper than the limit is not asked again what it costs, whatever its values:
/// that takes the database as long as to plan it.
const CHEAP: f64 = 1_000.0;

/// A session that answers.
pub struct Reader {
    client: Client,
    /// `SET` and `ACTIVE`.
    entering: [Prepared; 2],
    statements: Statements,
    /// The cost, as the database estimates it, up to which a query is run.
    cost_max: Option<f64>,
}

/// The statements of a session, prepared, by their text, of one generation.
#[derive(Default)]
struct Statements {
    schema: String,
    prepared: HashMap<String, Kept>,
}

struct Kept {
    statement: Prepared,
    /// Whether it was found to be cheap.
    is_cheap: bool,
}

impl Statements {
    /// Of this generation; those of another are forgotten.
    fn of(&mut self, schema: &str) {
        if self.schema != schema {
            *self = Self { schema: schema.to_owned(), prepared: HashMap::new() };
        }
    }

    async fn prepared(&mut self, transaction: &Transaction<'_>, sql: &str) -> Result<&mut Kept, QueryError> {
        if self.prepared.len() >= PREPARED_MAX && !self.prepared.contains_key(sql) {
            self.prepared.clear();
        }
        match self.prepared.entry(sql.to_owned()) {
            Entry::Occupied(kept) => Ok(kept.into_mut()),
            Entry::Vacant(place) => {
                let statement = transaction.prepare(sql).await.map_err(|error| said(&error))?;
                Ok(place.insert(Kept { statement, is_cheap: false }))
            }
        }
    }
}

/// The generation that a transaction reads.
struct Active {
    id: i64,
    schema: String,
    epoch: Option<i64>,
    complete_to: Option<i64>,
}

/// An answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer<R = Vec<Value>> {
    /// What its rows have.
    pub columns: Vec<Column>,
    /// Rows, a value per column unless they were taken as something else.
    pub rows: Vec<R>,
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
    /// Connects. Queries whose cost, as the database estimates it, is higher than the limit are refused.
    pub async fn connect(url: &str, cost_max: Option<f64>) -> Result<Self, QueryError> {
        let (client, connection) =
            tokio_postgres::connect(url, NoTls).await.map_err(|error| unavailable(&error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a database connection ended");
            }
        });
        let prepared = try_join(client.prepare(SET), client.prepare(ACTIVE)).await;
        let entering = prepared.map_err(|error| said(&error))?.into();
        Ok(Self { client, entering, statements: Statements::default(), cost_max })
    }

    /// Answers a query of a tenant, with all its rows.
    pub async fn answer(&mut self, tenant: &str, plan: &Plan) -> Result<Answer, QueryError> {
        self.answer_as(tenant, plan, values).await
    }

    /// The same, with rows as what `take` makes of them.
    pub(crate) async fn answer_as<R>(
        &mut self,
        tenant: &str,
        plan: &Plan,
        take: impl Fn(&Row, &[Column]) -> Result<R, QueryError>,
    ) -> Result<Answer<R>, QueryError> {
        let (put, mut rows) = mpsc::channel(ROWS_WAITING);
        let page = plan.page.as_ref();
        let limit = match page {
            Some(_) => usize::try_from(plan.limit.unwrap_or(i64::MAX)).unwrap_or(usize::MAX),
            None => usize::MAX,
        };
        let keys = |row: &Row| {
            let keys = texts(row, plan.columns.len(), page.map_or(0, |page| page.keys));
            keys.map_err(|error| said(&error))
        };
        let taking = async move {
            let (mut read, mut ends, mut has_more) = (Vec::new(), None, false);
            while let Some(row) = rows.recv().await {
                has_more = read.len() == limit;
                if has_more {
                    break;
                }
                read.push(take(&row, &plan.columns)?);
                ends = match ends {
                    None => Some((keys(&row)?, row)),
                    Some((first, _)) => Some((first, row)),
                };
            }
            let ends = ends.map(|(first, last)| Ok::<_, QueryError>((first, keys(&last)?)));
            Ok::<_, QueryError>((read, ends.transpose()?, has_more))
        };
        let (answer, read) = tokio::join!(self.rows(tenant, plan, put, |_| ()), taking);
        let (answer, (mut rows, ends, has_more)) = (answer?, read?);
        let (mut first, mut last) = ends.unzip();
        let way = page.and_then(|page| Some(page.from.as_ref()?.way));
        if way == Some(Way::Previous) {
            rows.reverse();
            std::mem::swap(&mut first, &mut last);
        }
        // Where a page came from there are rows, or were.
        let (is_next, is_previous) = match way {
            None => (has_more, false),
            Some(Way::Next) => (has_more, true),
            Some(Way::Previous) => (true, has_more),
        };
        let next = last.filter(|_| is_next).map(|values| Keyset { way: Way::Next, values });
        let previous = first.filter(|_| is_previous).map(|values| Keyset { way: Way::Previous, values });
        let Answer { columns, total, generation, epoch, complete_to, took, .. } = answer;
        Ok(Answer { columns, rows, next, previous, total, generation, epoch, complete_to, took })
    }

    /// How the database would find the rows, planned for these values, and at which cost, as it estimates it.
    pub async fn explain(&mut self, tenant: &str, plan: &Plan) -> Result<(Value, f64), QueryError> {
        let (transaction, _) = begin(&mut self.client, &self.entering, tenant, false).await?;
        let (mut plans, mut cost) = (Vec::new(), 0.0);
        for statement in plan.statements.iter().chain(&plan.total) {
            let (explained, of_statement) = explained(&transaction, statement).await?;
            cost += of_statement;
            plans.push(explained);
        }
        Ok((Value::Array(plans), cost))
    }

    /// What a live query is to be told after it was told up to here; at first, all. Returns up to where that is.
    pub async fn follow(
        &mut self,
        tenant: &str,
        (plan, follow): (&Plan, &Follow),
        from: Option<Position>,
    ) -> Result<(Position, Vec<Event>), QueryError> {
        let Self { client, entering, statements, cost_max } = self;
        let (transaction, active) = begin(client, entering, tenant, false).await?;
        statements.of(&active.schema);
        let now = Position {
            generation: active.id,
            epoch: active.epoch.unwrap_or_default(),
            complete_to: active.complete_to,
        };
        if from.is_some_and(|from| (from.generation, from.epoch) == (now.generation, now.epoch)) {
            return Ok((now, Vec::new()));
        }
        if let Some(from) = from.filter(|from| from.leads_to(&now)) {
            let keys = match follow.live {
                Live::Keys { of, .. } => {
                    let bound: [&(dyn ToSql + Sync); 6] =
                        [&now.generation, &from.epoch, &now.epoch, &of, &follow.names_sightings, &KEYS_MAX];
                    let rows = transaction.query(CHANGED_KEYS, &bound).await.map_err(|error| said(&error))?;
                    rows.iter().map(|row| row.get(0)).collect()
                }
                _ => Vec::new(),
            };
            let may_have = !keys.is_empty() || matches!(follow.live, Live::Added(_));
            if keys.len() < KEYS_MAX as usize {
                let statement = follow.since(from, now, &keys);
                let rows = match may_have {
                    true => keyed(&transaction, statements, &statement, plan).await?,
                    false => Vec::new(),
                };
                if rows.len() < KEYS_MAX as usize {
                    return Ok((now, follow.told(keys, rows)));
                }
            }
        }
        check_cost(&transaction, statements, plan, *cost_max).await?;
        let mut rows = Vec::new();
        for statement in &plan.statements {
            rows.extend(keyed(&transaction, statements, statement, plan).await?);
        }
        let reset = from.map(|_| Event::Reset);
        let rows = rows.into_iter().map(|(key, row)| Event::Upsert(key, row));
        Ok((now, reset.into_iter().chain(rows).chain([Event::Current]).collect()))
    }

    /// When the input of the tenant's last epoch was closed, microseconds since 1970.
    pub async fn complete_to(&mut self, tenant: &str) -> Result<Option<i64>, QueryError> {
        let (_, active) = begin(&mut self.client, &self.entering, tenant, false).await?;
        Ok(active.complete_to)
    }

    /// Tells the database to give up what it is answering, and ends.
    pub async fn give_up(self) {
        if let Err(error) = self.client.cancel_token().cancel_query(NoTls).await {
            tracing::debug!(%error, "a query was not given up");
        }
    }

    /// Whether the database still answers it, which it is asked.
    pub async fn is_answered(&self) -> bool {
        self.client.check_connection().await.is_ok()
    }

    /// Whether its connection has ended.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
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
        let (answer, taken) = tokio::join!(self.rows(tenant, plan, put, |_| ()), taking);
        taken?;
        answer
    }

    /// Puts the rows of an answer into a channel, until there are no more, or nobody takes them. What is known before the
    /// first is told to `begun`.
    pub(crate) async fn rows(
        &mut self,
        tenant: &str,
        plan: &Plan,
        put: mpsc::Sender<Row>,
        begun: impl FnOnce(&Answer),
    ) -> Result<Answer, QueryError> {
        let started = Instant::now();
        let Self { client, entering, statements, cost_max } = self;
        let (transaction, active) = begin(client, entering, tenant, plan.is_found_alike).await?;
        statements.of(&active.schema);
        check_cost(&transaction, statements, plan, *cost_max).await?;
        let total = match &plan.total {
            Some(total) => {
                let prepared = &statements.prepared(&transaction, &total.sql).await?.statement;
                let row = transaction.query_one(prepared, &parameters(total)).await;
                Some(row.map_err(|error| said(&error))?.get(0))
            }
            None => None,
        };
        let mut answer = Answer {
            columns: plan.columns.clone(),
            rows: Vec::new(),
            next: None,
            previous: None,
            total,
            generation: active.id,
            epoch: active.epoch,
            complete_to: active.complete_to,
            took: started.elapsed(),
        };
        begun(&answer);
        'all: for statement in &plan.statements {
            let prepared = &statements.prepared(&transaction, &statement.sql).await?.statement;
            let rows = transaction.query_raw(prepared, parameters(statement)).await;
            let mut rows = std::pin::pin!(rows.map_err(|error| said(&error))?);
            while let Some(row) = rows.try_next().await.map_err(|error| said(&error))? {
                if put.send(row).await.is_err() {
                    break 'all;
                }
            }
        }
        answer.took = started.elapsed();
        Ok(answer)
    }
}

/// Makes a transaction one of a tenant's reader.
const SET: &str = "SELECT set_config('role', 'serviceradar_reader', true),
    set_config('serviceradar.tenant', $1::text, true), set_config('statement_timeout', $2::text, true)";

/// Makes it one of the active generation: its number, its schema, its last epoch, and when that was closed. What comes
/// after it is planned for the values that it has, or once.
const ACTIVE: &str = "SELECT g.id::bigint, g.schema, e.epoch, e.closed_at,
      set_config('search_path', quote_ident(g.schema || '_read') || ', serviceradar, public', true),
      set_config('plan_cache_mode', CASE WHEN $1 THEN 'force_generic_plan' ELSE 'force_custom_plan' END, true)
    FROM serviceradar.pipeline_generations g
    LEFT JOIN LATERAL (
      SELECT epoch, closed_at FROM serviceradar.pipeline_epochs e
      WHERE e.generation = g.id ORDER BY epoch DESC LIMIT 1) e ON true
    WHERE g.state = 'active'";

/// One more than are told one by one.
const KEYS_MAX: i64 = CHANGED_MAX + 1;

/// The keys that epochs changed.
const CHANGED_KEYS: &str = "SELECT DISTINCT c.key COLLATE \"C\" FROM view_changes c
    WHERE c.generation = $1::bigint AND c.epoch > $2 AND c.epoch <= $3 AND c.entity = ANY ($4)
      AND ($5 OR NOT c.seen_only)
    ORDER BY 1 LIMIT $6";

/// Rows with the keys that stand behind their columns.
async fn keyed(
    transaction: &Transaction<'_>,
    statements: &mut Statements,
    statement: &Statement,
    plan: &Plan,
) -> Result<Vec<(String, Vec<Value>)>, QueryError> {
    let prepared = &statements.prepared(transaction, &statement.sql).await?.statement;
    let rows = transaction.query(prepared, &parameters(statement)).await.map_err(|error| said(&error))?;
    let keyed = |row: &Row| {
        let key = row.try_get(plan.columns.len()).map_err(|error| said(&error))?;
        Ok((key, values(row, &plan.columns)?))
    };
    rows.iter().map(keyed).collect()
}

/// Begins a transaction as a tenant's reader of the active generation, in which how rows are found is planned once, or for
/// each values.
async fn begin<'a>(
    client: &'a mut Client,
    [set, active]: &[Prepared; 2],
    tenant: &str,
    is_planned_once: bool,
) -> Result<(Transaction<'a>, Active), QueryError> {
    let transaction = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead);
    let transaction = transaction.read_only(true).start().await.map_err(|error| said(&error))?;
    let timeout = STATEMENT_TIMEOUT.as_millis().to_string();
    // One is sent before the other is answered: they are taken in their order.
    let parameters: [&(dyn ToSql + Sync); 2] = [&tenant, &timeout];
    let entered =
        try_join(transaction.query_one(set, &parameters), transaction.query_opt(active, &[&is_planned_once]))
            .await;
    let (_, active) = entered.map_err(|error| said(&error))?;
    let active = active.ok_or_else(|| {
        let none = "there are no views to read";
        QueryError::new(Code::Unavailable, (0, 0), none).hint("start a pipeline: serviceradar run")
    })?;
    let complete_to = active.get::<_, Option<Micros>>(3).map(|at| at.0);
    let active = Active { id: active.get(0), schema: active.get(1), epoch: active.get(2), complete_to };
    Ok((transaction, active))
}

async fn explained(transaction: &Transaction<'_>, statement: &Statement) -> Result<(Value, f64), QueryError> {
    let explain = format!("EXPLAIN (FORMAT JSON) {}", statement.sql);
    let row = transaction.query_one(&explain, &parameters(statement)).await;
    let explained: Value = row.and_then(|row| row.try_get(0)).map_err(|error| said(&error))?;
    let cost = explained[0]["Plan"]["Total Cost"].as_f64().unwrap_or_default();
    Ok((explained, cost))
}

/// Refuses a query whose cost is higher than this, if there is a limit.
async fn check_cost(
    transaction: &Transaction<'_>,
    statements: &mut Statements,
    plan: &Plan,
    cost_max: Option<f64>,
) -> Result<(), QueryError> {
    let Some(cost_max) = cost_max else { return Ok(()) };
    let mut cost = 0.0;
    for statement in plan.statements.iter().chain(&plan.total) {
        if statements.prepared(transaction, &statement.sql).await?.is_cheap {
            continue;
        }
        let (_, of_statement) = explained(transaction, statement).await?;
        statements.prepared(transaction, &statement.sql).await?.is_cheap = of_statement * CHEAP < cost_max;
        cost += of_statement;
    }
    if cost <= cost_max {
        return Ok(());
    }
    let said = "this would take the database too long";
    Err(QueryError::new(Code::TooExpensive, (0, 0), said)
        .hint("ask for less: a time, a prefix, fewer groups"))
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

/// JSON as the database writes it.
struct JsonText<'a>(&'a str);

impl<'a> FromSql<'a> for JsonText<'a> {
    fn from_sql(of: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        // Before the text of a jsonb stands the version of its form.
        let text = match *of == Type::JSONB {
            true => raw.strip_prefix(&[1]).ok_or("a jsonb of a form that is not known")?,
            false => raw,
        };
        Ok(JsonText(std::str::from_utf8(text)?))
    }

    fn accepts(of: &Type) -> bool {
        matches!(*of, Type::JSON | Type::JSONB)
    }
}

/// A row as an object, JSON, in the order of its columns: without a value made of each, which takes twice as long.
pub(crate) fn object(row: &Row, columns: &[Column]) -> Result<Vec<u8>, QueryError> {
    try_object(row, columns).map_err(|error| said(&error))
}

fn try_object(row: &Row, columns: &[Column]) -> Result<Vec<u8>, tokio_postgres::Error> {
    let mut out = Vec::with_capacity(OBJECT_BYTES);
    out.push(b'{');
    for (at, column) in columns.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        put(&column.name, &mut out);
        out.push(b':');
        match column.shape {
            Shape::Text => put(&row.try_get::<_, Option<&str>>(at)?, &mut out),
            Shape::Integer => put(&row.try_get::<_, Option<i64>>(at)?, &mut out),
            Shape::Number => put(&row.try_get::<_, Option<f64>>(at)?, &mut out),
            Shape::Bool => put(&row.try_get::<_, Option<bool>>(at)?, &mut out),
            Shape::Time => {
                put(&row.try_get::<_, Option<Micros>>(at)?.map(|at| time::format(at.0)), &mut out);
            }
            Shape::Texts => put(&row.try_get::<_, Option<Vec<Option<&str>>>>(at)?, &mut out),
            Shape::Json => match row.try_get::<_, Option<JsonText<'_>>>(at)? {
                Some(json) => out.extend_from_slice(json.0.as_bytes()),
                None => put(&(), &mut out),
            },
        }
    }
    out.push(b'}');
    Ok(out)
}

fn put(value: &impl Serialize, out: &mut Vec<u8>) {
    // Texts, numbers and lists of them, into memory: nothing fails.
    _ = serde_json::to_writer(out, value);
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
