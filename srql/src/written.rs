//! Rows as they are written: objects, lines of JSON, comma-separated values, batches of Arrow.

use std::io;

use serde::{Serialize, Serializer};
use serde_json::Value;

use crate::{arrow::Batches, plan::Column};

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
