//! Rows as they are written: objects, lines of JSON, comma-separated values, batches of Arrow.

use std::io;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use serviceradar_schemas::time;

use crate::{
    arrow::Batches,
    page::Keyset,
    plan::{Column, Plan, Shape},
    reader::Answer,
};

/// How rows are written one by one, as they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowFormat {
    /// An object a line.
    Ndjson,
    /// A line each, behind one of the names.
    Csv,
    /// Arrow's stream of record batches.
    Arrow,
}

impl RowFormat {
    /// What the answer is, for whoever reads it.
    pub fn media_type(self) -> &'static str {
        match self {
            RowFormat::Ndjson => "application/x-ndjson",
            RowFormat::Csv => "text/csv; charset=utf-8",
            RowFormat::Arrow => "application/vnd.apache.arrow.stream",
        }
    }
}

/// Writes rows one by one.
pub struct RowWriter(Rows);

enum Rows {
    Ndjson(Vec<Column>),
    Csv,
    Arrow(Box<Batches>),
}

impl RowWriter {
    /// Writes what stands before the rows.
    pub fn begin(format: RowFormat, columns: &[Column], out: &mut impl io::Write) -> io::Result<Self> {
        Ok(Self(match format {
            RowFormat::Ndjson => Rows::Ndjson(columns.to_vec()),
            RowFormat::Csv => {
                write_csv(columns.iter().map(|column| column.name.clone()), out)?;
                Rows::Csv
            }
            RowFormat::Arrow => Rows::Arrow(Box::new(Batches::new(columns)?)),
        }))
    }

    /// Writes a row.
    pub fn row(&mut self, row: &[Value], out: &mut impl io::Write) -> io::Result<()> {
        match &mut self.0 {
            Rows::Ndjson(columns) => {
                serde_json::to_writer(&mut *out, &Object(columns, row))?;
                out.write_all(b"\n")
            }
            Rows::Csv => write_csv(row.iter().map(csv_cell), out),
            Rows::Arrow(batches) => {
                batches.row(row)?;
                out.write_all(&batches.take())
            }
        }
    }

    /// Writes what stands behind the rows.
    pub fn end(&mut self, out: &mut impl io::Write) -> io::Result<()> {
        match &mut self.0 {
            Rows::Ndjson(_) | Rows::Csv => Ok(()),
            Rows::Arrow(batches) => {
                batches.end()?;
                out.write_all(&batches.take())
            }
        }
    }
}

/// A row as an object, in the order of its columns, whose names differ.
pub struct Object<'a>(pub &'a [Column], pub &'a [Value]);

impl Serialize for Object<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|column| &column.name).zip(self.1))
    }
}

/// The type of a column, in a word.
pub(crate) fn type_of(column: &Column) -> &'static str {
    match column.shape {
        Shape::Text => "text",
        Shape::Integer => "integer",
        Shape::Number => "number",
        Shape::Bool => "boolean",
        Shape::Time => "time",
        Shape::Texts => "texts",
        Shape::Json => "json",
    }
}

/// An answer as one object, JSON; cursors are written by `write`.
pub fn told(plan: &Plan, answer: &Answer, write: impl Fn(Keyset) -> String) -> io::Result<String> {
    told_as(plan, answer, write, |row, out| Ok(serde_json::to_writer(out, &Object(&plan.columns, row))?))
}

/// The same, of rows that `put` writes.
pub(crate) fn told_as<R>(
    plan: &Plan,
    answer: &Answer<R>,
    write: impl Fn(Keyset) -> String,
    put: impl Fn(&R, &mut Vec<u8>) -> io::Result<()>,
) -> io::Result<String> {
    let columns: Vec<Value> =
        plan.columns.iter().map(|column| json!({ "name": column.name, "type": type_of(column) })).collect();
    let is = |shape: Shape| plan.columns.iter().any(|column| column.shape == shape);
    let has_time = plan.columns.first().is_some_and(|column| column.name == "timestamp");
    let suggestion = if has_time && (is(Shape::Number) || is(Shape::Integer)) {
        "line"
    } else if plan.columns.len() == 2 && plan.columns.get(1).is_some_and(|c| c.shape == Shape::Integer) {
        "bar"
    } else {
        "table"
    };
    let time =
        plan.time.map(|(from, to)| json!({ "from": from.map(time::format), "to": to.map(time::format) }));
    let meta = json!({
        "entity": plan.entity.name(),
        "time": time,
        "took_ms": answer.took.as_millis() as u64,
        "generation": answer.generation,
        "epoch": answer.epoch,
        "complete_to": answer.complete_to.map(time::format),
    });
    let pagination = json!({
        "next_cursor": answer.next.clone().map(&write),
        "prev_cursor": answer.previous.clone().map(&write),
        "limit": plan.limit,
        "total": answer.total,
    });
    let viz = json!({ "columns": columns, "suggestions": [suggestion] });
    let mut out =
        format!(r#"{{"meta":{meta},"pagination":{pagination},"viz":{viz},"results":["#).into_bytes();
    for (at, row) in answer.rows.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        put(row, &mut out)?;
    }
    out.extend_from_slice(b"]}");
    String::from_utf8(out).map_err(io::Error::other)
}

fn write_csv(cells: impl Iterator<Item = String>, out: &mut impl io::Write) -> io::Result<()> {
    let mut line = csv::Writer::from_writer(out);
    // What fails is the writing: a record of texts is always one.
    line.write_record(cells).map_err(|error| match error.into_kind() {
        csv::ErrorKind::Io(error) => error,
        other => io::Error::other(format!("{other:?}")),
    })?;
    line.flush()
}

/// A value as people read it.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// A cell: a text that a spreadsheet would compute is marked as text.
fn csv_cell(value: &Value) -> String {
    match value {
        Value::String(text) if text.starts_with(['=', '+', '-', '@']) => format!("'{text}"),
        other => text(other),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_spreadsheet_computes_nothing() {
        let mut line = Vec::new();
        let mut rows = RowWriter::begin(RowFormat::Csv, &[], &mut Vec::new()).unwrap();
        rows.row(&[json!("=1+1"), json!(-5), json!(null), json!("a,\"b\"")], &mut line).unwrap();
        assert_eq!(String::from_utf8(line).unwrap(), "'=1+1,-5,,\"a,\"\"b\"\"\"\n");
    }
}
