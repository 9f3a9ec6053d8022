//! Pages: the order in which rows come, and where a page begins.
//!
//! The order is total, since the key of the entity ends it; nulls are last. A page begins behind a row, whose keys are its
//! keyset: that row may be gone, and rows may come and go, and none whose keys stay as they are is skipped or repeated.

use crate::{
    catalogue::Kind,
    plan::{Column, Shape},
    statement::{Parameter, Statement},
};

/// Which way a page goes on from a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To the rows behind it.
    Next,
    /// To the rows before it.
    Previous,
}

/// Where a page begins: behind, or before, the row with these keys, as PostgreSQL writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyset {
    /// Which way.
    pub way: Way,
    /// A value per key.
    pub values: Vec<Option<String>>,
}

/// What rows are in order by.
#[derive(Clone, Debug)]
pub(crate) struct SortKey {
    pub(crate) sql: String,
    /// Its type in SQL.
    pub(crate) of: &'static str,
    pub(crate) is_down: bool,
    /// Whether it may be null.
    pub(crate) has_nulls: bool,
}

/// Rows of which pages are made.
pub(crate) struct Listing {
    pub(crate) columns: Vec<Column>,
    /// What they show: `SELECT a, b`.
    pub(crate) select: String,
    /// Where they come from, with a condition: ` FROM x WHERE y`.
    pub(crate) from: String,
    pub(crate) keys: Vec<SortKey>,
    /// Of devices that an index finds, few of all: their view. They are found and sorted before the rest of them is read,
    /// since whoever goes through all in the order of the page, until it has enough, may go through nearly all.
    pub(crate) narrow: Option<&'static str>,
}

/// The type in SQL of what is sorted by, of a field.
pub(crate) fn type_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Address => "inet",
        Kind::Uid => "uuid",
        Kind::Integer => "bigint",
        Kind::Bool => "boolean",
        Kind::Time => "timestamptz",
        Kind::AnyOf | Kind::AllOf => "text[]",
        Kind::Map | Kind::Nested | Kind::Json => "jsonb",
        Kind::Text | Kind::Hostname | Kind::Mac | Kind::MacDigits | Kind::Claim | Kind::NamedClaim => "text",
    }
}

/// The same, of what is computed.
pub(crate) fn type_of_shape(shape: Shape) -> &'static str {
    match shape {
        Shape::Text => "text",
        Shape::Integer => "bigint",
        Shape::Number => "double precision",
        Shape::Bool => "boolean",
        Shape::Time => "timestamptz",
        Shape::Texts => "text[]",
        Shape::Json => "jsonb",
    }
}

/// The rows that are behind, or before, a row: those with a value of the first key, and those without one, apart, so that
/// an index on it finds each.
#[derive(Clone, Copy)]
enum Part {
    /// Those that share with the row whether the first key has a value.
    Like,
    /// All without a value.
    Nulls,
    /// All with one.
    Values,
}

impl Listing {
    /// All rows, in order, with parameters as they stand.
    pub(crate) fn whole(&self, bound: &Statement, limit: Option<i64>) -> Statement {
        let mut out = bound.clone();
        let order = self.order(Way::Next);
        out.sql = format!("{}{} ORDER BY {order}", self.select, self.from);
        if let Some(limit) = limit {
            out.sql.push_str(&format!(" LIMIT {limit}"));
        }
        out
    }

    /// The statements of a page, to be run one after the other until there are rows enough. Behind the columns of a row
    /// are its keys, as texts. The limit is written out: what has no parameters the database plans once, and not each time:
    /// 0.6 ms of some 2 of a first page.
    pub(crate) fn page(&self, bound: &Statement, limit: i64, from: Option<&Keyset>) -> Vec<Statement> {
        let keys: String = self.keys.iter().map(|key| format!(", ({})::text", key.sql)).collect();
        let way = from.map_or(Way::Next, |from| from.way);
        let order = self.order(way);
        let write = |mut out: Statement, condition: &str| {
            let Self { select, from, .. } = self;
            out.sql = match self.narrow {
                None => format!("{select}{keys}{from}{condition} ORDER BY {order} LIMIT {limit}"),
                Some(view) => {
                    // No index has this order.
                    let found = self.order_of(way, |sql| format!("coalesce({sql}, {sql})"));
                    format!(
                        "{select}{keys} FROM (SELECT e.uid{from}{condition} ORDER BY {found} LIMIT {limit}) n \
                         JOIN {view} e ON e.uid = n.uid ORDER BY {order}"
                    )
                }
            };
            out
        };
        let Some(keyset) = from else {
            return vec![write(bound.clone(), "")];
        };
        let has_value = keyset.values.first().is_some_and(Option::is_some);
        let has_nulls = self.keys.first().is_some_and(|key| key.has_nulls);
        let parts: &[Part] = match (keyset.way, has_value) {
            (Way::Next, true) if has_nulls => &[Part::Like, Part::Nulls],
            (Way::Previous, false) => &[Part::Like, Part::Values],
            _ => &[Part::Like],
        };
        let each = parts.iter().map(|part| {
            let mut out = bound.clone();
            let condition = self.condition(*part, keyset, &mut out);
            write(out, &format!(" AND {condition}"))
        });
        each.collect()
    }

    fn order(&self, way: Way) -> String {
        self.order_of(way, str::to_owned)
    }

    fn order_of(&self, way: Way, key_of: impl Fn(&str) -> String) -> String {
        let each = self.keys.iter().map(|key| {
            let is_down = key.is_down != (way == Way::Previous);
            let nulls = if way == Way::Next { "LAST" } else { "FIRST" };
            format!("{} {} NULLS {nulls}", key_of(&key.sql), if is_down { "DESC" } else { "ASC" })
        });
        each.collect::<Vec<_>>().join(", ")
    }

    fn condition(&self, part: Part, keyset: &Keyset, out: &mut Statement) -> String {
        let Some((key, rest)) = self.keys.split_first() else {
            return "false".to_owned();
        };
        match (part, keyset.values.split_first()) {
            (Part::Nulls, _) => format!("{} IS NULL", key.sql),
            (Part::Values, _) => format!("{} IS NOT NULL", key.sql),
            (Part::Like, Some((Some(value), values))) => {
                let bound = bind(key, value, out);
                let sign = sign(key, keyset.way);
                let beyond = beyond(rest, values, keyset.way, out);
                let sql = &key.sql;
                format!("{sql} {sign}= {bound} AND ({sql} {sign} {bound} OR {beyond})")
            }
            (Part::Like, Some((None, values))) => {
                format!("{} IS NULL AND {}", key.sql, beyond(rest, values, keyset.way, out))
            }
            (Part::Like, None) => "false".to_owned(),
        }
    }
}

/// Which rows are beyond one, by these keys.
fn beyond(keys: &[SortKey], values: &[Option<String>], way: Way, out: &mut Statement) -> String {
    let (Some((key, keys)), Some((value, values))) = (keys.split_first(), values.split_first()) else {
        return "false".to_owned();
    };
    let sql = &key.sql;
    match value {
        Some(value) => {
            let bound = bind(key, value, out);
            let sign = sign(key, way);
            let nulls =
                if way == Way::Next && key.has_nulls { format!(" OR {sql} IS NULL") } else { String::new() };
            let rest = beyond(keys, values, way, out);
            format!("({sql} {sign} {bound}{nulls} OR ({sql} = {bound} AND {rest}))")
        }
        None => {
            let values_too =
                if way == Way::Previous { format!("{sql} IS NOT NULL OR ") } else { String::new() };
            let rest = beyond(keys, values, way, out);
            format!("({values_too}({sql} IS NULL AND {rest}))")
        }
    }
}

fn sign(key: &SortKey, way: Way) -> &'static str {
    if key.is_down != (way == Way::Previous) { "<" } else { ">" }
}

fn bind(key: &SortKey, value: &str, out: &mut Statement) -> String {
    let bound = out.bind(Parameter::Text(value.to_owned()));
    format!("{bound}::{}", key.of)
}
