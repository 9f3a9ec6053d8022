//! Data on stdout: aligned columns for people, one JSON object per line for programs.

use std::{
    borrow::Cow,
    io::{self, Write},
};

use clap::ValueEnum;
use serde_json::{Map, Value};

/// How data are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns.
    #[default]
    Table,
    /// One JSON object per line.
    Json,
}

/// Writes rows, one value per column.
pub(crate) fn rows(format: Format, columns: &[&str], rows: &[Vec<Value>]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match format {
        Format::Table => out.write_all(table(columns, rows).as_bytes())?,
        Format::Json => {
            for row in rows {
                let pairs = columns.iter().zip(row);
                let object: Map<String, Value> =
                    pairs.map(|(name, value)| (name.replace(' ', "_"), value.clone())).collect();
                writeln!(out, "{}", Value::Object(object))?;
            }
        }
    }
    out.flush()
}

/// Writes a line of text.
pub(crate) fn line(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

fn table(columns: &[&str], rows: &[Vec<Value>]) -> String {
    let mut widths: Vec<usize> = columns.iter().map(|name| name.chars().count()).collect();
    for row in rows {
        for (width, value) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell(value).chars().count());
        }
    }
    let mut text =
        String::with_capacity((rows.len() + 1) * widths.iter().map(|width| width + 2).sum::<usize>());
    put_line(&mut text, &widths, columns.iter().map(|name| Cow::Borrowed(*name)));
    for row in rows {
        put_line(&mut text, &widths, row.iter().map(cell));
    }
    text
}

fn put_line<'a>(text: &mut String, widths: &[usize], cells: impl Iterator<Item = Cow<'a, str>>) {
    let line = text.len();
    for (cell, width) in cells.zip(widths) {
        text.push_str(&cell);
        text.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
    }
    text.truncate(line + text[line..].trim_end().len());
    text.push('\n');
}

fn cell(value: &Value) -> Cow<'_, str> {
    match value {
        Value::Null => "-".into(),
        // A line break in a value must not look like a row.
        Value::String(text) if text.contains(['\n', '\r']) => text.replace(['\n', '\r'], " ").into(),
        Value::String(text) => text.into(),
        other => other.to_string().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_aligned_and_keeps_a_row_in_a_line() {
        let rows = [vec!["a\nb".into(), 1.into()], vec!["longer".into(), Value::Null]];
        assert_eq!(table(&["name", "n"], &rows), "name    n\na b     1\nlonger  -\n");
    }
}
