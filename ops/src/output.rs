//! Data on stdout: aligned columns for people, one JSON object per line for programs.

use std::io::{self, Write};

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
    let header = columns.iter().map(|name| name.to_string()).collect();
    let lines: Vec<Vec<String>> =
        std::iter::once(header).chain(rows.iter().map(|row| row.iter().map(cell).collect())).collect();
    let width = |column: usize| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        // A line break in a value must not look like a row.
        Value::String(text) => text.replace(['\n', '\r'], " "),
        other => other.to_string(),
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
