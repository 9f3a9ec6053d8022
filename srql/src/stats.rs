//! What is computed of groups of rows.

use crate::{
    bucket::Width,
    catalogue::{Entity, Kind},
    error::{Code, QueryError},
    page::{Listing, SortKey, type_of_shape},
    plan::{Column, Shape, shown},
    predicate::{Conditions, Found, find, has_value},
    rate::rate,
    statement::{Parameter, Statement},
    syntax::{Aggregate, Key, Path, Scalar, Value},
};

/// Values that `values(f)` lists.
const VALUES_MAX: usize = 100;

/// What can be computed.
pub(crate) const AGGREGATES: [&str; 14] = [
    "count",
    "count_distinct",
    "sum",
    "avg",
    "min",
    "max",
    "p50",
    "p90",
    "p95",
    "p99",
    "first",
    "last",
    "rate",
    "values",
];

/// Of them, those that go by time.
pub(crate) const TIMED: [&str; 3] = ["first", "last", "rate"];

/// A column that is computed, and its SQL.
pub(crate) struct Computed {
    pub(crate) column: Column,
    pub(crate) sql: String,
}

/// Writes aggregates by keys, and by time where buckets are asked for.
pub(crate) fn write(
    rows: &mut Conditions<'_>,
    (aggregates, keys): (&[Aggregate], &[Key]),
    width: Option<Width>,
    (having, sort): (&[Scalar], &[(Path, Option<bool>)]),
    from: &str,
) -> Listing {
    let entity = rows.entity;
    let mut computed: Vec<Computed> = Vec::new();
    let put = |one: Result<Computed, QueryError>, span, all: &mut Vec<Computed>| match one {
        Ok(one) if all.iter().any(|known| known.column.name == one.column.name) => {
            let said = format!("two columns are called {}", one.column.name);
            Some(QueryError::new(Code::BadValue, span, said).hint("name one with: as other"))
        }
        Ok(one) => {
            all.push(one);
            None
        }
        Err(error) => Some(error),
    };
    if let Some(width) = width {
        let timestamp = width.timestamp(rows);
        rows.errors.extend(put(timestamp, width.span, &mut computed));
    }
    for key in keys {
        let one = grouped(entity, key, rows.out);
        rows.errors.extend(put(one, key.field.span, &mut computed));
    }
    let groups = computed.len();
    for aggregate in aggregates {
        let one = compute(rows, aggregate);
        rows.errors.extend(put(one, aggregate.span, &mut computed));
    }
    let mut conditions = Vec::new();
    for word in having {
        match condition_on_group(word, computed.get(groups..).unwrap_or_default(), rows.out) {
            Ok(sql) => conditions.push(sql),
            Err(error) => rows.errors.push(error),
        }
    }
    let key = |at: usize, is_down: bool| SortKey {
        sql: format!("g.c{at}"),
        of: type_of_shape(computed[at].column.shape),
        is_down,
        has_nulls: true,
    };
    let mut order: Vec<SortKey> = Vec::new();
    for (path, is_down) in sort {
        let named = |name: &str| computed.iter().position(|one| one.column.name == name);
        let at = named(&path.text()).or_else(|| named(&find(entity, path).ok()?.name()));
        match at {
            Some(at) => {
                order.push(key(at, is_down.unwrap_or(computed[at].column.shape == Shape::Time)));
            }
            None => {
                let said = format!("there is no column '{}' to sort by", path.text());
                let names = computed.iter().map(|one| one.column.name.as_str());
                let error = QueryError::new(Code::UnknownField, path.span, said);
                rows.errors.push(error.did_you_mean(&path.text(), names));
            }
        }
    }
    // The first aggregate, descending, then the keys: after what is asked for, so that the order is total.
    if computed.len() > groups && order.is_empty() {
        order.push(key(groups, true));
    }
    for at in 0..groups {
        if !order.iter().any(|known| known.sql == format!("g.c{at}")) {
            order.push(key(at, false));
        }
    }
    let values: Vec<String> =
        computed.iter().enumerate().map(|(at, one)| format!("{} AS c{at}", one.sql)).collect();
    let by = (1..=groups).map(|at| at.to_string()).collect::<Vec<_>>().join(", ");
    let clause = |keyword: &str, what: &str| {
        if what.is_empty() { String::new() } else { format!(" {keyword} {what}") }
    };
    let groups = format!(
        "SELECT {}{from}{}{}",
        values.join(", "),
        clause("GROUP BY", &by),
        clause("HAVING", &conditions.join(" AND "))
    );
    let shown: Vec<String> = (0..computed.len()).map(|at| format!("g.c{at}")).collect();
    Listing {
        columns: computed.into_iter().map(|one| one.column).collect(),
        select: format!("SELECT {}", shown.join(", ")),
        from: format!(" FROM ({groups}) g WHERE true"),
        keys: order,
        narrow: None,
    }
}

fn grouped(entity: &'static Entity, key: &Key, out: &mut Statement) -> Result<Computed, QueryError> {
    let found = find(entity, &key.field)?;
    if !found.kind().is_groupable() {
        let said = format!("groups cannot go by {}: it is {}", found.name(), found.kind().as_str());
        return Err(QueryError::new(Code::NotGroupable, key.field.span, said));
    }
    let value = found.value(entity, out);
    let Some(prefix) = &key.prefix else {
        let (value, shape) = shown(found.kind(), &value);
        return Ok(Computed { column: Column { name: found.name(), shape }, sql: value });
    };
    if found.kind() != Kind::Address {
        let said = format!("{} is no address", found.name());
        return Err(QueryError::new(Code::BadOperator, key.field.span, said));
    }
    let length = prefix.text.parse::<i64>().ok().filter(|length| (0..=128).contains(length));
    let length = length.ok_or_else(|| {
        QueryError::new(Code::BadValue, prefix.span, format!("'{}' is no length of a network", prefix.text))
    })?;
    let bound = out.bind(Parameter::Integer(length));
    // Of an IPv4 address no more than all of it.
    let sql = format!(
        "network(set_masklen({value}, least({bound}, CASE family({value}) WHEN 4 THEN 32 ELSE 128 END)::int))::text"
    );
    Ok(Computed { column: Column { name: found.name(), shape: Shape::Text }, sql })
}

pub(crate) fn compute(rows: &mut Conditions<'_>, aggregate: &Aggregate) -> Result<Computed, QueryError> {
    let entity = rows.entity;
    let refuse = |code, said: String| Err(QueryError::new(code, aggregate.span, said));
    let function = match aggregate.function.as_str() {
        "group_uniq_array" => "values",
        function => function,
    };
    let found = aggregate.of.as_ref().map(|path| find(entity, path)).transpose()?;
    let name = aggregate.alias.clone().unwrap_or_else(|| match &aggregate.of {
        Some(of) => format!("{function}_{}", of.parts.join("_")),
        None => function.to_owned(),
    });
    if let Some((path, value)) = &aggregate.only {
        if function != "sum" {
            return refuse(Code::BadOperator, "a condition goes with sum alone".to_owned());
        }
        let only = rows.is(path, &Value::One(value.clone()))?;
        let sql = format!("count(*) FILTER (WHERE {only})");
        return Ok(Computed { column: Column { name, shape: Shape::Integer }, sql });
    }
    let Some(found) = found else {
        if function == "count" {
            let column = Column { name, shape: Shape::Integer };
            return Ok(Computed { column, sql: "count(*)".to_owned() });
        }
        return refuse(Code::BadValue, format!("{function}() needs a field"));
    };
    let kind = found.kind();
    let value = found.value(entity, rows.out);
    let there = has_value(kind, &value);
    let is_number = kind == Kind::Integer;
    let wrong = |of: &Found| {
        let said = format!("{function} does not apply to {}: it is {}", of.name(), kind.as_str());
        QueryError::new(Code::BadOperator, aggregate.span, said)
    };
    let (sql, shape) = match function {
        "count" => (format!("count(*) FILTER (WHERE {there})"), Shape::Integer),
        "count_distinct" => (format!("count(DISTINCT {value}) FILTER (WHERE {there})"), Shape::Integer),
        "sum" if is_number => (format!("sum({value})::bigint"), Shape::Integer),
        "avg" if is_number => (format!("avg({value})::double precision"), Shape::Number),
        "p50" | "p90" | "p95" | "p99" if is_number => {
            let part = &function[1..];
            (format!("percentile_cont(0.{part}) WITHIN GROUP (ORDER BY {value})"), Shape::Number)
        }
        "min" | "max"
            if matches!(
                kind,
                Kind::Integer
                    | Kind::Time
                    | Kind::Text
                    | Kind::Hostname
                    | Kind::Mac
                    | Kind::Claim
                    | Kind::NamedClaim
                    | Kind::Address
            ) =>
        {
            shown(kind, &format!("{function}({value})"))
        }
        "first" | "last" if !matches!(kind, Kind::AnyOf | Kind::AllOf) => {
            let way = if function == "first" { "ASC" } else { "DESC" };
            let (_, order) = by_time(entity, aggregate, way)?;
            shown(kind, &format!("(array_agg({value} ORDER BY {order}) FILTER (WHERE {there}))[1]"))
        }
        "rate" if is_number => {
            let (time, order) = by_time(entity, aggregate, "ASC")?;
            (rate(&value, &time, &order, &there), Shape::Number)
        }
        "values"
            if !matches!(
                kind,
                Kind::AnyOf | Kind::AllOf | Kind::Map | Kind::Nested | Kind::Json | Kind::Time
            ) =>
        {
            let text = match kind {
                Kind::Address => format!("host({value})"),
                Kind::Uid => format!("'sr:' || {value}"),
                _ => format!("({value})::text"),
            };
            (format!("(array_agg(DISTINCT {text}) FILTER (WHERE {there}))[1:{VALUES_MAX}]"), Shape::Texts)
        }
        known if AGGREGATES.contains(&known) => return Err(wrong(&found)),
        _ => {
            let said = format!("there is no aggregate '{function}'");
            let error = QueryError::new(Code::BadValue, aggregate.span, said);
            return Err(error.did_you_mean(function, AGGREGATES));
        }
    };
    Ok(Computed { column: Column { name, shape }, sql })
}

/// The time of a row, and the order by it, in which the key of the entity tells those of one time apart.
fn by_time(entity: &Entity, aggregate: &Aggregate, way: &str) -> Result<(String, String), QueryError> {
    let sql = |name: &str| Some(entity.find(name)?.sql.replace("{e}", "e"));
    let time = entity.time.and_then(sql).ok_or_else(|| {
        let said = format!("{} has no time by which {} goes", entity.name(), aggregate.function);
        QueryError::new(Code::BadOperator, aggregate.span, said)
    })?;
    let keys: Vec<String> = entity.key.iter().filter_map(|key| sql(key)).collect();
    let order = format!("{time} {way} NULLS LAST, {}", keys.join(", "));
    Ok((time, order))
}

/// `name>5`.
fn condition_on_group(
    word: &Scalar,
    computed: &[Computed],
    out: &mut Statement,
) -> Result<String, QueryError> {
    let signs = [">=", "<=", ">", "<", "="];
    let first = signs.iter().filter_map(|sign| Some((word.text.find(sign)?, *sign)));
    let Some((at, sign)) = first.min_by_key(|(at, sign)| (*at, std::cmp::Reverse(sign.len()))) else {
        let said = format!("'{}' compares nothing", word.text);
        return Err(QueryError::new(Code::Syntax, word.span, said).hint("write having:count>5"));
    };
    let (name, number) = (word.text[..at].trim(), word.text[at + sign.len()..].trim());
    let Some(one) = computed.iter().find(|one| one.column.name == name) else {
        let said = format!("nothing that is computed is called '{name}'");
        let names = computed.iter().map(|one| one.column.name.as_str());
        return Err(QueryError::new(Code::UnknownField, word.span, said).did_you_mean(name, names));
    };
    if !matches!(one.column.shape, Shape::Integer | Shape::Number) {
        let said = format!("{name} is no number");
        return Err(QueryError::new(Code::BadOperator, word.span, said));
    }
    let is_number =
        number.len() <= 30 && !number.is_empty() && number.parse::<f64>().is_ok_and(f64::is_finite);
    if !is_number {
        return Err(QueryError::new(Code::BadValue, word.span, format!("'{number}' is no number")));
    }
    let bound = out.bind(Parameter::Text(number.to_owned()));
    Ok(format!("{} {sign} {bound}::numeric", one.sql))
}
