//! Buckets: rows by lengths of time.
//!
//! Lengths of whole days and more are those of the zone; shorter ones are counted from a midnight of UTC.

use jiff::{SpanRound, Unit};

use crate::{
    catalogue::Kind,
    error::{Code, QueryError, Span},
    page::{Listing, SortKey, type_of_shape},
    plan::{Column, Shape, shown},
    predicate::{Conditions, find},
    statement::{Parameter, Statement},
    stats::{self, Computed},
    syntax::{Aggregate, Path, Scalar},
    time_range::duration,
};

/// Buckets of which gaps are filled.
const FILLED_MAX: i64 = 10_000;
const DAY_SECONDS: i64 = 86_400;
/// A Monday, from which buckets are counted.
const ORIGIN: &str = "TIMESTAMP '2001-01-01'";

/// How long a bucket is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Width {
    length: Length,
    pub(crate) span: Span,
}

#[derive(Clone, Copy, Debug)]
enum Length {
    Seconds(i64),
    Months(i64),
}

/// What `bucket:` alone asks for.
pub(crate) struct Buckets<'a> {
    pub(crate) width: Width,
    pub(crate) function: Option<&'a Scalar>,
    pub(crate) of: Option<&'a Path>,
    pub(crate) series: Option<&'a Path>,
    /// Whether gaps are shown.
    pub(crate) fills: bool,
}

/// Reads `bucket:`.
pub(crate) fn width(word: Result<&Scalar, QueryError>) -> Result<Width, QueryError> {
    let word = word?;
    let refuse = || {
        let said = format!("'{}' is no length of a bucket", word.text);
        QueryError::new(Code::BadValue, word.span, said).hint("write 5m, 1h, 1d, 1w, 1mo")
    };
    let length = duration(&word.text.to_lowercase()).ok_or_else(refuse)?;
    let months = i64::from(length.get_years()) * 12 + i64::from(length.get_months());
    let length = if months > 0 {
        Length::Months(months)
    } else {
        let round = SpanRound::new().largest(Unit::Second).days_are_24_hours();
        Length::Seconds(length.round(round).map_err(|_| refuse())?.get_seconds())
    };
    // Longer ones are no bucket, and more than PostgreSQL counts.
    match length {
        Length::Seconds(1..=3_153_600_000) | Length::Months(1..=1_200) => {
            Ok(Width { length, span: word.span })
        }
        _ => Err(refuse()),
    }
}

/// Reads `fill:`.
pub(crate) fn fill(word: Result<&Scalar, QueryError>) -> Result<(), QueryError> {
    let word = word?;
    if word.text.eq_ignore_ascii_case("null") {
        return Ok(());
    }
    let said = format!("gaps cannot be filled with '{}'", word.text);
    Err(QueryError::new(Code::BadValue, word.span, said).hint("write fill:null"))
}

impl Width {
    /// The zone whose clock counts.
    fn zone(self, rows: &Conditions<'_>) -> String {
        let is_of_days = match self.length {
            Length::Seconds(seconds) => seconds % DAY_SECONDS == 0,
            Length::Months(_) => true,
        };
        let zone = rows.moment.zone.iana_name().filter(|_| is_of_days);
        zone.unwrap_or("UTC").to_owned()
    }

    /// Its length, in SQL.
    fn interval(self, out: &mut Statement) -> String {
        match self.length {
            Length::Seconds(seconds) => {
                format!("make_interval(secs => {}::double precision)", out.bind(Parameter::Integer(seconds)))
            }
            Length::Months(months) => {
                format!("make_interval(months => {}::int)", out.bind(Parameter::Integer(months)))
            }
        }
    }

    /// The beginning of a row's bucket, by the clock of the zone, which is bound as `zone`.
    fn local(self, rows: &mut Conditions<'_>, zone: &str) -> Result<String, QueryError> {
        let entity = rows.entity;
        let Some(time) = entity.time.and_then(|time| entity.find(time)) else {
            let said = format!("{} has no time to be counted by", entity.name());
            return Err(QueryError::new(Code::BadOperator, self.span, said));
        };
        let local = format!("({} AT TIME ZONE {zone})", time.sql.replace("{e}", "e"));
        Ok(match self.length {
            Length::Seconds(_) => format!("date_bin({}, {local}, {ORIGIN})", self.interval(rows.out)),
            Length::Months(months) => {
                let bound = rows.out.bind(Parameter::Integer(months));
                let month =
                    format!("(extract(year FROM {local}) * 12 + extract(month FROM {local}) - 1)::int");
                format!("date_trunc('month', {local}) - make_interval(months => {month} % {bound}::int)")
            }
        })
    }

    /// The key `timestamp` of groups.
    pub(crate) fn timestamp(self, rows: &mut Conditions<'_>) -> Result<Computed, QueryError> {
        let zone = rows.out.bind(Parameter::Text(self.zone(rows)));
        let local = self.local(rows, &zone)?;
        let column = Column { name: "timestamp".to_owned(), shape: Shape::Time };
        Ok(Computed { column, sql: format!("({local}) AT TIME ZONE {zone}") })
    }
}

/// Writes `timestamp, series, value`, by time. Of more rows than the limit the newest buckets that are whole are kept.
pub(crate) fn write(
    rows: &mut Conditions<'_>,
    buckets: &Buckets<'_>,
    limit: Option<i64>,
    from: &str,
) -> Listing {
    let written = try_write(rows, buckets, limit, from);
    written.unwrap_or_else(|error| {
        rows.errors.push(error);
        Listing {
            columns: Vec::new(),
            select: String::new(),
            from: String::new(),
            keys: Vec::new(),
            narrow: None,
        }
    })
}

fn try_write(
    rows: &mut Conditions<'_>,
    buckets: &Buckets<'_>,
    limit: Option<i64>,
    from: &str,
) -> Result<Listing, QueryError> {
    let width = buckets.width;
    let zone = rows.out.bind(Parameter::Text(width.zone(rows)));
    let local = width.local(rows, &zone)?;
    let (series, shape) = match buckets.series {
        None => ("NULL::text".to_owned(), Shape::Text),
        Some(path) => {
            let found = find(rows.entity, path)?;
            let kind = found.kind();
            if !kind.is_groupable() || matches!(kind, Kind::AnyOf | Kind::AllOf) {
                let said = format!("{} makes no series: it is {}", found.name(), kind.as_str());
                return Err(QueryError::new(Code::NotGroupable, path.span, said));
            }
            let value = found.value(rows.entity, rows.out);
            shown(kind, &value)
        }
    };
    let value = value(rows, buckets)?;
    // What has no time is in no bucket.
    let counted = format!(
        "SELECT {local} AS at, {series} AS series, {} AS value{from} AND {local} IS NOT NULL GROUP BY 1, 2",
        value.sql
    );
    let filled = if buckets.fills {
        let interval = width.interval(rows.out);
        format!(
            "SELECT t.at, s.series, b.value
             FROM (SELECT t.at FROM (SELECT min(at) AS first, max(at) AS last FROM b) AS ends
                   CROSS JOIN LATERAL generate_series(ends.last, ends.first, -{interval}) AS t(at)
                   LIMIT {FILLED_MAX}) AS t
             CROSS JOIN (SELECT DISTINCT series FROM b) AS s
             LEFT JOIN b ON b.at = t.at AND b.series IS NOT DISTINCT FROM s.series"
        )
    } else {
        "SELECT at, series, value FROM b".to_owned()
    };
    let kept = match limit {
        // Of the newest as many as there may be, whole or not.
        Some(limit) => {
            let limit = rows.out.bind(Parameter::Integer(limit));
            format!("(g.until <= {limit} OR g.at = g.newest)")
        }
        None => "true".to_owned(),
    };
    let from = format!(
        " FROM (WITH b AS ({counted}), f AS ({filled})
             SELECT f.at, f.at AT TIME ZONE {zone} AS timestamp, f.series, f.value,
                    count(*) OVER (ORDER BY f.at DESC) AS until, max(f.at) OVER () AS newest FROM f) g
          WHERE {kept}"
    );
    let column = |name: &str, shape| Column { name: name.to_owned(), shape };
    let key = |sql: &str, shape| SortKey {
        sql: sql.to_owned(),
        of: type_of_shape(shape),
        is_down: false,
        has_nulls: true,
    };
    Ok(Listing {
        columns: vec![
            column("timestamp", Shape::Time),
            column("series", shape),
            column("value", value.column.shape),
        ],
        select: "SELECT g.timestamp, g.series, g.value".to_owned(),
        from,
        keys: vec![key("g.timestamp", Shape::Time), key("g.series", shape)],
        narrow: None,
    })
}

/// What is computed of a bucket: the average of a field, or how many rows there are, unless something else is said.
fn value(rows: &mut Conditions<'_>, buckets: &Buckets<'_>) -> Result<Computed, QueryError> {
    let unsaid = if buckets.of.is_some() { "avg" } else { "count" };
    let function = buckets.function.map_or_else(|| unsaid.to_owned(), |word| word.text.to_lowercase());
    let span = buckets.function.map_or(buckets.width.span, |word| word.span);
    let of = buckets.of.cloned();
    if of.is_none() && function != "count" {
        let said = format!("nothing says of which field {function} is wanted");
        return Err(QueryError::new(Code::BadValue, span, said).hint("say it by value_field:"));
    }
    stats::compute(rows, &Aggregate { function, of, only: None, alias: None, span })
}
