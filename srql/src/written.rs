//! Rows as they are written: objects, lines of JSON, comma-separated values.

use std::io;

use serde_json::{Map, Value};

use crate::plan::Column;

/// A row as an object.
pub fn object(columns: &[Column], row: &[Value]) -> Value {
    let names = columns.iter().map(|column| column.name.clone());
    Value::Object(names.zip(row.iter().cloned()).collect::<Map<_, _>>())
}

/// The first line of comma-separated values.
pub fn csv_header(columns: &[Column], out: &mut impl io::Write) -> io::Result<()> {
    write_csv(columns.iter().map(|column| column.name.clone()), out)
}

/// A line of comma-separated values.
pub fn csv_row(row: &[Value], out: &mut impl io::Write) -> io::Result<()> {
    write_csv(row.iter().map(csv_cell), out)
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
        csv_row(&[json!("=1+1"), json!(-5), json!(null), json!("a,\"b\"")], &mut line).unwrap();
        assert_eq!(String::from_utf8(line).unwrap(), "'=1+1,-5,,\"a,\"\"b\"\"\"\n");
    }
}
