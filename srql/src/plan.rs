//! From a query to one statement.

use jiff::tz::TimeZone;
use sha2::{Digest, Sha256};

use crate::{
    bucket,
    catalogue::{self, Entity, Field, Kind, Live, Standing},
    error::{Code, QueryError},
    indexed::{is_found_alike, is_narrow, is_of_search, is_searched},
    literal::{is_uid, truth},
    live::{CHANGED_MAX, Follow},
    page::{Keyset, Listing, SortKey, type_of},
    parse::parse,
    predicate::{Conditions, Found, find},
    statement::{Parameter, Statement},
    stats::{self, TIMED},
    syntax::{Clause, ClauseKind, Expression, Path, Query, Says, Scalar, Value},
    time_range::{Bounds, Moment},
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
    /// The rows: one statement after the other, until there are as many as are wanted.
    pub statements: Vec<Statement>,
    /// How many there are in all, where that is asked.
    pub total: Option<Statement>,
    /// What the rows have.
    pub columns: Vec<Column>,
    /// Rows at most; none: all there are.
    pub limit: Option<i64>,
    /// Of a page, where it begins, and how many keys stand behind the columns of a row; one row more than the limit is read.
    pub page: Option<PageOf>,
    /// Whether the rows are found the same way whatever the values are: how is planned once.
    pub is_found_alike: bool,
    /// The time that is asked for: from and up to, microseconds since 1970.
    pub time: Option<Bounds>,
    /// What the query comes to, however it is written: the digest of its statement and its parameters.
    pub digest: [u8; 32],
    /// Of a live query, how it is followed.
    pub follow: Option<Follow>,
}

/// What a page is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageOf {
    /// Keys of a row.
    pub keys: usize,
    /// Where it begins.
    pub from: Option<Keyset>,
}

/// How much of an answer is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Extent {
    /// A page.
    Page {
        /// Rows, where the query does not say.
        limit: Option<i64>,
        /// Where it begins, if not with the first row.
        from: Option<Keyset>,
    },
    /// All rows, unless somebody says how many.
    All {
        /// Rows, where the query does not say.
        limit: Option<i64>,
    },
    /// The rows as they are, and as they change.
    Live {
        /// Rows as they are, where the query does not say.
        limit: Option<i64>,
    },
}

impl Extent {
    /// The first page.
    pub fn first() -> Self {
        Extent::Page { limit: None, from: None }
    }
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
    let planned = Planner { entity, query: &query, now, extent: &extent }.plan(&mut errors);
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
    extent: &'a Extent,
}

impl Planner<'_> {
    /// The clause of a kind that counts: the last.
    fn last(&self, kind: ClauseKind) -> Option<&Clause> {
        self.query.clauses.iter().rev().find(|clause| clause.kind == kind)
    }

    fn plan(&self, errors: &mut Vec<QueryError>) -> Option<Plan> {
        let mut noted = |found: Result<(), QueryError>| errors.extend(found.err());
        let (mut zone, mut limit, mut counts, mut retired) = (TimeZone::UTC, None, false, false);
        let (mut latest, mut width, mut fills) = (false, None, false);
        // A clause that is said again is checked too.
        for clause in &self.query.clauses {
            noted(match clause.kind {
                ClauseKind::Zone => zone_of(clause).map(|of| zone = of),
                ClauseKind::Limit => limit_of(clause).map(|of| limit = Some(of)),
                ClauseKind::Count => bool_of(clause).map(|is| counts = is),
                ClauseKind::IncludeRetired => bool_of(clause).map(|is| retired = is),
                ClauseKind::In => entity_of(clause).map(drop),
                ClauseKind::Latest => bool_of(clause).map(|is| latest = is),
                ClauseKind::Stream => bool_of(clause).and_then(|is| self.checked_stream(is, clause)),
                ClauseKind::Bucket => bucket::width(word(clause)).map(|of| width = Some(of)),
                ClauseKind::Fill => bucket::fill(word(clause)).map(|()| fills = true),
                _ => Ok(()),
            });
        }
        let moment = Moment { now: self.now, zone };
        let search = self.entity.search.filter(|_| !latest && width.is_none() && self.is_of_search());
        let mut filter = Statement::default();
        let mut conditions = Conditions {
            entity: self.entity,
            of_search: search.is_some(),
            moment: &moment,
            out: &mut filter,
            element: None,
            errors: Vec::new(),
        };
        let sql = conditions.expression(&self.query.filter);
        conditions.out.sql.push_str(&sql);
        let mut within = None;
        for clause in self.query.clauses.iter().filter(|clause| clause.kind == ClauseKind::Time) {
            if let Says::Value(value) = &clause.says {
                within = conditions.within(value, clause.span).or(within);
            }
        }
        let view = match within.map(|bounds| conditions.kept_within(bounds, if latest { "x" } else { "e" })) {
            within if latest => self.latest(within, &mut conditions.errors),
            Some(within) => {
                conditions.out.sql.push_str(&format!(" AND {within}"));
                self.entity.view.to_owned()
            }
            None => search.map_or(self.entity.view, |search| search.relation).to_owned(),
        };
        errors.append(&mut conditions.errors);
        if self.entity.name() == catalogue::devices().name() && !retired && !self.names_state() {
            filter.sql.push_str(" AND e.state <> 'retired'");
        }
        let from = format!(" FROM {view} e WHERE {}", filter.sql);
        let mut out = Statement { sql: String::new(), parameters: filter.parameters.clone() };
        let said = self.last(ClauseKind::Stats);
        let limit = limit.or(match self.extent {
            Extent::Page { limit, .. } | Extent::Live { limit } => Some(limit.unwrap_or(LIMIT_DEFAULT)),
            Extent::All { limit } => *limit,
        });
        let mut conditions = Conditions {
            entity: self.entity,
            of_search: search.is_some(),
            moment: &moment,
            out: &mut out,
            element: None,
            errors: Vec::new(),
        };
        let mut listing = match (said.map(|clause| &clause.says), width) {
            (Some(Says::Aggregates(aggregates, keys)), width) => {
                self.refuse(
                    &[
                        ClauseKind::Fields,
                        ClauseKind::Series,
                        ClauseKind::Aggregate,
                        ClauseKind::ValueField,
                        ClauseKind::Fill,
                    ],
                    "does not go with stats:, whose columns are its keys and aggregates",
                    errors,
                );
                let clauses = (&self.having()[..], &self.sort()[..]);
                stats::write(&mut conditions, (aggregates, keys), width, clauses, &from)
            }
            (_, Some(width)) => {
                self.refuse(
                    &[ClauseKind::Fields, ClauseKind::Having, ClauseKind::Sort],
                    "does not go with bucket: alone",
                    errors,
                );
                bucket::write(&mut conditions, &self.buckets(width, fills), limit, &from)
            }
            _ => {
                self.refuse(&[ClauseKind::Having], "goes with stats:", errors);
                self.refuse(
                    &[ClauseKind::Series, ClauseKind::Aggregate, ClauseKind::ValueField, ClauseKind::Fill],
                    "goes with bucket:",
                    errors,
                );
                self.rows(&mut conditions, &from)
            }
        };
        errors.append(&mut conditions.errors);
        let follow = match self.extent {
            Extent::Live { .. } => self.follow(&mut listing, &out, errors),
            _ => None,
        };
        let whole = listing.whole(&out, None);
        let digest = Sha256::digest(format!("{:?}", (&whole.sql, &whole.parameters))).into();
        let total = counts.then(|| {
            // Of rows the parameters of what is shown of them are no part.
            let bound = if said.is_none() && width.is_none() { filter } else { out.clone() };
            Statement { sql: format!("SELECT count(*){}", listing.from), ..bound }
        });
        let (statements, page) = match (self.extent, limit) {
            (Extent::Page { from, .. }, Some(limit)) => {
                let keys = listing.keys.len();
                if from.as_ref().is_some_and(|from| from.values.len() != keys) {
                    let said = "this cursor is of another query";
                    errors.push(QueryError::new(Code::BadValue, (0, 0), said));
                }
                let page = PageOf { keys, from: from.clone() };
                (listing.page(&out, limit.saturating_add(1), from.as_ref()), Some(page))
            }
            _ => (vec![listing.whole(&out, limit)], None),
        };
        Some(Plan {
            entity: self.entity,
            statements,
            total,
            columns: listing.columns,
            limit,
            page,
            is_found_alike: self.is_found_alike(),
            time: within,
            digest,
            follow,
        })
    }

    /// That a live query is asked where it is answered.
    fn checked_stream(&self, is: bool, clause: &Clause) -> Result<(), QueryError> {
        match (is, self.extent) {
            (true, Extent::Live { .. }) | (false, _) => Ok(()),
            (true, _) => {
                let said = "a live query is not answered here";
                Err(QueryError::new(Code::BadValue, clause.span, said).hint("ask GET /api/query/stream?q="))
            }
        }
    }

    /// How the rows of a live query are followed; behind their columns they show their keys then.
    fn follow(
        &self,
        listing: &mut Listing,
        bound: &Statement,
        errors: &mut Vec<QueryError>,
    ) -> Option<Follow> {
        use ClauseKind::{Bucket, Count, Latest, Stats};
        self.refuse(
            &[Stats, Bucket, Latest, Count],
            "does not go with a live query, which tells rows",
            errors,
        );
        let entity = self.entity;
        let of_device = |path: &Path| find(entity, path).is_ok_and(|found| found.of_device);
        if self.names(&of_device) {
            let said = format!("a live query of {} takes no fields of their devices", entity.name());
            errors.push(QueryError::new(Code::BadValue, (0, 0), said).hint("follow in:devices"));
        }
        let (key, condition) = match entity.live {
            Live::Keys { key, changed, .. } => (key, changed),
            Live::Added(key) => (key, "{e}.generation = {a} AND {e}.epoch > {b} AND {e}.epoch <= {c}"),
            Live::None => {
                let said = format!("{} cannot be followed", entity.name());
                errors.push(QueryError::new(Code::BadOperator, (0, 0), said));
                return None;
            }
        };
        let [key, condition] = [key, condition].map(|sql| sql.replace("{e}", "e"));
        listing.select.push_str(&format!(", ({key})::text"));
        let mut changed = bound.clone();
        let most = changed.bind(Parameter::Integer(CHANGED_MAX.saturating_add(1)));
        let condition = match entity.live {
            Live::Added(_) => ["{a}", "{b}", "{c}"].iter().fold(condition, |condition, name| {
                condition.replace(name, &changed.bind(Parameter::Integer(0)))
            }),
            _ => condition.replace("{keys}", &changed.bind(Parameter::Texts(Vec::new()))),
        };
        changed.sql = format!(
            "{}{} AND {condition} ORDER BY ({key})::text COLLATE \"C\" LIMIT {most}",
            listing.select, listing.from
        );
        let names_sightings = entity.time == Some("last_seen")
            && (self.last(ClauseKind::Time).is_some()
                || self.names(&|path: &Path| {
                    find(entity, path).is_ok_and(|found| found.field.names[0] == "last_seen")
                }));
        Some(Follow { changed, live: entity.live, names_sightings })
    }

    /// Whether its conditions, its columns or its order name a field that is so.
    fn names(&self, is_so: &impl Fn(&Path) -> bool) -> bool {
        let of_clauses = self.query.clauses.iter().any(|clause| match &clause.says {
            Says::Fields(fields) => fields.iter().any(|(path, _)| is_so(path)),
            _ => false,
        });
        of_clauses || names(&self.query.filter, is_so, |_| false)
    }

    /// Notes the clauses that say nothing here.
    fn refuse(&self, kinds: &[ClauseKind], why: &str, errors: &mut Vec<QueryError>) {
        for clause in self.query.clauses.iter().filter(|clause| kinds.contains(&clause.kind)) {
            errors.push(QueryError::new(
                Code::BadValue,
                clause.span,
                format!("{}: {why}", clause.kind.name()),
            ));
        }
    }

    /// The newest row of each thing within a time, as a relation.
    fn latest(&self, within: Option<String>, errors: &mut Vec<QueryError>) -> String {
        let entity = self.entity;
        let sql = |name: &&str| Some(entity.find(name)?.sql.replace("{e}", "x"));
        let Some(time) = entity.time.as_ref().and_then(sql) else {
            let span = self.last(ClauseKind::Latest).map_or((0, 0), |clause| clause.span);
            let said = format!("{} has no time by which a row is the latest", entity.name());
            errors.push(QueryError::new(Code::BadOperator, span, said));
            return entity.view.to_owned();
        };
        let of = if entity.latest.is_empty() { entity.key } else { entity.latest };
        let [of, key] =
            [of, entity.key].map(|names| names.iter().filter_map(sql).collect::<Vec<_>>().join(", "));
        let within = within.unwrap_or_else(|| "true".to_owned());
        let view = entity.view;
        format!(
            "(SELECT DISTINCT ON ({of}) x.* FROM {view} x WHERE {within} ORDER BY {of}, {time} DESC NULLS LAST, {key})"
        )
    }

    /// What `bucket:` alone says.
    fn buckets(&self, width: bucket::Width, fills: bool) -> bucket::Buckets<'_> {
        let one = |kind| match self.last(kind).map(|clause| &clause.says) {
            Some(Says::Fields(fields)) => fields.first().map(|(path, _)| path),
            _ => None,
        };
        let function = self.last(ClauseKind::Aggregate).and_then(|clause| word(clause).ok());
        let (of, series) = (one(ClauseKind::ValueField), one(ClauseKind::Series));
        bucket::Buckets { width, function, of, series, fills }
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
        by_groups || names(&self.query.filter, &is_state, is_uid)
    }

    /// Whether the relation where the entity is searched has all that says which rows there are, of groups all that is
    /// said of them, and of pages the rows are few.
    fn is_of_search(&self) -> bool {
        let of_clauses = match (self.last(ClauseKind::Stats).map(|clause| &clause.says), self.extent) {
            (_, Extent::Live { .. }) => false,
            (Some(Says::Aggregates(aggregates, keys)), _) => {
                let is_searched = |path: &Path| is_searched(self.entity, path);
                keys.iter().all(|key| is_searched(&key.field))
                    && aggregates.iter().all(|aggregate| {
                        let is_timed = TIMED.contains(&aggregate.function.as_str());
                        let only = aggregate.only.as_ref().map(|(path, _)| path);
                        !is_timed && aggregate.of.iter().chain(only).all(is_searched)
                    })
            }
            (_, Extent::Page { .. }) => {
                self.is_narrow() && self.order().iter().all(|(path, _)| is_searched(self.entity, path))
            }
            _ => false,
        };
        of_clauses && self.last(ClauseKind::Time).is_none() && is_of_search(self.entity, &self.query.filter)
    }

    /// Whether the rows are so few that they are found before they are sorted.
    fn is_narrow(&self) -> bool {
        // By their keys they stand as chance has it: the database can tell how many it would go through.
        let by_key = self.order().first().is_some_and(|(path, _)| {
            let key = |found: Found| !found.of_device && self.entity.key.first() == found.field.names.first();
            find(self.entity, path).is_ok_and(key)
        });
        !by_key && is_narrow(self.entity, &self.query.filter)
    }

    /// Whether the rows of a page are found the same way whatever the values are.
    fn is_found_alike(&self) -> bool {
        let is_page = matches!(self.extent, Extent::Page { .. });
        let is_of_rows = ![ClauseKind::Stats, ClauseKind::Bucket, ClauseKind::Time]
            .iter()
            .any(|kind| self.last(*kind).is_some());
        is_page && is_of_rows && self.is_narrow() && is_found_alike(self.entity, &self.query.filter)
    }

    /// What rows are in order by.
    fn order(&self) -> Vec<(Path, Option<bool>)> {
        let mut order = self.sort();
        if order.is_empty() {
            order.extend(self.entity.order.iter().map(|(name, is_down)| (named(name), Some(*is_down))));
        }
        order.extend(self.entity.key.iter().map(|name| (named(name), Some(false))));
        order
    }

    /// Rows as they are: all fields, or those that are asked for.
    fn rows(&self, rows: &mut Conditions<'_>, from: &str) -> Listing {
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
                    rows.errors.push(QueryError::new(Code::BadValue, path.span, said));
                }
                Ok(found) => {
                    let is_id = path.text().eq_ignore_ascii_case("device_id");
                    let name = if is_id { "device_id".to_owned() } else { found.name() };
                    if columns.iter().any(|column| column.name == name) {
                        let said = format!("{name} is asked for twice");
                        rows.errors.push(QueryError::new(Code::BadValue, path.span, said));
                    }
                    let value = found.value(self.entity, rows.out);
                    let (value, shape) = shown(found.kind(), &value);
                    values.push(value);
                    columns.push(Column { name, shape });
                }
                Err(error) => rows.errors.push(error),
            }
        }
        let mut keys: Vec<SortKey> = Vec::new();
        for (path, is_down) in self.order() {
            match find(self.entity, &path) {
                Ok(found) if matches!(found.kind(), Kind::Map | Kind::Nested | Kind::Json) => {
                    let said = format!("nothing can be sorted by {}", found.name());
                    rows.errors.push(QueryError::new(Code::BadOperator, path.span, said));
                }
                Ok(found) => {
                    let is_down = is_down.unwrap_or(found.kind() == Kind::Time);
                    let has_nulls = found.of_device || !self.entity.key.contains(&found.field.names[0]);
                    let key = |sql, of| SortKey { sql, of, is_down, has_nulls };
                    let before = found.field.sort_before.filter(|_| !found.of_device);
                    let sql = found.value(self.entity, rows.out);
                    // What is sorted by twice says nothing the second time.
                    if keys.iter().any(|known| known.sql == sql) {
                        continue;
                    }
                    let of = type_of(found.kind());
                    keys.extend(before.map(|before| key(before.replace("{e}", "e"), of)));
                    keys.push(key(sql, of));
                }
                Err(error) => rows.errors.push(error),
            }
        }
        Listing {
            columns,
            select: format!("SELECT {}", values.join(", ")),
            from: from.to_owned(),
            keys,
            narrow: self.is_narrow().then_some(self.entity.view),
        }
    }
}

/// A value as it leaves the database.
pub(crate) fn shown(kind: Kind, value: &str) -> (String, Shape) {
    match kind {
        Kind::Text | Kind::Hostname | Kind::Mac | Kind::MacDigits | Kind::Claim | Kind::NamedClaim => {
            (value.to_owned(), Shape::Text)
        }
        Kind::Address => (format!("host({value})"), Shape::Text),
        Kind::Uid => (format!("'sr:' || {value}"), Shape::Text),
        Kind::Integer => (format!("{value}::bigint"), Shape::Integer),
        Kind::Bool => (value.to_owned(), Shape::Bool),
        Kind::Time => (value.to_owned(), Shape::Time),
        Kind::AnyOf | Kind::AllOf => (value.to_owned(), Shape::Texts),
        Kind::Map | Kind::Nested | Kind::Json => (value.to_owned(), Shape::Json),
    }
}

/// Whether a filter names a field that is so, or has a free term that is.
fn names(filter: &Expression, is_so: &impl Fn(&Path) -> bool, is_free: fn(&Scalar) -> bool) -> bool {
    match filter {
        Expression::All(terms) | Expression::Any(terms) => {
            terms.iter().any(|term| names(term, is_so, is_free))
        }
        Expression::Not(inner) => names(inner, is_so, is_free),
        Expression::Is(path, _) => is_so(path),
        Expression::Free(scalar) => is_free(scalar),
        // What elements have is theirs.
        Expression::Has(..) => false,
    }
}

/// The path of a field by its name.
fn named(name: &str) -> Path {
    Path { parts: vec![name.to_owned()], span: (0, 0) }
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
