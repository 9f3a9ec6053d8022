//! Answers, as they are written to stdout.

use std::io::{self, Write};

use clap::ValueEnum;
use serde_json::{Value, json};
use serviceradar_schemas::time;
use serviceradar_srql::{
    page::Keyset,
    plan::{Column, Plan, Shape},
    reader::Answer,
    written::{RowFormat, RowWriter, text, told},
};

use crate::output::{self, Format};

/// How rows are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Written {
    /// Aligned columns, without those that nothing is in
    Table,
    /// One object: results and what they are of
    Json,
    /// One object per line, and all rows unless limit: is said
    Ndjson,
    /// Comma-separated values, and all rows unless limit: is said
    Csv,
    /// Arrow's stream of record batches, and all rows unless limit: is said
    Arrow,
}

impl Written {
    /// Its name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Written::Table => "table",
            Written::Json => "json",
            Written::Ndjson => "ndjson",
            Written::Csv => "csv",
            Written::Arrow => "arrow",
        }
    }

    /// How rows go out one by one, as they come, and all of them, if they do.
    pub(crate) fn by_rows(self) -> Option<RowFormat> {
        match self {
            Written::Table | Written::Json => None,
            Written::Ndjson => Some(RowFormat::Ndjson),
            Written::Csv => Some(RowFormat::Csv),
            Written::Arrow => Some(RowFormat::Arrow),
        }
    }
}

/// Writes a page; `cursor` writes where others begin.
pub(crate) fn page(
    written: Written,
    plan: &Plan,
    answer: &Answer,
    cursor: impl Fn(Keyset) -> String,
) -> io::Result<()> {
    if let Some(format) = written.by_rows() {
        let mut rows = Rows::begin(format, &plan.columns)?;
        answer.rows.iter().try_for_each(|row| rows.put(row))?;
        return rows.end();
    }
    match written {
        Written::Table => table(answer),
        _ => output::line(&told(plan, answer, cursor)?),
    }
}

/// Rows that are written one by one.
pub(crate) struct Rows {
    rows: RowWriter,
    out: io::BufWriter<io::StdoutLock<'static>>,
}

impl Rows {
    /// Begins with what stands before the first.
    pub(crate) fn begin(format: RowFormat, columns: &[Column]) -> io::Result<Self> {
        let mut out = io::BufWriter::new(io::stdout().lock());
        Ok(Self { rows: RowWriter::begin(format, columns, &mut out)?, out })
    }

    /// Writes a row.
    pub(crate) fn put(&mut self, row: &[Value]) -> io::Result<()> {
        self.rows.row(row, &mut self.out)
    }

    /// Writes what stands behind them, and makes sure that all are out.
    pub(crate) fn end(mut self) -> io::Result<()> {
        self.rows.end(&mut self.out)?;
        self.out.flush()
    }
}

/// Columns in which something is, but for those that are objects.
fn table(answer: &Answer) -> io::Result<()> {
    let is_shown = |at: &usize| {
        let column = &answer.columns[*at];
        let is_told = column.shape != Shape::Json && column.name != "device_id";
        is_told && answer.rows.iter().any(|row| !row[*at].is_null())
    };
    let shown: Vec<usize> = (0..answer.columns.len()).filter(is_shown).collect();
    let names: Vec<&str> = shown.iter().map(|at| answer.columns[*at].name.as_str()).collect();
    let cell = |value: &Value| match value {
        Value::Array(items) => Value::String(items.iter().map(text).collect::<Vec<_>>().join(", ")),
        other => other.clone(),
    };
    let rows: Vec<Vec<Value>> =
        answer.rows.iter().map(|row| shown.iter().map(|at| cell(&row[*at])).collect()).collect();
    if rows.is_empty() { output::line("no rows") } else { output::rows(Format::Table, &names, &rows) }
}

/// A page in a line: rows, of how many where that was asked, how long it took, up to when the views are complete, and
/// whether there is more.
pub(crate) fn summary(answer: &Answer) -> String {
    let count = answer.rows.len();
    let rows = match answer.total {
        Some(total) => format!("{count} of {total} rows"),
        None if count == 1 => "1 row".to_owned(),
        None => format!("{count} rows"),
    };
    let complete_to = answer.complete_to.map(|at| format!(", complete to {}", time::format(at)));
    let more = if answer.next.is_some() { "; next has more" } else { "" };
    format!("{rows}, {} ms{}{more}", answer.took.as_millis(), complete_to.unwrap_or_default())
}

/// Writes the statements of a plan, and their parameters.
pub(crate) fn translation(format: Format, plan: &Plan) -> io::Result<()> {
    // Without a cursor it is one.
    for statement in &plan.statements {
        let parameters: Vec<String> = statement.parameters.iter().map(|of| format!("{of:?}")).collect();
        if format == Format::Json {
            output::line(&json!({ "sql": statement.sql, "parameters": parameters }).to_string())?;
            continue;
        }
        output::line(&statement.sql)?;
        for (number, parameter) in (1..).zip(parameters) {
            output::line(&format!("${number} = {parameter}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serviceradar_srql::page::Way;

    use super::*;

    #[test]
    fn a_page_ends_with_what_it_is_of() {
        let next = Keyset { way: Way::Next, values: Vec::new() };
        let mut answer = Answer {
            columns: Vec::new(),
            rows: vec![Vec::new()],
            next: None,
            previous: None,
            total: None,
            generation: 1,
            epoch: None,
            complete_to: None,
            took: Duration::from_micros(7_900),
        };
        assert_eq!(summary(&answer), "1 row, 7 ms");
        answer.rows.push(Vec::new());
        answer.complete_to = Some(0);
        assert_eq!(summary(&answer), "2 rows, 7 ms, complete to 1970-01-01T00:00:00Z");
        (answer.total, answer.next) = (Some(12), Some(next));
        assert_eq!(summary(&answer), "2 of 12 rows, 7 ms, complete to 1970-01-01T00:00:00Z; next has more");
    }
}
