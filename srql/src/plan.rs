//! From a query to one statement.

use jiff::tz::TimeZone;

use crate::{
    catalogue::{self, Entity, Kind, Standing},
    error::{Code, QueryError, Span},
    parse::parse,
    predicate::{Conditions, find},
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
    let entity = word(clause)
        .and_then(|name| catalogue::entity(&name.text, name.span))
        .map_err(|error| vec![error])?;
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
                _ => Ok(()),
            });
        }
        let moment = Moment { now: self.now, zone };
        let mut filter = Statement::default();
        let mut conditions =
            Conditions { entity: self.entity, moment: &moment, out: &mut filter, errors: Vec::new() };
        let sql = conditions.expression(&self.query.filter);
        conditions.out.sql.push_str(&sql);
        if let Some(Clause { says: Says::Value(value), span, .. }) = self.last(ClauseKind::Time) {
            conditions.within(value, *span);
        }
        errors.append(&mut conditions.errors);
        let is_devices = std::ptr::eq(self.entity, catalogue::devices()) || self.entity.name() == "devices";
        if is_devices && !retired && !names(&self.query.filter, self.entity, &["state", "uid"]) {
            filter.sql.push_str(" AND e.state <> 'retired'");
        }
        let from = format!(" FROM {} e WHERE ", self.entity.view);
        let said = self.last(ClauseKind::Stats);
        let mut rows = filter.clone();
        let condition = std::mem::take(&mut rows.sql);
        let shown = match said {
            Some(Clause { says: Says::Aggregates(aggregates, keys), .. }) => {
                let having = self.words(ClauseKind::Having);
                let sort = self.words(ClauseKind::Sort);
                stats::write(
                    self.entity,
                    &mut rows,
                    (aggregates, keys),
                    (&having, &sort),
                    (&from, &condition),
                    errors,
                )
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

    fn words(&self, kind: ClauseKind) -> Vec<Scalar> {
        let of = self.query.clauses.iter().filter(|clause| clause.kind == kind);
        let words = of.filter_map(|clause| match &clause.says {
            Says::Words(words) => Some(words.iter().cloned()),
            _ => None,
        });
        words.flatten().collect()
    }

    /// Rows as they are: all fields, or those that are asked for.
    fn rows(
        &self,
        out: &mut Statement,
        (from, condition): (&str, &str),
        errors: &mut Vec<QueryError>,
    ) -> Vec<Column> {
        let mut columns = Vec::new();
        let mut values = Vec::new();
        let mut show = |path: &Path, out: &mut Statement| {
            let found = find(self.entity, path)?;
            let value = found.value(self.entity, out);
            let (value, shape) = shown(found.kind(), &value);
            values.push(value);
            columns.push(Column { name: found.name(), shape });
            Ok(())
        };
        match self.last(ClauseKind::Fields) {
            Some(Clause { says: Says::Words(fields), .. }) => {
                for field in fields {
                    errors.extend(show(&path(field), out).err());
                }
            }
            _ => {
                for field in self.entity.fields {
                    let path = Path { parts: vec![field.names[0].to_owned()], span: (0, 0) };
                    errors.extend(show(&path, out).err());
                }
            }
        }
        let mut order: Vec<String> = Vec::new();
        let mut keys: Vec<(Path, Option<bool>)> = Vec::new();
        for word in self.words(ClauseKind::Sort) {
            match sort_key(&word) {
                Ok(key) => keys.push(key),
                Err(error) => errors.push(error),
            }
        }
        let named = |name: &str| Path { parts: vec![name.to_owned()], span: (0, 0) };
        if keys.is_empty() {
            keys.extend(self.entity.order.iter().map(|(name, is_down)| (named(name), Some(*is_down))));
        }
        keys.extend(self.entity.key.iter().map(|name| (named(name), None)));
        for (path, is_down) in keys {
            match find(self.entity, &path) {
                Ok(found) if matches!(found.kind(), Kind::Map | Kind::Json) => {
                    let said = format!("nothing can be sorted by {}", found.name());
                    errors.push(QueryError::new(Code::BadOperator, path.span, said));
                }
                Ok(found) => {
                    let is_down = is_down.unwrap_or(found.kind() == Kind::Time && path.span != (0, 0));
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

/// Whether a filter names one of some fields.
fn names(filter: &Expression, entity: &'static Entity, fields: &[&str]) -> bool {
    match filter {
        Expression::All(terms) | Expression::Any(terms) => {
            terms.iter().any(|term| names(term, entity, fields))
        }
        Expression::Not(inner) => names(inner, entity, fields),
        Expression::Is(path, _) => {
            find(entity, path).is_ok_and(|found| !found.of_device && fields.contains(&found.field.names[0]))
        }
        Expression::Free(_) => false,
    }
}

fn word(clause: &Clause) -> Result<&Scalar, QueryError> {
    match &clause.says {
        Says::Value(Value::One(scalar)) => Ok(scalar),
        _ => Err(QueryError::new(Code::BadValue, clause.span, "one value is wanted here")),
    }
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
    match given.text.to_lowercase().as_str() {
        "true" | "yes" | "1" => Ok(true),
        "false" | "no" | "0" => Ok(false),
        _ => Err(QueryError::new(
            Code::BadValue,
            given.span,
            format!("'{}' is neither true nor false", given.text),
        )),
    }
}

/// A field by its words alone.
pub(crate) fn path(word: &Scalar) -> Path {
    let unquoted = |part: &str| part.trim_matches(['"', '\'', '`']).to_owned();
    Path { parts: word.text.split('.').map(unquoted).collect(), span: word.span }
}

/// `field`, `field:asc`, `field:desc`.
pub(crate) fn sort_key(word: &Scalar) -> Result<(Path, Option<bool>), QueryError> {
    let Some((field, way)) = word.text.rsplit_once(':') else {
        return Ok((path(word), None));
    };
    let is_down = match way.to_lowercase().as_str() {
        "asc" => false,
        "desc" => true,
        _ => {
            let said = format!("'{way}' is no direction");
            return Err(QueryError::new(Code::BadValue, word.span, said).hint("write asc or desc"));
        }
    };
    let span: Span = (word.span.0, word.span.0 + field.len());
    Ok((path(&Scalar { text: field.to_owned(), span, ..word.clone() }), Some(is_down)))
}
