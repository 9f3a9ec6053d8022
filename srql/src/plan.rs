//! From a query to one statement.

use jiff::tz::TimeZone;

use crate::{
    catalogue::{self, Entity, Field, Kind, Standing},
    error::{Code, QueryError},
    parse::parse,
    predicate::{Conditions, find, truth},
    statement::{Parameter, Statement},
    stats,
    syntax::{Clause, ClauseKind, Expression, Path, Query, Says, Scalar, Value},
    time_range::Moment,
};

/// Rows of a page unless said.
pub const LIMIT_DEFAULT: i64 = 100;
/// Most rows of a page.
pub const LIMIT_MAX: i64 = 1_000;

/// A column of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// What it holds.
    pub shape: Shape,
}

/// How a column comes from the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// text
    Text,
    /// bigint
    Integer,
    /// double precision
    Number,
    /// boolean
    Bool,
    /// timestamptz
    Time,
    /// text[]
    Texts,
    /// jsonb
    Json,
}

/// How a query is answered.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is asked for.
    pub entity: &'static Entity,
    /// The rows.
    pub rows: Statement,
    /// How many there are in all, where that is asked.
    pub total: Option<Statement>,
    /// What the rows have.
    pub columns: Vec<Column>,
    /// Rows at most; none: all there are.
    pub limit: Option<i64>,
}

/// How much of an answer is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// A page.
    Page,
    /// All rows, unless the query says how many.
    All,
}

/// Plans a query at a moment; of one that cannot be answered, all mistakes, by their places.
pub fn plan(text: &str, now: i64, extent: Extent) -> Result<Plan, Vec<QueryError>> {
    let query = parse(text)?;
    let whole = (0, text.len());
    let Some(clause) = query.clauses.iter().rev().find(|clause| clause.kind == ClauseKind::In) else {
        let said = "nothing says what is asked for";
        return Err(vec![QueryError::new(Code::Syntax, whole, said).hint("begin with in:devices")]);
    };
    let entity = entity_of(clause).map_err(|error| vec![error])?;
    if entity.standing == Standing::Awaited {
        let said = format!("no data is collected for {} yet: {}", entity.name(), entity.label);
        return Err(vec![QueryError::new(Code::Unavailable, clause.span, said)]);
    }
    let mut errors = Vec::new();
    let planned = Planner { entity, query: &query, now, extent }.plan(&mut errors);
    errors.sort_by_key(|error| error.span);
    match planned {
        Some(plan) if errors.is_empty() => Ok(plan),
        _ => Err(errors),
    }
}

struct Planner<'a> {
    entity: &'static Entity,
    query: &'a Query,
    now: i64,
    extent: Extent,
}

impl Planner<'_> {
    /// The clause of a kind that counts: the last.
    fn last(&self, kind: ClauseKind) -> Option<&Clause> {
        self.query.clauses.iter().rev().find(|clause| clause.kind == kind)
    }

    fn plan(&self, errors: &mut Vec<QueryError>) -> Option<Plan> {
        let mut noted = |found: Result<(), QueryError>| errors.extend(found.err());
        let (mut zone, mut limit, mut counts, mut retired) = (TimeZone::UTC, None, false, false);
        // A clause that is said again is checked too.
        for clause in &self.query.clauses {
            noted(match clause.kind {
                ClauseKind::Zone => zone_of(clause).map(|of| zone = of),
                ClauseKind::Limit => limit_of(clause).map(|of| limit = Some(of)),
                ClauseKind::Count => bool_of(clause).map(|is| counts = is),
                ClauseKind::IncludeRetired => bool_of(clause).map(|is| retired = is),
                ClauseKind::In => entity_of(clause).map(drop),
                _ => Ok(()),
            });
        }
        let moment = Moment { now: self.now, zone };
        let mut filter = Statement::default();
        let mut conditions =
            Conditions { entity: self.entity, moment: &moment, out: &mut filter, errors: Vec::new() };
        let sql = conditions.expression(&self.query.filter);
        conditions.out.sql.push_str(&sql);
        let mut within = None;
        for clause in self.query.clauses.iter().filter(|clause| clause.kind == ClauseKind::Time) {
            if let Says::Value(value) = &clause.says {
                within = conditions.within(value, clause.span).or(within);
            }
        }
        if let Some(bounds) = within {
            conditions.keep_within(bounds);
        }
        errors.append(&mut conditions.errors);
        if self.entity.name() == catalogue::devices().name() && !retired && !self.names_state() {
            filter.sql.push_str(" AND e.state <> 'retired'");
        }
        let from = format!(" FROM {} e WHERE ", self.entity.view);
        let said = self.last(ClauseKind::Stats);
        let mut rows = filter.clone();
        let condition = std::mem::take(&mut rows.sql);
        let shown = match said {
            Some(Clause { says: Says::Aggregates(aggregates, keys), .. }) => {
                if let Some(fields) = self.last(ClauseKind::Fields) {
                    let said =
                        "the columns of stats: are its keys and aggregates: fields: does not go with it";
                    errors.push(QueryError::new(Code::BadValue, fields.span, said));
                }
                let mut conditions =
                    Conditions { entity: self.entity, moment: &moment, out: &mut rows, errors: Vec::new() };
                let clauses = (&self.having()[..], &self.sort()[..]);
                let columns = stats::write(&mut conditions, (aggregates, keys), clauses, (&from, &condition));
                errors.append(&mut conditions.errors);
                columns
            }
            _ => {
                if let Some(having) = self.last(ClauseKind::Having) {
                    let said = "having: goes with stats:";
                    errors.push(QueryError::new(Code::BadValue, having.span, said));
                }
                self.rows(&mut rows, (&from, &condition), errors)
            }
        };
        let limit = limit.or((self.extent == Extent::Page).then_some(LIMIT_DEFAULT));
        let whole = rows.clone();
        if let Some(limit) = limit {
            let bound = rows.bind(Parameter::Integer(limit));
            rows.sql.push_str(&format!(" LIMIT {bound}"));
        }
        let total = counts.then(|| match said {
            None => Statement { sql: format!("SELECT count(*){from}{}", filter.sql), ..filter },
            Some(_) => Statement { sql: format!("SELECT count(*) FROM ({}) of_groups", whole.sql), ..whole },
        });
        Some(Plan { entity: self.entity, rows, total, columns: shown, limit })
    }

    fn having(&self) -> Vec<Scalar> {
        let says = self.query.clauses.iter().filter(|clause| clause.kind == ClauseKind::Having);
        let words =
            says.filter_map(|clause| if let Says::Words(words) = &clause.says { Some(words) } else { None });
        words.flatten().cloned().collect()
    }

    /// What is sorted by: each `sort:` adds to it.
    fn sort(&self) -> Vec<(Path, Option<bool>)> {
        let says = self.query.clauses.iter().filter(|clause| clause.kind == ClauseKind::Sort);
        let keys =
            says.filter_map(|clause| if let Says::Fields(keys) = &clause.says { Some(keys) } else { None });
        keys.flatten().cloned().collect()
    }

    /// Whether the query itself says which states it wants, or which devices.
    fn names_state(&self) -> bool {
        let is_state = |path: &Path| {
            let found = find(self.entity, path);
            found.is_ok_and(|found| !found.of_device && ["state", "uid"].contains(&found.field.names[0]))
        };
        let by_groups = match self.last(ClauseKind::Stats).map(|clause| &clause.says) {
            Some(Says::Aggregates(aggregates, keys)) => {
                let only = aggregates.iter().filter_map(|of| of.only.as_ref().map(|(path, _)| path));
                only.chain(keys.iter().map(|key| &key.field)).any(is_state)
            }
            _ => false,
        };
        by_groups || names(&self.query.filter, &is_state)
    }

    /// Rows as they are: all fields, or those that are asked for.
    fn rows(
        &self,
        out: &mut Statement,
        (from, condition): (&str, &str),
        errors: &mut Vec<QueryError>,
    ) -> Vec<Column> {
        let named = |name: &str| Path { parts: vec![name.to_owned()], span: (0, 0) };
        let asked: Vec<(Path, Option<bool>)> = match self.last(ClauseKind::Fields).map(|clause| &clause.says)
        {
            Some(Says::Fields(fields)) => fields.clone(),
            // A row of a device has its id by both of its names.
            _ => {
                let names = |field: &'static Field| {
                    let both = field.names.contains(&"device_id").then_some("device_id");
                    std::iter::once(field.names[0]).chain(both)
                };
                let fields: &'static [Field] = self.entity.fields;
                fields.iter().flat_map(names).map(|name| (named(name), None)).collect()
            }
        };
        let mut columns: Vec<Column> = Vec::new();
        let mut values = Vec::new();
        for (path, way) in asked {
            match find(self.entity, &path) {
                Ok(_) if way.is_some() => {
                    let said = "a direction goes with sort:";
                    errors.push(QueryError::new(Code::BadValue, path.span, said));
                }
                Ok(found) => {
                    let is_id = path.text().eq_ignore_ascii_case("device_id");
                    let name = if is_id { "device_id".to_owned() } else { found.name() };
                    if columns.iter().any(|column| column.name == name) {
                        let said = format!("{name} is asked for twice");
                        errors.push(QueryError::new(Code::BadValue, path.span, said));
                    }
                    let value = found.value(self.entity, out);
                    let (value, shape) = shown(found.kind(), &value);
                    values.push(value);
                    columns.push(Column { name, shape });
                }
                Err(error) => errors.push(error),
            }
        }
        let mut keys = self.sort();
        if keys.is_empty() {
            keys.extend(self.entity.order.iter().map(|(name, is_down)| (named(name), Some(*is_down))));
        }
        keys.extend(self.entity.key.iter().map(|name| (named(name), Some(false))));
        let mut order: Vec<String> = Vec::new();
        for (path, is_down) in keys {
            match find(self.entity, &path) {
                Ok(found) if matches!(found.kind(), Kind::Map | Kind::Json) => {
                    let said = format!("nothing can be sorted by {}", found.name());
                    errors.push(QueryError::new(Code::BadOperator, path.span, said));
                }
                Ok(found) => {
                    let is_down = is_down.unwrap_or(found.kind() == Kind::Time);
                    let way = if is_down { "DESC NULLS LAST" } else { "ASC NULLS LAST" };
                    let before = found.field.sort_before.filter(|_| !found.of_device);
                    order.extend(before.map(|before| format!("{} {way}", before.replace("{e}", "e"))));
                    order.push(format!("{} {way}", found.value(self.entity, out)));
                }
                Err(error) => errors.push(error),
            }
        }
        out.sql = format!("SELECT {}{from}{condition} ORDER BY {}", values.join(", "), order.join(", "));
        columns
    }
}

/// A value as it leaves the database.
pub(crate) fn shown(kind: Kind, value: &str) -> (String, Shape) {
    match kind {
        Kind::Text | Kind::Hostname | Kind::Mac | Kind::MacDigits => (value.to_owned(), Shape::Text),
        Kind::Address => (format!("host({value})"), Shape::Text),
        Kind::Uid => (format!("'sr:' || {value}"), Shape::Text),
        Kind::Integer => (format!("{value}::bigint"), Shape::Integer),
        Kind::Bool => (value.to_owned(), Shape::Bool),
        Kind::Time => (value.to_owned(), Shape::Time),
        Kind::AnyOf | Kind::AllOf => (value.to_owned(), Shape::Texts),
        Kind::Map | Kind::Json => (value.to_owned(), Shape::Json),
    }
}

/// Whether a filter names a field that is so.
fn names(filter: &Expression, is_so: &impl Fn(&Path) -> bool) -> bool {
    match filter {
        Expression::All(terms) | Expression::Any(terms) => terms.iter().any(|term| names(term, is_so)),
        Expression::Not(inner) => names(inner, is_so),
        Expression::Is(path, _) => is_so(path),
        Expression::Free(_) => false,
    }
}

fn word(clause: &Clause) -> Result<&Scalar, QueryError> {
    match &clause.says {
        Says::Value(Value::One(scalar)) => Ok(scalar),
        _ => Err(QueryError::new(Code::BadValue, clause.span, "one value is wanted here")),
    }
}

fn entity_of(clause: &Clause) -> Result<&'static Entity, QueryError> {
    let name = word(clause)?;
    if name.text.contains(',') {
        return Err(QueryError::new(Code::BadValue, name.span, "a query asks for one entity"));
    }
    catalogue::entity(&name.text, name.span)
}

fn zone_of(clause: &Clause) -> Result<TimeZone, QueryError> {
    let name = word(clause)?;
    TimeZone::get(&name.text).map_err(|_| {
        let said = format!("there is no time zone '{}'", name.text);
        QueryError::new(Code::BadValue, name.span, said).hint("write one as Europe/Berlin")
    })
}

fn limit_of(clause: &Clause) -> Result<i64, QueryError> {
    let given = word(clause)?;
    match given.text.parse::<i64>() {
        Ok(limit @ 1..=LIMIT_MAX) => Ok(limit),
        Ok(limit) if limit > LIMIT_MAX => {
            let said = format!("a page has {LIMIT_MAX} rows at most");
            Err(QueryError::new(Code::TooWide, given.span, said))
        }
        _ => {
            Err(QueryError::new(Code::BadValue, given.span, format!("'{}' is no number of rows", given.text)))
        }
    }
}

fn bool_of(clause: &Clause) -> Result<bool, QueryError> {
    let given = word(clause)?;
    truth(given)
}
