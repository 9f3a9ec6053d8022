//! What is computed of groups of rows.

use crate::{
    catalogue::{Entity, Kind},
    error::{Code, QueryError},
    plan::{Column, Shape, shown},
    predicate::{Conditions, Found, find, has_value},
    statement::{Parameter, Statement},
    syntax::{Aggregate, Key, Path, Scalar, Value},
};

/// Values that `values(f)` lists.
const VALUES_MAX: usize = 100;

/// An aggregate, in SQL.
struct Computed {
    name: String,
    sql: String,
    shape: Shape,
}

/// Writes the statement of aggregates by keys; returns its columns.
pub(crate) fn write(
    rows: &mut Conditions<'_>,
    (aggregates, keys): (&[Aggregate], &[Key]),
    (having, sort): (&[Scalar], &[(Path, Option<bool>)]),
    (from, condition): (&str, &str),
) -> Vec<Column> {
    let entity = rows.entity;
    let mut columns: Vec<Column> = Vec::new();
    let mut values: Vec<String> = Vec::new();
    let twice =
        |name: &str, span| QueryError::new(Code::BadValue, span, format!("two columns are called {name}"));
    for key in keys {
        match grouped(entity, key, rows.out) {
            Ok((column, _)) if columns.contains(&column) => {
                rows.errors.push(twice(&column.name, key.field.span))
            }
            Ok((column, value)) => {
                values.push(value);
                columns.push(column);
            }
            Err(error) => rows.errors.push(error),
        }
    }
    let groups = values.len();
    let mut computed: Vec<Computed> = Vec::new();
    for aggregate in aggregates {
        match compute(rows, aggregate) {
            Ok(one) => {
                let names =
                    columns.iter().map(|column| &column.name).chain(computed.iter().map(|of| &of.name));
                if names.into_iter().any(|name| *name == one.name) {
                    rows.errors.push(twice(&one.name, aggregate.span).hint("name one with: as other"));
                } else {
                    computed.push(one);
                }
            }
            Err(error) => rows.errors.push(error),
        }
    }
    let mut conditions = Vec::new();
    for word in having {
        match condition_on_group(word, &computed, rows.out) {
            Ok(sql) => conditions.push(sql),
            Err(error) => rows.errors.push(error),
        }
    }
    values.extend(computed.iter().map(|one| one.sql.clone()));
    columns.extend(computed.into_iter().map(|Computed { name, shape, .. }| Column { name, shape }));
    let mut order = Vec::new();
    for (path, is_down) in sort {
        let named = |name: &str| columns.iter().position(|column| column.name == name);
        let at = named(&path.text()).or_else(|| named(&find(entity, path).ok()?.name()));
        match at {
            Some(at) => {
                let is_down = is_down.unwrap_or(columns[at].shape == Shape::Time);
                order.push(format!("{} {} NULLS LAST", at + 1, if is_down { "DESC" } else { "ASC" }));
            }
            None => {
                let said = format!("there is no column '{}' to sort by", path.text());
                let names = columns.iter().map(|column| column.name.as_str());
                let error = QueryError::new(Code::UnknownField, path.span, said);
                rows.errors.push(error.did_you_mean(&path.text(), names));
            }
        }
    }
    // The first aggregate, descending, then the keys: after what is asked for, so that the order is total.
    if columns.len() > groups && order.is_empty() {
        order.push(format!("{} DESC NULLS LAST", groups + 1));
    }
    order.extend((1..=groups).map(|at| format!("{at} ASC NULLS LAST")));
    let by = (1..=groups).map(|at| at.to_string()).collect::<Vec<_>>().join(", ");
    let clause = |keyword: &str, what: &str| {
        if what.is_empty() { String::new() } else { format!(" {keyword} {what}") }
    };
    rows.out.sql = format!(
        "SELECT {}{from}{condition}{}{}{}",
        values.join(", "),
        clause("GROUP BY", &by),
        clause("HAVING", &conditions.join(" AND ")),
        clause("ORDER BY", &order.join(", ")),
    );
    columns
}

fn grouped(entity: &'static Entity, key: &Key, out: &mut Statement) -> Result<(Column, String), QueryError> {
    let found = find(entity, &key.field)?;
    if !found.kind().is_groupable() {
        let said = format!("groups cannot go by {}: it is {}", found.name(), found.kind().as_str());
        return Err(QueryError::new(Code::NotGroupable, key.field.span, said));
    }
    let value = found.value(entity, out);
    let Some(prefix) = &key.prefix else {
        let (value, shape) = shown(found.kind(), &value);
        return Ok((Column { name: found.name(), shape }, value));
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
    Ok((Column { name: found.name(), shape: Shape::Text }, sql))
}

fn compute(rows: &mut Conditions<'_>, aggregate: &Aggregate) -> Result<Computed, QueryError> {
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
        return Ok(Computed { name, sql, shape: Shape::Integer });
    }
    let Some(found) = found else {
        if function == "count" {
            return Ok(Computed { name, sql: "count(*)".to_owned(), shape: Shape::Integer });
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
                Kind::Integer | Kind::Time | Kind::Text | Kind::Hostname | Kind::Mac | Kind::Address
            ) =>
        {
            shown(kind, &format!("{function}({value})"))
        }
        "first" | "last" if !matches!(kind, Kind::AnyOf | Kind::AllOf) => {
            let Some(time) = entity.time.and_then(|time| entity.find(time)) else {
                return refuse(
                    Code::BadOperator,
                    format!("{} has no time by which one is first", entity.name()),
                );
            };
            let way = if function == "first" { "ASC" } else { "DESC" };
            let time = time.sql.replace("{e}", "e");
            let keys: Vec<String> =
                entity.key.iter().filter_map(|key| Some(entity.find(key)?.sql.replace("{e}", "e"))).collect();
            let order = format!("{time} {way} NULLS LAST, {}", keys.join(", "));
            shown(kind, &format!("(array_agg({value} ORDER BY {order}) FILTER (WHERE {there}))[1]"))
        }
        "values" if !matches!(kind, Kind::AnyOf | Kind::AllOf | Kind::Map | Kind::Json | Kind::Time) => {
            let text = match kind {
                Kind::Address => format!("host({value})"),
                Kind::Uid => format!("'sr:' || {value}"),
                _ => format!("({value})::text"),
            };
            (format!("(array_agg(DISTINCT {text}) FILTER (WHERE {there}))[1:{VALUES_MAX}]"), Shape::Texts)
        }
        "sum" | "avg" | "p50" | "p90" | "p95" | "p99" | "min" | "max" | "first" | "last" | "values" => {
            return Err(wrong(&found));
        }
        _ => {
            let said = format!("there is no aggregate '{function}'");
            let known = [
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
                "values",
            ];
            return Err(QueryError::new(Code::BadValue, aggregate.span, said).did_you_mean(function, known));
        }
    };
    Ok(Computed { name, sql, shape })
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
    let Some(one) = computed.iter().find(|one| one.name == name) else {
        let said = format!("nothing that is computed is called '{name}'");
        let names = computed.iter().map(|one| one.name.as_str());
        return Err(QueryError::new(Code::UnknownField, word.span, said).did_you_mean(name, names));
    };
    if !matches!(one.shape, Shape::Integer | Shape::Number) {
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
